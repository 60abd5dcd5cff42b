//! The audit of images, from files to results.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_audit::images::{
    Appearance, ImageAudit, ImageRecord, ImageStatistics, NearDuplicates, Statistic, TELLING_AUC, VENDI_IMAGES,
    audit_images, group_images, trivial_predictors,
};
use evenset_core::Seed;
use evenset_data::{Format, Image, Limits, Mode, decode, encode_png};

fn png(width: u32, height: u32, colour: png::ColorType, depth: png::BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    file
}

/// An image whose every pixel is noise around a grey; `seed` chooses the noise.
fn noise(side: u32, grey: f32, seed: u64) -> Image {
    let values = Seed(seed).normal((side * side * 3) as usize);
    let rgb = values.into_iter().map(|v| (grey + 30.0 * v).clamp(0.0, 255.0) as u8).collect();
    Image { width: side, height: side, mode: Mode::Rgb, bits: 8, format: Format::Png, rgb }
}

fn record(image: &Image, codes: &[u32]) -> ImageRecord {
    ImageRecord {
        statistics: ImageStatistics::of(image, u64::from(image.width) * 100),
        appearance: Appearance::of(image),
        codes: codes.to_vec(),
    }
}

#[test]
fn every_kind_of_file_gives_finite_numbers() {
    use png::{BitDepth, ColorType};
    let wide: Vec<u8> = (0..3 * 2 * 8).map(|i| i * 5).collect();
    for file in [
        encode_png(1, 1, 3, &[0, 0, 0], &[]),
        encode_png(3, 2, 3, &[0; 18], &[]),
        encode_png(3, 2, 3, &[255; 18], &[]),
        png(3, 2, ColorType::Grayscale, BitDepth::Eight, &wide[..6]),
        png(3, 2, ColorType::GrayscaleAlpha, BitDepth::Sixteen, &wide[..24]),
        png(3, 2, ColorType::Rgba, BitDepth::Eight, &wide[..24]),
        png(3, 2, ColorType::Rgba, BitDepth::Sixteen, &wide),
        png(8, 1, ColorType::Grayscale, BitDepth::One, &[0b1010_1100]),
    ] {
        let image = decode(&file, &Limits::default()).unwrap();
        let statistics = ImageStatistics::of(&image, file.len() as u64);
        assert!(Statistic::ALL.iter().all(|s| s.of(&statistics).is_finite()), "{statistics:?}");
        assert!((0.0..=1.0).contains(&statistics.brightness) && (0.0..=1.0).contains(&statistics.saturation));
        assert!((0.0..=0.5 + 1e-6).contains(&statistics.contrast), "{statistics:?}");
        let appearance = Appearance::of(&image);
        assert!(appearance.embedding.iter().all(|x| x.is_finite()));
        let audit = audit_images(&[record(&image, &[0])], &[0], &[], Seed(1));
        assert_eq!((audit.groups[0].count, audit.groups[0].vendi), (1, Some(1.0)));
    }
}

#[test]
fn a_transparent_image_looks_like_a_white_one() {
    let clear = png(2, 2, png::ColorType::Rgba, png::BitDepth::Eight, &[9, 99, 199, 0].repeat(4));
    let white = encode_png(2, 2, 3, &[255; 12], &[]);
    let [clear, white] = [clear, white].map(|file| decode(&file, &Limits::default()).unwrap());
    assert_eq!(Appearance::of(&clear), Appearance::of(&white));
    assert_eq!(ImageStatistics::of(&clear, 1), ImageStatistics::of(&white, 1));
}

#[test]
fn a_class_of_dark_images_is_told_by_its_brightness() {
    // Class 1 is darker; the second attribute has nothing to do with the pixels; a third value has too few images.
    let records: Vec<ImageRecord> = (0..120u32)
        .map(|i| {
            record(
                &noise(12, if i % 3 == 1 { 60.0 } else { 160.0 }, u64::from(i)),
                &[u32::from(i % 3 == 1), i / 2 % 2, i / 110],
            )
        })
        .collect();
    let found = trivial_predictors(&records);
    let strongest = &found[0];
    assert_eq!((strongest.attribute, strongest.auc.max(1.0 - strongest.auc)), (0, 1.0));
    let dark = found.iter().find(|p| p.statistic == Statistic::Brightness && p.code == 1).unwrap();
    assert_eq!((dark.auc, dark.images, dark.interval[0]), (0.0, 40, 0.0));
    assert!(dark.interval[1] > 0.0 && dark.interval[1] < 0.2);
    assert!(found.iter().all(|p| p.attribute == 0 && (p.auc - 0.5).abs() >= TELLING_AUC - 0.5 - 1e-12));
    assert!(found.is_sorted_by(|a, b| (a.auc - 0.5).abs() >= (b.auc - 0.5).abs()));
}

#[test]
fn copies_across_splits_are_found_and_counted_in_their_groups() {
    let mut images: Vec<Image> = (0..30).map(|i| noise(24, 128.0, i)).collect();
    images.push(images[4].clone());
    images.push(images[4].clone());
    images.push(images[9].clone());
    // The copies of image 4 are in its group, the copy of image 9 is in another.
    let groups = |i: usize| if i == 32 { 1 } else { 0 };
    let records: Vec<ImageRecord> = images.iter().enumerate().map(|(i, image)| record(image, &[groups(i)])).collect();
    let splits: Vec<u32> = (0..33).map(|i| u32::from(i >= 31)).collect();
    let audit = audit_images(&records, &[0], &splits, Seed(2));
    let clusters: Vec<_> = audit.clusters.iter().map(|c| (c.images.clone(), c.splits.clone())).collect();
    assert_eq!(clusters, [(vec![4, 30, 31], vec![0, 1]), (vec![9, 32], vec![0, 1])]);
    assert_eq!((audit.near_duplicates, audit.clusters_across_splits), (5, 2));
    let found: Vec<_> = audit.groups.iter().map(|g| (g.count, g.near_duplicates)).collect();
    assert_eq!(found, [(32, 3), (1, 0)]);
    let [low, high] = audit.groups[0].near_duplicate_interval;
    assert!(low < 3.0 / 32.0 && 3.0 / 32.0 < high);
}

#[test]
fn a_group_of_different_images_is_more_diverse_than_one_of_alike_images() {
    let alike = (0..40).map(|i| record(&noise(16, 128.0, i % 3), &[0]));
    let different = (0..40).map(|i| record(&noise(16, 20.0 + 5.0 * i as f32, i), &[1]));
    let records: Vec<ImageRecord> = alike.chain(different).collect();
    let audit = audit_images(&records, &[0], &[], Seed(3));
    let [alike, different] = [0, 1].map(|group: usize| audit.groups[group].vendi.unwrap());
    assert!((1.0..=3.0 + 1e-6).contains(&alike) && different > 1.5 * alike, "{alike} {different}");
    let brightness = audit.groups[1].statistics[3];
    assert_eq!(brightness.statistic, Statistic::Brightness);
    assert!(brightness.quartiles[0] < brightness.median && brightness.median < brightness.quartiles[1]);
}

#[test]
fn a_large_group_is_sampled_by_the_seed_and_says_so() {
    let template = record(&noise(4, 100.0, 0), &[0]);
    let records: Vec<ImageRecord> = (0..VENDI_IMAGES as u64 + 200)
        .map(|i| ImageRecord {
            appearance: template.appearance.clone().with_embedding(&Seed(i).normal(12)),
            ..template.clone()
        })
        .collect();
    let duplicates = NearDuplicates::find(records.iter().map(|r| &r.appearance));
    let vendi = |seed| {
        let group = group_images(&records, &duplicates, &[0], Seed(seed)).remove(0);
        assert_eq!((group.count, group.vendi_images), (VENDI_IMAGES as u64 + 200, VENDI_IMAGES as u64));
        group.vendi.unwrap()
    };
    // Directions in 12 dimensions without any preferred one.
    assert!((11.5..12.0).contains(&vendi(1)) && vendi(1) == vendi(1) && vendi(1) != vendi(2));
}

#[test]
fn results_do_not_depend_on_threads_and_survive_json() {
    let records: Vec<ImageRecord> = (0..60)
        .map(|i| record(&noise(10, 90.0 + (i % 5) as f32 * 20.0, i % 50), &[i as u32 % 5, i as u32 % 2]))
        .collect();
    let splits: Vec<u32> = (0..60).map(|i| i / 40).collect();
    let audit = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| audit_images(&records, &[0, 1], &splits, Seed(5)))
    };
    let found = audit(1);
    assert_eq!(found, audit(4));
    assert_eq!((found.groups.len(), found.clusters_across_splits), (10, 10));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(serde_json::from_value::<ImageAudit>(json).unwrap(), found);
    let json = serde_json::to_value(&records[..2]).unwrap();
    assert_eq!(serde_json::from_value::<Vec<ImageRecord>>(json).unwrap(), records[..2]);
}

#[test]
fn nothing_to_look_at_is_an_empty_audit() {
    let audit = audit_images(&[], &[0], &[], Seed(1));
    assert_eq!((audit.groups.len(), audit.near_duplicates, audit.trivial_predictors.len()), (0, 0, 0));
    let record = record(&noise(3, 9.0, 1), &[]);
    assert!(audit_images(&[record], &[0], &[], Seed(1)).groups.is_empty());
}
