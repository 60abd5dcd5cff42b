//! Noise levels by sigma, the ratio of noise to signal, for the solvers that walk over it.

use super::settings::Settings;
use super::spacing::linspace;
use super::{Scheduler, table};
use crate::error::{DiffusionError, Result};

/// How sigmas fall when not along the timesteps of the spacing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ramp {
    curve: Option<Curve>,
    /// `sigma_min`, where the file has it.
    lowest: Option<f64>,
    /// `sigma_max`, where the file has it.
    highest: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    /// Karras et al. 2022, equation 5, rho = 7.
    Karras,
    /// Evenly in the logarithm.
    Exponential,
    /// Quantiles of a beta distribution with both parameters 0.6 ("Beta Sampling is All You Need", Lee et al. 2024).
    Beta,
}

/// What a walk ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Final {
    Zero,
    SigmaMin,
}

impl Final {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        settings.choice("final_sigmas_type", "zero", &[("zero", Self::Zero), ("sigma_min", Self::SigmaMin)])
    }
}

impl Ramp {
    /// No curve: sigmas along the timesteps.
    pub const NONE: Self = Self { curve: None, lowest: None, highest: None };

    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        let curves = [
            ("use_karras_sigmas", Curve::Karras),
            ("use_exponential_sigmas", Curve::Exponential),
            ("use_beta_sigmas", Curve::Beta),
        ];
        let mut curve = None;
        for (key, named) in curves {
            if settings.flag(key, false)? && curve.replace(named).is_some() {
                return Err(settings.refuse(key, "false, as another curve of sigmas is chosen already"));
            }
        }
        let (lowest, highest) = (settings.positive("sigma_min")?, settings.positive("sigma_max")?);
        if let (Some(lowest), Some(highest)) = (lowest, highest)
            && lowest >= highest
        {
            return Err(settings.refuse("sigma_min", format!("null or a number below `sigma_max`, {highest}")));
        }
        Ok(Self { curve, lowest, highest })
    }

    /// True where sigmas lie on a curve that Karras et al. chose.
    pub fn is_karras(self) -> bool {
        self.curve == Some(Curve::Karras)
    }

    /// `steps` falling sigmas on the curve, between these two where the file names none; `None` without a curve.
    pub fn sigmas(self, highest: f64, lowest: f64, steps: usize) -> Option<Vec<f64>> {
        let (high, low) = (self.highest.unwrap_or(highest), self.lowest.unwrap_or(lowest));
        let ramp = linspace(0.0, 1.0, steps);
        Some(match self.curve? {
            Curve::Karras => {
                let (first, last) = (high.powf(1.0 / 7.0), low.powf(1.0 / 7.0));
                ramp.into_iter().map(|share| (first + share * (last - first)).powi(7)).collect()
            }
            Curve::Exponential => linspace(high.ln(), low.ln(), steps).into_iter().map(f64::exp).collect(),
            Curve::Beta => ramp.into_iter().map(|share| low + beta_quantile(1.0 - share) * (high - low)).collect(),
        })
    }
}

/// Sigma at each timestep of the training.
pub(super) fn sigma_table(alphas: &[f32]) -> Vec<f32> {
    alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// The value between the two nearest entries; beyond the ends, the end's (`numpy.interp`).
pub(super) fn interpolated(table: &[f32], at: f64) -> f64 {
    let last = table.len().saturating_sub(1);
    let low = (at.max(0.0) as usize).min(last);
    let entry = |i: usize| table.get(i).copied().map_or(f64::NAN, f64::from);
    if low == last || at <= 0.0 { entry(low) } else { entry(low) + (entry(low + 1) - entry(low)) * (at - low as f64) }
}

/// Timesteps, as fractions, at which the table has these sigmas: linear in the logarithm, within the table.
pub(super) fn timesteps_at(table: &[f32], sigmas: &[f64]) -> Vec<f64> {
    let logarithms: Vec<f64> = table.iter().map(|sigma| f64::from(f64::from(*sigma).ln() as f32)).collect();
    let at = |sigma: &f64| {
        let log = sigma.max(1e-10).ln();
        let low = logarithms.partition_point(|entry| *entry <= log).saturating_sub(1).min(logarithms.len() - 2);
        let entry = |i: usize| logarithms.get(i).copied().unwrap_or(f64::NAN);
        let share = ((entry(low) - log) / (entry(low) - entry(low + 1))).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    };
    sigmas.iter().map(at).collect()
}

/// Timesteps and sigmas of the solvers of the k-diffusion family, without the final sigma.
///
/// `log_linear` spreads sigmas evenly in the logarithm over the whole table, and gives one more of them.
pub(super) fn along_timesteps(
    scheduler: &Scheduler,
    ramp: Ramp,
    log_linear: bool,
    steps: usize,
) -> (Vec<f64>, Vec<f64>) {
    let sigmas_by_timestep = sigma_table(&scheduler.table);
    let mut timesteps = scheduler.spacing.to_first(scheduler.table.len(), scheduler.steps_offset, steps);
    timesteps.iter_mut().for_each(|timestep| *timestep = rounded(*timestep));
    let mut sigmas: Vec<f64> = match (log_linear, sigmas_by_timestep.first(), sigmas_by_timestep.last()) {
        (true, Some(&least), Some(&most)) => {
            let logarithms = table::linspace(f64::from(most.ln()), f64::from(least.ln()), steps + 1);
            logarithms.into_iter().map(|log| f64::from(log.exp())).collect()
        }
        _ => timesteps.iter().map(|timestep| interpolated(&sigmas_by_timestep, *timestep)).collect(),
    };
    let ends = (sigmas.first().copied().unwrap_or(0.0), sigmas.last().copied().unwrap_or(0.0));
    if let Some(curve) = ramp.sigmas(ends.0, ends.1, steps) {
        timesteps = timesteps_at(&sigmas_by_timestep, &curve).into_iter().map(rounded).collect();
        sigmas = curve;
    }
    (timesteps, sigmas)
}

/// The final sigma of a walk.
pub(super) fn last_sigma(scheduler: &Scheduler, last: Final) -> f64 {
    match (last, sigma_table(&scheduler.table).first()) {
        (Final::SigmaMin, Some(&least)) => f64::from(least),
        _ => 0.0,
    }
}

/// Fails where two levels that a multistep solver extrapolates between are the same.
pub(super) fn all_differ(sigmas: &[f64], steps: usize) -> Result<()> {
    let pairs = sigmas.len().saturating_sub(2);
    match sigmas.windows(2).take(pairs).all(|pair| matches!(pair, [sigma, next] if sigma > next)) {
        true => Ok(()),
        false => Err(DiffusionError::Setting {
            key: "steps",
            reason: format!("{steps} steps do not all differ in noise level with this scheduler; take fewer"),
        }),
    }
}

/// To the nearest `f32`: diffusers keeps sigmas and fractional timesteps so.
pub(super) fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}

/// The quantile of the symmetric beta distribution with both parameters 0.6.
fn beta_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    // The density's integral from 0 is x^a times a power series; half of it lies under 1/2.
    let a = 0.6;
    let integral = |x: f64| {
        let (mut power, mut sum) = (1.0, 0.0);
        for n in 0..64 {
            sum += power / (a + f64::from(n));
            power *= (f64::from(n) + 1.0 - a) / (f64::from(n) + 1.0) * x;
        }
        x.powf(a) * sum
    };
    let wanted = 2.0 * probability * integral(0.5);
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if integral(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}
