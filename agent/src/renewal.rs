//! How an agent's certificate is renewed while it runs: a new key is made, the control plane
//! certifies it, and both come in place of those before them.
//!
//! ```text
//! STATE/renewal.json   the key that is to come, and the request for its certificate
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use carnet_api::tls::{Identity, TlsError, edge_name};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::state::{AgentState, StateError, write_private};

/// Why a certificate is not renewed.
#[derive(Debug, Error)]
pub enum RenewalError {
    #[error("the certificate is refused: {0}")]
    Certificate(#[from] TlsError),
    #[error("no certificate was requested here; request one first")]
    NotRequested,
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

/// A key that is to come.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// PKCS #10, PEM.
    request: String,
    /// PEM.
    key: String,
}

/// The renewal of this edge's certificate.
pub struct Renewal {
    state: Arc<AgentState>,
    /// Held while files change.
    turn: Mutex<()>,
}

impl Renewal {
    /// Of the certificate in `state`.
    pub fn new(state: Arc<AgentState>) -> Self {
        Self {
            state,
            turn: Mutex::new(()),
        }
    }

    /// A certificate request (PKCS #10, PEM) for a key that this agent has not used yet. The same
    /// until a certificate for it has come, also after a crash: the key is on disk before anybody
    /// hears of it.
    ///
    /// # Errors
    /// Where a key cannot be made or kept.
    pub fn request(&self) -> Result<String, RenewalError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = self.pending()?
            && !self.state.uses(&pending.key)?
        {
            return Ok(pending.request);
        }
        let key = KeyPair::generate()?;
        let request = CertificateParams::default()
            .serialize_request(&key)?
            .pem()?;
        let pending = Pending {
            request,
            key: key.serialize_pem(),
        };
        let path = self.path();
        let text = serde_json::to_string(&pending).map_err(|source| StateError::Malformed {
            path: path.clone(),
            source,
        })?;
        write_private(&path, &text)?;
        Ok(pending.request)
    }

    /// Puts `certificate` (PEM) and the key that it was requested for in place of those in use.
    /// Told again, nothing changes.
    ///
    /// # Errors
    /// Where it is not the authority's, for this edge and for that key, or cannot be kept.
    pub fn take(&self, certificate: &str) -> Result<(), RenewalError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &self.state;
        if Identity::fingerprint_of(certificate)? == state.identity.fingerprint() {
            return Ok(());
        }
        let pending = self.pending()?.ok_or(RenewalError::NotRequested)?;
        let newer = Identity::from_pem(certificate, &pending.key)?;
        newer.check(&state.authority, &edge_name(state.edge.id))?;
        // A crash before this line leaves the old pair in use and the new key pending; after it,
        // the new pair in use, and a pending key that `request` knows to be in use.
        state.keep_identity(certificate, &pending.key)?;
        state.identity.replace(&newer);
        if let Err(error) = fs::remove_file(self.path()) {
            tracing::warn!(%error, "a key that is in use is still kept as one that is to come");
        }
        tracing::info!(certificate = %newer.fingerprint(), "the certificate has been renewed");
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.state.renewal()
    }

    fn pending(&self) -> Result<Option<Pending>, StateError> {
        let path = self.path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| StateError::Malformed { path, source }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }
}
