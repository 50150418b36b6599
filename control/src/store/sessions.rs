use carnet_api::v1::Role;
use carnet_core::ids::{AccountId, SessionId};
use carnet_core::instant::UnixMillis;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, json, parsed};

/// A browser session to be begun.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub id: SessionId,
    pub account: AccountId,
    pub secret_hash: Vec<u8>,
    pub created_at: UnixMillis,
    /// From where.
    pub address: String,
    /// What the browser calls itself.
    pub browser: String,
}

/// A browser session.
#[derive(Debug, Clone)]
pub struct Session {
    pub id: SessionId,
    pub created_at: UnixMillis,
    pub used_at: UnixMillis,
    pub address: String,
    pub browser: String,
}

/// Which sessions are good: those begun after the one instant, and used after the other.
#[derive(Debug, Clone, Copy)]
pub struct Good {
    pub begun_after: UnixMillis,
    pub used_after: UnixMillis,
}

/// Whose session it is.
#[derive(Debug, Clone)]
pub struct SessionHolder {
    pub session: SessionId,
    pub account: AccountId,
    pub name: String,
    pub roles: Vec<Role>,
    pub created_at: UnixMillis,
    pub used_at: UnixMillis,
}

fn session(row: &SqliteRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: parsed(row, "id")?,
        created_at: UnixMillis(row.try_get("created_at")?),
        used_at: UnixMillis(row.try_get("used_at")?),
        address: row.try_get("address")?,
        browser: row.try_get("browser")?,
    })
}

impl Store {
    /// Begins a session, and removes everyone's that are good no more.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn begin_session(&self, new: &NewSession, good: Good) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM sessions WHERE created_at <= ? OR used_at <= ?")
            .bind(good.begun_after.0)
            .bind(good.used_after.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO sessions
                 (id, account, secret_hash, created_at, used_at, address, browser)
             VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
        )
        .bind(new.id.to_string())
        .bind(new.account.to_string())
        .bind(&new.secret_hash)
        .bind(new.created_at.0)
        .bind(&new.address)
        .bind(&new.browser)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Whose session the secret with this hash is of, if it is good.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn session_holder(
        &self,
        secret_hash: &[u8],
        good: Good,
    ) -> Result<Option<SessionHolder>, StoreError> {
        let row = sqlx::query(
            "SELECT sessions.id, account, name, roles, sessions.created_at, used_at
             FROM sessions JOIN accounts ON accounts.id = account
             WHERE secret_hash = ? AND sessions.created_at > ? AND used_at > ?",
        )
        .bind(secret_hash)
        .bind(good.begun_after.0)
        .bind(good.used_after.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SessionHolder {
            session: parsed(&row, "id")?,
            account: parsed(&row, "account")?,
            name: row.try_get("name")?,
            roles: json(&row, "roles")?,
            created_at: UnixMillis(row.try_get("created_at")?),
            used_at: UnixMillis(row.try_get("used_at")?),
        }))
    }

    /// Notes that a session is in use.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn use_session(&self, id: SessionId, now: UnixMillis) -> Result<(), StoreError> {
        sqlx::query("UPDATE sessions SET used_at = max(used_at, ?) WHERE id = ?")
            .bind(now.0)
            .bind(id.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The good ones of an account, the newest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn sessions(
        &self,
        account: AccountId,
        good: Good,
    ) -> Result<Vec<Session>, StoreError> {
        sqlx::query(
            "SELECT * FROM sessions WHERE account = ? AND created_at > ? AND used_at > ?
             ORDER BY id DESC",
        )
        .bind(account.to_string())
        .bind(good.begun_after.0)
        .bind(good.used_after.0)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(session)
        .collect()
    }

    /// Ends a session of `account`; says whether there was one.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn end_session(
        &self,
        account: AccountId,
        session: SessionId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM sessions WHERE id = ? AND account = ?")
            .bind(session.to_string())
            .bind(account.to_string())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
