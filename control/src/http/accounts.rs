use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use carnet_api::v1::{Account, CreateAccount, CreateApiToken, NewApiToken, Problem};
use carnet_core::ids::AccountId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Caller;
use super::problem::{ApiError, Input, Named};
use super::{App, tokens};
use crate::clock;
use crate::names::check_name;
use crate::store::NewAccount;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(create_token))
        .routes(routes!(whoami))
}

/// Every account.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", operation_id = "list_accounts",
    responses((status = 200, body = Vec<Account>))
)]
async fn list(State(app): State<App>) -> Result<Json<Vec<Account>>, ApiError> {
    Ok(Json(app.store.accounts().await?))
}

/// Makes an account.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", operation_id = "create_account",
    request_body = CreateAccount,
    responses(
        (status = 201, body = Account),
        (status = 409, description = "The name is taken.", body = Problem),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<CreateAccount>,
) -> Result<(StatusCode, Json<Account>), ApiError> {
    check_name("name", &asked.name)?;
    if asked.roles.is_empty() {
        return Err(ApiError::fault("roles", "", "no role", "at least one role"));
    }
    let mut roles = asked.roles;
    roles.sort_unstable();
    roles.dedup();
    let new = NewAccount {
        id: AccountId::from_uuid(Uuid::now_v7()),
        name: asked.name,
        roles,
        created_at: clock::now(),
    };
    match app.store.create_account(&new, caller.account).await {
        Err(error) if error.is_duplicate() => Err(ApiError::conflict(format!(
            "there is an account `{}` already",
            new.name
        ))),
        done => {
            done?;
            Ok((
                StatusCode::CREATED,
                Json(Account {
                    id: new.id,
                    name: new.name,
                    roles: new.roles,
                    created_at_ms: new.created_at,
                }),
            ))
        }
    }
}

/// Makes a token for an account.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/tokens", tag = "accounts",
    operation_id = "create_account_token",
    params(("account" = String, Path, description = "Its name or id.")),
    request_body = CreateApiToken,
    responses(
        (status = 201, body = NewApiToken),
        (status = 404, body = Problem),
    )
)]
async fn create_token(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
    Input(asked): Input<CreateApiToken>,
) -> Result<(StatusCode, Json<NewApiToken>), ApiError> {
    let account = app
        .store
        .account(&name)
        .await?
        .ok_or_else(|| ApiError::not_found("account", &name))?;
    let token = tokens::make(
        &app,
        caller.account,
        account.id,
        &account.roles,
        None,
        asked,
    )
    .await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// The account that the token is of.
#[utoipa::path(
    get, path = "/v1/whoami", tag = "accounts",
    responses((status = 200, description = "With the token's roles.", body = Account))
)]
async fn whoami(State(app): State<App>, caller: Caller) -> Result<Json<Account>, ApiError> {
    let account = app
        .store
        .account(&caller.account.to_string())
        .await?
        .ok_or_else(|| ApiError::not_found("account", &caller.name))?;
    Ok(Json(Account {
        roles: caller.roles,
        ..account
    }))
}
