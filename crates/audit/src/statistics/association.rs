//! How strongly two attributes go together, over the table and in each cell of it.

use serde::{Deserialize, Serialize};

use super::Z95;
use super::contingency::Contingency;
use super::g_test::{Method, g_of, test_fourfold};
use super::multiplicity::benjamini_hochberg;

/// Bias-corrected Cramér's V of a contingency table (rows of equal length): 0 for independent, 1 for one determining
/// the other. `None` where fewer than two rows or columns hold anything, so that nothing can be said.
///
/// W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", J. Korean Stat. Soc. 42 (2013), equations 7 to 9.
pub fn cramers_v(table: &[Vec<u64>]) -> Option<f64> {
    let table = Contingency::of(table);
    if !table.varies() {
        return None;
    }
    let (r, c, n) = (table.rows.len() as f64, table.columns.len() as f64, table.total);
    let chi_squared: f64 = table.iter().map(|cell| cell.surplus.powi(2) / cell.expected).sum();
    // Two occupied rows hold at least two observations, so n - 1 is at least 1.
    let phi_squared = (chi_squared / n - (r - 1.0) * (c - 1.0) / (n - 1.0)).max(0.0);
    let corrected = |k: f64| k - (k - 1.0).powi(2) / (n - 1.0);
    let smaller = (corrected(r) - 1.0).min(corrected(c) - 1.0);
    // With one observation for every value the correction leaves nothing to divide by.
    Some(if smaller > 0.0 { (phi_squared / smaller).sqrt().min(1.0) } else { 0.0 })
}

/// What one attribute says about the other, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MutualInformation {
    /// The mutual information of the counted shares, 0 to the smaller entropy. Sampling alone makes it positive.
    pub plug_in: f64,
    /// The same without the first-order bias of sampling, 0 upwards.
    pub corrected: f64,
    /// Twice the plug-in over the sum of both entropies: 0 for independent, 1 for each determining the other.
    pub normalised: f64,
}

/// The mutual information of a table of counts. `None` where fewer than two rows or columns hold anything.
///
/// The correction is G. A. Miller's, "Note on the bias of information estimates" (1955): each of the three entropies of
/// `H(rows) + H(columns) - H(cells)` gains (occupied - 1) / 2 n.
pub fn mutual_information(table: &[Vec<u64>]) -> Option<MutualInformation> {
    let table = Contingency::of(table);
    if !table.varies() {
        return None;
    }
    let n = table.total;
    let entropy =
        |counts: &[f64]| -> f64 { counts.iter().filter(|&&m| m > 0.0).map(|m| -(m / n) * (m / n).ln()).sum() };
    // Half the G statistic for each observation, which loses nothing near independence.
    let plug_in = g_of(&table) / (2.0 * n);
    let (rows, columns) = (entropy(&table.rows), entropy(&table.columns));
    let occupied = table.cells.iter().filter(|&&n| n > 0.0).count() as f64;
    let bias = (table.rows.len() as f64 + table.columns.len() as f64 - 1.0 - occupied) / (2.0 * n);
    let normalised = if rows + columns > 0.0 { (2.0 * plug_in / (rows + columns)).clamp(0.0, 1.0) } else { 0.0 };
    Some(MutualInformation {
        plug_in: plug_in.min(rows.min(columns)),
        corrected: (plug_in + bias).max(0.0),
        normalised,
    })
}

/// Whether a cell holds more or less than independence would put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// More.
    Over,
    /// Less.
    Under,
    /// Exactly as much.
    Even,
}

impl Direction {
    /// By the sign of a surplus.
    pub(super) fn of(surplus: f64) -> Self {
        match surplus {
            s if s > 0.0 => Self::Over,
            s if s < 0.0 => Self::Under,
            _ => Self::Even,
        }
    }
}

/// One cell of a table against everything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The cell's row in the table.
    pub row: usize,
    /// The cell's column in the table.
    pub column: usize,
    /// Its count.
    pub count: u64,
    /// What independence would put there: row total times column total over the total.
    pub expected: f64,
    /// Whether it holds more or less than that.
    pub direction: Direction,
    /// Normalised pointwise mutual information, `ln(p / (p_row p_column)) / -ln p`: -1 for never together, 0 for
    /// independent, 1 for only together.
    pub npmi: f64,
    /// The odds ratio of the cell's row against the other rows and its column against the others, a half added to each
    /// count (Haldane 1956); above 0 and finite.
    pub odds_ratio: f64,
    /// Its 95 % interval, on the logarithm's standard error (Gart 1966).
    pub odds_ratio_interval: [f64; 2],
    /// The p value of the test of this cell against the rest.
    pub p: f64,
    /// Where the p value is from.
    pub method: Method,
    /// Its false discovery rate among all cells of the table (Benjamini and Hochberg 1995).
    pub q: f64,
}

/// Every cell with an occupied row and column, row by row, tested against the rest: the G test of its two by two table,
/// or Fisher's where an expected count is below 5. Empty where fewer than two rows or columns hold anything.
///
/// The pointwise mutual information is G. Bouma's, "Normalized (pointwise) mutual information in collocation
/// extraction", GSCL (2009), section 3.
pub fn cells(table: &[Vec<u64>]) -> Vec<Cell> {
    let counts = Contingency::of(table);
    if !counts.varies() {
        return Vec::new();
    }
    let place = |places: &[usize], i: usize| places.get(i).copied().unwrap_or(i);
    let mut cells: Vec<Cell> = counts
        .iter()
        .map(|entry| {
            let fourfold = counts.fourfold(entry.row, entry.column);
            let (log_odds, variance) = fourfold.log_odds();
            let spread = Z95 * variance.sqrt();
            let test = test_fourfold(&fourfold);
            let (row, column) = (place(&counts.row_places, entry.row), place(&counts.column_places, entry.column));
            Cell {
                row,
                column,
                count: table.get(row).and_then(|r| r.get(column)).copied().unwrap_or(0),
                expected: entry.expected,
                direction: Direction::of(fourfold.surplus()),
                npmi: npmi(entry.count, entry.expected, counts.total),
                odds_ratio: log_odds.exp(),
                odds_ratio_interval: [(log_odds - spread).exp(), (log_odds + spread).exp()],
                p: test.p,
                method: test.method,
                q: 1.0,
            }
        })
        .collect();
    let p_values: Vec<f64> = cells.iter().map(|cell| cell.p).collect();
    cells.iter_mut().zip(benjamini_hochberg(&p_values)).for_each(|(cell, q)| cell.q = q);
    cells
}

fn npmi(n: f64, expected: f64, total: f64) -> f64 {
    let surprise = -(n / total).ln();
    // A cell so full that its share rounds to 1 is as expected.
    if n <= 0.0 {
        -1.0
    } else if surprise <= 0.0 {
        0.0
    } else {
        ((n / expected).ln() / surprise).clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn cramers_v_follows_bergsma_by_hand() {
        // [[10, 20], [30, 40]]: chi2 = 100 (10*40 - 20*30)^2 / (30*70*40*60) = 0.79365; below its expectation.
        assert_eq!(cramers_v(&[vec![10, 20], vec![30, 40]]), Some(0.0));
        // [[30, 10], [10, 30]]: phi2 = 0.25; corrected 0.25 - 1/79; smaller = 2 - 1/79 - 1.
        let expected = ((0.25 - 1.0 / 79.0) / (1.0 - 1.0 / 79.0f64)).sqrt();
        close(cramers_v(&[vec![30, 10], vec![10, 30]]).unwrap(), expected);
        // 2 x 3, [[20, 0, 10], [0, 20, 10]]: phi2 = 40/60; corrected 2/3 - 2/59; smaller = 2 - 1/59 - 1.
        let expected = ((2.0 / 3.0 - 2.0 / 59.0) / (1.0 - 1.0 / 59.0f64)).sqrt();
        close(cramers_v(&[vec![20, 0, 10], vec![0, 20, 10]]).unwrap(), expected);
    }

    #[test]
    fn cramers_v_is_one_where_one_determines_the_other_and_ignores_empty_values() {
        close(cramers_v(&[vec![50, 0], vec![0, 50]]).unwrap(), 1.0);
        let plain = cramers_v(&[vec![30, 10], vec![10, 30]]);
        assert_eq!(cramers_v(&[vec![30, 0, 10], vec![0, 0, 0], vec![10, 0, 30]]), plain);
        assert_eq!(cramers_v(&[vec![3, 4]]), None);
        assert_eq!(cramers_v(&[vec![1, 0], vec![0, 1]]), Some(0.0));
        assert_eq!((cramers_v(&[]), cramers_v(&[vec![0, 0], vec![0, 0]])), (None, None));
    }

    #[test]
    fn information_is_ln_2_where_one_bit_determines_the_other_and_0_for_independent_bits() {
        let found = mutual_information(&[vec![50, 0], vec![0, 50]]).unwrap();
        close(found.plug_in, 2f64.ln());
        close(found.normalised, 1.0);
        // Two rows, two columns and two occupied cells: one half over n is gained.
        close(found.corrected, 2f64.ln() + 1.0 / 200.0);
        let found = mutual_information(&[vec![10, 20], vec![30, 60]]).unwrap();
        close(found.plug_in, 0.0);
        assert_eq!((found.corrected, mutual_information(&[vec![1, 2]])), (0.0, None));
    }

    #[test]
    fn cells_say_where_the_attributes_meet_and_where_they_avoid_each_other() {
        let found = cells(&[vec![50, 0, 0], vec![0, 0, 50]]);
        assert_eq!(found.iter().map(|c| (c.row, c.column)).collect::<Vec<_>>(), [(0, 0), (0, 2), (1, 0), (1, 2)]);
        close(found[0].npmi, 1.0);
        assert_eq!((found[0].direction, found[1].direction, found[1].npmi), (Direction::Over, Direction::Under, -1.0));
        close(found[0].odds_ratio, 101.0f64.powi(2));
        assert!(found.iter().all(|cell| cell.q < 1e-20 && cell.p <= cell.q));
        let even = cells(&[vec![10, 20], vec![30, 60]]);
        assert!(even.iter().all(|c| c.direction == Direction::Even && c.npmi.abs() < 1e-12 && c.q > 0.999));
    }

    #[test]
    fn tables_of_huge_counts_give_numbers() {
        for table in
            [vec![vec![u64::MAX, 1], vec![1, 1]], vec![vec![u64::MAX; 3]; 3], vec![vec![1 << 53, 0], vec![0, 1]]]
        {
            let information = mutual_information(&table).unwrap();
            assert!([information.plug_in, information.corrected, information.normalised].iter().all(|x| x.is_finite()));
            assert!(cramers_v(&table).unwrap().is_finite());
            for cell in cells(&table) {
                assert!(cell.odds_ratio.is_finite() && cell.odds_ratio > 0.0 && cell.npmi.abs() <= 1.0, "{cell:?}");
                assert!((0.0..=1.0).contains(&cell.p) && cell.p <= cell.q && cell.q <= 1.0, "{cell:?}");
            }
        }
    }
}
