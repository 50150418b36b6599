use carnet_core::ids::AccountId;
use carnet_core::instant::UnixMillis;
use sqlx::Row;

use super::{Store, StoreError};

/// An answer that is kept for a repetition of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub status: u16,
    pub body: String,
    pub location: Option<String>,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing; it is noted now.
    New,
    /// The same request is under way, or was when the control plane ended.
    UnderWay,
    /// The same request was answered.
    Answered(Kept),
    /// It was used for another request.
    OtherRequest,
}

impl Store {
    /// Notes that `account` makes a request under `key`; what was noted before `forget_before`
    /// is forgotten.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn begin_once(
        &self,
        account: AccountId,
        key: &str,
        request_hash: &[u8],
        now: UnixMillis,
        forget_before: UnixMillis,
    ) -> Result<Begun, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at < ?")
            .bind(forget_before.0)
            .execute(&mut *transaction)
            .await?;
        let known = sqlx::query("SELECT * FROM idempotency_keys WHERE account = ? AND key = ?")
            .bind(account.to_string())
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(known) = known else {
            sqlx::query(
                "INSERT INTO idempotency_keys (account, key, request_hash, created_at)
                 VALUES (?, ?, ?, ?)",
            )
            .bind(account.to_string())
            .bind(key)
            .bind(request_hash)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            return Ok(Begun::New);
        };
        let hash: &[u8] = known.try_get("request_hash")?;
        let status: Option<u16> = known.try_get("status")?;
        Ok(match status {
            _ if hash != request_hash => Begun::OtherRequest,
            None => Begun::UnderWay,
            Some(status) => Begun::Answered(Kept {
                status,
                body: known.try_get("body")?,
                location: known.try_get("location")?,
            }),
        })
    }

    /// Keeps the answer, or, where there is none worth keeping, forgets the key.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn end_once(
        &self,
        account: AccountId,
        key: &str,
        answer: Option<&Kept>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        match answer {
            Some(kept) => sqlx::query(
                "UPDATE idempotency_keys SET status = ?, body = ?, location = ?
                 WHERE account = ? AND key = ?",
            )
            .bind(kept.status)
            .bind(&kept.body)
            .bind(&kept.location),
            None => sqlx::query("DELETE FROM idempotency_keys WHERE account = ? AND key = ?"),
        }
        .bind(account.to_string())
        .bind(key)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}
