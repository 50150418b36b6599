//! A control plane and an agent as they are started, over TLS: the agent's certificate, which is
//! 300 days old as far as the control plane knows, is renewed while both run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carnet_agent::enrol::enrol;
use carnet_agent::server::{AgentError, RuntimeChoice};
use carnet_agent::state::AgentState;
use carnet_api::client::Client;
use carnet_api::tls::{Authority, Identity};
use carnet_api::v1::{Account, DetectedFacts, Edge, EnrolmentToken, HealthState, NewApiToken};
use carnet_control::authority::expires_at;
use carnet_control::server::{Config, ServerError};
use carnet_control::store::Store;
use carnet_core::ids::{EdgeId, EnrolmentId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Auditor, Entry, Event, LedgerSigner};
use carnet_core::permit::Fingerprint;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What has not come by then never comes.
const BOUND: Duration = Duration::from_secs(60);

/// Something that runs until it is stopped, or this is dropped.
struct Running<E> {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), E>>,
}

impl<E: std::fmt::Debug> Running<E> {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(BOUND, self.task).await;
        ended.expect("it stops").unwrap().unwrap();
    }
}

async fn serve(data: &Path) -> Running<ServerError> {
    let config = Config {
        data: data.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        sockets: Vec::new(),
        names: Vec::new(),
        monitor_interval: Duration::from_millis(20),
        witnesses: Vec::new(),
    };
    let (stop, stopped) = oneshot::channel();
    let (ready, started) = oneshot::channel();
    let task = tokio::spawn(async move {
        let ready = |started: &carnet_control::server::Started| {
            ready.send(started.addresses[0]).unwrap();
        };
        let shutdown = async move {
            let _ = stopped.await;
        };
        carnet_control::server::run(config, ready, shutdown).await
    });
    let Ok(address) = started.await else {
        panic!("it does not start: {:?}", task.await);
    };
    Running {
        address,
        stop,
        task,
    }
}

async fn run_agent(directory: &Path) -> Running<AgentError> {
    let config = carnet_agent::server::Config {
        state: directory.join("state"),
        listen: None,
        runtime: RuntimeChoice::Simulated {
            root: directory.join("containers"),
        },
    };
    let (stop, stopped) = oneshot::channel();
    let (ready, started) = oneshot::channel();
    let task = tokio::spawn(async move {
        let ready = |address, _: &[String]| ready.send(address).unwrap();
        let shutdown = async move {
            let _ = stopped.await;
        };
        carnet_agent::server::run(config, ready, shutdown).await
    });
    let Ok(address) = started.await else {
        panic!("it does not start: {:?}", task.await);
    };
    Running {
        address,
        stop,
        task,
    }
}

/// Waits, within the bound, until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(BOUND, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for: {what}"));
}

/// The agent's certificate, as it stands on its disk.
fn kept(directory: &Path) -> Fingerprint {
    let pem = fs::read_to_string(directory.join("state/agent.pem")).unwrap();
    Identity::fingerprint_of(&pem).unwrap()
}

async fn store(data: &Path) -> Store {
    // Whoever writes next signs anew.
    let signer = LedgerSigner::new("carnet/test", &[1; 32]).unwrap();
    Store::open(&data.join("carnet.db"), signer).await.unwrap()
}

/// The control plane, which does not run, learns that the agent's certificate is 300 days old.
async fn age(data: &Path, edge: EdgeId, certificate: Fingerprint) {
    let store = store(data).await;
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let now = UnixMillis(i64::try_from(since.as_millis()).unwrap());
    let made_at = UnixMillis(now.0 - 300 * 24 * 3_600 * 1_000);
    let id = EnrolmentId::from_uuid(Uuid::now_v7());
    let secret = id.to_string();
    let until = UnixMillis(i64::MAX);
    store
        .create_enrolment_token(id, edge, secret.as_bytes(), until)
        .await
        .unwrap();
    let facts = DetectedFacts::default();
    let expires_at = expires_at(made_at);
    let enrolled = store
        .enrol(secret.as_bytes(), &facts, certificate, expires_at, now)
        .await;
    assert!(enrolled.unwrap());
    store.close().await;
}

fn administrator(data: &Path, address: SocketAddr) -> (Authority, Client) {
    let pem = fs::read_to_string(data.join("authority.pem")).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    let token = fs::read_to_string(data.join("administrator.token")).unwrap();
    let client = client(address, &authority, token.trim_end());
    (authority, client)
}

fn client(address: SocketAddr, authority: &Authority, token: &str) -> Client {
    Client::new(
        &format!("https://{address}"),
        authority,
        Some(token.to_owned()),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_certificate_is_renewed_while_it_runs() {
    let directory = TempDir::new().unwrap();
    let data: PathBuf = directory.path().join("data");
    let control = serve(&data).await;
    let (authority, administrator) = administrator(&data, control.address);
    let body = json!({"name": "lender", "roles": ["edge_owner"]});
    let _: Account = administrator.post("/v1/accounts", &body).await.unwrap();
    let body = json!({"label": "for a test"});
    let token: NewApiToken = administrator
        .post("/v1/accounts/lender/tokens", &body)
        .await
        .unwrap();
    let owner = client(control.address, &authority, &token.secret);
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let body = json!({
        "name": "edge", "address": format!("127.0.0.1:{port}"),
        "attributes": "B de caA deB lxc 2.6 8 - - -",
    });
    let edge: Edge = owner.post("/v1/edges", &body).await.unwrap();
    let enrolment: EnrolmentToken = owner
        .post("/v1/edges/edge/enrolment-tokens", &json!({}))
        .await
        .unwrap();
    let state = directory.path().join("state");
    let url = format!("https://{}", control.address);
    enrol(&state, &url, &enrolment.token).await.unwrap();
    let first = kept(directory.path());
    let agent = run_agent(directory.path()).await;
    assert_eq!(agent.address.port(), port);
    let is_healthy = async |owner: &Client| {
        let edge: Edge = owner.get("/v1/edges/edge").await.unwrap();
        edge.health.state == HealthState::Healthy
    };
    until("the edge is seen", async || is_healthy(&owner).await).await;
    control.stop().await;
    assert_eq!(kept(directory.path()), first);

    age(&data, edge.id, first).await;
    let control = serve(&data).await;
    until("a new certificate", async || {
        kept(directory.path()) != first
    })
    .await;
    let second = kept(directory.path());
    // What it believes, and in its ledger.
    let at_control = async || {
        let store = store(&data).await;
        let endpoint = store.endpoint(edge.id).await.unwrap();
        store.close().await;
        (endpoint.certificate, endpoint.pending)
    };
    until("it is the edge's", async || {
        at_control().await == (Some(second), None)
    })
    .await;
    let owner = client(control.address, &authority, &token.secret);
    until("the edge is seen again", async || is_healthy(&owner).await).await;
    assert_eq!(kept(directory.path()), second);
    assert!(!state.join("renewal.json").exists());
    control.stop().await;
    agent.stop().await;
    assert_eq!(
        AgentState::load(&state).unwrap().identity.fingerprint(),
        second
    );
    let store = store(&data).await;
    let entries = store.entries(0, 1_000).await.unwrap();
    let mut auditor = Auditor::default();
    let mut certificates = Vec::new();
    for entry in &entries {
        auditor.take(&entry.bytes).unwrap();
        let entry = Entry::from_bytes(&entry.bytes).unwrap();
        if let Event::Certificate(told) = entry.event {
            certificates.push((entry.by, told.certificate));
        }
    }
    let by_edge = Actor::Edge(edge.id);
    assert_eq!(
        certificates,
        [(by_edge, first), (by_edge, first), (Actor::Control, second)]
    );
    store.close().await;
}
