//! Instants, durations and amounts as people read them.

use std::time::Duration;

use carnet_core::instant::UnixMillis;
use time::OffsetDateTime;
use time::macros::format_description;

/// `3 min ago`, `in 2 h`, `now`.
pub fn age(at: UnixMillis, now: UnixMillis) -> String {
    let ahead = at.0.saturating_sub(now.0);
    let seconds = ahead.unsigned_abs() / 1000;
    let span = match seconds {
        0 => return "now".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    };
    if ahead < 0 {
        format!("{span} ago")
    } else {
        format!("in {span}")
    }
}

/// `2026-11-03 12:04:05 UTC (3 min ago)`.
pub fn instant(at: UnixMillis, now: UnixMillis) -> String {
    format!("{} ({})", utc(at), age(at, now))
}

/// `2026-11-03 12:04:05 UTC`; the bare number where no calendar has it.
pub fn utc(at: UnixMillis) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .and_then(|instant| instant.format(format).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// A duration given in milliseconds, with about three significant digits.
pub fn milliseconds(ms: f64) -> String {
    if ms < 0.001 {
        format!("{:.0} ns", ms * 1e6)
    } else if ms < 1.0 {
        with_digits(ms * 1e3, "µs")
    } else if ms < 1e3 {
        with_digits(ms, "ms")
    } else if ms < 120_000.0 {
        with_digits(ms / 1e3, "s")
    } else {
        let whole = Duration::from_secs((ms / 1e3) as u64);
        humantime::format_duration(whole).to_string()
    }
}

fn with_digits(value: f64, unit: &str) -> String {
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Decimal units.
pub fn bytes(bytes: u64) -> String {
    let amount = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => with_digits(amount / 1e3, "kB"),
        1_000_000..1_000_000_000 => with_digits(amount / 1e6, "MB"),
        _ => with_digits(amount / 1e9, "GB"),
    }
}

/// A percentage with at most two decimals.
pub fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit_that_says_something() {
        let now = UnixMillis(1_762_171_445_000);
        for (ahead_s, text) in [
            (0, "now"),
            (-1, "1 s ago"),
            (-59, "59 s ago"),
            (-60, "1 min ago"),
            (-3_599, "59 min ago"),
            (-3_600, "1 h ago"),
            (-172_800, "2 days ago"),
            (90, "in 1 min"),
        ] {
            assert_eq!(age(UnixMillis(now.0 + ahead_s * 1000), now), text);
        }
        assert_eq!(
            instant(UnixMillis(now.0 - 5000), now),
            "2025-11-03 12:04:00 UTC (5 s ago)"
        );
        assert_eq!(utc(UnixMillis(i64::MAX)), i64::MAX.to_string());
        age(UnixMillis(i64::MIN), UnixMillis(i64::MAX));
    }

    #[test]
    fn amounts_have_about_three_digits() {
        for (ms, text) in [
            (0.0004, "400 ns"),
            (0.0123, "12.3 µs"),
            (1.0, "1.00 ms"),
            (412.4, "412 ms"),
            (2_311.0, "2.31 s"),
            (125_000.0, "2m 5s"),
        ] {
            assert_eq!(milliseconds(ms), text);
        }
        for (amount, text) in [(999, "999 B"), (12_345, "12.3 kB"), (30_100_000, "30.1 MB")] {
            assert_eq!(bytes(amount), text);
        }
        for (value, text) in [
            (40.0, "40 %"),
            (12.5, "12.5 %"),
            (0.0, "0 %"),
            (100.0, "100 %"),
        ] {
            assert_eq!(percent(value), text);
        }
    }
}
