use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carnet_api::v1::{Consistency, LedgerEntry, Problem, ProvenEntry, Stay, Witness};
use carnet_core::ids::ContainerId;
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::tile::{Tile, bundle};
use carnet_core::ledger::{
    Entry, Stays, consistency_nodes, inclusion_nodes, prove_consistency, prove_inclusion,
};
use carnet_core::policy::Country;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::listing::{MAX_LISTED, check_limit};
use super::problem::{ApiError, Named};
use crate::store::ledger::{EntryFilter, Numbered, SignedCheckpoint, Span};

/// How many entries are listed where it is not said.
const LISTED: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(file))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(consistency))
        .routes(routes!(stays))
        .routes(routes!(witnesses))
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// `decision`, `permit`, `migration`, `refusal`, `requirements`, `attributes`, `grant` …;
    /// several, separated by commas: any of these.
    pub kind: Option<String>,
    /// About this container, name or id; with what concerns its migrations.
    pub container: Option<String>,
    /// About containers of this owner, name or id; with what concerns their migrations.
    pub owner: Option<String>,
    /// About this edge, name or id.
    pub edge: Option<String>,
    /// Of this migration.
    pub migration: Option<String>,
    /// Decisions that came out so: `permit` or `deny`.
    pub verdict: Option<String>,
    /// About an edge of which this country was declared then, two letters.
    pub country: Option<String>,
    /// About an edge of which this organization was declared then.
    pub organization: Option<String>,
    /// From this instant on, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Before this instant.
    pub until_ms: Option<i64>,
    /// From this number on.
    pub from: Option<u64>,
    /// Before this number; without `from`, the last of those.
    pub before: Option<u64>,
    /// At most so many: 1 to 1,000; 100 where it is absent.
    pub limit: Option<u32>,
}

/// Of which container, and in which country.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whereabouts {
    /// Of this container, name or id.
    pub container: Option<String>,
    /// In this country, two letters.
    pub country: Option<String>,
}

/// Between which two sizes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Since {
    /// The size of the ledger that is known.
    from: u64,
}

/// The newest checkpoint, as it was signed.
pub(crate) async fn checkpoint(app: &App) -> Result<SignedCheckpoint, ApiError> {
    app.store
        .checkpoint()
        .await?
        .ok_or_else(|| ApiError::internal(&"the ledger has no checkpoint"))
}

/// The id of a container that is registered, by its name; what is no name of one may be the id of
/// one that was.
async fn container_id(app: &App, named: &str) -> Result<String, ApiError> {
    let found = app.store.containers_named(named).await?;
    match found.as_slice() {
        [] => named
            .parse::<ContainerId>()
            .map(|id| id.to_string())
            .map_err(|_| ApiError::not_found("container", named)),
        [record] => Ok(record.container.id.to_string()),
        _ => Err(ApiError::conflict(format!(
            "there are several containers `{named}`; name one by its id"
        ))),
    }
}

async fn edge_id(app: &App, named: &str) -> Result<String, ApiError> {
    match app.store.edge(named).await? {
        Some(edge) => Ok(edge.id.to_string()),
        None => Err(ApiError::not_found("edge", named)),
    }
}

/// The ledger as C2SP tlog-tiles lays it out: `checkpoint`, `tile/LEVEL/N[.p/W]`,
/// `tile/entries/N[.p/W]`.
#[utoipa::path(
    get, path = "/ledger/{*path}", tag = "ledger", operation_id = "read_ledger",
    params(("path" = String, Path, description = "A path of C2SP tlog-tiles; it may hold slashes.")),
    responses(
        (status = 200, description = "The checkpoint with its cosignatures (text), or a tile.", content(
            (String = "text/plain; charset=utf-8"), (String = "application/octet-stream"))),
        (status = 404, body = Problem),
    )
)]
async fn file(State(app): State<App>, Named(path): Named) -> Result<Response, ApiError> {
    let missing = || ApiError::not_found("file of the ledger", &path);
    let checkpoint = checkpoint(&app).await?;
    if path == "checkpoint" {
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((StatusCode::OK, kind, checkpoint.cosigned()).into_response());
    }
    let tile = Tile::from_path(&path).ok_or_else(missing)?;
    let nodes = tile.nodes(checkpoint.size).ok_or_else(missing)?;
    let bytes = match tile {
        Tile::Entries { index, width } => {
            let entries = app
                .store
                .entries(
                    index * carnet_core::ledger::tile::TILE_WIDTH,
                    u32::try_from(width).unwrap_or(u32::MAX),
                )
                .await?;
            bundle(entries.iter().map(|entry| entry.bytes.as_slice()))
        }
        Tile::Hashes { .. } => {
            let known = app.store.nodes(&nodes).await?;
            let mut bytes = Vec::with_capacity(nodes.len() * 32);
            for node in &nodes {
                let hash = known
                    .0
                    .get(node)
                    .ok_or_else(|| ApiError::internal(&"a node of the ledger is missing"))?;
                bytes.extend(hash.0);
            }
            bytes
        }
    };
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, kind, bytes).into_response())
}

/// An entry that somebody has made unreadable is shown as such: it is not to hide the others.
fn shown(numbered: &Numbered) -> LedgerEntry {
    let read = serde_json::from_slice(&numbered.bytes).ok();
    let unreadable = || {
        let text = String::from_utf8_lossy(&numbered.bytes);
        serde_json::json!({"kind": "unreadable", "text": text})
    };
    LedgerEntry {
        number: numbered.number,
        entry: read.filter(Value::is_object).unwrap_or_else(unreadable),
    }
}

/// What lets through the entries that are wanted.
async fn filter(app: &App, wanted: &Wanted) -> Result<EntryFilter, ApiError> {
    let mut faults = Vec::new();
    let verdict = match wanted.verdict.as_deref() {
        None => None,
        Some("permit") => Some("permit"),
        Some("deny") => Some("deny"),
        Some(other) => {
            let fault = ApiError::fault("verdict", other, "no verdict", "`permit` or `deny`");
            faults.extend(fault.0.faults);
            None
        }
    };
    let country = match wanted.country.as_deref() {
        None => None,
        Some(code) => match Country::from_code(code) {
            Some(country) => Some(country.code().to_owned()),
            None => {
                let allowed = "two letters of ISO 3166-1, such as `jp`";
                let fault = ApiError::fault("country", code, "no such country", allowed);
                faults.extend(fault.0.faults);
                None
            }
        },
    };
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    let kinds = wanted.kind.as_deref().map(|kinds| {
        let kinds = kinds.split(',').map(|kind| kind.trim().to_owned());
        kinds.collect()
    });
    Ok(EntryFilter {
        kinds,
        container: match &wanted.container {
            Some(container) => Some(container_id(app, container).await?),
            None => None,
        },
        owner: match &wanted.owner {
            Some(owner) => {
                let account = app.store.account(owner).await?;
                let missing = || ApiError::not_found("account", owner);
                Some(account.ok_or_else(missing)?.id)
            }
            None => None,
        },
        edge: match &wanted.edge {
            Some(edge) => Some(edge_id(app, edge).await?),
            None => None,
        },
        migration: wanted.migration.clone(),
        verdict,
        country,
        organization: wanted.organization.clone(),
        since: wanted.since_ms.map(UnixMillis),
        until: wanted.until_ms.map(UnixMillis),
    })
}

/// Entries of the ledger, the oldest first.
pub(crate) async fn find(app: &App, wanted: &Wanted) -> Result<Vec<LedgerEntry>, ApiError> {
    let limit = wanted.limit.unwrap_or(LISTED);
    check_limit(limit)?;
    let filter = filter(app, wanted).await?;
    let span = match (wanted.from, wanted.before) {
        (Some(from), Some(before)) => Span::Between(from, before),
        (None, Some(before)) => Span::Before(before),
        (from, None) => Span::From(from.unwrap_or_default()),
    };
    let found = app.store.find_entries(&filter, span, limit).await?;
    Ok(found.iter().map(shown).collect())
}

/// One entry, with the proof that the ledger has it.
pub(crate) async fn prove(app: &App, number: &str) -> Result<ProvenEntry, ApiError> {
    let missing = || ApiError::not_found("entry of the ledger", number);
    let parsed: u64 = number.parse().map_err(|_| missing())?;
    let checkpoint = checkpoint(app).await?;
    let found = app.store.entries(parsed, 1).await?;
    let entry = found
        .first()
        .filter(|entry| entry.number == parsed && parsed < checkpoint.size)
        .ok_or_else(missing)?;
    let wanted = inclusion_nodes(checkpoint.size, parsed).map_err(|_| missing())?;
    let nodes = app.store.nodes(&wanted).await?;
    let proof = prove_inclusion(checkpoint.size, parsed, &nodes)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(ProvenEntry {
        entry: shown(entry),
        text: String::from_utf8_lossy(&entry.bytes).into_owned(),
        proof: proof.iter().map(ToString::to_string).collect(),
        checkpoint: checkpoint.cosigned(),
    })
}

/// How it stands with each witness.
pub(crate) fn standing(app: &App) -> Vec<Witness> {
    let shown = app.witnesses.iter().map(|witness| {
        let standing = witness.standing();
        Witness {
            name: witness.address.verifier.name().to_owned(),
            url: witness.address.url.clone(),
            verifier_key: witness.address.verifier.to_string(),
            cosigned_size: standing.cosigned,
            problem: standing.problem,
        }
    });
    shown.collect()
}

/// Where containers have been.
pub(crate) async fn stays_of(app: &App, whereabouts: &Whereabouts) -> Result<Vec<Stay>, ApiError> {
    let container = match &whereabouts.container {
        Some(named) => Some(container_id(app, named).await?),
        None => None,
    };
    let mut stays = Stays::default();
    let mut next = 0;
    loop {
        let entries = app.store.entries(next, MAX_LISTED).await?;
        let Some(last) = entries.last() else { break };
        next = last.number + 1;
        for numbered in &entries {
            let entry =
                Entry::from_bytes(&numbered.bytes).map_err(|error| ApiError::internal(&error))?;
            stays.take(numbered.number, &entry);
        }
    }
    let found: Vec<_> = stays
        .into_stays()
        .into_iter()
        .filter(|stay| {
            container
                .as_ref()
                .is_none_or(|wanted| stay.container.to_string() == *wanted)
                && whereabouts.country.as_deref().is_none_or(|wanted| {
                    stay.country()
                        .is_some_and(|country| country.eq_ignore_ascii_case(wanted))
                })
        })
        .collect();
    let ids = found
        .iter()
        .flat_map(|stay| [stay.container.to_string(), stay.edge.to_string()]);
    let names = app.store.names(&ids.collect()).await?;
    Ok(found
        .into_iter()
        .map(|stay| Stay {
            container: stay.container,
            container_name: names.get(&stay.container.to_string()).cloned(),
            edge: stay.edge,
            edge_name: names
                .get(&stay.edge.to_string())
                .cloned()
                .unwrap_or_default(),
            country: stay.country().map(str::to_owned),
            generation: stay.generation,
            since_at_ms: stay.since,
            until_at_ms: stay.until,
            requirements_revision: stay.requirements.revision,
            attributes_revision: stay.attributes.revision,
            migration: stay.migration,
            decision: stay.decision,
        })
        .collect())
}

/// Entries of the ledger, the oldest first.
#[utoipa::path(
    get, path = "/v1/ledger/entries", tag = "ledger", operation_id = "list_ledger_entries",
    params(Wanted),
    responses((status = 200, body = Vec<LedgerEntry>), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem),
              (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<LedgerEntry>>, ApiError> {
    let Query(wanted) = wanted?;
    Ok(Json(find(&app, &wanted).await?))
}

/// One entry, with the proof that the ledger has it.
#[utoipa::path(
    get, path = "/v1/ledger/entries/{number}", tag = "ledger", operation_id = "show_ledger_entry",
    params(("number" = String, Path, description = "Its number, from 0.")),
    responses((status = 200, body = ProvenEntry), (status = 404, body = Problem))
)]
async fn show(State(app): State<App>, Named(number): Named) -> Result<Json<ProvenEntry>, ApiError> {
    Ok(Json(prove(&app, &number).await?))
}

/// That the ledger begins with what it was when it had `from` entries.
#[utoipa::path(
    get, path = "/v1/ledger/consistency", tag = "ledger", operation_id = "prove_ledger_consistency",
    params(Since),
    responses((status = 200, body = Consistency), (status = 400, body = Problem),
              (status = 422, description = "The ledger never had so many.", body = Problem))
)]
async fn consistency(
    State(app): State<App>,
    since: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Consistency>, ApiError> {
    let Query(since) = since?;
    let checkpoint = checkpoint(&app).await?;
    if since.from > checkpoint.size {
        return Err(ApiError::fault(
            "from",
            &since.from.to_string(),
            "the ledger never had so many entries",
            &format!("at most {}", checkpoint.size),
        ));
    }
    let internal = |error| ApiError::internal(&error);
    let wanted = consistency_nodes(since.from, checkpoint.size).map_err(internal)?;
    let nodes = app.store.nodes(&wanted).await?;
    let proof = prove_consistency(since.from, checkpoint.size, &nodes).map_err(internal)?;
    Ok(Json(Consistency {
        from: since.from,
        to: checkpoint.size,
        proof: proof.iter().map(ToString::to_string).collect(),
        checkpoint: checkpoint.cosigned(),
    }))
}

/// Where containers have been, when, and under which policies: of one container, in one country,
/// or all.
#[utoipa::path(
    get, path = "/v1/ledger/stays", tag = "ledger", operation_id = "list_stays",
    params(Whereabouts),
    responses((status = 200, body = Vec<Stay>), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem))
)]
async fn stays(
    State(app): State<App>,
    whereabouts: Result<Query<Whereabouts>, QueryRejection>,
) -> Result<Json<Vec<Stay>>, ApiError> {
    let Query(whereabouts) = whereabouts?;
    Ok(Json(stays_of(&app, &whereabouts).await?))
}

/// The witnesses that cosign the ledger, and how it stands with each.
#[utoipa::path(
    get, path = "/v1/ledger/witnesses", tag = "ledger", operation_id = "list_witnesses",
    responses((status = 200, body = Vec<Witness>))
)]
async fn witnesses(State(app): State<App>) -> Json<Vec<Witness>> {
    Json(standing(&app))
}
