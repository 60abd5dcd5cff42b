//! Plans against hand-worked cases and against exhaustive search.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, MISSING, Seed};
use evenset_plan::{AtLeast, Attributes, Limits, Match, Parity, Plan, PlanError, Ratio, Shares, Target, plan};

fn group(garment: &str, colour: &str) -> Group {
    Group::new([("garment", garment), ("colour", colour)]).unwrap()
}

/// Counts of the full cross, row by row.
fn counts(garments: &[&str], colours: &[&str], counts: &[u64]) -> Vec<(Group, u64)> {
    let groups = garments.iter().flat_map(|g| colours.iter().map(move |c| group(g, c)));
    groups.zip(counts.iter().copied()).collect()
}

fn two_by_two(n: [u64; 4]) -> Vec<(Group, u64)> {
    counts(&["bag", "coat"], &["blue", "red"], &n)
}

fn parity(of: &[&str], within: &[&str]) -> Target {
    let names = |names: &[&str]| Attributes(names.iter().map(|&n| n.to_owned()).collect());
    Target::Parity(Parity { of: names(of), within: names(within) })
}

fn at_least(images: u64) -> Target {
    Target::AtLeast(AtLeast { images, ..AtLeast::default() })
}

fn adds(plan: &Plan) -> Vec<u64> {
    plan.groups.iter().map(|g| g.add).collect()
}

fn free(counts: &[(Group, u64)], target: &Target) -> Plan {
    plan(counts, target, &Limits::default()).unwrap()
}

#[test]
fn parity_within_raises_each_stratum_to_its_own_largest() {
    let plan = free(&two_by_two([9, 2, 0, 4]), &parity(&["colour"], &["garment"]));
    assert_eq!((adds(&plan), plan.images), (vec![0, 7, 4, 0], 11));
    assert!(plan.targets[0].satisfied && plan.optimal);
    assert_eq!(
        plan.targets[0].explanation,
        "every `colour` within each `garment` as frequent as the most frequent one: takes 11 images in 2 groups"
    );
}

#[test]
fn parity_without_names_raises_every_group_to_the_largest() {
    assert_eq!(adds(&free(&two_by_two([9, 2, 0, 4]), &Target::default())), [0, 7, 9, 5]);
    assert_eq!(adds(&free(&two_by_two([9, 2, 0, 4]), &parity(&["colour", "garment"], &[]))), [0, 7, 9, 5]);
    assert_eq!(adds(&free(&two_by_two([9, 2, 0, 4]), &parity(&[], &["garment"]))), [0, 7, 4, 0]);
}

#[test]
fn parity_over_all_fills_the_smallest_groups_of_the_rarer_value() {
    // blue has 10 + 1 + 1 = 12, red 2 + 1 + 3 = 6: six red images, to 4, 4, 4.
    let counts = counts(&["a", "b", "c"], &["blue", "red"], &[10, 2, 1, 1, 1, 3]);
    assert_eq!(adds(&free(&counts, &parity(&["colour"], &[]))), [0, 2, 0, 3, 0, 1]);
}

#[test]
fn at_least_and_ratio_raise_only_the_groups_below() {
    assert_eq!(adds(&free(&two_by_two([9, 2, 0, 4]), &at_least(3))), [0, 1, 3, 0]);
    assert_eq!(
        adds(&free(&two_by_two([9, 2, 0, 4]), &Target::Ratio(Ratio { at_most: 3.0, ..Ratio::default() }))),
        [0, 1, 3, 0]
    );
    assert_eq!(
        adds(&free(&two_by_two([9, 2, 0, 4]), &Target::Ratio(Ratio { at_most: 2.5, ..Ratio::default() }))),
        [0, 2, 4, 0]
    );
    assert_eq!(adds(&free(&two_by_two([0; 4]), &at_least(3))), [3; 4]);
}

#[test]
fn match_adds_the_fewest_images_that_reach_the_shares() {
    let target = |shares: &[(&str, f64)]| {
        let shares = shares.iter().map(|&(value, share)| (value.to_owned(), share)).collect();
        Target::Match(Match { of: "colour".into(), shares: Some(Shares::Values(shares)), file: None })
    };
    // Of 19 images 11.4 are blue and 7.6 red: 12 and 7 are within one image of that, and 12 and 6 of 18 are not.
    let found = free(&two_by_two([8, 3, 4, 3]), &target(&[("blue", 0.6), ("red", 0.4)]));
    assert_eq!((adds(&found), found.images), (vec![0, 1, 0, 0], 1));
    assert!(found.targets[0].satisfied);
    for (shares, what) in [
        (&[("blue", 1.0), ("red", 0.0)][..], "has 6 images but a share of 0"),
        (&[("blue", 1.0)], "has images but no share"),
        (&[("blue", 0.5), ("red", 0.25), ("green", 0.25)], "has a share but no group; the dataset has `blue`, `red`"),
    ] {
        let error = plan(&two_by_two([8, 3, 4, 3]), &target(shares), &Limits::default()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_target_that_is_met_needs_nothing_and_says_so() {
    let plan = free(&two_by_two([5; 4]), &Target::default());
    assert_eq!(plan.images, 0);
    assert!(plan.targets[0].explanation.ends_with("met as it is, no image is needed"));
    assert!(plan.asks().is_empty());
}

#[test]
fn a_limit_on_images_goes_to_the_smallest_groups_and_is_explained() {
    let limits = Limits { images: Some(9), ..Limits::default() };
    let found = plan(&two_by_two([9, 2, 0, 4]), &Target::default(), &limits).unwrap();
    // To level 5 would take 3 + 5 + 1 = 9.
    assert_eq!(adds(&found), [0, 3, 5, 1]);
    assert_eq!(found.groups[1].limited_by.as_deref(), Some("limits.images"));
    assert_eq!((found.groups[1].want, found.groups[1].goal()), (9, 5));
    assert_eq!(found.groups[0].limited_by, None);
    assert!(!found.targets[0].satisfied);
    let why = &found.targets[0].explanation;
    assert!(
        why.contains("takes 21 images in 3 groups; out of reach: `limits.images` allows 9, so 12 are missing"),
        "{why}"
    );
    assert!(why.ends_with("which is to 5 or more"), "{why}");
}

#[test]
fn a_limit_for_each_group_binds_alone_and_moves_on_inside_a_cell() {
    let limits = Limits { per_group: Some(3), ..Limits::default() };
    let found = plan(&two_by_two([9, 2, 0, 7]), &Target::default(), &limits).unwrap();
    assert_eq!(adds(&found), [0, 3, 3, 2]);
    assert_eq!(found.groups[2].limited_by.as_deref(), Some("limits.per_group"));
    assert_eq!(found.groups[3].limited_by, None);
    // Eight red images are needed; coat=red is the smallest group but takes only 5 of them.
    let limits = Limits { per_group: Some(5), ..Limits::default() };
    let found = plan(&two_by_two([9, 8, 9, 2]), &parity(&["colour"], &[]), &limits).unwrap();
    assert_eq!((adds(&found), found.targets[0].satisfied), (vec![0, 3, 0, 5], true));
}

#[test]
fn the_synthetic_share_counts_generated_over_all_images() {
    let counts = two_by_two([70, 0, 0, 0]);
    for (share, images) in [(0.3, 30), (0.5, 70), (0.0, 0), (0.9, 210), (1.0, 210)] {
        let limits = Limits { synthetic_share: Some(share), ..Limits::default() };
        let found = plan(&counts, &Target::default(), &limits).unwrap();
        assert_eq!(found.images, images, "{share}");
        assert!(found.images as f64 <= share * (70 + found.images) as f64 + 1e-6);
        assert_eq!(found.targets[0].satisfied, images == 210);
    }
    let limits = Limits { synthetic_share: Some(0.3), images: Some(40), ..Limits::default() };
    let found = plan(&counts, &Target::default(), &limits).unwrap();
    assert_eq!(found.groups[1].limited_by.as_deref(), Some("limits.synthetic_share"));
    let limits = Limits { synthetic_share: Some(0.5), ..Limits::default() };
    assert_eq!(plan(&two_by_two([0; 4]), &at_least(5), &limits).unwrap().images, 0);
}

#[test]
fn groups_without_a_value_are_never_asked_for() {
    let mut counts = two_by_two([9, 2, 3, 4]);
    counts.push((group("bag", MISSING), 50));
    let found = free(&counts, &Target::default());
    assert_eq!(adds(&found), [0, 7, 6, 5, 0]);
    assert!(found.targets[0].explanation.contains("1 group without a value"));
    let only = [(group("bag", MISSING), 50)];
    assert_eq!(plan(&only, &Target::default(), &Limits::default()), Err(PlanError::NoGroups));
}

#[test]
fn counts_that_make_no_sense_are_refused() {
    let none = Limits::default();
    assert_eq!(plan(&[], &Target::default(), &none), Err(PlanError::NoGroups));
    let twice = [(group("a", "b"), 1), (group("a", "b"), 2)];
    assert_eq!(plan(&twice, &Target::default(), &none), Err(PlanError::Inconsistent(group("a", "b"))));
    let other = [(group("a", "b"), 1), (Group::new([("garment", "a")]).unwrap(), 2)];
    assert!(matches!(plan(&other, &Target::default(), &none), Err(PlanError::Inconsistent(_))));
    let huge = two_by_two([u64::MAX, u64::MAX, 0, 0]);
    assert!(matches!(plan(&huge, &Target::default(), &none), Err(PlanError::Overflow { .. })));
    let wide = plan(&two_by_two([1; 4]), &at_least(u64::MAX), &none);
    assert!(matches!(wide, Err(PlanError::Overflow { .. })));
    let error = plan(&two_by_two([1; 4]), &parity(&["size"], &[]), &none).unwrap_err().to_string();
    assert_eq!(error, "the target names `size`, but groups are made of `garment`, `colour`");
}

#[test]
fn a_plan_reads_back_from_its_json_and_keeps_the_order_of_the_counts() {
    let mut backwards = two_by_two([9, 2, 0, 4]);
    backwards.reverse();
    let limits = Limits { images: Some(4), ..Limits::default() };
    let found = plan(&backwards, &Target::default(), &limits).unwrap();
    assert_eq!(found.groups.iter().map(|g| g.count).collect::<Vec<_>>(), [4, 0, 2, 9]);
    let json = serde_json::to_string(&found).unwrap();
    assert!(
        json.contains(
            r#"{"values":{"garment":"coat","colour":"red"},"count":4,"want":9,"add":0,"remove":0,"target":null,"limited_by":"limits.images","weight":0.9375}"#
        ),
        "{json}"
    );
    assert!(json.contains(r#""targets":[{"type":"parity","satisfied":false"#), "{json}");
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), found);
}

/// Calls `visit` with every list of additions up to `most` in each of `groups` places.
fn every_addition(groups: usize, most: u64, visit: &mut dyn FnMut(&[u64])) {
    let mut adds = vec![0; groups];
    loop {
        visit(&adds);
        let Some(place) = adds.iter().position(|&n| n < most) else { return };
        adds[place] += 1;
        adds[..place].fill(0);
    }
}

/// Whether final counts meet the target, straight from its definition.
fn meets(target: &Target, finals: &[(Group, u64)]) -> bool {
    let values = |attribute: &str| -> Vec<String> {
        let all: std::collections::BTreeSet<_> = finals.iter().filter_map(|(g, _)| g.get(attribute)).collect();
        all.into_iter().map(str::to_owned).collect()
    };
    let sum = |garment: Option<&str>, colour: &str| -> u64 {
        let inside = |g: &Group| g.get("colour") == Some(colour) && garment.is_none_or(|v| g.get("garment") == Some(v));
        finals.iter().filter(|(g, _)| inside(g)).map(|(_, n)| n).sum()
    };
    let equal = |counts: Vec<u64>| counts.windows(2).all(|pair| pair[0] == pair[1]);
    match target {
        Target::AtLeast(AtLeast { images, .. }) => finals.iter().all(|(_, n)| n >= images),
        Target::Ratio(Ratio { at_most, .. }) => {
            let largest = finals.iter().map(|(_, n)| *n).max().unwrap() as f64;
            finals.iter().all(|(_, n)| *n as f64 * at_most >= largest)
        }
        Target::Parity(Parity { of, .. }) if of.0.is_empty() => equal(finals.iter().map(|(_, n)| *n).collect()),
        Target::Parity(Parity { within, .. }) if within.0.is_empty() => {
            equal(values("colour").iter().map(|c| sum(None, c)).collect())
        }
        Target::Parity(_) => {
            values("garment").iter().all(|g| equal(values("colour").iter().map(|c| sum(Some(g), c)).collect()))
        }
        _ => unreachable!("not searched"),
    }
}

fn sorted(counts: &[(Group, u64)], adds: &[u64]) -> Vec<u64> {
    let mut finals: Vec<u64> = counts.iter().zip(adds).map(|((_, n), add)| n + add).collect();
    finals.sort_unstable();
    finals
}

/// Small random cases over two garments and two colours with every target that can be searched.
fn cases() -> impl Iterator<Item = (Vec<(Group, u64)>, Target, Seed)> {
    (0..60u64).flat_map(|case| {
        let seed = Seed(5).index(case);
        let numbers: Vec<u64> = seed.normal(4).into_iter().map(|x| (x.abs() * 2.5) as u64 % 5).collect();
        let targets = [
            parity(&[], &[]),
            parity(&["colour"], &["garment"]),
            parity(&["colour"], &[]),
            at_least(1 + case % 5),
            Target::Ratio(Ratio { at_most: 1.0 + (case % 4) as f64 / 2.0, ..Ratio::default() }),
        ];
        let counts = two_by_two([numbers[0], numbers[1], numbers[2], numbers[3]]);
        targets.into_iter().map(move |target| (counts.clone(), target, seed))
    })
}

#[test]
fn no_smaller_number_of_images_reaches_the_target() {
    for (counts, target, _) in cases() {
        let found = free(&counts, &target);
        let finals: Vec<_> = found.groups.iter().map(|g| (g.values.clone(), g.goal())).collect();
        assert!(meets(&target, &finals), "{target:?} {found:?}");
        let mut best: Option<(u64, Vec<u64>)> = None;
        every_addition(4, 8, &mut |adds| {
            let images: u64 = adds.iter().sum();
            let finals: Vec<_> = counts.iter().zip(adds).map(|((g, n), add)| (g.clone(), n + add)).collect();
            if best.as_ref().is_some_and(|(fewest, _)| images > *fewest) || !meets(&target, &finals) {
                return;
            }
            let levels = sorted(&counts, adds);
            best = match best.take() {
                Some((fewest, most_even)) if fewest == images => Some((fewest, most_even.max(levels))),
                _ => Some((images, levels)),
            };
        });
        // The fewest images, and among the ways to spend them the one that raises the smallest groups most.
        assert_eq!(best.unwrap(), (found.images, sorted(&counts, &adds(&found))), "{target:?} {counts:?}");
    }
}

#[test]
fn under_limits_the_smallest_groups_rise_as_in_exhaustive_search() {
    for (counts, target, seed) in cases() {
        let draws: Vec<u64> = seed.derive("limits").normal(2).into_iter().map(|x| (x.abs() * 4.0) as u64).collect();
        let limits = Limits { images: Some(draws[0]), per_group: Some(draws[1]), ..Limits::default() };
        let found = plan(&counts, &target, &limits).unwrap();
        let given = adds(&found);
        assert!(found.images <= draws[0] && given.iter().all(|&add| add <= draws[1]), "{limits:?} {found:?}");
        let free = free(&counts, &target);
        // What a cell may get together: its deficit. Cells are single groups but for parity over all images.
        let by_colour = target == parity(&["colour"], &[]);
        let deficit = |colour: &str| -> u64 {
            free.groups.iter().filter(|g| g.values.get("colour") == Some(colour)).map(|g| g.add).sum()
        };
        let (mut best, mut most) = (Vec::new(), 0);
        every_addition(4, draws[1].min(8), &mut |adds| {
            let allowed = if by_colour {
                adds[0] + adds[2] <= deficit("blue") && adds[1] + adds[3] <= deficit("red")
            } else {
                adds.iter().zip(&free.groups).all(|(add, g)| *add <= g.add)
            };
            let images: u64 = adds.iter().sum();
            if allowed && images <= draws[0] && images >= most {
                let levels = sorted(&counts, adds);
                best = if images > most { levels } else { std::mem::take(&mut best).max(levels) };
                most = images;
            }
        });
        assert_eq!((found.images, sorted(&counts, &given)), (most, best), "{target:?} {limits:?} {counts:?}");
        assert_eq!(found.targets[0].satisfied, found.images == free.images, "{target:?} {limits:?} {counts:?}");
        let short = found.groups.iter().any(|g| g.limited_by.is_some());
        assert!(found.targets[0].satisfied || short, "{found:?}");
    }
}
