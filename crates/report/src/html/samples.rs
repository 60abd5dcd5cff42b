//! What it looks like: real and generated images of each group side by side, and some that were thrown away.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, safe, spoken, values};
use crate::ReportData;
use crate::data::{GroupRow, Picture};
use crate::text::{count, plural};

const MOST_IMAGES: usize = 8;
const MOST_REJECTED: usize = 24;
/// Pictures up to this many pixels a side are enlarged with visible pixels instead of a blur.
const SMALL: u32 = 96;

/// The images of one group.
#[derive(Serialize)]
pub struct Card {
    values: Vec<String>,
    /// How many real and generated images the group has, as [`GroupRow::real`] and [`GroupRow::made`] count them.
    images_real: String,
    images_made: String,
    real: Vec<Image>,
    made: Vec<Image>,
}

/// A candidate that was thrown away.
#[derive(Serialize)]
pub struct RejectedCard {
    values: Vec<String>,
    image: Image,
    reason: String,
}

#[derive(Serialize)]
pub struct Image {
    uri: Value,
    alt: String,
    small: bool,
}

/// One card for each group that has an image to show; groups with generated images come first.
pub fn cards(data: &ReportData) -> Folded<Card> {
    let card = |group: &GroupRow| Card {
        values: values(&group.values),
        images_real: count(group.real()),
        images_made: count(group.made()),
        real: images(&group.samples_real, &format!("real image of {}", spoken(&group.values))),
        made: images(&group.samples_generated, &format!("generated image of {}", spoken(&group.values))),
    };
    let mut cards: Vec<Card> =
        data.groups.iter().map(card).filter(|card| !card.real.is_empty() || !card.made.is_empty()).collect();
    cards.sort_by_key(|card| card.made.is_empty());
    Folded::new(cards, 20, 12)
}

/// What became of accepted images that are not in training, in words; empty where all are.
pub fn left_over(data: &ReportData) -> String {
    let Some(outputs) = &data.outputs else { return String::new() };
    let accepted: u64 = data.groups.iter().map(|group| group.accepted).sum();
    match accepted.saturating_sub(outputs.rows_generated) {
        0 => String::new(),
        over => format!(
            "Of {} that passed the checks, {} fill the plan and are in training. The other {} are more than the plan \
             needs: they are in no dataset and stay in the run's folder.",
            plural(accepted, "generated image", "generated images"),
            count(outputs.rows_generated),
            count(over)
        ),
    }
}

/// Rejected candidates: the first of every group, then the second of every group, and so on up to a limit.
pub fn rejected(data: &ReportData) -> Vec<RejectedCard> {
    let deepest = data.groups.iter().map(|group| group.samples_rejected.len()).max().unwrap_or(0);
    (0..deepest)
        .flat_map(|i| data.groups.iter().filter_map(move |group| Some((group, group.samples_rejected.get(i)?))))
        .filter_map(|(group, rejected)| {
            let otherwise = format!("rejected candidate for {}", spoken(&group.values));
            Some(RejectedCard {
                values: values(&group.values),
                image: image(&rejected.picture, &otherwise)?,
                reason: rejected.reason.clone(),
            })
        })
        .take(MOST_REJECTED)
        .collect()
}

fn images(pictures: &[Picture], otherwise: &str) -> Vec<Image> {
    pictures.iter().filter_map(|picture| image(picture, otherwise)).take(MOST_IMAGES).collect()
}

/// A picture that the page can show; `otherwise` describes it where it does not describe itself.
pub fn image(picture: &Picture, otherwise: &str) -> Option<Image> {
    let alt = if picture.alt.is_empty() { otherwise } else { &picture.alt };
    // One of three fixed types and base64: nothing in it needs escaping, and escaped slashes would be long.
    Some(Image { uri: safe(picture.data_uri()?), alt: alt.to_owned(), small: is_small(picture) })
}

/// By the width in a PNG's header; a file of another type counts as small when it has few bytes.
fn is_small(picture: &Picture) -> bool {
    let width = picture.bytes.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match (picture.bytes.starts_with(b"\x89PNG"), width) {
        (true, Some(width)) => width <= SMALL,
        _ => picture.bytes.len() < 4096,
    }
}
