//! The few SVG elements that the charts are made of.

use crate::text::number;

/// A picture as wide as its container and `height` pixels high.
pub struct Svg {
    height: f64,
    body: String,
}

impl Svg {
    pub fn new(height: f64) -> Self {
        Self { height, body: String::new() }
    }

    /// A line from `x1` to `x2` (percent) and `y1` to `y2` (pixels).
    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(coordinate);
        self.body.push_str(&format!(r#"<line class="{class}" x1="{x1}%" y1="{y1}" x2="{x2}%" y2="{y2}"/>"#));
    }

    /// A dot of `radius` pixels.
    pub fn dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64) {
        let [x, y, radius] = [x, y, radius].map(coordinate);
        self.body.push_str(&format!(r#"<circle class="{class}" cx="{x}%" cy="{y}" r="{radius}"/>"#));
    }

    /// A bar from `left`, `width` wide (percent), from `top`, `height` high (pixels).
    pub fn bar(&mut self, class: &str, [left, top]: [f64; 2], [width, height]: [f64; 2]) {
        let [left, top, width, height] = [left, top, width, height].map(coordinate);
        self.body
            .push_str(&format!(r#"<rect class="{class}" x="{left}%" y="{top}" width="{width}%" height="{height}"/>"#));
    }

    /// Text that begins (`start`), is centred (`middle`) or ends (`end`) at a place.
    pub fn text(&mut self, anchor: &str, [x, y]: [f64; 2], text: &str) {
        let ([x, y], text) = ([x, y].map(coordinate), escape(text));
        self.body.push_str(&format!(r#"<text x="{x}%" y="{y}" text-anchor="{anchor}">{text}</text>"#));
    }

    /// A line through `points`, both coordinates from 0 to 100, stretched over the area from `top` to `bottom` (pixels).
    pub fn polyline(&mut self, class: &str, points: &[[f64; 2]], top: f64, bottom: f64) {
        self.stretched("polyline", class, points, top, bottom);
    }

    /// An area within `points`, which are places as those of a line are.
    pub fn polygon(&mut self, class: &str, points: &[[f64; 2]], top: f64, bottom: f64) {
        self.stretched("polygon", class, points, top, bottom);
    }

    fn stretched(&mut self, element: &str, class: &str, points: &[[f64; 2]], top: f64, bottom: f64) {
        let points: Vec<String> =
            points.iter().map(|[x, y]| format!("{},{}", coordinate(*x), coordinate(*y))).collect();
        self.body.push_str(&format!(
            r#"<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 100 100" preserveAspectRatio="none"><{element} class="{class}" points="{}"/></svg>"#,
            coordinate(top),
            coordinate(bottom - top),
            points.join(" ")
        ));
    }

    /// The picture, described to readers who do not see it.
    pub fn described(self, description: &str) -> String {
        self.close(&format!(r#"role="img" aria-label="{}""#, escape(description)))
    }

    /// The picture of numbers that stand beside it as text; screen readers skip it.
    pub fn decorative(self) -> String {
        self.close(r#"aria-hidden="true""#)
    }

    fn close(self, attributes: &str) -> String {
        format!(r#"<svg class="chart" height="{}" {attributes}>{}</svg>"#, coordinate(self.height), self.body)
    }
}

/// At most two decimals; what is not a number is at 0, so that no chart is malformed.
fn coordinate(value: f64) -> String {
    number(if value.is_finite() { value } else { 0.0 }, 2)
}

/// Text for an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_descriptions_are_escaped() {
        let mut svg = Svg::new(10.0);
        svg.text("start", [0.0, 8.0], "<script>&");
        let text = svg.described(r#"a "b" <c>"#);
        assert!(text.contains("&lt;script&gt;&amp;</text>"), "{text}");
        assert!(text.contains(r#"aria-label="a &quot;b&quot; &lt;c&gt;""#), "{text}");
    }

    #[test]
    fn coordinates_are_always_numbers() {
        let mut svg = Svg::new(f64::NAN);
        svg.dot("real", [f64::INFINITY, 1.234_567], 4.0);
        assert_eq!(
            svg.decorative(),
            r#"<svg class="chart" height="0" aria-hidden="true"><circle class="real" cx="0%" cy="1.23" r="4"/></svg>"#
        );
    }
}
