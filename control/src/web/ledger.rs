use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use carnet_api::v1::{LedgerEntry, Stay, Witness};
use carnet_core::instant::UnixMillis;
use serde::Deserialize;
use serde_json::Value;

use super::access::Visitor;
use super::form::{Field, Form, Kind};
use super::page::{Frame, page, shown};
use super::paging::{Asked, Paged, ROWS, cut};
use super::words::{Sign, utc};
use crate::http::App;
use crate::http::ledger::{self, Wanted, Whereabouts};
use crate::http::problem::{ApiError, Named};

/// How many entries a page shows.
const SHOWN: u32 = 50;

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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    kind: String,
    container: String,
    edge: String,
    from: Option<u64>,
}

fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn filter_form(filter: &Filter) -> Form {
    let mut kinds = vec![(String::new(), "every kind".to_owned())];
    kinds.extend(KINDS.map(|kind| (kind.to_owned(), kind.to_owned())));
    Form::new(vec![
        Field::new("kind", "Kind", Kind::Choice(kinds)).value(&filter.kind),
        Field::new("container", "Container", Kind::Text)
            .value(&filter.container)
            .hint("Name or id."),
        Field::new("edge", "Edge", Kind::Text)
            .value(&filter.edge)
            .hint("Name or id."),
    ])
}

/// An entry in a list.
struct EntryRow {
    number: u64,
    at: String,
    kind: String,
    verdict: Option<Sign>,
    /// What it says besides, in names where they are known.
    says: Vec<(String, String)>,
}

/// Ids and what they are called. Names are not in the ledger: they are told as they are now.
async fn names(app: &App, entries: &[LedgerEntry]) -> Result<HashMap<String, String>, ApiError> {
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

fn entry_row(entry: &LedgerEntry, names: &HashMap<String, String>) -> EntryRow {
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
    }
}

#[derive(Template)]
#[template(path = "entries.html")]
struct EntriesPage {
    frame: Frame,
    form: Form,
    rows: Vec<EntryRow>,
    size: u64,
    checkpoint: String,
    verifier_key: String,
    witnesses: Vec<Witness>,
    /// From which entries on the pages before and after this one go.
    earlier: Option<u64>,
    later: Option<u64>,
    filter: Filter,
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(filter) = filter?;
    let checkpoint = ledger::checkpoint(&app).await?;
    let size = checkpoint.size;
    let wanted = Wanted {
        kind: filled(&filter.kind),
        container: filled(&filter.container),
        edge: filled(&filter.edge),
        limit: Some(SHOWN),
        ..Wanted::default()
    };
    let is_filtered = wanted.kind.is_some() || wanted.container.is_some() || wanted.edge.is_some();
    // Without a filter, the newest.
    let newest = size.saturating_sub(SHOWN.into());
    let from = filter.from.unwrap_or(if is_filtered { 0 } else { newest });
    let wanted = Wanted {
        from: Some(from),
        ..wanted
    };
    let form = filter_form(&filter);
    let (status, form, found) = match ledger::find(&app, wanted).await {
        Ok(found) => (StatusCode::OK, form, found),
        Err(error) => (error.status(), form.refused(error)?, Vec::new()),
    };
    let names = names(&app, &found).await?;
    let is_full = u32::try_from(found.len()).is_ok_and(|count| count == SHOWN);
    let listed = EntriesPage {
        frame: Frame::of(&visitor),
        form,
        rows: found.iter().map(|entry| entry_row(entry, &names)).collect(),
        size,
        checkpoint: checkpoint.cosigned(),
        verifier_key: app.verifier_key.to_string(),
        witnesses: ledger::standing(&app),
        earlier: (!is_filtered && from > 0).then(|| from.saturating_sub(SHOWN.into())),
        later: found
            .last()
            .map(|last| last.number + 1)
            .filter(|next| is_full && *next < size),
        filter,
    };
    page(status, &listed)
}

#[derive(Template)]
#[template(path = "entry.html")]
struct EntryPage {
    frame: Frame,
    row: EntryRow,
    /// The entry, indented.
    text: String,
    proof: Vec<String>,
    checkpoint: String,
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Named(number): Named,
) -> Result<Response, ApiError> {
    let proven = ledger::prove(&app, &number).await?;
    let text = serde_json::to_string_pretty(&proven.entry.entry)
        .map_err(|error| ApiError::internal(&error))?;
    shown(&EntryPage {
        frame: Frame::of(&visitor),
        row: entry_row(
            &proven.entry,
            &names(&app, std::slice::from_ref(&proven.entry)).await?,
        ),
        text,
        proof: proven.proof,
        checkpoint: proven.checkpoint,
    })
}

/// Of which container, and in which country.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Where {
    container: String,
    country: String,
    page: Option<u32>,
}

/// A stay in a list.
struct StayRow {
    container: String,
    edge: String,
    country: String,
    since: String,
    until: String,
    lasts: bool,
    revisions: String,
    decision: Option<u64>,
}

fn stay_row(stay: Stay) -> StayRow {
    StayRow {
        container: stay
            .container_name
            .unwrap_or_else(|| stay.container.to_string()),
        edge: stay.edge_name,
        country: stay.country.unwrap_or_else(|| "–".to_owned()),
        since: utc(stay.since_at_ms),
        lasts: stay.until_at_ms.is_none(),
        until: stay.until_at_ms.map_or_else(|| "now".to_owned(), utc),
        revisions: format!(
            "requirements {}, attributes {}",
            stay.requirements_revision, stay.attributes_revision
        ),
        decision: stay.decision,
    }
}

#[derive(Template)]
#[template(path = "stays.html")]
struct StaysPage {
    frame: Frame,
    form: Form,
    list: Paged<StayRow>,
}

pub(super) async fn stays(
    State(app): State<App>,
    visitor: Visitor,
    asked: Result<Query<Where>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(asked) = asked?;
    let whereabouts = Whereabouts {
        container: filled(&asked.container),
        country: filled(&asked.country),
    };
    let form = Form::new(vec![
        Field::new("container", "Container", Kind::Text)
            .value(&asked.container)
            .hint("Name or id."),
        Field::new("country", "Country", Kind::Text)
            .value(&asked.country)
            .hint("Two letters, such as jp."),
    ]);
    let (status, form, found) = match ledger::stays_of(&app, &whereabouts).await {
        Ok(found) => (StatusCode::OK, form, found),
        Err(error) => (error.status(), form.refused(error)?, Vec::new()),
    };
    let address = Asked::new("/stays")
        .with("container", asked.container.as_str())
        .with("country", asked.country.as_str())
        .with_page("page", asked.page);
    let listed = StaysPage {
        frame: Frame::of(&visitor),
        form,
        list: cut(&address, "page", asked.page, ROWS, found).map(stay_row),
    };
    page(status, &listed)
}
