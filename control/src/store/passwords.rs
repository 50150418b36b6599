use carnet_core::ids::{AccountId, SessionId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event};
use sqlx::Row;

use super::ledger::Writing;
use super::{Store, StoreError, parsed};

impl Store {
    /// The account of a name, and the hash of its password, where it has one.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn password(&self, name: &str) -> Result<Option<(AccountId, String)>, StoreError> {
        let row = sqlx::query(
            "SELECT account, hash FROM passwords JOIN accounts ON accounts.id = account
             WHERE name = ?",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((parsed(&row, "account")?, row.try_get("hash")?)))
    }

    /// Sets an account's password and ends its sessions, but for `except`: whoever knew the old
    /// one is out.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn set_password(
        &self,
        account: AccountId,
        hash: &str,
        by: AccountId,
        except: Option<SessionId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        insert(&mut transaction, account, hash, Actor::Account(by), now).await?;
        sqlx::query("DELETE FROM sessions WHERE account = ? AND id IS NOT ?")
            .bind(account.to_string())
            .bind(except.map(|session| session.to_string()))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

pub(super) async fn insert(
    writing: &mut Writing,
    account: AccountId,
    hash: &str,
    by: Actor,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO passwords (account, hash, set_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (account) DO UPDATE SET hash = ?2, set_at = ?3",
    )
    .bind(account.to_string())
    .bind(hash)
    .bind(now.0)
    .execute(&mut **writing)
    .await?;
    writing.enter(by, Event::Password { account });
    Ok(())
}
