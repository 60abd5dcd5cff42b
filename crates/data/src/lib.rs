//! Reading and writing labelled image datasets.
//!
//! [`Dataset::open`] lists what a path holds (Parquet in the Hugging Face layout, or a folder of images) and cuts it
//! into [`Unit`]s: small, immutable, named by their content. [`Dataset::read`] turns one unit into a [`Table`]; the image
//! files in it stay as they are, and [`decode`] turns one of them into pixels. [`ParquetWriter`] and
//! [`WebDatasetWriter`] write rows back, byte for byte the same for the same rows. [`atomic`] is how every file of a run
//! reaches the disk.

pub mod atomic;
mod columns;
mod dataset;
mod decode;
mod encode;
mod error;
mod features;
mod files;
mod folder_source;
mod guard;
mod header;
mod images;
mod jpeg;
mod json;
mod labels;
mod layout;
mod metadata;
mod parquet_footer;
mod parquet_layout;
mod parquet_source;
mod pictures;
mod resize;
mod rows;
mod style;
mod table;
mod unit;
mod values;
mod writer;

pub use atomic::{sha256_bytes, sha256_file};
pub use dataset::{Dataset, DatasetSpec, Kind};
pub use decode::{Image, Limits, Mode, decode};
pub use encode::{encode_png, png_text};
pub use error::{DataError, DecodeError};
pub use evenset_core::nearest;
pub use features::{Feature, Features};
pub use header::{Format, Header, header};
pub use labels::{
    Derive, Filter, FilterError, Guess, LabelColumn, LabelInfo, LabelKind, LabelSpec, LabelTable, ResolvedView, Scalar,
    Scalars, View,
};
pub use resize::{cover, fit, resize};
pub use rows::{read_parquet, write_parquet};
pub use style::{FileStyle, Styled};
pub use table::Table;
pub use unit::{Source, Unit};
pub use writer::{DatasetWriter, ParquetOptions, ParquetWriter, ShardInfo, WebDatasetOptions, WebDatasetWriter};
