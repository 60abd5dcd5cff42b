//! The dataset card: its front matter is YAML that says what was given, and no name can break out of its place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::Group;
use evenset_report::{CardData, CardGenerator, CardGroup, CardSplit, Feature, FeatureKind, dataset_card};
use saphyr::{LoadableYamlNode, Yaml};

fn feature(name: &str, kind: FeatureKind) -> Feature {
    Feature { name: name.into(), kind }
}

fn fashion() -> CardData {
    let group = |colour: &str| Group::new([("garment", "coat"), ("colour", colour)]).unwrap();
    CardData {
        name: "fashion, balanced".into(),
        license: "mit".into(),
        evenset: "0.1.0".into(),
        seed: 7,
        source: "data-samples/fashion".into(),
        features: vec![
            feature("image", FeatureKind::Image),
            feature("garment", FeatureKind::ClassLabel(vec!["coat".into(), "no".into(), "T-shirt: \"top\"".into()])),
            feature("is_synthetic", FeatureKind::Value("bool".into())),
        ],
        splits: vec![
            CardSplit {
                name: "train".into(),
                num_bytes: 900,
                num_examples: 1500,
                generated: 500,
                files: "data/train-*".into(),
            },
            CardSplit {
                name: "test".into(),
                num_bytes: 100,
                num_examples: 100,
                generated: 0,
                files: "data/test-*".into(),
            },
        ],
        download_size: 800,
        label: "garment".into(),
        grouping: vec!["garment".into(), "colour".into()],
        groups: vec![
            CardGroup { values: group("blue"), before: 900, generated: 0 },
            CardGroup { values: group("a|b <i>*"), before: 0, generated: 500 },
        ],
        target: "equal counts of colour within garment".into(),
        generator: Some(CardGenerator { model: "conditional small".into(), ..CardGenerator::default() }),
        gates: vec!["attributes: recognised as what was asked for".into()],
        candidates: 700,
        accepted: 500,
        evidence: None,
        other_formats: vec!["webdataset".into()],
    }
}

/// The text between the first two lines of `---`.
fn front_matter(card: &str) -> String {
    card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap().0.to_owned()
}

#[test]
fn the_front_matter_is_yaml_with_features_splits_and_sizes() {
    let text = front_matter(&dataset_card(&fashion()));
    let documents = Yaml::load_from_str(&text).unwrap();
    let yaml = &documents[0];
    assert_eq!(yaml["license"].as_str(), Some("mit"));
    assert_eq!(yaml["size_categories"][0].as_str(), Some("1K<n<10K"));
    assert_eq!(yaml["tags"][0].as_str(), Some("synthetic"));
    assert_eq!(yaml["configs"][0]["config_name"].as_str(), Some("default"));
    assert_eq!(yaml["configs"][0]["data_files"][1]["path"].as_str(), Some("data/test-*"));
    let info = &yaml["dataset_info"];
    assert_eq!(info["features"][0]["dtype"].as_str(), Some("image"));
    // `no` unquoted would be read as false by YAML 1.1.
    assert_eq!(info["features"][1]["dtype"]["class_label"]["names"]["1"].as_str(), Some("no"));
    assert_eq!(info["features"][1]["dtype"]["class_label"]["names"]["2"].as_str(), Some("T-shirt: \"top\""));
    assert!(text.contains("'1': \"no\""), "{text}");
    assert_eq!(info["splits"][0]["num_examples"].as_integer(), Some(1500));
    assert_eq!(info["download_size"].as_integer(), Some(800));
    assert_eq!(info["dataset_size"].as_integer(), Some(1000));
}

#[test]
fn the_card_says_what_was_added_to_which_group_and_how_to_load_it() {
    let card = dataset_card(&fashion());
    assert!(card.contains("500 generated images"), "{card}");
    assert!(card.contains("The other 1,100 images are real"), "{card}");
    assert!(card.contains("| coat | blue | 900 | 0 | 900 |"), "{card}");
    assert!(card.contains(r"| coat | a\|b &lt;i>\* | 0 | 500 | 500 |"), "{card}");
    assert!(card.contains(r#"load_dataset("parquet", data_files={"train": "data/train-*", "test": "data/test-*"})"#));
    assert!(card.contains("Of 700 candidates, 500 passed every check and are in this dataset"), "{card}");
    let more = dataset_card(&CardData { accepted: 520, ..fashion() });
    assert!(
        more.contains("520 passed every check, of which the 500 that fill the target are in this dataset"),
        "{more}"
    );
    assert!(card.contains("`is_synthetic`") && !card.contains("`prompt`"), "only columns that are there are explained");
    assert!(card.contains("was not measured"), "without evidence the card says so");
}

#[test]
fn names_from_strangers_cannot_end_the_front_matter_or_start_html() {
    let mut card = fashion();
    card.name = "x\n---\n<script>alert(1)</script>\u{85}\u{2028}\u{7f}".into();
    card.features[1].name = "a: [b\n- c".into();
    let text = dataset_card(&card);
    let documents = Yaml::load_from_str(&front_matter(&text)).unwrap();
    assert_eq!(documents[0]["pretty_name"].as_str(), Some(card.name.as_str()));
    assert_eq!(documents[0]["dataset_info"]["features"][1]["name"].as_str(), Some("a: [b\n- c"));
    let body = text.splitn(3, "---\n").nth(2).unwrap();
    assert!(!body.contains("<script"), "{body}");
}

#[test]
fn a_card_of_nothing_is_still_a_card() {
    let text = dataset_card(&CardData::default());
    assert!(Yaml::load_from_str(&front_matter(&text)).is_ok());
    assert_eq!(text, dataset_card(&CardData::default()));
}
