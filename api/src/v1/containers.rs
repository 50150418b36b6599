use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::written_policy;

/// What moves, as its owner registered it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    #[schema(value_type = String, format = "uuid")]
    pub id: ContainerId,
    /// Also its name in LXC.
    pub name: String,
    #[schema(value_type = String, format = "uuid")]
    pub owner: AccountId,
    /// The edge it is on.
    #[schema(value_type = String, format = "uuid")]
    pub edge: EdgeId,
    pub edge_name: String,
    /// Its owner's requirements by their long names (paper, Table 1).
    #[schema(value_type = Object)]
    pub requirements: serde_json::Value,
    /// Raised at each change of the requirements.
    pub requirements_revision: u64,
    /// Its owner accepts that memory follows after it runs at a target: see [`Strategy`](super::Strategy).
    pub allow_post_copy: bool,
    /// Raised at each commit of a move.
    pub generation: u64,
    pub registration: ContainerRegistration,
    pub state: ContainerState,
    /// Since when the monitor has seen it in this state.
    #[schema(value_type = i64)]
    pub state_since_at_ms: UnixMillis,
    /// The migration under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub migration: Option<MigrationId>,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
}

/// Whether it has been shown that the container is its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRegistration {
    /// Not yet: the owner has to place the claim code inside it, or the edge's owner to confirm.
    Pending,
    /// Yes. Nobody else can claim it.
    Confirmed,
}

/// Whether it runs, as the monitor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Not looked at yet, or its edge does not answer.
    Unknown,
    Running,
    Frozen,
    Stopped,
    /// Its edge says that it has no such container.
    Missing,
}

/// Registers a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterContainer {
    /// Its name in LXC; unique among the owner's. Letters, digits, `.`, `_` and `-`, at most 63.
    pub name: String,
    /// The name or id of the edge it runs on.
    pub edge: String,
    /// Requirements by their long names, or one compact row of the paper's Table 5 as a string.
    #[schema(schema_with = written_policy)]
    pub requirements: serde_json::Value,
    /// As in [`Container`].
    #[serde(default)]
    pub allow_post_copy: bool,
}

/// Says what a container's owner accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowPostCopy {
    /// As in [`Container`].
    pub allow_post_copy: bool,
}

/// Replaces a container's requirements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequirements {
    /// As in [`RegisterContainer`].
    #[schema(schema_with = written_policy)]
    pub requirements: serde_json::Value,
}

/// The one-time code that proves control of a container. Shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// To be written into the file `path` inside the container. Absent from a repeated answer.
    #[schema(required = false)]
    pub code: String,
    /// `/run/carnet-claim`
    pub path: String,
    #[schema(value_type = i64)]
    pub expires_at_ms: UnixMillis,
}
