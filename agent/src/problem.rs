//! Problems as agents answer them: `application/problem+json`, read by the control plane and
//! shown to people.

use std::fmt::Display;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carnet_api::agent::STATEMENT_REFUSED;
use carnet_api::v1::{InputFault, Problem};

/// The content type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
const NOT_ENTITLED: &str = "urn:carnet:problem:not-entitled";

fn problem(name: &str, title: &str, status: StatusCode, detail: String) -> Problem {
    Problem {
        kind: format!("urn:carnet:problem:{name}"),
        title: title.to_owned(),
        status: status.as_u16(),
        detail: Some(detail),
        faults: Vec::new(),
    }
}

/// The edge cannot do what it was asked, and says why.
pub fn cannot(detail: impl Display) -> Problem {
    problem(
        "edge-cannot",
        "the edge cannot do this",
        StatusCode::CONFLICT,
        detail.to_string(),
    )
}

/// The caller's certificate does not entitle it to this.
pub fn not_yours(detail: impl Display) -> Problem {
    Problem {
        kind: NOT_ENTITLED.to_owned(),
        title: "this certificate does not entitle to this".to_owned(),
        status: StatusCode::FORBIDDEN.as_u16(),
        detail: Some(detail.to_string()),
        faults: Vec::new(),
    }
}

/// What the control plane signed does not entitle to this; `check` is the check that failed.
pub fn statement_refused(check: &str, fault: impl Display) -> Problem {
    Problem {
        kind: STATEMENT_REFUSED.to_owned(),
        title: "the statement does not entitle to this".to_owned(),
        status: StatusCode::FORBIDDEN.as_u16(),
        detail: Some(format!("the statement is refused ({check}): {fault}")),
        faults: vec![InputFault {
            place: "statement".to_owned(),
            found: check.to_owned(),
            problem: fault.to_string(),
            allowed: "what the control plane has signed for this order".to_owned(),
            suggestion: None,
        }],
    }
}

/// The name of the check by which something was refused to whoever asked; `None` where a problem
/// is of another kind.
pub fn failed_check(problem: &Problem) -> Option<&str> {
    match problem.kind.as_str() {
        STATEMENT_REFUSED => problem.faults.first().map(|fault| fault.found.as_str()),
        NOT_ENTITLED => Some("peer"),
        _ => None,
    }
}

/// There is nothing under that name.
pub fn not_found(detail: impl Display) -> Problem {
    problem(
        "not-found",
        "not found",
        StatusCode::NOT_FOUND,
        detail.to_string(),
    )
}

/// The request is none that an agent takes; `status` says in which way.
pub fn not_understood(status: StatusCode, detail: impl Display) -> Problem {
    problem(
        "not-understood",
        "an agent takes no such request",
        status,
        detail.to_string(),
    )
}

/// A fault of the agent itself. Agents answer only to the control plane and to each other, so
/// the detail goes along.
pub fn internal(error: &dyn Display) -> Problem {
    problem(
        "internal",
        "the agent is at fault",
        StatusCode::INTERNAL_SERVER_ERROR,
        error.to_string(),
    )
}

/// A [`Problem`] as an answer.
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(self.0)).into_response()
    }
}
