//! Checks: the gates themselves are looked at, over all rounds.
//!
//! Who was rejected how often and by which gate, whether a group was rejected far more than the others, how many accepted
//! images truly show what they are recorded to show, whether something trivial gives generated images away, how diverse
//! they are, and how the ways to start an image fared.

use std::path::Path;

use evenset_core::{Fingerprint, Seed};
use evenset_plan::GuideArm;
use evenset_verify::{
    Acceptance, BiasWarning, CorrectedCount, GroupDiversity, RealImages, Share, ShortcutReport, Verdict, Verifier,
    bias_warnings, diversity_report, shortcut_report,
};
use serde::{Deserialize, Serialize};

use super::verifier::real_images;
use super::verify::decode;
use crate::engine::Round;
use crate::error::Result;
use crate::images::Frame;
use crate::job::Role;
use crate::rounds::Progress;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::stages::scan::{Row, Scan};

const CHECKS: &str = "checks.json";

/// Looks at the gates.
pub struct ChecksStage<'a> {
    /// The finished rounds.
    pub rounds: &'a [Round],
    /// The fingerprint of the last one.
    pub after: &'a Fingerprint,
    /// How the groups and the ways to start an image fared.
    pub progress: &'a Progress,
    /// The ways to start an image; none where the job has no guides.
    pub arms: &'a [GuideArm],
    /// The gates.
    pub verifier: &'a Done<Verifier>,
    /// The images.
    pub dataset: &'a evenset_data::Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that gates look at.
    pub frame: Frame,
    /// The attributes that requests fix.
    pub grouping: &'a [String],
    /// The job's seed.
    pub seed: Seed,
}

/// What the checks found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checks {
    /// Acceptance by group and by gate.
    pub acceptance: Acceptance,
    /// Groups that are rejected far more than the others.
    pub bias: Vec<BiasWarning>,
    /// By attribute: how many of the accepted images truly have each value.
    pub corrected: Vec<(String, Vec<CorrectedCount>)>,
    /// Whether trivial cues tell generated images from real ones; none without the gate `shortcut`.
    pub shortcut: Option<ShortcutReport>,
    /// The diversity of each group's accepted images.
    pub diversity: Vec<GroupDiversity>,
    /// The ways to start an image and how many images of each were accepted.
    pub guides: Vec<(String, Share)>,
}

impl Stage for ChecksStage<'_> {
    type Output = Checks;

    fn name(&self) -> String {
        "checks".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("checks", &(self.seed, self.frame), &[self.after, &self.verifier.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let verifier = &self.verifier.output;
        let mut candidates = Vec::new();
        for round in self.rounds {
            candidates.extend(decode(&round.candidates, self.frame)?);
        }
        let verdicts: Vec<Verdict> = self.rounds.iter().flat_map(|round| round.verdicts.iter().cloned()).collect();
        let groups = candidates.iter().map(|candidate| &candidate.group);
        let acceptance = Acceptance::of(&verifier.gate_names(), groups.zip(&verdicts));
        context.progress.check()?;
        let accepted: Vec<_> = candidates
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.accepted)
            .map(|(candidate, _)| candidate.clone())
            .collect();
        let shortcut = match verifier.shortcut() {
            Some(config) => {
                let seed = self.seed.derive("shortcut");
                Some(shortcut_report(config, &self.real()?, &accepted, Some(verifier), seed)?)
            }
            None => None,
        };
        let history = &self.progress.guides;
        let guide = |(number, arm): (usize, &GuideArm)| {
            let (kept, shown) = history.overall(number);
            (arm.to_string(), Share::new(kept, shown))
        };
        let checks = Checks {
            bias: bias_warnings(&acceptance),
            corrected: verifier.corrected_counts(&candidates, &verdicts, context.progress)?,
            shortcut,
            diversity: diversity_report(verifier, &accepted, self.seed.derive("diversity"))?,
            guides: self.arms.iter().enumerate().map(guide).collect(),
            acceptance,
        };
        write_json(&folder.join(CHECKS), &checks)?;
        Ok(StageReport { rows: candidates.len() as u64, rejected: (candidates.len() - accepted.len()) as u64 })
    }

    fn load(&self, folder: &Path) -> Result<Checks> {
        read_json_of(&folder.join(CHECKS))
    }
}

impl ChecksStage<'_> {
    fn real(&self) -> Result<RealImages> {
        let rows: Vec<&Row> = self.scan.output.role(Role::Train).collect();
        real_images(self.dataset, &self.scan.output, &rows, self.frame, self.grouping)
    }
}
