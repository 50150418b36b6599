use axum::Json;
use axum::extract::State;
use carnet_api::v1::{AuditReport, CreateAudit, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::containers;
use super::problem::{ApiError, Input};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(audit))
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
    let container = containers::owned(&app, &caller, &asked.container).await?;
    let attempts = app
        .migrations
        .dry_run(container.id, &asked.to, caller.account)
        .await?;
    Ok(Json(AuditReport {
        container: container.name,
        to: asked.to,
        attempts,
    }))
}
