//! Accuracy over the share of generated images, with the band of its intervals.

use super::Scale;
use super::svg::Svg;
use crate::data::{Sweep, SweepShare};
use crate::text::{number, points};

const HEIGHT: f64 = 230.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 186.0;
/// The curve leaves room at both sides for the names of values, in percent of the width.
const LEFT: f64 = 7.0;
const RIGHT: f64 = 96.0;

/// The worst group's accuracy over the shares, the plateau marked; `None` with fewer than two shares.
pub fn sweep_chart(sweep: &Sweep, description: &str) -> Option<String> {
    let shares: Vec<&SweepShare> =
        sweep.shares.iter().filter(|share| share.share.is_finite() && share.worst_group.is_finite()).collect();
    let (first, last) = (shares.first()?, shares.last()?);
    if shares.len() < 2 || last.share <= first.share {
        return None;
    }
    let ends = |share: &&SweepShare| share.worst_group_interval.unwrap_or([share.worst_group; 2]);
    let up = Scale::of_shares(shares.iter().flat_map(ends));
    let across = Scale::new(first.share, last.share);
    let x = |share: f64| LEFT + (RIGHT - LEFT) * across.place(share) / 100.0;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * up.place(value) / 100.0;
    let mut svg = Svg::new(HEIGHT);
    for tick in up.ticks() {
        svg.line("grid", [LEFT, y(tick)], [100.0, y(tick)]);
        svg.text("end", [LEFT - 1.5, y(tick) + 4.0], &points(tick));
    }
    let at = |share: &&SweepShare, value: f64| [x(share.share), 100.0 - up.place(value)];
    let lower = shares.iter().map(|share| at(share, ends(share)[0]));
    let upper = shares.iter().rev().map(|share| at(share, ends(share)[1]));
    svg.polygon("band", &lower.chain(upper).collect::<Vec<_>>(), TOP, BOTTOM);
    if let Some(plateau) = sweep.plateau.filter(|plateau| (first.share..=last.share).contains(plateau)) {
        let place = x(plateau);
        svg.line("plateau", [place, TOP - 6.0], [place, BOTTOM]);
        let anchor = if place > 80.0 { "end" } else { "start" };
        svg.text(anchor, [if place > 80.0 { place } else { place - 0.4 }, TOP - 11.0], "plateau");
    }
    svg.polyline(
        "curve made",
        &shares.iter().map(|share| at(share, share.worst_group)).collect::<Vec<_>>(),
        TOP,
        BOTTOM,
    );
    for share in &shares {
        svg.dot("dot made", [x(share.share), y(share.worst_group)], 4.5);
    }
    let mut named = f64::NEG_INFINITY;
    for share in &shares {
        // Shares that lie close together keep one name, so that names do not run into each other.
        if x(share.share) - named >= 5.0 {
            named = x(share.share);
            svg.text("middle", [named, BOTTOM + 18.0], &number(share.share, 2));
        }
    }
    svg.text("middle", [(LEFT + RIGHT) / 2.0, HEIGHT - 6.0], "share of the images that the plan adds");
    Some(svg.described(description))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(worst: &[(f64, f64)]) -> Sweep {
        let share = |&(share, worst_group): &(f64, f64)| SweepShare {
            share,
            worst_group,
            worst_group_interval: Some([worst_group - 0.05, worst_group + 0.05]),
            ..SweepShare::default()
        };
        Sweep { seeds: 5, shares: worst.iter().map(share).collect(), plateau: Some(0.5) }
    }

    #[test]
    fn the_curve_rises_with_the_accuracy_and_the_plateau_is_marked() {
        let svg = sweep_chart(&sweep(&[(0.0, 0.4), (0.5, 0.6), (1.0, 0.6)]), "words").unwrap();
        assert!(svg.contains(r#"class="curve made" points="7,75 51.5,25 96,25""#), "{svg}");
        assert!(svg.contains(r#"class="plateau" x1="51.5%""#), "{svg}");
        assert!(svg.contains(r#"class="band" points="7,87.5 51.5,37.5 96,37.5 96,12.5 51.5,12.5 7,62.5""#), "{svg}");
        assert!(svg.contains(r#"aria-label="words""#));
    }

    #[test]
    fn too_few_or_broken_shares_draw_nothing() {
        assert_eq!(sweep_chart(&sweep(&[]), ""), None);
        assert_eq!(sweep_chart(&sweep(&[(1.0, 0.5)]), ""), None);
        assert_eq!(sweep_chart(&sweep(&[(0.0, f64::NAN), (1.0, 0.5)]), ""), None);
        assert_eq!(sweep_chart(&sweep(&[(1.0, 0.4), (1.0, 0.5)]), ""), None);
    }
}
