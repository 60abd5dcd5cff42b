//! Several targets at once, or images that may be left out: an integer program, solved with a proof where one is found.

use std::time::{Duration, Instant};

use crate::closed::Moves;
use crate::demand::{Demand, Unreachable};
use crate::model::{Aux, Hold, Model};
use crate::plan::{Solved, Task};
use crate::program::{Branched, Program, Relaxed};
use crate::repair::repair;
use crate::table::MOST_IMAGES;
use crate::{Limits, PlanError, Search, Surplus, contradiction};

/// What is known of a program.
pub(crate) enum Outcome {
    /// Moves that meet it; the bound on their images where they are not proven to be the fewest.
    Found(Moves, Option<u64>),
    /// Nothing meets it.
    Infeasible,
    /// Nothing was found, and nothing proven.
    Unknown,
}

const GAVE_UP: &str = "whether fewer images would do was not settled within the search's limits";
const NOT_FOUND: &str = "no plan that meets every target was found within the search's limits, nor ruled out";

/// Plans for all demands together.
pub(crate) fn solve(task: &Task<'_>) -> Result<Solved, PlanError> {
    let deadline = Instant::now() + Duration::from_secs_f64(task.search.seconds);
    for demand in task.demands {
        if let Err(Unreachable::TooMany) = demand.deficits(&task.table.counts) {
            return Err(PlanError::Overflow { limit: MOST_IMAGES });
        }
    }
    let open = Limits::default();
    let free_task = Task { limits: &open, ..*task };
    match attempt(&free_task, Hold::Demands, deadline) {
        Outcome::Found(moves, bound) if fits(task, &moves) => Ok(reached(task, moves.clone(), moves, bound)),
        Outcome::Found(free, _) => match attempt(task, Hold::Demands, deadline) {
            Outcome::Found(moves, bound) => Ok(reached(task, moves, free, bound)),
            Outcome::Infeasible => Ok(nearest(task, free, None, deadline)),
            Outcome::Unknown => Ok(nearest(task, free, Some(NOT_FOUND), deadline)),
        },
        Outcome::Infeasible => Err(contradiction::find(&free_task)),
        Outcome::Unknown => {
            let none = Moves::adding(vec![0; task.table.len()]);
            Ok(nearest(task, none, Some(NOT_FOUND), deadline))
        }
    }
}

fn reached(task: &Task<'_>, moves: Moves, free: Moves, bound: Option<u64>) -> Solved {
    let rooms = task.rooms();
    let held = |i: usize| (moves.adds[i] < free.adds[i] && moves.adds[i] >= rooms[i].images).then(|| rooms[i].limit);
    let limited_by = (0..moves.adds.len()).map(held).collect();
    Solved { limited_by, bound, note: bound.map(|_| GAVE_UP), moves, free }
}

/// The least that is missing under the limits.
fn nearest(task: &Task<'_>, free: Moves, note: Option<&'static str>, deadline: Instant) -> Solved {
    let (moves, bound) = match attempt(task, Hold::Limits, deadline) {
        Outcome::Found(moves, bound) => (moves, bound),
        Outcome::Infeasible | Outcome::Unknown => (Moves::adding(vec![0; task.table.len()]), Some(0)),
    };
    let (rooms, budget) = (task.rooms(), task.limits.budget(task.table.images - moves.removes.iter().sum::<u64>()));
    let limit = |i: usize| match rooms[i] {
        room if moves.adds[i] >= room.images => Some(room.limit),
        _ if budget.images < u64::MAX => Some(budget.limit),
        _ if task.limits.removed.is_some() => Some("limits.removed"),
        _ => None,
    };
    let wants = |i: usize| moves.adds[i] < free.adds[i] || moves.removes[i] < free.removes[i];
    let limited_by = (0..moves.adds.len()).map(|i| if wants(i) { limit(i) } else { None }).collect();
    let note = note.or(bound.map(|_| GAVE_UP));
    Solved { limited_by, bound, note, moves, free }
}

/// Whether moves keep the limits.
fn fits(task: &Task<'_>, moves: &Moves) -> bool {
    let removed: u64 = moves.removes.iter().sum();
    let rooms = task.rooms();
    moves.images() <= task.limits.budget(task.table.images.saturating_sub(removed)).images
        && task.limits.removed.is_none_or(|most| removed <= most)
        && moves.adds.iter().zip(rooms).all(|(&add, room)| add <= room.images)
        && moves.removes.iter().zip(&task.table.counts).all(|(remove, count)| remove <= count)
}

/// Whether moves keep what is held fast.
fn accepts(task: &Task<'_>, hold: Hold, moves: &Moves) -> bool {
    if !fits(task, moves) || task.table.images.checked_add(moves.images()).is_none_or(|all| all > MOST_IMAGES) {
        return false;
    }
    let finals = moves.finals(&task.table.counts);
    hold == Hold::Limits || task.demands.iter().all(|demand| demand.is_met(&finals))
}

/// Solves one program, one aim after the other: the best of the first is a row for the next.
pub(crate) fn attempt(task: &Task<'_>, hold: Hold, deadline: Instant) -> Outcome {
    if task.search.surplus == Surplus::Keep {
        return solve_program(task, hold, deadline);
    }
    let now = Instant::now();
    match solve_program(task, hold, now + deadline.saturating_duration_since(now).mul_f64(0.7)) {
        Outcome::Unknown => {}
        known => return known,
    }
    // A plan that leaves nothing out is a plan; how far it is from the fewest images is not known here.
    let keeping = Search { surplus: Surplus::Keep, ..*task.search };
    match solve_program(&Task { search: &keeping, ..*task }, hold, deadline) {
        Outcome::Found(moves, _) => Outcome::Found(moves, Some(0)),
        Outcome::Infeasible | Outcome::Unknown => Outcome::Unknown,
    }
}

fn solve_program(task: &Task<'_>, hold: Hold, deadline: Instant) -> Outcome {
    let mut model = Model::new(task, hold);
    let mut best: Option<Vec<i64>> = None;
    let mut bound = None;
    for cost in model.aims() {
        let is_images = cost == model.images;
        let step = Step { task, hold, model: &model, cost: &cost, deadline };
        match step.minimise(best.take()) {
            Found::Best { values, bound: open } => {
                let value = total(&values, &cost);
                if is_images || open.is_some() && bound.is_none() {
                    let images = total(&values, &model.images);
                    bound = open.map(|open| if is_images { open } else { 0 }.min(images)).or(bound);
                }
                model.program.require(cost.iter().map(|&var| (var, 1.0)).collect(), f64::NEG_INFINITY, value as f64);
                best = Some(values);
            }
            Found::Infeasible => return Outcome::Infeasible,
            Found::Unknown => return Outcome::Unknown,
        }
    }
    match best {
        Some(values) => Outcome::Found(model.moves(task, &values), bound),
        None => Outcome::Unknown,
    }
}

fn total(values: &[i64], cost: &[usize]) -> u64 {
    cost.iter().map(|&var| values[var].max(0) as u64).sum()
}

/// One aim of one program.
struct Step<'a> {
    task: &'a Task<'a>,
    hold: Hold,
    model: &'a Model,
    cost: &'a [usize],
    deadline: Instant,
}

enum Found {
    Best { values: Vec<i64>, bound: Option<u64> },
    Infeasible,
    Unknown,
}

/// Programs of so many variables are left to branch and bound as soon as their bound is not reached; in larger ones it
/// finds little by itself.
const SMALL: usize = 200;

/// The part of the time that is left which the relaxation of a large program may take: without it there is still
/// something to try.
const FOR_RELAXATION: f64 = 0.6;

impl Step<'_> {
    /// The least sum of the cost: relaxation for the bound, repair for a solution that reaches it, and branch and
    /// bound where repair does not. `known` meets the rows.
    fn minimise(&self, known: Option<Vec<i64>>) -> Found {
        let program = &self.model.program;
        let sure = self.sure_bound();
        let large = program.vars.len() > SMALL;
        let mut best = known;
        if large && self.model.only_adds_to(self.cost) {
            self.descend(&mut best, &self.start_from_nothing(), sure, 0);
            if self.is_within(&best, sure) {
                return self.found(best, None);
            }
        }
        let until = if large { self.part_of_the_time(FOR_RELAXATION) } else { self.deadline };
        let mut relaxed = false;
        let least = match program.relax(self.cost, until) {
            Relaxed::Solved(values, sum) => {
                relaxed = true;
                let least = whole_bound(sum).max(sure);
                self.improve(&mut best, values.iter().map(|x| x.round() as i64).collect());
                self.descend(&mut best, &values, least, if large { u64::MAX } else { 0 });
                least
            }
            Relaxed::Infeasible if best.is_none() => return Found::Infeasible,
            Relaxed::Infeasible | Relaxed::Unknown => {
                if self.model.only_adds_to(self.cost) {
                    self.descend(&mut best, &self.start_from_nothing(), sure, u64::MAX);
                }
                sure
            }
        };
        if self.is_within(&best, least) {
            return self.found(best, None);
        }
        match program.branch(self.cost, best.as_deref(), self.task.search.nodes, self.deadline) {
            Branched::Solved { values, bound, proven } => {
                let sum = total(&values, self.cost);
                let believed = self.improve(&mut best, values) || self.is_within(&best, sum);
                // The bound of a search whose relaxation was cut off is not to be relied on.
                let bound = bound.filter(|_| relaxed).map_or(least, |bound| whole_bound(bound).max(least));
                self.found(best, (!(proven && believed)).then_some(bound))
            }
            Branched::Infeasible if best.is_none() => Found::Infeasible,
            Branched::Infeasible | Branched::Unknown => self.found(best, Some(least)),
        }
    }

    /// What the dearest target costs by itself, which is exact: all of them together cost no less.
    fn sure_bound(&self) -> u64 {
        if !self.model.only_adds_to(self.cost) {
            return 0;
        }
        let alone = |demand: &Demand| demand.least_images(&self.task.table.counts);
        self.task.demands.iter().map(alone).max().unwrap_or(0)
    }

    fn found(&self, best: Option<Vec<i64>>, bound: Option<u64>) -> Found {
        let Some(values) = best else { return Found::Unknown };
        let sum = total(&values, self.cost);
        Found::Best { values, bound: bound.filter(|&bound| bound < sum) }
    }

    fn is_within(&self, best: &Option<Vec<i64>>, most: u64) -> bool {
        best.as_ref().is_some_and(|values| total(values, self.cost) <= most)
    }

    /// Takes values that meet everything, in whole numbers, and cost less than the best.
    fn improve(&self, best: &mut Option<Vec<i64>>, values: Vec<i64>) -> bool {
        let better = best.as_ref().is_none_or(|best| total(&values, self.cost) < total(best, self.cost));
        let taken = better
            && self.model.program.holds(&values)
            && accepts(self.task, self.hold, &self.model.moves(self.task, &values));
        if taken {
            *best = Some(values);
        }
        taken
    }

    /// Repairs `start` at the bound `least`, then at up to `highest` above it in growing steps until that works, and
    /// from there down again by halves.
    fn descend(&self, best: &mut Option<Vec<i64>>, start: &[f64], least: u64, highest: u64) {
        let highest = highest.min(2 * least + 1024);
        let (mut failed, mut above) = (None, 0);
        loop {
            if self.is_within(best, least + above) || Instant::now() >= self.deadline {
                break;
            }
            let repaired =
                [Rounding::Up, Rounding::Down].into_iter().find_map(|way| self.repair(start, least + above, way));
            if repaired.is_some_and(|values| self.improve(best, values)) {
                break;
            }
            failed = Some(above);
            above = (4 * above).max(1 + least / 128);
            if above > highest {
                return;
            }
        }
        while let (Some(low), Some(values)) = (failed, best.as_ref()) {
            let high = total(values, self.cost).saturating_sub(least);
            if high <= low + 1 || Instant::now() >= self.deadline {
                return;
            }
            let middle = low + (high - low) / 2;
            let repaired = self.repair(start, least + middle, Rounding::Up);
            if !repaired.is_some_and(|values| self.improve(best, values)) {
                failed = Some(middle);
            }
        }
    }

    /// Nothing added, and helping variables as the counts have them.
    fn start_from_nothing(&self) -> Vec<f64> {
        let mut start = vec![0.0; self.model.program.vars.len()];
        for (var, aux) in &self.model.helpers {
            start[*var] = match aux {
                Aux::Level { largest, .. } => *largest as f64,
                Aux::Least { allowed } => *allowed as f64,
                Aux::Total => 0.0,
            };
        }
        start
    }

    fn part_of_the_time(&self, part: f64) -> Instant {
        let now = Instant::now();
        now + self.deadline.saturating_duration_since(now).mul_f64(part)
    }

    /// Whole values near the relaxed ones, with the helping variables fixed and the cost at most `most`.
    fn repair(&self, relaxed: &[f64], most: u64, rounding: Rounding) -> Option<Vec<i64>> {
        let mut program: Program = self.model.program.clone();
        program.require(self.cost.iter().map(|&var| (var, 1.0)).collect(), f64::NEG_INFINITY, most as f64);
        let mut start: Vec<i64> = relaxed.iter().map(|x| x.round().max(0.0) as i64).collect();
        let mut fixed = vec![false; start.len()];
        let mut levels = None;
        for (var, aux) in &self.model.helpers {
            fixed[*var] = true;
            let near = relaxed[*var];
            let value = match (near - near.round()).abs() < 1e-6 {
                true => near.round(),
                false if rounding == Rounding::Up => near.ceil(),
                false => near.floor(),
            };
            start[*var] = value as i64;
            if let Aux::Level { cells, .. } = aux {
                *levels.get_or_insert(0) += start[*var] * *cells as i64;
            }
        }
        let all = self.task.table.counts.iter().sum::<u64>() + most;
        for (var, _) in self.model.helpers.iter().filter(|(_, aux)| *aux == Aux::Total) {
            match levels {
                Some(images) => start[*var] = images,
                None if self.model.only_adds_to(self.cost) => start[*var] = all as i64,
                None => {}
            }
        }
        repair(&program, &start, &fixed)
    }
}

/// Which way helping variables are rounded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Up,
    Down,
}

/// The least whole number that is not below a computed bound.
fn whole_bound(sum: f64) -> u64 {
    (sum - 1e-5 - sum.abs() * 1e-10).ceil().max(0.0) as u64
}
