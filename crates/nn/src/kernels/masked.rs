//! Attention in which a query sees some keys only: for texts, which are short.

use super::math::{dot_of, exp};
use super::simd::vectorised;

vectorised! {
    /// What one query `q` `[width]` takes from `v` `[keys, width]`, head by head of `head` columns; only keys that are
    /// `seen` `[keys]` count. `out` `[width]` is zero where none is. `scores` `[keys]` is scratch.
    ///
    /// Every sum runs over the seen keys in their order, so that what is not seen has no effect on the bytes.
    pub(crate) fn attend(q: &[f32], k: &[f32], v: &[f32], seen: &[bool], head: usize, scores: &mut [f32], out: &mut [f32]) {
        let width = q.len();
        let scale = 1.0 / (head as f32).sqrt();
        for (first, (q, out)) in q.chunks_exact(head).zip(out.chunks_exact_mut(head)).enumerate() {
            let first = first * head;
            let mut largest = f32::NEG_INFINITY;
            for (j, (score, seen)) in scores.iter_mut().zip(seen).enumerate() {
                if *seen {
                    *score = scale * dot_of(q, &k[j * width + first..][..head], |a, b| a * b);
                    largest = if *score > largest { *score } else { largest };
                }
            }
            out.fill(0.0);
            let mut total = 0.0;
            for (j, (score, seen)) in scores.iter().zip(seen).enumerate() {
                if *seen {
                    let share = exp(*score - largest);
                    total += share;
                    out.iter_mut().zip(&v[j * width + first..][..head]).for_each(|(out, v)| *out += share * v);
                }
            }
            if total > 0.0 {
                out.iter_mut().for_each(|out| *out /= total);
            }
        }
    }
}
