//! Guides for the requests of small groups: which real image each candidate starts from.

use std::collections::BTreeMap;

use evenset_core::{Group, SampleId, Seed};
use evenset_diffusion::Inversion;
use evenset_plan::{GuideArm, GuideHistory, GuideSource, GuidesConfig, Request};
use serde::{Deserialize, Serialize};

use crate::stages::scan::Row;

/// How a candidate was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Number of the way among the job's ways.
    pub arm: usize,
    /// The real image that it started from; none for pure noise.
    pub guide: Option<SampleId>,
    /// How much of it might be changed.
    pub strength: Option<f64>,
    /// The guidance scale, where it is not the sampler's.
    pub guidance: Option<f64>,
    /// How the real image was inverted, where it was inverted instead of noised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inverted: Option<Inversion>,
}

/// The real training images that may guide candidates, by group.
pub struct Guides<'a> {
    /// What the job says of them.
    pub config: &'a GuidesConfig,
    arms: Vec<GuideArm>,
    /// The label, which decides what "of the same label" means.
    pub label: Option<&'a str>,
    groups: BTreeMap<Group, Vec<&'a Row>>,
    seed: Seed,
}

impl<'a> Guides<'a> {
    /// From the training rows and their groups; `seed` is the job's.
    pub fn new(
        config: &'a GuidesConfig,
        label: Option<&'a str>,
        rows: impl Iterator<Item = (Group, &'a Row)>,
        seed: Seed,
    ) -> Self {
        let mut groups = BTreeMap::<Group, Vec<&Row>>::new();
        for (group, row) in rows {
            groups.entry(group).or_default().push(row);
        }
        Self { config, arms: config.arms(), label, groups, seed: seed.derive("guides") }
    }

    /// The ways in words, in their order.
    pub fn arms(&self) -> &[GuideArm] {
        &self.arms
    }

    /// How many real images a group has, whether they can guide or not.
    pub(crate) fn images(&self, group: &Group) -> u64 {
        self.groups.get(group).map_or(0, Vec::len) as u64
    }

    /// Whether some real image can guide a candidate of this group, were the group small enough.
    pub(crate) fn has_guide(&self, group: &Group) -> bool {
        self.arms.iter().filter_map(|way| way.guide).any(|(source, _)| self.allowed(source, group).next().is_some())
    }

    /// Whether the same real image started in the same way gives the same candidate again.
    fn repeats(&self) -> bool {
        self.config.inversion && self.config.inversion_noise == 0.0
    }

    /// How many different candidates a group's guides can give: one for each image and way, where they are inverted without
    /// noise. None where there is no bound.
    pub(crate) fn different(&self, group: &Group) -> Option<u64> {
        let pool = self.pool(group);
        let guided = pool.open.iter().map(|arm| pool.rows.get(arm).map(|rows| rows.len() as u64));
        guided.sum::<Option<u64>>().filter(|images| self.repeats() && *images > 0)
    }

    /// The images that may guide candidates of a group, with their own groups.
    fn allowed<'b>(&'b self, source: GuideSource, group: &'b Group) -> impl Iterator<Item = (&'b Group, &'a Row)> {
        let allowed = self.groups.iter().filter(move |(of, _)| source.allows(group, of, self.label));
        allowed.flat_map(|(of, rows)| rows.iter().filter(|row| row.guides).map(move |&row| (of, row)))
    }

    /// How each request is started, in their order, and the real image where there is one. No image guides a group twice in
    /// the same way before all others have: a guide that is inverted without noise would give the same image again.
    pub fn starts(&self, requests: &[Request], history: &GuideHistory) -> Vec<Option<(Start, Option<&'a Row>)>> {
        let mut known: BTreeMap<&Group, Pool<'_, 'a>> = BTreeMap::new();
        requests
            .iter()
            .map(|request| {
                let group = &request.group;
                let pool = known.entry(group).or_insert_with(|| self.pool(group));
                let open = if self.repeats() { pool.unused(|arm| history.of(group, arm).1) } else { pool.open.clone() };
                let arm = history.choose(group, &open, request.seed)?;
                let way = self.arms.get(arm)?;
                let (of, guide) = pool.next(arm, history.of(group, arm).1).unzip();
                let inversion = |of: &Group| Inversion { shows: of.clone(), noise: self.config.inversion_noise };
                let start = Start {
                    arm,
                    guide: guide.map(|row| row.id),
                    strength: way.guide.map(|(_, strength)| strength),
                    guidance: way.guidance,
                    inverted: of.filter(|_| self.config.inversion).map(inversion),
                };
                Some((start, guide))
            })
            .collect()
    }

    /// The ways that are open to a group, and the images of each; none for a group that is large enough without.
    fn pool<'b>(&'b self, group: &'b Group) -> Pool<'b, 'a> {
        let mut pool = Pool { open: Vec::new(), rows: BTreeMap::new(), used: BTreeMap::new() };
        if self.images(group) >= self.config.below {
            return pool;
        }
        for (arm, way) in self.arms.iter().enumerate() {
            let Some((source, _)) = way.guide else {
                pool.open.push(arm);
                continue;
            };
            let mut rows: Vec<(&Group, &Row)> = self.allowed(source, group).collect();
            if !rows.is_empty() {
                self.seed.derive(&group.to_string()).index(arm as u64).shuffle(&mut rows);
                pool.open.push(arm);
                pool.rows.insert(arm, rows);
            }
        }
        pool
    }
}

struct Pool<'b, 'a> {
    open: Vec<usize>,
    /// The images of each way, in the order in which they are used.
    rows: BTreeMap<usize, Vec<(&'b Group, &'a Row)>>,
    /// How many images each way was asked for in this round.
    used: BTreeMap<usize, u64>,
}

impl<'b, 'a> Pool<'b, 'a> {
    /// The ways with an image that was not used yet, where `before` were used in the rounds before; all where none is left.
    fn unused(&self, before: impl Fn(usize) -> u64) -> Vec<usize> {
        let used = |arm: usize| before(arm) + self.used.get(&arm).copied().unwrap_or(0);
        let left = |arm: &usize| self.rows.get(arm).is_none_or(|rows| used(*arm) < rows.len() as u64);
        let open: Vec<usize> = self.open.iter().copied().filter(left).collect();
        if open.is_empty() { self.open.clone() } else { open }
    }

    /// The next image of a way of which so many were used in the rounds before.
    fn next(&mut self, arm: usize, before: u64) -> Option<(&'b Group, &'a Row)> {
        let rows = self.rows.get(&arm).filter(|rows| !rows.is_empty())?;
        let used = self.used.entry(arm).or_default();
        let place = (before + *used) % rows.len() as u64;
        *used += 1;
        rows.get(place as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Role;

    fn row(number: u8, digit: &str, colour: &str) -> Row {
        Row {
            id: SampleId::of(&[number]),
            unit: 0,
            row: usize::from(number),
            role: Role::Train,
            width: 8,
            height: 8,
            grey: false,
            values: vec![Some(digit.into()), Some(colour.into())],
            guides: true,
        }
    }

    #[test]
    fn an_image_without_its_pictures_counts_in_its_group_and_guides_nothing() {
        let mut rows: Vec<Row> = (0..4).map(|i| row(i, "3", "red")).collect();
        rows[1].guides = false;
        let red: Group = "digit=3 & colour=red".parse().unwrap();
        let blue: Group = "digit=3 & colour=blue".parse().unwrap();
        let config = GuidesConfig { strengths: vec![0.5], noise: false, ..GuidesConfig::default() };
        let guides = Guides::new(&config, Some("digit"), rows.iter().map(|row| (red.clone(), row)), Seed(3));
        assert_eq!(guides.images(&red), 4);
        let requests = evenset_plan::requests(Seed(3), 1, &[(blue.clone(), 6)]).unwrap();
        let starts = guides.starts(&requests, &GuideHistory::default());
        let used: std::collections::BTreeSet<usize> =
            starts.iter().flatten().filter_map(|(_, guide)| Some((*guide)?.row)).collect();
        assert_eq!(used, [0, 2, 3].into());
        rows.iter_mut().for_each(|row| row.guides = false);
        let guides = Guides::new(&config, Some("digit"), rows.iter().map(|row| (red.clone(), row)), Seed(3));
        assert!(!guides.has_guide(&blue));
    }

    #[test]
    fn small_groups_start_from_allowed_images_and_large_ones_from_noise() {
        let rows: Vec<Row> = (0..6).map(|i| row(i, "3", "red")).chain([row(9, "3", "blue")]).collect();
        let group = |row: &Row| {
            Group::new([("digit", row.values[0].clone().unwrap()), ("colour", row.values[1].clone().unwrap())]).unwrap()
        };
        let config = GuidesConfig { below: 5, ..GuidesConfig::default() };
        let guides = Guides::new(&config, Some("digit"), rows.iter().map(|row| (group(row), row)), Seed(3));
        let asks = [(group(&rows[0]), 4), (group(&rows[6]), 40)];
        let requests = evenset_plan::requests(Seed(3), 1, &asks).unwrap();
        let starts = guides.starts(&requests, &GuideHistory::default());
        assert!(starts[..4].iter().all(Option::is_none), "six images are enough");
        let mut seen = [false; 3];
        for (start, guide) in starts[4..].iter().flatten() {
            match (guides.arms()[start.arm].guide, guide) {
                (None, None) => seen[0] = true,
                (Some((GuideSource::SameGroup, _)), Some(row)) => {
                    assert_eq!(row.row, 9);
                    seen[1] = true;
                }
                (Some((_, strength)), Some(row)) => {
                    assert!(row.row < 6 && start.strength == Some(strength) && start.guide == Some(row.id));
                    seen[2] = true;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [true; 3]);
        let again = guides.starts(&requests, &GuideHistory::default());
        let ids = |starts: &[Option<(Start, Option<&Row>)>]| -> Vec<Option<Start>> {
            starts.iter().map(|start| start.as_ref().map(|(start, _)| start.clone())).collect()
        };
        assert_eq!(ids(&starts), ids(&again));
    }

    #[test]
    fn no_image_guides_twice_before_all_others_have_in_this_round_and_the_next() {
        let rows: Vec<Row> = (0..6).map(|i| row(i, "3", "red")).collect();
        let (red, blue): (Group, Group) =
            ("digit=3 & colour=red".parse().unwrap(), "digit=3 & colour=blue".parse().unwrap());
        let config = GuidesConfig {
            strengths: vec![1.0],
            sources: vec![GuideSource::SameLabel],
            noise: false,
            inversion: true,
            ..GuidesConfig::default()
        };
        let guides = |config| Guides::new(config, Some("digit"), rows.iter().map(|row| (red.clone(), row)), Seed(3));
        let (noise, two) = (GuidesConfig { noise: true, ..config.clone() }, vec![0.5, 1.0]);
        let two_ways = GuidesConfig { strengths: two, ..config.clone() };
        let again = GuidesConfig { inversion_noise: 0.1, ..config.clone() };
        let different = [&config, &two_ways, &noise, &again].map(|config| guides(config).different(&blue));
        assert_eq!(different, [Some(6), Some(12), None, None], "noise of its own makes each candidate another");
        // With several ways each real image starts in each of them once.
        let requests = evenset_plan::requests(Seed(3), 1, &[(blue.clone(), 12)]).unwrap();
        let both = guides(&two_ways).starts(&requests, &GuideHistory::default());
        let both: std::collections::BTreeSet<_> =
            both.iter().flatten().map(|(start, guide)| (start.arm, guide.map(|row| row.row))).collect();
        assert_eq!(both.len(), 12);
        let guides = guides(&config);
        let mut history = GuideHistory::default();
        let mut used = Vec::new();
        for (round, asked) in [(1, 4), (2, 8)] {
            let requests = evenset_plan::requests(Seed(3), round, &[(blue.clone(), asked)]).unwrap();
            let starts = guides.starts(&requests, &history);
            used.extend(starts.iter().flatten().map(|(_, guide)| guide.unwrap().row));
            starts.iter().flatten().for_each(|(start, _)| history.count(&blue, start.arm, true));
        }
        for pass in used.chunks(6) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, [0, 1, 2, 3, 4, 5]);
        }
        assert_ne!(used[..6], [0, 1, 2, 3, 4, 5], "in a random order");
    }
}
