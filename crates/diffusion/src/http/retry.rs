//! What is tried again, and after how long.

use std::time::{Duration, SystemTime};

use evenset_core::Seed;
use reqwest::StatusCode;

use super::config::HttpConfig;

/// Whether the same request may be answered otherwise a moment later.
pub(crate) fn is_worth_it(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// Whether the server may have drawn an image before it answered so. Requests that it turned away have cost nothing;
/// errors of the server and of what stands before it can come after the work.
pub(super) fn may_be_charged(status: StatusCode) -> bool {
    let turned_away = status.is_redirection()
        || (status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT)
        || status == StatusCode::SERVICE_UNAVAILABLE;
    !turned_away
}

/// The wait after `tried` tries: `first_wait_seconds`, doubled with each try, times a number from 0.5 to 1 that depends
/// on the request and the try alone, so that requests which failed together do not come back together. At least what
/// the server asks for, at most `longest_wait_seconds`.
pub(super) fn wait(config: &HttpConfig, seed: Seed, tried: u32, asked: Option<Duration>) -> Duration {
    let doubled = config.first_wait_seconds * f64::from(2u32.saturating_pow(tried.saturating_sub(1)));
    let share = seed.derive("wait before a retry").index(u64::from(tried)).0 as f64 / u64::MAX as f64;
    let own = doubled * (0.5 + 0.5 * share);
    let asked = asked.map_or(0.0, |asked| asked.as_secs_f64());
    Duration::from_secs_f64(own.max(asked).min(config.longest_wait_seconds))
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date. `None` where it is neither; a date that has passed is no wait.
pub(crate) fn after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HttpConfig {
        serde_json::from_value(serde_json::json!({
            "base_url": "https://a.com", "model": "m", "size": "8x8", "budget": {"images": 1},
            "first_wait_seconds": 1, "longest_wait_seconds": 20,
        }))
        .unwrap()
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |value: &str| after(value, now).map(|wait| wait.as_secs_f64());
        assert_eq!(read(" 7 "), Some(7.0));
        assert_eq!(read("0.5"), Some(0.5));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:00 GMT"), Some(23.0));
        assert_eq!(read("Sunday, 06-Nov-94 08:50:00 GMT"), Some(23.0));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0.0));
        for wrong in ["soon", "-1", "nan", "inf", "1e300", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn waits_double_vary_by_request_and_are_capped() {
        let seconds = |seed, tried, asked| wait(&config(), Seed(seed), tried, asked).as_secs_f64();
        for tried in 1..=4 {
            let longest = f64::from(1 << (tried - 1));
            for seed in 0..50 {
                let wait = seconds(seed, tried, None);
                assert!(wait >= longest / 2.0 && wait <= longest, "{tried}: {wait}");
            }
        }
        assert_eq!(seconds(3, 1, None), seconds(3, 1, None));
        assert_ne!(seconds(3, 1, None), seconds(4, 1, None));
        assert_eq!(seconds(3, 21, None), 20.0);
        assert_eq!(seconds(3, 1, Some(Duration::from_secs(9))), 9.0);
        assert_eq!(seconds(3, 1, Some(Duration::MAX)), 20.0);
    }

    #[test]
    fn busy_and_failing_servers_are_tried_again_and_refusals_are_not() {
        let code = |code: u16| StatusCode::from_u16(code).unwrap();
        assert!([408, 429, 500, 502, 503, 504, 529].into_iter().all(|status| is_worth_it(code(status))));
        assert!([200, 302, 400, 401, 403, 404, 409, 422].into_iter().all(|status| !is_worth_it(code(status))));
        assert!([200, 408, 500, 502, 504].into_iter().all(|status| may_be_charged(code(status))));
        assert!([302, 400, 401, 429, 503].into_iter().all(|status| !may_be_charged(code(status))));
    }
}
