//! The formulas of the audit, on plain counts: each with its range, what it gives where nothing was counted, and its
//! source. Counts may be as large as they like; no result is NaN or infinite. What is drawn at random comes from a seed
//! and is the same on every machine, whatever the number of threads.

mod association;
mod contingency;
mod distances;
mod evenness;
mod g_test;
mod intervals;
mod multiplicity;
mod parity;
mod random_tables;
mod rank;
mod simpson;
mod vendi;

pub use evenset_core::Z95;

pub use association::{Cell, Direction, MutualInformation, cells, cramers_v, mutual_information};
pub use distances::{
    Distance, Distances, RESAMPLES, distances_between, distances_to, jensen_shannon, kullback_leibler,
    total_variation_between,
};
pub use evenness::{effective_groups, entropy, largest_to_smallest, normalised_entropy, shares, total_variation};
pub use g_test::{Method, SMALLEST_EXPECTED, Test, fisher_exact, g_test};
pub use intervals::{goodman, newcombe, wilson};
pub use multiplicity::benjamini_hochberg;
pub use parity::{Parity, demographic_parity};
pub use random_tables::RANDOM_TABLES;
pub use rank::{Auc, auc, auc_of_ranks, hanley_mcneil_variance, mid_ranks, quantile};
pub use simpson::{MantelHaenszel, Reversal, SIGNIFICANT, mantel_haenszel, reversals};
pub use vendi::{vendi_of_embeddings, vendi_score};
