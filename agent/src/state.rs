//! What an agent keeps on disk: who it is, and its key.
//!
//! ```text
//! STATE/edge.json        id, name, address
//! STATE/authority.pem    the control plane's CA
//! STATE/agent.pem        its private key, made here, and its certificate; root alone can read it
//! STATE/renewal.json     the key that is to come in place of it
//! STATE/permits.json     the control plane's signing keys, and generations seen
//! STATE/refusals.json    what was refused, until the control plane has it
//! STATE/handovers/*.json hand-overs that have not ended
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use carnet_api::tls::{Authority, Identity, TlsError};
use carnet_core::ids::EdgeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A state directory that cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("{path} cannot be read or written: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} holds no agent; enrol it first: carnet agent enrol --control URL --token TOKEN --state {path}",
        path = .0.display()
    )]
    NotEnrolled(PathBuf),
    #[error("{path} is not as Carnet wrote it: {source}", path = path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the certificates in {path} cannot be used: {source}", path = path.display())]
    Tls { path: PathBuf, source: TlsError },
}

/// Which edge this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    pub id: EdgeId,
    pub name: String,
    /// Where its owner said that the agent listens, `ip:port`.
    pub address: String,
}

/// An enrolled agent's state.
#[derive(Debug)]
pub struct AgentState {
    pub edge: EdgeRecord,
    pub authority: Authority,
    pub identity: Identity,
    directory: PathBuf,
}

impl AgentState {
    /// Reads the state that [`AgentState::create`] wrote.
    ///
    /// # Errors
    /// Where there is none, or it cannot be used.
    pub fn load(directory: &Path) -> Result<Self, StateError> {
        let record = directory.join("edge.json");
        if !record.exists() {
            return Err(StateError::NotEnrolled(directory.to_owned()));
        }
        let edge =
            serde_json::from_str(&read(&record)?).map_err(|source| StateError::Malformed {
                path: record,
                source,
            })?;
        let tls = |source| StateError::Tls {
            path: directory.to_owned(),
            source,
        };
        let identity = read(&directory.join("agent.pem"))?;
        Ok(Self {
            edge,
            authority: Authority::from_pem(&read(&directory.join("authority.pem"))?)
                .map_err(tls)?,
            identity: Identity::from_pem(&identity, &identity).map_err(tls)?,
            directory: directory.to_owned(),
        })
    }

    /// Writes the state of an agent that has just enrolled. `edge.json` comes last: a crash
    /// before it leaves a directory that counts as not enrolled, and enrolling goes again.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn create(
        directory: &Path,
        edge: &EdgeRecord,
        authority: &str,
        certificate: &str,
        key: &str,
    ) -> Result<(), StateError> {
        make_private_directory(directory)?;
        write_identity(directory, certificate, key)?;
        write_private(&directory.join("authority.pem"), authority)?;
        let path = directory.join("edge.json");
        let record =
            serde_json::to_string_pretty(edge).map_err(|source| StateError::Malformed {
                path: path.clone(),
                source,
            })?;
        write_private(&path, &record)
    }

    /// Keeps another certificate and its key, both PEM, in place of those that are kept.
    ///
    /// # Errors
    /// Where they cannot be written; those before them, or these, are kept then.
    pub fn keep_identity(&self, certificate: &str, key: &str) -> Result<(), StateError> {
        write_identity(&self.directory, certificate, key)
    }

    /// Whether `key` (PEM) is the one that is kept with the certificate.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn uses(&self, key: &str) -> Result<bool, StateError> {
        Ok(read(&self.directory.join("agent.pem"))?.contains(key))
    }

    /// Where the key that is to come is kept.
    pub fn renewal(&self) -> PathBuf {
        self.directory.join("renewal.json")
    }

    /// Where [`Permits`](crate::permits::Permits) are kept.
    pub fn permits(&self) -> PathBuf {
        permits_in(&self.directory)
    }

    /// Where [`Refusals`](crate::refusals::Refusals) are kept.
    pub fn refusals(&self) -> PathBuf {
        self.directory.join("refusals.json")
    }

    /// Where hand-overs that have not ended are kept.
    pub fn handovers(&self) -> PathBuf {
        self.directory.join("handovers")
    }
}

/// Where an agent's [`Permits`](crate::permits::Permits) are, in its state directory.
pub fn permits_in(directory: &Path) -> PathBuf {
    directory.join("permits.json")
}

/// Makes a directory that root alone can enter, where there is none.
///
/// # Errors
/// Where it cannot be made.
pub fn make_private_directory(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Io {
            path: path.to_owned(),
            source,
        })
}

/// In one file, so that no crash mixes an old one with a new one. The key comes first: whatever
/// stands in what was given as certificate, the first key in the file is this agent's.
fn write_identity(directory: &Path, certificate: &str, key: &str) -> Result<(), StateError> {
    write_private(&directory.join("agent.pem"), &format!("{key}{certificate}"))
}

fn read(path: &Path) -> Result<String, StateError> {
    fs::read_to_string(path).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file that root alone can read: whole or not at all, whatever crashes. When it
/// returns, the new one stays, also where the power fails.
///
/// # Errors
/// Where it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => {
                File::open(directory)?.sync_all()
            }
            _ => File::open(".")?.sync_all(),
        });
    written.map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}
