use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use carnet_api::tls::Identity;
use carnet_api::v1::{EnrolEdge, Enrolment, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::problem::{ApiError, Input};
use crate::authority::expires_at;
use crate::{clock, secret};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(enrol))
}

/// Gives an agent its certificate, for a one-time token. Who has no token has no other way in.
#[utoipa::path(
    post, path = "/v1/enrolments", tag = "edges", operation_id = "enrol_edge", security(()),
    request_body = EnrolEdge,
    responses(
        (status = 201, body = Enrolment),
        (status = 401, description = "The token is unknown, used, or has expired.", body = Problem),
    )
)]
async fn enrol(
    State(app): State<App>,
    Input(asked): Input<EnrolEdge>,
) -> Result<(StatusCode, Json<Enrolment>), ApiError> {
    let refused = || {
        ApiError::unauthenticated(
            "the enrolment token is unknown, used, or has expired; make another: carnet edge enrol-token EDGE",
        )
    };
    // `carnet-enrol.SECRET.FINGERPRINT`; the fingerprint is for the agent.
    let hash = asked
        .token
        .split('.')
        .nth(1)
        .map(secret::hash)
        .ok_or_else(refused)?;
    let now = clock::now();
    let edge = app
        .store
        .enrolling_edge(&hash, now)
        .await?
        .ok_or_else(refused)?;
    let certificate = app
        .authority
        .edge(edge, &asked.certificate_request, now)
        .map_err(|error| {
            ApiError::fault(
                "certificate_request",
                "",
                &error.to_string(),
                "a PKCS #10 request, PEM",
            )
        })?;
    // The token is used up only now: a request that was no good may be mended. A crash after
    // this line: the owner makes another token.
    let fingerprint =
        Identity::fingerprint_of(&certificate).map_err(|error| ApiError::internal(&error))?;
    if !app
        .store
        .enrol(&hash, &asked.detected, fingerprint, expires_at(now), now)
        .await?
    {
        return Err(refused());
    }
    let record = app
        .store
        .edge(&edge.to_string())
        .await?
        .ok_or_else(refused)?;
    Ok((
        StatusCode::CREATED,
        Json(Enrolment {
            edge,
            name: record.name,
            certificate,
            authority: app.authority.certificate().to_owned(),
            signing_key: app.permit_key.current().certificate.clone(),
            address: record.address,
        }),
    ))
}
