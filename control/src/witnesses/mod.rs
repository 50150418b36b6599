//! The witnesses that cosign the ledger (C2SP tlog-witness). Each is shown the newest checkpoint
//! by a task of its own, beside everything else: a witness that is slow or gone keeps no decision
//! and no move waiting.

mod push;

use std::sync::{Arc, PoisonError, RwLock};

use carnet_core::ledger::{LedgerVerifier, WitnessVerifier};
use reqwest::Url;
use thiserror::Error;
use tokio::task::JoinSet;

use crate::migrate::Pace;
use crate::store::{Store, StoreError};

/// The path below a witness's address.
const ADD_CHECKPOINT: &str = "add-checkpoint";

/// A witness, as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessAddress {
    /// Where checkpoints are sent.
    add_checkpoint: Url,
    /// As it was given.
    pub url: String,
    pub verifier: WitnessVerifier,
}

/// All that is wrong with the witnesses that were named.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the witnesses: {}", .0.join("; "))]
pub struct WitnessFaults(pub Vec<String>);

impl WitnessAddress {
    /// Each from `URL=VERIFIERKEY`.
    ///
    /// # Errors
    /// All that is wrong with any of them.
    pub fn parse_all(given: &[String]) -> Result<Vec<Self>, WitnessFaults> {
        let mut witnesses: Vec<Self> = Vec::new();
        let mut faults = Vec::new();
        for text in given {
            match Self::parse(text) {
                Ok(one) if witnesses.iter().any(|other| other.verifier == one.verifier) => {
                    faults.push(format!("`{text}`: that witness is named twice"));
                }
                Ok(one) => witnesses.push(one),
                Err(problems) => {
                    faults.extend(
                        problems
                            .iter()
                            .map(|problem| format!("`{text}`: {problem}")),
                    );
                }
            }
        }
        if faults.is_empty() {
            Ok(witnesses)
        } else {
            Err(WitnessFaults(faults))
        }
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (url, key) = text
            .split_once('=')
            .ok_or_else(|| vec!["it is not URL=VERIFIERKEY".to_owned()])?;
        let verifier = key
            .parse::<WitnessVerifier>()
            .map_err(|fault| format!("the witness's key: {fault}"));
        let add_checkpoint = Url::parse(&format!("{}/{ADD_CHECKPOINT}", url.trim_end_matches('/')))
            .ok()
            .filter(|parsed| {
                matches!(parsed.scheme(), "http" | "https")
                    && parsed.query().is_none()
                    && parsed.fragment().is_none()
            })
            .ok_or_else(|| format!("`{url}` is no address such as http://HOST:PORT"));
        match (add_checkpoint, verifier) {
            (Ok(add_checkpoint), Ok(verifier)) => Ok(Self {
                add_checkpoint,
                url: url.to_owned(),
                verifier,
            }),
            (add_checkpoint, verifier) => Err(add_checkpoint
                .err()
                .into_iter()
                .chain(verifier.err())
                .collect()),
        }
    }
}

/// How it stands with one witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The size of the newest checkpoint that it has cosigned.
    pub cosigned: u64,
    /// Why it has not cosigned the newest one, since it was shown it.
    pub problem: Option<String>,
}

/// A witness, and how it stands.
#[derive(Debug)]
pub struct Witness {
    pub address: WitnessAddress,
    standing: RwLock<Standing>,
}

impl Witness {
    pub fn standing(&self) -> Standing {
        self.standing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, standing: Standing) {
        *self
            .standing
            .write()
            .unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// All witnesses of the ledger.
#[derive(Debug, Default)]
pub struct Witnesses(Vec<Arc<Witness>>);

impl Witnesses {
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(store: &Store, addresses: Vec<WitnessAddress>) -> Result<Self, StoreError> {
        let mut witnesses = Vec::new();
        for address in addresses {
            let cosigned = store.cosigned(&address.verifier.to_string()).await?;
            let standing = Standing {
                cosigned,
                problem: None,
            };
            witnesses.push(Arc::new(Witness {
                address,
                standing: RwLock::new(standing),
            }));
        }
        Ok(Self(witnesses))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Witness> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Shows every witness what there is and what comes, until dropped. `ledger` is what the
    /// checkpoints are signed with.
    ///
    /// # Errors
    /// Where no HTTP client can be set up.
    pub fn show(
        &self,
        store: &Store,
        ledger: &LedgerVerifier,
        pace: Pace,
    ) -> Result<JoinSet<()>, reqwest::Error> {
        let mut showing = JoinSet::new();
        for witness in &self.0 {
            let push = push::Push::new(store.clone(), ledger.clone(), witness.clone(), pace)?;
            showing.spawn(push.run());
        }
        Ok(showing)
    }
}
