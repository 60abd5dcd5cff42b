//! How like real images the generated ones are: distances, trivial differences, variety.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, safe, spoken, unbroken, values};
use crate::ReportData;
use crate::charts::{Scale, dot_on_interval, rate_bar};
use crate::data::{Auc, Distances, Diversity, Evidence, GroupDistances, Shortcut, ShortcutFigures};
use crate::text::{count, number, percent, percent_interval, plural, significant};
use crate::words::cue;

/// A kernel distance that lies above its floor by more than so many standard errors is no chance.
const CLEARLY: f64 = 2.0;

/// How like real images the generated ones are.
#[derive(Serialize)]
pub struct Likeness {
    /// What a classifier of generated images alone reaches, in words.
    score: String,
    distances: Option<DistancesView>,
    shortcut: Option<ShortcutView>,
    diversity: Option<DiversityView>,
}

#[derive(Serialize)]
struct DistancesView {
    summary: String,
    overall: Vec<DistanceRow>,
    rows: Folded<DistanceRow>,
}

#[derive(Serialize)]
struct DistanceRow {
    values: Vec<String>,
    images: String,
    far: bool,
    /// Frechet, kernel, precision, recall.
    figures: Vec<Against>,
}

/// A distance, and the floor that real test images reach.
#[derive(Serialize)]
struct Against {
    value: String,
    error: String,
    floor: String,
    floor_error: String,
}

#[derive(Serialize)]
struct ShortcutView {
    found: bool,
    sentence: String,
    features: String,
    /// Groups that were not looked at by themselves, in words.
    small: String,
    rows: Folded<ShortcutRow>,
}

#[derive(Serialize)]
struct ShortcutRow {
    values: Vec<String>,
    auc: String,
    interval: String,
    chart: Value,
    cue: String,
    found: bool,
}

#[derive(Serialize)]
struct DiversityView {
    summary: String,
    rows: Folded<DiversityRow>,
}

#[derive(Serialize)]
struct DiversityRow {
    values: Vec<String>,
    compared: String,
    real: String,
    accepted: String,
    share: String,
    chart: Value,
}

/// The view; `None` where nothing of it was measured.
pub fn likeness(data: &ReportData) -> Option<Likeness> {
    let view = Likeness {
        score: data.evidence.as_ref().and_then(score).map(|text| unbroken(&text)).unwrap_or_default(),
        distances: data.evidence.as_ref().and_then(|evidence| distances(&evidence.distances)),
        shortcut: data.checks.as_ref().and_then(|checks| checks.shortcut.as_ref()).map(shortcut),
        diversity: data.checks.as_ref().and_then(|checks| diversity(&checks.diversity)),
    };
    let any = !view.score.is_empty() || view.distances.is_some() || view.shortcut.is_some() || view.diversity.is_some();
    any.then_some(view)
}

fn score(evidence: &Evidence) -> Option<String> {
    let (arm, as_is) = (evidence.arm("generated-only")?, evidence.arm("as-is"));
    let interval = arm.accuracy_interval.map(|i| format!(" ({})", percent_interval(i))).unwrap_or_default();
    let beside = as_is.map(|arm| format!(", one that saw the real training images {}", percent(arm.accuracy)));
    Some(format!(
        "Classification accuracy score: a classifier that saw generated images alone names {}{interval} of the real test \
         images rightly{}.",
        percent(arm.accuracy),
        beside.unwrap_or_default()
    ))
}

/// How far a group's kernel distance lies above its floor, and whether that is no chance.
fn above_the_floor(row: &GroupDistances) -> Option<(f64, bool)> {
    let generated = row.generated.as_ref()?.kernel?;
    let Some(floor) = row.floor.as_ref().and_then(|floor| floor.kernel) else {
        return Some((generated.value, generated.value > CLEARLY * generated.standard_error));
    };
    let above = generated.value - floor.value;
    let error = generated.standard_error.hypot(floor.standard_error);
    Some((above, above > CLEARLY * error))
}

fn distances(rows: &[GroupDistances]) -> Option<DistancesView> {
    let (overall, mut groups): (Vec<&GroupDistances>, Vec<&GroupDistances>) =
        rows.iter().filter(|row| row.generated.is_some()).partition(|row| row.group.is_none());
    if overall.is_empty() && groups.is_empty() {
        return None;
    }
    let above = |row: &GroupDistances| above_the_floor(row).map_or(f64::NEG_INFINITY, |(above, _)| above);
    groups.sort_by(|a, b| above(b).total_cmp(&above(a)));
    let known: Vec<bool> = groups.iter().filter_map(|row| above_the_floor(row)).map(|(_, far)| far).collect();
    let far = known.iter().filter(|far| **far).count() as u64;
    let summary = if known.is_empty() {
        String::new()
    } else {
        format!(
            "In {} of {} the generated images lie clearly farther from the real training images than real test images do.",
            count(far),
            plural(known.len() as u64, "group", "groups")
        )
    };
    Some(DistancesView {
        summary,
        overall: overall.into_iter().map(distance).collect(),
        rows: Folded::new(groups.into_iter().map(distance).collect(), 12, 8),
    })
}

fn distance(row: &GroupDistances) -> DistanceRow {
    let (generated, floor) = (row.generated.as_ref(), row.floor.as_ref());
    let against = |pick: &dyn Fn(&Distances) -> Option<(String, String)>| {
        let (value, error) = generated.and_then(pick).unwrap_or_else(|| ("–".to_owned(), String::new()));
        let (floor, floor_error) = floor.and_then(pick).unwrap_or_default();
        Against { value, error, floor, floor_error }
    };
    let share = |share: Option<f64>| share.map(|share| (percent(share), String::new()));
    DistanceRow {
        values: row.group.as_ref().map(values).unwrap_or_default(),
        images: generated.map(|of| count(of.others)).unwrap_or_default(),
        far: above_the_floor(row).is_some_and(|(_, far)| far),
        figures: vec![
            against(&|of| of.frechet.map(|value| (significant(value, 3), String::new()))),
            against(&|of| {
                of.kernel.map(|kernel| (significant(kernel.value, 2), significant(kernel.standard_error, 1)))
            }),
            against(&|of| share(of.precision)),
            against(&|of| share(of.recall)),
        ],
    }
}

fn shortcut(shortcut: &Shortcut) -> ShortcutView {
    let scale = Scale::new(0.4, 1.0);
    let row = |values: Vec<String>, figures: &ShortcutFigures| ShortcutRow {
        values,
        auc: fixed(figures.auc.value),
        interval: interval(&figures.auc),
        chart: safe(dot_on_interval(figures.auc.value, Some(figures.auc.interval), &scale, "made")),
        cue: cue(&figures.best.cue, figures.best.more_in_generated),
        found: figures.found,
    };
    let mut groups: Vec<_> = shortcut.groups.iter().collect();
    groups.sort_by(|a, b| b.figures.auc.value.total_cmp(&a.figures.auc.value));
    let groups = groups.into_iter().map(|group| row(values(&group.group), &group.figures));
    ShortcutView {
        found: shortcut.found,
        sentence: found(shortcut),
        features: shortcut.features.as_ref().map(told).unwrap_or_default(),
        small: too_small(shortcut).unwrap_or_default(),
        rows: Folded::new(groups.collect(), 12, 8),
    }
}

/// What trivial cues tell, in plain words.
pub(crate) fn found(shortcut: &Shortcut) -> String {
    let Some(overall) = &shortcut.overall else {
        return "There are too few real and generated images of the same groups to look for trivial differences."
            .to_owned();
    };
    let best = format!(
        "what tells most is that generated images have {} ({} by itself)",
        cue(&overall.best.cue, overall.best.more_in_generated),
        fixed(overall.best.auc.value)
    );
    let groups: Vec<String> =
        shortcut.groups.iter().filter(|group| group.figures.found).map(|group| spoken(&group.group)).collect();
    let named = match groups.as_slice() {
        [one] => one.clone(),
        many if many.len() <= 3 => many.join("; "),
        many => plural(many.len() as u64, "group", "groups"),
    };
    let (limit, auc) = (fixed(shortcut.limit), told(&overall.auc));
    match (shortcut.found, overall.found) {
        (true, true) => format!(
            "Something trivial gives generated images away: a small classifier that sees only brightness, colour, \
             sharpness and the like tells them from real ones with {auc}, above the limit of {limit}; {best}. Whoever \
             trains on them can learn this instead of what the images show."
        ),
        (true, false) => format!(
            "In {named} something trivial gives generated images away: brightness, colour, sharpness or the like. Over all \
             groups it stays below the limit of {limit}, with {auc}; {best}."
        ),
        (false, _) => format!(
            "Nothing trivial gives generated images away: a small classifier that sees only brightness, colour, sharpness \
             and the like tells them from real ones with {auc}, not surely above the limit of {limit}; {best}."
        ),
    }
}

/// Which groups were not looked at by themselves and why, in plain words.
pub(crate) fn too_small(shortcut: &Shortcut) -> Option<String> {
    let small = shortcut.small;
    (small.groups > 0).then(|| {
        let over_all = match small.counted {
            0 => "count nowhere, having no real image beside them".to_owned(),
            counted if counted == small.generated => "count in what is found over all groups".to_owned(),
            counted => format!("count over all groups as far as real images stand beside them ({})", count(counted)),
        };
        format!(
            "Not looked at by themselves: {} with fewer than {} real or generated images (`smallest`); their {} {over_all}.",
            plural(small.groups, "group", "groups"),
            count(small.smallest),
            plural(small.generated, "generated image", "generated images"),
        )
    })
}

fn told(auc: &Auc) -> String {
    format!("{} ({})", fixed(auc.value), interval(auc))
}

/// Two decimals always, so that figures under each other line up.
fn fixed(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { "–".to_owned() }
}

fn interval(auc: &Auc) -> String {
    auc.interval.map(fixed).join(" to ")
}

fn diversity(rows: &[Diversity]) -> Option<DiversityView> {
    let mut known: Vec<(&Diversity, f64, f64)> =
        rows.iter().filter_map(|row| Some((row, row.real_score?, row.accepted_score?))).collect();
    known.retain(|(_, real, accepted)| *real > 0.0 && real.is_finite() && accepted.is_finite());
    if known.is_empty() {
        return None;
    }
    known.sort_by(|(_, real, made), (_, other_real, other)| (made / real).total_cmp(&(other / other_real)));
    let narrow = known.iter().filter(|(_, real, accepted)| *accepted < 0.5 * real).count() as u64;
    let mut summary = format!(
        "In {} of {} the accepted images are less than half as varied as the same number of real ones.",
        count(narrow),
        plural(known.len() as u64, "group", "groups")
    );
    if known.len() < rows.len() {
        let few = (rows.len() - known.len()) as u64;
        summary.push_str(&format!(
            " {} with too few images to compare.",
            plural(few, "group is left out", "groups are left out")
        ));
    }
    let row = |(row, real, accepted): &(&Diversity, f64, f64)| DiversityRow {
        values: values(&row.group),
        compared: count(row.compared),
        real: number(*real, 1),
        accepted: number(*accepted, 1),
        share: percent(accepted / real),
        chart: safe(rate_bar((accepted / real).min(1.0), None, "made")),
    };
    Some(DiversityView { summary, rows: Folded::new(known.iter().map(row).collect(), 12, 8) })
}

#[cfg(test)]
mod tests {
    use evenset_core::Group;

    use super::*;
    use crate::data::{Cue, GroupShortcut, KernelDistance, SmallGroups};

    fn near_or_far(colour: &str, kernel: Option<f64>) -> GroupDistances {
        let of = |value: f64| Distances {
            others: 30,
            kernel: Some(KernelDistance { value, standard_error: 0.01 }),
            ..Distances::default()
        };
        GroupDistances {
            group: Some(Group::of("colour", colour)),
            generated: Some(kernel.map_or_else(Distances::default, of)),
            floor: Some(of(0.02)),
        }
    }

    #[test]
    fn the_farthest_groups_come_first_and_are_marked_where_it_is_no_chance() {
        let rows = [near_or_far("red", Some(0.03)), near_or_far("grey", None), near_or_far("blue", Some(0.2))];
        let view = distances(&rows).unwrap();
        let told: Vec<(&str, bool)> = view.rows.shown.iter().map(|row| (row.values[0].as_str(), row.far)).collect();
        assert_eq!(told, [("blue", true), ("red", false), ("grey", false)]);
        assert!(view.summary.starts_with("In 1 of 2 groups"), "{}", view.summary);
        let kernel = &view.rows.shown[0].figures[1];
        assert_eq!(
            [&*kernel.value, &*kernel.error, &*kernel.floor, &*kernel.floor_error],
            ["0.2", "0.01", "0.02", "0.01"]
        );
        assert_eq!(view.rows.shown[2].figures[1].value, "–");
        assert!(distances(&[]).is_none());
    }

    #[test]
    fn a_shortcut_is_told_in_plain_words() {
        let auc = |value: f64| Auc { value, interval: [value - 0.05, value + 0.05] };
        let figures = |value: f64, found| ShortcutFigures {
            auc: auc(value),
            best: Cue { cue: "sharpness".into(), more_in_generated: false, auc: auc(0.6) },
            found,
            ..ShortcutFigures::default()
        };
        let group = |found| GroupShortcut { group: Group::of("colour", "red"), figures: figures(0.9, found) };
        let mut shortcut = Shortcut { limit: 0.7, overall: Some(figures(0.6, false)), ..Shortcut::default() };
        assert!(found(&shortcut).starts_with("Nothing trivial"));
        assert!(found(&shortcut).contains("generated images have softer details (0.60 by itself)"));
        (shortcut.found, shortcut.groups) = (true, vec![group(true)]);
        assert!(found(&shortcut).starts_with("In red something trivial"));
        shortcut.overall = Some(figures(0.8, true));
        assert!(found(&shortcut).contains("with 0.80 (0.75 to 0.85), above the limit of 0.70"));
    }

    #[test]
    fn groups_that_a_shortcut_was_not_looked_for_in_are_told_with_the_reason() {
        let told = |groups, generated, counted| {
            let small = SmallGroups { smallest: 20, groups, generated, counted };
            too_small(&Shortcut { small, ..Shortcut::default() })
        };
        assert_eq!(told(0, 0, 0), None);
        assert_eq!(
            told(3, 1041, 17).unwrap(),
            "Not looked at by themselves: 3 groups with fewer than 20 real or generated images (`smallest`); their 1,041 \
             generated images count over all groups as far as real images stand beside them (17)."
        );
        assert!(told(1, 9, 0).unwrap().ends_with("count nowhere, having no real image beside them."));
        assert!(told(1, 9, 9).unwrap().ends_with("their 9 generated images count in what is found over all groups."));
    }

    #[test]
    fn the_least_varied_groups_come_first() {
        let row = |colour: &str, scores: Option<[f64; 2]>| Diversity {
            group: Group::of("colour", colour),
            compared: 10,
            real_score: scores.map(|scores| scores[0]),
            accepted_score: scores.map(|scores| scores[1]),
        };
        let view =
            diversity(&[row("red", Some([4.0, 4.4])), row("blue", Some([5.0, 2.0])), row("grey", None)]).unwrap();
        assert_eq!(view.rows.shown[0].values, ["blue"]);
        assert!(view.summary.starts_with("In 1 of 2 groups") && view.summary.contains("1 group is left out"));
        assert!(diversity(&[row("grey", None)]).is_none());
    }
}
