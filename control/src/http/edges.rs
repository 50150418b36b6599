use std::collections::HashMap;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use carnet_api::v1::{
    Contradiction, DetectedFacts, Edge, EnrolmentToken, Problem, RegisterEdge, Role,
    UpdateAttributes, UtilizationReading,
};
use carnet_core::ids::{EdgeId, EnrolmentId};
use carnet_core::instant::UnixMillis;
use carnet_core::policy::{
    Attributes, Faults, Frequency, Memory, attributes_from_compact, attributes_from_json,
};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::access::Caller;
use super::listing::Listing;
use super::problem::{ApiError, Input, Named};
use crate::clock;
use crate::names::check_name;
use crate::secret::Secret;
use crate::store::listing::{Listed, Whose};
use crate::store::{EdgeRecord, NewEdge, StoreError};

/// How long an enrolment token is good for.
const ENROLMENT_MS: i64 = 3600 * 1000;
/// Random bytes in it.
const ENROLMENT_BYTES: usize = 32;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, register))
        .routes(routes!(show))
        .routes(routes!(utilization))
        .routes(routes!(describe))
        .routes(routes!(create_enrolment_token))
        .routes(routes!(disenrol))
}

/// Attributes as somebody wrote them: an object with long names, or a compact row.
fn read_attributes(written: &Value) -> Result<Attributes, Faults> {
    match written {
        Value::String(row) => attributes_from_compact(row),
        other => attributes_from_json(other),
    }
}

/// What the caller may see of an edge; `None`: not even that it is there.
pub(super) async fn visible(
    app: &App,
    caller: &Caller,
    name_or_id: &str,
) -> Result<EdgeRecord, ApiError> {
    let missing = || ApiError::not_found("edge", name_or_id);
    let edge = app.store.edge(name_or_id).await?.ok_or_else(missing)?;
    let shared = app.store.edges_shared_with(caller.account).await?;
    if may_see(caller, &edge, &shared) {
        Ok(edge)
    } else {
        Err(missing())
    }
}

/// The caller's own edge; others' answer as if they were not there.
pub(super) async fn owned(
    app: &App,
    caller: &Caller,
    name_or_id: &str,
) -> Result<EdgeRecord, ApiError> {
    let edge = app.store.edge(name_or_id).await?;
    edge.filter(|edge| edge.owner == caller.account)
        .ok_or_else(|| ApiError::not_found("edge", name_or_id))
}

/// An edge that the caller may use: who reads everything may see it, and no more.
pub(super) async fn usable(
    app: &App,
    caller: &Caller,
    name_or_id: &str,
) -> Result<EdgeRecord, ApiError> {
    let edge = visible(app, caller, name_or_id).await?;
    let shared = app.store.edges_shared_with(caller.account).await?;
    if may_use(caller, &edge, &shared) {
        Ok(edge)
    } else {
        Err(ApiError::forbidden(format!(
            "you may see `{}`, and not use it: its owner has given you no share key",
            edge.name
        )))
    }
}

fn may_see(caller: &Caller, edge: &EdgeRecord, shared: &[EdgeId]) -> bool {
    caller.sees_everything() || may_use(caller, edge, shared)
}

fn may_use(caller: &Caller, edge: &EdgeRecord, shared: &[EdgeId]) -> bool {
    (caller.is(Role::EdgeOwner) && edge.owner == caller.account)
        || (caller.is(Role::ContainerOwner) && shared.contains(&edge.id))
}

/// An edge as the caller sees it: who holds only a key does not learn whose it is.
fn shown(caller: &Caller, edge: EdgeRecord) -> Edge {
    let sees_owner = caller.sees_everything() || edge.owner == caller.account;
    let contradictions = match (attributes_from_json(&edge.attributes), &edge.detected) {
        (Ok(declared), Some(detected)) => contradictions(&declared, detected),
        _ => Vec::new(),
    };
    Edge {
        id: edge.id,
        name: edge.name,
        owner: sees_owner.then_some(edge.owner),
        address: edge.address,
        attributes: edge.attributes,
        attributes_revision: edge.attributes_revision,
        enrolled: edge.enrolled,
        health: edge.health,
        utilization: edge.utilization,
        active_containers: edge.active_containers,
        detected: edge.detected,
        contradictions,
        created_at_ms: edge.created_at,
    }
}

/// Where what is declared is more than what was found. Clock rates and sizes of memory are told
/// differently by maker, firmware and kernel: a tenth is let pass.
fn contradictions(declared: &Attributes, detected: &DetectedFacts) -> Vec<Contradiction> {
    let exceeds =
        |declared: u64, detected: u64| declared.saturating_mul(9) > detected.saturating_mul(10);
    let mut found = Vec::new();
    let mut contradict = |attribute: &str, declared: String, detected: String| {
        found.push(Contradiction {
            attribute: attribute.to_owned(),
            declared,
            detected,
        });
    };
    if let (Some(declared), Some(detected)) = (declared.cpu, detected.cpu_mhz)
        && exceeds(declared.mhz().into(), detected.into())
    {
        contradict(
            "cpu_ghz",
            declared.to_string(),
            Frequency::from_mhz(detected).to_string(),
        );
    }
    if let (Some(declared), Some(detected)) = (declared.memory, detected.memory_mb)
        && exceeds(declared.mb().into(), detected)
    {
        let detected = Memory::from_mb(u32::try_from(detected).unwrap_or(u32::MAX));
        contradict("memory_gb", declared.to_string(), detected.to_string());
    }
    let missing: Vec<&str> = declared
        .virtualization
        .iter()
        .map(|tool| tool.as_str())
        .filter(|tool| *tool == "lxc" && !detected.virtualization.iter().any(|has| has == tool))
        .collect();
    if !missing.is_empty() {
        contradict(
            "virtualization",
            missing.join(","),
            detected.virtualization.join(","),
        );
    }
    found
}

/// The edges that the caller owns or may use, as far as they are wanted.
pub(crate) async fn listed(
    app: &App,
    caller: &Caller,
    whose: Whose,
    listing: &Listing,
) -> Result<Listed<Edge>, ApiError> {
    let search = listing.search()?;
    let found = app.store.edges(&caller.into(), whose, &search).await?;
    let items = found.items.into_iter().map(|edge| shown(caller, edge));
    Ok(Listed {
        items: items.collect(),
        count: found.count,
    })
}

/// All edges that the caller owns or may use.
pub(crate) async fn all_visible(app: &App, caller: &Caller) -> Result<Vec<Edge>, ApiError> {
    let all = listed(app, caller, Whose::All, &Listing::default()).await?;
    Ok(all.items)
}

/// What was read of edges that the caller may see in the last hour.
pub(crate) async fn history(
    app: &App,
    edges: &[Edge],
) -> Result<HashMap<EdgeId, Vec<UtilizationReading>>, ApiError> {
    let edges = edges.iter().map(|edge| edge.id).collect();
    Ok(app.store.utilization_of(&edges, clock::now()).await?)
}

/// One edge, if the caller may see it.
pub(crate) async fn one(app: &App, caller: &Caller, name: &str) -> Result<Edge, ApiError> {
    Ok(shown(caller, visible(app, caller, name).await?))
}

/// One edge, if it is the caller's.
pub(crate) async fn own(app: &App, caller: &Caller, name: &str) -> Result<Edge, ApiError> {
    Ok(shown(caller, owned(app, caller, name).await?))
}

/// Makes an edge of the caller's.
pub(crate) async fn add(app: &App, caller: &Caller, asked: RegisterEdge) -> Result<Edge, ApiError> {
    let mut faults = Vec::new();
    if let Err(error) = check_name("name", &asked.name) {
        faults.extend(error.0.faults);
    }
    // One address has one spelling: that no other edge has it is seen by it.
    let address = match asked.address.parse::<SocketAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => {
            let allowed = "where its agent listens, ip:port, such as `192.0.2.7:7443`";
            let fault = ApiError::fault("address", &asked.address, "not an address", allowed);
            faults.extend(fault.0.faults);
            String::new()
        }
    };
    let attributes = match read_attributes(&asked.attributes) {
        Ok(attributes) => attributes,
        Err(found) => {
            faults.extend(ApiError::from(found).0.faults);
            Attributes::default()
        }
    };
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let new = NewEdge {
        id: EdgeId::from_uuid(Uuid::now_v7()),
        name: asked.name,
        owner: caller.account,
        address,
        attributes: attributes.to_json(),
        created_at: clock::now(),
    };
    match app.store.create_edge(&new).await {
        Err(error) if error.is_duplicate() => Err(taken(app, &new).await?),
        done => {
            done?;
            own(app, caller, &new.name).await
        }
    }
}

/// What of a new edge another one has already, each at its field.
async fn taken(app: &App, new: &NewEdge) -> Result<ApiError, StoreError> {
    let named = app.store.edge(&new.name).await?;
    let is_there = named
        .as_ref()
        .is_none_or(|edge| edge.address == new.address);
    let mut error = ApiError::conflict(format!(
        "there is an edge named `{}`, or one at `{}`, already",
        new.name, new.address
    ));
    if named.is_some() {
        let fault = ApiError::fault("name", &new.name, "taken", "a name that no edge has");
        error.0.faults.extend(fault.0.faults);
    }
    if is_there {
        let allowed = "an address at which no other edge's agent listens";
        let fault = ApiError::fault("address", &new.address, "taken", allowed);
        error.0.faults.extend(fault.0.faults);
    }
    Ok(error)
}

/// Replaces the attributes of an edge of the caller's.
pub(crate) async fn replace_attributes(
    app: &App,
    caller: &Caller,
    name: &str,
    attributes: &Value,
) -> Result<Edge, ApiError> {
    let edge = owned(app, caller, name).await?;
    let attributes = read_attributes(attributes)?;
    app.store
        .set_attributes(edge.id, &attributes.to_json())
        .await?;
    own(app, caller, name).await
}

/// Makes a token for an edge of the caller's.
pub(crate) async fn make_enrolment_token(
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<EnrolmentToken, ApiError> {
    let edge = owned(app, caller, name).await?;
    let fingerprint = app
        .authority
        .authority()
        .map_err(|error| ApiError::internal(&error))?
        .fingerprint();
    let secret = Secret::new("", ENROLMENT_BYTES);
    let expires_at_ms = UnixMillis(clock::now().0 + ENROLMENT_MS);
    let id = EnrolmentId::from_uuid(Uuid::now_v7());
    let made: Result<(), StoreError> = app
        .store
        .create_enrolment_token(id, edge.id, &secret.hash(), expires_at_ms)
        .await;
    made?;
    Ok(EnrolmentToken {
        token: format!("carnet-enrol.{}.{fingerprint}", secret.reveal()),
        expires_at_ms,
    })
}

/// Trusts an edge of the caller's no more.
pub(crate) async fn distrust(app: &App, caller: &Caller, name: &str) -> Result<Edge, ApiError> {
    let edge = owned(app, caller, name).await?;
    app.store
        .disenrol(edge.id, caller.account, clock::now())
        .await?;
    own(app, caller, name).await
}

/// The edges that the caller owns or may use, by name.
#[utoipa::path(
    get, path = "/v1/edges", tag = "edges", operation_id = "list_edges",
    params(Listing),
    responses((status = 200, body = Vec<Edge>), (status = 400, body = Problem),
              (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Vec<Edge>>, ApiError> {
    let Query(listing) = listing?;
    let listed = listed(&app, &caller, Whose::All, &listing).await?;
    Ok(Json(listed.items))
}

/// One edge.
#[utoipa::path(
    get, path = "/v1/edges/{edge}", tag = "edges", operation_id = "show_edge",
    params(("edge" = String, Path, description = "Its name or id.")),
    responses((status = 200, body = Edge), (status = 404, body = Problem))
)]
async fn show(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Edge>, ApiError> {
    Ok(Json(one(&app, &caller, &name).await?))
}

/// What was read of an edge's CPU and memory use in the last hour, the oldest first: one reading a
/// minute at the most, none where the edge did not answer.
#[utoipa::path(
    get, path = "/v1/edges/{edge}/utilization", tag = "edges", operation_id = "show_edge_utilization",
    params(("edge" = String, Path, description = "Its name or id.")),
    responses((status = 200, body = Vec<UtilizationReading>), (status = 404, body = Problem))
)]
async fn utilization(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Vec<UtilizationReading>>, ApiError> {
    let edge = one(&app, &caller, &name).await?;
    let mut history = history(&app, std::slice::from_ref(&edge)).await?;
    Ok(Json(history.remove(&edge.id).unwrap_or_default()))
}

/// Registers an edge. Its agent enrols with a token from `enrolment-tokens`.
#[utoipa::path(
    post, path = "/v1/edges", tag = "edges", operation_id = "register_edge",
    request_body = RegisterEdge,
    responses(
        (status = 201, body = Edge),
        (status = 409, description = "Name or address is taken.", body = Problem),
    )
)]
async fn register(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<RegisterEdge>,
) -> Result<(StatusCode, Json<Edge>), ApiError> {
    let edge = add(&app, &caller, asked).await?;
    Ok((StatusCode::CREATED, Json(edge)))
}

/// Replaces an edge's attributes. A move under way that was permitted under the old ones is
/// stopped at its commit.
#[utoipa::path(
    put, path = "/v1/edges/{edge}/attributes", tag = "edges", operation_id = "describe_edge",
    params(("edge" = String, Path, description = "Its name or id.")),
    request_body = UpdateAttributes,
    responses((status = 200, body = Edge), (status = 404, body = Problem))
)]
async fn describe(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
    Input(asked): Input<UpdateAttributes>,
) -> Result<Json<Edge>, ApiError> {
    let described = replace_attributes(&app, &caller, &name, &asked.attributes);
    Ok(Json(described.await?))
}

/// Makes a one-time token with which the edge's agent enrols. Tokens made before are good no
/// more.
#[utoipa::path(
    post, path = "/v1/edges/{edge}/enrolment-tokens", tag = "edges",
    operation_id = "create_enrolment_token",
    params(("edge" = String, Path, description = "Its name or id.")),
    responses((status = 201, body = EnrolmentToken), (status = 404, body = Problem))
)]
async fn create_enrolment_token(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<(StatusCode, Json<EnrolmentToken>), ApiError> {
    let token = make_enrolment_token(&app, &caller, &name).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// Trusts the edge's agent no more, at once: no order, no permit and no container goes to it until
/// it has enrolled anew. Containers that are there stay there.
#[utoipa::path(
    post, path = "/v1/edges/{edge}/disenrol", tag = "edges", operation_id = "disenrol_edge",
    params(("edge" = String, Path, description = "Its name or id.")),
    responses((status = 200, body = Edge), (status = 404, body = Problem))
)]
async fn disenrol(
    State(app): State<App>,
    Named(name): Named,
    caller: Caller,
) -> Result<Json<Edge>, ApiError> {
    Ok(Json(distrust(&app, &caller, &name).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_beyond_what_was_found_is_told() {
        let detected = DetectedFacts {
            cpu_mhz: Some(2_400),
            memory_mb: Some(8_000),
            ..DetectedFacts::default()
        };
        let told = |row: &str| -> Vec<String> {
            contradictions(&attributes_from_compact(row).unwrap(), &detected)
                .into_iter()
                .map(|contradiction| contradiction.attribute)
                .collect()
        };
        assert_eq!(told("A jp caA deA - 2.6 8 - - -"), Vec::<String>::new());
        assert_eq!(
            told("A jp caA deA - 3.2 16 - - -"),
            ["cpu_ghz", "memory_gb"]
        );
        assert_eq!(told("A jp caA deA lxc - - - - -"), ["virtualization"]);
        assert_eq!(told("A jp caA deA - 1 1 - - -"), Vec::<String>::new());
    }
}
