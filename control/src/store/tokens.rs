use carnet_api::v1::{ApiToken, Role};
use carnet_core::ids::{AccountId, TokenId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::accounts::role_names;
use super::ledger::Writing;
use super::{Store, StoreError, json, parsed, to_json};

/// An API token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub id: TokenId,
    pub account: AccountId,
    pub label: String,
    pub roles: Vec<Role>,
    pub secret_hash: Vec<u8>,
    pub created_at: UnixMillis,
    pub expires_at: Option<UnixMillis>,
}

/// Who shows a token, and what it lets them do.
#[derive(Debug, Clone)]
pub struct TokenHolder {
    pub account: AccountId,
    pub name: String,
    pub roles: Vec<Role>,
    pub expires_at: Option<UnixMillis>,
}

fn token(row: &SqliteRow) -> Result<ApiToken, StoreError> {
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    Ok(ApiToken {
        id: parsed(row, "id")?,
        label: row.try_get("label")?,
        roles: json(row, "roles")?,
        created_at_ms: UnixMillis(row.try_get("created_at")?),
        expires_at_ms: expires_at.map(UnixMillis),
    })
}

impl Store {
    /// # Errors
    /// Where the database does.
    pub async fn create_token(&self, new: &NewToken, by: AccountId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        insert(&mut transaction, new, Actor::Account(by)).await?;
        transaction.commit().await
    }

    /// The newest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn tokens(&self, account: AccountId) -> Result<Vec<ApiToken>, StoreError> {
        sqlx::query("SELECT * FROM api_tokens WHERE account = ? ORDER BY id DESC")
            .bind(account.to_string())
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(token)
            .collect()
    }

    /// Ends a token of `account`; says whether there was one.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn delete_token(
        &self,
        account: AccountId,
        token: TokenId,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let done = sqlx::query("DELETE FROM api_tokens WHERE id = ? AND account = ?")
            .bind(token.to_string())
            .bind(account.to_string())
            .execute(&mut *transaction)
            .await?;
        let revoked = done.rows_affected() > 0;
        if revoked {
            transaction.enter(
                Actor::Account(account),
                Event::TokenRevoked { token, account },
            );
        }
        transaction.commit().await?;
        Ok(revoked)
    }

    /// Who holds the token with this hash, if it is good at `now`.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn token_holder(
        &self,
        secret_hash: &[u8],
        now: UnixMillis,
    ) -> Result<Option<TokenHolder>, StoreError> {
        let row = sqlx::query(
            "SELECT accounts.id, accounts.name, accounts.roles AS held, api_tokens.roles,
                 expires_at
             FROM api_tokens JOIN accounts ON accounts.id = api_tokens.account
             WHERE secret_hash = ? AND (expires_at IS NULL OR expires_at > ?)",
        )
        .bind(secret_hash)
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let held: Vec<Role> = json(&row, "held")?;
        let mut roles: Vec<Role> = json(&row, "roles")?;
        let expires_at: Option<i64> = row.try_get("expires_at")?;
        // A role that the account has lost is lost to its tokens.
        roles.retain(|role| held.contains(role));
        Ok(Some(TokenHolder {
            account: parsed(&row, "id")?,
            name: row.try_get("name")?,
            roles,
            expires_at: expires_at.map(UnixMillis),
        }))
    }
}

pub(super) async fn insert(
    writing: &mut Writing,
    new: &NewToken,
    by: Actor,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_tokens (id, account, label, roles, secret_hash, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.to_string())
    .bind(new.account.to_string())
    .bind(&new.label)
    .bind(to_json(&new.roles)?)
    .bind(&new.secret_hash)
    .bind(new.created_at.0)
    .bind(new.expires_at.map(|instant| instant.0))
    .execute(&mut **writing)
    .await?;
    let event = Event::Token {
        token: new.id,
        account: new.account,
        roles: role_names(&new.roles),
    };
    writing.enter(by, event);
    Ok(())
}
