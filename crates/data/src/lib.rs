//! Reading and writing labelled image datasets.
