//! What an agent keeps on disk: who it is, and its key.
//!
//! ```text
//! STATE/edge.json        id, name, address
//! STATE/authority.pem    the control plane's CA
//! STATE/agent.pem        its certificate
//! STATE/agent.key        its private key, made here, readable by root alone
//! STATE/permits.json     the control plane's signing keys, and generations seen
//! STATE/refusals.json    what was refused, until the control plane has it
//! STATE/handovers/*.json hand-overs that have not ended
//! ```

use std::fs::{self, OpenOptions};
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
        Ok(Self {
            edge,
            authority: Authority::from_pem(&read(&directory.join("authority.pem"))?)
                .map_err(tls)?,
            identity: Identity::from_pem(
                &read(&directory.join("agent.pem"))?,
                &read(&directory.join("agent.key"))?,
            )
            .map_err(tls)?,
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
        write_private(&directory.join("agent.key"), key)?;
        write_private(&directory.join("agent.pem"), certificate)?;
        write_private(&directory.join("authority.pem"), authority)?;
        let path = directory.join("edge.json");
        let record =
            serde_json::to_string_pretty(edge).map_err(|source| StateError::Malformed {
                path: path.clone(),
                source,
            })?;
        write_private(&path, &record)
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

fn read(path: &Path) -> Result<String, StateError> {
    fs::read_to_string(path).map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a file that root alone can read: whole or not at all, whatever crashes.
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
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| StateError::Io {
        path: path.to_owned(),
        source,
    })
}
