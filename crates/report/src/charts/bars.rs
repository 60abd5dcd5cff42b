//! Bars: parts of a count, and a rate with its interval.

use super::Scale;
use super::svg::Svg;
use crate::data::Interval;

const ROW: f64 = 18.0;
const MIDDLE: f64 = ROW / 2.0;

/// `real` and `made` images one after the other, and a mark at `want`, all to the scale of `largest`.
pub fn stacked_bar(real: u64, made: u64, want: Option<u64>, largest: u64) -> String {
    let scale = Scale::new(0.0, largest.max(1) as f64);
    let (end_of_real, end) = (scale.place(real as f64), scale.place(real as f64 + made as f64));
    let mut svg = Svg::new(ROW);
    svg.bar("track", [0.0, 3.0], [100.0, ROW - 6.0]);
    if real > 0 {
        svg.bar("bar real", [0.0, 3.0], [end_of_real, ROW - 6.0]);
    }
    if made > 0 {
        svg.bar("bar made", [end_of_real, 3.0], [end - end_of_real, ROW - 6.0]);
    }
    if let Some(want) = want {
        let x = scale.place(want as f64);
        svg.line("want", [x, 0.0], [x, ROW]);
    }
    svg.decorative()
}

/// Parts of 0 to 1 one after the other, with the first one's interval as a line on its end.
pub fn part_bar(real: f64, made: f64, interval: Option<Interval>) -> String {
    let scale = Scale::new(0.0, 1.0);
    let mut svg = Svg::new(ROW);
    svg.bar("track", [0.0, 3.0], [100.0, ROW - 6.0]);
    let (end_of_real, end) = (scale.place(real), scale.place(real + made));
    svg.bar("bar real", [0.0, 3.0], [end_of_real, ROW - 6.0]);
    if made > 0.0 {
        svg.bar("bar made", [end_of_real, 3.0], [end - end_of_real, ROW - 6.0]);
    }
    whisker(&mut svg, &scale, interval);
    svg.decorative()
}

fn whisker(svg: &mut Svg, scale: &Scale, interval: Option<Interval>) {
    if let Some([low, high]) = interval {
        let (low, high) = (scale.place(low), scale.place(high));
        svg.line("whisker ink", [low, MIDDLE], [high, MIDDLE]);
        for end in [low, high] {
            svg.line("whisker ink", [end, MIDDLE - 3.0], [end, MIDDLE + 3.0]);
        }
    }
}

/// A rate of 0 to 1 as a bar, with its interval as a line on its end.
pub fn rate_bar(rate: f64, interval: Option<Interval>, class: &str) -> String {
    let scale = Scale::new(0.0, 1.0);
    let mut svg = Svg::new(ROW);
    svg.bar("track", [0.0, 3.0], [100.0, ROW - 6.0]);
    svg.bar(&format!("bar {class}"), [0.0, 3.0], [scale.place(rate), ROW - 6.0]);
    whisker(&mut svg, &scale, interval);
    svg.decorative()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_to_scale_and_the_mark_stands_at_the_target() {
        let svg = stacked_bar(50, 100, Some(160), 200);
        assert!(svg.contains(r#"class="bar real" x="0%" y="3" width="25%""#), "{svg}");
        assert!(svg.contains(r#"class="bar made" x="25%" y="3" width="50%""#), "{svg}");
        assert!(svg.contains(r#"class="want" x1="80%""#), "{svg}");
    }

    #[test]
    fn an_empty_group_has_a_track_and_no_bar() {
        let svg = stacked_bar(0, 0, None, 0);
        assert!(svg.contains("track") && !svg.contains("bar real") && !svg.contains("bar made"));
    }

    #[test]
    fn a_rate_carries_its_interval() {
        let svg = rate_bar(0.6, Some([0.5, 0.7]), "made");
        assert!(svg.contains(r#"width="60%""#) && svg.contains(r#"x1="50%" y1="9" x2="70%" y2="9""#), "{svg}");
    }
}
