use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use carnet_api::v1::{ApiToken, CreateApiToken, NewApiToken, Problem, Role};
use carnet_core::ids::{AccountId, TokenId};
use carnet_core::instant::UnixMillis;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Caller;
use super::problem::{ApiError, Input, Named};
use super::{App, access};
use crate::clock;
use crate::secret::Secret;
use crate::store::NewToken;

/// Random bytes in a token.
const SECRET_BYTES: usize = 32;
/// The longest label, in characters.
const MAX_LABEL: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// Makes a token for `account`, with some of the roles `held`, good until `until` at the most.
pub(super) async fn make(
    app: &App,
    by: AccountId,
    account: AccountId,
    held: &[Role],
    until: Option<UnixMillis>,
    asked: CreateApiToken,
) -> Result<NewApiToken, ApiError> {
    if asked.label.chars().count() > MAX_LABEL {
        return Err(ApiError::fault(
            "label",
            &asked.label,
            "too long",
            "at most 200 characters",
        ));
    }
    let mut roles = asked.roles.unwrap_or_else(|| held.to_vec());
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() || !roles.iter().all(|role| held.contains(role)) {
        return Err(ApiError::fault(
            "roles",
            &access::names(&roles),
            "not a part of what may be given",
            &format!("one or more of {}", access::names(held)),
        ));
    }
    let now = clock::now();
    let asked_until = asked.valid_for_seconds.map(|seconds| {
        let ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        UnixMillis(now.0.saturating_add(ms))
    });
    let secret = Secret::new("carnet_", SECRET_BYTES);
    let new = NewToken {
        id: TokenId::from_uuid(Uuid::now_v7()),
        account,
        label: asked.label,
        roles,
        secret_hash: secret.hash(),
        created_at: now,
        expires_at: asked_until.into_iter().chain(until).min(),
    };
    app.store.create_token(&new, by).await?;
    Ok(NewApiToken {
        token: ApiToken {
            id: new.id,
            label: new.label,
            roles: new.roles,
            created_at_ms: new.created_at,
            expires_at_ms: new.expires_at,
        },
        secret: secret.reveal(),
    })
}

/// The caller's tokens.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "accounts", operation_id = "list_tokens",
    responses((status = 200, body = Vec<ApiToken>))
)]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<ApiToken>>, ApiError> {
    Ok(Json(app.store.tokens(caller.account).await?))
}

/// Makes a token for the caller, with the roles of the token that is shown, or fewer. It is good
/// for no longer than the token that is shown.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "accounts", operation_id = "create_token",
    request_body = CreateApiToken,
    responses((status = 201, body = NewApiToken))
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<CreateApiToken>,
) -> Result<(StatusCode, Json<NewApiToken>), ApiError> {
    let token = make(
        &app,
        caller.account,
        caller.account,
        &caller.roles,
        caller.token_expires_at,
        asked,
    )
    .await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// Ends one of the caller's tokens, at once.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", tag = "accounts", operation_id = "revoke_token",
    params(("token" = String, Path, description = "Its id.")),
    responses((status = 200, description = "It is good for nothing any more.", body = Object),
              (status = 404, body = Problem))
)]
async fn revoke(
    State(app): State<App>,
    Named(token): Named,
    caller: Caller,
) -> Result<Json<serde_json::Value>, ApiError> {
    let revoked = match token.parse::<TokenId>() {
        Ok(id) => app.store.delete_token(caller.account, id).await?,
        Err(_) => false,
    };
    if revoked {
        Ok(Json(serde_json::json!({})))
    } else {
        Err(ApiError::not_found("token", &token))
    }
}
