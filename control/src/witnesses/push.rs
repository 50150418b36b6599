use std::sync::Arc;
use std::time::Duration;

use carnet_core::ledger::{
    AddCheckpoint, Checkpoint, LedgerVerifier, consistency_nodes, prove_consistency,
};
use reqwest::StatusCode;
use thiserror::Error;

use super::{Standing, Witness};
use crate::migrate::Pace;
use crate::store::ledger::SignedCheckpoint;
use crate::store::{Store, StoreError};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A request and its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two checkpoints that are shown: what grows meanwhile is shown at once.
const GATHERED: Duration = Duration::from_millis(100);
/// The longest answer that is read, in bytes: a witness is somebody else.
const MAX_ANSWER: usize = 16 << 10;
/// How much of an answer is told, in characters.
const LONGEST_TOLD: usize = 200;

/// Shows one witness the ledger.
pub(super) struct Push {
    store: Store,
    ledger: LedgerVerifier,
    witness: Arc<Witness>,
    http: reqwest::Client,
    pace: Pace,
}

/// Why a witness has not cosigned.
#[derive(Debug, Error)]
enum NotCosigned {
    /// Somebody has to look: what the witness remembers is not this ledger.
    #[error("the witness refuses: {0}")]
    Refused(String),
    /// It may pass.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a witness answers.
enum Answer {
    Cosigned(String),
    /// What it cosigned last has another size.
    Size(u64),
}

impl Push {
    pub fn new(
        store: Store,
        ledger: LedgerVerifier,
        witness: Arc<Witness>,
        pace: Pace,
    ) -> Result<Self, reqwest::Error> {
        // The only provider; another client may have named it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if witness.address.add_checkpoint.scheme() == "http" {
            // Without TLS it does not matter which authorities this machine trusts, if any.
            http = http.tls_certs_only([]);
        }
        Ok(Self {
            store,
            ledger,
            witness,
            http: http.build()?,
            pace,
        })
    }

    /// Shows the newest checkpoint whenever there is a newer one; what came to nothing again,
    /// with pauses that grow.
    pub async fn run(self) {
        let mut grown = self.store.grown();
        let mut in_vain = 0;
        loop {
            grown.borrow_and_update();
            match self.show().await {
                Ok(()) => {
                    in_vain = 0;
                    tokio::time::sleep(GATHERED).await;
                    if grown.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    self.tell(&error);
                    in_vain += 1;
                    tokio::time::sleep(self.pace.pause(in_vain)).await;
                }
            }
        }
    }

    /// Keeps and logs why; each once for as long as it lasts.
    fn tell(&self, error: &NotCosigned) {
        let standing = self.witness.standing();
        let problem = Some(error.to_string());
        let witness = self.witness.address.verifier.name();
        match error {
            _ if standing.problem == problem => {
                tracing::debug!(witness, %error, "the ledger is still not cosigned");
            }
            NotCosigned::Refused(_) | NotCosigned::Store(_) => {
                tracing::error!(witness, %error, "the ledger is not cosigned");
            }
            NotCosigned::Failed(_) => {
                tracing::warn!(witness, %error, "the ledger is not cosigned");
            }
        }
        self.witness.set(Standing {
            problem,
            ..standing
        });
    }

    /// Has the newest checkpoint cosigned, and keeps the cosignature. A crash before the end of
    /// it: the witness is shown it again, and cosigns it again.
    async fn show(&self) -> Result<(), NotCosigned> {
        let Some(newest) = self.store.checkpoint().await? else {
            return Ok(());
        };
        let checkpoint = self
            .ledger
            .open(&newest.note)
            .map_err(|fault| NotCosigned::Failed(format!("the checkpoint: {fault}")))?;
        let believed = self.witness.standing().cosigned.min(newest.size);
        let line = match self.ask(&newest, &checkpoint, believed).await? {
            Answer::Cosigned(line) => line,
            Answer::Size(size) => self.ask_from(&newest, &checkpoint, size, believed).await?,
        };
        let key = &self.witness.address.verifier;
        key.cosigned_at(&format!("{}{line}", newest.note))
            .map_err(|fault| {
                NotCosigned::Failed(format!(
                    "the answer is not the cosignature of `{}`: {fault}",
                    key.name()
                ))
            })?;
        self.store
            .keep_cosignature(&key.to_string(), newest.size, &line)
            .await?;
        if self.witness.standing().problem.is_some() {
            tracing::info!(witness = key.name(), size = newest.size, "cosigned again");
        }
        self.witness.set(Standing {
            cosigned: newest.size,
            problem: None,
        });
        Ok(())
    }

    /// Once more, proven from the size that the witness names.
    async fn ask_from(
        &self,
        newest: &SignedCheckpoint,
        checkpoint: &Checkpoint,
        size: u64,
        believed: u64,
    ) -> Result<String, NotCosigned> {
        if size > newest.size {
            return Err(NotCosigned::Refused(format!(
                "it has cosigned {size} entries, and the ledger has {}: it was rolled back",
                newest.size
            )));
        }
        let other_root = || {
            NotCosigned::Refused(format!(
                "it has cosigned {size} entries that are not the ledger's: it was rewritten"
            ))
        };
        if size == believed {
            return Err(other_root());
        }
        match self.ask(newest, checkpoint, size).await? {
            Answer::Cosigned(line) => Ok(line),
            Answer::Size(again) if again == size => Err(other_root()),
            Answer::Size(again) => Err(NotCosigned::Failed(format!(
                "somebody else shows the witness this ledger: it went from {size} entries to {again}"
            ))),
        }
    }

    async fn ask(
        &self,
        newest: &SignedCheckpoint,
        checkpoint: &Checkpoint,
        old: u64,
    ) -> Result<Answer, NotCosigned> {
        let wanted = consistency_nodes(old, checkpoint.size).map_err(StoreError::from)?;
        let nodes = self.store.nodes(&wanted).await?;
        let proof = prove_consistency(old, checkpoint.size, &nodes).map_err(StoreError::from)?;
        let request = AddCheckpoint {
            old,
            proof,
            note: newest.note.clone(),
        };
        let (status, body) = self
            .post(request.to_body())
            .await
            .map_err(|error| NotCosigned::Failed(format!("no answer: {}", root_cause(&error))))?;
        let told: String = body.trim_end().chars().take(LONGEST_TOLD).collect();
        match status {
            StatusCode::OK => Ok(Answer::Cosigned(line_of(
                &body,
                self.witness.address.verifier.name(),
            ))),
            StatusCode::CONFLICT => body.trim_end().parse().map(Answer::Size).map_err(|_| {
                NotCosigned::Failed(format!("it names no size that it has cosigned: {told}"))
            }),
            StatusCode::UNPROCESSABLE_ENTITY => Err(NotCosigned::Refused(format!(
                "the ledger does not begin with the {old} entries that it has cosigned: it was rewritten ({told})"
            ))),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Err(NotCosigned::Refused(format!(
                "it does not know this ledger and its key ({status}): {told}"
            ))),
            other => Err(NotCosigned::Failed(format!("it answers {other}: {told}"))),
        }
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), reqwest::Error> {
        let url = self.witness.address.add_checkpoint.clone();
        let mut response = self.http.post(url).body(body).send().await?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MAX_ANSWER {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok((response.status(), answer))
    }
}

/// The line of that name, where there are several; nothing else of what a witness answers is kept.
fn line_of(body: &str, name: &str) -> String {
    let begin = format!("— {name} ");
    body.lines()
        .find(|line| line.starts_with(&begin))
        .map(|line| format!("{line}\n"))
        .unwrap_or_default()
}

/// What happened: the outer errors say no more than that a request came to nothing.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
