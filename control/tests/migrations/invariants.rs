//! What must hold of every move that has ended, by name.

use carnet_api::v1::{AttemptOutcome, Migration, MigrationState as S};
use carnet_core::ids::EdgeId;
use sqlx::Row;

use crate::edges::{
    FROZEN_MS, IMAGE_BYTES, Part, Process, ROOTFS_AHEAD_BYTES, ROOTFS_DIFFERENCE_BYTES,
};
use crate::plane::Plane;

/// What may come after a state.
const SUCCESSORS: &[(S, &[S])] = &[
    (
        S::Admitting,
        &[S::Preparing, S::Denied, S::Failed, S::Cancelled],
    ),
    (S::Preparing, &[S::CopyingAhead, S::ResumingSource]),
    (S::CopyingAhead, &[S::HandingOver, S::ResumingSource]),
    (S::HandingOver, &[S::Committing, S::ResumingSource]),
    (S::Committing, &[S::Restoring, S::ResumingSource]),
    (
        S::Restoring,
        &[S::Settling, S::WithdrawingTarget, S::TakingBack],
    ),
    (
        S::Settling,
        &[S::Releasing, S::WithdrawingTarget, S::TakingBack],
    ),
    (S::Releasing, &[S::Completed]),
    (
        S::WithdrawingTarget,
        &[S::TakingBack, S::Restoring, S::Settling],
    ),
    (S::TakingBack, &[S::ResumingSource]),
    (S::ResumingSource, &[S::DiscardingTarget]),
    (S::DiscardingTarget, &[S::Failed, S::Cancelled]),
];

/// Where a container was before its move, and under which generation.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    pub edge: EdgeId,
    pub generation: u64,
}

/// Panics, with the names of all that do not hold and with what happened.
pub async fn assert_hold(plane: &Plane, migration: &Migration, before: Before, what: &str) {
    let mut violated = plane.edges.violations();
    let checks = [
        (
            "the database says where it runs",
            place(plane, migration, before).await,
        ),
        ("it ends as it says", end(plane, migration, before).await),
        ("attempts stand once and in order", attempts(migration)),
        ("timings are whole", timings(migration)),
        ("the record is consistent", record(plane, migration).await),
    ];
    for (name, check) in checks {
        violated.extend(check.err().map(|why| format!("{name}: {why}")));
    }
    assert!(
        violated.is_empty(),
        "{what}: violated: {violated:#?}\n{migration:#?}\n{}",
        plane.edges.trail()
    );
}

fn holds(holds: bool, why: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

async fn place(plane: &Plane, migration: &Migration, before: Before) -> Result<(), String> {
    let container = plane.container_now(migration.container).await;
    let there = plane
        .edges
        .process(container.edge, &migration.container_name);
    holds(
        there == Some(Process::Running),
        format!("at {} it is {there:?}", container.edge_name),
    )?;
    let taken_back = migration.failure.as_ref().is_some_and(|failure| {
        failure.starts_with("restoring: ") || failure.starts_with("settling: ")
    });
    let expected = match migration.state {
        S::Completed => (migration.target, before.generation + 1),
        S::Failed if taken_back => (Some(before.edge), before.generation + 2),
        _ => (Some(before.edge), before.generation),
    };
    holds(
        (Some(container.edge), container.generation) == expected,
        format!("generation {} at {}", container.generation, container.edge),
    )?;
    holds(
        container.migration.is_none(),
        "the container is being moved still",
    )
}

async fn end(plane: &Plane, migration: &Migration, before: Before) -> Result<(), String> {
    let name = &migration.container_name;
    let source = plane.edges.process(before.edge, name);
    let target = migration.target.map(|target| {
        (
            plane.edges.process(target, name),
            plane.edges.part(target, migration.id),
        )
    });
    let nothing = |part: Part| !part.images && !part.prepared;
    holds(
        migration.failure.is_some() == (migration.state == S::Failed),
        "a failure has its reason",
    )?;
    holds(migration.waiting_for.is_none(), "it waits for something")?;
    holds(
        migration.cancel_asked_at_ms.is_none() || migration.state != S::Completed,
        "it was cancelled, and completed",
    )?;
    holds(
        migration.cancel_asked_at_ms.is_some() || migration.state != S::Cancelled,
        "nobody has cancelled it",
    )?;
    match (migration.state, target) {
        (S::Completed, Some((copy, part))) => {
            holds(source.is_none(), "a copy is left at the source")?;
            holds(copy == Some(Process::Running), "it does not run there")?;
            holds(!part.images, "images are left at the target")?;
            let sent = migration.transferred;
            holds(
                (
                    sent.rootfs_ahead_bytes,
                    sent.rootfs_difference_bytes,
                    sent.image_bytes,
                ) == (ROOTFS_AHEAD_BYTES, ROOTFS_DIFFERENCE_BYTES, IMAGE_BYTES),
                "the bytes are not those that the source told",
            )?;
            holds(
                migration.stall_ms.is_none_or(|stall| stall >= FROZEN_MS),
                "the stall is shorter than the source's own part of it",
            )
        }
        (S::Failed | S::Cancelled, Some((copy, part))) => {
            holds(source == Some(Process::Running), "the source does not run")?;
            holds(copy.is_none(), "a copy is left at the target")?;
            holds(nothing(part), "something is left at the target")
        }
        (S::Denied | S::Failed | S::Cancelled, None) => {
            holds(source == Some(Process::Running), "the source does not run")?;
            let orders = plane.edges.asked().into_iter().filter_map(|a| a.order);
            let own = orders.filter(|(_, id)| *id == migration.id);
            holds(own.count() == 0, "an edge was given an order")
        }
        (state, _) => Err(format!("{state:?} without a target, or no end")),
    }
}

fn attempts(migration: &Migration) -> Result<(), String> {
    let attempts = &migration.attempts;
    holds(
        attempts.is_sorted_by_key(|attempt| attempt.audited_at_ms),
        "an attempt stands before an earlier one",
    )?;
    let permitted: Vec<_> = attempts
        .iter()
        .enumerate()
        .filter(|(_, attempt)| attempt.outcome == AttemptOutcome::Permitted)
        .collect();
    match (migration.target, permitted.as_slice()) {
        (None, []) => Ok(()),
        (Some(target), [(position, attempt)]) => {
            holds(attempt.edge == target, "another edge was permitted")?;
            holds(
                position + 1 == attempts.len(),
                "one stands after the permitted one",
            )
        }
        _ => Err(format!("{} are permitted", permitted.len())),
    }
}

fn timings(migration: &Migration) -> Result<(), String> {
    let timings = &migration.timings;
    let (Some(first), Some(last)) = (timings.first(), timings.last()) else {
        return Err("there are none".to_owned());
    };
    holds(
        first.state == S::Admitting && first.started_at_ms == migration.created_at_ms,
        "they do not begin with the request",
    )?;
    holds(
        last.state == migration.state && last.duration_ms == Some(0.0),
        "they do not end with the end",
    )?;
    holds(
        migration
            .ended_at_ms
            .is_some_and(|ended| ended >= last.started_at_ms),
        "the end is before its state, or there is none",
    )?;
    holds(
        timings.is_sorted_by_key(|timing| timing.started_at_ms),
        "a state stands before an earlier one",
    )?;
    for pair in timings.windows(2) {
        let (state, next) = (pair[0].state, pair[1].state);
        let allowed = SUCCESSORS
            .iter()
            .any(|(from, to)| *from == state && to.contains(&next));
        holds(allowed, format!("{next:?} after {state:?}"))?;
    }
    for timing in timings {
        holds(
            timing.duration_ms.is_some_and(|duration| duration >= 0.0),
            format!("it is not said how long {:?} lasted", timing.state),
        )?;
    }
    Ok(())
}

async fn record(plane: &Plane, migration: &Migration) -> Result<(), String> {
    let row = sqlx::query(
        "SELECT phase, state ->> 'state' AS state, source,
             (SELECT group_concat(position) FROM
                 (SELECT position FROM migration_attempts WHERE migration = ?1 ORDER BY position))
             AS positions
         FROM migrations WHERE id = ?1",
    )
    .bind(migration.id.to_string())
    .fetch_one(&plane.ledger)
    .await
    .unwrap();
    let (phase, state): (String, String) = (row.get("phase"), row.get("state"));
    holds(phase == state, format!("{phase} is kept with {state}"))?;
    let positions: Option<String> = row.get("positions");
    let whole: Vec<String> = (0..migration.attempts.len())
        .map(|position| position.to_string())
        .collect();
    holds(
        positions.clone().unwrap_or_default() == whole.join(","),
        format!("attempts stand at {positions:?}"),
    )
}
