//! Carnet on a lab: the control plane on a host of its own, an agent on every edge, and the
//! accounts of those who use them.
//!
//! ```text
//! the machine      127.0.0.1:PORT ──┐ (a socket made here, handed over)
//!                                   ├── carnet serve, in the network of the host `control`
//! the lab's hosts  10.88.1.x:7700 ──┘        │
//!                  10.88.1.y:7701 ◄──────────┘ carnet agent, on every edge
//! ```
//!
//! All is done as an operator would do it: by the commands of `carnet`, and by its public API.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnet_api::client::{Client, ClientError};
use carnet_api::tls::Authority;
use carnet_api::v1::{
    Account as AccountRecord, CreateAccount, CreateApiToken, CreateShareKey, Edge, EnrolmentToken,
    HealthState, NewApiToken, NewShareKey, RedeemShareKey, RegisterEdge, Role, ShareKey,
};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::error::LabError;
use crate::host::Host;
use crate::init::PROGRAMS;
use crate::lab::{Lab, LabSpec};
use crate::progress::{Progress, tell};
use crate::service::{END_LIMIT, Service};

/// The host that the control plane runs on.
pub const CONTROL: &str = "control";
/// A host outside of all edges.
pub const CLIENT: &str = "client";
/// The account that the control plane makes at its first start.
pub const ADMINISTRATOR: &str = "administrator";
/// Where the control plane listens in the lab.
const CONTROL_PORT: u16 = 7700;
/// Where agents listen.
const AGENT_PORT: u16 = 7701;
/// Where an edge's agent keeps its key and certificate, on its host.
const AGENT_STATE: &str = "/var/lib/carnet-agent";
/// How often the monitor looks at every edge, in seconds: often, for the edges are few, and
/// somebody is waiting for them to come up.
const MONITOR_INTERVAL: u64 = 2;
/// How long an answer of the API may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long all edges may take to be healthy.
const HEALTHY_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// What a fleet is to be.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// The lab's name.
    pub lab: String,
    pub edges: Vec<EdgeSpec>,
    /// The names of edges that are up, and that nobody has registered yet.
    pub unregistered: Vec<String>,
    /// The program `carnet-lab`; `carnet` is beside it.
    pub program: PathBuf,
    /// See [`LabSpec::own_disks`].
    pub own_disks: bool,
}

/// An edge, as its owner describes it.
#[derive(Debug, Clone)]
pub struct EdgeSpec {
    pub name: String,
    /// The account that owns it. It is made.
    pub owner: String,
    /// A compact row of attributes, as in the paper's Table 6 from the region on.
    pub attributes: String,
}

/// A lab with Carnet on it. Dropped, its programs end, and then the lab goes away.
#[derive(Debug)]
pub struct Fleet {
    lab: Lab,
    /// Where `carnet` is on this machine.
    programs: PathBuf,
    /// Where the control plane keeps what it keeps.
    data: PathBuf,
    logs: PathBuf,
    tokens: PathBuf,
    /// Kept, so that a control plane that is started again is reached at the same address. While
    /// there is none, connections wait here for it.
    socket: TcpListener,
    control: Option<Service>,
    agents: Vec<(String, Service)>,
    accounts: Vec<Account>,
    runtime: Arc<Runtime>,
    stays: bool,
}

/// Somebody who uses Carnet, by its API.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    /// A file with the API token, for the commands.
    pub token_file: PathBuf,
    client: Client,
    runtime: Arc<Runtime>,
}

impl Fleet {
    /// Brings up a lab, the control plane, and every edge with its agent and its owner.
    ///
    /// # Errors
    /// Where something does not come up. What was begun goes away.
    pub fn start(spec: &FleetSpec, progress: &Progress) -> Result<Self, LabError> {
        let mut fleet = Self::bring_up_lab(spec, progress)?;
        progress.step("starting carnet serve on the host control")?;
        fleet.start_control()?;
        fleet.take_up_administration()?;
        let mut owners: Vec<&str> = spec.edges.iter().map(|edge| edge.owner.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            fleet.create_account(owner, Role::EdgeOwner)?;
        }
        for edge in &spec.edges {
            progress.step(&format!(
                "{} registers {}, and its agent enrols",
                edge.owner, edge.name
            ))?;
            fleet.enrol(edge)?;
        }
        progress.step("starting carnet agent on every edge")?;
        for edge in &spec.edges {
            fleet.begin_agent(&edge.name)?;
        }
        for edge in &spec.edges {
            progress.go_on()?;
            fleet.agent(&edge.name)?.await_ready(1)?;
        }
        Ok(fleet)
    }

    fn bring_up_lab(spec: &FleetSpec, progress: &Progress) -> Result<Self, LabError> {
        let programs = spec.program.parent().unwrap_or(Path::new("/")).to_owned();
        if !programs.join("carnet").is_file() {
            return Err(LabError::Other(format!(
                "there is no `carnet` beside `{}`; build it: cargo build -p carnet",
                spec.program.display()
            )));
        }
        progress.step(&format!(
            "building the lab `{}`: {} edges, a host for the control plane, a client outside",
            spec.lab,
            spec.edges.len() + spec.unregistered.len()
        ))?;
        let lab = Lab::start(
            &LabSpec {
                name: spec.lab.clone(),
                edges: spec
                    .edges
                    .iter()
                    .map(|edge| &edge.name)
                    .chain(&spec.unregistered)
                    .cloned()
                    .collect(),
                others: vec![CONTROL.to_owned(), CLIENT.to_owned()],
                program: spec.program.clone(),
                programs: programs.clone(),
                own_disks: spec.own_disks,
            },
            progress,
        )?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| LabError::Other(format!("cannot start a runtime: {error}")))?;
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(on_loopback)?;
        Ok(Self {
            data: lab.directory("serve")?,
            logs: lab.directory("logs")?,
            tokens: lab.directory("tokens")?,
            lab,
            programs,
            socket,
            control: None,
            agents: Vec::new(),
            accounts: Vec::new(),
            runtime: Arc::new(runtime),
            stays: false,
        })
    }

    /// Starts the control plane, for the first time or again, and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_control(&mut self) -> Result<(), LabError> {
        let host = self.lab.host(CONTROL)?;
        let address = self.address_in_lab()?;
        let socket = self.socket.try_clone().map_err(on_loopback)?;
        let carnet = self.carnet().display().to_string();
        let mut command = host.command_with_socket(&carnet, socket);
        command
            .args(["serve", "--listen", &address.to_string()])
            .args(["--monitor-interval", &format!("{MONITOR_INTERVAL}s")])
            .arg("--data")
            .arg(&self.data);
        let file = self.logs.join("serve");
        let service = Service::start("carnet serve", host, command, &file)?;
        self.control.insert(service).await_ready(2)
    }

    /// The first account comes with the control plane.
    fn take_up_administration(&mut self) -> Result<(), LabError> {
        let token_file = self.data.join("administrator.token");
        let token = fs::read_to_string(&token_file).map_err(LabError::file(&token_file))?;
        self.add_account(ADMINISTRATOR, token.trim(), token_file)
    }

    fn add_account(
        &mut self,
        name: &str,
        token: &str,
        token_file: PathBuf,
    ) -> Result<(), LabError> {
        let path = self.authority();
        let pem = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        let cannot = |source: ClientError| LabError::Api {
            asked: format!("a client for {name}"),
            source: Box::new(source),
        };
        let authority = Authority::from_pem(&pem).map_err(|error| cannot(error.into()))?;
        let client =
            Client::new(&self.url()?, &authority, Some(token.to_owned())).map_err(cannot)?;
        self.accounts.push(Account {
            name: name.to_owned(),
            token_file,
            client,
            runtime: self.runtime.clone(),
        });
        Ok(())
    }

    /// Makes an account, and a token for it.
    ///
    /// # Errors
    /// Where the control plane refuses.
    pub fn create_account(&mut self, name: &str, role: Role) -> Result<(), LabError> {
        let administrator = self.account(ADMINISTRATOR)?;
        let _: AccountRecord = administrator.post(
            "/v1/accounts",
            &CreateAccount {
                name: name.to_owned(),
                roles: vec![role],
            },
        )?;
        let token: NewApiToken = administrator.post(
            &format!("/v1/accounts/{name}/tokens"),
            &CreateApiToken {
                label: "lab".to_owned(),
                roles: None,
                valid_for_seconds: None,
            },
        )?;
        let token_file = self.tokens.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&token_file)
            .and_then(|mut file| writeln!(file, "{}", token.secret))
            .map_err(LabError::file(&token_file))?;
        self.add_account(name, &token.secret, token_file)
    }

    /// Its owner registers an edge, and its agent gets a certificate with the owner's token.
    fn enrol(&self, edge: &EdgeSpec) -> Result<(), LabError> {
        let host = self.lab.host(&edge.name)?;
        let owner = self.account(&edge.owner)?;
        let _: Edge = owner.post(
            "/v1/edges",
            &RegisterEdge {
                name: edge.name.clone(),
                address: SocketAddr::from((host.address, AGENT_PORT)).to_string(),
                attributes: Value::String(edge.attributes.clone()),
            },
        )?;
        let enrolment: EnrolmentToken = owner.post(
            &format!("/v1/edges/{}/enrolment-tokens", edge.name),
            &serde_json::json!({}),
        )?;
        let control = self.address_in_lab()?;
        host.run(
            &format!("{PROGRAMS}/carnet"),
            &[
                "agent",
                "enrol",
                "--control",
                &format!("https://{control}"),
                "--token",
                &enrolment.token,
                "--state",
                AGENT_STATE,
            ],
        )
        .map(drop)
    }

    /// Starts an edge's agent, for the first time or again, and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up, or was never enrolled.
    pub fn start_agent(&mut self, edge: &str) -> Result<(), LabError> {
        self.begin_agent(edge)?;
        self.agent(edge)?.await_ready(1)
    }

    /// Ends an edge as a cut of its power would, and begins it anew, with its agent.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart_edge(&mut self, edge: &str) -> Result<(), LabError> {
        self.lab.restart(edge)?;
        self.start_agent(edge)
    }

    fn begin_agent(&mut self, edge: &str) -> Result<(), LabError> {
        let host = self.lab.host(edge)?;
        let mut command = host.command(&format!("{PROGRAMS}/carnet"));
        command.args(["agent", "run", "--state", AGENT_STATE]);
        let name = format!("the agent of {edge}");
        let service = Service::start(&name, host, command, &self.logs.join(edge))?;
        self.agents.retain(|(of, _)| of != edge);
        self.agents.push((edge.to_owned(), service));
        Ok(())
    }

    /// Gives `grantee` the use of an edge: its owner makes a share key, and `grantee` enters it.
    ///
    /// # Errors
    /// Where one of them is refused.
    pub fn share(&self, edge: &EdgeSpec, grantee: &Account) -> Result<(), LabError> {
        let made: NewShareKey = self.account(&edge.owner)?.post(
            &format!("/v1/edges/{}/share-keys", edge.name),
            &CreateShareKey {
                grantee: grantee.name.clone(),
            },
        )?;
        let entered = RedeemShareKey { key: made.key };
        let _: ShareKey = grantee.post("/v1/share-keys/redeem", &entered)?;
        Ok(())
    }

    /// Waits until the monitor has found every edge healthy. Returns them.
    ///
    /// # Errors
    /// Where one is not in time; with what is wrong with each.
    pub fn await_healthy(&self, progress: &Progress) -> Result<Vec<Edge>, LabError> {
        let administrator = self.account(ADMINISTRATOR)?;
        let deadline = Instant::now() + HEALTHY_LIMIT;
        loop {
            progress.go_on()?;
            let edges: Vec<Edge> = administrator.get("/v1/edges")?;
            let unwell: Vec<String> = edges
                .iter()
                .filter(|edge| edge.health.state != HealthState::Healthy)
                .map(|edge| {
                    format!(
                        "\n  {}: {:?} {}",
                        edge.name,
                        edge.health.state,
                        edge.health.problems.join("; ")
                    )
                })
                .collect();
            if unwell.is_empty() {
                return Ok(edges);
            }
            if Instant::now() >= deadline {
                return Err(LabError::Other(format!(
                    "not every edge is healthy after {} s:{}",
                    HEALTHY_LIMIT.as_secs(),
                    unwell.concat()
                )));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// # Errors
    /// Where there is no such host.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        self.lab.host(name)
    }

    /// The control plane's program.
    ///
    /// # Errors
    /// Where it was never started.
    pub fn control(&mut self) -> Result<&mut Service, LabError> {
        self.control
            .as_mut()
            .ok_or_else(|| LabError::Other("the control plane was not started".to_owned()))
    }

    /// An edge's agent.
    ///
    /// # Errors
    /// Where it was never started.
    pub fn agent(&mut self, edge: &str) -> Result<&mut Service, LabError> {
        self.agents
            .iter_mut()
            .find(|(of, _)| of == edge)
            .map(|(_, agent)| agent)
            .ok_or_else(|| LabError::Other(format!("the agent of {edge} was not started")))
    }

    /// # Errors
    /// Where there is no such account.
    pub fn account(&self, name: &str) -> Result<&Account, LabError> {
        self.accounts
            .iter()
            .find(|account| account.name == name)
            .ok_or_else(|| LabError::Other(format!("there is no account `{name}`")))
    }

    /// In the order in which they were made.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Where the control plane is reached from this machine.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn url(&self) -> Result<String, LabError> {
        let address = self.socket.local_addr().map_err(on_loopback)?;
        Ok(format!("https://{address}"))
    }

    /// Where the lab's hosts reach the control plane.
    ///
    /// # Errors
    /// Where its host is not there.
    pub fn address_in_lab(&self) -> Result<SocketAddr, LabError> {
        Ok((self.lab.host(CONTROL)?.address, CONTROL_PORT).into())
    }

    /// The certificate of the control plane's authority, a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.data.join("authority.pem")
    }

    /// Where the control plane keeps its keys and its database.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The program `carnet`, on this machine.
    pub fn carnet(&self) -> PathBuf {
        self.programs.join("carnet")
    }

    /// A command of `carnet`, on this machine, as one of the accounts.
    ///
    /// # Errors
    /// Where there is no such account.
    pub fn command(&self, account: &str) -> Result<Command, LabError> {
        let mut command = Command::new(self.carnet());
        command
            .env("CARNET_URL", self.url()?)
            .env("CARNET_CA", self.authority())
            .env("CARNET_TOKEN_FILE", &self.account(account)?.token_file);
        Ok(command)
    }

    /// Where the logs of its programs are.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Leaves everything up; [`down`](crate::lab::down) ends it.
    ///
    /// # Errors
    /// Where that cannot be remembered; then it goes away.
    pub fn leave_up(mut self) -> Result<(), LabError> {
        self.lab.leave_up()?;
        self.stays = true;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // The control plane first: it would otherwise see its edges vanish.
        let mut services: Vec<&mut Service> = self
            .control
            .iter_mut()
            .chain(self.agents.iter_mut().map(|(_, agent)| agent))
            .collect();
        // Whoever has ended already need not be asked.
        services.retain_mut(|service| service.signal(Signal::SIGTERM).is_ok());
        let asked = Instant::now();
        for service in services {
            let left = END_LIMIT.saturating_sub(asked.elapsed().as_secs());
            if let Err(error) = service.await_end(left) {
                tell(&format!("{error}; it is killed"));
            }
        }
        // What is left ends with the lab.
    }
}

fn on_loopback(error: std::io::Error) -> LabError {
    LabError::Other(format!("cannot listen on the loopback: {error}"))
}

impl Account {
    /// Reads a resource. `path` starts with `/`.
    ///
    /// # Errors
    /// Where the control plane refuses, or does not answer in time.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LabError> {
        self.ask(format!("GET {path}"), self.client.get(path))
    }

    /// Creates a resource or carries out an action.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, LabError> {
        self.ask(format!("POST {path}"), self.client.post(path, body))
    }

    /// Replaces a resource.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, LabError> {
        self.ask(format!("PUT {path}"), self.client.put(path, body))
    }

    /// Ends a resource.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, LabError> {
        self.ask(format!("DELETE {path}"), self.client.delete(path))
    }

    fn ask<T>(
        &self,
        asked: String,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, LabError> {
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(ANSWER_LIMIT, answer).await });
        match answered {
            Ok(answer) => answer.map_err(|source| LabError::Api {
                asked: format!("{} asked {asked}", self.name),
                source: Box::new(source),
            }),
            Err(_) => Err(LabError::Late {
                what: format!("an answer to {} ({asked})", self.name),
                seconds: ANSWER_LIMIT.as_secs(),
            }),
        }
    }
}
