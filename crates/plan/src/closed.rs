//! Plans in closed form: one target whose cells do not overlap, reached by adding alone.

use crate::demand::Demand;
use crate::fill::{Vessel, water_fill};
use crate::limits::Room;
use crate::table::Table;

/// Images to add and to take away, row by row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moves {
    /// Images to generate.
    pub adds: Vec<u64>,
    /// Images to leave out.
    pub removes: Vec<u64>,
}

impl Moves {
    /// Additions alone.
    pub fn adding(adds: Vec<u64>) -> Self {
        Self { removes: vec![0; adds.len()], adds }
    }

    /// All additions.
    pub fn images(&self) -> u64 {
        self.adds.iter().fold(0, |all, &n| all.saturating_add(n))
    }

    /// The counts afterwards.
    pub fn finals(&self, counts: &[u64]) -> Vec<u64> {
        counts.iter().zip(&self.adds).zip(&self.removes).map(|((n, add), remove)| n + add - remove).collect()
    }
}

/// What each group gets when every cell spends its deficit on its smallest groups, as far as each has room.
pub(crate) fn fill_cells(
    table: &Table<'_>,
    demand: &Demand,
    deficits: &[u64],
    room: impl Fn(usize) -> u64,
) -> Vec<u64> {
    let mut needs = vec![0; table.len()];
    for (cell, &deficit) in demand.cells.iter().zip(deficits) {
        let vessel = |&i: &usize| Vessel { count: table.counts[i], room: room(i).min(deficit) };
        let vessels: Vec<Vessel> = cell.members.iter().map(vessel).collect();
        for (&i, add) in cell.members.iter().zip(water_fill(&vessels, deficit)) {
            needs[i] = add;
        }
    }
    needs
}

/// All that is needed where the budget covers it, else what raises the smallest groups most, the earlier group first
/// where two are alike.
pub(crate) fn spend(table: &Table<'_>, needs: &[u64], budget: Room) -> Vec<u64> {
    let vessels: Vec<Vessel> = table.counts.iter().zip(needs).map(|(&count, &room)| Vessel { count, room }).collect();
    water_fill(&vessels, budget.images)
}
