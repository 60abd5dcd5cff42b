//! The integer program of a task.
//!
//! Groups that are in the same cells of every rule, and have the same say in every limit, are one variable: the images
//! added to them together (and one for images left out). Which of them gets how many is settled by water-filling.

use std::collections::BTreeMap;

use crate::Surplus;
use crate::closed::Moves;
use crate::demand::{Demand, Rule};
use crate::fill::{Vessel, water_fill};
use crate::plan::Task;
use crate::program::Program;
use crate::table::sum;

/// What a program holds fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Demands and limits.
    Demands,
    /// Limits alone: what the demands lack is counted and made small.
    Limits,
}

/// A helping variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aux {
    /// The images of all groups.
    Total,
    /// The count of every cell of a stratum.
    Level {
        /// How many cells those are.
        cells: usize,
        /// The count of the largest of them before anything is done.
        largest: u64,
    },
    /// The count of the smallest cell.
    Least {
        /// The least that the largest cell allows before anything is done.
        allowed: u64,
    },
}

/// Groups that nothing tells apart.
struct Class {
    rows: Vec<usize>,
    add: usize,
    remove: Option<usize>,
}

/// A program and what its variables stand for.
pub(crate) struct Model {
    /// The program.
    pub program: Program,
    /// Variables for generated images.
    pub images: Vec<usize>,
    /// Variables that only help to say what is demanded.
    pub helpers: Vec<(usize, Aux)>,
    removed: Vec<usize>,
    short: Vec<usize>,
    classes: Vec<Class>,
    hold: Hold,
}

impl Model {
    pub fn new(task: &Task<'_>, hold: Hold) -> Self {
        let mut model = Self {
            program: Program::default(),
            images: Vec::new(),
            helpers: Vec::new(),
            removed: Vec::new(),
            short: Vec::new(),
            classes: Vec::new(),
            hold,
        };
        model.add_classes(task);
        let mut class_of = vec![0; task.table.len()];
        for (number, class) in model.classes.iter().enumerate() {
            class.rows.iter().for_each(|&row| class_of[row] = number);
        }
        let mut total = None;
        for demand in task.demands {
            model.add_demand(task, demand, &class_of, &mut total);
        }
        model.add_limits(task);
        model
    }

    /// What is made small, one after the other.
    pub fn aims(&self) -> Vec<Vec<usize>> {
        let mut aims = vec![self.images.clone()];
        if self.hold == Hold::Limits {
            aims.insert(0, self.short.clone());
        }
        if !self.removed.is_empty() {
            aims.push(self.removed.clone());
        }
        aims
    }

    /// Whether the cost counts every image by which the data grows.
    pub fn only_adds_to(&self, cost: &[usize]) -> bool {
        self.hold == Hold::Demands && self.removed.is_empty() && cost == self.images
    }

    fn add_classes(&mut self, task: &Task<'_>) {
        let removes = task.search.surplus == Surplus::Remove;
        let mut signatures: Vec<Vec<u32>> = vec![Vec::new(); task.table.len()];
        let mut number = 0;
        for demand in task.demands {
            for cell in demand.cells.iter().filter(|cell| !is_idle(task, demand, &cell.members)) {
                cell.members.iter().for_each(|&row| signatures[row].push(number));
                number += 1;
            }
        }
        let mut classes: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
        for (row, signature) in signatures.into_iter().enumerate() {
            classes.entry(signature).or_default().push(row);
        }
        let rooms = task.rooms();
        for rows in classes.into_values() {
            let room = rows.iter().fold(0u64, |all, &row| all.saturating_add(rooms[row].images));
            let add = self.program.add(if room == u64::MAX { f64::INFINITY } else { room as f64 });
            self.images.push(add);
            let count = sum(&rows, &task.table.counts);
            let remove = (removes && count > 0).then(|| self.program.add(count as f64));
            self.removed.extend(remove);
            self.classes.push(Class { rows, add, remove });
        }
    }

    /// The terms that add up to what the members gain.
    fn gain(&self, members: &[usize], class_of: &[usize]) -> Vec<(usize, f64)> {
        let mut classes: Vec<usize> = members.iter().map(|&row| class_of[row]).collect();
        classes.sort_unstable();
        classes.dedup();
        let terms = |&number: &usize| {
            let class = &self.classes[number];
            [Some((class.add, 1.0)), class.remove.map(|remove| (remove, -1.0))]
        };
        classes.iter().flat_map(terms).flatten().collect()
    }

    fn helper(&mut self, aux: Aux) -> usize {
        let var = self.program.add(f64::INFINITY);
        self.helpers.push((var, aux));
        var
    }

    /// Images that a cell lacks, where demands are not held fast; with removal also images that it has too many.
    fn slack(&mut self, terms: &mut Vec<(usize, f64)>) {
        if self.hold == Hold::Limits {
            let lacking = self.program.add(f64::INFINITY);
            self.short.push(lacking);
            terms.push((lacking, 1.0));
            if !self.removed.is_empty() {
                let over = self.program.add(f64::INFINITY);
                self.short.push(over);
                terms.push((over, -1.0));
            }
        }
    }

    fn add_demand(&mut self, task: &Task<'_>, demand: &Demand, class_of: &[usize], total: &mut Option<usize>) {
        let mut cells = Vec::with_capacity(demand.cells.len());
        for cell in &demand.cells {
            let idle = is_idle(task, demand, &cell.members);
            let mut terms = if idle { Vec::new() } else { self.gain(&cell.members, class_of) };
            if !idle {
                self.slack(&mut terms);
            }
            cells.push((terms, sum(&cell.members, &task.table.counts) as f64));
        }
        match &demand.rule {
            Rule::Floor(images) => {
                for (terms, count) in cells.into_iter().filter(|(terms, _)| !terms.is_empty()) {
                    self.program.require(terms, *images as f64 - count, f64::INFINITY);
                }
            }
            Rule::Equal(strata) => {
                for stratum in strata.iter().filter(|stratum| stratum.len() > 1) {
                    let largest = cells[stratum.clone()].iter().map(|(_, count)| *count as u64).max().unwrap_or(0);
                    let level = self.helper(Aux::Level { cells: stratum.len(), largest });
                    for (terms, count) in &cells[stratum.clone()] {
                        self.program.require(with(terms, level, -1.0), -count, -count);
                    }
                }
            }
            Rule::Ratio(at_most) => {
                let largest = cells.iter().map(|(_, count)| *count as u64).max().unwrap_or(0);
                let least = self.helper(Aux::Least { allowed: at_most.smallest_allowed(largest) });
                for (terms, count) in &cells {
                    self.program.require(with(terms, least, -1.0), -count, f64::INFINITY);
                    self.program.require(with(terms, least, -at_most.value()), f64::NEG_INFINITY, -count);
                }
            }
            Rule::Shares(weights) => {
                let images: f64 = cells.iter().map(|(_, count)| count).sum();
                let all = match *total {
                    Some(all) => all,
                    None => {
                        let all = self.helper(Aux::Total);
                        let terms = cells.iter().flat_map(|(terms, _)| terms.clone()).collect();
                        self.program.require(with_vec(terms, all, -1.0), -images, -images);
                        // With slack every rule has images of its own in mind.
                        if self.hold == Hold::Demands {
                            *total = Some(all);
                        }
                        all
                    }
                };
                let near = 1.0 - 1.0 / weights.whole.max(1) as f64;
                for (cell, (terms, count)) in cells.iter().enumerate() {
                    self.program.require(with(terms, all, -weights.share(cell)), -count - near, -count + near);
                }
            }
        }
    }

    fn add_limits(&mut self, task: &Task<'_>) {
        let limits = task.limits;
        let each = |vars: &[usize], factor: f64| vars.iter().map(|&var| (var, factor)).collect::<Vec<_>>();
        if let Some(images) = limits.images {
            self.program.require(each(&self.images, 1.0), f64::NEG_INFINITY, images as f64);
        }
        if let (Some(removed), false) = (limits.removed, self.removed.is_empty()) {
            self.program.require(each(&self.removed, 1.0), f64::NEG_INFINITY, removed as f64);
        }
        if let Some(share) = limits.synthetic_share.filter(|&share| share < 1.0) {
            if self.removed.is_empty() {
                let most = limits.budget(task.table.images).images;
                self.program.require(each(&self.images, 1.0), f64::NEG_INFINITY, most as f64);
                return;
            }
            let mut terms = each(&self.images, 1.0 - share);
            terms.append(&mut each(&self.removed, share));
            self.program.require(terms, f64::NEG_INFINITY, share * task.table.images as f64);
        }
    }

    /// What the values of the variables mean for each row of the table: of a class the smallest groups rise first and
    /// the largest are thinned first.
    pub fn moves(&self, task: &Task<'_>, values: &[i64]) -> Moves {
        let rooms = task.rooms();
        let counts = &task.table.counts;
        let mut moves = Moves::adding(vec![0; counts.len()]);
        for class in &self.classes {
            // Adding and removing at once is the same as their difference.
            let removed = class.remove.map_or(0, |remove| values[remove].max(0));
            let net = values[class.add].max(0) - removed;
            let vessel = |&row: &usize| match net > 0 {
                true => Vessel { count: counts[row], room: rooms[row].images.min(net.unsigned_abs()) },
                false => Vessel { count: u64::MAX / 2 - counts[row], room: counts[row] },
            };
            let vessels: Vec<Vessel> = class.rows.iter().map(vessel).collect();
            let parts = water_fill(&vessels, net.unsigned_abs());
            let side = if net > 0 { &mut moves.adds } else { &mut moves.removes };
            class.rows.iter().zip(parts).for_each(|(&row, part)| side[row] = part);
        }
        moves
    }
}

/// Whether a cell has what it needs and can only gain.
fn is_idle(task: &Task<'_>, demand: &Demand, members: &[usize]) -> bool {
    match demand.rule {
        Rule::Floor(images) => task.search.surplus == Surplus::Keep && sum(members, &task.table.counts) >= images,
        _ => false,
    }
}

fn with(terms: &[(usize, f64)], var: usize, factor: f64) -> Vec<(usize, f64)> {
    with_vec(terms.to_vec(), var, factor)
}

fn with_vec(mut terms: Vec<(usize, f64)>, var: usize, factor: f64) -> Vec<(usize, f64)> {
    terms.push((var, factor));
    terms
}
