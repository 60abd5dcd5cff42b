//! Which targets contradict each other, and where.

use std::time::{Duration, Instant};

use crate::combine::{Outcome, attempt};
use crate::demand::{Demand, Rule};
use crate::error::list;
use crate::model::Hold;
use crate::plan::Task;
use crate::{AtLeast, Independent, Marginals, Match, Parity, PlanError, Ratio, Target};

/// `budget` says how much is spent, the kinds that set counts say so too.
pub(crate) fn refuse_beside_budget(targets: &[Target]) -> Result<(), PlanError> {
    let Some(budget) = targets.iter().position(|target| matches!(target, Target::Budget(_))) else { return Ok(()) };
    let other =
        targets.iter().enumerate().find(|(number, target)| *number != budget && !matches!(target, Target::AtLeast(_)));
    let Some((number, other)) = other else { return Ok(()) };
    Err(PlanError::Contradiction {
        first: title(number, other),
        second: title(budget, &targets[budget]),
        why: "a budget is spent to the last image wherever groups are smallest, so it goes with `at-least` alone; to \
              cap what another target may spend use `limits.images`"
            .to_owned(),
    })
}

/// A target that no counts of the listed groups meet.
pub(crate) fn with_itself(target: &Target, number: usize) -> PlanError {
    PlanError::Contradiction {
        first: title(number, target),
        second: "the groups that there are".to_owned(),
        why: "no counts of these groups meet it; list groups without images too".to_owned(),
    }
}

/// The targets that cannot be met together: one by itself, two of them, or only all.
pub(crate) fn find(task: &Task<'_>) -> PlanError {
    let targets = task.targets;
    let mut settled = true;
    let mut clash = |numbers: &[usize]| {
        let deadline = Instant::now() + Duration::from_secs_f64(task.search.seconds);
        let demands: Vec<Demand> = task.demands.iter().filter(|d| numbers.contains(&d.target)).cloned().collect();
        let some = Task { demands: &demands, ..*task };
        let outcome = attempt(&some, Hold::Demands, deadline);
        settled &= !matches!(outcome, Outcome::Unknown);
        matches!(outcome, Outcome::Infeasible)
    };
    let numbers = || 0..targets.len();
    if let Some(number) = numbers().find(|&number| clash(&[number])) {
        return with_itself(&targets[number], number);
    }
    let pairs = || numbers().flat_map(|a| (a + 1..targets.len()).map(move |b| (a, b)));
    if let Some((a, b)) = pairs().find(|&(a, b)| clash(&[a, b])) {
        let why = witness(task, a, b).unwrap_or_else(|| "no counts meet both".to_owned());
        return PlanError::Contradiction { first: title(a, &targets[a]), second: title(b, &targets[b]), why };
    }
    let why = match settled {
        true => "any two of them can be met, but no counts meet all of them",
        false => "no counts meet all of them; which of them part was not settled within the search's limits",
    };
    let others: Vec<String> = (1..targets.len()).map(|number| title(number, &targets[number])).collect();
    PlanError::Contradiction { first: title(0, &targets[0]), second: others.join(", "), why: why.to_owned() }
}

/// Where two targets part: a value and what each asks for it.
fn witness(task: &Task<'_>, a: usize, b: usize) -> Option<String> {
    let of = |number: usize| task.demands.iter().filter(move |demand| demand.target == number);
    let pairs = of(a).flat_map(|first| of(b).flat_map(move |second| [(first, second), (second, first)]));
    pairs.into_iter().find_map(|(first, second)| part(first, second))
}

fn part(first: &Demand, second: &Demand) -> Option<String> {
    let Rule::Shares(shares) = &first.rule else { return None };
    let percent = |share: f64| format!("{:.4}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned();
    if let Rule::Floor(images) = second.rule {
        let none = first.cells.iter().enumerate().filter(|(cell, _)| shares.each[*cell] == 0);
        for (_, cell) in none {
            let inside = second.cells.iter().find(|c| c.members.iter().all(|row| cell.members.contains(row)));
            if let Some(inside) = inside {
                let (cell, inside) = (&cell.values, &inside.values);
                return Some(format!("`{cell}` has a share of 0, but `{inside}` is to have at least {images} images"));
            }
        }
    }
    let (mut low, mut high) = (None, None);
    for (number, cell) in first.cells.iter().enumerate() {
        let share = shares.share(number);
        let Some(other) = second.cells.iter().position(|c| c.members == cell.members) else { continue };
        let differs = match &second.rule {
            Rule::Shares(others) => Some(others.share(other)),
            Rule::Equal(strata) if strata.len() == 1 => Some(1.0 / second.cells.len() as f64),
            _ => None,
        };
        if let Some(wanted) = differs.filter(|wanted| (wanted - share).abs() > 1e-9) {
            let (one, two) = (percent(share), percent(wanted));
            return Some(format!("`{}` is to have {one} % of the images and {two} % of them", cell.values));
        }
        if low.is_none_or(|(least, _)| share < least) {
            low = Some((share, number));
        }
        if high.is_none_or(|(most, _)| share > most) {
            high = Some((share, number));
        }
    }
    match (&second.rule, low, high) {
        (Rule::Ratio(at_most), Some((least, small)), Some((most, large))) if most > least * at_most.value() => {
            Some(format!(
                "`{}` is to have {} % of the images and `{}` {} %, which is more than {} times as many",
                first.cells[large].values,
                percent(most),
                first.cells[small].values,
                percent(least),
                at_most.value(),
            ))
        }
        _ => None,
    }
}

/// `target 2 ("match" of "colour")` in the words of the job file.
fn title(number: usize, target: &Target) -> String {
    let about = match target {
        Target::Parity(Parity { of, within }) => {
            let within = if within.0.is_empty() { String::new() } else { format!(" within {}", list(&within.0)) };
            if of.0.is_empty() { within } else { format!(" of {}{within}", list(&of.0)) }
        }
        Target::AtLeast(AtLeast { images, .. }) => format!(", `images: {images}`"),
        Target::Ratio(Ratio { at_most, .. }) => format!(", `at_most: {at_most}`"),
        Target::Match(Match { of, .. }) => format!(" of {}", list(&of.0)),
        Target::Independent(Independent { of, from }) => format!(" of {} from {}", list(&of.0), list(&from.0)),
        Target::Marginals(Marginals { shares }) => {
            format!(" of {}", list(&shares.keys().cloned().collect::<Vec<_>>()))
        }
        Target::Budget(budget) => format!(", `images: {}`", budget.images),
    };
    format!("target {} (`{}`{about})", number + 1, target.name())
}
