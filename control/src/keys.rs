//! The control plane's signing keys: one for statements to edges, which can be replaced while it
//! runs, and one for the ledger, which is the ledger's for good.
//!
//! ```text
//! DATA/permit.key   Ed25519, PKCS #8, PEM; its owner alone can read it
//! DATA/ledger.key   the same
//! ```
//!
//! Instead, a key can be given in the environment (`CARNET_PERMIT_KEY`, `CARNET_LEDGER_KEY`, the
//! PEM itself) or as a systemd credential (`permit.key`, `ledger.key`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use carnet_core::permit::Signer;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use thiserror::Error;

use crate::authority::{AuthorityError, CertificateAuthority};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Permits, commits, aborts.
    Permit,
    /// Checkpoints.
    Ledger,
}

impl Purpose {
    /// Its name, in files, in the environment and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Ledger => "ledger",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Permit => "CARNET_PERMIT_KEY",
            Self::Ledger => "CARNET_LEDGER_KEY",
        }
    }
}

/// A key that cannot be had.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{place} holds no Ed25519 key (PKCS #8, PEM): {problem}")]
    Malformed { place: String, problem: String },
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    #[error(
        "the key for permits comes from {0}, not from a file of the control plane's; replace it there, and restart"
    )]
    NotOurs(String),
}

/// Where a key comes from.
enum Place {
    /// Given from outside; in words.
    Given(String),
    File(PathBuf),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_owned();
    move |source| KeyError::File { path, source }
}

fn find(purpose: Purpose, data: &Path) -> Result<(Place, Option<String>), KeyError> {
    let variable = purpose.variable();
    if let Ok(pem) = std::env::var(variable) {
        return Ok((Place::Given(variable.to_owned()), Some(pem)));
    }
    let name = format!("{}.key", purpose.name());
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let path = Path::new(&directory).join(&name);
        if path.exists() {
            let pem = fs::read_to_string(&path).map_err(file(&path))?;
            return Ok((Place::Given(path.display().to_string()), Some(pem)));
        }
    }
    let path = data.join(&name);
    match fs::read_to_string(&path) {
        Ok(pem) => Ok((Place::File(path), Some(pem))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Place::File(path), None)),
        Err(error) => Err(file(&path)(error)),
    }
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
    match (&place, pem) {
        (Place::File(path), None) => {
            let key = make();
            write(path, &key)?;
            Ok((key, place))
        }
        (Place::Given(shown), Some(pem)) => {
            let shown = shown.clone();
            Ok((parse(&pem, &shown)?, place))
        }
        (Place::File(path), Some(pem)) => {
            let shown = path.display().to_string();
            Ok((parse(&pem, &shown)?, place))
        }
        (Place::Given(shown), None) => Err(KeyError::Malformed {
            place: shown.clone(),
            problem: "it is empty".to_owned(),
        }),
    }
}

fn parse(pem: &str, place: &str) -> Result<SigningKey, KeyError> {
    SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| KeyError::Malformed {
        place: place.to_owned(),
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

/// Whole or not at all: a crash leaves the key that was there.
fn write(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| KeyError::Malformed {
            place: "the new key".to_owned(),
            problem: error.to_string(),
        })?;
    let temporary = path.with_extension("key.new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(file(path))
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
}

impl PermitKey {
    /// # Errors
    /// Where the key cannot be read or written.
    pub fn open(data: &Path, authority: Arc<CertificateAuthority>) -> Result<Self, KeyError> {
        let (key, place) = open(Purpose::Permit, data)?;
        let current = certified(&key, &authority)?;
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
        let current = Arc::new(certified(&key, &self.authority)?);
        write(path, &key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current.clone();
        Ok(current)
    }
}

fn certified(key: &SigningKey, authority: &CertificateAuthority) -> Result<Current, KeyError> {
    Ok(Current {
        certificate: authority.signing_key(&key.verifying_key())?,
        signer: Signer::new(&key.to_bytes()),
    })
}
