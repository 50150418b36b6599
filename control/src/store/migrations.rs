use carnet_api::tls::Identity;
use carnet_api::v1::{
    Attempt, ChosenStrategy, DestinationSpec, Migration, MigrationState, NeedsOperator,
    PhaseTiming, StallStep, Transferred, Way,
};
use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Decision, Event};
use carnet_core::migration::{Choice, MigrationPlan, Phase, State, Strategy};
use carnet_core::permit::{Claim, Fingerprint, Part, Party, Permit, Policy, Signer};
use carnet_core::policy::{Attributes, Requirements, attributes_from_json, requirements_from_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::ledger::Writing;
use super::{Store, StoreError, corrupt, json, parsed, signed, to_json, unsigned};
use crate::agents::Endpoint;

/// A migration that has been asked for.
#[derive(Debug, Clone)]
pub struct NewMigration {
    pub id: MigrationId,
    pub container: ContainerId,
    pub requested_by: AccountId,
    pub to: DestinationSpec,
    /// How its memory is to go over; `None`: the best.
    pub strategy: Option<Strategy>,
    pub source: EdgeId,
    pub created_at: UnixMillis,
}

/// What is measured on the way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub timings: Vec<PhaseTiming>,
    pub transferred: Transferred,
    /// How memory goes over.
    pub strategy: Option<Choice>,
    pub stall_ms: Option<f64>,
    pub stall_steps: Vec<StallStep>,
}

/// A migration as its runner works on it.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: MigrationId,
    pub container: ContainerId,
    pub container_name: String,
    pub to: DestinationSpec,
    /// How its memory is to go over; `None`: the best.
    pub asked: Option<Strategy>,
    /// Its owner accepts that memory follows after it runs.
    pub allow_post_copy: bool,
    pub state: State,
    pub facts: Facts,
    /// How many candidates have been audited.
    pub attempts: u32,
    /// The permit that it is carried out under, once there is one.
    pub permit: Option<String>,
    /// Somebody was told that it is cancelled.
    pub cancelled: bool,
    /// An operator has declared an edge lost.
    pub source_lost: bool,
    pub target_lost: bool,
    /// Since when nothing that is asked is done.
    pub waiting_since: Option<UnixMillis>,
}

/// Why an edge is not declared lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotLost {
    /// In this phase it is not waited for.
    NotWaitedFor(Phase),
    /// It has not been asked in vain.
    NotInVain,
}

/// Why a transaction that would have taken a move further was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody was told that the move is cancelled.
    Cancelled,
    /// Something is not as it was, in words.
    Differs(String),
}

/// A new state of a migration, to be saved.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub id: MigrationId,
    pub state: &'a State,
    pub facts: &'a Facts,
    /// The attempt that led to it, with its position.
    pub attempt: Option<(u32, &'a Attempt)>,
    pub waiting_for: Option<&'a str>,
    /// Since when nothing that is asked is done.
    pub waiting_since: Option<UnixMillis>,
    /// That has been so for too long.
    pub needs_operator: bool,
    /// The state before it, where what that asks for remains to be done.
    pub owed: Option<&'a State>,
    pub now: UnixMillis,
}

/// What a permit is made of, beside the state that it leads to.
pub struct Permitting<'a> {
    pub plan: &'a MigrationPlan,
    pub decision: &'a Decision,
    pub container_name: &'a str,
    pub signer: &'a Signer,
    /// For how long it is good, in seconds.
    pub life_s: i64,
    /// Random: no two permits are alike.
    pub nonce: String,
}

/// A container that is to move, as it stands now.
#[derive(Debug, Clone)]
pub struct Moving {
    pub container: ContainerId,
    pub name: String,
    pub owner: AccountId,
    pub generation: u64,
    pub edge: EdgeId,
    pub edge_name: String,
    pub requirements: Requirements,
    pub requirements_revision: u64,
}

/// An edge that a container's owner may use.
#[derive(Debug, Clone)]
pub struct UsableEdge {
    pub endpoint: Endpoint,
    pub attributes: Attributes,
    pub attributes_revision: u64,
    pub enrolled: bool,
}

/// A migration as it is shown, with whose container it moves.
#[derive(Debug, Clone)]
pub struct MigrationRecord {
    pub migration: Migration,
    pub owner: AccountId,
    /// It has not been committed, and nobody has asked for it yet.
    pub can_be_cancelled: bool,
}

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

const SELECT: &str = "
    SELECT migrations.*, containers.name AS container_name, containers.owner,
        source_edges.name AS source_name, target_edges.name AS target_name,
        (SELECT json_group_array(json(attempt)) FROM
            (SELECT attempt FROM migration_attempts WHERE migration = migrations.id
             ORDER BY position)) AS attempts
    FROM migrations
    JOIN containers ON containers.id = migrations.container
    JOIN edges AS source_edges ON source_edges.id = migrations.source
    LEFT JOIN edges AS target_edges ON target_edges.id = migrations.target
    WHERE ";

fn record(row: &SqliteRow) -> Result<MigrationRecord, StoreError> {
    let state: State = json(row, "state")?;
    let facts: Facts = json(row, "facts")?;
    let target: Option<&str> = row.try_get("target")?;
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    let cancel_asked_at: Option<i64> = row.try_get("cancel_asked_at")?;
    let failure = state.cause().filter(|cause| !cause.cancelled);
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
            source_name: row.try_get("source_name")?,
            target: target
                .map(str::parse)
                .transpose()
                .map_err(|error: uuid::Error| corrupt("target", &error))?,
            target_name: row.try_get("target_name")?,
            attempts: json(row, "attempts")?,
            failure: failure.map(ToString::to_string),
            waiting_for: row.try_get("waiting_for")?,
            needs_operator: needs_operator(row, &state)?,
            strategy: facts.strategy.map(|choice| ChosenStrategy {
                strategy: choice.strategy.into(),
                reason: choice.reason,
            }),
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

/// What an operator has to decide, where one is asked.
fn needs_operator(row: &SqliteRow, state: &State) -> Result<Option<NeedsOperator>, StoreError> {
    let since: Option<i64> = row.try_get("waiting_since")?;
    let (true, Some(since)) = (row.try_get("needs_operator")?, since) else {
        return Ok(None);
    };
    let id: &str = row.try_get("id")?;
    let container: &str = row.try_get("container_name")?;
    let source: &str = row.try_get("source_name")?;
    let target: Option<&str> = row.try_get("target_name")?;
    Ok(Some(NeedsOperator {
        since_ms: UnixMillis(since),
        ways: ways(
            state,
            id,
            container,
            [source, target.unwrap_or("the target")],
        ),
    }))
}

/// The outcomes of a move that stands in `state`, each with what to type.
fn ways(state: &State, id: &str, container: &str, [source, target]: [&str; 2]) -> Vec<Way> {
    let waits_for = state.waits_for();
    let name = |part: &Part| match part {
        Part::Source => source,
        Part::Target => target,
    };
    let mut ways = vec![Way {
        when: match waits_for {
            [] => "what it waits for can be put right: it then goes on by itself".to_owned(),
            parts => {
                let names: Vec<_> = parts
                    .iter()
                    .map(|part| format!("`{}`", name(part)))
                    .collect();
                format!(
                    "{} can be brought back: start its agent there, and the move goes on by itself",
                    names.join(" or ")
                )
            }
        },
        command: format!("carnet migration show {id}"),
    }];
    let taken_back = format!(
        "`{target}`, and what ran on it, is gone for good: `{container}` goes on at `{source}` as it was when it was frozen, and what it did since is lost. Where `{target}` is only cut off and still runs it, there are two running copies until it can be reached: nobody but you can know"
    );
    for part in waits_for {
        let when = match (state.phase(), part) {
            (Phase::Releasing, Part::Target) => format!(
                "`{target}` is gone for good, and `{container}` with it: the move ends as completed"
            ),
            (Phase::Releasing, Part::Source) => format!(
                "`{source}` is gone for good: `{container}` runs on `{target}`, and the move ends as completed. If `{source}` comes back, its frozen copy is removed"
            ),
            (Phase::ResumingSource, _) => format!(
                "`{source}` is gone for good, and `{container}` with it: the move ends. If `{source}` comes back, `{container}` is let run on there"
            ),
            (Phase::DiscardingTarget, _) => format!(
                "`{target}` is gone for good: `{container}` runs on `{source}`, and the move ends. If `{target}` comes back, what was sent is removed there"
            ),
            _ => taken_back.clone(),
        };
        let word = match part {
            Part::Source => "--source-is-lost",
            Part::Target => "--target-is-lost",
        };
        ways.push(Way {
            when,
            command: format!("carnet migration give-up {id} {word}"),
        });
    }
    ways
}

impl Store {
    /// # Errors
    /// A duplicate, where the container is being moved already.
    pub async fn create_migration(&self, new: &NewMigration) -> Result<(), StoreError> {
        let state = State::Admitting;
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO migrations
                 (id, container, requested_by, destination, strategy, source, state, phase, facts,
                  created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(new.container.to_string())
        .bind(new.requested_by.to_string())
        .bind(to_json(&new.to)?)
        .bind(new.strategy.as_ref().map(to_json).transpose()?)
        .bind(new.source.to_string())
        .bind(to_json(&state)?)
        .bind(state.phase().name())
        .bind(to_json(&Facts {
            timings: vec![PhaseTiming {
                state: wire_state(state.phase()),
                started_at_ms: new.created_at,
                duration_ms: None,
            }],
            ..Facts::default()
        })?)
        .bind(new.created_at.0)
        .execute(&mut *transaction)
        .await?;
        let event = Event::Migration {
            migration: new.id,
            container: new.container,
            phase: state.phase(),
            generation: None,
            edge: place(&mut transaction, new.container)
                .await?
                .unwrap_or(new.source),
            cause: None,
        };
        transaction.enter(Actor::Account(new.requested_by), event);
        transaction.commit().await
    }

    /// One migration.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn migration(&self, id: MigrationId) -> Result<Option<MigrationRecord>, StoreError> {
        let query = format!("{SELECT} migrations.id = ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(record)
            .transpose()
    }

    /// At most `limit` migrations, the newest first: of containers of `owner`, or of everyone's;
    /// of the container `container` (name or id), or of all.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn migrations(
        &self,
        owner: Option<AccountId>,
        container: Option<&str>,
        limit: u32,
    ) -> Result<Vec<MigrationRecord>, StoreError> {
        let query = format!(
            "{SELECT} (?1 IS NULL OR containers.owner = ?1)
                 AND (?2 IS NULL OR containers.name = ?2 OR containers.id = ?2)
             ORDER BY migrations.id DESC LIMIT ?3"
        );
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(owner.map(|owner| owner.to_string()))
            .bind(container)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect()
    }

    /// Those that have not ended, or of which something remains to be done, the oldest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn migrations_under_way(&self) -> Result<Vec<MigrationId>, StoreError> {
        let query = "SELECT id FROM migrations WHERE ended_at IS NULL
             UNION SELECT migration FROM owed_effects ORDER BY id";
        sqlx::query(query)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|row| parsed(row, "id"))
            .collect()
    }

    /// # Errors
    /// Where the database does.
    pub async fn migration_run(&self, id: MigrationId) -> Result<Option<Run>, StoreError> {
        let row = sqlx::query(
            "SELECT migrations.*, containers.name AS container_name, containers.allow_post_copy,
                 (SELECT count(*) FROM migration_attempts WHERE migration = migrations.id)
                 AS attempts
             FROM migrations JOIN containers ON containers.id = migrations.container
             WHERE migrations.id = ?",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Run {
            id,
            container: parsed(&row, "container")?,
            container_name: row.try_get("container_name")?,
            to: json(&row, "destination")?,
            asked: match row.try_get::<Option<&str>, _>("strategy")? {
                Some(text) => {
                    Some(serde_json::from_str(text).map_err(|error| corrupt("strategy", &error))?)
                }
                None => None,
            },
            allow_post_copy: row.try_get("allow_post_copy")?,
            state: json(&row, "state")?,
            facts: json(&row, "facts")?,
            attempts: row.try_get("attempts")?,
            permit: row.try_get("permit")?,
            cancelled: row.try_get::<Option<i64>, _>("cancel_asked_at")?.is_some(),
            source_lost: row.try_get("source_lost")?,
            target_lost: row.try_get("target_lost")?,
            waiting_since: row
                .try_get::<Option<i64>, _>("waiting_since")?
                .map(UnixMillis),
        }))
    }

    /// # Errors
    /// Where the database does.
    pub async fn moving(&self, container: ContainerId) -> Result<Option<Moving>, StoreError> {
        let row = sqlx::query(
            "SELECT containers.*, edges.name AS edge_name
             FROM containers JOIN edges ON edges.id = containers.edge WHERE containers.id = ?",
        )
        .bind(container.to_string())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let requirements: Value = json(&row, "requirements")?;
        Ok(Some(Moving {
            container,
            name: row.try_get("name")?,
            owner: parsed(&row, "owner")?,
            generation: unsigned(&row, "generation")?,
            edge: parsed(&row, "edge")?,
            edge_name: row.try_get("edge_name")?,
            requirements: requirements_from_json(&requirements)
                .map_err(|faults| corrupt("requirements", &faults))?,
            requirements_revision: unsigned(&row, "requirements_revision")?,
        }))
    }

    /// The edges whose living share key `owner` has entered, by name.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn usable_edges(&self, owner: AccountId) -> Result<Vec<UsableEdge>, StoreError> {
        sqlx::query(
            "SELECT edges.* FROM edges JOIN share_keys ON share_keys.edge = edges.id
             WHERE grantee = ? AND redeemed_at IS NOT NULL AND share_keys.revoked_at IS NULL
             ORDER BY edges.name",
        )
        .bind(owner.to_string())
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            let attributes: Value = json(row, "attributes")?;
            let enrolled_at: Option<i64> = row.try_get("enrolled_at")?;
            Ok(UsableEdge {
                endpoint: endpoint(row)?,
                attributes: attributes_from_json(&attributes)
                    .map_err(|faults| corrupt("attributes", &faults))?,
                attributes_revision: unsigned(row, "attributes_revision")?,
                enrolled: enrolled_at.is_some(),
            })
        })
        .collect()
    }

    /// Whether another confirmed container of that name is on `edge`.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn name_is_taken(&self, edge: EdgeId, moving: &Moving) -> Result<bool, StoreError> {
        let taken: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM containers
             WHERE edge = ? AND name = ? AND id <> ? AND confirmed_at IS NOT NULL",
        )
        .bind(edge.to_string())
        .bind(&moving.name)
        .bind(moving.container.to_string())
        .fetch_one(&self.pool)
        .await?;
        Ok(taken > 0)
    }

    /// Where the agents of a plan's source and target are reached.
    ///
    /// # Errors
    /// Where the database does, or one of the edges is not in it.
    pub async fn endpoints(
        &self,
        plan: &MigrationPlan,
    ) -> Result<(Endpoint, Endpoint), StoreError> {
        Ok((
            self.endpoint(plan.source()).await?,
            self.endpoint(plan.target()).await?,
        ))
    }

    /// Where an edge's agent is reached.
    ///
    /// # Errors
    /// Where the database does, or the edge is not in it.
    pub async fn endpoint(&self, edge: EdgeId) -> Result<Endpoint, StoreError> {
        let row = sqlx::query("SELECT * FROM edges WHERE id = ?")
            .bind(edge.to_string())
            .fetch_one(&self.pool)
            .await?;
        endpoint(&row)
    }

    /// Keeps an attempt that led to nothing, and the decision. Kept again, it stands once.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn save_attempt(
        &self,
        id: MigrationId,
        position: u32,
        attempt: &Attempt,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        if insert_attempt(&mut transaction, id, position, attempt).await? {
            let event = Event::Decision(Box::new(decision.clone()));
            transaction.enter(Actor::Control, event);
        }
        transaction.commit().await
    }

    /// Keeps a permitted attempt, the decision, the permit that is made of it, and the state that
    /// it leads to, all in one transaction: if what was decided on is still so, and the move is not
    /// cancelled. Otherwise nothing changes, and why is returned.
    ///
    /// # Errors
    /// Where the database does; asked again, there is one permit.
    pub async fn permit(
        &self,
        permitting: &Permitting<'_>,
        step: Step<'_>,
    ) -> Result<Result<String, Refusal>, StoreError> {
        let mut transaction = self.write().await?;
        if is_kept(&mut transaction, step).await? {
            let permit: Option<String> =
                sqlx::query_scalar("SELECT permit FROM migrations WHERE id = ?")
                    .bind(step.id.to_string())
                    .fetch_one(&mut *transaction)
                    .await?;
            return Ok(
                permit.ok_or_else(|| Refusal::Differs("the migration has no permit".to_owned()))
            );
        }
        let plan = permitting.plan;
        if let Some(refusal) = refusal(&mut transaction, step.id, plan).await? {
            return Ok(Err(refusal));
        }
        let number = transaction.next_number().await?;
        let source = party(&mut transaction, plan.source()).await?;
        let target = party(&mut transaction, plan.target()).await?;
        let (source, target) = match (source, target) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(problem), _) | (_, Err(problem)) => return Ok(Err(Refusal::Differs(problem))),
        };
        let decision = permitting.decision;
        let permit = Permit {
            claim: Claim {
                iss: Claim::issuer(),
                jti: permitting.nonce.clone(),
                iat: step.now.0.div_euclid(1_000),
                sub: plan.container(),
                name: permitting.container_name.to_owned(),
                migration: step.id,
                generation: plan.generation(),
                source,
                target,
            },
            exp: step.now.0.div_euclid(1_000) + permitting.life_s,
            requirements: Policy::of(
                decision.requirements.revision,
                &decision.requirements.policy,
            ),
            attributes: Policy::of(decision.attributes.revision, &decision.attributes.policy),
            utilization: decision.utilization,
            decision: number,
        };
        let permit = permitting
            .signer
            .sign(&permit)
            .map_err(|error| corrupt("permit", &error))?;
        transaction.enter(Actor::Control, Event::Decision(Box::new(decision.clone())));
        transaction.enter(
            Actor::Control,
            Event::Permit {
                migration: step.id,
                permit: permit.clone(),
            },
        );
        sqlx::query("UPDATE migrations SET permit = ? WHERE id = ?")
            .bind(&permit)
            .bind(step.id.to_string())
            .execute(&mut *transaction)
            .await?;
        update(&mut transaction, step).await?;
        transaction.commit().await?;
        Ok(Ok(permit))
    }

    /// Keeps that `by` wants a migration to be cancelled, if it has not come past its commit: it
    /// will not be committed any more. The phase in which it is too late is returned. Asked again, or
    /// of a move that is being undone anyway, nothing is changed.
    ///
    /// # Errors
    /// Where the database does, or there is no such migration.
    pub async fn cancel_migration(
        &self,
        id: MigrationId,
        by: AccountId,
        now: UnixMillis,
    ) -> Result<Result<(), Phase>, StoreError> {
        let mut transaction = self.write().await?;
        let row =
            sqlx::query("SELECT container, state, cancel_asked_at FROM migrations WHERE id = ?")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        if row.try_get::<Option<i64>, _>("cancel_asked_at")?.is_some() {
            return Ok(Ok(()));
        }
        let state: State = json(&row, "state")?;
        match state.phase() {
            phase if phase.is_before_the_commit() => {}
            Phase::ResumingSource | Phase::DiscardingTarget => return Ok(Ok(())),
            phase => return Ok(Err(phase)),
        }
        sqlx::query("UPDATE migrations SET cancel_asked_at = ? WHERE id = ?")
            .bind(now.0)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let event = Event::Cancel {
            migration: id,
            container: parsed(&row, "container")?,
        };
        transaction.enter(Actor::Account(by), event);
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// Keeps that `by` declares an edge of a migration lost, if the migration waits for that edge in
    /// vain. Asked again, nothing is changed.
    ///
    /// # Errors
    /// Where the database does, or there is no such migration.
    pub async fn declare_lost(
        &self,
        id: MigrationId,
        part: Part,
        by: AccountId,
    ) -> Result<Result<(), NotLost>, StoreError> {
        let mut transaction = self.write().await?;
        let query = "SELECT container, state, waiting_for, source_lost, target_lost
             FROM migrations WHERE id = ?";
        let row = sqlx::query(query)
            .bind(id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let (column, update) = match part {
            Part::Source => (
                "source_lost",
                "UPDATE migrations SET source_lost = 1 WHERE id = ?",
            ),
            Part::Target => (
                "target_lost",
                "UPDATE migrations SET target_lost = 1 WHERE id = ?",
            ),
        };
        if row.try_get(column)? {
            return Ok(Ok(()));
        }
        let state: State = json(&row, "state")?;
        let (true, Some(plan)) = (state.waits_for().contains(&part), state.plan()) else {
            return Ok(Err(NotLost::NotWaitedFor(state.phase())));
        };
        if row.try_get::<Option<&str>, _>("waiting_for")?.is_none() {
            return Ok(Err(NotLost::NotInVain));
        }
        sqlx::query(update)
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let event = Event::Lost {
            migration: id,
            container: parsed(&row, "container")?,
            edge: match part {
                Part::Source => plan.source(),
                Part::Target => plan.target(),
            },
            part,
        };
        transaction.enter(Actor::Account(by), event);
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// States of a migration whose effects remain to be done.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn owed(&self, id: MigrationId) -> Result<Vec<State>, StoreError> {
        sqlx::query("SELECT state FROM owed_effects WHERE migration = ?")
            .bind(id.to_string())
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|row| json(row, "state"))
            .collect()
    }

    /// What `state` asks for has been done after all.
    ///
    /// # Errors
    /// Where the database does; asked again, it is not owed either.
    pub async fn is_paid(&self, id: MigrationId, state: &State) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM owed_effects WHERE migration = ? AND state = ?")
            .bind(id.to_string())
            .bind(to_json(state)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Keeps a new state.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn save_step(&self, step: Step<'_>) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        update(&mut transaction, step).await?;
        transaction.commit().await
    }

    /// The commit: if everything is still as the audit saw it, and the move is not cancelled, the
    /// container is the target's, its generation is raised, and the new state is kept, all in one
    /// transaction. Otherwise nothing changes, and why is returned.
    ///
    /// # Errors
    /// Where the database does; it is then not known whether it was committed. Asked again, it
    /// is committed once.
    pub async fn commit(
        &self,
        plan: &MigrationPlan,
        step: Step<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let mut transaction = self.write().await?;
        if is_kept(&mut transaction, step).await? {
            return Ok(Ok(()));
        }
        if let Some(refusal) = refusal(&mut transaction, step.id, plan).await? {
            return Ok(Err(refusal));
        }
        let to = (plan.target(), plan.committed_generation());
        if let Err(problem) = put(&mut transaction, plan, plan.generation(), to).await? {
            return Ok(Err(Refusal::Differs(problem)));
        }
        update(&mut transaction, step).await?;
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// What is not as `plan`'s audit saw it any more, in words; `None` while nothing has changed.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn withdrawn(&self, plan: &MigrationPlan) -> Result<Option<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        difference(&mut connection, plan).await
    }

    /// The commit in the other direction, after the target has confirmed that it holds nothing.
    /// What is in the way is returned.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn take_back(
        &self,
        plan: &MigrationPlan,
        step: Step<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let mut transaction = self.write().await?;
        if is_kept(&mut transaction, step).await? {
            return Ok(Ok(()));
        }
        let to = (plan.source(), plan.taken_back_generation());
        if let Err(problem) = put(&mut transaction, plan, plan.committed_generation(), to).await? {
            return Ok(Err(Refusal::Differs(problem)));
        }
        update(&mut transaction, step).await?;
        transaction.commit().await?;
        Ok(Ok(()))
    }
}

/// Whether `step` was kept before, although whoever asked for it was not told.
async fn is_kept(connection: &mut SqliteConnection, step: Step<'_>) -> Result<bool, StoreError> {
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM migrations WHERE id = ? AND state = ?")
            .bind(step.id.to_string())
            .bind(to_json(step.state)?)
            .fetch_one(connection)
            .await?;
    Ok(kept > 0)
}

/// Puts the container of `plan`, whose generation is to be `generation`, on another edge under
/// another generation. What is in the way is returned, in words.
async fn put(
    connection: &mut SqliteConnection,
    plan: &MigrationPlan,
    generation: u64,
    (edge, raised): (EdgeId, u64),
) -> Result<Result<(), String>, StoreError> {
    let done = sqlx::query(
        "UPDATE containers SET edge = ?, generation = ? WHERE id = ? AND generation = ?",
    )
    .bind(edge.to_string())
    .bind(signed(raised))
    .bind(plan.container().to_string())
    .bind(signed(generation))
    .execute(connection)
    .await
    .map_err(StoreError::from);
    let refusal = match done {
        Err(error) if error.is_duplicate() && edge == plan.source() => {
            "another container of that name has been confirmed on the source"
        }
        Err(error) if error.is_duplicate() => {
            "another container of that name has been confirmed on the target"
        }
        done => match done?.rows_affected() {
            1 => return Ok(Ok(())),
            _ => "the container's generation is not what this migration made it",
        },
    };
    Ok(Err(refusal.to_owned()))
}

/// An edge's agent, from a row of `edges`.
pub(super) fn endpoint(row: &SqliteRow) -> Result<Endpoint, StoreError> {
    let certificate: Option<&str> = row.try_get("certificate")?;
    let pending: Option<&str> = row.try_get("pending_certificate")?;
    Ok(Endpoint {
        edge: parsed(row, "id")?,
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        certificate: certificate
            .map(str::parse)
            .transpose()
            .map_err(|error| corrupt("certificate", &error))?,
        pending: pending.map(fingerprint_of).transpose()?,
    })
}

/// Of a certificate that is kept as PEM.
pub(super) fn fingerprint_of(certificate: &str) -> Result<Fingerprint, StoreError> {
    Identity::fingerprint_of(certificate).map_err(|error| corrupt("pending_certificate", &error))
}

/// What keeps a move from being taken further: that it is cancelled, or that something is not as
/// `plan`'s audit saw it.
async fn refusal(
    connection: &mut SqliteConnection,
    id: MigrationId,
    plan: &MigrationPlan,
) -> Result<Option<Refusal>, StoreError> {
    let cancelled: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM migrations WHERE id = ? AND cancel_asked_at IS NOT NULL",
    )
    .bind(id.to_string())
    .fetch_one(&mut *connection)
    .await?;
    if cancelled > 0 {
        return Ok(Some(Refusal::Cancelled));
    }
    Ok(difference(connection, plan).await?.map(Refusal::Differs))
}

/// What is not as `plan`'s audit saw it any more.
async fn difference(
    connection: &mut SqliteConnection,
    plan: &MigrationPlan,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(
        "SELECT generation, containers.edge, requirements_revision, confirmed_at,
             (SELECT attributes_revision FROM edges WHERE id = ?2) AS attributes_revision,
             (SELECT revoked_at FROM edges WHERE id = ?2) AS revoked_at,
             (SELECT count(*) FROM share_keys
              WHERE share_keys.edge = ?2 AND grantee = containers.owner
                  AND redeemed_at IS NOT NULL AND revoked_at IS NULL) AS keys
         FROM containers WHERE id = ?1",
    )
    .bind(plan.container().to_string())
    .bind(plan.target().to_string())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else {
        return Ok(Some("the container is not registered any more".to_owned()));
    };
    let confirmed_at: Option<i64> = row.try_get("confirmed_at")?;
    let attributes_revision: Option<i64> = row.try_get("attributes_revision")?;
    let keys: i64 = row.try_get("keys")?;
    let revoked_at: Option<i64> = row.try_get("revoked_at")?;
    let edge: EdgeId = parsed(&row, "edge")?;
    let difference = if unsigned(&row, "generation")? != plan.generation() || edge != plan.source()
    {
        "the container has been moved meanwhile"
    } else if unsigned(&row, "requirements_revision")? != plan.requirements_revision() {
        "the container's requirements have changed since the move was permitted"
    } else if attributes_revision != Some(signed(plan.attributes_revision())) {
        "the target's attributes have changed since the move was permitted"
    } else if revoked_at.is_some() {
        "the target's agent has been disenrolled since the move was permitted"
    } else if keys == 0 {
        "the owner's share key of the target has been revoked since the move was permitted"
    } else if confirmed_at.is_none() {
        "the container's registration is not confirmed any more"
    } else {
        return Ok(None);
    };
    Ok(Some(difference.to_owned()))
}

/// The edge that a container is on; `None` where it is not registered any more.
async fn place(
    connection: &mut SqliteConnection,
    container: ContainerId,
) -> Result<Option<EdgeId>, StoreError> {
    sqlx::query("SELECT edge FROM containers WHERE id = ?")
        .bind(container.to_string())
        .fetch_optional(connection)
        .await?
        .map(|row| parsed(&row, "edge"))
        .transpose()
}

/// An edge with its certificate, for a permit; what keeps it from being named, in words.
async fn party(
    connection: &mut SqliteConnection,
    edge: EdgeId,
) -> Result<Result<Party, String>, StoreError> {
    let row = sqlx::query("SELECT * FROM edges WHERE id = ? AND revoked_at IS NULL")
        .bind(edge.to_string())
        .fetch_optional(connection)
        .await?;
    let found = row.as_ref().map(endpoint).transpose()?;
    Ok(match found {
        // Which of the two it shows is not known.
        Some(found) if found.pending.is_some() => Err(format!(
            "the certificate of edge `{}` is being renewed, which takes seconds where its agent can be reached; ask for the move again",
            found.name
        )),
        Some(Endpoint {
            certificate: Some(certificate),
            ..
        }) => Ok(Party { edge, certificate }),
        _ => Err("source or target has no certificate: it has to be enrolled again".to_owned()),
    })
}

/// Saves a step, and enters it into the ledger where it leads into another phase.
async fn update(writing: &mut Writing, step: Step<'_>) -> Result<(), StoreError> {
    if let Some((position, attempt)) = step.attempt {
        insert_attempt(writing, step.id, position, attempt).await?;
    }
    let phase = step.state.phase();
    let before = sqlx::query("SELECT container, source, phase FROM migrations WHERE id = ?")
        .bind(step.id.to_string())
        .fetch_optional(&mut **writing)
        .await?;
    let is_there = before.is_some();
    // Where somebody has taken the migration out of the database, there is nothing to tell of;
    // the edges are brought to an end all the same.
    if let Some(before) = before
        && before.try_get::<&str, _>("phase")? != phase.name()
    {
        let container = parsed(&before, "container")?;
        let source: EdgeId = parsed(&before, "source")?;
        let event = Event::Migration {
            migration: step.id,
            container,
            phase,
            generation: step.state.generation(),
            edge: place(writing, container).await?.unwrap_or(source),
            cause: step.state.cause().map(ToString::to_string),
        };
        writing.enter(Actor::Control, event);
    }
    if let (Some(owed), true) = (step.owed, is_there) {
        let query = "INSERT OR IGNORE INTO owed_effects (migration, state) VALUES (?, ?)";
        sqlx::query(query)
            .bind(step.id.to_string())
            .bind(to_json(owed)?)
            .execute(&mut **writing)
            .await?;
    }
    let plan = step.state.plan();
    // The source as well: until the permit, another move may have ended since it was asked for.
    sqlx::query(
        "UPDATE migrations
         SET state = ?, phase = ?, source = coalesce(?, source), target = coalesce(?, target),
             waiting_for = ?, waiting_since = ?, needs_operator = ?, facts = ?, ended_at = ?
         WHERE id = ?",
    )
    .bind(to_json(step.state)?)
    .bind(phase.name())
    .bind(plan.map(|plan| plan.source().to_string()))
    .bind(plan.map(|plan| plan.target().to_string()))
    .bind(step.waiting_for)
    .bind(step.waiting_since.map(|since| since.0))
    .bind(step.needs_operator)
    .bind(to_json(step.facts)?)
    .bind(phase.is_ended().then_some(step.now.0))
    .bind(step.id.to_string())
    .execute(&mut **writing)
    .await?;
    Ok(())
}

/// Returns whether it was not kept before.
async fn insert_attempt(
    connection: &mut SqliteConnection,
    id: MigrationId,
    position: u32,
    attempt: &Attempt,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT OR IGNORE INTO migration_attempts (migration, position, attempt)
         VALUES (?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(position)
    .bind(to_json(attempt)?)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}
