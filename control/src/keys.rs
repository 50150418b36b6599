//! The control plane's signing keys: one for statements to edges, which can be replaced while it
//! runs, and one for the ledger, which is the ledger's for good. Both are Ed25519; where they come
//! from: `key_place`.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use carnet_core::instant::UnixMillis;
use carnet_core::permit::Signer;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use thiserror::Error;

use crate::authority::{AuthorityError, CertificateAuthority, expires_at, is_due};
use crate::clock;
use crate::key_place::{self, FileError, Place, find};

pub use crate::key_place::Purpose;

/// A key that cannot be had.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{place} holds no Ed25519 key (PKCS #8, PEM): {problem}")]
    Malformed { place: String, problem: String },
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    #[error(
        "the key for permits comes from {0}, not from a file of the control plane's; replace it there, and restart"
    )]
    NotOurs(String),
}

/// The secret of a key, made and written down where there is none.
///
/// # Errors
/// Where it cannot be read or written.
pub fn secret(purpose: Purpose, data: &Path) -> Result<[u8; 32], KeyError> {
    Ok(open(purpose, data)?.0.to_bytes())
}

fn open(purpose: Purpose, data: &Path) -> Result<(SigningKey, Place), KeyError> {
    let (place, pem) = find(purpose, data)?;
    let key = match (&place, pem) {
        (Place::File(path), None) => {
            let key = make();
            write(path, &key)?;
            key
        }
        (place, pem) => parse(&pem.unwrap_or_default(), place)?,
    };
    Ok((key, place))
}

fn parse(pem: &str, place: &Place) -> Result<SigningKey, KeyError> {
    SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| KeyError::Malformed {
        place: place.to_string(),
        problem: error.to_string(),
    })
}

fn make() -> SigningKey {
    use rand::RngCore;
    let mut secret = [0; 32];
    // Without random numbers there are no keys, and nothing may go on.
    OsRng.unwrap_err().fill_bytes(&mut secret);
    SigningKey::from_bytes(&secret)
}

fn write(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| KeyError::Malformed {
            place: "the new key".to_owned(),
            problem: error.to_string(),
        })?;
    Ok(key_place::write(path, &pem, 0o600)?)
}

/// The key for statements, and its certificate, which agents are told.
pub struct PermitKey {
    place: Place,
    authority: Arc<CertificateAuthority>,
    current: RwLock<Arc<Current>>,
}

/// The key that is in use now.
pub struct Current {
    pub signer: Signer,
    /// PEM, of the control plane's authority.
    pub certificate: String,
    /// When the certificate expires.
    pub expires_at: UnixMillis,
}

impl PermitKey {
    /// The key in `data`, or given from outside, with a certificate that is made at `now`.
    ///
    /// # Errors
    /// Where the key cannot be read or written.
    pub fn open(
        data: &Path,
        authority: Arc<CertificateAuthority>,
        now: UnixMillis,
    ) -> Result<Self, KeyError> {
        let (key, place) = open(Purpose::Permit, data)?;
        let current = certified(Signer::new(&key.to_bytes()), &authority, now)?;
        Ok(Self {
            place,
            authority,
            current: RwLock::new(Arc::new(current)),
        })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes a new key and uses it from now on. Edges are told before they are shown a statement
    /// of it.
    ///
    /// # Errors
    /// Where the key comes from outside, or the new one cannot be written; then the old one stays.
    pub fn rotate(&self) -> Result<Arc<Current>, KeyError> {
        let path = match &self.place {
            Place::Given(shown) => return Err(KeyError::NotOurs(shown.clone())),
            Place::File(path) => path,
        };
        let key = make();
        let signer = Signer::new(&key.to_bytes());
        let current = Arc::new(certified(signer, &self.authority, clock::now())?);
        write(path, &key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current.clone();
        Ok(current)
    }

    /// Makes the key's certificate anew where it is time to, as of `now`; says whether it did. It
    /// is on no disk: every start makes one.
    ///
    /// # Errors
    /// Where it cannot be made; then the old one stays.
    pub fn renew(&self, now: UnixMillis) -> Result<bool, KeyError> {
        // Held until it is made: a key that is rotated meanwhile waits, and is not put back.
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !is_due(current.expires_at, now) {
            return Ok(false);
        }
        *current = Arc::new(certified(current.signer.clone(), &self.authority, now)?);
        Ok(true)
    }
}

fn certified(
    signer: Signer,
    authority: &CertificateAuthority,
    now: UnixMillis,
) -> Result<Current, KeyError> {
    Ok(Current {
        certificate: authority.signing_key(&signer.public(), now)?,
        expires_at: expires_at(now),
        signer,
    })
}
