//! What this agent refused, until the control plane has fetched it for the ledger.
//!
//! ```text
//! STATE/refusals.json   what was refused, the next number, and how many were not kept
//! ```

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use carnet_api::agent::{MAX_REFUSALS, Refusals as Listed, Refused};
use carnet_core::ids::MigrationId;
use carnet_core::instant::UnixMillis;
use carnet_core::permit::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::permits::MemoryError;
use crate::state::write_private;

/// The longest text that is kept of what was asked for, in characters: whoever is refused does not
/// choose how much is written down.
const LONGEST: usize = 200;

/// What is kept. The first that come stay: whoever is refused cannot push out what was refused
/// before by asking for more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The last number that was given.
    last: u64,
    #[serde(flatten)]
    listed: Listed,
}

/// Kept on disk: a restart forgets nothing.
#[derive(Debug)]
pub struct Refusals {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl Refusals {
    /// What was kept at `path`; nothing where there is no such file.
    ///
    /// # Errors
    /// Where it cannot be read, or is not as it was written.
    pub fn load(path: PathBuf) -> Result<Self, MemoryError> {
        let kept = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(error),
        };
        match kept {
            Ok(kept) => Ok(Self {
                path,
                kept: Mutex::new(kept),
            }),
            Err(source) => Err(MemoryError { path, source }),
        }
    }

    /// Writes down, and tells the log, that something was refused by `check`. Where it cannot be
    /// kept on disk it is kept until the process ends: it is refused all the same.
    pub fn note(
        &self,
        check: &str,
        asked: &str,
        migration: Option<MigrationId>,
        peer: Option<Fingerprint>,
        now: UnixMillis,
    ) {
        let asked: String = asked.chars().take(LONGEST).collect();
        let peer_shown = peer.map(|peer| peer.to_string());
        tracing::warn!(check, asked, ?migration, peer = peer_shown, "refused");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.listed.refusals.len() >= MAX_REFUSALS {
            kept.listed.dropped = kept.listed.dropped.saturating_add(1);
        } else {
            kept.last = kept.last.saturating_add(1);
            let refused = Refused {
                number: kept.last,
                check: check.to_owned(),
                asked,
                migration,
                peer,
                refused_at_ms: now,
            };
            kept.listed.refusals.push(refused);
        }
        if let Err(error) = self.write(&kept) {
            tracing::error!(%error, "a refusal cannot be written down");
        }
    }

    /// What has not been forgotten.
    pub fn list(&self) -> Listed {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.listed.clone()
    }

    /// Forgets those up to and with the number `through`; how many were not kept is not forgotten.
    ///
    /// # Errors
    /// Where that cannot be kept; nothing is forgotten then.
    pub fn forget(&self, through: u64) -> Result<(), MemoryError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = kept.clone();
        let refusals = &mut changed.listed.refusals;
        refusals.retain(|refused| refused.number > through);
        if changed != *kept {
            self.write(&changed)?;
            *kept = changed;
        }
        Ok(())
    }

    fn write(&self, kept: &Kept) -> Result<(), MemoryError> {
        let failed = |source| MemoryError {
            path: self.path.clone(),
            source,
        };
        let text = serde_json::to_string(kept)
            .map_err(std::io::Error::other)
            .map_err(failed)?;
        write_private(&self.path, &text)
            .map_err(std::io::Error::other)
            .map_err(failed)
    }
}
