//! An attacker in the lab's network: what it has stolen, what it forges with that, and what edges
//! answer it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carnet_api::agent::{CopyAhead, Described, HandOver, Order, PrepareTarget, STATEMENT_REFUSED};
use carnet_api::tls::{Authority, CONTROL_NAME, Identity, client_config, edge_name};
use carnet_api::v1::{Edge, Problem};
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;
use carnet_core::permit::{Fingerprint, Party, Permit, Signer, Unverified};
use carnet_lab::fleet::{ADMINISTRATOR, CLIENT, Fleet};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

/// Where an edge's agent keeps its key and certificate, on its host.
const AGENT_STATE: &str = "/var/lib/carnet-agent";
/// An answer that takes longer never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Every order there is.
pub const ORDERS: [&str; 10] = [
    "source/prepare",
    "target/prepare",
    "source/copy-ahead",
    "source/hand-over",
    "target/restore",
    "target/settle",
    "source/release",
    "target/clean",
    "source/resume",
    "target/discard",
];
/// The first of them: those that are given on a permit.
pub const ON_A_PERMIT: &[&str] = ORDERS.split_at(4).0;

/// An edge that is attacked.
#[derive(Debug, Clone)]
pub struct Victim {
    pub name: String,
    pub party: Party,
    pub address: SocketAddr,
}

impl Victim {
    pub fn of(fleet: &Fleet, name: &str) -> Self {
        let path = format!("/v1/edges/{name}");
        let edge: Edge = fleet.account(ADMINISTRATOR).unwrap().get(&path).unwrap();
        let (certificate, _) = agents_identity(fleet, name);
        Self {
            name: name.to_owned(),
            party: Party {
                edge: edge.id,
                certificate: Identity::fingerprint_of(&certificate).unwrap(),
            },
            address: edge.address.parse().unwrap(),
        }
    }
}

/// Certificate and key of an edge's agent, PEM.
fn agents_identity(fleet: &Fleet, edge: &str) -> (String, String) {
    let host = fleet.host(edge).unwrap();
    let read = |file: &str| {
        let path = host.path(&format!("{AGENT_STATE}/{file}")).unwrap();
        fs::read_to_string(path).unwrap()
    };
    let both = read("agent.pem");
    (both.clone(), both)
}

/// The key that the control plane signs statements with, stolen.
pub fn stolen_permit_key(data: &Path) -> Signer {
    let pem = fs::read_to_string(data.join("permit.key")).unwrap();
    Signer::new(&SigningKey::from_pkcs8_pem(&pem).unwrap().to_bytes())
}

/// What a permit says, whoever signed it.
pub fn read_permit(token: &str) -> Permit {
    Unverified::parse(token).unwrap().into_unverified()
}

/// The order that the control plane would give on `permit`, given on `statement` instead.
pub fn order_of(permit: &Permit, target: &Victim, statement: &str) -> Order {
    let claim = &permit.claim;
    Order {
        migration: claim.migration,
        container: claim.name.clone(),
        generation: claim.generation,
        source: claim.source.edge,
        target: claim.target.edge,
        target_address: target.address.to_string(),
        statement: statement.to_owned(),
    }
}

/// Somebody with a certificate of the fleet's authority, on one of its hosts.
pub struct Attacker<'a> {
    fleet: &'a Fleet,
    host: String,
    identity: Identity,
}

impl<'a> Attacker<'a> {
    /// With a certificate as the control plane has: made with the authority's stolen key, so that
    /// what it asks for is refused by nothing but the statement. On a host outside of all edges.
    pub fn as_control(fleet: &'a Fleet, data: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(data.join(file)).unwrap();
        let authority = KeyPair::from_pem(&read("authority.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("authority.pem"), authority).unwrap();
        let mut params = CertificateParams::new([CONTROL_NAME.to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            fleet,
            host: CLIENT.to_owned(),
            identity: Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap(),
        }
    }

    /// With an edge's own certificate, on that edge.
    pub fn as_edge(fleet: &'a Fleet, edge: &str) -> Self {
        let (certificate, key) = agents_identity(fleet, edge);
        Self {
            fleet,
            host: edge.to_owned(),
            identity: Identity::from_pem(&certificate, &key).unwrap(),
        }
    }

    pub fn certificate(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Gives an order.
    ///
    /// # Errors
    /// What it is refused for.
    pub fn give(&self, victim: &Victim, name: &str, order: &Order) -> Result<(), Problem> {
        let body = match name {
            "target/prepare" => json!(PrepareTarget {
                order: order.clone(),
                container: Described {
                    description: json!({}),
                    memory_bytes: 1,
                    rootfs_bytes: 1,
                    post_copy_problems: Vec::new(),
                    pre_copy_problems: Vec::new(),
                    is_stopped: false,
                    live_problems: Vec::new(),
                },
            }),
            "source/copy-ahead" => json!(CopyAhead {
                strategy: Strategy::StopAndCopy,
                order: order.clone(),
                bandwidth_bytes_per_s: None,
            }),
            "source/hand-over" => json!(HandOver {
                order: order.clone(),
                strategy: Strategy::StopAndCopy,
                bandwidth_bytes_per_s: None,
                within_ms: None,
            }),
            _ => json!(order),
        };
        let path = format!("/v1/handovers/{}/{name}", order.migration);
        self.ask(victim, "POST", &path, body.to_string().as_bytes())
    }

    /// Pushes a stream to an edge, as a source's agent does.
    ///
    /// # Errors
    /// As [`give`](Self::give).
    pub fn send(
        &self,
        victim: &Victim,
        what: &str,
        migration: MigrationId,
        stream: &[u8],
    ) -> Result<(), Problem> {
        let path = format!("/v1/handovers/{migration}/{what}");
        self.ask(victim, "PUT", &path, stream)
    }

    /// One request, through a connection of its own from this attacker's host.
    ///
    /// # Errors
    /// As [`give`](Self::give).
    pub fn ask(
        &self,
        victim: &Victim,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(), Problem> {
        let authority = fs::read_to_string(self.fleet.authority()).unwrap();
        let authority = Authority::from_pem(&authority).unwrap();
        let config = client_config(&authority, Some(&self.identity)).unwrap();
        let name = edge_name(victim.party.edge);
        let server = ServerName::try_from(name.clone()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), server).unwrap();
        let host = self.fleet.host(&self.host).unwrap();
        let stream = host.connect(victim.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_LIMIT)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream.flush().unwrap();
        let mut told = Vec::new();
        match stream.read_to_end(&mut told) {
            // It is closed without the words that TLS has for that.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            read => drop(read.unwrap()),
        }
        let told = String::from_utf8(told).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        match head.starts_with("HTTP/1.1 200 ") {
            true => Ok(()),
            false => Err(serde_json::from_str(body).unwrap_or_else(|_| panic!("{told}"))),
        }
    }
}

/// The name of the check by which something was refused.
pub fn failed_check(problem: &Problem) -> &str {
    assert_eq!(problem.status, 403, "{problem:?}");
    match problem.kind.as_str() {
        STATEMENT_REFUSED => &problem.faults[0].found,
        "urn:carnet:problem:not-entitled" => "peer",
        _ => panic!("{problem:?}"),
    }
}
