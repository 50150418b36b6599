//! A small picture of numbers over time.

use carnet_api::v1::UtilizationReading;
use carnet_core::instant::UnixMillis;

use crate::store::sightings::HISTORY_MS;

/// In units of its own.
const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 24.0;
/// Readings further apart than this, in ms, are not joined: nothing was read in between.
const GAP_MS: i64 = 3 * 60 * 1000;

/// A percentage over the last hour.
pub(super) struct Sparkline {
    /// The line, in the pieces that were read; as an SVG path.
    pub path: String,
    /// The same in words.
    pub text: String,
}

/// The picture of what was read in the hour before `now`; `None` where that is less than two
/// readings.
pub(super) fn sparkline(
    what: &str,
    readings: &[UtilizationReading],
    percent: impl Fn(&UtilizationReading) -> f64,
    now: UnixMillis,
) -> Option<Sparkline> {
    let [first, .., last] = readings else {
        return None;
    };
    let mut path = String::new();
    let mut before: Option<UnixMillis> = None;
    for reading in readings {
        let age = (now.0 - reading.read_at_ms.0).clamp(0, HISTORY_MS) as f64;
        let x = (1.0 - age / HISTORY_MS as f64) * WIDTH;
        let y = (1.0 - percent(reading).clamp(0.0, 100.0) / 100.0) * HEIGHT;
        let joined = before.is_some_and(|before| reading.read_at_ms.0 - before.0 <= GAP_MS);
        let command = if joined { 'L' } else { 'M' };
        path.push_str(&format!("{command}{x:.0} {y:.1}"));
        before = Some(reading.read_at_ms);
    }
    let values = || readings.iter().map(&percent);
    let (lowest, highest) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    let minutes = (last.read_at_ms.0 - first.read_at_ms.0) / 60_000;
    Some(Sparkline {
        path,
        text: format!(
            "{what} use over {minutes} min: {lowest:.1} to {highest:.1} %, last {:.1} %",
            percent(last)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(values: &[(i64, f64)]) -> Vec<UtilizationReading> {
        let reading = |(minute, cpu): &(i64, f64)| UtilizationReading {
            cpu_percent: *cpu,
            memory_percent: 0.0,
            read_at_ms: UnixMillis(minute * 60_000),
        };
        values.iter().map(reading).collect()
    }

    fn drawn(values: &[(i64, f64)]) -> Option<Sparkline> {
        let now = UnixMillis(HISTORY_MS);
        sparkline("CPU", &readings(values), |it| it.cpu_percent, now)
    }

    #[test]
    fn a_line_goes_from_the_oldest_to_the_newest_and_says_so_in_words() {
        let line = drawn(&[(57, 0.0), (58, 50.0), (60, 100.0)]).unwrap();
        assert_eq!(line.path, "M114 24.0L116 12.0L120 0.0");
        assert_eq!(
            line.text,
            "CPU use over 3 min: 0.0 to 100.0 %, last 100.0 %"
        );
    }

    #[test]
    fn where_nothing_was_read_there_is_no_line() {
        let line = drawn(&[(0, 50.0), (1, 50.0), (59, 50.0), (60, 50.0)]).unwrap();
        assert_eq!(line.path, "M0 12.0L2 12.0M118 12.0L120 12.0");
        assert!(drawn(&[]).is_none() && drawn(&[(5, 1.0)]).is_none());
    }
}
