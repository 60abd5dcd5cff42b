//! The figures of one classifier, from counts of what it said about the test images.

use evenset_core::Group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ArmRun;

/// Bins of the calibration error, of equal width (Guo et al. 2017).
pub(crate) const BINS: usize = 15;

/// A figure over all test images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of all test images classified rightly.
    Accuracy,
    /// Mean of the groups' accuracies.
    BalancedAccuracy,
    /// Accuracy in the group with the lowest.
    WorstGroup,
    /// Highest minus lowest accuracy of a group.
    Gap,
    /// The equalised-odds difference: the largest difference between two attribute values in the rate at which images of a
    /// class are recognised, or in the rate at which others are taken for it; the largest over all classes, each against
    /// the rest (Hardt et al. 2016; with two classes as fairlearn computes it). An attribute value is a group without its
    /// label; groups too small to be the worst are left out.
    EqualisedOdds,
    /// The expected calibration error: how far confidence lies from accuracy, the mean over 15 bins of equal width
    /// weighted by their images (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    CalibrationError,
}

impl Metric {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Accuracy,
        Self::BalancedAccuracy,
        Self::WorstGroup,
        Self::Gap,
        Self::EqualisedOdds,
        Self::CalibrationError,
    ];

    /// Whether a higher one is better.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Accuracy | Self::BalancedAccuracy | Self::WorstGroup)
    }
}

/// A value of each [`Metric`], in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures(pub(crate) [f64; Metric::ALL.len()]);

impl Figures {
    pub(crate) fn get(&self, metric: Metric) -> f64 {
        self.0[metric as usize]
    }
}

/// For each group the number of its attribute value (the group without `label`), and how many there are.
pub(crate) fn attribute_values(groups: &[Group], label: &str) -> (Vec<usize>, usize) {
    let mut known: Vec<Group> = Vec::new();
    let number = |group: &Group| {
        let attributes: Vec<String> = group.attributes().filter(|name| *name != label).map(str::to_owned).collect();
        let value = group.project(&attributes);
        known.iter().position(|known| *known == value).unwrap_or_else(|| {
            known.push(value);
            known.len() - 1
        })
    };
    let numbers = groups.iter().map(number).collect();
    (numbers, known.len())
}

/// Test images of one group and one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) class: usize,
    pub(crate) attribute: usize,
}

/// One group of test images.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Places of its images.
    pub(crate) images: std::ops::Range<usize>,
    /// Numbers of its cells.
    pub(crate) cells: std::ops::Range<usize>,
    /// Whether it is large enough to be the worst group.
    pub(crate) counts: bool,
}

/// How the test images are arranged, the same for all runs.
///
/// What a classifier says is counted in *slots*: one for each cell with the images that it got right, then one for each
/// attribute value and class with the images of groups that count that it wrongly took for that class, and a last one for
/// all other wrong images.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) parts: Vec<Part>,
    pub(crate) cells: Vec<Cell>,
    /// For each image its cell.
    pub(crate) cell_of: Vec<u32>,
    pub(crate) classes: usize,
    pub(crate) attributes: usize,
}

impl Layout {
    /// From any of the runs.
    pub(crate) fn of(run: &ArmRun) -> Self {
        let groups: Vec<Group> = run.groups.iter().map(|group| group.group.clone()).collect();
        let (attribute_of, attributes) = attribute_values(&groups, &run.label);
        let classes = run.groups.iter().map(|group| group.predictions.classes()).max().unwrap_or(0);
        let mut layout = Self { parts: Vec::new(), cells: Vec::new(), cell_of: Vec::new(), classes, attributes };
        for (group, attribute) in run.groups.iter().zip(attribute_of) {
            let (first_image, first_cell) = (layout.cell_of.len(), layout.cells.len());
            for &[label, ..] in group.predictions.rows() {
                let class = usize::from(label);
                let cells = &mut layout.cells;
                let cell = cells[first_cell..].iter().position(|cell| cell.class == class).unwrap_or_else(|| {
                    cells.push(Cell { class, attribute });
                    cells.len() - 1 - first_cell
                });
                layout.cell_of.push((first_cell + cell) as u32);
            }
            let (images, cells) = (first_image..layout.cell_of.len(), first_cell..layout.cells.len());
            layout.parts.push(Part { images, cells, counts: group.counts });
        }
        layout
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.cells.len() + self.attributes * self.classes + 1
    }

    /// Where an image of `cell`, in a group that counts or not, is counted once it is taken for `predicted`.
    pub(crate) fn slot(&self, cell: usize, counts: bool, predicted: usize) -> usize {
        let Cell { class, attribute } = self.cells[cell];
        match (predicted == class, counts) {
            (true, _) => cell,
            (false, true) => self.cells.len() + attribute * self.classes + predicted,
            (false, false) => self.slots() - 1,
        }
    }

    /// The figures from the number of images in each cell and each slot, and from each bin's images got right less the
    /// sum of their confidences. Groups' accuracies go to `per_group`.
    pub(crate) fn figures(
        &self,
        cells: &[f64],
        slot: impl Fn(usize) -> f64,
        bin: impl Fn(usize) -> f64,
        per_group: &mut [f64],
    ) -> Figures {
        let (mut right, mut all, mut sum) = (0.0, 0.0, 0.0);
        let (mut worst, mut best) = (f64::INFINITY, f64::NEG_INFINITY);
        for (part, accuracy) in self.parts.iter().zip(per_group.iter_mut()) {
            let part_right: f64 = part.cells.clone().map(&slot).sum();
            let part_all = part.images.len() as f64;
            *accuracy = part_right / part_all.max(1.0);
            (right, all, sum) = (right + part_right, all + part_all, sum + *accuracy);
            if part.counts {
                (worst, best) = (worst.min(*accuracy), best.max(*accuracy));
            }
        }
        if all == 0.0 || best < worst {
            return Figures::default();
        }
        let calibration = (0..BINS).map(|b| bin(b).abs()).sum::<f64>() / all;
        let odds = self.equalised_odds(cells, slot);
        Figures([right / all, sum / self.parts.len() as f64, worst, best - worst, odds, calibration])
    }

    fn equalised_odds(&self, cells: &[f64], slot: impl Fn(usize) -> f64) -> f64 {
        if self.attributes < 2 {
            return 0.0;
        }
        // [attribute value][class]: images, and those got right.
        let mut images = vec![0.0; self.attributes * self.classes];
        let mut right = images.clone();
        let mut all = vec![0.0; self.attributes];
        for cell in self.parts.iter().filter(|part| part.counts).flat_map(|part| part.cells.clone()) {
            let Cell { class, attribute } = self.cells[cell];
            images[attribute * self.classes + class] += cells[cell];
            right[attribute * self.classes + class] += slot(cell);
            all[attribute] += cells[cell];
        }
        let mut largest: f64 = 0.0;
        for class in 0..self.classes {
            let mut recognised = Range::default();
            let mut taken_for = Range::default();
            for (attribute, all) in all.iter().enumerate() {
                let at = attribute * self.classes + class;
                recognised.add(right[at], images[at]);
                taken_for.add(slot(self.cells.len() + at), all - images[at]);
            }
            largest = largest.max(recognised.width()).max(taken_for.width());
        }
        largest
    }
}

/// The lowest and the highest of some rates.
#[derive(Default)]
struct Range(Option<(f64, f64)>);

impl Range {
    /// Adds `part / whole`; nothing where the whole is empty.
    fn add(&mut self, part: f64, whole: f64) {
        if whole > 0.0 {
            let rate = part / whole;
            let (low, high) = self.0.unwrap_or((rate, rate));
            self.0 = Some((low.min(rate), high.max(rate)));
        }
    }

    fn width(&self) -> f64 {
        self.0.map_or(0.0, |(low, high)| high - low)
    }
}

/// The bin of a confidence in 65535ths: the first holds 0 to 1/15, both ends included, each other one its upper end.
pub(crate) fn bin(confidence: u16) -> usize {
    (usize::from(confidence) * BINS).div_ceil(65535).clamp(1, BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_equally_wide() {
        assert_eq!((bin(0), bin(1), bin(4369), bin(4370), bin(65535)), (0, 0, 0, 1, 14));
    }

    #[test]
    fn an_attribute_value_is_a_group_without_its_label() {
        let group = |label: &str, colour: &str| Group::new([("label", label), ("colour", colour)]).unwrap();
        let groups = [group("a", "red"), group("a", "blue"), group("b", "red")];
        assert_eq!(attribute_values(&groups, "label"), (vec![0, 1, 0], 2));
        assert_eq!(attribute_values(&groups, "none"), (vec![0, 1, 2], 3));
    }
}
