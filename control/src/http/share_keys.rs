use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use carnet_api::v1::{CreateShareKey, NewShareKey, Problem, RedeemShareKey, Role, ShareKey};
use carnet_core::ids::ShareKeyId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::access::Caller;
use super::edges::{owned, visible};
use super::problem::{ApiError, Input, Named};
use crate::secret::Secret;
use crate::store::ShareKeyRecord;
use crate::{clock, secret};

/// The paper's share key has 40 hexadecimal digits.
const KEY_BYTES: usize = 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_of_edge, create))
        .routes(routes!(list))
        .routes(routes!(revoke))
        .routes(routes!(redeem))
}

/// The keys of an edge, for its owner and for who sees everything.
pub(crate) async fn of_edge(
    app: &App,
    caller: &Caller,
    edge: &str,
) -> Result<Vec<ShareKey>, ApiError> {
    let edge = if caller.sees_everything() {
        visible(app, caller, edge).await?
    } else {
        owned(app, caller, edge).await?
    };
    let keys = app.store.share_keys().await?;
    Ok(keys
        .into_iter()
        .map(|record| record.key)
        .filter(|key| key.edge == edge.id)
        .collect())
}

/// The keys that the caller gave, and those that the caller holds.
pub(crate) async fn all_visible(app: &App, caller: &Caller) -> Result<Vec<ShareKey>, ApiError> {
    let keys = app.store.share_keys().await?;
    Ok(keys
        .into_iter()
        .filter(|record| may_see(caller, record))
        .map(|record| record.key)
        .collect())
}

/// Gives the use of an edge of the caller's.
pub(crate) async fn give(
    app: &App,
    caller: &Caller,
    edge: &str,
    asked: &CreateShareKey,
) -> Result<NewShareKey, ApiError> {
    let edge = owned(app, caller, edge).await?;
    let grantee = app
        .store
        .account(&asked.grantee)
        .await?
        .filter(|account| account.roles.contains(&Role::ContainerOwner))
        .ok_or_else(|| {
            ApiError::fault(
                "grantee",
                &asked.grantee,
                "no container owner has this name",
                "the name of a container owner's account",
            )
        })?;
    let id = ShareKeyId::from_uuid(Uuid::now_v7());
    let key = Secret::new("", KEY_BYTES);
    let made = app
        .store
        .create_share_key(id, edge.id, grantee.id, &key.hash(), clock::now())
        .await;
    match made {
        Err(error) if error.is_duplicate() => Err(ApiError::conflict(format!(
            "`{}` has a key of `{}` already; revoke it to give another",
            grantee.name, edge.name
        ))),
        done => {
            done?;
            Ok(NewShareKey {
                share_key: find(app, id).await?.key,
                key: key.reveal(),
            })
        }
    }
}

/// Takes a key of an edge of the caller's back.
pub(crate) async fn take_back(app: &App, caller: &Caller, id: &str) -> Result<ShareKey, ApiError> {
    let missing = || ApiError::not_found("share key", id);
    let key: ShareKeyId = id.parse().map_err(|_| missing())?;
    let record = app.store.share_key(key).await?;
    record
        .filter(|record| record.owner == caller.account)
        .ok_or_else(missing)?;
    app.store
        .revoke_share_key(key, caller.account, clock::now())
        .await?;
    Ok(find(app, key).await?.key)
}

/// Enters a key that was given to the caller.
pub(crate) async fn enter(app: &App, caller: &Caller, key: &str) -> Result<ShareKey, ApiError> {
    let hash = secret::hash(key.trim());
    let id = app
        .store
        .redeem_share_key(&hash, caller.account, clock::now())
        .await?
        // What was typed may be another's key: it is not repeated.
        .ok_or_else(|| ApiError::not_found("share key", "(the one entered)"))?;
    Ok(find(app, id).await?.key)
}

/// Who holds a key of an edge: for its owner.
#[utoipa::path(
    get, path = "/v1/edges/{edge}/share-keys", tag = "share keys",
    operation_id = "list_share_keys_of_edge",
    params(("edge" = String, Path, description = "Its name or id.")),
    responses((status = 200, body = Vec<ShareKey>), (status = 404, body = Problem))
)]
async fn list_of_edge(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Vec<ShareKey>>, ApiError> {
    Ok(Json(of_edge(&app, &caller, &name).await?))
}

/// The keys that the caller gave, and those that the caller holds.
#[utoipa::path(
    get, path = "/v1/share-keys", tag = "share keys", operation_id = "list_share_keys",
    responses((status = 200, body = Vec<ShareKey>))
)]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<ShareKey>>, ApiError> {
    Ok(Json(all_visible(&app, &caller).await?))
}

/// A key that was given and not entered yet is not its grantee's to see: its edge is not either.
fn may_see(caller: &Caller, record: &ShareKeyRecord) -> bool {
    caller.sees_everything()
        || (caller.is(Role::EdgeOwner) && record.owner == caller.account)
        || (caller.is(Role::ContainerOwner)
            && record.grantee == caller.account
            && record.key.redeemed_at_ms.is_some())
}

/// Gives a container owner the use of an edge. The key is shown this once.
#[utoipa::path(
    post, path = "/v1/edges/{edge}/share-keys", tag = "share keys",
    operation_id = "create_share_key",
    params(("edge" = String, Path, description = "Its name or id.")),
    request_body = CreateShareKey,
    responses(
        (status = 201, body = NewShareKey),
        (status = 404, body = Problem),
        (status = 409, description = "The grantee has a key already.", body = Problem),
    )
)]
async fn create(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
    Input(asked): Input<CreateShareKey>,
) -> Result<(StatusCode, Json<NewShareKey>), ApiError> {
    let key = give(&app, &caller, &name, &asked).await?;
    Ok((StatusCode::CREATED, Json(key)))
}

async fn find(app: &App, id: ShareKeyId) -> Result<ShareKeyRecord, ApiError> {
    app.store
        .share_key(id)
        .await?
        .ok_or_else(|| ApiError::not_found("share key", &id.to_string()))
}

/// Takes a key back. Moves to the edge that have not been committed are stopped.
#[utoipa::path(
    delete, path = "/v1/share-keys/{key}", tag = "share keys", operation_id = "revoke_share_key",
    params(("key" = String, Path, description = "Its id.")),
    responses((status = 200, body = ShareKey), (status = 404, body = Problem))
)]
async fn revoke(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
) -> Result<Json<ShareKey>, ApiError> {
    Ok(Json(take_back(&app, &caller, &id).await?))
}

/// Enters a key: from then on the caller sees and uses its edge.
#[utoipa::path(
    post, path = "/v1/share-keys/redeem", tag = "share keys", operation_id = "redeem_share_key",
    request_body = RedeemShareKey,
    responses(
        (status = 200, body = ShareKey),
        (status = 404, description = "Unknown, revoked, or another's.", body = Problem),
    )
)]
async fn redeem(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<RedeemShareKey>,
) -> Result<Json<ShareKey>, ApiError> {
    Ok(Json(enter(&app, &caller, &asked.key).await?))
}
