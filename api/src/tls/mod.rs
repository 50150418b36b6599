//! TLS 1.3 with certificates of the control plane's own authority, on both sides where both
//! sides are Carnet's.
//!
//! A certificate's DNS name says who holds it: [`CONTROL_NAME`] the control plane,
//! [`edge_name`] an edge's agent. There is one protocol version and one crypto provider, and
//! nothing to negotiate away.

mod identity;
mod listener;
mod peer;
mod pinned;
mod signing_key;

pub use identity::{
    Authority, ClientAuthentication, Identity, TlsError, client_config, server_config,
};
pub use listener::{CUT_LIMIT, TlsListener};
pub use peer::Peer;
pub use pinned::{client_config_for_peer, pinned_client_config};

use carnet_core::ids::EdgeId;

/// The DNS name in the control plane's certificate.
pub const CONTROL_NAME: &str = "control.carnet.internal";

/// The DNS name in the certificate of the key with which the control plane signs statements.
/// Nobody is reached by it.
pub const SIGNING_NAME: &str = "signing.carnet.internal";

/// The DNS name in the certificate of `edge`'s agent.
pub fn edge_name(edge: EdgeId) -> String {
    format!("{edge}.edge.carnet.internal")
}
