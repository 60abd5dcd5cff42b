//! The job that is run: defaults filled in, includes and overrides applied, paths and names checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenset_audit::AuditConfig;
use evenset_core::Seed;
use evenset_data::{DatasetSpec, Derive, Filter, View};
use evenset_evidence::{Error as EvidenceError, EvidenceConfig, SEEDS_FOR_A_VERDICT};
use evenset_plan::{AskPolicy, GuidesConfig, Limits, Prompts, Surplus, Targets};
use evenset_verify::GateConfig;
use serde::{Serialize, Serializer};

use super::sampler::Sampler;
use super::tree::{Node, Position};
use super::words::reworded;
use super::written::{
    Format, Model, OnBias, OnError, Role, WrittenEvidence, WrittenGenerate, WrittenHook, WrittenJob, WrittenPlan,
    WrittenVerify,
};
use super::{JobError, written};
use crate::pictures::Pictures;

/// A job that can be run.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Names the run folder and the dataset.
    pub name: String,
    /// Seed of everything random.
    pub seed: Seed,
    /// Folder of the run.
    pub run: PathBuf,
    /// The labelled images.
    pub dataset: Dataset,
    /// Attributes made from columns.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub derive: BTreeMap<String, Derive>,
    /// Which rows are looked at.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What the audit counts.
    pub audit: AuditConfig,
    /// What is missing; `None` ends the job after the audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// How images are made.
    pub generate: Generate,
    /// How they are checked.
    pub verify: Verify,
    /// Where they go.
    pub write: Write,
    /// How balance is tried; `None`, written `false`, does without.
    #[serde(serialize_with = "false_for_none")]
    pub evidence: Option<EvidenceConfig>,
    /// The user's trainer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// The tree it was read from, for errors that are found later (a column that the data lacks).
    #[serde(skip)]
    tree: Node,
}

/// The labelled images.
#[derive(Clone, Debug, Serialize)]
pub struct Dataset {
    /// File or folder.
    pub path: PathBuf,
    /// Column of the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Columns beside the label.
    pub attributes: Vec<String>,
    /// Column that says how many rows a row stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<String>,
    /// Words that stand for a missing value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Role to name in the data.
    pub splits: BTreeMap<Role, String>,
    /// Column of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What a broken row does.
    pub on_error: OnError,
}

impl Dataset {
    /// Label and attributes: the columns that are counted, in order.
    pub fn columns(&self) -> Vec<String> {
        self.label.iter().chain(&self.attributes).cloned().collect()
    }

    /// What the data room needs to open it.
    pub fn spec(&self) -> DatasetSpec {
        DatasetSpec {
            path: self.path.clone(),
            image: self.image.clone(),
            splits: self.splits.iter().map(|(role, name)| (role.name().to_owned(), name.clone())).collect(),
            ..DatasetSpec::default()
        }
    }
}

/// What is missing.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The distributions to reach.
    pub target: Targets,
    /// What it may cost.
    pub limits: Limits,
    /// Whether images may be left out.
    pub surplus: Surplus,
    /// Seconds that the search may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What each request says in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Prompts>,
    /// Attributes whose combinations are the groups.
    pub grouping: Vec<String>,
}

/// How images are made.
#[derive(Clone, Debug, Serialize)]
pub struct Generate {
    /// The model.
    pub model: Model,
    /// How images are drawn.
    pub sampler: Sampler,
    /// Real images that candidates of small groups start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guides: Option<GuidesConfig>,
    /// Images per unit.
    pub unit: usize,
}

/// How images are checked.
#[derive(Clone, Debug, Serialize)]
pub struct Verify {
    /// The gates in order.
    pub gates: Vec<GateConfig>,
    /// Rounds at most.
    pub rounds: u32,
    /// How many candidates a round asks for.
    pub ask: AskPolicy,
    /// Acceptance rate under which a group is given up.
    pub floor: f64,
    /// What happens where a group is rejected far more than the others.
    pub on_bias: OnBias,
    /// Whether rounds end where another one no longer helps.
    pub stop_at_plateau: bool,
    /// Rejected images that are kept for review, a round.
    pub keep_rejected: u64,
}

/// Where the balanced dataset goes.
#[derive(Clone, Debug, Serialize)]
pub struct Write {
    /// Formats.
    pub formats: Vec<Format>,
    /// Folder.
    pub out: PathBuf,
    /// Whether generated images are written in files like the real ones.
    pub match_real: bool,
    /// Licence for the card.
    pub license: String,
}

/// The user's trainer. Serialises with the `type` that the written form has, so that a resolved job is a job.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "command")]
pub struct Hook {
    /// Program and arguments with placeholders.
    pub run: Vec<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl Job {
    /// Reads a job file, applies `--set` overrides in order, and checks everything that can be checked without
    /// reading the data.
    ///
    /// # Errors
    /// [`JobError`], naming file, line, key and what was expected.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, JobError> {
        let mut tree = Node::read(path)?;
        for assignment in overrides {
            tree.set(assignment)?;
        }
        let written: WrittenJob = deserialise(&tree)?;
        let stem = path.file_stem().map_or_else(|| "job".to_owned(), |stem| stem.to_string_lossy().into_owned());
        resolve(written, &stem, tree)
    }

    /// The attributes that are counted, how they are made, and of which rows.
    pub fn view(&self) -> View {
        View { attributes: self.dataset.columns(), derive: self.derive.clone(), filters: self.filters.clone() }
    }

    /// What the data room needs to open the images, with the pictures that belong to them.
    pub fn dataset_spec(&self) -> DatasetSpec {
        DatasetSpec { pictures: Pictures::of(self).columns, ..self.dataset.spec() }
    }

    /// An error about a key of this job, at the line where it (or its nearest parent) was written.
    pub fn invalid(&self, path: &str, message: impl Into<String>) -> JobError {
        invalid(&self.tree, path, message)
    }

    /// The resolved job as YAML, as it is saved into the run.
    pub fn to_yaml(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut text = String::new();
        // JSON is YAML: the emitter only changes the clothes.
        if let Ok(documents) = <saphyr::Yaml<'_> as saphyr::LoadableYamlNode>::load_from_str(&json)
            && let Some(document) = documents.first()
            && saphyr::YamlEmitter::new(&mut text).dump(document).is_ok()
        {
            text = text.trim_start_matches("---").trim_start().to_owned();
            text.push('\n');
            return text;
        }
        json
    }
}

/// So that a resolved job is a job.
fn false_for_none<S: Serializer>(evidence: &Option<EvidenceConfig>, serializer: S) -> Result<S::Ok, S::Error> {
    match evidence {
        Some(config) => config.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

fn invalid(tree: &Node, path: &str, message: impl Into<String>) -> JobError {
    JobError::Invalid { at: position(tree, path), path: path.to_owned(), message: message.into() }
}

/// The position of the node at `path`, or of its nearest parent that was written.
fn position(tree: &Node, path: &str) -> Position {
    let mut node = tree;
    for key in path.split('.') {
        match node.child(key) {
            Some(child) => node = child,
            None => break,
        }
    }
    node.at.clone()
}

pub(super) fn deserialise<T: serde::de::DeserializeOwned>(tree: &Node) -> Result<T, JobError> {
    serde_path_to_error::deserialize(tree.to_json()).map_err(|error| {
        let path: Vec<String> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                _ => None,
            })
            .collect();
        locate(tree, path, &error.into_inner().to_string())
    })
}

/// Finds the line of an error that serde reports.
///
/// Inside a part that is tagged by `type`, serde buffers the contents and loses the path below; the offending key or
/// value is named in the message, so it is looked for below the last node that is known.
fn locate(tree: &Node, mut path: Vec<String>, message: &str) -> JobError {
    let mut node = tree;
    let mut at = tree.at.clone();
    let mut known = 0;
    for key in &path {
        let Some(child) = node.child(key) else { break };
        (node, known) = (child, known + 1);
        at = child.at.clone();
    }
    let quoted =
        |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split(['`', '"']).next()).map(str::to_owned);
    let found = if let Some(key) = quoted("unknown field `") {
        path.truncate(known);
        if path.last() == Some(&key) { None } else { node.find_key(&key) }
    } else if let Some(text) = quoted("invalid type: string \"")
        .or_else(|| quoted("invalid value: string \""))
        .or_else(|| quoted("unknown variant `"))
    {
        node.find_scalar(&|scalar| scalar.as_str() == Some(&text))
    } else if let Some(text) = quoted("invalid type: integer `")
        .or_else(|| quoted("invalid type: floating point `"))
        .or_else(|| quoted("invalid value: integer `"))
        .or_else(|| quoted("invalid type: boolean `"))
    {
        let written = |scalar: &serde_json::Value| (!scalar.is_string()).then(|| scalar.to_string());
        node.find_scalar(&|scalar| written(scalar).as_ref() == Some(&text))
    } else {
        None
    };
    if let Some((below, place)) = found {
        path.extend(below);
        at = place;
    }
    let message = reworded(message, path.last().is_some_and(|key| key == "type"));
    let path = if path.is_empty() { "(the whole file)".to_owned() } else { path.join(".") };
    JobError::Invalid { at, path, message }
}

fn resolve(written: WrittenJob, stem: &str, tree: Node) -> Result<Job, JobError> {
    let bad = |path: &str, message: String| Err(invalid(&tree, path, message));
    let name = written.name.unwrap_or_else(|| stem.to_owned());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return bad("name", format!("`{name}` cannot name a folder; use letters, digits, `-`, `_` and `.`"));
    }

    let dataset = resolve_dataset(written.dataset, &tree)?;
    let columns = dataset.columns();
    written.audit.validate(&columns).map_err(|error| invalid(&tree, "audit", error.to_string()))?;
    for (i, filter) in written.filters.iter().enumerate() {
        filter.validate().map_err(|error| invalid(&tree, &format!("where.{i}"), error.to_string()))?;
    }
    for (name, derive) in &written.derive {
        derive.validate(name).map_err(|error| invalid(&tree, &format!("derive.{name}"), error))?;
    }

    let plan = written.plan.map(|plan| resolve_plan(plan, &columns, &tree)).transpose()?;
    let generate = written.generate;
    // What is drawn of a unit is lost when the run is stopped, and Stable Diffusion may take minutes for one image.
    let usual = if let Model::StableDiffusion(_) = generate.model { 8 } else { 256 };
    let unit = generate.unit.unwrap_or(usual);
    if !(1..=65_536).contains(&unit) {
        return bad("generate.unit", format!("{unit} images per unit; expected 1 to 65536"));
    }
    check_generate(&generate, plan.as_ref(), &tree)?;
    let asked = plan.as_ref().map_or(&columns, |plan| &plan.grouping);
    let gates = &written.verify.gates;
    for (place, gate) in gates.iter().enumerate() {
        gate.check_among(&gates[..place], asked)
            .map_err(|error| invalid(&tree, &format!("verify.gates.{place}"), error.to_string()))?;
    }
    if let Some(guides) = &generate.guides {
        guides.validate().map_err(|error| invalid(&tree, "generate.guides", error.to_string()))?;
    }
    let WrittenVerify { gates, rounds, ask, floor, on_bias, stop_at_plateau, keep_rejected } = written.verify;
    if !(1..=1000).contains(&rounds) {
        return bad("verify.rounds", format!("{rounds} rounds; expected 1 to 1000"));
    }
    ask.validate().map_err(|error| invalid(&tree, "verify.ask", error.to_string()))?;
    if !(0.0..=1.0).contains(&floor) {
        return bad("verify.floor", format!("{floor}; expected a rate from 0 to 1"));
    }
    if written.write.formats.is_empty() {
        return bad("write.formats", "no format; expected `parquet`, `webdataset` or both".into());
    }
    let evidence = match written.evidence {
        WrittenEvidence::Switch(true) => Some(EvidenceConfig::default()),
        WrittenEvidence::Switch(false) => None,
        WrittenEvidence::Config(config) => Some(*config),
    };
    evidence.iter().try_for_each(|evidence| check_evidence(evidence, &tree))?;
    let seeds = evidence.as_ref().map(|evidence| evidence.seeds as usize);
    if stop_at_plateau && seeds.is_none_or(|seeds| seeds < SEEDS_FOR_A_VERDICT) {
        let message = match seeds {
            None => {
                "whether another round helps is seen by the classifiers of the evidence, which the job does without \
                     (`evidence: false`)"
                    .to_owned()
            }
            Some(_) => format!(
                "whether another round helps cannot be seen with fewer than {SEEDS_FOR_A_VERDICT} seeds; set \
                 `evidence.seeds` to five"
            ),
        };
        return bad("verify.stop_at_plateau", message);
    }
    let hook = match written.hook {
        Some(WrittenHook::Command { run, timeout }) => {
            if run.first().is_none_or(String::is_empty) {
                return bad(
                    "hook.run",
                    "empty; expected a program and its arguments, such as [python, train.py]".into(),
                );
            }
            Some(Hook { run, timeout })
        }
        None => None,
    };
    let run = written.run.unwrap_or_else(|| Path::new("runs").join(&name));
    let out = written.write.out.unwrap_or_else(|| Path::new("out").join(&name));
    for (key, folder) in [("run", &run), ("write.out", &out)] {
        if folder.is_file() {
            return bad(key, format!("`{}` is a file; expected a folder", folder.display()));
        }
        if dataset.path.is_dir() && folder.starts_with(&dataset.path) {
            let message = format!("`{}` lies inside the dataset and would be read as part of it", folder.display());
            return bad(key, message);
        }
    }
    if run.starts_with(&out) || out.starts_with(&run) {
        return bad("write.out", format!("`{}` and the run folder `{}` overlap", out.display(), run.display()));
    }
    Ok(Job {
        name,
        seed: Seed(written.seed),
        run,
        dataset,
        derive: written.derive,
        filters: written.filters,
        audit: written.audit,
        plan,
        generate: Generate { model: generate.model, sampler: generate.sampler, guides: generate.guides, unit },
        verify: Verify { gates, rounds, ask, floor, on_bias, stop_at_plateau, keep_rejected },
        write: Write {
            formats: written.write.formats,
            out,
            match_real: written.write.match_real,
            license: written.write.license,
        },
        evidence,
        hook,
        tree,
    })
}

/// Whether model, sampler and guides go together.
fn check_generate(generate: &WrittenGenerate, plan: Option<&Plan>, tree: &Node) -> Result<(), JobError> {
    let (model, sampler) = match &generate.model {
        Model::Conditional(config) => (config.validate(), generate.sampler.conditional().map(drop)),
        Model::StableDiffusion(config) => (config.validate(), generate.sampler.check_for_stable_diffusion()),
        Model::Http(config) => (config.validate(), generate.sampler.check_for_hosted()),
    };
    model.map_err(|error| invalid(tree, "generate.model", error.to_string()))?;
    let reads_prompts = generate.model.conditional().is_none();
    if reads_prompts && plan.is_some_and(|plan| plan.prompts.is_none()) {
        let message = "this model draws what prompts say, and the job has none; add `plan.prompts`, such as \
                       `prompts: {template: \"a photo of a {garment}\"}`";
        return Err(invalid(tree, "generate.model", message));
    }
    if let Some(guides) = &generate.guides {
        let noise = guides.inversion_noise > 0.0;
        if reads_prompts && (guides.inversion || noise) {
            let key = if guides.inversion { "generate.guides.inversion" } else { "generate.guides.inversion_noise" };
            let message = "only a conditional model, which knows what a real image shows, inverts it; remove it";
            return Err(invalid(tree, key, message));
        }
        if noise && !guides.inversion {
            let message = "guides are not inverted; add `inversion: true`, or remove it";
            return Err(invalid(tree, "generate.guides.inversion_noise", message));
        }
    }
    check_pictures(generate, tree)?;
    if let Model::Http(_) = &generate.model {
        check_hosted(generate, plan, tree)?;
    }
    sampler.map_err(|(key, message)| {
        let path = if key.is_empty() { "generate.sampler".to_owned() } else { format!("generate.sampler.{key}") };
        invalid(tree, &path, message)
    })
}

/// Refuses masks that nothing would be made of, and ControlNets that nothing would be shown to.
fn check_pictures(generate: &WrittenGenerate, tree: &Node) -> Result<(), JobError> {
    let guides = generate.guides.as_ref();
    if generate.model.conditional().is_some() && guides.is_some_and(|guides| guides.mask.is_some()) {
        let message = "a conditional model changes a guide as a whole; remove it, or take a model of type \
                       `stable-diffusion` or `http`";
        return Err(invalid(tree, "generate.guides.mask", message));
    }
    let controls = generate.model.controls();
    if let Some(place) = controls.iter().position(|control| control.column.is_empty()) {
        let message = "empty; name the dataset's column of the pictures that this network is shown";
        return Err(invalid(tree, &format!("generate.model.controls.{place}.column"), message));
    }
    if !controls.is_empty() && guides.is_none_or(|guides| guides.noise) {
        let message = "a ControlNet is shown a picture that belongs to a real image, so every candidate needs one; add \
                       `generate.guides: {strengths: [1], noise: false, below: N}` with `below` above the largest group";
        return Err(invalid(tree, "generate.model.controls", message));
    }
    Ok(())
}

/// Refuses what the images API has no words for: it would be written down as done, and was not.
fn check_hosted(generate: &WrittenGenerate, plan: Option<&Plan>, tree: &Node) -> Result<(), JobError> {
    let prompts = plan.and_then(|plan| plan.prompts.as_ref());
    let negative = prompts.is_some_and(|prompts| {
        prompts.negative.is_some() || prompts.overrides.iter().any(|other| other.negative.is_some())
    });
    if negative {
        let message = "a hosted model is sent one prompt and nothing to steer away from; remove `negative`";
        return Err(invalid(tree, "plan.prompts", message));
    }
    let Some(guides) = &generate.guides else { return Ok(()) };
    if guides.strengths != [1.0] || !guides.guidances.is_empty() {
        let message = "a hosted model decides itself how much of a guide it changes; write `strengths: [1]` and no \
                       `guidances`";
        return Err(invalid(tree, "generate.guides", message));
    }
    Ok(())
}

fn check_evidence(evidence: &EvidenceConfig, tree: &Node) -> Result<(), JobError> {
    match evidence.check() {
        Err(EvidenceError::Config { key, expected }) => {
            let written = serde_json::to_value(evidence).unwrap_or_default();
            Err(invalid(tree, &format!("evidence.{key}"), format!("{}; expected {expected}", written[key])))
        }
        Err(error) => Err(invalid(tree, "evidence", error.to_string())),
        Ok(()) => Ok(()),
    }
}

fn resolve_dataset(written: written::WrittenDataset, tree: &Node) -> Result<Dataset, JobError> {
    if !written.path.exists() && !crate::labels::may_be_elsewhere(&written.path) {
        let here = std::env::current_dir().unwrap_or_default();
        let message = format!(
            "`{}` does not exist (looked in `{}`; paths in a job are relative to the folder evenset is started in)",
            written.path.display(),
            here.display()
        );
        return Err(invalid(tree, "dataset.path", message));
    }
    let dataset = Dataset {
        path: written.path,
        label: written.label,
        attributes: written.attributes,
        count: written.count,
        missing: written.missing,
        splits: written.splits,
        image: written.image,
        on_error: written.on_error,
    };
    let columns = dataset.columns();
    if columns.is_empty() {
        let message = "name the `label` column, `attributes`, or both: they are what is counted";
        return Err(invalid(tree, "dataset", message));
    }
    for (i, column) in columns.iter().enumerate() {
        if columns[..i].contains(column) {
            return Err(invalid(tree, "dataset.attributes", format!("`{column}` is named twice")));
        }
    }
    if !dataset.splits.is_empty() && !dataset.splits.contains_key(&Role::Train) {
        return Err(invalid(tree, "dataset.splits", "no `train` split; expected `train: NAME`"));
    }
    for (role, name) in &dataset.splits {
        if let Some((other, _)) = dataset.splits.iter().find(|(other, same)| *other < role && *same == name) {
            let message = format!("`{name}` is the `{}` split already; a split has one role", other.name());
            return Err(invalid(tree, &format!("dataset.splits.{}", role.name()), message));
        }
    }
    Ok(dataset)
}

fn resolve_plan(written: WrittenPlan, columns: &[String], tree: &Node) -> Result<Plan, JobError> {
    written.target.validate().map_err(|error| invalid(tree, "plan.target", error.to_string()))?;
    if let Some(seconds) = written.seconds.filter(|seconds| !(0.0..=1e6).contains(seconds)) {
        return Err(invalid(tree, "plan.seconds", format!("{seconds}; expected a number from 0 to 1000000")));
    }
    written.limits.validate().map_err(|error| invalid(tree, "plan.limits", error.to_string()))?;
    let named: Vec<String> = written.target.attributes().into_iter().map(str::to_owned).collect();
    let all = named.is_empty() || written.target.needs_all_attributes();
    let grouping = written.grouping.clone().unwrap_or_else(|| if all { columns.to_vec() } else { named.clone() });
    for (path, wanted) in [("plan.target", &named), ("plan.grouping", &grouping)] {
        if let Some(column) = wanted.iter().find(|column| !columns.contains(column)) {
            let message = format!("`{column}` is neither the label nor one of the attributes ({})", columns.join(", "));
            return Err(invalid(tree, path, message));
        }
    }
    if let Some(column) = named.iter().find(|column| !grouping.contains(column)) {
        let message = format!("the target is about `{column}`, which is not part of this grouping");
        return Err(invalid(tree, "plan.grouping", message));
    }
    // Groups list their attributes in the job's order: label first.
    let grouping = columns.iter().filter(|column| grouping.contains(column)).cloned().collect();
    let WrittenPlan { target, limits, surplus, seconds, prompts, .. } = written;
    Ok(Plan { target, limits, surplus, seconds, prompts, grouping })
}
