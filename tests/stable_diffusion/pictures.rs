//! Pictures that belong to images: masks, and what ControlNets are shown.

use std::path::Path;

use crate::support::{fail, run, stderr, succeed};
use crate::{Candidate, as_strs, candidates, control, draw_one, drawn, faces, lines, model, repository, small};

/// Gives training images a picture each in a column of their own; `of` says which, by their number.
fn add_pictures(root: &Path, column: &str, of: impl Fn(u32) -> Option<image::RgbImage>) {
    let folder = root.join("faces/train");
    std::fs::create_dir_all(folder.join(column)).unwrap();
    let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).unwrap();
    let mut rows = String::new();
    for line in metadata.lines() {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = row["file_name"].as_str().unwrap().to_owned();
        if let Some(picture) = of(name.trim_end_matches(".png").parse().unwrap()) {
            picture.save(folder.join(column).join(&name)).unwrap();
            row[column] = format!("{column}/{name}").into();
        }
        rows.push_str(&format!("{row}\n"));
    }
    std::fs::write(folder.join("metadata.jsonl"), rows).unwrap();
}

/// Black, and white from a column of pixels on.
fn white_from(column: u32, side: u32) -> image::RgbImage {
    image::RgbImage::from_fn(side, side, |x, _| image::Rgb([if x < column { 0 } else { 255 }; 3]))
}

/// Black on the left, white on the right.
fn right_half(side: u32) -> image::RgbImage {
    white_from(side / 2, side)
}

/// The first nurse and the first scientist of [`faces`].
const NURSE: u32 = 1;
const SCIENTIST: u32 = 23;
const MASKED: &str =
    "generate.guides={below: 50, strengths: [1], sources: [same-group, same-label], noise: false, mask: mask}";
const POSED: &str = "generate.guides={below: 50, strengths: [1], sources: [same-group, same-label], noise: false}";

/// The model of [`model`] with a network of nine channels.
fn inpainting(root: &Path) -> String {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to.join(entry.file_name())),
                false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }
    let folder = root.join("inpaint");
    copy(Path::new(&model("sd1")), &folder);
    copy(&repository().join("tests/golden/pipelines/inpaint"), &folder.join("unet"));
    folder.display().to_string()
}

/// How alike two images are in the columns of pixels `columns`: the correlation of their values.
fn likeness(a: &image::RgbImage, b: &image::RgbImage, columns: std::ops::Range<u32>) -> f64 {
    let values = |image: &image::RgbImage| -> Vec<f64> {
        let pixels = columns.clone().flat_map(|x| (0..image.height()).map(move |y| (x, y)));
        let values: Vec<f64> = pixels.flat_map(|(x, y)| image.get_pixel(x, y).0).map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (a, b) = (values(a), values(b));
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

#[test]
fn with_masks_only_the_white_part_of_a_real_image_is_drawn_anew() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    // All others guide nothing, so it is known which image each candidate starts from.
    add_pictures(root.path(), "mask", |number| [NURSE, SCIENTIST].contains(&number).then(|| white_from(20, 24)));
    let run = |masked: &str, folder: &str| {
        let folder = format!("run=runs/{folder}");
        succeed(root.path(), &as_strs(&small("generate", "sd2", &[masked, &folder])));
        candidates(&root.path().join(folder.trim_start_matches("run=")))
    };
    let masked = run(MASKED, "masked");
    let whole = run(&MASKED.replace(", mask: mask", ""), "whole");

    // What the autoencoder makes of the guide: nothing is free.
    image::RgbImage::new(16, 16).save(root.path().join("black.png")).unwrap();
    let kept = |candidate: &Candidate| {
        let number = if candidate.group.contains("nurse") { NURSE } else { SCIENTIST };
        let flags = format!(
            "--width 24 --height 16 --steps 3 --image faces/train/{number:03}.png --mask black.png --strength 1 --seed {} \
             --dtype f16",
            candidate.seed
        );
        image::load_from_memory(&draw_one(root.path(), "sd2", "x", &flags, "kept.png")).unwrap().to_rgb8()
    };
    for (candidate, unmasked) in masked.iter().zip(&whole).step_by(9) {
        let kept = kept(candidate);
        // The autoencoder has made-up weights and looks at the whole image, so what stays is not quite the same.
        let [stays, without] = [candidate, unmasked].map(|one| likeness(&one.image(), &kept, 0..10));
        let anew = likeness(&candidate.image(), &kept, 20..24);
        assert!(stays > 0.8 && anew < 0.75 && without < 0.6, "{stays:.2}, drawn anew {anew:.2}, no mask {without:.2}");
    }

    // Another mask is another image, and the same one is not drawn again.
    let again = run(MASKED, "masked");
    assert!(masked.iter().zip(&again).all(|(a, b)| a.png == b.png));
    white_from(4, 24).save(root.path().join("faces/train/mask/001.png")).unwrap();
    let other = run(MASKED, "other");
    for (before, after) in masked.iter().zip(&other) {
        assert_eq!(before.png == after.png, before.group.contains("scientist"), "{}", before.group);
    }
}

#[test]
fn images_without_a_usable_mask_guide_nothing_and_are_counted_with_their_files() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |number| match number {
        2 => None,
        3 => Some(image::RgbImage::new(16, 16)),
        _ => Some(right_half(16)),
    });
    std::fs::write(root.path().join("faces/train/mask/004.png"), "no image").unwrap();
    let said = succeed(root.path(), &as_strs(&small("plan", "sd1", &[MASKED])));
    assert!(said.contains("3 of 44 training images guide no candidate"), "{said}");
    let flat: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("there is no picture in `mask` (1: train/002.png)"), "{said}");
    assert!(flat.contains("no white") && flat.contains("(1: train/003.png)"), "{said}");
    assert!(flat.contains("the picture in `mask`: not an image") && flat.contains("(1: train/004.png)"), "{said}");
    let said = fail(root.path(), &as_strs(&small("plan", "sd1", &[MASKED, "dataset.on_error=fail"])), 1);
    assert!(said.contains("004.png: the picture in `mask`"), "{said}");
}

#[test]
fn a_model_of_nine_channels_runs_with_masks_and_says_beforehand_what_it_lacks() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    let path = format!("generate.model.path={}", inpainting(root.path()));
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[&path, MASKED])));
    assert!(said.contains("30 generated"), "{said}");
    succeed(root.path(), &as_strs(&small("plan", "sd1", &[&path, MASKED])));

    let refused = |verb: &str, guides: &str| fail(root.path(), &as_strs(&small(verb, "sd1", &[&path, guides])), 2);
    let posed = format!("generate.model.controls=[{{path: {}, column: mask}}]", control());
    let said = fail(root.path(), &as_strs(&small("run", "sd1", &[&path, POSED, &posed])), 2);
    assert!(said.contains("generate.guides.mask") && said.contains("nine channels"), "{said}");
    for verb in ["plan", "run"] {
        let said = refused(verb, "generate.guides=null");
        assert!(said.contains("nine channels") && said.contains("mask: COLUMN"), "{said}");
        let said = refused(verb, &MASKED.replace(", mask: mask", ""));
        assert!(said.contains("generate.guides.mask") || said.contains("mask: COLUMN"), "{said}");
        let said = refused(verb, &MASKED.replace("noise: false", "noise: true"));
        assert!(said.contains("write `noise: false`"), "{said}");
        let said = refused(verb, &MASKED.replace("below: 50", "below: 2"));
        assert!(said.contains("2 real images") && said.contains("write `below: 3` or more"), "{said}");
    }
}

#[test]
fn candidates_follow_the_control_picture_of_the_real_image_that_guides_them() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "edges", |number| [NURSE, SCIENTIST].contains(&number).then(|| lines(true)));
    let run = |folder: &str, guides: &str, more: &str| {
        let (folder, control) = (format!("run=runs/{folder}"), control());
        let control = format!("generate.model.controls=[{{path: {control}, column: edges{more}}}]");
        succeed(root.path(), &as_strs(&small("generate", "sd1", &[guides, &control, &folder])));
        drawn(&root.path().join(folder.trim_start_matches("run=")))
    };
    let first = run("a", POSED, "");
    assert_eq!(first.len(), 30);
    assert!(first == run("a", POSED, "") && first == run("b", POSED, ""), "a run goes on, and another gives the same");
    assert!(first != run("weak", POSED, ", weight: 0.2") && first != run("late", POSED, ", start: 0.5"));
    let started = run("started", &POSED.replace("[1]", "[0.7]"), "");
    assert!(first.iter().zip(&started).all(|(a, b)| a != b), "less than full strength starts from the guide");
    lines(false).save(root.path().join("faces/train/edges/001.png")).unwrap();
    lines(false).save(root.path().join("faces/train/edges/023.png")).unwrap();
    let other = run("c", POSED, "");
    assert!(first.iter().zip(&other).all(|(a, b)| a != b), "another picture is another image");
}

#[test]
fn a_job_with_control_and_masks_runs_to_its_end_in_units_of_any_size_and_names_both() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    add_pictures(root.path(), "edges", |number| Some(lines(number % 2 == 0)));
    let control = format!("generate.model.controls=[{{path: {}, column: edges, weight: 0.8}}]", control());
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[MASKED, &control])));
    assert!(said.contains("30 generated"), "{said}");
    let page = std::fs::read_to_string(root.path().join("runs/faces/report.html")).unwrap();
    assert!(page.contains("control x 0.8"));
    let few = ["run=runs/few", "generate.unit=4"];
    succeed(root.path(), &as_strs(&small("generate", "sd1", &[MASKED, &control, few[0], few[1]])));
    assert!(drawn(&root.path().join("runs/faces")) == drawn(&root.path().join("runs/few")));
}

#[test]
fn masks_in_parquet_stay_with_real_rows_and_generated_ones_have_none() {
    use arrow_array::cast::AsArray;
    use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
    use std::sync::Arc;
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let png = |image: &image::RgbImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let mask = png(&right_half(16));
    for split in ["train", "test"] {
        let folder = root.path().join("faces").join(split);
        let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).unwrap();
        let rows: Vec<serde_json::Value> = metadata.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let text = |name: &str| StringArray::from_iter_values(rows.iter().map(|row| row[name].as_str().unwrap()));
        let files = |bytes: BinaryArray| -> ArrayRef {
            let columns: [(&str, ArrayRef); 2] = [("bytes", Arc::new(bytes)), ("path", Arc::new(text("file_name")))];
            Arc::new(StructArray::from(RecordBatch::try_from_iter(columns).unwrap()))
        };
        let images = rows.iter().map(|row| std::fs::read(folder.join(row["file_name"].as_str().unwrap())).unwrap());
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("mask", files(BinaryArray::from_iter_values(rows.iter().map(|_| &mask)))),
            ("image", files(BinaryArray::from_iter_values(images))),
        ];
        for name in ["occupation", "gender", "skin_tone"] {
            columns.push((name, Arc::new(text(name))));
        }
        let table = RecordBatch::try_from_iter(columns).unwrap();
        std::fs::create_dir_all(root.path().join("tables")).unwrap();
        evenset_data::write_parquet(&root.path().join("tables").join(format!("{split}.parquet")), &table).unwrap();
    }
    let data = ["dataset.path=tables", "dataset.image=image", "write.formats=[parquet, webdataset]"];
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[&data[..], &[MASKED]].concat())));
    assert!(said.contains("30 generated"), "{said}");
    let data = root.path().join("out/faces/data");
    let train = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let train = train.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("train"));
    let mut seen = [0, 0];
    for batch in train.flat_map(|path| evenset_data::read_parquet(&path).unwrap()) {
        let masks = batch.column_by_name("mask").unwrap().as_struct();
        let bytes = masks.column_by_name("bytes").unwrap().as_binary::<i32>();
        let generated = batch.column_by_name("is_synthetic").unwrap().as_boolean();
        for row in 0..batch.num_rows() {
            let has_mask = masks.is_valid(row) && bytes.is_valid(row) && bytes.value(row) == mask;
            assert_eq!(has_mask, !generated.value(row));
            seen[usize::from(generated.value(row))] += 1;
        }
    }
    assert_eq!(seen, [44, 30]);
}

#[test]
fn what_is_wrong_with_masks_and_control_is_said_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    let control =
        |column: &str, more: &str| format!("generate.model.controls=[{{path: {}, column: {column}{more}}}]", control());
    let refused = |more: &[&str]| fail(root.path(), &as_strs(&small("plan", "sd1", more)), 2);
    let said = refused(&[&MASKED.replace("mask: mask", "mask: masc")]);
    assert!(said.contains("generate.guides.mask") && said.contains("did you mean `mask`?"), "{said}");
    let said = refused(&[&MASKED.replace("mask: mask", "mask: image")]);
    assert!(said.contains("the images themselves"), "{said}");
    let said = refused(&[POSED, &control("edges", "")]);
    assert!(said.contains("generate.model.controls.0.column") && said.contains("`edges`"), "{said}");
    let said = refused(&[&control("mask", "")]);
    assert!(said.contains("generate.model.controls") && said.contains("noise: false"), "{said}");
    let said = refused(&[&control("mask", ""), "generate.guides=null"]);
    assert!(said.contains("noise: false"), "{said}");
    let said = refused(&[&POSED.replace("below: 50", "below: 1"), &control("mask", "")]);
    assert!(said.contains("write `below: 3` or more"), "{said}");
    let said = refused(&[
        &POSED.replace("same-group, same-label", "same-attributes"),
        &control("mask", ""),
        "where=[{column: occupation, in: nurse}]",
    ]);
    assert!(said.contains("no training image can guide"), "{said}");
    assert!(refused(&[POSED, &control("mask", ", start: 0.9, end: 0.2")]).contains("`start` below `end`"));
    assert!(refused(&[POSED, &control("mask", ", wieght: 2")]).contains("wieght"));

    let conditional = ["generate.model={type: conditional, size: tiny}", "generate.sampler={}", "plan.prompts=null"];
    let said = refused(&[&conditional[..], &[MASKED]].concat());
    assert!(said.contains("generate.guides.mask") && said.contains("conditional"), "{said}");

    let fail = |model: &str, control: &str| {
        let output = run(root.path(), &as_strs(&small("generate", model, &[POSED, control])));
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    };
    let said = fail("sdxl", &control("mask", ""));
    assert!(said.contains("another base model"), "{said}");
    let said = fail("sd1", "generate.model.controls=[{path: nobody/canny, column: mask}]");
    assert!(said.contains("hf download nobody/canny"), "{said}");
}
