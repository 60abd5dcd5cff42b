//! Coverage: which combinations of values too few rows have.
//!
//! A pattern fixes some attributes and leaves the others free. It is *uncovered* where fewer rows than the threshold have
//! it, and *maximal* where every pattern that fixes one attribute less is covered: the shortest way to say who is missing.
//! A. Asudeh, Z. Jin, H. V. Jagadish, "Assessing and remedying coverage for a given dataset", ICDE 2019.
//!
//! The search goes level by level. Only values that are covered by themselves can be part of a longer maximal pattern, so
//! everything else is one code, `ABSENT`, from the first level on. A subset of the attributes is then counted in one pass
//! over the cube's cells, and a pattern of it is a candidate where all of its parents were covered on the level before.

use std::collections::{HashMap, HashSet};

use evenset_core::{Group, MISSING};
use foldhash::fast::FixedState;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cube::Columns;
use crate::{AuditError, Cube};

/// The code of a value that is missing or uncovered by itself.
const ABSENT: u16 = 0;
/// Up to so many patterns a subset of the attributes is counted in a table.
const MOST_TABLE: u128 = 1 << 22;
/// The most uncovered patterns that are listed, and the most candidates of one subset that are looked at.
const MOST_PATTERNS: usize = 100_000;
const MOST_CANDIDATES: u128 = 1 << 26;
/// Each subset of the attributes is one pass over the cells.
const MOST_SUBSETS: u128 = 20_000;
/// The highest level: a place of a pattern of so many attributes fits into 128 bits.
const HIGHEST_LEVEL: usize = 8;
/// Cells whose places are computed together.
const BLOCK: usize = 2048;

/// Which patterns count as uncovered, and how far they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoverageConfig {
    /// Rows that a pattern needs to be covered; below 1, that share of all rows. Default: 30.
    #[schemars(range(min = 0.0))]
    pub threshold: f64,
    /// Attributes that a pattern fixes at most, 1 to 8. Default: 2.
    #[schemars(range(min = 1, max = 8))]
    pub max_level: usize,
}

impl Default for CoverageConfig {
    fn default() -> Self {
        Self { threshold: 30.0, max_level: 2 }
    }
}

impl CoverageConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`AuditError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), AuditError> {
        let value = |key, found: String, expected| Err(AuditError::Value { key, found, expected });
        let whole = self.threshold.fract() == 0.0 && self.threshold <= (1u64 << 53) as f64;
        if !(self.threshold > 0.0 && (self.threshold < 1.0 || whole)) {
            let expected = "a whole number of rows, or a share between 0 and 1";
            return value("audit.coverage.threshold", self.threshold.to_string(), expected);
        }
        if !(1..=HIGHEST_LEVEL).contains(&self.max_level) {
            return value("audit.coverage.max_level", self.max_level.to_string(), "1 to 8");
        }
        Ok(())
    }

    /// The threshold in rows, at least 1.
    fn rows(&self, all: u64) -> u64 {
        let rows = if self.threshold < 1.0 { (self.threshold * all as f64).ceil() } else { self.threshold };
        (rows as u64).max(1)
    }
}

/// The uncovered patterns of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Rows that a pattern needs to be covered.
    pub threshold: u64,
    /// Attributes that a pattern fixes at most.
    pub max_level: usize,
    /// All maximal uncovered patterns up to that level, by level, attributes and values.
    pub uncovered: Vec<UncoveredPattern>,
    /// Why patterns above some level are not listed, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// One pattern that too few rows have, while enough have each shorter one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncoveredPattern {
    /// The values that it fixes; attributes that are not named are free.
    pub pattern: Group,
    /// How many attributes it fixes.
    pub level: usize,
    /// The rows that have it.
    pub count: u64,
}

/// All maximal uncovered patterns of the rows of a cube over its known values. [`MISSING`] is no value that rows could
/// be asked to have, so no pattern fixes it.
///
/// # Errors
/// [`AuditError::Value`] for a configuration that makes no sense.
pub fn coverage(cube: &Cube, config: &CoverageConfig) -> Result<Coverage, AuditError> {
    config.validate()?;
    let threshold = config.rows(cube.rows());
    let mut found = Coverage { threshold, max_level: config.max_level, uncovered: Vec::new(), left_out: None };
    if cube.rows() < threshold {
        found.uncovered.push(UncoveredPattern { pattern: Group::default(), level: 0, count: cube.rows() });
        return Ok(found);
    }
    let (cells, singles) = Cells::of(cube, threshold)?;
    found.uncovered = singles;
    let mut below: Level = cells.attributes.iter().enumerate().map(|(i, a)| (vec![i], Covered::all(a))).collect();
    for level in 2..=config.max_level.min(cells.attributes.len()) {
        let last = level == config.max_level;
        let searched = subsets_of(cells.attributes.len(), level);
        if searched > MOST_SUBSETS {
            found.left_out = Some(format!(
                "level {level} was not searched: {} attributes have {searched} subsets of that size; name fewer with \
                 `--by`, or lower `max_level`",
                cells.attributes.len()
            ));
            break;
        }
        let counted: Result<Vec<_>, String> = subsets(cells.attributes.len(), level)
            .into_par_iter()
            .map(|subset| cells.search(subset, &below, threshold, last))
            .collect();
        match counted {
            Ok(counted) => {
                let patterns: usize = counted.iter().map(|(_, _, uncovered)| uncovered.len()).sum();
                if patterns + found.uncovered.len() > MOST_PATTERNS {
                    found.left_out = Some(format!(
                        "level {level} has {patterns} maximal uncovered patterns, too many to list; lower the threshold"
                    ));
                    break;
                }
                below = Level::default();
                for (subset, covered, uncovered) in counted {
                    found.uncovered.extend(uncovered);
                    below.insert(subset, covered);
                }
            }
            Err(why) => {
                found.left_out = Some(format!("level {level} was not searched: {why}"));
                break;
            }
        }
    }
    Ok(found)
}

/// For each subset of the attributes of one size, its covered patterns.
type Level = HashMap<Vec<usize>, Covered>;

/// The covered patterns of a subset of the attributes, by their places among all of its patterns.
enum Covered {
    Table(Vec<bool>),
    Set(HashSet<u128, FixedState>),
}

impl Covered {
    fn all(attribute: &Attribute) -> Self {
        Self::Table(vec![true; attribute.values.len()])
    }

    fn has(&self, place: u128) -> bool {
        match self {
            Self::Table(table) => usize::try_from(place).ok().and_then(|i| table.get(i)).copied().unwrap_or(false),
            Self::Set(set) => set.contains(&place),
        }
    }

    fn places(&self) -> Vec<u128> {
        let mut places: Vec<u128> = match self {
            Self::Table(table) => (0u128..).zip(table).filter(|(_, covered)| **covered).map(|(i, _)| i).collect(),
            Self::Set(set) => set.iter().copied().collect(),
        };
        places.sort_unstable();
        places
    }
}

/// An attribute with the values that are covered by themselves.
struct Attribute {
    name: String,
    /// The value of code `i + 1`.
    values: Vec<String>,
    /// One code a cell.
    codes: Vec<u16>,
}

/// The cube's cells as columns, with [`ABSENT`] for everything that no longer pattern can fix.
struct Cells {
    attributes: Vec<Attribute>,
    counts: Vec<u64>,
}

impl Cells {
    /// The cells, and the uncovered patterns of one attribute.
    fn of(cube: &Cube, threshold: u64) -> Result<(Self, Vec<UncoveredPattern>), AuditError> {
        let Columns { places, counts } = cube.columns();
        let mut uncovered = Vec::new();
        let mut attributes = Vec::new();
        for (name, column) in cube.attributes().iter().zip(places) {
            let values = cube.values(name)?;
            let mut rows = vec![0u64; values.len()];
            for (&place, count) in column.iter().zip(counts) {
                rows[place as usize] += count;
            }
            let mut codes = vec![ABSENT; values.len()];
            let mut covered = Vec::new();
            for ((value, &count), code) in values.iter().zip(&rows).zip(&mut codes) {
                if *value == MISSING {
                    continue;
                }
                if count >= threshold {
                    covered.push((*value).to_owned());
                    *code = u16::try_from(covered.len())
                        .map_err(|_| AuditError::TooManyValues { attribute: name.clone(), limit: u16::MAX.into() })?;
                } else {
                    let pattern = Group::new([(name, *value)]).map_err(|_| AuditError::Repeated(name.clone()))?;
                    uncovered.push(UncoveredPattern { pattern, level: 1, count });
                }
            }
            let codes = column.iter().map(|&place| codes[place as usize]).collect();
            attributes.push(Attribute { name: name.clone(), values: covered, codes });
        }
        Ok((Self { attributes, counts: counts.clone() }, uncovered))
    }

    /// Counts a subset of the attributes: its covered patterns and its maximal uncovered ones, or why there are too many.
    /// On the last level the covered ones are not collected.
    fn search(
        &self,
        subset: Vec<usize>,
        below: &Level,
        threshold: u64,
        last: bool,
    ) -> Result<(Vec<usize>, Covered, Vec<UncoveredPattern>), String> {
        let sizes: Vec<u128> = subset.iter().map(|&i| self.attributes[i].values.len() as u128).collect();
        let patterns: u128 = sizes.iter().product();
        let parents: Vec<&Covered> = (0..subset.len()).filter_map(|i| below.get(&without(&subset, i))).collect();
        if patterns == 0 || parents.len() < subset.len() {
            return Ok((subset, Covered::Set(HashSet::default()), Vec::new()));
        }
        let counted = if patterns <= MOST_TABLE { self.table(&subset) } else { self.map(&subset) };
        let mut covered = if patterns <= MOST_TABLE && !last {
            Covered::Table(vec![false; patterns as usize])
        } else {
            Covered::Set(HashSet::default())
        };
        let mut uncovered = Vec::new();
        // The pattern without its last attribute is covered, so those are where candidates begin.
        let (last_size, first_parents) = (sizes[sizes.len() - 1], parents[parents.len() - 1].places());
        if first_parents.len() as u128 * last_size > MOST_CANDIDATES {
            let names: Vec<&str> = subset.iter().map(|&i| self.attributes[i].name.as_str()).collect();
            return Err(format!(
                "{} have too many values together; put them into bins (`derive`), or lower `max_level`",
                names.join(" x ")
            ));
        }
        let mut digits = vec![0u128; subset.len()];
        for parent in first_parents {
            for value in 0..last_size {
                let place = parent * last_size + value;
                digits_of(place, &sizes, &mut digits);
                let is_covered = |(i, parent): (usize, &&Covered)| parent.has(place_without(&digits, &sizes, i));
                if !parents.iter().enumerate().all(is_covered) {
                    continue;
                }
                let count = counted.count(&digits);
                if count >= threshold {
                    match &mut covered {
                        _ if last => {}
                        Covered::Table(table) => table[place as usize] = true,
                        Covered::Set(set) => drop(set.insert(place)),
                    }
                } else {
                    uncovered.push(self.pattern(&subset, &digits, count));
                    if uncovered.len() > MOST_PATTERNS {
                        return Err(format!(
                            "more than {MOST_PATTERNS} maximal uncovered patterns; lower the threshold"
                        ));
                    }
                }
            }
        }
        Ok((subset, covered, uncovered))
    }

    /// Rows of every pattern of a subset, in a table that has a place for [`ABSENT`] too.
    fn table(&self, subset: &[usize]) -> Counted {
        let sizes: Vec<u32> = subset.iter().map(|&i| self.attributes[i].values.len() as u32 + 1).collect();
        let mut table = vec![0u64; sizes.iter().map(|&n| n as usize).product()];
        let mut block = [0u32; BLOCK];
        for start in (0..self.counts.len()).step_by(BLOCK) {
            let counts = &self.counts[start..self.counts.len().min(start + BLOCK)];
            let block = &mut block[..counts.len()];
            block.fill(0);
            for (&attribute, &size) in subset.iter().zip(&sizes) {
                for (place, &code) in block.iter_mut().zip(&self.attributes[attribute].codes[start..]) {
                    *place = *place * size + u32::from(code);
                }
            }
            for (&place, &count) in block.iter().zip(counts) {
                table[place as usize] += count;
            }
        }
        Counted::Table { sizes, table }
    }

    /// Rows of every pattern of a subset that occurs.
    fn map(&self, subset: &[usize]) -> Counted {
        let mut map: HashMap<u128, u64, FixedState> = HashMap::default();
        for (cell, &count) in self.counts.iter().enumerate() {
            let codes = subset.iter().map(|&i| self.attributes[i].codes[cell]);
            *map.entry(codes.fold(0, |key, code| key << 16 | u128::from(code))).or_default() += count;
        }
        Counted::Map(map)
    }

    fn pattern(&self, subset: &[usize], digits: &[u128], count: u64) -> UncoveredPattern {
        let pairs = subset.iter().zip(digits).map(|(&attribute, &digit)| {
            let attribute = &self.attributes[attribute];
            (attribute.name.as_str(), attribute.values[digit as usize].as_str())
        });
        // The attributes of a cube are different, so the pairs are a group.
        UncoveredPattern { pattern: Group::new(pairs).unwrap_or_default(), level: subset.len(), count }
    }
}

/// Rows by pattern.
enum Counted {
    Table { sizes: Vec<u32>, table: Vec<u64> },
    Map(HashMap<u128, u64, FixedState>),
}

impl Counted {
    /// The rows of the pattern with these values, counted from 0.
    fn count(&self, digits: &[u128]) -> u64 {
        match self {
            Self::Table { sizes, table } => {
                let place = sizes
                    .iter()
                    .zip(digits)
                    .fold(0, |place, (&size, &digit)| place * size as usize + digit as usize + 1);
                table[place]
            }
            Self::Map(map) => {
                map.get(&digits.iter().fold(0, |key, &digit| key << 16 | (digit + 1))).copied().unwrap_or(0)
            }
        }
    }
}

/// How many subsets of one size `n` attributes have.
fn subsets_of(n: usize, size: usize) -> u128 {
    (0..size as u128).fold(1, |subsets, i| subsets.saturating_mul((n as u128).saturating_sub(i)) / (i + 1))
}

/// All subsets of `0..n` of one size, in order.
fn subsets(n: usize, size: usize) -> Vec<Vec<usize>> {
    fn extend(from: usize, n: usize, size: usize, subset: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if subset.len() == size {
            return all.push(subset.clone());
        }
        for next in from..n {
            subset.push(next);
            extend(next + 1, n, size, subset, all);
            subset.pop();
        }
    }
    let mut all = Vec::new();
    extend(0, n, size, &mut Vec::new(), &mut all);
    all
}

fn without(subset: &[usize], place: usize) -> Vec<usize> {
    subset.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, &attribute)| attribute).collect()
}

fn digits_of(mut place: u128, sizes: &[u128], digits: &mut [u128]) {
    for (digit, size) in digits.iter_mut().zip(sizes).rev() {
        *digit = place % size;
        place /= size;
    }
}

/// The place of the parent that leaves one attribute free.
fn place_without(digits: &[u128], sizes: &[u128], free: usize) -> u128 {
    let fixed = digits.iter().zip(sizes).enumerate().filter(|(i, _)| *i != free);
    fixed.fold(0, |place, (_, (digit, size))| place * size + digit)
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("a{i}")).collect()
    }

    /// Rows of random small values, some missing.
    fn random_cube(seed: u64, rows: usize, sizes: &[usize]) -> (Cube, Vec<Vec<Option<String>>>) {
        let mut cube = Cube::new(names(sizes.len())).unwrap();
        let mut all = Vec::new();
        for row in 0..rows {
            let noise = Seed(seed).index(row as u64).normal(sizes.len());
            let value = |(x, &size): (&f32, &usize)| {
                let value = (x.abs() * size as f32 / 1.5) as usize;
                (value <= size).then(|| format!("v{}", value.min(size - 1)))
            };
            let values: Vec<Option<String>> = noise.iter().zip(sizes).map(value).collect();
            cube.add(&values.iter().map(Option::as_deref).collect::<Vec<_>>()).unwrap();
            all.push(values);
        }
        (cube, all)
    }

    /// Every pattern of the known values by counting rows one by one; maximal where all parents are covered.
    fn by_definition(cube: &Cube, rows: &[Vec<Option<String>>], threshold: u64, max_level: usize) -> Vec<(Group, u64)> {
        let attributes = cube.attributes();
        let mut patterns: Vec<Vec<Option<String>>> = vec![Vec::new()];
        for attribute in attributes {
            let values = cube.values(attribute).unwrap();
            let known: Vec<&str> = values.into_iter().filter(|value| *value != MISSING).collect();
            patterns = patterns
                .into_iter()
                .flat_map(|pattern| {
                    let with = |value: Option<String>| pattern.iter().cloned().chain([value]).collect::<Vec<_>>();
                    let fixed: Vec<_> = known.iter().map(|value| with(Some((*value).to_owned()))).collect();
                    [with(None)].into_iter().chain(fixed).collect::<Vec<_>>()
                })
                .collect();
        }
        let count = |pattern: &[Option<String>]| {
            let fits = |row: &&Vec<Option<String>>| pattern.iter().zip(row.iter()).all(|(p, v)| p.is_none() || p == v);
            rows.iter().filter(fits).count() as u64
        };
        let mut found = Vec::new();
        for pattern in patterns {
            let level = pattern.iter().flatten().count();
            let parents = (0..pattern.len()).filter(|&i| pattern[i].is_some()).map(|i| {
                let mut parent = pattern.clone();
                parent[i] = None;
                parent
            });
            if level <= max_level && count(&pattern) < threshold && parents.into_iter().all(|p| count(&p) >= threshold)
            {
                let pairs = attributes.iter().zip(&pattern).filter_map(|(a, v)| v.clone().map(|v| (a.clone(), v)));
                found.push((Group::new(pairs).unwrap(), count(&pattern)));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_patterns_are_those_of_the_definition() {
        for (case, sizes) in [&[3, 2, 4, 2][..], &[2, 2, 2, 2, 2], &[5, 3], &[4], &[3, 3, 3]].into_iter().enumerate() {
            for threshold in [1, 2, 5, 20, 61] {
                for max_level in 1..=4 {
                    let (cube, rows) = random_cube(case as u64, 60, sizes);
                    let config = CoverageConfig { threshold: threshold as f64, max_level };
                    let found = coverage(&cube, &config).unwrap();
                    assert!(found.uncovered.iter().all(|p| p.level == p.pattern.len()));
                    let mut patterns: Vec<_> = found.uncovered.into_iter().map(|p| (p.pattern, p.count)).collect();
                    patterns.sort();
                    assert_eq!(patterns, by_definition(&cube, &rows, threshold, max_level), "{sizes:?} {threshold}");
                }
            }
        }
    }

    #[test]
    fn more_subsets_than_can_be_searched_are_told_and_not_begun() {
        assert_eq!([subsets_of(5, 2), subsets_of(40, 8), subsets_of(3, 4)], [10, 76_904_685, 0]);
        let (cube, _) = random_cube(2, 40, &[2; 40]);
        let found = coverage(&cube, &CoverageConfig { threshold: 1.0, max_level: 8 }).unwrap();
        assert!(found.left_out.unwrap().starts_with("level 4 was not searched"));
    }

    #[test]
    fn tables_and_maps_count_alike() {
        let (cube, _) = random_cube(5, 500, &[6, 5, 4, 3]);
        let (cells, _) = Cells::of(&cube, 3).unwrap();
        for subset in subsets(4, 3) {
            let (table, map) = (cells.table(&subset), cells.map(&subset));
            let sizes: Vec<u128> = subset.iter().map(|&i| cells.attributes[i].values.len() as u128).collect();
            let mut digits = vec![0; 3];
            for place in 0..sizes.iter().product() {
                digits_of(place, &sizes, &mut digits);
                assert_eq!(table.count(&digits), map.count(&digits));
            }
        }
    }

    #[test]
    fn an_attribute_with_thousands_of_values_is_searched_without_a_table_of_all_pairs() {
        let mut cube = Cube::new(names(3)).unwrap();
        for i in 0..12_000 {
            let [a, b] = [(i % 3_000).to_string(), (i % 2_999).to_string()];
            cube.add(&[Some(&a), Some(&b), Some("x")]).unwrap();
        }
        let found = coverage(&cube, &CoverageConfig { threshold: 4.0, max_level: 2 }).unwrap();
        // Every pair of `a0` and `a1` occurs at most once, so all nine million of them are uncovered.
        assert!(found.uncovered.is_empty());
        assert!(found.left_out.unwrap().contains("more than 100000 maximal uncovered patterns"));
        let found = coverage(&cube, &CoverageConfig { threshold: 5.0, max_level: 2 }).unwrap();
        // Only four values of `a1` have five rows: what is left is (a1, a2), which is covered like a1 itself.
        assert_eq!((found.uncovered.len(), found.left_out), (3_000 + 2_995, None));
    }

    #[test]
    fn a_share_is_a_number_of_rows_and_too_few_rows_at_all_are_one_pattern() {
        let (cube, _) = random_cube(1, 60, &[3, 2]);
        let share = coverage(&cube, &CoverageConfig { threshold: 0.1, max_level: 2 }).unwrap();
        assert_eq!(share.threshold, 6);
        assert_eq!(
            share.uncovered,
            coverage(&cube, &CoverageConfig { threshold: 6.0, max_level: 2 }).unwrap().uncovered
        );
        let none = coverage(&cube, &CoverageConfig { threshold: 61.0, max_level: 2 }).unwrap();
        assert_eq!(none.uncovered, [UncoveredPattern { pattern: Group::default(), level: 0, count: 60 }]);
    }

    #[test]
    fn thresholds_and_levels_without_a_meaning_are_refused() {
        for (threshold, max_level) in [(0.0, 2), (-1.0, 2), (1.5, 2), (f64::NAN, 2), (5.0, 0), (5.0, 9)] {
            assert!(matches!(CoverageConfig { threshold, max_level }.validate(), Err(AuditError::Value { .. })));
        }
    }
}
