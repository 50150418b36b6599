use carnet_api::v1::{AgentsPart, MigrationsPart, MonitorPart, SigningKey, StorePart};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Entry, Event};
use carnet_core::permit::Fingerprint;
use sqlx::Row;

use super::{Store, StoreError, corrupt, unsigned};

/// Of how many edges' certificates it is told when they expire.
const EXPIRING: u32 = 20;

/// What the store knows of how the parts are.
#[derive(Debug, Clone)]
pub struct Known {
    pub store: StorePart,
    pub monitor: MonitorPart,
    pub agents: AgentsPart,
    pub migrations: MigrationsPart,
    /// The certificates of edges that expire first, by the edge's name.
    pub expiring: Vec<(String, UnixMillis)>,
}

impl Store {
    /// How the parts are, as far as that is kept.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn parts(&self) -> Result<Known, StoreError> {
        let row = sqlx::query(
            "SELECT
                 (SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size())
                     AS bytes,
                 coalesce((SELECT size FROM ledger_checkpoint), 0) AS ledger_entries,
                 (SELECT looked_at FROM monitor) AS looked_at,
                 (SELECT took_ms FROM monitor) AS took_ms,
                 (SELECT count(*) FROM migrations WHERE ended_at IS NULL) AS under_way,
                 (SELECT count(*) FROM migrations WHERE ended_at IS NULL AND needs_operator)
                     AS need_operator",
        )
        .fetch_one(&self.pool)
        .await?;
        let took_ms: Option<i64> = row.try_get("took_ms")?;
        let mut agents = AgentsPart::default();
        let counted = sqlx::query(
            "SELECT CASE WHEN enrolled_at IS NULL THEN 'not_enrolled'
                     ELSE coalesce(health, 'unknown') END AS state, count(*) AS count
             FROM edges LEFT JOIN edge_sightings ON edge = edges.id GROUP BY state",
        )
        .fetch_all(&self.pool)
        .await?;
        for row in &counted {
            let count = unsigned(row, "count")?;
            match row.try_get("state")? {
                "healthy" => agents.healthy = count,
                "degraded" => agents.degraded = count,
                "unreachable" => agents.unreachable = count,
                "unknown" => agents.unknown = count,
                "not_enrolled" => agents.not_enrolled = count,
                other => return Err(corrupt("health", &format!("`{other}`"))),
            }
        }
        let expiring = sqlx::query(
            "SELECT name, certificate_expires_at FROM edges
             WHERE enrolled_at IS NOT NULL AND certificate_expires_at IS NOT NULL
             ORDER BY certificate_expires_at, name LIMIT ?",
        )
        .bind(EXPIRING)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            let expires_at = UnixMillis(row.try_get("certificate_expires_at")?);
            Ok((row.try_get("name")?, expires_at))
        })
        .collect::<Result<_, StoreError>>()?;
        Ok(Known {
            store: StorePart {
                bytes: unsigned(&row, "bytes")?,
                ledger_entries: unsigned(&row, "ledger_entries")?,
            },
            monitor: MonitorPart {
                looked_at_ms: row.try_get::<Option<i64>, _>("looked_at")?.map(UnixMillis),
                took_ms: took_ms.map(i64::unsigned_abs),
            },
            agents,
            migrations: MigrationsPart {
                under_way: unsigned(&row, "under_way")?,
                need_operator: unsigned(&row, "need_operator")?,
            },
            expiring,
        })
    }

    /// Every key that statements and the ledger were signed with, the newest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, entry FROM ledger_entries WHERE kind = 'key' ORDER BY number DESC",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut keys: Vec<SigningKey> = Vec::new();
        for row in &rows {
            let bytes: &[u8] = row.try_get("entry")?;
            let entry = Entry::from_bytes(bytes).map_err(|error| corrupt("entry", &error))?;
            let Event::Key { purpose, public } = entry.event else {
                continue;
            };
            let bytes = hex::decode(&public).map_err(|error| corrupt("entry", &error))?;
            // The one that came into use after it.
            let next = keys.iter().rev().find(|key| key.purpose == purpose);
            keys.push(SigningKey {
                until_at_ms: next.map(|next| next.since_at_ms),
                kid: Fingerprint::of(&bytes).to_string(),
                purpose,
                public,
                since_at_ms: entry.at_ms,
                entry: unsigned(row, "number")?,
            });
        }
        Ok(keys)
    }
}
