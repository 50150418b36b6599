//! The witness over HTTP, as ledgers and their attackers ask it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use carnet_core::ledger::{
    AddCheckpoint, Checkpoint, Growth, LedgerSigner, Nodes, WitnessVerifier, consistency_nodes,
    leaf_hash, prove_consistency,
};
use carnet_witness::key;
use carnet_witness::server::{Config, Started, WitnessError, run};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Beyond it a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const ORIGIN: &str = "carnet.test/ledger";

fn signer() -> LedgerSigner {
    LedgerSigner::new(ORIGIN, &[7; 32]).unwrap()
}

fn tree(entries: &[u8]) -> Growth {
    let mut tree = Growth::new(0, Nodes::default());
    for entry in entries {
        tree.append(leaf_hash(&[*entry])).unwrap();
    }
    tree
}

/// A request of a ledger with these entries, proven from `old`.
fn request(signer: &LedgerSigner, entries: &[u8], old: u64) -> AddCheckpoint {
    let tree = tree(entries);
    let nodes = Nodes(tree.grown().iter().copied().collect());
    let size = tree.size();
    let proof = match consistency_nodes(old, size) {
        Ok(_) => prove_consistency(old, size, &nodes).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let root = tree.root().unwrap();
    let note = signer.sign(&Checkpoint { size, root }).unwrap();
    AddCheckpoint { old, proof, note }
}

/// A witness that runs.
struct Running {
    address: SocketAddr,
    verifier: WitnessVerifier,
    remembered: Vec<(String, u64)>,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), WitnessError>>,
}

struct Answer {
    status: u16,
    kind: String,
    body: String,
}

async fn start_with(state: &Path, ledgers: &[String]) -> Result<Running, WitnessError> {
    let config = Config {
        state: state.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ledgers: ledgers.to_vec(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, started) = oneshot::channel();
    let mut task = tokio::spawn(run(
        config,
        |started: &Started| {
            let told = (
                started.address,
                started.verifier.clone(),
                started.remembered.clone(),
            );
            let _ = ready.send(told);
        },
        async {
            let _ = stopped.await;
        },
    ));
    // The only provider; another test may have named it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    let http = http.build().unwrap();
    tokio::select! {
        biased;
        Ok((address, verifier, remembered)) = started => Ok(Running {
            address, verifier, remembered, http, stop, task,
        }),
        ended = &mut task => Err(ended.unwrap().unwrap_err()),
    }
}

async fn start(state: &Path) -> Running {
    start_with(state, &[signer().verifier_key()]).await.unwrap()
}

async fn ask(http: &reqwest::Client, address: SocketAddr, body: Vec<u8>) -> Answer {
    let url = format!("http://{address}/add-checkpoint");
    let answer = http.post(url).body(body).send().await.unwrap();
    let kind = answer.headers().get("content-type");
    Answer {
        status: answer.status().as_u16(),
        kind: kind.map_or("", |kind| kind.to_str().unwrap()).to_owned(),
        body: answer.text().await.unwrap(),
    }
}

impl Running {
    async fn send(&self, body: impl Into<Vec<u8>>) -> Answer {
        ask(&self.http, self.address, body.into()).await
    }

    async fn ask(&self, request: &AddCheckpoint) -> Answer {
        self.send(request.to_body()).await
    }

    /// Asks, and checks the cosignature.
    async fn cosigned(&self, entries: &[u8], old: u64) {
        let request = request(&signer(), entries, old);
        let answer = self.ask(&request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cosigned = format!("{}{}", request.note, answer.body);
        assert!(self.verifier.cosigned_at(&cosigned).unwrap() > 1_700_000_000);
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("it stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_ledger_that_grows_is_cosigned_and_the_same_checkpoint_again() {
    let state = TempDir::new().unwrap();
    let witness = start(state.path()).await;
    witness.cosigned(b"abc", 0).await;
    witness.cosigned(b"abc", 3).await;
    witness.cosigned(b"abcdefg", 3).await;
    witness.stop().await;
}

#[tokio::test]
async fn whoever_has_another_size_in_mind_is_told_the_right_one() {
    let state = TempDir::new().unwrap();
    let witness = start(state.path()).await;
    witness.cosigned(b"abc", 0).await;
    let answer = witness.ask(&request(&signer(), b"abcde", 2)).await;
    assert_eq!(
        (answer.status, answer.kind.as_str(), answer.body.as_str()),
        (409, "text/x.tlog.size", "3\n")
    );
    witness.cosigned(b"abcde", 3).await;
    witness.stop().await;
}

#[tokio::test]
async fn what_does_not_follow_is_refused_and_not_remembered() {
    let state = TempDir::new().unwrap();
    let witness = start(state.path()).await;
    witness.cosigned(b"abcd", 0).await;
    let stranger = LedgerSigner::new("carnet.test/other", &[7; 32]).unwrap();
    let forger = LedgerSigner::new(ORIGIN, &[8; 32]).unwrap();
    let mut unproven = request(&signer(), b"abcdef", 4);
    unproven.proof.pop();
    for (what, asked, status) in [
        ("rolled back", request(&signer(), b"abc", 3), 409),
        ("shrunk", request(&signer(), b"abc", 4), 400),
        ("forked at its size", request(&signer(), b"abxd", 4), 409),
        ("forked and grown", request(&signer(), b"abxdef", 4), 422),
        ("begun anew", request(&signer(), b"xyzuvw", 0), 409),
        ("not proven", unproven, 422),
        (
            "of a ledger not known",
            request(&stranger, b"abcdef", 4),
            404,
        ),
        ("signed by another", request(&forger, b"abcdef", 4), 403),
    ] {
        let answer = witness.ask(&asked).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        if status == 409 {
            assert_eq!(answer.body, "4\n", "{what}");
        }
    }
    for body in [&b"old 4"[..], b"", b"\xff\xfe"] {
        assert_eq!(witness.send(body).await.status, 400);
    }
    assert_eq!(witness.send(vec![b'a'; 100 << 10]).await.status, 413);
    witness.cosigned(b"abcdef", 4).await;
    witness.stop().await;
}

#[tokio::test]
async fn it_remembers_over_a_restart() {
    let state = TempDir::new().unwrap();
    let first = start(state.path()).await;
    assert_eq!(first.remembered, [(ORIGIN.to_owned(), 0)]);
    first.cosigned(b"abcd", 0).await;
    let verifier = first.verifier.clone();
    first.stop().await;
    let second = start(state.path()).await;
    assert_eq!(second.verifier, verifier);
    assert_eq!(second.remembered, [(ORIGIN.to_owned(), 4)]);
    let fork = second.ask(&request(&signer(), b"xbcdef", 4)).await;
    assert_eq!(fork.status, 422, "{}", fork.body);
    let anew = second.ask(&request(&signer(), b"xbcdef", 0)).await;
    assert_eq!(anew.status, 409, "{}", anew.body);
    second.cosigned(b"abcdef", 4).await;
    second.stop().await;
}

/// Each of two pasts follows from what is remembered; only one may be cosigned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_pasts_at_the_same_time_one_is_cosigned() {
    for _ in 0..8 {
        let state = TempDir::new().unwrap();
        let witness = start(state.path()).await;
        witness.cosigned(b"abc", 0).await;
        let mut asked = JoinSet::new();
        for number in 0..16 {
            let past = number % 2;
            let entries: &[u8] = if past == 0 { b"abcd" } else { b"abcx" };
            let body = request(&signer(), entries, 3).to_body().into_bytes();
            let (http, address) = (witness.http.clone(), witness.address);
            asked.spawn(async move { (past, ask(&http, address, body).await.status) });
        }
        let mut cosigned: Vec<i32> = asked
            .join_all()
            .await
            .into_iter()
            .filter(|(_, status)| *status == 200)
            .map(|(past, _)| past)
            .collect();
        cosigned.dedup();
        assert_eq!(cosigned.len(), 1);
        witness.stop().await;
    }
}

#[tokio::test]
async fn its_key_and_memory_are_its_owners_and_one_witness_has_them() {
    let state = TempDir::new().unwrap();
    let path = state.path().join("in/two/levels");
    let told = key::open(&path).unwrap().verifier();
    let witness = start(&path).await;
    assert_eq!(witness.verifier, told);
    witness.cosigned(b"abc", 0).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("witness.key")), 0o600);
    let second = start_with(&path, &[signer().verifier_key()]).await;
    assert!(matches!(second, Err(WitnessError::InUse(_))));
    witness.stop().await;
}

/// Otherwise it would cosign a second past.
#[tokio::test]
async fn a_witness_whose_memory_is_damaged_does_not_start() {
    let state = TempDir::new().unwrap();
    let witness = start(state.path()).await;
    witness.cosigned(b"abc", 0).await;
    witness.stop().await;
    let other = LedgerSigner::new(ORIGIN, &[8; 32]).unwrap();
    let renamed = start_with(state.path(), &[other.verifier_key()]).await;
    assert!(matches!(renamed, Err(WitnessError::Memory { .. })));
    let kept = fs::read_dir(state.path().join("ledgers")).unwrap();
    for file in kept {
        let path = file.unwrap().path();
        let note = fs::read_to_string(&path).unwrap();
        fs::write(path, note.replacen('3', "2", 1)).unwrap();
    }
    let damaged = start_with(state.path(), &[signer().verifier_key()]).await;
    let error = damaged.err().unwrap().to_string();
    assert!(error.contains(ORIGIN), "{error}");
}

#[tokio::test]
async fn everything_wrong_with_the_ledgers_keys_is_told_at_once() {
    let state = TempDir::new().unwrap();
    let key = signer().verifier_key();
    let keys = [key.clone(), "nothing".to_owned(), key, "a+b+c".to_owned()];
    let error = start_with(state.path(), &keys).await.err().unwrap();
    let text = error.to_string();
    for part in ["`nothing`", "named twice", "`a+b+c`"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_waiting_and_not_the_end_either() {
    let state = TempDir::new().unwrap();
    let witness = start(state.path()).await;
    let mut silent = TcpStream::connect(witness.address).await.unwrap();
    witness.cosigned(b"abc", 0).await;
    witness.stop().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await;
    // Closed or reset: it is over.
    assert!(read.is_ok());
}
