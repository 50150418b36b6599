use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use carnet_core::ledger::{AddCheckpoint, Checkpoint, LedgerVerifier, Uncosigned, witness};
use sha2::{Digest, Sha256};

use crate::replace;
use crate::server::{WitnessError, at};

/// One ledger, and what is remembered of it.
pub struct Memory {
    ledger: LedgerVerifier,
    path: PathBuf,
    /// Held from the comparison until the new one is on the disk: two requests beside each other
    /// cannot both be the next.
    last: Mutex<Option<Checkpoint>>,
}

/// Why a checkpoint was not taken.
#[derive(Debug)]
pub enum NotTaken {
    Refused(Uncosigned),
    /// The disk's fault.
    NotKept(io::Error),
}

impl AsRef<LedgerVerifier> for Memory {
    fn as_ref(&self) -> &LedgerVerifier {
        &self.ledger
    }
}

impl Memory {
    /// What is remembered of `ledger` in the directory `ledgers`.
    ///
    /// # Errors
    /// Where that cannot be read, or is not the ledger's: then nothing may be cosigned, since a
    /// witness that forgot would cosign a second past.
    pub fn open(ledgers: &Path, ledger: LedgerVerifier) -> Result<Self, WitnessError> {
        let path = ledgers.join(hex::encode(Sha256::digest(ledger.origin())));
        let last = match fs::read_to_string(&path) {
            Ok(note) => {
                let last = ledger.open(&note).map_err(|fault| WitnessError::Memory {
                    path: path.clone(),
                    origin: ledger.origin().to_owned(),
                    problem: fault.to_string(),
                })?;
                Some(last)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&path)(error)),
        };
        Ok(Self {
            ledger,
            path,
            last: Mutex::new(last),
        })
    }

    /// How many entries it had at last.
    pub fn size(&self) -> u64 {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(0, |last| last.size)
    }

    /// Takes a checkpoint that follows from the one before, and remembers it: it is on the disk
    /// when this returns. A crash before leaves the one before, and no cosignature of the new one
    /// was given away.
    ///
    /// # Errors
    /// Why it was not taken. What was remembered stays.
    pub fn take(&self, request: &AddCheckpoint) -> Result<Checkpoint, NotTaken> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = witness(&self.ledger, *last, request).map_err(NotTaken::Refused)?;
        if *last != Some(newer) {
            replace(&self.path, request.note.as_bytes()).map_err(NotTaken::NotKept)?;
            *last = Some(newer);
        }
        Ok(newer)
    }
}
