use axum::Json;
use axum::extract::State;
use carnet_api::v1::{Keys, PermitKey, Problem, SigningKey};
use carnet_core::permit::key_id;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::problem::ApiError;
use crate::keys::{KeyError, Purpose};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(history))
        .routes(routes!(rotate))
}

fn keys(app: &App) -> Keys {
    let current = app.permit_key.current();
    let public = current.signer.public();
    Keys {
        ledger: app.verifier_key.to_string(),
        permit: PermitKey {
            kid: key_id(&public).to_string(),
            public: hex::encode(public.as_bytes()),
            certificate: current.certificate.clone(),
        },
    }
}

/// The public keys with which the control plane's statements and its ledger are verified.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", operation_id = "show_keys", security(()),
    responses((status = 200, body = Keys))
)]
async fn show(State(app): State<App>) -> Json<Keys> {
    Json(keys(&app))
}

/// Replaces the key with which permits are signed. Moves under way go on; edges take statements
/// of the key before it for one minute more.
#[utoipa::path(
    post, path = "/v1/keys/permit/rotate", tag = "keys", operation_id = "rotate_permit_key",
    responses(
        (status = 200, body = Keys),
        (status = 409, description = "The key is not the control plane's to replace.", body = Problem),
    )
)]
async fn rotate(State(app): State<App>) -> Result<Json<Keys>, ApiError> {
    replace_permit_key(&app).await?;
    Ok(Json(keys(&app)))
}

/// Replaces the key with which permits are signed.
pub(crate) async fn replace_permit_key(app: &App) -> Result<(), ApiError> {
    let current = app.permit_key.rotate().map_err(|error| match error {
        KeyError::NotOurs(_) => ApiError::conflict(error.to_string()),
        other => ApiError::internal(&other),
    })?;
    // A crash before this line: the next start enters it.
    app.store
        .enter_key(Purpose::Permit.name(), current.signer.public().as_bytes())
        .await?;
    // Agents are told.
    app.look_now.notify_one();
    Ok(())
}

/// Every key that the control plane has signed with, the newest first.
pub(crate) async fn all(app: &App) -> Result<Vec<SigningKey>, ApiError> {
    Ok(app.store.signing_keys().await?)
}

/// Every key that statements and the ledger were signed with, the newest first; from the ledger.
#[utoipa::path(
    get, path = "/v1/keys/history", tag = "keys", operation_id = "list_signing_keys",
    responses((status = 200, body = Vec<SigningKey>))
)]
async fn history(State(app): State<App>) -> Result<Json<Vec<SigningKey>>, ApiError> {
    Ok(Json(all(&app).await?))
}
