//! Where the control plane's private keys come from.
//!
//! ```text
//! DATA/NAME.key   PKCS #8, PEM; its owner alone can read it
//! ```
//!
//! Instead, a key can be given in the environment (`CARNET_NAME_KEY`, the PEM itself) or as a
//! systemd credential (`NAME.key`). `NAME` is `authority`, `permit` or `ledger`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Certificates.
    Authority,
    /// Permits, commits, aborts.
    Permit,
    /// Checkpoints.
    Ledger,
}

impl Purpose {
    /// Its name, in files, in the environment and in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Permit => "permit",
            Self::Ledger => "ledger",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Authority => "CARNET_AUTHORITY_KEY",
            Self::Permit => "CARNET_PERMIT_KEY",
            Self::Ledger => "CARNET_LEDGER_KEY",
        }
    }
}

/// A file that cannot be read or written.
#[derive(Debug, Error)]
#[error("{path}: {source}", path = path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Where a key comes from.
#[derive(Debug)]
pub(crate) enum Place {
    /// Given from outside; in words.
    Given(String),
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(shown) => f.write_str(shown),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError { path, source }
}

/// Where the key is to be found, and its PEM; `None` where it is to be made, in a file.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn find(purpose: Purpose, data: &Path) -> Result<(Place, Option<String>), FileError> {
    let variable = purpose.variable();
    if let Ok(pem) = std::env::var(variable) {
        return Ok((Place::Given(variable.to_owned()), Some(pem)));
    }
    let name = format!("{}.key", purpose.name());
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let path = Path::new(&directory).join(&name);
        if path.exists() {
            let pem = fs::read_to_string(&path).map_err(at(&path))?;
            return Ok((Place::Given(path.display().to_string()), Some(pem)));
        }
    }
    let path = data.join(&name);
    match fs::read_to_string(&path) {
        Ok(pem) => Ok((Place::File(path), Some(pem))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Place::File(path), None)),
        Err(error) => Err(at(&path)(error)),
    }
}

/// Writes a file with the access rights `mode`, whole or not at all: a crash leaves what was
/// there. When it returns, the new one stays, also where the power fails.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let directory = path.parent().unwrap_or(Path::new("/"));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(at(path))
}
