//! The API's description (OpenAPI 3.1), made from the handlers themselves.

use axum::Json;
use carnet_api::v1::Problem;
use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Carnet",
        description = "Lets a container move between edge servers only where its data may go.\n\n\
            Instants are milliseconds since the Unix epoch. Errors are `application/problem+json`. \
            A POST that creates something may carry an `Idempotency-Key`: repeated within 24 hours \
            with the same body it is answered as the first time, with the header \
            `idempotency-replayed: true`, and does nothing; secrets are shown once only and are \
            absent from such an answer."
    ),
    components(schemas(Problem)),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct Frame;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
    }
}

/// The description's frame, without routes.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The whole description.
pub fn document() -> utoipa::openapi::OpenApi {
    super::routes().to_openapi()
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(openapi_document))
}

/// That the control plane answers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Alive {
    /// Carnet's version.
    pub version: String,
}

/// Says that the control plane answers.
#[utoipa::path(
    get, path = "/v1/health", tag = "api", security(()),
    responses((status = 200, description = "It does.", body = Alive))
)]
async fn health() -> Json<Alive> {
    Json(Alive {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "api", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
async fn openapi_document() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
