//! Kernels on slices of `f32`, no tensors.
//!
//! `gemm` and what rests on it (`rows`, `slab`, `winograd`, `flash`) is for the networks of [`models`](crate::models), whose
//! channels lie last. `conv` and `product` compute one image at a time, channels first: the classifier's layers are so
//! small that a whole image stays in the nearest cache.

// Register tiles are loops over constant ranges that index several arrays at once.
#![allow(clippy::needless_range_loop)]

pub(crate) mod activate;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod conv;
pub(crate) mod flash;
pub(crate) mod gelu;
pub(crate) mod gemm;
pub(crate) mod last_norm;
pub(crate) mod masked;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod pack;
pub(crate) mod pixels;
pub(crate) mod product;
pub(crate) mod rows;
pub(crate) mod scratch;
pub(crate) mod simd;
pub(crate) mod slab;
pub(crate) mod target;
pub(crate) mod winograd;
