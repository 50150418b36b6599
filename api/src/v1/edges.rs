use carnet_core::ids::{AccountId, EdgeId, ShareKeyId};
use carnet_core::instant::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::written_policy;

/// A server at the edge that runs containers (paper: edge server), as its owner describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    #[schema(value_type = String, format = "uuid")]
    pub id: EdgeId,
    pub name: String,
    /// The owner's account; absent for those who hold only a share key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub owner: Option<AccountId>,
    /// Where its agent listens, `ip:port`.
    pub address: String,
    /// The edge's attributes by their long names (paper, Table 2).
    #[schema(value_type = Object)]
    pub attributes: serde_json::Value,
    /// Raised at each change of the attributes.
    pub attributes_revision: u64,
    /// Its agent has a certificate.
    pub enrolled: bool,
    pub health: Health,
    /// The last reading that the monitor or an audit took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<UtilizationReading>,
    /// Containers registered with Carnet that run there now.
    pub active_containers: u64,
    /// What the agent found on the machine; absent until it has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected: Option<DetectedFacts>,
    /// Where the declared attributes contradict what the agent found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradictions: Vec<Contradiction>,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
}

/// Whether an edge or a container is alive, as the monitor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub state: HealthState,
    /// Since when it has been in this state.
    #[schema(value_type = i64)]
    pub since_at_ms: UnixMillis,
    /// What is wrong, where something is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Not looked at yet.
    Unknown,
    /// It answers and can take part in a migration.
    Healthy,
    /// It answers, but something it needs is missing; `problems` says what.
    Degraded,
    /// It does not answer.
    Unreachable,
}

/// An edge's CPU and memory use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UtilizationReading {
    /// 0 to 100.
    pub cpu_percent: f64,
    /// 0 to 100.
    pub memory_percent: f64,
    #[schema(value_type = i64)]
    pub read_at_ms: UnixMillis,
}

/// What an agent found on its machine. What it could not find out is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DetectedFacts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Virtualization tools installed, by the names that policies use: `lxc`, …
    #[serde(default)]
    pub virtualization: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_mhz: Option<u32>,
    /// Decimal megabytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Whether a device that speeds up AI work was seen; absent where it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ai_support: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criu_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lxc_version: Option<String>,
}

/// A declared attribute that the agent's findings contradict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contradiction {
    /// The attribute's name.
    pub attribute: String,
    pub declared: String,
    pub detected: String,
}

/// Registers an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterEdge {
    /// Unique; letters, digits, `.`, `_` and `-`, at most 63.
    pub name: String,
    /// Where its agent will listen, `ip:port`.
    pub address: String,
    /// Attributes by their long names, or one compact row of the paper's Table 6 as a string.
    #[schema(schema_with = written_policy)]
    pub attributes: serde_json::Value,
}

/// Replaces an edge's attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAttributes {
    /// As in [`RegisterEdge`].
    #[schema(schema_with = written_policy)]
    pub attributes: serde_json::Value,
}

/// A one-time token with which an edge's agent enrols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    /// Shown this once, and absent from a repeated answer. It carries the fingerprint of the
    /// control plane's CA, so that the agent knows whom it talks to.
    #[schema(required = false)]
    pub token: String,
    #[schema(value_type = i64)]
    pub expires_at_ms: UnixMillis,
}

/// An agent asks for its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolEdge {
    pub token: String,
    /// A PKCS #10 request, PEM, signed with the key that the agent made and keeps.
    pub certificate_request: String,
    pub detected: DetectedFacts,
}

/// An agent's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enrolment {
    #[schema(value_type = String, format = "uuid")]
    pub edge: EdgeId,
    pub name: String,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub authority: String,
    /// The certificate of the key with which the control plane signs permits, PEM.
    pub signing_key: String,
    /// Where the owner said that the agent listens, `ip:port`.
    pub address: String,
}

/// The capability to see and use an edge, given to one container owner. Without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareKey {
    #[schema(value_type = String, format = "uuid")]
    pub id: ShareKeyId,
    #[schema(value_type = String, format = "uuid")]
    pub edge: EdgeId,
    pub edge_name: String,
    /// The name of the account that may use it.
    pub grantee: String,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
    /// When the grantee entered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub redeemed_at_ms: Option<UnixMillis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub revoked_at_ms: Option<UnixMillis>,
}

/// Gives a container owner the use of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateShareKey {
    /// The name of a container owner's account.
    pub grantee: String,
}

/// A new share key. The key is shown this once; only a hash of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewShareKey {
    #[serde(flatten)]
    pub share_key: ShareKey,
    /// 40 hexadecimal digits, to be handed to the grantee. Absent from a repeated answer.
    #[schema(required = false)]
    pub key: String,
}

/// A container owner enters a share key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedeemShareKey {
    pub key: String,
}
