//! Weights: what each row of a group would count for to reach a distribution without adding an image.

use crate::Target;
use crate::demand::{Demand, Rule};
use crate::table::{Table, sum};

/// The weight of each row of the table for the first target: the share of its cell over the share that the cell has.
///
/// `parity` shares the images of a stratum equally over its cells. `None` where the target sets no distribution of one
/// set of cells (`at-least`, `ratio`, `budget`, several `marginals`), and for groups without images. Rounded to a
/// millionth.
pub(crate) fn of_first_target(table: &Table<'_>, targets: &[Target], demands: &[Demand]) -> Vec<Option<f64>> {
    let mut weights = vec![None; table.len()];
    let mut first = demands.iter().filter(|demand| demand.target == 0 && !targets.is_empty());
    let (Some(demand), None) = (first.next(), first.next()) else { return weights };
    let have: Vec<u64> = demand.cells.iter().map(|cell| sum(&cell.members, &table.counts)).collect();
    let mut want = vec![0.0; have.len()];
    match &demand.rule {
        Rule::Equal(strata) => {
            for stratum in strata {
                let images: u64 = have[stratum.clone()].iter().sum();
                want[stratum.clone()].fill(images as f64 / stratum.len() as f64);
            }
        }
        Rule::Shares(shares) => {
            let images = have.iter().sum::<u64>() as f64;
            want.iter_mut().enumerate().for_each(|(cell, want)| *want = shares.share(cell) * images);
        }
        Rule::Floor(_) | Rule::Ratio(_) => return weights,
    }
    for ((cell, have), want) in demand.cells.iter().zip(have).zip(want) {
        for &row in cell.members.iter().filter(|&&row| table.counts[row] > 0) {
            weights[row] = Some((want / have as f64 * 1e6).round() / 1e6);
        }
    }
    weights
}
