//! Water-filling: spend a number of images so that the smallest groups rise most.

/// A group as water-filling sees it: its images and how many it may get. Their sum must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vessel {
    /// Images there.
    pub count: u64,
    /// Images that may be added.
    pub room: u64,
}

impl Vessel {
    /// What raises the group to `level`, as far as there is room.
    fn to_level(self, level: u64) -> u64 {
        level.saturating_sub(self.count).min(self.room)
    }
}

/// Spends `budget` images over the vessels so that the sorted list of final counts is lexicographically largest: the
/// smallest group is as large as can be, then the second smallest, and so on. Images left over when no further level
/// can be filled go one each to the earliest groups. The additions stand in the order of the vessels; together they
/// are `budget`, or all the room where that is less.
///
/// The level is found by bisection, so the cost is the number of groups times the bits of the counts.
pub(crate) fn water_fill(vessels: &[Vessel], budget: u64) -> Vec<u64> {
    let spent = |level: u64| vessels.iter().map(|v| u128::from(v.to_level(level))).sum::<u128>();
    let top = vessels.iter().map(|v| v.count + v.room).max().unwrap_or(0);
    let budget = u128::from(budget);
    if spent(top) <= budget {
        return vessels.iter().map(|v| v.room).collect();
    }
    // The highest level that the budget pays for: `low` is always paid for, `high` never.
    let (mut low, mut high) = (0, top);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if spent(middle) <= budget { low = middle } else { high = middle }
    }
    let mut left = budget - spent(low);
    let mut additions = Vec::with_capacity(vessels.len());
    for vessel in vessels {
        let full = vessel.to_level(low);
        let rises = left > 0 && vessel.to_level(high) > full;
        left -= u128::from(rises);
        additions.push(full + u64::from(rises));
    }
    additions
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    /// The lexicographically largest sorted list of final counts, by trying every way to spend the budget.
    fn best_by_search(vessels: &[Vessel], budget: u64) -> Vec<u64> {
        fn search(vessels: &[Vessel], budget: u64, finals: &mut Vec<u64>, best: &mut Vec<u64>) {
            let Some((first, rest)) = vessels.split_first() else {
                let mut sorted = finals.clone();
                sorted.sort_unstable();
                *best = std::mem::take(best).max(sorted);
                return;
            };
            for add in 0..=first.room.min(budget) {
                finals.push(first.count + add);
                search(rest, budget - add, finals, best);
                finals.pop();
            }
        }
        let mut best = Vec::new();
        search(vessels, budget, &mut Vec::new(), &mut best);
        best
    }

    #[test]
    fn filling_is_as_good_as_exhaustive_search() {
        for case in 0..400u64 {
            let mut numbers = Seed(11).index(case).normal(9).into_iter().map(|x| (x.abs() * 3.0) as u64);
            let mut next = || numbers.next().unwrap();
            let vessels: Vec<Vessel> = (0..1 + case % 4).map(|_| Vessel { count: next(), room: next() }).collect();
            let budget = next() + case % 5;
            let additions = water_fill(&vessels, budget);
            assert!(additions.iter().zip(&vessels).all(|(&add, v)| add <= v.room), "{vessels:?} {additions:?}");
            let room: u64 = vessels.iter().map(|v| v.room).sum();
            assert_eq!(additions.iter().sum::<u64>(), budget.min(room), "{vessels:?} {additions:?}");
            let mut finals: Vec<u64> = additions.iter().zip(&vessels).map(|(&add, v)| add + v.count).collect();
            finals.sort_unstable();
            assert_eq!(finals, best_by_search(&vessels, budget), "{vessels:?} {budget}");
        }
    }

    #[test]
    fn what_is_left_over_goes_to_the_earliest_groups() {
        let vessel = |count| Vessel { count, room: 10 };
        assert_eq!(water_fill(&[vessel(1), vessel(1), vessel(1)], 5), [2, 2, 1]);
        assert_eq!(water_fill(&[vessel(5), vessel(1), vessel(1)], 1), [0, 1, 0]);
        assert!(water_fill(&[], 5).is_empty());
        assert_eq!(water_fill(&[vessel(1)], 0), [0]);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let full = Vessel { count: u64::MAX, room: 0 };
        let empty = Vessel { count: 0, room: u64::MAX };
        assert_eq!(water_fill(&[full, empty, empty], 9), [0, 5, 4]);
        assert_eq!(water_fill(&[full, empty, empty], u64::MAX), [0, u64::MAX / 2 + 1, u64::MAX / 2]);
    }
}
