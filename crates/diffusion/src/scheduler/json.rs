//! `scheduler_config.json` as diffusers writes it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::kind::SchedulerKind;
use super::settings::{Settings, shortened};
use super::{Class, Scheduler};
use crate::error::{DiffusionError, Result};

/// The longest configuration that is read; real ones have a kilobyte.
const CAP: u64 = 1 << 20;

/// Every key that a scheduler of diffusers 0.42 with such noise levels has, in order. A class ignores those of another
/// class, so that one file serves them all.
const KEYS: [&str; 43] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// Classes whose files can be read for another solver, though they have none of their own here.
const READ_ONLY: [&str; 7] = [
    "DEISMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "TCDScheduler",
];

/// A `scheduler_config.json` as written: its class, and the settings that it gives.
#[derive(Clone, Debug)]
pub struct SchedulerJson {
    path: PathBuf,
    values: Map<String, Value>,
}

impl SchedulerJson {
    /// Reads `scheduler/scheduler_config.json` of a model's folder.
    ///
    /// # Errors
    /// [`DiffusionError::File`] where it cannot be read, and those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        let length = std::fs::metadata(path).map_err(DiffusionError::file(path))?.len();
        if length > CAP {
            return Err(malformed(path, format!("{length} bytes are too many")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(DiffusionError::file(path))?, path)
    }

    /// The same from a text; `path` is what errors call it.
    ///
    /// Keys that start with `_` say who wrote the file; of those only `_class_name` and `_use_default_values` (keys whose
    /// values are the class's defaults, and so not another class's) mean something.
    ///
    /// # Errors
    /// [`DiffusionError::SchedulerFile`] for a text that is not a JSON object, [`DiffusionError::SchedulerSetting`] for a
    /// class or a key that is unknown.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut values: Map<String, Value> = serde_json::from_str(&with_quoted_numbers(text))
            .map_err(|error| malformed(path, format!("not a JSON object: {error}")))?;
        if let Some(Value::Array(defaults)) = values.remove("_use_default_values") {
            for key in defaults.iter().filter_map(Value::as_str) {
                values.remove(key);
            }
        }
        let settings = Settings { path, values: &values };
        for key in values.keys().filter(|key| !key.starts_with('_')) {
            if KEYS.binary_search(&key.as_str()).is_err() {
                return Err(settings.refuse(key, "the settings of diffusers 0.42's schedulers; remove the key"));
            }
        }
        let class = values.get("_class_name");
        if class.is_some_and(|class| class_of(class).is_none() && !is_read_only(class)) {
            let known: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
            return Err(settings.refuse("_class_name", known.join(", ")));
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// The class that wrote the file, by diffusers' name, where the file says it.
    pub fn class_name(&self) -> Option<&str> {
        self.values.get("_class_name").and_then(Value::as_str)
    }

    /// The file's own solver, or the solver `kind` with the file's noise levels and all its settings that the solver knows:
    /// diffusers' `OtherScheduler.from_config(pipe.scheduler.config)`.
    ///
    /// # Errors
    /// [`DiffusionError::SchedulerSetting`] for a value that is impossible or that this crate does not compute, and for a
    /// class that needs a `kind`.
    pub fn scheduler(&self, kind: Option<SchedulerKind>) -> Result<Scheduler> {
        let mut values = self.values.clone();
        let class = match kind {
            Some(kind) => Some(kind.over(&mut values)),
            None => values.get("_class_name").and_then(class_of),
        };
        let settings = Settings { path: &self.path, values: &values };
        let Some(class) = class else {
            let known: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
            let kinds: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
            let supported = format!(
                "{}; or name the solver to use with this file's noise levels: {}",
                known.join(", "),
                kinds.join(", ")
            );
            return Err(settings.refuse("_class_name", supported));
        };
        Scheduler::read(class, &settings)
    }
}

fn class_of(name: &Value) -> Option<Class> {
    Class::ALL.into_iter().find(|class| name.as_str() == Some(class.name()))
}

fn is_read_only(name: &Value) -> bool {
    READ_ONLY.iter().any(|class| name.as_str() == Some(class))
}

fn malformed(path: &Path, reason: String) -> DiffusionError {
    DiffusionError::SchedulerFile { path: path.to_owned(), reason: shortened(&reason) }
}

/// Python writes infinities (`lambda_min_clipped` has one) and NaN as bare words, which JSON does not have: they become
/// strings.
fn with_quoted_numbers(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut rest, mut in_string) = (text, false);
    while let Some(next) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, in_string, next) {
            (Some(word), ..) => word.len(),
            (None, true, '\\') => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            _ => next.len_utf8(),
        };
        in_string ^= next == '"';
        let (token, after) = rest.split_at(taken);
        if word.is_some() {
            quoted.push('"');
        }
        quoted.push_str(token);
        if word.is_some() {
            quoted.push('"');
        }
        rest = after;
    }
    quoted
}
