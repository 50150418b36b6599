//! The whole program with real witnesses: what they cosign, what they refuse, and that nobody
//! waits for them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use carnet_api::v1::{Account, Keys, LedgerVerification, Witness, WitnessedBy};
use carnet_control::server::Config;
use carnet_control::witnesses::WitnessAddress;
use carnet_core::ledger::{Checkpoint, LedgerVerifier, WitnessVerifier};
use carnet_witness::key;
use carnet_witness::server::{self, Started, WitnessError};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::agents::PATIENCE;
use crate::start::{Running, config, start};

/// A witness that runs.
struct RunningWitness {
    address: SocketAddr,
    verifier: WitnessVerifier,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), WitnessError>>,
}

impl RunningWitness {
    async fn start(state: &Path, listen: SocketAddr, ledger: &str) -> Self {
        let config = server::Config {
            state: state.to_owned(),
            listen,
            ledgers: vec![ledger.to_owned()],
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = oneshot::channel();
        let task = tokio::spawn(server::run(
            config,
            |started: &Started| {
                let _ = ready.send((started.address, started.verifier.clone()));
            },
            async {
                let _ = stopped.await;
            },
        ));
        let (address, verifier) = started.await.expect("it starts");
        Self {
            address,
            verifier,
            stop,
            task,
        }
    }

    fn named(&self) -> String {
        format!("http://{}={}", self.address, self.verifier)
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("it stops").unwrap().unwrap();
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn witnessed(data: &Path, witnesses: &[String]) -> Config {
    Config {
        witnesses: WitnessAddress::parse_all(witnesses).unwrap(),
        ..config(data)
    }
}

/// The verifier key of the ledger in `data`, made if it is not there.
async fn ledger_of(data: &Path) -> String {
    let control = start(config(data)).await.unwrap();
    let keys: Keys = control.administrator().get("/v1/keys").await.unwrap();
    control.stop().await;
    keys.ledger
}

/// One entry, at least.
async fn grow(control: &Running, name: &str) {
    let body = json!({"name": name, "roles": ["edge_owner"]});
    let made: Account = control
        .administrator()
        .post("/v1/accounts", &body)
        .await
        .unwrap();
    assert_eq!(made.name, name);
}

async fn note(control: &Running) -> String {
    let bytes = control.administrator().bytes("/ledger/checkpoint").await;
    String::from_utf8(bytes.unwrap()).unwrap()
}

async fn checkpoint(control: &Running, ledger: &str) -> Checkpoint {
    let verifier = LedgerVerifier::new(ledger).unwrap();
    verifier.open(&note(control).await).unwrap()
}

/// How it stands with the witnesses, once `holds` does of it.
async fn standing(control: &Running, holds: impl Fn(&[Witness]) -> bool) -> Vec<Witness> {
    let client = control.administrator();
    let wait = async {
        loop {
            let witnesses: Vec<Witness> = client.get("/v1/ledger/witnesses").await.unwrap();
            if holds(&witnesses) {
                return witnesses;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it comes to stand so")
}

/// The newest checkpoint, once all have cosigned it.
async fn cosigned(control: &Running, ledger: &str, by: &[&WitnessVerifier]) -> Checkpoint {
    let wait = async {
        loop {
            let note = note(control).await;
            if by.iter().all(|witness| witness.cosigned_at(&note).is_ok()) {
                return LedgerVerifier::new(ledger).unwrap().open(&note).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it is cosigned")
}

/// The problem of the one witness, once it tells `part`.
async fn problem(control: &Running, part: &str) -> Witness {
    let has = |witness: &Witness| {
        let problem = witness.problem.as_deref();
        problem.is_some_and(|problem| problem.contains(part))
    };
    let mut witnesses = standing(control, |witnesses| witnesses.iter().any(has)).await;
    witnesses.retain(has);
    witnesses.remove(0)
}

#[tokio::test]
async fn a_ledger_is_cosigned_by_every_witness_as_it_grows() {
    let (data, one, two) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let ledger = ledger_of(data.path()).await;
    let one = RunningWitness::start(one.path(), anywhere(), &ledger).await;
    let two = RunningWitness::start(two.path(), anywhere(), &ledger).await;
    let (first, second) = (one.verifier.clone(), two.verifier.clone());
    let both = [&first, &second];
    let control = start(witnessed(data.path(), &[one.named(), two.named()]));
    let control = control.await.unwrap();
    let mut before = cosigned(&control, &ledger, &both).await.size;
    for name in ["ann", "bob", "cid"] {
        grow(&control, name).await;
        let now = cosigned(&control, &ledger, &both).await.size;
        assert!(now > before, "{now} after {before}");
        before = now;
    }
    let told = standing(&control, |witnesses| {
        witnesses.iter().all(|one| one.cosigned_size == before)
    });
    for (witness, running) in told.await.iter().zip([&one, &two]) {
        assert_eq!(witness.name, running.verifier.name());
        assert_eq!(witness.verifier_key, running.verifier.to_string());
        assert_eq!(witness.url, format!("http://{}", running.address));
        assert_eq!(witness.problem, None);
    }
    let verify = async || -> LedgerVerification {
        let client = control.administrator();
        client.get("/v1/ledger/verification").await.unwrap()
    };
    let found = verify().await;
    assert_eq!(found.faults, Vec::<String>::new());
    let told = found.witnesses.iter().map(|witness| witness.name.as_str());
    assert_eq!(told.collect::<Vec<_>>(), [first.name(), second.name()]);
    let has_cosigned = |witness: &WitnessedBy| witness.cosigned_at_ms.is_some();
    assert!(found.witnesses.iter().all(has_cosigned), "{found:?}");
    for witness in both {
        assert!(witness.cosigned_at(&found.checkpoint).is_ok());
    }

    // What was cosigned is kept, also where the witnesses are gone.
    one.stop().await;
    grow(&control, "dan").await;
    let found = verify().await;
    assert_eq!(found.faults, Vec::<String>::new(), "the ledger is sound");
    let cosigned_by: Vec<bool> = found.witnesses.iter().map(has_cosigned).collect();
    assert_eq!(cosigned_by, [false, true], "{found:?}");
    two.stop().await;
    let told = standing(&control, |witnesses| witnesses[0].problem.is_some());
    assert_eq!(told.await[0].cosigned_size, before);
    control.stop().await;
    let before = found.size;
    let both = [&second];
    let control = start(config(data.path())).await.unwrap();
    let kept = cosigned(&control, &ledger, &both).await;
    assert_eq!(kept.size, before);
    control.stop().await;
}

fn copy_database(from: &Path, to: &Path) {
    for file in ["carnet.db", "carnet.db-wal", "carnet.db-shm"] {
        let (from, to) = (from.join(file), to.join(file));
        if from.exists() {
            fs::copy(from, to).unwrap();
        } else if to.exists() {
            fs::remove_file(to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_database_that_was_put_back_is_found_and_what_grows_from_it_too() {
    let (data, state, older) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let ledger = ledger_of(data.path()).await;
    let witness = RunningWitness::start(state.path(), anywhere(), &ledger).await;
    let named = [witness.named()];
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    cosigned(&control, &ledger, &[&witness.verifier]).await;
    control.stop().await;
    copy_database(data.path(), older.path());
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    for name in ["ann", "bob", "cid"] {
        grow(&control, name).await;
    }
    let seen = cosigned(&control, &ledger, &[&witness.verifier]).await;
    control.stop().await;
    // It remembers over its own restart.
    let address = witness.address;
    witness.stop().await;
    let witness = RunningWitness::start(state.path(), address, &ledger).await;

    copy_database(older.path(), data.path());
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    let told = problem(&control, "rolled back").await;
    assert!(told.cosigned_size < seen.size);
    let mut number = 0;
    while checkpoint(&control, &ledger).await.size < seen.size {
        grow(&control, &format!("other-{number}")).await;
        number += 1;
    }
    problem(&control, "rewritten").await;
    grow(&control, "one-more").await;
    let told = problem(&control, "does not begin with").await;
    assert!(told.cosigned_size < seen.size);
    let note = note(&control).await;
    assert!(witness.verifier.cosigned_at(&note).is_err(), "{note}");
    control.stop().await;
    witness.stop().await;
}

/// By whoever has the ledger's key: signed, and sound in itself.
#[tokio::test]
async fn a_ledger_that_was_rewritten_whole_with_its_own_key_is_found() {
    let (data, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let ledger = ledger_of(data.path()).await;
    let witness = RunningWitness::start(state.path(), anywhere(), &ledger).await;
    let named = [witness.named()];
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    let seen = cosigned(&control, &ledger, &[&witness.verifier]).await;
    control.stop().await;
    let nothing = TempDir::new().unwrap();
    copy_database(nothing.path(), data.path());
    let control = start(config(data.path())).await.unwrap();
    let mut number = 0;
    while checkpoint(&control, &ledger).await.size <= seen.size {
        grow(&control, &format!("other-{number}")).await;
        number += 1;
    }
    control.stop().await;
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    let told = problem(&control, "does not begin with").await;
    assert_eq!(told.cosigned_size, 0);
    let note = note(&control).await;
    assert!(witness.verifier.cosigned_at(&note).is_err(), "{note}");
    control.stop().await;
    witness.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_a_witness_and_one_that_comes_back_cosigns_what_it_missed() {
    let (data, state, elsewhere) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let ledger = ledger_of(data.path()).await;
    let witness = RunningWitness::start(state.path(), anywhere(), &ledger).await;
    // Accepts, and never answers.
    let silent = TcpListener::bind(anywhere()).await.unwrap();
    let never = key::open(elsewhere.path()).unwrap().verifier();
    let silent_named = format!("http://{}={never}", silent.local_addr().unwrap());
    let named = [witness.named(), silent_named];
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    let before = cosigned(&control, &ledger, &[&witness.verifier]).await;
    let address = witness.address;
    witness.stop().await;

    grow(&control, "ann").await;
    grow(&control, "bob").await;
    let told = problem(&control, "Connection refused").await;
    assert_eq!(told.cosigned_size, before.size);
    let note = note(&control).await;
    let keys: Keys = control.administrator().get("/v1/keys").await.unwrap();
    let missed = LedgerVerifier::new(&keys.ledger)
        .unwrap()
        .open(&note)
        .unwrap();
    assert!(missed.size > before.size);

    let witness = RunningWitness::start(state.path(), address, &ledger).await;
    let now = cosigned(&control, &ledger, &[&witness.verifier]).await;
    assert_eq!(now, missed);
    standing(&control, |witnesses| witnesses[0].problem.is_none()).await;
    control.stop().await;
    witness.stop().await;
}

#[tokio::test]
async fn what_is_not_the_cosignature_of_the_witness_that_was_named_is_not_taken() {
    let (data, state, other) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let ledger = ledger_of(data.path()).await;
    let witness = RunningWitness::start(state.path(), anywhere(), &ledger).await;
    let other = key::open(other.path()).unwrap().verifier();
    let named = [format!("http://{}={other}", witness.address)];
    let control = start(witnessed(data.path(), &named)).await.unwrap();
    let told = problem(&control, "not the cosignature of").await;
    assert_eq!(told.cosigned_size, 0);
    let note = note(&control).await;
    assert!(witness.verifier.cosigned_at(&note).is_err(), "{note}");
    control.stop().await;
    witness.stop().await;
}

#[tokio::test]
async fn a_witness_that_does_not_know_the_ledger_is_told_of() {
    let (data, state, other) = (
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let other = ledger_of(other.path()).await;
    let witness = RunningWitness::start(state.path(), anywhere(), &other).await;
    let control = start(witnessed(data.path(), &[witness.named()]));
    let control = control.await.unwrap();
    problem(&control, "does not know this ledger").await;
    control.stop().await;
    witness.stop().await;
}

#[test]
fn everything_wrong_with_the_witnesses_that_are_named_is_told_at_once() {
    let state = TempDir::new().unwrap();
    let key = key::open(state.path()).unwrap().verifier();
    let given = [
        format!("https://one.example/below={key}"),
        format!("http://two.example={key}"),
        "http://three.example".to_owned(),
        "ftp://four.example=a+b+c".to_owned(),
        format!("nowhere={key}"),
    ];
    let faults = WitnessAddress::parse_all(&given).unwrap_err().0;
    for (part, fault) in [
        ("named twice", &faults[0]),
        ("not URL=VERIFIERKEY", &faults[1]),
        ("no address", &faults[2]),
        ("the witness's key", &faults[3]),
        ("no address", &faults[4]),
    ] {
        assert!(fault.contains(part), "{part} in {fault}");
    }
    assert_eq!(faults.len(), 5);
    assert_eq!(WitnessAddress::parse_all(&given[..1]).unwrap().len(), 1);
}
