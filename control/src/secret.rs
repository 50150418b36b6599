//! Secrets that are shown once. Only their hashes are kept: they are random and long, so a plain
//! SHA-256 is enough.

use rand::RngCore;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

/// A secret that has just been made.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// `prefix` and `bytes` random bytes in hexadecimal digits.
    pub fn new(prefix: &str, bytes: usize) -> Self {
        let mut random = vec![0; bytes];
        // Without random numbers there are no secrets, and nothing may go on.
        OsRng.unwrap_err().fill_bytes(&mut random);
        Self(format!("{prefix}{}", hex::encode(random)))
    }

    /// To be shown, once.
    pub fn reveal(self) -> String {
        self.0
    }

    pub fn hash(&self) -> Vec<u8> {
        hash(&self.0)
    }
}

/// The hash under which a secret is known.
pub fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}
