use carnet_api::v1::{DetectedFacts, Health, HealthState, UtilizationReading};
use carnet_core::ids::{AccountId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event, Policed};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::listing::{Listed, Search, Sight, Whose};
use super::{Store, StoreError, corrupt, json, parsed, to_json, unsigned};

/// An edge to be registered.
#[derive(Debug, Clone)]
pub struct NewEdge {
    pub id: EdgeId,
    pub name: String,
    pub owner: AccountId,
    pub address: String,
    pub attributes: Value,
    pub created_at: UnixMillis,
}

/// An edge, with what the monitor saw of it last.
#[derive(Debug, Clone)]
pub struct EdgeRecord {
    pub id: EdgeId,
    pub name: String,
    pub owner: AccountId,
    pub address: String,
    pub attributes: Value,
    pub attributes_revision: u64,
    pub enrolled: bool,
    pub detected: Option<DetectedFacts>,
    pub health: Health,
    pub utilization: Option<UtilizationReading>,
    pub active_containers: u64,
    pub created_at: UnixMillis,
}

const SELECT: &str = "
    SELECT edges.*, health, since, problems, cpu_hundredths, memory_hundredths, read_at,
        (SELECT count(*) FROM containers JOIN container_sightings ON container = containers.id
         WHERE containers.edge = edges.id AND confirmed_at IS NOT NULL AND state = 'running')
        AS active_containers
    FROM edges LEFT JOIN edge_sightings ON edge = edges.id
    WHERE ";

/// Edges that are seen, of those those that are wanted; ?1 to ?4: the sight.
const WANTED: &str = r"
    (?2 OR (?3 AND edges.owner = ?1) OR (?4 AND edges.id IN
        (SELECT edge FROM share_keys
         WHERE grantee = ?1 AND redeemed_at IS NOT NULL AND revoked_at IS NULL)))
    AND (?5 IS NULL OR (edges.owner = ?1) = ?5)
    AND (?6 IS NULL OR edges.name LIKE ?6 ESCAPE '\'
        OR json_extract(attributes, '$.region') LIKE ?6 ESCAPE '\'
        OR json_extract(attributes, '$.location') IN (SELECT value FROM json_each(?7))
        OR EXISTS (SELECT 1 FROM json_each(attributes, '$.organizations')
                   WHERE value LIKE ?6 ESCAPE '\'))";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Binds who looks to the first four variables.
pub(super) fn bind<'q>(query: Query<'q>, sight: &Sight) -> Query<'q> {
    query
        .bind(sight.account.to_string())
        .bind(sight.sees_everything)
        .bind(sight.is_edge_owner)
        .bind(sight.is_container_owner)
}

fn record(row: &SqliteRow) -> Result<EdgeRecord, StoreError> {
    let created_at = UnixMillis(row.try_get("created_at")?);
    let enrolled_at: Option<i64> = row.try_get("enrolled_at")?;
    let detected: Option<&str> = row.try_get("detected")?;
    let health: Option<&str> = row.try_get("health")?;
    let health = match health {
        None => Health {
            state: HealthState::Unknown,
            since_at_ms: created_at,
            problems: Vec::new(),
        },
        Some(name) => Health {
            state: serde_json::from_value(name.into())
                .map_err(|error| corrupt("health", &error))?,
            since_at_ms: UnixMillis(row.try_get("since")?),
            problems: json(row, "problems")?,
        },
    };
    Ok(EdgeRecord {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        owner: parsed(row, "owner")?,
        address: row.try_get("address")?,
        attributes: json(row, "attributes")?,
        attributes_revision: unsigned(row, "attributes_revision")?,
        enrolled: enrolled_at.is_some(),
        detected: detected
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| corrupt("detected", &error))?,
        health,
        utilization: utilization(row)?,
        active_containers: unsigned(row, "active_containers")?,
        created_at,
    })
}

/// A reading, from columns named as those of `edge_sightings`.
pub(super) fn utilization(row: &SqliteRow) -> Result<Option<UtilizationReading>, StoreError> {
    let (cpu, memory, read_at): (Option<i64>, Option<i64>, Option<i64>) = (
        row.try_get("cpu_hundredths")?,
        row.try_get("memory_hundredths")?,
        row.try_get("read_at")?,
    );
    Ok(match (cpu, memory, read_at) {
        (Some(cpu), Some(memory), Some(read_at)) => Some(UtilizationReading {
            cpu_percent: cpu as f64 / 100.0,
            memory_percent: memory as f64 / 100.0,
            read_at_ms: UnixMillis(read_at),
        }),
        _ => None,
    })
}

/// What the ledger says of declared attributes.
fn attributes(edge: EdgeId, owner: AccountId, revision: u64, declared: &Value) -> Event {
    Event::Attributes {
        edge,
        owner,
        attributes: Policed {
            revision,
            policy: declared.clone(),
        },
    }
}

impl Store {
    /// # Errors
    /// A duplicate, where name or address is taken.
    pub async fn create_edge(&self, new: &NewEdge) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO edges
                 (id, name, owner, address, attributes, attributes_revision, created_at)
             VALUES (?, ?, ?, ?, ?, 1, ?)",
        )
        .bind(new.id.to_string())
        .bind(&new.name)
        .bind(new.owner.to_string())
        .bind(&new.address)
        .bind(to_json(&new.attributes)?)
        .bind(new.created_at.0)
        .execute(&mut *transaction)
        .await?;
        transaction.enter(
            Actor::Account(new.owner),
            attributes(new.id, new.owner, 1, &new.attributes),
        );
        transaction.commit().await
    }

    /// Edges, by name: those that are seen and wanted. They are looked for by name, region, country
    /// and organization.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn edges(
        &self,
        sight: &Sight,
        whose: Whose,
        search: &Search,
    ) -> Result<Listed<EdgeRecord>, StoreError> {
        let (pattern, countries) = (search.pattern(), search.countries()?);
        let bound = |query| {
            bind(query, sight)
                .bind(whose.is_own())
                .bind(pattern.clone())
                .bind(countries.clone())
                .bind(search.limit())
                .bind(search.offset)
        };
        let items = format!("{SELECT} {WANTED} ORDER BY name LIMIT ?8 OFFSET ?9");
        let items = bound(sqlx::query(sqlx::AssertSqlSafe(items)))
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect::<Result<_, _>>()?;
        let count = format!("SELECT count(*) AS count FROM edges WHERE {WANTED}");
        let count = bound(sqlx::query(sqlx::AssertSqlSafe(count)))
            .fetch_one(&self.pool)
            .await?;
        Ok(Listed {
            items,
            count: unsigned(&count, "count")?,
        })
    }

    /// An edge by its name or id.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn edge(&self, name_or_id: &str) -> Result<Option<EdgeRecord>, StoreError> {
        let query = format!("{SELECT} name = ?1 OR id = ?1");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(name_or_id)
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(record)
            .transpose()
    }

    /// Replaces an edge's attributes and raises their revision.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_attributes(&self, edge: EdgeId, declared: &Value) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE edges SET attributes = ?, attributes_revision = attributes_revision + 1
             WHERE id = ? RETURNING owner, attributes_revision",
        )
        .bind(to_json(declared)?)
        .bind(edge.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        let owner = parsed(&row, "owner")?;
        let revision = unsigned(&row, "attributes_revision")?;
        transaction.enter(
            Actor::Account(owner),
            attributes(edge, owner, revision, declared),
        );
        transaction.commit().await
    }

    /// Keeps what an edge's agent found on its machine; says whether that is something else than
    /// before.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_detected(
        &self,
        edge: EdgeId,
        detected: &DetectedFacts,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let done =
            sqlx::query("UPDATE edges SET detected = ?1 WHERE id = ?2 AND detected IS NOT ?1")
                .bind(to_json(detected)?)
                .bind(edge.to_string())
                .execute(&mut *transaction)
                .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// The edges whose living share key `account` has entered.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn edges_shared_with(&self, account: AccountId) -> Result<Vec<EdgeId>, StoreError> {
        sqlx::query(
            "SELECT edge FROM share_keys
             WHERE grantee = ? AND redeemed_at IS NOT NULL AND revoked_at IS NULL",
        )
        .bind(account.to_string())
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| parsed(row, "edge"))
        .collect()
    }
}
