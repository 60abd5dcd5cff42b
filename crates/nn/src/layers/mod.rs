//! Layers: weights from a [`Scope`](crate::Scope) and a `forward` pass, with the names that diffusers gives them.

mod attention;
mod basic;
mod resnet;
mod sampling;
mod time;

pub use attention::Attention;
pub use basic::{Conv2d, Embedding, GroupNorm, Linear};
pub use resnet::ResnetBlock;
pub use sampling::{Downsample, Upsample};
pub use time::TimestepEmbedding;
