//! Distances to nearest neighbours, by looking at all of them.
//!
//! A matrix product gives every squared distance up to rounding; the few that could be the ones wanted are then computed
//! exactly, so the result does not depend on how the product was cut into blocks, on the batch, or on threads.

use std::cmp::Ordering;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// Queries and points that are multiplied with each other at a time.
const QUERY_BLOCK: usize = 256;
const POINT_BLOCK: usize = 4096;
/// How far a squared distance from the matrix product may be off, relative to the squared lengths: far more than
/// rounding in `f32` explains for the widths used here.
const SLACK: f32 = 1e-4;

/// Vectors of one width, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Points {
    pub(crate) values: Vec<f32>,
    pub(crate) width: usize,
}

/// One neighbour of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neighbour {
    /// Root of the mean squared difference over the width.
    pub(crate) distance: f32,
    /// The neighbour's row.
    pub(crate) row: usize,
}

impl Neighbour {
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.row.cmp(&other.row))
    }
}

/// A neighbour of something that several queries show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    pub(crate) neighbour: Neighbour,
    /// Which of the queries comes nearest; of equally near ones the first.
    pub(crate) view: usize,
}

impl Near {
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        self.neighbour.order(&other.neighbour).then(self.view.cmp(&other.view))
    }
}

impl Points {
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        Self { values, width }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        self.values.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    pub(crate) fn push(&mut self, row: &[f32]) {
        self.values.extend_from_slice(row);
    }

    pub(crate) fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        Self { values: rows.into_iter().flat_map(|row| self.row(row)).copied().collect(), width: self.width }
    }

    /// For each query its `k`-th nearest point, or none where there are fewer than `k`. `own` names for each query a point
    /// that does not count: itself.
    pub(crate) fn kth_nearest(
        &self,
        queries: &Self,
        k: usize,
        own: Option<&[usize]>,
    ) -> Result<Vec<Option<Neighbour>>> {
        let nearest = self.k_nearest(queries, k, own)?;
        Ok(nearest.into_iter().map(|nearest| nearest.get(k.saturating_sub(1)).copied()).collect())
    }

    /// For each query its `k` nearest points, the nearest first, or all where there are fewer.
    fn k_nearest(&self, queries: &Self, k: usize, own: Option<&[usize]>) -> Result<Vec<Vec<Neighbour>>> {
        let nearest = self.k_nearest_to_views(queries, 1, k, own)?;
        Ok(nearest.into_iter().map(|nearest| nearest.into_iter().map(|near| near.neighbour).collect()).collect())
    }

    /// For each `views` queries in a row, which show the same thing, the `k` points nearest to any of them, the nearest
    /// first. `own` names for each `views` queries a point that does not count.
    pub(crate) fn k_nearest_to_views(
        &self,
        queries: &Self,
        views: usize,
        k: usize,
        own: Option<&[usize]>,
    ) -> Result<Vec<Vec<Near>>> {
        let own = |thing: usize| own.and_then(|own| own.get(thing)).copied();
        let mut nearest: Vec<Vec<Near>> = vec![Vec::new(); queries.len() / views.max(1)];
        let things = QUERY_BLOCK.div_ceil(views.max(1));
        for (block, points) in self.values.chunks(POINT_BLOCK * self.width.max(1)).enumerate() {
            let first = block * POINT_BLOCK;
            let points = Block::new(points, self.width)?;
            for (chunk, nearest) in nearest.chunks_mut(things).enumerate() {
                let from = chunk * things;
                let stride = views * self.width;
                let values = &queries.values[from * stride..][..nearest.len() * stride];
                let products = points.products(values)?;
                nearest.par_iter_mut().enumerate().for_each(|(i, nearest)| {
                    let skipped = own(from + i).and_then(|own| own.checked_sub(first));
                    let queries = &values[i * stride..][..stride];
                    let products = &products[i * views * points.len()..][..views * points.len()];
                    // What is farther than the k-th nearest so far need not be looked at.
                    let bound = nearest.get(k.saturating_sub(1)).map_or(f32::INFINITY, |near| near.neighbour.distance);
                    nearest.extend(points.candidates(queries, products, k, skipped, first, bound));
                    nearest.sort_unstable_by(Near::order);
                    nearest.truncate(k);
                });
            }
        }
        Ok(nearest)
    }

    /// For each query its nearest point.
    pub(crate) fn nearest(&self, queries: &Self, own: Option<&[usize]>) -> Result<Vec<Option<Neighbour>>> {
        self.kth_nearest(queries, 1, own)
    }
}

/// Some of the points, ready to be multiplied.
struct Block<'a> {
    values: &'a [f32],
    width: usize,
    /// `[width, points]`.
    transposed: Tensor,
    squares: Vec<f32>,
}

impl<'a> Block<'a> {
    fn new(values: &'a [f32], width: usize) -> Result<Self> {
        let squares: Vec<f32> = values.chunks_exact(width).map(square).collect();
        let transposed = Tensor::from_slice(values, (squares.len(), width), &Device::Cpu)?.t()?.contiguous()?;
        Ok(Self { values, width, transposed, squares })
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    /// Inner products of each query with each point, `[queries, points]`.
    fn products(&self, queries: &[f32]) -> Result<Vec<f32>> {
        let queries = Tensor::from_slice(queries, (queries.len() / self.width, self.width), &Device::Cpu)?;
        queries.matmul(&self.transposed)?.flatten_all()?.to_vec1()
    }

    /// Every point that may be among the `k` nearest to any of the queries, and nearer than `bound`, with its exact
    /// distance.
    fn candidates(
        &self,
        queries: &[f32],
        products: &[f32],
        k: usize,
        skipped: Option<usize>,
        first: usize,
        bound: f32,
    ) -> Vec<Near> {
        // Squared distances, but for the point's own square: the least that they can be, and the most.
        let (mut least, mut most) = (vec![f32::INFINITY; self.len()], vec![f32::INFINITY; self.len()]);
        for (query, products) in queries.chunks_exact(self.width).zip(products.chunks_exact(self.len())) {
            let length = square(query);
            let (shorter, longer) = (length * (1.0 - SLACK), length * (1.0 + SLACK));
            for ((least, most), product) in least.iter_mut().zip(&mut most).zip(products) {
                *least = least.min(shorter - 2.0 * product);
                *most = most.min(longer - 2.0 * product);
            }
        }
        let counts = |&point: &usize| Some(point) != skipped;
        let bound = bound.powi(2) * self.width as f32 * (1.0 + SLACK);
        // The k smallest upper bounds: nothing whose lower bound is above the largest of them can be among the k nearest.
        let mut smallest: Vec<f32> = Vec::with_capacity(k + 1);
        for point in (0..self.len()).filter(counts) {
            let upper = most[point] + self.squares[point] * (1.0 + SLACK);
            if upper <= bound && (smallest.len() < k || smallest.last().is_some_and(|&last| upper < last)) {
                let at = smallest.partition_point(|&other| other <= upper);
                smallest.insert(at, upper);
                smallest.truncate(k);
            }
        }
        let limit = if smallest.len() < k { bound } else { smallest.last().copied().unwrap_or(bound) };
        (0..self.len())
            .filter(counts)
            .filter(|&point| least[point] + self.squares[point] * (1.0 - SLACK) <= limit)
            .filter_map(|point| {
                let values = &self.values[point * self.width..][..self.width];
                let near = |(view, query): (usize, &[f32])| {
                    let neighbour = Neighbour { distance: distance(query, values), row: first + point };
                    Near { neighbour, view }
                };
                queries.chunks_exact(self.width).enumerate().map(near).min_by(Near::order)
            })
            .collect()
    }
}

fn square(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum()
}

/// Root of the mean squared difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (sum / a.len().max(1) as f64).sqrt() as f32
}

/// The `p` quantile of values that each count as much as their weight: the smallest value with at least that share of the
/// weight at or below it; none where there are no values.
pub(crate) fn weighted_quantile(values: &[(f32, f64)], p: f64) -> Option<f32> {
    let mut values = values.to_vec();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for &(value, weight) in &values {
        below += weight;
        if below >= p * total {
            return Some(value);
        }
    }
    values.last().map(|&(value, _)| value)
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    fn by_hand(points: &Points, query: &[f32], k: usize, own: Option<usize>) -> Option<Neighbour> {
        let mut all: Vec<Neighbour> = (0..points.len())
            .filter(|&row| Some(row) != own)
            .map(|row| Neighbour { distance: distance(query, points.row(row)), row })
            .collect();
        all.sort_by(Neighbour::order);
        all.get(k - 1).copied()
    }

    #[test]
    fn neighbours_agree_with_looking_at_every_pair() {
        let points = Points::new(Seed(1).normal(700 * 5), 5);
        let queries = points.select(0..300);
        let own: Vec<usize> = (0..300).collect();
        for (k, own) in [(1, None), (3, None), (1, Some(&own[..])), (699, Some(&own[..]))] {
            let found = points.kth_nearest(&queries, k, own).unwrap();
            for (query, found) in found.iter().enumerate() {
                assert_eq!(*found, by_hand(&points, queries.row(query), k, own.map(|own| own[query])), "{query}, {k}");
            }
        }
        assert_eq!(points.kth_nearest(&queries, 701, None).unwrap()[0], None);
    }

    #[test]
    fn more_points_than_fit_in_a_block_are_all_looked_at() {
        let n = POINT_BLOCK + 10;
        let points = Points::new((0..n).map(|i| i as f32).collect(), 1);
        let found = points.nearest(&Points::new(vec![n as f32, 3.2], 1), None).unwrap();
        assert_eq!(found.iter().map(|n| n.unwrap().row).collect::<Vec<_>>(), [n - 1, 3]);
    }

    #[test]
    fn a_query_gets_the_same_distance_alone_and_in_company() {
        let points = Points::new(Seed(1).normal(500 * 64), 64);
        let queries = Points::new(Seed(2).normal(300 * 64), 64);
        let together = points.nearest(&queries, None).unwrap();
        for query in [0, 17, 299] {
            assert_eq!(points.nearest(&queries.select([query]), None).unwrap()[0], together[query]);
        }
    }

    #[test]
    fn the_nearest_to_several_views_are_those_of_the_view_that_comes_nearest() {
        let points = Points::new(Seed(1).normal((POINT_BLOCK + 400) * 5), 5);
        let queries = Points::new(Seed(2).normal(3 * 40 * 5), 5);
        let found = points.k_nearest_to_views(&queries, 3, 7, Some(&[9; 40])).unwrap();
        for (thing, found) in found.iter().enumerate() {
            let near = |row: usize, view: usize| Near {
                neighbour: Neighbour { distance: distance(queries.row(3 * thing + view), points.row(row)), row },
                view,
            };
            let nearest = |row: usize| (0..3).map(|view| near(row, view)).min_by(Near::order).unwrap();
            let mut all: Vec<Near> = (0..points.len()).filter(|&row| row != 9).map(nearest).collect();
            all.sort_by(Near::order);
            assert_eq!(found[..], all[..7], "{thing}");
        }
    }

    #[test]
    fn a_weighted_quantile_counts_weights() {
        let values = [(3.0, 1.0), (1.0, 1.0), (2.0, 2.0)];
        assert_eq!(weighted_quantile(&values, 0.25), Some(1.0));
        assert_eq!(weighted_quantile(&values, 0.5), Some(2.0));
        assert_eq!(weighted_quantile(&values, 1.0), Some(3.0));
        assert_eq!(weighted_quantile(&[], 0.5), None);
    }
}
