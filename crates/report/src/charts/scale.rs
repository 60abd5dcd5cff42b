//! From values to places, and which values to name on an axis.

/// A linear scale from a range of values to percentages of a picture's width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From `low` at 0 % to `high` at 100 %. Where these are not an interval, it is the one from 0 to 1.
    pub fn new(low: f64, high: f64) -> Self {
        let valid = low.is_finite() && high.is_finite() && low < high;
        if valid { Self { low, high } } else { Self { low: 0.0, high: 1.0 } }
    }

    /// A scale of shares that shows all of `values`, at least 20 points wide, with ends at full tens of points.
    pub fn of_shares(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value.clamp(0.0, 1.0)), high.max(value.clamp(0.0, 1.0)));
        }
        if low > high {
            return Self::new(0.0, 1.0);
        }
        // Tens as whole numbers: 0.3 and 3 x 0.1 are not the same number.
        let (mut first, mut last) = ((low * 10.0).floor() as i32, (high * 10.0).ceil() as i32);
        while last - first < 2 {
            first = (first - 1).max(0);
            last = (last + 1).min(10);
        }
        Self::new(f64::from(first) / 10.0, f64::from(last) / 10.0)
    }

    /// Where `value` stands, 0 to 100; values outside stand at the ends.
    pub fn place(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) * 100.0 }
    }

    /// Three to six round values from end to end, in order.
    pub fn ticks(&self) -> Vec<f64> {
        let range = self.high - self.low;
        let power = 10_f64.powf((range / 5.0).log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| range / step <= 5.001);
        let step = step.unwrap_or(range);
        let first = (self.low / step - 1e-9).ceil();
        (0..=5).map(|i| (first + f64::from(i)) * step).filter(|tick| *tick <= self.high + step * 1e-6).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_map_to_the_ends_and_values_outside_stay_inside() {
        let scale = Scale::new(0.2, 0.7);
        let places = [0.2, 0.45, 0.7, -1.0, 9.0, f64::NAN].map(|value| scale.place(value).round());
        assert_eq!(places, [0.0, 50.0, 100.0, 0.0, 100.0, 0.0]);
        assert_eq!(Scale::new(1.0, 1.0), Scale::new(0.0, 1.0));
    }

    #[test]
    fn a_scale_of_shares_ends_at_tens_and_shows_every_value() {
        assert_eq!(Scale::of_shares([0.42, 0.61]), Scale::new(0.4, 0.7));
        assert_eq!(Scale::of_shares([0.3, 0.7]), Scale::new(0.3, 0.7));
        assert_eq!(Scale::of_shares([0.0]), Scale::new(0.0, 0.2));
        assert_eq!(Scale::of_shares([1.0]), Scale::new(0.8, 1.0));
        assert_eq!(Scale::of_shares([f64::NAN]), Scale::new(0.0, 1.0));
    }

    #[test]
    fn ticks_are_round_and_few() {
        let text = |scale: Scale| scale.ticks().iter().map(|tick| format!("{tick:.2}")).collect::<Vec<_>>().join(" ");
        assert_eq!(text(Scale::new(0.0, 1.0)), "0.00 0.20 0.40 0.60 0.80 1.00");
        assert_eq!(text(Scale::new(0.4, 0.7)), "0.40 0.50 0.60 0.70");
        assert_eq!(text(Scale::new(0.0, 736.0)), "0.00 200.00 400.00 600.00");
    }
}
