//! The images that the arms are trained and tested on.

use evenset_core::Group;
use evenset_nn::classifier::ImageSet;

use crate::Error;

/// Images with the label to learn and the group to judge by.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The images, all of one size.
    pub images: ImageSet,
    /// For each image an index into [`EvidenceData::classes`].
    pub labels: Vec<u32>,
    /// For each image an index into [`EvidenceData::groups`].
    pub groups: Vec<u32>,
}

/// Everything that [`run_arm`](crate::run_arm) needs.
#[derive(Clone, Debug)]
pub struct EvidenceData {
    /// Real training images.
    pub train: Labelled,
    /// Places of the training images that the plan leaves out of the balanced dataset; the balanced arm alone does
    /// without them.
    pub left_out: Vec<usize>,
    /// Accepted generated images; they are trained on in the balanced arm only and never tested on.
    pub generated: Labelled,
    /// Real held-out images.
    pub test: Labelled,
    /// The names of the label's classes, at least two.
    pub classes: Vec<String>,
    /// The groups by which accuracy is reported.
    pub groups: Vec<Group>,
}

impl EvidenceData {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::OneClass`], [`Error::Rows`], [`Error::Size`] or [`Error::Index`], naming the part.
    pub fn check(&self) -> Result<(), Error> {
        if self.classes.len() < 2 {
            return Err(Error::OneClass(self.classes.len()));
        }
        for (part, labelled) in [("train", &self.train), ("generated", &self.generated), ("test", &self.test)] {
            let Labelled { images, labels, groups } = labelled;
            if images.is_empty() && part != "generated" {
                return Err(Error::Empty(part));
            }
            if labels.len() != images.len() || groups.len() != images.len() {
                return Err(Error::Rows { part, images: images.len(), labels: labels.len(), groups: groups.len() });
            }
            let (width, height) = (images.width(), images.height());
            if !images.is_empty() && (width, height) != (self.train.images.width(), self.train.images.height()) {
                return Err(Error::Size { part, width, height });
            }
            for (what, indices, known) in [("label", labels, self.classes.len()), ("group", groups, self.groups.len())]
            {
                if let Some(row) = indices.iter().position(|&index| index as usize >= known) {
                    return Err(Error::Index { part, row, what, index: indices[row], known });
                }
            }
        }
        Ok(())
    }
}
