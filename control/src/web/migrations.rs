use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{
    Attempt, AttemptOutcome, ContainerState, CreateAudit, CreateMigration, DestinationSpec,
    LedgerEntry, Migration, MigrationState, NeedsOperator, Reason, Role, StallPlace, Strategy,
};
use serde::Deserialize;
use serde_json::Value;

use super::access::Visitor;
use super::choice;
use super::containers::{PREVIEWED, regions};
use super::fields::Fields;
use super::ledger::{permit_text, proof_file};
use super::page::{Frame, page, shown};
use super::paging::{Asked, Paged, cut, listing, paged};
use super::permit::PermitText;
use super::progress;
use super::words::{Sign, Use, ago, bytes, milliseconds, utilization};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::migrations::EntryPart;
use crate::http::problem::{ApiError, Named, NamedPair};
use crate::http::{audits, containers, migrations};

/// How many of its attempts, and of its entries, a migration's page shows at a time.
const ROWS: u32 = 20;
/// How many entries of a migration are read.
const ENTRIES: u32 = 1_000;

/// One candidate, audited.
pub(super) struct AttemptRow {
    pub edge: String,
    pub verdict: Sign,
    pub is_permitted: bool,
    pub reasons: Vec<Reason>,
    pub problems: Vec<String>,
    pub utilization: Option<Use>,
    /// What tells it from others that are permitted, where one is chosen.
    pub decides: Vec<String>,
    /// Comparing, and reading the utilization.
    pub took: String,
}

pub(super) fn attempt_rows<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Vec<AttemptRow> {
    let now = clock::now();
    attempts
        .into_iter()
        .map(|attempt| {
            let (verdict, reasons, problems) = match &attempt.outcome {
                AttemptOutcome::Permitted => {
                    (Sign::new("good", "permitted"), Vec::new(), Vec::new())
                }
                AttemptOutcome::Denied { reasons } => {
                    (Sign::new("bad", "denied"), reasons.clone(), Vec::new())
                }
                AttemptOutcome::NotReady { problems } => (
                    Sign::new("warn", "permitted, not ready"),
                    Vec::new(),
                    problems.clone(),
                ),
            };
            AttemptRow {
                edge: attempt.edge_name.clone(),
                is_permitted: attempt.outcome == AttemptOutcome::Permitted,
                verdict,
                reasons,
                problems,
                utilization: attempt
                    .utilization
                    .as_ref()
                    .map(|reading| utilization(reading, now)),
                decides: Vec::new(),
                took: milliseconds((attempt.compare_micros + attempt.reading_micros) / 1e3),
            }
        })
        .collect()
}

fn state(state: MigrationState) -> Sign {
    match state {
        MigrationState::Admitting => Sign::new("warn", "being audited"),
        MigrationState::Preparing => Sign::new("warn", "preparing"),
        MigrationState::CopyingAhead => Sign::new("warn", "copying ahead"),
        MigrationState::HandingOver => Sign::new("warn", "handing over"),
        MigrationState::Committing => Sign::new("warn", "committing"),
        MigrationState::Restoring => Sign::new("warn", "restoring"),
        MigrationState::Settling => Sign::new("warn", "waiting for the rest of its memory"),
        MigrationState::Releasing => Sign::new("warn", "releasing the source"),
        MigrationState::WithdrawingTarget => Sign::new("warn", "withdrawing the target"),
        MigrationState::TakingBack => Sign::new("warn", "taking back"),
        MigrationState::ResumingSource => Sign::new("warn", "resuming the source"),
        MigrationState::DiscardingTarget => Sign::new("warn", "discarding at the target"),
        MigrationState::Completed => Sign::new("good", "completed"),
        MigrationState::Denied => Sign::new("bad", "denied"),
        MigrationState::Failed => Sign::new("bad", "failed"),
        MigrationState::Cancelled => Sign::new("warn", "cancelled"),
    }
}

fn destination(to: &DestinationSpec) -> String {
    match to {
        DestinationSpec::Edge(edge) => format!("edge {edge}"),
        DestinationSpec::Region(region) => format!("region {region}"),
        DestinationSpec::Anywhere(_) => "anywhere".to_owned(),
    }
}

/// A migration in a list.
pub(super) struct MigrationRow {
    pub id: String,
    pub container: String,
    pub source: String,
    pub asked: String,
    pub target: String,
    pub state: Sign,
    pub begun: String,
    pub took: String,
    pub stall: String,
}

impl MigrationRow {
    pub(super) fn of(migration: &Migration) -> Self {
        let took = migration
            .ended_at_ms
            .map(|ended| ended.0 - migration.created_at_ms.0)
            .and_then(|ms| u32::try_from(ms).ok());
        let none = || "–".to_owned();
        Self {
            id: migration.id.to_string(),
            container: migration.container_name.clone(),
            source: migration.source_name.clone(),
            asked: destination(&migration.to),
            target: migration.target_name.clone().unwrap_or_else(none),
            state: state(migration.state),
            begun: ago(migration.created_at_ms, clock::now()),
            took: took.map_or_else(none, |ms| milliseconds(ms.into())),
            stall: migration.stall_ms.map_or_else(none, milliseconds),
        }
    }
}

#[derive(Template)]
#[template(path = "migrations.html")]
struct MigrationsPage {
    frame: Frame,
    search: String,
    list: Paged<MigrationRow>,
    is_moving: bool,
}

/// Which part of the list is to be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    search: String,
    page: Option<u32>,
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    let asked = Asked::new("/migrations")
        .with("search", part.search.as_str())
        .with_page("page", part.page);
    let listing = listing(&part.search, part.page);
    let wanted = migrations::Wanted {
        container: None,
        search: listing.search,
        offset: listing.offset,
        limit: listing.limit,
    };
    let found = migrations::listed(&app, &caller, wanted).await?;
    let list = paged(&asked, "page", part.page, found);
    shown(&MigrationsPage {
        frame: Frame::of(&visitor),
        search: part.search,
        is_moving: list
            .rows
            .iter()
            .any(|migration| !migration.state.is_ended()),
        list: list.map(|migration| MigrationRow::of(&migration)),
    })
}

/// A phase of a move.
struct PhaseRow {
    state: Sign,
    took: String,
}

/// A step of what was done while the container stood still, as a bar.
struct StepRow {
    step: String,
    /// A class of the style sheet.
    place: &'static str,
    /// In thousandths of the whole.
    begins: u32,
    lasts: u32,
    took: String,
}

/// An entry of the ledger, about a move.
struct EntryOfMove {
    number: u64,
    kind: String,
    /// The bytes that are hashed, as text.
    text: String,
}

/// Which part of its lists a migration's page shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parts {
    attempts: Option<u32>,
    entries: Option<u32>,
}

#[derive(Template)]
#[template(path = "migration.html")]
struct MigrationPage {
    frame: Frame,
    row: MigrationRow,
    is_ended: bool,
    failure: Option<String>,
    waiting_for: Option<String>,
    needs_operator: Option<NeedsOperator>,
    is_being_cancelled: bool,
    can_be_cancelled: bool,
    strategy: Option<String>,
    /// What is on its way now.
    sending: Option<String>,
    sent: Option<[String; 4]>,
    rate: Option<String>,
    left: Option<String>,
    phases: Vec<PhaseRow>,
    steps: Vec<StepRow>,
    attempts: Paged<AttemptRow>,
    entries: Paged<EntryOfMove>,
    permit: Option<PermitText>,
    /// The key that the ledger's checkpoints are verified with.
    verifier_key: String,
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::StopAndCopy => "stop and copy",
        Strategy::PostCopy => "post-copy",
        Strategy::PreCopy => "pre-copy",
        Strategy::Cold => "cold",
    }
}

fn steps(migration: &Migration) -> Vec<StepRow> {
    let whole = migration
        .stall_steps
        .iter()
        .map(|step| step.ended_ms)
        .fold(1.0, f64::max);
    // Within 0 to 1,000, and a bar is seen however short it is.
    let thousandths = |ms: f64| (ms / whole * 1_000.0).clamp(0.0, 1_000.0) as u32;
    migration
        .stall_steps
        .iter()
        .map(|step| {
            let begins = thousandths(step.began_ms).min(995);
            StepRow {
                step: step.step.clone(),
                place: match step.place {
                    StallPlace::Source => "source",
                    StallPlace::Control => "control",
                    StallPlace::Target => "target",
                },
                begins,
                lasts: thousandths(step.ended_ms).saturating_sub(begins).max(5),
                took: milliseconds(step.ended_ms - step.began_ms),
            }
        })
        .collect()
}

fn entry(entry: LedgerEntry) -> EntryOfMove {
    let kind = entry.entry.get("kind").and_then(Value::as_str);
    EntryOfMove {
        number: entry.number,
        kind: kind.unwrap_or_default().to_owned(),
        text: entry.entry.to_string(),
    }
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(id): Named,
    parts: Result<Query<Parts>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(parts) = parts?;
    let migration = migrations::visible(&app, &caller, &id).await?;
    let address = Asked::new(format!("/migrations/{}", migration.id))
        .with_page("attempts", parts.attempts)
        .with_page("entries", parts.entries);
    let all = EntryPart {
        from: None,
        limit: Some(ENTRIES),
    };
    let entries = migrations::entries_of(&app, &caller, &id, &all).await?;
    let permit = match entries
        .iter()
        .find(|entry| entry.entry.get("kind").is_some_and(|kind| kind == "permit"))
    {
        Some(entry) => permit_text(&app, entry).await?,
        None => None,
    };
    let attempts = cut(
        &address,
        "attempts",
        parts.attempts,
        ROWS,
        attempt_rows(&migration.attempts),
    );
    let left = if migration.state.is_ended() {
        None
    } else {
        let earlier = choice::completed(&app, &caller, &migration.container.to_string()).await?;
        let last = earlier.first();
        last.and_then(|last| progress::left(&migration, last, clock::now()))
    };
    let sent = migration.transferred;
    shown(&MigrationPage {
        frame: Frame::of(&visitor),
        row: MigrationRow::of(&migration),
        is_ended: migration.state.is_ended(),
        failure: migration.failure.clone(),
        waiting_for: migration.waiting_for.clone(),
        needs_operator: migration.needs_operator.clone(),
        is_being_cancelled: migration.cancel_asked_at_ms.is_some() && !migration.state.is_ended(),
        can_be_cancelled: caller.is(Role::ContainerOwner)
            && migrations::can_be_cancelled(&app, &caller, &migration).await?,
        sending: migration.sending.map(|sending| {
            let [sent, rate] = [sending.bytes, sending.bytes_per_s].map(bytes);
            format!("{sent}, at {rate}/s now")
        }),
        strategy: migration
            .strategy
            .as_ref()
            .map(|chosen| format!("{}: {}", strategy(chosen.strategy), chosen.reason)),
        rate: progress::rate(&migration),
        left,
        sent: (sent.sum() > 0).then(|| {
            [
                bytes(sent.rootfs_ahead_bytes),
                bytes(sent.memory_ahead_bytes),
                bytes(sent.rootfs_difference_bytes),
                bytes(sent.image_bytes),
            ]
        }),
        phases: migration
            .timings
            .iter()
            .filter(|timing| !timing.state.is_ended())
            .map(|timing| PhaseRow {
                state: state(timing.state),
                took: timing
                    .duration_ms
                    .map_or_else(|| "now".to_owned(), milliseconds),
            })
            .collect(),
        steps: steps(&migration),
        attempts,
        entries: cut(&address, "entries", parts.entries, ROWS, entries).map(entry),
        permit,
        verifier_key: app.verifier_key.to_string(),
    })
}

/// An entry of a migration with its proof, as a file.
pub(super) async fn proof(
    State(app): State<App>,
    caller: Caller,
    NamedPair(id, number): NamedPair,
) -> Result<Response, ApiError> {
    proof_file(&migrations::prove_entry_of(&app, &caller, &id, &number).await?)
}

pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named,
) -> Result<Response, ApiError> {
    migrations::call_off(&app, &caller, &id).await?;
    Ok(Redirect::to(&format!("/migrations/{id}")).into_response())
}

#[derive(Template)]
#[template(path = "move.html")]
struct MovePage {
    frame: Frame,
    container: String,
    name: String,
    edge: String,
    allow_post_copy: bool,
    /// It was seen stopped.
    is_stopped: bool,
    regions: Vec<String>,
    /// The edges that could be gone to, the best first, once it was asked.
    attempts: Option<Vec<AttemptRow>>,
    /// How many are not listed.
    more: usize,
    /// And how many of those are permitted.
    more_permitted: usize,
    /// For how long it stood still before.
    stalls: Vec<String>,
    terms: TypedTerms,
    problem: Option<String>,
}

/// How the move is to be carried out, as it was typed.
#[derive(Debug, Clone, Default)]
struct TypedTerms {
    strategy: String,
    /// In milliseconds.
    max_downtime: String,
    /// In MB a second.
    bandwidth: String,
}

impl TypedTerms {
    fn of(typed: &Fields) -> Self {
        let text = |name| typed.text(name).trim().to_owned();
        Self {
            strategy: text("strategy"),
            max_downtime: text("max_downtime"),
            bandwidth: text("bandwidth"),
        }
    }

    fn strategy(&self) -> Option<Strategy> {
        match self.strategy.as_str() {
            "stop_and_copy" => Some(Strategy::StopAndCopy),
            "post_copy" => Some(Strategy::PostCopy),
            "pre_copy" => Some(Strategy::PreCopy),
            "cold" => Some(Strategy::Cold),
            _ => None,
        }
    }

    fn max_downtime_ms(&self) -> Result<Option<u64>, String> {
        if self.max_downtime.is_empty() {
            return Ok(None);
        }
        self.max_downtime.parse().map(Some).map_err(|_| {
            format!(
                "how long it may stand still: `{}` is not a whole number of milliseconds",
                self.max_downtime
            )
        })
    }

    fn bandwidth_bytes_per_s(&self) -> Result<Option<u64>, String> {
        if self.bandwidth.is_empty() {
            return Ok(None);
        }
        match self.bandwidth.parse::<f64>() {
            Ok(megabytes) if megabytes.is_finite() && megabytes > 0.0 => {
                Ok(Some((megabytes * 1e6) as u64))
            }
            _ => Err(format!(
                "how much of the link it may take: `{}` is not a number of MB a second",
                self.bandwidth
            )),
        }
    }
}

async fn move_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    named: &str,
) -> Result<MovePage, ApiError> {
    let container = containers::owned(app, caller, named).await?;
    let moves = choice::completed(app, caller, &container.id.to_string()).await?;
    Ok(MovePage {
        frame: Frame::of(visitor),
        container: container.id.to_string(),
        name: container.name,
        edge: container.edge_name,
        allow_post_copy: container.allow_post_copy,
        is_stopped: container.state == ContainerState::Stopped,
        regions: regions(app, caller).await?,
        attempts: None,
        more: 0,
        more_permitted: 0,
        stalls: choice::stalls(&moves),
        terms: TypedTerms::default(),
        problem: None,
    })
}

pub(super) async fn move_form(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    shown(&move_page(&app, &visitor, &caller, &name).await?)
}

/// The page again, with what is wrong.
async fn refused(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    name: &str,
    terms: TypedTerms,
    error: ApiError,
) -> Result<Response, ApiError> {
    if !matches!(error.0.status, 409 | 422) {
        return Err(error);
    }
    let mut again = move_page(app, visitor, caller, name).await?;
    again.terms = terms;
    again.problem = Some(error.to_string());
    page(error.status(), &again)
}

/// Audits every edge. A dry run is entered into the ledger: it is sent as a form, and not loaded
/// as a page.
pub(super) async fn audit(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let asked = CreateAudit {
        container: name.clone(),
        to: DestinationSpec::Anywhere(true),
    };
    match audits::dry_run(&app, &caller, asked).await {
        Ok(report) => {
            let mut again = move_page(&app, &visitor, &caller, &name).await?;
            let moves = choice::completed(&app, &caller, &again.container).await?;
            let mut rows = choice::rows(&app, &caller, report.attempts, &moves).await?;
            let more = rows.split_off(rows.len().min(PREVIEWED));
            again.more = more.len();
            again.more_permitted = more.iter().filter(|row| row.is_permitted).count();
            again.attempts = Some(rows);
            shown(&again)
        }
        Err(error) => {
            let terms = TypedTerms::default();
            refused(&app, &visitor, &caller, &name, terms, error).await
        }
    }
}

/// What is asked for, as the form says it; all that is wrong with it.
fn asked(container: &str, typed: &Fields, terms: &TypedTerms) -> Result<CreateMigration, ApiError> {
    match (
        chosen(typed),
        terms.max_downtime_ms(),
        terms.bandwidth_bytes_per_s(),
    ) {
        (Ok(to), Ok(max_downtime_ms), Ok(bandwidth_bytes_per_s)) => Ok(CreateMigration {
            container: container.to_owned(),
            to,
            strategy: terms.strategy(),
            max_downtime_ms,
            bandwidth_bytes_per_s,
        }),
        (to, max_downtime_ms, bandwidth_bytes_per_s) => {
            let faults = [to.err(), max_downtime_ms.err(), bandwidth_bytes_per_s.err()];
            let faults: Vec<String> = faults.into_iter().flatten().collect();
            Err(ApiError::refused_input(faults.join("; ")))
        }
    }
}

/// Where to, as the form says it.
fn chosen(typed: &Fields) -> Result<DestinationSpec, String> {
    match typed.text("to").split_once(':') {
        Some(("edge", edge)) => Ok(DestinationSpec::Edge(edge.to_owned())),
        Some(("region", region)) => Ok(DestinationSpec::Region(region.to_owned())),
        Some(("anywhere", _)) => Ok(DestinationSpec::Anywhere(true)),
        _ => Err("choose where it is to go: an edge, a region, or anywhere".to_owned()),
    }
}

pub(super) async fn begin(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    // Another's container: there is none, whatever was chosen.
    containers::owned(&app, &caller, &name).await?;
    let terms = TypedTerms::of(&typed);
    let begun = match asked(&name, &typed, &terms) {
        Ok(asked) => migrations::begin(&app, &caller, asked).await,
        Err(error) => Err(error),
    };
    match begun {
        Ok(id) => Ok(Redirect::to(&format!("/migrations/{id}")).into_response()),
        Err(error) => refused(&app, &visitor, &caller, &name, terms, error).await,
    }
}
