//! Keeping a damaged file from taking the process down.
//!
//! The Parquet library and the image decoders check much of what a file says, but not all: some contradictions in a
//! damaged file end in a panic inside them. Here such a panic becomes the error that it should have been. Nothing of
//! the reader is used after it, so no half-changed state can be seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::DataError;

/// Runs `read`; a panic in it becomes [`DataError::Parquet`] for `path`.
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    without_panic(read).unwrap_or_else(|problem| Err(DataError::Parquet { path: path.to_path_buf(), problem }))
}

/// Runs `read`; a panic in it becomes a text that says so.
pub(crate) fn without_panic<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("its parts contradict each other ({})", said.unwrap_or("no reason given"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_reader_becomes_an_error_that_names_the_file() {
        let error = guarded::<()>(Path::new("a.parquet"), || panic!("index {} out of range", 7)).unwrap_err();
        assert!(error.to_string().starts_with("a.parquet: not a readable Parquet file"), "{error}");
        assert!(error.to_string().contains("index 7 out of range"), "{error}");
    }
}
