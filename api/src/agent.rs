//! The API that every agent serves, to the control plane and, for what goes from edge to edge,
//! to another agent. TLS 1.3 with both sides' certificates; JSON, but for the streams.
//!
//! ```text
//! GET  /v1/facts                            what the machine is
//! GET  /v1/reading                          utilization now, and what keeps it from taking a container
//! GET  /v1/containers                       what runs
//! GET  /v1/containers/{name}/claim          the claim code placed inside a container
//! PUT  /v1/signing-key                      the key that the control plane signs statements with
//! POST /v1/certificate/request              a request for the certificate that it is to have next
//! PUT  /v1/certificate                      the certificate that was requested
//! GET  /v1/refusals                         what was refused, and is not forgotten yet
//! POST /v1/refusals/forget                  the control plane has them up to a number
//! POST /v1/handovers/{id}/source/prepare    check; describe the container
//! POST /v1/handovers/{id}/target/prepare    check; make directories and network ready
//! POST /v1/handovers/{id}/source/copy-ahead send files, and memory if it can be, container running
//! POST /v1/handovers/{id}/source/hand-over  freeze, dump, send difference and memory; or stop it,
//!                                           and send the difference
//! POST /v1/handovers/{id}/target/restore    bring it to life (only after the commit)
//! POST /v1/handovers/{id}/target/settle     wait until no memory is missing any more, and files are on the disk
//! POST /v1/handovers/{id}/source/release    kill the frozen copy, remove it
//! POST /v1/handovers/{id}/target/clean      remove the memory images
//! POST /v1/handovers/{id}/source/resume     thaw: it runs on as it was; started again, if it was
//!                                           stopped for the move
//! POST /v1/handovers/{id}/target/discard    remove all that this hand-over brought
//! GET  /v1/handovers/{id}/sent              how much of it has left the source so far
//! PUT  /v1/handovers/{id}/rootfs            from the source's agent: a pass of the root file system
//! PUT  /v1/handovers/{id}/memory-ahead      from the source's agent: images of memory, container running
//! PUT  /v1/handovers/{id}/images            from the source's agent: the memory images
//! PUT  /v1/handovers/{id}/stand-by          from the source's agent: it is about to freeze
//! POST /v1/handovers/{id}/pages             from the source's agent: becomes, by HTTP's upgrade,
//!                                           the way that pages of memory come by
//! ```
//!
//! Every order is idempotent: asked again while it is under way it waits for the same outcome;
//! asked again later it finds its work done.
//!
//! # Statements
//!
//! An order is carried out only on a statement that the control plane has signed
//! ([`carnet_core::permit`]), whoever gives it:
//!
//! - a permit for `source/prepare`, `target/prepare`, `copy-ahead`, `hand-over`;
//! - a commit for `restore`, `settle`, `release`, `clean`;
//! - an abort for `resume`, `discard`.
//!
//! Before anything is read, frozen, sent, received, restored or removed, the agent checks
//!
//! - that the signing key is the control plane's, shown by a certificate of its authority; the
//!   key before it is good for one minute more;
//! - that the statement names this edge, with the certificate of this agent, in the part that the
//!   order is for, and is about the order's migration, container, edges and generation;
//! - that a permit has not expired, and no statement is from the future; at `copy-ahead`, at
//!   `hand-over` and at the beginning of each stream again;
//! - that the generation is not behind one that was seen of the container here, also after a
//!   restart;
//! - that a permit is used for one move: its hand-over has not ended here, and no other permit
//!   was accepted for it;
//! - that commit and abort are of the permit that was accepted here, where one was. A commit's
//!   generation is the permit's and one; an abort's is the permit's, or, after a commit was taken
//!   back, the permit's and two. While the control plane asks a target to give up what was
//!   committed to it, its abort has the commit's generation: good for `discard`, never for
//!   `resume`.
//!
//! The source sends to the holder of the certificate that the permit names as target's, and to
//! nobody else; the target takes streams only from the holder of the source's. A stream of a move
//! that no permit was shown for is refused by the check `permit`.
//!
//! What is refused is answered with 4xx, as `urn:carnet:problem:statement-refused` where it is for
//! the statement; the problem's one fault has the name of the check in `found`. It is written
//! down, as are the requests of those who are not the control plane, until the control plane has
//! fetched it.
//!
//! # Certificates
//!
//! An agent's certificate is renewed while it runs:
//!
//! - `certificate/request` makes a new key, which is kept on disk beside the one in use, and never
//!   leaves the edge. Asked again, also after a restart, the answer is the same, byte for byte,
//!   until a certificate for it has come.
//! - `certificate` is taken if it is the authority's, has this edge's name, and is for the
//!   requested key; it is refused otherwise. Certificate and key are put in place of those before
//!   them as one: whatever crashes, it is the old pair or the new. From the next handshake on the
//!   agent shows the new one, as server and as client; connections that are open stay. Told again,
//!   nothing changes.
//!
//! An error is a [`Problem`](crate::v1::Problem). With a status of 4xx it says that the order was
//! refused or failed; anything else, as no answer at all, leaves open what was done.
//!
//! Requests may arrive late, after the control plane has given them up. So that none does harm:
//!
//! - `resume` and `release` at the source, `clean` and `discard` at the target *end* the
//!   hand-over there, also where they are the first that the agent hears of it. The agent
//!   remembers that it ended, and how. The same order again is answered as done and touches
//!   nothing; every other order of that hand-over is refused.
//! - `restore` that is answered with 4xx has left nothing running that did not run before. Once the
//!   container has run at the target, `restore` on a good statement is answered as done, whatever
//!   has become of it since; on a bad one it is refused, as every order.
//! - `discard` is refused once the container has run at the target: it never removes a copy that
//!   may have answered clients. But where `settle` was answered with 4xx the container has been
//!   killed, because memory of it was lost on its way, and `discard` removes it. And where the
//!   container was taken back under a newer generation (the permit's and two), because an operator has
//!   declared this edge lost, `discard` ends and removes a copy that runs.
//! - Once the images are there, the target may make the container from them, all but letting it
//!   run: that takes `restore`.
//! - `hand-over` that failed may leave the container frozen, or stopped: `resume` follows.
//! - In a cold move ([`Strategy::Cold`]) `hand-over` writes down whether the container runs before
//!   it stops it. From then on nobody can start it at the source until `resume`, which starts it if
//!   it ran. Where it was made ready stopped and runs, or the other way round, `hand-over` is
//!   refused and touches nothing. `restore` starts it if it ran, and else makes it one that can be
//!   started there: from then on it counts as one that has run.

use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::migration::Strategy;
use carnet_core::permit::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::v1::{ContainerState, DetectedFacts};

/// An edge's own facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub edge: EdgeId,
    pub detected: DetectedFacts,
}

/// An edge's utilization.
///
/// It carries its age and no instant, so that the two machines' clocks need not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Absent where it could not be had; `problems` then says why.
    pub utilization: Option<Utilization>,
    /// What keeps the edge from taking part in a migration now; empty: it is ready.
    pub problems: Vec<String>,
    /// What keeps it from all but cold moves.
    #[serde(default)]
    pub live_problems: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilization {
    /// Hundredths of a percent, 0 to 10,000.
    pub cpu_hundredths: u16,
    /// Hundredths of a percent, 0 to 10,000.
    pub memory_hundredths: u16,
    /// How old the reading was when it was sent, in milliseconds.
    pub age_ms: u64,
}

/// A container as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    pub state: ContainerState,
}

/// What stands in `/run/carnet-claim` inside a container; `None` where there is no such file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedClaim {
    pub code: Option<String>,
}

/// Which move an order belongs to. The body of every POST but `target/prepare`,
/// `source/copy-ahead` and `source/hand-over`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub migration: MigrationId,
    /// The container's name in the runtime.
    pub container: String,
    /// The generation under which the order is given.
    pub generation: u64,
    pub source: EdgeId,
    pub target: EdgeId,
    /// Where the target's agent listens, `ip:port`.
    pub target_address: String,
    /// What the control plane has signed for it: a permit, a commit or an abort.
    pub statement: String,
}

/// The kind of the problem that says that an order's statement is refused.
pub const STATEMENT_REFUSED: &str = "urn:carnet:problem:statement-refused";

/// The body of `PUT /v1/signing-key`. Told again, nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The key's certificate, PEM.
    pub certificate: String,
}

/// The answer to `POST /v1/certificate/request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// PKCS #10, PEM.
    pub request: String,
}

/// The body of `PUT /v1/certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCertificate {
    /// PEM.
    pub certificate: String,
}

/// What an agent refused since the control plane last had it forget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// In the order of their numbers; at most [`MAX_REFUSALS`].
    pub refusals: Vec<Refused>,
    /// How many have come since the agent enrolled when there was no more room, and were not kept.
    /// Never less than before: it is not forgotten.
    pub dropped: u64,
}

/// How many refusals an agent keeps.
pub const MAX_REFUSALS: usize = 1_000;

/// One thing that an agent refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// From 1; higher than that of every one before it.
    pub number: u64,
    /// Which check failed, by its name; `peer` where it was for who asked.
    pub check: String,
    /// What was asked for: an order's name, or a request.
    pub asked: String,
    pub migration: Option<MigrationId>,
    /// The certificate of whoever asked.
    pub peer: Option<Fingerprint>,
    /// By the edge's clock.
    pub refused_at_ms: UnixMillis,
}

/// The body of `POST /v1/refusals/forget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRefusals {
    /// The number of the last that need not be kept.
    pub through: u64,
}

/// The body of `target/prepare`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrepareTarget {
    pub order: Order,
    /// What `source/prepare` described.
    pub container: Described,
}

/// A container as its source describes it to the target, through the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The runtime's own description; only another agent reads it.
    pub description: serde_json::Value,
    pub memory_bytes: u64,
    pub rootfs_bytes: u64,
    /// What keeps its memory from following after it runs, as far as the source knows.
    pub post_copy_problems: Vec<String>,
    /// What keeps its memory from going ahead, as far as the source knows.
    pub pre_copy_problems: Vec<String>,
    /// It does not run.
    #[serde(default)]
    pub is_stopped: bool,
    /// What keeps it from being moved while it runs, as far as the source knows.
    #[serde(default)]
    pub live_problems: Vec<String>,
}

/// The outcome of `target/prepare`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// What keeps memory from following after the container runs, as far as the target knows.
    pub post_copy_problems: Vec<String>,
    /// What keeps memory from going ahead, as far as the target knows.
    pub pre_copy_problems: Vec<String>,
    /// What keeps the container from being moved while it runs, as far as the target knows.
    #[serde(default)]
    pub live_problems: Vec<String>,
}

/// The body of `source/copy-ahead`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyAhead {
    pub order: Order,
    /// Whether memory goes ahead too.
    pub strategy: Strategy,
    /// How much of the link it may take, in bytes a second; absent: all of it.
    pub bandwidth_bytes_per_s: Option<u64>,
}

/// The body of `source/hand-over`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    pub order: Order,
    pub strategy: Strategy,
    /// As in [`CopyAhead`]; pages that follow are limited as well.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// How long after the freeze everything must have been sent, in milliseconds; else it fails.
    pub within_ms: Option<u64>,
}

/// The body of `stand-by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandBy {
    pub strategy: Strategy,
    /// It does not run at the source, and is not to be started at the target.
    #[serde(default)]
    pub is_stopped: bool,
}

/// A step of a move, and when it was, in milliseconds after an instant that the holder names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedStep {
    pub step: String,
    pub began_ms: f64,
    pub ended_ms: f64,
}

/// The outcome of `source/copy-ahead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedAhead {
    /// As sent, compressed where that helped.
    pub bytes: u64,
    pub passes: u32,
    /// The rate at which they went, in bytes a second, where they were enough to tell.
    pub bytes_per_s: Option<u64>,
    /// Of memory, where it went ahead.
    pub memory: Option<MemoryAhead>,
}

/// Memory that went ahead while the container ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryAhead {
    /// As sent, compressed where that helped.
    pub bytes: u64,
    pub rounds: u32,
    /// What the last round found written to since the one before: what is likely to be left.
    pub last_round_bytes: u64,
}

/// How much has left the source in a hand-over, as sent; 0 where this agent knows of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSoFar {
    pub bytes: u64,
}

/// The outcome of `source/hand-over`. The container is frozen, or stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandedOver {
    pub rootfs_difference_bytes: u64,
    pub image_bytes: u64,
    /// How long it had been frozen when the answer was sent.
    pub frozen_ms: f64,
    /// What that time went into, counted from the freeze.
    pub steps: Vec<TimedStep>,
}

/// The step of [`Restored`] that begins when the order comes.
pub const MAKING_SURE: &str = "making sure of its processes";

/// The outcome of `target/restore`. The container runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// How long it had run when the answer was sent.
    pub running_ms: f64,
    /// What happened here, counted back from the instant at which it ran: all but the last step
    /// began before 0.
    pub steps: Vec<TimedStep>,
}

/// The outcome of orders that have nothing else to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
