//! The first minute of the page: the verdict in one sentence, and four figures.

use serde::Serialize;

use super::{ratio, spoken, unbroken};
use crate::ReportData;
use crate::data::{Arm, Evidence, Verdict};
use crate::text::{count, percent, percent_interval, plural, points, signed_interval, signed_points};
use crate::words::{instead, sees_generated};

/// The verdict in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Headline {
    /// Two or three words: `Helped`, `Not measured`.
    pub chip: String,
    /// The tone of the answer: `good`, `neutral`, `bad`.
    pub tone: String,
    /// The answer in one sentence with numbers.
    pub sentence: String,
    /// How sure it is and what it rests on; may be empty.
    pub detail: String,
}

impl Headline {
    /// The same with sentences set for the page.
    pub(super) fn unbroken(self) -> Self {
        Self { sentence: unbroken(&self.sentence), detail: unbroken(&self.detail), ..self }
    }
}

/// One of the four figures below the verdict.
#[derive(Serialize)]
pub struct Figure {
    value: String,
    label: &'static str,
    detail: String,
}

/// The verdict of a run, finished or not: what the page begins with.
pub fn headline(data: &ReportData) -> Headline {
    match data.evidence.as_ref().and_then(|evidence| Some((evidence, evidence.balanced()?))) {
        Some((_, balanced)) if balanced.generated_images == Some(0) => nothing_generated(data),
        Some((evidence, balanced)) => measured(evidence, balanced),
        None => unmeasured(data),
    }
}

/// Without a generated image the balanced data are real images drawn evenly: their figures say nothing of generated ones.
fn nothing_generated(data: &ReportData) -> Headline {
    let sentence = match data.plan.as_ref().map_or(0, |plan| plan.images) {
        0 => "Nothing was missing, so nothing was generated.".to_owned(),
        missing => format!(
            "None of {} that the plan asks for passed the checks: there is nothing to measure.",
            plural(missing, "image", "images")
        ),
    };
    let detail = "“balanced” below is the real images alone, every group drawn equally often.".to_owned();
    Headline { chip: "Nothing generated".to_owned(), tone: "neutral".to_owned(), sentence, detail }
}

fn measured(evidence: &Evidence, balanced: &Arm) -> Headline {
    let with = percent(balanced.worst_group);
    let other = evidence.best_baseline();
    let without = other.map(|arm| format!(" and {} {}", percent(arm.worst_group), instead(&arm.name)));
    let without = without.unwrap_or_default();
    let over = other.filter(|_| evidence.better_than_as_is()).map(|arm| arm.name.as_str());
    let (chip, tone, begin) = match (evidence.verdict, evidence.lost_overall(), over) {
        (Verdict::Helped, None, _) => ("Helped".to_owned(), "good", "It helped".to_owned()),
        (Verdict::Helped, Some(_), _) => ("Helped, at a cost".to_owned(), "neutral", "It helped, at a cost".to_owned()),
        (Verdict::NoDifference, ..) if (1..3).contains(&evidence.seeds) => {
            ("No verdict".to_owned(), "neutral", "Too few trainings for a verdict".to_owned())
        }
        (Verdict::NoDifference, ..) => ("No clear difference".to_owned(), "neutral", "No clear difference".to_owned()),
        (Verdict::Harmed, _, Some(name)) => {
            (format!("Worse than “{name}”"), "bad", format!("It is worse than “{name}”"))
        }
        (Verdict::Harmed, _, None) => ("Harmed".to_owned(), "bad", "It did harm".to_owned()),
    };
    let cost = cost(evidence);
    Headline {
        chip,
        tone: tone.to_owned(),
        sentence: format!("{begin}: accuracy in the worst group is {with} with the generated images{without}{cost}."),
        detail: certainty(evidence, balanced),
    }
}

/// What accuracy over all images lost, as the end of a sentence; empty where it lost nothing beyond chance.
fn cost(evidence: &Evidence) -> String {
    let lost = evidence.lost_overall().and_then(|gain| Some((gain, gain.accuracy?, gain.accuracy_interval?)));
    let told = lost.map(|(gain, by, interval)| {
        format!(
            "; accuracy over all test images changes by {} points against “{}” (95 % interval {})",
            signed_points(by),
            gain.over,
            signed_interval(interval)
        )
    });
    told.unwrap_or_default()
}

/// How sure it is: the difference with its interval, and what it was measured on.
fn certainty(evidence: &Evidence, balanced: &Arm) -> String {
    let trainings = plural(u64::from(evidence.seeds), "training", "trainings");
    let images = match evidence.test_images {
        0 => "real held-out images".to_owned(),
        n => format!("{} real held-out images", count(n)),
    };
    let on = format!("measured on {images}, {trainings} of each kind.");
    match (&evidence.gain, balanced.worst_group_interval) {
        (Some(gain), _) => {
            let baselines = evidence.arms.iter().filter(|arm| !sees_generated(&arm.name)).count() as u64;
            let best = if baselines > 1 {
                format!(", the best of {} ways without generated images", count(baselines))
            } else {
                String::new()
            };
            format!(
                "That is {} points over “{}” (95 % interval {}){best}; {on}{}",
                signed_points(gain.worst_group),
                gain.over,
                signed_interval(gain.interval),
                untried(evidence)
            )
        }
        (None, Some(interval)) => format!("95 % interval {} %, {on}", percent_interval(interval)),
        (None, None) => format!("It was {on}"),
    }
}

/// Names the strong arms without generated images that a gain is not shown above.
fn untried(evidence: &Evidence) -> String {
    let names: Vec<String> = evidence.untried_baselines().iter().map(|name| format!("“{name}”")).collect();
    let helped = evidence.verdict == Verdict::Helped && !names.is_empty();
    if helped { format!(" It is not shown to be better than {}.", names.join(" or ")) } else { String::new() }
}

fn unmeasured(data: &ReportData) -> Headline {
    let thin = thin_groups(data);
    let groups = plural(data.groups.len() as u64, "group", "groups");
    let made: u64 = data.groups.iter().map(|group| group.accepted).sum();
    let (chip, sentence) = match (&data.outputs, &data.plan) {
        (Some(outputs), _) => {
            let images = plural(outputs.rows_generated, "generated image", "generated images");
            ("Not measured", format!("{images} joined the dataset; whether training on it helps was not measured."))
        }
        (None, Some(plan)) => {
            let images = plural(plan.images, "image", "images");
            (
                "Not finished",
                format!("{} of {images} that the plan asks for are made and accepted so far.", count(made)),
            )
        }
        (None, None) if !data.groups.is_empty() => {
            ("Audit only", format!("{} of {groups} have fewer than half the images of an even share.", count(thin)))
        }
        (None, None) => ("Not begun", "This run has no results yet.".to_owned()),
    };
    Headline { chip: chip.to_owned(), tone: "neutral".to_owned(), sentence, detail: String::new() }
}

/// Groups below their target, or below half of an even share where there is no target.
fn thin_groups(data: &ReportData) -> u64 {
    let total: u64 = data.groups.iter().map(|group| group.before).sum();
    let even = ratio(total, data.groups.len() as u64);
    let thin = |group: &&crate::GroupRow| match group.want {
        Some(want) => group.before < want,
        None => (group.before as f64) < even / 2.0,
    };
    data.groups.iter().filter(thin).count() as u64
}

/// Who was missing, what was made, what was thrown away, whether it helped.
pub fn figures(data: &ReportData) -> Vec<Figure> {
    let figures = [missing(data), made(data), thrown_away(data), helped(data)].into_iter().flatten();
    figures.map(|figure| Figure { detail: unbroken(&figure.detail), ..figure }).collect()
}

fn missing(data: &ReportData) -> Option<Figure> {
    let smallest = data.groups.iter().min_by_key(|group| group.before)?;
    let largest = data.groups.iter().max_by_key(|group| group.before)?;
    let planned = data.groups.iter().any(|group| group.want.is_some());
    Some(Figure {
        value: format!("{} of {}", count(thin_groups(data)), count(data.groups.len() as u64)),
        label: if planned { "groups had too few images" } else { "groups are thin" },
        detail: format!(
            "from {} ({}) to {} ({})",
            count(smallest.before),
            spoken(&smallest.values),
            count(largest.before),
            spoken(&largest.values)
        ),
    })
}

fn made(data: &ReportData) -> Option<Figure> {
    let filled = data.groups.iter().filter(|group| group.made() > 0).count() as u64;
    let accepted = match &data.acceptance {
        Some(acceptance) => acceptance.accepted,
        None => data.groups.iter().map(|group| group.accepted).sum(),
    };
    if accepted == 0 {
        let plan = data.plan.as_ref()?;
        return Some(Figure {
            value: count(plan.images),
            label: "images are planned",
            detail: "none is accepted yet".to_owned(),
        });
    }
    let groups = plural(filled, "group", "groups");
    let Some(outputs) = &data.outputs else {
        return Some(Figure {
            value: count(accepted),
            label: "generated images were accepted",
            detail: format!("in {groups}"),
        });
    };
    let over = match accepted.saturating_sub(outputs.rows_generated) {
        0 => String::new(),
        over => format!("; {} more passed the checks than the plan needs", count(over)),
    };
    Some(Figure {
        value: count(outputs.rows_generated),
        label: "generated images joined the training data",
        detail: format!("in {groups}{over}"),
    })
}

fn thrown_away(data: &ReportData) -> Option<Figure> {
    let acceptance = data.acceptance.as_ref().filter(|acceptance| acceptance.candidates > 0)?;
    let worst = acceptance.gates.iter().max_by_key(|gate| gate.dropped).filter(|gate| gate.dropped > 0);
    let mostly = worst.map(|gate| match gate.reasons.first() {
        Some(reason) => format!(", most often: {}", reason.reason),
        None => format!(", most by the check “{}”", gate.gate),
    });
    let mostly = mostly.unwrap_or_default();
    Some(Figure {
        value: percent(ratio(acceptance.rejected, acceptance.candidates)),
        label: "of the candidates were thrown away",
        detail: format!("{} of {}{mostly}", count(acceptance.rejected), count(acceptance.candidates)),
    })
}

fn helped(data: &ReportData) -> Option<Figure> {
    let evidence = data.evidence.as_ref()?;
    let (first, last) = (evidence.best_baseline()?, evidence.balanced()?);
    let interval = |arm: &Arm| arm.worst_group_interval.map(percent_interval);
    Some(Figure {
        value: format!("{} → {}", points(first.worst_group), percent(last.worst_group)),
        label: "accuracy in the worst group",
        detail: match (interval(first), interval(last)) {
            (Some(before), Some(after)) => {
                format!(
                    "“{}”, the best without generated images, {before}, balanced {after} (95 % intervals)",
                    first.name
                )
            }
            _ => plural(u64::from(evidence.seeds), "training of each kind", "trainings of each kind"),
        },
    })
    .filter(|_| evidence.arms.len() > 1)
}
