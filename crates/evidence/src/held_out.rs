//! Combinations that the generator has never seen: whole groups are held out of everything, then generated, and accuracy
//! is judged on the real test images of these groups alone.

use std::collections::{BTreeMap, BTreeSet};

use evenset_core::{Group, Seed};
use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::summary::{ArmSummary, Comparison};
use crate::table::{Table, restricted};
use crate::{Arm, ArmRun, Error};

/// Orders of the groups that are tried before the fewest groups that must stay are sought.
const TRIES: u64 = 32;
/// Steps of that search; beyond them the best found so far stands. Groups of two attributes never need so many in
/// practice.
const MOST_STEPS: usize = 200_000;

/// Chooses `count` of the groups, by seed, so that every value of every attribute still occurs in a group that is not
/// chosen. Returns their places, from the smallest.
///
/// # Errors
/// [`Error::HeldOut`] where there are no such groups; it says how many there can be.
pub fn hold_out(groups: &[Group], count: usize, seed: Seed) -> Result<Vec<usize>, Error> {
    // In another order, so that the seed decides among the groups that could stay.
    let places = shuffled((0..groups.len()).collect(), seed.derive("order"));
    let cover = Cover::new(places.iter().map(|&place| &groups[place]));
    let attempt = |attempt: u64| {
        let order = shuffled((0..groups.len()).collect(), seed.index(attempt));
        cover.drop_in_order(&order, count)
    };
    let chosen = match (0..TRIES).find_map(attempt) {
        Some(chosen) => chosen,
        None => {
            let needed: BTreeSet<usize> = cover.fewest().into_iter().collect();
            let free: Vec<usize> = (0..groups.len()).filter(|group| !needed.contains(group)).collect();
            // Groups without attributes have no values to keep, but somebody must stay.
            let most = free.len().min(groups.len().saturating_sub(1));
            if most < count {
                return Err(Error::HeldOut { wanted: count, most });
            }
            let mut chosen = shuffled(free, seed.derive("free"));
            chosen.truncate(count);
            chosen
        }
    };
    let mut chosen: Vec<usize> = chosen.into_iter().map(|group| places[group]).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

fn shuffled(mut order: Vec<usize>, seed: Seed) -> Vec<usize> {
    seed.shuffle(&mut order);
    order
}

/// Groups as sets of the values that they cover.
struct Cover {
    /// For each group the numbers of its values.
    values_of: Vec<Vec<usize>>,
    /// For each value its attribute.
    attribute_of: Vec<usize>,
    /// For each value the groups that have it.
    groups_of: Vec<Vec<usize>>,
}

impl Cover {
    fn new<'a>(groups: impl Iterator<Item = &'a Group>) -> Self {
        let mut numbers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut attributes: Vec<&str> = Vec::new();
        let (mut attribute_of, mut groups_of) = (Vec::new(), Vec::<Vec<usize>>::new());
        let mut values_of = Vec::new();
        for (place, group) in groups.enumerate() {
            let mut values = Vec::new();
            for (attribute, value) in group.pairs() {
                let number = *numbers.entry((attribute, value)).or_insert_with(|| {
                    let known = attributes.iter().position(|known| *known == attribute);
                    attribute_of.push(known.unwrap_or(attributes.len()));
                    if known.is_none() {
                        attributes.push(attribute);
                    }
                    groups_of.push(Vec::new());
                    groups_of.len() - 1
                });
                groups_of[number].push(place);
                values.push(number);
            }
            values_of.push(values);
        }
        Self { values_of, attribute_of, groups_of }
    }

    /// The first `count` groups in this order that can go one after another; `None` where fewer can.
    fn drop_in_order(&self, order: &[usize], count: usize) -> Option<Vec<usize>> {
        let mut left: Vec<usize> = self.groups_of.iter().map(Vec::len).collect();
        let mut chosen = Vec::new();
        for &group in order {
            if chosen.len() == count {
                break;
            }
            let free = chosen.len() + 1 < order.len() && self.values_of[group].iter().all(|&value| left[value] > 1);
            if free {
                self.values_of[group].iter().for_each(|&value| left[value] -= 1);
                chosen.push(group);
            }
        }
        (chosen.len() == count).then_some(chosen)
    }

    /// The fewest groups that have every value: branch and bound, on the value that the fewest groups have.
    fn fewest(&self) -> Vec<usize> {
        let mut search =
            Search { cover: self, covered: vec![0; self.groups_of.len()], taken: vec![], best: None, steps: 0 };
        search.go();
        search.best.unwrap_or_else(|| (0..self.values_of.len()).collect())
    }
}

struct Search<'a> {
    cover: &'a Cover,
    /// For each value how many taken groups have it.
    covered: Vec<usize>,
    taken: Vec<usize>,
    best: Option<Vec<usize>>,
    steps: usize,
}

impl Search<'_> {
    fn go(&mut self) {
        self.steps += 1;
        let open: Vec<usize> = (0..self.covered.len()).filter(|&value| self.covered[value] == 0).collect();
        // A group has one value of each attribute: each attribute needs as many groups as it has open values.
        let mut needed: BTreeMap<usize, usize> = BTreeMap::new();
        open.iter().for_each(|&value| *needed.entry(self.cover.attribute_of[value]).or_default() += 1);
        let bound = self.taken.len() + needed.values().copied().max().unwrap_or(0);
        if self.best.as_ref().is_some_and(|best| bound >= best.len() || self.steps > MOST_STEPS) {
            return;
        }
        let Some(&value) = open.iter().min_by_key(|&&value| self.cover.groups_of[value].len()) else {
            self.best = Some(self.taken.clone());
            return;
        };
        let gain = |group: usize| self.cover.values_of[group].iter().filter(|&&value| self.covered[value] == 0).count();
        let mut candidates: Vec<(usize, usize)> =
            self.cover.groups_of[value].iter().map(|&group| (usize::MAX - gain(group), group)).collect();
        candidates.sort_unstable();
        for (_, group) in candidates {
            self.cover.values_of[group].iter().for_each(|&value| self.covered[value] += 1);
            self.taken.push(group);
            self.go();
            self.taken.pop();
            self.cover.values_of[group].iter().for_each(|&value| self.covered[value] -= 1);
        }
    }
}

/// The arms judged on the groups that were held out, and on nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutSummary {
    /// The groups that were held out and have test images.
    pub groups: Vec<Group>,
    /// How many classifiers were trained for each arm.
    pub seeds: usize,
    /// Number of real test images of these groups.
    pub test_images: usize,
    /// The arms, with all figures over these groups' test images.
    pub arms: Vec<ArmSummary>,
    /// `balanced` against the baseline that is best in the worst of these groups.
    pub against_best_baseline: Comparison,
}

/// Puts the runs together as [`summarise`](crate::summarise) does, over the test images of `groups` alone.
///
/// # Errors
/// As [`summarise`](crate::summarise), and [`Error::Nothing`] where the groups have no test images.
pub fn summarise_held_out(runs: &[ArmRun], groups: &[Group]) -> Result<HeldOutSummary, Error> {
    let runs: Vec<ArmRun> = runs
        .iter()
        .map(|run| restricted(run, groups).ok_or(Error::Nothing("groups that were held out")))
        .collect::<Result<_, _>>()?;
    let table = Table::new(&runs, &[Arm::AsIs, Arm::Balanced])?;
    let analysis = Analysis::new(&table);
    let baselines = analysis.baselines();
    let tested = runs.first().map(|run| run.groups.iter().map(|group| group.group.clone()).collect());
    Ok(HeldOutSummary {
        groups: tested.unwrap_or_default(),
        seeds: table.seeds(),
        test_images: table.test_images(),
        arms: analysis.arms(analysis.best(&baselines)),
        against_best_baseline: analysis.compare(analysis.place(Arm::Balanced), baselines),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    fn group(values: &[(&str, &str)]) -> Group {
        Group::new(values.iter().copied()).unwrap()
    }

    /// All combinations of so many values of each attribute.
    fn product(sizes: &[usize]) -> Vec<Group> {
        sizes.iter().enumerate().fold(vec![Group::default()], |groups, (attribute, &size)| {
            let with = |group: &Group, value: usize| group.clone().with(&format!("a{attribute}"), &value.to_string());
            groups.iter().flat_map(|group| (0..size).map(move |value| with(group, value))).collect()
        })
    }

    fn check(groups: &[Group], chosen: &[usize]) {
        let left: BTreeSet<(&str, &str)> =
            (0..groups.len()).filter(|place| !chosen.contains(place)).flat_map(|place| groups[place].pairs()).collect();
        let all: BTreeSet<(&str, &str)> = groups.iter().flat_map(Group::pairs).collect();
        assert_eq!(left, all);
    }

    #[test]
    fn every_value_stays_and_the_most_is_named() {
        for (sizes, most) in [(&[10, 10][..], 90), (&[2, 5], 5), (&[3, 4, 2], 20), (&[7], 0)] {
            let groups = product(sizes);
            for count in [0, most / 2, most] {
                let chosen = hold_out(&groups, count, Seed(4)).unwrap();
                assert_eq!(chosen.len(), count);
                assert!(chosen.is_sorted_by(|a, b| a < b));
                check(&groups, &chosen);
                assert_eq!(chosen, hold_out(&groups, count, Seed(4)).unwrap());
            }
            let error = hold_out(&groups, most + 1, Seed(4)).unwrap_err();
            assert!(matches!(error, Error::HeldOut { most: found, .. } if found == most), "{error}");
        }
        let groups = product(&[4, 5]);
        assert_ne!(hold_out(&groups, 5, Seed(4)).unwrap(), hold_out(&groups, 5, Seed(5)).unwrap());
    }

    #[test]
    fn where_a_greedy_choice_is_stuck_the_search_goes_on() {
        // A path: a-1, b-1, b-2, c-2: only b-1 and b-2 can go, and not both.
        let pairs = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2")];
        let groups: Vec<Group> = pairs.iter().map(|(x, y)| group(&[("x", x), ("y", y)])).collect();
        let chosen = hold_out(&groups, 1, Seed(1)).unwrap();
        check(&groups, &chosen);
        let error = hold_out(&groups, 2, Seed(1)).unwrap_err().to_string();
        assert!(error.contains("the most that can be is 1"), "{error}");
        assert!(hold_out(&[], 0, Seed(1)).unwrap().is_empty());
    }

    #[test]
    fn only_the_groups_held_out_are_judged() {
        let said =
            |right: usize| -> Vec<(u32, u32, f32)> { (0..50).map(|i| (0, u32::from(i >= right), 0.8)).collect() };
        let of = |arm: Arm, red: usize, blue: usize| {
            let mut run = run(&[(&[("colour", "red")], &said(red)), (&[("colour", "blue")], &said(blue))]);
            run.arm = arm;
            run
        };
        let runs = [of(Arm::AsIs, 45, 5), of(Arm::Balanced, 40, 35)];
        let blue = group(&[("colour", "blue")]);
        let summary = summarise_held_out(&runs, std::slice::from_ref(&blue)).unwrap();
        assert_eq!((summary.groups, summary.test_images), (vec![blue], 50));
        assert_eq!((summary.arms[0].accuracy, summary.arms[1].accuracy), (0.1, 0.7));
        assert!((summary.against_best_baseline.accuracy - 0.6).abs() < 1e-12);
        assert!(summary.against_best_baseline.accuracy_interval[0] > 0.3);
        assert!(summarise_held_out(&runs, &[]).is_err());
    }
}
