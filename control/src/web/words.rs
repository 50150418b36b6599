//! Quantities and states in words, as pages tell them.

use carnet_api::v1::{Health, HealthState, Role, UtilizationReading};
use carnet_core::instant::UnixMillis;
use carnet_core::policy::Country;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::EdgeOwner => "edge owner",
        Role::ContainerOwner => "container owner",
        Role::Auditor => "auditor",
        Role::Administrator => "administrator",
    }
}

/// The parts of a text, and whether each is code: what stands between backquotes.
pub(super) fn pieces(text: &str) -> Vec<(bool, &str)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, (code, after))) = rest
        .split_once('`')
        .and_then(|(before, after)| Some((before, after.split_once('`')?)))
    {
        pieces.push((false, before));
        pieces.push((true, code));
        rest = after;
    }
    pieces.push((false, rest));
    pieces
}

/// A state: how good it is, by a sign and a word. The colour is never alone.
#[derive(Debug, Clone)]
pub(super) struct Sign {
    /// A class of the style sheet: `good`, `warn`, `bad`, `none`.
    pub class: &'static str,
    pub sign: &'static str,
    pub word: &'static str,
}

impl Sign {
    pub(super) const fn new(class: &'static str, word: &'static str) -> Self {
        let sign = match class.as_bytes() {
            b"good" => "●",
            b"warn" => "▲",
            b"bad" => "✕",
            _ => "○",
        };
        Self { class, sign, word }
    }
}

pub(super) fn health(health: &Health, enrolled: bool) -> Sign {
    match health.state {
        _ if !enrolled => Sign::new("none", "not enrolled"),
        HealthState::Unknown => Sign::new("none", "not looked at yet"),
        HealthState::Healthy => Sign::new("good", "healthy"),
        HealthState::Degraded => Sign::new("warn", "degraded"),
        HealthState::Unreachable => Sign::new("bad", "unreachable"),
    }
}

/// CPU and memory use, as they were read.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub cpu: String,
    pub memory: String,
    pub read: String,
}

pub(super) fn utilization(reading: &UtilizationReading, now: UnixMillis) -> Use {
    Use {
        cpu: format!("{:.1}", reading.cpu_percent),
        memory: format!("{:.1}", reading.memory_percent),
        read: ago(reading.read_at_ms, now),
    }
}

/// A span of time.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ..9.95 => format!("{ms:.1} ms"),
        9.95..9_995.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

/// An amount of data, in decimal units.
pub(super) fn bytes(bytes: u64) -> String {
    let amount = bytes as f64;
    match bytes {
        ..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", amount / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", amount / 1e6),
        _ => format!("{:.2} GB", amount / 1e9),
    }
}

/// A country's flag, as an emoji: its code in letters of their own.
pub(super) fn flag(country: Country) -> String {
    let letters = country.code().bytes();
    letters
        .filter_map(|letter| char::from_u32(0x1f1e6 + u32::from(letter.checked_sub(b'a')?)))
        .collect()
}

/// An instant, for who compares it with others.
pub(super) fn utc(at: UnixMillis) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000))
        .ok()
        .and_then(|instant| instant.format(format).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// The same of an instant in seconds since the Unix epoch.
pub(super) fn utc_seconds(seconds: i64) -> String {
    utc(UnixMillis(seconds.saturating_mul(1_000)))
}

/// Reads an instant as people write it: a day, a minute or a second, UTC.
pub(super) fn parse_utc(text: &str) -> Option<UnixMillis> {
    let text = text
        .trim()
        .trim_end_matches("UTC")
        .trim_end()
        .replace('T', " ");
    let whole = match text.len() {
        10 => format!("{text} 00:00:00"),
        16 => format!("{text}:00"),
        _ => text,
    };
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let instant = PrimitiveDateTime::parse(&whole, format).ok()?;
    Some(UnixMillis(instant.assume_utc().unix_timestamp() * 1_000))
}

/// How long ago `at` was.
pub(super) fn ago(at: UnixMillis, now: UnixMillis) -> String {
    if now.0 - at.0 < 1_000 {
        "now".to_owned()
    } else {
        format!("{} ago", lasting(at, now))
    }
}

/// How long it is since `since`.
pub(super) fn lasting(since: UnixMillis, now: UnixMillis) -> String {
    let seconds = (now.0 - since.0).max(0) / 1_000;
    match seconds {
        ..90 => format!("{seconds} s"),
        90..5_400 => format!("{} min", seconds / 60),
        5_400..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backquotes_is_code() {
        assert_eq!(
            pieces("`a` is not `b c`."),
            [
                (false, ""),
                (true, "a"),
                (false, " is not "),
                (true, "b c"),
                (false, ".")
            ]
        );
        for plain in ["", "plain", "one ` alone"] {
            assert_eq!(pieces(plain), [(false, plain)]);
        }
    }

    #[test]
    fn a_time_is_read_as_it_is_told() {
        let at = UnixMillis(1_795_525_445_000);
        assert_eq!(parse_utc(&utc(at)), Some(at));
        for (text, seconds) in [
            ("1970-01-02", 86_400),
            ("1970-01-01 01:00", 3_600),
            ("1970-01-01T01:00", 3_600),
            (" 1970-01-01 00:00:07 ", 7),
        ] {
            assert_eq!(parse_utc(text), Some(UnixMillis(seconds * 1_000)), "{text}");
        }
        for none in [
            "",
            "today",
            "2026-13-01",
            "2026-11-24 25:00",
            "1",
            "äöü-11-24",
        ] {
            assert_eq!(parse_utc(none), None, "{none}");
        }
    }

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let told = |seconds: i64| ago(UnixMillis(0), UnixMillis(seconds * 1_000));
        let ages = [0, 89, 90, 5_399, 5_400, 172_799, 172_800].map(told);
        let expected = [
            "now",
            "89 s ago",
            "1 min ago",
            "89 min ago",
            "1 h ago",
            "47 h ago",
            "2 days ago",
        ];
        assert_eq!(ages, expected);
    }
}
