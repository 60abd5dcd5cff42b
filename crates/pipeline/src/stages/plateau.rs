//! Plateau: does another round still help?
//!
//! After a round the classifier of the evidence is trained with all accepted images and with those of the rounds before,
//! and both are tried on real images that are neither trained on nor part of the test split. Where the interval of the
//! difference in the worst group does not lie above zero, more images have stopped helping.
//!
//! The groups that still miss images are those that it is about, and they are small: test groups with few images are
//! judged as one, and where those groups have too few images even so, or no classifier can be trained, nothing is known
//! and the rounds go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use evenset_core::{Fingerprint, Group, SampleId, Seed};
use evenset_evidence::{ArmRun, Error, EvidenceConfig, EvidenceData, Labelled, StepSummary};
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::run::{Context, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::trainings::{Training, complete_all};
use crate::within::Within;

const PLATEAU: &str = "plateau.json";
/// Share of each real training group that is kept apart to judge rounds, where there is no validation split.
const APART: f64 = 0.2;
/// A group smaller than this keeps all its images for training.
const SMALLEST_SPLIT: usize = 2;

/// Judges one round.
pub struct PlateauStage<'a> {
    /// From 1.
    pub round: u32,
    /// How the classifiers are trained.
    pub config: &'a EvidenceConfig,
    /// The images: accepted in the rounds before as those that fill the plan, accepted in this one as those beyond it.
    pub data: &'a dyn Fn() -> Result<EvidenceData>,
    /// The label, and the held-out images that count in no test.
    pub judged_by: (&'a str, &'a BTreeSet<SampleId>),
    /// Groups for which more images are asked.
    pub open: &'a [Group],
    /// The fingerprint of its verification.
    pub after: &'a Fingerprint,
    /// The job's seed.
    pub seed: Seed,
}

/// What is known of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// What its images changed.
    pub step: Option<StepSummary>,
    /// Why nothing is known, a clause.
    pub unknown: Option<String>,
}

impl Judged {
    /// Nothing is known of a round.
    pub(crate) fn unknown(why: String) -> Self {
        Self { step: None, unknown: Some(why) }
    }

    /// Whether the rounds go on: the images helped, or nobody knows.
    pub fn goes_on(&self) -> bool {
        self.step.as_ref().is_none_or(|step| step.helps)
    }
}

impl Stage for PlateauStage<'_> {
    type Output = Judged;

    fn name(&self) -> String {
        format!("plateau-{}", self.round)
    }

    fn fingerprint(&self) -> Fingerprint {
        let config = (self.config.of_one_training(), self.config.seeds, self.judged_by, self.open, self.seed);
        fingerprint(&self.name(), &config, &[self.after])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let mut data = judged_apart((self.data)()?, self.seed.derive("plateau"));
        let smallest = self.config.smallest_group as usize;
        let unknown = untried(&data, self.config).or_else(|| too_few(&data, self.open, smallest));
        let judged = match unknown {
            Some(why) => Judged::unknown(why),
            None => {
                data.pool_small_test_groups(smallest);
                Judged { step: Some(self.step(folder, &data, context)?), unknown: None }
            }
        };
        write_json(&folder.join(PLATEAU), &judged)?;
        Ok(StageReport { rows: 2 * u64::from(self.config.seeds), rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Judged> {
        read_json_of(&folder.join(PLATEAU))
    }
}

impl PlateauStage<'_> {
    /// Trains with the images of the rounds before and with those of this one too.
    fn step(&self, folder: &Path, data: &EvidenceData, context: &Context<'_>) -> Result<StepSummary> {
        let runs_folder = folder.join("runs");
        std::fs::create_dir_all(&runs_folder).map_err(PipelineError::io(&runs_folder))?;
        let mut all = data.generated.clone();
        if let Some(last) = &data.further {
            all.extend(last)?;
        }
        let (config, seed, steps) = (self.config, self.seed, u64::from(self.config.steps));
        let of = |name: &str, generated: &'_ Labelled| -> Result<Vec<ArmRun>> {
            let training = |number: u32| Training {
                path: runs_folder.join(format!("{name}-{number}.json")),
                note: format!("{name} round {}, seed {number}", self.round),
                steps,
                train: Box::new(move |inside: &Within<'_>| {
                    Ok(evenset_evidence::run_balanced(generated, data, seed, number, config, inside)?)
                }),
            };
            complete_all(&(0..config.seeds).map(training).collect::<Vec<_>>(), context.progress)
        };
        context.progress.begin(&format!("does round {} help?", self.round), 2 * u64::from(config.seeds) * steps);
        let (before, after) = (of("before", &data.generated)?, of("after", &all)?);
        context.progress.end();
        Ok(evenset_evidence::summarise_step(&before, &after)?)
    }
}

/// Why no classifier can be trained and tried on this data, a clause.
fn untried(data: &EvidenceData, config: &EvidenceConfig) -> Option<String> {
    match data.check(config.classifier) {
        Err(Error::Empty("test")) => Some("no real image can be kept apart to judge by".into()),
        Err(error @ (Error::Empty(_) | Error::Classes(_) | Error::NoFeatures(_))) => Some(error.to_string()),
        // Anything else is told by the training.
        _ => None,
    }
}

/// Why the groups that still miss images cannot be judged, a clause.
fn too_few(data: &EvidenceData, open: &[Group], smallest: usize) -> Option<String> {
    let judged = |group: &Group| {
        let place = data.groups.iter().position(|known| known == group);
        data.test.groups.iter().filter(|&&of| Some(of as usize) == place).count()
    };
    if let Some(group) = open.iter().find(|group| judged(group) == 0) {
        return Some(format!("no real image of {group}, which still misses images, is there to judge by"));
    }
    let images: usize = open.iter().map(judged).sum();
    (!open.is_empty() && images < smallest).then(|| {
        format!(
            "the groups that still miss images have {images} real images to judge by, where {smallest} are needed; a \
             larger validation split has more"
        )
    })
}

/// The data with a validation part in the place of the test part: rounds must not be chosen by the test images.
fn judged_apart(data: EvidenceData, seed: Seed) -> EvidenceData {
    if let Some(validation) = &data.validation {
        let test = validation.clone();
        return EvidenceData { test, validation: None, ..data };
    }
    let mut groups = BTreeMap::<u32, Vec<usize>>::new();
    for (row, &group) in data.train.groups.iter().enumerate() {
        groups.entry(group).or_default().push(row);
    }
    let (mut learn, mut apart) = (Vec::new(), Vec::new());
    for (group, mut rows) in groups {
        seed.index(group.into()).shuffle(&mut rows);
        let count = if rows.len() < SMALLEST_SPLIT { 0 } else { (APART * rows.len() as f64).ceil() as usize };
        apart.extend(rows.drain(..count));
        learn.extend(rows);
    }
    learn.sort_unstable();
    apart.sort_unstable();
    EvidenceData { train: data.train.select(&learn), test: data.train.select(&apart), left_out: Vec::new(), ..data }
}

#[cfg(test)]
mod tests {
    use evenset_evidence::ClassifierKind;
    use evenset_nn::classifier::ImageSet;

    use super::*;

    fn part(groups: &[(u32, usize)]) -> Labelled {
        let groups: Vec<u32> = groups.iter().flat_map(|&(group, images)| vec![group; images]).collect();
        let images = ImageSet::new(8, 8, vec![0; groups.len() * 8 * 8 * 3]).unwrap();
        Labelled { images, labels: groups.iter().map(|group| group % 2).collect(), groups, features: None }
    }

    fn data(train: &[(u32, usize)]) -> EvidenceData {
        EvidenceData {
            train: part(train),
            left_out: Vec::new(),
            generated: part(&[]),
            planned: BTreeMap::new(),
            further: None,
            validation: None,
            test: part(&[(0, 5)]),
            classes: vec!["a".into(), "b".into()],
            groups: ["red", "blue", "green"].map(|colour| Group::of("colour", colour)).to_vec(),
            label: "shape".into(),
        }
    }

    #[test]
    fn small_groups_are_judged_too_and_with_too_few_images_nothing_is_known() {
        let apart = judged_apart(data(&[(0, 100), (1, 3), (2, 1)]), Seed(3));
        let judged = |group: u32| apart.test.groups.iter().filter(|&&of| of == group).count();
        assert_eq!([0, 1, 2].map(judged), [20, 1, 0]);
        let told = |open: &[Group], smallest| too_few(&apart, open, smallest).unwrap_or_default();
        let [red, blue, green] = ["red", "blue", "green"].map(|colour| Group::of("colour", colour));
        assert!(told(&[blue.clone(), green], 1).contains("no real image of colour=green"));
        assert!(told(std::slice::from_ref(&blue), 10).contains("have 1 real images"));
        assert_eq!(told(&[red, blue], 10), "", "together they are enough");
        assert_eq!(told(&[], 10), "");
    }

    #[test]
    fn where_no_classifier_can_be_tried_the_rounds_go_on() {
        let config = EvidenceConfig::default();
        let lonely = judged_apart(data(&[(0, 1), (1, 1)]), Seed(3));
        assert!(untried(&lonely, &config).unwrap().contains("no real image can be kept apart"));
        let one_class = EvidenceData { classes: vec!["a".into()], ..data(&[(0, 20)]) };
        let why = untried(&one_class, &config).unwrap();
        assert!(why.contains("1 classes") && Judged::unknown(why).goes_on());
        let linear = EvidenceConfig { classifier: ClassifierKind::Linear, ..config };
        assert!(untried(&data(&[(0, 20)]), &linear).unwrap().contains("feature vectors"));
    }
}
