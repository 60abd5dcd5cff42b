//! The conditional model: a small diffusion model of the dataset's own images, conditioned on their attributes.
//!
//! Each attribute has an embedding of its own, the embeddings are added, and in training each is dropped now and then
//! (Ho and Salimans 2022). So the model learns what `garment=coat` and what `colour=blue` mean apart from one another,
//! can compose the two where the dataset hardly has blue coats, and can be guided towards them. Batches are balanced by
//! group, so that a small group is not drowned out.

mod batches;
mod checkpoint;
mod config;
mod files;
mod generate;
mod loss_curve;
mod model;
mod network;
mod set;
mod train;

pub use config::{ConditionalConfig, Size};
pub use generate::{Guide, ImageRequest, Inversion};
pub use model::ConditionalModel;
pub use set::{AttributeVocabulary, TrainingSet};
pub use train::train;

#[cfg(test)]
mod tests;
