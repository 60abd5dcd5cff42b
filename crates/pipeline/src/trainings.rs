//! Trainings that do not need one another, side by side.
//!
//! One training of a small classifier hardly keeps two cores busy: its steps are short, and every step waits for its
//! slowest part. So each training gets a share of the cores to itself, and as many run at once as there are shares. What
//! a training gives does not depend on its threads, so neither does the whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use evenset_core::{Interrupted, Progress};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{PipelineError, Result};
use crate::run::{read_json, write_json};
use crate::within::Within;

/// Trainings at once at most: each holds a copy of its images.
const MOST_AT_ONCE: usize = 8;

/// Gives the result of a training.
type Train<'a, T> = Box<dyn Fn(&Within<'_>) -> Result<T> + Send + Sync + 'a>;

/// One training, kept in a file of its own, so that a killed stage loses those in flight at most.
pub(crate) struct Training<'a, T> {
    /// Where the result is kept.
    pub path: PathBuf,
    /// What it is, in words.
    pub note: String,
    /// Steps that it advances by.
    pub steps: u64,
    /// Gives the result.
    pub train: Train<'a, T>,
}

impl<T: Serialize + DeserializeOwned> Training<'_, T> {
    /// The result that was stored, or is made and stored now.
    fn complete(&self, progress: &dyn Progress) -> Result<T> {
        if let Some(stored) = read_json(&self.path)? {
            progress.advance(self.steps);
            return Ok(stored);
        }
        progress.check()?;
        progress.note(&self.note);
        let result = (self.train)(&Within(progress))?;
        write_json(&self.path, &result)?;
        Ok(result)
    }
}

/// The results, in the order of the trainings. The first training that fails ends those that have not begun.
///
/// # Errors
/// What a training gives; of several the first in their order.
pub(crate) fn complete_all<T>(trainings: &[Training<'_, T>], progress: &dyn Progress) -> Result<Vec<T>>
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
            let result = training.complete(progress);
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use evenset_core::Silent;

    use super::*;

    /// A training that gives its number, or fails where it is told to; the first take longest.
    fn training<'a>(folder: &Path, number: u64, fails: &'a [u64], done: &'a AtomicUsize) -> Training<'a, u64> {
        Training {
            path: folder.join(format!("{number}.json")),
            note: String::new(),
            steps: 1,
            train: Box::new(move |_| {
                std::thread::sleep(Duration::from_millis(20u64.saturating_sub(4 * number)));
                done.fetch_add(1, Ordering::Relaxed);
                let damaged = PipelineError::damaged(Path::new("training"));
                if fails.contains(&number) { Err(damaged(number)) } else { Ok(number) }
            }),
        }
    }

    fn all<'a>(folder: &Path, fails: &'a [u64], done: &'a AtomicUsize) -> Vec<Training<'a, u64>> {
        (0..12).map(|number| training(folder, number, fails, done)).collect()
    }

    fn on_four_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap().install(work)
    }

    #[test]
    fn results_keep_the_order_of_the_trainings_and_stored_ones_are_taken_as_they_are() {
        let (folder, done) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
        std::fs::write(folder.path().join("3.json"), "33").unwrap();
        let run = || on_four_threads(|| complete_all(&all(folder.path(), &[], &done), &Silent).unwrap());
        let expected = [0, 1, 2, 33, 4, 5, 6, 7, 8, 9, 10, 11];
        assert_eq!((run(), done.load(Ordering::Relaxed)), (expected.to_vec(), 11));
        assert_eq!((run(), done.load(Ordering::Relaxed)), (expected.to_vec(), 11), "all of them are stored");
        assert!(complete_all::<u64>(&[], &Silent).unwrap().is_empty());
    }

    #[test]
    fn the_first_failure_in_their_order_is_told_and_the_others_are_not_begun() {
        let (folder, done) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
        let run = on_four_threads(|| complete_all(&all(folder.path(), &[1, 2], &done), &Silent));
        assert!(run.unwrap_err().to_string().contains("damaged (1)"));
        assert!(done.load(Ordering::Relaxed) < 12 && folder.path().join("0.json").is_file());
    }
}
