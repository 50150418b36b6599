//! Migrations, as they are kept.

mod operator;
mod record;
mod transition;

use carnet_api::tls::Identity;
use carnet_api::v1::{Attempt, DestinationSpec, Migration, PhaseTiming, StallStep, Transferred};
use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Decision, Event};
use carnet_core::migration::{Choice, MigrationPlan, Phase, State, Terms};
use carnet_core::permit::{Fingerprint, Signer};
use carnet_core::policy::{Attributes, Requirements, attributes_from_json, requirements_from_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

pub use self::record::wire_state;
use self::record::{FROM, SELECT, record};
use self::transition::place;
use super::listing::{Listed, Search};
use super::{Store, StoreError, corrupt, json, parsed, to_json, unsigned};
use crate::agents::Endpoint;

/// A migration that has been asked for.
#[derive(Debug, Clone)]
pub struct NewMigration {
    pub id: MigrationId,
    pub container: ContainerId,
    pub requested_by: AccountId,
    pub to: DestinationSpec,
    pub terms: Terms,
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
    /// What it had when it was made ready.
    #[serde(default)]
    pub memory_bytes: u64,
    /// It did not run then.
    #[serde(default)]
    pub is_stopped: bool,
    /// It ran when its source described it.
    #[serde(default)]
    pub has_run: bool,
    /// It did not any more when its source had been told to go on with it.
    #[serde(default)]
    pub has_ended_at_source: bool,
    /// The rate at which its files went over, in bytes a second, where that was measured.
    #[serde(default)]
    pub bytes_per_s: Option<u64>,
    /// How long it was expected to stand still, before it was frozen.
    #[serde(default)]
    pub expected_downtime_ms: Option<u64>,
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
    pub terms: Terms,
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
    /// Its agent.
    pub source: Endpoint,
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

/// SQLite has no larger whole numbers; what is beyond them is as good as no limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How a migration was asked for.
fn terms(row: &SqliteRow) -> Result<Terms, StoreError> {
    let number = |column: &str| {
        let found: Option<i64> = row.try_get(column)?;
        Ok::<_, StoreError>(found.map(i64::unsigned_abs))
    };
    let strategy = match row.try_get::<Option<&str>, _>("strategy")? {
        Some(text) => {
            Some(serde_json::from_str(text).map_err(|error| corrupt("strategy", &error))?)
        }
        None => None,
    };
    Ok(Terms {
        strategy,
        max_downtime_ms: number("max_downtime_ms")?,
        bandwidth_bytes_per_s: number("bandwidth_bytes_per_s")?,
    })
}

/// Which migrations are listed.
const WANTED: &str = r"
    (?1 IS NULL OR containers.owner = ?1)
    AND (?2 IS NULL OR containers.name = ?2 OR containers.id = ?2)
    AND (?3 IS NULL OR containers.name LIKE ?3 ESCAPE '\'
        OR source_edges.name LIKE ?3 ESCAPE '\' OR target_edges.name LIKE ?3 ESCAPE '\')";

impl Store {
    /// # Errors
    /// A duplicate, where the container is being moved already.
    pub async fn create_migration(&self, new: &NewMigration) -> Result<(), StoreError> {
        let state = State::Admitting;
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO migrations
                 (id, container, requested_by, destination, strategy, max_downtime_ms,
                  bandwidth_bytes_per_s, source, state, phase, facts, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(new.container.to_string())
        .bind(new.requested_by.to_string())
        .bind(to_json(&new.to)?)
        .bind(new.terms.strategy.as_ref().map(to_json).transpose()?)
        .bind(new.terms.max_downtime_ms.map(whole))
        .bind(new.terms.bandwidth_bytes_per_s.map(whole))
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
        let query = format!("{SELECT} {FROM} WHERE migrations.id = ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(record)
            .transpose()
    }

    /// Migrations, the newest first: of containers of `owner`, or of everyone's; of the container
    /// `container` (name or id), or of all. They are looked for by the names of their container and
    /// their edges.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn migrations(
        &self,
        owner: Option<AccountId>,
        container: Option<&str>,
        search: &Search,
    ) -> Result<Listed<MigrationRecord>, StoreError> {
        let (owner, pattern) = (owner.map(|owner| owner.to_string()), search.pattern());
        let items = format!(
            "{SELECT} {FROM} WHERE {WANTED} ORDER BY migrations.id DESC LIMIT ?4 OFFSET ?5"
        );
        let items = sqlx::query(sqlx::AssertSqlSafe(items))
            .bind(&owner)
            .bind(container)
            .bind(&pattern)
            .bind(search.limit())
            .bind(search.offset)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect::<Result<_, _>>()?;
        let count = format!("SELECT count(*) AS count {FROM} WHERE {WANTED}");
        let count = sqlx::query(sqlx::AssertSqlSafe(count))
            .bind(&owner)
            .bind(container)
            .bind(&pattern)
            .fetch_one(&self.pool)
            .await?;
        Ok(Listed {
            items,
            count: unsigned(&count, "count")?,
        })
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
            terms: terms(&row)?,
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
        let row = sqlx::query("SELECT * FROM containers WHERE id = ?")
            .bind(container.to_string())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let requirements: Value = json(&row, "requirements")?;
        let edge = parsed(&row, "edge")?;
        Ok(Some(Moving {
            container,
            name: row.try_get("name")?,
            owner: parsed(&row, "owner")?,
            generation: unsigned(&row, "generation")?,
            edge,
            source: self.endpoint(edge).await?,
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
