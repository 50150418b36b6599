use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use carnet_api::v1::{
    AllowPostCopy, Claim, Container, ContainerRegistration, Problem, RegisterContainer, Role,
    UpdateRequirements,
};
use carnet_core::ids::ContainerId;
use carnet_core::instant::UnixMillis;
use carnet_core::policy::{
    Faults, Requirements, requirements_from_compact, requirements_from_json,
};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::access::Caller;
use super::edges::usable;
use super::listing::Listing;
use super::problem::{ApiError, Input, Named};
use crate::names::check_name;
use crate::secret::Secret;
use crate::store::listing::{Listed, Whose};
use crate::store::{ContainerRecord, NewContainer};
use crate::{clock, secret};

/// How long a claim code is good for.
const CLAIM_MS: i64 = 15 * 60 * 1000;
/// Random bytes in it.
const CLAIM_BYTES: usize = 16;
/// Where it is placed inside the container.
const CLAIM_PATH: &str = "/run/carnet-claim";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, register))
        .routes(routes!(show, forget))
        .routes(routes!(require))
        .routes(routes!(allow_post_copy))
        .routes(routes!(claim))
        .routes(routes!(confirm_claim))
        .routes(routes!(confirm))
}

/// Requirements as somebody wrote them: an object with long names, or a compact row.
fn read_requirements(written: &Value) -> Result<Requirements, Faults> {
    match written {
        Value::String(row) => requirements_from_compact(row),
        other => requirements_from_json(other),
    }
}

fn may_see(caller: &Caller, record: &ContainerRecord) -> bool {
    caller.sees_everything()
        || (caller.is(Role::ContainerOwner) && record.container.owner == caller.account)
        || (caller.is(Role::EdgeOwner) && record.edge_owner == caller.account)
}

/// The one container of that name or id that `filter` lets through.
async fn find(
    app: &App,
    name_or_id: &str,
    filter: impl Fn(&ContainerRecord) -> bool,
) -> Result<ContainerRecord, ApiError> {
    let mut found = app.store.containers_named(name_or_id).await?;
    found.retain(filter);
    let first = found.pop();
    match (first, found.is_empty()) {
        (Some(record), true) => Ok(record),
        (Some(_), false) => Err(ApiError::conflict(format!(
            "there are several containers `{name_or_id}`; name one by its id"
        ))),
        (None, _) => Err(ApiError::not_found("container", name_or_id)),
    }
}

/// The caller's own container; others' answer as if they were not there.
pub(crate) async fn owned(
    app: &App,
    caller: &Caller,
    name_or_id: &str,
) -> Result<Container, ApiError> {
    let record = find(app, name_or_id, |record| {
        record.container.owner == caller.account
    })
    .await?;
    Ok(record.container)
}

/// The caller's containers, and for an edge owner those on the owner's edges, as far as they are
/// wanted.
pub(crate) async fn listed(
    app: &App,
    caller: &Caller,
    whose: Whose,
    listing: &Listing,
) -> Result<Listed<Container>, ApiError> {
    let search = listing.search()?;
    let found = app.store.containers(&caller.into(), whose, &search).await?;
    let items = found.items.into_iter().map(|record| record.container);
    Ok(Listed {
        items: items.collect(),
        count: found.count,
    })
}

/// One container, if the caller may see it.
pub(crate) async fn one(app: &App, caller: &Caller, name: &str) -> Result<Container, ApiError> {
    let record = find(app, name, |record| may_see(caller, record)).await?;
    Ok(record.container)
}

/// Makes a container of the caller's.
pub(crate) async fn add(
    app: &App,
    caller: &Caller,
    asked: RegisterContainer,
) -> Result<Container, ApiError> {
    let mut faults = Vec::new();
    if let Err(error) = check_name("name", &asked.name) {
        faults.extend(error.0.faults);
    }
    if asked.edge.is_empty() {
        let allowed = "an edge that you may use, by its name or id";
        faults.extend(ApiError::fault("edge", "", "no edge", allowed).0.faults);
    }
    let requirements = match read_requirements(&asked.requirements) {
        Ok(requirements) => requirements,
        Err(found) => {
            faults.extend(ApiError::from(found).0.faults);
            Requirements::default()
        }
    };
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let edge = usable(app, caller, &asked.edge).await?;
    let same_name = app.store.containers_named(&asked.name).await?;
    if same_name.iter().any(|other| {
        other.container.edge == edge.id
            && other.container.registration == ContainerRegistration::Confirmed
            && other.container.owner != caller.account
    }) {
        return Err(anothers(&asked.name));
    }
    let new = NewContainer {
        id: ContainerId::from_uuid(Uuid::now_v7()),
        name: asked.name,
        owner: caller.account,
        edge: edge.id,
        requirements: requirements.to_json(),
        allow_post_copy: asked.allow_post_copy,
        created_at: clock::now(),
    };
    match app.store.create_container(&new).await {
        Err(error) if error.is_duplicate() => Err(ApiError::conflict(format!(
            "you have a container `{}` already",
            new.name
        ))),
        done => {
            done?;
            owned(app, caller, &new.id.to_string()).await
        }
    }
}

/// Replaces the requirements of a container of the caller's.
pub(crate) async fn replace_requirements(
    app: &App,
    caller: &Caller,
    name: &str,
    requirements: &Value,
) -> Result<Container, ApiError> {
    let container = owned(app, caller, name).await?;
    let requirements = read_requirements(requirements)?;
    app.store
        .set_requirements(container.id, &requirements.to_json())
        .await?;
    owned(app, caller, name).await
}

/// Says whether a container of the caller's may be moved by post-copy.
pub(crate) async fn set_allow_post_copy(
    app: &App,
    caller: &Caller,
    name: &str,
    allow: bool,
) -> Result<Container, ApiError> {
    let container = owned(app, caller, name).await?;
    app.store
        .set_allow_post_copy(container.id, caller.account, allow)
        .await?;
    owned(app, caller, name).await
}

/// Makes a claim code for a container of the caller's.
pub(crate) async fn make_claim(app: &App, caller: &Caller, name: &str) -> Result<Claim, ApiError> {
    let container = owned(app, caller, name).await?;
    if container.registration == ContainerRegistration::Confirmed {
        return Err(ApiError::conflict(format!("`{name}` is confirmed already")));
    }
    let code = Secret::new("carnet-claim-", CLAIM_BYTES);
    let expires_at_ms = UnixMillis(clock::now().0 + CLAIM_MS);
    app.store
        .set_claim(container.id, &code.hash(), expires_at_ms)
        .await?;
    Ok(Claim {
        code: code.reveal(),
        path: CLAIM_PATH.to_owned(),
        expires_at_ms,
    })
}

/// Has the claim code of a container of the caller's read.
pub(crate) async fn check_claim(
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<Container, ApiError> {
    let container = owned(app, caller, name).await?;
    if container.registration == ContainerRegistration::Confirmed {
        return Ok(container);
    }
    let edge = usable(app, caller, &container.edge.to_string()).await?;
    let endpoint = app.store.endpoint(edge.id).await?;
    let placed = app
        .agents
        .claim(&endpoint, &container.name)
        .await
        .map_err(|error| ApiError::edge(error.to_string()))?;
    let Some(found) = placed.code else {
        return Err(ApiError::conflict(format!(
            "there is no {CLAIM_PATH} in `{}`; write the claim code into it",
            container.name
        )));
    };
    let confirmed = app
        .store
        .confirm_by_claim(container.id, &secret::hash(&found), clock::now())
        .await;
    match confirmed {
        Err(error) if error.is_duplicate() => Err(anothers(&container.name)),
        Ok(false) => Err(ApiError::conflict(format!(
            "{CLAIM_PATH} in `{}` does not hold the claim code, or the code has expired; ask for another",
            container.name
        ))),
        done => {
            done?;
            app.look_now.notify_one();
            owned(app, caller, name).await
        }
    }
}

/// Confirms a container on an edge of the caller's.
pub(crate) async fn vouch_for(
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<Container, ApiError> {
    let on_own_edge = |record: &ContainerRecord| record.edge_owner == caller.account;
    let record = find(app, name, on_own_edge).await?;
    let confirmed = app
        .store
        .confirm_container(record.container.id, caller.account, clock::now())
        .await;
    match confirmed {
        Err(error) if error.is_duplicate() => Err(anothers(&record.container.name)),
        done => {
            done?;
            app.look_now.notify_one();
            let id = record.container.id.to_string();
            Ok(find(app, &id, on_own_edge).await?.container)
        }
    }
}

/// Ends the registration of a container of the caller's.
pub(crate) async fn remove(app: &App, caller: &Caller, name: &str) -> Result<(), ApiError> {
    let container = owned(app, caller, name).await?;
    if app
        .store
        .delete_container(container.id, caller.account)
        .await?
    {
        Ok(())
    } else {
        Err(ApiError::conflict(format!(
            "`{}` is being moved; it can be forgotten afterwards",
            container.name
        )))
    }
}

fn anothers(name: &str) -> ApiError {
    ApiError::conflict(format!(
        "`{name}` on that edge is another owner's; it was confirmed first"
    ))
}

/// The caller's containers; for an edge owner, those on the owner's edges. By name.
#[utoipa::path(
    get, path = "/v1/containers", tag = "containers", operation_id = "list_containers",
    params(Listing),
    responses((status = 200, body = Vec<Container>), (status = 400, body = Problem),
              (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Vec<Container>>, ApiError> {
    let Query(listing) = listing?;
    let listed = listed(&app, &caller, Whose::All, &listing).await?;
    Ok(Json(listed.items))
}

/// One container.
#[utoipa::path(
    get, path = "/v1/containers/{container}", tag = "containers", operation_id = "show_container",
    params(("container" = String, Path, description = "Its name or id.")),
    responses(
        (status = 200, body = Container),
        (status = 404, body = Problem),
        (status = 409, description = "There are several of that name.", body = Problem),
    )
)]
async fn show(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Container>, ApiError> {
    Ok(Json(one(&app, &caller, &name).await?))
}

/// Registers a container. It is pending until it is shown that it is the caller's: by a claim
/// code placed inside it, or by the word of its edge's owner.
#[utoipa::path(
    post, path = "/v1/containers", tag = "containers", operation_id = "register_container",
    request_body = RegisterContainer,
    responses(
        (status = 201, body = Container),
        (status = 404, description = "No such edge that the caller may use.", body = Problem),
        (status = 409, description = "The caller has one of that name, or it is another's.", body = Problem),
    )
)]
async fn register(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<RegisterContainer>,
) -> Result<(StatusCode, Json<Container>), ApiError> {
    let container = add(&app, &caller, asked).await?;
    Ok((StatusCode::CREATED, Json(container)))
}

/// Replaces a container's requirements. A move under way that was permitted under the old ones
/// is stopped at its commit.
#[utoipa::path(
    put, path = "/v1/containers/{container}/requirements", tag = "containers",
    operation_id = "require_of_container",
    params(("container" = String, Path, description = "Its name or id.")),
    request_body = UpdateRequirements,
    responses((status = 200, body = Container), (status = 404, body = Problem))
)]
async fn require(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
    Input(asked): Input<UpdateRequirements>,
) -> Result<Json<Container>, ApiError> {
    let required = replace_requirements(&app, &caller, &name, &asked.requirements);
    Ok(Json(required.await?))
}

/// Says whether memory may follow after the container runs at a target (post-copy): its moves
/// stand still for a moment only, and if one loses an edge before all memory is over, the
/// container goes on at its source as it was when it was frozen.
#[utoipa::path(
    put, path = "/v1/containers/{container}/allow-post-copy", tag = "containers",
    operation_id = "allow_post_copy",
    params(("container" = String, Path, description = "Its name or id.")),
    request_body = AllowPostCopy,
    responses((status = 200, body = Container), (status = 404, body = Problem))
)]
async fn allow_post_copy(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
    Input(asked): Input<AllowPostCopy>,
) -> Result<Json<Container>, ApiError> {
    let allowed = set_allow_post_copy(&app, &caller, &name, asked.allow_post_copy);
    Ok(Json(allowed.await?))
}

/// Gives out a one-time code: whoever can write it into the container controls it.
#[utoipa::path(
    post, path = "/v1/containers/{container}/claims", tag = "containers",
    operation_id = "claim_container",
    params(("container" = String, Path, description = "Its name or id.")),
    responses(
        (status = 201, body = Claim),
        (status = 404, body = Problem),
        (status = 409, description = "It is confirmed already.", body = Problem),
    )
)]
async fn claim(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<(StatusCode, Json<Claim>), ApiError> {
    let claim = make_claim(&app, &caller, &name).await?;
    Ok((StatusCode::CREATED, Json(claim)))
}

/// Has the code read inside the container by its edge's agent; if it is the one given out, the
/// container is the caller's from now on.
#[utoipa::path(
    post, path = "/v1/containers/{container}/confirm-claim", tag = "containers",
    operation_id = "confirm_claim",
    params(("container" = String, Path, description = "Its name or id.")),
    responses(
        (status = 200, body = Container),
        (status = 404, body = Problem),
        (status = 409, description = "No code, another code, or another's container.", body = Problem),
        (status = 502, description = "The edge's agent cannot read it.", body = Problem),
    )
)]
async fn confirm_claim(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Container>, ApiError> {
    Ok(Json(check_claim(&app, &caller, &name).await?))
}

/// The edge's owner confirms that a container on the edge is whoever registered it's.
#[utoipa::path(
    post, path = "/v1/containers/{container}/confirm", tag = "containers",
    operation_id = "confirm_container",
    params(("container" = String, Path, description = "Its id, or its name where that is plain.")),
    responses(
        (status = 200, body = Container),
        (status = 404, body = Problem),
        (status = 409, description = "Another owner's registration was confirmed first, or there are several of that name.", body = Problem),
    )
)]
async fn confirm(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Container>, ApiError> {
    Ok(Json(vouch_for(&app, &caller, &name).await?))
}

/// Forgets a container: Carnet will not move it any more. The container itself stays where it
/// is.
#[utoipa::path(
    delete, path = "/v1/containers/{container}", tag = "containers",
    operation_id = "forget_container",
    params(("container" = String, Path, description = "Its name or id.")),
    responses(
        (status = 200, description = "It is forgotten.", body = Object),
        (status = 404, body = Problem),
        (status = 409, description = "It is being moved.", body = Problem),
    )
)]
async fn forget(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    remove(&app, &caller, &name).await?;
    Ok(Json(serde_json::json!({})))
}
