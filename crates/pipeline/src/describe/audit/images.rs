//! What the pixels say, in words.

use evenset_audit::images::{ImageGroupReport, ImageReport, PredictorReport, Statistic};
use evenset_report::document::{Block, Kind, Section, SheetCell, Tone};
use evenset_report::text::{count, number, percent, percent_interval};

use crate::describe::{between, sheet, spoken};

/// Giveaways that are told among the findings.
const MOST_FINDINGS: usize = 3;

pub(super) fn findings(report: &ImageReport) -> Vec<(Tone, String)> {
    let mut findings = Vec::new();
    for predictor in report.trivial_predictors.iter().take(MOST_FINDINGS) {
        let more = if predictor.auc > 0.5 { "larger" } else { "smaller" };
        findings.push((
            Tone::Bad,
            format!(
                "{} alone tells {}: it is {more} than elsewhere for {} of the pairs of images",
                name(predictor.statistic),
                predictor.value,
                percent(predictor.auc.max(1.0 - predictor.auc))
            ),
        ));
    }
    if report.clusters_across_splits > 0 {
        let clusters = count(report.clusters_across_splits);
        findings.push((Tone::Bad, format!("{clusters} sets of near-duplicates lie in more than one split")));
    }
    if report.near_duplicates > 0 {
        let share = percent(report.near_duplicates as f64 / report.images.max(1) as f64);
        findings.push((
            Tone::Plain,
            format!("{} of the images ({share}) have a near-duplicate", count(report.near_duplicates)),
        ));
    }
    findings
}

fn name(statistic: Statistic) -> &'static str {
    match statistic {
        Statistic::Width => "width",
        Statistic::Height => "height",
        Statistic::Bytes => "file size",
        Statistic::Brightness => "brightness",
        Statistic::Contrast => "contrast",
        Statistic::Sharpness => "sharpness",
        Statistic::Saturation => "saturation",
    }
}

pub(super) fn sections(report: &ImageReport) -> Vec<Section> {
    let part = |title: &str, intro: &str, sheet: Option<Block>| {
        sheet.map(|block| Section { title: title.into(), intro: intro.into(), blocks: vec![block], detail: true })
    };
    let images = "Medians over the images of each group, all splits together. Diversity is the Vendi score: as many wholly \
                  different images would be as diverse; compare groups only where it is of as many images.";
    let giveaways = "A single number that tells a value from the others of its attribute: a model can learn it instead of what \
                     the value means. AUC is the probability that the number is larger for an image with the value.";
    let parts = [
        part("What the images are like", images, groups(report)),
        part("Giveaways", giveaways, predictors(report)),
        part("Near-duplicates", "The largest sets of images that are nearly the same.", clusters(report)),
    ];
    parts.into_iter().flatten().collect()
}

fn groups(report: &ImageReport) -> Option<Block> {
    let columns = [
        ("group", Kind::Words),
        ("images", Kind::Number),
        ("size", Kind::Number),
        ("brightness", Kind::Number),
        ("contrast", Kind::Number),
        ("sharpness", Kind::Number),
        ("diversity", Kind::Number),
        ("of", Kind::Number),
        ("near-duplicates", Kind::Number),
        ("95 %", Kind::Number),
    ];
    let row = |group: &ImageGroupReport| {
        let median = |statistic: Statistic| group.statistics.get(&statistic).map_or(0.0, |quartiles| quartiles[1]);
        let size = format!("{}x{}", number(median(Statistic::Width), 0), number(median(Statistic::Height), 0));
        vec![
            SheetCell::text(spoken(&group.values)),
            SheetCell::text(count(group.count)),
            SheetCell::soft(size),
            SheetCell::text(number(median(Statistic::Brightness), 2)),
            SheetCell::text(number(median(Statistic::Contrast), 2)),
            SheetCell::text(number(median(Statistic::Sharpness), 3)),
            SheetCell::text(group.vendi.map(|score| number(score, 1)).unwrap_or_default()),
            SheetCell::soft(count(group.vendi_images)),
            SheetCell::text(percent(group.near_duplicate_share)),
            SheetCell::soft(percent_interval(group.near_duplicate_interval)),
        ]
    };
    let rows: Vec<_> = report.groups.iter().map(row).collect();
    (!rows.is_empty()).then(|| Block::Sheet(sheet("", &columns, rows)))
}

fn predictors(report: &ImageReport) -> Option<Block> {
    let columns = [
        ("number", Kind::Words),
        ("tells", Kind::Words),
        ("images", Kind::Number),
        ("AUC", Kind::Number),
        ("95 %", Kind::Number),
    ];
    let row = |predictor: &PredictorReport| {
        vec![
            SheetCell::text(name(predictor.statistic)),
            SheetCell::text(predictor.value.to_string()),
            SheetCell::text(count(predictor.images)),
            SheetCell::text(number(predictor.auc, 2)),
            SheetCell::soft(between(predictor.interval, 2)),
        ]
    };
    let rows: Vec<_> = report.trivial_predictors.iter().map(row).collect();
    (!rows.is_empty()).then(|| Block::Sheet(sheet("", &columns, rows)))
}

fn clusters(report: &ImageReport) -> Option<Block> {
    let columns = [("images", Kind::Number), ("splits", Kind::Words), ("files", Kind::Words)];
    let rows = report.clusters.iter().map(|cluster| {
        let files = cluster.files.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let across = cluster.splits.join(", ");
        let across = if cluster.splits.len() > 1 { SheetCell::bad(across) } else { SheetCell::soft(across) };
        vec![SheetCell::text(count(cluster.count)), across, SheetCell::soft(files)]
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| Block::Sheet(sheet("", &columns, rows)))
}
