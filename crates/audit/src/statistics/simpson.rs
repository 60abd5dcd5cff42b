//! Simpson's paradox: two attributes that go together one way over all rows and the other way within the values of a
//! third.

use serde::{Deserialize, Serialize};

use super::Z95;
use super::association::Direction;
use super::contingency::{Contingency, Fourfold};
use super::g_test::{chi_squared_tail, test_fourfold};
use super::multiplicity::benjamini_hochberg;

/// The largest false discovery rate at which an association counts as one.
pub const SIGNIFICANT: f64 = 0.05;

/// The odds ratio of a two by two table, pooled over strata.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MantelHaenszel {
    /// The pooled odds ratio, 0 upwards; none where no stratum holds an observation against it, so that it is infinite.
    pub odds_ratio: Option<f64>,
    /// Its 95 % interval; none where the odds ratio is 0 or infinite.
    pub interval: Option<[f64; 2]>,
    /// Cochran's, Mantel's and Haenszel's statistic without continuity correction, chi-squared with one degree of
    /// freedom, 0 upwards.
    pub statistic: f64,
    /// The p value of the hypothesis that the odds ratio is 1 in every stratum.
    pub p: f64,
    /// The strata that say anything: those with something in both rows and both columns.
    pub strata: usize,
}

/// Pools the odds ratios of two by two tables, `[[a, b], [c, d]]` for each stratum. `None` where no stratum has
/// something in both rows and both columns.
///
/// N. Mantel and W. Haenszel, "Statistical aspects of the analysis of data from retrospective studies of disease", JNCI
/// 22 (1959); the interval is on the variance of J. Robins, N. Breslow and S. Greenland, Biometrics 42 (1986).
pub fn mantel_haenszel(strata: &[[[u64; 2]; 2]]) -> Option<MantelHaenszel> {
    let strata: Vec<Fourfold> = strata
        .iter()
        .map(|table| table.map(|row| row.map(|n| n as f64)))
        .map(|[[a, b], [c, d]]| Fourfold { both: a, row_only: b, column_only: c, neither: d })
        .collect();
    pooled(&strata).map(|(pooled, _)| pooled)
}

/// An association that turns around within the values of a third attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reversal {
    /// The value of the first attribute (against its other values): its row.
    pub row: usize,
    /// The value of the second attribute (against its other values): its column.
    pub column: usize,
    /// Whether the two values go together more or less than by chance over all rows.
    pub marginal_direction: Direction,
    /// The odds ratio over all rows, a half added to each count (Haldane 1956).
    pub marginal_odds_ratio: f64,
    /// Its 95 % interval.
    pub marginal_interval: [f64; 2],
    /// The p value of the association over all rows.
    pub marginal_p: f64,
    /// Its false discovery rate among all cells.
    pub marginal_q: f64,
    /// The association within the values of the third attribute.
    pub pooled: MantelHaenszel,
    /// Whether the pooled association is one too: its false discovery rate among all cells is below 0.05. Where not,
    /// the third attribute explains the association rather than turning it around.
    pub pooled_is_significant: bool,
    /// In how many of the strata the two values go together the other way than over all rows.
    pub strata_reversed: usize,
}

/// The reversals in counts of three attributes: one table, first attribute by second, for each value of the third.
///
/// A cell (one value against the others, of both attributes) is one where its association over all rows is significant
/// (q below 0.05 over all cells; G test, or Fisher's where an expected count is below 5) and its Mantel-Haenszel odds
/// ratio is on the other side of 1. Of an attribute with two values only the first is looked at, as the second says the
/// same turned around. The cost is the number of cells times strata.
pub fn reversals(strata: &[Vec<Vec<u64>>]) -> Vec<Reversal> {
    let marginal = Contingency::of(&sum(strata));
    if !marginal.varies() {
        return Vec::new();
    }
    let looked_at = |values: usize| if values == 2 { 1 } else { values };
    let mut candidates = Vec::new();
    for i in 0..looked_at(marginal.rows.len()) {
        for j in 0..looked_at(marginal.columns.len()) {
            candidates.push(Candidate::of(strata, &marginal, i, j));
        }
    }
    let marginal_q = benjamini_hochberg(&candidates.iter().map(|c| c.marginal_p).collect::<Vec<_>>());
    let pooled_p = candidates.iter().map(|c| c.pooled.map_or(1.0, |(pooled, _)| pooled.p)).collect::<Vec<_>>();
    let q_values = marginal_q.into_iter().zip(benjamini_hochberg(&pooled_p));
    candidates
        .into_iter()
        .zip(q_values)
        .filter_map(|(c, (marginal_q, pooled_q))| c.reversal(marginal_q, pooled_q))
        .collect()
}

/// A cell and its strata.
struct Candidate {
    row: usize,
    column: usize,
    marginal: Fourfold,
    marginal_p: f64,
    strata: Vec<Fourfold>,
    /// With the direction of the pooled odds ratio.
    pooled: Option<(MantelHaenszel, Direction)>,
}

impl Candidate {
    fn of(strata: &[Vec<Vec<u64>>], marginal: &Contingency, i: usize, j: usize) -> Self {
        let place = |places: &[usize], i: usize| places.get(i).copied().unwrap_or(i);
        let (row, column) = (place(&marginal.row_places, i), place(&marginal.column_places, j));
        let strata: Vec<Fourfold> = strata.iter().map(|table| fourfold(table, row, column)).collect();
        let marginal = marginal.fourfold(i, j);
        let pooled = pooled(&strata);
        Self { row, column, marginal_p: test_fourfold(&marginal).p, marginal, strata, pooled }
    }

    fn reversal(self, marginal_q: f64, pooled_q: f64) -> Option<Reversal> {
        let marginal_direction = Direction::of(self.marginal.surplus());
        let (pooled, pooled_direction) = self.pooled?;
        if marginal_q >= SIGNIFICANT || !are_opposite(marginal_direction, pooled_direction) {
            return None;
        }
        let (log_odds, variance) = self.marginal.log_odds();
        let spread = Z95 * variance.sqrt();
        let is_reversed = |stratum: &&Fourfold| {
            says_anything(stratum) && are_opposite(marginal_direction, Direction::of(stratum.surplus()))
        };
        Some(Reversal {
            row: self.row,
            column: self.column,
            marginal_direction,
            marginal_odds_ratio: log_odds.exp(),
            marginal_interval: [(log_odds - spread).exp(), (log_odds + spread).exp()],
            marginal_p: self.marginal_p,
            marginal_q,
            pooled,
            pooled_is_significant: pooled_q < SIGNIFICANT,
            strata_reversed: self.strata.iter().filter(is_reversed).count(),
        })
    }
}

fn are_opposite(a: Direction, b: Direction) -> bool {
    matches!((a, b), (Direction::Over, Direction::Under) | (Direction::Under, Direction::Over))
}

fn says_anything(stratum: &Fourfold) -> bool {
    stratum.margins().iter().all(|&margin| margin > 0.0)
}

/// The table over all strata; sums stop at the largest number.
fn sum(strata: &[Vec<Vec<u64>>]) -> Vec<Vec<u64>> {
    let mut sum: Vec<Vec<u64>> = Vec::new();
    for table in strata {
        sum.resize(sum.len().max(table.len()), Vec::new());
        for (into, row) in sum.iter_mut().zip(table) {
            into.resize(into.len().max(row.len()), 0);
            into.iter_mut().zip(row).for_each(|(into, n)| *into = into.saturating_add(*n));
        }
    }
    sum
}

fn fourfold(table: &[Vec<u64>], row: usize, column: usize) -> Fourfold {
    let add = |row: &Vec<u64>| row.iter().map(|&n| n as f64).sum::<f64>();
    let at = |row: &Vec<u64>| row.get(column).map_or(0.0, |&n| n as f64);
    let in_row = table.get(row).map_or(0.0, add);
    let both = table.get(row).map_or(0.0, at);
    Fourfold::of(both, in_row, table.iter().map(at).sum(), table.iter().map(add).sum())
}

fn pooled(strata: &[Fourfold]) -> Option<(MantelHaenszel, Direction)> {
    let (mut for_it, mut against, mut surplus, mut variance) = (0.0, 0.0, 0.0, 0.0);
    // Robins, Breslow and Greenland's sums of P R, P S + Q R and Q S.
    let (mut pr, mut ps_qr, mut qs) = (0.0, 0.0, 0.0);
    let mut informative = 0;
    for stratum in strata.iter().filter(|stratum| says_anything(stratum)) {
        let ([a, b, c, d], n) = (stratum.cells(), stratum.total());
        let (p, q, r, s) = ((a + d) / n, (b + c) / n, a * d / n, b * c / n);
        (for_it, against) = (for_it + r, against + s);
        (pr, ps_qr, qs) = (pr + p * r, ps_qr + p * s + q * r, qs + q * s);
        surplus += stratum.surplus();
        let [row, other_rows, column, other_columns] = stratum.margins();
        variance += (row / n) * (other_rows / n) * column * (other_columns / (n - 1.0));
        informative += 1;
    }
    if informative == 0 {
        return None;
    }
    let odds_ratio = (against > 0.0).then(|| for_it / against);
    let interval = odds_ratio.filter(|&ratio| ratio > 0.0).map(|ratio| {
        let variance = pr / (2.0 * for_it * for_it) + ps_qr / (2.0 * for_it * against) + qs / (2.0 * against * against);
        let spread = Z95 * variance.sqrt();
        [(ratio.ln() - spread).exp(), (ratio.ln() + spread).exp()]
    });
    // Both margins of a stratum are occupied, so its variance is above 0.
    let statistic = surplus * surplus / variance;
    let p = chi_squared_tail(statistic, 1);
    Some((MantelHaenszel { odds_ratio, interval, statistic, p, strata: informative }, Direction::of(for_it - against)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R's `UCBAdmissions`, departments A to F: [[male admitted, male rejected], [female admitted, female rejected]].
    ///
    /// P. J. Bickel, E. A. Hammel and J. W. O'Connell, "Sex bias in graduate admissions: data from Berkeley", Science 187
    /// (1975).
    const BERKELEY: [[[u64; 2]; 2]; 6] = [
        [[512, 313], [89, 19]],
        [[353, 207], [17, 8]],
        [[120, 205], [202, 391]],
        [[138, 279], [131, 244]],
        [[53, 138], [94, 299]],
        [[22, 351], [24, 317]],
    ];

    fn tables(strata: &[[[u64; 2]; 2]]) -> Vec<Vec<Vec<u64>>> {
        strata.iter().map(|table| table.iter().map(|row| row.to_vec()).collect()).collect()
    }

    #[test]
    fn admissions_to_berkeley_turn_around_within_departments() {
        let found = reversals(&tables(&BERKELEY));
        assert_eq!(found.len(), 1);
        let reversal = &found[0];
        assert_eq!((reversal.row, reversal.column, reversal.marginal_direction), (0, 0, Direction::Over));
        assert!((reversal.marginal_odds_ratio - 1.84).abs() < 0.005, "{}", reversal.marginal_odds_ratio);
        // R: mantelhaen.test(UCBAdmissions, correct = FALSE).
        assert!((reversal.pooled.odds_ratio.unwrap() - 0.904_696_8).abs() < 5e-7, "{:?}", reversal.pooled);
        assert!((reversal.pooled.statistic - 1.5246).abs() < 5e-5 && (reversal.pooled.p - 0.2169).abs() < 5e-5);
        let [low, high] = reversal.pooled.interval.unwrap();
        assert!((low - 0.771_907_4).abs() < 5e-6 && (high - 1.060_330).abs() < 5e-6, "{low} {high}");
        assert!(!reversal.pooled_is_significant);
        // Women were admitted more often in A, B, D and F.
        assert_eq!((reversal.pooled.strata, reversal.strata_reversed), (6, 4));
    }

    #[test]
    fn an_association_that_holds_in_every_stratum_is_no_reversal() {
        assert!(reversals(&tables(&[[[50, 10], [10, 50]], [[30, 5], [5, 30]]])).is_empty());
        let independent = [[[90, 10], [9, 1]], [[1, 9], [10, 90]]];
        assert!(reversals(&tables(&independent)).is_empty(), "a pooled odds ratio of 1 is on neither side");
    }

    #[test]
    fn reversals_of_attributes_with_three_values_name_the_cells() {
        // The treatment of the kidney stones of C. R. Charig et al., BMJ 292 (1986), with a third treatment whose
        // outcomes are even.
        let small = vec![vec![81, 6], vec![234, 36], vec![100, 20]];
        let large = vec![vec![192, 71], vec![55, 25], vec![100, 50]];
        let scaled =
            |table: Vec<Vec<u64>>| table.into_iter().map(|row| row.into_iter().map(|n| n * 20).collect()).collect();
        let found = reversals(&[scaled(small), scaled(large)]);
        assert!(found.iter().any(|r| r.row == 1 && r.marginal_direction == Direction::Over), "{found:?}");
        assert!(found.iter().all(|r| r.column == 0 && r.pooled.strata == 2));
    }

    #[test]
    fn odds_without_anything_against_them_are_infinite_and_empty_strata_say_nothing() {
        let found = mantel_haenszel(&[[[5, 0], [3, 4]], [[9, 0], [0, 0]]]).unwrap();
        assert_eq!((found.odds_ratio, found.interval, found.strata), (None, None, 1));
        let found = mantel_haenszel(&[[[0, 5], [4, 3]]]).unwrap();
        assert_eq!((found.odds_ratio, found.interval), (Some(0.0), None));
        assert_eq!(mantel_haenszel(&[[[5, 0], [3, 0]]]), None);
        assert_eq!(mantel_haenszel(&[]), None);
        assert!(reversals(&[]).is_empty());
        let huge = mantel_haenszel(&[[[u64::MAX; 2]; 2], [[1, u64::MAX], [u64::MAX, 1]]]).unwrap();
        assert!(huge.odds_ratio.unwrap().is_finite() && huge.statistic.is_finite(), "{huge:?}");
    }
}
