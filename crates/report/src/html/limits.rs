//! What the page does not show, said plainly: what always holds, and what this run's numbers call for.

use super::ratio;
use crate::text::{count, plural};
use crate::{GroupRow, ReportData};

/// Limits of this run, the most particular first.
pub fn limits(data: &ReportData) -> Vec<String> {
    let mut limits: Vec<String> =
        [unmeasured(data), without_a_real_image(data), mostly_generated(data), unreachable(data), few_seeds(data)]
            .into_iter()
            .flatten()
            .collect();
    if data.evidence.is_some() {
        limits.extend(seen_by_the_generator(data));
        limits.push(
            "Accuracy was measured with one small classifier on the test split of this dataset. Other models and other \
             images can behave differently; the intervals cover chance, not a change of population."
                .to_owned(),
        );
    }
    if data.groups.iter().any(|group| group.accepted > 0) {
        limits.push(
            "Equal counts are not equal variety: generated images of a group resemble the few real ones that the model \
             learned from."
                .to_owned(),
        );
        limits.push(
            "The checks are made by models that err. Some accepted images are wrong, and some that were thrown away \
             were right; the tables above say how often the checks err on real images."
                .to_owned(),
        );
        limits.push("Generated images are in the training split only. Never test a model on them.".to_owned());
    }
    limits.push(
        "Groups are what the columns say: mistakes in labels and attributes are inherited, and attributes without a \
         column were not looked at."
            .to_owned(),
    );
    limits
}

fn unmeasured(data: &ReportData) -> Option<String> {
    let written = data.outputs.is_some() && data.evidence.is_none();
    written.then(|| "Whether training on this dataset helps was not measured.".to_owned())
}

fn seen_by_the_generator(data: &ReportData) -> Option<String> {
    data.evidence.as_ref().filter(|evidence| evidence.validation_seen).map(|_| {
        "The best step of each training was chosen by training images that no classifier learned from, but generator and \
         gates did: with generated images that choice may be too hopeful. The test images were seen by none of them; a \
         validation split does away with this."
            .to_owned()
    })
}

fn without_a_real_image(data: &ReportData) -> Option<String> {
    let groups = data.groups.iter().filter(|group| group.before == 0 && group.made() > 0).count() as u64;
    (groups > 0).then(|| {
        format!(
            "{} had no real training image at all: the model composed them from what it learned of other groups.",
            plural(groups, "group", "groups")
        )
    })
}

fn mostly_generated(data: &ReportData) -> Option<String> {
    let mostly = |group: &&GroupRow| ratio(group.made(), group.made().saturating_add(group.real())) > 0.9;
    let groups = data.groups.iter().filter(mostly).count() as u64;
    (groups > 0).then(|| format!("{} of {} groups are more than 90 % generated.", count(groups), data.groups.len()))
}

fn unreachable(data: &ReportData) -> Option<String> {
    let plan = data.plan.as_ref().filter(|plan| !plan.satisfied)?;
    let missing =
        data.groups.iter().filter(|group| group.after.zip(group.want).is_some_and(|(after, want)| after < want));
    let groups = plural(missing.count() as u64, "group is", "groups are");
    let why = if plan.unreachable.is_empty() { "" } else { "; the plan's section says why" };
    Some(format!("The target is not reached: {groups} below it{why}."))
}

fn few_seeds(data: &ReportData) -> Option<String> {
    let evidence = data.evidence.as_ref().filter(|evidence| evidence.seeds < 5)?;
    Some(format!(
        "With {} of each kind there is no verdict: use five or more.",
        plural(u64::from(evidence.seeds), "training", "trainings"),
    ))
}
