//! Attention of one head of one image without its matrix of scores, forward and backward (Dao et al. 2022,
//! FlashAttention; the running softmax is Milakov and Gimelshein's, 2018).
//!
//! Scores are formed for [`PANEL`] queries and a block of keys at a time and stay in the nearest caches. They are kept
//! with the queries in columns: the softmax then runs down whole vectors, keys and values are read as they lie, and
//! neither the keys nor the width of the head must be padded.
//!
//! What a query receives is summed over the keys in blocks that depend on the number of keys alone, so that its bytes
//! are the same whatever else is computed beside it.

use super::gemm::{Block, PANEL, STEP, Start};
use super::math::add_to;
use super::scratch::with_scratch;
use super::simd::{self, Kernel, Simd, dispatch, vectorised};
use super::target::Target;

/// The most keys of a block: the scores of a panel of queries then fill the first cache.
const KEYS: usize = 96;

/// Blocks of keys are multiples of this, so that tiles of the products are full.
const TILE: usize = 12;

/// Panels of queries that meet a block of keys while it is in a near cache.
const PANELS: usize = 2;

/// Queries of a task of [`Head::forward`].
pub(crate) const QUERIES: usize = PANELS * PANEL;

/// Values of a cache line.
const LINE: usize = 16;

/// The sizes of one head.
///
/// Its queries, keys and values are `width` numbers each; in memory one token's begin `stride` behind the previous one's,
/// in the packed buffers [`Head::row`].
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

/// What is known of a head when its gradients are computed.
pub(crate) struct Known<'a> {
    /// The head's first query, and the gradient and the result there.
    pub(crate) q: &'a [f32],
    pub(crate) gradient: &'a [f32],
    pub(crate) result: &'a [f32],
    /// [Packed](Head::pack).
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    /// One a query, from [`Head::forward`].
    pub(crate) logarithms: &'a [f32],
}

impl Head {
    /// The distance of packed tokens: an odd number of cache lines, since columns of a matrix whose rows are a power of
    /// two apart would push one another out of the cache.
    pub(crate) fn row(self) -> usize {
        (self.width.div_ceil(LINE) | 1) * LINE
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Keys of a block: as even as the tiles of the products allow.
    fn block(self) -> usize {
        let blocks = self.keys.div_ceil(KEYS);
        self.keys.div_ceil(blocks).next_multiple_of(TILE)
    }

    /// Blocks of keys: the first key and the number.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        let block = self.block();
        (0..self.keys).step_by(block).map(move |first| (first, block.min(self.keys - first)))
    }

    /// Copies tokens, times `factor`, to rows beside one another, with zeros behind each.
    pub(crate) fn pack(self, from: &[f32], factor: f32, to: &mut [f32]) {
        for (from, to) in from.chunks(self.stride).zip(to.chunks_exact_mut(self.row())) {
            let (to, rest) = to.split_at_mut(self.width);
            copy_scaled(from, factor, to);
            rest.fill(0.0);
        }
    }

    /// The results of `count` queries from `first` on, at most [`QUERIES`].
    ///
    /// `q` and `out` are the head's first query and result; `k` and `v` are packed. `logarithms` (one a query) receives
    /// the binary logarithm of the sum of what the softmax divides by.
    ///
    /// # Safety
    /// Nobody else may use the results of these queries.
    pub(crate) unsafe fn forward(
        self,
        (first, count): (usize, usize),
        q: &[f32],
        [k, v]: [&[f32]; 2],
        out: Target,
        logarithms: &mut [f32],
    ) {
        let (row, size, panels) = (self.row(), self.width * PANEL, count.div_ceil(PANEL));
        let lengths = [panels * size, panels * size, self.block() * PANEL, panels * 2 * PANEL].map(|n| n + LINE);
        with_scratch(lengths, |buffers| {
            let [turned, mixed, scores, states] = buffers.map(aligned);
            let spans = || (0..count).step_by(PANEL).map(|start| (start, (count - start).min(PANEL)));
            for ((start, count), turned) in spans().zip(turned.chunks_exact_mut(size)) {
                let factor = self.scale() * std::f32::consts::LOG2_E;
                self.turn(&q[(first + start) * self.stride..], count, factor, turned);
            }
            for (first_key, keys) in self.blocks() {
                let parts = turned.chunks_exact(size).zip(mixed.chunks_exact_mut(size));
                let parts = parts.zip(states.chunks_exact_mut(2 * PANEL));
                for ((_, count), ((turned, mixed), state)) in spans().zip(parts) {
                    let columns = count.next_multiple_of(STEP);
                    let (largest, sums) = state.split_at_mut(PANEL);
                    if first_key == 0 {
                        largest.fill(f32::NEG_INFINITY);
                        sums.fill(0.0);
                    }
                    // SAFETY: the block's keys and values lie in their buffers, the scores fit theirs.
                    unsafe {
                        self.by_key(&k[first_key * row..], keys, turned, columns, scores);
                        let mixed = if first_key == 0 { &mut [][..] } else { &mut mixed[..self.width * columns] };
                        dispatch(Softmax { scores: &mut scores[..keys * columns], columns, largest, sums, mixed });
                    }
                    let start = if first_key == 0 { Start::Zero } else { Start::Result };
                    // SAFETY: as above.
                    unsafe { self.by_channel(&v[first_key * row..], keys, scores, columns, start, mixed) };
                }
            }
            let parts = mixed.chunks_exact(size).zip(states.chunks_exact_mut(2 * PANEL));
            for ((start, count), (mixed, state)) in spans().zip(parts) {
                let (largest, sums) = state.split_at_mut(PANEL);
                let lines = logarithms[start..start + count].iter_mut().zip(largest.iter()).zip(sums);
                for ((logarithm, largest), sum) in lines {
                    *logarithm = largest + sum.log2();
                    *sum = 1.0 / *sum;
                }
                let factors = &state[PANEL..];
                // SAFETY: the results of these queries are the caller's.
                unsafe { self.turn_back(mixed, count, factors, out.add((first + start) * self.stride)) };
            }
        });
    }

    /// The gradients of `count` queries from `first` on, at most [`PANEL`], and their shares of those of keys and values.
    ///
    /// All but the keys and values begin with the head's first query. The keys' and values' gradients are added to
    /// `sums`, both in rows as [packed](Self::pack) ones.
    ///
    /// # Safety
    /// Nobody else may use the gradients of these queries.
    pub(crate) unsafe fn backward(
        self,
        (first, count): (usize, usize),
        known: &Known<'_>,
        q_gradient: Target,
        [k_sums, v_sums]: [&mut [f32]; 2],
    ) {
        let (row, columns) = (self.row(), count.next_multiple_of(STEP));
        let (flat, block) = (self.width * PANEL, self.block() * PANEL);
        let lengths = [flat, flat, flat, count * row, count * row, block, block].map(|length| length + LINE);
        with_scratch(lengths, |buffers| {
            let [turned_q, turned_g, mixed, rows_q, rows_g, shares, slopes] = buffers.map(aligned);
            let [q, gradient, result] = [known.q, known.gradient, known.result].map(|x| &x[first * self.stride..]);
            self.turn(q, count, self.scale() * std::f32::consts::LOG2_E, turned_q);
            self.turn(gradient, count, 1.0, turned_g);
            self.pack(q, self.scale(), &mut rows_q[..count * row]);
            self.pack(gradient, 1.0, &mut rows_g[..count * row]);
            // Columns beyond the queries have scores of zero, and gradients of zero that keep them out of all sums.
            let (mut logarithms, mut means) = ([0.0; PANEL], [0.0; PANEL]);
            logarithms[..count].copy_from_slice(&known.logarithms[first..first + count]);
            self.turn(result, count, 1.0, mixed);
            add_products(&mut means[..columns], &turned_g[..self.width * columns], mixed);
            for (first_key, keys) in self.blocks() {
                let (k, v) = (&known.k[first_key * row..], &known.v[first_key * row..]);
                let start = if first_key == 0 { Start::Zero } else { Start::Result };
                let span = first_key * row..(first_key + keys) * row;
                // SAFETY: the block's keys and values, their sums and the scores lie in their buffers.
                unsafe {
                    self.by_key(k, keys, turned_q, columns, shares);
                    self.by_key(v, keys, turned_g, columns, slopes);
                    let (shares, slopes) = (&mut shares[..keys * columns], &mut slopes[..keys * columns]);
                    dispatch(Slopes { shares, slopes, columns, logarithms: &logarithms, means: &means });
                    self.add_by_query(shares, (keys, count), rows_g, &mut v_sums[span.clone()]);
                    self.add_by_query(slopes, (keys, count), rows_q, &mut k_sums[span]);
                    self.by_channel(k, keys, slopes, columns, start, mixed);
                }
            }
            // SAFETY: the gradients of these queries are the caller's.
            unsafe { self.turn_back(mixed, count, &[self.scale(); PANEL], q_gradient.add(first * self.stride)) };
        });
    }

    /// Adds up parts of gradients of keys or values, [packed](Self::pack) ones, and writes them as tokens to `to`.
    ///
    /// # Safety
    /// `to` must hold the keys of the head, and nobody else may use them.
    pub(crate) unsafe fn unpack(self, parts: &mut [f32], to: Target) {
        let (total, others) = parts.split_at_mut(self.keys * self.row());
        for part in others.chunks_exact(total.len()) {
            add_to(total, part);
        }
        for (i, from) in total.chunks_exact(self.row()).enumerate() {
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.at(i * self.stride), self.width) };
        }
    }

    /// `scores[key][query] = sum over channels of k[key][channel] * turned[channel][query]`.
    ///
    /// # Safety
    /// The buffers must hold what the sizes say.
    unsafe fn by_key(self, k: &[f32], keys: usize, turned: &[f32], columns: usize, scores: &mut [f32]) {
        debug_assert!(turned.len() >= self.width * columns && scores.len() >= keys * columns);
        let product = Block {
            rows: keys,
            k: self.width,
            a: k.as_ptr(),
            a_row: self.row(),
            a_term: 1,
            b: turned.as_ptr(),
            b_term: columns,
            columns,
            real: columns,
            c: scores.as_mut_ptr(),
            c_row: columns,
            start: Start::Zero,
            bias: std::ptr::null(),
        };
        // SAFETY: the caller's.
        unsafe { product.compute() };
    }

    /// `mixed[channel][query] = start + sum over keys of v[key][channel] * shares[key][query]`.
    ///
    /// # Safety
    /// As [`by_key`](Self::by_key).
    unsafe fn by_channel(
        self,
        v: &[f32],
        keys: usize,
        shares: &[f32],
        columns: usize,
        start: Start,
        mixed: &mut [f32],
    ) {
        debug_assert!(mixed.len() >= self.width * columns && shares.len() >= keys * columns);
        let product = Block {
            rows: self.width,
            k: keys,
            a: v.as_ptr(),
            a_row: 1,
            a_term: self.row(),
            b: shares.as_ptr(),
            b_term: columns,
            columns,
            real: columns,
            c: mixed.as_mut_ptr(),
            c_row: columns,
            start,
            bias: std::ptr::null(),
        };
        // SAFETY: the caller's.
        unsafe { product.compute() };
    }

    /// `sums[key][channel] += sum over queries of weights[key][query] * rows[query][channel]`.
    ///
    /// # Safety
    /// As [`by_key`](Self::by_key).
    unsafe fn add_by_query(self, weights: &[f32], (keys, queries): (usize, usize), rows: &[f32], sums: &mut [f32]) {
        let (row, columns) = (self.row(), self.width.next_multiple_of(STEP));
        debug_assert!(rows.len() >= queries * row && sums.len() >= keys * row);
        let product = Block {
            rows: keys,
            k: queries,
            a: weights.as_ptr(),
            a_row: queries.next_multiple_of(STEP),
            a_term: 1,
            b: rows.as_ptr(),
            b_term: row,
            columns,
            real: columns,
            c: sums.as_mut_ptr(),
            c_row: row,
            start: Start::Result,
            bias: std::ptr::null(),
        };
        // SAFETY: the caller's.
        unsafe { product.compute() };
    }

    /// `to[channel][token] = factor * from[token][channel]`, with zeros for tokens beyond `count`.
    fn turn(self, from: &[f32], count: usize, factor: f32, to: &mut [f32]) {
        let columns = count.next_multiple_of(STEP);
        assert!(from.len() >= (count - 1) * self.stride + self.width && to.len() >= self.width * columns);
        let turn = Turn { rows: count, columns: self.width, from_row: self.stride, to_row: columns, filled: columns };
        // SAFETY: the tokens lie in `from`, the turned ones in `to`.
        unsafe { turn.compute(from.as_ptr(), to.as_mut_ptr(), |_| factor) };
    }

    /// `to[token][channel] = factors[token] * from[channel][token]`.
    ///
    /// # Safety
    /// `to` must hold the tokens, and nobody else may use them.
    unsafe fn turn_back(self, from: &[f32], count: usize, factors: &[f32], to: Target) {
        let columns = count.next_multiple_of(STEP);
        assert!(from.len() >= self.width * columns && factors.len() >= count);
        let turn =
            Turn { rows: self.width, columns: count, from_row: columns, to_row: self.stride, filled: self.width };
        // SAFETY: the turned tokens lie in `from`; those in `to` are the caller's.
        unsafe { turn.compute(from.as_ptr(), to.at(0), |token| factors[token]) };
    }
}

/// A transposition of a matrix: `to[j][i] = factor(j) * from[i][j]`.
struct Turn {
    /// Of `from`.
    rows: usize,
    columns: usize,
    from_row: usize,
    to_row: usize,
    /// Values that are written of each row of `to`; zeros beyond `rows`.
    filled: usize,
}

impl Turn {
    /// # Safety
    /// The addresses must be valid for what the fields say, and nobody else may use the result's.
    unsafe fn compute(&self, from: *const f32, to: *mut f32, factor: impl Fn(usize) -> f32) {
        for column in (0..self.columns).step_by(SQUARE) {
            let count = (self.columns - column).min(SQUARE);
            let mut factors = [0.0; SQUARE];
            for (i, to) in factors.iter_mut().enumerate().take(count) {
                *to = factor(column + i);
            }
            for row in (0..self.filled).step_by(SQUARE) {
                let rows = self.rows.saturating_sub(row).min(SQUARE);
                let filled = (self.filled - row).min(SQUARE);
                // SAFETY: the caller's; the square lies inside the matrices.
                unsafe {
                    let from = (from.add(row * self.from_row + column), self.from_row);
                    let to = (to.add(column * self.to_row + row), self.to_row);
                    match simd::isa() {
                        #[cfg(target_arch = "x86_64")]
                        simd::Isa::Avx512 => turn_square_avx512(from, to, (rows, count), filled, &factors),
                        _ => turn_square(from, to, (rows, count), filled, &factors),
                    }
                }
            }
        }
    }
}

/// The side of a square that is transposed at once.
const SQUARE: usize = 16;

/// Transposes a square of `rows` by `columns`; `filled` values of each row are written.
///
/// # Safety
/// As [`Turn::compute`].
unsafe fn turn_square(
    (from, from_row): (*const f32, usize),
    (to, to_row): (*mut f32, usize),
    (rows, columns): (usize, usize),
    filled: usize,
    factors: &[f32; SQUARE],
) {
    for j in 0..columns {
        for i in 0..filled {
            // SAFETY: the caller's.
            unsafe { *to.add(j * to_row + i) = if i < rows { factors[j] * *from.add(i * from_row + j) } else { 0.0 } };
        }
    }
}

/// [`turn_square`] in registers: blocks of 8, 4, 2 and 1 change places across the diagonal.
///
/// # Safety
/// As there, with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn turn_square_avx512(
    (from, from_row): (*const f32, usize),
    (to, to_row): (*mut f32, usize),
    (rows, columns): (usize, usize),
    filled: usize,
    factors: &[f32; SQUARE],
) {
    use std::arch::x86_64::*;

    let mask = |count: usize| ((1u32 << count) - 1) as __mmask16;
    let mut lines = [_mm512_setzero_ps(); SQUARE];
    for i in 0..SQUARE {
        if i < rows {
            // SAFETY: the caller's; beyond the columns nothing is read.
            lines[i] = unsafe { _mm512_maskz_loadu_ps(mask(columns), from.add(i * from_row)) };
        }
    }
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    macro_rules! exchange {
        ($($distance:literal)*) => {$({
            const D: usize = $distance;
            // Lane j of the upper line comes from itself, or from lane j - D of the lower; 16 selects the other source.
            let odd = _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(D as i32));
            let upper = _mm512_mask_add_epi32(lanes, odd, lanes, _mm512_set1_epi32(16 - D as i32));
            let lower = _mm512_mask_add_epi32(
                _mm512_add_epi32(lanes, _mm512_set1_epi32(D as i32)), odd, lanes, _mm512_set1_epi32(16));
            for i in 0..SQUARE {
                if i & D == 0 {
                    let (a, b) = (lines[i], lines[i + D]);
                    lines[i] = _mm512_permutex2var_ps(a, upper, b);
                    lines[i + D] = _mm512_permutex2var_ps(a, lower, b);
                }
            }
        })*};
    }
    exchange!(8 4 2 1);
    for j in 0..SQUARE {
        if j < columns {
            let line = _mm512_mul_ps(lines[j], _mm512_set1_ps(factors[j]));
            // SAFETY: the caller's; beyond `filled` nothing is written.
            unsafe { _mm512_mask_storeu_ps(to.add(j * to_row), mask(filled), line) };
        }
    }
}

/// Turns scores into shares: two to the power of their distance from the largest score of their column so far.
///
/// What a column's earlier shares came to, in `sums` and `mixed`, is brought to the same largest score.
struct Softmax<'a> {
    /// `[keys, columns]`.
    scores: &'a mut [f32],
    columns: usize,
    /// `[columns]` each.
    largest: &'a mut [f32],
    sums: &'a mut [f32],
    /// `[channels, columns]`; empty where there are no earlier shares.
    mixed: &'a mut [f32],
}

/// Columns that are processed at once.
const STRIP: usize = 16;

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        let columns = self.columns;
        let strips = self.largest.as_chunks_mut::<STRIP>().0.iter_mut().zip(self.sums.as_chunks_mut::<STRIP>().0);
        for (strip, (largest, sums)) in strips.enumerate().take(columns / STRIP) {
            let mut most = *largest;
            for scores in self.scores.as_chunks::<STRIP>().0[strip..].iter().step_by(columns / STRIP) {
                for i in 0..STRIP {
                    most[i] = if scores[i] > most[i] { scores[i] } else { most[i] };
                }
            }
            let mut factors = [0.0; STRIP];
            for i in 0..STRIP {
                factors[i] = exp2::<S>(largest[i] - most[i]);
            }
            let mut total = [0.0; STRIP];
            for i in 0..STRIP {
                total[i] = factors[i] * sums[i];
            }
            for scores in self.scores.as_chunks_mut::<STRIP>().0[strip..].iter_mut().step_by(columns / STRIP) {
                for i in 0..STRIP {
                    scores[i] = exp2::<S>(scores[i] - most[i]);
                }
                for i in 0..STRIP {
                    total[i] += scores[i];
                }
            }
            if most != *largest && !self.mixed.is_empty() {
                for mixed in self.mixed.as_chunks_mut::<STRIP>().0[strip..].iter_mut().step_by(columns / STRIP) {
                    for i in 0..STRIP {
                        mixed[i] *= factors[i];
                    }
                }
            }
            *largest = most;
            *sums = total;
        }
    }
}

/// From scores and the gradients of shares, the shares and the gradients of scores (but for the scores' scale).
struct Slopes<'a> {
    /// `[keys, columns]` each; scores and gradients of shares before.
    shares: &'a mut [f32],
    slopes: &'a mut [f32],
    columns: usize,
    /// `[columns]` each: what the shares' binary logarithms are less than the scores, and the mean gradient of shares.
    logarithms: &'a [f32],
    means: &'a [f32],
}

impl Kernel for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        let columns = self.columns;
        let rows = self.shares.chunks_exact_mut(columns).zip(self.slopes.chunks_exact_mut(columns));
        for (shares, slopes) in rows {
            let known = self.logarithms.as_chunks::<STRIP>().0.iter().zip(self.means.as_chunks::<STRIP>().0);
            let strips = shares.as_chunks_mut::<STRIP>().0.iter_mut().zip(slopes.as_chunks_mut::<STRIP>().0);
            for ((shares, slopes), (logarithms, means)) in strips.zip(known) {
                for i in 0..STRIP {
                    shares[i] = exp2::<S>(shares[i] - logarithms[i]);
                }
                for i in 0..STRIP {
                    slopes[i] = shares[i] * (slopes[i] - means[i]);
                }
            }
        }
    }
}

vectorised! {
    /// Adds the products of `a` and `b`, both with rows as long as `sums`, down their columns.
    fn add_products(sums: &mut [f32], a: &[f32], b: &[f32]) {
        for (a, b) in a.chunks_exact(sums.len()).zip(b.chunks_exact(sums.len())) {
            sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
        }
    }

    /// `to = factor * from`.
    fn copy_scaled(from: &[f32], factor: f32, to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from);
    }
}

/// `2^x` within two units in the last place for `x` in `[-125, 127]`; below, as for -125.
///
/// The polynomial has the least largest relative error, 8e-8, of those of its degree that are one at zero.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a coefficient of the fit, which is not quite the logarithm of two")]
fn exp2<S: Simd>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer that stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -125.0 { -125.0 } else { x };
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    let p = fused::<S>(1.326_472_7e-3, f, 9.671_513e-3);
    let p = fused::<S>(p, f, 5.550_733_6e-2);
    let p = fused::<S>(p, f, 0.240_222_42);
    let p = fused::<S>(p, f, 0.693_147);
    let p = fused::<S>(p, f, 1.0);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `a * b + c`, rounded once where that is one instruction.
#[inline(always)]
fn fused<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::LANES > 4 || cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

/// The part of a buffer that begins with a cache line; [`LINE`] less than the buffer at most.
fn aligned(buffer: &mut [f32]) -> &mut [f32] {
    let offset = buffer.as_ptr().align_offset(4 * LINE).min(buffer.len());
    &mut buffer[offset..]
}
