//! Whether the verdict is right where the answer is known: planted gains, useless and harmful generators.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, Seed, Silent};
use evenset_evidence::{
    Arm, ArmRun, Baseline, ClassifierKind, Error, Evidence, EvidenceConfig, EvidenceData, FeatureSet, GroupOutcome,
    Labelled, Predictions, Variant, Verdict, arms_for, run_arm, run_share, summarise, summarise_sweep,
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
    let images = ImageSet::new(SIDE, SIDE, Vec::new()).unwrap();
    let mut part = Labelled { images, labels: vec![], groups: vec![], features: None };
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
        planned: [(1, 40), (2, 40)].into(),
        further: None,
        validation: None,
        test: part(1_000_000, &[(false, false, 60), (false, true, 60), (true, false, 60), (true, true, 60)]),
        classes: vec!["lying".into(), "standing".into()],
        groups: vec![name("lying", "red"), name("lying", "blue"), name("standing", "red"), name("standing", "blue")],
        label: "direction".into(),
    }
}

fn config() -> EvidenceConfig {
    EvidenceConfig {
        seeds: 5,
        baselines: vec![Baseline::Oversample, Baseline::Reweight],
        variants: vec![],
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
    assert!(!evidence.sentence.contains("too few"), "five seeds are enough: {}", evidence.sentence);
    let json = serde_json::to_value(&evidence).unwrap();
    assert_eq!((json["verdict"].as_str(), json["seeds"].as_u64()), (Some("helped"), Some(5)));
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
    let outcome = |(&colour, right): (&&str, u32)| {
        let mut predictions = Predictions::new(2);
        (0..100).for_each(|i| predictions.push(0, u32::from((i + 3 * seed) % 100 >= right), 0.9));
        GroupOutcome { group: Group::of("colour", colour), counts: true, predictions }
    };
    let run = ArmRun::new(arm, seed, "label", ["red", "green", "blue"].iter().zip(right).map(outcome).collect());
    ArmRun { generated_images: if arm.is_baseline() { 0 } else { 50 }, ..run }
}

fn runs(arms: &[(Arm, [u32; 3])]) -> Vec<ArmRun> {
    runs_of(5, arms)
}

fn runs_of(seeds: u32, arms: &[(Arm, [u32; 3])]) -> Vec<ArmRun> {
    (0..seeds).flat_map(|seed| arms.iter().map(move |&(arm, right)| run(arm, seed, right))).collect()
}

#[test]
fn fewer_than_five_seeds_carry_no_verdict_however_large_the_difference() {
    let arms = [(Arm::AsIs, [90, 80, 30]), (Arm::Balanced, [90, 85, 80])];
    for (seeds, verdict) in [(1, Verdict::NoDifference), (4, Verdict::NoDifference), (5, Verdict::Helped)] {
        let evidence = summarise(&runs_of(seeds, &arms)).unwrap();
        assert_eq!(evidence.verdict, verdict, "{seeds}: {}", evidence.sentence);
        let cannot = format!("So few seeds ({seeds}) cannot carry a verdict");
        assert_eq!(evidence.sentence.contains(&cannot), seeds < 5, "{}", evidence.sentence);
    }
}

#[test]
fn without_a_generated_image_nothing_is_said_to_help() {
    let mut runs = runs(&[(Arm::AsIs, [90, 80, 30]), (Arm::Balanced, [90, 85, 80])]);
    assert_eq!(summarise(&runs).unwrap().verdict, Verdict::Helped);
    runs.iter_mut().for_each(|run| run.generated_images = 0);
    let evidence = summarise(&runs).unwrap();
    assert_eq!(evidence.verdict, Verdict::NoDifference, "what is better is the even drawing of real images");
    assert!(evidence.sentence.starts_with("No generated image is among the balanced data"), "{}", evidence.sentence);
}

#[test]
fn a_gain_in_the_worst_group_that_costs_accuracy_overall_says_so() {
    let arms = [(Arm::AsIs, [95, 95, 50]), (Arm::Balanced, [72, 72, 72])];
    let evidence = summarise(&runs(&arms)).unwrap();
    assert_eq!(evidence.verdict, Verdict::Helped);
    let told = "Over all test images accuracy fell: 0.720 with the balanced data and 0.800 with as-is (-0.080";
    assert!(evidence.sentence.contains(told), "{}", evidence.sentence);
    let evidence = summarise(&runs(&[(Arm::AsIs, [90, 90, 50]), (Arm::Balanced, [90, 90, 72])])).unwrap();
    assert!(!evidence.sentence.contains("fell"), "{}", evidence.sentence);
}

#[test]
fn a_gain_is_not_claimed_above_baselines_that_were_not_run() {
    let told = |baselines: &[Arm]| {
        let mut arms = vec![(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, [90, 85, 80])];
        arms.extend(baselines.iter().map(|&arm| (arm, [90, 80, 55])));
        summarise(&runs(&arms)).unwrap().sentence
    };
    assert!(told(&[]).contains("not shown above oversample or reweight"), "{}", told(&[]));
    assert!(told(&[Arm::Oversample]).contains("not shown above reweight"), "{}", told(&[Arm::Oversample]));
    assert!(!told(&[Arm::Oversample, Arm::Reweight]).contains("not shown"));
}

#[test]
fn what_is_better_than_the_data_as_it_was_is_only_worse_than_the_baseline_that_beats_it() {
    let arms = [(Arm::AsIs, [90, 80, 30]), (Arm::Reweight, [90, 85, 80]), (Arm::Balanced, [90, 80, 50])];
    let evidence = summarise(&runs(&arms)).unwrap();
    assert_eq!(evidence.verdict, Verdict::Harmed);
    assert!(evidence.sentence.starts_with("Balancing is worse than reweight:"), "{}", evidence.sentence);
}

#[test]
fn small_test_groups_are_judged_as_one() {
    let mut small = data(part(5_000, &[]));
    small.test = part(1_000_000, &[(false, false, 30), (false, true, 6), (true, false, 7), (true, true, 20)]);
    small.pool_small_test_groups(10);
    let config = EvidenceConfig { steps: 4, ..config() };
    let run = run_arm(Arm::AsIs, &small, Seed(5), 0, &config, &Silent).unwrap();
    let sizes: Vec<(usize, bool)> = run.groups.iter().map(|group| (group.total(), group.counts)).collect();
    assert_eq!(sizes, [(30, true), (20, true), (13, true)]);
    assert!(run.groups[2].group.is_empty());
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
    assert!(summary.sentence.contains("no difference seen"), "{}", summary.sentence);
    assert!(summary.against_best_baseline.worst_group_p > 0.05 && summary.against_as_is.worst_group_p < 0.001);
    assert!(summary.arms[2].against_best_baseline.is_none(), "the best baseline has nothing to be compared with");
    assert_eq!(summary.arms[3].against_best_baseline.as_ref(), Some(&summary.against_best_baseline));
    assert!(summary.arms[0].against_best_baseline.as_ref().unwrap().worst_group_interval[1] < 0.0);
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
        (as_is.balanced_accuracy, as_is.balanced_accuracy_interval),
        (as_is.equalised_odds, as_is.equalised_odds_interval),
        (as_is.calibration_error, as_is.calibration_error_interval),
    ] {
        assert!(low <= estimate && estimate <= high && low < high);
    }
}

#[test]
fn clear_differences_are_called_helped_and_harmed() {
    for (balanced, verdict, words) in [
        ([85, 82, 80], Verdict::Helped, "Balancing helped"),
        ([90, 80, 25], Verdict::Harmed, "harmed"),
        ([90, 80, 50], Verdict::NoDifference, "no difference seen"),
    ] {
        let evidence = summarise(&runs(&[(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, balanced)])).unwrap();
        assert_eq!(evidence.verdict, verdict);
        assert!(evidence.sentence.contains(words), "{}", evidence.sentence);
    }
    // An arm with generated images is never a baseline, however good.
    let arms = [(Arm::AsIs, [90, 80, 50]), (Arm::Balanced, [85, 82, 80]), (Arm::BalancedReweight, [95, 95, 95])];
    let evidence = summarise(&runs(&arms)).unwrap();
    assert_eq!((evidence.verdict, evidence.against_best_baseline.with), (Verdict::Helped, Arm::AsIs));
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
    let mut validation = part(9_000, &[(true, true, 3)]);
    validation.groups[1] = 4;
    let wrong = EvidenceData { validation: Some(validation), ..data(none()) };
    assert!(refuse(&wrong).contains("row 1 of the validation images has group number 4"));
    let wrong = EvidenceData { left_out: vec![308], ..data(none()) };
    assert!(refuse(&wrong).contains("training image 308 is to be left out, but there are only 308"));
    let linear = EvidenceConfig { classifier: ClassifierKind::Linear, ..config };
    let error = run_arm(Arm::AsIs, &data(none()), Seed(5), 0, &linear, &Silent).unwrap_err().to_string();
    assert!(error.contains("the train images have no feature vectors") && error.contains("`cnn` or `mlp`"), "{error}");
}

/// Gives every part one feature that says the label loudly and one that says the colour.
fn with_features(mut data: EvidenceData) -> EvidenceData {
    for part in [&mut data.train, &mut data.generated, &mut data.test] {
        let vector = |(i, &group): (usize, &u32)| {
            let noise = Seed(8).index(i as u64).normal(2);
            [(group / 2) as f32 + 0.3 * noise[0], (group % 2) as f32 + 0.3 * noise[1]]
        };
        let values = part.groups.iter().enumerate().flat_map(vector).collect();
        part.features = Some(FeatureSet::new(2, values).unwrap());
    }
    data
}

#[test]
fn every_arm_can_be_run_and_learns_something() {
    let config = EvidenceConfig {
        baselines: vec![
            Baseline::Undersample,
            Baseline::Oversample,
            Baseline::Reweight,
            Baseline::MatchWeights,
            Baseline::Augment,
            Baseline::Mixup,
            Baseline::GroupDro,
        ],
        variants: vec![
            Variant::GeneratedOnly,
            Variant::BalancedReweight,
            Variant::BalancedDiscount,
            Variant::BalancedLastLayer,
        ],
        steps: 60,
        ..config()
    };
    let data = data(part(5_000, &[(false, true, 60), (true, false, 60)]));
    let (arms, skipped) = arms_for(&config, &data);
    assert_eq!((arms.len(), skipped.len()), (13, 0));
    for arm in arms {
        let run = run_arm(arm, &data, Seed(5), 0, &config, &Silent).unwrap();
        assert!(run.accuracy > 0.45, "{arm}: {}", run.accuracy);
        // 15 of each large group and one of each small one.
        assert_eq!(run.validation_images, 32, "{arm}");
        assert!(run.kept_step.is_some_and(|step| (1..=60).contains(&step)), "{arm}");
        let expected = match arm {
            Arm::Undersample => (12, 0),
            Arm::GeneratedOnly => (0, 120),
            arm if arm.is_baseline() => (276, 0),
            _ => (276, 120),
        };
        assert_eq!((run.real_images, run.generated_images), expected, "{arm}");
        assert_eq!(serde_json::from_str::<ArmRun>(&serde_json::to_string(&run).unwrap()).unwrap(), run);
    }
    let none = EvidenceData { generated: part(0, &[]), ..data };
    let (arms, skipped) = arms_for(&config, &none);
    assert_eq!((arms.len(), skipped[0].arm), (12, Arm::GeneratedOnly));
    assert!(matches!(run_arm(Arm::GeneratedOnly, &none, Seed(5), 0, &config, &Silent), Err(Error::Arm { .. })));
}

#[test]
fn the_other_classifiers_learn_too() {
    let data = with_features(data(part(5_000, &[(false, true, 60), (true, false, 60)])));
    for (classifier, enough) in [(ClassifierKind::Mlp, 0.6), (ClassifierKind::Linear, 0.9)] {
        let config = EvidenceConfig { classifier, hidden: vec![30, 20], steps: 100, ..config() };
        let run = run_arm(Arm::Balanced, &data, Seed(5), 0, &config, &Silent).unwrap();
        assert!(run.accuracy > enough, "{classifier:?}: {}", run.accuracy);
        let last = EvidenceConfig { validation_share: 0.0, ..config };
        let run = run_arm(Arm::BalancedLastLayer, &data, Seed(5), 0, &last, &Silent).unwrap();
        assert_eq!((run.kept_step, run.validation_images, run.real_images), (None, 0, 308));
    }
    let linear = EvidenceConfig { classifier: ClassifierKind::Linear, baselines: vec![Baseline::Augment], ..config() };
    assert_eq!(arms_for(&linear, &data).1[0].arm, Arm::Augment);
}

#[test]
fn a_validation_split_takes_the_place_of_held_out_images() {
    let config = EvidenceConfig { steps: 20, ..config() };
    let mut data = data(part(5_000, &[]));
    data.validation = Some(part(70_000, &[(false, true, 12), (true, false, 12)]));
    let run = run_arm(Arm::AsIs, &data, Seed(5), 0, &config, &Silent).unwrap();
    assert_eq!((run.real_images, run.validation_images), (308, 24));
}

#[test]
fn a_sweep_goes_from_no_generated_image_to_more_than_the_plan_asks_for() {
    let config = EvidenceConfig { steps: 60, sweep: vec![2.0, 0.0, 1.0], ..config() };
    let mut data = data(part(5_000, &[(false, true, 40), (true, false, 40)]));
    data.further = Some(part(6_000, &[(false, true, 40), (true, false, 30)]));
    let run = |share: f64| run_share(share, &data, Seed(5), 0, &config, &Silent).unwrap();
    let runs: Vec<_> = config.shares().into_iter().map(run).collect();
    let summary = summarise_sweep(&runs).unwrap();
    let counts: Vec<(f64, u32, u32)> =
        summary.shares.iter().map(|share| (share.share, share.wanted, share.generated_images)).collect();
    assert_eq!(counts, [(0.0, 0, 0), (1.0, 80, 80), (2.0, 160, 150)]);
    assert_eq!(summary.plateau, None, "one seed shows no plateau");
    let whole = run_arm(Arm::Balanced, &data, Seed(5), 0, &config, &Silent).unwrap();
    assert_eq!(runs[1].run, whole, "a share of one is `balanced` itself");
    assert!(run_share(4.0, &data, Seed(5), 0, &config, &Silent).is_err());
}

#[test]
fn images_with_wrong_labels_do_not_help() {
    let mut swapped = part(5_000, &[(false, true, 146), (true, false, 146)]);
    for (label, group) in swapped.labels.iter_mut().zip(&mut swapped.groups) {
        (*label, *group) = (1 - *label, (*group + 2) % 4);
    }
    let evidence = evidence(&data(swapped));
    assert_ne!(evidence.verdict, Verdict::Helped, "{}", evidence.sentence);
}
