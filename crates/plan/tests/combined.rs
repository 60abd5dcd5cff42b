//! Several targets, limits and images that may be left out, against exhaustive search.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, Seed};
use evenset_plan::{Limits, Plan, PlanError, Search, Surplus, Target, Targets, plan, plan_with};

/// Counts of the cross of attributes `a`, `b`, ... with values `0`, `1`, ...
fn cross(sizes: &[usize], counts: &[u64]) -> Vec<(Group, u64)> {
    let names = ["a", "b", "c", "d"];
    let group = |mut place: usize| {
        let mut values: Vec<usize> = Vec::new();
        for size in sizes.iter().rev() {
            values.insert(0, place % size);
            place /= size;
        }
        Group::new(names.iter().zip(values).map(|(name, value)| (*name, value.to_string()))).unwrap()
    };
    counts.iter().enumerate().map(|(place, &count)| (group(place), count)).collect()
}

fn targets(json: &str) -> Targets {
    serde_json::from_str(json).unwrap()
}

/// How many images each target lacks by its definition, or `None` where images would have to go.
fn is_met(target: &Target, finals: &[(Group, u64)], before: &[(Group, u64)]) -> bool {
    let cells = |names: &[String], counts: &[(Group, u64)]| -> Vec<(Group, u64)> {
        let mut cells: std::collections::BTreeMap<Group, u64> = std::collections::BTreeMap::new();
        for (group, count) in counts {
            *cells.entry(group.project(names)).or_default() += count;
        }
        cells.into_iter().collect()
    };
    let all: Vec<String> = finals[0].0.attributes().map(str::to_owned).collect();
    let or_all = |names: &[String]| if names.is_empty() { all.clone() } else { names.to_vec() };
    let total: f64 = finals.iter().map(|(_, n)| *n as f64).sum();
    let near = |n: u64, share: f64| (n as f64 - share * total).abs() < 1.0 - 1e-9;
    match target {
        Target::Parity(target) => {
            let rest: Vec<String> = all.iter().filter(|a| !target.within.0.contains(a)).cloned().collect();
            let of = if target.of.0.is_empty() { rest } else { target.of.0.clone() };
            let names: Vec<String> = target.within.0.iter().chain(&of).cloned().collect();
            let cells = cells(&names, finals);
            cells.iter().all(|(x, n)| {
                cells.iter().all(|(y, m)| x.project(&target.within.0) != y.project(&target.within.0) || n == m)
            })
        }
        Target::AtLeast(target) => match (&target.pattern, target.max_level) {
            (Some(pattern), _) => {
                let names: Vec<String> = pattern.keys().cloned().collect();
                let holds = |g: &Group| pattern.iter().all(|(a, v)| g.get(a) == Some(v));
                cells(&names, finals).iter().all(|(g, n)| !holds(g) || *n >= target.images)
            }
            (None, Some(level)) => (1u32..1 << all.len()).filter(|set| set.count_ones() <= level).all(|set| {
                let names: Vec<String> = (0..all.len()).filter(|i| set >> i & 1 == 1).map(|i| all[i].clone()).collect();
                cells(&names, finals).iter().all(|(_, n)| *n >= target.images)
            }),
            (None, None) => cells(&or_all(&target.of.0), finals).iter().all(|(_, n)| *n >= target.images),
        },
        Target::Ratio(target) => {
            let cells = cells(&or_all(&target.of.0), finals);
            let (least, most) = (cells.iter().map(|c| c.1).min().unwrap(), cells.iter().map(|c| c.1).max().unwrap());
            most as f64 <= least as f64 * target.at_most + 1e-9
        }
        Target::Match(target) => {
            let evenset_plan::Shares::Values(shares) = target.shares.as_ref().unwrap() else { panic!("joint") };
            cells(&target.of.0, finals).iter().all(|(g, n)| near(*n, shares[g.values().next().unwrap()]))
        }
        Target::Independent(target) => {
            let images: f64 = before.iter().map(|(_, n)| *n as f64).sum();
            let share = |names: &[String], g: &Group| -> f64 {
                let found = cells(names, before).into_iter().find(|(cell, _)| *cell == g.project(names));
                found.map_or(0.0, |(_, n)| n as f64 / images.max(1.0))
            };
            let names: Vec<String> = target.of.0.iter().chain(&target.from.0).cloned().collect();
            cells(&names, finals).iter().all(|(g, n)| near(*n, share(&target.of.0, g) * share(&target.from.0, g)))
        }
        Target::Marginals(target) => target.shares.iter().all(|(name, marginal)| {
            let cells = cells(std::slice::from_ref(name), finals);
            cells.iter().all(|(g, n)| match marginal {
                evenset_plan::Marginal::Equal(_) => near(*n, 1.0 / cells.len() as f64),
                evenset_plan::Marginal::Values(shares) => near(*n, shares[g.values().next().unwrap()]),
            })
        }),
        Target::Budget(_) => panic!("not searched"),
    }
}

/// The fewest additions, and with removal the fewest removals beside them, that meet all targets and limits.
fn fewest(
    counts: &[(Group, u64)],
    targets: &[Target],
    limits: &Limits,
    surplus: Surplus,
    most: i64,
) -> Option<(u64, u64)> {
    let lowest: Vec<i64> =
        counts.iter().map(|(_, n)| if surplus == Surplus::Remove { -(*n as i64) } else { 0 }).collect();
    let highest: Vec<i64> = counts
        .iter()
        .map(|(g, n)| {
            let forbidden = limits.forbid.iter().any(|p| p.iter().all(|(a, v)| g.get(a) == Some(v)));
            let unknown = limits.min_examples.is_some_and(|least| *n < least);
            if forbidden || unknown { 0 } else { limits.per_group.map_or(most, |n| most.min(n as i64)) }
        })
        .collect();
    let (mut moves, mut best) = (lowest.clone(), None);
    loop {
        let images: i64 = moves.iter().filter(|m| **m > 0).sum();
        let removed: i64 = -moves.iter().filter(|m| **m < 0).sum::<i64>();
        let cost = (images as u64, removed as u64);
        let allowed = limits.images.is_none_or(|n| cost.0 <= n) && limits.removed.is_none_or(|n| cost.1 <= n);
        if allowed && best.is_none_or(|best| cost < best) {
            let finals: Vec<_> =
                counts.iter().zip(&moves).map(|((g, n), m)| (g.clone(), (*n as i64 + m) as u64)).collect();
            if targets.iter().all(|target| is_met(target, &finals, counts)) {
                best = Some(cost);
            }
        }
        let Some(place) = (0..moves.len()).find(|&i| moves[i] < highest[i]) else { return best };
        moves[place] += 1;
        moves[..place].copy_from_slice(&lowest[..place]);
    }
}

fn after(plan: &Plan) -> Vec<(Group, u64)> {
    plan.groups.iter().map(|g| (g.values.clone(), g.goal())).collect()
}

fn draw(case: u64, n: usize, scale: f32) -> Vec<u64> {
    Seed(17).index(case).normal(n).into_iter().map(|x| (x.abs() * scale) as u64).collect()
}

const KINDS: [&str; 16] = [
    r#"{"type":"at-least","images":3,"max_level":1}"#,
    r#"[{"type":"at-least","images":2},{"type":"ratio","at_most":1.5,"of":"a"}]"#,
    r#"[{"type":"at-least","images":6,"of":"a"},{"type":"at-least","images":5,"of":"b"}]"#,
    r#"[{"type":"parity","of":"a"},{"type":"parity","of":"b"}]"#,
    r#"[{"type":"parity","of":"a","within":"b"},{"type":"at-least","images":7,"of":"b"}]"#,
    r#"{"type":"marginals","shares":{"a":"equal","b":"equal"}}"#,
    r#"{"type":"marginals","shares":{"a":{"0":0.7,"1":0.3},"b":"equal"}}"#,
    r#"[{"type":"match","of":"a","shares":{"0":0.6,"1":0.4}},{"type":"at-least","images":2}]"#,
    r#"[{"type":"match","of":"a","shares":{"0":0.25,"1":0.75}},{"type":"ratio","at_most":2,"of":"b"}]"#,
    r#"{"type":"match","of":"b","shares":{"0":0.4,"1":0.6}}"#,
    r#"{"type":"independent","of":"a","from":"b"}"#,
    r#"[{"type":"ratio","at_most":2},{"type":"at-least","images":4,"pattern":{"a":"1","b":"0"}}]"#,
    r#"[{"type":"ratio","at_most":1.5,"of":"a"},{"type":"ratio","at_most":1.25,"of":"b"}]"#,
    r#"{"type":"parity"}"#,
    r#"{"type":"parity","of":"b"}"#,
    r#"[{"type":"parity","of":"b"},{"type":"marginals","shares":{"a":{"0":0.5,"1":0.5}}}]"#,
];

fn surplus(case: u64) -> Surplus {
    if case.is_multiple_of(2) { Surplus::Keep } else { Surplus::Remove }
}

#[test]
fn no_plan_of_several_targets_has_fewer_images_or_fewer_left_out() {
    let most = 9;
    let mut compared = 0;
    for (number, json) in KINDS.iter().enumerate() {
        let targets = targets(json);
        for case in 0..10u64 {
            let counts = cross(&[2, 2], &draw(case * 100 + number as u64, 4, 2.4));
            let search = Search { surplus: surplus(case), ..Search::default() };
            let expected = fewest(&counts, targets.as_ref(), &Limits::default(), search.surplus, most);
            let found = plan_with(&counts, &targets, &Limits::default(), &search);
            let Ok(found) = found else {
                assert_eq!(expected, None, "{json} {counts:?} {found:?}");
                continue;
            };
            assert!(found.optimal && found.targets.iter().all(|t| t.satisfied), "{json} {counts:?} {found:?}");
            let finals = after(&found);
            assert!(targets.as_ref().iter().all(|t| is_met(t, &finals, &counts)), "{json} {counts:?} {found:?}");
            let removed: u64 = found.groups.iter().map(|g| g.remove).sum();
            match expected {
                Some(expected) => assert_eq!((found.images, removed), expected, "{json} {counts:?} {found:?}"),
                None => assert!(found.groups.iter().any(|g| g.add > most as u64), "{json} {counts:?} {found:?}"),
            }
            compared += usize::from(expected.is_some());
        }
    }
    assert!(compared > 120, "{compared}");
}

#[test]
fn within_limits_a_plan_is_found_wherever_there_is_one_and_has_the_fewest_images() {
    let limits = |case: u64| -> Limits {
        let json = [
            r#"{"images":6}"#,
            r#"{"per_group":3}"#,
            r#"{"forbid":[{"a":"1","b":"1"}]}"#,
            r#"{"min_examples":1}"#,
            r#"{"images":8,"per_group":4,"forbid":[{"a":"0","b":"1"}]}"#,
            r#"{"images":5,"removed":2}"#,
        ];
        serde_json::from_str(json[case as usize % json.len()]).unwrap()
    };
    let (mut reached, mut missed) = (0, 0);
    for (number, json) in KINDS.iter().enumerate() {
        let targets = targets(json);
        for case in 0..12u64 {
            let counts = cross(&[2, 2], &draw(case * 100 + 50 + number as u64, 4, 2.4));
            let search = Search { surplus: surplus(case / 6), ..Search::default() };
            let limits = limits(case);
            let expected = fewest(&counts, targets.as_ref(), &limits, search.surplus, 9);
            let Ok(found) = plan_with(&counts, &targets, &limits, &search) else {
                assert_eq!(expected, None, "{json} {counts:?}");
                continue;
            };
            let satisfied = found.targets.iter().all(|t| t.satisfied);
            let finals = after(&found);
            assert_eq!(satisfied, targets.as_ref().iter().all(|t| is_met(t, &finals, &counts)), "{json} {found:?}");
            let removed: u64 = found.groups.iter().map(|g| g.remove).sum();
            assert!(limits.images.is_none_or(|n| found.images <= n) && limits.removed.is_none_or(|n| removed <= n));
            for group in &found.groups {
                let room = group.add <= limits.per_group.unwrap_or(u64::MAX);
                assert!(room && group.remove <= group.count, "{json} {limits:?} {found:?}");
            }
            if let Some(expected) = expected {
                assert!(satisfied, "{json} {limits:?} {counts:?} {found:?} {expected:?}");
                assert_eq!((found.images, removed), expected, "{json} {limits:?} {counts:?} {found:?}");
                reached += 1;
            } else if !satisfied {
                assert!(found.groups.iter().any(|g| g.limited_by.is_some()), "{json} {limits:?} {counts:?} {found:?}");
                assert!(found.targets.iter().any(|t| t.explanation.contains("out of reach")), "{found:?}");
                missed += 1;
            }
        }
    }
    assert!(reached > 60 && missed > 20, "{reached} {missed}");
}

#[test]
fn coverage_of_patterns_beats_greedy_where_greedy_is_not_the_best() {
    // Pairs of three attributes with two values each: an orthogonal array of four images covers all twelve patterns.
    let empty = cross(&[2, 2, 2], &[0; 8]);
    let found = plan(&empty, &targets(r#"{"type":"at-least","images":1,"max_level":2}"#), &Limits::default()).unwrap();
    assert_eq!((found.images, found.optimal), (4, true));
    // With three values each: nine, a Latin square.
    let empty = cross(&[3, 3, 3], &[0; 27]);
    let found = plan(&empty, &targets(r#"{"type":"at-least","images":1,"max_level":2}"#), &Limits::default()).unwrap();
    assert_eq!((found.images, found.optimal), (9, true));
    let found = plan(&empty, &targets(r#"{"type":"at-least","images":4,"max_level":2}"#), &Limits::default()).unwrap();
    assert_eq!((found.images, found.optimal), (36, true));
    // Four attributes of three values: the nine images of two orthogonal Latin squares.
    let empty = cross(&[3, 3, 3, 3], &[0; 81]);
    let found = plan(&empty, &targets(r#"{"type":"at-least","images":1,"max_level":2}"#), &Limits::default()).unwrap();
    assert!(found.images >= 9 && (found.images == 9 || found.bound == Some(9)), "{:?}", (found.images, found.bound));
}

#[test]
fn a_plan_does_not_depend_on_the_order_of_the_groups() {
    for json in KINDS {
        let counts = cross(&[2, 2], &[7, 1, 0, 4]);
        let mut backwards = counts.clone();
        backwards.reverse();
        let search = Search { surplus: Surplus::Remove, ..Search::default() };
        let (Ok(mut one), Ok(other)) = (
            plan_with(&counts, &targets(json), &Limits::default(), &search),
            plan_with(&backwards, &targets(json), &Limits::default(), &search),
        ) else {
            panic!("{json}");
        };
        one.groups.reverse();
        assert_eq!(one, other, "{json}");
    }
}

#[test]
fn targets_that_contradict_each_other_are_named_with_the_place_where_they_part() {
    let error = |json: &str, counts: &[u64]| -> (String, PlanError) {
        let error = plan(&cross(&[2, 2], counts), &targets(json), &Limits::default()).unwrap_err();
        (error.to_string(), error)
    };
    let half = r#"{"type":"match","of":"a","shares":{"0":0.5,"1":0.5}}"#;
    let most = r#"{"type":"match","of":"a","shares":{"0":0.9,"1":0.1}}"#;
    let plenty = r#"{"type":"at-least","images":20}"#;
    let (text, error_value) = error(&format!("[{plenty},{half},{most}]"), &[5, 5, 5, 5]);
    assert!(matches!(error_value, PlanError::Contradiction { .. }), "{text}");
    assert!(text.starts_with("target 2 (`match` of `a`) and target 3 (`match` of `a`) contradict"), "{text}");
    assert!(text.contains("`a=0` is to have 50 % of the images and 90 %"), "{text}");
    let (text, _) = error(&format!(r#"[{{"type":"parity","of":"a"}},{most}]"#), &[9, 9, 9, 9]);
    assert!(text.contains("target 1 (`parity` of `a`) and target 2 (`match` of `a`)"), "{text}");
    let none = r#"{"type":"match","of":"a","shares":{"0":1.0,"1":0.0}}"#;
    let (text, _) = error(&format!("[{none},{plenty}]"), &[9, 9, 0, 0]);
    assert!(text.contains("`a=1` has a share of 0, but `a=1 & b=0` is to have at least 20 images"), "{text}");
    let (text, _) = error(&format!(r#"[{most},{{"type":"ratio","of":"a","at_most":2}}]"#), &[90, 90, 10, 10]);
    assert!(text.contains("which is more than 2 times as many"), "{text}");
    let (text, _) = error(&format!(r#"[{half},{{"type":"budget","images":5}}]"#), &[1; 4]);
    assert!(text.starts_with("target 1 (`match` of `a`) and target 2 (`budget`, `images: 5`)"), "{text}");
}

#[test]
fn three_targets_of_which_any_two_agree_are_reported_together() {
    // a is mostly 0, b equals a in share, and yet the corner that would carry both is to stay small.
    let json = r#"[
        {"type":"match","of":"a","shares":{"0":0.9,"1":0.1}},
        {"type":"match","of":"b","shares":{"0":0.9,"1":0.1}},
        {"type":"match","of":["a","b"],"shares":[
            {"values":{"a":"0","b":"0"},"share":0.4},{"values":{"a":"0","b":"1"},"share":0.2},
            {"values":{"a":"1","b":"0"},"share":0.2},{"values":{"a":"1","b":"1"},"share":0.2}]}
    ]"#;
    let error = plan(&cross(&[2, 2], &[40, 20, 20, 20]), &targets(json), &Limits::default()).unwrap_err();
    assert!(matches!(&error, PlanError::Contradiction { first, .. } if first.starts_with("target 1")), "{error}");
}

#[test]
fn a_budget_raises_the_smallest_groups_after_at_least_has_what_it_needs() {
    let counts = cross(&[2, 2], &[9, 2, 0, 4]);
    let found = plan(&counts, &targets(r#"{"type":"budget","images":9}"#), &Limits::default()).unwrap();
    assert_eq!(found.groups.iter().map(|g| g.add).collect::<Vec<_>>(), [0, 3, 5, 1]);
    assert_eq!(
        (found.images, found.targets[0].satisfied, found.groups[1].target.as_deref()),
        (9, true, Some("budget"))
    );
    let both = targets(r#"[{"type":"at-least","images":12,"pattern":{"a":"0"}},{"type":"budget","images":9}]"#);
    let found = plan(&counts, &both, &Limits::default()).unwrap();
    // One image for a=0, then eight where they raise the smallest.
    assert_eq!((found.images, found.targets.iter().all(|t| t.satisfied)), (9, true));
    assert_eq!(found.groups.iter().map(PlannedGoal::goal_of).min(), Some(5));
    let limits = Limits { images: Some(4), ..Limits::default() };
    let found = plan(&counts, &both, &limits).unwrap();
    assert_eq!((found.images, found.targets[0].satisfied, found.targets[1].satisfied), (4, true, false));
    assert!(found.groups.iter().any(|g| g.limited_by.as_deref() == Some("limits.images")), "{found:?}");
}

trait PlannedGoal {
    fn goal_of(&self) -> u64;
}

impl PlannedGoal for evenset_plan::PlannedGroup {
    fn goal_of(&self) -> u64 {
        self.goal()
    }
}

#[test]
fn surplus_is_left_out_only_where_that_saves_images() {
    let counts = cross(&[2, 2], &[10, 4, 6, 6]);
    let search = Search { surplus: Surplus::Remove, ..Search::default() };
    let within = targets(r#"{"type":"parity","of":"b","within":"a"}"#);
    let found = plan_with(&counts, &within, &Limits::default(), &search).unwrap();
    assert_eq!((found.images, found.groups[0].remove, found.groups[0].goal()), (0, 6, 4));
    let limits = Limits { removed: Some(2), ..Limits::default() };
    let found = plan_with(&counts, &within, &limits, &search).unwrap();
    assert_eq!((found.images, found.groups[0].remove, found.groups[1].add), (4, 2, 4));
    assert!(found.targets[0].satisfied && found.optimal);
}

#[test]
fn the_largest_numbers_overflow_into_an_error() {
    let counts = cross(&[2, 2], &[1; 4]);
    let json = format!(r#"[{{"type":"at-least","images":{}}},{{"type":"ratio","at_most":2}}]"#, u64::MAX);
    assert!(matches!(plan(&counts, &targets(&json), &Limits::default()), Err(PlanError::Overflow { .. })));
    let large = cross(&[2, 2], &[1 << 40, 1 << 39, 5, 1 << 41]);
    let both = targets(r#"[{"type":"ratio","at_most":2},{"type":"at-least","images":9,"of":"a"}]"#);
    let found = plan(&large, &both, &Limits::default()).unwrap();
    assert!(found.targets.iter().all(|t| t.satisfied) && found.optimal, "{found:?}");
    assert_eq!(found.images, (1 << 40) - (1 << 39) + (1 << 40) - 5);
}

#[test]
fn where_limits_bind_as_little_as_can_be_is_missing_with_the_fewest_images() {
    let json = r#"[{"type":"at-least","images":7,"of":"a"},{"type":"at-least","images":6,"of":"b"}]"#;
    let short = |finals: &[u64]| -> u64 {
        let lacks = |n: u64, least: u64| least.saturating_sub(n);
        lacks(finals[0] + finals[1], 7)
            + lacks(finals[2] + finals[3], 7)
            + lacks(finals[0] + finals[2], 6)
            + lacks(finals[1] + finals[3], 6)
    };
    for case in 0..40u64 {
        let have = draw(900 + case, 4, 1.6);
        let limits = Limits { images: Some(case % 6), per_group: Some(1 + case % 4), ..Limits::default() };
        let (most, each) = (case % 6, 1 + case % 4);
        let mut best = (u64::MAX, u64::MAX);
        for code in 0..(each + 1).pow(4) {
            let adds: Vec<u64> = (0..4).map(|i| code / (each + 1).pow(i) % (each + 1)).collect();
            let finals: Vec<u64> = have.iter().zip(&adds).map(|(n, add)| n + add).collect();
            if adds.iter().sum::<u64>() <= most {
                best = best.min((short(&finals), adds.iter().sum()));
            }
        }
        let found = plan(&cross(&[2, 2], &have), &targets(json), &limits).unwrap();
        let finals: Vec<u64> = found.groups.iter().map(PlannedGoal::goal_of).collect();
        assert_eq!((short(&finals), found.images), best, "{have:?} {limits:?} {found:?}");
    }
}
