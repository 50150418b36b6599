use carnet_core::instant::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Witness;

/// How the parts of Carnet are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Parts {
    pub store: StorePart,
    pub monitor: MonitorPart,
    pub agents: AgentsPart,
    pub migrations: MigrationsPart,
    /// Who cosigns the ledger; empty where nobody is named to it.
    pub witnesses: Vec<Witness>,
    /// When certificates expire that renew themselves: the control plane's, and of the edges' the
    /// 20 that expire first.
    pub certificates: Vec<CertificateExpiry>,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorePart {
    pub bytes: u64,
    /// How many entries the ledger in it has.
    pub ledger_entries: u64,
}

/// What looks at every edge and every container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MonitorPart {
    /// When it last did; absent where it never has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub looked_at_ms: Option<UnixMillis>,
    /// How long that took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// The agents on the edges, as the monitor saw them last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentsPart {
    pub healthy: u64,
    pub degraded: u64,
    pub unreachable: u64,
    /// Enrolled, and not looked at yet.
    pub unknown: u64,
    pub not_enrolled: u64,
}

/// Migrations that have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrationsPart {
    pub under_way: u64,
    /// Of those, the ones that cannot go on without an operator.
    pub need_operator: u64,
}

/// When a certificate expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateExpiry {
    pub of: CertificateOf,
    /// The edge's name, where it is an edge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_name: Option<String>,
    #[schema(value_type = i64)]
    pub expires_at_ms: UnixMillis,
}

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateOf {
    /// The control plane's own, for its connections.
    ControlPlane,
    /// That of the key with which permits are signed.
    PermitKey,
    /// An edge's agent's.
    Edge,
}
