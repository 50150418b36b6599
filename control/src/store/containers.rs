use carnet_api::v1::{Container, ContainerRegistration, ContainerState};
use carnet_core::ids::{AccountId, ContainerId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event, Policed};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::edges::bind;
use super::listing::{Listed, Search, Sight, Whose};
use super::{Store, StoreError, corrupt, json, parsed, to_json, unsigned};

/// A container to be registered; pending until it is confirmed.
#[derive(Debug, Clone)]
pub struct NewContainer {
    pub id: ContainerId,
    pub name: String,
    pub owner: AccountId,
    pub edge: EdgeId,
    pub requirements: Value,
    pub allow_post_copy: bool,
    pub created_at: UnixMillis,
}

/// A container, with who owns the edge it is on.
#[derive(Debug, Clone)]
pub struct ContainerRecord {
    pub container: Container,
    pub edge_owner: AccountId,
}

const SELECT: &str = "
    SELECT containers.*, edges.name AS edge_name, edges.owner AS edge_owner,
        container_sightings.state, container_sightings.since,
        (SELECT migrations.id FROM migrations
         WHERE migrations.container = containers.id AND ended_at IS NULL) AS migration
    FROM containers JOIN edges ON edges.id = containers.edge
    LEFT JOIN container_sightings ON container_sightings.container = containers.id
    WHERE ";

/// Containers that are seen, of those those that are wanted; ?1 to ?4: the sight.
const WANTED: &str = r"
    (?2 OR (?3 AND edges.owner = ?1) OR (?4 AND containers.owner = ?1))
    AND (?5 IS NULL OR (?4 AND containers.owner = ?1) = ?5)
    AND (?6 IS NULL OR containers.name LIKE ?6 ESCAPE '\'
        OR (SELECT name FROM accounts WHERE id = containers.owner) LIKE ?6 ESCAPE '\'
        OR edges.name LIKE ?6 ESCAPE '\'
        OR json_extract(edges.attributes, '$.region') LIKE ?6 ESCAPE '\'
        OR json_extract(edges.attributes, '$.location') IN (SELECT value FROM json_each(?7))
        OR EXISTS (SELECT 1 FROM json_each(edges.attributes, '$.organizations')
                   WHERE value LIKE ?6 ESCAPE '\'))";

fn record(row: &SqliteRow) -> Result<ContainerRecord, StoreError> {
    let created_at_ms = UnixMillis(row.try_get("created_at")?);
    let confirmed_at: Option<i64> = row.try_get("confirmed_at")?;
    let state: Option<&str> = row.try_get("state")?;
    let since: Option<i64> = row.try_get("since")?;
    let migration: Option<&str> = row.try_get("migration")?;
    Ok(ContainerRecord {
        container: Container {
            id: parsed(row, "id")?,
            name: row.try_get("name")?,
            owner: parsed(row, "owner")?,
            edge: parsed(row, "edge")?,
            edge_name: row.try_get("edge_name")?,
            requirements: json(row, "requirements")?,
            requirements_revision: unsigned(row, "requirements_revision")?,
            allow_post_copy: row.try_get("allow_post_copy")?,
            generation: unsigned(row, "generation")?,
            registration: match confirmed_at {
                Some(_) => ContainerRegistration::Confirmed,
                None => ContainerRegistration::Pending,
            },
            state: match state {
                Some(name) => {
                    serde_json::from_value(name.into()).map_err(|error| corrupt("state", &error))?
                }
                None => ContainerState::Unknown,
            },
            state_since_at_ms: since.map_or(created_at_ms, UnixMillis),
            migration: migration
                .map(str::parse)
                .transpose()
                .map_err(|error: uuid::Error| corrupt("migration", &error))?,
            created_at_ms,
        },
        edge_owner: parsed(row, "edge_owner")?,
    })
}

/// What the ledger says of requirements.
fn requirements(
    container: ContainerId,
    owner: AccountId,
    revision: u64,
    required: &Value,
) -> Event {
    Event::Requirements {
        container,
        owner,
        requirements: Policed {
            revision,
            policy: required.clone(),
        },
    }
}

/// What the ledger says of what an owner accepts.
fn allowed(container: ContainerId, allow_post_copy: bool) -> Event {
    Event::Allowed {
        container,
        allow_post_copy,
    }
}

/// What the ledger says of a container that has been confirmed.
fn confirmed_event(container: ContainerId, row: &SqliteRow) -> Result<Event, StoreError> {
    Ok(Event::Confirmed {
        container,
        edge: parsed(row, "edge")?,
        generation: unsigned(row, "generation")?,
    })
}

impl Store {
    /// # Errors
    /// A duplicate, where the owner has a container of that name.
    pub async fn create_container(&self, new: &NewContainer) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO containers (id, name, owner, edge, requirements,
                 requirements_revision, generation, allow_post_copy, created_at)
             VALUES (?, ?, ?, ?, ?, 1, 1, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(&new.name)
        .bind(new.owner.to_string())
        .bind(new.edge.to_string())
        .bind(to_json(&new.requirements)?)
        .bind(new.allow_post_copy)
        .bind(new.created_at.0)
        .execute(&mut *transaction)
        .await?;
        transaction.enter(
            Actor::Account(new.owner),
            requirements(new.id, new.owner, 1, &new.requirements),
        );
        if new.allow_post_copy {
            transaction.enter(Actor::Account(new.owner), allowed(new.id, true));
        }
        transaction.commit().await
    }

    /// Containers, by name: those that are seen and wanted. They are looked for by their name and
    /// their owner's, and by name, region, country and organization of the edge that they are on.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn containers(
        &self,
        sight: &Sight,
        whose: Whose,
        search: &Search,
    ) -> Result<Listed<ContainerRecord>, StoreError> {
        let (pattern, countries) = (search.pattern(), search.countries()?);
        let bound = |query| {
            bind(query, sight)
                .bind(whose.is_own())
                .bind(pattern.clone())
                .bind(countries.clone())
                .bind(search.limit())
                .bind(search.offset)
        };
        let order = "ORDER BY containers.name, containers.id LIMIT ?8 OFFSET ?9";
        let items = format!("{SELECT} {WANTED} {order}");
        let items = bound(sqlx::query(sqlx::AssertSqlSafe(items)))
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect::<Result<_, _>>()?;
        let count = format!(
            "SELECT count(*) AS count FROM containers JOIN edges ON edges.id = containers.edge
             WHERE {WANTED}"
        );
        let count = bound(sqlx::query(sqlx::AssertSqlSafe(count)))
            .fetch_one(&self.pool)
            .await?;
        Ok(Listed {
            items,
            count: unsigned(&count, "count")?,
        })
    }

    /// Containers of that name or id; a name may be used by several owners.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn containers_named(
        &self,
        name_or_id: &str,
    ) -> Result<Vec<ContainerRecord>, StoreError> {
        let query = format!("{SELECT} containers.name = ?1 OR containers.id = ?1");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(name_or_id)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect()
    }

    /// Replaces a container's requirements and raises their revision.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_requirements(
        &self,
        container: ContainerId,
        required: &Value,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE containers
             SET requirements = ?, requirements_revision = requirements_revision + 1
             WHERE id = ? RETURNING owner, requirements_revision",
        )
        .bind(to_json(required)?)
        .bind(container.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        let owner = parsed(&row, "owner")?;
        let revision = unsigned(&row, "requirements_revision")?;
        transaction.enter(
            Actor::Account(owner),
            requirements(container, owner, revision, required),
        );
        transaction.commit().await
    }

    /// Keeps whether a container's owner accepts that memory follows after it runs.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_allow_post_copy(
        &self,
        container: ContainerId,
        by: AccountId,
        allow_post_copy: bool,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "UPDATE containers SET allow_post_copy = ?1 WHERE id = ?2 AND allow_post_copy <> ?1",
        )
        .bind(allow_post_copy)
        .bind(container.to_string())
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() > 0 {
            transaction.enter(Actor::Account(by), allowed(container, allow_post_copy));
        }
        transaction.commit().await
    }

    /// Keeps the hash of a claim code that has been given out; a code given out before is good no
    /// more.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_claim(
        &self,
        container: ContainerId,
        claim_hash: &[u8],
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE containers SET claim_hash = ?, claim_expires_at = ? WHERE id = ?")
            .bind(claim_hash)
            .bind(expires_at.0)
            .bind(container.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Confirms a container whose claim code, found inside it, has this hash; says whether that
    /// was the code, and still good.
    ///
    /// # Errors
    /// A duplicate, where another owner's registration of it was confirmed first.
    pub async fn confirm_by_claim(
        &self,
        container: ContainerId,
        found_hash: &[u8],
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let confirmed = sqlx::query(
            "UPDATE containers
             SET confirmed_at = ?1, claim_hash = NULL, claim_expires_at = NULL
             WHERE id = ?2 AND claim_hash = ?3 AND claim_expires_at > ?1 AND confirmed_at IS NULL
             RETURNING owner, edge, generation",
        )
        .bind(now.0)
        .bind(container.to_string())
        .bind(found_hash)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = confirmed else {
            return Ok(false);
        };
        let owner = parsed(&row, "owner")?;
        transaction.enter(Actor::Account(owner), confirmed_event(container, &row)?);
        transaction.commit().await?;
        Ok(true)
    }

    /// Confirms a container on its edge owner's word.
    ///
    /// # Errors
    /// A duplicate, where another owner's registration of it was confirmed first.
    pub async fn confirm_container(
        &self,
        container: ContainerId,
        by: AccountId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let confirmed = sqlx::query(
            "UPDATE containers
             SET confirmed_at = ?, claim_hash = NULL, claim_expires_at = NULL
             WHERE id = ? AND confirmed_at IS NULL RETURNING edge, generation",
        )
        .bind(now.0)
        .bind(container.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(row) = confirmed {
            transaction.enter(Actor::Account(by), confirmed_event(container, &row)?);
        }
        transaction.commit().await
    }

    /// Forgets a container, unless it is being moved; says whether it did.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn delete_container(
        &self,
        container: ContainerId,
        by: AccountId,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let done = sqlx::query(
            "DELETE FROM containers WHERE id = ?1 AND NOT EXISTS (
                 SELECT 1 FROM migrations WHERE container = ?1 AND ended_at IS NULL)",
        )
        .bind(container.to_string())
        .execute(&mut *transaction)
        .await?;
        let forgotten = done.rows_affected() > 0;
        if forgotten {
            transaction.enter(Actor::Account(by), Event::Forgotten { container });
        }
        transaction.commit().await?;
        Ok(forgotten)
    }
}
