//! What the tests of operations share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use candle_core::{DType, Device, Result, Tensor};
use evenset_core::Seed;
use rand::RngExt;

pub const CPU: &Device = &Device::Cpu;

pub fn random(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, CPU).unwrap()
}

pub fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn bytes(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

/// Every element within `tolerance (1 + |expected|)`.
pub fn assert_close(name: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    for (i, (found, expected)) in values(found).iter().zip(values(expected)).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= tolerance * (1.0 + expected.abs()), "{name}, element {i}: {found} {expected}");
    }
}

/// `|found - expected| / |expected|` in the L2 norm; zero where both are zero.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let norm = |x: &Tensor| {
        x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    };
    norm(&found.sub(expected).unwrap()) / norm(expected).max(f64::MIN_POSITIVE)
}

/// The same values three times over in memory that is not contiguous.
pub fn strided(x: &Tensor) -> Vec<Tensor> {
    let last = x.rank() - 1;
    let transposed = x.transpose(0, last).unwrap().contiguous().unwrap().transpose(0, last).unwrap();
    let narrowed = Tensor::cat(&[x, x, x], last).unwrap().narrow(last, x.dims()[last], x.dims()[last]).unwrap();
    vec![x.clone(), transposed, narrowed]
}

pub fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Fails unless an image's result has the same bytes alone and with the others, and everything the same bytes with one
/// thread and two.
pub fn assert_independent(name: &str, x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor> + Sync) {
    let together = with_threads(1, || f(x).unwrap());
    assert_eq!(bytes(&together), bytes(&with_threads(2, || f(x).unwrap())), "{name}: threads");
    for i in 0..x.dims()[0] {
        let alone = f(&x.narrow(0, i, 1).unwrap()).unwrap();
        assert_eq!(bytes(&alone), bytes(&together.narrow(0, i, 1).unwrap()), "{name}: image {i} alone");
    }
}

/// The numbers of a test over random shapes: the same at every run.
pub struct Shapes(Box<dyn FnMut() -> u32>);

impl Shapes {
    pub fn new(seed: u64) -> Self {
        let mut numbers = Seed(seed).rng();
        Self(Box::new(move || numbers.random()))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0)() as usize % n
    }
}
