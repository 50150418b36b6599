//! How an agent reaches another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnet_api::tls::{CUT_LIMIT, client_config_for_peer, edge_name};
use carnet_api::v1::Problem;
use carnet_core::permit::{Fingerprint, Party};

use crate::problem::{cannot, internal};
use crate::state::AgentState;

/// Clients for other agents, each for the holder of one certificate. Each keeps its connection
/// open, so that none has to be made while a container is frozen.
pub struct Peers {
    state: Arc<AgentState>,
    clients: Mutex<HashMap<(Party, Fingerprint, String), reqwest::Client>>,
}

impl Peers {
    /// With the certificate of this edge in `state`.
    pub fn new(state: Arc<AgentState>) -> Self {
        Self {
            state,
            clients: Mutex::new(HashMap::new()),
        }
    }

    /// This edge, as statements name it now.
    pub fn me(&self) -> Party {
        Party {
            edge: self.state.edge.id,
            certificate: self.state.identity.fingerprint(),
        }
    }

    /// A client for the agent of `peer`, and the beginning of its URLs.
    ///
    /// # Errors
    /// Where `address` is none.
    pub fn client(&self, peer: Party, address: &str) -> Result<(reqwest::Client, String), Problem> {
        let address: std::net::SocketAddr = address
            .parse()
            .map_err(|_| cannot(format!("`{address}` is not an address, ip:port")))?;
        let name = edge_name(peer.edge);
        let base = format!("https://{name}:{}", address.port());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let me = self.me();
        // Its connections were made with a certificate that permits do not name any more.
        clients.retain(|(mine, ..), _| *mine == me);
        let key = (me, peer.certificate, address.to_string());
        if let Some(client) = clients.get(&key) {
            return Ok((client.clone(), base));
        }
        let tls = client_config_for_peer(
            &self.state.authority,
            &self.state.identity,
            vec![peer.certificate],
        )
        .map_err(|error| internal(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(&name, address)
            .no_proxy()
            .tcp_nodelay(true)
            .tcp_keepalive(CUT_LIMIT / 3)
            .tcp_keepalive_interval(CUT_LIMIT / 3)
            .tcp_user_timeout(CUT_LIMIT)
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| internal(&error))?;
        clients.insert(key, client.clone());
        Ok((client, base))
    }
}
