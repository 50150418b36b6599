//! What a witness is asked, and how it answers (C2SP tlog-witness). What it remembers is handed
//! in, and kept by whoever calls.

use std::fmt::Write as _;

use thiserror::Error;
use tlog_tiles::EMPTY_HASH;

use super::note::{Checkpoint, LedgerVerifier, NoteFault};
use super::tree::{Hash, check_consistency};

/// The longest proof that is read, in hashes.
const MAX_PROOF: usize = 63;
/// How much is told of a name that is not known, in characters: it is whoever asks's.
const LONGEST_ORIGIN_TOLD: usize = 100;

/// A request to cosign a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness cosigned last, as whoever asks believes.
    pub old: u64,
    /// That the ledger began with that (RFC 6962, section 2.1.2).
    pub proof: Vec<Hash>,
    /// The signed note.
    pub note: String,
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Uncosigned {
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    #[error("the ledger `{0}` is not known here")]
    UnknownOrigin(String),
    #[error("the checkpoint is not believed: {0}")]
    Unsigned(NoteFault),
    #[error("the old size, {old}, is beyond the checkpoint's, {new}")]
    Backwards { old: u64, new: u64 },
    #[error("the checkpoint cosigned last has the size {size}")]
    OtherSize { size: u64 },
    #[error("another ledger of {size} entries has been cosigned")]
    OtherRoot { size: u64 },
    #[error("the ledger is not shown to begin with the one cosigned last: {0}")]
    Unproven(String),
}

impl Uncosigned {
    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Backwards { .. } => 400,
            Self::Unsigned(_) => 403,
            Self::UnknownOrigin(_) => 404,
            Self::OtherSize { .. } | Self::OtherRoot { .. } => 409,
            Self::Unproven(_) => 422,
        }
    }
}

fn malformed(problem: &str) -> Uncosigned {
    Uncosigned::Malformed(problem.to_owned())
}

/// A decimal number with one spelling.
fn number(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|number: &u64| number.to_string() == text)
}

impl AddCheckpoint {
    /// From the body of a request.
    ///
    /// # Errors
    /// [`Uncosigned::Malformed`].
    pub fn parse(body: &str) -> Result<Self, Uncosigned> {
        let (head, note) = body
            .split_once("\n\n")
            .ok_or_else(|| malformed("there is no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(number)
            .ok_or_else(|| malformed("its first line is not `old SIZE`"))?;
        let proof = lines
            .map(Hash::parse_hash)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| malformed("a line of the proof is no hash of 32 bytes in base64"))?;
        if proof.len() > MAX_PROOF {
            return Err(malformed("the proof has more than 63 hashes"));
        }
        Ok(Self {
            old,
            proof,
            note: note.to_owned(),
        })
    }

    /// The body of a request.
    pub fn to_body(&self) -> String {
        let mut body = format!("old {}\n", self.old);
        for hash in &self.proof {
            // Writing to a string does not fail.
            let _ = writeln!(body, "{hash}");
        }
        body.push('\n');
        body.push_str(&self.note);
        body
    }

    /// Which of `known` it is about: a ledger, or what is kept of one.
    ///
    /// # Errors
    /// [`Uncosigned::UnknownOrigin`].
    pub fn ledger_of<'a, T: AsRef<LedgerVerifier>>(
        &self,
        known: &'a [T],
    ) -> Result<&'a T, Uncosigned> {
        let origin = self.note.split('\n').next().unwrap_or_default();
        known
            .iter()
            .find(|ledger| ledger.as_ref().origin() == origin)
            .ok_or_else(|| {
                Uncosigned::UnknownOrigin(origin.chars().take(LONGEST_ORIGIN_TOLD).collect())
            })
    }
}

/// Whether a checkpoint of `ledger` is cosigned, by a witness that `remembered` what it cosigned
/// last. Returns what it is to remember from now on: kept for good before the cosignature is
/// given away, and by nobody else in between.
///
/// # Errors
/// Why it is not. What was remembered stays.
pub fn witness(
    ledger: &LedgerVerifier,
    remembered: Option<Checkpoint>,
    request: &AddCheckpoint,
) -> Result<Checkpoint, Uncosigned> {
    let checkpoint = ledger.open(&request.note).map_err(|fault| match fault {
        NoteFault::Malformed(problem) => Uncosigned::Malformed(problem),
        NoteFault::Origin { found, .. } => Uncosigned::UnknownOrigin(found),
        other => Uncosigned::Unsigned(other),
    })?;
    if request.old > checkpoint.size {
        return Err(Uncosigned::Backwards {
            old: request.old,
            new: checkpoint.size,
        });
    }
    let last = remembered.unwrap_or(Checkpoint {
        size: 0,
        root: EMPTY_HASH,
    });
    if request.old != last.size {
        return Err(Uncosigned::OtherSize { size: last.size });
    }
    if checkpoint.size == last.size && checkpoint.root != last.root {
        return Err(Uncosigned::OtherRoot { size: last.size });
    }
    check_consistency(
        &request.proof,
        (last.size, last.root),
        (checkpoint.size, checkpoint.root),
    )
    .map_err(|fault| Uncosigned::Unproven(fault.to_string()))?;
    Ok(checkpoint)
}
