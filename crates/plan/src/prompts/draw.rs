//! Balanced draws: every choice of a slot equally often, in an order that looks random.

use std::collections::BTreeMap;

use evenset_core::{Group, Seed};

/// Draws for the requests of one group in one round.
///
/// The indices are cut into blocks as long as there are choices, and each block is a permutation of the choices drawn
/// from the job seed, the group, the round, the slot and the number of the block. So after any number of requests no
/// choice was used more than once more than another, and the order of one slot says nothing about that of another.
pub(super) struct Draws<'a> {
    job_seed: Seed,
    group: &'a Group,
    round: u32,
    /// The last block of each slot: most requests come in the order of their indices.
    last: BTreeMap<String, (u64, Vec<usize>)>,
}

impl<'a> Draws<'a> {
    pub fn new(job_seed: Seed, group: &'a Group, round: u32) -> Self {
        Self { job_seed, group, round, last: BTreeMap::new() }
    }

    /// Which of `choices` the request with this index uses for `slot`.
    pub fn pick(&mut self, slot: &str, choices: usize, index: u64) -> usize {
        if choices < 2 {
            return 0;
        }
        let (block, place) = (index / choices as u64, (index % choices as u64) as usize);
        match self.last.get(slot) {
            Some((last, order)) if *last == block && order.len() == choices => order[place],
            _ => {
                let purpose = format!("prompt slot {slot}");
                let seed = Seed::of_request(self.job_seed, self.group, self.round, block, &purpose);
                let order = permutation(seed, choices);
                let pick = order[place];
                self.last.insert(slot.to_owned(), (block, order));
                pick
            }
        }
    }
}

/// A permutation of `0..n` (Fisher and Yates).
fn permutation(seed: Seed, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let other = seed.index(last as u64).0 % (last as u64 + 1);
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        Group::new([("garment", "coat")]).unwrap()
    }

    #[test]
    fn after_any_number_of_draws_no_choice_is_ahead_by_more_than_one() {
        let group = group();
        let mut draws = Draws::new(Seed(7), &group, 0);
        for choices in [2usize, 3, 5] {
            let mut used = vec![0u64; choices];
            for index in 0..200 {
                used[draws.pick("place", choices, index)] += 1;
                let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
                assert!(most - least <= 1, "{choices} {index} {used:?}");
            }
        }
    }

    #[test]
    fn slots_are_not_locked_to_each_other() {
        let group = group();
        let mut draws = Draws::new(Seed(7), &group, 0);
        for (a, b) in [(2usize, 2usize), (3, 3), (2, 4), (4, 4), (3, 5)] {
            let n = 6000;
            let mut joint = vec![0f64; a * b];
            for index in 0..n {
                joint[draws.pick("first", a, index) * b + draws.pick("second", b, index)] += 1.0;
            }
            let expected = n as f64 / (a * b) as f64;
            // Binomial spread is at most the square root; five of it.
            assert!(joint.iter().all(|&n| (n - expected).abs() < 5.0 * expected.sqrt()), "{a} {b} {joint:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_its_own_index_and_not_on_those_before() {
        let group = group();
        let mut in_order = Draws::new(Seed(7), &group, 2);
        let all: Vec<usize> = (0..50).map(|index| in_order.pick("place", 4, index)).collect();
        for index in (0..50).rev() {
            assert_eq!(Draws::new(Seed(7), &group, 2).pick("place", 4, index), all[index as usize]);
        }
        let mut other_round = Draws::new(Seed(7), &group, 3);
        assert_ne!((0..50).map(|index| other_round.pick("place", 4, index)).collect::<Vec<_>>(), all);
    }
}
