//! Generating and verifying in rounds, until the targets are met or nothing more comes of it.

use evenset_core::{Fingerprint, Group};
use evenset_verify::Verifier;

use super::{Finished, Goal, Round};
use crate::error::Result;
use crate::generator::Generator;
use crate::guided;
use crate::guides::Guides;
use crate::job::{Job, Model, Role};
use crate::rounds::{Accepted, GroupProgress, Progress as RoundsProgress};
use crate::run::{Context, Done, Stage};
use crate::stages::evidence::{EvidenceStage, unlearnable};
use crate::stages::generate::{Candidate, GenerateStage};
use crate::stages::model::{HostedStage, ModelStage, PretrainedStage};
use crate::stages::plan::prompts;
use crate::stages::plateau::{Judged, PlateauStage};
use crate::stages::scan::Scan;
use crate::stages::verifier::{self, VerifierStage};
use crate::stages::verify::VerifyStage;
use crate::stages::write::{self, MadeFrom};

/// Groups that a plan's reader hears of one by one.
const MOST_NOTES: usize = 3;

impl Finished {
    /// Refuses, before anything is drawn, a job some of whose candidates would lack a guide that they need.
    pub(super) fn check_guides(&self, job: &Job, needs_model: bool) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let missing = plan.output.groups.iter().filter(|group| group.add > 0).map(|group| &group.values);
        guided::check(job, guides(job, &self.scan.output).as_ref(), missing, needs_model)
    }

    /// What a reader of the plan must know where a run that is not that far would end at its gates. The plan itself needs
    /// none: it may be made where their models are not.
    pub(super) fn unusable_gates(&self, context: &Context<'_>) -> Option<String> {
        self.plan.as_ref()?.output.groups.iter().find(|group| group.add > 0)?;
        let (gates, grouping) = (&context.job.verify.gates, &context.job.plan.as_ref()?.grouping);
        let error = verifier::preflight(gates, &self.scan.output, grouping).err()?;
        let trained = self.verifier_stage(context.job, grouping).and_then(|stage| context.finished(&stage));
        (!trained.unwrap_or(false)).then(|| format!("`run` would end before it generates: {error}"))
    }

    /// The groups whose guides cannot give what the plan asks for.
    pub(super) fn too_few_guides(&self, job: &Job) -> Vec<String> {
        let (Some(plan), Some(guides)) = (&self.plan, guides(job, &self.scan.output)) else { return Vec::new() };
        let note = |group: &evenset_plan::PlannedGroup| {
            let possible = guides.different(&group.values).filter(|possible| *possible < group.add)?;
            Some(format!(
                "{} misses {} images, and its guides, inverted without noise, give no more than {possible} different ones; \
                 `generate.guides.inversion_noise: 0.1`, more sources or `noise: true` gives more",
                group.values, group.add
            ))
        };
        let mut notes: Vec<String> = plan.output.groups.iter().filter_map(note).collect();
        if let Some(more) = notes.len().checked_sub(MOST_NOTES).filter(|more| *more > 0) {
            notes.truncate(MOST_NOTES);
            notes.push(format!("the guides of {more} more groups give too few images in the same way"));
        }
        notes
    }

    fn verifier_stage<'a>(&'a self, job: &'a Job, grouping: &'a [String]) -> Result<VerifierStage<'a>> {
        let gates = &job.verify.gates;
        Ok(VerifierStage {
            gates,
            outside: verifier::outside(gates)?,
            seed: job.seed,
            dataset: &self.dataset,
            scan: &self.scan,
            frame: self.frame,
            grouping,
        })
    }

    /// Generates and verifies in rounds; gives the fingerprint of the last one.
    pub(super) fn rounds(&mut self, context: &Context<'_>, goal: Goal) -> Result<Fingerprint> {
        let job = context.job;
        let (Some(plan), Some(plan_job)) = (&self.plan, &job.plan) else { return Ok(self.scan.fingerprint.clone()) };
        let mut last = plan.fingerprint.clone();
        let sweep = job.evidence.iter().flat_map(|evidence| &evidence.sweep);
        let mut so_far = RoundsProgress::start(&plan.output, sweep.copied().fold(1.0, f64::max));
        if so_far.remaining() == 0 {
            return Ok(last);
        }
        if let Some(guides) = guides(job, &self.scan.output) {
            so_far.groups.iter_mut().for_each(|group| group.possible = guides.different(&group.group));
        }
        let (dataset, scan, frame, seed) = (&self.dataset, &self.scan, self.frame, job.seed);
        if let Model::StableDiffusion(config) = &job.generate.model {
            config.fetch(context.progress)?;
        }
        self.check_guides(job, true)?;
        let sampler = &job.generate.sampler;
        let grouping = &plan_job.grouping;
        let mut ahead =
            Ahead { context, goal, scan: &scan.output, grouping, usable: false, made_from: MadeFrom::new() };
        let model = self.generator(&mut ahead)?;
        let mut verifier = None;
        if goal >= Goal::Verify {
            let stage = self.verifier_stage(job, grouping)?;
            ahead.look(&stage)?;
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
            ahead.look(&stage)?;
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
            ahead.look(&stage)?;
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
        self.made_from = ahead.made_from;
        (self.model, self.verifier, self.progress) = (Some(model), verifier, so_far);
        Ok(last)
    }

    /// What the rounds draw from.
    fn generator(&self, ahead: &mut Ahead<'_>) -> Result<Done<Box<dyn Generator>>> {
        let context = ahead.context;
        let (job, dataset, scan) = (context.job, &self.dataset, &self.scan);
        let sampler = &job.generate.sampler;
        match &job.generate.model {
            Model::Conditional(config) => {
                let planned = self.plan.iter().flat_map(|plan| &plan.output.groups);
                // A group without a value for an attribute is counted, and nothing of it can be drawn.
                let groups = planned.map(|group| &group.values).filter(|group| group.is_complete()).cloned().collect();
                let sampler = &sampler.conditional().map_err(|(_, why)| job.invalid("generate.sampler", why))?;
                let stage = ModelStage { config, sampler, seed: job.seed, dataset, scan, frame: self.frame, groups };
                ahead.look(&stage)?;
                context.complete(&stage)
            }
            Model::StableDiffusion(config) => {
                let strengths = job.generate.guides.as_ref().map_or(&[][..], |guides| &guides.strengths);
                let stage = PretrainedStage::new(config, sampler, strengths, context.progress)?;
                ahead.look(&stage)?;
                context.complete(&stage)
            }
            Model::Http(config) => {
                let stage = HostedStage { config, run: &context.run.root };
                ahead.look(&stage)?;
                context.complete(&stage)
            }
        }
    }

    /// Whether the images of the last round, those behind the ones before it, made the classifier of the evidence better.
    pub(super) fn still_helps(
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
        let judged_by = (label.as_str(), &self.overlap);
        let stage = PlateauStage { round, config, data: &data, judged_by, open, after, seed: job.seed };
        Ok(context.complete(&stage)?.output)
    }
}

/// What is found out before a stage of the rounds begins, and not behind its hours of work.
struct Ahead<'a> {
    context: &'a Context<'a>,
    goal: Goal,
    scan: &'a Scan,
    grouping: &'a [String],
    /// Whether the gates were looked at, and can be used.
    usable: bool,
    /// The stages so far.
    made_from: MadeFrom,
}

impl Ahead<'_> {
    /// Refuses work on candidates that no gate could judge, or that could not be written.
    fn look<S: Stage>(&mut self, stage: &S) -> Result<()> {
        let Context { job, overwrite, .. } = *self.context;
        if self.goal >= Goal::Write {
            write::check_made_from(job, overwrite, stage)?;
        }
        if self.goal >= Goal::Verify && !self.usable && !self.context.finished(stage)? {
            verifier::preflight(&job.verify.gates, self.scan, self.grouping)?;
            self.usable = true;
        }
        self.made_from.insert(stage.name(), stage.fingerprint());
        Ok(())
    }
}

/// The real images that candidates of this job may start from.
fn guides<'a>(job: &'a Job, scan: &'a Scan) -> Option<Guides<'a>> {
    let (config, plan) = (job.generate.guides.as_ref()?, job.plan.as_ref()?);
    let rows = scan.role(Role::Train).filter_map(|row| Some((scan.group(row, &plan.grouping)?, row)));
    Some(Guides::new(config, job.dataset.label.as_deref(), rows, job.seed))
}

/// The groups for which more images are asked.
fn still_open(groups: &[GroupProgress]) -> impl Iterator<Item = &GroupProgress> {
    groups.iter().filter(|group| group.unreachable.is_none() && group.accepted < group.wanted)
}
