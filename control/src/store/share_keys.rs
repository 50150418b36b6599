use carnet_api::v1::ShareKey;
use carnet_core::ids::{AccountId, EdgeId, ShareKeyId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event, Grant, GrantChange};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, corrupt, parsed};

/// A share key, with who gave it and to whom.
#[derive(Debug, Clone)]
pub struct ShareKeyRecord {
    pub key: ShareKey,
    pub owner: AccountId,
    pub grantee: AccountId,
}

const SELECT: &str = "
    SELECT share_keys.*, edges.name AS edge_name, edges.owner, accounts.name AS grantee_name
    FROM share_keys JOIN edges ON edges.id = edge JOIN accounts ON accounts.id = grantee
    WHERE ";

fn record(row: &SqliteRow) -> Result<ShareKeyRecord, StoreError> {
    let instant = |column: &str| -> Result<Option<UnixMillis>, StoreError> {
        let millis: Option<i64> = row.try_get(column)?;
        Ok(millis.map(UnixMillis))
    };
    Ok(ShareKeyRecord {
        key: ShareKey {
            id: parsed(row, "id")?,
            edge: parsed(row, "edge")?,
            edge_name: row.try_get("edge_name")?,
            grantee: row.try_get("grantee_name")?,
            created_at_ms: UnixMillis(row.try_get("created_at")?),
            redeemed_at_ms: instant("redeemed_at")?,
            revoked_at_ms: instant("revoked_at")?,
        },
        owner: parsed(row, "owner")?,
        grantee: parsed(row, "grantee")?,
    })
}

impl Store {
    /// # Errors
    /// A duplicate, where the grantee has a living key of this edge.
    pub async fn create_share_key(
        &self,
        id: ShareKeyId,
        edge: EdgeId,
        grantee: AccountId,
        key_hash: &[u8],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO share_keys (id, edge, grantee, key_hash, created_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(edge.to_string())
        .bind(grantee.to_string())
        .bind(key_hash)
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        let owner: String = sqlx::query_scalar("SELECT owner FROM edges WHERE id = ?")
            .bind(edge.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let owner = owner.parse().map_err(|error| corrupt("owner", &error))?;
        let grant = Grant {
            share_key: id,
            edge,
            grantee,
            change: GrantChange::Given,
        };
        transaction.enter(Actor::Account(owner), Event::Grant(grant));
        transaction.commit().await
    }

    /// # Errors
    /// Where the database does.
    pub async fn share_key(&self, id: ShareKeyId) -> Result<Option<ShareKeyRecord>, StoreError> {
        let query = format!("{SELECT} share_keys.id = ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(record)
            .transpose()
    }

    /// Every share key, the newest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn share_keys(&self) -> Result<Vec<ShareKeyRecord>, StoreError> {
        let query = format!("{SELECT} 1 ORDER BY share_keys.id DESC");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(record)
            .collect()
    }

    /// Enters a living key that was given to `grantee`; returns which it was. Entered again it
    /// stays as it is.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn redeem_share_key(
        &self,
        key_hash: &[u8],
        grantee: AccountId,
        now: UnixMillis,
    ) -> Result<Option<ShareKeyId>, StoreError> {
        let mut transaction = self.write().await?;
        let found = sqlx::query(
            "SELECT id, edge, redeemed_at FROM share_keys
             WHERE key_hash = ? AND grantee = ? AND revoked_at IS NULL",
        )
        .bind(key_hash)
        .bind(grantee.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = found else { return Ok(None) };
        let id: ShareKeyId = parsed(&row, "id")?;
        let redeemed_at: Option<i64> = row.try_get("redeemed_at")?;
        if redeemed_at.is_none() {
            sqlx::query("UPDATE share_keys SET redeemed_at = ? WHERE id = ?")
                .bind(now.0)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
            let grant = Grant {
                share_key: id,
                edge: parsed(&row, "edge")?,
                grantee,
                change: GrantChange::Redeemed,
            };
            transaction.enter(Actor::Account(grantee), Event::Grant(grant));
        }
        transaction.commit().await?;
        Ok(Some(id))
    }

    /// Takes a key back; from then on it is good for nothing.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn revoke_share_key(
        &self,
        id: ShareKeyId,
        by: AccountId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let revoked = sqlx::query(
            "UPDATE share_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL
             RETURNING edge, grantee",
        )
        .bind(now.0)
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(row) = revoked {
            let grant = Grant {
                share_key: id,
                edge: parsed(&row, "edge")?,
                grantee: parsed(&row, "grantee")?,
                change: GrantChange::Revoked,
            };
            transaction.enter(Actor::Account(by), Event::Grant(grant));
        }
        transaction.commit().await
    }
}
