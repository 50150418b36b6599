//! The ledger's place in the store: entries, the tree's nodes, and the checkpoint. They grow in
//! the transaction that does what they tell, or not at all.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use carnet_api::agent::{MAX_REFUSALS, Refusals};
use carnet_core::ids::{AccountId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{
    Actor, Checkpoint, Decision, Entry, Event, Growth, Hash, LedgerSigner, Node, Nodes, Refusal,
    Unproven, frontier, leaf_hash,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

use super::{Store, StoreError, corrupt, signed, unsigned};
use crate::clock;

/// How many nodes are asked for at a time: SQLite takes no more variables in one statement than
/// some thousands.
const NODES_AT_A_TIME: usize = 500;
/// The longest text of an edge's that goes into an entry, in characters.
const LONGEST_OF_AN_EDGE: usize = 200;

/// A transaction that writes, with what it enters into the ledger.
pub(super) struct Writing {
    transaction: Transaction<'static, Sqlite>,
    entered: Vec<(Actor, Event)>,
    signer: Arc<LedgerSigner>,
    grown: watch::Sender<()>,
}

impl Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

/// Where a ledger stands.
#[derive(Debug, Clone)]
pub struct SignedCheckpoint {
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// What witnesses have cosigned it with, a line each; none of the checkpoints before it.
    pub cosignatures: String,
}

impl SignedCheckpoint {
    /// The note with every signature.
    pub fn cosigned(self) -> String {
        self.note + &self.cosignatures
    }
}

/// An entry with its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub number: u64,
    /// As it is kept and hashed.
    pub bytes: Vec<u8>,
}

impl Writing {
    pub(super) fn new(
        transaction: Transaction<'static, Sqlite>,
        signer: Arc<LedgerSigner>,
        grown: watch::Sender<()>,
    ) -> Self {
        Self {
            transaction,
            entered: Vec::new(),
            signer,
            grown,
        }
    }

    /// Enters something into the ledger, when this is committed.
    pub(super) fn enter(&mut self, by: Actor, event: Event) {
        self.entered.push((by, event));
    }

    /// The number that the next entry will have.
    pub(super) async fn next_number(&mut self) -> Result<u64, StoreError> {
        let size = size(&mut self.transaction).await?;
        Ok(size + self.entered.len() as u64)
    }

    /// Commits, entries included. A crash before the end of it leaves nothing of either; after
    /// it, both.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let entered = std::mem::take(&mut self.entered);
        if entered.is_empty() {
            return Ok(self.transaction.commit().await?);
        }
        append(&mut self.transaction, entered, &self.signer).await?;
        self.transaction.commit().await?;
        self.grown.send_replace(());
        Ok(())
    }
}

async fn append(
    connection: &mut SqliteConnection,
    entered: Vec<(Actor, Event)>,
    signer: &LedgerSigner,
) -> Result<(), StoreError> {
    let size = size(connection).await?;
    let last_at: Option<i64> =
        sqlx::query_scalar("SELECT at FROM ledger_entries ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await?;
    // A clock that was set back does not make the ledger go back.
    let at_ms = UnixMillis(clock::now().0.max(last_at.unwrap_or_default()));
    let nodes = read_nodes(connection, &frontier(size)).await?;
    let mut growth = Growth::new(size, nodes);
    for (by, event) in entered {
        let entry = Entry { at_ms, by, event };
        let bytes = entry.to_bytes().map_err(|error| corrupt("entry", &error))?;
        let number = growth.append(leaf_hash(&bytes))?;
        let (container, edge, migration) = entry.about();
        sqlx::query(
            "INSERT INTO ledger_entries (number, at, kind, container, edge, migration, entry)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(signed(number))
        .bind(at_ms.0)
        .bind(entry.kind())
        .bind(container.map(|id| id.to_string()))
        .bind(edge.map(|id| id.to_string()))
        .bind(migration.map(|id| id.to_string()))
        .bind(bytes)
        .execute(&mut *connection)
        .await?;
    }
    for (node, hash) in growth.grown() {
        sqlx::query("INSERT INTO ledger_nodes (node, hash) VALUES (?, ?)")
            .bind(signed(*node))
            .bind(hash.0.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    let checkpoint = Checkpoint {
        size: growth.size(),
        root: growth.root()?,
    };
    let note = signer
        .sign(&checkpoint)
        .map_err(|error| corrupt("checkpoint", &error))?;
    sqlx::query("INSERT OR REPLACE INTO ledger_checkpoint (id, size, note) VALUES (1, ?, ?)")
        .bind(signed(checkpoint.size))
        .bind(note)
        .execute(connection)
        .await?;
    Ok(())
}

async fn size(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let size: Option<i64> = sqlx::query_scalar("SELECT size FROM ledger_checkpoint")
        .fetch_optional(connection)
        .await?;
    Ok(size.unwrap_or_default().unsigned_abs())
}

async fn read_nodes(
    connection: &mut SqliteConnection,
    wanted: &[Node],
) -> Result<Nodes, StoreError> {
    let mut nodes = Nodes::default();
    for wanted in wanted.chunks(NODES_AT_A_TIME) {
        let places = vec!["?"; wanted.len()].join(", ");
        let query = format!("SELECT node, hash FROM ledger_nodes WHERE node IN ({places})");
        let mut query = sqlx::query(sqlx::AssertSqlSafe(query));
        for node in wanted {
            query = query.bind(signed(*node));
        }
        for row in query.fetch_all(&mut *connection).await? {
            let hash: &[u8] = row.try_get("hash")?;
            let hash: [u8; 32] = hash
                .try_into()
                .map_err(|_| corrupt("hash", &"not 32 bytes"))?;
            nodes.0.insert(unsigned(&row, "node")?, Hash(hash));
        }
    }
    Ok(nodes)
}

impl From<Unproven> for StoreError {
    fn from(fault: Unproven) -> Self {
        corrupt("ledger_nodes", &fault)
    }
}

fn numbered(row: &SqliteRow) -> Result<Numbered, StoreError> {
    Ok(Numbered {
        number: unsigned(row, "number")?,
        bytes: row.try_get("entry")?,
    })
}

/// Which entries are wanted; what is absent does not count.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    /// Of one of these kinds.
    pub kinds: Option<Vec<String>>,
    /// About this container, or of a migration of it.
    pub container: Option<String>,
    /// About a container of this owner, or of a migration of one.
    pub owner: Option<AccountId>,
    pub edge: Option<String>,
    pub migration: Option<String>,
    /// `permit` or `deny`.
    pub verdict: Option<&'static str>,
    /// About an edge of which this country was declared then.
    pub country: Option<String>,
    /// About an edge of which this organization was declared then.
    pub organization: Option<String>,
    /// From this instant on.
    pub since: Option<UnixMillis>,
    /// Before this one.
    pub until: Option<UnixMillis>,
}

/// Where in the ledger entries are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Span {
    /// The first of those from this number on.
    From(u64),
    /// The last of those before this number.
    Before(u64),
    /// The first of those from one number on and before another.
    Between(u64, u64),
}

/// An entry's text, if it is JSON: what is not is found by who verifies the ledger, and keeps
/// nobody from reading the rest.
const TEXT: &str = "CASE WHEN json_valid(CAST(e.entry AS TEXT)) THEN CAST(e.entry AS TEXT) END";

/// What had been declared of the edge that an entry is about: in a decision, what was audited; in a
/// permit, what its decision says; else what was in force.
const DECLARED: &str = "CASE
    WHEN NOT json_valid(CAST(e.entry AS TEXT)) THEN NULL
    WHEN e.kind = 'decision' THEN json_extract(CAST(e.entry AS TEXT), '$.attributes.policy')
    WHEN e.kind = 'attributes' THEN json_extract(CAST(e.entry AS TEXT), '$.policy')
    WHEN e.edge IS NOT NULL THEN
        (SELECT json_extract(CAST(a.entry AS TEXT), '$.policy') FROM ledger_entries AS a
         WHERE a.kind = 'attributes' AND a.edge = e.edge AND a.number < e.number
             AND json_valid(CAST(a.entry AS TEXT))
         ORDER BY a.number DESC LIMIT 1)
    WHEN e.kind = 'permit' THEN
        (SELECT json_extract(CAST(d.entry AS TEXT), '$.attributes.policy')
         FROM ledger_entries AS d
         WHERE d.migration = e.migration AND d.kind = 'decision' AND d.number < e.number
             AND json_valid(CAST(d.entry AS TEXT))
         ORDER BY d.number DESC LIMIT 1)
    END";

/// The question for the entries that are wanted.
fn wanted(
    filter: &EntryFilter,
    span: Span,
    limit: u32,
) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut query = QueryBuilder::new("");
    if let Some(owner) = filter.owner {
        query.push(
            "WITH owned AS MATERIALIZED (SELECT container FROM ledger_entries
                 WHERE kind = 'requirements' AND json_valid(CAST(entry AS TEXT))
                     AND json_extract(CAST(entry AS TEXT), '$.owner') = ",
        );
        query.push_bind(owner.to_string()).push(") ");
    }
    query.push("SELECT number, entry FROM ledger_entries AS e WHERE ");
    match span {
        Span::From(from) => query.push("number >= ").push_bind(signed(from)),
        Span::Before(before) => query.push("number < ").push_bind(signed(before)),
        Span::Between(from, before) => query
            .push("number >= ")
            .push_bind(signed(from))
            .push(" AND number < ")
            .push_bind(signed(before)),
    };
    if let Some(kinds) = &filter.kinds {
        query.push(" AND kind IN (SELECT value FROM json_each(");
        query.push_bind(super::to_json(kinds)?).push("))");
    }
    if let Some(container) = &filter.container {
        query
            .push(" AND (container = ")
            .push_bind(container.clone());
        query.push(" OR migration IN (SELECT migration FROM ledger_entries WHERE container = ");
        query.push_bind(container.clone()).push("))");
    }
    if filter.owner.is_some() {
        query.push(
            " AND (container IN owned OR migration IN
                 (SELECT migration FROM ledger_entries WHERE container IN owned))",
        );
    }
    for (column, value) in [("edge", &filter.edge), ("migration", &filter.migration)] {
        if let Some(value) = value {
            query
                .push(format!(" AND {column} = "))
                .push_bind(value.clone());
        }
    }
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since.0);
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until.0);
    }
    if let Some(verdict) = filter.verdict {
        query.push(format!(" AND json_extract({TEXT}, '$.verdict') = "));
        query.push_bind(verdict);
    }
    if let Some(country) = &filter.country {
        query.push(format!(" AND json_extract({DECLARED}, '$.location') = "));
        query.push_bind(country.clone());
    }
    if let Some(organization) = &filter.organization {
        query.push(" AND ").push_bind(organization.clone());
        query.push(format!(
            " IN (SELECT value FROM json_each({DECLARED}, '$.organizations'))"
        ));
    }
    let order = match span {
        Span::Before(_) => "DESC",
        Span::From(_) | Span::Between(..) => "ASC",
    };
    query
        .push(format!(" ORDER BY number {order} LIMIT "))
        .push_bind(limit);
    Ok(query)
}

impl Store {
    /// Enters that a key of the control plane's is in use from now on, unless the ledger says so
    /// already.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn enter_key(&self, purpose: &str, public: &[u8; 32]) -> Result<(), StoreError> {
        let public = hex::encode(public);
        let mut writing = self.write().await?;
        let known: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT entry FROM ledger_entries
             WHERE kind = 'key' AND json_extract(CAST(entry AS TEXT), '$.purpose') = ?
             ORDER BY number DESC LIMIT 1",
        )
        .bind(purpose)
        .fetch_optional(&mut *writing)
        .await?;
        let is_known = known
            .and_then(|bytes| Entry::from_bytes(&bytes).ok())
            .is_some_and(
                |entry| matches!(entry.event, Event::Key { public: known, .. } if known == public),
            );
        if !is_known {
            let purpose = purpose.to_owned();
            writing.enter(Actor::Control, Event::Key { purpose, public });
        }
        writing.commit().await
    }

    /// Enters what was decided without anything being moved.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn enter_dry_run(
        &self,
        by: AccountId,
        decisions: Vec<Decision>,
    ) -> Result<(), StoreError> {
        let mut writing = self.write().await?;
        for decision in decisions {
            writing.enter(Actor::Account(by), Event::Decision(Box::new(decision)));
        }
        writing.commit().await
    }

    /// Enters what `edge` has refused, each once however often it is told, and how many it has not
    /// kept.
    ///
    /// # Errors
    /// Where the database does, or has no such edge.
    pub async fn enter_refusals(&self, edge: EdgeId, refused: &Refusals) -> Result<(), StoreError> {
        let mut writing = self.write().await?;
        let row = sqlx::query(
            "SELECT CASE WHEN refusals_of IS certificate THEN refusals_entered ELSE 0 END
                 AS entered,
                 CASE WHEN refusals_of IS certificate THEN refusals_dropped ELSE 0 END AS dropped
             FROM edges WHERE id = ?",
        )
        .bind(edge.to_string())
        .fetch_one(&mut *writing)
        .await?;
        let before = unsigned(&row, "entered")?;
        let mut entered = before;
        let short = |text: &str| text.chars().take(LONGEST_OF_AN_EDGE).collect();
        // The edge's word, and no longer than ours.
        for refused in refused.refusals.iter().take(MAX_REFUSALS) {
            if refused.number <= entered {
                continue;
            }
            entered = refused.number;
            let refusal = Refusal {
                edge,
                check: short(&refused.check),
                asked: short(&refused.asked),
                migration: refused.migration,
                peer: refused.peer,
                refused_at_ms: refused.refused_at_ms,
            };
            writing.enter(Actor::Edge(edge), Event::Refusal(refusal));
        }
        let dropped_before = unsigned(&row, "dropped")?;
        // What SQLite cannot count is no count.
        let dropped = refused.dropped.min(i64::MAX.unsigned_abs());
        let dropped = dropped.max(dropped_before);
        if dropped > dropped_before {
            let count = dropped - dropped_before;
            writing.enter(Actor::Edge(edge), Event::RefusalsDropped { edge, count });
        }
        if entered > before || dropped > dropped_before {
            sqlx::query(
                "UPDATE edges
                 SET refusals_entered = ?, refusals_dropped = ?, refusals_of = certificate
                 WHERE id = ?",
            )
            .bind(signed(entered))
            .bind(signed(dropped))
            .bind(edge.to_string())
            .execute(&mut *writing)
            .await?;
        }
        writing.commit().await
    }

    /// Where the ledger stands; `None` before the first entry.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, StoreError> {
        sqlx::query(
            "SELECT size, note,
                 coalesce((SELECT group_concat(line, '' ORDER BY witness) FROM ledger_cosignatures
                           WHERE size = ledger_checkpoint.size), '') AS cosignatures
             FROM ledger_checkpoint",
        )
        .fetch_optional(&self.pool)
        .await?
        .map(|row| {
            Ok(SignedCheckpoint {
                size: unsigned(&row, "size")?,
                note: row.try_get("note")?,
                cosignatures: row.try_get("cosignatures")?,
            })
        })
        .transpose()
    }

    /// Changes when the ledger has grown.
    pub fn grown(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// The size of the newest checkpoint that the witness with this verifier key has cosigned; 0
    /// where there is none.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn cosigned(&self, witness: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT size FROM ledger_cosignatures WHERE witness = ?")
            .bind(witness)
            .fetch_optional(&self.pool)
            .await?;
        row.map_or(Ok(0), |row| unsigned(&row, "size"))
    }

    /// Keeps the cosignature of the checkpoint with this size, in the place of the witness's one
    /// before.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn keep_cosignature(
        &self,
        witness: &str,
        size: u64,
        line: &str,
    ) -> Result<(), StoreError> {
        let mut writing = self.write().await?;
        sqlx::query(
            "INSERT OR REPLACE INTO ledger_cosignatures (witness, size, line) VALUES (?, ?, ?)",
        )
        .bind(witness)
        .bind(signed(size))
        .bind(line)
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// At most `limit` entries from number `from` on.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn entries(&self, from: u64, limit: u32) -> Result<Vec<Numbered>, StoreError> {
        sqlx::query(
            "SELECT number, entry FROM ledger_entries WHERE number >= ? ORDER BY number LIMIT ?",
        )
        .bind(signed(from))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(numbered)
        .collect()
    }

    /// At most `limit` entries that `filter` lets through, the oldest first.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn find_entries(
        &self,
        filter: &EntryFilter,
        span: Span,
        limit: u32,
    ) -> Result<Vec<Numbered>, StoreError> {
        let mut found: Vec<Numbered> = wanted(filter, span, limit)?
            .build()
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(numbered)
            .collect::<Result<_, _>>()?;
        if let Span::Before(_) = span {
            found.reverse();
        }
        Ok(found)
    }

    /// The numbers of the permits that migrations are carried out under, by migration.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn permit_numbers(
        &self,
        migrations: &BTreeSet<String>,
    ) -> Result<HashMap<String, u64>, StoreError> {
        sqlx::query(
            "SELECT migration, number FROM ledger_entries
             WHERE kind = 'permit' AND migration IN (SELECT value FROM json_each(?))",
        )
        .bind(super::to_json(migrations)?)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| Ok((row.try_get("migration")?, unsigned(row, "number")?)))
        .collect()
    }

    /// Nodes of the tree; those that are not there are left out.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn nodes(&self, wanted: &[Node]) -> Result<Nodes, StoreError> {
        let mut connection = self.pool.acquire().await?;
        read_nodes(&mut connection, wanted).await
    }
}
