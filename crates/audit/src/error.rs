//! What can go wrong while counting and auditing.

/// Why rows cannot be counted or a grouping cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuditError {
    /// An attribute is named twice, in a cube or in one grouping.
    #[error("attribute `{0}` is named twice; name each attribute once")]
    Repeated(String),
    /// A grouping names an attribute that was not counted.
    #[error("`{name}` is not an attribute of this dataset; it has {}", list(.known))]
    UnknownAttribute {
        /// The name as the grouping gives it.
        name: String,
        /// The attributes that were counted.
        known: Vec<String>,
    },
    /// A key of the job has a value that makes no sense.
    #[error("`{key}` is {found}; it must be {expected}")]
    Value {
        /// The key in the job file.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A row has more or fewer values than the cube has attributes.
    #[error("a row has {found} values where {} were expected; give one value, or none, for each attribute", .attributes.len())]
    WrongWidth {
        /// How many values the row has.
        found: usize,
        /// The cube's attributes.
        attributes: Vec<String>,
    },
    /// Two cubes that count different attributes cannot be merged.
    #[error("counts of {} cannot be added to counts of {}; scan both parts with the same attributes", list(.found), list(.expected))]
    DifferentAttributes {
        /// The attributes of the cube that is added to.
        expected: Vec<String>,
        /// The attributes of the cube that is added.
        found: Vec<String>,
    },
    /// The cross product of the observed values is too large to list.
    #[error(
        "grouping by {} makes more than {limit} groups ({}); put numbers and free text into bins (`derive` with `bins` \
         or `map`), or leave an attribute out of the grouping",
        list(.attributes), sizes(.attributes, .values)
    )]
    TooManyGroups {
        /// The attributes of the grouping.
        attributes: Vec<String>,
        /// How many values each of them has.
        values: Vec<usize>,
        /// The largest number of groups that is listed.
        limit: u64,
    },
    /// An attribute has so many values that it cannot be one.
    #[error(
        "`{attribute}` has more than {limit} different values, which are not groups; put them into bins (`derive` with \
         `bins`, `quantiles`, `map` or `regex`), or leave the column out"
    )]
    TooManyValues {
        /// The attribute.
        attribute: String,
        /// The most values that an attribute may have.
        limit: usize,
    },
    /// The rows have more different combinations of values than are held.
    #[error(
        "the rows have more than {limit} different combinations of values; audit fewer attributes at once, or put \
         values into bins (`derive`)"
    )]
    TooManyCombinations {
        /// The most combinations that are held.
        limit: usize,
    },
    /// The attributes have more values together than a combination can express.
    #[error(
        "{attributes} attributes with so many values are too many at once; audit fewer, or put values into bins (`derive`)"
    )]
    TooManyAttributes {
        /// How many attributes there are.
        attributes: usize,
    },
    /// Columns that are to be counted together have different lengths, or codes without a value.
    #[error("the columns do not fit together: each needs one code a row, and a value for each code")]
    Ragged,
    /// More rows than can be counted.
    #[error("too many {0} to count (2^64 and more); split the dataset, or scale its counts down")]
    Overflow(&'static str),
    /// The data has values that the reference does not know.
    #[error(
        "the reference gives no share to {unknown} of `{attribute}`; it knows {known}. Rename the values with `derive` and \
         `map`, leave them out with `where`, or give them a share (0 if there should be none)"
    )]
    Reference {
        /// The attribute.
        attribute: String,
        /// The data's values without a share.
        unknown: String,
        /// The values that have one.
        known: String,
    },
    /// Two datasets have no attribute in common.
    #[error(
        "the two have no attribute in common: one has {a}, the other {b}; name the attributes with `--by`, or rename columns with `derive`"
    )]
    NothingShared {
        /// The first one's attributes.
        a: String,
        /// The second one's.
        b: String,
    },
    /// There is nothing to audit.
    #[error("no row was counted, so there is nothing to audit; check the dataset's path, split and `where`")]
    Empty,
    /// A stored cube does not hold together.
    #[error("the stored counts are damaged ({0}); remove the stage's folder and run it again")]
    Damaged(String),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "no attributes".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

fn sizes(attributes: &[String], values: &[usize]) -> String {
    let each = attributes.iter().zip(values).map(|(attribute, n)| format!("{n} of `{attribute}`"));
    each.collect::<Vec<_>>().join(" x ")
}
