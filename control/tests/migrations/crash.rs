//! The store, killed at any moment: what was acknowledged is there, and no half of anything.
//!
//! A child process, this test program itself, writes and says on its standard output what the
//! store has acknowledged; its parent kills it (SIGKILL) at random moments and looks. Power cuts
//! are not played: that a commit is on the disk is what `synchronous=FULL` is for.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::Poll;
use std::time::Duration;

use carnet_api::v1::{Attempt, AttemptOutcome, Role};
use carnet_control::store::listing::{Search, Whose};
use carnet_control::store::migrations::{Facts, NewMigration, Step};
use carnet_control::store::{NewAccount, NewContainer, Store};
use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId};
use carnet_core::ledger::Decision;
use carnet_core::migration::{Candidate, Cause, MigrationPlan, Phase, State, Subject, Terms};
use carnet_core::policy::{Attributes, Requirements, Verdict};
use rand::Rng;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Row, SqlitePool};
use uuid::Uuid;

use crate::plane::{EVERYTHING, PACE, Plane, ledger_signer, now, to_edge};

/// Where the child finds the database.
const DATABASE: &str = "CARNET_TEST_DATABASE";
const KILLS: usize = 30;
/// How often a write is given up at every place.
const SWEEPS: usize = 8;
/// Movers in a child, beside each other.
const MOVERS: usize = 3;

/// A move by the store alone, as a runner has it saved.
struct Move {
    store: Store,
    owner: AccountId,
    id: MigrationId,
    container: ContainerId,
    plan: MigrationPlan,
    decision: Decision,
}

impl Move {
    /// A container at `source`, with a move to `target` that has been asked for. `tell` hears
    /// what is acknowledged.
    async fn create(
        store: &Store,
        owner: AccountId,
        (source, target): (EdgeId, EdgeId),
        tell: impl Fn(String),
    ) -> Self {
        let container = ContainerId::from_uuid(Uuid::now_v7());
        let new = NewContainer {
            id: container,
            name: container.to_string(),
            owner,
            edge: source,
            requirements: json!({}),
            allow_post_copy: false,
            created_at: now(),
        };
        store.create_container(&new).await.unwrap();
        tell(format!("container {container}"));
        store
            .confirm_container(container, owner, now())
            .await
            .unwrap();
        tell(format!("confirmed {container}"));
        let id = MigrationId::from_uuid(Uuid::now_v7());
        let new = NewMigration {
            id,
            container,
            requested_by: owner,
            to: to_edge("target"),
            terms: Terms::default(),
            source,
            created_at: now(),
        };
        store.create_migration(&new).await.unwrap();
        tell(format!("admitting {id}"));
        let (requirements, attributes) = (Requirements::default(), Attributes::default());
        let subject = Subject {
            container,
            generation: 1,
            source,
            requirements: &requirements,
            requirements_revision: 1,
        };
        let candidate = Candidate {
            edge: target,
            attributes: &attributes,
            attributes_revision: 1,
            utilization: None,
        };
        let plan = MigrationPlan::from_audit(&subject, &candidate, now(), 0).unwrap();
        let decision = Decision::of(&subject, &candidate, now(), 0, Verdict::Permit);
        Self {
            store: store.clone(),
            owner,
            id,
            container,
            plan,
            decision,
        }
    }

    fn step<'a>(&self, state: &'a State, facts: &'a Facts) -> Step<'a> {
        Step {
            id: self.id,
            state,
            facts,
            attempt: None,
            waiting_for: None,
            waiting_since: None,
            needs_operator: false,
            owed: None,
            now: now(),
        }
    }

    async fn save(&self, state: &State, attempt: Option<(u32, &Attempt)>) {
        let facts = Facts::default();
        let step = Step {
            attempt,
            ..self.step(state, &facts)
        };
        self.store.save_step(step).await.unwrap();
    }

    async fn commit(&self) {
        let facts = Facts::default();
        let restoring = State::Restoring {
            plan: self.plan.clone(),
            failures: Vec::new(),
        };
        let done = self.store.commit(&self.plan, self.step(&restoring, &facts));
        assert_eq!(done.await.unwrap(), Ok(()));
    }

    async fn take_back(&self, cause: Cause) {
        let facts = Facts::default();
        let resuming = State::ResumingSource {
            plan: self.plan.clone(),
            cause,
        };
        let done = self
            .store
            .take_back(&self.plan, self.step(&resuming, &facts));
        assert_eq!(done.await.unwrap(), Ok(()));
    }

    fn attempt(&self, outcome: AttemptOutcome) -> Attempt {
        Attempt {
            edge: self.plan.target(),
            edge_name: "target".to_owned(),
            attributes_revision: 1,
            utilization: None,
            outcome,
            audited_at_ms: now(),
            compare_micros: 1.0,
            reading_micros: 1.0,
        }
    }

    /// To its end: to the target, or back again.
    async fn carry_out(&self, back: bool, tell: impl Fn(String)) {
        let (id, plan) = (self.id, self.plan.clone());
        let said = |phase: Phase| tell(format!("{} {id}", phase.name()));
        let not_ready = self.attempt(AttemptOutcome::NotReady {
            problems: vec!["no bridge".to_owned()],
        });
        self.store
            .save_attempt(id, 0, &not_ready, &self.decision)
            .await
            .unwrap();
        tell(format!("attempt {id}"));
        let permitted = self.attempt(AttemptOutcome::Permitted);
        self.save(
            &State::Preparing { plan: plan.clone() },
            Some((1, &permitted)),
        )
        .await;
        said(Phase::Preparing);
        for state in [
            State::CopyingAhead { plan: plan.clone() },
            State::HandingOver { plan: plan.clone() },
            State::Committing { plan: plan.clone() },
        ] {
            self.save(&state, None).await;
            said(state.phase());
        }
        self.commit().await;
        said(Phase::Restoring);
        let cause = Cause::failed(Phase::Restoring, "no room".to_owned());
        let rest = if back {
            let (withdrawing, taking) = (plan.clone(), plan.clone());
            for state in [
                State::WithdrawingTarget {
                    plan: withdrawing,
                    cause: cause.clone(),
                },
                State::TakingBack {
                    plan: taking,
                    cause: cause.clone(),
                },
            ] {
                self.save(&state, None).await;
                said(state.phase());
            }
            self.take_back(cause.clone()).await;
            said(Phase::ResumingSource);
            vec![
                State::DiscardingTarget {
                    plan,
                    cause: cause.clone(),
                },
                State::Failed { cause },
            ]
        } else {
            vec![
                State::Settling { plan: plan.clone() },
                State::Releasing { plan: plan.clone() },
                State::Completed { plan },
            ]
        };
        for state in rest {
            self.save(&state, None).await;
            said(state.phase());
        }
    }
}

/// How far a move is in a state; acknowledged states only rise.
fn rank(phase: &str) -> usize {
    const ORDER: [&[&str]; 12] = [
        &["admitting"],
        &["preparing"],
        &["copying_ahead"],
        &["handing_over"],
        &["committing"],
        &["restoring"],
        &["settling"],
        &["releasing", "withdrawing_target"],
        &["completed", "taking_back"],
        &["resuming_source"],
        &["discarding_target"],
        &["failed"],
    ];
    let found = ORDER.iter().position(|phases| phases.contains(&phase));
    found.unwrap_or_else(|| panic!("no state `{phase}`"))
}

fn is_past_the_commit(phase: &str) -> bool {
    (rank("restoring")..=rank("completed")).contains(&rank(phase))
}

fn is_taken_back(phase: &str) -> bool {
    rank(phase) >= rank("resuming_source")
}

/// Writes until it is killed. Run by [`a_store_killed_at_any_moment_keeps_what_it_acknowledged`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the child that is killed"]
async fn child() {
    let path = std::env::var_os(DATABASE).expect("the parent says where the database is");
    let store = Store::open(Path::new(&path), ledger_signer())
        .await
        .unwrap();
    let owner = store.account("owner").await.unwrap().unwrap().id;
    let edge = async |name| store.edge(name).await.unwrap().unwrap().id;
    let edges = (edge("source").await, edge("target").await);
    let tell = |what: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {what}").unwrap();
        out.flush().unwrap();
    };
    let mut tasks = tokio::task::JoinSet::new();
    for mover in 0..MOVERS {
        let store = store.clone();
        tasks.spawn(async move {
            for round in mover.. {
                let one = Move::create(&store, owner, edges, tell).await;
                one.carry_out(round % 2 == 1, tell).await;
            }
        });
    }
    let writer = store.clone();
    tasks.spawn(async move {
        loop {
            let id = AccountId::from_uuid(Uuid::now_v7());
            let account = NewAccount {
                id,
                name: id.to_string(),
                roles: vec![Role::Auditor],
                created_at: now(),
            };
            writer.create_account(&account, owner).await.unwrap();
            tell(format!("account {id}"));
        }
    });
    tasks.spawn(async move {
        loop {
            let search = Search::default();
            store.migrations(None, None, &search).await.unwrap();
            let containers = store.containers(&EVERYTHING, Whose::All, &search);
            containers.await.unwrap();
        }
    });
    // The first that ends has failed.
    tasks.join_next().await.unwrap().unwrap();
}

/// A child; killed at the latest when it is let go of.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child said until it was killed: `after` its `count`th word.
fn killed(path: &Path, count: usize, after: Duration) -> Vec<(String, String)> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut words = lines.filter_map(|line| {
        let line = line.unwrap();
        let (what, id) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
        Some((what.to_owned(), id.to_owned()))
    });
    let mut acknowledged: Vec<_> = words.by_ref().take(count).collect();
    std::thread::sleep(after);
    assert!(child.0.try_wait().unwrap().is_none(), "the child failed");
    child.0.kill().unwrap();
    acknowledged.extend(words);
    acknowledged
}

/// Looks for half transactions in all that is there; returns each migration's state and how many
/// have not ended.
async fn look(ledger: &SqlitePool) -> (BTreeMap<String, String>, usize) {
    let checked: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(ledger)
        .await
        .unwrap();
    assert_eq!(checked, "ok");
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(ledger);
    assert_eq!(dangling.await.unwrap().len(), 0);
    let rows = sqlx::query(
        "SELECT migrations.id, phase, state ->> 'state' AS state, ended_at, migrations.source,
             migrations.target, containers.edge, containers.generation,
             (SELECT count(*) FROM migration_attempts
              WHERE migration = migrations.id AND position = 1) AS permitted
         FROM migrations JOIN containers ON containers.id = migrations.container",
    )
    .fetch_all(ledger)
    .await
    .unwrap();
    let mut states = BTreeMap::new();
    let mut unended = 0;
    for row in rows {
        let [id, phase, state, source, edge] =
            ["id", "phase", "state", "source", "edge"].map(|name| row.get::<String, _>(name));
        let target: Option<String> = row.get("target");
        let place = if is_past_the_commit(&phase) {
            (target.clone().unwrap(), 2)
        } else if is_taken_back(&phase) {
            (source, 3)
        } else {
            (source, 1)
        };
        let what = format!("migration {id}, {phase}");
        assert_eq!((edge, row.get::<i64, _>("generation")), place, "{what}");
        assert_eq!(state, phase, "{what}");
        let is_permitted = rank(&phase) >= rank("preparing");
        assert_eq!(target.is_some(), is_permitted, "{what}");
        assert_eq!(row.get::<i64, _>("permitted") == 1, is_permitted, "{what}");
        let ended = matches!(phase.as_str(), "completed" | "failed");
        let ended_at: Option<i64> = row.get("ended_at");
        assert_eq!(ended_at.is_some(), ended, "{what}");
        unended += usize::from(!ended);
        states.insert(id, phase);
    }
    (states, unended)
}

#[test]
fn a_store_killed_at_any_moment_keeps_what_it_acknowledged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("carnet.db");
    let plane = runtime.block_on(async {
        let plane = Plane::at(&path, PACE).await;
        plane.edge("source").await;
        plane.edge("target").await;
        plane
    });
    drop(plane);
    let (mut acknowledgements, mut cut_off) = (0, 0);
    for kill in 0..KILLS {
        let count = rand::rng().random_range(1..40);
        let after = Duration::from_micros(rand::rng().random_range(0..5_000));
        let acknowledged = killed(&path, count, after);
        acknowledgements += acknowledged.len();
        runtime.block_on(async {
            // As the next control plane does.
            let store = Store::open(&path, ledger_signer()).await.unwrap();
            let ledger = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path))
                .await
                .unwrap();
            let (states, unended) = look(&ledger).await;
            let under_way = store.migrations_under_way().await.unwrap();
            assert_eq!(under_way.len(), unended);
            cut_off = unended;
            for (what, id) in acknowledged {
                let query = match what.as_str() {
                    "account" => "SELECT count(*) FROM accounts WHERE id = ?",
                    "container" => "SELECT count(*) FROM containers WHERE id = ?",
                    "confirmed" => {
                        "SELECT count(*) FROM containers
                         WHERE id = ? AND confirmed_at IS NOT NULL"
                    }
                    "attempt" => {
                        "SELECT count(*) FROM migration_attempts
                         WHERE migration = ? AND position = 0"
                    }
                    phase => {
                        let kept = states.get(&id).expect("the migration is there");
                        assert!(rank(kept) >= rank(phase), "{kept}, and {phase} was said");
                        continue;
                    }
                };
                let found: i64 = sqlx::query_scalar(query)
                    .bind(&id)
                    .fetch_one(&ledger)
                    .await
                    .unwrap();
                assert_eq!(found, 1, "kill {kill}: {what} {id}");
            }
            ledger.close().await;
            store.close().await;
        });
    }
    println!("{KILLS} kills, {acknowledgements} acknowledged writes, {cut_off} moves cut off");
    assert!(cut_off > 0, "no move was ever cut off");
    assert!(acknowledgements >= KILLS, "only {acknowledgements} writes");
}

/// `future`, dropped after so many polls; `None` where it was.
async fn given_up<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(fewer) => {
            left = fewer;
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}

/// Whoever hangs up has a handler dropped in the middle of a write.
#[tokio::test]
async fn a_write_that_is_given_up_anywhere_is_made_whole_or_not_at_all() {
    let plane = Plane::new().await;
    let edges = (plane.edge("source").await, plane.edge("target").await);
    let mut given_ups = 0;
    for _ in 0..SWEEPS {
        for polls in 0.. {
            let one = Move::create(&plane.store, plane.owner, edges, |_| {}).await;
            let plan = one.plan.clone();
            let permitted = one.attempt(AttemptOutcome::Permitted);
            one.save(&State::Committing { plan }, Some((1, &permitted)))
                .await;
            let made = given_up(polls, one.commit()).await.is_some();
            // Nothing is left locked, and nothing half done.
            let name = Uuid::now_v7().to_string();
            plane.pending_container(&name, one.owner, edges.0).await;
            let (states, _) = look(&plane.ledger).await;
            if made {
                assert_eq!(states[&one.id.to_string()], "restoring");
                break;
            }
            given_ups += 1;
        }
    }
    println!("given up {given_ups} times in {SWEEPS} sweeps");
    // Not only before it began.
    assert!(given_ups > SWEEPS);
}

/// The runner, the monitor and requests write at the same time, while others read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_beside_readers_find_nothing_locked() {
    const WRITERS: usize = 32;
    const READERS: usize = 16;
    let plane = Plane::new().await;
    let edges = (plane.edge("source").await, plane.edge("target").await);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let store = plane.store.clone();
        readers.spawn(async move {
            loop {
                let search = Search::default();
                store.migrations(None, None, &search).await.unwrap();
                let edges = store.edges(&EVERYTHING, Whose::All, &search);
                edges.await.unwrap();
            }
        });
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, owner) = (plane.store.clone(), plane.owner);
        writers.spawn(async move {
            let one = Move::create(&store, owner, edges, |_| {}).await;
            one.carry_out(writer % 2 == 1, |_| {}).await;
            one.container
        });
    }
    let moved = writers.join_all().await;
    assert_eq!(moved.len(), WRITERS);
    assert!(readers.try_join_next().is_none(), "a reader has failed");
    readers.shutdown().await;
    let (states, unended) = look(&plane.ledger).await;
    assert_eq!((states.len(), unended), (WRITERS, 0));
}
