//! Random contingency tables with given margins, each as likely as if the two attributes had nothing to do with each
//! other, and the Monte Carlo test made of them.

use evenset_core::Seed;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rayon::prelude::*;

use super::contingency::Contingency;
use super::g_test::g_statistic;

/// How many random tables a test draws, where drawing them is not too much work.
pub const RANDOM_TABLES: u32 = 9_999;

/// The fewest tables of a test, and the work (cells, or observations where they are fewer) above which there are fewer
/// than [`RANDOM_TABLES`].
const FEWEST_TABLES: u32 = 999;
const WORK: f64 = 5e8;

/// The share of random tables that are at least as far from independence as `table`, itself counted in, and the number
/// of tables drawn: `p = (1 + farther) / (1 + drawn)`.
///
/// A. C. A. Hope, "A simplified Monte Carlo significance test procedure", JRSS B 30 (1968).
pub(super) fn monte_carlo_p(table: &Contingency, seed: Seed) -> (f64, u32) {
    let cells = table.cells.len() as f64;
    // Dealing observations out one by one costs less than drawing every cell where most cells stay empty.
    let deal = table.total < 4.0 * cells;
    let work = if deal { table.total.max(1.0) } else { cells };
    let tables = (WORK / work).clamp(f64::from(FEWEST_TABLES), f64::from(RANDOM_TABLES)) as u32;
    let observed = g_statistic(table.iter().map(|(_, _, n, expected)| (n, expected)));
    // Tables that are the same up to a permutation may differ in the last bits.
    let as_far = observed - 1e-9 * (1.0 + observed);
    let is_farther = |i: u32| {
        let mut rng = seed.index(u64::from(i)).rng();
        let drawn = if deal { dealt(table, &mut rng) } else { drawn(table, &mut rng) };
        let expected = table.iter().map(|(_, _, _, expected)| expected);
        u32::from(g_statistic(drawn.into_iter().zip(expected)) >= as_far)
    };
    let farther: u32 = (0..tables).into_par_iter().map(is_farther).sum();
    (f64::from(1 + farther) / f64::from(1 + tables), tables)
}

/// A random table made by shuffling the columns of all observations.
fn dealt(table: &Contingency, rng: &mut impl Rng) -> Vec<f64> {
    let repeat = |margins: &[f64]| -> Vec<usize> {
        margins.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n as usize)).collect()
    };
    let (rows, mut columns) = (repeat(&table.rows), repeat(&table.columns));
    columns.shuffle(rng);
    let mut cells = vec![0.0; table.cells.len()];
    for (row, column) in rows.into_iter().zip(columns) {
        if let Some(cell) = cells.get_mut(row * table.columns.len() + column) {
            *cell += 1.0;
        }
    }
    cells
}

/// A random table drawn cell by cell, each hypergeometric given the cells before it.
///
/// W. M. Patefield, "Algorithm AS 159: an efficient method of generating random r x c tables with given row and column
/// totals", Applied Statistics 30 (1981).
fn drawn(table: &Contingency, rng: &mut impl Rng) -> Vec<f64> {
    let mut columns = table.columns.clone();
    let mut cells = Vec::with_capacity(table.cells.len());
    for &row in &table.rows {
        let (mut row_left, mut population) = (row, columns.iter().sum::<f64>());
        for column in &mut columns {
            let cell = hypergeometric(*column, population - *column, row_left, rng);
            population -= *column;
            *column -= cell;
            row_left -= cell;
            cells.push(cell);
        }
    }
    cells
}

/// How many of `marked` are among `drawn` taken from `marked + unmarked` without putting back; all are whole numbers.
///
/// The ratio of uniforms, after E. Stadlober, "The ratio of uniforms approach for generating discrete random variates",
/// Journal of Computational and Applied Mathematics 31 (1990): a fixed number of steps on average, whatever the counts.
fn hypergeometric(marked: f64, unmarked: f64, drawn: f64, rng: &mut impl Rng) -> f64 {
    let population = marked + unmarked;
    let (fewest, most) = ((drawn - unmarked).max(0.0), drawn.min(marked));
    if most <= fewest {
        return fewest.min(most).max(0.0);
    }
    let p = marked / population;
    let variance = drawn * p * (1.0 - p) * ((population - drawn) / (population - 1.0).max(1.0));
    let mode = ((drawn + 1.0) * ((marked + 1.0) / (population + 2.0))).floor().clamp(fewest, most);
    // Stadlober's table: the hat covers every hypergeometric distribution with these constants.
    let centre = drawn * p + 0.5;
    let width = 2.0 * (2.0 / std::f64::consts::E).sqrt() * (variance + 0.5).sqrt()
        + (3.0 - 2.0 * (3.0 / std::f64::consts::E).sqrt());
    loop {
        let u: f64 = 1.0 - rng.random::<f64>(); // in (0, 1]
        let x = (centre + width * (rng.random::<f64>() - 0.5) / u).floor();
        if !(fewest..=most).contains(&x) {
            continue;
        }
        let log_ratio = ln_factorial_ratio(mode, x)
            + ln_factorial_ratio(marked - mode, marked - x)
            + ln_factorial_ratio(drawn - mode, drawn - x)
            + ln_factorial_ratio(unmarked - drawn + mode, unmarked - drawn + x);
        if 2.0 * u.ln() <= log_ratio {
            return x;
        }
    }
}

/// `ln(a! / b!)`. Written as a difference of near numbers where both are large, as two logarithms of factorials of
/// 10^11 would leave no digit of it.
fn ln_factorial_ratio(a: f64, b: f64) -> f64 {
    const SMALL: f64 = 32.0;
    if a.max(b) <= SMALL {
        let product = |from: f64, to: f64| (from as u32 + 1..=to as u32).map(f64::from).product::<f64>().ln();
        return if a >= b { product(b, a) } else { -product(a, b) };
    }
    if b < SMALL || a < SMALL {
        let ln_factorial = |n: f64| statrs::function::gamma::ln_gamma(n + 1.0);
        return ln_factorial(a) - ln_factorial(b);
    }
    // Stirling: ln n! = (n + 1/2) ln n - n + ln sqrt(2 pi) + 1/(12 n) - 1/(360 n^3) + ...
    let correction = |n: f64| (1.0 / 12.0 - 1.0 / (360.0 * n * n)) / n;
    let d = a - b;
    (b + 0.5) * (d / b).ln_1p() + d * a.ln() - d + correction(a) - correction(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ln n!` by adding up.
    fn ln_factorial(n: u64) -> f64 {
        (2..=n).map(|i| (i as f64).ln()).sum()
    }

    #[test]
    fn ratios_of_factorials_are_as_added_up() {
        for a in [0, 1, 5, 31, 32, 33, 40, 100, 1000] {
            for b in [0, 2, 31, 32, 33, 50, 101, 990] {
                let (found, expected) = (ln_factorial_ratio(a as f64, b as f64), ln_factorial(a) - ln_factorial(b));
                assert!((found - expected).abs() < 1e-10 * expected.abs().max(1.0), "{a} {b}: {found} {expected}");
            }
        }
        // 10^11 + 3 over 10^11.
        let expected: f64 = (1..=3).map(|i| (1e11 + f64::from(i)).ln()).sum();
        assert!((ln_factorial_ratio(1e11 + 3.0, 1e11) - expected).abs() < 1e-9);
    }

    /// The hypergeometric probabilities of every count.
    fn probabilities(marked: u64, unmarked: u64, drawn: u64) -> Vec<f64> {
        let choose = |n: u64, k: u64| {
            if k > n { f64::NEG_INFINITY } else { ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) }
        };
        let all = choose(marked + unmarked, drawn);
        (0..=drawn).map(|x| (choose(marked, x) + choose(unmarked, drawn - x) - all).exp()).collect()
    }

    #[test]
    fn drawn_counts_follow_the_hypergeometric_distribution() {
        let mut rng = Seed(5).rng();
        for (marked, unmarked, drawn) in
            [(1, 1, 1), (1, 9, 3), (5, 3, 4), (10, 10, 10), (3, 200, 100), (400, 30, 60), (500, 500, 300), (40, 2, 39)]
        {
            let n = 100_000;
            let mut counts = vec![0.0; drawn as usize + 1];
            for _ in 0..n {
                let x = hypergeometric(marked as f64, unmarked as f64, drawn as f64, &mut rng);
                counts[x as usize] += 1.0;
            }
            for (x, (count, p)) in counts.iter().zip(probabilities(marked, unmarked, drawn)).enumerate() {
                // Five standard errors, and one count where next to nothing is expected.
                let bound = 5.0 * (f64::from(n) * p * (1.0 - p)).sqrt() + 1.0;
                assert!((count - f64::from(n) * p).abs() <= bound, "{marked} {unmarked} {drawn}: {x} {count} {p}");
            }
        }
    }

    #[test]
    fn drawn_counts_of_hundreds_of_billions_have_the_right_mean_and_variance() {
        let (marked, unmarked, drawn) = (4e10, 6e10, 3e10);
        let (mut rng, n) = (Seed(6).rng(), 20_000);
        let mean = drawn * 0.4;
        let variance: f64 = drawn * 0.24 * (7e10 / 1e11);
        let draws: Vec<f64> =
            (0..n).map(|_| (hypergeometric(marked, unmarked, drawn, &mut rng) - mean) / variance.sqrt()).collect();
        let found_mean = draws.iter().sum::<f64>() / f64::from(n);
        let found_variance = draws.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        // Five standard errors: 5 / sqrt(20,000) and 5 sqrt(2 / 20,000).
        assert!(found_mean.abs() < 0.036 && (found_variance - 1.0).abs() < 0.05, "{found_mean} {found_variance}");
    }

    #[test]
    fn random_tables_keep_their_margins() {
        let table = Contingency::of(&[vec![7, 0, 3], vec![1, 20, 5], vec![0, 2, 2]]);
        let mut rng = Seed(1).rng();
        for _ in 0..200 {
            for cells in [dealt(&table, &mut rng), drawn(&table, &mut rng)] {
                let rows: Vec<f64> = cells.chunks(3).map(|row| row.iter().sum()).collect();
                let columns: Vec<f64> = (0..3).map(|c| cells.iter().skip(c).step_by(3).sum()).collect();
                assert_eq!((rows, columns), (table.rows.clone(), table.columns.clone()));
                assert!(cells.iter().all(|&n| n >= 0.0));
            }
        }
    }
}
