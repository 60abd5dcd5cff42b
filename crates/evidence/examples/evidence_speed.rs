//! Times what evidence spends its time on: training steps, and putting many runs together.
//!
//! `cargo run --release -p evenset-evidence --example evidence_speed`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use evenset_core::{Group, Seed, Silent};
use evenset_evidence::distances::{GroupedFeatures, distances};
use evenset_evidence::{Arm, ArmRun, FeatureSet, GroupOutcome, Predictions, summarise};
use evenset_nn::classifier::{
    Architecture, Classifier, ClassifierConfig, Head, ImageSet, Inputs, Objective, RandAugment, Sampling, Training,
};

const ARMS: [Arm; 13] = [
    Arm::AsIs,
    Arm::Oversample,
    Arm::Undersample,
    Arm::Reweight,
    Arm::MatchWeights,
    Arm::Augment,
    Arm::Mixup,
    Arm::GroupDro,
    Arm::GeneratedOnly,
    Arm::Balanced,
    Arm::BalancedReweight,
    Arm::BalancedDiscount,
    Arm::BalancedLastLayer,
];

fn main() {
    training("mlp [100, 100, 100], batch 256", Architecture::Mlp(vec![100; 3]), 256, RandAugment::none());
    training("cnn of width 8, batch 32", Architecture::Cnn, 32, RandAugment::none());
    training("the same, augmented", Architecture::Cnn, 32, RandAugment::moderate());

    let (classes, colours, images) = (10u32, 2u32, 10_000u32);
    let run = |arm: Arm, seed: u32| {
        let mut groups = Vec::new();
        for (class, colour) in (0..classes).flat_map(|class| (0..colours).map(move |colour| (class, colour))) {
            let mut predictions = Predictions::new(classes as usize);
            for i in 0..images / classes / colours {
                let draw = Seed(7).index(u64::from(i + 1000 * (class + 10 * colour) + 77_777 * seed + arm as u32)).0;
                let predicted = if draw % 10 < 8 { class } else { (draw >> 8) as u32 % classes };
                predictions.push(class, predicted, (draw >> 40) as f32 / (1 << 24) as f32);
            }
            let group = Group::of("label", &class.to_string()).with("colour", &colour.to_string());
            groups.push(GroupOutcome { group, counts: true, predictions });
        }
        ArmRun::new(arm, seed, "label", groups)
    };
    let runs: Vec<ArmRun> = ARMS.iter().flat_map(|&arm| (0..5).map(move |seed| run(arm, seed))).collect();
    let start = Instant::now();
    let evidence = summarise(&runs).unwrap();
    println!("13 arms, 5 seeds, {images} images put together: {:.2} s", start.elapsed().as_secs_f64());
    println!("{}", evidence.sentence);

    let set = |seed: u64| FeatureSet::new(512, Seed(seed).normal(2000 * 512)).unwrap();
    let (real, generated, groups) = (set(1), set(2), vec![0; 2000]);
    let [real, generated] = [&real, &generated].map(|features| GroupedFeatures { features, groups: &groups });
    let start = Instant::now();
    distances(real, generated, real, &[], Seed(1)).unwrap();
    println!("distances of 2 x 2000 images of 512 features, twice: {:.2} s", start.elapsed().as_secs_f64());
}

/// Times training steps on images of 28x28 pixels.
fn training(what: &str, architecture: Architecture, batch: u32, rand_augment: RandAugment) {
    const STEPS: u32 = 100;
    let pixels: Vec<u8> = Seed(1).normal(2000 * 28 * 28 * 3).iter().map(|x| (128.0 + 40.0 * x) as u8).collect();
    let images = ImageSet::new(28, 28, pixels).unwrap();
    let head = Head {
        name: "label".into(),
        classes: (0..10).map(|class| class.to_string()).collect(),
        labels: (0..2000).map(|i| Some(i % 10)).collect(),
    };
    let config = ClassifierConfig { architecture, width: 8, steps: STEPS, batch, rand_augment, ..Default::default() };
    let training = Training {
        inputs: Inputs::Images(&images),
        heads: &[head],
        sampling: &Sampling::Uniform,
        loss_weights: None,
        objective: Objective::Mean,
        config: &config,
        seed: Seed(1),
    };
    let start = Instant::now();
    Classifier::train(&training, None, &Silent).unwrap();
    println!("{what}: {:.2} ms a step", start.elapsed().as_secs_f64() * 1000.0 / f64::from(STEPS));
}
