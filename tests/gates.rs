//! The gates and the evidence as a job meets them: programs, groups that cannot be filled, biased gates, guides, test
//! images that are no test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::File;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::{fail, job, of_stage, run, shapes, stages, stderr, succeed};

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|batch| batch.unwrap()).collect()
}

/// A gate that drops every image of a group and keeps all others.
const AGAINST_RED_DISCS: &str = r#"verify.gates=[{type: command, run: [sh, -c, "sed -E 's/.*\"index\":([0-9]+).*(disc.*red|red.*disc).*/{\"index\":\\1,\"keep\":false,\"reason\":\"no red discs\"}/; s/^\\{\"index\":([0-9]+),\"group.*/{\"index\":\\1,\"keep\":true}/'"]}]"#;

#[cfg(unix)]
#[test]
fn a_group_that_a_program_never_accepts_is_given_up_with_its_reason() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 4, 4, 16);
    job(root.path(), "");
    let set = ["--set", AGAINST_RED_DISCS, "--set", "verify.floor=0.2", "--set", "verify.keep_rejected=5"];
    let output = run(root.path(), &[&["verify", "job.yaml", "--json"], &set[..]].concat());
    assert_eq!(output.status.code(), Some(3), "a target was missed: {}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = found["groups"].as_array().unwrap();
    let of = |name: &str| groups.iter().find(|group| group["group"].to_string().contains(name)).unwrap();
    let (red, blue) = (of("\"red\""), of("\"blue\""));
    assert_eq!((red["accepted"].as_u64(), red["dropped"]["command"].as_u64()), (Some(0), red["requested"].as_u64()));
    let why = red["unreachable"].as_str().unwrap();
    assert!(why.contains("under the floor of 20.0 %") && why.contains("dropped by command"), "{why}");
    assert_eq!((blue["accepted"].as_u64(), blue["unreachable"].is_null()), (blue["add"].as_u64(), true));

    let kept: usize = read(&of_stage(&root.path().join("runs/shapes"), "verify-1").join("rejected.parquet"))
        .iter()
        .map(|b| b.num_rows())
        .sum();
    assert_eq!(kept, 5, "rejected images are kept for review, but no more than the job says");
    let rejected = &read(&of_stage(&root.path().join("runs/shapes"), "verify-1").join("rejected.parquet"))[0];
    let reason = rejected.column_by_name("reject_reason").unwrap().as_string::<i32>();
    assert_eq!(reason.value(0), "command: no red discs");

    let error = fail(root.path(), &[&["write", "job.yaml", "--set", "verify.on_bias=fail"], &set[..]].concat(), 1);
    assert!(error.contains("shape=disc & colour=red") && error.contains("verify.on_bias"), "{error}");
    assert!(!root.path().join("out").exists(), "nothing is written");
}

#[cfg(unix)]
#[test]
fn a_program_that_hangs_crashes_or_talks_nonsense_is_named() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    for (script, expected) in
        [("sleep 30", "1 second"), ("echo broken >&2; exit 7", "7"), ("cat > /dev/null; echo hello", "hello")]
    {
        let gate = format!("verify.gates=[{{type: command, run: [sh, -c, '{script}'], timeout: 1}}]");
        let error = fail(root.path(), &["verify", "job.yaml", "--set", &gate], 1);
        assert!(error.contains("sh -c") && error.contains(expected), "{script}: {error}");
    }
    let gate = "verify.gates=[{type: command, run: [sh, -c, 'exit 7'], on_error: keep}]";
    let output = run(root.path(), &["verify", "job.yaml", "--set", gate]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("images are kept unchecked (`on_error: keep`)"), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("accepted without a check by the gate `command`"), "{said}");
}

#[test]
fn gates_that_cannot_be_used_end_the_run_before_a_generator_is_trained() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 4, 4, 16);
    job(root.path(), "");
    let clip = "[{type: attributes, recognisers: [{type: clip, path: no/clip, prompts: {color: 'a {value} shape'}}]}]";
    for (gates, expected) in [
        ("[{type: command, run: [no-such-program-anywhere]}]", "no-such-program-anywhere"),
        ("[{type: command, run: [sh, no/judge.sh]}]", "there is no `no/judge.sh`"),
        ("[{type: safety, model: no/checker}]", "no/checker"),
        (&clip.replace("color", "colour"), "no CLIP or SigLIP model here"),
        (clip, "did you mean `colour`"),
    ] {
        let gates = format!("verify.gates={gates}");
        let error = fail(root.path(), &["run", "job.yaml", "--set", &gates], 2);
        assert!(error.contains(expected), "{error}");
        assert!(
            !stages(&root.path().join("runs/shapes")).iter().any(|name| name.starts_with("model")),
            "{:?}",
            stages(&root.path().join("runs/shapes"))
        );
        let planned = succeed(root.path(), &["plan", "job.yaml", "--set", &gates]);
        let planned = planned.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(planned.contains("`run` would end before it generates") && planned.contains(expected), "{planned}");
    }
    // Nor does a generator that is there already draw for them.
    run(root.path(), &["generate", "job.yaml"]);
    let before = stages(&root.path().join("runs/shapes"));
    fail(root.path(), &["run", "job.yaml", "--set", "verify.gates=[{type: command, run: [sh, no/judge.sh]}]"], 2);
    assert_eq!(stages(&root.path().join("runs/shapes")), before);
    for (gates, expected) in [
        ("[decode, {type: safety}]", "verify.gates.1`: the gate `safety` needs one model"),
        ("[novelty, decode, novelty]", "verify.gates.2`: the gate `novelty` stands twice"),
        ("[{type: attributes, only: [color]}]", "`only` color, and images are asked for by shape, colour"),
    ] {
        let error = fail(root.path(), &["plan", "job.yaml", "--set", &format!("verify.gates={gates}")], 2);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn too_few_real_images_to_calibrate_are_said_with_how_many_are_needed() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let gate = "verify.gates=[{type: attributes, false_accept: 0.01, steps: 20, width: 4}]";
    let output = run(root.path(), &["verify", "job.yaml", "--set", gate, "--set", "verify.rounds=1"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("6 held-out images of other values; 99 are needed for a false-accept rate of 1 %"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_script_that_changes_is_asked_again_and_another_number_of_kept_images_changes_no_round() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let judge = |keep: &str| {
        let script = format!(r#"i=0; while read line; do echo "{{\"index\":$i,\"keep\":{keep}}}"; i=$((i+1)); done"#);
        std::fs::write(root.path().join("judge.sh"), script).unwrap();
    };
    let gates = ["--set", "verify.gates=[{type: command, run: [sh, judge.sh]}]", "--set", "verify.rounds=2"];
    let verified = |more: &[&str], code| {
        let output = run(root.path(), &[&["verify", "job.yaml"], &gates[..], more].concat());
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    };
    judge("false");
    verified(&[], 3);
    let before = stages(&root.path().join("runs/shapes"));
    let path = of_stage(&root.path().join("runs/shapes"), "verify-1").join("rejected.parquet");
    let rejected = || -> usize { read(&path).iter().map(|batch| batch.num_rows()).sum() };
    assert!(rejected() > 3);
    verified(&["--set", "verify.keep_rejected=3"], 3);
    assert_eq!((stages(&root.path().join("runs/shapes")), rejected()), (before.clone(), 3));
    judge("true");
    verified(&[], 0);
    assert!(stages(&root.path().join("runs/shapes")).len() > before.len(), "another script is another verifier");
}

#[test]
fn candidates_of_small_groups_start_from_real_images_that_are_named() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 4, 4, 16);
    job(root.path(), "");
    let guides = "generate.guides={below: 10, strengths: [0.4, 0.8], noise: false, guidances: [1, 2]}";
    succeed(root.path(), &["write", "job.yaml", "--set", guides]);
    let mut guided = 0;
    for batch in read(&root.path().join("out/shapes/data/train-00000-of-00001.parquet")) {
        let made = batch.column_by_name("is_synthetic").unwrap().as_boolean();
        let source = batch.column_by_name("source_id").unwrap();
        let real: std::collections::BTreeSet<String> = (0..batch.num_rows())
            .filter(|&row| !made.value(row))
            .map(|row| source.as_string::<i32>().value(row).to_owned())
            .collect();
        for row in (0..batch.num_rows()).filter(|&row| made.value(row)) {
            assert!(real.contains(source.as_string::<i32>().value(row)), "a guide is a real training image");
            guided += 1;
        }
    }
    assert_eq!(guided, 40);
    let checks =
        std::fs::read_to_string(of_stage(&root.path().join("runs/shapes"), "checks").join("checks.json")).unwrap();
    let checks: serde_json::Value = serde_json::from_str(&checks).unwrap();
    let ways = checks["guides"].as_array().unwrap();
    assert_eq!(ways.len(), 2 * 2 * 2, "two sources, two strengths, two guidances");
    let started: u64 = ways.iter().map(|way| way[1]["shown"].as_u64().unwrap()).sum();
    let kept: u64 = ways.iter().map(|way| way[1]["kept"].as_u64().unwrap()).sum();
    assert!(kept >= 40 && started >= kept, "{kept} of {started}");
    assert!(ways[0][0].as_str().unwrap().contains("same-group at strength 0.4, guidance 1"), "{}", ways[0]);
}

#[test]
fn a_test_split_that_repeats_the_training_split_proves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dataset = shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    for entry in std::fs::read_dir(dataset.join("test")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "png") {
            std::fs::copy(dataset.join("train").join(path.file_name().unwrap()), &path).unwrap();
        }
    }
    let refused = "no evidence: 16 of 16 test images stand";
    let error = fail(root.path(), &["evidence", "job.yaml"], 1);
    assert!(error.contains(refused), "{error}");
    let output = run(root.path(), &["evidence", "job.yaml", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["evidence"].is_null() && found["reason"].as_str().unwrap().contains(refused), "{found}");
    assert!(!root.path().join("out").exists(), "refused before anything is trained");

    succeed(root.path(), &["run", "job.yaml"]);
    let report = succeed(root.path(), &["report", "runs/shapes", "--json"]);
    assert!(report.contains(refused) && !report.contains("the evidence does without them"), "{report}");
}

#[test]
fn groups_that_do_not_fix_the_label_prove_nothing() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let set = ["--set", "plan.grouping=[colour]", "--set", "plan.target.images=48"];
    let said = succeed(root.path(), &[&["evidence", "job.yaml", "--json"], &set[..]].concat());
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let reason = found["reason"].as_str().unwrap();
    assert!(found["evidence"].is_null() && reason.contains("do not fix the label `shape`"), "{found}");
    assert!(reason.contains("`plan.grouping: [shape, colour]`") && found["notes"][0] == found["reason"], "{found}");
}

#[test]
fn what_a_test_split_cannot_show_is_said_beside_the_verdict() {
    let root = tempfile::tempdir().unwrap();
    let dataset = shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let metadata = dataset.join("test/metadata.jsonl");
    let rows = std::fs::read_to_string(&metadata).unwrap();
    let discs: String = rows.lines().filter(|row| row.contains("\"disc\"")).map(|row| format!("{row}\n")).collect();
    std::fs::write(&metadata, discs).unwrap();
    for entry in std::fs::read_dir(dataset.join("test")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("square") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let said = succeed(root.path(), &["evidence", "job.yaml"]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("No test image shows \u{201c}square\u{201d}: the figures say nothing of that."), "{said}");
    assert!(said.contains("No group has 10 test images (`evidence.smallest_group`)"), "{said}");
    // The run is not at its report yet.
    let error = fail(root.path(), &["report", "runs/shapes"], 2);
    assert!(error.contains("has no report yet") && error.contains("evenset report JOB"), "{error}");
    let report = succeed(root.path(), &["report", "job.yaml", "--json"]);
    assert!(report.contains("\"untested\"") && report.contains("\"all_below\": 10"), "{report}");
}

#[test]
fn what_stands_in_the_way_of_evidence_is_said_before_any_work_unless_the_job_does_without() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    std::fs::remove_dir_all(root.path().join("shapes/test")).unwrap();
    job(root.path(), "");
    let ahead = "the run will have no evidence: the dataset has no test split";
    let planned = succeed(root.path(), &["plan", "job.yaml"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(planned.contains(ahead) && planned.contains("`evidence: false`"), "{planned}");
    // It is said although the run ends soon after.
    let early = ["--set", "verify.gates=[{type: command, run: [no-such-program-anywhere]}]"];
    let said = fail(root.path(), &[&["run", "job.yaml"], &early[..]].concat(), 2);
    assert!(said.contains(ahead) && said.contains("dataset.splits"), "{said}");

    let without = ["--set", "evidence=false"];
    let planned = succeed(root.path(), &[&["plan", "job.yaml"], &without[..]].concat());
    assert!(!planned.contains("no evidence"), "{planned}");
    let output = run(root.path(), &[&["run", "job.yaml"], &without[..]].concat());
    assert!(output.status.success() && !stderr(&output).contains("no evidence"), "{}", stderr(&output));
    let report = succeed(root.path(), &["report", "runs/shapes", "--json"]);
    assert!(!report.contains("no evidence"), "{report}");
    let asked = succeed(root.path(), &[&["evidence", "job.yaml"], &without[..]].concat());
    assert!(asked.contains("no evidence: the job does without (`evidence: false`)"), "{asked}");
}

#[test]
fn a_linear_classifier_without_a_gate_that_sees_is_a_note_and_with_one_judges_rounds_too() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 40, 20, 12, 16);
    job(root.path(), "");
    let settings = [
        "evidence.classifier=linear",
        "evidence.seeds=5",
        "evidence.smallest_group=2",
        "plan.target.images=40",
        "verify.stop_at_plateau=true",
    ];
    let linear: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let said = succeed(root.path(), &[&["evidence", "job.yaml"], &linear[..]].concat());
    assert!(said.contains("no evidence: the classifier `linear` looks at"), "{said}");
    let gate = ["--overwrite", "--set", "verify.gates=[{type: attributes, threshold: 0, steps: 30}]"];
    let output = run(root.path(), &[&["evidence", "job.yaml", "--json"], &linear[..], &gate[..]].concat());
    assert!([Some(0), Some(3)].contains(&output.status.code()), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["evidence"]["verdict"].is_string(), "{found}");
}

#[test]
fn evidence_without_a_plan_says_that_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 8, 8, 4, 16);
    std::fs::write(root.path().join("job.yaml"), "dataset: {path: shapes, label: shape, attributes: [colour]}\n")
        .unwrap();
    let said = succeed(root.path(), &["evidence", "job.yaml"]);
    assert!(said.contains("no evidence: the job has no `plan`"), "{said}");
}

#[test]
fn a_useless_generator_is_not_said_to_help() {
    // Three steps of training draw noise; without gates all of it fills the targets.
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 40, 6, 30, 16);
    job(root.path(), "");
    let settings =
        ["generate.model.steps=3", "evidence.seeds=5", "evidence.steps=150", "evidence.baselines=[oversample]"];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let said = succeed(root.path(), &[&["evidence", "job.yaml", "--json"], &set[..]].concat());
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let verdict = found["evidence"]["verdict"].as_str().unwrap();
    assert!(["no-difference", "harmed"].contains(&verdict), "{verdict}: {}", found["evidence"]["sentence"]);
}

#[test]
fn a_finished_run_can_be_asked_for_more_evidence() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 12, 16);
    job(root.path(), "");
    succeed(root.path(), &["run", "job.yaml"]);
    // More images than the plan needs, with another number of requests in the same round.
    let more = ["--set", "evidence.sweep=[0, 1, 2]", "--set", "evidence.held_out_groups=1", "--overwrite"];
    let said = succeed(root.path(), &[&["evidence", "job.yaml", "--json"], &more[..]].concat());
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let shares = found["evidence"]["sweep"]["shares"].as_array().unwrap();
    let images: Vec<u64> = shares.iter().map(|share| share["generated_images"].as_u64().unwrap()).collect();
    assert_eq!(images, [0, 8, 16]);
    assert!(found["notes"].to_string().contains("as it was before"), "{}", found["notes"]);
    let held_out = &found["held_out"];
    assert_eq!(held_out["groups"].as_array().unwrap().len(), 1);
    assert_eq!(held_out["test_images"], 12, "judged on the test images of that group alone");
    let (kept, shown) = (&held_out["accepted"][0][1]["kept"], &held_out["accepted"][0][1]["shown"]);
    assert!(kept.as_u64() <= shown.as_u64() && shown.as_u64() > Some(20), "{held_out}");

    succeed(root.path(), &[&["run", "job.yaml"], &more[..]].concat());
    let said = succeed(root.path(), &[&["evidence", "job.yaml"], &more[..]].concat());
    assert!(!said.contains("as it was before"), "{said}");
    let page = std::fs::read_to_string(root.path().join("runs/shapes/report.html")).unwrap();
    assert!(page.contains("How many generated images are enough?") && page.contains("Groups that nobody had seen"));
    let report = succeed(root.path(), &["report", "runs/shapes", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["evidence"]["held_out"]["arms"].as_array().unwrap().len(), 4);

    let too_many = ["evidence", "job.yaml", "--set", "evidence.held_out_groups=9", "--overwrite"];
    let said = succeed(root.path(), &too_many);
    assert!(said.contains("no held-out groups: 9 groups cannot be held out"), "{said}");
}

#[test]
fn rounds_end_where_more_images_stop_helping() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 40, 26, 4, 16);
    job(root.path(), "");
    // Noise does not help, and a gate that drops every other image makes several rounds.
    let gate = r#"verify.gates=[{type: command, run: [sh, -c, "sed -E 's/.*\"index\":([0-9]*[02468]),.*/{\"index\":\\1,\"keep\":false}/; s/^\\{\"index\":([0-9]+),\"group.*/{\"index\":\\1,\"keep\":true}/'"]}]"#;
    let set = [
        "--set",
        gate,
        "--set",
        "generate.model.steps=3",
        "--set",
        "verify.rounds=6",
        "--set",
        "evidence.seeds=5",
        "--set",
        "plan.target.images=40",
    ];
    let output = run(root.path(), &[&["verify", "job.yaml", "--json", "--stop-at-plateau"], &set[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rounds = found["rounds"].as_array().unwrap();
    assert!(rounds.len() < 6 && rounds.last().unwrap()["remaining"].as_u64() > Some(0), "{found}");
    assert!(of_stage(&root.path().join("runs/shapes"), "plateau-1").join("plateau.json").is_file());
}
