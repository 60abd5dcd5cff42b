//! `evenset plan` from outside: several targets, contradictions, limits, prompts, surplus and price.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{fail, run, shapes, succeed};

/// Colours of two garments, very unevenly.
fn garments(folder: &Path, plan: &str) {
    let mut table = "garment,colour\n".to_owned();
    for (garment, colour, rows) in [("coat", "blue", 12), ("coat", "red", 90), ("bag", "blue", 60), ("bag", "red", 30)]
    {
        table.push_str(&format!("{garment},{colour}\n").repeat(rows));
    }
    std::fs::write(folder.join("labels.csv"), table).unwrap();
    let dataset = "dataset: {path: labels.csv, label: garment, attributes: [colour]}";
    std::fs::write(folder.join("job.yaml"), format!("{dataset}\nplan: {plan}\n")).unwrap();
}

fn plan(folder: &Path, text: &str) -> Value {
    garments(folder, text);
    serde_json::from_str(&succeed(folder, &["plan", "job.yaml", "--json"])).unwrap()
}

/// The first block of this language in a page of the documentation.
fn block(page: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_jobs_for_your_own_images_plan_on_images_laid_out_as_their_page_says() {
    let folder = tempfile::tempdir().unwrap();
    for (split, images) in [("train", 9), ("test", 4)] {
        let path = folder.path().join("photos").join(split);
        std::fs::create_dir_all(&path).unwrap();
        let rows = (0..images).map(|i| {
            let name = format!("{i:04}.jpg");
            support::picture("disc", [200, 20 * i as u8, 40], i + 1000 * u32::from(split == "test"), 16)
                .save(path.join(&name))
                .unwrap();
            let (animal, ground) = (["cat", "dog"][i as usize % 2], ["grass", "snow"][usize::from(i % 4 == 1)]);
            format!(r#"{{"file_name": "{name}", "animal": "{animal}", "ground": "{ground}", "season": "summer"}}"#)
        });
        std::fs::write(path.join("metadata.jsonl"), rows.collect::<Vec<_>>().join("\n")).unwrap();
    }
    for page in ["docs/your-own-images.md", "README.md"] {
        std::fs::write(folder.path().join("animals.yaml"), block(page, "yaml")).unwrap();
        assert!(succeed(folder.path(), &["audit", "animals.yaml"]).contains("season"), "{page}");
        let planned =
            succeed(folder.path(), &["plan", "animals.yaml"]).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(planned.contains("images to generate") && !planned.contains("no evidence"), "{page}: {planned}");
    }
}

#[test]
fn the_json_has_the_promised_shape() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path(), "{target: {type: at-least, images: 49}}");
    assert_eq!((plan["images"].as_u64(), plan["optimal"].as_bool()), (Some(37 + 19), Some(true)));
    let group = plan["groups"].as_array().unwrap().iter().find(|g| g["values"]["garment"] == "coat").unwrap();
    assert_eq!(
        (group["values"]["colour"].as_str(), group["count"].as_u64(), group["add"].as_u64()),
        (Some("blue"), Some(12), Some(37))
    );
    assert_eq!(
        (plan["targets"][0]["type"].as_str(), plan["targets"][0]["satisfied"].as_bool()),
        (Some("at-least"), Some(true))
    );
}

#[test]
fn several_targets_are_reached_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{target: [{type: at-least, images: 40}, {type: parity, of: colour}]}";
    let plan = plan(folder.path(), text);
    let after = |colour: &str| -> u64 {
        let groups = plan["groups"].as_array().unwrap().iter().filter(|g| g["values"]["colour"] == colour);
        groups.map(|g| g["count"].as_u64().unwrap() + g["add"].as_u64().unwrap()).sum()
    };
    assert_eq!(after("blue"), after("red"));
    assert!(plan["targets"].as_array().unwrap().iter().all(|target| target["satisfied"] == true), "{plan}");
    // 130 reds at least (10 bags more), and 58 blues more to be as many: 68.
    assert_eq!((plan["images"].as_u64(), plan["optimal"].as_bool()), (Some(68), Some(true)));
}

#[test]
fn targets_that_contradict_each_other_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{target: [{type: parity, of: colour}, {type: match, of: colour, shares: {blue: 0.7, red: 0.3}}]}";
    garments(folder.path(), text);
    let error = fail(folder.path(), &["plan", "job.yaml"], 2);
    assert!(error.contains("parity") && error.contains("match"), "{error}");
}

#[test]
fn a_limit_that_binds_is_named_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    garments(folder.path(), "{target: {type: at-least, images: 49}, limits: {images: 20}}");
    let output = run(folder.path(), &["plan", "job.yaml"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("limits.images"), "{text}");
}

#[test]
fn the_shares_of_a_target_are_read_from_a_table() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("world.csv"), "colour,count\nblue,3000\nred,1000\n").unwrap();
    let plan = plan(folder.path(), "{target: {type: match, of: colour, file: world.csv}}");
    // 120 reds are to be a quarter: 360 blues, 288 more than there are; within one image of the share.
    let images = plan["images"].as_u64().unwrap();
    assert!((285..=288).contains(&images), "{images}");
}

#[test]
fn requests_have_prompts_that_use_every_wording_equally_often() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
  target: {type: at-least, images: 49}
  prompts:
    template: ['a photo of {a colour} {garment} {place}']
    phrases: {colour: {blue: [blue, azure]}}
    words: {place: ['in a street', 'on a table']}
    negative: blurry";
    garments(folder.path(), text);
    succeed(folder.path(), &["plan", "job.yaml"]);
    let folders = std::fs::read_dir(folder.path().join("runs/job")).unwrap().map(|entry| entry.unwrap().path());
    let plan =
        folders.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("plan-")).unwrap();
    let file = std::fs::File::open(plan.join("requests.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut prompts = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name("prompt").unwrap();
        let texts = column.as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
        prompts.extend(texts.iter().map(|text| text.unwrap().to_owned()));
    }
    assert_eq!(prompts.len(), 37 + 19);
    let with = |word: &str| prompts.iter().filter(|prompt| prompt.contains(word)).count() as i64;
    assert!((with("azure") - with("a blue")).abs() <= 1, "{prompts:?}");
    assert!((with("in a street") - with("on a table")).abs() <= 2);
    assert!(prompts.contains(&"a photo of an azure coat in a street".to_owned()), "{prompts:?}");
    let bad = "{target: {type: at-least, images: 49}, prompts: {template: ['a {colur}']}}";
    garments(folder.path(), bad);
    let error = fail(folder.path(), &["plan", "job.yaml"], 2);
    assert!(error.contains("colur") && error.contains("colour"), "{error}");
}

#[test]
fn surplus_is_left_out_of_the_written_dataset() {
    let folder = tempfile::tempdir().unwrap();
    shapes(folder.path(), 12, 4, 2, 16);
    let text = "name: shapes
dataset: {path: shapes, label: shape, attributes: [colour]}
audit: {images: false}
plan: {target: {type: parity}, surplus: remove}
write: {formats: [parquet]}
";
    std::fs::write(folder.path().join("job.yaml"), text).unwrap();
    let plan: Value = serde_json::from_str(&succeed(folder.path(), &["plan", "job.yaml", "--json"])).unwrap();
    assert_eq!((plan["images"].as_u64(), plan["groups"][0]["remove"].as_u64()), (Some(0), Some(8)));
    succeed(folder.path(), &["write", "job.yaml"]);
    let audit = succeed(folder.path(), &["audit", "out/shapes", "--split", "train", "--by", "shape,colour", "--json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let cross = audit["groupings"].as_array().unwrap().last().unwrap()["groups"].as_array().unwrap();
    assert!(cross.iter().all(|group| group["count"] == 4), "{cross:?}");
}

#[test]
fn a_dry_run_prices_the_plan_and_spends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    shapes(folder.path(), 12, 4, 2, 16);
    support::job(folder.path(), "");
    let text = succeed(folder.path(), &["run", "job.yaml", "--dry-run"]);
    assert!(text.contains("candidates to draw") && text.contains("nothing was trained"), "{text}");
    assert!(!folder.path().join("out").exists());
    let json = succeed(folder.path(), &["plan", "job.yaml", "--json", "--dry-run"]);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert!(plan["price"]["seconds"].as_f64().unwrap() > 0.0, "{json}");
}
