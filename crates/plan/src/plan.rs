//! The plan: how many images each group gets, which limit bound, and what is missing.

use evenset_core::Group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::closed::{Moves, fill_cells, spend};
use crate::demand::{Demand, Unreachable, demands};
use crate::explain::{Story, explain};
use crate::fill::{Vessel, water_fill};
use crate::limits::Room;
use crate::table::{MOST_IMAGES, Table};
use crate::target::Budget;
use crate::{Limits, PlanError, Surplus, Target, combine, contradiction, weights};

/// Additions that reach the targets, or come as near as the limits allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How many images are to be generated.
    pub images: u64,
    /// The groups in the order of the counts.
    pub groups: Vec<PlannedGroup>,
    /// What becomes of each target, in the order of the job file.
    pub targets: Vec<TargetOutcome>,
    /// Whether it is proven that fewer images cannot do the same.
    pub optimal: bool,
    /// Where it is not proven: a number of images that every plan needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<u64>,
    /// Where it is not proven: how many images the plan is above that bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
}

/// One group of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// The group.
    pub values: Group,
    /// Its images.
    pub count: u64,
    /// The images the targets want it to have, were there no limits.
    pub want: u64,
    /// The images to generate for it.
    pub add: u64,
    /// The images to leave out of the balanced dataset.
    #[serde(default)]
    pub remove: u64,
    /// The type of the target that asks for its images; the first where there are several.
    #[serde(default)]
    pub target: Option<String>,
    /// The limit that keeps it below what the targets want.
    pub limited_by: Option<String>,
    /// The weight of each of its images that would reach the first target without adding any (reweighting, Kamiran and
    /// Calders 2012); absent where the target sets no distribution or the group has no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

impl PlannedGroup {
    /// The count that rounds of generation fill up to, within the limits.
    pub fn goal(&self) -> u64 {
        self.count.saturating_add(self.add).saturating_sub(self.remove)
    }
}

/// What becomes of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetOutcome {
    /// The type of the target in the job file.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the plan reaches it.
    pub satisfied: bool,
    /// What the target asks for, what it costs, and what keeps it from being reached.
    pub explanation: String,
}

/// How a plan is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// Whether images may be left out of the balanced dataset.
    pub surplus: Surplus,
    /// Seconds after which the search for fewer images ends with the best plan so far and says how far it may be from
    /// the fewest. Plans found in less time do not depend on it.
    #[schemars(range(min = 0.0))]
    pub seconds: f64,
    /// Branches after which the search ends in the same way, on every machine alike.
    pub nodes: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self { surplus: Surplus::Keep, seconds: 5.0, nodes: 20_000 }
    }
}

impl Search {
    fn validate(&self) -> Result<(), PlanError> {
        if (0.0..=1e6).contains(&self.seconds) {
            return Ok(());
        }
        let found = self.seconds.to_string();
        Err(PlanError::Value { key: "search.seconds", found, expected: "a number from 0 to 1000000" })
    }
}

/// Plans additions: the fewest images that reach the targets, and where `limits` forbid so many, those that leave the
/// least missing. `targets` is a [`Target`] or [`Targets`](crate::Targets).
///
/// `counts` list every group once, empty ones too (a cube's roll-up does); groups that are not listed get nothing.
/// Groups without a value for an attribute ([`MISSING`](evenset_core::MISSING)) are counted but never asked for, and
/// targets pass over them.
///
/// # Errors
/// [`PlanError::Value`] and [`PlanError::Repeated`] for a target or limits that make no sense;
/// [`PlanError::NoGroups`], [`PlanError::Inconsistent`] and [`PlanError::Overflow`] for the counts;
/// [`PlanError::UnknownAttribute`] and [`PlanError::Share`] where the two do not fit;
/// [`PlanError::Contradiction`] where no counts meet all targets.
pub fn plan(
    counts: &[(Group, u64)],
    targets: &(impl AsRef<[Target]> + ?Sized),
    limits: &Limits,
) -> Result<Plan, PlanError> {
    plan_with(counts, targets, limits, &Search::default())
}

/// As [`plan`], with a say in how it is looked for and whether images may be left out.
///
/// With several targets, or images that may be left out, this is an integer program: first the fewest missing images
/// (none where the limits allow it), then the fewest generated ones, then the fewest left out. Groups that every target
/// treats alike share what they get so that the smallest rise most.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(
    counts: &[(Group, u64)],
    targets: &(impl AsRef<[Target]> + ?Sized),
    limits: &Limits,
    search: &Search,
) -> Result<Plan, PlanError> {
    let targets = targets.as_ref();
    check(targets, limits, search)?;
    let table = Table::new(counts)?;
    let each = targets.iter().enumerate().map(|(n, target)| demands(&table, n, target, search.surplus));
    let asked: Vec<Demand> = each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let task = Task { table: &table, targets, demands: &asked, limits, search };
    let solved = match budget_of(targets) {
        Some(images) => task.spend_budget(images)?,
        None => task.solve()?,
    };
    Ok(task.assemble(counts, &solved))
}

fn check(targets: &[Target], limits: &Limits, search: &Search) -> Result<(), PlanError> {
    limits.validate()?;
    search.validate()?;
    if targets.is_empty() {
        let expected = "one target or more";
        return Err(PlanError::Value { key: "target", found: "an empty list".into(), expected });
    }
    targets.iter().try_for_each(Target::validate)?;
    contradiction::refuse_beside_budget(targets)
}

fn budget_of(targets: &[Target]) -> Option<u64> {
    targets.iter().find_map(|target| match target {
        Target::Budget(Budget { images }) => Some(*images),
        _ => None,
    })
}

/// What is planned for, and within which limits.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub table: &'a Table<'a>,
    pub targets: &'a [Target],
    pub demands: &'a [Demand],
    pub limits: &'a Limits,
    pub search: &'a Search,
}

/// A plan row by row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Solved {
    /// What is added and removed.
    pub moves: Moves,
    /// What would be, were there no limits.
    pub free: Moves,
    /// The limit that holds each row below that.
    pub limited_by: Vec<Option<&'static str>>,
    /// A number of images that is needed at least, where the plan is not proven to have the fewest.
    pub bound: Option<u64>,
    /// What is to be said about the search.
    pub note: Option<&'static str>,
}

impl Task<'_> {
    fn solve(&self) -> Result<Solved, PlanError> {
        match self.demands {
            [demand] if self.search.surplus == Surplus::Keep && !demand.overlapping => {
                match self.in_closed_form(demand)? {
                    Some(solved) => Ok(solved),
                    None => combine::solve(self),
                }
            }
            [] => Ok(self.nothing()),
            _ => combine::solve(self),
        }
    }

    /// `None` where limits on single groups may want another rounding than the one that needs the fewest images.
    fn in_closed_form(&self, demand: &Demand) -> Result<Option<Solved>, PlanError> {
        let unreachable = |why| match why {
            Unreachable::TooMany => PlanError::Overflow { limit: MOST_IMAGES },
            Unreachable::NoShare(_) => contradiction::with_itself(&self.targets[demand.target], demand.target),
        };
        let (deficits, bound) = demand.deficits(&self.table.counts).map_err(unreachable)?;
        let needs = fill_cells(self.table, demand, &deficits, |_| u64::MAX);
        let rooms = self.rooms();
        let capped = fill_cells(self.table, demand, &deficits, |i| rooms[i].images);
        let total = |adds: &[u64]| adds.iter().sum::<u64>();
        if demand.rounds() && total(&capped) < total(&needs) {
            return Ok(None);
        }
        let budget = self.limits.budget(self.table.images);
        let adds = spend(self.table, &capped, budget);
        let limit = |i: usize| if adds[i] < capped[i] { budget.limit } else { rooms[i].limit };
        let limited_by = (0..adds.len()).map(|i| (adds[i] < needs[i]).then(|| limit(i))).collect();
        Ok(Some(Solved { free: Moves::adding(needs), moves: Moves::adding(adds), limited_by, bound, note: None }))
    }

    /// First what `at-least` needs, then the rest where it raises the smallest groups most.
    fn spend_budget(&self, images: u64) -> Result<Solved, PlanError> {
        let within =
            Limits { images: Some(self.limits.images.map_or(images, |n| n.min(images))), ..self.limits.clone() };
        let first = Task { limits: &within, ..*self }.solve()?;
        if self.table.images.checked_add(images).is_none_or(|all| all > MOST_IMAGES) {
            return Err(PlanError::Overflow { limit: MOST_IMAGES });
        }
        let rooms = self.rooms();
        let budget = within.budget(self.table.images);
        let raise = |adds: &[u64], budget: u64, room: &dyn Fn(usize) -> u64| -> Vec<u64> {
            let left = budget.saturating_sub(adds.iter().sum());
            let vessel = |(i, &add): (usize, &u64)| Vessel {
                count: self.table.counts[i] + add,
                room: room(i).saturating_sub(add).min(left),
            };
            let vessels: Vec<Vessel> = adds.iter().enumerate().map(vessel).collect();
            water_fill(&vessels, left).into_iter().zip(adds).map(|(more, add)| more + add).collect()
        };
        let adds = raise(&first.moves.adds, budget.images.min(images), &|i| rooms[i].images);
        let wants = raise(&first.free.adds, images, &|_| u64::MAX);
        let spent: u64 = adds.iter().sum();
        let limit = |i: usize| if adds[i] >= rooms[i].images { rooms[i].limit } else { budget.limit };
        let limited_by = (0..adds.len()).map(|i| (spent < images && adds[i] < wants[i]).then(|| limit(i))).collect();
        Ok(Solved { moves: Moves::adding(adds), free: Moves::adding(wants), limited_by, ..first })
    }

    fn nothing(&self) -> Solved {
        let none = Moves::adding(vec![0; self.table.len()]);
        Solved { moves: none.clone(), free: none, limited_by: vec![None; self.table.len()], bound: None, note: None }
    }

    /// The room of every row.
    pub fn rooms(&self) -> Vec<Room> {
        self.table.groups.iter().zip(&self.table.counts).map(|(group, &n)| self.limits.room(group, n)).collect()
    }

    /// The plan in the order of the counts.
    fn assemble(&self, counts: &[(Group, u64)], solved: &Solved) -> Plan {
        let Solved { moves, free, limited_by, .. } = solved;
        let mut groups: Vec<PlannedGroup> = counts.iter().map(untouched).collect();
        let finals = moves.finals(&self.table.counts);
        let askers = self.askers(&moves.adds);
        let weights = weights::of_first_target(self.table, self.targets, self.demands);
        for (row, &place) in self.table.places.iter().enumerate() {
            let group = &mut groups[place];
            group.want = group.count + free.adds[row] - free.removes[row];
            group.add = moves.adds[row];
            group.remove = moves.removes[row];
            group.target = askers[row].map(|target| self.targets[target].name().to_owned());
            group.limited_by = limited_by[row].map(str::to_owned);
            group.weight = weights[row];
        }
        let images = moves.images();
        let targets = self.targets.iter().enumerate().map(|(number, target)| {
            let satisfied = match target {
                Target::Budget(Budget { images: budget }) => images >= *budget,
                _ => self.demands.iter().filter(|d| d.target == number).all(|d| d.is_met(&finals)),
            };
            let story = Story { task: self, number, satisfied, groups: &groups, finals: &finals, note: solved.note };
            TargetOutcome { kind: target.name().to_owned(), satisfied, explanation: explain(&story) }
        });
        let targets = targets.collect();
        let bound = solved.bound.map(|bound| bound.min(images));
        let gap = bound.map(|bound| images - bound);
        Plan { images, targets, optimal: bound.is_none(), bound, gap, groups }
    }

    /// For each row that gets images the first target that asks for them: by itself it lacks images in a cell of the
    /// row; else the first that is about all images, which grew with the others; else the last.
    fn askers(&self, adds: &[u64]) -> Vec<Option<usize>> {
        let mut askers: Vec<Option<usize>> = vec![None; adds.len()];
        for demand in self.demands {
            let Ok((deficits, _)) = demand.deficits(&self.table.counts) else { continue };
            for (cell, _) in demand.cells.iter().zip(deficits).filter(|(_, deficit)| *deficit > 0) {
                for &row in &cell.members {
                    askers[row] = askers[row].or(Some(demand.target));
                }
            }
        }
        let about_all = self.demands.iter().find(|demand| demand.is_about_all()).map(|demand| demand.target);
        let otherwise = self.targets.iter().position(|target| matches!(target, Target::Budget(_))).or(about_all);
        let last = Some(self.targets.len() - 1);
        let asker = |(asker, &add): (Option<usize>, &u64)| (add > 0).then(|| asker.or(otherwise).or(last)).flatten();
        askers.into_iter().zip(adds).map(asker).collect()
    }
}

fn untouched((group, count): &(Group, u64)) -> PlannedGroup {
    PlannedGroup {
        values: group.clone(),
        count: *count,
        want: *count,
        add: 0,
        remove: 0,
        target: None,
        limited_by: None,
        weight: None,
    }
}

impl Plan {
    /// The groups that get images, and how many.
    pub fn asks(&self) -> Vec<(Group, u64)> {
        self.groups.iter().filter(|g| g.add > 0).map(|g| (g.values.clone(), g.add)).collect()
    }
}
