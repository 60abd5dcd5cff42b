//! Trainings that do not need one another, side by side.
//!
//! One training of a small classifier hardly keeps two cores busy: its steps are short, and every step waits for its
//! slowest part. So each training gets a share of the cores to itself, and as many run at once as there are shares. What
//! a training gives does not depend on its threads, so neither does the whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use evenset_core::Interrupted;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{PipelineError, Result};
use crate::run::{Context, read_json, write_json};
use crate::within::Within;

/// Trainings at once at most: each holds a copy of its images.
const MOST_AT_ONCE: usize = 8;

/// One training, kept in a file of its own, so that a killed stage loses those in flight at most.
pub(crate) struct Training<'a, T> {
    /// Where the result is kept.
    pub path: PathBuf,
    /// What it is, in words.
    pub note: String,
    /// Steps that it advances by.
    pub steps: u64,
    /// Gives the result.
    pub train: Box<dyn Fn(&Within<'_>) -> Result<T> + Send + Sync + 'a>,
}

impl<T: Serialize + DeserializeOwned> Training<'_, T> {
    /// The result that was stored, or is made and stored now.
    fn complete(&self, context: &Context<'_>) -> Result<T> {
        if let Some(stored) = read_json(&self.path)? {
            context.progress.advance(self.steps);
            return Ok(stored);
        }
        context.progress.check()?;
        context.progress.note(&self.note);
        let result = (self.train)(&Within(context.progress))?;
        write_json(&self.path, &result)?;
        Ok(result)
    }
}

/// The results, in the order of the trainings. The first training that fails ends those that have not begun.
///
/// # Errors
/// What a training gives; of several the first in their order.
pub(crate) fn complete_all<T>(trainings: &[Training<'_, T>], context: &Context<'_>) -> Result<Vec<T>>
where
    T: Serialize + DeserializeOwned + Send,
{
    let cores = rayon::current_num_threads();
    let at_once = cores.min(trainings.len()).clamp(1, MOST_AT_ONCE);
    let results: Vec<Mutex<Option<Result<T>>>> = trainings.iter().map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let (Some(training), Some(slot)) = (trainings.get(place), results.get(place)) else { return };
            let result = training.complete(context);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    let pool = || rayon::ThreadPoolBuilder::new().num_threads((cores / at_once).max(1)).build();
    let pools = (0..at_once).map(|_| pool()).collect::<std::result::Result<Vec<_>, _>>();
    let pools = pools.map_err(|source| PipelineError::Threads(source.to_string()))?;
    std::thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(|| pool.install(work));
        }
    });
    let mut done = Vec::with_capacity(results.len());
    for result in results {
        // Those that never began come after the one that failed.
        match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(result) => done.push(result?),
            None => return Err(Interrupted.into()),
        }
    }
    Ok(done)
}
