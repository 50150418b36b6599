use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use carnet_api::v1::{Attempt, AttemptOutcome, AuditReport, CreateAudit, Problem};
use carnet_core::ids::AccountId;
use carnet_core::policy::{self, Attributes, Requirements, Utilization, Verdict};
use futures_util::{StreamExt, stream};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::containers;
use super::problem::{ApiError, Input};
use crate::agents::read;
use crate::clock;
use crate::migrate::admit::{told, wire_reading};
use crate::server::MAX_READING_AGE_MS;

/// How many edges are asked at a time.
const AT_A_TIME: usize = 16;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(audit))
}

/// Audits every candidate of a destination for a container of the caller's.
pub(crate) async fn dry_run(
    app: &App,
    caller: &Caller,
    asked: CreateAudit,
) -> Result<AuditReport, ApiError> {
    let container = containers::owned(app, caller, &asked.container).await?;
    let attempts = app
        .migrations
        .dry_run(container.id, &asked.to, caller.account)
        .await?;
    Ok(AuditReport {
        container: container.name,
        to: asked.to,
        attempts,
    })
}

/// Holds requirements, which may be saved or not, against every edge that their owner may use,
/// with its utilization as it is now. Nothing was decided, and nothing is entered.
pub(crate) async fn preview(
    app: &App,
    owner: AccountId,
    requirements: &Requirements,
) -> Result<Vec<(Attributes, Attempt)>, ApiError> {
    let edges = app.store.usable_edges(owner).await?;
    let attempts = edges.iter().map(async |edge| {
        let (utilization, problems, took) = if edge.enrolled {
            let (reading, took) = read(app.agents.as_ref(), &edge.endpoint, clock::now).await;
            match reading {
                Ok(reading) => (reading.utilization, reading.all_problems(), took),
                Err(error) => (None, vec![error.to_string()], took),
            }
        } else {
            let problem = format!("`{}` has not been enrolled", edge.endpoint.name);
            (None, vec![problem], Duration::ZERO)
        };
        let now = clock::now();
        let began = Instant::now();
        let verdict = policy::audit(
            requirements,
            &edge.attributes,
            utilization.as_ref(),
            now,
            MAX_READING_AGE_MS,
        );
        let attempt = Attempt {
            edge: edge.endpoint.edge,
            edge_name: edge.endpoint.name.clone(),
            attributes_revision: edge.attributes_revision,
            utilization: utilization.as_ref().map(wire_reading),
            audited_at_ms: now,
            compare_micros: began.elapsed().as_secs_f64() * 1e6,
            reading_micros: took.as_secs_f64() * 1e6,
            outcome: match verdict {
                Verdict::Deny(reasons) => AttemptOutcome::Denied {
                    reasons: reasons
                        .iter()
                        .map(|reason| told(reason, utilization.is_none(), &problems))
                        .collect(),
                },
                Verdict::Permit if !problems.is_empty() => AttemptOutcome::NotReady { problems },
                Verdict::Permit => AttemptOutcome::Permitted,
            },
        };
        (edge.attributes.clone(), attempt)
    });
    let attempts: Vec<_> = attempts.collect();
    Ok(stream::iter(attempts).buffered(AT_A_TIME).collect().await)
}

/// Whether the audit had a reading that counts.
pub(crate) fn had_fresh_reading(attempt: &Attempt) -> bool {
    let read_at = attempt
        .utilization
        .as_ref()
        .map(|reading| reading.read_at_ms);
    read_at
        .and_then(|read_at| Utilization::new(0, 0, read_at))
        .is_some_and(|reading| reading.is_fresh(attempt.audited_at_ms, MAX_READING_AGE_MS))
}

/// Audits every candidate of a destination, with its utilization as it is now. Nothing is moved;
/// the ledger keeps what was decided, marked as a dry run.
#[utoipa::path(
    post, path = "/v1/audits", tag = "migrations", operation_id = "audit",
    request_body = CreateAudit,
    responses(
        (status = 200, body = AuditReport),
        (status = 404, description = "No such container of the caller's.", body = Problem),
        (status = 409, description = "There is no edge to go to.", body = Problem),
        (status = 422, description = "No such edge or region that the caller may use.", body = Problem),
    )
)]
async fn audit(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<CreateAudit>,
) -> Result<Json<AuditReport>, ApiError> {
    Ok(Json(dry_run(&app, &caller, asked).await?))
}
