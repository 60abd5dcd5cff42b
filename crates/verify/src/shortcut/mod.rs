//! `shortcut`: whether something trivial tells generated images from real ones.
//!
//! Generated images that are brighter, smoother or more evenly lit than real ones, and are added to some groups only, teach
//! whoever trains on both that brightness or smoothness means the group. So a small classifier tries to tell real from
//! generated images of the same group by cues that have nothing to do with what they show, and reports how far it comes on
//! images that it did not learn from. It looks at images as they were drawn, before `write.match_real` gives them files
//! like the real ones: sizes, formats and the quality of compression are made alike there, and are not looked at here.

mod auc;
mod cues;
mod logistic;

use std::collections::BTreeMap;

use evenset_core::{Group, Seed};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use auc::Auc;

use crate::gates::{members, wishes};
use crate::nearest::Points;
use crate::{Candidate, RealImages, ShortcutConfig, Verifier, VerifyError};
use cues::{CUES, cues};
use logistic::cross_validated;

/// Images of one kind and group that are looked at, and of one kind in all groups together.
const IN_GROUP: usize = 1000;
const IN_ALL: usize = 10_000;

/// What the check found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortcutReport {
    /// Whether there is a shortcut, over all groups or in one.
    pub found: bool,
    /// The limit that an interval must lie above.
    pub limit: f64,
    /// Over all groups, with as many real as generated images of each; none where they are too few.
    pub overall: Option<ShortcutFigures>,
    /// By group, in the groups' order; groups with too few images are left out.
    pub groups: Vec<GroupShortcut>,
    /// The groups that were left out.
    #[serde(default)]
    pub small: SmallGroups,
    /// How well what the verifier's classifier sees tells generated images from real ones that it did not learn from: how
    /// real they look to it. No shortcut follows from it. None without a classifier or with too few images.
    pub features: Option<Auc>,
    /// All this in words.
    pub sentence: String,
}

/// What trivial cues tell about some images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortcutFigures {
    /// Real images looked at.
    pub real: usize,
    /// Generated images looked at.
    pub generated: usize,
    /// Of a classifier of all cues, on images that it did not learn from.
    pub auc: Auc,
    /// The cue that tells them apart best by itself.
    pub best: CueAuc,
    /// Whether the interval of `auc` lies above the limit.
    pub found: bool,
}

/// Groups that were not looked at by themselves, having too few images. In what is found over all groups they count with as
/// many real as generated images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallGroups {
    /// The fewest images, real and generated each, that a group needs.
    pub smallest: usize,
    /// How many groups have fewer.
    pub groups: usize,
    /// Their generated images.
    pub generated: usize,
    /// Of these the ones that count over all groups.
    pub counted: usize,
}

/// What one group's images tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupShortcut {
    /// The group.
    pub group: Group,
    /// Its figures.
    #[serde(flatten)]
    pub figures: ShortcutFigures,
}

/// What one cue tells by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CueAuc {
    /// The cue's name.
    pub cue: String,
    /// Whether generated images have more of it than real ones.
    pub more_in_generated: bool,
    /// At least 0.5: turned round where generated images have less of it.
    pub auc: Auc,
}

/// Looks for shortcuts between real images and the `generated` ones of the same groups. With a `verifier` it also reports how
/// real the generated images look to its classifier. Which images are looked at, at most 1000 of a kind and group, is drawn
/// with `seed`.
///
/// # Errors
/// [`VerifyError::UnknownAttribute`] for an attribute that no real image has, [`VerifyError::Classifier`] and
/// [`VerifyError::Tensor`] where the verifier's classifier fails.
pub fn shortcut_report(
    config: &ShortcutConfig,
    real: &RealImages,
    generated: &[Candidate],
    verifier: Option<&Verifier>,
    seed: Seed,
) -> Result<ShortcutReport, VerifyError> {
    let mut groups = BTreeMap::<&Group, Vec<usize>>::new();
    for (i, candidate) in generated.iter().enumerate() {
        groups.entry(&candidate.group).or_default().push(i);
    }
    let at_most = IN_GROUP.min(IN_ALL / groups.len().max(1)).max(1);
    let smallest = config.smallest as usize;
    let (mut overall, mut by_group) = (Sample::default(), Vec::new());
    let mut small = SmallGroups { smallest, ..SmallGroups::default() };
    for (group, mut drawn) in groups {
        let images = drawn.len();
        let mut rows = members(&wishes(&generated[drawn[0]], &real.attributes)?, &real.labels);
        let seed = seed.derive(&group.to_string());
        rows.shuffle(&mut seed.derive("real").rng());
        drawn.shuffle(&mut seed.derive("generated").rng());
        rows.truncate(at_most);
        drawn.truncate(at_most);
        let sample = Sample::of(real, &rows, generated, &drawn);
        // As many of both, or the groups would tell them apart.
        let alike = rows.len().min(drawn.len());
        if alike >= smallest {
            let figures = sample.figures(config.limit, seed.derive("folds"));
            by_group.extend(figures.map(|figures| GroupShortcut { group: group.clone(), figures }));
        } else {
            small.groups += 1;
            small.generated += images;
            small.counted += alike;
        }
        overall.extend(sample, alike);
    }
    let enough = overall.real.len() >= smallest;
    let overall = enough.then(|| overall.figures(config.limit, seed.derive("folds"))).flatten();
    let features = match verifier {
        Some(verifier) => of_features(verifier, generated, smallest, seed.derive("features"))?,
        None => None,
    };
    let found = overall.iter().chain(by_group.iter().map(|group| &group.figures)).any(|figures| figures.found);
    let mut report = ShortcutReport {
        found,
        limit: config.limit,
        overall,
        groups: by_group,
        small,
        features,
        sentence: String::new(),
    };
    report.sentence = report.tell();
    Ok(report)
}

/// The cues of some real and some generated images.
#[derive(Default)]
struct Sample {
    real: Vec<Vec<f64>>,
    generated: Vec<Vec<f64>>,
}

impl Sample {
    fn of(real: &RealImages, rows: &[usize], generated: &[Candidate], drawn: &[usize]) -> Self {
        let (width, height) = (real.images.width(), real.images.height());
        let of_generated = |i: &usize| {
            let Candidate { rgb, width, height, .. } = &generated[*i];
            cues(rgb, *width as usize, *height as usize)
        };
        Self {
            real: rows.par_iter().map(|&row| cues(real.images.image(row), width, height)).collect(),
            generated: drawn.par_iter().map(of_generated).collect(),
        }
    }

    fn extend(&mut self, other: Self, most: usize) {
        self.real.extend(other.real.into_iter().take(most));
        self.generated.extend(other.generated.into_iter().take(most));
    }

    fn figures(&self, limit: f64, seed: Seed) -> Option<ShortcutFigures> {
        let column = |rows: &[Vec<f64>], c: usize| -> Vec<f64> { rows.iter().map(|row| row[c]).collect() };
        let alone = CUES.iter().enumerate().filter_map(|(c, cue)| {
            let auc = Auc::of(&column(&self.real, c), &column(&self.generated, c))?;
            let more_in_generated = auc.value >= 0.5;
            let auc = if more_in_generated { auc } else { auc.turned() };
            Some(CueAuc { cue: (*cue).to_owned(), more_in_generated, auc })
        });
        // Of cues that tell as much the first.
        let best = alone.reduce(|best, cue| if cue.auc.value > best.auc.value { cue } else { best })?;
        let auc = classified(&self.real, &self.generated, seed)?;
        let found = auc.interval[0] > limit;
        Some(ShortcutFigures { real: self.real.len(), generated: self.generated.len(), auc, best, found })
    }
}

/// How well a classifier tells the two kinds apart on images that it did not learn from.
fn classified(real: &[Vec<f64>], generated: &[Vec<f64>], seed: Seed) -> Option<Auc> {
    let rows = [real, generated].concat();
    let kinds: Vec<bool> = (0..rows.len()).map(|i| i >= real.len()).collect();
    let odds = cross_validated(&rows, &kinds, seed);
    Auc::of(&odds[..real.len()], &odds[real.len()..])
}

/// The same by what the verifier's classifier sees: as many real images that it did not learn from as generated ones of each
/// group.
fn of_features(
    verifier: &Verifier,
    generated: &[Candidate],
    smallest: usize,
    seed: Seed,
) -> Result<Option<Auc>, VerifyError> {
    let Some(known) = verifier.known() else { return Ok(None) };
    let mut groups = BTreeMap::<&Group, Vec<&Candidate>>::new();
    for candidate in generated.iter().filter(|candidate| verifier.fits(candidate)) {
        groups.entry(&candidate.group).or_default().push(candidate);
    }
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for (group, mut images) in groups {
        let mut unseen = members(&wishes(images[0], verifier.attributes())?, &known.values);
        unseen.retain(|&row| known.held_out[row]);
        let mut rng = seed.derive(&group.to_string()).rng();
        images.shuffle(&mut rng);
        let most = unseen.len().min(images.len()).min(IN_GROUP);
        rows.extend(unseen.into_iter().take(most));
        drawn.extend(images.into_iter().take(most));
    }
    if rows.len() < smallest {
        return Ok(None);
    }
    let numbers = |points: &Points| -> Vec<Vec<f64>> {
        (0..points.len()).map(|row| points.row(row).iter().map(|&value| f64::from(value)).collect()).collect()
    };
    let real = numbers(&known.looks.features.select(rows));
    Ok(classified(&real, &numbers(&verifier.looks(&drawn)?.features), seed))
}

impl ShortcutReport {
    fn tell(&self) -> String {
        let told = |auc: &Auc| format!("{:.2} ({:.2} to {:.2})", auc.value, auc.interval[0], auc.interval[1]);
        let Some(overall) = &self.overall else {
            return "there are too few real and generated images of the same groups to look for shortcuts".to_owned();
        };
        let CueAuc { cue, more_in_generated, auc } = &overall.best;
        let more = if *more_in_generated { "more" } else { "less" };
        let mut sentence = format!(
            "trivial cues tell generated images from real ones of the same groups with an area under the curve of {}; the best by itself is `{cue}`, {more} in generated images, with {}",
            told(&overall.auc),
            told(auc)
        );
        let named: Vec<String> =
            self.groups.iter().filter(|group| group.figures.found).map(|group| group.group.to_string()).collect();
        if self.found {
            let limit = self.limit;
            sentence += &format!("; a classifier can learn this instead of what the images show (limit {limit:.2})");
        }
        if !named.is_empty() {
            sentence += &format!("; groups with a shortcut of their own: {}", named.join(", "));
        }
        if let Some(features) = &self.features {
            sentence += &format!("; by what the verifier's classifier sees it is {}", told(features));
        }
        sentence
    }
}
