//! Whole jobs.

use crate::support::{evenset, fail, run, stderr, succeed};
use crate::{as_strs, drawn, faces, repository, small};

#[test]
fn the_job_for_faces_runs_to_its_end_with_a_model_of_each_generation() {
    for family in ["sd1", "sd2", "sdxl"] {
        let root = tempfile::tempdir().unwrap();
        faces(root.path());
        let said = succeed(root.path(), &as_strs(&small("run", family, &[])));
        assert!(said.contains("30 generated"), "{said}");
        let page = std::fs::read_to_string(root.path().join("runs/faces/report.html")).unwrap();
        assert!(page.contains("stable-diffusion"));
        let card = std::fs::read_to_string(root.path().join("out/faces/README.md")).unwrap();
        assert!(card.contains("model"), "{card}");
    }
}

#[test]
fn a_finished_run_is_read_again_without_the_weights() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let verbose = |more: &[&str]| {
        let mut arguments = small("run", "sd1", more);
        arguments.push("-v".into());
        stderr(&run(root.path(), &as_strs(&arguments)))
    };
    let decoder = repository().join("tests/golden/vae-tiny").display().to_string();
    let decoder = format!("generate.model.small_decoder={decoder}");
    let set = [&decoder, "generate.model.deep_cache={interval: 2}", "evidence.augment=true"];
    assert!(verbose(&set).contains("loaded a model"));
    let again = verbose(&set);
    assert!(!again.contains("loaded a model"), "{again}");
    let page = std::fs::read_to_string(root.path().join("runs/faces/report.html")).unwrap();
    assert!(
        page.contains("every arm of the evidence were changed at random"),
        "the report says what the arms had in common"
    );
    let card = std::fs::read_to_string(root.path().join("out/faces/README.md")).unwrap();
    assert!(card.contains("model + vae-tiny + DeepCache 2/0"), "{card}");
    // Another way to draw is another run, which does not begin where its images could not be written.
    let other = [set[0], "generate.model.deep_cache={interval: 3}"];
    let said = verbose(&other);
    assert!(said.contains("was not made by this job") && !said.contains("loaded a model"), "{said}");
    assert!(verbose(&[&other[..], &["write.out=out/other"]].concat()).contains("loaded a model"));
    let other = verbose(&["generate.model.deep_cache={interval: 2, branch: 9}"]);
    assert!(other.contains("`deep_cache`: branch 9 is not one of this network's, 0 to 2"), "{other}");
}

#[test]
fn an_image_has_the_same_bytes_in_units_and_batches_of_any_size() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let candidates = |unit: &str| {
        let (folder, unit) = (format!("run=runs/{unit}"), format!("generate.unit={unit}"));
        succeed(root.path(), &as_strs(&small("generate", "sd1", &[&unit, &folder])));
        drawn(&root.path().join(folder.trim_start_matches("run=")))
    };
    let (all, few) = (candidates("64"), candidates("5"));
    assert_eq!(all.len(), 30);
    assert!(all == few);
}

#[test]
fn what_cannot_be_drawn_is_said_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let refused = |more: &[&str]| fail(root.path(), &as_strs(&small("run", "sd1", more)), 2);
    assert!(refused(&["plan.prompts=null"]).contains("plan.prompts"));
    assert!(refused(&["generate.guides.inversion=true"]).contains("`generate.guides.inversion`"));
    assert!(refused(&["generate.guides.inversion_noise=0.1"]).contains("`generate.guides.inversion_noise`: only a"));
    assert!(refused(&["generate.sampler.type=eular"]).contains("generate.sampler.type"));
    let missing = run(root.path(), &as_strs(&small("run", "sd1", &["generate.model.path=nobody/nothing"])));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("hf download nobody/nothing"), "{}", stderr(&missing));
    // Found out before gates are trained and images drawn, and not at the first image of that strength.
    let turbo = ["generate.sampler.steps=1", "generate.guides={below: 1000, strengths: [0.4]}"];
    for verb in ["plan", "run"] {
        let said = fail(root.path(), &as_strs(&small(verb, "sd1", &turbo)), 2);
        assert!(said.contains("0.4 of 1 steps leaves none"), "{said}");
        let said = fail(root.path(), &as_strs(&small(verb, "sd1", &["generate.model.deep_cache={interval: 0}"])), 2);
        assert!(said.contains("an interval of 0"), "{said}");
    }
    // Of two keys with this value, the one that is right is not blamed.
    let said = fail(root.path(), &as_strs(&small("run", "sd1", &["generate.model.deep_cache=true"])), 2);
    assert!(said.contains("generate.model") && !said.contains("fp16_files"), "{said}");
    let decoder = |network: &str| format!("generate.model.small_decoder={}", repository().join(network).display());
    for (network, what) in [
        ("tests/golden/vae", "a `AutoencoderKL`, not a `AutoencoderTiny`"),
        ("tests/golden/vae-tiny/config.json", "a file; name the folder"),
        ("tests/golden/prompts/sd1/model", "name the folder of the network alone"),
    ] {
        let said = stderr(&run(root.path(), &as_strs(&small("run", "sd1", &[&decoder(network)]))));
        assert!(said.contains(what), "{network}: {said}");
    }
    let stages: Vec<_> =
        std::fs::read_dir(root.path().join("runs/faces")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(stages.iter().all(|name| !name.to_string_lossy().starts_with("generate")), "{stages:?}");
    let download = ["generate.model.path=nobody/nothing", "generate.model.download=true"];
    let download = small("run", "sd1", &download);
    let offline = evenset(root.path(), &as_strs(&download)).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(1));
    assert!(stderr(&offline).contains("HF_HUB_OFFLINE is set"), "{}", stderr(&offline));
    let planned = succeed(root.path(), &as_strs(&small("plan", "sd1", &["generate.model.path=nobody/nothing"])));
    assert!(planned.contains("30"), "who is missing needs no weights: {planned}");
}
