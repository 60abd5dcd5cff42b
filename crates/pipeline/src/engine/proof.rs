//! What a run shows of itself: the gates looked at, and whether the images helped.

use evenset_core::Fingerprint;
use evenset_evidence::{ClassifierKind, Error as EvidenceError, EvidenceConfig};
use evenset_verify::GateConfig;

use super::Finished;
use crate::error::{PipelineError, Result};
use crate::job::{Job, OnBias};
use crate::run::{Context, Done};
use crate::stages::checks::ChecksStage;
use crate::stages::evidence::{EvidenceStage, Obstacle, WITHOUT_FEATURES};
use crate::stages::held_out::{HeldOut, HeldOutStage};
use crate::stages::verifier;

impl Finished {
    /// Looks at the gates themselves.
    pub(super) fn checks(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
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
        let unchecked: Vec<String> = job.verify.gates.iter().filter_map(|gate| self.unchecked(gate)).collect();
        self.notes.extend(bias);
        self.notes.extend(unchecked);
        self.notes.extend(verifier.output.shortages());
        if let Some(shortcut) = checks.output.shortcut.as_ref().filter(|shortcut| shortcut.found) {
            self.notes.push(shortcut.sentence.clone());
        }
        self.checks = Some(checks);
        Ok(())
    }

    /// What a reader must know where a program failed and its images were kept.
    fn unchecked(&self, gate: &GateConfig) -> Option<String> {
        let verdicts = self.rounds.iter().flat_map(|round| &round.verdicts);
        let unchecked = verdicts.filter(|verdict| gate.kept_unchecked(verdict)).count();
        (unchecked > 0).then(|| {
            format!(
                "accepted without a check by the gate `{}`, since its program failed and the job says `on_error: keep`: \
                 {unchecked} images",
                gate.name()
            )
        })
    }

    pub(super) fn evidence_stage<'a>(
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

    /// Remembers why there is no evidence, and tells it.
    pub(super) fn stumble(&mut self, obstacle: Option<Obstacle>) {
        self.notes.extend(obstacle.iter().map(|obstacle| obstacle.why.clone()));
        self.obstacle = obstacle;
    }

    pub(super) fn evidence(&mut self, context: &Context<'_>, last: &Fingerprint) -> Result<()> {
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
        if config.augment {
            let note = "the training images of every arm of the evidence were changed at random (`evidence.augment`)";
            self.notes.push(note.into());
        }
        Ok(())
    }

    /// What came of groups that are held out, where the job asks for it; or why there are none.
    pub(super) fn held_out(
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
    pub(super) fn unlooked(&self, job: &Job) -> Option<String> {
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
