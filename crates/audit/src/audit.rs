//! The audit: what the groupings of a cube say about who is missing.

use evenset_core::{Group, MISSING};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::statistics::{
    Z95, cramers_v, effective_groups, largest_to_smallest, normalised_entropy, shares, total_variation, wilson,
};
use crate::{AuditError, Cube};

/// Which groupings an audit looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Lists of attributes to count by, e.g. `[[garment], [garment, colour]]`; default: each attribute, each pair, and
    /// all together.
    pub groupings: Option<Vec<Vec<String>>>,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// How many rows were counted.
    pub rows: u64,
    /// For each attribute, how many rows have no value.
    pub missing: Vec<MissingCount>,
    /// The groupings in the order asked for.
    pub groupings: Vec<Grouping>,
    /// For each pair of attributes, how strongly they go together.
    pub associations: Vec<Association>,
    /// Groupings of the default that have too many groups to list.
    pub left_out: Vec<LeftOut>,
}

/// How many rows have no value for an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCount {
    /// The attribute.
    pub attribute: String,
    /// Rows without a value for it.
    pub count: u64,
}

/// The groups of one grouping and how uneven they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grouping {
    /// The attributes that are counted by.
    pub attributes: Vec<String>,
    /// Every group of the cross product of observed values, sorted, empty groups included.
    pub groups: Vec<GroupCount>,
    /// The largest count over the smallest; none where a group is empty.
    pub largest_to_smallest: Option<f64>,
    /// 1 where all groups are equal, 0 where one holds everything.
    pub normalised_entropy: f64,
    /// How many equal groups would be as diverse.
    pub effective_groups: f64,
    /// The part of the rows that would have to change group to make all groups equal.
    pub total_variation: f64,
}

/// One group of a grouping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCount {
    /// The group.
    pub values: Group,
    /// Its rows.
    pub count: u64,
    /// Its rows over all rows.
    pub share: f64,
    /// The 95 % Wilson interval of the share.
    pub interval: [f64; 2],
}

/// How strongly two attributes go together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    /// The two attributes.
    pub attributes: [String; 2],
    /// Bias-corrected Cramér's V over the rows that have both values, 0 to 1; none where an attribute has fewer than
    /// two values.
    pub cramers_v: Option<f64>,
}

/// A grouping of the default that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The attributes of the grouping.
    pub attributes: Vec<String>,
    /// Why it was not made.
    pub reason: String,
}

/// Audits a cube.
///
/// A grouping named in the configuration that cannot be made is an error; one of the default that has too many groups
/// is listed in [`Audit::left_out`].
///
/// # Errors
/// [`AuditError::Empty`] where no row was counted; [`AuditError::UnknownAttribute`], [`AuditError::Repeated`] and
/// [`AuditError::TooManyGroups`] for groupings of the configuration.
pub fn audit(cube: &Cube, config: &AuditConfig) -> Result<Audit, AuditError> {
    if cube.rows() == 0 {
        return Err(AuditError::Empty);
    }
    let (mut groupings, mut left_out) = (Vec::new(), Vec::new());
    match &config.groupings {
        Some(asked) => {
            for attributes in asked {
                groupings.push(grouping(cube, attributes)?);
            }
        }
        None => {
            for attributes in default_groupings(cube.attributes()) {
                match grouping(cube, &attributes) {
                    Ok(grouping) => groupings.push(grouping),
                    Err(error @ AuditError::TooManyGroups { .. }) => {
                        left_out.push(LeftOut { attributes, reason: error.to_string() });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    let missing = cube.attributes().iter().map(|a| missing(cube, a)).collect::<Result<_, _>>()?;
    Ok(Audit { rows: cube.rows(), missing, groupings, associations: associations(cube)?, left_out })
}

/// Each attribute, each pair, and all together.
fn default_groupings(attributes: &[String]) -> Vec<Vec<String>> {
    let mut groupings: Vec<Vec<String>> = attributes.iter().map(|a| vec![a.clone()]).collect();
    groupings.extend(pairs(attributes).map(|(a, b)| vec![a.clone(), b.clone()]));
    if attributes.len() > 2 {
        groupings.push(attributes.to_vec());
    }
    groupings
}

fn pairs(attributes: &[String]) -> impl Iterator<Item = (&String, &String)> {
    attributes.iter().enumerate().flat_map(|(i, a)| attributes.iter().skip(i + 1).map(move |b| (a, b)))
}

fn grouping(cube: &Cube, attributes: &[String]) -> Result<Grouping, AuditError> {
    let (groups, counts): (Vec<Group>, Vec<u64>) = cube.roll_up(attributes)?.into_iter().unzip();
    let group_counts = groups.into_iter().zip(counts.iter().zip(shares(&counts)));
    let groups = group_counts.map(|(values, (&count, share))| GroupCount {
        values,
        count,
        share,
        interval: wilson(count, cube.rows(), Z95),
    });
    Ok(Grouping {
        attributes: attributes.to_vec(),
        groups: groups.collect(),
        largest_to_smallest: largest_to_smallest(&counts),
        normalised_entropy: normalised_entropy(&counts),
        effective_groups: effective_groups(&counts),
        total_variation: total_variation(&counts),
    })
}

fn missing(cube: &Cube, attribute: &str) -> Result<MissingCount, AuditError> {
    Ok(MissingCount { attribute: attribute.to_owned(), count: cube.count_of(attribute, MISSING)? })
}

fn associations(cube: &Cube) -> Result<Vec<Association>, AuditError> {
    let mut associations = Vec::new();
    for (a, b) in pairs(cube.attributes()) {
        let attributes = [a.clone(), b.clone()];
        match cube.roll_up(&attributes) {
            Ok(groups) => associations.push(Association { cramers_v: cramers_v(&table(&groups, a, b)), attributes }),
            // The pair stands in `left_out`, or was not asked for.
            Err(AuditError::TooManyGroups { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(associations)
}

/// The contingency table of a roll-up by `a` and `b`, rows without a value left out.
fn table(groups: &[(Group, u64)], a: &str, b: &str) -> Vec<Vec<u64>> {
    let mut table: Vec<Vec<u64>> = Vec::new();
    let mut last = None;
    for (group, count) in groups {
        let (row, column) = (group.get(a), group.get(b));
        if row == Some(MISSING) || column == Some(MISSING) {
            continue;
        }
        if row != last {
            table.push(Vec::new());
            last = row;
        }
        if let Some(cells) = table.last_mut() {
            cells.push(*count);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cube(attributes: &[&str], rows: &[(&[Option<&str>], usize)]) -> Cube {
        let mut cube = Cube::new(attributes.iter().map(|&a| a.to_owned()).collect()).unwrap();
        for (values, times) in rows {
            (0..*times).for_each(|_| cube.add(values).unwrap());
        }
        cube
    }

    fn names(groupings: &[Grouping]) -> Vec<String> {
        groupings.iter().map(|g| g.attributes.join("+")).collect()
    }

    #[test]
    fn the_json_has_one_object_for_each_group() {
        let cube = cube(&["a", "b"], &[(&[Some("x"), Some("y")], 7), (&[Some("z"), Some("y")], 3)]);
        let config = AuditConfig { groupings: Some(vec![vec!["a".into(), "b".into()]]) };
        let json = serde_json::to_value(audit(&cube, &config).unwrap()).unwrap();
        assert_eq!(json["rows"], 10);
        let grouping = &json["groupings"][0];
        assert_eq!(grouping["attributes"], serde_json::json!(["a", "b"]));
        let group = &grouping["groups"][0];
        assert_eq!(group["values"], serde_json::json!({"a": "x", "b": "y"}));
        assert_eq!((group["count"].as_u64(), group["share"].as_f64()), (Some(7), Some(0.7)));
        assert_eq!(group["interval"].as_array().unwrap().len(), 2);
        let back: Audit = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(back).unwrap(), json);
    }

    #[test]
    fn the_default_is_singles_pairs_and_the_full_cross() {
        let row: &[Option<&str>] = &[Some("1"), Some("2"), Some("3")];
        let found = audit(&cube(&["a", "b", "c"], &[(row, 1)]), &AuditConfig::default()).unwrap();
        assert_eq!(names(&found.groupings), ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]);
        let found = audit(&cube(&["a", "b"], &[(&row[..2], 1)]), &AuditConfig::default()).unwrap();
        assert_eq!(names(&found.groupings), ["a", "b", "a+b"]);
    }

    #[test]
    fn rows_without_a_value_are_counted_and_kept_out_of_associations() {
        let rows: &[(&[Option<&str>], usize)] = &[
            (&[Some("x"), Some("u")], 50),
            (&[Some("y"), Some("v")], 50),
            (&[None, Some("u")], 30),
            (&[Some("y"), None], 20),
        ];
        let found = audit(&cube(&["a", "b"], rows), &AuditConfig::default()).unwrap();
        assert_eq!(found.missing.iter().map(|m| m.count).collect::<Vec<_>>(), [30, 20]);
        let v = found.associations[0].cramers_v.unwrap();
        assert!((v - 1.0).abs() < 1e-12, "{v}");
    }

    #[test]
    fn a_default_grouping_that_is_too_large_is_left_out_and_an_asked_one_is_an_error() {
        let mut cube = Cube::new(vec!["age".into(), "weight".into()]).unwrap();
        for i in 0..1001 {
            let text = i.to_string();
            cube.add(&[Some(&text), Some(&text)]).unwrap();
        }
        let found = audit(&cube, &AuditConfig::default()).unwrap();
        assert_eq!(names(&found.groupings), ["age", "weight"]);
        assert_eq!(found.left_out[0].attributes, ["age", "weight"]);
        let config = AuditConfig { groupings: Some(vec![vec!["age".into(), "weight".into()]]) };
        assert!(matches!(audit(&cube, &config), Err(AuditError::TooManyGroups { .. })));
    }

    #[test]
    fn nothing_counted_and_unknown_keys_are_refused() {
        assert_eq!(audit(&cube(&["a"], &[]), &AuditConfig::default()), Err(AuditError::Empty));
        let error = serde_json::from_str::<AuditConfig>(r#"{"grouping":[["a"]]}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `grouping`"), "{error}");
    }
}
