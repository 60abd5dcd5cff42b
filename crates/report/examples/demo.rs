//! Renders a report of made-up data: `cargo run -p evenset-report --example demo -- report.html [attributes] [values]`.
//!
//! Ten garments in four colours, strongly tied together, with small drawn pictures. More `attributes` (1 to 4) and more
//! `values` an attribute show how the page copes with other shapes.

use std::error::Error;
use std::io::Cursor;

use evenset_core::{Group, Seed};
use evenset_report::{
    Acceptance, Arm, Balance, BalanceChange, Calibration, Dataset, Evidence, Gain, GateRow, Generator, GroupAccuracy,
    GroupRow, Hook, LossPoint, Note, OutputFile, Outputs, Picture, Plan, ReasonCount, RejectedPicture, RejectedRows,
    ReportData, Round, SplitRows, Verdict, render,
};
use image::{ImageFormat, Rgb, RgbImage};

const GARMENTS: [&str; 10] =
    ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];
const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [214, 69, 65]), ("green", [88, 160, 78]), ("blue", [70, 118, 190]), ("yellow", [222, 184, 62])];
const MORE: [&str; 2] = ["season", "fabric"];
const TARGET: u64 = 480;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "report.html".to_owned());
    let attributes: usize = arguments.next().map_or(Ok(2), |n| n.parse())?;
    let values: usize = arguments.next().map_or(Ok(2), |n| n.parse())?;
    std::fs::write(path, render(&demo(attributes.clamp(1, 4), values)?)?)?;
    Ok(())
}

fn demo(attributes: usize, values: usize) -> Result<ReportData, Box<dyn Error>> {
    let groups = groups(attributes, values)?;
    let accepted = groups.iter().map(|group| group.accepted).sum();
    let candidates = groups.iter().map(|group| group.generated).sum();
    let real: u64 = groups.iter().map(|group| group.before).sum();
    let mut grouping = vec!["garment".to_owned(), "colour".to_owned()];
    grouping.extend(MORE.map(str::to_owned));
    grouping.truncate(attributes);
    Ok(ReportData {
        name: "fashion".into(),
        evenset: env!("CARGO_PKG_VERSION").into(),
        seed: 7,
        label: Some("garment".into()),
        attributes: grouping.iter().skip(1).cloned().collect(),
        grouping,
        dataset: Some(dataset(real)),
        balance: Some(BalanceChange {
            before: Balance {
                normalised_entropy: Some(0.72),
                largest_to_smallest: groups.iter().all(|group| group.before > 0).then_some(36.8),
                total_variation: Some(0.67),
                cramers_v: Some(0.88),
                effective_groups: Some(14.2),
            },
            after: Some(Balance {
                normalised_entropy: Some(0.99),
                largest_to_smallest: Some(1.5),
                total_variation: Some(0.08),
                cramers_v: Some(0.11),
                effective_groups: Some(38.9),
            }),
        }),
        plan: Some(Plan {
            target: "every colour as often as every other within each garment, at least 480 images in every group"
                .into(),
            limits: vec!["at most 20,000 images".into(), "at most 500 images in a group".into()],
            images: accepted,
            satisfied: true,
            unreachable: Vec::new(),
        }),
        acceptance: Some(acceptance(candidates, accepted)),
        rounds: vec![
            Round {
                round: 1,
                requested: candidates * 6 / 10,
                accepted: accepted * 7 / 10,
                remaining: accepted * 3 / 10,
            },
            Round { round: 2, requested: candidates * 3 / 10, accepted: accepted / 4, remaining: accepted / 20 },
            Round { round: 3, requested: candidates / 10, accepted: accepted / 20, remaining: 0 },
        ],
        generator: Some(generator()?),
        calibration: calibration(),
        evidence: Some(evidence(&groups)),
        outputs: Some(Outputs {
            path: "out/fashion".into(),
            formats: vec!["parquet".into(), "webdataset".into()],
            rows_real: real + 4000,
            rows_generated: accepted,
            files: ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "README.md", "train.py"]
                .iter()
                .map(|path| OutputFile { path: (*path).into(), bytes: 4_321_987, sha256: digest(path) })
                .collect(),
        }),
        hook: Some(Hook {
            command: ["python", "train.py", "--data", "out/fashion"].map(str::to_owned).to_vec(),
            exit_code: Some(0),
            output_tail: "epoch 10: loss 0.214\n  61.0% of   100  garment=shirt & colour=green\n".into(),
        }),
        notes: vec![
            Note::warning(
                "2 images of the test split are near copies of training images; they were left where they are.",
            ),
            Note::info(
                "The verifier was trained on 7,200 real images, the same number from every group where there were enough.",
            ),
        ],
        audit_page: None,
        job:
            "name: fashion\nseed: 7\ndataset:\n  path: data-samples/fashion\n  label: garment\n  attributes: [colour]\n"
                .into(),
        groups,
    })
}

/// Every combination of values; each garment has its home colour and few images elsewhere.
fn groups(attributes: usize, values: usize) -> Result<Vec<GroupRow>, Box<dyn Error>> {
    let more: Vec<Vec<(String, String)>> = (2..attributes).fold(vec![Vec::new()], |combinations, attribute| {
        let name = MORE[attribute - 2];
        combinations
            .iter()
            .flat_map(|pairs| {
                (0..values).map(move |v| [pairs.clone(), vec![(name.into(), format!("{name} {v}"))]].concat())
            })
            .collect()
    });
    let mut rows = Vec::new();
    for (g, garment) in GARMENTS.iter().enumerate() {
        for (c, (colour, rgb)) in COLOURS.iter().enumerate().take(if attributes == 1 { 1 } else { 4 }) {
            for pairs in &more {
                let mut values = vec![("garment".to_owned(), (*garment).to_owned())];
                if attributes > 1 {
                    values.push(("colour".to_owned(), (*colour).to_owned()));
                }
                values.extend(pairs.iter().cloned());
                rows.push(row(Group::new(values)?, g, c, *rgb, rows.len() as u64)?);
            }
        }
    }
    Ok(rows)
}

fn row(values: Group, garment: usize, colour: usize, rgb: [u8; 3], index: u64) -> Result<GroupRow, Box<dyn Error>> {
    let home = garment % 4 == colour;
    let before = match (home, index % 13) {
        (true, _) => 736 - 9 * (index % 5),
        (false, 4) => 0,
        (false, n) => 12 + 2 * n,
    };
    let accepted = TARGET.saturating_sub(before);
    let rate = 0.45 + 0.04 * ((index * 7) % 13) as f64;
    let generated = (accepted as f64 / rate) as u64;
    let name = values.values().collect::<Vec<_>>().join(" ");
    let pictures = |n: u64, salt: u64, noise: f32| {
        (0..n)
            .map(|i| Ok(Picture::png(draw(garment, rgb, Seed(index * 100 + salt + i), noise)?, name.clone())))
            .collect::<Result<Vec<_>, Box<dyn Error>>>()
    };
    let dropped = generated - accepted;
    Ok(GroupRow {
        before,
        want: Some(TARGET.max(before)),
        generated,
        accepted,
        rejected: dropped,
        after: Some(before + accepted),
        acceptance_interval: (generated > 0).then_some([rate - 0.035, rate + 0.034]),
        reasons: if dropped == 0 {
            Vec::new()
        } else {
            vec![
                ReasonCount { reason: "garment not recognised".into(), count: dropped * 2 / 3 },
                ReasonCount { reason: "near copy of a training image".into(), count: dropped / 4 },
            ]
        },
        samples_real: pictures(before.min(4), 0, 8.0)?,
        samples_generated: pictures(accepted.min(4), 40, 16.0)?,
        samples_rejected: pictures(u64::from(accepted > 0), 80, 70.0)?
            .into_iter()
            .map(|picture| RejectedPicture {
                picture,
                reason: format!("recognised as {} (0.81)", GARMENTS[(garment + 3) % 10]),
            })
            .collect(),
        values,
    })
}

/// A 28 x 28 silhouette in a colour, with noise.
fn draw(garment: usize, rgb: [u8; 3], seed: Seed, noise: f32) -> Result<Vec<u8>, Box<dyn Error>> {
    let normal = seed.normal(28 * 28 + 2);
    let (wider, taller) = (normal[0] * 1.2, normal[1] * 1.2);
    let picture = RgbImage::from_fn(28, 28, |px, py| {
        let (x, y) = ((px as f32 - 13.5).abs() - wider, py as f32 + taller);
        let inside = match garment {
            0 | 2 | 6 => (y > 4.0 && y < 24.0 && x < 6.5) || (y > 4.0 && y < 12.0 && x < 11.0),
            1 => y > 2.0 && y < 26.0 && x < 6.0 && (x > 1.5 || y < 8.0),
            3 => y > 2.0 && y < 26.0 && x < 2.5 + y * 0.25,
            4 => y > 2.0 && y < 26.0 && x < 8.5 && x > 0.6,
            8 => (y > 10.0 && y < 24.0 && x < 10.0) || (y > 5.0 && y <= 10.0 && x > 4.0 && x < 6.0),
            _ => y > 14.0 + (px as f32 - 20.0).min(0.0) * -0.3 && y < 22.0 && px > 3 && px < 25,
        };
        let grain = normal[(px + 28 * py) as usize + 2] * noise;
        let light = if inside { 1.0 - 0.012 * y } else { 0.06 };
        Rgb(rgb.map(|channel| {
            (f32::from(channel) * light + grain * if inside { 1.0 } else { 0.3 }).clamp(0.0, 255.0) as u8
        }))
    });
    png(&picture)
}

fn png(picture: &RgbImage) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

fn dataset(real: u64) -> Dataset {
    Dataset {
        path: "data-samples/fashion".into(),
        kind: "parquet".into(),
        splits: vec![SplitRows { split: "train".into(), rows: real }, SplitRows { split: "test".into(), rows: 4000 }],
        rejected: vec![RejectedRows {
            reason: "not an image".into(),
            rows: 2,
            examples: vec![
                "train row 17: the bytes are neither PNG, JPEG nor WebP".into(),
                "train row 4031: empty".into(),
            ],
        }],
    }
}

fn acceptance(candidates: u64, accepted: u64) -> Acceptance {
    let rejected = candidates - accepted;
    let gate = |gate: &str, checked, dropped, reasons: &[(&str, u64)]| GateRow {
        gate: gate.into(),
        checked,
        dropped,
        reasons: reasons
            .iter()
            .map(|(reason, count)| ReasonCount { reason: (*reason).into(), count: *count })
            .collect(),
    };
    let (blank, wrong) = (rejected / 100, rejected * 7 / 10);
    let copies = rejected - blank - wrong;
    Acceptance {
        candidates,
        accepted,
        rejected,
        gates: vec![
            gate("decode", candidates, blank, &[("blank", blank)]),
            gate(
                "attributes",
                candidates - blank,
                wrong,
                &[("garment not recognised", wrong * 4 / 5), ("colour not recognised", wrong / 5)],
            ),
            gate(
                "novelty",
                candidates - blank - wrong,
                copies,
                &[("near copy of a training image", copies * 3 / 4), ("near copy of another candidate", copies / 4)],
            ),
        ],
    }
}

fn generator() -> Result<Generator, Box<dyn Error>> {
    let noise = Seed(5).normal(240);
    let loss = (0..240_u64)
        .map(|i| LossPoint {
            step: i * 25,
            loss: 0.11 + 0.9 * (-(i as f64) / 22.0).exp() + 0.012 * f64::from(noise[i as usize]),
        })
        .collect();
    let mut sheet = RgbImage::new(10 * 28, 4 * 28);
    for garment in 0..10 {
        for (c, (_, rgb)) in COLOURS.iter().enumerate() {
            let bytes = draw(garment, *rgb, Seed(900 + garment as u64), 16.0)?;
            let cell = image::load_from_memory(&bytes)?.to_rgb8();
            image::imageops::replace(&mut sheet, &cell, garment as i64 * 28, c as i64 * 28);
        }
    }
    Ok(Generator {
        kind: "conditional".into(),
        size: "small".into(),
        parameters: Some(3_412_611),
        steps: Some(6000),
        loss,
        sampler: "dpmpp-2m".into(),
        sampler_steps: Some(12),
        guidance: Some(1.5),
        device: "cpu f32".into(),
        model_sha256: Some(digest("model")),
        sample_grid: Some(Picture::png(png(&sheet)?, "Ten garments in four colours, drawn after 6,000 steps")),
    })
}

fn calibration() -> Vec<Calibration> {
    let matrix = |n: usize, right: u64, near: u64| {
        (0..n)
            .map(|t| {
                (0..n)
                    .map(|g| {
                        if t == g {
                            right
                        } else if (t + g).is_multiple_of(4) {
                            near
                        } else {
                            0
                        }
                    })
                    .collect()
            })
            .collect()
    };
    vec![
        Calibration {
            attribute: "garment".into(),
            accuracy: 0.868,
            images: 800,
            classes: GARMENTS.map(str::to_owned).to_vec(),
            confusion: matrix(10, 69, 5),
        },
        Calibration {
            attribute: "colour".into(),
            accuracy: 0.996,
            images: 800,
            classes: COLOURS.map(|(colour, _)| colour.to_owned()).to_vec(),
            confusion: matrix(4, 199, 1),
        },
    ]
}

fn evidence(groups: &[GroupRow]) -> Evidence {
    let per_group = |lift: f64, spread: f64| {
        let noise = Seed(11).normal(groups.len());
        let accuracy = |(group, noise): (&GroupRow, &f32)| {
            let thin = if group.before < 100 { 1.0 } else { 0.0 };
            GroupAccuracy {
                values: group.values.clone(),
                accuracy: (0.90 - thin * (0.24 - lift) + f64::from(*noise) * spread - (1.0 - thin) * lift * 0.1)
                    .clamp(0.0, 1.0),
                interval: None,
                images: 100,
            }
        };
        groups.iter().zip(&noise).map(accuracy).collect()
    };
    let arm = |name: &str, accuracy: f64, worst: f64, lift: f64| Arm {
        name: name.into(),
        accuracy,
        accuracy_interval: Some([accuracy - 0.012, accuracy + 0.011]),
        worst_group: worst,
        worst_group_interval: Some([worst - 0.055, worst + 0.05]),
        gap: Some(0.97 - worst),
        gap_interval: None,
        groups: per_group(lift, 0.09 - lift * 0.2),
    };
    Evidence {
        verdict: Verdict::Helped,
        sentence: "On real test images, worst-group accuracy is 61 % with the generated images and 47 % with the best \
                   arm without them, oversampling: a gain of 14 points (95 % interval +8 to +19, 5 seeds)."
            .into(),
        seeds: 5,
        gain: Some(Gain { over: "oversample".into(), worst_group: 0.14, interval: [0.08, 0.19] }),
        arms: vec![
            arm("as-is", 0.741, 0.38, 0.0),
            arm("oversample", 0.772, 0.47, 0.05),
            arm("reweight", 0.768, 0.45, 0.04),
            arm("balanced", 0.823, 0.61, 0.15),
        ],
    }
}

/// A stand-in for a hash, as long as one.
fn digest(of: &str) -> String {
    (0..4).map(|i| format!("{:016x}", Seed(i).derive(of).0)).collect()
}
