//! What the ledger costs: decisions entered as the control plane enters them, beside the same rows
//! without nodes, hashes and a signed checkpoint.
//!
//! Both ways write to a fresh database of their own, made by the store with its tables and its
//! settings, and take turns, so that what else the machine does falls on both.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carnet_control::store::{Store, StoreError};
use carnet_core::ids::{AccountId, ContainerId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Decision, Entry, Event, LedgerSigner, NoteFault};
use carnet_core::migration::{Candidate, Subject};
use carnet_core::policy::{Faults, Utilization, attributes_from_csv, audit, requirements_from_csv};
use comfy_table::{Cell, CellAlignment, Table, presets};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde::Deserialize;
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tempfile::TempDir;
use thiserror::Error;
use uuid::Uuid;

const EDGES: &str = include_str!("../../core/fixtures/paper/edges.csv");
const CONTAINERS: &str = include_str!("../../core/fixtures/paper/containers.csv");

/// Of each way and batch; the median of them is told.
const RUNS: usize = 5;
/// Beyond which age a reading counts as none; the age does not change what an entry costs.
const MAX_READING_AGE_MS: u64 = 5_000;

/// How much is written in one run.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Entries in a transaction.
    batch: usize,
    transactions: usize,
}

const LOADS: [Load; 4] = [
    Load {
        batch: 1,
        transactions: 1_000,
    },
    Load {
        batch: 10,
        transactions: 300,
    },
    Load {
        batch: 100,
        transactions: 100,
    },
    Load {
        batch: 1_000,
        transactions: 20,
    },
];

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum LedgerBenchError {
    #[error(
        "{directory} is in memory, where nothing is ever synced. Set TMPDIR to a directory on a \
         disk"
    )]
    InMemory { directory: String },
    #[error("the directory for temporary files cannot be used: {0}")]
    Directory(#[from] io::Error),
    #[error("the paper's tables cannot be read: {0}")]
    Policy(#[from] Faults),
    #[error("the paper's table of edges cannot be read: {0}")]
    Edges(#[from] csv::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the rows without the tree cannot be written: {0}")]
    Rows(#[from] sqlx::Error),
    #[error("a decision cannot be written as an entry: {0}")]
    Entry(String),
    #[error(transparent)]
    Signer(#[from] NoteFault),
    /// What was measured was not what was to be done.
    #[error("{found} entries are in the database, {expected} were entered")]
    Lost { found: u64, expected: u64 },
}

/// What one way took.
#[derive(Debug, Default)]
struct Taken {
    /// Of each run.
    entries_per_second: Vec<f64>,
    /// Of each transaction of all runs.
    latencies: Vec<Duration>,
}

/// Both ways with one load.
#[derive(Debug)]
struct Compared {
    load: Load,
    with_tree: Taken,
    without: Taken,
}

/// What was measured; its text is a table.
#[derive(Debug)]
pub struct Measured {
    /// Of all entries that were written, in bytes.
    mean_entry_bytes: usize,
    compared: Vec<Compared>,
}

/// Measures both ways with every load.
///
/// # Errors
/// Where the directory for temporary files is not on a disk, or something cannot be written there.
pub async fn measure() -> Result<Measured, LedgerBenchError> {
    let directory = std::env::temp_dir();
    let system = statfs(&directory).map_err(io::Error::from)?;
    if system.filesystem_type() == TMPFS_MAGIC {
        return Err(LedgerBenchError::InMemory {
            directory: directory.display().to_string(),
        });
    }
    let decisions = decisions()?;
    let mut bytes = 0;
    for decision in &decisions {
        bytes += entry(now(), account(), decision.clone())?.1.len();
    }
    let mut compared = Vec::new();
    for load in LOADS {
        let mut with_tree = Taken::default();
        let mut without = Taken::default();
        for _ in 0..RUNS {
            run_with_tree(load, &decisions, &mut with_tree).await?;
            run_without(load, &decisions, &mut without).await?;
        }
        compared.push(Compared {
            load,
            with_tree,
            without,
        });
    }
    Ok(Measured {
        mean_entry_bytes: bytes / decisions.len().max(1),
        compared,
    })
}

/// As the control plane does.
async fn run_with_tree(
    load: Load,
    decisions: &[Decision],
    taken: &mut Taken,
) -> Result<(), LedgerBenchError> {
    let directory = TempDir::new()?;
    let path = directory.path().join("carnet.db");
    let store = Store::open(&path, signer()?).await?;
    let by = account();
    let mut decisions = decisions.iter().cycle().cloned();
    let before = taken.latencies.len();
    for _ in 0..load.transactions {
        let batch: Vec<Decision> = decisions.by_ref().take(load.batch).collect();
        let began = Instant::now();
        store.enter_dry_run(by, batch).await?;
        taken.latencies.push(began.elapsed());
    }
    store.close().await;
    taken.finish_run(load, before);
    check(&path, load).await
}

/// The same rows, and nothing that the tree asks for.
async fn run_without(
    load: Load,
    decisions: &[Decision],
    taken: &mut Taken,
) -> Result<(), LedgerBenchError> {
    let directory = TempDir::new()?;
    let path = directory.path().join("carnet.db");
    Store::open(&path, signer()?).await?.close().await;
    let rows = connect(&path).await?;
    let by = account();
    let mut decisions = decisions.iter().cycle().cloned();
    let before = taken.latencies.len();
    for _ in 0..load.transactions {
        let batch: Vec<Decision> = decisions.by_ref().take(load.batch).collect();
        let began = Instant::now();
        insert(&rows, by, batch).await?;
        taken.latencies.push(began.elapsed());
    }
    rows.close().await;
    taken.finish_run(load, before);
    check(&path, load).await
}

async fn insert(
    rows: &SqlitePool,
    by: AccountId,
    decisions: Vec<Decision>,
) -> Result<(), LedgerBenchError> {
    let mut transaction = rows.begin_with("BEGIN IMMEDIATE").await?;
    let at_ms = now();
    for decision in decisions {
        let (entry, bytes) = entry(at_ms, by, decision)?;
        let (container, edge, migration) = entry.about();
        sqlx::query(
            "INSERT INTO ledger_entries (at, kind, container, edge, migration, entry)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(at_ms.0)
        .bind(entry.kind())
        .bind(container.map(|id| id.to_string()))
        .bind(edge.map(|id| id.to_string()))
        .bind(migration.map(|id| id.to_string()))
        .bind(bytes)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// That all of it is there; the store's first entry is its key.
async fn check(path: &Path, load: Load) -> Result<(), LedgerBenchError> {
    let rows = connect(path).await?;
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM ledger_entries")
        .fetch_one(&rows)
        .await?;
    rows.close().await;
    let found = found.unsigned_abs();
    let expected = (load.batch * load.transactions) as u64 + 1;
    if found == expected {
        Ok(())
    } else {
        Err(LedgerBenchError::Lost { found, expected })
    }
}

async fn connect(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .connect_with(Store::settings(path))
        .await
}

/// The ledger's key signs nothing that outlives a run.
fn signer() -> Result<LedgerSigner, NoteFault> {
    LedgerSigner::new("carnet/bench", &[7; 32])
}

fn account() -> AccountId {
    AccountId::from_uuid(Uuid::now_v7())
}

fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn entry(
    at_ms: UnixMillis,
    by: AccountId,
    decision: Decision,
) -> Result<(Entry, Vec<u8>), LedgerBenchError> {
    let entry = Entry {
        at_ms,
        by: Actor::Account(by),
        event: Event::Decision(Box::new(decision)),
    };
    let bytes = entry.to_bytes().map_err(LedgerBenchError::Entry)?;
    Ok((entry, bytes))
}

/// What the paper prints of an edge besides its attributes, in percent.
#[derive(Debug, Deserialize)]
struct Use {
    cpu_usage: u16,
    memory_usage: u16,
}

/// Each of the paper's containers, audited against each of its edges.
fn decisions() -> Result<Vec<Decision>, LedgerBenchError> {
    let now = now();
    let used: Vec<Use> = csv::Reader::from_reader(EDGES.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()?;
    let edges: Vec<_> = attributes_from_csv(EDGES)?
        .into_iter()
        .zip(used)
        .map(|(row, used)| {
            let utilization = Utilization::new(
                used.cpu_usage.saturating_mul(100),
                used.memory_usage.saturating_mul(100),
                now,
            );
            let edge = EdgeId::from_uuid(Uuid::now_v7());
            (edge, row.attributes, utilization)
        })
        .collect();
    let source = EdgeId::from_uuid(Uuid::now_v7());
    let mut decisions = Vec::new();
    for (_, requirements) in requirements_from_csv(CONTAINERS)? {
        let subject = Subject {
            container: ContainerId::from_uuid(Uuid::now_v7()),
            generation: 1,
            source,
            requirements: &requirements,
            requirements_revision: 1,
        };
        for (edge, attributes, utilization) in &edges {
            let candidate = Candidate {
                edge: *edge,
                attributes,
                attributes_revision: 1,
                utilization: utilization.as_ref(),
            };
            let verdict = audit(
                &requirements,
                attributes,
                utilization.as_ref(),
                now,
                MAX_READING_AGE_MS,
            );
            decisions.push(Decision::of(
                &subject,
                &candidate,
                now,
                MAX_READING_AGE_MS,
                verdict,
            ));
        }
    }
    Ok(decisions)
}

impl Taken {
    /// `before` is how many latencies there were before the run.
    fn finish_run(&mut self, load: Load, before: usize) {
        let seconds: f64 = self
            .latencies
            .iter()
            .skip(before)
            .map(Duration::as_secs_f64)
            .sum();
        let entries = (load.batch * load.transactions) as f64;
        self.entries_per_second.push(entries / seconds);
    }

    /// The median of the runs.
    fn throughput(&self) -> f64 {
        let mut runs = self.entries_per_second.clone();
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied().unwrap_or_default()
    }

    /// The latency that `percent` of the transactions do not exceed, in milliseconds.
    fn latency_ms(&self, percent: usize) -> f64 {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let rank = (latencies.len() * percent).div_ceil(100);
        let latency = latencies.get(rank.saturating_sub(1));
        latency.copied().unwrap_or_default().as_secs_f64() * 1_000.0
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "batch",
            "entries/s with the tree",
            "without",
            "ratio",
            "p50, ms",
            "p99, ms",
            "p50 without, ms",
            "p99 without, ms",
        ]);
        for compared in &self.compared {
            let (with_tree, without) = (&compared.with_tree, &compared.without);
            let (fast, floor) = (with_tree.throughput(), without.throughput());
            let cells = [
                compared.load.batch.to_string(),
                format!("{fast:.0}"),
                format!("{floor:.0}"),
                format!("{:.2}", fast / floor),
                format!("{:.2}", with_tree.latency_ms(50)),
                format!("{:.2}", with_tree.latency_ms(99)),
                format!("{:.2}", without.latency_ms(50)),
                format!("{:.2}", without.latency_ms(99)),
            ];
            table.add_row(cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        write!(
            f,
            "decisions of {} bytes on average, medians of {RUNS} runs, {cores} cores\n{table}",
            self.mean_entry_bytes
        )
    }
}
