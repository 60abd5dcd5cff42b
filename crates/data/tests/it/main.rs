//! The data room from outside: real files in temporary folders.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod decoding;
mod folders;
mod parquet;
mod pictures;
mod support;
mod webdataset;
