use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use carnet_api::v1::{
    Account, CreateAccount, CreateApiToken, NewApiToken, NewPassword, Problem, Role,
};
use carnet_core::ids::AccountId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Caller;
use super::listing::Listing;
use super::problem::{ApiError, Input, Named};
use super::{App, tokens};
use crate::names::check_name;
use crate::secret::Secret;
use crate::store::listing::Listed;
use crate::store::{NewAccount, StoreError};
use crate::{clock, passwords};

/// Random bytes in a password that an administrator gives.
const PASSWORD_BYTES: usize = 16;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(create_token))
        .routes(routes!(reset_password))
        .routes(routes!(whoami))
}

/// Accounts, as far as they are wanted.
pub(crate) async fn listed(app: &App, listing: &Listing) -> Result<Listed<Account>, ApiError> {
    Ok(app.store.accounts(&listing.search()?).await?)
}

/// Every account, by name.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", operation_id = "list_accounts",
    params(Listing),
    responses((status = 200, body = Vec<Account>), (status = 400, body = Problem),
              (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Vec<Account>>, ApiError> {
    let Query(listing) = listing?;
    Ok(Json(listed(&app, &listing).await?.items))
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
    let account = add(&app, &caller, asked).await?;
    Ok((StatusCode::CREATED, Json(account)))
}

/// Makes an account, without a password.
pub(crate) async fn add(
    app: &App,
    caller: &Caller,
    asked: CreateAccount,
) -> Result<Account, ApiError> {
    let new = checked(asked)?;
    let made = app.store.create_account(&new, caller.account).await;
    made_of(new, made)
}

/// Makes an account for whoever asks for it, with a password.
pub(crate) async fn register(
    app: &App,
    asked: CreateAccount,
    password: String,
) -> Result<Account, ApiError> {
    let mut faults = Vec::new();
    if let Err(error) = passwords::check("password", &asked.name, &password) {
        faults.extend(error.0.faults);
    }
    // Everything that is wrong is told at once.
    let new = match checked(asked) {
        Ok(new) if faults.is_empty() => new,
        Ok(_) => return Err(ApiError::faults(faults)),
        Err(mut error) => {
            error.0.faults.extend(faults);
            return Err(ApiError::faults(error.0.faults));
        }
    };
    let gives_itself = [Role::EdgeOwner, Role::ContainerOwner];
    if !new.roles.iter().all(|role| gives_itself.contains(role)) {
        return Err(ApiError::forbidden(
            "an administrator makes accounts with other roles than these",
        ));
    }
    let hash = passwords::hash(password).await?;
    let made = app.store.register_account(&new, &hash).await;
    made_of(new, made)
}

fn checked(asked: CreateAccount) -> Result<NewAccount, ApiError> {
    let mut faults = Vec::new();
    if let Err(error) = check_name("name", &asked.name) {
        faults.extend(error.0.faults);
    }
    if asked.roles.is_empty() {
        let none = ApiError::fault("roles", "", "no role", "at least one role");
        faults.extend(none.0.faults);
    }
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let mut roles = asked.roles;
    roles.sort_unstable();
    roles.dedup();
    Ok(NewAccount {
        id: AccountId::from_uuid(Uuid::now_v7()),
        name: asked.name,
        roles,
        created_at: clock::now(),
    })
}

fn made_of(new: NewAccount, made: Result<(), StoreError>) -> Result<Account, ApiError> {
    match made {
        Err(error) if error.is_duplicate() => Err(ApiError::conflict(format!(
            "there is an account `{}` already",
            new.name
        ))),
        done => {
            done?;
            Ok(Account {
                id: new.id,
                name: new.name,
                roles: new.roles,
                created_at_ms: new.created_at,
            })
        }
    }
}

/// Gives an account a new password, with which whoever is told it logs in to the pages, and sets
/// another there. The one before is good no more, and its browser sessions have ended.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/password", tag = "accounts",
    operation_id = "reset_password",
    params(("account" = String, Path, description = "Its name or id.")),
    responses(
        (status = 201, body = NewPassword),
        (status = 404, body = Problem),
    )
)]
async fn reset_password(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<(StatusCode, Json<NewPassword>), ApiError> {
    let given = give_password(&app, &caller, &name).await?;
    Ok((StatusCode::CREATED, Json(given)))
}

/// Gives an account a new password, in the place of the one before.
pub(crate) async fn give_password(
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<NewPassword, ApiError> {
    let account = app
        .store
        .account(name)
        .await?
        .ok_or_else(|| ApiError::not_found("account", name))?;
    let secret = Secret::new("", PASSWORD_BYTES).reveal();
    let hash = passwords::hash(secret.clone()).await?;
    app.store
        .set_password(account.id, &hash, caller.account, None, clock::now())
        .await?;
    Ok(NewPassword {
        account: account.name,
        secret,
    })
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
