//! The engine: a job's stages in their order, as far as the goal asks.
//!
//! Every verb is the same walk with another end. Stages that are finished are skipped, so `evenset plan` after
//! `evenset scan` only plans, and a run that was killed goes on where it was. Here are the order, and the stages that are one call;
//! `opened` finds the data, `rounds` generates and verifies, `proof` looks at the gates and asks whether it helped.

mod opened;
mod proof;
mod rounds;

use std::collections::BTreeSet;
use std::path::PathBuf;

use evenset_core::{Fingerprint, Progress, SampleId};
use evenset_data::{Dataset, LabelTable, ResolvedView};
use evenset_plan::Plan;
use evenset_verify::{Verdict, Verifier};

use crate::error::{PipelineError, Result};
use crate::generator::Generator;
use crate::images::Frame;
use crate::job::{Job, Role};
use crate::labels;
use crate::pictures;
use crate::rounds::{Accepted, Progress as RoundsProgress};
use crate::run::{Context, Done, Run};
use crate::stages::audit::{AuditStage, Counts, Rows};
use crate::stages::checks::Checks;
use crate::stages::evidence::{Obstacle, Proof, obstacle};
use crate::stages::generate::Candidate;
use crate::stages::held_out::HeldOut;
use crate::stages::hook::{self, HookFailure, HookRecord, HookStage};
use crate::stages::looks::LooksStage;
use crate::stages::plan::PlanStage;
use crate::stages::report::{self, ReportStage};
use crate::stages::scan::{Scan, ScanStage};
use crate::stages::write::{self, MadeFrom, WriteStage, Written};
use crate::surplus::{LeftOut, left_out};
use crate::values;

pub use opened::would_read;
use opened::{open, view};

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
    /// The stages that drew and judged the generated images.
    pub(crate) made_from: MadeFrom,
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
            Some(context.complete(&PlanStage {
                job: plan,
                seed: job.seed,
                ask: &job.verify.ask,
                counts: &counts,
                scan: None,
            })?)
        }
        _ => None,
    };
    let of_values = values::notes(&counts.output.cube)?;
    let notes = table.warnings().iter().chain(view.notes()).chain(&of_values).cloned().collect();
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
        made_from: MadeFrom::new(),
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
    if goal > Goal::Scan {
        finished.notes.extend(finished.scan.output.summary.rejected_note());
        finished.notes.extend(finished.scan.output.summary.filtered_note());
    }
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
        if goal == Goal::Plan {
            let unusable = finished.unusable_gates(&context);
            finished.notes.extend(unusable);
            let too_few = finished.too_few_guides(job);
            finished.notes.extend(too_few);
        }
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
    let page = ReportStage { job, finished: &finished };
    match goal {
        Goal::Report => finished.report = Some(context.complete(&page)?.output),
        // Only here is everything done that a report shows.
        Goal::Evidence if page.is_outdated(&context)? => finished.notes.push(format!(
            "`{}` shows the run with other settings, or as it was before; `evenset report` with these settings draws it anew",
            run.root.join(report::PAGE).display()
        )),
        _ => {}
    }
    Ok(finished)
}

impl Finished {
    fn audit(&mut self, context: &Context<'_>) -> Result<()> {
        let reference = labels::reference_fingerprint(&context.job.audit)?;
        let job = context.job;
        let looks = LooksStage { dataset: &self.dataset, scan: &self.scan, seed: job.seed };
        let looked = job.audit.images != Some(false);
        let images = looked.then(|| context.complete(&looks)).transpose()?;
        let stage = AuditStage { job, rows: Rows::Scan(&self.scan), images: images.as_ref(), reference };
        let counts = context.complete(&stage)?;
        self.notes.extend(values::notes(&counts.output.cube)?);
        self.counts = Some(counts);
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
            let (seed, ask, scan) = (context.job.seed, &context.job.verify.ask, Some(&self.scan.fingerprint));
            let plan = context.complete(&PlanStage { job, seed, ask, counts, scan })?;
            self.left_out = left_out(&self.scan.output, &plan.output, &job.grouping, context.job.seed);
            self.plan = Some(plan);
        }
        self.check_guides(context.job, false)
    }

    fn write(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
        let job = context.job;
        let Some(plan) = &self.plan else { return Ok(()) };
        let companions = |written: &Written| crate::companions::texts(job, self, written);
        let written = context.complete(&WriteStage {
            job,
            dataset: &self.dataset,
            scan: &self.scan,
            frame: self.frame,
            accepted: &self.accepted,
            left_out: &self.left_out,
            model: self.model.as_ref(),
            plan: &plan.fingerprint,
            rounds: last,
            made_from: &self.made_from,
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
        let outside = hook::outside(hook, job)?;
        match context.complete(&HookStage { hook, job, written, outside }) {
            Ok(done) => self.hook = Some(done),
            Err(PipelineError::Hook(failure)) => self.hook_failure = Some(failure),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
