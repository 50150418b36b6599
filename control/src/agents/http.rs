use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use carnet_api::agent::{
    Container, CopiedAhead, Described, Done, Facts, ForgetRefusals, HandedOver, Order, PlacedClaim,
    PrepareTarget, Reading, Refusals, SigningKey,
};
use carnet_api::tls::edge_name;
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use reqwest::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AgentError, AgentFault, Agents, Asked, Command, Endpoint};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A question that costs the agent nothing.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// Preparing, restoring and clearing up: CRIU and LXC at work, nothing large sent.
const ORDER_LIMIT: Duration = Duration::from_secs(120);
/// Freezing and sending memory; beyond it the source is asked to resume.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Sending a root file system while the container runs.
const COPY_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long connections are kept open between requests: beyond the longest pause between two
/// orders, so that no handshake is needed while a container is frozen.
const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Probes on idle connections: one to a machine that is gone is noticed before it is used.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: edges are others', and none may fill this memory.
const MAX_ANSWER: usize = 4 << 20;

/// Agents over HTTP with both sides' certificates.
#[derive(Debug, Clone)]
pub struct HttpAgents {
    http: reqwest::Client,
    addresses: Arc<Addresses>,
}

/// Where the names in the edges' certificates are to be found. They stand in no DNS: an edge is
/// where its owner said, and is believed for its certificate's name alone.
#[derive(Debug, Default)]
struct Addresses(RwLock<HashMap<String, IpAddr>>);

impl Addresses {
    fn set(&self, name: &str, address: IpAddr) {
        let known = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied();
        if known != Some(address) {
            self.0
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.to_owned(), address);
        }
    }
}

struct Resolver(Arc<Addresses>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = addresses.get(name.as_str()).copied();
        Box::pin(async move {
            let address = found.ok_or("no such edge")?;
            Ok(Box::new(std::iter::once(SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

impl HttpAgents {
    /// Agents that show a certificate of the authority in `tls`, and are shown the control
    /// plane's: see [`carnet_api::tls::client_config`].
    ///
    /// # Errors
    /// Where no HTTP client can be set up.
    pub fn new(tls: ClientConfig) -> Result<Self, reqwest::Error> {
        let addresses = Arc::new(Addresses::default());
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .dns_resolver(Resolver(addresses.clone()))
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, addresses })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        edge: &Endpoint,
        request: Request<'_, impl Serialize>,
    ) -> Result<T, AgentError> {
        self.try_ask(edge, &request)
            .await
            .map_err(|fault| AgentError {
                edge: edge.name.clone(),
                address: edge.address.clone(),
                asked: request.asked,
                fault,
            })
    }

    async fn try_ask<T: DeserializeOwned>(
        &self,
        edge: &Endpoint,
        request: &Request<'_, impl Serialize>,
    ) -> Result<T, AgentFault> {
        let unreachable = |error: reqwest::Error| match error.is_timeout() && !error.is_connect() {
            true => AgentFault::TooSlow(request.limit),
            false => AgentFault::Unreachable(innermost(&error)),
        };
        let address: SocketAddr = edge
            .address
            .parse()
            .map_err(|_| AgentFault::Unreachable("its address is not `ip:port`".to_owned()))?;
        let name = edge_name(edge.edge);
        self.addresses.set(&name, address.ip());
        let url = format!("https://{name}:{}{}", address.port(), request.path);
        let mut http = self.http.request(request.method.clone(), url);
        if let Some(body) = request.body {
            http = http.json(body);
        }
        http = http.timeout(request.limit);
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

/// One request to an agent.
struct Request<'a, B> {
    method: Method,
    path: &'a str,
    asked: &'static str,
    body: Option<&'a B>,
    limit: Duration,
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
        limit: QUESTION_LIMIT,
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

    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let request = Request {
                method: Method::PUT,
                path: "/v1/signing-key",
                asked: "take the key that statements are signed with",
                body: Some(&SigningKey {
                    certificate: certificate.to_owned(),
                }),
                limit: QUESTION_LIMIT,
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
                limit: QUESTION_LIMIT,
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
                limit: ORDER_LIMIT,
            };
            self.ask(edge, request).await
        })
    }

    fn prepare_target<'a>(&'a self, edge: &'a Endpoint, order: &'a PrepareTarget) -> Asked<'a, ()> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.order.migration, "target/prepare"),
                asked: "make ready to take the container",
                body: Some(order),
                limit: ORDER_LIMIT,
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }

    fn copy_ahead<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, CopiedAhead> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, "source/copy-ahead"),
                asked: "send the root file system",
                body: Some(order),
                limit: COPY_LIMIT,
            };
            self.ask(edge, request).await
        })
    }

    fn hand_over<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, HandedOver> {
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, "source/hand-over"),
                asked: "freeze the container and send its memory",
                body: Some(order),
                limit: HAND_OVER_LIMIT,
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
        let (path, asked) = match command {
            Command::Restore => ("target/restore", "bring the container to life"),
            Command::Release => ("source/release", "remove the frozen copy"),
            Command::Clean => ("target/clean", "remove the memory images"),
            Command::Resume => ("source/resume", "let the container run on"),
            Command::Discard => ("target/discard", "remove what was sent"),
        };
        Box::pin(async move {
            let request = Request {
                method: Method::POST,
                path: &order_path(order.migration, path),
                asked,
                body: Some(order),
                limit: ORDER_LIMIT,
            };
            self.ask::<Done>(edge, request).await.map(|_| ())
        })
    }
}
