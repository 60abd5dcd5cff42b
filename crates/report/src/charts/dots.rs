//! Dots: a value on its interval, two values of one thing, and the axis below them.

use super::Scale;
use super::svg::Svg;
use crate::data::Interval;

const ROW: f64 = 26.0;
const MIDDLE: f64 = ROW / 2.0;

/// A dot at `point` on the line of its interval. `class` is `real` or `made`.
pub fn dot_on_interval(point: f64, interval: Option<Interval>, scale: &Scale, class: &str) -> String {
    let mut svg = Svg::new(ROW);
    grid(&mut svg, scale);
    if let Some([low, high]) = interval {
        let (low, high) = (scale.place(low), scale.place(high));
        svg.line(&format!("whisker {class}"), [low, MIDDLE], [high, MIDDLE]);
        for end in [low, high] {
            svg.line(&format!("whisker {class}"), [end, MIDDLE - 4.0], [end, MIDDLE + 4.0]);
        }
    }
    svg.dot(&format!("dot {class}"), [scale.place(point), MIDDLE], 5.0);
    svg.decorative()
}

/// A hollow dot at `before` and a full one at `after`, joined by a line that is dashed where it leads down.
pub fn paired_dots(before: f64, after: f64, scale: &Scale) -> String {
    let mut svg = Svg::new(ROW - 4.0);
    let middle = (ROW - 4.0) / 2.0;
    grid(&mut svg, scale);
    let class = if after < before { "change bad" } else { "change good" };
    svg.line(class, [scale.place(before), middle], [scale.place(after), middle]);
    svg.dot("dot hollow", [scale.place(before), middle], 4.0);
    svg.dot("dot made", [scale.place(after), middle], 4.5);
    svg.decorative()
}

/// The names of the ticks, for the row below charts of the same scale.
pub fn axis(scale: &Scale, name: impl Fn(f64) -> String) -> String {
    let mut svg = Svg::new(18.0);
    for tick in scale.ticks() {
        svg.text("middle", [scale.place(tick), 12.0], &name(tick));
    }
    svg.decorative()
}

fn grid(svg: &mut Svg, scale: &Scale) {
    for tick in scale.ticks() {
        svg.line("grid", [scale.place(tick), 0.0], [scale.place(tick), ROW]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_ends_and_the_point_stand_at_their_values() {
        let svg = dot_on_interval(0.42, Some([0.36, 0.47]), &Scale::new(0.0, 1.0), "real");
        assert!(svg.contains(r#"class="whisker real" x1="36%" y1="13" x2="47%" y2="13""#), "{svg}");
        assert!(svg.contains(r#"class="dot real" cx="42%""#), "{svg}");
        let zoomed = dot_on_interval(0.42, Some([0.36, 0.47]), &Scale::new(0.3, 0.5), "real");
        assert!(zoomed.contains(r#"x1="30%" y1="13" x2="85%" y2="13""#), "{zoomed}");
        assert!(zoomed.contains(r#"cx="60%""#), "{zoomed}");
    }

    #[test]
    fn a_value_without_an_interval_is_only_a_dot() {
        let svg = dot_on_interval(0.5, None, &Scale::new(0.0, 1.0), "made");
        assert!(!svg.contains("whisker") && svg.contains("dot made"));
    }

    #[test]
    fn a_loss_is_drawn_differently_from_a_gain() {
        let scale = Scale::new(0.0, 1.0);
        assert!(paired_dots(0.5, 0.4, &scale).contains("change bad"));
        let gain = paired_dots(0.4, 0.5, &scale);
        assert!(gain.contains(r#"class="change good" x1="40%" y1="11" x2="50%""#), "{gain}");
    }

    #[test]
    fn the_axis_names_every_tick_at_its_place() {
        let axis = axis(&Scale::new(0.0, 1.0), crate::text::percent);
        assert_eq!(axis.matches("<text").count(), 6);
        assert!(axis.contains(r#"x="40%" y="12" text-anchor="middle">40 %</text>"#), "{axis}");
    }
}
