//! Planted failures on small synthetic images: each gate drops what it is there for, with its reason, and keeps the rest.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use evenset_core::{Group, Seed, Silent};
use evenset_verify::{
    AttributesConfig, Candidate, GateConfig, ImageSet, RealImages, ShortcutConfig, SmallGroups, Verdict, Verifier,
    VerifyError, diversity_report, shortcut_report,
};
use rand::RngExt;

const SIDE: usize = 16;
const SHAPES: [&str; 2] = ["disc", "bars"];
const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// A disc or two bars in a colour, somewhere on a dim background; every `number` is another picture.
fn picture(shape: usize, colour: usize, number: u64) -> Vec<u8> {
    let mut rng = Seed(11).index(number).rng();
    let (x0, y0) = (rng.random_range(5.0..11.0f64), rng.random_range(5.0..11.0f64));
    let size = rng.random_range(3.0..5.0f64);
    let (bright, dim) = (rng.random_range(150..250u8), rng.random_range(20..60u8));
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (x as f64 - x0, y as f64 - y0);
            let lit = match shape {
                0 => dx * dx + dy * dy < size * size,
                _ => dx.abs() < size && (dy.abs() - 2.0).abs() < 1.1,
            };
            let level = if lit { bright } else { dim } + rng.random_range(0..6);
            pixels.extend((0..3).map(|c| if c == colour || !lit { level } else { level / 5 }));
        }
    }
    pixels
}

/// 300 pictures: discs are nearly always red and bars nearly always green; blue is rare in both.
fn real() -> RealImages {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for number in 0..300 {
        let shape = (number % 2) as usize;
        let colour = match number % 20 {
            0..14 => shape,
            14..18 => 1 - shape,
            _ => 2,
        };
        pixels.extend(picture(shape, colour, number));
        labels.push(vec![Some(shape as u32), Some(colour as u32)]);
    }
    let values = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    RealImages {
        images: ImageSet::new(SIDE, SIDE, pixels).unwrap(),
        attributes: vec![("shape".into(), values(&SHAPES)), ("colour".into(), values(&COLOURS))],
        labels,
    }
}

fn gates() -> Vec<GateConfig> {
    let attributes = AttributesConfig { steps: 250, width: 8, ..Default::default() };
    // Not in the order of the cascade, and `decode` left out: neither matters.
    serde_json::from_str::<Vec<GateConfig>>(r#"["novelty", "in-distribution"]"#)
        .unwrap()
        .into_iter()
        .chain([GateConfig::Attributes(attributes)])
        .collect()
}

static VERIFIER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::train(&real(), &gates(), Seed(3), None, &Silent).unwrap());

fn group(shape: usize, colour: usize) -> Group {
    Group::new([("shape", SHAPES[shape]), ("colour", COLOURS[colour])]).unwrap()
}

fn asked(request_index: usize, group: Group, rgb: Vec<u8>) -> Candidate {
    Candidate { request_index, group, width: SIDE as u32, height: SIDE as u32, rgb, flaw: None }
}

/// Pictures that no real image shows, in all six groups.
fn honest(count: usize) -> Vec<Candidate> {
    let one = |i: usize| asked(i, group(i % 2, i / 2 % 3), picture(i % 2, i / 2 % 3, 10_000 + i as u64));
    (0..count).map(one).collect()
}

fn verify(candidates: &[Candidate]) -> Vec<Verdict> {
    VERIFIER.verify(candidates, &[], &Silent).unwrap()
}

fn accepted(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| verdict.accepted).count()
}

fn reason(verdict: &Verdict) -> &str {
    verdict.reject_reason.as_deref().unwrap_or("kept")
}

fn mirrored(rgb: &[u8]) -> Vec<u8> {
    rgb.chunks_exact(3 * SIDE).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect()
}

#[test]
fn honest_pictures_are_kept_in_every_group_rare_or_not() {
    let candidates = honest(120);
    let verdicts = verify(&candidates);
    assert!(accepted(&verdicts) >= 108, "{} of 120", accepted(&verdicts));
    for colour in 0..3 {
        for shape in 0..2 {
            let of_group: Vec<Verdict> = candidates
                .iter()
                .zip(&verdicts)
                .filter(|(candidate, _)| candidate.group == group(shape, colour))
                .map(|(_, verdict)| verdict.clone())
                .collect();
            assert!(accepted(&of_group) >= 15, "{} of 20 in {}", accepted(&of_group), group(shape, colour));
        }
    }
    assert_eq!(VERIFIER.gate_names(), ["decode", "attributes", "in-distribution", "novelty"]);
    let kept = verdicts.iter().find(|verdict| verdict.accepted).unwrap();
    let scored: Vec<&str> = kept.scores.keys().map(String::as_str).collect();
    assert_eq!(scored, ["attributes", "decode", "in-distribution", "novelty"], "one score a gate");
}

#[test]
fn what_is_not_to_be_checked_is_neither_dropped_nor_corrected() {
    let colour = AttributesConfig { steps: 150, width: 4, only: vec!["colour".into()], ..Default::default() };
    let verifier = Verifier::train(&real(), &[GateConfig::Attributes(colour)], Seed(3), None, &Silent).unwrap();
    // Asked for blue discs: of another shape, and of another colour.
    let other = |i: usize, shape, colour| asked(i, group(0, 2), picture(shape, colour, 20_000 + i as u64));
    let candidates: Vec<Candidate> = (0..20).map(|i| other(i, 1, 2)).chain((20..40).map(|i| other(i, 0, 0))).collect();
    let verdicts = verifier.verify(&candidates, &[], &Silent).unwrap();
    assert!(accepted(&verdicts[..20]) >= 17, "{verdicts:?}");
    assert!(accepted(&verdicts[20..]) <= 2, "{verdicts:?}");
    let corrected = verifier.corrected_counts(&candidates, &verdicts, &Silent).unwrap();
    assert_eq!(corrected.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["colour"]);
    assert_eq!(corrected[0].1[0].accepted as usize, accepted(&verdicts));

    let color = AttributesConfig { only: vec!["color".into()], ..Default::default() };
    let attributes = real().attributes;
    let error = Verifier::preflight(&[GateConfig::Attributes(color)], &attributes).unwrap_err().to_string();
    assert!(error.contains("`only` color, and images are asked for by shape, colour"), "{error}");
}

#[test]
fn another_colour_and_another_shape_than_asked_are_recognised_and_named() {
    for (wanted, painted, what) in
        [((0, 2), (0, 0), "colour=blue wanted, red seen"), ((0, 1), (1, 1), "shape=disc wanted, bars seen")]
    {
        let candidates: Vec<Candidate> = (0..40)
            .map(|i| asked(i, group(wanted.0, wanted.1), picture(painted.0, painted.1, 20_000 + i as u64)))
            .collect();
        let verdicts = verify(&candidates);
        let named = verdicts.iter().filter(|verdict| reason(verdict).contains(what)).count();
        assert!(named >= 38, "{what}: {named} of 40, {}", reason(&verdicts[0]));
    }
}

#[test]
fn blank_and_noisy_images_and_wrong_sizes_never_reach_the_classifier() {
    let noise: Vec<u8> =
        Seed(4).normal(SIDE * SIDE * 3).iter().map(|x| (128.0 + 60.0 * x).clamp(0.0, 255.0) as u8).collect();
    let small = Candidate { width: 8, height: 8, ..asked(2, group(0, 0), vec![9; 8 * 8 * 3]) };
    let cut = asked(3, group(0, 0), vec![9; 100]);
    let candidates = [asked(0, group(0, 0), vec![90; SIDE * SIDE * 3]), asked(1, group(0, 0), noise), small, cut];
    for (verdict, expected) in verify(&candidates).iter().zip(["blank", "noise", "16x16 pixels wanted", "in 100 bytes"])
    {
        assert!(reason(verdict).starts_with("decode: ") && reason(verdict).contains(expected), "{}", reason(verdict));
        assert_eq!((verdict.gate.as_deref(), verdict.scores.len()), (Some("decode"), 1));
    }
}

#[test]
fn noisy_images_and_all_that_the_generator_failed_at_are_dropped() {
    let noise = |i: usize| -> Vec<u8> {
        let draws = Seed(4).index(i as u64).normal(SIDE * SIDE * 3);
        draws.iter().map(|x| (128.0 + 60.0 * x).clamp(0.0, 255.0) as u8).collect()
    };
    let noisy: Vec<Candidate> = (0..60).map(|i| asked(i, group(i % 2, i / 2 % 3), noise(i))).collect();
    // On 256 pixels noise is now and then as smooth as the roughest picture.
    let kept = accepted(&verify(&noisy));
    assert!(kept <= 3, "{kept} of 60");
    let failed: Vec<Candidate> = honest(10)
        .into_iter()
        .map(|candidate| Candidate {
            flaw: Some("the generator met NaN or infinity while drawing it".into()),
            ..candidate
        })
        .collect();
    for verdict in verify(&failed) {
        assert_eq!(reason(&verdict), "decode: the generator met NaN or infinity while drawing it");
    }
}

#[test]
fn copies_of_training_images_are_dropped_mirrored_or_slightly_changed() {
    let real = real();
    let mut candidates = Vec::new();
    for row in (0..300).step_by(10) {
        let image = real.images.image(row);
        let labels = &real.labels[row];
        let group = group(labels[0].unwrap() as usize, labels[1].unwrap() as usize);
        let brighter: Vec<u8> = image.iter().map(|&value| value.saturating_add(1)).collect();
        for rgb in [image.to_vec(), mirrored(image), brighter] {
            candidates.push(asked(candidates.len(), group.clone(), rgb));
        }
    }
    let verdicts = verify(&candidates);
    assert_eq!(accepted(&verdicts), 0);
    let by_novelty: Vec<&Verdict> =
        verdicts.iter().filter(|verdict| verdict.gate.as_deref() == Some("novelty")).collect();
    assert!(by_novelty.len() >= 80, "{} of 90", by_novelty.len());
    assert!(by_novelty.iter().any(|verdict| reason(verdict).contains("exact copy of training image 10")));
    assert!(by_novelty.iter().any(|verdict| reason(verdict).contains("near copy of training image")));
}

#[test]
fn of_two_copies_the_one_requested_first_is_kept_whatever_their_order() {
    let first = honest(40).into_iter().zip(verify(&honest(40))).find(|(_, verdict)| verdict.accepted).unwrap().0;
    let copy = Candidate { request_index: 99, rgb: mirrored(&first.rgb), ..first.clone() };
    for candidates in [[first.clone(), copy.clone()], [copy.clone(), first.clone()]] {
        let verdicts = verify(&candidates);
        let kept: Vec<usize> = (0..2).filter(|&i| verdicts[i].accepted).map(|i| candidates[i].request_index).collect();
        assert_eq!(kept, [first.request_index]);
        let dropped = verdicts.iter().find(|verdict| !verdict.accepted).unwrap();
        assert!(reason(dropped).contains(&format!("copy of candidate {}", first.request_index)), "{}", reason(dropped));
    }
    let verdicts = VERIFIER.verify(&[copy], &[first], &Silent).unwrap();
    assert!(reason(&verdicts[0]).contains("an image accepted in an earlier round"), "{}", reason(&verdicts[0]));
}

#[test]
fn a_picture_far_from_the_real_images_of_its_label_is_out_of_distribution() {
    let gates: Vec<GateConfig> = serde_json::from_str(r#"[{"type":"in-distribution","neighbours":2}]"#).unwrap();
    let verifier = Verifier::train(&real(), &gates, Seed(3), None, &Silent).unwrap();
    let asked_for = |painted: usize| -> Vec<Candidate> {
        (0..30).map(|i| asked(i, group(1, i % 3), picture(painted, i % 3, 40_000 + i as u64))).collect()
    };
    let honest = verifier.verify(&asked_for(1), &[], &Silent).unwrap();
    assert!(accepted(&honest) >= 27, "{} of 30", accepted(&honest));
    let wrong = verifier.verify(&asked_for(0), &[], &Silent).unwrap();
    assert!(accepted(&wrong) <= 3, "{} of 30", accepted(&wrong));
    let dropped = wrong.iter().find(|verdict| !verdict.accepted).unwrap();
    assert!(reason(dropped).starts_with("in-distribution: far from real images of its label"), "{}", reason(dropped));
    assert!(dropped.scores["in-distribution"] > 1.0);
}

#[test]
fn verdicts_do_not_depend_on_batches_or_threads() {
    let mut candidates = honest(60);
    for i in 0..20 {
        candidates.push(asked(60 + i, candidates[3 * i].group.clone(), mirrored(&candidates[3 * i].rgb)));
    }
    let whole = verify(&candidates);
    assert!(accepted(&whole) >= 50 && accepted(&whole) <= 60);
    let mut parts = Vec::new();
    let mut earlier = Vec::new();
    for part in candidates.chunks(7) {
        let verdicts = VERIFIER.verify(part, &earlier, &Silent).unwrap();
        earlier.extend(part.iter().zip(&verdicts).filter(|(_, v)| v.accepted).map(|(candidate, _)| candidate.clone()));
        parts.extend(verdicts);
    }
    for (whole, part) in whole.iter().zip(&parts) {
        assert_eq!((whole.accepted, &whole.gate, &whole.scores), (part.accepted, &part.gate, &part.scores));
    }
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let small = AttributesConfig { steps: 20, width: 4, ..Default::default() };
        let gates = [GateConfig::Attributes(small), gates()[0].clone(), gates()[1].clone()];
        pool.install(|| {
            let verifier = Verifier::train(&real(), &gates, Seed(3), None, &Silent).unwrap();
            (verifier.verify(&candidates, &[], &Silent).unwrap(), verifier.calibration().clone())
        })
    };
    assert_eq!(on(1), on(2));
}

#[test]
fn a_loaded_verifier_gives_the_same_verdicts_and_a_damaged_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let small = AttributesConfig { steps: 40, width: 4, ..Default::default() };
    let gates = [GateConfig::Attributes(small), gates()[0].clone(), gates()[1].clone()];
    let trained = Verifier::train(&real(), &gates, Seed(3), Some(folder.path()), &Silent).unwrap();
    let loaded = Verifier::load(folder.path()).unwrap();
    let candidates = honest(50);
    let limits = |verifier: &Verifier| {
        let calibration = verifier.calibration();
        (calibration.decode, calibration.in_distribution.clone(), calibration.novelty)
    };
    assert_eq!(limits(&trained), limits(&loaded));
    assert_eq!(trained.verify(&candidates, &[], &Silent).unwrap(), loaded.verify(&candidates, &[], &Silent).unwrap());
    for name in ["references.safetensors", "classifier.safetensors", "classifier.json", "verifier.json"] {
        let path = folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Verifier::load(folder.path()).err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn calibration_is_measured_on_real_images_that_were_held_out() {
    let calibration = VERIFIER.calibration();
    assert_eq!(calibration.learned_from + calibration.held_out, 300);
    for attribute in &calibration.attributes {
        let counted: u64 = attribute.confusion.iter().flatten().sum();
        assert_eq!(counted as usize, calibration.held_out);
        assert!(attribute.group_accuracy > 0.9, "{attribute:?}");
    }
    assert_eq!(calibration.groups.len(), 6);
    assert_eq!(calibration.groups.iter().map(|group| group.share.shown).sum::<u64>() as usize, calibration.held_out);
    assert!(calibration.novelty.unwrap().pixels > 0.0);
}

#[test]
fn impossible_wishes_are_refused_or_dropped() {
    let rgb = picture(0, 0, 30_000);
    let unknown = asked(5, Group::new([("size", "large")]).unwrap(), rgb.clone());
    let error = VERIFIER.verify(&[unknown], &[], &Silent).unwrap_err();
    assert!(matches!(error, VerifyError::UnknownAttribute { request: 5, .. }), "{error}");
    let unseen = asked(0, Group::new([("shape", "disc"), ("colour", "violet")]).unwrap(), rgb);
    assert!(reason(&verify(&[unseen])[0]).contains("no real image has the wanted colour"));
    let twice = [gates()[0].clone(), gates()[0].clone()];
    let error = Verifier::train(&real(), &twice, Seed(3), None, &Silent).err().unwrap();
    assert!(error.to_string().starts_with("the gate `novelty` stands twice; name each gate once"), "{error}");
}

#[test]
fn without_learned_gates_no_classifier_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let verifier = Verifier::train(&real(), &[], Seed(3), Some(folder.path()), &Silent).unwrap();
    assert_eq!(verifier.gate_names(), ["decode"]);
    assert!(!folder.path().join("classifier.json").exists());
    let verdicts = Verifier::load(folder.path()).unwrap().verify(&honest(4), &honest(2), &Silent).unwrap();
    assert_eq!(accepted(&verdicts), 4);
}

fn trained(gates: &str) -> Verifier {
    Verifier::train(&real(), &serde_json::from_str::<Vec<GateConfig>>(gates).unwrap(), Seed(3), None, &Silent).unwrap()
}

const SMALL: &str = r#"{"type":"attributes","steps":40,"width":4,"threshold":0}"#;

#[test]
fn a_full_group_takes_nothing_that_it_has_already_and_a_small_one_takes_everything() {
    let verifier = trained(r#"[{"type":"diversity","enough":40,"quantile":0.05}]"#);
    // Red discs are many; blue bars are 15.
    let again = |shape: usize, colour: usize, count: usize| -> Vec<Candidate> {
        let image = picture(shape, colour, 60_000);
        let slightly = |i: usize| image.iter().map(|&v| v.saturating_add((i % 3) as u8)).collect();
        (0..count).map(|i| asked(i, group(shape, colour), slightly(i))).collect()
    };
    let full = verifier.verify(&again(0, 0, 20), &[], &Silent).unwrap();
    assert!(accepted(&full) <= 2, "{} of 20", accepted(&full));
    let dropped = full.iter().find(|verdict| !verdict.accepted).unwrap();
    assert!(reason(dropped).starts_with("diversity: adds nothing to the "), "{}", reason(dropped));
    assert!(dropped.scores["diversity"] < 1.0);
    let small = verifier.verify(&again(1, 2, 20), &[], &Silent).unwrap();
    assert_eq!(accepted(&small), 20, "15 real images and up to 20 accepted ones are fewer than 40");
    let other = verifier.verify(&again(1, 2, 40), &[], &Silent).unwrap();
    assert!((25..=27).contains(&accepted(&other)), "{} of 40", accepted(&other));

    let different = honest(240);
    let verdicts = verifier.verify(&different, &[], &Silent).unwrap();
    // One in twenty real images lies as near to its like; a binomial's three deviations, and the limit's own error.
    assert!(accepted(&verdicts) >= 205, "{} of 240", accepted(&verdicts));
    let first = verifier.verify(&different[..100], &[], &Silent).unwrap();
    let earlier: Vec<Candidate> = different[..100]
        .iter()
        .zip(&first)
        .filter(|(_, v)| v.accepted)
        .map(|(candidate, _)| candidate.clone())
        .collect();
    let rest = verifier.verify(&different[100..], &earlier, &Silent).unwrap();
    let parts: Vec<(bool, Option<&f64>)> =
        first.iter().chain(&rest).map(|v| (v.accepted, v.scores.get("diversity"))).collect();
    assert_eq!(verdicts.iter().map(|v| (v.accepted, v.scores.get("diversity"))).collect::<Vec<_>>(), parts);
}

#[test]
fn the_diversity_of_accepted_images_is_told_next_to_that_of_real_ones() {
    let verifier = trained(&format!("[{SMALL}]"));
    let mut accepted = honest(240);
    let same: Vec<Candidate> = (0..40).map(|i| asked(500 + i, group(0, 0), picture(0, 0, 70_000))).collect();
    accepted.retain(|candidate| candidate.group != group(0, 0));
    accepted.extend(same);
    let report = diversity_report(&verifier, &accepted, Seed(1)).unwrap();
    assert_eq!(report.len(), 6);
    for told in &report {
        let (real, drawn) = (told.real_score.unwrap(), told.accepted_score.unwrap());
        assert!(told.compared == told.real.min(told.accepted) && told.compared >= 15, "{told:?}");
        if told.group == group(0, 0) {
            assert!(drawn < 1.01 && real > 1.05, "{told:?}");
        } else {
            assert!(drawn > 0.5 * real && drawn < 2.0 * real, "{told:?}");
        }
    }
    assert_eq!(diversity_report(&verifier, &accepted, Seed(1)).unwrap(), report);
}

#[test]
fn a_shortcut_is_found_where_generated_images_are_smoother_and_not_where_they_are_like_real_ones() {
    let (real, config) = (real(), ShortcutConfig::default());
    let verifier = trained(&format!("[{SMALL}]"));
    let honest = honest(360);
    let report = shortcut_report(&config, &real, &honest, Some(&verifier), Seed(1)).unwrap();
    assert!(!report.found, "{report:#?}");
    let overall = report.overall.unwrap();
    assert!((overall.auc.value - 0.5).abs() < 0.15 && overall.real == overall.generated, "{overall:?}");
    assert!(report.features.is_some_and(|auc| auc.interval[0] < 0.75), "{:?}", report.features);
    let smooth: Vec<Candidate> = honest
        .into_iter()
        .map(|candidate| {
            // Without the last bits, which are the pictures' noise.
            let rgb = candidate.rgb.iter().map(|&value| value & 0xf8).collect();
            Candidate { rgb, ..candidate }
        })
        .collect();
    let report = shortcut_report(&config, &real, &smooth, None, Seed(1)).unwrap();
    let overall = report.overall.clone().unwrap();
    assert!(report.found && overall.found && overall.auc.interval[0] > 0.9, "{report:#?}");
    assert!(!report.groups.is_empty() && report.groups.iter().all(|group| group.figures.real >= 20), "{report:#?}");
    assert!(report.sentence.contains(&format!("`{}`", overall.best.cue)), "{}", report.sentence);
    let few = shortcut_report(&config, &real, &smooth[..6], None, Seed(1)).unwrap();
    assert!(!few.found && few.overall.is_none() && few.sentence.contains("too few"), "{few:?}");
    assert_eq!(few.small, SmallGroups { smallest: 20, groups: 6, generated: 6, counted: 6 }, "{few:?}");
    assert_eq!(report.groups.len() + report.small.groups, 6, "{report:#?}");
}

#[cfg(unix)]
#[test]
fn what_a_program_drops_makes_no_other_image_a_copy() {
    // Drops whatever was asked to be blue.
    let script = r#"i=0; while read line; do case "$line" in *blue*) k=false;; *) k=true;; esac; echo "{\"index\":$i,\"keep\":$k}"; i=$((i+1)); done"#;
    let run = serde_json::to_string(&["/bin/sh", "-c", script]).unwrap();
    let verifier = trained(&format!(r#"[{{"type":"command","name":"no-blue","run":{run}}}, "novelty"]"#));
    assert_eq!(verifier.gate_names(), ["decode", "novelty", "no-blue"]);
    let mut candidates = honest(30);
    for i in 0..30 {
        // The same pictures again, asked for with another colour.
        let other = group(i % 2, (i / 2 + 1) % 3);
        candidates.push(Candidate { request_index: 30 + i, group: other, ..candidates[i].clone() });
    }
    let whole = verifier.verify(&candidates, &[], &Silent).unwrap();
    for i in 0..30 {
        let blue = |i: usize| candidates[i].group.get("colour") == Some("blue");
        if blue(i) && whole[i].gate.as_deref() == Some("no-blue") {
            assert!(!reason(&whole[30 + i]).contains(&format!("candidate {i}")), "{}", reason(&whole[30 + i]));
        } else if whole[i].accepted {
            assert_eq!(reason(&whole[30 + i]), format!("novelty: exact copy of candidate {i}"));
        }
    }
    assert!(whole[30..].iter().filter(|verdict| verdict.accepted).count() >= 7);
    let (mut parts, mut earlier) = (Vec::new(), Vec::new());
    for part in candidates.chunks(7) {
        let verdicts = verifier.verify(part, &earlier, &Silent).unwrap();
        earlier.extend(part.iter().zip(&verdicts).filter(|(_, v)| v.accepted).map(|(candidate, _)| candidate.clone()));
        parts.extend(verdicts);
    }
    for (whole, part) in whole.iter().zip(&parts) {
        assert_eq!((whole.accepted, &whole.gate, &whole.scores), (part.accepted, &part.gate, &part.scores));
    }
}

#[cfg(unix)]
#[test]
fn of_many_copies_that_a_program_drops_not_each_costs_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    // Writes down that it was started, and drops all.
    let script = format!(
        r#"echo x >> {}; i=0; while read line; do echo "{{\"index\":$i,\"keep\":false}}"; i=$((i+1)); done"#,
        starts.display()
    );
    let run = serde_json::to_string(&["/bin/sh", "-c", &script]).unwrap();
    let verifier = trained(&format!(r#"[{{"type":"command","run":{run}}}, "novelty", {SMALL}]"#));
    let copies = 24;
    let candidates: Vec<Candidate> = (0..copies).map(|i| asked(i, group(0, 0), picture(0, 0, 80_000))).collect();
    let verdicts = verifier.verify(&candidates, &[], &Silent).unwrap();
    assert!(verdicts.iter().all(|verdict| verdict.gate.as_deref() == Some("command")), "{}", reason(&verdicts[1]));
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 2, "the first copy, then all others");
}

/// A picture whose colour is hard to make out: its channel is brighter than the others by a little, under strong grain.
fn faint(shape: usize, colour: usize, number: u64) -> Vec<u8> {
    let mut rng = Seed(12).index(number).rng();
    let more = rng.random_range(0.0..24.0f64);
    let mut pixels = picture(shape, colour, number);
    for pixel in pixels.chunks_exact_mut(3) {
        let level = f64::from(pixel.iter().copied().max().unwrap_or(0));
        let lit = pixel.iter().any(|value| f64::from(*value) < level);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let less = if lit && channel != colour { more } else { 0.0 };
            *value = (level - less + rng.random_range(-40.0..40.0f64)).clamp(0.0, 255.0) as u8;
        }
    }
    pixels
}

#[test]
fn wrong_images_pass_at_the_rate_that_the_job_allows() {
    let mut real = real();
    let pixels = (0..1500).flat_map(|i| faint(i as usize % 2, i as usize / 2 % 3, i)).collect();
    real.images = ImageSet::new(SIDE, SIDE, pixels).unwrap();
    real.labels = (0..1500).map(|i| vec![Some(i % 2), Some(i / 2 % 3)]).collect();
    // Asked for in another of the three colours than they have, and in no shape.
    let wrong: Vec<(usize, Candidate)> = (0..1200)
        .map(|i| {
            let (colour, number) = (i / 2 % 3, 50_000 + i as u64);
            let other = (colour + 1 + i / 6 % 2) % 3;
            let wanted = Group::new([("colour", COLOURS[other])]).unwrap();
            (other, asked(i, wanted, faint(i % 2, colour, number)))
        })
        .collect();
    let candidates: Vec<Candidate> = wrong.iter().map(|(_, candidate)| candidate.clone()).collect();
    let passed = |settings: &str| -> [(usize, usize); 3] {
        let gates = format!(r#"[{{"type":"attributes","steps":200,"width":4{settings}}}]"#);
        let gates: Vec<GateConfig> = serde_json::from_str(&gates).unwrap();
        let verifier = Verifier::train(&real, &gates, Seed(3), None, &Silent).unwrap();
        let verdicts = verifier.verify(&candidates, &[], &Silent).unwrap();
        let mut counts = [(0, 0); 3];
        for ((wanted, _), verdict) in wrong.iter().zip(&verdicts) {
            if verdict.scores.contains_key("attributes") {
                counts[*wanted].0 += usize::from(verdict.accepted);
                counts[*wanted].1 += 1;
            }
        }
        counts
    };
    let rate = |counts: &[(usize, usize)]| {
        let sum = |pick: fn(&(usize, usize)) -> usize| counts.iter().map(pick).sum::<usize>() as f64;
        sum(|count| count.0) / sum(|count| count.1)
    };
    let allowed = 0.05;
    // Three deviations of a binomial, of the images that set the threshold (a held-out 12 %, two thirds of them in
    // another colour) and of those judged by it.
    let tolerance = |values: f64| 3.0 * (allowed * (1.0 - allowed) / values * (1.0 / 120.0 + 1.0 / 400.0)).sqrt();
    let unchecked = rate(&passed(r#","threshold":0"#));
    assert!(unchecked > 2.0 * allowed, "the recogniser errs more often than the job allows: {unchecked}");
    let counts = passed(&format!(r#","false_accept":{allowed}"#));
    let all = rate(&counts);
    assert!((all - allowed).abs() <= tolerance(3.0), "{all}, {counts:?}");
    for of_value in &counts {
        assert!(of_value.1 > 350 && rate(&[*of_value]) <= allowed + tolerance(1.0), "{counts:?}");
    }
}

#[test]
fn gates_that_cannot_be_used_are_found_out_before_anything_is_trained() {
    let attributes = real().attributes;
    let refusal = |gates: &str| {
        let gates: Vec<GateConfig> = serde_json::from_str(gates).unwrap();
        Verifier::preflight(&gates, &attributes).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let clip = |prompts: &str| {
        format!(r#"[{{"type":"attributes","recognisers":[{{"type":"clip","path":"nowhere","prompts":{prompts}}}]}}]"#)
    };
    for (gates, expected) in [
        (clip(r#"{"colour":"a {value} shape"}"#), "nowhere"),
        (clip(r#"{"color":"a {value} shape"}"#), "did you mean `colour`"),
        (r#"[{"type":"safety","model":"nowhere"}]"#.into(), "nowhere: no safety checker here"),
        (r#"[{"type":"safety"}]"#.into(), "needs one model"),
        (r#"["novelty", "novelty"]"#.into(), "stands twice"),
    ] {
        let error = refusal(&gates);
        assert!(error.contains(expected), "{gates}: {error}");
    }
    #[cfg(unix)]
    assert!(refusal(r#"[{"type":"command","run":["no-such-program-anywhere"]}]"#).contains("cannot be started"));
    assert_eq!(refusal(r#"["decode", "attributes", "in-distribution", "novelty", "diversity"]"#), "");
}
