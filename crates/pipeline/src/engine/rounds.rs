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
use crate::run::{Context, Done};
use crate::stages::evidence::{EvidenceStage, unlearnable};
use crate::stages::generate::{Candidate, GenerateStage};
use crate::stages::model::{HostedStage, ModelStage, PretrainedStage};
use crate::stages::plan::prompts;
use crate::stages::plateau::{Judged, PlateauStage};
use crate::stages::scan::Scan;
use crate::stages::verifier::{self, VerifierStage};
use crate::stages::verify::VerifyStage;

impl Finished {
    /// Refuses, before anything is drawn, a job some of whose candidates would lack a guide that they need.
    pub(super) fn check_guides(&self, job: &Job, needs_model: bool) -> Result<()> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let missing = plan.output.groups.iter().filter(|group| group.add > 0).map(|group| &group.values);
        guided::check(job, guides(job, &self.scan.output).as_ref(), missing, needs_model)
    }

    /// Refuses a job with a gate that cannot be used: whose model or program is not there, or does not fit the values.
    pub(super) fn check_gates(&self, job: &Job) -> Result<()> {
        let Some(plan) = &job.plan else { return Ok(()) };
        verifier::preflight(&job.verify.gates, &self.scan.output, &plan.grouping)
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
        let (dataset, scan, frame, seed) = (&self.dataset, &self.scan, self.frame, job.seed);
        let gates = &job.verify.gates;
        let grouping = &plan_job.grouping;
        if let Model::StableDiffusion(config) = &job.generate.model {
            config.fetch(context.progress)?;
        }
        self.check_guides(job, true)?;
        let sampler = &job.generate.sampler;
        let model = self.generator(context, goal)?;
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

    /// What the rounds draw from.
    fn generator(&self, context: &Context<'_>, goal: Goal) -> Result<Done<Box<dyn Generator>>> {
        let (job, dataset, scan) = (context.job, &self.dataset, &self.scan);
        let sampler = &job.generate.sampler;
        // Gates that cannot be used are not found out after hours of training.
        let preflight = || if goal >= Goal::Verify { self.check_gates(job) } else { Ok(()) };
        match &job.generate.model {
            Model::Conditional(config) => {
                let planned = self.plan.iter().flat_map(|plan| &plan.output.groups);
                let groups: Vec<Group> = planned.map(|group| group.values.clone()).collect();
                let sampler = &sampler.conditional().map_err(|(_, why)| job.invalid("generate.sampler", why))?;
                let stage = ModelStage { config, sampler, seed: job.seed, dataset, scan, frame: self.frame, groups };
                if !context.finished(&stage)? {
                    preflight()?;
                }
                context.complete(&stage)
            }
            Model::StableDiffusion(config) => {
                preflight()?;
                let strengths = job.generate.guides.as_ref().map_or(&[][..], |guides| &guides.strengths);
                context.complete(&PretrainedStage::new(config, sampler, strengths, context.progress)?)
            }
            Model::Http(config) => {
                preflight()?;
                context.complete(&HostedStage { config, run: &context.run.root })
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
        let stage = PlateauStage { round, config, data: &data, open, after, seed: job.seed };
        Ok(context.complete(&stage)?.output)
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
