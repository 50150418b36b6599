use carnet_api::v1::{Account, Role};
use carnet_core::ids::AccountId;
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Event};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::ledger::Writing;
use super::listing::{Listed, Search};
use super::{NewToken, Store, StoreError, json, parsed, passwords, to_json, unsigned};

/// Roles as the ledger names them.
pub(super) fn role_names(roles: &[Role]) -> Vec<String> {
    roles
        .iter()
        .filter_map(|role| serde_json::to_value(role).ok()?.as_str().map(str::to_owned))
        .collect()
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    pub id: AccountId,
    pub name: String,
    pub roles: Vec<Role>,
    pub created_at: UnixMillis,
}

fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        roles: json(row, "roles")?,
        created_at_ms: UnixMillis(row.try_get("created_at")?),
    })
}

impl Store {
    /// # Errors
    /// A duplicate, where the name is taken.
    pub async fn create_account(&self, new: &NewAccount, by: AccountId) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        insert(&mut transaction, new, Actor::Account(by)).await?;
        transaction.commit().await
    }

    /// Makes an account for whoever asks for it, with a password.
    ///
    /// # Errors
    /// A duplicate, where the name is taken.
    pub async fn register_account(
        &self,
        new: &NewAccount,
        password_hash: &str,
    ) -> Result<(), StoreError> {
        let by = Actor::Account(new.id);
        let mut transaction = self.write().await?;
        insert(&mut transaction, new, by).await?;
        passwords::insert(&mut transaction, new.id, password_hash, by, new.created_at).await?;
        transaction.commit().await
    }

    /// Makes the first account with its token, unless there is an account; says whether it did.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn create_first_account(
        &self,
        new: &NewAccount,
        token: &NewToken,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts")
            .fetch_one(&mut *transaction)
            .await?;
        if accounts > 0 {
            return Ok(false);
        }
        insert(&mut transaction, new, Actor::Control).await?;
        super::tokens::insert(&mut transaction, token, Actor::Control).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Accounts, by name. They are looked for by name and role.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn accounts(&self, search: &Search) -> Result<Listed<Account>, StoreError> {
        let wanted = r"?1 IS NULL OR name LIKE ?1 ESCAPE '\' OR roles LIKE ?1 ESCAPE '\'";
        let pattern = search.pattern();
        let items =
            format!("SELECT * FROM accounts WHERE {wanted} ORDER BY name LIMIT ?2 OFFSET ?3");
        let items = sqlx::query(sqlx::AssertSqlSafe(items))
            .bind(&pattern)
            .bind(search.limit())
            .bind(search.offset)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(account)
            .collect::<Result<_, _>>()?;
        let count = format!("SELECT count(*) AS count FROM accounts WHERE {wanted}");
        let count = sqlx::query(sqlx::AssertSqlSafe(count))
            .bind(&pattern)
            .fetch_one(&self.pool)
            .await?;
        Ok(Listed {
            items,
            count: unsigned(&count, "count")?,
        })
    }

    /// An account by its name or id.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn account(&self, name_or_id: &str) -> Result<Option<Account>, StoreError> {
        sqlx::query("SELECT * FROM accounts WHERE name = ?1 OR id = ?1")
            .bind(name_or_id)
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(account)
            .transpose()
    }
}

async fn insert(writing: &mut Writing, new: &NewAccount, by: Actor) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO accounts (id, name, roles, created_at) VALUES (?, ?, ?, ?)")
        .bind(new.id.to_string())
        .bind(&new.name)
        .bind(to_json(&new.roles)?)
        .bind(new.created_at.0)
        .execute(&mut **writing)
        .await?;
    let event = Event::Account {
        account: new.id,
        roles: role_names(&new.roles),
    };
    writing.enter(by, event);
    Ok(())
}
