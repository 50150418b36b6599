//! What changes a migration: each in one transaction, with what the ledger says of it.

use carnet_api::v1::Attempt;
use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Decision, Event};
use carnet_core::migration::{MigrationPlan, Phase, State};
use carnet_core::permit::{Claim, Part, Party, Permit, Policy};
use sqlx::{Row, SqliteConnection};

use crate::agents::Endpoint;
use crate::store::ledger::Writing;
use crate::store::{Store, StoreError, corrupt, json, parsed, signed, to_json, unsigned};

use super::{NotLost, Permitting, Refusal, Step, endpoint};

impl Store {
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
pub(super) async fn place(
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
