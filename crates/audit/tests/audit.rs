//! Audits of small tables, end to end: what a reader of the figures relies on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use evenset_audit::statistics::Direction;
use evenset_audit::{Audit, AuditConfig, AuditError, CoverageConfig, Cube, Intervals, Reference, audit, compare};
use evenset_core::{Group, Seed};
use evenset_data::LabelColumn;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A cube of rows that each stand for a number of rows; an empty value is a missing one.
fn cube<V: AsRef<[&'static str]>>(attributes: &[&str], rows: &[(V, u64)]) -> Cube {
    let mut cube = Cube::new(names(attributes)).unwrap();
    for (values, count) in rows {
        let column = |&value: &&'static str| LabelColumn::of([Some(value).filter(|value| !value.is_empty())]);
        let columns: Vec<_> = values.as_ref().iter().map(column).collect();
        cube.add_columns(&columns, Some(&[*count])).unwrap();
    }
    cube
}

fn garments() -> Cube {
    let rows = [
        (["coat", "yellow"], 92),
        (["coat", "blue"], 4),
        (["bag", "blue"], 60),
        (["bag", "yellow"], 30),
        (["bag", ""], 14),
    ];
    cube(&["garment", "colour"], &rows)
}

fn plain(cube: &Cube, config: &AuditConfig) -> Result<Audit, AuditError> {
    audit(cube, config, Some("garment"), None, Seed(1))
}

#[test]
fn the_default_counts_single_attributes_pairs_and_the_full_cross() {
    let found = plain(&garments(), &AuditConfig::default()).unwrap();
    let attributes: Vec<_> = found.groupings.iter().map(|grouping| grouping.attributes.join("+")).collect();
    assert_eq!(attributes, ["garment", "colour", "garment+colour"]);
    assert_eq!((found.rows, found.missing[1].count), (200, 14));
    let colours: Vec<_> = found.groupings[1].groups.iter().map(|g| (g.values.to_string(), g.count)).collect();
    let expected = [("colour=blue", 64), ("colour=yellow", 122), ("colour=(missing)", 14)];
    assert_eq!(colours, expected.map(|(name, n)| (name.to_owned(), n)));
}

#[test]
fn the_json_has_the_promised_shape() {
    let found = plain(&garments(), &AuditConfig::default()).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    let group = &json["groupings"][2]["groups"][1];
    assert_eq!(group["values"], serde_json::json!({"garment": "bag", "colour": "yellow"}));
    assert_eq!((group["count"].as_u64(), group["share"].as_f64()), (Some(30), Some(0.15)));
    assert!(group["interval"][0].as_f64() < Some(0.15) && group["interval"][1].as_f64() > Some(0.15));
    let coverage = &json["coverage"];
    assert_eq!((coverage["threshold"].as_u64(), coverage["max_level"].as_u64()), (Some(30), Some(2)));
    let pattern = serde_json::json!({"pattern": {"garment": "coat", "colour": "blue"}, "level": 2, "count": 4});
    assert_eq!(coverage["uncovered"], serde_json::json!([pattern]));
    assert_eq!(serde_json::from_value::<Audit>(json).unwrap(), found);
}

#[test]
fn missing_values_are_no_group_that_should_have_a_share() {
    let found = plain(&garments(), &AuditConfig::default()).unwrap();
    let distance = found.groupings[1].distance.as_ref().unwrap();
    assert_eq!(distance.reference, "uniform");
    // Shares 64, 122 and 14 of 200 against a half, a half and nothing.
    let expected = ((0.5 - 0.32) + (0.61 - 0.5) + 0.07) / 2.0;
    assert!((distance.distances.total_variation.value - expected).abs() < 1e-12);
    assert!(distance.distances.kullback_leibler.is_none());
}

#[test]
fn goodmans_intervals_are_wider_than_wilsons() {
    let config = AuditConfig { intervals: Intervals::Goodman, ..AuditConfig::default() };
    let (wilson, goodman) =
        (plain(&garments(), &AuditConfig::default()).unwrap(), plain(&garments(), &config).unwrap());
    for (w, g) in wilson.groupings[2].groups.iter().zip(&goodman.groupings[2].groups) {
        assert!(g.interval[0] <= w.interval[0] && g.interval[1] >= w.interval[1]);
    }
}

#[test]
fn a_label_tied_to_an_attribute_shows_in_every_figure_of_the_pair() {
    let found = plain(&garments(), &AuditConfig::default()).unwrap();
    let pair = &found.associations[0];
    assert_eq!(pair.rows, 186);
    assert!(pair.cramers_v.unwrap() > 0.6 && pair.test.as_ref().unwrap().p < 1e-10);
    let cell = pair.cells.iter().find(|cell| cell.values.to_string() == "garment=coat & colour=yellow").unwrap();
    assert_eq!((cell.count, cell.direction), (92, Direction::Over));
    assert!(cell.npmi > 0.0 && cell.q < 1e-10);
    let parity = found.parity.iter().find(|parity| parity.label.to_string() == "garment=coat").unwrap();
    assert_eq!((parity.highest.to_string(), parity.lowest.to_string()), ("colour=yellow".into(), "colour=blue".into()));
    assert!((parity.difference - (92.0 / 122.0 - 4.0 / 64.0)).abs() < 1e-12);
}

#[test]
fn berkeleys_admissions_turn_around_within_departments() {
    // P. J. Bickel, E. A. Hammel, J. W. O'Connell, "Sex bias in graduate admissions", Science 187 (1975).
    let departments = [
        ("A", [512, 313, 89, 19]),
        ("B", [353, 207, 17, 8]),
        ("C", [120, 205, 202, 391]),
        ("D", [138, 279, 131, 244]),
        ("E", [53, 138, 94, 299]),
        ("F", [22, 351, 24, 317]),
    ];
    let kinds = [("male", "admitted"), ("male", "rejected"), ("female", "admitted"), ("female", "rejected")];
    let rows = departments.iter().flat_map(|(department, counts)| {
        kinds.iter().zip(counts).map(move |((sex, outcome), count)| ([*sex, *outcome, *department], *count))
    });
    let cube = cube(&["sex", "outcome", "department"], &rows.collect::<Vec<_>>());
    let found = audit(&cube, &AuditConfig::default(), Some("outcome"), None, Seed(0)).unwrap();
    let by_department: Vec<_> = found.reversals.iter().filter(|r| r.within == "department").collect();
    assert_eq!(by_department.len(), 1);
    let reversal = by_department[0];
    assert_eq!(reversal.values.to_string(), "sex=female & outcome=admitted");
    assert_eq!(reversal.marginal_direction, Direction::Under);
    assert!((reversal.marginal_odds_ratio - 1.0 / 1.84).abs() < 0.01);
    assert!((reversal.pooled.odds_ratio.unwrap() - 1.0 / 0.9047).abs() < 1e-3);
    assert!((reversal.pooled.p - 0.2169).abs() < 1e-3 && !reversal.pooled_is_significant);
}

#[test]
fn values_that_no_row_has_are_listed_when_they_are_declared() {
    let config = AuditConfig {
        values: [("colour".to_owned(), names(&["red"]))].into(),
        coverage: CoverageConfig { threshold: 5.0, max_level: 1 },
        ..AuditConfig::default()
    };
    let found = plain(&garments(), &config).unwrap();
    assert!(found.groupings[1].groups.iter().any(|g| g.values.to_string() == "colour=red" && g.count == 0));
    assert_eq!(found.coverage.uncovered[0].pattern, Group::of("colour", "red"));
}

#[test]
fn a_reference_gives_every_group_its_share_and_lists_who_is_missing_altogether() {
    let shares = [("blue", 0.5), ("yellow", 0.3), ("red", 0.2)].map(|(value, share)| (value.to_owned(), share));
    let reference = Reference::Shares([("colour".to_owned(), BTreeMap::from(shares))].into());
    let found = audit(&garments(), &AuditConfig::default(), None, Some(&reference), Seed(1)).unwrap();
    let colours = &found.groupings[1];
    assert_eq!(colours.distance.as_ref().unwrap().reference, "the given shares");
    let red = colours.groups.iter().find(|group| group.values.get("colour") == Some("red")).unwrap();
    assert_eq!((red.count, red.reference), (0, Some(0.2)));
    assert_eq!(found.groupings[0].distance.as_ref().unwrap().reference, "uniform");

    let people = [(["coat", "blue"], 500), (["bag", "blue"], 250), (["bag", "yellow"], 250)];
    let reference = Reference::Population { name: "census".into(), cube: cube(&["garment", "colour"], &people) };
    let found = audit(&garments(), &AuditConfig::default(), None, Some(&reference), Seed(1)).unwrap();
    let cross: Vec<_> = found.groupings[2].groups.iter().map(|group| group.reference.unwrap()).collect();
    assert_eq!(cross, [0.25, 0.25, 0.0, 0.5, 0.0, 0.0]);
}

#[test]
fn a_reference_without_the_datas_values_is_refused_with_both_lists() {
    let shares = [("blue".to_owned(), 1.0)].into();
    let reference = Reference::Shares([("colour".to_owned(), shares)].into());
    let error = audit(&garments(), &AuditConfig::default(), None, Some(&reference), Seed(1)).unwrap_err().to_string();
    assert!(error.contains("no share to `yellow` of `colour`; it knows `blue`"), "{error}");
}

#[test]
fn two_datasets_are_compared_group_by_group() {
    let before = garments();
    let rows = [(["blue", "coat", "s"], 90), (["yellow", "coat", "s"], 92), (["red", "bag", "m"], 7)];
    let after = cube(&["colour", "garment", "size"], &rows);
    let found = compare([("before", &before), ("after", &after)], &AuditConfig::default(), Seed(3)).unwrap();
    assert_eq!((found.rows, found.groupings.len()), ([200, 189], 3));
    let lonely: Vec<_> = found.only_in_one.iter().map(|v| (v.value.to_string(), v.dataset.as_str(), v.count)).collect();
    assert_eq!(lonely, [("colour=red".to_owned(), "after", 7)]);
    assert_eq!(found.left_out[0].attributes, ["size"]);
    let cross = &found.groupings[2];
    let coats = cross.groups.iter().find(|g| g.values.to_string() == "garment=coat & colour=blue").unwrap();
    assert_eq!(coats.counts, [4, 90]);
    assert!((coats.difference - (4.0 / 200.0 - 90.0 / 189.0)).abs() < 1e-12 && coats.q.unwrap() < 1e-6);
    // One group in 9,999 random tables is the smallest p value that these can give.
    assert!(cross.test.as_ref().unwrap().p < 1.1e-4);
    let same = compare([("a", &before), ("b", &before)], &AuditConfig::default(), Seed(3)).unwrap();
    assert!(same.groupings.iter().all(|g| g.distances.as_ref().unwrap().total_variation.value == 0.0));
    assert!(same.groupings.iter().flat_map(|g| &g.groups).all(|g| g.q.is_none_or(|q| q > 0.99)));
    let other = cube(&["size"], &[(["s"], 1)]);
    let error = compare([("a", &before), ("b", &other)], &AuditConfig::default(), Seed(3)).unwrap_err();
    assert!(matches!(error, AuditError::NothingShared { .. }));
}

#[test]
fn the_same_counts_give_the_same_audit_in_any_order_of_rows_and_any_number_of_threads() {
    let build = |order: &mut dyn Iterator<Item = u64>| {
        let mut cube = Cube::new(names(&["a", "b", "c"])).unwrap();
        for i in order {
            let values = [format!("v{}", i * i % 7), format!("w{}", i % 5), format!("x{}", i * 3 % 4)];
            let columns: Vec<_> = values.iter().map(|value| LabelColumn::of([Some(value.as_str())])).collect();
            cube.add_columns(&columns, Some(&[1 + i % 3])).unwrap();
        }
        cube
    };
    let audited = |cube: Cube, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| audit(&cube, &AuditConfig::default(), Some("a"), None, Seed(9)).unwrap())
    };
    assert_eq!(audited(build(&mut (0..300)), 1), audited(build(&mut (0..300).rev()), 3));
}

#[test]
fn a_value_without_a_row_is_not_listed() {
    let column = LabelColumn { values: vec![None, Some("x".into()), Some("unused".into())], codes: vec![1, 1, 1] };
    let mut cube = Cube::new(names(&["a"])).unwrap();
    cube.add_columns(&[column], None).unwrap();
    assert_eq!(cube.values("a").unwrap(), ["x"]);
    let wrong = LabelColumn { values: vec![Some("x".into())], codes: vec![1] };
    assert_eq!(cube.add_columns(&[wrong], None), Err(AuditError::Ragged));
}

#[test]
fn an_empty_table_is_a_clear_error() {
    let empty = Cube::new(names(&["a"])).unwrap();
    assert_eq!(audit(&empty, &AuditConfig::default(), None, None, Seed(0)), Err(AuditError::Empty));
}

#[test]
fn counts_that_overflow_are_refused() {
    let mut cube = cube(&["a"], &[(["x"], u64::MAX)]);
    let error = cube.add_columns(&[LabelColumn::of([Some("y")])], Some(&[1])).unwrap_err();
    assert!(error.to_string().contains("too many rows to count"), "{error}");
}

#[test]
fn an_attribute_with_very_many_values_asks_for_bins() {
    let mut cube = Cube::new(names(&["name"])).unwrap();
    let texts: Vec<String> = (0..100_001).map(|i| format!("person {i}")).collect();
    let column = LabelColumn::of(texts.iter().map(|text| Some(text.as_str())));
    let error = cube.add_columns(&[column], None).unwrap_err().to_string();
    assert!(error.contains("`name` has more than 100000 different values") && error.contains("bins"), "{error}");
}
