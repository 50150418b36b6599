use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature as Ed25519, SigningKey, VerifyingKey};
use signed_note::{Note, NoteError, Signature, VerifierList};

use super::note::NoteFault;

/// cosignature/v1, Ed25519 with a time (C2SP tlog-cosignature).
const ALGORITHM: u8 = 4;

/// What a witness signs: the note's text, and when it did.
fn message(at_seconds: u64, text: &[u8]) -> Vec<u8> {
    let mut message = format!("cosignature/v1\ntime {at_seconds}\n").into_bytes();
    message.extend(text);
    message
}

fn encoded(key: &VerifyingKey) -> Vec<u8> {
    let mut bytes = vec![ALGORITHM];
    bytes.extend(key.to_bytes());
    bytes
}

fn read(note: &str) -> Result<Note, NoteFault> {
    Note::from_bytes(note.as_bytes()).map_err(|error| NoteFault::Malformed(error.to_string()))
}

/// Cosigns checkpoints, as a witness.
#[derive(Clone)]
pub struct Cosigner {
    name: String,
    key: SigningKey,
}

impl Cosigner {
    /// With the witness's name and its key's 32 secret bytes.
    ///
    /// # Errors
    /// Where `name` is empty, or holds white space or `+`.
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, NoteFault> {
        if !signed_note::is_key_name_valid(name) {
            return Err(NoteFault::Key(format!("`{name}` is no witness's name")));
        }
        Ok(Self {
            name: name.to_owned(),
            key: SigningKey::from_bytes(secret),
        })
    }

    /// What whoever relies on the witness must have from a source that they trust.
    pub fn verifier(&self) -> WitnessVerifier {
        WitnessVerifier {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// The cosignature of a signed note: one line for below the note's own, its end included.
    /// `at_seconds` is now, since the Unix epoch.
    ///
    /// # Errors
    /// Where `note` is none.
    pub fn cosign(&self, note: &str, at_seconds: u64) -> Result<String, NoteFault> {
        use ed25519_dalek::Signer as _;
        let malformed = |error: NoteError| NoteFault::Malformed(error.to_string());
        let message = message(at_seconds, read(note)?.text());
        let mut payload = at_seconds.to_be_bytes().to_vec();
        payload.extend(self.key.sign(&message).to_bytes());
        let id = signed_note::key_id(&self.name, &encoded(&self.key.verifying_key()));
        let line = Signature::new(self.name.clone(), id, payload).map_err(malformed)?;
        Ok(String::from_utf8_lossy(&line.to_bytes()).into_owned())
    }
}

/// Checks one witness's cosignatures. It reads and displays as its verifier key,
/// `NAME+KEYID+base64(0x04 ‖ public key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessVerifier {
    name: String,
    key: VerifyingKey,
}

impl FromStr for WitnessVerifier {
    type Err = NoteFault;

    fn from_str(verifier_key: &str) -> Result<Self, Self::Err> {
        let fault = |problem: &str| NoteFault::Key(problem.to_owned());
        let malformed = || fault("it is not NAME+KEYID+KEY (C2SP signed-note)");
        // The base64 may hold a `+` too.
        let mut parts = verifier_key.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| malformed())?;
        let public = match bytes.split_first() {
            Some((&ALGORITHM, public)) => public,
            _ => {
                return Err(fault(
                    "it is not a witness's: its algorithm is not cosignature/v1 (0x04)",
                ));
            }
        };
        let key = <[u8; 32]>::try_from(public)
            .ok()
            .and_then(|public| VerifyingKey::from_bytes(&public).ok())
            .ok_or_else(|| fault("it holds no Ed25519 public key"))?;
        let verifier = Self {
            name: name.to_owned(),
            key,
        };
        if !signed_note::is_key_name_valid(name) {
            return Err(malformed());
        }
        if id != format!("{:08x}", verifier.id()) {
            return Err(fault("its key id is not that of its name and key"));
        }
        Ok(verifier)
    }
}

impl fmt::Display for WitnessVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64_STANDARD.encode(encoded(&self.key));
        write!(f, "{}+{:08x}+{key}", self.name, self.id())
    }
}

impl WitnessVerifier {
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> u32 {
        signed_note::key_id(&self.name, &encoded(&self.key))
    }

    /// When this witness cosigned a note, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Where it did not, or its cosignature does not hold.
    pub fn cosigned_at(&self, note: &str) -> Result<u64, NoteFault> {
        let (by_it, _) = read(note)?
            .verify(&VerifierList::new(vec![Box::new(self.clone())]))
            .map_err(|error| match error {
                NoteError::UnverifiedNote => NoteFault::NotCosigned(self.name.clone()),
                other => NoteFault::Cosignature(other.to_string()),
            })?;
        by_it
            .first()
            .and_then(|signature| signature.signature().first_chunk())
            .map(|at| u64::from_be_bytes(*at))
            .ok_or_else(|| NoteFault::NotCosigned(self.name.clone()))
    }
}

impl signed_note::Verifier for WitnessVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id()
    }

    fn verify(&self, text: &[u8], payload: &[u8]) -> bool {
        let Some((at, signature)) = payload.split_first_chunk::<8>() else {
            return false;
        };
        let message = message(u64::from_be_bytes(*at), text);
        Ed25519::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(&message, &signature).is_ok())
    }
}
