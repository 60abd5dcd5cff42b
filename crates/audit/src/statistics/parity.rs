//! Demographic parity: whether a label is as frequent among one attribute value's rows as among another's.

use serde::{Deserialize, Serialize};

use super::contingency::Contingency;
use super::intervals::newcombe_of;

/// How unevenly one label value is spread over the values of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// The label value's column in the table.
    pub label: usize,
    /// The attribute value (its row in the table) with the largest share of the label, the first of equal ones.
    pub highest: usize,
    /// The attribute value with the smallest share, the first of equal ones.
    pub lowest: usize,
    /// The share of the label among the rows of `highest`, 0 to 1.
    pub highest_share: f64,
    /// The share of the label among the rows of `lowest`, 0 to 1.
    pub lowest_share: f64,
    /// The largest difference of two shares, 0 to 1: the demographic parity difference.
    pub difference: f64,
    /// Its 95 % interval (Newcombe 1998, method 10), as if these two values had been named before looking: of many
    /// values the two ends lie further apart by chance.
    pub interval: [f64; 2],
    /// The smallest ratio of two shares, 0 to 1: the demographic parity ratio.
    pub ratio: f64,
}

/// The parity of each label value (column) by the attribute (rows), in the order of the columns. Attribute values and
/// label values without rows are left out; empty where fewer than two attribute values remain.
///
/// C. Dwork et al., "Fairness through awareness", ITCS (2012), section 3 (statistical parity); the difference and the
/// ratio over groups are those of Fairlearn.
pub fn demographic_parity(table: &[Vec<u64>]) -> Vec<Parity> {
    let table = Contingency::of(table);
    if table.rows.len() < 2 {
        return Vec::new();
    }
    table.column_places.iter().enumerate().filter_map(|(column, &label)| parity(&table, column, label)).collect()
}

fn parity(table: &Contingency, column: usize, label: usize) -> Option<Parity> {
    let counts = table.cells.iter().skip(column).step_by(table.columns.len());
    let shares: Vec<(f64, f64)> = counts.zip(&table.rows).map(|(&n, &row)| (n, row)).collect();
    let by_share = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let numbered = || shares.iter().map(|(n, row)| n / row).enumerate();
    // `max_by` gives the last of equal ones, so it looks from the end.
    let (highest, highest_share) = numbered().collect::<Vec<_>>().into_iter().rev().max_by(by_share)?;
    let (lowest, lowest_share) = numbered().min_by(by_share)?;
    Some(Parity {
        label,
        highest: *table.row_places.get(highest)?,
        lowest: *table.row_places.get(lowest)?,
        highest_share,
        lowest_share,
        difference: highest_share - lowest_share,
        interval: newcombe_of(*shares.get(highest)?, *shares.get(lowest)?),
        // A kept column holds something, so the largest share is above 0.
        ratio: lowest_share / highest_share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::newcombe;

    #[test]
    fn the_extremes_are_found_among_values_with_rows() {
        // Shares of the first label: 0.2, none, 0.5, 0.35.
        let table = [vec![20, 80], vec![0, 0], vec![5, 5], vec![35, 65]];
        let found = demographic_parity(&table);
        let first = &found[0];
        assert_eq!((first.label, first.highest, first.lowest), (0, 2, 0));
        assert!((first.difference - 0.3).abs() < 1e-12 && (first.ratio - 0.4).abs() < 1e-12);
        assert_eq!(first.interval, newcombe((5, 10), (20, 100)));
        assert_eq!((found[1].highest, found[1].lowest), (0, 2));
    }

    #[test]
    fn a_label_that_one_value_never_has_has_a_ratio_of_zero() {
        let found = demographic_parity(&[vec![0, 4, 0], vec![3, 1, 0]]);
        assert_eq!(found.iter().map(|p| p.label).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((found[0].ratio, found[0].difference), (0.0, 0.75));
    }

    #[test]
    fn equal_shares_name_the_first_values_and_one_value_has_no_parity() {
        let found = demographic_parity(&[vec![1, 1], vec![2, 2], vec![3, 3]]);
        assert_eq!((found[0].highest, found[0].lowest, found[0].difference, found[0].ratio), (0, 0, 0.0, 1.0));
        assert!(demographic_parity(&[vec![1, 2], vec![0, 0]]).is_empty());
        assert!(demographic_parity(&[]).is_empty());
        let huge = demographic_parity(&[vec![u64::MAX, u64::MAX], vec![1, u64::MAX]]);
        assert!(huge.iter().all(|p| p.difference.is_finite() && p.interval[0] <= p.interval[1]));
    }
}
