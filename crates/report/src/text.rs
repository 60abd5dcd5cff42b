//! Numbers as people read them, the same on the page and in the terminal.

use crate::data::Interval;

/// A count with commas: `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share of 0 to 1 as a percentage: `61 %`; with a decimal where it is near an end: `0.4 %`, `99.6 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", hundredths(share))
}

/// An interval of shares without its unit: `36 to 47`.
pub fn percent_interval([low, high]: Interval) -> String {
    format!("{} to {}", hundredths(low), hundredths(high))
}

/// A value as it is shown: an empty one would be invisible.
pub fn shown(value: &str) -> String {
    if value.trim().is_empty() { "(empty)".to_owned() } else { value.to_owned() }
}

/// An interval of a number of images, rounded outwards: `50 to 52`.
pub fn images_interval([low, high]: Interval) -> String {
    let whole = |end: f64| count(end.max(0.0) as u64);
    format!("{} to {}", whole(low.floor()), whole(high.ceil()))
}

/// A difference of shares in points: `19`, `0.4`, `-3`.
pub fn points(difference: f64) -> String {
    hundredths(difference)
}

/// A difference of shares in points with its sign: `+19`, `−3`, `0`.
pub fn signed_points(difference: f64) -> String {
    let text = hundredths(difference);
    match text.strip_prefix('-') {
        Some(size) => format!("−{size}"),
        None if text == "0" || text == "–" => text,
        None => format!("+{text}"),
    }
}

fn hundredths(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        return "–".to_owned();
    }
    let near_an_end = value.abs() < 9.95 || (value > 99.0 && value < 100.0);
    let text = if near_an_end { format!("{value:.1}") } else { format!("{value:.0}") };
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// A plain number with at most `decimals` places and none where they are zero: `0.97`, `38.4`, `1`.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A number with so many digits that count: `0.0123`, `1.23`, `12.3`, `1,230`.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() || value == 0.0 {
        return number(value, 0);
    }
    let before_point = value.abs().log10().floor() as i32 + 1;
    let decimals = digits as i32 - before_point;
    if decimals <= 0 && value >= 1000.0 {
        return count(value.round() as u64);
    }
    number(value, decimals.clamp(0, 12) as usize).replace('-', "−")
}

/// A probability of chance: `p < 0.001`, `p = 0.03`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {}", number(p, if p < 0.1 { 3 } else { 2 })) }
}

/// An interval of differences in points: `+8 to +19`.
pub fn signed_interval([low, high]: Interval) -> String {
    format!("{} to {}", signed_points(low), signed_points(high))
}

/// A large number in short: `850`, `1.2 M`.
pub fn short_count(n: u64) -> String {
    match n {
        0..10_000 => count(n),
        10_000..1_000_000 => format!("{} k", number(n as f64 / 1e3, 1)),
        _ => format!("{} M", number(n as f64 / 1e6, 1)),
    }
}

/// A size in bytes: `512 B`, `1.4 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{} kB", number(n as f64 / 1e3, 1)),
        1_000_000..1_000_000_000 => format!("{} MB", number(n as f64 / 1e6, 1)),
        _ => format!("{} GB", number(n as f64 / 1e9, 1)),
    }
}

/// `1 image`, `2 images`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas_and_sizes_have_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([512, 1_400_000].map(bytes), ["512 B", "1.4 MB"]);
        assert_eq!([850, 12_340, 1_200_000].map(short_count), ["850", "12.3 k", "1.2 M"]);
        assert_eq!([plural(1, "image", "images"), plural(2, "image", "images")], ["1 image", "2 images"]);
        assert_eq!([[51.84, 52.0], [-0.1, 1000.2]].map(images_interval), ["51 to 52", "0 to 1,001"]);
    }

    #[test]
    fn percentages_have_decimals_only_near_the_ends() {
        assert_eq!(
            [0.0, 0.004, 0.0349, 0.614, 0.996, 1.0].map(percent),
            ["0 %", "0.4 %", "3.5 %", "61 %", "99.6 %", "100 %"]
        );
        assert_eq!([0.19, -0.03, 0.0, -0.0001].map(signed_points), ["+19", "−3", "0", "0"]);
        assert_eq!(percent(f64::NAN), "– %");
    }

    #[test]
    fn numbers_drop_zeros_that_say_nothing() {
        assert_eq!([0.97, 38.0, -0.0001].map(|v| number(v, 2)), ["0.97", "38", "0"]);
        assert_eq!(number(f64::INFINITY, 2), "–");
        assert_eq!(
            [0.01234, -0.5, 1.234, 123.4, 12_345.6, 0.0].map(|v| significant(v, 3)),
            ["0.0123", "−0.5", "1.23", "123", "12,346", "0"]
        );
        assert_eq!(significant(f64::NAN, 3), "–");
        assert_eq!([0.0002, 0.0123, 0.456].map(p_value), ["p < 0.001", "p = 0.012", "p = 0.46"]);
    }
}
