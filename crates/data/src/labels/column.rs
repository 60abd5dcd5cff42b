//! A column of labels as groups are counted from it: a dictionary and one code a row.

/// The values of one attribute over some rows. Rows are codes into `values`, so whatever is done to a value (a bin, a
/// filter, a count) is done once for each distinct value and not once a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelColumn {
    /// The distinct values; `None` stands for a missing one. A value may stand here that no row has.
    pub values: Vec<Option<String>>,
    /// One code a row; every code is a place in `values`.
    pub codes: Vec<u32>,
}

impl LabelColumn {
    /// The column of these rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut column = Self::default();
        let mut places = std::collections::HashMap::new();
        for row in rows {
            let next = places.len() as u32;
            let code = *places.entry(row).or_insert_with(|| {
                column.values.push(row.map(str::to_owned));
                next
            });
            column.codes.push(code);
        }
        column
    }
}
