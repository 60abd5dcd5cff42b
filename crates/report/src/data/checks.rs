//! What the gates did, and what was found when the gates themselves were looked at.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use super::{Interval, ReasonCount};

/// What the gates did with the candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acceptance {
    /// Candidates that were drawn.
    pub candidates: u64,
    /// Those that passed every gate.
    pub accepted: u64,
    /// Those that a gate dropped.
    pub rejected: u64,
    /// The gates in the order in which they are asked.
    pub gates: Vec<GateRow>,
}

/// One gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateRow {
    /// The gate's name, as in the job file.
    pub gate: String,
    /// Candidates that it was asked about.
    pub checked: u64,
    /// Candidates that it dropped.
    pub dropped: u64,
    /// Why, most frequent first.
    pub reasons: Vec<ReasonCount>,
}

/// How far to trust the verifier on one attribute: measured on real images that it did not train on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// The attribute that it recognises.
    pub attribute: String,
    /// Share of held-out real images that it names rightly, 0 to 1.
    pub accuracy: f64,
    /// How many held-out images that is measured on.
    pub images: u64,
    /// The attribute's values, the order of the rows and columns of the matrix.
    pub classes: Vec<String>,
    /// `confusion[truth][prediction]`: counts.
    pub confusion: Vec<Vec<u64>>,
    /// Mean over the groups of the share named rightly, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_accuracy: Option<f64>,
    /// How sure it must be of each value, in the order of the classes; empty without the gate `attributes`.
    pub thresholds: Vec<Threshold>,
}

/// How sure the classifier must be of one value before an image passes as having it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threshold {
    /// The value.
    pub value: String,
    /// The least probability; it must be the first choice besides. Above 1 nothing passes.
    pub least: f64,
    /// Whether it was calibrated; else it is the job's own, or there were too few images.
    pub calibrated: bool,
    /// Of held-out real images with another value, those that pass.
    pub false_accept: Rate,
    /// Of held-out real images with the value, those that pass.
    pub recall: Rate,
    /// How many groups with this value have a threshold of their own.
    pub groups: u64,
}

/// How many of some images: a rate with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// Those that pass.
    pub kept: u64,
    /// All of them.
    pub shown: u64,
    /// 95 % interval of the rate.
    pub interval: Option<Interval>,
}

impl Rate {
    /// `kept / shown`; 0 where none was shown.
    pub fn rate(&self) -> f64 {
        if self.shown == 0 { 0.0 } else { self.kept as f64 / self.shown as f64 }
    }
}

/// What was found when the gates themselves were looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checks {
    /// Groups that are rejected far more than the others.
    pub bias: Vec<BiasWarning>,
    /// By attribute: how many of the accepted images truly have each value.
    pub corrected: Vec<CorrectedAttribute>,
    /// Whether something trivial tells generated images from real ones.
    pub shortcut: Option<Shortcut>,
    /// How diverse the accepted images of each group are.
    pub diversity: Vec<Diversity>,
    /// The ways to start an image and how they fared.
    pub guides: Vec<GuideRow>,
}

/// A group that is rejected far more than the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BiasWarning {
    /// The group that was asked for.
    pub group: Group,
    /// How many of its candidates were accepted.
    pub accepted: Rate,
    /// How many of all other groups' candidates were accepted.
    pub others: Rate,
    /// The probability of so few if groups made no difference, corrected for the number of groups.
    pub p: f64,
    /// The gate that explains most of the difference.
    pub gate: Option<String>,
    /// Share of the group's candidates that this gate dropped.
    pub gate_dropped: f64,
    /// Share of the others' candidates that it dropped.
    pub gate_dropped_others: f64,
}

/// The corrected counts of one attribute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorrectedAttribute {
    /// The attribute.
    pub attribute: String,
    /// Its values that images were asked for.
    pub values: Vec<CorrectedCount>,
}

/// How many of the accepted images of one value truly have it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorrectedCount {
    /// The value.
    pub value: String,
    /// Images accepted as having it.
    pub accepted: u64,
    /// Those that truly have it, corrected for the classifier's errors; none where these are not known well enough.
    pub corrected: Option<f64>,
    /// 95 % interval of it.
    pub interval: Option<Interval>,
}

/// The interval of the sum over an attribute's values: their ends added up, as if each were off in the same direction, which is
/// wider than chance would be. None where one is not known.
pub(crate) fn summed(values: &[CorrectedCount]) -> Option<Interval> {
    values.iter().try_fold([0.0, 0.0], |[low, high], value| value.interval.map(|[from, to]| [low + from, high + to]))
}

/// Whether something trivial tells generated images from real ones of the same group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shortcut {
    /// Whether there is a shortcut, over all groups or in one.
    pub found: bool,
    /// The limit that an interval must lie above.
    pub limit: f64,
    /// Over all groups; none where images are too few.
    pub overall: Option<ShortcutFigures>,
    /// Group by group, where images are enough.
    pub groups: Vec<GroupShortcut>,
    /// Groups with too few images to be looked at by themselves.
    pub small: SmallGroups,
    /// The same by what the verifier's classifier sees: how real they look to it. No shortcut follows from it.
    pub features: Option<Auc>,
}

/// What trivial cues tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShortcutFigures {
    /// Real images looked at.
    pub real: u64,
    /// Generated images looked at.
    pub generated: u64,
    /// Of a small classifier of all cues.
    pub auc: Auc,
    /// The cue that tells them apart best by itself.
    pub best: Cue,
    /// Whether the interval lies above the limit.
    pub found: bool,
}

/// Groups with too few images to be looked at by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SmallGroups {
    /// The fewest images, real and generated each, that a group needs.
    pub smallest: u64,
    /// How many groups have fewer.
    pub groups: u64,
    /// Their generated images.
    pub generated: u64,
    /// Of these the ones that count over all groups, beside as many real ones.
    pub counted: u64,
}

/// What trivial cues tell in one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupShortcut {
    /// The group.
    pub group: Group,
    /// What they tell.
    #[serde(flatten)]
    pub figures: ShortcutFigures,
}

/// How well a number tells two kinds of images apart: 0.5 is not at all, 1 is always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auc {
    /// The probability that a generated image has more of it than a real one.
    pub value: f64,
    /// 95 % interval of it.
    pub interval: Interval,
}

/// What one cue tells by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cue {
    /// Its name, for example `sharpness`.
    pub cue: String,
    /// Whether generated images have more of it.
    pub more_in_generated: bool,
    /// At least 0.5: turned round where generated images have less of it.
    pub auc: Auc,
}

/// How diverse the accepted images of one group are, next to as many real ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diversity {
    /// The group.
    pub group: Group,
    /// How many of each were compared.
    pub compared: u64,
    /// Vendi score of the real ones, from 1 (all alike) to `compared`.
    pub real_score: Option<f64>,
    /// Vendi score of the accepted ones.
    pub accepted_score: Option<f64>,
}

/// One way to start an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuideRow {
    /// The way, as the job names it.
    pub name: String,
    /// How many images started so were accepted.
    pub accepted: Rate,
}
