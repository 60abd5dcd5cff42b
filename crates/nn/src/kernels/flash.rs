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
use super::norm::add_to;
use super::scratch::with_scratch;
use super::simd::{Kernel, Simd, dispatch};

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

/// Where a task writes; its rows are its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: every task writes rows of its own, as the users of the address promise.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The address must lie inside the same memory.
    pub(crate) unsafe fn add(self, offset: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { self.0.add(offset) })
    }
}

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
            to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from);
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
        out: Shared,
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
        q_gradient: Shared,
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
            for ((mean, gradient), result) in
                means.iter_mut().zip(gradient.chunks(self.stride)).zip(result.chunks(self.stride)).take(count)
            {
                *mean = gradient.iter().zip(result).take(self.width).map(|(a, b)| a * b).sum();
            }
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
    pub(crate) unsafe fn unpack(self, parts: &mut [f32], to: Shared) {
        let (total, others) = parts.split_at_mut(self.keys * self.row());
        for part in others.chunks_exact(total.len()) {
            add_to(total, part);
        }
        for (i, from) in total.chunks_exact(self.row()).enumerate() {
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.0.add(i * self.stride), self.width) };
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
        for (channel, to) in to.chunks_exact_mut(columns).take(self.width).enumerate() {
            for (i, to) in to.iter_mut().enumerate() {
                *to = if i < count { factor * from[i * self.stride + channel] } else { 0.0 };
            }
        }
    }

    /// `to[token][channel] = factors[token] * from[channel][token]`.
    ///
    /// # Safety
    /// `to` must hold the tokens, and nobody else may use them.
    unsafe fn turn_back(self, from: &[f32], count: usize, factors: &[f32], to: Shared) {
        let columns = count.next_multiple_of(STEP);
        for (i, factor) in factors.iter().enumerate().take(count) {
            for channel in 0..self.width {
                // SAFETY: the caller's.
                unsafe { *to.0.add(i * self.stride + channel) = factor * from[channel * columns + i] };
            }
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

/// `2^x` within two units in the last place for `x` in `[-125, 127]`; below, as for -125.
///
/// The polynomial has the least largest relative error, 8e-8, of those of its degree that are one at zero.
#[inline(always)]
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
