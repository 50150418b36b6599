//! The witness as it is started and stopped, and what it answers: plain HTTP. What it gets and
//! gives is signed, and holds no personal data; a proxy in front of it may add TLS.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::rejection::StringRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use carnet_core::ledger::{AddCheckpoint, Cosigner, LedgerVerifier, Uncosigned, WitnessVerifier};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::key;
use crate::listener::BoundedListener;
use crate::memory::{Memory, NotTaken};

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 << 10;
/// How long requests under way may take to end when the witness stops.
const GRACE: Duration = Duration::from_secs(5);

/// How a witness is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that holds its key and its memory; made if it is not there.
    pub state: PathBuf,
    pub listen: SocketAddr,
    /// The verifier keys of the ledgers that it cosigns.
    pub ledgers: Vec<String>,
}

/// What is known once it listens.
#[derive(Debug)]
pub struct Started {
    pub address: SocketAddr,
    /// What its cosignatures are verified with.
    pub verifier: WitnessVerifier,
    /// The name of each ledger, and how many entries it had at last.
    pub remembered: Vec<(String, u64)>,
}

/// Why a witness does not run.
#[derive(Debug, Error)]
pub enum WitnessError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another witness runs on {path}", path = .0.display())]
    InUse(PathBuf),
    #[error("{path} holds no Ed25519 key (PKCS #8, PEM): {problem}", path = path.display())]
    Key { path: PathBuf, problem: String },
    #[error(
        "{path} does not hold what was cosigned last of `{origin}` ({problem}); without it a second past could be cosigned: is its verifier key another one now? then take a new state, which is a new witness",
        path = path.display()
    )]
    Memory {
        path: PathBuf,
        origin: String,
        problem: String,
    },
    #[error("the ledgers to be cosigned: {}", .0.join("; "))]
    Ledgers(Vec<String>),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot go on serving: {0}")]
    Serve(io::Error),
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> WitnessError + use<> {
    let path = path.to_owned();
    move |source| WitnessError::File { path, source }
}

/// Makes a directory that only its owner can read, where it is not there.
pub(crate) fn prepare(directory: &Path) -> Result<(), WitnessError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(at(directory))
}

/// Two witnesses on one state would each remember what the other does not.
fn lock(state: &Path) -> Result<File, WitnessError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WitnessError::InUse(state.to_owned())),
        Err(TryLockError::Error(source)) => Err(at(&path)(source)),
    }
}

/// Every ledger by its verifier key, or all that is wrong with the keys.
fn ledgers(keys: &[String]) -> Result<Vec<LedgerVerifier>, WitnessError> {
    let mut ledgers: Vec<LedgerVerifier> = Vec::new();
    let mut faults = Vec::new();
    for key in keys {
        match LedgerVerifier::new(key) {
            Ok(ledger) if ledgers.iter().any(|one| one.origin() == ledger.origin()) => {
                faults.push(format!("`{key}`: `{}` is named twice", ledger.origin()));
            }
            Ok(ledger) => ledgers.push(ledger),
            Err(fault) => faults.push(format!("`{key}`: {fault}")),
        }
    }
    if faults.is_empty() {
        Ok(ledgers)
    } else {
        Err(WitnessError::Ledgers(faults))
    }
}

struct Witness {
    cosigner: Cosigner,
    memories: Vec<Memory>,
}

/// Runs a witness until `shutdown` completes. `ready` is called once it listens.
///
/// # Errors
/// [`WitnessError`].
pub async fn run(
    config: Config,
    ready: impl FnOnce(&Started),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), WitnessError> {
    let known = ledgers(&config.ledgers)?;
    prepare(&config.state)?;
    let _lock = lock(&config.state)?;
    let cosigner = key::open(&config.state)?;
    let directory = config.state.join("ledgers");
    prepare(&directory)?;
    let memories = known
        .into_iter()
        .map(|ledger| Memory::open(&directory, ledger))
        .collect::<Result<Vec<_>, _>>()?;
    let failed = |source| WitnessError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let started = Started {
        address: listener.local_addr().map_err(failed)?,
        verifier: cosigner.verifier(),
        remembered: memories
            .iter()
            .map(|memory| (memory.as_ref().origin().to_owned(), memory.size()))
            .collect(),
    };
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Witness { cosigner, memories }));
    let (stopping, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(BoundedListener::new(listener), router)
        .with_graceful_shutdown(async move {
            shutdown.await;
            drop(stopping);
        })
        .into_future();
    ready(&started);
    tokio::select! {
        ended = serving => ended.map_err(WitnessError::Serve),
        // An error: it was dropped, which is what is waited for.
        () = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests under way have been broken off");
            Ok(())
        }
    }
}

/// Now, in seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

async fn add_checkpoint(
    State(witness): State<Arc<Witness>>,
    body: Result<String, StringRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    // The disk may take its time. Begun, it is carried out, whether or not the asker waits.
    let answer = tokio::task::spawn_blocking(move || cosign(&witness, &body)).await;
    answer.unwrap_or_else(|error| {
        tracing::error!(%error, "a request was not answered");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

fn cosign(witness: &Witness, body: &str) -> Response {
    let asked = AddCheckpoint::parse(body)
        .and_then(|request| Ok((request.ledger_of(&witness.memories)?, request)));
    let (memory, request) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refused(None, &refusal),
    };
    let origin = memory.as_ref().origin();
    match memory.take(&request) {
        Ok(checkpoint) => match witness.cosigner.cosign(&request.note, now()) {
            Ok(line) => {
                tracing::info!(origin, size = checkpoint.size, "cosigned");
                (StatusCode::OK, line).into_response()
            }
            Err(fault) => refused(Some(origin), &Uncosigned::Unsigned(fault)),
        },
        Err(NotTaken::Refused(refusal)) => refused(Some(origin), &refusal),
        Err(NotTaken::NotKept(error)) => {
            tracing::error!(origin, %error, "a checkpoint cannot be kept, and was not cosigned");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn refused(origin: Option<&str>, refusal: &Uncosigned) -> Response {
    match refusal {
        // Another size is how an asker learns the one that is remembered.
        Uncosigned::OtherSize { .. } => tracing::debug!(origin, %refusal, "not cosigned"),
        _ => tracing::warn!(origin, %refusal, "not cosigned"),
    }
    let status =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match refusal {
        Uncosigned::OtherSize { size } | Uncosigned::OtherRoot { size } => {
            let kind = [(header::CONTENT_TYPE, "text/x.tlog.size")];
            (status, kind, format!("{size}\n")).into_response()
        }
        _ => (status, format!("{refusal}\n")).into_response(),
    }
}
