//! The agents on the edges, as the control plane talks to them.

mod http;

use std::time::{Duration, Instant};

use carnet_api::agent::{
    Container, CopiedAhead, CopyAhead, Described, Facts, HandOver, HandedOver, Order, PlacedClaim,
    PrepareTarget, Prepared, Reading, Refusals, Restored, SentSoFar,
};
use carnet_api::v1::Problem;
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::permit::Fingerprint;
use carnet_core::policy::Utilization;
use futures_util::future::BoxFuture;
use thiserror::Error;

pub use http::HttpAgents;

/// Where an edge's agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub edge: EdgeId,
    /// The edge's name, for messages.
    pub name: String,
    /// `ip:port`
    pub address: String,
    /// The certificate that its agent has; whoever shows another is not asked anything. Absent
    /// where none is known: then its name is all that counts.
    pub certificate: Option<Fingerprint>,
    /// The one that the agent is being given, and may show as well.
    pub pending: Option<Fingerprint>,
}

impl Endpoint {
    /// The certificates that its agent may show; none: any that has its name.
    fn accepted(&self) -> Vec<Fingerprint> {
        let pending = self.certificate.and(self.pending);
        self.certificate.into_iter().chain(pending).collect()
    }
}

/// An order that has nothing to tell but that it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Target: wait until no memory is missing any more.
    Settle,
    /// Source: kill the frozen copy and remove it.
    Release,
    /// Target: remove the memory images.
    Clean,
    /// Source: thaw; it runs on as it was.
    Resume,
    /// Target: remove all that this hand-over brought.
    Discard,
}

/// What agents are asked. [`carnet_api::agent`] says what each promises.
pub trait Agents: Send + Sync + 'static {
    /// What the machine is.
    fn facts<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Facts>;
    /// Utilization now, and what keeps the edge from taking a container.
    fn reading<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Reading>;
    /// What runs there.
    fn containers<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Vec<Container>>;
    /// The claim code placed inside `container`.
    fn claim<'a>(&'a self, edge: &'a Endpoint, container: &'a str) -> Asked<'a, PlacedClaim>;
    /// Tells it the key that statements are signed with, by its certificate (PEM).
    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()>;
    /// Which of its certificates the agent shows on a new connection.
    fn shown_certificate<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Fingerprint>;
    /// The request (PKCS #10, PEM) for the certificate that it is to have next.
    fn certificate_request<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, String>;
    /// Gives it the certificate (PEM) that it has requested.
    fn give_certificate<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()>;
    /// What it has refused and not been told to forget.
    fn refusals<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Refusals>;
    /// Has it forget refusals up to and with the number `through`.
    fn forget_refusals<'a>(&'a self, edge: &'a Endpoint, through: u64) -> Asked<'a, ()>;
    /// How much has left it in a hand-over.
    fn sent<'a>(&'a self, edge: &'a Endpoint, migration: MigrationId) -> Asked<'a, SentSoFar>;
    fn prepare_source<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Described>;
    fn prepare_target<'a>(
        &'a self,
        edge: &'a Endpoint,
        order: &'a PrepareTarget,
    ) -> Asked<'a, Prepared>;
    fn copy_ahead<'a>(&'a self, edge: &'a Endpoint, order: &'a CopyAhead)
    -> Asked<'a, CopiedAhead>;
    fn hand_over<'a>(&'a self, edge: &'a Endpoint, order: &'a HandOver) -> Asked<'a, HandedOver>;
    /// Target: bring the container to life. Only after the commit.
    fn restore<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Restored>;
    fn command<'a>(
        &'a self,
        edge: &'a Endpoint,
        command: Command,
        order: &'a Order,
    ) -> Asked<'a, ()>;
}

/// An answer that is being waited for.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, AgentError>>;

/// An agent that was asked in vain.
#[derive(Debug, Clone, Error)]
#[error("asked edge `{edge}` ({address}) to {asked}: {fault}")]
pub struct AgentError {
    pub edge: String,
    pub address: String,
    /// What it was asked to do, in words.
    pub asked: &'static str,
    pub fault: AgentFault,
}

/// Why asking was in vain.
#[derive(Debug, Clone, Error)]
pub enum AgentFault {
    /// It answered that it does not, or cannot.
    #[error("{}", .0.detail.as_deref().unwrap_or(&.0.title))]
    Refused(Problem),
    /// It answered that it is at fault itself, or something answered that is no agent.
    #[error("it answered {status}: {start}")]
    Unwell { status: u16, start: String },
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// Nothing came within the time.
    #[error("no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
}

impl AgentError {
    /// Whether the agent has said that it did not do what it was asked. Otherwise what was done
    /// is not known.
    pub fn is_refusal(&self) -> bool {
        matches!(self.fault, AgentFault::Refused(_))
    }
}

/// A reading, placed in the control plane's own time.
#[derive(Debug, Clone, Default)]
pub struct FreshReading {
    /// Absent where the agent could not take one.
    pub utilization: Option<Utilization>,
    /// What keeps the edge from taking a container now.
    pub problems: Vec<String>,
    /// What keeps it from taking one but by a cold move.
    pub live_problems: Vec<String>,
}

impl FreshReading {
    /// All that is wrong with the edge.
    pub fn all_problems(&self) -> Vec<String> {
        [self.problems.clone(), self.live_problems.clone()].concat()
    }
}

/// Reads an edge's utilization, and how long that took.
///
/// `now` is read before the request goes out: the reading is at most as old as `read_at` says,
/// whatever the request and the answer took, and the edge's own clock does not matter.
pub async fn read(
    agents: &dyn Agents,
    edge: &Endpoint,
    now: impl Fn() -> UnixMillis,
) -> (Result<FreshReading, AgentError>, Duration) {
    let sent_at = now();
    let started = Instant::now();
    let answer = agents.reading(edge).await;
    let took = started.elapsed();
    (answer.map(|reading| placed(reading, sent_at)), took)
}

fn placed(reading: Reading, sent_at: UnixMillis) -> FreshReading {
    let mut problems = reading.problems;
    let utilization = reading.utilization.and_then(|wire| {
        let age_ms = i64::try_from(wire.age_ms).unwrap_or(i64::MAX);
        let read_at = UnixMillis(sent_at.0.saturating_sub(age_ms));
        match Utilization::new(wire.cpu_hundredths, wire.memory_hundredths, read_at) {
            Some(utilization) => Some(utilization),
            None => {
                problems.push(format!(
                    "its reading is out of range: {} and {} hundredths of a percent",
                    wire.cpu_hundredths, wire.memory_hundredths
                ));
                None
            }
        }
    });
    FreshReading {
        utilization,
        problems,
        live_problems: reading.live_problems,
    }
}
