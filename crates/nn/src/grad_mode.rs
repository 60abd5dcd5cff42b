//! Inference without a graph.
//!
//! candle records every operation that a variable reaches, and with it every intermediate result. Layers of this crate
//! ask here whether to hand out their variables or values without a gradient.

use std::cell::Cell;

use candle_core::Tensor;

thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` without recording anything for a backward pass: the layers' weights count as constants.
///
/// Sampling and evaluation belong in here: intermediate results are freed as soon as they are used.
/// The setting belongs to the calling thread and is restored when `f` returns or panics. Kernels wait for one another in
/// rayon, where a waiting thread may take up another task: do not run some networks with and some without gradients in
/// tasks of one rayon pool.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ENABLED.set(self.0);
        }
    }
    let _restore = Restore(ENABLED.replace(false));
    f()
}

/// A layer's weight as its forward pass may use it.
pub(crate) fn used(weight: &Tensor) -> Tensor {
    if ENABLED.get() { weight.clone() } else { weight.detach() }
}
