//! Layers: weights from a [`Scope`](crate::Scope) and a `forward` pass, with the names that diffusers gives them.

mod basic;
mod time;

pub use basic::{Embedding, Linear};
pub use time::TimestepEmbedding;
