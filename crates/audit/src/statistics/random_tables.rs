//! Random contingency tables with given margins, each as likely as if the two attributes had nothing to do with each
//! other, and the Monte Carlo test made of them.

use evenset_core::Seed;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rayon::prelude::*;

use super::contingency::Contingency;
use super::g_test::{g_of, g_statistic};

/// How many random tables a test draws, where drawing them is not too much work.
pub const RANDOM_TABLES: u32 = 9_999;

/// The fewest tables of a test, and the cells to draw above which there are fewer than [`RANDOM_TABLES`].
const FEWEST_TABLES: u32 = 999;
const MOST_CELLS: f64 = 5e8;

/// So many observations are dealt out in the time that it takes to draw one cell.
const DEALT_FOR_ONE_CELL: f64 = 40.0;

/// The share of random tables that are at least as far from independence as `table`, itself counted in, and the number
/// of tables drawn: `p = (1 + farther) / (1 + drawn)`.
///
/// A. C. A. Hope, "A simplified Monte Carlo significance test procedure", JRSS B 30 (1968).
pub(super) fn monte_carlo_p(table: &Contingency, seed: Seed) -> (f64, u32) {
    let cells = table.cells.len() as f64;
    let observations = table.total / DEALT_FOR_ONE_CELL;
    let deck = (observations < cells).then(|| Deck::of(table));
    let tables =
        (MOST_CELLS / cells.min(observations)).clamp(f64::from(FEWEST_TABLES), f64::from(RANDOM_TABLES)) as u32;
    let observed = g_of(table);
    // Tables that are the same up to a permutation may differ in the last bits.
    let as_far = observed - 1e-9 * (1.0 + observed);
    let expected: Vec<f64> = table.iter().map(|cell| cell.expected).collect();
    let is_farther = |i: u32| {
        let mut rng = seed.index(u64::from(i)).rng();
        let random = match &deck {
            Some(deck) => deck.deal(&mut rng),
            None => drawn(table, &mut rng),
        };
        let cells = random.into_iter().zip(&expected).map(|(n, &expected)| (n, expected, n - expected));
        u32::from(g_statistic(cells) >= as_far)
    };
    let farther: u32 = (0..tables).into_par_iter().map(is_farther).sum();
    (f64::from(1 + farther) / f64::from(1 + tables), tables)
}

/// The observations of a table, one by one, to deal out anew.
struct Deck {
    rows: Vec<usize>,
    columns: Vec<usize>,
    width: usize,
    cells: usize,
}

impl Deck {
    fn of(table: &Contingency) -> Self {
        let repeat = |margins: &[f64]| {
            margins.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n as usize)).collect()
        };
        let (rows, columns) = (repeat(&table.rows), repeat(&table.columns));
        Self { rows, columns, width: table.columns.len(), cells: table.cells.len() }
    }

    /// A random table: every observation keeps its row and gets the column of another.
    fn deal(&self, rng: &mut impl Rng) -> Vec<f64> {
        let mut columns = self.columns.clone();
        columns.shuffle(rng);
        let mut cells = vec![0.0; self.cells];
        for (row, column) in self.rows.iter().zip(columns) {
            if let Some(cell) = cells.get_mut(row * self.width + column) {
                *cell += 1.0;
            }
        }
        cells
    }
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
fn hypergeometric(marked: f64, unmarked: f64, drawn: f64, rng: &mut impl Rng) -> f64 {
    // The rarer kind, among the smaller part of the population: then no difference below is negative, and counts stay
    // as small as they can be.
    let population = marked + unmarked;
    if marked > unmarked {
        (drawn - hypergeometric(unmarked, marked, drawn, rng)).clamp(0.0, marked)
    } else if drawn > population / 2.0 {
        (marked - ratio_of_uniforms(marked, unmarked, population - drawn, rng)).max(0.0)
    } else {
        ratio_of_uniforms(marked, unmarked, drawn, rng)
    }
}

/// For `marked <= unmarked` and `drawn` at most half of all.
///
/// E. Stadlober, "The ratio of uniforms approach for generating discrete random variates", Journal of Computational and
/// Applied Mathematics 31 (1990): a few steps on average, whatever the counts.
fn ratio_of_uniforms(marked: f64, unmarked: f64, drawn: f64, rng: &mut impl Rng) -> f64 {
    let (population, most) = (marked + unmarked, drawn.min(marked));
    if most <= 0.0 {
        return 0.0;
    }
    let p = marked / population;
    let variance = drawn * p * (1.0 - p) * ((population - drawn) / (population - 1.0).max(1.0));
    let mode = ((drawn + 1.0) * ((marked + 1.0) / (population + 2.0))).floor().clamp(0.0, most);
    // Stadlober's table: the hat covers every hypergeometric distribution with these constants.
    let centre = drawn * p + 0.5;
    let width = 2.0 * (2.0 / std::f64::consts::E).sqrt() * (variance + 0.5).sqrt()
        + (3.0 - 2.0 * (3.0 / std::f64::consts::E).sqrt());
    loop {
        let u: f64 = 1.0 - rng.random::<f64>(); // in (0, 1]
        let x = (centre + width * (rng.random::<f64>() - 0.5) / u).floor();
        if !(0.0..=most).contains(&x) {
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
            for cells in [Deck::of(&table).deal(&mut rng), drawn(&table, &mut rng)] {
                let rows: Vec<f64> = cells.chunks(3).map(|row| row.iter().sum()).collect();
                let columns: Vec<f64> = (0..3).map(|c| cells.iter().skip(c).step_by(3).sum()).collect();
                assert_eq!((rows, columns), (table.rows.clone(), table.columns.clone()));
                assert!(cells.iter().all(|&n| n >= 0.0));
            }
        }
    }
}
