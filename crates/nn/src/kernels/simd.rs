//! One kernel, compiled for each instruction set and chosen when the program runs.
//!
//! A kernel is written once against [`Simd`], whose every function is inlined into a function that has the instruction
//! set switched on. Loops without explicit vectors inside a kernel are vectorised by the compiler for the same set.

use std::sync::OnceLock;

/// A vector of `f32`.
///
/// # Safety
/// The functions may only run where the processor has the instruction set; pointers must be valid for `LANES` values.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    /// `a * b + c`; rounded once where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// Vectors of sums that fit the registers in a tile of `vectors` beside one another: rows of the tile.
    fn tile_rows(vectors: usize) -> usize;
    /// The most vectors of a row of a tile.
    const TILE_VECTORS: usize;
}

/// Work that [`dispatch`] runs with the best instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;

    /// Runs with vectors `S` and register tiles of `M` rows by `N` vectors.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`.
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) -> Self::Output;
}

/// The most lanes of any instruction set: buffers are padded by multiples of it.
pub(crate) const MAX_LANES: usize = 16;

/// The most vectors in a row of a register tile.
pub(crate) const MAX_VECTORS: usize = 3;

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

/// The environment variable that holds kernels to an instruction set: `avx512` (without `bf16` products), `avx2` or
/// `portable`. For tests and comparisons; what the processor lacks is never used.
pub(crate) const ISA_VARIABLE: &str = "EVENSET_ISA";

/// What [`ISA_VARIABLE`] holds, or nothing.
fn asked() -> String {
    let asked = std::env::var(ISA_VARIABLE).unwrap_or_default();
    if !matches!(asked.as_str(), "" | "avx512" | "avx2" | "portable") {
        tracing::warn!("{ISA_VARIABLE}={asked} is none of avx512, avx2 and portable: it has no effect");
        return String::new();
    }
    asked
}

/// The best instruction set of this processor, or the one that [`ISA_VARIABLE`] holds it to.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let asked = asked();
        #[cfg(target_arch = "x86_64")]
        {
            if !matches!(asked.as_str(), "avx2" | "portable")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                return Isa::Avx512;
            }
            if asked != "portable" && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if asked != "portable" && std::arch::is_aarch64_feature_detected!("neon") {
            return Isa::Neon;
        }
        Isa::Portable
    })
}

/// Whether the processor multiplies `bf16` values, and may.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bf16() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| isa() == Isa::Avx512 && asked().is_empty() && is_x86_feature_detected!("avx512bf16"))
}

/// Rows of the register tiles that [`dispatch`] will choose.
pub(crate) fn tile_rows() -> usize {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => 8,
        _ => 4,
    }
}

/// Runs `kernel` with the best instruction set of this processor.
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: each arm runs only where `isa` found its instruction set.
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { run_neon(kernel) },
        Isa::Portable => unsafe { kernel.run::<Portable, 4, 3>() },
    }
}

/// The same work for every one of `width` numbers that lie side by side: on vectors, and what is left over one by one.
/// Both functions must be `#[inline(always)]`.
pub(crate) trait Lanewise {
    fn width(&self) -> usize;

    /// Does the work for `S::LANES` numbers from `first` on.
    ///
    /// # Safety
    /// The processor must have the instruction set of `S`; they are among the `width` numbers.
    unsafe fn lanes<S: Simd>(&self, first: usize);
}

/// Runs `work` with the best instruction set of this processor.
///
/// # Safety
/// What [`Lanewise::lanes`] does with its addresses must be allowed for all of its numbers.
pub(crate) unsafe fn dispatch_lanes(work: impl Lanewise) {
    struct All<T>(T);

    impl<T: Lanewise> Kernel for All<T> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
            let width = self.0.width();
            let whole = width / S::LANES * S::LANES;
            // SAFETY: the caller's.
            unsafe {
                for first in (0..whole).step_by(S::LANES) {
                    self.0.lanes::<S>(first);
                }
                for first in whole..width {
                    self.0.lanes::<One>(first);
                }
            }
        }
    }

    dispatch(All(work));
}

/// Defines functions that are compiled for every instruction set and run the best: the compiler vectorises their loops.
///
/// What they call must be `#[inline(always)]` to be compiled along with them.
macro_rules! vectorised {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {$(
        $(#[$doc])*
        $vis fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $output)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? {
                plain($($argument),*)
            }

            // On ARM `neon` is on everywhere: the plain function has it.
            match $crate::kernels::simd::isa() {
                // SAFETY: `isa` found the instruction set.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Isa::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Isa::Avx2 => unsafe { avx2($($argument),*) },
                _ => plain($($argument),*),
            }
        }
    )*};
}

pub(crate) use vectorised;

/// Runs `kernel` with AVX-512.
///
/// # Safety
/// The processor must have it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
pub(crate) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller checked the instruction set.
    unsafe { kernel.run::<Avx512, 8, 3>() }
}

/// Runs `kernel` with AVX2.
///
/// # Safety
/// The processor must have it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller checked the instruction set.
    unsafe { kernel.run::<Avx2, 4, 3>() }
}

/// Runs `kernel` with NEON.
///
/// # Safety
/// The processor must have it.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller checked the instruction set.
    unsafe { kernel.run::<Neon, 4, 3>() }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    macro_rules! vectors {
        ($name:ident, $v:ty, $lanes:literal, $vectors:literal, $registers:literal,
         $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name;

            // SAFETY (all): the trait's contract is the intrinsics' own.
            impl Simd for $name {
                type V = $v;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(x: f32) -> $v {
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> $v {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(to: *mut f32, x: $v) {
                    unsafe { $store(to, x) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn sub(a: $v, b: $v) -> $v {
                    unsafe { $sub(a, b) }
                }
                #[inline(always)]
                unsafe fn mul(a: $v, b: $v) -> $v {
                    unsafe { $mul(a, b) }
                }
                const TILE_VECTORS: usize = $vectors;
                #[inline(always)]
                fn tile_rows(vectors: usize) -> usize {
                    ($registers / vectors).min(12)
                }
            }
        };
    }

    vectors!(
        Avx512,
        __m512,
        16,
        4,
        24,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps
    );
    vectors!(
        Avx2,
        __m256,
        8,
        2,
        12,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Simd;

    #[derive(Clone, Copy)]
    pub(crate) struct Neon;

    // SAFETY (all): the trait's contract is the intrinsics' own.
    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, x: float32x4_t) {
            unsafe { vst1q_f32(to, x) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmulq_f32(a, b) }
        }
        const TILE_VECTORS: usize = 4;
        #[inline(always)]
        fn tile_rows(vectors: usize) -> usize {
            (24 / vectors).min(12)
        }
    }
}

/// Four lanes that every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

// SAFETY (all): plain reads and writes of four values.
impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; 4]) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], mut c: [f32; 4]) -> [f32; 4] {
        for i in 0..4 {
            // Not `mul_add`: a library call where the processor has no such instruction.
            c[i] += a[i] * b[i];
        }
        c
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    const TILE_VECTORS: usize = 2;
    #[inline(always)]
    fn tile_rows(vectors: usize) -> usize {
        12 / vectors
    }
}

/// One lane: what is left over where vectors do not divide a row.
#[derive(Clone, Copy)]
pub(crate) struct One;

// SAFETY (all): plain reads and writes of one value.
impl Simd for One {
    type V = f32;
    const LANES: usize = 1;
    #[inline(always)]
    unsafe fn splat(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> f32 {
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: f32) {
        unsafe { *to = x };
    }
    #[inline(always)]
    unsafe fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    unsafe fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    unsafe fn sub(a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    unsafe fn mul(a: f32, b: f32) -> f32 {
        a * b
    }
    const TILE_VECTORS: usize = 1;
    #[inline(always)]
    fn tile_rows(_vectors: usize) -> usize {
        4
    }
}
