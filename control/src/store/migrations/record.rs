//! A row, as it is shown.

use carnet_api::v1::{ChosenStrategy, Migration, MigrationState};
use carnet_core::instant::UnixMillis;
use carnet_core::migration::{Phase, State};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{StoreError, corrupt, json, parsed};

use super::operator::needs_operator;
use super::{Facts, MigrationRecord, terms};

/// A state's name on the wire.
pub fn wire_state(phase: Phase) -> MigrationState {
    match phase {
        Phase::Admitting => MigrationState::Admitting,
        Phase::Preparing => MigrationState::Preparing,
        Phase::CopyingAhead => MigrationState::CopyingAhead,
        Phase::HandingOver => MigrationState::HandingOver,
        Phase::Committing => MigrationState::Committing,
        Phase::Restoring => MigrationState::Restoring,
        Phase::Settling => MigrationState::Settling,
        Phase::Releasing => MigrationState::Releasing,
        Phase::WithdrawingTarget => MigrationState::WithdrawingTarget,
        Phase::TakingBack => MigrationState::TakingBack,
        Phase::ResumingSource => MigrationState::ResumingSource,
        Phase::DiscardingTarget => MigrationState::DiscardingTarget,
        Phase::Completed => MigrationState::Completed,
        Phase::Denied => MigrationState::Denied,
        Phase::Failed => MigrationState::Failed,
        Phase::Cancelled => MigrationState::Cancelled,
    }
}

/// What is read of a migration, from [`FROM`].
pub(super) const SELECT: &str = "
    SELECT migrations.*, containers.name AS container_name, containers.owner,
        source_edges.name AS source_name, target_edges.name AS target_name,
        (SELECT json_group_array(json(attempt)) FROM
            (SELECT attempt FROM migration_attempts WHERE migration = migrations.id
             ORDER BY position)) AS attempts";

/// A migration with its container and its edges.
pub(super) const FROM: &str = "
    FROM migrations
    JOIN containers ON containers.id = migrations.container
    JOIN edges AS source_edges ON source_edges.id = migrations.source
    LEFT JOIN edges AS target_edges ON target_edges.id = migrations.target";

pub(super) fn record(row: &SqliteRow) -> Result<MigrationRecord, StoreError> {
    let state: State = json(row, "state")?;
    let facts: Facts = json(row, "facts")?;
    let target: Option<&str> = row.try_get("target")?;
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    let cancel_asked_at: Option<i64> = row.try_get("cancel_asked_at")?;
    let terms = terms(row)?;
    let source_name: String = row.try_get("source_name")?;
    let failure = state.cause().filter(|cause| !cause.cancelled);
    let failure = failure.map(|cause| match facts.has_ended_at_source {
        true => format!(
            "{cause}; it does not run on `{source_name}` any more: that edge's machine has started anew, or it ended by itself. Its files are there as they were: start it there"
        ),
        false => cause.to_string(),
    });
    Ok(MigrationRecord {
        owner: parsed(row, "owner")?,
        can_be_cancelled: state.phase().is_before_the_commit() && cancel_asked_at.is_none(),
        migration: Migration {
            id: parsed(row, "id")?,
            container: parsed(row, "container")?,
            container_name: row.try_get("container_name")?,
            to: json(row, "destination")?,
            state: wire_state(state.phase()),
            source: parsed(row, "source")?,
            source_name,
            target: target
                .map(str::parse)
                .transpose()
                .map_err(|error: uuid::Error| corrupt("target", &error))?,
            target_name: row.try_get("target_name")?,
            attempts: json(row, "attempts")?,
            failure,
            waiting_for: row.try_get("waiting_for")?,
            needs_operator: needs_operator(row, &state)?,
            strategy: facts.strategy.map(|choice| ChosenStrategy {
                strategy: choice.strategy.into(),
                reason: choice.reason,
            }),
            max_downtime_ms: terms.max_downtime_ms,
            bandwidth_bytes_per_s: terms.bandwidth_bytes_per_s,
            expected_downtime_ms: facts.expected_downtime_ms,
            sending: None,
            timings: facts.timings,
            transferred: facts.transferred,
            stall_ms: facts.stall_ms,
            stall_steps: facts.stall_steps,
            cancel_asked_at_ms: cancel_asked_at.map(UnixMillis),
            created_at_ms: UnixMillis(row.try_get("created_at")?),
            ended_at_ms: ended_at.map(UnixMillis),
        },
    })
}
