//! The policy store: SQLite in one file (the paper's edge and container policy databases).
//!
//! One module per noun. A write is one transaction that holds the database's write lock from its
//! beginning, so that what it read is still so when it is committed.

mod accounts;
mod containers;
mod edges;
mod enrolment;
mod idempotency;
pub mod ledger;
pub mod listing;
pub mod migrations;
mod parts;
mod passwords;
pub mod renewal;
mod schema;
mod sessions;
mod share_keys;
pub mod sightings;
mod tokens;

pub use accounts::NewAccount;
pub use containers::{ContainerRecord, NewContainer};
pub use edges::{EdgeRecord, NewEdge};
pub use idempotency::{Begun, Kept};
pub use sessions::{Good, NewSession, Session, SessionHolder};
pub use share_keys::ShareKeyRecord;
pub use tokens::{NewToken, TokenHolder};

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use thiserror::Error;
use tokio::sync::watch;

use carnet_core::ledger::LedgerSigner;

use self::ledger::Writing;

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(10);
/// Readers beside each other, and the one writer.
const CONNECTIONS: u32 = 8;

/// What the store could not do.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the database cannot be brought to this version of Carnet: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// What stands in the database is not what Carnet writes there.
    #[error("column `{column}` holds what Carnet does not write: {problem}")]
    Corrupt { column: String, problem: String },
}

impl StoreError {
    /// Whether it is that something of the kind is there already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Database(error)
            if error.as_database_error().is_some_and(|error| error.is_unique_violation()))
    }
}

impl StoreError {
    /// Whether it is that something which was referred to is not there any more.
    pub fn is_dangling(&self) -> bool {
        matches!(self, Self::Database(error)
            if error.as_database_error().is_some_and(|error| error.is_foreign_key_violation()))
    }
}

/// The database.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    signer: Arc<LedgerSigner>,
    /// Sent to when the ledger has grown.
    grown: watch::Sender<()>,
}

impl Store {
    /// Opens the database at `path`, made if it is not there, and brings it to this version.
    /// What is entered into the ledger is signed by `signer`.
    ///
    /// # Errors
    /// Where it cannot be opened, or was written by a later version.
    pub async fn open(path: &Path, signer: LedgerSigner) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(Self::settings(path))
            .await?;
        schema::migrator().run(&pool).await?;
        let store = Self {
            pool,
            signer: Arc::new(signer),
            grown: watch::Sender::new(()),
        };
        store.enter_key("ledger", &store.signer.public()).await?;
        Ok(store)
    }

    /// How the database at `path` is opened.
    ///
    /// Committed means on the disk (`synchronous=FULL`): a commit point that a power cut takes
    /// back would leave two edges with one container.
    pub fn settings(path: &Path) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
    }

    /// Waits for what is under way, and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that writes, into the ledger too.
    async fn write(&self) -> Result<Writing, StoreError> {
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Writing::new(
            transaction,
            self.signer.clone(),
            self.grown.clone(),
        ))
    }
}

/// A column's text, parsed.
fn parsed<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    let text: &str = row.try_get(column)?;
    text.parse()
        .map_err(|error: T::Err| corrupt(column, &error))
}

/// A column's JSON, read.
fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| corrupt(column, &error))
}

/// JSON for a column.
fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt("(being written)", &error))
}

/// A column's number that is never negative.
fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    number
        .try_into()
        .map_err(|error: std::num::TryFromIntError| corrupt(column, &error))
}

/// A number for a column; revisions and generations never get that far.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn corrupt(column: &str, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        column: column.to_owned(),
        problem: problem.to_string(),
    }
}
