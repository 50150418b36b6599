use std::fmt::Write as _;

use carnet_api::v1::{
    Migration, MigrationState, NeedsOperator, PhaseTiming, StallPlace, StallStep, Strategy,
};

use super::attempt::{attempts, sentence};
use super::quantity::{age, bytes, instant, milliseconds};
use super::{destination, details, table};
use crate::output::Surface;

/// A strategy in words.
fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::StopAndCopy => "stop and copy",
        Strategy::PostCopy => "post-copy",
        Strategy::PreCopy => "pre-copy",
        Strategy::Cold => "cold",
    }
}

/// A state in words.
fn state(state: MigrationState) -> &'static str {
    match state {
        MigrationState::Admitting => "admitting",
        MigrationState::Preparing => "preparing",
        MigrationState::CopyingAhead => "copying ahead",
        MigrationState::HandingOver => "handing over",
        MigrationState::Committing => "committing",
        MigrationState::Restoring => "restoring",
        MigrationState::Settling => "waiting for the rest of its memory",
        MigrationState::Releasing => "releasing the source",
        MigrationState::WithdrawingTarget => "withdrawing the target",
        MigrationState::TakingBack => "taking back",
        MigrationState::ResumingSource => "resuming the source",
        MigrationState::DiscardingTarget => "discarding at the target",
        MigrationState::Completed => "completed",
        MigrationState::Denied => "denied",
        MigrationState::Failed => "failed",
        MigrationState::Cancelled => "cancelled",
    }
}

pub fn migrations(migrations: &[Migration], surface: Surface) -> String {
    let rows = migrations.iter().map(|migration| {
        vec![
            migration.id.to_string(),
            migration.container_name.clone(),
            migration.source_name.clone(),
            destination(&migration.to),
            migration.target_name.clone().unwrap_or_else(|| "-".into()),
            match migration.needs_operator {
                Some(_) => format!("{} (needs an operator)", state(migration.state)),
                None => state(migration.state).to_owned(),
            },
            age(migration.created_at_ms, surface.now),
            took(migration).map_or_else(|| "-".to_owned(), milliseconds),
            migration
                .stall_ms
                .map_or_else(|| "-".to_owned(), milliseconds),
        ]
    });
    table(
        &[
            "MIGRATION",
            "CONTAINER",
            "FROM",
            "ASKED FOR",
            "TARGET",
            "STATE",
            "BEGUN",
            "TOOK",
            "STALL",
        ],
        rows,
        surface.width,
    )
}

/// From the request to the end, in milliseconds; `None` while it lasts.
fn took(migration: &Migration) -> Option<f64> {
    migration
        .ended_at_ms
        .map(|ended| (ended.0 - migration.created_at_ms.0) as f64)
}

pub fn migration(migration: &Migration, surface: Surface) -> String {
    let sent = &migration.transferred;
    let phases = migration
        .timings
        .iter()
        .filter(|timing| !timing.state.is_ended());
    let phases: Vec<String> = phases
        .map(|timing| match timing.duration_ms {
            Some(ms) => format!("{} {}", state(timing.state), milliseconds(ms)),
            None => format!("{} (now)", state(timing.state)),
        })
        .collect();
    let values = [
        ("state", state(migration.state).to_owned()),
        ("asked for", destination(&migration.to)),
        ("failure", migration.failure.clone().unwrap_or_default()),
        (
            "waiting for",
            migration.waiting_for.clone().unwrap_or_default(),
        ),
        ("phases", phases.join(", ")),
        (
            "sent",
            if sent.sum() == 0 {
                String::new()
            } else {
                format!(
                    "ahead {} of files and {} of memory; while frozen {} of files and {} of memory",
                    bytes(sent.rootfs_ahead_bytes),
                    bytes(sent.memory_ahead_bytes),
                    bytes(sent.rootfs_difference_bytes),
                    bytes(sent.image_bytes)
                )
            },
        ),
        ("sending", sending(migration)),
        (
            "strategy",
            migration
                .strategy
                .as_ref()
                .map_or_else(String::new, |chosen| {
                    format!("{}: {}", strategy(chosen.strategy), chosen.reason)
                }),
        ),
        ("accepted", limits(migration)),
        (
            "expected stall",
            migration
                .expected_downtime_ms
                .map_or_else(String::new, |ms| {
                    format!("about {}", milliseconds(ms as f64))
                }),
        ),
        ("begun", instant(migration.created_at_ms, surface.now)),
        ("id", migration.id.to_string()),
    ];
    let mut text = details(&summary(migration), &values, surface.width);
    if let Some(needs) = &migration.needs_operator {
        text.push_str("\n\n");
        text.push_str(&operator(needs, surface));
    }
    if !migration.stall_steps.is_empty() {
        text.push_str("\n\n");
        text.push_str(&timeline(&migration.stall_steps, surface));
    }
    if !migration.attempts.is_empty() {
        text.push_str("\n\n");
        text.push_str(&attempts(&migration.attempts, surface));
    }
    text
}

/// What is on its way now.
fn sending(migration: &Migration) -> String {
    migration.sending.map_or_else(String::new, |sending| {
        format!(
            "{} so far, {} a second",
            bytes(sending.bytes),
            bytes(sending.bytes_per_s)
        )
    })
}

/// What whoever asked for it accepts, where that was limited.
fn limits(migration: &Migration) -> String {
    let downtime = migration
        .max_downtime_ms
        .map(|ms| format!("a stall of {}", milliseconds(ms as f64)));
    let bandwidth = migration
        .bandwidth_bytes_per_s
        .map(|rate| format!("{} a second", bytes(rate)));
    let limits: Vec<String> = [downtime, bandwidth].into_iter().flatten().collect();
    limits.join(", ")
}

/// What an operator has to decide, with what to type.
fn operator(needs: &NeedsOperator, surface: Surface) -> String {
    let mut text = format!(
        "It needs an operator: nothing that was asked has been done since {}. It is asked again all the while.",
        instant(needs.since_ms, surface.now)
    );
    for way in &needs.ways {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  if {}:\n    {}", way.when, way.command);
    }
    text
}

/// What the time in which a container stood still went into, as bars one below the other.
fn timeline(steps: &[StallStep], surface: Surface) -> String {
    /// How long the longest bar is, in characters.
    const LONGEST: f64 = 40.0;
    let whole = steps
        .iter()
        .fold(0.0, |end: f64, step| end.max(step.ended_ms));
    let column = |ms: f64| (ms.clamp(0.0, whole) / whole.max(f64::MIN_POSITIVE) * LONGEST) as usize;
    let rows = steps.iter().map(|step| {
        let (from, to) = (column(step.began_ms), column(step.ended_ms));
        vec![
            match step.place {
                StallPlace::Source => "source",
                StallPlace::Control => "control",
                StallPlace::Target => "target",
            }
            .to_owned(),
            step.step.clone(),
            milliseconds(step.ended_ms - step.began_ms),
            format!(
                "{}{}",
                " ".repeat(from),
                "#".repeat(to.saturating_sub(from).max(1))
            ),
        ]
    });
    table(
        &["WHERE", "WHILE IT STOOD STILL", "TOOK", "WHEN"],
        rows,
        surface.width,
    )
}

/// What has come of a migration, on one line.
pub fn summary(migration: &Migration) -> String {
    let name = &migration.container_name;
    let source = &migration.source_name;
    let target = migration.target_name.as_deref().unwrap_or("no edge");
    let to = migration
        .target_name
        .as_ref()
        .map_or_else(String::new, |target| format!(" to {target}"));
    let lasted = took(migration).map_or_else(String::new, |ms| format!(" in {}", milliseconds(ms)));
    let stall = migration.stall_ms.map_or_else(String::new, |ms| {
        format!("; it stood still for {}", milliseconds(ms))
    });
    match migration.state {
        MigrationState::Completed => {
            format!("{name} moved from {source} to {target}{lasted}{stall}")
        }
        MigrationState::Denied => format!(
            "{name} stays on {source}: none of {} candidates may take it",
            migration.attempts.len()
        ),
        MigrationState::Failed => format!("{name} did not move from {source} to {target}{stall}"),
        MigrationState::Cancelled => {
            format!("{name} stays on {source}: its move{to} was cancelled")
        }
        _ if migration.cancel_asked_at_ms.is_some() => {
            format!("{name} stays on {source}: its move{to} is being cancelled")
        }
        _ => format!("{name} is moving from {source} to {target}"),
    }
}

/// What is new about a migration since it was last looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Something that has come about: a line that stays.
    Done(String),
    /// A phase that has begun: it is over with the next one.
    Begun(String),
}

/// Tells the news of one migration, each once, however often it is told the same.
#[derive(Debug, Default)]
pub struct Progress {
    attempts_told: usize,
    begun_told: usize,
    ended_told: usize,
    waiting_for: Option<String>,
    operator_told: bool,
}

impl Progress {
    pub fn news(&mut self, migration: &Migration) -> Vec<News> {
        let mut news = Vec::new();
        for attempt in migration.attempts.iter().skip(self.attempts_told) {
            news.push(News::Done(sentence(attempt)));
        }
        self.attempts_told = self.attempts_told.max(migration.attempts.len());
        let phases: Vec<&PhaseTiming> = migration
            .timings
            .iter()
            .filter(|timing| !timing.state.is_ended())
            .collect();
        for (position, timing) in phases.iter().enumerate() {
            if position >= self.begun_told {
                news.push(News::Begun(state(timing.state).to_owned()));
                self.begun_told = position + 1;
            }
            if let Some(ms) = timing.duration_ms
                && position >= self.ended_told
            {
                let line = format!("{}: {}", state(timing.state), milliseconds(ms));
                news.push(News::Done(line));
                self.ended_told = position + 1;
            }
        }
        if migration.waiting_for != self.waiting_for {
            self.waiting_for.clone_from(&migration.waiting_for);
            if let Some(what) = &self.waiting_for {
                news.push(News::Done(format!("waiting for: {what}")));
            }
        }
        if migration.needs_operator.is_some() && !self.operator_told {
            self.operator_told = true;
            let id = migration.id;
            news.push(News::Done(format!(
                "it needs an operator: carnet migration show {id}"
            )));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempt::tests::{attempt, denied};
    use super::*;
    use carnet_core::instant::UnixMillis;
    use serde_json::{Value, json};

    const SURFACE: Surface = Surface {
        now: UnixMillis(1_762_171_445_000),
        width: None,
    };

    fn moved(changes: Value) -> Migration {
        let mut migration = json!({
            "id": "0192d3c4-0000-7000-8000-000000000009",
            "container": "0192d3c4-0000-7000-8000-000000000007", "container_name": "App1",
            "to": {"region": "B"}, "state": "completed",
            "source": "0192d3c4-0000-7000-8000-000000000001", "source_name": "Edge1",
            "target": "0192d3c4-0000-7000-8000-000000000003", "target_name": "Edge3",
            "attempts": [
                attempt("Edge2", denied()),
                attempt("Edge3", json!({"outcome": "permitted"})),
            ],
            "timings": [
                {"state": "preparing", "started_at_ms": 1, "duration_ms": 120.0},
                {"state": "copying_ahead", "started_at_ms": 2, "duration_ms": 1200.0},
                {"state": "completed", "started_at_ms": 3},
            ],
            "transferred": {"rootfs_ahead_bytes": 12_300_000, "rootfs_difference_bytes": 1_200,
                            "image_bytes": 30_100_000},
            "stall_ms": 412.0,
            "created_at_ms": 1_762_171_440_000_i64, "ended_at_ms": 1_762_171_442_311_i64,
        });
        migration
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        serde_json::from_value(migration).unwrap()
    }

    #[test]
    fn a_move_is_summed_up() {
        assert_eq!(
            migration(&moved(json!({})), SURFACE),
            "\
App1 moved from Edge1 to Edge3 in 2.31 s; it stood still for 412 ms
  state      completed
  asked for  region B
  phases     preparing 120 ms, copying ahead 1.20 s
  sent       ahead 12.3 MB of files and 0 B of memory; while frozen 1.20 kB of files and 30.1 MB of memory
  begun      2025-11-03 12:04:00 UTC (5 s ago)
  id         0192d3c4-0000-7000-8000-000000000009

EDGE   VERDICT    CPU   MEMORY  AUDIT    WHY                       REQUIRED      FOUND     WOULD SATISFY
Edge2  denied     40 %  30 %    1.20 ms  allowed_locations (cDAl)  `jp` or `us`  `de`      an edge in `jp` or `us`
                                         max_cpu_percent (cHRcu)   at most 30 %  40 % now  CPU use of 30 % or less
Edge3  permitted  40 %  30 %    1.20 ms"
        );
        let refused = json!({"state": "denied", "target": null, "target_name": null,
                             "attempts": [attempt("Edge2", denied())]});
        assert_eq!(
            summary(&moved(refused)),
            "App1 stays on Edge1: none of 1 candidates may take it"
        );
    }

    #[test]
    fn a_cancelled_move_says_where_its_container_is() {
        let asked = json!({"state": "copying_ahead", "ended_at_ms": null, "stall_ms": null,
                           "cancel_asked_at_ms": 5});
        assert_eq!(
            summary(&moved(asked)),
            "App1 stays on Edge1: its move to Edge3 is being cancelled"
        );
        let ended = json!({"state": "cancelled", "stall_ms": null, "cancel_asked_at_ms": 5});
        assert_eq!(
            summary(&moved(ended)),
            "App1 stays on Edge1: its move to Edge3 was cancelled"
        );
        let nowhere = json!({"state": "cancelled", "stall_ms": null, "target_name": null});
        assert_eq!(
            summary(&moved(nowhere)),
            "App1 stays on Edge1: its move was cancelled"
        );
    }

    #[test]
    fn what_an_operator_can_do_is_told_with_what_to_type() {
        let stuck = moved(json!({
            "state": "restoring", "ended_at_ms": null, "stall_ms": null,
            "waiting_for": "asked edge `Edge3` to bring the container to life: no answer",
            "needs_operator": {"since_ms": 0, "ways": [
                {"when": "`Edge3` can be brought back", "command": "carnet migration show X"},
                {"when": "`Edge3` is gone for good", "command": "carnet migration give-up X --target-is-lost"},
            ]},
        }));
        let text = migration(&stuck, SURFACE);
        let (_, told) = text.split_once("It needs an operator").unwrap();
        let told = told.split_once("\n\n").unwrap().0;
        assert!(
            told.ends_with(
                "\
                \n  if `Edge3` can be brought back:\
                \n    carnet migration show X\
                \n  if `Edge3` is gone for good:\
                \n    carnet migration give-up X --target-is-lost"
            ),
            "{told}"
        );
        let mut progress = Progress::default();
        let id = stuck.id;
        let line = News::Done(format!("it needs an operator: carnet migration show {id}"));
        assert!(progress.news(&stuck).contains(&line));
        assert!(!progress.news(&stuck).contains(&line), "told once");
        let list = migrations(&[stuck], SURFACE);
        assert!(list.contains("restoring (needs an operator)"), "{list}");
    }

    #[test]
    fn migrations_stand_one_a_line() {
        let under_way = json!({"state": "copying_ahead", "ended_at_ms": null, "stall_ms": null});
        assert_eq!(
            migrations(&[moved(json!({})), moved(under_way)], SURFACE),
            "\
MIGRATION                             CONTAINER  FROM   ASKED FOR  TARGET  STATE          BEGUN    TOOK    STALL
0192d3c4-0000-7000-8000-000000000009  App1       Edge1  region B   Edge3   completed      5 s ago  2.31 s  412 ms
0192d3c4-0000-7000-8000-000000000009  App1       Edge1  region B   Edge3   copying ahead  5 s ago  -       -"
        );
    }

    #[test]
    fn news_is_told_once() {
        let mut progress = Progress::default();
        let begun = moved(json!({
            "state": "copying_ahead", "attempts": [attempt("Edge3", json!({"outcome": "permitted"}))],
            "timings": [
                {"state": "preparing", "started_at_ms": 1, "duration_ms": 120.0},
                {"state": "copying_ahead", "started_at_ms": 2},
            ],
            "waiting_for": "Edge3 answers",
        }));
        let line = |text: &str| News::Done(text.to_owned());
        let phase = |text: &str| News::Begun(text.to_owned());
        assert_eq!(
            progress.news(&begun),
            [
                line("Edge3 permitted"),
                phase("preparing"),
                line("preparing: 120 ms"),
                phase("copying ahead"),
                line("waiting for: Edge3 answers"),
            ]
        );
        assert_eq!(progress.news(&begun), []);
        let ended = Migration {
            attempts: begun.attempts.clone(),
            ..moved(json!({}))
        };
        assert_eq!(progress.news(&ended), [line("copying ahead: 1.20 s")]);
    }
}
