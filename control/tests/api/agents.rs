//! Edges whose agents answer what a test says, and when.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Mutex;
use std::time::Duration;

use carnet_api::agent::{
    Container, CopiedAhead, CopyAhead, Described, Facts, HandOver, HandedOver, Order, PlacedClaim,
    PrepareTarget, Prepared, Reading, Refusals, Restored, SentSoFar, Utilization,
};
use carnet_api::v1::{ContainerState, DetectedFacts};
use carnet_control::agents::{AgentError, AgentFault, Agents, Asked, Command, Endpoint};
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::permit::Fingerprint;
use tokio::sync::watch;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The agents of all edges. An edge of which nothing was said is idle, ready and empty.
#[derive(Default)]
pub struct FakeAgents {
    edges: Mutex<HashMap<EdgeId, FakeEdge>>,
    /// Passed by whoever reads a claim code.
    pub claims: Gate,
    /// Passed by every move before anything is done.
    pub moves: Gate,
}

#[derive(Clone)]
pub struct FakeEdge {
    /// CPU and memory use in hundredths of a percent, if they can be read.
    pub used: Option<(u16, u16)>,
    pub age_ms: u64,
    pub problems: Vec<String>,
    pub reachable: bool,
    pub containers: Vec<Container>,
    /// What stands in each container's claim file.
    pub claims: HashMap<String, String>,
}

impl Default for FakeEdge {
    fn default() -> Self {
        Self {
            used: Some((500, 1_000)),
            age_ms: 0,
            problems: Vec::new(),
            reachable: true,
            containers: Vec::new(),
            claims: HashMap::new(),
        }
    }
}

impl FakeAgents {
    /// From now on `edge` is as `change` makes it.
    pub fn change(&self, edge: EdgeId, change: impl FnOnce(&mut FakeEdge)) {
        change(self.edges.lock().unwrap().entry(edge).or_default());
    }

    pub fn run(&self, edge: EdgeId, name: &str, state: ContainerState) {
        self.change(edge, |edge| {
            edge.containers.push(Container {
                name: name.to_owned(),
                state,
            });
        });
    }

    /// Somebody writes `code` into the container's claim file.
    pub fn place(&self, edge: EdgeId, container: &str, code: &str) {
        self.change(edge, |edge| {
            edge.claims.insert(container.to_owned(), code.to_owned());
        });
    }

    fn ask<'a, T: Send + 'a>(
        &self,
        edge: &Endpoint,
        asked: &'static str,
        answer: impl FnOnce(&FakeEdge) -> T,
    ) -> Asked<'a, T> {
        let mut edges = self.edges.lock().unwrap();
        let fake = edges.entry(edge.edge).or_default();
        let answered = if fake.reachable {
            Ok(answer(fake))
        } else {
            Err(AgentError {
                edge: edge.name.clone(),
                address: edge.address.clone(),
                asked,
                fault: AgentFault::Unreachable("connection refused".to_owned()),
            })
        };
        Box::pin(ready(answered))
    }
}

impl Agents for FakeAgents {
    fn facts<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Facts> {
        self.ask(edge, "describe its machine", |_| Facts {
            edge: edge.edge,
            detected: DetectedFacts::default(),
        })
    }

    fn reading<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Reading> {
        self.ask(edge, "read its utilization", |fake| Reading {
            utilization: fake.used.map(|(cpu, memory)| Utilization {
                cpu_hundredths: cpu,
                memory_hundredths: memory,
                age_ms: fake.age_ms,
            }),
            problems: fake.problems.clone(),
            live_problems: Vec::new(),
        })
    }

    fn containers<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Vec<Container>> {
        self.ask(edge, "list its containers", |fake| fake.containers.clone())
    }

    fn claim<'a>(&'a self, edge: &'a Endpoint, container: &'a str) -> Asked<'a, PlacedClaim> {
        Box::pin(async move {
            self.claims.pass().await;
            self.ask(edge, "read a claim code", |fake| PlacedClaim {
                code: fake.claims.get(container).cloned(),
            })
            .await
        })
    }

    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, _: &'a str) -> Asked<'a, ()> {
        self.ask(edge, "take the signing key", |_| ())
    }

    fn shown_certificate<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Fingerprint> {
        let shown = edge.certificate;
        self.ask(edge, "show its certificate", move |_| shown.unwrap())
    }

    fn certificate_request<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, String> {
        self.ask(edge, "request its next certificate", |_| String::new())
    }

    fn give_certificate<'a>(&'a self, edge: &'a Endpoint, _: &'a str) -> Asked<'a, ()> {
        self.ask(edge, "take its next certificate", |_| ())
    }

    fn refusals<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Refusals> {
        self.ask(edge, "tell what it has refused", |_| Refusals::default())
    }

    fn forget_refusals<'a>(&'a self, edge: &'a Endpoint, _: u64) -> Asked<'a, ()> {
        self.ask(edge, "forget refusals", |_| ())
    }

    fn sent<'a>(&'a self, edge: &'a Endpoint, _: MigrationId) -> Asked<'a, SentSoFar> {
        self.ask(edge, "tell how much it has sent", |_| SentSoFar {
            bytes: 1 << 20,
        })
    }

    fn prepare_source<'a>(&'a self, edge: &'a Endpoint, _: &'a Order) -> Asked<'a, Described> {
        Box::pin(async move {
            self.moves.pass().await;
            self.ask(edge, "make ready to send the container", |_| Described {
                description: serde_json::json!({}),
                memory_bytes: 1 << 20,
                rootfs_bytes: 1 << 24,
                post_copy_problems: Vec::new(),
                pre_copy_problems: Vec::new(),
                is_stopped: false,
                live_problems: Vec::new(),
            })
            .await
        })
    }

    fn prepare_target<'a>(
        &'a self,
        edge: &'a Endpoint,
        _: &'a PrepareTarget,
    ) -> Asked<'a, Prepared> {
        self.ask(edge, "make ready to take the container", |_| {
            Prepared::default()
        })
    }

    fn copy_ahead<'a>(&'a self, edge: &'a Endpoint, _: &'a CopyAhead) -> Asked<'a, CopiedAhead> {
        self.ask(edge, "send the root file system", |_| CopiedAhead {
            bytes: 1 << 24,
            passes: 2,
            bytes_per_s: None,
            memory: None,
        })
    }

    fn hand_over<'a>(&'a self, edge: &'a Endpoint, _: &'a HandOver) -> Asked<'a, HandedOver> {
        self.ask(edge, "freeze the container", |_| HandedOver {
            rootfs_difference_bytes: 1 << 12,
            image_bytes: 1 << 20,
            frozen_ms: 80.5,
            steps: Vec::new(),
        })
    }

    fn restore<'a>(&'a self, edge: &'a Endpoint, _: &'a Order) -> Asked<'a, Restored> {
        self.ask(edge, "bring the container to life", |_| Restored::default())
    }

    fn command<'a>(&'a self, edge: &'a Endpoint, _: Command, _: &'a Order) -> Asked<'a, ()> {
        self.ask(edge, "carry out an order", |_| ())
    }
}

/// Where whoever passes can be held up.
pub struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(true),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Gate {
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` wait here.
    pub async fn until_waiting(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        tokio::time::timeout(PATIENCE, waiting.wait_for(|waiting| *waiting == count))
            .await
            .expect("so many would come here")
            .unwrap();
    }

    async fn pass(&self) {
        struct Waiting<'a>(&'a Gate);

        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.send_modify(|waiting| *waiting -= 1);
            }
        }

        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(self);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}
