//! Where real images were too few to calibrate a gate, in sentences: a gate whose limit stands in for a measured one, or
//! that has none, must not look like one that was calibrated.

use crate::Calibration;
use crate::gates::{DiversityLimit, UNCALIBRATED, images_needed};
use crate::real::HELD_OUT;

/// Values that a sentence names.
const NAMED: usize = 3;

/// One sentence for each gate that lacks images.
pub(crate) fn sentences(calibration: &Calibration, diversity: Option<DiversityLimit>) -> Vec<String> {
    let in_distribution = calibration.in_distribution.as_ref();
    let far = in_distribution.filter(|limit| limit.distance.is_none_or(|limit| limit <= 0.0)).map(|_| {
        "`in-distribution` drops nothing: no held-out real image says how far from the others of its label is normal; \
         add real images"
            .to_owned()
    });
    let near = diversity.filter(|limit| limit.distance <= 0.0).map(|_| {
        "`diversity` drops nothing: no group has two different real images to say how near is too near; add real images"
            .to_owned()
    });
    thresholds(calibration).into_iter().chain(far).chain(near).collect()
}

/// The values whose thresholds are not calibrated, though the job leaves them to calibration.
fn thresholds(calibration: &Calibration) -> Option<String> {
    let mut short = Vec::new();
    let mut aim = None;
    for attribute in &calibration.attributes {
        let Some(thresholds) = attribute.thresholds.as_ref().filter(|thresholds| thresholds.aim.is_some()) else {
            continue;
        };
        aim = thresholds.aim;
        let values = attribute.classes.iter().zip(&thresholds.values).filter(|(_, threshold)| !threshold.calibrated);
        short.extend(values.map(|(value, threshold)| (format!("{}={value}", attribute.attribute), threshold.others)));
    }
    let (fewest, most) = (short.iter().map(|(_, n)| *n).min()?, short.iter().map(|(_, n)| *n).max()?);
    let names = listed(&short.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
    let (have, whose) = if short.len() == 1 { ("has", "its threshold is") } else { ("have", "their thresholds are") };
    let images = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    let (needed, rate) = (images_needed(aim?), percent(aim?));
    Some(format!(
        "{names} {have} {images} held-out images of other values; {needed} are needed for a false-accept rate of \
         {rate} %, so {whose} {UNCALIBRATED} and not calibrated: add real images ({} % of them are held out) or raise \
         `false_accept`",
        percent(HELD_OUT)
    ))
}

/// The first names, and how many more there are.
fn listed(names: &[&str]) -> String {
    match names {
        [first, rest @ ..] if names.len() > NAMED => {
            let named = [&[*first], &rest[..NAMED - 1]].concat().join(", ");
            let more = names.len() - NAMED;
            format!("{named} and {more} more {}", if more == 1 { "value" } else { "values" })
        }
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

fn percent(share: f64) -> f64 {
    (1000.0 * share).round() / 10.0
}

#[cfg(test)]
mod tests {
    use evenset_core::Group;

    use super::*;
    use crate::gates::{Aim, DecodeLimits, InDistributionLimit, Seen};
    use crate::{AttributeCalibration, View};

    fn calibration(values: usize, images: usize, aim: Aim) -> Calibration {
        let classes: Vec<String> = (0..values).map(|i| i.to_string()).collect();
        let image = |i: usize| Seen { truth: i % values, first: 0, probability: 0.9, rest: Group::default() };
        let seen: Vec<Seen> = (0..images).map(image).collect();
        let mut attribute = AttributeCalibration::new("digit", &classes, View::Colour, &seen);
        attribute.set_thresholds(&seen, aim);
        Calibration {
            learned_from: 0,
            held_out: images,
            attributes: vec![attribute],
            groups: Vec::new(),
            decode: DecodeLimits { smallest_deviation: 0.0, largest_roughness: 1.0 },
            in_distribution: None,
            novelty: None,
        }
    }

    const ONE_IN_100: Aim = Aim { false_accept: 0.01, fixed: None };

    #[test]
    fn too_few_images_for_a_threshold_are_said_with_how_many_are_needed() {
        let said = |values, images| sentences(&calibration(values, images, ONE_IN_100), None);
        let few = said(2, 23).remove(0);
        assert!(
            few.starts_with(
                "digit=0 and digit=1 have 11 to 12 held-out images of other values; 99 are needed for a \
                 false-accept rate of 1 %"
            ),
            "{few}"
        );
        let many = said(10, 50).remove(0);
        assert!(many.starts_with("digit=0, digit=1, digit=2 and 7 more values have 45 held-out images"), "{many}");
        let one = said(2, 197).remove(0);
        assert!(one.starts_with("digit=0 has 98 held-out images") && one.contains("its threshold is 0.5"), "{one}");
        assert!(said(2, 198).is_empty());
        let fixed = calibration(2, 23, Aim { fixed: Some(0.7), ..ONE_IN_100 });
        assert!(sentences(&fixed, None).is_empty(), "the job's own threshold needs no images");
    }

    #[test]
    fn a_gate_without_a_limit_is_said_to_drop_nothing() {
        let mut known = calibration(2, 400, ONE_IN_100);
        known.in_distribution = Some(InDistributionLimit::default());
        let said = sentences(&known, Some(DiversityLimit { distance: 0.0 }));
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("`in-distribution` drops nothing") && said[1].contains("`diversity` drops nothing"));
        known.in_distribution = Some(InDistributionLimit { distance: Some(1.0), ..InDistributionLimit::default() });
        assert!(sentences(&known, Some(DiversityLimit { distance: 0.5 })).is_empty());
    }
}
