use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use signed_note::{Note, NoteError, StandardVerifier, VerifierList};
use thiserror::Error;
use tlog_tiles::{Checkpoint as Text, Hash};

use super::tree::Unproven;

/// A ledger's size and root, as its control plane has signed them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checkpoint {
    pub size: u64,
    pub root: Hash,
}

/// A checkpoint that is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteFault {
    #[error("it is not a signed note (C2SP signed-note): {0}")]
    Malformed(String),
    #[error("it is of the ledger `{found}`, not of `{expected}`")]
    Origin { found: String, expected: String },
    #[error("its signature is not the ledger's: {0}")]
    Signature(String),
    #[error("the witness `{0}` has not cosigned it")]
    NotCosigned(String),
    #[error("its cosignature does not hold: {0}")]
    Cosignature(String),
    #[error("the key cannot be read: {0}")]
    Key(String),
}

impl From<Unproven> for NoteFault {
    fn from(fault: Unproven) -> Self {
        Self::Malformed(fault.to_string())
    }
}

/// Signs checkpoints.
#[derive(Clone)]
pub struct LedgerSigner {
    origin: String,
    key: SigningKey,
}

impl LedgerSigner {
    /// With the ledger's name and its key's 32 secret bytes.
    ///
    /// # Errors
    /// Where `origin` is empty, or holds white space or `+`.
    pub fn new(origin: &str, secret: &[u8; 32]) -> Result<Self, NoteFault> {
        if !signed_note::is_key_name_valid(origin) {
            return Err(NoteFault::Key(format!("`{origin}` is no ledger's name")));
        }
        Ok(Self {
            origin: origin.to_owned(),
            key: SigningKey::from_bytes(secret),
        })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The verifier key (C2SP signed-note): what whoever checks the ledger must have from a
    /// source that they trust.
    pub fn verifier_key(&self) -> String {
        signed_note::new_ed25519_verifier_key(&self.origin, &self.key.verifying_key())
    }

    /// The signed note of a checkpoint (C2SP tlog-checkpoint).
    ///
    /// # Errors
    /// None that can be met: the origin was checked.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Result<String, NoteFault> {
        let malformed = |error: &dyn std::fmt::Display| NoteFault::Malformed(error.to_string());
        let text = Text::new(&self.origin, checkpoint.size, checkpoint.root, "")
            .map_err(|error| malformed(&error))?;
        let mut note = Note::new(&text.to_bytes(), &[]).map_err(|error| malformed(&error))?;
        note.add_sigs(&[&NoteKey(self)])
            .map_err(|error| malformed(&error))?;
        String::from_utf8(note.to_bytes()).map_err(|error| malformed(&error))
    }
}

struct NoteKey<'a>(&'a LedgerSigner);

impl signed_note::Signer for NoteKey<'_> {
    fn name(&self) -> &str {
        &self.0.origin
    }

    fn key_id(&self) -> u32 {
        /// Ed25519 (C2SP signed-note).
        const ALGORITHM: u8 = 1;
        let mut key = vec![ALGORITHM];
        key.extend(self.0.public());
        signed_note::key_id(&self.0.origin, &key)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        use ed25519_dalek::Signer as _;
        Ok(self.0.key.sign(message).to_vec())
    }
}

/// Checks checkpoints of one ledger.
#[derive(Clone)]
pub struct LedgerVerifier {
    origin: String,
    public: String,
    verifier_key: String,
    key: StandardVerifier,
}

impl AsRef<Self> for LedgerVerifier {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl LedgerVerifier {
    /// # Errors
    /// Where `verifier_key` is none of an Ed25519 key.
    pub fn new(verifier_key: &str) -> Result<Self, NoteFault> {
        let key = StandardVerifier::new(verifier_key)
            .map_err(|error| NoteFault::Key(error.to_string()))?;
        // NAME+ID+KEY: base64 of the algorithm's byte and the public key; it may hold a `+` too.
        let public = verifier_key
            .splitn(3, '+')
            .nth(2)
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
            .map(|bytes| hex::encode(bytes.get(1..).unwrap_or_default()))
            .unwrap_or_default();
        Ok(Self {
            origin: signed_note::Verifier::name(&key).to_owned(),
            public,
            verifier_key: verifier_key.to_owned(),
            key,
        })
    }

    /// As it was given.
    pub fn verifier_key(&self) -> &str {
        &self.verifier_key
    }

    /// The public key's 32 bytes, in hexadecimal digits.
    pub fn public(&self) -> String {
        self.public.clone()
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What a signed note says, if it is this ledger's checkpoint and its signature holds.
    ///
    /// # Errors
    /// Where it is not believed.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteFault> {
        let note = Note::from_bytes(note.as_bytes())
            .map_err(|error| NoteFault::Malformed(error.to_string()))?;
        note.verify(&VerifierList::new(vec![Box::new(self.key.clone())]))
            .map_err(|error| match error {
                NoteError::InvalidSignature { .. } | NoteError::UnverifiedNote => {
                    NoteFault::Signature(error.to_string())
                }
                other => NoteFault::Malformed(other.to_string()),
            })?;
        let text = Text::from_bytes(note.text())
            .map_err(|error| NoteFault::Malformed(error.to_string()))?;
        if text.origin() != self.origin {
            return Err(NoteFault::Origin {
                found: text.origin().to_owned(),
                expected: self.origin.clone(),
            });
        }
        Ok(Checkpoint {
            size: text.size(),
            root: *text.hash(),
        })
    }
}
