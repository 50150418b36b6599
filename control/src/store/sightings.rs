use std::collections::{BTreeSet, HashMap};

use carnet_api::v1::{ContainerState, HealthState, UtilizationReading};
use carnet_core::ids::{ContainerId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::policy::Utilization;
use sqlx::Row;

use super::edges::utilization;
use super::migrations::endpoint;
use super::{Store, StoreError, corrupt, parsed, to_json};
use crate::agents::{AgentError, Endpoint, FreshReading};

const MINUTE_MS: i64 = 60 * 1000;
/// For how long readings are kept.
pub const HISTORY_MS: i64 = 60 * MINUTE_MS;

/// What was seen of an edge: by the monitor, or by an audit that asked it.
#[derive(Debug, Clone)]
pub struct EdgeSighting {
    pub edge: EdgeId,
    pub health: HealthState,
    pub problems: Vec<String>,
    pub utilization: Option<Utilization>,
}

/// A container that the monitor looks for.
#[derive(Debug, Clone)]
pub struct Watched {
    pub container: ContainerId,
    pub name: String,
    pub edge: EdgeId,
}

impl EdgeSighting {
    /// What an edge's answer, or its absence, says of its health.
    pub fn of(edge: EdgeId, reading: &Result<FreshReading, AgentError>) -> Self {
        match reading {
            Err(error) => Self {
                edge,
                health: HealthState::Unreachable,
                problems: vec![error.to_string()],
                utilization: None,
            },
            Ok(reading) => {
                let problems = reading.all_problems();
                Self {
                    edge,
                    health: if problems.is_empty() && reading.utilization.is_some() {
                        HealthState::Healthy
                    } else {
                        HealthState::Degraded
                    },
                    problems,
                    utilization: reading.utilization,
                }
            }
        }
    }
}

fn name_of<T: serde::Serialize>(state: &T) -> Result<String, StoreError> {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        other => Err(corrupt("state", &format!("{other:?}"))),
    }
}

impl Store {
    /// The edges that have an agent.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn enrolled_edges(&self) -> Result<Vec<Endpoint>, StoreError> {
        sqlx::query("SELECT * FROM edges WHERE enrolled_at IS NOT NULL")
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(endpoint)
            .collect()
    }

    /// Every container, by where it is.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn watched_containers(&self) -> Result<Vec<Watched>, StoreError> {
        sqlx::query("SELECT id, name, edge FROM containers")
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|row| {
                Ok(Watched {
                    container: parsed(row, "id")?,
                    name: row.try_get("name")?,
                    edge: parsed(row, "edge")?,
                })
            })
            .collect()
    }

    /// Keeps what was seen of an edge; `since` changes only with its health. Returns whether it
    /// did.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn see_edge(
        &self,
        sighting: &EdgeSighting,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let reading = sighting.utilization.as_ref();
        let mut transaction = self.write().await?;
        let since: i64 = sqlx::query_scalar(
            "INSERT INTO edge_sightings
                 (edge, health, since, problems, cpu_hundredths, memory_hundredths, read_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (edge) DO UPDATE SET
                 since = CASE WHEN health = excluded.health THEN since ELSE excluded.since END,
                 health = excluded.health, problems = excluded.problems,
                 cpu_hundredths = coalesce(excluded.cpu_hundredths, cpu_hundredths),
                 memory_hundredths = coalesce(excluded.memory_hundredths, memory_hundredths),
                 read_at = coalesce(excluded.read_at, read_at)
             RETURNING since",
        )
        .bind(sighting.edge.to_string())
        .bind(name_of(&sighting.health)?)
        .bind(now.0)
        .bind(to_json(&sighting.problems)?)
        .bind(reading.map(|reading| reading.cpu.hundredths()))
        .bind(reading.map(|reading| reading.memory.hundredths()))
        .bind(reading.map(|reading| reading.read_at.0))
        .fetch_one(&mut *transaction)
        .await?;
        if let Some(reading) = reading {
            // The last of each minute, in the place of the one an hour before.
            sqlx::query(
                "INSERT OR REPLACE INTO utilization_samples
                     (edge, minute, cpu_hundredths, memory_hundredths, read_at)
                 VALUES (?, ?, ?, ?, ?)",
            )
            .bind(sighting.edge.to_string())
            .bind(reading.read_at.0.div_euclid(MINUTE_MS).rem_euclid(60))
            .bind(reading.cpu.hundredths())
            .bind(reading.memory.hundredths())
            .bind(reading.read_at.0)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(since == now.0)
    }

    /// What was read of these edges in the hour before `now`, the oldest first: one reading a
    /// minute at the most.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn utilization_of(
        &self,
        edges: &BTreeSet<EdgeId>,
        now: UnixMillis,
    ) -> Result<HashMap<EdgeId, Vec<UtilizationReading>>, StoreError> {
        let mut history: HashMap<EdgeId, Vec<UtilizationReading>> = HashMap::new();
        let rows = sqlx::query(
            "SELECT * FROM utilization_samples
             WHERE edge IN (SELECT value FROM json_each(?)) AND read_at > ? ORDER BY read_at",
        )
        .bind(to_json(edges)?)
        .bind(now.0 - HISTORY_MS)
        .fetch_all(&self.pool)
        .await?;
        for row in &rows {
            let readings = history.entry(parsed(row, "edge")?).or_default();
            readings.extend(utilization(row)?);
        }
        Ok(history)
    }

    /// Keeps that the monitor has looked at all edges.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn monitor_looked(&self, at: UnixMillis, took_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("INSERT OR REPLACE INTO monitor (id, looked_at, took_ms) VALUES (1, ?, ?)")
            .bind(at.0)
            .bind(took_ms)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Keeps what was seen of containers; `since` changes only with their state. What has moved
    /// away from where it was looked for is left as it is.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn see_containers(
        &self,
        seen: &[(Watched, ContainerState)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (watched, state) in seen {
            sqlx::query(
                "INSERT INTO container_sightings (container, state, since)
                 SELECT id, ?2, ?3 FROM containers WHERE id = ?1 AND edge = ?4
                 ON CONFLICT (container) DO UPDATE SET
                     since = CASE WHEN state = excluded.state THEN since ELSE excluded.since END,
                     state = excluded.state",
            )
            .bind(watched.container.to_string())
            .bind(name_of(state)?)
            .bind(now.0)
            .bind(watched.edge.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}
