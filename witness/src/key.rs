//! The witness's key. It comes into being with the state, and is the witness's for good: a key
//! whose memory is gone would cosign a second past.

use std::fs;
use std::io;
use std::path::Path;

use carnet_core::ledger::Cosigner;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use crate::replace;
use crate::server::{WitnessError, at, prepare};

const FILE: &str = "witness.key";

/// The witness whose state is in `state`, both made where they are not there. Its name is
/// `carnet-witness/` and the first 16 hexadecimal digits of the SHA-256 of its public key.
///
/// # Errors
/// Where the key cannot be read or written.
pub fn open(state: &Path) -> Result<Cosigner, WitnessError> {
    prepare(state)?;
    let path = state.join(FILE);
    let malformed = |problem: String| WitnessError::Key {
        path: path.clone(),
        problem,
    };
    let key = match fs::read_to_string(&path) {
        Ok(pem) => {
            SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| malformed(format!("{error}")))?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = make();
            let pem = key
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(|error| malformed(error.to_string()))?;
            replace(&path, pem.as_bytes()).map_err(at(&path))?;
            key
        }
        Err(error) => return Err(at(&path)(error)),
    };
    let fingerprint = hex::encode(Sha256::digest(key.verifying_key().as_bytes()));
    let name = format!("carnet-witness/{}", fingerprint.get(..16).unwrap_or("?"));
    Cosigner::new(&name, &key.to_bytes()).map_err(|fault| malformed(fault.to_string()))
}

fn make() -> SigningKey {
    use rand::RngCore;
    let mut secret = [0; 32];
    // Without random numbers there are no keys, and nothing may go on.
    OsRng.unwrap_err().fill_bytes(&mut secret);
    SigningKey::from_bytes(&secret)
}
