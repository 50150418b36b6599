use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use carnet_api::v1::{LedgerEntry, LedgerVerification, ProvenEntry, Reason, Witness};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Entry, Event};
use carnet_core::policy::Verdict;
use serde::Deserialize;
use serde_json::Value;

use super::access::Visitor;
use super::form::{Field, Form, Kind};
use super::page::{Frame, download, page, shown};
use super::paging::{Asked, ROWS};
use super::permit::{self, PermitText};
use super::words::{Sign, parse_utc, utc};
use crate::http::App;
use crate::http::ledger::{self, Wanted};
use crate::http::problem::{ApiError, Named};
use crate::http::verification;

/// What the page calls decisions, and what became of them.
const MOVES: &str = "moves";
/// The kinds that these are.
const KINDS_OF_MOVES: &str = "decision,permit,migration,cancel,lost,refusal";

/// Kinds of entries that are asked for often.
const KINDS: [&str; 11] = [
    "decision",
    "permit",
    "migration",
    "refusal",
    "requirements",
    "attributes",
    "grant",
    "confirmed",
    "certificate",
    "account",
    "key",
];

/// Which entries are to be shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    kind: String,
    container: String,
    owner: String,
    edge: String,
    country: String,
    organization: String,
    verdict: String,
    since: String,
    until: String,
    from: Option<u64>,
    before: Option<u64>,
}

pub(super) fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Filter {
    /// Whether it keeps anything back.
    fn is_any(&self) -> bool {
        self.asked().query().is_empty()
    }

    /// The page's address, without which part of the list is shown.
    fn asked(&self) -> Asked {
        Asked::new("/entries")
            .with("kind", self.kind.trim())
            .with("container", self.container.trim())
            .with("owner", self.owner.trim())
            .with("edge", self.edge.trim())
            .with("country", self.country.trim())
            .with("organization", self.organization.trim())
            .with("verdict", self.verdict.trim())
            .with("since", self.since.trim())
            .with("until", self.until.trim())
    }

    /// The same, as the API is asked; whole.
    ///
    /// # Errors
    /// Where a time cannot be read.
    pub(super) fn wanted(&self) -> Result<Wanted, ApiError> {
        let mut faults = Vec::new();
        let mut instant = |place: &str, text: &str| {
            let text = filled(text)?;
            let instant = parse_utc(&text);
            if instant.is_none() {
                let allowed = "a day or a minute, such as `2026-11-24` or `2026-11-24 13:05`";
                let fault = ApiError::fault(place, &text, "not a time", allowed);
                faults.extend(fault.0.faults);
            }
            instant
        };
        let since = instant("since", &self.since);
        let until = instant("until", &self.until);
        if !faults.is_empty() {
            return Err(ApiError::faults(faults));
        }
        Ok(Wanted {
            kind: match filled(&self.kind) {
                Some(kind) if kind == MOVES => Some(KINDS_OF_MOVES.to_owned()),
                kind => kind,
            },
            container: filled(&self.container),
            owner: filled(&self.owner),
            edge: filled(&self.edge),
            verdict: filled(&self.verdict),
            country: filled(&self.country),
            organization: filled(&self.organization),
            since_ms: since.map(|instant| instant.0),
            until_ms: until.map(|instant| instant.0),
            ..Wanted::default()
        })
    }

    fn form(&self) -> Form {
        let mut kinds = vec![
            (String::new(), "every kind".to_owned()),
            (MOVES.to_owned(), "decisions and moves".to_owned()),
        ];
        kinds.extend(KINDS.map(|kind| (kind.to_owned(), kind.to_owned())));
        let verdicts = [("", "any"), ("permit", "permitted"), ("deny", "denied")]
            .map(|(value, label)| (value.to_owned(), label.to_owned()))
            .to_vec();
        let chosen = |name, label, choices, value: &str| {
            Field::new(name, label, Kind::Choice(choices)).value(value)
        };
        let text = |name, label, hint: &str, value: &str| {
            Field::new(name, label, Kind::Text).value(value).hint(hint)
        };
        Form::new(vec![
            chosen("kind", "Kind", kinds, &self.kind),
            chosen("verdict", "Verdict", verdicts, &self.verdict),
            text("container", "Container", "Name or id.", &self.container),
            text("owner", "Owner", "Of the container.", &self.owner),
            text("edge", "Edge", "Name or id.", &self.edge),
            text(
                "country",
                "Country",
                "Of the edge, such as jp.",
                &self.country,
            ),
            text(
                "organization",
                "Organization",
                "Of the edge.",
                &self.organization,
            ),
            text(
                "since",
                "From",
                "UTC, such as 2026-11-24 13:05.",
                &self.since,
            ),
            text("until", "To", "Before this, UTC.", &self.until),
        ])
    }
}

/// An entry in a list.
pub(super) struct EntryRow {
    pub number: u64,
    pub at: String,
    pub kind: String,
    pub verdict: Option<Sign>,
    /// What it says besides, in names where they are known.
    pub says: Vec<(String, String)>,
    /// Why it was denied.
    pub reasons: Vec<Reason>,
    /// The number of the permit that was made of it.
    pub permit: Option<u64>,
    pub migration: Option<String>,
}

/// Ids and what they are called. Names are not in the ledger: they are told as they are now.
pub(super) async fn names(
    app: &App,
    entries: &[LedgerEntry],
) -> Result<HashMap<String, String>, ApiError> {
    let mut ids = BTreeSet::new();
    for (field, value) in entries
        .iter()
        .filter_map(|entry| entry.entry.as_object())
        .flatten()
    {
        match value {
            Value::String(text) => {
                ids.insert(text.clone());
            }
            Value::Object(of_kind) if field == "by" => {
                ids.extend(
                    of_kind
                        .values()
                        .filter_map(Value::as_str)
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
    }
    Ok(app.store.names(&ids).await?)
}

/// The permits of the migrations that entries are of, by migration.
async fn permits(app: &App, entries: &[LedgerEntry]) -> Result<HashMap<String, u64>, ApiError> {
    let migrations = entries
        .iter()
        .filter_map(|entry| entry.entry.get("migration")?.as_str())
        .map(str::to_owned);
    Ok(app.store.permit_numbers(&migrations.collect()).await?)
}

/// Entries as they are listed, in the same order.
pub(super) async fn entry_rows(
    app: &App,
    entries: &[LedgerEntry],
) -> Result<Vec<EntryRow>, ApiError> {
    let (names, permits) = (names(app, entries).await?, permits(app, entries).await?);
    Ok(entries
        .iter()
        .map(|entry| entry_row(entry, &names, &permits))
        .collect())
}

fn entry_row(
    entry: &LedgerEntry,
    names: &HashMap<String, String>,
    permits: &HashMap<String, u64>,
) -> EntryRow {
    let text = |name: &str| entry.entry.get(name).and_then(Value::as_str);
    let named = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    let mut says = Vec::new();
    for (field, value) in entry.entry.as_object().into_iter().flatten() {
        let told = match value {
            _ if ["kind", "at_ms", "verdict", "permit"].contains(&field.as_str()) => continue,
            Value::String(text) => named(text),
            // `by`: who, by their kind.
            Value::Object(of_kind) if field == "by" => of_kind
                .values()
                .filter_map(Value::as_str)
                .map(named)
                .collect(),
            Value::Number(_) | Value::Bool(_) if !field.ends_with("_ms") => value.to_string(),
            _ => continue,
        };
        says.push((field.replace('_', " "), told));
    }
    let event = serde_json::from_value::<Entry>(entry.entry.clone()).map(|entry| entry.event);
    let (reasons, permit) = match &event {
        Ok(Event::Decision(decision)) => match &decision.verdict {
            Verdict::Deny(reasons) => (reasons.iter().map(Reason::from).collect(), None),
            Verdict::Permit => {
                let migration = decision.migration.filter(|_| decision.ready);
                let permit = migration.and_then(|id| permits.get(&id.to_string()).copied());
                (Vec::new(), permit)
            }
        },
        _ => (Vec::new(), None),
    };
    EntryRow {
        number: entry.number,
        at: utc(UnixMillis(
            entry
                .entry
                .get("at_ms")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        )),
        kind: text("kind").unwrap_or_default().to_owned(),
        verdict: match text("verdict") {
            Some("permit") => Some(Sign::new("good", "permitted")),
            Some("deny") => Some(Sign::new("bad", "denied")),
            _ => None,
        },
        says,
        reasons,
        permit,
        migration: text("migration").map(str::to_owned),
    }
}

/// What the server found when it checked its own ledger.
struct Verified {
    size: u64,
    root: String,
    kinds: Vec<(String, u64)>,
    /// By name: when it cosigned, or why that does not count.
    witnesses: Vec<(String, Result<String, String>)>,
    faults: Vec<String>,
    checkpoint: String,
}

impl From<LedgerVerification> for Verified {
    fn from(found: LedgerVerification) -> Self {
        let witnesses = found.witnesses.into_iter().map(|witness| {
            let not_yet = || "it has not cosigned this checkpoint yet".to_owned();
            let told = match witness.cosigned_at_ms {
                Some(at) => Ok(utc(at)),
                None => Err(witness.problem.unwrap_or_else(not_yet)),
            };
            (witness.name, told)
        });
        Self {
            size: found.size,
            root: found.root,
            kinds: found.kinds.into_iter().collect(),
            witnesses: witnesses.collect(),
            faults: found.faults,
            checkpoint: found.checkpoint,
        }
    }
}

#[derive(Template)]
#[template(path = "entries.html")]
struct EntriesPage {
    frame: Frame,
    form: Form,
    is_filtered: bool,
    rows: Vec<EntryRow>,
    size: u64,
    checkpoint: String,
    verifier_key: String,
    witnesses: Vec<Witness>,
    /// Where the entries before and after these are.
    earlier: Option<String>,
    later: Option<String>,
    /// Where all that the filter shows is, as files.
    csv: String,
    json: String,
    verified: Option<Verified>,
}

/// The entries that `filter` shows, the newest first, and whether there are earlier and later ones.
async fn part(
    app: &App,
    filter: &Filter,
    size: u64,
) -> Result<(Vec<LedgerEntry>, bool, bool), ApiError> {
    let one_more = ROWS + 1;
    let mut wanted = Wanted {
        limit: Some(one_more),
        ..filter.wanted()?
    };
    let is_more = |found: &[LedgerEntry]| found.len() > ROWS as usize;
    let (mut found, earlier, later) = match filter.from {
        Some(from) => {
            wanted.from = Some(from);
            let mut found = ledger::find(app, &wanted).await?;
            let later = is_more(&found);
            found.truncate(ROWS as usize);
            (found, from > 0, later)
        }
        None => {
            let before = filter.before.unwrap_or(size);
            wanted.before = Some(before);
            let mut found = ledger::find(app, &wanted).await?;
            let earlier = is_more(&found);
            if earlier {
                found.remove(0);
            }
            (found, earlier, before < size)
        }
    };
    found.reverse();
    Ok((found, earlier, later))
}

async fn entries_page(
    app: &App,
    visitor: &Visitor,
    filter: &Filter,
    verified: Option<LedgerVerification>,
) -> Result<(StatusCode, EntriesPage), ApiError> {
    let checkpoint = ledger::checkpoint(app).await?;
    let size = checkpoint.size;
    let form = filter.form();
    let (status, form, (found, earlier, later)) = match part(app, filter, size).await {
        Ok(part) => (StatusCode::OK, form, part),
        Err(error) => {
            let status = error.status();
            (status, form.refused(error)?, (Vec::new(), false, false))
        }
    };
    let asked = filter.asked();
    let file = |path| match asked.query() {
        query if query.is_empty() => format!("/entries.{path}"),
        query => format!("/entries.{path}?{query}"),
    };
    let earlier = found.last().filter(|_| earlier).map(|first| first.number);
    let later = found.first().filter(|_| later).map(|last| last.number + 1);
    let page = EntriesPage {
        frame: Frame::of(visitor),
        form,
        is_filtered: !filter.is_any(),
        rows: entry_rows(app, &found).await?,
        size,
        checkpoint: checkpoint.cosigned(),
        verifier_key: app.verifier_key.to_string(),
        witnesses: ledger::standing(app),
        earlier: earlier.map(|first| asked.but("before", &first.to_string())),
        later: later.map(|next| asked.but("from", &next.to_string())),
        csv: file("csv"),
        json: file("json"),
        verified: verified.map(Into::into),
    };
    Ok((status, page))
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(filter) = filter?;
    let (status, listed) = entries_page(&app, &visitor, &filter, None).await?;
    page(status, &listed)
}

/// Has the server check all of its ledger.
pub(super) async fn verify(State(app): State<App>, visitor: Visitor) -> Result<Response, ApiError> {
    let found = verification::verify(&app).await?;
    let (status, listed) = entries_page(&app, &visitor, &Filter::default(), Some(found)).await?;
    page(status, &listed)
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage {
    frame: Frame,
    row: EntryRow,
    /// What it says, where it is a permit.
    permit: Option<PermitText>,
    /// The entry, indented.
    text: String,
    proof: Vec<String>,
    checkpoint: String,
}

/// What a permit's entry says; `None` where it is another's.
pub(super) async fn permit_text(
    app: &App,
    entry: &LedgerEntry,
) -> Result<Option<PermitText>, ApiError> {
    let Some(token) = entry.entry.get("permit").and_then(Value::as_str) else {
        return Ok(None);
    };
    let names = app.store.names(&permit::ids(token)).await?;
    Ok(permit::read(token, &names))
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Named(number): Named,
) -> Result<Response, ApiError> {
    let proven = ledger::prove(&app, &number).await?;
    let text = serde_json::to_string_pretty(&proven.entry.entry)
        .map_err(|error| ApiError::internal(&error))?;
    let of_it = std::slice::from_ref(&proven.entry);
    let row = entry_rows(&app, of_it).await?.into_iter().next();
    shown(&EntryPage {
        frame: Frame::of(&visitor),
        row: row.ok_or_else(|| ApiError::not_found("entry of the ledger", &number))?,
        permit: permit_text(&app, &proven.entry).await?,
        text,
        proof: proven.proof,
        checkpoint: proven.checkpoint,
    })
}

/// An entry with its proof, as a file.
pub(super) fn proof_file(proven: &ProvenEntry) -> Result<Response, ApiError> {
    let name = format!("entry-{}.json", proven.entry.number);
    let text = serde_json::to_string_pretty(proven).map_err(|error| ApiError::internal(&error))?;
    Ok(download(&name, "application/json", text))
}

pub(super) async fn proof(
    State(app): State<App>,
    Named(number): Named,
) -> Result<Response, ApiError> {
    proof_file(&ledger::prove(&app, &number).await?)
}
