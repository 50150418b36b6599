//! What this edge believes of the control plane's statements: its signing keys, and which
//! generation of a container it has seen.
//!
//! ```text
//! STATE/permits.json   the signing key, the one before it, and generations
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use carnet_api::tls::{Authority, TlsError};
use carnet_core::ids::ContainerId;
use carnet_core::instant::UnixMillis;
use carnet_core::permit::{Fingerprint, Statement, StatementFault, Unverified, key_id};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::state::write_private;

/// How far the clocks of control plane and edge may be apart, in seconds.
pub const CLOCK_TOLERANCE_S: i64 = 5;
/// How long statements of a signing key are still taken after its successor has come, in
/// milliseconds: those that were on their way.
const SUPERSEDED_MS: i64 = 60_000;

/// The memory cannot be read or written.
#[derive(Debug, Error)]
#[error("{path}: {source}", path = path.display())]
pub struct MemoryError {
    pub(crate) path: PathBuf,
    pub(crate) source: std::io::Error,
}

/// A signing key that is not taken.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the signing key's certificate is refused: {0}")]
    Certificate(#[from] TlsError),
    #[error("the signing key is not an Ed25519 key")]
    Key,
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// The public key, in hexadecimal digits.
    key: Option<String>,
    /// The one before it, and until when it is good.
    superseded: Option<(String, UnixMillis)>,
    /// The highest generation seen of each container.
    generations: BTreeMap<ContainerId, u64>,
}

/// Kept on disk: a restart does not make an old permit good again.
#[derive(Debug)]
pub struct Permits {
    path: PathBuf,
    memory: Mutex<Memory>,
}

/// This machine's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Permits {
    /// What was kept at `path`; nothing where there is no such file.
    ///
    /// # Errors
    /// Where it cannot be read, or is not as it was written: then nothing is believed rather
    /// than anything twice.
    pub fn load(path: PathBuf) -> Result<Self, MemoryError> {
        let memory = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => Err(error),
        };
        match memory {
            Ok(memory) => Ok(Self {
                path,
                memory: Mutex::new(memory),
            }),
            Err(source) => Err(MemoryError { path, source }),
        }
    }

    /// Takes the control plane's signing key, shown by its certificate. The one known so far is
    /// good for one minute more.
    ///
    /// # Errors
    /// Where the certificate is not the authority's, or the key cannot be kept.
    pub fn learn(
        &self,
        certificate: &str,
        authority: &Authority,
        now: UnixMillis,
    ) -> Result<(), KeyError> {
        let key = authority.signing_key(certificate)?;
        VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Key)?;
        let key = hex::encode(key);
        self.change(|memory| {
            if memory.key.as_ref() == Some(&key) {
                return;
            }
            memory.superseded = memory
                .key
                .replace(key)
                .map(|before| (before, UnixMillis(now.0.saturating_add(SUPERSEDED_MS))));
        })?;
        Ok(())
    }

    /// The name of the signing key that is known; `None` before one is.
    pub fn key(&self) -> Option<Fingerprint> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory
            .key
            .as_deref()
            .and_then(parse)
            .map(|key| key_id(&key))
    }

    /// Reads a statement and believes it, if a signing key that is good now has signed it.
    ///
    /// # Errors
    /// Where it is none, or none has.
    pub fn open<T: Statement>(&self, token: &str, now: UnixMillis) -> Result<T, StatementFault> {
        let unverified = Unverified::<T>::parse(token)?;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let superseded = memory
            .superseded
            .as_ref()
            .filter(|(_, until)| now < *until)
            .map(|(key, _)| key);
        let key = memory
            .key
            .iter()
            .chain(superseded)
            .filter_map(|key| parse(key))
            .find(|key| key_id(key) == unverified.key())
            .ok_or_else(|| StatementFault::Key(unverified.key().to_string()))?;
        unverified.verify_with(&key)
    }

    /// Whether `generation` is not behind what was seen of `container`.
    ///
    /// # Errors
    /// Where it is.
    pub fn is_current(
        &self,
        container: ContainerId,
        generation: u64,
    ) -> Result<(), StatementFault> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match memory.generations.get(&container) {
            Some(&known) if generation < known => Err(StatementFault::Generation {
                named: generation,
                known,
            }),
            _ => Ok(()),
        }
    }

    /// Remembers that `container` has come to `generation`.
    ///
    /// # Errors
    /// Where that cannot be kept.
    pub fn saw(&self, container: ContainerId, generation: u64) -> Result<(), MemoryError> {
        self.change(|memory| {
            let known = memory.generations.entry(container).or_default();
            *known = generation.max(*known);
        })
    }

    /// On disk first: what was answered on is never forgotten.
    fn change(&self, change: impl FnOnce(&mut Memory)) -> Result<(), MemoryError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = memory.clone();
        change(&mut changed);
        if changed != *memory {
            let failed = |source| MemoryError {
                path: self.path.clone(),
                source,
            };
            let text = serde_json::to_string(&changed)
                .map_err(std::io::Error::other)
                .map_err(failed)?;
            write_private(&self.path, &text)
                .map_err(std::io::Error::other)
                .map_err(failed)?;
            *memory = changed;
        }
        Ok(())
    }
}

fn parse(key: &str) -> Option<VerifyingKey> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(key, &mut bytes).ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}
