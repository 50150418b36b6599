//! Edges with agents, and a control plane that gives them orders.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use carnet_agent::permits::{Permits, now};
use carnet_agent::runtime::{ContainerName, Runtime, SimulatedRuntime};
use carnet_agent::server::{AgentError, Config, RuntimeChoice, run};
use carnet_agent::state::{AgentState, EdgeRecord};
use carnet_api::agent::{CopyAhead, Described, HandOver, Order, PrepareTarget, Refusals};
use carnet_api::tls::{self, CONTROL_NAME, Identity, SIGNING_NAME, client_config, edge_name};
use carnet_api::v1::{ContainerState, Problem};
use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::migration::Strategy;
use carnet_core::permit::{Abort, Claim, Commit, Party, Permit, Policy, Signer};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use uuid::Uuid;

/// Nothing here takes long; what has not come by then never comes.
pub const BOUND: Duration = Duration::from_secs(60);

/// The container that moves.
pub const NAME: &str = "App1";
/// What it holds in memory.
pub const MEMORY: &str = "what nobody but the container knows";

/// Every order of a hand-over that goes well, in turn.
pub const COURSE: [&str; 8] = [
    "source/prepare",
    "target/prepare",
    "source/copy-ahead",
    "source/hand-over",
    "target/restore",
    "target/settle",
    "source/release",
    "target/clean",
];

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

/// A certificate authority, with certificates as the control plane makes them.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for whoever is named so, and its key, PEM.
    pub fn certify(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate, PEM, for the key in `request`, whose holder is named so.
    pub fn certify_request(&self, name: &str, request: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params = params(name);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A key with which statements are signed, and its certificate, PEM.
    pub fn signing_key(&self) -> (Signer, String) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        // The secret is the last thing in PKCS #8 (RFC 8410), or the last but the public key.
        let der = key.serialize_der();
        let at = der
            .windows(4)
            .position(|window| window == [0x04, 0x22, 0x04, 0x20])
            .unwrap()
            + 4;
        let signer = Signer::new(der[at..at + 32].try_into().unwrap());
        assert_eq!(signer.public().as_bytes().as_slice(), key.public_key_raw());
        let mut params = CertificateParams::new([SIGNING_NAME.to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        (signer, certificate)
    }

    pub fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.certify(name);
        Identity::from_pem(&certificate, &key).unwrap()
    }

    pub fn trusted(&self) -> tls::Authority {
        tls::Authority::from_pem(&self.certificate).unwrap()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// An edge that is enrolled. Its agent runs in a runtime of its own, so that it can be killed
/// with all that it does.
pub struct Edge {
    pub id: EdgeId,
    directory: TempDir,
    agent: Option<Agent>,
}

struct Agent {
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<Result<(), AgentError>>,
}

impl Edge {
    fn enrolled(authority: &Authority, signing_key: &str) -> Self {
        let id = EdgeId::from_uuid(Uuid::now_v7());
        let directory = TempDir::new().unwrap();
        let (certificate, key) = authority.certify(&edge_name(id));
        AgentState::create(
            &directory.path().join("state"),
            &EdgeRecord {
                id,
                name: "Edge".to_owned(),
                // Not where it listens: that is for the test to say.
                address: "127.0.0.1:1".to_owned(),
            },
            &authority.certificate,
            &certificate,
            &key,
        )
        .unwrap();
        Permits::load(directory.path().join("state/permits.json"))
            .unwrap()
            .learn(signing_key, &authority.trusted(), now())
            .unwrap();
        let mut edge = Self {
            id,
            directory,
            agent: None,
        };
        edge.start();
        edge
    }

    /// Where its agent keeps what it is.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Its certificate and key, as they are on its disk now.
    pub fn identity(&self) -> Identity {
        let pem = fs::read_to_string(self.state().join("agent.pem")).unwrap();
        Identity::from_pem(&pem, &pem).unwrap()
    }

    /// As statements name it.
    pub fn party(&self) -> Party {
        Party {
            edge: self.id,
            certificate: self.identity().fingerprint(),
        }
    }

    pub fn start(&mut self) {
        assert!(self.agent.is_none());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (shutdown, shut_down) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let config = Config {
            state: self.directory.path().join("state"),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            runtime: RuntimeChoice::Simulated { root: self.root() },
        };
        let served = runtime.spawn(run(
            config,
            move |address, _| ready.send(address).unwrap(),
            async move {
                let _ = shut_down.await;
            },
        ));
        self.agent = Some(Agent {
            address: is_ready.recv_timeout(BOUND).unwrap(),
            runtime,
            shutdown,
            served,
        });
    }

    /// Ends the agent wherever it is, as a crash would.
    pub fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.runtime.shutdown_timeout(BOUND);
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Asks the agent to end. Returns what waits for it to have ended, and ends it for good.
    pub fn stop(&mut self) -> std::thread::JoinHandle<Result<(), AgentError>> {
        let agent = self.agent.take().unwrap();
        agent.shutdown.send(()).unwrap();
        std::thread::spawn(move || {
            let ended = agent
                .runtime
                .block_on(async { tokio::time::timeout(BOUND, agent.served).await });
            // What its `run` left undone is never done.
            agent.runtime.shutdown_background();
            ended.expect("the agent does not end").unwrap()
        })
    }

    pub fn address(&self) -> String {
        match &self.agent {
            Some(agent) => agent.address.to_string(),
            // Nobody listens there.
            None => "127.0.0.1:1".to_owned(),
        }
    }

    /// Where the simulated containers are.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("containers")
    }

    pub fn simulated(&self) -> SimulatedRuntime {
        SimulatedRuntime::new(self.root())
    }

    pub fn rootfs(&self) -> PathBuf {
        self.simulated().rootfs(&ContainerName::new(NAME).unwrap())
    }

    pub fn images(&self) -> PathBuf {
        self.simulated().images(&ContainerName::new(NAME).unwrap())
    }

    /// Makes the container, running, with files and memory.
    pub fn create(&self) {
        let name = ContainerName::new(NAME).unwrap();
        self.simulated().create(&name, MEMORY).unwrap();
        let rootfs = self.rootfs();
        fs::create_dir_all(rootfs.join("var/lib")).unwrap();
        fs::write(rootfs.join("var/lib/data"), "data").unwrap();
        fs::write(rootfs.join("changing"), "before").unwrap();
        std::os::unix::fs::symlink("var/lib/data", rootfs.join("link")).unwrap();
    }

    /// The container's state, and what it holds in memory; `None` where there is none.
    pub fn container(&self) -> Option<(ContainerState, String)> {
        let record = self.rootfs().with_file_name("container.json");
        let text = fs::read_to_string(record).ok()?;
        let record: Value = serde_json::from_str(&text).unwrap();
        let state = serde_json::from_value(record["state"].clone()).unwrap();
        Some((state, record["memory"].as_str().unwrap().to_owned()))
    }

    /// Whether it runs here with its memory.
    pub fn runs(&self) -> bool {
        self.container() == Some((ContainerState::Running, MEMORY.to_owned()))
    }

    pub fn is_frozen(&self) -> bool {
        self.container() == Some((ContainerState::Frozen, MEMORY.to_owned()))
    }

    /// Nothing of the container is here.
    pub fn is_empty(&self) -> bool {
        !self.rootfs().parent().unwrap().exists() && !self.images().exists()
    }

    /// The record of a hand-over on this edge's disk.
    pub fn record(&self, migration: MigrationId) -> PathBuf {
        self.directory
            .path()
            .join(format!("state/handovers/{migration}.json"))
    }

    /// Every file of the edge with its content, the agent's included; but not what it wrote down
    /// of refusals.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = files(self.directory.path());
        files.remove(Path::new("state/refusals.json"));
        files
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill();
        }
    }
}

/// The tree below `directory` as the source's agent sends it, but for what is compressed: in pieces,
/// of which the last is the end, so many bytes of it.
pub fn stream(directory: &Path, end_bytes: usize) -> [Vec<u8>; 2] {
    let mut stream = Vec::new();
    carnet_agent::tree::pack(directory, None, &mut stream).unwrap();
    let end = stream.split_off(stream.len() - end_bytes);
    [stream, end].map(|part| {
        let mut piece = vec![0];
        piece.extend((part.len() as u32).to_be_bytes());
        piece.extend(part);
        piece
    })
}

/// Every path below `root`, with what stands there: a file's content, a link's target.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let content = if kind.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                target.as_os_str().as_bytes().to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), content);
        }
    }
    found
}

/// One move of the container.
#[derive(Debug, Clone)]
pub struct Move {
    pub order: Order,
    /// How its memory goes over.
    pub strategy: Strategy,
    /// How long after the freeze all must have been sent, in milliseconds.
    pub within_ms: Option<u64>,
    /// What the source said of the container, once it has.
    pub described: Described,
    /// Where the source is told to find the target, if not where it is.
    pub by_way_of: Option<String>,
    /// Which permit it is made on.
    pub jti: String,
    pub container: ContainerId,
    /// When it was made, in seconds since the Unix epoch.
    pub made_at_s: i64,
    /// By how much the generation is raised in aborts.
    pub raised: u64,
    /// What is shown instead of the statement that fits, and under which generation.
    pub statement: Option<(String, u64)>,
}

/// Whose certificate a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Control,
    Edge(EdgeId),
    /// Its certificate is one of the authority's for that edge, and not the one that its agent has.
    Double(EdgeId),
    /// Its certificate has the control plane's name, and is of another authority.
    Stranger,
    /// It shows none.
    Nobody,
}

/// Three edges and a control plane.
pub struct Scene {
    pub authority: Authority,
    /// Of the control plane's statements.
    pub signer: Signer,
    pub strangers: Authority,
    pub edges: [Edge; 3],
    runtime: tokio::runtime::Runtime,
}

pub const SOURCE: usize = 0;
pub const TARGET: usize = 1;
pub const OTHER: usize = 2;

impl Scene {
    /// With the container running at the source.
    pub fn new() -> Self {
        let authority = Authority::new();
        let (signer, signing_key) = authority.signing_key();
        let scene = Self {
            edges: [(); 3].map(|()| Edge::enrolled(&authority, &signing_key)),
            authority,
            signer,
            strangers: Authority::new(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        };
        scene.source().create();
        scene
    }

    pub fn source(&self) -> &Edge {
        &self.edges[SOURCE]
    }

    pub fn target(&self) -> &Edge {
        &self.edges[TARGET]
    }

    pub fn edge(&self, id: EdgeId) -> &Edge {
        self.edges.iter().find(|edge| edge.id == id).unwrap()
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(BOUND, future).await })
            .expect("no answer in time")
    }

    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(future)
    }

    pub fn a_move(&self) -> Move {
        self.a_move_between(SOURCE, TARGET)
    }

    pub fn a_move_between(&self, source: usize, target: usize) -> Move {
        Move {
            order: Order {
                migration: MigrationId::from_uuid(Uuid::now_v7()),
                container: NAME.to_owned(),
                generation: 7,
                source: self.edges[source].id,
                target: self.edges[target].id,
                target_address: String::new(),
                statement: String::new(),
            },
            described: Described {
                description: serde_json::json!({ "simulated": true }),
                memory_bytes: 0,
                rootfs_bytes: 0,
                post_copy_problems: Vec::new(),
                pre_copy_problems: Vec::new(),
                is_stopped: false,
                live_problems: Vec::new(),
            },
            strategy: Strategy::StopAndCopy,
            within_ms: None,
            by_way_of: None,
            jti: Uuid::now_v7().to_string(),
            container: ContainerId::from_uuid(Uuid::now_v7()),
            made_at_s: now().0 / 1_000,
            raised: 0,
            statement: None,
        }
    }

    /// The permit of `a_move`.
    pub fn permit(&self, a_move: &Move) -> Permit {
        let order = &a_move.order;
        Permit {
            claim: Claim {
                iss: Claim::issuer(),
                jti: a_move.jti.clone(),
                iat: a_move.made_at_s,
                sub: a_move.container,
                name: order.container.clone(),
                migration: order.migration,
                generation: order.generation,
                source: self.edge(order.source).party(),
                target: self.edge(order.target).party(),
            },
            exp: a_move.made_at_s + 300,
            requirements: Policy::of(1, &serde_json::json!({})),
            attributes: Policy::of(1, &serde_json::json!({})),
            utilization: None,
            decision: 1,
        }
    }

    /// What the control plane signs for the order `name` of `a_move`, and the generation that it
    /// is given under.
    pub fn statement(&self, a_move: &Move, name: &str) -> (String, u64) {
        let permit = self.permit(a_move);
        let raised = |by| Claim {
            generation: permit.claim.generation + by,
            ..permit.claim.clone()
        };
        match name {
            "target/restore" | "target/settle" | "source/release" | "target/clean" => {
                let claim = raised(1);
                let generation = claim.generation;
                (self.signer.sign(&Commit { claim }).unwrap(), generation)
            }
            "source/resume" | "target/discard" => {
                let claim = raised(a_move.raised);
                let generation = claim.generation;
                (self.signer.sign(&Abort { claim }).unwrap(), generation)
            }
            _ => (self.signer.sign(&permit).unwrap(), permit.claim.generation),
        }
    }

    /// A client that shows `caller`'s certificate, and the beginning of URLs of `edge`'s agent.
    pub fn client(&self, caller: Caller, edge: &Edge) -> (reqwest::Client, String) {
        let tls = self.client_config(caller);
        let (name, address) = (edge_name(edge.id), edge.address().parse().unwrap());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(&name, address)
            .no_proxy()
            .build()
            .unwrap();
        (client, format!("https://{name}:{}", address.port()))
    }

    fn client_config(&self, caller: Caller) -> rustls::ClientConfig {
        let identity = match caller {
            Caller::Control => Some(self.authority.identity(CONTROL_NAME)),
            Caller::Edge(id) => match self.edges.iter().find(|edge| edge.id == id) {
                Some(edge) => Some(edge.identity()),
                None => Some(self.authority.identity(&edge_name(id))),
            },
            Caller::Double(id) => Some(self.authority.identity(&edge_name(id))),
            Caller::Stranger => Some(self.strangers.identity(CONTROL_NAME)),
            Caller::Nobody => None,
        };
        client_config(&self.authority.trusted(), identity.as_ref()).unwrap()
    }

    /// Whether anything is answered to `request` of `caller`'s.
    ///
    /// Not asked by reqwest: where a connection breaks at the instant at which it hands a request
    /// over to it, it waits for ever (as it seems, hyper keeps the request in a channel that nobody reads any
    /// more, and whose sender waits for its answer).
    pub fn is_heard(&self, caller: Caller, edge: &Edge, request: reqwest::RequestBuilder) -> bool {
        let tls = TlsConnector::from(Arc::new(self.client_config(caller)));
        let name = edge_name(edge.id).try_into().unwrap();
        let request = request.build().unwrap();
        let body = request.body().and_then(|body| body.as_bytes());
        let body = body.unwrap_or_default();
        let (method, path) = (request.method(), request.url().path());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let all = [head.as_bytes(), body].concat();
        let answered = self.block_on(async {
            let stream = TcpStream::connect(edge.address()).await?;
            let mut stream = tls.connect(name, stream).await?;
            stream.write_all(&all).await?;
            stream.read_u8().await
        });
        answered.is_ok()
    }

    /// The request that gives the order `name` of `a_move` to the edge that it is for.
    pub fn request(&self, caller: Caller, a_move: &Move, name: &str) -> reqwest::RequestBuilder {
        let Move {
            order,
            strategy,
            within_ms,
            described,
            by_way_of,
            statement,
            ..
        } = a_move;
        let edge = match name.starts_with("source/") {
            true => order.source,
            false => order.target,
        };
        let direct = || self.edge(order.target).address();
        let (statement, generation) = match statement {
            Some(shown) => shown.clone(),
            None => self.statement(a_move, name),
        };
        let order = Order {
            target_address: by_way_of.clone().unwrap_or_else(direct),
            generation,
            statement,
            ..order.clone()
        };
        let (client, base) = self.client(caller, self.edge(edge));
        let request = client.post(format!("{base}/v1/handovers/{}/{name}", order.migration));
        match name {
            "target/prepare" => request.json(&PrepareTarget {
                order,
                container: described.clone(),
            }),
            "source/copy-ahead" => request.json(&CopyAhead {
                order,
                strategy: *strategy,
                bandwidth_bytes_per_s: None,
            }),
            "source/hand-over" => request.json(&HandOver {
                order,
                strategy: *strategy,
                bandwidth_bytes_per_s: None,
                within_ms: *within_ms,
            }),
            _ => request.json(&order),
        }
    }

    /// Gives an order as the control plane, and returns what came of it.
    pub fn give(&self, a_move: &Move, name: &str) -> Result<Value, Problem> {
        self.block_on(answer(self.request(Caller::Control, a_move, name)))
            .expect("no answer at all")
    }

    /// Gives the orders of the course up to and with `last`, all of which must be done.
    pub fn go_to(&self, a_move: &mut Move, last: &str) {
        for name in COURSE {
            self.go(a_move, name);
            if name == last {
                return;
            }
        }
        panic!("{last} is not on the course");
    }

    /// Gives an order that must be done.
    pub fn go(&self, a_move: &mut Move, name: &str) -> Value {
        let done = self
            .give(a_move, name)
            .unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
        if name == "source/prepare" {
            a_move.described = serde_json::from_value(done.clone()).unwrap();
        }
        done
    }

    /// What `edge` has refused and not forgotten.
    pub fn refusals(&self, edge: &Edge) -> Refusals {
        serde_json::from_value(self.get(edge, "/v1/refusals").unwrap()).unwrap()
    }

    /// Tells `edge` something as the control plane.
    pub fn tell(
        &self,
        edge: &Edge,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, Problem> {
        let (client, base) = self.client(Caller::Control, edge);
        let request = client.request(method, format!("{base}{path}")).json(body);
        self.block_on(answer(request)).expect("no answer at all")
    }

    /// Asks as the control plane.
    pub fn get(&self, edge: &Edge, path: &str) -> Result<Value, Problem> {
        let (client, base) = self.client(Caller::Control, edge);
        self.block_on(answer(client.request(Method::GET, format!("{base}{path}"))))
            .expect("no answer at all")
    }
}

/// What an agent answers to `request`: JSON, or a problem that says so of itself.
pub async fn answer(
    request: reqwest::RequestBuilder,
) -> Result<Result<Value, Problem>, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status();
    let kind = response.headers()["content-type"].clone();
    let body = response.bytes().await?;
    Ok(if status.is_success() {
        Ok(serde_json::from_slice(&body).unwrap())
    } else {
        assert_eq!(kind, "application/problem+json", "{body:?}");
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.status, status.as_u16());
        assert!(problem.detail.is_some());
        Err(problem)
    })
}

/// The way to an agent, which can be held up: so many bytes get there and no more, until it is
/// opened.
pub struct Way {
    pub address: String,
    is_held: mpsc::Receiver<()>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Way {
    /// To `to`; after `bytes` it is held up.
    pub fn new(scene: &Scene, to: &str, bytes: usize) -> Self {
        let listener = scene.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (held, is_held) = mpsc::channel();
        let (open, opened) = watch::channel(false);
        let to = to.to_owned();
        let task = scene.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&to).await.unwrap();
                connections.spawn(forward(near, far, bytes, held.clone(), opened.clone()));
            }
        });
        Self {
            address,
            is_held,
            open,
            task,
        }
    }

    /// Waits until something is held up on it.
    pub fn wait(&self) {
        self.is_held.recv_timeout(BOUND).unwrap();
    }

    pub fn open(&self) {
        self.open.send(true).unwrap();
    }
}

impl Drop for Way {
    /// What is held up on it is lost, and both ends notice.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    near: TcpStream,
    far: TcpStream,
    mut bytes: usize,
    held: mpsc::Sender<()>,
    mut opened: watch::Receiver<bool>,
) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let back = copy(&mut from_far, &mut to_near);
    let forth = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from_near.read(&mut buffer).await?;
            if length == 0 {
                return to_far.shutdown().await;
            }
            if length >= bytes {
                let _ = held.send(());
                // Dropped without being opened: the connections go with this task.
                let _ = opened.wait_for(|open| *open).await;
            }
            bytes = bytes.saturating_sub(length);
            to_far.write_all(&buffer[..length]).await?;
        }
    };
    let _ = tokio::join!(back, forth);
}
