use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::migration as core;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Attempt, DestinationSpec};

/// Asks for a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMigration {
    /// The name or id of a container.
    pub container: String,
    pub to: DestinationSpec,
    /// How its memory goes over; absent: the best that its owner allows and the edges can, or `cold`
    /// where it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// For how long it may stand still, in milliseconds. Where it would take longer, as far as can be
    /// told by the memory that it has and the rate at which its files went over, it is not frozen;
    /// where it does, and the move is not committed yet, it runs on at its source. The move fails.
    /// Not with `cold`: nobody can tell how long a container takes to shut down and to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_downtime_ms: Option<u64>,
    /// How much of the link the move may take, in bytes a second; at least 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100000)]
    pub bandwidth_bytes_per_s: Option<u64>,
}

/// The least bandwidth that a move can be asked to be carried out with, in bytes a second.
pub const LEAST_BANDWIDTH_BYTES_PER_S: u64 = 100_000;

/// How a container's memory goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All of it while the container stands still. Up to the end the source can go on.
    StopAndCopy,
    /// After the container runs at the target, as it asks for it. It stands still for a moment
    /// only, whatever its memory. Until all is over it needs both edges: if it loses one, it goes
    /// on at the source as it was when it was frozen, and what it did since is lost.
    PostCopy,
    /// Ahead, while the container runs at the source, and while it stands still what it has written
    /// to since. Up to the end the source can go on. Needs a kernel that tells what is written to.
    PreCopy,
    /// Not at all: the container is shut down, and started anew at the target. What it has in memory
    /// and its connections are lost. Up to the commit the source can start it again. A container that
    /// is stopped moves in this way, and stays stopped; one that runs does only where it is asked for.
    Cold,
}

impl From<Strategy> for core::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::StopAndCopy => Self::StopAndCopy,
            Strategy::PostCopy => Self::PostCopy,
            Strategy::PreCopy => Self::PreCopy,
            Strategy::Cold => Self::Cold,
        }
    }
}

impl From<core::Strategy> for Strategy {
    fn from(strategy: core::Strategy) -> Self {
        match strategy {
            core::Strategy::StopAndCopy => Self::StopAndCopy,
            core::Strategy::PostCopy => Self::PostCopy,
            core::Strategy::PreCopy => Self::PreCopy,
            core::Strategy::Cold => Self::Cold,
        }
    }
}

/// The strategy of a move, and why it is the one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChosenStrategy {
    pub strategy: Strategy,
    /// In words.
    pub reason: String,
}

/// A step of what was done while the container stood still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StallStep {
    /// In words.
    pub step: String,
    /// `source`, `target`, or `control`: the control plane, and the network between.
    pub place: StallPlace,
    /// In milliseconds after the freeze began.
    pub began_ms: f64,
    pub ended_ms: f64,
}

/// Where a step was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StallPlace {
    Source,
    Control,
    Target,
}

/// One move of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Migration {
    #[schema(value_type = String, format = "uuid")]
    pub id: MigrationId,
    #[schema(value_type = String, format = "uuid")]
    pub container: ContainerId,
    pub container_name: String,
    pub to: DestinationSpec,
    pub state: MigrationState,
    #[schema(value_type = String, format = "uuid")]
    pub source: EdgeId,
    pub source_name: String,
    /// The edge that was permitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub target: Option<EdgeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
    /// Every candidate audited, in the order of drawing.
    pub attempts: Vec<Attempt>,
    /// Why it failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What is being waited for, where an edge does not do what it is asked and is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Present where it cannot go on by itself: nothing that was asked has been done for a long time.
    /// It is asked again all the while; where that succeeds, this goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_operator: Option<NeedsOperator>,
    /// How its memory goes over; known once both edges have made ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ChosenStrategy>,
    /// For how long whoever asked for it accepts that the container stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime_ms: Option<u64>,
    /// How much of the link it may take, in bytes a second, where that was limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bytes_per_s: Option<u64>,
    /// For how long the container was expected to stand still, before it was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_downtime_ms: Option<u64>,
    /// What is on its way now, where that takes long enough to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
    pub timings: Vec<PhaseTiming>,
    pub transferred: Transferred,
    /// From the freeze at the source until the container ran at the target, as the three measured
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<f64>,
    /// What that time went into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stall_steps: Vec<StallStep>,
    /// When it was asked to be cancelled: it will not be committed, and the container goes on at
    /// its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub cancel_asked_at_ms: Option<UnixMillis>,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub ended_at_ms: Option<UnixMillis>,
}

/// What an operator has to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeedsOperator {
    /// Since when nothing has been done.
    #[schema(value_type = i64)]
    pub since_ms: UnixMillis,
    /// The outcomes that there are.
    pub ways: Vec<Way>,
}

/// One outcome of a migration that cannot go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Way {
    /// When it is the right one, and what it leads to.
    pub when: String,
    /// What to type.
    pub command: String,
}

/// Declares an edge of a migration lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveUp {
    pub lost: LostEdge,
}

/// Which edge of a migration is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LostEdge {
    Source,
    Target,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    Admitting,
    Preparing,
    CopyingAhead,
    HandingOver,
    Committing,
    Restoring,
    Settling,
    Releasing,
    WithdrawingTarget,
    TakingBack,
    ResumingSource,
    DiscardingTarget,
    Completed,
    Denied,
    Failed,
    Cancelled,
}

impl MigrationState {
    /// Nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Denied | Self::Failed | Self::Cancelled
        )
    }
}

/// How long a state lasted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PhaseTiming {
    pub state: MigrationState,
    #[schema(value_type = i64)]
    pub started_at_ms: UnixMillis,
    /// Absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
}

/// What has left the source of a move that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sending {
    /// Files and memory so far, as sent.
    pub bytes: u64,
    /// The rate at which they went last.
    pub bytes_per_s: u64,
}

/// Bytes that went from source to target, as sent (compressed where that helped).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transferred {
    /// Root file system, while the container ran.
    pub rootfs_ahead_bytes: u64,
    /// Memory, while the container ran.
    #[serde(default)]
    pub memory_ahead_bytes: u64,
    /// What changed of it, while the container was frozen.
    pub rootfs_difference_bytes: u64,
    /// Memory images, while the container was frozen.
    pub image_bytes: u64,
}

impl Transferred {
    /// All of it.
    pub fn sum(&self) -> u64 {
        self.rootfs_ahead_bytes
            + self.memory_ahead_bytes
            + self.rootfs_difference_bytes
            + self.image_bytes
    }
}
