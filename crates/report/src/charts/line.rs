//! A curve over steps.

use super::Scale;
use super::svg::Svg;
use crate::data::LossPoint;
use crate::text::{number, short_count};

const HEIGHT: f64 = 170.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 148.0;

/// The curve of `points` with both axes named; `None` with fewer than two finite points.
///
/// The upper end is the 99th percentile: the first steps of a training are often many times higher than all others.
pub fn line_chart(points: &[LossPoint], description: &str) -> Option<String> {
    let points: Vec<_> = points.iter().filter(|point| point.loss.is_finite()).collect();
    let (first, last) = (points.first()?, points.last()?);
    let mut losses: Vec<f64> = points.iter().map(|point| point.loss).collect();
    losses.sort_by(f64::total_cmp);
    let (low, high) = (*losses.first()?, *losses.get((losses.len() * 99 / 100).min(losses.len() - 1))?);
    if points.len() < 2 || last.step <= first.step {
        return None;
    }
    let across = Scale::new(first.step as f64, last.step as f64);
    let bottom = low.min(0.0);
    let up = Scale::new(bottom, if high > bottom { high } else { bottom + 1.0 });
    let mut svg = Svg::new(HEIGHT);
    for tick in up.ticks() {
        let y = BOTTOM - (BOTTOM - TOP) * up.place(tick) / 100.0;
        svg.line("grid", [0.0, y], [100.0, y]);
        svg.text("end", [100.0, y - 3.0], &number(tick, 3));
    }
    for (tick, anchor) in [(first.step, "start"), (last.step, "end")] {
        svg.text(anchor, [across.place(tick as f64), HEIGHT - 6.0], &format!("step {}", short_count(tick)));
    }
    let places: Vec<[f64; 2]> =
        points.iter().map(|point| [across.place(point.step as f64), 100.0 - up.place(point.loss)]).collect();
    svg.polyline("curve", &places, TOP, BOTTOM);
    Some(svg.described(description))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(losses: &[f64]) -> Vec<LossPoint> {
        losses.iter().enumerate().map(|(i, &loss)| LossPoint { step: i as u64 * 100, loss }).collect()
    }

    #[test]
    fn the_curve_runs_from_the_first_step_to_the_last_and_higher_losses_stand_higher() {
        let svg = line_chart(&points(&[1.0, 0.5, 0.25]), "loss").unwrap();
        assert!(svg.contains(r#"points="0,0 50,50 100,75""#), "{svg}");
        assert!(svg.contains("step 0</text>") && svg.contains("step 200</text>"), "{svg}");
    }

    #[test]
    fn too_little_to_draw_draws_nothing() {
        assert_eq!(line_chart(&[], ""), None);
        assert_eq!(line_chart(&points(&[1.0]), ""), None);
        assert_eq!(line_chart(&points(&[f64::NAN, 1.0]), ""), None);
    }

    #[test]
    fn a_flat_curve_and_a_first_spike_are_drawn() {
        assert!(line_chart(&points(&[0.5, 0.5]), "").is_some());
        let mut losses = vec![1000.0];
        losses.extend(std::iter::repeat_n(1.0, 199));
        assert!(line_chart(&points(&losses), "").unwrap().contains("0,0 0.5,0 1.01,0"));
    }
}
