//! Tests of whether two attributes go together: the G test, and exact or simulated where counts are too small for it.

use evenset_core::Seed;
use serde::{Deserialize, Serialize};
use statrs::function::gamma::checked_gamma_ur;

use super::contingency::{Contingency, Fourfold};
use super::random_tables::monte_carlo_p;

/// The smallest expected count at which the chi-squared distribution is taken for the statistic's.
///
/// W. G. Cochran, "Some methods for strengthening the common chi-squared tests", Biometrics 10 (1954), allows a fifth of
/// the cells to be below; this asks it of all.
pub const SMALLEST_EXPECTED: f64 = 5.0;

/// Fisher's test adds up counts to both sides of the most probable one; above this variance there are too many, and the
/// chi-squared distribution fits too well to need it.
const LARGEST_VARIANCE: f64 = 1e10;

/// Where a p value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The chi-squared distribution: every expected count is at least [`SMALLEST_EXPECTED`].
    ChiSquared,
    /// Fisher's exact test of a table of two by two, two-sided.
    Fisher,
    /// So many random tables with the same margins.
    MonteCarlo {
        /// How many.
        tables: u32,
    },
}

/// A test of independence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Wilks's `G = 2 sum count ln(count / expected)`, 0 upwards.
    pub statistic: f64,
    /// `(rows - 1) (columns - 1)`, those that are empty not counted.
    pub degrees_of_freedom: u64,
    /// The probability of a table at least as far from independence, where the attributes are independent, 0 to 1.
    /// 0 where it is below the smallest floating point number.
    pub p: f64,
    /// Where `p` is from.
    pub method: Method,
}

/// Tests whether two attributes are independent, given the table of their counts (short rows are filled with 0).
/// `None` where fewer than two rows or columns hold anything.
///
/// The p value is the chi-squared distribution's where all expected counts are at least [`SMALLEST_EXPECTED`]; else
/// [`fisher_exact`] for two by two, and for larger tables the share of random tables with these margins whose statistic
/// is at least as large (9,999 tables; down to 999 where the table is so large that they would take minutes).
///
/// S. S. Wilks, "The likelihood test of independence in contingency tables", Annals of Mathematical Statistics 6 (1935).
pub fn g_test(table: &[Vec<u64>], seed: Seed) -> Option<Test> {
    let table = Contingency::of(table);
    table.varies().then(|| test_table(&table, seed))
}

/// Fisher's exact test of `[[a, b], [c, d]]`, two-sided: the probability of all tables with the same margins that are
/// at most as probable as this one, 0 to 1; 1 where a margin is empty. `None` where the variance of a cell is above
/// 10^10, which would take too long to add up and is what the chi-squared distribution is for.
///
/// Tables within one part in 10^10 of this one's probability count as equally probable (SciPy: 10^14, R: 10^7).
///
/// R. A. Fisher, "The logic of inductive inference", JRSS 98 (1935).
pub fn fisher_exact(table: [[u64; 2]; 2]) -> Option<f64> {
    let [[a, b], [c, d]] = table.map(|row| row.map(|n| n as f64));
    fisher(&Fourfold { both: a, row_only: b, column_only: c, neither: d })
}

pub(super) fn test_table(table: &Contingency, seed: Seed) -> Test {
    let statistic = g_of(table);
    let degrees_of_freedom = (table.rows.len() as u64 - 1) * (table.columns.len() as u64 - 1);
    let is_fourfold = table.rows.len() == 2 && table.columns.len() == 2;
    let (p, method) = if table.smallest_expected() >= SMALLEST_EXPECTED {
        (chi_squared_tail(statistic, degrees_of_freedom), Method::ChiSquared)
    } else if is_fourfold {
        return test_fourfold(&table.fourfold(0, 0));
    } else {
        let (p, tables) = monte_carlo_p(table, seed);
        (p, Method::MonteCarlo { tables })
    };
    Test { statistic, degrees_of_freedom, p, method }
}

/// The test of one cell against the rest; p is 1 where a margin is empty.
pub(super) fn test_fourfold(fourfold: &Fourfold) -> Test {
    let ([row, other_rows, column, other_columns], total) = (fourfold.margins(), fourfold.total());
    // Where the cell and the one across have more, the others have as much less.
    let (surplus, [a, b, c, d]) = (fourfold.surplus(), fourfold.cells());
    let terms = [
        (a, row * (column / total), surplus),
        (b, row * (other_columns / total), -surplus),
        (c, other_rows * (column / total), -surplus),
        (d, other_rows * (other_columns / total), surplus),
    ];
    let statistic = g_statistic(terms.into_iter());
    let small = fourfold.smallest_expected() < SMALLEST_EXPECTED;
    let exact = if small { fisher(fourfold) } else { None };
    let (p, method) = exact.map_or((chi_squared_tail(statistic, 1), Method::ChiSquared), |p| (p, Method::Fisher));
    Test { statistic, degrees_of_freedom: 1, p, method }
}

/// The statistic of a table.
pub(super) fn g_of(table: &Contingency) -> f64 {
    g_statistic(table.iter().map(|cell| (cell.count, cell.expected, cell.surplus)))
}

/// `2 sum n ln(n / expected)` over all cells, given as a count, its expectation and the difference; 0 upwards.
///
/// As counts and expectations have the same sum, `n ln(n / e) - (n - e)` adds up to the same. No term of it is negative,
/// and near independence all are small, so nothing is lost in adding them.
pub(super) fn g_statistic(cells: impl Iterator<Item = (f64, f64, f64)>) -> f64 {
    let term = |(n, expected, surplus): (f64, f64, f64)| {
        let relative = surplus / expected;
        if n <= 0.0 {
            expected
        } else if relative.abs() < 1e-3 {
            expected * series(relative)
        } else {
            (n * relative.ln_1p() - surplus).max(0.0)
        }
    };
    2.0 * cells.filter(|&(_, expected, _)| expected > 0.0).map(term).sum::<f64>()
}

/// `(1 + t) ln(1 + t) - t` for small `t`, as the sum of `(-t)^k / (k (k - 1))` from `k = 2`.
fn series(t: f64) -> f64 {
    t * t * (1.0 / 2.0 - t * (1.0 / 6.0 - t * (1.0 / 12.0 - t * (1.0 / 20.0 - t * (1.0 / 30.0 - t / 42.0)))))
}

/// The probability of a chi-squared number of at least `statistic`, 0 to 1.
pub(super) fn chi_squared_tail(statistic: f64, degrees_of_freedom: u64) -> f64 {
    if degrees_of_freedom == 0 || statistic <= 0.0 {
        return 1.0;
    }
    let tail = checked_gamma_ur(degrees_of_freedom as f64 / 2.0, statistic / 2.0);
    tail.map_or(0.0, |p| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) })
}

/// Adds up probabilities as multiples of the most probable count's, from there outwards until nothing is left to add.
fn fisher(table: &Fourfold) -> Option<f64> {
    let [row, other_rows, column, other_columns] = table.margins();
    if [row, other_rows, column, other_columns].iter().any(|&margin| margin <= 0.0) {
        return Some(1.0);
    }
    let total = table.total();
    let variance = row * (column / total) * (other_rows / total) * (other_columns / total);
    if variance > LARGEST_VARIANCE {
        return None;
    }
    // The cell where the rarer row meets the rarer column is the smallest, and has the same variance as the others.
    let (is_row, is_column) = (row <= other_rows, column <= other_columns);
    let first = match (is_row, is_column) {
        (true, true) => table.both,
        (true, false) => table.row_only,
        (false, true) => table.column_only,
        (false, false) => table.neither,
    };
    let (row, other_rows) = if is_row { (row, other_rows) } else { (other_rows, row) };
    let column = column.min(other_columns);
    let most = row.min(column);
    let mode = ((row + 1.0) * ((column + 1.0) / (total + 2.0))).floor().min(most);
    // p(x + 1) / p(x); the cells of the table with x in its first one are x, row - x, column - x, other_rows - column + x.
    let step = |x: f64| {
        let up = (row - x) * (column - x);
        let down = (x + 1.0) * (other_rows - column + x + 1.0);
        up / down
    };
    let mut weights = Vec::new();
    let (mut x, mut weight, mut observed) = (mode, 1.0, 0.0);
    while x <= most && weight >= f64::MIN_POSITIVE {
        weights.push(weight);
        if x == first {
            observed = weight;
        }
        weight *= step(x);
        x += 1.0;
    }
    (x, weight) = (mode, 1.0);
    while x > 0.0 {
        weight /= step(x - 1.0);
        x -= 1.0;
        if weight < f64::MIN_POSITIVE {
            break;
        }
        weights.push(weight);
        if x == first {
            observed = weight;
        }
    }
    let at_most = observed * (1.0 + 1e-10);
    // Small numbers first: a tail must not drown in the rounding of the middle.
    weights.sort_by(f64::total_cmp);
    let all: f64 = weights.iter().sum();
    let as_improbable = weights.iter().filter(|&&w| w <= at_most).fold(0.0, |sum, w| sum + w);
    Some((as_improbable / all).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
    }

    #[test]
    fn fisher_is_the_sum_over_all_tables_that_are_no_more_probable() {
        for cells in (0..5u64.pow(4)).map(|i| [i % 5, i / 5 % 5, i / 25 % 5, i / 125]) {
            let [a, b, c, d] = cells;
            let (row, column, total) = (a + b, a + c, a + b + c + d);
            let ways = |x: u64| {
                if x <= column && column - x <= total - row {
                    choose(row, x) * choose(total - row, column - x)
                } else {
                    0.0
                }
            };
            let all: Vec<f64> = (0..=row).map(ways).collect();
            let enough = ways(a) * (1.0 + 1e-9);
            let expected = all.iter().filter(|&&w| w <= enough).sum::<f64>() / all.iter().sum::<f64>();
            let found = fisher_exact([[a, b], [c, d]]).unwrap();
            assert!((found - expected).abs() < 1e-12, "{cells:?}: {found} {expected}");
        }
    }

    #[test]
    fn the_lady_tasting_tea_is_not_sure_enough() {
        // R. A. Fisher, "The Design of Experiments" (1935): three of four cups right has a one-sided p of 17/70.
        let p = fisher_exact([[3, 1], [1, 3]]).unwrap();
        assert!((p - 34.0 / 70.0).abs() < 1e-14, "{p}");
    }

    /// Calls `visit` with every table that has these margins.
    fn tables(rows: &[u64], columns: &[u64], made: &mut Vec<Vec<u64>>, visit: &mut dyn FnMut(&[Vec<u64>])) {
        let Some((&row, rest)) = rows.split_first() else {
            if columns.iter().all(|&c| c == 0) {
                visit(made);
            }
            return;
        };
        fill(row, columns, &mut Vec::new(), &mut |cells| {
            let left: Vec<u64> = columns.iter().zip(cells).map(|(c, n)| c - n).collect();
            made.push(cells.to_vec());
            tables(rest, &left, made, visit);
            made.pop();
        });
    }

    /// Calls `visit` with every way to put `row` observations into columns with so much room.
    fn fill(row: u64, columns: &[u64], cells: &mut Vec<u64>, visit: &mut dyn FnMut(&[u64])) {
        let Some((&room, rest)) = columns.split_first() else {
            if row == 0 {
                visit(cells);
            }
            return;
        };
        for n in 0..=room.min(row) {
            cells.push(n);
            fill(row - n, rest, cells, visit);
            cells.pop();
        }
    }

    fn enumerated_p(table: &[Vec<u64>]) -> f64 {
        let g = |table: &[Vec<u64>]| g_of(&Contingency::of(table));
        let rows: Vec<u64> = table.iter().map(|row| row.iter().sum()).collect();
        let columns: Vec<u64> = (0..table[0].len()).map(|c| table.iter().map(|row| row[c]).sum()).collect();
        let ln_factorials = |table: &[Vec<u64>]| -> f64 {
            table.iter().flatten().map(|&n| (2..=n).map(|i| (i as f64).ln()).sum::<f64>()).sum()
        };
        let (observed, mut farther, mut all) = (g(table), 0.0, 0.0);
        tables(&rows, &columns, &mut Vec::new(), &mut |other| {
            let weight = (ln_factorials(table) - ln_factorials(other)).exp();
            all += weight;
            if g(other) >= observed - 1e-9 {
                farther += weight;
            }
        });
        farther / all
    }

    #[test]
    fn random_tables_give_the_exact_conditional_probability() {
        for table in [
            vec![vec![3, 0, 1], vec![1, 4, 2]],
            vec![vec![2, 2, 2], vec![2, 2, 1]],
            vec![vec![5, 0, 0], vec![0, 4, 1], vec![1, 0, 3]],
            // So many observations that tables are drawn cell by cell.
            vec![vec![90, 70, 1], vec![80, 85, 3]],
        ] {
            let expected = enumerated_p(&table);
            let found = g_test(&table, Seed(11)).unwrap();
            assert_eq!(found.method, Method::MonteCarlo { tables: 9_999 });
            let bound = 4.0 * (expected * (1.0 - expected) / 9_999.0).sqrt() + 1e-4;
            assert!((found.p - expected).abs() < bound, "{table:?}: {} {expected}", found.p);
        }
    }

    #[test]
    fn the_method_follows_the_smallest_expected_count() {
        let method = |table: &[Vec<u64>]| g_test(table, Seed(1)).unwrap().method;
        assert_eq!(method(&[vec![10, 10], vec![10, 10]]), Method::ChiSquared);
        assert_eq!(method(&[vec![10, 10], vec![1, 1]]), Method::Fisher);
        assert_eq!(method(&[vec![10, 10, 0, 0], vec![0, 0, 0, 1]]), Method::MonteCarlo { tables: 9_999 });
        assert_eq!(method(&[vec![10, 0, 10], vec![1, 0, 1]]), Method::Fisher);
        assert_eq!(g_test(&[vec![3, 4], vec![0, 0]], Seed(1)), None);
        assert_eq!(g_test(&[], Seed(1)), None);
    }

    #[test]
    fn huge_counts_give_numbers() {
        let huge = u64::MAX;
        for table in [
            vec![vec![huge, huge], vec![huge, huge]],
            vec![vec![huge, 1], vec![1, huge]],
            vec![vec![huge, 1], vec![1, 0]],
            vec![vec![huge, 1, 0], vec![1, 0, 1], vec![1, huge, 1]],
            vec![vec![1 << 53, 3, 3], vec![2, 1, 1 << 40]],
        ] {
            let test = g_test(&table, Seed(2)).unwrap();
            assert!(test.statistic.is_finite() && (0.0..=1.0).contains(&test.p), "{table:?}: {test:?}");
        }
        assert_eq!(fisher_exact([[huge, huge], [huge, huge]]), None);
        assert_eq!(fisher_exact([[huge, 0], [huge, 0]]), Some(1.0));
    }
}
