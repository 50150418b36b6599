//! The control plane as it is started and stopped, with TLS.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{ConnectInfo, Path as Named, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use carnet_api::client::{Client, ClientError};
use carnet_api::tls::{
    Authority, ClientAuthentication, Identity, Peer, TlsListener, pinned_client_config,
    server_config,
};
use carnet_api::v1::{
    Account, AttemptOutcome, AuditReport, Claim, Container, ContainerRegistration, ContainerState,
    Edge, Enrolment, EnrolmentToken, HealthState, Migration, MigrationState, NewApiToken,
    NewShareKey, ShareKey,
};
use carnet_control::server::{Config, ServerError, run};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::agents::PATIENCE;

/// A control plane that runs.
pub struct Running {
    pub data: PathBuf,
    addresses: Vec<SocketAddr>,
    administrator_token: Option<PathBuf>,
    taken_up: usize,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

pub fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        sockets: Vec::new(),
        names: Vec::new(),
        monitor_interval: Duration::from_millis(50),
        witnesses: Vec::new(),
    }
}

pub async fn start(config: Config) -> Result<Running, ServerError> {
    let data = config.data.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, started) = oneshot::channel();
    let mut task = tokio::spawn(run(
        config,
        |started| {
            let token = started.administrator_token.clone();
            let _ = ready.send((started.addresses.clone(), token, started.taken_up));
        },
        async {
            let _ = stopped.await;
        },
    ));
    tokio::select! {
        biased;
        Ok((addresses, administrator_token, taken_up)) = started => Ok(Running {
            data, addresses, administrator_token, taken_up, stop, task,
        }),
        ended = &mut task => Err(ended.unwrap().unwrap_err()),
    }
}

impl Running {
    fn base(&self) -> String {
        format!("https://{}", self.addresses[0])
    }

    fn authority(&self) -> Authority {
        let pem = fs::read_to_string(self.data.join("authority.pem")).unwrap();
        Authority::from_pem(&pem).unwrap()
    }

    fn client(&self, token: &str) -> Client {
        let token = Some(token.to_owned());
        Client::new(&self.base(), &self.authority(), token).unwrap()
    }

    pub fn administrator(&self) -> Client {
        let token = fs::read_to_string(self.data.join("administrator.token")).unwrap();
        self.client(token.trim_end())
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("it stops").unwrap().unwrap();
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_first_start_makes_an_administrator_and_no_other_start_does() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("in/two/levels");
    let first = start(config(&data)).await.unwrap();
    let token_path = data.join("administrator.token");
    assert_eq!(
        first.administrator_token.as_deref(),
        Some(token_path.as_path())
    );
    assert_eq!(mode(&data), 0o700);
    for secret in [
        "administrator.token",
        "authority.key",
        "carnet.db",
        "carnet.db-wal",
    ] {
        assert_eq!(mode(data.join(secret)), 0o600, "{secret}");
    }
    let token = fs::read(&token_path).unwrap();
    let whoami: Account = first.administrator().get("/v1/whoami").await.unwrap();
    assert_eq!(whoami.name, "administrator");
    let authority = first.authority().fingerprint();
    first.stop().await;

    // On a socket that somebody else made.
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let second = start(Config {
        listen: Vec::new(),
        sockets: vec![socket],
        ..config(&data)
    });
    let second = second.await.unwrap();
    assert_eq!(second.addresses, [address]);
    assert_eq!(second.administrator_token, None);
    assert_eq!(fs::read(&token_path).unwrap(), token);
    assert_eq!(second.authority().fingerprint(), authority);
    let accounts: Vec<Account> = second.administrator().get("/v1/accounts").await.unwrap();
    assert_eq!(accounts, [whoami]);
    second.stop().await;

    // Deleted, it is not made again.
    fs::remove_file(&token_path).unwrap();
    let third = start(config(&data)).await.unwrap();
    assert!(!token_path.exists());
    third.stop().await;
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_is_made_up_for() {
    let directory = TempDir::new().unwrap();
    let token = directory.path().join("administrator.token");
    fs::write(&token, "carnet_of_a_start_that_was_cut_off\n").unwrap();
    let running = start(config(directory.path())).await.unwrap();
    assert_eq!(mode(&token), 0o600);
    let whoami: Account = running.administrator().get("/v1/whoami").await.unwrap();
    assert_eq!(whoami.name, "administrator");
    running.stop().await;
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_data_is_refused() {
    let directory = TempDir::new().unwrap();
    let first = start(config(directory.path())).await.unwrap();
    let Err(refusal) = start(config(directory.path())).await else {
        panic!("two control planes on one store");
    };
    assert!(matches!(&refusal, ServerError::InUse(path) if path == directory.path()));
    assert!(
        refusal
            .to_string()
            .contains("another control plane runs on")
    );
    let _: Account = first.administrator().get("/v1/whoami").await.unwrap();
    first.stop().await;
    start(config(directory.path())).await.unwrap().stop().await;
}

#[tokio::test]
async fn only_who_trusts_its_authority_talks_to_it_and_only_by_tls() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let running = start(config(one.path())).await.unwrap();
    let stranger = start(config(other.path())).await.unwrap();
    let deceived = Client::new(&running.base(), &stranger.authority(), None).unwrap();
    let refused = deceived.get::<Value>("/v1/health").await;
    assert!(
        matches!(refused, Err(ClientError::Transport { .. })),
        "{refused:?}"
    );
    let plain = reqwest::Client::builder()
        .tls_backend_preconfigured(pinned_client_config("").unwrap())
        .no_proxy()
        .build()
        .unwrap();
    let plain = plain.get(format!("http://{}/v1/health", running.addresses[0]));
    plain.send().await.unwrap_err();
    // One authority's token is nothing to another.
    let token = fs::read_to_string(one.path().join("administrator.token")).unwrap();
    let refused = stranger
        .client(token.trim_end())
        .get::<Value>("/v1/whoami")
        .await;
    assert!(matches!(refused, Err(ClientError::Problem(problem)) if problem.status == 401));
    running.stop().await;
    stranger.stop().await;
}

/// An agent's API, served with the certificate that it enrolled for, to the control plane alone.
struct Agent {
    state: Arc<AgentState>,
    serving: JoinSet<()>,
}

#[derive(Default)]
struct AgentState {
    /// What stands in the claim file of its containers.
    claim: Mutex<Option<String>>,
    /// The orders that it was given, in order.
    orders: Mutex<Vec<String>>,
    /// Whether it leaves orders without an answer.
    silent: AtomicBool,
}

impl Agent {
    /// Registers an edge, enrols as its agent does, and serves.
    async fn start(running: &Running, owner: &Client, name: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = json!({
            "name": name, "address": address,
            "attributes": "B de caA deB lxc 2.6 8 - - -",
        });
        let edge: Edge = owner.post("/v1/edges", &body).await.unwrap();
        let path = format!("/v1/edges/{name}/enrolment-tokens");
        let token: EnrolmentToken = owner.post(&path, &json!({})).await.unwrap();

        // All that the agent knows is in its token.
        let fingerprint = token.token.split('.').nth(2).unwrap();
        let tls = pinned_client_config(fingerprint).unwrap();
        let client = Client::with_tls(&running.base(), tls, None).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let body = json!({
            "token": token.token, "certificate_request": request.pem().unwrap(), "detected": {},
        });
        let enrolment: Enrolment = client.post("/v1/enrolments", &body).await.unwrap();
        assert_eq!(
            (enrolment.edge, enrolment.address),
            (edge.id, address.to_string())
        );

        let identity = Identity::from_pem(&enrolment.certificate, &key.serialize_pem()).unwrap();
        let authority = Authority::from_pem(&enrolment.authority).unwrap();
        let tls = server_config(&authority, &identity, ClientAuthentication::Required).unwrap();
        let listener = TlsListener::new(listener, tls).unwrap();
        let state = Arc::new(AgentState::default());
        let service = agent(state.clone()).into_make_service_with_connect_info::<Peer>();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { state, serving }
    }
}

fn agent(state: Arc<AgentState>) -> Router {
    let reading = json!({
        "utilization": {"cpu_hundredths": 1250, "memory_hundredths": 900, "age_ms": 3},
        "problems": [],
    });
    let containers = json!([{"name": "web", "state": "running"}]);
    Router::new()
        .route("/v1/reading", get(async || Json(reading)))
        .route("/v1/containers", get(async || Json(containers)))
        .route("/v1/containers/{name}/claim", get(claim))
        .route("/v1/signing-key", put(async || Json(json!({}))))
        .route(
            "/v1/refusals",
            get(async || Json(json!({"refusals": [], "dropped": 0}))),
        )
        .route("/v1/handovers/{migration}/{side}/{order}", post(order))
        .with_state(state)
}

async fn claim(State(state): State<Arc<AgentState>>, Named(name): Named<String>) -> Json<Value> {
    assert_eq!(name, "web");
    Json(json!({"code": *state.claim.lock().unwrap()}))
}

async fn order(
    State(state): State<Arc<AgentState>>,
    Named((_, side, order)): Named<(String, String, String)>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Json<Value> {
    assert!(peer.is_control(), "nobody else gives orders");
    if state.silent.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let order = format!("{side}/{order}");
    let answer = match order.as_str() {
        "source/prepare" => {
            json!({"description": {}, "memory_bytes": 1, "rootfs_bytes": 1, "post_copy_problems": [], "pre_copy_problems": []})
        }
        "target/prepare" => json!({"post_copy_problems": [], "pre_copy_problems": []}),
        "target/restore" => json!({"running_ms": 0.5, "steps": []}),
        "source/copy-ahead" => json!({"bytes": 10, "passes": 2}),
        "source/hand-over" => {
            json!({"rootfs_difference_bytes": 20, "image_bytes": 30, "frozen_ms": 70.0, "steps": []})
        }
        _ => json!({}),
    };
    state.orders.lock().unwrap().push(order);
    Json(answer)
}

/// Makes an account.
async fn account(running: &Running, name: &str, roles: Value) -> Client {
    let body = json!({"name": name, "roles": roles});
    let _: Account = running
        .administrator()
        .post("/v1/accounts", &body)
        .await
        .unwrap();
    client(running, name).await
}

/// With a new token of an account.
async fn client(running: &Running, name: &str) -> Client {
    let administrator = running.administrator();
    let path = format!("/v1/accounts/{name}/tokens");
    let body = json!({"label": "laptop"});
    let token: NewApiToken = administrator.post(&path, &body).await.unwrap();
    running.client(&token.secret)
}

/// Waits until `path` is as `is` says.
async fn until<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    is: impl Fn(&T) -> bool,
) -> T {
    let seen = async {
        loop {
            let seen: T = client.get(path).await.unwrap();
            if is(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    seen.unwrap_or_else(|_| panic!("{path} does not become what it should"))
}

#[tokio::test]
async fn a_container_moves_from_one_enrolled_edge_to_another() {
    let directory = TempDir::new().unwrap();
    let running = start(config(directory.path())).await.unwrap();
    let owner = account(&running, "owner", json!(["edge_owner"])).await;
    let ann = account(&running, "ann", json!(["container_owner"])).await;
    let north = Agent::start(&running, &owner, "north").await;
    let south = Agent::start(&running, &owner, "south").await;

    // The monitor finds both.
    for name in ["north", "south"] {
        let path = format!("/v1/edges/{name}");
        let healthy = |edge: &Edge| edge.health.state == HealthState::Healthy;
        let edge = until(&owner, &path, healthy).await;
        assert_eq!(edge.utilization.unwrap().cpu_percent, 12.5);
        let path = format!("{path}/share-keys");
        let given: NewShareKey = owner.post(&path, &json!({"grantee": "ann"})).await.unwrap();
        let body = json!({"key": given.key});
        let _: ShareKey = ann.post("/v1/share-keys/redeem", &body).await.unwrap();
    }
    let body =
        json!({"name": "web", "edge": "north", "requirements": "de * * lxc 60 50 1.6 4 * * *"});
    let web: Container = ann.post("/v1/containers", &body).await.unwrap();
    assert_eq!(web.registration, ContainerRegistration::Pending);
    let claim: Claim = ann
        .post("/v1/containers/web/claims", &json!({}))
        .await
        .unwrap();
    let confirm = "/v1/containers/web/confirm-claim";
    let early = ann.post::<_, Container>(confirm, &json!({})).await;
    assert!(matches!(early, Err(ClientError::Problem(problem)) if problem.status == 409));
    *north.state.claim.lock().unwrap() = Some(claim.code);
    let web: Container = ann.post(confirm, &json!({})).await.unwrap();
    assert_eq!(web.registration, ContainerRegistration::Confirmed);
    let running_now = |web: &Container| web.state == ContainerState::Running;
    until(&ann, "/v1/containers/web", running_now).await;

    let to_south = json!({"container": "web", "to": {"edge": "south"}});
    let report: AuditReport = ann.post("/v1/audits", &to_south).await.unwrap();
    assert_eq!(report.attempts[0].outcome, AttemptOutcome::Permitted);
    let migration: Migration = ann.post("/v1/migrations?wait=10", &to_south).await.unwrap();
    assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
    assert_eq!(migration.transferred.rootfs_ahead_bytes, 10);
    assert!(migration.stall_ms.unwrap() >= 70.0);
    let events = ann
        .events(&format!("/v1/migrations/{}/events", migration.id))
        .await;
    let events = tokio::time::timeout(PATIENCE, events.unwrap().text()).await;
    let events = events.unwrap().unwrap();
    assert!(
        events.contains("event: migration") && events.contains("\"completed\""),
        "{events}"
    );
    let web: Container = ann.get("/v1/containers/web").await.unwrap();
    assert_eq!((web.edge_name.as_str(), web.generation), ("south", 2));
    let at_source = [
        "source/prepare",
        "source/copy-ahead",
        "source/hand-over",
        "source/release",
    ];
    assert_eq!(*north.state.orders.lock().unwrap(), at_source);
    let at_target = [
        "target/prepare",
        "target/restore",
        "target/settle",
        "target/clean",
    ];
    assert_eq!(*south.state.orders.lock().unwrap(), at_target);

    // An edge that is gone is seen to be.
    let mut serving = south.serving;
    serving.shutdown().await;
    let gone = |edge: &Edge| edge.health.state == HealthState::Unreachable;
    until(&owner, "/v1/edges/south", gone).await;
    let unknown = |web: &Container| web.state == ContainerState::Unknown;
    until(&ann, "/v1/containers/web", unknown).await;
    running.stop().await;
}

#[tokio::test]
async fn whoever_waits_is_answered_when_it_stops_and_the_next_start_goes_on() {
    let directory = TempDir::new().unwrap();
    let running = start(config(directory.path())).await.unwrap();
    let both = account(&running, "both", json!(["edge_owner", "container_owner"])).await;
    let north = Agent::start(&running, &both, "north").await;
    let south = Agent::start(&running, &both, "south").await;
    for name in ["north", "south"] {
        let path = format!("/v1/edges/{name}/share-keys");
        let given: NewShareKey = both.post(&path, &json!({"grantee": "both"})).await.unwrap();
        let body = json!({"key": given.key});
        let _: ShareKey = both.post("/v1/share-keys/redeem", &body).await.unwrap();
    }
    let body = json!({"name": "web", "edge": "north", "requirements": {}});
    let _: Container = both.post("/v1/containers", &body).await.unwrap();
    let confirm = "/v1/containers/web/confirm";
    let _: Container = both.post(confirm, &json!({})).await.unwrap();

    north.state.silent.store(true, Ordering::Relaxed);
    let to_south = json!({"container": "web", "to": {"edge": "south"}});
    let migration: Migration = both.post("/v1/migrations", &to_south).await.unwrap();
    let path = format!("/v1/migrations/{}", migration.id);
    let preparing = |migration: &Migration| migration.state == MigrationState::Preparing;
    until(&both, &path, preparing).await;
    let waited = format!("{path}?wait=600");
    let waiting = both.get::<Migration>(&waited);
    let stopping = async {
        let _: Migration = both.get(&path).await.unwrap();
        running.stop().await;
    };
    let ending = async { tokio::join!(waiting, stopping) };
    let (answer, ()) = tokio::time::timeout(PATIENCE, ending).await.unwrap();
    assert!(preparing(&answer.unwrap()));
    assert!(matches!(
        both.get::<Value>(&path).await,
        Err(ClientError::Transport { .. })
    ));

    north.state.silent.store(false, Ordering::Relaxed);
    let running = start(config(directory.path())).await.unwrap();
    assert_eq!(running.taken_up, 1);
    let both = client(&running, "both").await;
    let ended: Migration = both.get(&waited).await.unwrap();
    assert_eq!(ended.state, MigrationState::Completed, "{ended:?}");
    assert_eq!(
        south.state.orders.lock().unwrap().last().unwrap(),
        "target/clean"
    );
    running.stop().await;
}
