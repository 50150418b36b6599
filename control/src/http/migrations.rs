use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use carnet_api::v1::{
    ContainerRegistration, CreateMigration, GiveUp, InputFault, LEAST_BANDWIDTH_BYTES_PER_S,
    LedgerEntry, LostEdge, Migration, Problem, ProvenEntry, Role, Strategy,
};
use carnet_core::ids::MigrationId;
use carnet_core::migration::{Phase, Terms};
use carnet_core::permit::Part;
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::access::Caller;
use super::listing::Listing;
use super::problem::{ApiError, Input, Named, NamedPair};
use super::{containers, ledger};
use crate::clock;
use crate::store::listing::Listed;
use crate::store::migrations::{MigrationRecord, NewMigration, NotLost};

/// The longest that a request may wait, in seconds.
const MAX_WAIT_S: u64 = 600;
/// How many migrations are listed where it is not said.
const LISTED: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show))
        .routes(routes!(events))
        .routes(routes!(entries))
        .routes(routes!(proven_entry))
        .routes(routes!(cancel))
        .routes(routes!(give_up))
}

/// Which migrations are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only those of this container, name or id.
    pub container: Option<String>,
    /// Only those in whose container's, source's or target's name this stands, whatever its case.
    pub search: Option<String>,
    /// Without so many of the first.
    pub offset: Option<u32>,
    /// At most so many: 1 to 1,000; 100 where it is absent.
    pub limit: Option<u32>,
}

/// Which of a migration's entries are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntryPart {
    /// From this number on.
    pub from: Option<u64>,
    /// At most so many: 1 to 1,000; 100 where it is absent.
    pub limit: Option<u32>,
}

/// How long to wait for an end.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// Answer when the migration has ended, or after so many seconds, at most 600.
    wait: Option<u64>,
}

impl Waiting {
    fn limit(&self) -> Result<Option<Duration>, ApiError> {
        match self.wait {
            Some(seconds) if seconds > MAX_WAIT_S => Err(ApiError::fault(
                "wait",
                &seconds.to_string(),
                "too long",
                "seconds, at most 600",
            )),
            wait => Ok(wait.map(Duration::from_secs)),
        }
    }
}

fn may_see(caller: &Caller, record: &MigrationRecord) -> bool {
    caller.sees_everything() || record.owner == caller.account
}

/// A migration that the caller may see; others' answer as if they were not there.
pub(crate) async fn visible(app: &App, caller: &Caller, id: &str) -> Result<Migration, ApiError> {
    let missing = || ApiError::not_found("migration", id);
    let parsed: MigrationId = id.parse().map_err(|_| missing())?;
    let record = app.store.migration(parsed).await?;
    record
        .filter(|record| may_see(caller, record))
        .map(|record| Migration {
            sending: app.migrations.sending(parsed),
            ..record.migration
        })
        .ok_or_else(missing)
}

/// How a move is to be carried out.
fn terms(asked: &CreateMigration) -> Result<Terms, ApiError> {
    let too_little = |place: &str, found: Option<u64>, least: u64| {
        found
            .filter(|&found| found < least)
            .map(|found| InputFault {
                place: place.to_owned(),
                found: found.to_string(),
                problem: "is too little".to_owned(),
                allowed: format!("{least} or more, or nothing: without a limit"),
                suggestion: None,
            })
    };
    let faults: Vec<InputFault> = [
        too_little("max_downtime_ms", asked.max_downtime_ms, 1),
        too_little(
            "bandwidth_bytes_per_s",
            asked.bandwidth_bytes_per_s,
            LEAST_BANDWIDTH_BYTES_PER_S,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !faults.is_empty() {
        return Err(ApiError::faults(faults));
    }
    if let (Some(Strategy::Cold), Some(most)) = (asked.strategy, asked.max_downtime_ms) {
        return Err(ApiError::fault(
            "max_downtime_ms",
            &most.to_string(),
            "cannot be promised of a cold move: how long the container takes to shut down and to start is its own",
            "nothing, with the strategy cold",
        ));
    }
    Ok(Terms {
        strategy: asked.strategy.map(Into::into),
        max_downtime_ms: asked.max_downtime_ms,
        bandwidth_bytes_per_s: asked.bandwidth_bytes_per_s,
    })
}

/// Whether pages of the caller's show something of a migration: they may show all of it, or one of
/// its edges is the caller's.
pub(crate) async fn concerns(
    app: &App,
    caller: &Caller,
    id: MigrationId,
) -> Result<bool, ApiError> {
    let Some(record) = app.store.migration(id).await? else {
        return Ok(false);
    };
    if may_see(caller, &record) {
        return Ok(true);
    }
    if !caller.is(Role::EdgeOwner) {
        return Ok(false);
    }
    let migration = record.migration;
    for edge in [Some(migration.source), migration.target]
        .into_iter()
        .flatten()
    {
        let edge = app.store.edge(&edge.to_string()).await?;
        if edge.is_some_and(|edge| edge.owner == caller.account) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Migrations of the caller's containers, the newest first; an auditor sees everyone's.
pub(crate) async fn listed(
    app: &App,
    caller: &Caller,
    wanted: Wanted,
) -> Result<Listed<Migration>, ApiError> {
    let owner = (!caller.sees_everything()).then_some(caller.account);
    let listing = Listing {
        search: wanted.search,
        offset: wanted.offset,
        limit: Some(wanted.limit.unwrap_or(LISTED)),
    };
    let container = wanted.container.as_deref();
    let found = app
        .store
        .migrations(owner, container, &listing.search()?)
        .await?;
    let items = found.items.into_iter().map(|record| record.migration);
    Ok(Listed {
        items: items.collect(),
        count: found.count,
    })
}

/// What the ledger has of a migration that the caller may see, the oldest first. Of a container's
/// owner it is what concerns their own move.
pub(crate) async fn entries_of(
    app: &App,
    caller: &Caller,
    id: &str,
    part: &EntryPart,
) -> Result<Vec<LedgerEntry>, ApiError> {
    let migration = visible(app, caller, id).await?;
    let wanted = ledger::Wanted {
        migration: Some(migration.id.to_string()),
        from: part.from,
        limit: part.limit,
        ..ledger::Wanted::default()
    };
    ledger::find(app, &wanted).await
}

/// One of these, with the proof that the ledger has it. Other entries answer as if they were not
/// there.
pub(crate) async fn prove_entry_of(
    app: &App,
    caller: &Caller,
    id: &str,
    number: &str,
) -> Result<ProvenEntry, ApiError> {
    let missing = || ApiError::not_found("entry of the migration", number);
    let part = EntryPart {
        from: Some(number.parse().map_err(|_| missing())?),
        limit: Some(1),
    };
    let found = entries_of(app, caller, id, &part).await?;
    match found.first() {
        Some(entry) if Some(entry.number) == part.from => ledger::prove(app, number).await,
        _ => Err(missing()),
    }
}

/// Begins to move a container of the caller's.
pub(crate) async fn begin(
    app: &App,
    caller: &Caller,
    asked: CreateMigration,
) -> Result<MigrationId, ApiError> {
    let container = containers::owned(app, caller, &asked.container).await?;
    if container.registration != ContainerRegistration::Confirmed {
        return Err(ApiError::conflict(format!(
            "it has not been shown that `{}` is yours: place its claim code inside it (carnet container claim, then prove), or have its edge's owner confirm it",
            container.name
        )));
    }
    let terms = terms(&asked)?;
    // What can only fail is told now, not kept as a migration.
    app.migrations.check(container.id, &asked.to).await?;
    if asked.strategy == Some(Strategy::PostCopy) && !container.allow_post_copy {
        return Err(ApiError::conflict(format!(
            "`{0}` is not to be moved by post-copy; its owner can allow it: carnet container allow-post-copy {0}",
            container.name
        )));
    }
    let new = NewMigration {
        id: MigrationId::from_uuid(Uuid::now_v7()),
        container: container.id,
        requested_by: caller.account,
        to: asked.to,
        terms,
        source: container.edge,
        created_at: clock::now(),
    };
    let id = new.id;
    match app.migrations.begin(new).await {
        Err(error) if error.is_duplicate() => {
            let under_way = containers::owned(app, caller, &container.id.to_string()).await?;
            return Err(ApiError::conflict(format!(
                "`{}` is being moved already{}; wait for its end",
                container.name,
                under_way
                    .migration
                    .map(|id| format!(", by migration {id}"))
                    .unwrap_or_default()
            )));
        }
        Err(error) if error.is_dangling() => {
            return Err(ApiError::not_found("container", &asked.container));
        }
        // A crash from here on: the next start takes the migration up.
        done => done?,
    }
    Ok(id)
}

/// Migrations of the caller's containers, the newest first; an auditor sees everyone's.
#[utoipa::path(
    get, path = "/v1/migrations", tag = "migrations", operation_id = "list_migrations",
    params(Wanted),
    responses((status = 200, body = Vec<Migration>), (status = 400, body = Problem),
              (status = 422, body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<Migration>>, ApiError> {
    let Query(wanted) = wanted?;
    Ok(Json(listed(&app, &caller, wanted).await?.items))
}

/// Asks for a move. The candidates are audited in turn, until one is permitted; the container
/// then moves there while it runs, or stays stopped where it is stopped.
///
/// Answered at once with where the migration can be followed, or, with `wait`, when it has ended.
#[utoipa::path(
    post, path = "/v1/migrations", tag = "migrations", operation_id = "create_migration",
    params(Waiting),
    request_body = CreateMigration,
    responses(
        (status = 202, description = "It is under way.", body = Migration,
         headers(("location" = String, description = "Where it can be followed."))),
        (status = 200, description = "It has ended within the time waited.", body = Migration,
         headers(("location" = String, description = "Where it stands."))),
        (status = 404, description = "No such container of the caller's.", body = Problem),
        (status = 409, description = "The container is being moved, is not confirmed, or there is no edge to go to.", body = Problem),
        (status = 422, description = "No such edge or region that the caller may use.", body = Problem),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    waiting: Result<Query<Waiting>, QueryRejection>,
    Input(asked): Input<CreateMigration>,
) -> Result<Response, ApiError> {
    let Query(waiting) = waiting?;
    let limit = waiting.limit()?;
    let news = app.migrations.news();
    let id = begin(&app, &caller, asked).await?;
    let migration = wait(&app, &caller, id, news, limit).await?;
    let status = ended_or_not(&migration);
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/migrations/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    Ok((status, headers, Json(migration)).into_response())
}

/// The migration when it has ended, or as it stands after `limit`.
async fn wait(
    app: &App,
    caller: &Caller,
    id: MigrationId,
    mut news: broadcast::Receiver<MigrationId>,
    limit: Option<Duration>,
) -> Result<Migration, ApiError> {
    let mut stopping = app.stopping.clone();
    let deadline = tokio::time::Instant::now() + limit.unwrap_or_default();
    loop {
        let migration = visible(app, caller, &id.to_string()).await?;
        if migration.state.is_ended() {
            return Ok(migration);
        }
        tokio::select! {
            changed = changed(&mut news, id) => {
                if changed.is_none() {
                    return Ok(migration);
                }
            }
            () = tokio::time::sleep_until(deadline) => return Ok(migration),
            _ = stopping.changed() => return Ok(migration),
        }
    }
}

/// Waits until there may be news of `id`; `None`: there will be none any more.
async fn changed(news: &mut broadcast::Receiver<MigrationId>, id: MigrationId) -> Option<()> {
    loop {
        match news.recv().await {
            Ok(about) if about == id => return Some(()),
            Ok(_) => {}
            // Among what was missed may be the one waited for.
            Err(RecvError::Lagged(_)) => return Some(()),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// One migration.
#[utoipa::path(
    get, path = "/v1/migrations/{migration}", tag = "migrations", operation_id = "show_migration",
    params(("migration" = String, Path, description = "Its id."), Waiting),
    responses((status = 200, body = Migration), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 422, body = Problem))
)]
async fn show(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
    waiting: Result<Query<Waiting>, QueryRejection>,
) -> Result<Json<Migration>, ApiError> {
    let Query(waiting) = waiting?;
    let limit = waiting.limit()?;
    let news = app.migrations.news();
    let migration = visible(&app, &caller, &id).await?;
    Ok(Json(wait(&app, &caller, migration.id, news, limit).await?))
}

/// What the ledger has of a migration, the oldest first: its decisions, its permit, its phases. A
/// container's owner reads of the ledger what concerns their own moves.
#[utoipa::path(
    get, path = "/v1/migrations/{migration}/entries", tag = "migrations",
    operation_id = "list_migration_entries",
    params(("migration" = String, Path, description = "Its id."), EntryPart),
    responses((status = 200, body = Vec<LedgerEntry>), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 422, body = Problem))
)]
async fn entries(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
    part: Result<Query<EntryPart>, QueryRejection>,
) -> Result<Json<Vec<LedgerEntry>>, ApiError> {
    // What is not there is not there, whatever is asked of it.
    visible(&app, &caller, &id).await?;
    let Query(part) = part?;
    Ok(Json(entries_of(&app, &caller, &id, &part).await?))
}

/// One of a migration's entries, with the proof that the ledger has it.
#[utoipa::path(
    get, path = "/v1/migrations/{migration}/entries/{number}", tag = "migrations",
    operation_id = "show_migration_entry",
    params(
        ("migration" = String, Path, description = "Its id."),
        ("number" = String, Path, description = "The entry's number in the ledger."),
    ),
    responses((status = 200, body = ProvenEntry), (status = 404, body = Problem))
)]
async fn proven_entry(
    State(app): State<App>,
    NamedPair(id, number): NamedPair,
    caller: Caller,
) -> Result<Json<ProvenEntry>, ApiError> {
    Ok(Json(prove_entry_of(&app, &caller, &id, &number).await?))
}

/// Cancels a migration of a container of the caller's, or, for an administrator, anyone's: it will
/// not be committed, and the container goes on at its source as it was. Asked again, nothing changes.
///
/// Answered at once, or, with `wait`, when it has ended.
#[utoipa::path(
    post, path = "/v1/migrations/{migration}/cancel", tag = "migrations",
    operation_id = "cancel_migration",
    params(("migration" = String, Path, description = "Its id."), Waiting),
    responses(
        (status = 202, description = "It is being undone.", body = Migration),
        (status = 200, description = "It has ended within the time waited.", body = Migration),
        (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "It is past its commit, or has ended.", body = Problem),
        (status = 422, body = Problem),
    )
)]
async fn cancel(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
    waiting: Result<Query<Waiting>, QueryRejection>,
) -> Result<(StatusCode, Json<Migration>), ApiError> {
    let Query(waiting) = waiting?;
    let limit = waiting.limit()?;
    let news = app.migrations.news();
    let id = call_off(&app, &caller, &id).await?;
    let migration = wait(&app, &caller, id, news, limit).await?;
    Ok((ended_or_not(&migration), Json(migration)))
}

/// Whether the caller may cancel it. Who may see it, an auditor say, may not therefore.
fn may_cancel(caller: &Caller, record: &MigrationRecord) -> bool {
    caller.is(Role::Administrator) || record.owner == caller.account
}

/// Whether the caller could cancel it now.
pub(crate) async fn can_be_cancelled(
    app: &App,
    caller: &Caller,
    migration: &Migration,
) -> Result<bool, ApiError> {
    let record = app.store.migration(migration.id).await?;
    Ok(record.is_some_and(|record| record.can_be_cancelled && may_cancel(caller, &record)))
}

/// Has it be undone; returns at once.
pub(crate) async fn call_off(
    app: &App,
    caller: &Caller,
    id: &str,
) -> Result<MigrationId, ApiError> {
    let missing = || ApiError::not_found("migration", id);
    let parsed: MigrationId = id.parse().map_err(|_| missing())?;
    let record = app.store.migration(parsed).await?;
    let migration = record
        .filter(|record| may_cancel(caller, record))
        .ok_or_else(missing)?
        .migration;
    match app.migrations.cancel(parsed, caller.account).await? {
        Ok(()) => Ok(parsed),
        Err(phase) => Err(ApiError::conflict(too_late(&migration, phase))),
    }
}

/// Why a migration that has come to `phase` cannot be cancelled, and what can be done instead.
fn too_late(migration: &Migration, phase: Phase) -> String {
    let name = &migration.container_name;
    let source = &migration.source_name;
    let target = migration.target_name.as_deref().unwrap_or("its target");
    match phase {
        Phase::Completed => format!(
            "the migration has completed: `{name}` is on `{target}`; to move it back: carnet migrate {name} --to {source}"
        ),
        phase if phase.is_ended() => {
            format!("the migration has ended ({phase}): `{name}` is on `{source}` as it was")
        }
        phase => format!(
            "the migration is past its commit ({phase}): `{name}` is `{target}`'s now, and there is only forward; wait for its end, then move it back: carnet migrate {name} --to {source}"
        ),
    }
}

/// Declares an edge of a migration lost, where the migration waits for it in vain: it goes on
/// without. Asked again, nothing changes.
///
/// After the commit, a target that is declared lost is not asked whether it still runs the container:
/// the source goes on as it was when it was frozen or stopped, and what the container did since is
/// lost. If the target is only cut off, there are two running copies until it can be reached; then it
/// removes its own. Whoever declares it lost says that this is not so, and the ledger keeps who did.
#[utoipa::path(
    post, path = "/v1/migrations/{migration}/give-up", tag = "migrations",
    operation_id = "give_up_migration",
    params(("migration" = String, Path, description = "Its id."), Waiting),
    request_body = GiveUp,
    responses(
        (status = 202, description = "It goes on without the edge.", body = Migration),
        (status = 200, description = "It has ended within the time waited.", body = Migration),
        (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 409, description = "It does not wait for that edge in vain.", body = Problem),
        (status = 422, body = Problem),
    )
)]
async fn give_up(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
    waiting: Result<Query<Waiting>, QueryRejection>,
    Input(asked): Input<GiveUp>,
) -> Result<(StatusCode, Json<Migration>), ApiError> {
    let Query(waiting) = waiting?;
    let limit = waiting.limit()?;
    let migration = visible(&app, &caller, &id).await?;
    let (part, edge) = match asked.lost {
        LostEdge::Source => (Part::Source, Some(migration.source_name.as_str())),
        LostEdge::Target => (Part::Target, migration.target_name.as_deref()),
    };
    let edge = edge.unwrap_or("its target");
    let news = app.migrations.news();
    let declared = app
        .migrations
        .declare_lost(migration.id, part, caller.account);
    match declared.await? {
        Ok(()) => {}
        Err(NotLost::NotWaitedFor(phase)) => {
            return Err(ApiError::conflict(format!(
                "the migration does not wait for `{edge}` ({phase})"
            )));
        }
        Err(NotLost::NotInVain) => {
            return Err(ApiError::conflict(format!(
                "`{edge}` has not been asked in vain: it may do what it is asked"
            )));
        }
    }
    let migration = wait(&app, &caller, migration.id, news, limit).await?;
    Ok((ended_or_not(&migration), Json(migration)))
}

fn ended_or_not(migration: &Migration) -> StatusCode {
    if migration.state.is_ended() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    }
}

/// The migration each time it changes, until it has ended: server-sent events named `migration`,
/// each with the whole migration as its data.
#[utoipa::path(
    get, path = "/v1/migrations/{migration}/events", tag = "migrations",
    operation_id = "follow_migration",
    params(("migration" = String, Path, description = "Its id.")),
    responses(
        (status = 200, description = "Server-sent events.", body = String, content_type = "text/event-stream"),
        (status = 404, body = Problem),
    )
)]
async fn events(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    let news = app.migrations.news();
    let migration = visible(&app, &caller, &id).await?;
    let stopping = app.stopping.clone();
    let follower = Follower {
        id: migration.id,
        app,
        caller,
        news,
        stopping,
        next: Some(migration),
    };
    Ok(Sse::new(follower.stream()).keep_alive(KeepAlive::default()))
}

struct Follower {
    app: App,
    caller: Caller,
    id: MigrationId,
    news: broadcast::Receiver<MigrationId>,
    stopping: watch::Receiver<()>,
    /// What is told next, where it is known already.
    next: Option<Migration>,
}

impl Follower {
    fn stream(self) -> impl Stream<Item = Result<Event, axum::Error>> {
        stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            let migration = follower.next().await?;
            let ended = migration.state.is_ended();
            let event = Event::default().event("migration").json_data(&migration);
            Some((event, (!ended).then_some(follower)))
        })
    }

    /// `None` ends the stream: who wants to know more asks again.
    async fn next(&mut self) -> Option<Migration> {
        if let Some(known) = self.next.take() {
            return Some(known);
        }
        tokio::select! {
            changed = changed(&mut self.news, self.id) => changed?,
            _ = self.stopping.changed() => return None,
        }
        visible(&self.app, &self.caller, &self.id.to_string())
            .await
            .ok()
    }
}
