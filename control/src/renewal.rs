//! Certificates are made anew before they expire: those of the edges' agents, the control plane's
//! own, and that of the key that statements are signed with.
//!
//! An edge's is renewed in steps, each of which may be the last before a crash or a lost answer.
//! The next look goes on:
//!
//! ```text
//! request   the agent makes a key and keeps it      crash: it tells the same request again
//! sign                                              crash: nobody has it; it is signed anew
//! begin     the store keeps it as pending           crash: it is given at the next look
//! give      the agent puts it in place              crash: the agent shows the old or the new
//! see       the agent shows it on a new connection  crash: seen at the next look
//! finish    it is the edge's, and in the ledger
//! ```
//!
//! Permits name certificates. So none is begun while the edge is in a move, and no permit is made
//! while one is pending.

use std::sync::Arc;
use std::time::Duration;

use carnet_api::tls::Identity;
use carnet_core::instant::UnixMillis;
use futures_util::{StreamExt, stream};
use thiserror::Error;

use crate::agents::{AgentError, Agents, Endpoint};
use crate::authority::{
    AuthorityError, CertificateAuthority, ControlCertificate, expires_at, is_due,
};
use crate::clock;
use crate::keys::PermitKey;
use crate::store::renewal::{Expiring, Pending};
use crate::store::{Store, StoreError};

/// How many edges are asked at a time.
const AT_A_TIME: usize = 8;

/// Looks after every certificate, each `interval`, until dropped.
pub async fn watch(
    store: Store,
    agents: Arc<dyn Agents>,
    authority: Arc<CertificateAuthority>,
    key: Arc<PermitKey>,
    mut own: ControlCertificate,
    interval: Duration,
) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = clock::now();
        match own.renew(&authority, now) {
            Ok(true) => tracing::info!("the control plane's certificate has been renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the control plane's certificate is not renewed"),
        }
        match key.renew(now) {
            Ok(true) => tracing::info!("the signing key's certificate has been renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the signing key's certificate is not renewed"),
        }
        if let Err(error) = edges(&store, &agents, &authority, now).await {
            tracing::error!(%error, "the edges' certificates are not renewed");
        }
    }
}

/// Why an edge's certificate is not renewed now.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks once at every edge whose certificate is to be renewed, as of `now`.
///
/// # Errors
/// Where the store cannot be read or written. What else keeps an edge's certificate from being
/// renewed is told to the log, and tried again at the next look.
pub async fn edges(
    store: &Store,
    agents: &Arc<dyn Agents>,
    authority: &CertificateAuthority,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let expiring = store.expiring(|expires_at| is_due(expires_at, now)).await?;
    let renewed = expiring.into_iter().map(|expiring| async move {
        let outcome = renew(store, agents.as_ref(), authority, &expiring, now).await;
        (expiring, outcome)
    });
    let mut renewed = stream::iter(renewed).buffer_unordered(AT_A_TIME);
    while let Some((Expiring { endpoint, .. }, outcome)) = renewed.next().await {
        let edge = endpoint.name;
        match outcome {
            Ok(true) => tracing::info!(edge, "its certificate has been renewed"),
            Ok(false) => tracing::debug!(edge, "its certificate is not renewed yet"),
            Err(Fault::Store(error)) => return Err(error),
            // As long as it is not there, at every look; the monitor tells that.
            Err(Fault::Agent(error)) if !error.is_refusal() => {
                tracing::debug!(edge, %error, "its certificate is not renewed yet");
            }
            Err(error) => tracing::warn!(edge, %error, "its certificate is not renewed"),
        }
    }
    Ok(())
}

/// Goes as far with one edge as it can; whether its certificate is renewed now.
async fn renew(
    store: &Store,
    agents: &dyn Agents,
    authority: &CertificateAuthority,
    expiring: &Expiring,
    now: UnixMillis,
) -> Result<bool, Fault> {
    let edge = &expiring.endpoint;
    if let Some(pending) = &expiring.pending
        && agents.shown_certificate(edge).await? == pending.fingerprint
    {
        return Ok(store.finish_renewal(edge.edge, pending).await?);
    }
    let request = agents.certificate_request(edge).await?;
    let pending = match &expiring.pending {
        Some(pending) if pending.request == request => pending.clone(),
        before => {
            // Now that the agent's next key is another, the certificate that is pending is either
            // in use there or of no use any more: which of the two, it has to show once more.
            if let Some(before) = before
                && agents.shown_certificate(edge).await? == before.fingerprint
            {
                return Ok(store.finish_renewal(edge.edge, before).await?);
            }
            let certificate = authority.edge(edge.edge, &request, now)?;
            let fingerprint =
                Identity::fingerprint_of(&certificate).map_err(AuthorityError::from)?;
            let pending = Pending {
                request,
                certificate,
                fingerprint,
                expires_at: expires_at(now),
            };
            if !store.begin_renewal(edge, &pending).await? {
                return Ok(false);
            }
            pending
        }
    };
    // From here on the agent may show either.
    let edge = &Endpoint {
        pending: Some(pending.fingerprint),
        ..edge.clone()
    };
    agents.give_certificate(edge, &pending.certificate).await?;
    if agents.shown_certificate(edge).await? != pending.fingerprint {
        return Ok(false);
    }
    Ok(store.finish_renewal(edge.edge, &pending).await?)
}
