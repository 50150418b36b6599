use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use carnet_api::agent::{
    CertificateRequest, Container, CopiedAhead, CopyAhead, Described, Done, Facts, ForgetRefusals,
    HandOver, HandedOver, NewCertificate, Order, PlacedClaim, PrepareTarget, Prepared, Reading,
    Refusals, Restored, SentSoFar, SigningKey,
};
use carnet_api::tls::{Authority, Identity, client_config, client_config_for_peer, edge_name};
use carnet_api::v1::Problem;
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::permit::Fingerprint;
use reqwest::Method;
use reqwest::tls::TlsInfo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AgentError, AgentFault, Agents, Asked, Command, Endpoint};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A question that costs the agent nothing.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// Preparing, restoring and clearing up: CRIU and LXC at work, nothing large sent.
const ORDER_LIMIT: Duration = Duration::from_secs(120);
/// Waiting for the rest of a container's memory; beyond it the target is asked again.
const SETTLE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long connections are kept open between requests: beyond the longest pause between two
/// orders, so that no handshake is needed while a container is frozen.
const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// For how long an agent may be silent, to probes too, before its connection counts as cut: what
/// was asked of it is then not waited for any more.
const CUT_LIMIT: Duration = Duration::from_secs(30);
/// Probes within that time.
const PROBES: u32 = 3;
/// The longest answer that is read, in bytes: edges are others', and none may fill this memory.
const MAX_ANSWER: usize = 4 << 20;

/// Agents over HTTP with both sides' certificates.
#[derive(Debug)]
pub struct HttpAgents {
    authority: Authority,
    identity: Identity,
    /// One for every edge, so that the connections to one whose certificate is good no more go,
    /// and no others.
    clients: Mutex<HashMap<EdgeId, Connected>>,
}

/// A client for an edge's agent, which keeps its connections open between requests.
#[derive(Debug)]
struct Connected {
    address: SocketAddr,
    accepted: Vec<Fingerprint>,
    client: reqwest::Client,
}

impl HttpAgents {
    /// Agents that show a certificate of `authority`, and are shown `identity`, the control
    /// plane's.
    pub fn new(authority: Authority, identity: Identity) -> Self {
        Self {
            authority,
            identity,
            clients: Mutex::default(),
        }
    }

    /// A client for the agent at `address`, where an edge's owner said that it is: its name stands
    /// in no DNS, and it is believed for its certificate alone.
    fn connect(
        &self,
        edge: &Endpoint,
        address: SocketAddr,
    ) -> Result<reqwest::Client, Box<dyn Error>> {
        let accepted = edge.accepted();
        let tls = if accepted.is_empty() {
            client_config(&self.authority, Some(&self.identity))?
        } else {
            client_config_for_peer(&self.authority, &self.identity, accepted)?
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .tls_info(true)
            .https_only(true)
            .resolve(&edge_name(edge.edge), address)
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .tcp_keepalive(CUT_LIMIT / PROBES)
            .tcp_keepalive_interval(CUT_LIMIT / PROBES)
            .tcp_keepalive_retries(PROBES)
            .tcp_user_timeout(CUT_LIMIT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(client)
    }

    /// The client that is kept for the edge, made anew where it has another address or other
    /// certificates than before. What is under way on the one before is not broken off.
    fn client(
        &self,
        edge: &Endpoint,
        address: SocketAddr,
    ) -> Result<reqwest::Client, Box<dyn Error>> {
        let accepted = edge.accepted();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&edge.edge)
            && (known.address, &known.accepted) == (address, &accepted)
        {
            return Ok(known.client.clone());
        }
        let client = self.connect(edge, address)?;
        clients.insert(
            edge.edge,
            Connected {
                address,
                accepted,
                client: client.clone(),
            },
        );
        Ok(client)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        edge: &Endpoint,
        request: Request<'_, impl Serialize>,
    ) -> Result<T, AgentError> {
        self.try_ask(edge, &request)
            .await
            .map_err(|fault| failed(edge, request.asked, fault))
    }

    async fn try_ask<T: DeserializeOwned>(
        &self,
        edge: &Endpoint,
        request: &Request<'_, impl Serialize>,
    ) -> Result<T, AgentFault> {
        let unreachable = |error: reqwest::Error| match error.is_timeout() && !error.is_connect() {
            true => AgentFault::TooSlow(request.limit.unwrap_or_default()),
            false => AgentFault::Unreachable(innermost(&error)),
        };
        let address = address_of(edge)?;
        let client = self.client(edge, address).map_err(not_set_up)?;
        let url = url(edge, address, request.path);
        let mut http = client.request(request.method.clone(), url);
        if let Some(body) = request.body {
            http = http.json(body);
        }
        if let Some(limit) = request.limit {
            http = http.timeout(limit);
        }
        let mut response = http.send().await.map_err(unreachable)?;
        let status = response.status();
        let unwell = |start| AgentFault::Unwell {
            status: status.as_u16(),
            start,
        };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(unwell(format!("more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let start = || String::from_utf8_lossy(&body).chars().take(200).collect();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| unwell(start()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if status.is_client_error() => Err(AgentFault::Refused(problem)),
            Ok(problem) => Err(unwell(problem.detail.unwrap_or(problem.title))),
            Err(_) => Err(unwell(start())),
        }
    }
}

impl HttpAgents {
    async fn try_shown(&self, edge: &Endpoint) -> Result<Fingerprint, AgentFault> {
        let address = address_of(edge)?;
        // One that is used once, so that no connection is open.
        let client = self.connect(edge, address).map_err(not_set_up)?;
        let response = client
            .get(url(edge, address, "/v1/facts"))
            .timeout(QUESTION_LIMIT)
            .send()
            .await
            .map_err(|error| AgentFault::Unreachable(innermost(&error)))?;
        response
            .extensions()
            .get::<TlsInfo>()
            .and_then(TlsInfo::peer_certificate)
            .map(Fingerprint::of)
            .ok_or_else(|| AgentFault::Unreachable("it shows no certificate".to_owned()))
    }
}

fn failed(edge: &Endpoint, asked: &'static str, fault: AgentFault) -> AgentError {
    AgentError {
        edge: edge.name.clone(),
        address: edge.address.clone(),
        asked,
        fault,
    }
}

fn not_set_up(error: Box<dyn Error>) -> AgentFault {
    AgentFault::Unreachable(error.to_string())
}

fn address_of(edge: &Endpoint) -> Result<SocketAddr, AgentFault> {
    let malformed = || AgentFault::Unreachable("its address is not `ip:port`".to_owned());
    edge.address.parse().map_err(|_| malformed())
}

fn url(edge: &Endpoint, address: SocketAddr, path: &str) -> String {
    format!("https://{}:{}{path}", edge_name(edge.edge), address.port())
}

/// One request to an agent.
struct Request<'a, B> {
    method: Method,
    path: &'a str,
    asked: &'static str,
    body: Option<&'a B>,
    /// `None` where whoever asks waits only as long as the phase of the move may take.
    limit: Option<Duration>,
}

/// The error that lies beneath: what the network or TLS said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn question<'a>(path: &'a str, asked: &'static str) -> Request<'a, ()> {
    Request {
        method: Method::GET,
        path,
        asked,
        body: None,
        limit: Some(QUESTION_LIMIT),
    }
}

fn order_path(migration: MigrationId, order: &str) -> String {
    format!("/v1/handovers/{migration}/{order}")
}

impl Agents for HttpAgents {
    fn facts<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Facts> {
        Box::pin(self.ask(edge, question("/v1/facts", "describe its machine")))
    }

    fn reading<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Reading> {
        Box::pin(self.ask(edge, question("/v1/reading", "read its utilization")))
    }

    fn containers<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Vec<Container>> {
        Box::pin(self.ask(edge, question("/v1/containers", "list its containers")))
    }

    fn claim<'a>(&'a self, edge: &'a Endpoint, container: &'a str) -> Asked<'a, PlacedClaim> {
        Box::pin(async move {
            let path = format!("/v1/containers/{container}/claim");
            self.ask(edge, question(&path, "read a claim code")).await
        })
    }

    fn sent<'a>(&'a self, edge: &'a Endpoint, migration: MigrationId) -> Asked<'a, SentSoFar> {
        Box::pin(async move {
            let path = format!("/v1/handovers/{migration}/sent");
            self.ask(edge, question(&path, "tell how much it has sent"))
                .await
        })
    }

    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let request = Request {
                method: Method::PUT,
                path: "/v1/signing-key",
                asked: "take the key that statements are signed with",
                body: Some(&SigningKey {
                    certificate: certificate.to_owned(),
                }),
                limit: Some(QUESTION_LIMIT),
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }

    fn shown_certificate<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Fingerprint> {
        Box::pin(async move {
            let asked = "show its certificate";
            let shown = self.try_shown(edge).await;
            shown.map_err(|fault| failed(edge, asked, fault))
        })
    }

    fn certificate_request<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, String> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: "/v1/certificate/request",
                asked: "request its next certificate",
                body: None::<&()>,
                limit: Some(QUESTION_LIMIT),
            };
            let CertificateRequest { request } = self.ask(edge, request).await?;
            Ok(request)
        })
    }

    fn give_certificate<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let request = Request {
                method: Method::PUT,
                path: "/v1/certificate",
                asked: "take its next certificate",
                body: Some(&NewCertificate {
                    certificate: certificate.to_owned(),
                }),
                limit: Some(QUESTION_LIMIT),
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }

    fn refusals<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Refusals> {
        Box::pin(self.ask(edge, question("/v1/refusals", "list what it refused")))
    }

    fn forget_refusals<'a>(&'a self, edge: &'a Endpoint, through: u64) -> Asked<'a, ()> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: "/v1/refusals/forget",
                asked: "forget what it refused",
                body: Some(&ForgetRefusals { through }),
                limit: Some(QUESTION_LIMIT),
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }

    fn prepare_source<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Described> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, "source/prepare"),
                asked: "make ready to send the container",
                body: Some(order),
                limit: Some(ORDER_LIMIT),
            };
            self.ask(edge, request).await
        })
    }

    fn prepare_target<'a>(
        &'a self,
        edge: &'a Endpoint,
        order: &'a PrepareTarget,
    ) -> Asked<'a, Prepared> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.order.migration, "target/prepare"),
                asked: "make ready to take the container",
                body: Some(order),
                limit: Some(ORDER_LIMIT),
            };
            self.ask(edge, request).await
        })
    }

    fn copy_ahead<'a>(
        &'a self,
        edge: &'a Endpoint,
        order: &'a CopyAhead,
    ) -> Asked<'a, CopiedAhead> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.order.migration, "source/copy-ahead"),
                asked: "send the root file system",
                body: Some(order),
                limit: None,
            };
            self.ask(edge, request).await
        })
    }

    fn hand_over<'a>(&'a self, edge: &'a Endpoint, order: &'a HandOver) -> Asked<'a, HandedOver> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.order.migration, "source/hand-over"),
                asked: "freeze or stop the container and send what is missing",
                body: Some(order),
                limit: None,
            };
            self.ask(edge, request).await
        })
    }

    fn restore<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Restored> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, "target/restore"),
                asked: "bring the container to life",
                body: Some(order),
                limit: Some(ORDER_LIMIT),
            };
            self.ask(edge, request).await
        })
    }

    fn command<'a>(
        &'a self,
        edge: &'a Endpoint,
        command: Command,
        order: &'a Order,
    ) -> Asked<'a, ()> {
        let (path, asked, limit) = match command {
            Command::Settle => (
                "target/settle",
                "wait until all memory is there",
                SETTLE_LIMIT,
            ),
            Command::Release => ("source/release", "remove its copy", ORDER_LIMIT),
            Command::Clean => ("target/clean", "remove the memory images", ORDER_LIMIT),
            Command::Resume => ("source/resume", "let the container go on", ORDER_LIMIT),
            Command::Discard => ("target/discard", "remove what was sent", ORDER_LIMIT),
        };
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, path),
                asked,
                body: Some(order),
                limit: Some(limit),
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }
}
