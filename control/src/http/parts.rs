use axum::Json;
use axum::extract::State;
use carnet_api::v1::{CertificateExpiry, CertificateOf, Parts};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::ApiError;
use super::{App, ledger};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(parts))
}

/// How the parts are.
pub(crate) async fn all(app: &App) -> Result<Parts, ApiError> {
    let known = app.store.parts().await?;
    let own = |of, expires_at_ms| CertificateExpiry {
        of,
        edge_name: None,
        expires_at_ms,
    };
    let control = app.authority.control_expires_at();
    let mut certificates: Vec<CertificateExpiry> = control
        .map(|expires_at| own(CertificateOf::ControlPlane, expires_at))
        .into_iter()
        .collect();
    let permit_key = app.permit_key.current().expires_at;
    certificates.push(own(CertificateOf::PermitKey, permit_key));
    let of_edges = known.expiring.into_iter();
    certificates.extend(of_edges.map(|(name, expires_at_ms)| CertificateExpiry {
        of: CertificateOf::Edge,
        edge_name: Some(name),
        expires_at_ms,
    }));
    Ok(Parts {
        store: known.store,
        monitor: known.monitor,
        agents: known.agents,
        migrations: known.migrations,
        witnesses: ledger::standing(app),
        certificates,
    })
}

/// How the parts of Carnet are: the database, the monitor, the agents, the witnesses, and when
/// certificates expire.
#[utoipa::path(
    get, path = "/v1/parts", tag = "parts", operation_id = "show_parts",
    responses((status = 200, body = Parts))
)]
async fn parts(State(app): State<App>) -> Result<Json<Parts>, ApiError> {
    Ok(Json(all(&app).await?))
}
