//! A contingency table without its empty rows and columns, which say nothing about how two attributes go together.

/// Counts of two attributes, with margins. Sums are floating point, so that no count is too large: exact up to 2^53
/// and within one part in 2^52 beyond.
#[derive(Clone, Debug)]
pub(super) struct Contingency {
    /// Where each kept row and column stood.
    pub(super) row_places: Vec<usize>,
    pub(super) column_places: Vec<usize>,
    /// [rows, columns], row after row.
    pub(super) cells: Vec<f64>,
    pub(super) rows: Vec<f64>,
    pub(super) columns: Vec<f64>,
    pub(super) total: f64,
}

/// A cell of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) count: f64,
    /// What independence would put there.
    pub(super) expected: f64,
    /// Count minus expectation.
    pub(super) surplus: f64,
}

/// One cell of a table against everything else: its row and column against the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fourfold {
    pub(super) both: f64,
    pub(super) row_only: f64,
    pub(super) column_only: f64,
    pub(super) neither: f64,
}

impl Contingency {
    /// Short rows are filled with 0.
    pub(super) fn of(table: &[Vec<u64>]) -> Self {
        let width = table.iter().map(Vec::len).max().unwrap_or(0);
        let mut row_places = Vec::new();
        let mut occupied = vec![false; width];
        for (place, row) in table.iter().enumerate() {
            row.iter().zip(&mut occupied).for_each(|(&n, occupied)| *occupied |= n > 0);
            if row.iter().any(|&n| n > 0) {
                row_places.push(place);
            }
        }
        let column_places: Vec<usize> = (0..width).filter(|&c| occupied.get(c) == Some(&true)).collect();
        let kept = table.iter().filter(|row| row.iter().any(|&n| n > 0));
        let cells: Vec<f64> =
            kept.flat_map(|row| column_places.iter().map(|&c| row.get(c).copied().unwrap_or(0) as f64)).collect();
        let (mut rows, mut columns) = (Vec::with_capacity(row_places.len()), vec![0.0; column_places.len()]);
        for row in cells.chunks(column_places.len().max(1)) {
            rows.push(row.iter().sum());
            columns.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
        }
        let total = rows.iter().sum();
        Self { row_places, column_places, cells, rows, columns, total }
    }

    /// Whether both attributes vary, so that they can go together at all.
    pub(super) fn varies(&self) -> bool {
        self.rows.len() > 1 && self.columns.len() > 1
    }

    /// Every cell, row after row.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        let margins = self.rows.iter().enumerate().flat_map(|(row, &in_row)| {
            self.columns.iter().enumerate().map(move |(column, &in_column)| (row, column, in_row, in_column))
        });
        margins.zip(&self.cells).map(|((row, column, in_row, in_column), &count)| Entry {
            row,
            column,
            count,
            expected: in_row * (in_column / self.total),
            surplus: difference_of_products(count, self.total, in_row, in_column) / self.total,
        })
    }

    /// The smallest expected count; infinite for an empty table.
    pub(super) fn smallest_expected(&self) -> f64 {
        let smallest = |margins: &[f64]| margins.iter().copied().fold(f64::INFINITY, f64::min);
        if self.total > 0.0 { smallest(&self.rows) * (smallest(&self.columns) / self.total) } else { f64::INFINITY }
    }

    /// The cell in kept row `i` and kept column `j` against the rest.
    pub(super) fn fourfold(&self, i: usize, j: usize) -> Fourfold {
        let at = |list: &[f64], i: usize| list.get(i).copied().unwrap_or(0.0);
        let both = at(&self.cells, i * self.columns.len() + j);
        let (row, column) = (at(&self.rows, i), at(&self.columns, j));
        Fourfold::of(both, row, column, self.total)
    }
}

impl Fourfold {
    /// From a cell, its two margins and the total.
    pub(super) fn of(both: f64, row: f64, column: f64, total: f64) -> Self {
        let (row_only, column_only) = ((row - both).max(0.0), (column - both).max(0.0));
        Self { both, row_only, column_only, neither: (total - row - column_only).max(0.0) }
    }

    pub(super) fn cells(&self) -> [f64; 4] {
        [self.both, self.row_only, self.column_only, self.neither]
    }

    pub(super) fn total(&self) -> f64 {
        self.cells().iter().sum()
    }

    /// The margins: row, other rows, column, other columns.
    pub(super) fn margins(&self) -> [f64; 4] {
        let [a, b, c, d] = self.cells();
        [a + b, c + d, a + c, b + d]
    }

    /// The smallest expected count.
    pub(super) fn smallest_expected(&self) -> f64 {
        let [row, other_rows, column, other_columns] = self.margins();
        row.min(other_rows) * (column.min(other_columns) / self.total())
    }

    /// Count minus expectation: above 0 where the cell holds more than independence would put there.
    pub(super) fn surplus(&self) -> f64 {
        let [a, b, c, d] = self.cells();
        difference_of_products(a, d, b, c) / self.total()
    }

    /// The logarithm of the odds ratio with a half added to every cell, and its variance; always finite.
    ///
    /// J. B. S. Haldane, "The estimation and significance of the logarithm of a ratio of frequencies", Annals of Human
    /// Genetics 20 (1956); the variance is J. J. Gart's, Review of the International Statistical Institute 34 (1966).
    pub(super) fn log_odds(&self) -> (f64, f64) {
        let [a, b, c, d] = self.cells().map(|n| n + 0.5);
        (a.ln() + d.ln() - b.ln() - c.ln(), 1.0 / a + 1.0 / b + 1.0 / c + 1.0 / d)
    }
}

/// `a b - c d` to nearly all digits, where the products of counts of 10^11 differ in their last ones alone (W. Kahan's,
/// with fused multiplications).
fn difference_of_products(a: f64, b: f64, c: f64, d: f64) -> f64 {
    let product = c * d;
    let rounding = c.mul_add(d, -product);
    a.mul_add(b, -product) - rounding
}
