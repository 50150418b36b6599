//! How an edge's agent gets its certificate: it makes a key that never leaves the machine, and
//! shows the one-time token that the edge's owner was given.

use std::path::Path;

use carnet_api::client::{Client, ClientError};
use carnet_api::tls::{Authority, TlsError, pinned_client_config};
use carnet_api::v1::{EnrolEdge, Enrolment};
use rcgen::{CertificateParams, KeyPair};
use thiserror::Error;

use crate::detect;
use crate::permits::{self, MemoryError, Permits};
use crate::state::{AgentState, EdgeRecord, StateError, permits_in};

/// Why an agent did not get its certificate.
#[derive(Debug, Error)]
pub enum EnrolError {
    #[error(
        "`{0}` is not an enrolment token; one reads carnet-enrol.SECRET.FINGERPRINT and comes from: carnet edge enrol-token EDGE"
    )]
    Token(String),
    #[error(
        "{0} is enrolled already, as edge {1}; use another --state directory, or remove it first"
    )]
    Enrolled(String, String),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the control plane does not enrol this edge: {0}")]
    Refused(#[from] ClientError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("the control plane's signing key cannot be taken: {0}")]
    SigningKey(#[from] permits::KeyError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Enrols this machine as the edge that `token` was made for, and keeps what it gets in
/// `directory`. `control` is the control plane's address, `https://host:port`.
///
/// The token's second part is the fingerprint of the control plane's authority: whoever answers
/// at `control` without it learns nothing.
///
/// # Errors
/// [`EnrolError`]. After one the token is still good, unless the control plane had already
/// answered and `directory` could not be written: then the owner makes another.
pub async fn enrol(directory: &Path, control: &str, token: &str) -> Result<EdgeRecord, EnrolError> {
    let fingerprint = token
        .strip_prefix("carnet-enrol.")
        .and_then(|rest| rest.split_once('.'))
        .map(|(_, fingerprint)| fingerprint)
        .ok_or_else(|| EnrolError::Token(token.chars().take(16).collect()))?;
    match AgentState::load(directory) {
        Ok(state) => {
            return Err(EnrolError::Enrolled(
                directory.display().to_string(),
                state.edge.name,
            ));
        }
        Err(StateError::NotEnrolled(_)) => {}
        Err(other) => return Err(other.into()),
    }
    crate::state::make_private_directory(directory)?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let client = Client::with_tls(control, pinned_client_config(fingerprint)?, None)?;
    let enrolment: Enrolment = client
        .post(
            "/v1/enrolments",
            &EnrolEdge {
                token: token.to_owned(),
                certificate_request: request.pem()?,
                detected: detect::facts().await,
            },
        )
        .await?;
    let edge = EdgeRecord {
        id: enrolment.edge,
        name: enrolment.name,
        address: enrolment.address,
    };
    // Before the state, whose last file says that this edge is enrolled.
    Permits::load(permits_in(directory))?.learn(
        &enrolment.signing_key,
        &Authority::from_pem(&enrolment.authority)?,
        permits::now(),
    )?;
    AgentState::create(
        directory,
        &edge,
        &enrolment.authority,
        &enrolment.certificate,
        &key.serialize_pem(),
    )?;
    Ok(edge)
}
