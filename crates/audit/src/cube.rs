//! The cube: how many rows have each combination of attribute values.
//!
//! Only combinations that occur are held, keyed by small codes, so a cube is as large as the number of distinct
//! combinations and not as the cross product. Codes are given in the order values are seen; nothing that leaves the
//! cube depends on that order, so parts may be counted anywhere and merged in any order.

use std::collections::BTreeMap;

use evenset_core::{Group, MISSING};
use serde::{Deserialize, Serialize};

use crate::AuditError;

/// The largest number of groups one grouping may have.
pub const MAX_GROUPS: u64 = 1_000_000;

/// Counts of rows by the values of a fixed list of attributes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Cube {
    attributes: Vec<String>,
    dictionaries: Vec<Dictionary>,
    cells: BTreeMap<Vec<u32>, u64>,
    rows: u64,
}

/// The values of one attribute in the order they were seen; a value's code is its place.
#[derive(Clone, Debug, Default)]
struct Dictionary {
    codes: BTreeMap<String, u32>,
    values: Vec<String>,
}

impl Dictionary {
    fn code(&mut self, value: &str) -> Result<u32, AuditError> {
        if let Some(&code) = self.codes.get(value) {
            return Ok(code);
        }
        let code = u32::try_from(self.values.len()).map_err(|_| AuditError::Overflow("values of one attribute"))?;
        self.codes.insert(value.to_owned(), code);
        self.values.push(value.to_owned());
        Ok(code)
    }

    /// For each code, the rank of its value among the sorted values.
    fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.values.len()];
        for (rank, &code) in (0u32..).zip(self.codes.values()) {
            if let Some(place) = ranks.get_mut(code as usize) {
                *place = rank;
            }
        }
        ranks
    }
}

impl Cube {
    /// An empty cube over `attributes`.
    ///
    /// # Errors
    /// [`AuditError::Repeated`] where an attribute is named twice.
    pub fn new(attributes: Vec<String>) -> Result<Self, AuditError> {
        refuse_repeats(&attributes)?;
        let dictionaries = vec![Dictionary::default(); attributes.len()];
        Ok(Self { attributes, dictionaries, cells: BTreeMap::new(), rows: 0 })
    }

    /// Counts one row: a value for each attribute in order, `None` where the row has none.
    ///
    /// # Errors
    /// [`AuditError::WrongWidth`] where the row has not one entry for each attribute, [`AuditError::Overflow`] where
    /// there are more rows or values than can be counted.
    pub fn add(&mut self, values: &[Option<&str>]) -> Result<(), AuditError> {
        if values.len() != self.attributes.len() {
            return Err(AuditError::WrongWidth { found: values.len(), attributes: self.attributes.clone() });
        }
        let codes = self.dictionaries.iter_mut().zip(values).map(|(d, value)| d.code(value.unwrap_or(MISSING)));
        let codes = codes.collect::<Result<Vec<_>, _>>()?;
        self.count(codes, 1)
    }

    /// Adds the counts of another part of the dataset.
    ///
    /// # Errors
    /// [`AuditError::DifferentAttributes`] where the parts do not count the same attributes in the same order,
    /// [`AuditError::Overflow`] where the sums are too large.
    pub fn merge(&mut self, other: &Self) -> Result<(), AuditError> {
        if self.attributes != other.attributes {
            let (expected, found) = (self.attributes.clone(), other.attributes.clone());
            return Err(AuditError::DifferentAttributes { expected, found });
        }
        let mut translations = Vec::with_capacity(other.dictionaries.len());
        for (mine, theirs) in self.dictionaries.iter_mut().zip(&other.dictionaries) {
            translations.push(theirs.values.iter().map(|value| mine.code(value)).collect::<Result<Vec<_>, _>>()?);
        }
        for (codes, &count) in &other.cells {
            self.count(translate(codes, &translations), count)?;
        }
        Ok(())
    }

    fn count(&mut self, codes: Vec<u32>, count: u64) -> Result<(), AuditError> {
        // No cell can overflow where the sum of all cells does not.
        self.rows = self.rows.checked_add(count).ok_or(AuditError::Overflow("rows"))?;
        *self.cells.entry(codes).or_default() += count;
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

    /// The observed values of `attribute`, sorted; [`MISSING`] is among them where rows have none.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`].
    pub fn values(&self, attribute: &str) -> Result<Vec<&str>, AuditError> {
        let dictionary = self.place(attribute).map(|place| self.dictionaries.get(place))?;
        Ok(dictionary.map(|d| d.codes.keys().map(String::as_str).collect()).unwrap_or_default())
    }

    /// How many rows have `value` for `attribute`.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`].
    pub fn count_of(&self, attribute: &str, value: &str) -> Result<u64, AuditError> {
        let place = self.place(attribute)?;
        let code = self.dictionaries.get(place).and_then(|d| d.codes.get(value));
        let Some(&code) = code else { return Ok(0) };
        Ok(self.cells.iter().filter(|(codes, _)| codes.get(place) == Some(&code)).map(|(_, n)| n).sum())
    }

    /// The rows of every group of a grouping: the full cross product of the observed values, sorted, groups without a
    /// row included. No attributes at all give the one group that holds every row.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`], [`AuditError::Repeated`], and [`AuditError::TooManyGroups`] above
    /// [`MAX_GROUPS`].
    pub fn roll_up(&self, attributes: &[String]) -> Result<Vec<(Group, u64)>, AuditError> {
        refuse_repeats(attributes)?;
        let places = attributes.iter().map(|a| self.place(a)).collect::<Result<Vec<_>, _>>()?;
        let dictionaries: Vec<&Dictionary> = places.iter().filter_map(|&place| self.dictionaries.get(place)).collect();
        let sizes: Vec<usize> = dictionaries.iter().map(|d| d.values.len()).collect();
        let product = sizes.iter().try_fold(1u64, |product, &n| product.checked_mul(n as u64));
        let Some(groups) = product.filter(|&n| n <= MAX_GROUPS) else {
            return Err(AuditError::TooManyGroups {
                attributes: attributes.to_vec(),
                values: sizes,
                limit: MAX_GROUPS,
            });
        };
        // A group's place in the listing is a mixed-radix number whose digits are the ranks of its values.
        let ranks: Vec<Vec<u32>> = dictionaries.iter().map(|d| d.ranks()).collect();
        let mut counts = vec![0u64; groups as usize];
        for (codes, &count) in &self.cells {
            let digits = places.iter().zip(&ranks).map(|(&place, ranks)| ranks[codes[place] as usize] as usize);
            let index = digits.zip(&sizes).fold(0, |index, (digit, size)| index * size + digit);
            counts[index] += count;
        }
        let sorted: Vec<Vec<&str>> =
            dictionaries.iter().map(|d| d.codes.keys().map(String::as_str).collect()).collect();
        counts.into_iter().enumerate().map(|(index, n)| Ok((group_at(index, attributes, &sorted)?, n))).collect()
    }

    fn place(&self, attribute: &str) -> Result<usize, AuditError> {
        self.attributes
            .iter()
            .position(|a| a == attribute)
            .ok_or_else(|| AuditError::UnknownAttribute { name: attribute.to_owned(), known: self.attributes.clone() })
    }
}

impl PartialEq for Cube {
    /// Equal counts of equal rows, whatever the order they were seen in.
    fn eq(&self, other: &Self) -> bool {
        Stored::from(self.clone()) == Stored::from(other.clone())
    }
}

fn translate(codes: &[u32], translations: &[Vec<u32>]) -> Vec<u32> {
    codes.iter().zip(translations).map(|(&code, translation)| translation[code as usize]).collect()
}

fn refuse_repeats(attributes: &[String]) -> Result<(), AuditError> {
    for (i, attribute) in attributes.iter().enumerate() {
        if attributes[..i].contains(attribute) {
            return Err(AuditError::Repeated(attribute.clone()));
        }
    }
    Ok(())
}

/// The group at a place of the sorted cross product; the last attribute varies fastest.
fn group_at(mut index: usize, attributes: &[String], values: &[Vec<&str>]) -> Result<Group, AuditError> {
    let mut pairs = Vec::with_capacity(attributes.len());
    for (attribute, values) in attributes.iter().zip(values).rev() {
        pairs.push((attribute.as_str(), values[index % values.len()]));
        index /= values.len();
    }
    pairs.reverse();
    Group::new(pairs).map_err(|_| AuditError::Repeated(attributes.join(", ")))
}

/// The form on disk: sorted values and sorted cells, so equal cubes are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    attributes: Vec<String>,
    values: Vec<Vec<String>>,
    cells: Vec<(Vec<u32>, u64)>,
}

impl From<Cube> for Stored {
    fn from(cube: Cube) -> Self {
        let ranks: Vec<Vec<u32>> = cube.dictionaries.iter().map(Dictionary::ranks).collect();
        let mut cells: Vec<_> = cube.cells.iter().map(|(codes, &count)| (translate(codes, &ranks), count)).collect();
        cells.sort_unstable();
        let values = cube.dictionaries.into_iter().map(|d| d.codes.into_keys().collect()).collect();
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
        for (dictionary, values) in cube.dictionaries.iter_mut().zip(&stored.values) {
            for (place, value) in values.iter().enumerate() {
                if dictionary.code(value)? as usize != place {
                    return damaged(format!("value `{value}` is listed twice"));
                }
            }
        }
        for (codes, count) in stored.cells {
            let in_range = |(code, values): (&u32, &Vec<String>)| (*code as usize) < values.len();
            if codes.len() != width || !codes.iter().zip(&stored.values).all(in_range) {
                return damaged(format!("cell {codes:?} has no meaning"));
            }
            cube.count(codes, count)?;
        }
        Ok(cube)
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(cube.values("colour").unwrap(), [MISSING, "red"]);
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
