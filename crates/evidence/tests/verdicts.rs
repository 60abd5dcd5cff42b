//! Whether the verdict is right where the answer is known: planted gains, useless and harmful generators.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, Seed, Silent};
use evenset_evidence::{
    Arm, ArmRun, Baseline, Error, Evidence, EvidenceConfig, EvidenceData, GroupOutcome, Labelled, Verdict, run_arm,
    summarise,
};
use evenset_nn::classifier::ImageSet;
use rand::RngExt;

const SIDE: usize = 12;

/// The label is whether the bright line lies or stands; the colour, red or blue, has nothing to do with it.
fn picture(standing: bool, blue: bool, number: u64) -> Vec<u8> {
    let mut rng = Seed(21).index(number).rng();
    let at = rng.random_range(2..SIDE - 2);
    let from = rng.random_range(0..4);
    let bright = rng.random_range(90..160);
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (along, across) = if standing { (y, x) } else { (x, y) };
            let lit = across == at && (from..from + 8).contains(&along);
            let level = if lit { bright } else { 20 } + rng.random_range(0..80u8);
            pixels.extend(if blue { [level / 4, 10, level] } else { [level, 10, level / 4] });
        }
    }
    pixels
}

/// `(standing, blue, how many)`: pictures that differ from those of every other `first`.
fn part(first: u64, groups: &[(bool, bool, u64)]) -> Labelled {
    let mut part = Labelled { images: ImageSet::new(SIDE, SIDE, Vec::new()).unwrap(), labels: vec![], groups: vec![] };
    let mut pixels = Vec::new();
    for &(standing, blue, count) in groups {
        for _ in 0..count {
            pixels.extend(picture(standing, blue, first + part.labels.len() as u64));
            part.labels.push(u32::from(standing));
            part.groups.push(2 * u32::from(standing) + u32::from(blue));
        }
    }
    part.images = ImageSet::new(SIDE, SIDE, pixels).unwrap();
    part
}

/// Lying lines are nearly always red and standing ones nearly always blue; the test part is even.
fn data(generated: Labelled) -> EvidenceData {
    let name = |direction: &str, colour: &str| Group::new([("direction", direction), ("colour", colour)]).unwrap();
    EvidenceData {
        train: part(0, &[(false, false, 150), (false, true, 4), (true, false, 4), (true, true, 150)]),
        left_out: vec![],
        generated,
        test: part(1_000_000, &[(false, false, 60), (false, true, 60), (true, false, 60), (true, true, 60)]),
        classes: vec!["lying".into(), "standing".into()],
        groups: vec![name("lying", "red"), name("lying", "blue"), name("standing", "red"), name("standing", "blue")],
    }
}

fn config() -> EvidenceConfig {
    EvidenceConfig {
        seeds: 3,
        baselines: vec![Baseline::Oversample, Baseline::Reweight],
        steps: 150,
        batch: 32,
        width: 8,
        ..Default::default()
    }
}

fn evidence(data: &EvidenceData) -> Evidence {
    let config = config();
    let runs: Vec<ArmRun> = (0..config.seeds)
        .flat_map(|seed| config.arms().into_iter().map(move |arm| (arm, seed)))
        .map(|(arm, seed)| run_arm(arm, data, Seed(5), seed, &config, &Silent).unwrap())
        .collect();
    summarise(&runs).unwrap()
}

#[test]
fn a_generator_as_good_as_more_real_images_helps() {
    let evidence = evidence(&data(part(5_000, &[(false, true, 146), (true, false, 146)])));
    assert_eq!(evidence.verdict, Verdict::Helped, "{}", evidence.sentence);
    assert!(evidence.against_as_is.worst_group_interval[0] > 0.0, "{}", evidence.sentence);
    assert!(evidence.sentence.starts_with("Balancing helped"), "{}", evidence.sentence);
    assert!(evidence.sentence.contains("With the data as it was"), "{}", evidence.sentence);
    assert!(evidence.sentence.contains("3 seeds, too few"), "{}", evidence.sentence);
    let json = serde_json::to_value(&evidence).unwrap();
    assert_eq!((json["verdict"].as_str(), json["seeds"].as_u64()), (Some("helped"), Some(3)));
    assert_eq!(json["arms"][0]["name"], "as-is");
    assert_eq!(json["arms"][3]["worst_group_interval"].as_array().unwrap().len(), 2);
    assert_eq!(serde_json::from_value::<Evidence>(json).unwrap(), evidence);
}

#[test]
fn a_useless_generator_does_not_help() {
    let mut noise = part(5_000, &[(false, true, 146), (true, false, 146)]);
    let count = noise.labels.len();
    let levels = Seed(6).normal(count * SIDE * SIDE * 3);
    let pixels = levels.iter().map(|x| (128.0 + 50.0 * x).clamp(0.0, 255.0) as u8).collect();
    noise.images = ImageSet::new(SIDE, SIDE, pixels).unwrap();
    for (i, (label, group)) in noise.labels.iter_mut().zip(&mut noise.groups).enumerate() {
        (*label, *group) = ((i % 3 % 2) as u32, (i % 4) as u32);
    }
    let evidence = evidence(&data(noise));
    assert_ne!(evidence.verdict, Verdict::Helped, "{}", evidence.sentence);
}

#[test]
fn the_same_run_has_the_same_outcomes_on_one_thread_and_on_two() {
    let data = data(part(5_000, &[(false, true, 20), (true, false, 20)]));
    let config = EvidenceConfig { steps: 10, ..config() };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_arm(Arm::Balanced, &data, Seed(5), 1, &config, &Silent).unwrap())
    };
    let run = on(1);
    assert_eq!(run, on(2));
    assert_eq!(serde_json::from_str::<ArmRun>(&serde_json::to_string(&run).unwrap()).unwrap(), run);
}

/// A run in which each group's share of 100 images is right, the same images for every seed but for a few.
fn run(arm: Arm, seed: u32, right: [u32; 3]) -> ArmRun {
    let groups: Vec<GroupOutcome> = ["red", "green", "blue"]
        .iter()
        .zip(right)
        .map(|(&colour, right)| GroupOutcome {
            group: Group::new([("colour", colour)]).unwrap(),
            correct: right,
            total: 100,
            counts: true,
            outcomes: (0..100).map(|i| (i + 3 * seed) % 100 < right).collect(),
        })
        .collect();
    let shares = right.map(|right| f64::from(right) / 100.0);
    let (worst, best) = (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(0.0, f64::max));
    let accuracy = shares.iter().sum::<f64>() / 3.0;
    ArmRun { arm, seed, groups, accuracy, balanced_accuracy: accuracy, worst_group: worst, gap: best - worst }
}

fn runs(arms: &[(Arm, [u32; 3])]) -> Vec<ArmRun> {
    (0..5).flat_map(|seed| arms.iter().map(move |&(arm, right)| run(arm, seed, right))).collect()
}

#[test]
fn the_comparison_that_counts_is_with_the_best_baseline() {
    let summary = summarise(&runs(&[
        (Arm::AsIs, [90, 80, 30]),
        (Arm::Reweight, [88, 80, 69]),
        (Arm::Oversample, [88, 80, 60]),
        (Arm::Balanced, [88, 82, 70]),
    ]))
    .unwrap();
    assert_eq!((summary.verdict, summary.against_best_baseline.with), (Verdict::NoDifference, Arm::Reweight));
    assert!((summary.against_best_baseline.worst_group - 0.01).abs() < 1e-12);
    assert!((summary.against_as_is.worst_group - 0.4).abs() < 1e-12);
    assert!(summary.against_as_is.worst_group_interval[0] > 0.2);
    assert!(summary.sentence.contains("no measurable difference over the best baseline"), "{}", summary.sentence);
    assert!(!summary.sentence.contains("too few"), "five seeds are enough");
    let names: Vec<Arm> = summary.arms.iter().map(|arm| arm.name).collect();
    assert_eq!(names, [Arm::AsIs, Arm::Oversample, Arm::Reweight, Arm::Balanced]);
    let as_is = &summary.arms[0];
    assert!((as_is.accuracy - 2.0 / 3.0).abs() < 1e-12 && (as_is.worst_group - 0.3).abs() < 1e-12);
    assert!((as_is.gap - 0.6).abs() < 1e-12 && (as_is.per_group[1].accuracy - 0.8).abs() < 1e-12);
    for (estimate, [low, high]) in [
        (as_is.accuracy, as_is.accuracy_interval),
        (as_is.worst_group, as_is.worst_group_interval),
        (as_is.gap, as_is.gap_interval),
    ] {
        assert!(low <= estimate && estimate <= high && low < high);
    }
}

#[test]
fn clear_differences_are_called_helped_and_harmed() {
    let verdict = |balanced| summarise(&runs(&[(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, balanced)])).unwrap().verdict;
    assert_eq!(verdict([85, 82, 80]), Verdict::Helped);
    assert_eq!(verdict([90, 80, 25]), Verdict::Harmed);
    assert_eq!(verdict([90, 80, 50]), Verdict::NoDifference);
}

#[test]
fn the_order_of_the_runs_does_not_matter_and_a_missing_one_is_named() {
    let mut all = runs(&[(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, [85, 82, 80])]);
    let forwards = summarise(&all).unwrap();
    all.reverse();
    assert_eq!(summarise(&all).unwrap(), forwards);
    let gone = all.remove(3);
    let error = summarise(&all).unwrap_err();
    assert!(matches!(error, Error::MissingRun { arm, seed } if arm == gone.arm && seed == gone.seed), "{error}");
    assert!(matches!(summarise(&[]), Err(Error::NoRuns(Arm::AsIs))));
    let mut other = runs(&[(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, [85, 82, 80])]);
    other[5].groups.pop();
    assert!(matches!(summarise(&other), Err(Error::OtherTest { .. })));
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let config = config();
    let refuse = |data: &EvidenceData| run_arm(Arm::AsIs, data, Seed(5), 0, &config, &Silent).unwrap_err().to_string();
    let none = || part(0, &[]);
    let mut wrong = data(none());
    wrong.test.labels[7] = 2;
    assert_eq!(refuse(&wrong), "row 7 of the test images has label number 2, but only 2 are named");
    let mut wrong = data(none());
    wrong.train.groups.pop();
    assert!(refuse(&wrong).contains("308 labels and 307 groups"));
    let empty = EvidenceData { test: none(), ..data(none()) };
    assert!(refuse(&empty).contains("the test part has no images"));
}
