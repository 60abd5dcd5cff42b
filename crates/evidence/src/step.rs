//! Whether the last generated images still helped: `balanced` with and without them.

use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::bootstrap::Interval;
use crate::table::{Table, check_test};
use crate::{Arm, ArmRun, Error, Metric};

/// What the last generated images changed, means over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Generated images without the last ones.
    pub before: u32,
    /// Generated images with them.
    pub after: u32,
    /// What accuracy in the worst group gained.
    pub worst_group: f64,
    /// Its 95 % interval, paired by test image and seed.
    pub interval: Interval,
    /// Whether that interval lies above zero.
    pub helps: bool,
}

/// Puts the runs without the last generated images and those with them together, one of each for every seed.
///
/// # Errors
/// [`Error::Nothing`] where there are none or not as many of each, [`Error::OtherTest`] where the runs were not tested on
/// the same images.
pub fn summarise_step(before: &[ArmRun], after: &[ArmRun]) -> Result<StepSummary, Error> {
    let (Some(first), Some(last)) = (before.first(), after.first()) else { return Err(Error::Nothing("last round")) };
    if before.len() != after.len() {
        return Err(Error::Nothing("last round"));
    }
    check_test(before.iter().chain(after))?;
    let runs = [before, after].map(|runs| runs.iter().collect()).to_vec();
    let table = Table { arms: vec![Arm::Balanced; 2], runs };
    let difference = Analysis::new(&table).difference(1, 0, Metric::WorstGroup);
    Ok(StepSummary {
        before: first.generated_images,
        after: last.generated_images,
        worst_group: difference.value,
        interval: difference.interval,
        helps: difference.interval[0] > 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn images_help_where_the_interval_of_what_they_change_lies_above_zero() {
        let of = |right: usize, images: u32| -> Vec<ArmRun> {
            let seed = |seed: usize| {
                let said = |i: usize| (0, u32::from((i + 3 * seed) % 200 >= right + seed % 2), 0.9);
                let rows: Vec<(u32, u32, f32)> = (0..200).map(said).collect();
                ArmRun { seed: seed as u32, generated_images: images, ..run(&[(&[("colour", "red")], &rows)]) }
            };
            (0..5).map(seed).collect()
        };
        let step = summarise_step(&of(100, 40), &of(160, 80)).unwrap();
        assert_eq!((step.before, step.after, step.helps), (40, 80, true));
        assert!((step.worst_group - 0.3).abs() < 1e-9 && step.interval[0] > 0.15, "{step:?}");
        assert!(!summarise_step(&of(100, 40), &of(101, 80)).unwrap().helps);
        assert!(summarise_step(&of(100, 40), &[]).is_err());
    }
}
