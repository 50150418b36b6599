use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:carnet:problem:NAME`, one NAME per kind of error; stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of error in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time, where, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Every fault of the input, where the input was at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<InputFault>,
}

/// One thing wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputFault {
    /// Where: a field's name, or line and column.
    pub place: String,
    /// What stood there.
    pub found: String,
    /// What is wrong with it.
    pub problem: String,
    /// What may stand there.
    pub allowed: String,
    /// The nearest thing that would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}
