use carnet_core::ids::EdgeId;
use carnet_core::instant::UnixMillis;
use carnet_core::policy;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::UtilizationReading;

/// Where a container is to go (paper, section 3.2: the three ways to name a destination).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DestinationSpec {
    /// The name or id of one edge.
    Edge(String),
    /// One of our regions: its edges are drawn at random until one is permitted.
    Region(String),
    /// The same over all edges that the owner may use: `{"anywhere": true}`.
    Anywhere(bool),
}

/// Asks for a verdict; nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAudit {
    /// The name or id of a container.
    pub container: String,
    pub to: DestinationSpec,
}

/// The verdict over every candidate of a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditReport {
    pub container: String,
    pub to: DestinationSpec,
    /// In the order of drawing.
    pub attempts: Vec<Attempt>,
}

/// One candidate, audited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    #[schema(value_type = String, format = "uuid")]
    pub edge: EdgeId,
    pub edge_name: String,
    pub attributes_revision: u64,
    /// The reading that was audited; absent where none could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<UtilizationReading>,
    #[serde(flatten)]
    pub outcome: AttemptOutcome,
    #[schema(value_type = i64)]
    pub audited_at_ms: UnixMillis,
    /// Comparing requirements with attributes and utilization.
    pub compare_micros: f64,
    /// Reading the utilization from the edge's agent.
    pub reading_micros: f64,
}

/// What came of one candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The policy permits it, and the edge is ready.
    Permitted,
    /// The policy denies it.
    Denied { reasons: Vec<Reason> },
    /// The policy permits it, but the edge cannot take a container now.
    NotReady { problems: Vec<String> },
}

/// Why an edge is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// The requirement's name: `allowed_locations`, …
    pub element: String,
    /// The paper's name: `cDAl`, …
    pub paper_name: String,
    pub required: String,
    pub found: String,
    /// What would satisfy it.
    pub satisfied_by: String,
}

impl From<&policy::Reason> for Reason {
    fn from(reason: &policy::Reason) -> Self {
        Self {
            element: reason.element.name().to_owned(),
            paper_name: reason.element.paper_name().to_owned(),
            required: reason.required.clone(),
            found: reason.found.clone(),
            satisfied_by: reason.satisfied_by.clone(),
        }
    }
}
