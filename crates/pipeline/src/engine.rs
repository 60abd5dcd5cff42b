//! The engine: a job's stages in their order, as far as the goal asks.
//!
//! Every verb is the same walk with another end. Stages that are finished are skipped, so `evenset plan` after
//! `evenset scan` only plans, and a run that was killed goes on where it was.

use std::collections::BTreeSet;
use std::path::PathBuf;

use evenset_core::{Fingerprint, Group, Progress, SampleId};
use evenset_data::{DataError, Dataset, LabelTable, ResolvedView};
use evenset_evidence::{ClassifierKind, Error as EvidenceError, EvidenceConfig};
use evenset_plan::Plan;
use evenset_verify::{Verdict, Verifier};

use crate::error::{PipelineError, Result};
use crate::generator::Generator;
use crate::guided;
use crate::guides::Guides;
use crate::images::Frame;
use crate::job::{Job, Model, OnBias, Role};
use crate::labels;
use crate::pictures;
use crate::rounds::{Accepted, GroupProgress, Progress as RoundsProgress};
use crate::run::{Context, Done, Run};
use crate::stages::audit::{AuditStage, Counts, Rows};
use crate::stages::checks::{Checks, ChecksStage};
use crate::stages::evidence::{EvidenceStage, Obstacle, Proof, WITHOUT_FEATURES, obstacle, unlearnable};
use crate::stages::generate::{Candidate, GenerateStage};
use crate::stages::held_out::{HeldOut, HeldOutStage};
use crate::stages::hook::{HookFailure, HookRecord, HookStage};
use crate::stages::looks::LooksStage;
use crate::stages::model::{HostedStage, ModelStage, PretrainedStage};
use crate::stages::plan::{PlanStage, prompts};
use crate::stages::plateau::{Judged, PlateauStage};
use crate::stages::report::ReportStage;
use crate::stages::scan::{Scan, ScanStage};
use crate::stages::verifier::{self, VerifierStage};
use crate::stages::verify::VerifyStage;
use crate::stages::write::{self, WriteStage, Written};
use crate::surplus::{LeftOut, left_out};

/// Where a walk over the stages ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Every row read and decoded.
    Scan,
    /// Who is there.
    Audit,
    /// Who is missing.
    Plan,
    /// The first round's candidates.
    Generate,
    /// All rounds.
    Verify,
    /// The balanced dataset; every goal from here on starts the hook too, after the evidence and before the report.
    Write,
    /// Whether it helped.
    Evidence,
    /// The report page.
    Report,
}

/// One round of a finished run.
#[derive(Debug)]
pub struct Round {
    /// From 1.
    pub round: u32,
    /// Its candidates.
    pub candidates: Vec<Candidate>,
    /// What the gates said of each.
    pub verdicts: Vec<Verdict>,
    /// Images still missing after it.
    pub remaining: u64,
}

/// Everything that a walk has finished, in the order of the stages.
pub struct Finished {
    /// The opened dataset.
    pub dataset: Dataset,
    /// The scanned rows.
    pub scan: Done<Scan>,
    /// The size that models work at.
    pub frame: Frame,
    /// The counts.
    pub counts: Option<Done<Counts>>,
    /// The plan.
    pub plan: Option<Done<Plan>>,
    /// The generator; `None` where nothing is missing.
    pub model: Option<Done<Box<dyn Generator>>>,
    /// The gates.
    pub verifier: Option<Done<Verifier>>,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// How each group stands after them.
    pub progress: RoundsProgress,
    /// What was found when the gates themselves were looked at.
    pub checks: Option<Done<Checks>>,
    /// The accepted candidates that fill the plan, in the order of their requests.
    pub accepted: Vec<Accepted>,
    /// Accepted candidates beyond the plan.
    pub further: Vec<Accepted>,
    /// Held-out images that stand, exactly or nearly, in another split too.
    pub overlap: BTreeSet<SampleId>,
    /// Images that were looked at for near-duplicates; `None` where the job does without.
    looked_at: Option<u64>,
    /// Training rows that the plan leaves out of the balanced dataset.
    pub(crate) left_out: LeftOut,
    /// The balanced dataset.
    pub written: Option<Done<Written>>,
    /// The user's trainer.
    pub hook: Option<Done<HookRecord>>,
    /// How the user's trainer failed. The walk goes on to its end; it is up to the caller to end with this.
    pub hook_failure: Option<HookFailure>,
    /// Why the job has no evidence.
    pub obstacle: Option<Obstacle>,
    /// Whether it helped.
    pub evidence: Option<Done<Proof>>,
    /// What came of groups that were held out of everything.
    pub held_out: Option<Done<HeldOut>>,
    /// The report page.
    pub report: Option<PathBuf>,
    /// Remarks that a reader must not miss.
    pub notes: Vec<String>,
}

impl Finished {
    /// The plan's target in one sentence.
    pub fn target_sentence(&self) -> String {
        let targets = self.plan.iter().flat_map(|plan| &plan.output.targets);
        targets.map(|target| target.explanation.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Whether every group reached the plan's target; true where the walk ended before the rounds.
    pub fn targets_met(&self) -> bool {
        let planned = self.plan.as_ref().is_none_or(|plan| plan.output.targets.iter().all(|target| target.satisfied));
        planned && (self.rounds.is_empty() || self.progress.remaining() == 0)
    }
}

/// What a walk over a table of labels has finished.
pub struct Labelled {
    /// The counts.
    pub counts: Done<Counts>,
    /// The plan.
    pub plan: Option<Done<Plan>>,
    /// Remarks that a reader must not miss.
    pub notes: Vec<String>,
}

/// What a walk over a job's stages has finished.
pub enum Outcome {
    /// Of a dataset with images.
    Images(Box<Finished>),
    /// Of a table of labels.
    Labels(Box<Labelled>),
}

/// Walks over a job's stages up to `goal`.
///
/// # Errors
/// The first [`PipelineError`]; finished stages stay finished.
pub fn run(job: &Job, goal: Goal, overwrite: bool, progress: &dyn Progress) -> Result<Outcome> {
    let (dataset, table) = open(job)?;
    let view = view(job, &table, progress)?;
    if dataset.is_some() && job.dataset.count.is_some() {
        let message = "only tables of labels without images have a column of counts; here every row is one image";
        return Err(job.invalid("dataset.count", message).into());
    }
    match dataset {
        Some(dataset) => images(job, dataset, &view, goal, overwrite, progress).map(Box::new).map(Outcome::Images),
        None if goal <= Goal::Plan => labelled(job, &table, &view, goal, progress).map(Box::new).map(Outcome::Labels),
        None => Err(PipelineError::NoImages(job.dataset.path.clone())),
    }
}

/// What a job would read, without reading it and without a run folder.
///
/// # Errors
/// Where the data or its columns are not there.
pub fn would_read(job: &Job, progress: &dyn Progress) -> Result<String> {
    let (dataset, table) = open(job)?;
    view(job, &table, progress)?;
    let rows = table.rows().map_or_else(|| "rows not counted yet".to_owned(), |rows| format!("{rows} rows"));
    let images = if dataset.is_some() { "with images" } else { "without images" };
    let names = job.dataset.columns().join(", ");
    Ok(format!(
        "would read {}: {rows}, {images}, counted by {names}; run folder {}",
        table.describe(),
        job.run.display()
    ))
}

fn labelled(
    job: &Job,
    table: &LabelTable,
    view: &ResolvedView,
    goal: Goal,
    progress: &dyn Progress,
) -> Result<Labelled> {
    let run = Run::open(job)?;
    let context = Context { job, run: &run, progress, overwrite: false };
    let reference = labels::reference_fingerprint(&job.audit)?;
    let counts = context.complete(&AuditStage {
        job,
        rows: Rows::Table(table, view, table.fingerprint()?),
        images: None,
        reference,
    })?;
    let plan = match &job.plan {
        Some(plan) if goal >= Goal::Plan => {
            let plan = &labels::with_shares(plan, progress)?;
            Some(context.complete(&PlanStage { job: plan, seed: job.seed, ask: &job.verify.ask, counts: &counts })?)
        }
        _ => None,
    };
    let notes = table.warnings().iter().chain(view.notes()).cloned().collect();
    Ok(Labelled { counts, plan, notes })
}

fn images(
    job: &Job,
    dataset: Dataset,
    view: &ResolvedView,
    goal: Goal,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<Finished> {
    if goal >= Goal::Write {
        write::check_output(job, overwrite)?;
    }
    let run = Run::open(job)?;
    let context = Context { job, run: &run, progress, overwrite };
    let scan = context.complete(&ScanStage { job, dataset: &dataset, view })?;
    let train: Vec<_> = scan.output.role(Role::Train).collect();
    let frame = Frame::of(&train, job.generate.model.resolution());
    let mut finished = Finished {
        dataset,
        scan,
        frame,
        counts: None,
        plan: None,
        model: None,
        verifier: None,
        rounds: Vec::new(),
        progress: RoundsProgress::default(),
        checks: None,
        accepted: Vec::new(),
        further: Vec::new(),
        overlap: BTreeSet::new(),
        looked_at: None,
        left_out: LeftOut::new(),
        written: None,
        hook: None,
        hook_failure: None,
        obstacle: None,
        evidence: None,
        held_out: None,
        report: None,
        notes: view.notes().to_vec(),
    };
    let training = finished.scan.output.role(Role::Train).count();
    finished.notes.extend(pictures::note(&finished.scan.output.summary.unfit, training));
    if goal >= Goal::Audit {
        finished.audit(&context)?;
    }
    // A job that only audits need not hear that it has no evidence, nor one that does without, unless it asks.
    let expected = matches!(goal, Goal::Plan | Goal::Report) && job.plan.is_some() && job.evidence.is_some();
    if goal == Goal::Evidence || expected {
        let obstacle = obstacle(job, &finished.scan.output, &finished.overlap);
        if goal == Goal::Plan {
            finished.notes.extend(obstacle.iter().map(Obstacle::ahead));
        } else {
            finished.stumble(obstacle);
        }
    }
    if let Some(obstacle) = &finished.obstacle {
        if goal == Goal::Evidence && obstacle.refused {
            return Ok(finished);
        }
        if job.evidence.is_some() {
            tracing::warn!("{}", obstacle.ahead());
        }
    }
    if goal >= Goal::Plan && job.plan.is_some() {
        finished.plan(&context)?;
        if goal >= Goal::Generate {
            let last = finished.rounds(&context, goal)?;
            if goal >= Goal::Verify {
                finished.checks(&context, &last)?;
            }
            if goal >= Goal::Write {
                finished.write(&context, &last)?;
            }
            if goal >= Goal::Evidence {
                finished.evidence(&context, &last)?;
            }
            finished.hook(&context)?;
        }
    }
    if goal >= Goal::Report {
        let stage = ReportStage { job, finished: &finished };
        finished.report = Some(context.complete(&stage)?.output);
    }
    Ok(finished)
}

/// Opens the data: its images, where it has any, and its labels.
fn open(job: &Job) -> Result<(Option<Dataset>, LabelTable)> {
    let (path, question) = (&job.dataset.path, labels::Question::of_job(job));
    if labels::may_be_elsewhere(path) || labels::is_text_table(path) {
        return Ok((None, question.open()?));
    }
    match Dataset::open(&job.dataset_spec()) {
        Ok(dataset) => {
            pictures::refuse_image_as_mask(job, &dataset.image)?;
            Ok((Some(dataset), question.open()?))
        }
        // Where it is not a table either, the first error says more.
        Err(error @ (DataError::NoImageColumn { .. } | DataError::NoData { .. })) => match question.open() {
            Ok(table) if job.dataset.image.is_none() => Ok((None, table)),
            _ => Err(error.into()),
        },
        Err(error) => Err(pictures::of_key(job, error)),
    }
}

/// The real images that candidates of this job may start from.
fn guides<'a>(job: &'a Job, scan: &'a Scan) -> Option<Guides<'a>> {
    let (config, plan) = (job.generate.guides.as_ref()?, job.plan.as_ref()?);
    let rows = scan.role(Role::Train).filter_map(|row| Some((scan.group(row, &plan.grouping)?, row)));
    Some(Guides::new(config, job.dataset.label.as_deref(), rows, job.seed))
}

/// Finds the job's attributes in the data; an error names the key of the job that is wrong.
fn view(job: &Job, table: &LabelTable, progress: &dyn Progress) -> Result<ResolvedView> {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    let label = job.dataset.label.iter().map(|label| ("dataset.label", label));
    let attributes = job.dataset.attributes.iter().map(|attribute| ("dataset.attributes", attribute));
    let count = job.dataset.count.iter().map(|count| ("dataset.count", count));
    for (key, column) in label.chain(attributes).chain(count) {
        if !names.contains(&column.as_str()) && !job.derive.contains_key(column) {
            let nearest = evenset_data::nearest(column, names.iter().copied());
            let guess = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let message = format!("`{column}` is not a column of the dataset; it has {}{guess}", names.join(", "));
            return Err(job.invalid(key, message).into());
        }
    }
    table.view(&labels::Question::of_job(job).view(), progress).map_err(|error| match &error {
        DataError::Derive { attribute, .. } => job.invalid(&format!("derive.{attribute}"), error.to_string()).into(),
        DataError::Filter(_) | DataError::NoSuchColumn { .. } => job.invalid("where", error.to_string()).into(),
        _ => error.into(),
    })
}

impl Finished {
    fn audit(&mut self, context: &Context<'_>) -> Result<()> {
        let reference = labels::reference_fingerprint(&context.job.audit)?;
        let job = context.job;
        let looks = LooksStage { dataset: &self.dataset, scan: &self.scan, seed: job.seed };
        let looked = job.audit.images != Some(false);
        let images = looked.then(|| context.complete(&looks)).transpose()?;
        let stage = AuditStage { job, rows: Rows::Scan(&self.scan), images: images.as_ref(), reference };
        self.counts = Some(context.complete(&stage)?);
        self.notes.extend(self.dataset.warnings.iter().cloned());
        self.overlap = self.scan.output.copies();
        self.overlap.extend(images.iter().flat_map(|looked| &looked.output.overlap));
        self.looked_at = images.as_ref().map(|looked| looked.output.report.images);
        if self.frame.scaled {
            self.notes.push(format!(
                "models look at the images scaled to {}x{}, and generated images have that size; \
                 `generate.model.resolution` sets another",
                self.frame.width, self.frame.height
            ));
        }
        Ok(())
    }

    fn plan(&mut self, context: &Context<'_>) -> Result<()> {
        if let (Some(job), Some(counts)) = (&context.job.plan, &self.counts) {
            let job = &labels::with_shares(job, context.progress)?;
            let plan =
                context.complete(&PlanStage { job, seed: context.job.seed, ask: &context.job.verify.ask, counts })?;
            self.left_out = left_out(&self.scan.output, &plan.output, &job.grouping, context.job.seed);
            self.plan = Some(plan);
        }
        self.check_guides(context.job, false)
    }

    /// Refuses, before anything is drawn, a job some of whose candidates would lack a guide that they need.
    fn check_guides(&self, job: &Job, needs_model: bool) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let missing = plan.output.groups.iter().filter(|group| group.add > 0).map(|group| &group.values);
        guided::check(job, guides(job, &self.scan.output).as_ref(), missing, needs_model)
    }

    /// Generates and verifies in rounds; gives the fingerprint of the last one.
    fn rounds(&mut self, context: &Context<'_>, goal: Goal) -> Result<Fingerprint> {
        let job = context.job;
        let (Some(plan), Some(plan_job)) = (&self.plan, &job.plan) else { return Ok(self.scan.fingerprint.clone()) };
        let mut last = plan.fingerprint.clone();
        let sweep = job.evidence.iter().flat_map(|evidence| &evidence.sweep);
        let mut so_far = RoundsProgress::start(&plan.output, sweep.copied().fold(1.0, f64::max));
        if so_far.remaining() == 0 {
            return Ok(last);
        }
        let (dataset, scan, frame, seed) = (&self.dataset, &self.scan, self.frame, job.seed);
        let gates = &job.verify.gates;
        let grouping = &plan_job.grouping;
        if let Model::StableDiffusion(config) = &job.generate.model {
            config.fetch(context.progress)?;
        }
        self.check_guides(job, true)?;
        // Gates that cannot be used are not found out after hours of training.
        let preflight = || verifier::preflight(gates, &scan.output, grouping);
        let sampler = &job.generate.sampler;
        let model = match &job.generate.model {
            Model::Conditional(config) => {
                let groups: Vec<Group> = plan.output.groups.iter().map(|group| group.values.clone()).collect();
                let sampler = &sampler.conditional().map_err(|(_, why)| job.invalid("generate.sampler", why))?;
                let stage = ModelStage { config, sampler, seed, dataset, scan, frame, groups };
                if goal >= Goal::Verify && !context.finished(&stage)? {
                    preflight()?;
                }
                context.complete(&stage)?
            }
            Model::StableDiffusion(config) => {
                if goal >= Goal::Verify {
                    preflight()?;
                }
                {
                    let strengths = job.generate.guides.as_ref().map_or(&[][..], |guides| &guides.strengths);
                    context.complete(&PretrainedStage::new(config, sampler, strengths, context.progress)?)?
                }
            }
            Model::Http(config) => {
                if goal >= Goal::Verify {
                    preflight()?;
                }
                context.complete(&HostedStage { config, run: &context.run.root })?
            }
        };
        let mut verifier = None;
        if goal >= Goal::Verify {
            let outside = verifier::outside(gates)?;
            let stage = VerifierStage { gates, outside, seed, dataset, scan, frame, grouping };
            verifier = Some(context.complete(&stage)?);
        }
        let prompts = prompts(plan_job, &plan.output)?;
        let prompts = prompts.as_ref();
        let guides = guides(job, &scan.output);
        let mut accepted: Vec<Accepted> = Vec::new();
        for round in 1..=job.verify.rounds {
            let unit = job.generate.unit;
            let stage = GenerateStage {
                round,
                so_far: &so_far,
                after: &last,
                sampler,
                unit,
                seed,
                prompts,
                model: &model,
                grey: frame.grey,
                ask: &job.verify.ask,
                guides: guides.as_ref().map(|guides| (guides, dataset)),
                controls: job.generate.model.controls().iter().map(|control| control.column.as_str()).collect(),
            };
            let candidates = context.complete(&stage)?;
            let Some(verifier) = &verifier else { break };
            let before: Vec<Candidate> = accepted.iter().map(|accepted| accepted.candidate.clone()).collect();
            let stage = VerifyStage {
                round,
                verifier,
                candidates: &candidates,
                accepted_before: &before,
                keep_rejected: job.verify.keep_rejected,
                frame,
            };
            let verdicts = context.complete(&stage)?;
            so_far.count(&candidates.output, &verdicts.output);
            so_far.give_up(job.verify.floor);
            let passed = candidates.output.iter().zip(&verdicts.output).filter(|(_, verdict)| verdict.accepted);
            accepted.extend(
                passed.map(|(candidate, verdict)| Accepted { candidate: candidate.clone(), verdict: verdict.clone() }),
            );
            last = verdicts.fingerprint;
            let remaining = so_far.remaining();
            self.rounds.push(Round { round, candidates: candidates.output, verdicts: verdicts.output, remaining });
            if so_far.reachable() == 0 {
                break;
            }
            let now = accepted.len();
            if job.verify.stop_at_plateau && now > before.len() {
                let open: Vec<Group> = still_open(&so_far.groups).map(|group| group.group.clone()).collect();
                let accepted = accepted.split_at(before.len());
                let judged = self.still_helps(context, accepted, &open, &verifier.output, (round, &last))?;
                if let Some(why) = &judged.unknown {
                    self.notes.push(format!("round {round} was not asked whether it helped: {why}"));
                }
                if !judged.goes_on() {
                    self.notes.push(format!(
                        "rounds ended after round {round}: more images no longer helped a classifier on real images that \
                         were kept apart"
                    ));
                    break;
                }
            }
        }
        (self.accepted, self.further) = so_far.fill(accepted);
        (self.model, self.verifier, self.progress) = (Some(model), verifier, so_far);
        Ok(last)
    }

    /// Whether the images of the last round, those behind the ones before it, made the classifier of the evidence better.
    fn still_helps(
        &self,
        context: &Context<'_>,
        (before, last): (&[Accepted], &[Accepted]),
        open: &[Group],
        verifier: &Verifier,
        (round, after): (u32, &Fingerprint),
    ) -> Result<Judged> {
        let job = context.job;
        let lacking = unlearnable(job);
        let (Some(config), Some(label), Some(plan), None) = (&job.evidence, &job.dataset.label, &job.plan, &lacking)
        else {
            return Ok(Judged::unknown(lacking.unwrap_or_default()));
        };
        let stage = EvidenceStage {
            accepted: before,
            further: last,
            planned: &[],
            verifier: Some(verifier),
            ..self.evidence_stage(job, config, label, &plan.grouping, after)
        };
        let data = || stage.images();
        let stage = PlateauStage { round, config, data: &data, open, after, seed: job.seed };
        Ok(context.complete(&stage)?.output)
    }

    fn evidence_stage<'a>(
        &'a self,
        job: &Job,
        config: &'a EvidenceConfig,
        label: &'a str,
        grouping: &'a [String],
        rounds: &'a Fingerprint,
    ) -> EvidenceStage<'a> {
        EvidenceStage {
            config,
            label,
            grouping,
            seed: job.seed,
            dataset: &self.dataset,
            scan: &self.scan,
            frame: self.frame,
            accepted: &self.accepted,
            further: &self.further,
            planned: &self.progress.groups,
            left_out: &self.left_out,
            overlap: &self.overlap,
            verifier: self.verifier.as_ref().map(|verifier| &verifier.output),
            rounds,
        }
    }

    /// Looks at the gates themselves.
    fn checks(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
        let job = context.job;
        let (Some(verifier), Some(plan)) = (&self.verifier, &job.plan) else { return Ok(()) };
        let arms = job.generate.guides.as_ref().map(evenset_plan::GuidesConfig::arms).unwrap_or_default();
        let checks = context.complete(&ChecksStage {
            rounds: &self.rounds,
            after: last,
            progress: &self.progress,
            arms: &arms,
            verifier,
            dataset: &self.dataset,
            scan: &self.scan,
            frame: self.frame,
            grouping: &plan.grouping,
            seed: job.seed,
        })?;
        let bias: Vec<String> = checks.output.bias.iter().map(|warning| warning.sentence.clone()).collect();
        if !bias.is_empty() && job.verify.on_bias == OnBias::Fail {
            return Err(PipelineError::BiasedGates(bias.join("; ")));
        }
        self.notes.extend(bias);
        self.notes.extend(verifier.output.shortages());
        if let Some(shortcut) = checks.output.shortcut.as_ref().filter(|shortcut| shortcut.found) {
            self.notes.push(shortcut.sentence.clone());
        }
        self.checks = Some(checks);
        Ok(())
    }

    fn write(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
        let job = context.job;
        let Some(plan) = &self.plan else { return Ok(()) };
        let companions = |written: &Written| crate::companions::texts(job, self, written);
        let written = context.complete(&WriteStage {
            job,
            dataset: &self.dataset,
            scan: &self.scan,
            accepted: &self.accepted,
            left_out: &self.left_out,
            model: self.model.as_ref(),
            plan: &plan.fingerprint,
            rounds: last,
            companions: &companions,
        })?;
        if written.output.unmatched > 0 {
            self.notes.push(format!(
                "{} of {} generated images were written as PNG files and not like real ones: these are lossy WebP or a \
                 rare kind of JPEG, which is not written here; a network may tell them apart by their files",
                written.output.unmatched, written.output.rows_generated
            ));
        }
        self.written = Some(written);
        Ok(())
    }

    /// Starts the user's trainer on what was written.
    fn hook(&mut self, context: &Context<'_>) -> Result<()> {
        let job = context.job;
        let (Some(hook), Some(written)) = (&job.hook, &self.written) else { return Ok(()) };
        match context.complete(&HookStage { hook, job, written }) {
            Ok(done) => self.hook = Some(done),
            Err(PipelineError::Hook(failure)) => self.hook_failure = Some(failure),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Remembers why there is no evidence, and tells it.
    fn stumble(&mut self, obstacle: Option<Obstacle>) {
        self.notes.extend(obstacle.iter().map(|obstacle| obstacle.why.clone()));
        self.obstacle = obstacle;
    }

    fn evidence(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
        let job = context.job;
        let (Some(config), Some(label), Some(plan), None) =
            (&job.evidence, &job.dataset.label, &job.plan, &self.obstacle)
        else {
            return Ok(());
        };
        let stage = self.evidence_stage(job, config, label, &plan.grouping, last);
        let featureless = config.classifier == ClassifierKind::Linear && stage.verifier.is_none();
        let found = featureless.then(|| Obstacle::lacking(WITHOUT_FEATURES)).or_else(|| stage.unreached());
        if found.is_some() {
            self.stumble(found);
            return Ok(());
        }
        let evidence = context.complete(&stage)?;
        let held_out = self.held_out(context, &stage)?;
        let unlooked = self.unlooked(job);
        self.evidence = Some(evidence);
        match held_out {
            Ok(held_out) => self.held_out = held_out,
            Err(why) => self.notes.push(format!("no held-out groups: {why}")),
        }
        self.notes.extend(unlooked);
        Ok(())
    }

    /// What came of groups that are held out, where the job asks for it; or why there are none.
    fn held_out(
        &self,
        context: &Context<'_>,
        evidence: &EvidenceStage<'_>,
    ) -> Result<std::result::Result<Option<Done<HeldOut>>, String>> {
        let (job, config) = (context.job, evidence.config);
        if config.held_out_groups == 0 {
            return Ok(Ok(None));
        }
        if config.classifier == ClassifierKind::Linear {
            let why = "the classifier `linear` needs features of a verifier that has seen them; choose `cnn` or `mlp`";
            return Ok(Err(why.into()));
        }
        let Some(model) = job.generate.model.conditional() else {
            let why = "only a model that is trained on the dataset can do without some of its groups";
            return Ok(Err(why.into()));
        };
        let sampler = &job.generate.sampler.conditional().map_err(|(_, why)| job.invalid("generate.sampler", why))?;
        let held_out = context.complete(&HeldOutStage {
            config,
            model,
            sampler,
            gates: &job.verify.gates,
            outside: verifier::outside(&job.verify.gates)?,
            grouping: evidence.grouping,
            data: &|| evidence.images(),
            seed: job.seed,
            dataset: &self.dataset,
            scan: &self.scan,
            frame: self.frame,
            overlap: &self.overlap,
        });
        match held_out {
            Ok(held_out) => Ok(Ok(Some(held_out))),
            // A training that ended early ends the run; a choice that cannot be made leaves the rest of it as it is.
            Err(PipelineError::Evidence(why)) if !matches!(why, EvidenceError::Classifier(_)) => {
                Ok(Err(why.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// What a reader must know where not all images were held against those of the other splits.
    fn unlooked(&self, job: &Job) -> Option<String> {
        let rows = self.scan.output.rows.len() as u64;
        let exactly = "exact copies between the splits were found all the same";
        match self.looked_at {
            None if job.audit.images == Some(false) => Some(format!(
                "near-duplicates of test images in the training split were not looked for (`audit.images: false`); \
                 {exactly}"
            )),
            Some(looked_at) if looked_at < rows => Some(format!(
                "near-duplicates of test images in the training split were looked for among {looked_at} of {rows} images; \
                 {exactly}"
            )),
            _ => None,
        }
    }
}

/// The groups for which more images are asked.
fn still_open(groups: &[GroupProgress]) -> impl Iterator<Item = &GroupProgress> {
    groups.iter().filter(|group| group.unreachable.is_none() && group.accepted < group.wanted)
}
