//! How fast a move goes, and how long it may still take.

use carnet_api::v1::{Migration, MigrationState, PhaseTiming};
use carnet_core::instant::UnixMillis;

use super::words::bytes;

/// How fast its files, and memory with them, went ahead, where that is done.
pub(super) fn rate(migration: &Migration) -> Option<String> {
    let took_ms = duration(&migration.timings, MigrationState::CopyingAhead)?;
    let sent = migration.transferred.rootfs_ahead_bytes + migration.transferred.memory_ahead_bytes;
    if took_ms <= 0.0 || sent == 0 {
        return None;
    }
    Some(format!(
        "{}/s",
        bytes((sent as f64 / took_ms * 1e3).round() as u64)
    ))
}

/// How long it may still take, if every phase takes as long as in an earlier move of the same
/// container; `None` where it has ended.
pub(super) fn left(migration: &Migration, earlier: &Migration, now: UnixMillis) -> Option<String> {
    if migration.state.is_ended() {
        return None;
    }
    let elapsed = |timing: &PhaseTiming| (now.0 - timing.started_at_ms.0).max(0) as f64;
    let left: f64 = earlier
        .timings
        .iter()
        .filter_map(|then| Some((then, then.duration_ms?)))
        .map(|(then, took)| {
            let phase = migration
                .timings
                .iter()
                .find(|timing| timing.state == then.state);
            match phase {
                None => took,
                Some(timing) if timing.duration_ms.is_none() => (took - elapsed(timing)).max(0.0),
                Some(_) => 0.0,
            }
        })
        .sum();
    Some(if left > 0.0 {
        format!(
            "about {:.0} s, if it goes as its last move",
            (left / 1e3).ceil()
        )
    } else {
        "it takes longer than its last move".to_owned()
    })
}

fn duration(timings: &[PhaseTiming], state: MigrationState) -> Option<f64> {
    let timing = timings.iter().find(|timing| timing.state == state)?;
    timing.duration_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A move whose phases took these times; `None`: it lasts.
    fn migration(
        state: MigrationState,
        phases: &[(MigrationState, i64, Option<f64>)],
    ) -> Migration {
        let id = "0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000";
        let timings: Vec<_> = phases
            .iter()
            .map(|(state, started, took)| {
                serde_json::json!({
                    "state": state, "started_at_ms": started, "duration_ms": took,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "id": id, "container": id, "container_name": "app", "to": {"anywhere": true},
            "state": state, "source": id, "source_name": "north", "attempts": [],
            "timings": timings, "created_at_ms": 0,
            "transferred": {
                "rootfs_ahead_bytes": 16_000_000, "rootfs_difference_bytes": 0, "image_bytes": 0,
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_left_is_what_the_last_move_took_for_what_has_not_been_done() {
        use MigrationState::{Completed, CopyingAhead, HandingOver, Preparing};
        let earlier = migration(
            Completed,
            &[
                (Preparing, 0, Some(1_000.0)),
                (CopyingAhead, 1_000, Some(4_000.0)),
                (HandingOver, 5_000, Some(500.0)),
            ],
        );
        let copying = migration(
            CopyingAhead,
            &[(Preparing, 0, Some(9.0)), (CopyingAhead, 10_000, None)],
        );
        let told = |now| left(&copying, &earlier, UnixMillis(now)).unwrap();
        assert_eq!(told(11_000), "about 4 s, if it goes as its last move");
        assert_eq!(told(99_000), "about 1 s, if it goes as its last move");
        let handing = migration(
            HandingOver,
            &[
                (Preparing, 0, Some(9.0)),
                (CopyingAhead, 9, Some(9.0)),
                (HandingOver, 20, None),
            ],
        );
        let late = left(&handing, &earlier, UnixMillis(99_000));
        assert_eq!(late.unwrap(), "it takes longer than its last move");
        assert_eq!(left(&earlier, &earlier, UnixMillis(0)), None);
    }

    #[test]
    fn a_rate_is_bytes_by_the_time_that_they_took_and_unknown_while_they_go() {
        use MigrationState::CopyingAhead;
        let done = migration(CopyingAhead, &[(CopyingAhead, 0, Some(2_000.0))]);
        assert_eq!(rate(&done).unwrap(), "8.0 MB/s");
        let lasting = migration(CopyingAhead, &[(CopyingAhead, 0, None)]);
        assert_eq!(rate(&lasting), None);
    }
}
