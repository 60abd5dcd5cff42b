//! The images that the arms are trained and tested on.

use std::collections::BTreeMap;

use evenset_core::Group;
use evenset_nn::classifier::{FeatureSet, ImageSet, Inputs};

use crate::arms::validation::pools;
use crate::predictions::MOST_CLASSES;
use crate::{Arm, ClassifierKind, Error, EvidenceConfig};

/// Images with the label to learn and the group to judge by.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The images, all of one size.
    pub images: ImageSet,
    /// For each image an index into [`EvidenceData::classes`].
    pub labels: Vec<u32>,
    /// For each image an index into [`EvidenceData::groups`].
    pub groups: Vec<u32>,
    /// For each image a feature vector, for the classifier `linear`; others do without.
    pub features: Option<FeatureSet>,
}

/// Everything that [`run_arm`](crate::run_arm) needs.
#[derive(Clone, Debug)]
pub struct EvidenceData {
    /// Real training images.
    pub train: Labelled,
    /// Places of the training images that the plan leaves out of the balanced dataset; the arms with generated images
    /// alone do without them.
    pub left_out: Vec<usize>,
    /// Accepted generated images that fill the plan, in the order in which they were accepted; trained on, never tested
    /// on.
    pub generated: Labelled,
    /// How many images the plan adds to a group, by its index into [`groups`](Self::groups).
    pub planned: BTreeMap<u32, u64>,
    /// Accepted generated images beyond the plan, in their order: for the shares above one of a sweep.
    pub further: Option<Labelled>,
    /// Real images on which the best step of a training is chosen; where there are none, some training images are held
    /// out for it ([`EvidenceConfig::validation_share`]).
    pub validation: Option<Labelled>,
    /// Real held-out images.
    pub test: Labelled,
    /// The names of the label's classes, at least two.
    pub classes: Vec<String>,
    /// The groups by which accuracy is reported.
    pub groups: Vec<Group>,
    /// The label's name among the attributes of the groups; what else a group says is its attribute value.
    pub label: String,
}

/// An arm that cannot be run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The arm.
    pub arm: Arm,
    /// The reason, a clause.
    pub why: String,
}

impl Labelled {
    /// The images at `rows`, in that order, with what belongs to them; rows beyond the last are left out.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let of = |codes: &[u32]| rows.iter().filter_map(|&row| codes.get(row).copied()).collect();
        Self {
            images: self.images.select(rows.iter().copied()),
            labels: of(&self.labels),
            groups: of(&self.groups),
            features: self.features.as_ref().map(|features| features.select(rows.iter().copied())),
        }
    }

    /// Appends the images of `other`.
    ///
    /// # Errors
    /// [`Error::Classifier`] where they are of another size, or their features of another width.
    pub fn extend(&mut self, other: &Self) -> Result<(), Error> {
        if other.labels.is_empty() {
            return Ok(());
        }
        // No image has no features to lack.
        let was_empty = self.labels.is_empty();
        self.images.extend(&other.images)?;
        self.labels.extend(&other.labels);
        self.groups.extend(&other.groups);
        match (&mut self.features, &other.features) {
            (Some(features), Some(others)) => features.extend(others)?,
            (features, others) => *features = others.clone().filter(|_| was_empty),
        }
        Ok(())
    }

    /// What `classifier` looks at; `None` where it needs features that are not there.
    pub(crate) fn inputs(&self, classifier: ClassifierKind) -> Option<Inputs<'_>> {
        match classifier {
            ClassifierKind::Linear => self.features.as_ref().map(Inputs::Features),
            ClassifierKind::Cnn | ClassifierKind::Mlp => Some(Inputs::Images(&self.images)),
        }
    }
}

impl EvidenceData {
    /// Lets test groups with fewer than `smallest` images be judged as one, which takes in the next smallest group until
    /// it has that many. That group fixes no attribute.
    pub fn pool_small_test_groups(&mut self, smallest: usize) {
        let pooled = self.groups.len() as u32;
        let pools = pools(&self.test.groups, smallest);
        let joined = |(group, pool): (&mut u32, &usize)| *group = if *pool == 0 { pooled } else { *group };
        self.test.groups.iter_mut().zip(&pools).for_each(joined);
        if pools.contains(&0) {
            self.groups.push(Group::default());
        }
    }

    /// Checks that the parts belong together and have what `classifier` looks at.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Classes`], [`Error::Rows`], [`Error::Size`], [`Error::Index`], [`Error::LeftOut`],
    /// [`Error::NoFeatures`] or [`Error::Features`], naming the part.
    pub fn check(&self, classifier: ClassifierKind) -> Result<(), Error> {
        if !(2..=MOST_CLASSES).contains(&self.classes.len()) {
            return Err(Error::Classes(self.classes.len()));
        }
        let needed = [("train", &self.train), ("test", &self.test)];
        let optional = [
            ("generated", Some(&self.generated)),
            ("further generated", self.further.as_ref()),
            ("validation", self.validation.as_ref()),
        ];
        if let Some((part, _)) = needed.iter().find(|(_, labelled)| labelled.images.is_empty()) {
            return Err(Error::Empty(part));
        }
        let optional = optional.into_iter().filter_map(|(part, labelled)| Some((part, labelled?)));
        for (part, labelled) in needed.into_iter().chain(optional) {
            self.check_part(part, labelled, classifier)?;
        }
        match self.left_out.iter().find(|&&place| place >= self.train.labels.len()) {
            Some(&place) => Err(Error::LeftOut { place, images: self.train.labels.len() }),
            None => Ok(()),
        }
    }

    fn check_part(&self, part: &'static str, labelled: &Labelled, classifier: ClassifierKind) -> Result<(), Error> {
        let Labelled { images, labels, groups, features } = labelled;
        if labels.len() != images.len() || groups.len() != images.len() {
            return Err(Error::Rows { part, images: images.len(), labels: labels.len(), groups: groups.len() });
        }
        if images.is_empty() {
            return Ok(());
        }
        let (width, height) = (images.width(), images.height());
        if (width, height) != (self.train.images.width(), self.train.images.height()) {
            return Err(Error::Size { part, width, height });
        }
        for (what, indices, known) in [("label", labels, self.classes.len()), ("group", groups, self.groups.len())] {
            if let Some(row) = indices.iter().position(|&index| index as usize >= known) {
                return Err(Error::Index { part, row, what, index: indices[row], known });
            }
        }
        if classifier != ClassifierKind::Linear {
            return Ok(());
        }
        let features = features.as_ref().ok_or(Error::NoFeatures(part))?;
        let width = self.train.features.as_ref().map_or(0, FeatureSet::width);
        if (features.len(), features.width()) != (images.len(), width) {
            let (rows, found) = (features.len(), features.width());
            return Err(Error::Features { part, images: images.len(), rows, width, found });
        }
        Ok(())
    }
}

/// The arms of `config` that this data allows, in the order of the report, and those that it does not.
pub fn arms_for(config: &EvidenceConfig, data: &EvidenceData) -> (Vec<Arm>, Vec<Skipped>) {
    let why = |arm: Arm| match arm {
        Arm::GeneratedOnly if data.generated.labels.is_empty() => Some("no generated image was accepted"),
        Arm::Augment if config.classifier == ClassifierKind::Linear => {
            Some("the features are given, so images cannot be changed before; choose the classifier `cnn` or `mlp`")
        }
        _ => None,
    };
    let (mut arms, mut skipped) = (Vec::new(), Vec::new());
    for arm in config.arms() {
        match why(arm) {
            Some(why) => skipped.push(Skipped { arm, why: why.to_owned() }),
            None => arms.push(arm),
        }
    }
    (arms, skipped)
}
