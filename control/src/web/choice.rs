//! What decides among the edges to which a container may go.

use std::collections::HashMap;

use carnet_api::v1::{Attempt, AttemptOutcome, Migration, MigrationState, Strategy};
use carnet_core::ids::EdgeId;
use carnet_core::policy::{Memory, attributes_from_json};

use super::migrations::{AttemptRow, attempt_rows};
use super::words::milliseconds;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::problem::ApiError;
use crate::http::{edges, migrations};

/// How many of a container's last moves are looked at.
const LAST_MOVES: u32 = 100;

/// A container's moves that came to their end, the newest first.
///
/// # Errors
/// Where the store does.
pub(super) async fn completed(
    app: &App,
    caller: &Caller,
    container: &str,
) -> Result<Vec<Migration>, ApiError> {
    let wanted = migrations::Wanted {
        container: Some(container.to_owned()),
        limit: Some(LAST_MOVES),
        ..migrations::Wanted::default()
    };
    let mut moves = migrations::listed(app, caller, wanted).await?.items;
    moves.retain(|migration| migration.state == MigrationState::Completed);
    Ok(moves)
}

/// The candidates, those that are permitted first, the least used before the others; with what
/// tells them apart.
///
/// # Errors
/// Where the store does.
pub(super) async fn rows(
    app: &App,
    caller: &Caller,
    mut attempts: Vec<Attempt>,
    moves: &[Migration],
) -> Result<Vec<AttemptRow>, ApiError> {
    attempts.sort_by(|one, other| {
        let rank =
            |attempt: &Attempt| (attempt.outcome != AttemptOutcome::Permitted, used(attempt));
        let ((one_off, one_used), (other_off, other_used)) = (rank(one), rank(other));
        one_off
            .cmp(&other_off)
            .then(if one_off {
                std::cmp::Ordering::Equal
            } else {
                one_used.total_cmp(&other_used)
            })
            .then(one.edge_name.cmp(&other.edge_name))
    });
    let memory: HashMap<EdgeId, Memory> = edges::all_visible(app, caller)
        .await?
        .iter()
        .filter_map(|edge| {
            let declared = attributes_from_json(&edge.attributes).ok()?;
            Some((edge.id, declared.memory?))
        })
        .collect();
    let permitted = attempts
        .iter()
        .filter(|attempt| attempt.outcome == AttemptOutcome::Permitted)
        .count();
    let mut rows = attempt_rows(&attempts);
    for (index, (row, attempt)) in rows.iter_mut().zip(&attempts).enumerate() {
        if !row.is_permitted {
            continue;
        }
        if index == 0 && permitted > 1 {
            row.decides
                .push("the least used of those permitted".to_owned());
        }
        if let (Some(reading), Some(memory)) = (&attempt.utilization, memory.get(&attempt.edge)) {
            let free = f64::from(memory.mb()) * (100.0 - reading.memory_percent) / 1e5;
            row.decides.push(format!(
                "about {free:.1} of its {memory} GB of memory are free"
            ));
        }
        let last = moves
            .iter()
            .find(|migration| migration.target == Some(attempt.edge));
        if let Some(stall) = last.and_then(|migration| migration.stall_ms) {
            row.decides.push(format!(
                "it stood still for {} when it last moved there",
                milliseconds(stall)
            ));
        }
    }
    Ok(rows)
}

/// The more used of CPU and memory, in percent.
fn used(attempt: &Attempt) -> f64 {
    attempt.utilization.as_ref().map_or(100.0, |reading| {
        reading.cpu_percent.max(reading.memory_percent)
    })
}

/// For how long it stood still when it last moved, by each strategy.
pub(super) fn stalls(moves: &[Migration]) -> Vec<String> {
    let ways = [
        (Strategy::StopAndCopy, "Stop and copy"),
        (Strategy::PostCopy, "Post-copy"),
        (Strategy::PreCopy, "Pre-copy"),
        (Strategy::Cold, "Cold"),
    ];
    ways.into_iter()
        .filter_map(|(strategy, told)| {
            let stall = moves
                .iter()
                .filter(|migration| {
                    migration
                        .strategy
                        .as_ref()
                        .is_some_and(|chosen| chosen.strategy == strategy)
                })
                .find_map(|migration| migration.stall_ms)?;
            Some(format!(
                "{told}: it last stood still for {}.",
                milliseconds(stall)
            ))
        })
        .collect()
}
