//! The cube: how many rows have each combination of attribute values.
//!
//! Codes are given in the order values are seen; nothing that leaves the cube depends on that order, so parts may be
//! counted anywhere and merged in any order.

mod cells;
mod dictionary;

use std::sync::OnceLock;

use evenset_core::Group;
use evenset_data::LabelColumn;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use cells::{Cells, Layout};
use dictionary::Dictionary;

pub use dictionary::MAX_VALUES;

/// Combinations whose groups are computed together.
const BLOCK: usize = 2048;

/// The largest number of groups one grouping may have.
pub const MAX_GROUPS: u64 = 1_000_000;

/// Counts of rows by the values of a fixed list of attributes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Cube {
    attributes: Vec<String>,
    dictionaries: Vec<Dictionary>,
    layout: Layout,
    cells: Cells,
    rows: u64,
    /// The cells as columns, made when they are first asked for: roll-ups read nothing else.
    columns: OnceLock<Columns>,
}

/// The combinations that occur, in no order.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// For each attribute and combination, the place of the value in the attribute's listing.
    pub places: Vec<Vec<u32>>,
    /// The rows of each combination.
    pub counts: Vec<u64>,
}

/// The counts of a grouping without the names: one count for each combination of values in their listed order, the
/// last attribute fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many values each attribute has.
    pub sizes: Vec<usize>,
    /// Row-major counts.
    pub counts: Vec<u64>,
}

impl Cube {
    /// An empty cube over `attributes`.
    ///
    /// # Errors
    /// [`AuditError::Repeated`] where an attribute is named twice.
    pub fn new(attributes: Vec<String>) -> Result<Self, AuditError> {
        refuse_repeats(&attributes)?;
        let dictionaries = vec![Dictionary::default(); attributes.len()];
        let layout = layout(&dictionaries)?;
        let cells = Cells::new(&layout);
        Ok(Self { attributes, dictionaries, layout, cells, rows: 0, columns: OnceLock::new() })
    }

    /// Makes a value known that no row may have, so that its groups are listed as empty ones.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`], [`AuditError::TooManyValues`].
    pub fn declare(&mut self, attribute: &str, value: &str) -> Result<(), AuditError> {
        let place = self.place(attribute)?;
        self.dictionaries[place].code(attribute, value)?;
        self.fit()
    }

    /// Counts one row: a value for each attribute in order, `None` where the row has none.
    ///
    /// # Errors
    /// [`AuditError::WrongWidth`] where the row has not one entry for each attribute; [`AuditError::TooManyValues`],
    /// [`AuditError::TooManyCombinations`] and [`AuditError::Overflow`] where there is more than can be counted.
    pub fn add(&mut self, values: &[Option<&str>]) -> Result<(), AuditError> {
        let columns: Vec<LabelColumn> = values.iter().map(|value| LabelColumn::of([*value])).collect();
        self.add_columns(&columns, None)
    }

    /// Counts rows: a column for each attribute in order. With `weights` each row counts so many times.
    ///
    /// # Errors
    /// As [`add`](Self::add); [`AuditError::Ragged`] where the columns, or the weights, are not of one length.
    pub fn add_columns(&mut self, columns: &[LabelColumn], weights: Option<&[u64]>) -> Result<(), AuditError> {
        if columns.len() != self.attributes.len() {
            return Err(AuditError::WrongWidth { found: columns.len(), attributes: self.attributes.clone() });
        }
        let rows = columns.first().map_or(0, |column| column.codes.len());
        let whole = |column: &LabelColumn| {
            // A fold and not `max()`: the compiler makes vector instructions of it.
            let highest = column.codes.iter().fold(0, |highest, &code| highest.max(code)) as usize;
            column.codes.len() == rows && (rows == 0 || highest < column.values.len())
        };
        if !columns.iter().all(whole) || weights.is_some_and(|weights| weights.len() != rows) {
            return Err(AuditError::Ragged);
        }
        let counted = match weights {
            None => Some(rows as u64),
            Some(weights) => weights.iter().try_fold(0u64, |sum, &weight| sum.checked_add(weight)),
        };
        // No cell can overflow where the sum of all cells does not.
        let total = counted.and_then(|counted| self.rows.checked_add(counted));
        let total = total.ok_or(AuditError::Overflow("rows"))?;
        let mut codes = Vec::with_capacity(columns.len());
        for ((dictionary, attribute), column) in self.dictionaries.iter_mut().zip(&self.attributes).zip(columns) {
            codes.push(dictionary.codes_of(attribute, column)?);
        }
        self.fit()?;
        let codes: Vec<&[u32]> = codes.iter().map(Vec::as_slice).collect();
        let places = self.places(&codes);
        let rows_codes: Vec<&[u32]> = columns.iter().map(|column| column.codes.as_slice()).collect();
        self.cells.add_rows(&places, &rows_codes, rows, weights)?;
        self.rows = total;
        Ok(())
    }

    /// Adds the counts of another part of the dataset.
    ///
    /// # Errors
    /// [`AuditError::DifferentAttributes`] where the parts do not count the same attributes in the same order; where the
    /// sums are too large as [`add`](Self::add).
    pub fn merge(&mut self, other: &Self) -> Result<(), AuditError> {
        if self.attributes != other.attributes {
            let (expected, found) = (self.attributes.clone(), other.attributes.clone());
            return Err(AuditError::DifferentAttributes { expected, found });
        }
        self.rows = self.rows.checked_add(other.rows).ok_or(AuditError::Overflow("rows"))?;
        let mut codes = Vec::with_capacity(self.attributes.len());
        for ((mine, attribute), theirs) in self.dictionaries.iter_mut().zip(&self.attributes).zip(&other.dictionaries) {
            let values = theirs.values().iter().map(|value| mine.code(attribute, value));
            codes.push(values.collect::<Result<Vec<u32>, _>>()?);
        }
        self.fit()?;
        let codes: Vec<&[u32]> = codes.iter().map(Vec::as_slice).collect();
        let places = self.places(&codes);
        for (combination, count) in other.cells.iter() {
            let bits = |attribute: usize| places[attribute][other.layout.code(attribute, combination)];
            self.cells.add((0..places.len()).fold(0, |packed, attribute| packed | bits(attribute)), count)?;
        }
        Ok(())
    }

    /// The bits of each of these codes in a combination.
    fn places(&self, codes: &[&[u32]]) -> Vec<Vec<u128>> {
        let place = |(attribute, codes): (usize, &&[u32])| {
            codes.iter().map(|&code| self.layout.place(attribute, code)).collect()
        };
        codes.iter().enumerate().map(place).collect()
    }

    /// Makes room in the layout where a dictionary outgrew it.
    fn fit(&mut self) -> Result<(), AuditError> {
        // Every change of the cube passes here before it counts.
        self.columns = OnceLock::new();
        let layout = layout(&self.dictionaries)?;
        if layout == self.layout {
            return Ok(());
        }
        let mut cells = Cells::new(&layout);
        for (combination, count) in self.cells.iter() {
            let moved = |attribute: usize| layout.place(attribute, self.layout.code(attribute, combination) as u32);
            cells.add((0..self.attributes.len()).fold(0, |packed, attribute| packed | moved(attribute)), count)?;
        }
        (self.cells, self.layout) = (cells, layout);
        Ok(())
    }

    /// How many rows were counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The attributes that are counted, in order.
    pub fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// The known values of `attribute` in the order in which they are listed; [`MISSING`](evenset_core::MISSING) is among them where rows have
    /// none.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`].
    pub fn values(&self, attribute: &str) -> Result<Vec<&str>, AuditError> {
        Ok(self.dictionaries[self.place(attribute)?].sorted())
    }

    /// How many rows have `value` for `attribute`.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`].
    pub fn count_of(&self, attribute: &str, value: &str) -> Result<u64, AuditError> {
        let place = self.place(attribute)?;
        let Some(code) = self.dictionaries[place].find(value) else { return Ok(0) };
        let has = |combination: u128| self.layout.code(place, combination) == code as usize;
        Ok(self.cells.iter().filter(|(combination, _)| has(*combination)).map(|(_, count)| count).sum())
    }

    /// The cube of some of the attributes, in the order given.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`], [`AuditError::Repeated`].
    pub fn project(&self, attributes: &[String]) -> Result<Self, AuditError> {
        let places = self.places_of(attributes)?;
        let dictionaries: Vec<Dictionary> = places.iter().map(|&place| self.dictionaries[place].clone()).collect();
        let layout = layout(&dictionaries)?;
        let mut cells = Cells::new(&layout);
        for (combination, count) in self.cells.iter() {
            let code = |(to, &from): (usize, &usize)| layout.place(to, self.layout.code(from, combination) as u32);
            cells.add(places.iter().enumerate().map(code).fold(0, |packed, bits| packed | bits), count)?;
        }
        Ok(Self {
            attributes: attributes.to_vec(),
            dictionaries,
            layout,
            cells,
            rows: self.rows,
            columns: OnceLock::new(),
        })
    }

    /// The rows of every group of a grouping: the full cross product of the known values in their listed order, groups
    /// without a row included. No attributes at all give the one group that holds every row.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`], [`AuditError::Repeated`], and [`AuditError::TooManyGroups`] above
    /// [`MAX_GROUPS`].
    pub fn roll_up(&self, attributes: &[String]) -> Result<Vec<(Group, u64)>, AuditError> {
        let (tally, listing) = (self.tally(attributes)?, self.listing(attributes)?);
        tally.counts.into_iter().enumerate().map(|(index, count)| Ok((listing.group(index)?, count))).collect()
    }

    /// Names the groups of a grouping.
    pub(crate) fn listing<'a>(&'a self, attributes: &'a [String]) -> Result<Names<'a>, AuditError> {
        let values = attributes.iter().map(|a| self.values(a)).collect::<Result<Vec<_>, _>>()?;
        Ok(Names { attributes, values })
    }

    /// The counts of a grouping, as [`roll_up`](Self::roll_up) without the names.
    pub(crate) fn tally(&self, attributes: &[String]) -> Result<Tally, AuditError> {
        let places = self.places_of(attributes)?;
        let sizes: Vec<usize> = places.iter().map(|&place| self.dictionaries[place].len()).collect();
        let product = sizes.iter().try_fold(1u64, |product, &n| product.checked_mul(n as u64));
        let Some(groups) = product.filter(|&n| n <= MAX_GROUPS) else {
            return Err(AuditError::TooManyGroups {
                attributes: attributes.to_vec(),
                values: sizes,
                limit: MAX_GROUPS,
            });
        };
        let columns = self.columns();
        let mut counts = vec![0u64; groups as usize];
        let mut block = [0u32; BLOCK];
        for start in (0..columns.counts.len()).step_by(BLOCK) {
            let rows = &columns.counts[start..columns.counts.len().min(start + BLOCK)];
            let block = &mut block[..rows.len()];
            block.fill(0);
            for (&place, &size) in places.iter().zip(&sizes) {
                // At most MAX_GROUPS groups: their numbers fit.
                for (index, &digit) in block.iter_mut().zip(&columns.places[place][start..]) {
                    *index = *index * size as u32 + digit;
                }
            }
            for (&index, &rows) in block.iter().zip(rows) {
                counts[index as usize] += rows;
            }
        }
        Ok(Tally { sizes, counts })
    }

    /// The combinations that occur.
    pub(crate) fn columns(&self) -> &Columns {
        self.columns.get_or_init(|| {
            let ranks: Vec<Vec<u32>> = self.dictionaries.iter().map(Dictionary::ranks).collect();
            let (mut places, mut counts) = (vec![Vec::new(); ranks.len()], Vec::new());
            for (combination, count) in self.cells.iter() {
                for (attribute, (column, ranks)) in places.iter_mut().zip(&ranks).enumerate() {
                    column.push(ranks[self.layout.code(attribute, combination)]);
                }
                counts.push(count);
            }
            Columns { places, counts }
        })
    }

    fn places_of(&self, attributes: &[String]) -> Result<Vec<usize>, AuditError> {
        refuse_repeats(attributes)?;
        attributes.iter().map(|attribute| self.place(attribute)).collect()
    }

    fn place(&self, attribute: &str) -> Result<usize, AuditError> {
        self.attributes
            .iter()
            .position(|a| a == attribute)
            .ok_or_else(|| AuditError::UnknownAttribute { name: attribute.to_owned(), known: self.attributes.clone() })
    }
}

fn layout(dictionaries: &[Dictionary]) -> Result<Layout, AuditError> {
    let layout = Layout::of(dictionaries.iter().map(Dictionary::len));
    layout.ok_or(AuditError::TooManyAttributes { attributes: dictionaries.len() })
}

impl PartialEq for Cube {
    /// Equal counts of equal rows, whatever the order they were seen in.
    fn eq(&self, other: &Self) -> bool {
        Stored::from(self.clone()) == Stored::from(other.clone())
    }
}

fn refuse_repeats(attributes: &[String]) -> Result<(), AuditError> {
    for (i, attribute) in attributes.iter().enumerate() {
        if attributes[..i].contains(attribute) {
            return Err(AuditError::Repeated(attribute.clone()));
        }
    }
    Ok(())
}

/// The names of a grouping's groups.
pub(crate) struct Names<'a> {
    attributes: &'a [String],
    values: Vec<Vec<&'a str>>,
}

impl Names<'_> {
    /// The group at a place of the listed cross product; the last attribute varies fastest.
    pub fn group(&self, mut index: usize) -> Result<Group, AuditError> {
        let mut pairs = Vec::with_capacity(self.attributes.len());
        for (attribute, values) in self.attributes.iter().zip(&self.values).rev() {
            pairs.push((attribute.as_str(), values[index % values.len()]));
            index /= values.len();
        }
        pairs.reverse();
        Group::new(pairs).map_err(|_| AuditError::Repeated(self.attributes.join(", ")))
    }
}

/// The form on disk: listed values and sorted cells, so equal cubes are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    attributes: Vec<String>,
    values: Vec<Vec<String>>,
    cells: Vec<(Vec<u32>, u64)>,
}

impl From<Cube> for Stored {
    fn from(cube: Cube) -> Self {
        let Columns { places, counts } = cube.columns();
        let cell = |(i, &count): (usize, &u64)| (places.iter().map(|column| column[i]).collect(), count);
        let mut cells: Vec<(Vec<u32>, u64)> = counts.iter().enumerate().map(cell).collect();
        cells.sort_unstable();
        let sorted = |d: &Dictionary| d.sorted().into_iter().map(str::to_owned).collect();
        let values = cube.dictionaries.iter().map(sorted).collect();
        Self { attributes: cube.attributes, values, cells }
    }
}

impl TryFrom<Stored> for Cube {
    type Error = AuditError;

    fn try_from(stored: Stored) -> Result<Self, AuditError> {
        let damaged = |what: String| Err(AuditError::Damaged(what));
        let width = stored.attributes.len();
        if stored.values.len() != width {
            return damaged(format!("{} lists of values for {width} attributes", stored.values.len()));
        }
        let mut cube = Self::new(stored.attributes)?;
        for (place, values) in stored.values.iter().enumerate() {
            for (code, value) in values.iter().enumerate() {
                if cube.dictionaries[place].code(&cube.attributes[place], value)? as usize != code {
                    return damaged(format!("value `{value}` is listed twice"));
                }
            }
        }
        cube.fit()?;
        for (codes, count) in stored.cells {
            let in_range = |(code, values): (&u32, &Vec<String>)| (*code as usize) < values.len();
            if codes.len() != width || !codes.iter().zip(&stored.values).all(in_range) {
                return damaged(format!("cell {codes:?} has no meaning"));
            }
            cube.rows = cube.rows.checked_add(count).ok_or(AuditError::Overflow("rows"))?;
            let bits = codes.iter().enumerate().map(|(attribute, &code)| cube.layout.place(attribute, code));
            cube.cells.add(bits.fold(0, |packed, bits| packed | bits), count)?;
        }
        Ok(cube)
    }
}

#[cfg(test)]
mod tests {
    use evenset_core::MISSING;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn cube(rows: &[(&str, &str)]) -> Cube {
        let mut cube = Cube::new(names(&["garment", "colour"])).unwrap();
        for &(garment, colour) in rows {
            cube.add(&[Some(garment), Some(colour)]).unwrap();
        }
        cube
    }

    fn listed(groups: &[(Group, u64)]) -> Vec<(String, u64)> {
        groups.iter().map(|(group, n)| (group.to_string(), *n)).collect()
    }

    #[test]
    fn a_roll_up_lists_the_sorted_cross_product_with_the_empty_groups() {
        let cube = cube(&[("coat", "red"), ("bag", "blue"), ("coat", "red")]);
        let groups = listed(&cube.roll_up(&names(&["garment", "colour"])).unwrap());
        let expected = [
            ("garment=bag & colour=blue", 1),
            ("garment=bag & colour=red", 0),
            ("garment=coat & colour=blue", 0),
            ("garment=coat & colour=red", 2),
        ];
        assert_eq!(groups, expected.map(|(group, n)| (group.to_owned(), n)));
        let swapped = listed(&cube.roll_up(&names(&["colour"])).unwrap());
        assert_eq!(swapped, [("colour=blue".to_owned(), 1), ("colour=red".to_owned(), 2)]);
        assert_eq!(listed(&cube.roll_up(&[]).unwrap()), [("(all)".to_owned(), 3)]);
    }

    #[test]
    fn a_grouping_may_order_the_attributes_otherwise() {
        let cube = cube(&[("coat", "red"), ("bag", "blue"), ("coat", "red")]);
        let groups = cube.roll_up(&names(&["colour", "garment"])).unwrap();
        assert_eq!(groups.last().unwrap().0.to_string(), "colour=red & garment=coat");
        assert_eq!(groups.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 0, 0, 2]);
    }

    #[test]
    fn missing_values_are_a_group_of_their_own() {
        let mut cube = cube(&[("coat", "red")]);
        cube.add(&[Some("coat"), None]).unwrap();
        assert_eq!(cube.values("colour").unwrap(), ["red", MISSING]);
        assert_eq!(cube.rows(), 2);
    }

    #[test]
    fn parts_merge_to_the_same_counts_in_any_order() {
        let rows = [("coat", "red"), ("bag", "blue"), ("coat", "red"), ("shirt", "green"), ("bag", "red")];
        let whole = cube(&rows);
        for cut in 0..=rows.len() {
            let (left, right) = (cube(&rows[..cut]), cube(&rows[cut..]));
            let mut forwards = left.clone();
            forwards.merge(&right).unwrap();
            let mut backwards = right.clone();
            backwards.merge(&left).unwrap();
            assert_eq!(forwards, whole);
            assert_eq!(backwards, whole);
            let bytes = |cube: &Cube| serde_json::to_string(cube).unwrap();
            assert_eq!(bytes(&forwards), bytes(&backwards));
        }
        let mut other = Cube::new(names(&["colour", "garment"])).unwrap();
        assert!(matches!(other.merge(&whole), Err(AuditError::DifferentAttributes { .. })));
    }

    #[test]
    fn a_cube_reads_back_from_its_json() {
        let cube = cube(&[("coat", "red"), ("bag", "blue"), ("coat", "red")]);
        let json = serde_json::to_string(&cube).unwrap();
        let values = r#""values":[["bag","coat"],["blue","red"]],"cells":[[[0,0],1],[[1,1],2]]"#;
        assert_eq!(json, format!(r#"{{"attributes":["garment","colour"],{values}}}"#));
        let back: Cube = serde_json::from_str(&json).unwrap();
        assert_eq!((back.rows(), &back), (3, &cube));
    }

    #[test]
    fn damaged_counts_are_refused() {
        for (json, what) in [
            (r#"{"attributes":["a"],"values":[["x"]],"cells":[[[1],2]]}"#, "no meaning"),
            (r#"{"attributes":["a"],"values":[["x"]],"cells":[[[0,0],2]]}"#, "no meaning"),
            (r#"{"attributes":["a"],"values":[],"cells":[]}"#, "0 lists of values"),
            (r#"{"attributes":["a"],"values":[["x","x"]],"cells":[]}"#, "listed twice"),
            (r#"{"attributes":["a","a"],"values":[[],[]],"cells":[]}"#, "named twice"),
            (r#"{"attributes":["a"],"values":[["x"]],"cells":[[[0],18446744073709551615],[[0],1]]}"#, "too many rows"),
        ] {
            let error = serde_json::from_str::<Cube>(json).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_grouping_that_is_too_large_asks_for_bins() {
        let mut cube = Cube::new(names(&["age", "weight"])).unwrap();
        for i in 0..1001 {
            let text = i.to_string();
            cube.add(&[Some(&text), Some(&text)]).unwrap();
        }
        let error = cube.roll_up(&names(&["age", "weight"])).unwrap_err().to_string();
        assert!(error.contains("1001 of `age` x 1001 of `weight`") && error.contains("bins"), "{error}");
        assert_eq!(cube.roll_up(&names(&["age"])).unwrap().len(), 1001);
    }

    #[test]
    fn wrong_names_and_widths_are_refused() {
        let mut cube = cube(&[("coat", "red")]);
        assert!(matches!(cube.add(&[Some("coat")]), Err(AuditError::WrongWidth { found: 1, .. })));
        let error = cube.roll_up(&names(&["size"])).unwrap_err().to_string();
        assert_eq!(error, "`size` is not an attribute of this dataset; it has `garment`, `colour`");
        let repeated = cube.roll_up(&names(&["colour", "colour"]));
        assert_eq!(repeated, Err(AuditError::Repeated("colour".into())));
        assert_eq!(Cube::new(names(&["a", "a"])).unwrap_err(), AuditError::Repeated("a".into()));
    }
}
