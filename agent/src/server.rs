//! What an agent answers: to the control plane, and, for the streams, to another agent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use carnet_api::agent::{
    CertificateRequest, Container, CopyAhead, Done, Facts, ForgetRefusals, HandOver,
    NewCertificate, Order, PlacedClaim, PrepareTarget, Reading, Refusals, SentSoFar, SigningKey,
    StandBy,
};
use carnet_api::tls::{ClientAuthentication, Peer, TlsError, TlsListener, server_config};
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::detect;
use crate::handover::{Handovers, PAGES, Peers, Stream};
use crate::lxc::LxcRuntime;
use crate::orders::Orders;
use crate::permits::{self, KeyError, MemoryError, Permits};
use crate::problem::{
    PROBLEM_JSON, Refusal, cannot, failed_check, internal, not_found, not_understood, not_yours,
    statement_refused,
};
use crate::refusals::Refusals as Kept;
use crate::renewal::{Renewal, RenewalError};
use crate::runtime::{ContainerName, Runtime, SimulatedRuntime};
use crate::state::{AgentState, StateError, make_private_directory};
use crate::transfer;
use crate::utilization::Meter;

/// How an agent is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was enrolled.
    pub state: PathBuf,
    /// Where it listens; by default where its edge's owner said.
    pub listen: Option<SocketAddr>,
    pub runtime: RuntimeChoice,
}

/// What runs the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// LXC; containers are put on this bridge.
    Lxc { bridge: String },
    /// Nothing: containers are directories below this one.
    Simulated { root: PathBuf },
}

/// Why an agent does not run.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("`{0}` is not an address to listen on, ip:port")]
    Address(String),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("this program cannot be found: {0}")]
    Program(std::io::Error),
    #[error("serving ended: {0}")]
    Serve(std::io::Error),
}

struct Agent<R> {
    state: Arc<AgentState>,
    permits: Arc<Permits>,
    refusals: Kept,
    renewal: Renewal,
    runtime: Arc<R>,
    meter: Arc<Meter>,
    orders: Arc<Orders>,
    handovers: Arc<Handovers<R>>,
}

/// Runs an agent until `shutdown` completes; orders under way are carried out to their end first.
/// `ready` is called with the address once it listens, and with what keeps this edge from taking
/// part in migrations.
///
/// # Errors
/// [`AgentError`].
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr, &[String]),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AgentError> {
    match config.runtime.clone() {
        RuntimeChoice::Lxc { bridge } => {
            let program = std::env::current_exe().map_err(AgentError::Program)?;
            let runtime = LxcRuntime::new(bridge, program);
            run_with(runtime, config, ready, shutdown).await
        }
        RuntimeChoice::Simulated { root } => {
            run_with(SimulatedRuntime::new(root), config, ready, shutdown).await
        }
    }
}

async fn run_with<R: Runtime>(
    runtime: R,
    config: Config,
    ready: impl FnOnce(SocketAddr, &[String]),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AgentError> {
    let state = Arc::new(AgentState::load(&config.state)?);
    let address = match config.listen {
        Some(address) => address,
        None => state
            .edge
            .address
            .parse()
            .map_err(|_| AgentError::Address(state.edge.address.clone()))?,
    };
    make_private_directory(&state.handovers())?;
    let tls = server_config(
        &state.authority,
        &state.identity,
        ClientAuthentication::Required,
    )?;
    let permits = Arc::new(Permits::load(state.permits())?);
    let refusals = Kept::load(state.refusals())?;
    let peers = Peers::new(state.clone());
    let cannot_listen = |source| AgentError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
    let listener = TlsListener::new(listener, tls).map_err(cannot_listen)?;
    let address = axum::serve::Listener::local_addr(&listener).map_err(cannot_listen)?;

    let runtime = Arc::new(runtime);
    let meter = Arc::new(Meter::default());
    let agent = Arc::new(Agent {
        handovers: Arc::new(Handovers::new(
            runtime.clone(),
            permits.clone(),
            state.handovers(),
            peers,
        )),
        orders: Arc::new(Orders::default()),
        meter: meter.clone(),
        permits,
        refusals,
        renewal: Renewal::new(state.clone()),
        state,
        runtime,
    });
    agent.handovers.recover().await;
    let mut problems = agent.runtime.problems().await;
    problems.extend(agent.runtime.live_problems().await);
    ready(address, &problems);
    let sampling = tokio::spawn(async move { meter.keep_sampling().await });
    let (orders, handovers) = (agent.orders.clone(), agent.handovers.clone());
    let served = axum::serve(
        listener,
        router(agent).into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(shutdown)
    .await
    .map_err(AgentError::Serve);
    // Those whose callers hung up are in no connection's hands.
    orders.settle().await;
    // Nor is memory that is on its way.
    handovers.settle_all().await;
    sampling.abort();
    served
}

type Shared<R> = State<Arc<Agent<R>>>;
type Answer<T> = Result<Json<T>, Refusal>;

fn router<R: Runtime>(agent: Arc<Agent<R>>) -> Router {
    /// An order: its name, and who carries it out.
    macro_rules! order {
        ($name:literal, $method:ident, $body:ty, $of:expr $(, first $first:ident)?) => {
            post(
                |State(agent): Shared<R>,
                 Path(migration): Path<MigrationId>,
                 ConnectInfo(peer): ConnectInfo<Peer>,
                 Json(body): Json<$body>| async move {
                    let of: fn(&$body) -> &Order = $of;
                    if of(&body).migration != migration {
                        return Err(Refusal(cannot("path and body name different migrations")));
                    }
                    let handovers = agent.handovers.clone();
                    $(handovers.$first(of(&body));)?
                    tracing::info!(%migration, container = of(&body).container, concat!("order: ", $name));
                    let statement = of(&body).statement.clone();
                    let outcome = agent
                        .orders
                        .carry_out(migration, $name, &statement, async move {
                            handovers.$method(body).await
                        })
                        .await;
                    if let Err(problem) = &outcome {
                        agent.note(problem, $name, Some(migration), &peer);
                        tracing::warn!(%migration, problem = problem.detail, concat!("failed: ", $name));
                    }
                    outcome.map(Json).map_err(Refusal)
                },
            )
        };
        ($name:literal, $method:ident) => {
            order!($name, $method, Order, |order| order)
        };
    }
    let for_control = Router::new()
        .route("/v1/facts", get(facts))
        .route("/v1/reading", get(reading))
        .route("/v1/containers", get(containers))
        .route("/v1/containers/{name}/claim", get(claim))
        .route("/v1/signing-key", put(learn))
        .route("/v1/certificate/request", post(certificate_request))
        .route("/v1/certificate", put(take_certificate))
        .route("/v1/refusals", get(refusals))
        .route("/v1/refusals/forget", post(forget))
        .route("/v1/handovers/{id}/sent", get(sent_so_far))
        .route(
            "/v1/handovers/{id}/source/prepare",
            order!("source/prepare", prepare_source),
        )
        .route(
            "/v1/handovers/{id}/target/prepare",
            order!("target/prepare", prepare_target, PrepareTarget, |asked| {
                &asked.order
            }),
        )
        .route(
            "/v1/handovers/{id}/source/copy-ahead",
            order!("source/copy-ahead", copy_ahead, CopyAhead, |asked| {
                &asked.order
            }),
        )
        .route(
            "/v1/handovers/{id}/source/hand-over",
            order!("source/hand-over", hand_over, HandOver, |asked| {
                &asked.order
            }),
        )
        .route(
            "/v1/handovers/{id}/target/restore",
            order!("target/restore", restore),
        )
        .route(
            "/v1/handovers/{id}/target/settle",
            order!("target/settle", settle),
        )
        .route(
            "/v1/handovers/{id}/target/clean",
            order!("target/clean", clean),
        )
        .route(
            "/v1/handovers/{id}/source/release",
            order!("source/release", release),
        )
        .route(
            "/v1/handovers/{id}/source/resume",
            // Not only when its turn comes.
            order!("source/resume", resume, Order, |order| order, first call_off),
        )
        .route(
            "/v1/handovers/{id}/target/discard",
            order!("target/discard", discard),
        )
        .layer(middleware::from_fn_with_state(
            agent.clone(),
            only_control::<R>,
        ));
    let for_peers = Router::new()
        .route("/v1/handovers/{id}/rootfs", put(receive_rootfs))
        .route("/v1/handovers/{id}/memory-ahead", put(receive_memory_ahead))
        .route("/v1/handovers/{id}/images", put(receive_images))
        .route("/v1/handovers/{id}/pages", post(receive_pages))
        .layer(DefaultBodyLimit::disable())
        // An order, and no stream.
        .route("/v1/handovers/{id}/stand-by", put(stand_by));
    for_control
        .merge(for_peers)
        .fallback(|| async { Refusal(not_found("an agent has nothing there")) })
        .with_state(agent)
        .layer(middleware::map_response(told_as_problem))
}

/// What axum itself refuses, a body that is no order say, it tells in plain text.
async fn told_as_problem(response: Response) -> Response {
    /// Longer texts are no use to anybody, in bytes.
    const LONGEST: usize = 4_096;
    let status = response.status();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == PROBLEM_JSON);
    if status.is_success() || is_problem {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), LONGEST).await;
    let text = text.unwrap_or_default();
    Refusal(not_understood(status, String::from_utf8_lossy(&text))).into_response()
}

impl<R> Agent<R> {
    /// The answer to another agent, written down where it is a refusal.
    fn answer<T>(
        &self,
        asked: &str,
        migration: MigrationId,
        peer: &Peer,
        outcome: Result<T, Problem>,
    ) -> Answer<T> {
        outcome.map(Json).map_err(|problem| {
            self.note(&problem, asked, Some(migration), peer);
            tracing::warn!(%migration, problem = problem.detail, "another agent was refused: {asked}");
            Refusal(problem)
        })
    }

    /// Writes a problem down where it refuses who asked, or the statement that was shown.
    fn note(&self, problem: &Problem, asked: &str, migration: Option<MigrationId>, peer: &Peer) {
        if let Some(check) = failed_check(problem) {
            let now = permits::now();
            self.refusals
                .note(check, asked, migration, peer.fingerprint(), now);
        }
    }
}

/// Everything but the streams is the control plane's alone.
async fn only_control<R: Runtime>(
    State(agent): Shared<R>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.is_control() {
        return next.run(request).await;
    }
    let problem = not_yours("only the control plane gives orders");
    let path = request.uri().path();
    match path
        .strip_prefix("/v1/handovers/")
        .and_then(|rest| rest.split_once('/'))
        .and_then(|(id, order)| Some((id.parse().ok()?, order)))
    {
        Some((migration, order)) => agent.note(&problem, order, Some(migration), &peer),
        None => {
            let asked = format!("{} {path}", request.method());
            agent.note(&problem, &asked, None, &peer);
        }
    }
    Refusal(problem).into_response()
}

async fn learn<R: Runtime>(
    State(agent): Shared<R>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(told): Json<SigningKey>,
) -> Answer<Done> {
    let now = permits::now();
    match agent
        .permits
        .learn(&told.certificate, &agent.state.authority, now)
    {
        Ok(()) => Ok(Json(Done {})),
        Err(KeyError::Memory(error)) => Err(internal(&error).into()),
        Err(error @ (KeyError::Certificate(_) | KeyError::Key)) => {
            let problem = statement_refused("key", error);
            agent.note(&problem, "signing-key", None, &peer);
            Err(problem.into())
        }
    }
}

async fn certificate_request<R: Runtime>(State(agent): Shared<R>) -> Answer<CertificateRequest> {
    match agent.renewal.request() {
        Ok(request) => Ok(Json(CertificateRequest { request })),
        Err(error) => Err(internal(&error).into()),
    }
}

async fn take_certificate<R: Runtime>(
    State(agent): Shared<R>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(told): Json<NewCertificate>,
) -> Answer<Done> {
    match agent.renewal.take(&told.certificate) {
        Ok(()) => Ok(Json(Done {})),
        Err(error @ (RenewalError::Key(_) | RenewalError::State(_))) => {
            Err(internal(&error).into())
        }
        Err(error @ (RenewalError::Certificate(_) | RenewalError::NotRequested)) => {
            let problem = statement_refused("certificate", error);
            agent.note(&problem, "certificate", None, &peer);
            Err(problem.into())
        }
    }
}

async fn refusals<R: Runtime>(State(agent): Shared<R>) -> Json<Refusals> {
    Json(agent.refusals.list())
}

async fn forget<R: Runtime>(
    State(agent): Shared<R>,
    Json(asked): Json<ForgetRefusals>,
) -> Answer<Done> {
    match agent.refusals.forget(asked.through) {
        Ok(()) => Ok(Json(Done {})),
        Err(error) => Err(internal(&error).into()),
    }
}

async fn facts<R: Runtime>(State(agent): Shared<R>) -> Json<Facts> {
    Json(Facts {
        edge: agent.state.edge.id,
        detected: detect::facts().await,
    })
}

async fn reading<R: Runtime>(State(agent): Shared<R>) -> Json<Reading> {
    let mut problems = agent.runtime.problems().await;
    let utilization = match agent.meter.read().await {
        Ok(utilization) => Some(utilization),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    Json(Reading {
        utilization,
        problems,
        live_problems: agent.runtime.live_problems().await,
    })
}

async fn containers<R: Runtime>(State(agent): Shared<R>) -> Answer<Vec<Container>> {
    let containers = agent.runtime.containers().await;
    containers.map(Json).map_err(|error| cannot(error).into())
}

async fn claim<R: Runtime>(
    State(agent): Shared<R>,
    Path(name): Path<String>,
) -> Answer<PlacedClaim> {
    let name = ContainerName::new(&name).map_err(cannot)?;
    let code = agent.runtime.placed_claim(&name).await.map_err(cannot)?;
    Ok(Json(PlacedClaim { code }))
}

async fn sent_so_far<R: Runtime>(
    State(agent): Shared<R>,
    Path(id): Path<MigrationId>,
) -> Json<SentSoFar> {
    Json(agent.handovers.sent_so_far(id))
}

async fn receive_rootfs<R: Runtime>(
    agent: Shared<R>,
    id: Path<MigrationId>,
    peer: ConnectInfo<Peer>,
    body: Body,
) -> Response {
    receive(agent, id, peer, body, Stream::Rootfs).await
}

async fn receive_memory_ahead<R: Runtime>(
    agent: Shared<R>,
    id: Path<MigrationId>,
    peer: ConnectInfo<Peer>,
    body: Body,
) -> Response {
    receive(agent, id, peer, body, Stream::MemoryAhead).await
}

async fn receive_images<R: Runtime>(
    agent: Shared<R>,
    id: Path<MigrationId>,
    peer: ConnectInfo<Peer>,
    body: Body,
) -> Response {
    receive(agent, id, peer, body, Stream::Images).await
}

async fn receive<R: Runtime>(
    State(agent): Shared<R>,
    Path(migration): Path<MigrationId>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
    stream: Stream,
) -> Response {
    let handovers = agent.handovers.clone();
    let asked = stream.name();
    let from = peer.clone();
    let body = transfer::read_to_the_end(body.into_data_stream());
    let received =
        tokio::spawn(async move { handovers.receive(migration, stream, &peer, body).await })
            .await
            .unwrap_or_else(|error| Err(internal(&error)));
    match received {
        Ok(received) => (StatusCode::OK, Json(received)).into_response(),
        Err(problem) => {
            agent.note(&problem, asked, Some(migration), &from);
            tracing::warn!(%migration, ?stream, problem = problem.detail, "a stream was refused");
            Refusal(problem).into_response()
        }
    }
}

async fn stand_by<R: Runtime>(
    State(agent): Shared<R>,
    Path(migration): Path<MigrationId>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(asked): Json<StandBy>,
) -> Answer<Done> {
    let (handovers, from) = (agent.handovers.clone(), peer.clone());
    // To its end, also where the source hangs up or dies: LXC, begun by half, would stand by for
    // nobody.
    let outcome = tokio::spawn(async move { handovers.stand_by(migration, &from, asked).await })
        .await
        .unwrap_or_else(|error| Err(internal(&error)));
    agent.answer("stand-by", migration, &peer, outcome)
}

/// The connection becomes the way that pages come by.
async fn receive_pages<R: Runtime>(
    State(agent): Shared<R>,
    Path(migration): Path<MigrationId>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Response {
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|protocol| protocol != PAGES) {
        return Refusal(cannot(format!("pages come by an upgrade to `{PAGES}`"))).into_response();
    }
    let outcome = agent.handovers.expect_pages(migration, &peer);
    let expected = match agent.answer("pages", migration, &peer, outcome) {
        Ok(Json(expected)) => expected,
        Err(refusal) => return refusal.into_response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            // An error: the hand-over has ended.
            Ok(pages) => drop(expected.send(Box::new(TokioIo::new(pages)))),
            Err(error) => tracing::warn!(%migration, %error, "there is no way for pages"),
        }
    });
    let protocol = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PAGES)];
    (StatusCode::SWITCHING_PROTOCOLS, protocol).into_response()
}
