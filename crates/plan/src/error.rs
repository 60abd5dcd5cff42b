//! What can go wrong while planning.

use evenset_core::Group;

/// Why a plan or its requests cannot be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    /// There are no groups to plan for.
    #[error(
        "there are no groups to plan for; check that the dataset has rows and that the plan's attributes are columns"
    )]
    NoGroups,
    /// The groups do not all have the same attributes, or one group is listed twice.
    #[error(
        "the counts do not fit together at group `{0}`: list every group once, with the same attributes in the same order"
    )]
    Inconsistent(Group),
    /// The target names an attribute that the groups do not have.
    #[error("the target names `{name}`, but groups are made of {}", list(.known))]
    UnknownAttribute {
        /// The name as the target gives it.
        name: String,
        /// The attributes of the groups.
        known: Vec<String>,
    },
    /// An attribute stands twice in a target.
    #[error("the target names `{0}` twice; `of` and `within` must be different attributes, each named once")]
    Repeated(String),
    /// A key of the target or of the limits has a value that makes no sense.
    #[error("`{key}` is {found}; it must be {expected}")]
    Value {
        /// The key in the job file, below `plan`.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A reference distribution and the dataset do not have the same values.
    #[error("`{attribute}={value}` {problem}")]
    Share {
        /// The attribute of the reference distribution.
        attribute: String,
        /// The value that does not fit.
        value: String,
        /// What is wrong and what to do about it.
        problem: String,
    },
    /// Two targets, or all of them together, cannot be met at once whatever is spent.
    #[error("{first} and {second} contradict each other: {why}")]
    Contradiction {
        /// One of the targets: its place in the list, its type and what it is about.
        first: String,
        /// The other one, or all the others.
        second: String,
        /// Where they part, and what to do about it.
        why: String,
    },
    /// Counts or sums are larger than can be planned with.
    #[error("the counts are too large to plan with (above {limit} images)")]
    Overflow {
        /// The largest number of images.
        limit: u64,
    },
    /// One round would ask for more images than can be held as requests.
    #[error("a round would ask for {asked} images, and the most is {limit}; set `limits.images`")]
    TooManyRequests {
        /// How many images the round would ask for.
        asked: u128,
        /// The most a round may ask for.
        limit: u64,
    },
    /// A prompt names an attribute that the group has no value for.
    #[error("group `{group}` has no value for `{attribute}`, which its prompt names; such groups cannot be generated")]
    Unprompted {
        /// The group.
        group: Group,
        /// The attribute.
        attribute: String,
    },
    /// The acceptance of a group does not hold together.
    #[error(
        "group `{group}` has {accepted} accepted of {requested} requested images; accepted images are among the requested ones"
    )]
    Acceptance {
        /// The group.
        group: Group,
        /// Accepted so far.
        accepted: u64,
        /// Requested so far.
        requested: u64,
    },
}

pub(crate) fn list(names: &[String]) -> String {
    match names {
        [] => "no attributes".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}
