//! Threads of candle's that get in the way of this crate's.

/// Keeps candle's worker threads from spinning after each of its operations.
///
/// candle's own elementwise operations run on threads that wait for more work in a busy loop, about a millisecond each
/// time: on a machine with few cores that is time taken from the kernels of this crate (a fifth of a training step on
/// two cores, more where others use the machine too). A value that the user has set in the environment is kept.
///
/// # Safety
/// It sets an environment variable: call it first thing in `main`, before any other thread exists and before any tensor
/// does.
pub unsafe fn stop_idle_spinning() {
    const LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";
    if std::env::var_os(LIMIT).is_none() {
        // SAFETY: the caller's: no other thread can be reading the environment.
        unsafe { std::env::set_var(LIMIT, "0") };
    }
}
