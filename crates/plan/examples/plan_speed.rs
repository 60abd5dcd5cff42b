//! How long it takes to plan for several targets at once: `cargo run --release -p evenset-plan --example plan_speed`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use evenset_core::{Group, Seed};
use evenset_plan::{Limits, Search, Surplus, Targets, plan_with};

/// The cross of `attributes` attributes with `values` values each, the later ones of which are rare.
fn skewed(attributes: usize, values: usize, scale: f64) -> Result<Vec<(Group, u64)>, Box<dyn Error>> {
    let names: Vec<String> = (0..attributes).map(|i| format!("a{i}")).collect();
    let groups = values.pow(attributes as u32);
    let noise = Seed(7).normal(groups);
    let mut counts = Vec::with_capacity(groups);
    for (place, noise) in noise.into_iter().enumerate() {
        let digit = |i: usize| place / values.pow(i as u32) % values;
        let group = Group::new(names.iter().enumerate().map(|(i, name)| (name.clone(), format!("v{}", digit(i)))))?;
        let frequency: f64 = (0..attributes).map(|i| (1.0 + digit(i) as f64).powf(-1.5)).product();
        counts.push((group, (scale * frequency * f64::from(noise).exp()) as u64));
    }
    Ok(counts)
}

fn main() -> Result<(), Box<dyn Error>> {
    let cover = r#"{"type":"at-least","images":50,"max_level":2}"#;
    let ratio = r#"{"type":"ratio","at_most":3,"of":"a0"}"#;
    let equal = r#"{"type":"marginals","shares":{"a1":"equal"}}"#;
    let both = r#"{"type":"marginals","shares":{"a0":"equal","a1":"equal","a2":"equal"}}"#;
    let tight = r#"{"type":"at-least","images":1,"max_level":2}"#;
    let instances = [
        ("coverage alone, 10 000 groups", 4, 10, format!("[{cover}]"), "{}", Surplus::Keep),
        (
            "coverage + ratio + marginals, 10 000 groups",
            4,
            10,
            format!("[{cover},{ratio},{equal}]"),
            "{}",
            Surplus::Keep,
        ),
        ("coverage + three marginals, 10 000 groups", 4, 10, format!("[{cover},{both}]"), "{}", Surplus::Keep),
        ("the same with 500 images", 4, 10, format!("[{cover},{ratio},{equal}]"), r#"{"images":500}"#, Surplus::Keep),
        ("the same with removal", 4, 10, format!("[{cover},{ratio},{equal}]"), "{}", Surplus::Remove),
        (
            "two ratios + marginals, 10 000 groups",
            4,
            10,
            format!(r#"[{ratio},{equal},{{"type":"ratio","at_most":2,"of":"a2"}}]"#),
            "{}",
            Surplus::Keep,
        ),
        ("one image in every pair of 4 x 3 values", 4, 3, format!("[{tight}]"), "{}", Surplus::Keep),
        ("one image in every pair of 5 x 4 values", 5, 4, format!("[{tight}]"), "{}", Surplus::Keep),
        (
            "one image in every triple of 4 x 4 values",
            4,
            4,
            r#"[{"type":"at-least","images":1,"max_level":3}]"#.into(),
            "{}",
            Surplus::Keep,
        ),
        (
            "parity + parity, 1000 groups",
            3,
            10,
            r#"[{"type":"parity","of":"a0"},{"type":"parity","of":"a1","within":"a2"}]"#.into(),
            "{}",
            Surplus::Keep,
        ),
    ];
    println!("{:<46} {:>8} {:>8} {:>8}  seconds", "instance", "images", "bound", "removed");
    for (name, attributes, values, targets, limits, surplus) in instances {
        let scale = if values < 10 { 0.0 } else { 100.0 };
        let counts = skewed(attributes, values, scale)?;
        let (targets, limits): (Targets, Limits) = (serde_json::from_str(&targets)?, serde_json::from_str(limits)?);
        let start = Instant::now();
        let plan = plan_with(&counts, &targets, &limits, &Search { surplus, ..Search::default() })?;
        let removed: u64 = plan.groups.iter().map(|g| g.remove).sum();
        let met = plan.targets.iter().filter(|t| t.satisfied).count();
        let seconds = start.elapsed().as_secs_f64();
        let bound = plan.bound.unwrap_or(plan.images);
        println!(
            "{name:<46} {:>8} {bound:>8} {removed:>8}  {seconds:.2}  {met}/{} met",
            plan.images,
            plan.targets.len()
        );
    }
    Ok(())
}
