//! What a filter of the ledger's entries lets through, as a file.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use carnet_api::v1::LedgerEntry;
use carnet_core::ledger::{Entry, Event};
use carnet_core::policy::{Reason, Verdict};
use futures_util::{Stream, StreamExt, stream};

use super::ledger::{Filter, names};
use super::page::download;
use super::words::utc;
use crate::http::App;
use crate::http::ledger::{self, Wanted};
use crate::http::problem::ApiError;

/// How many entries are held at a time.
const AT_A_TIME: u32 = 500;

const COLUMNS: [&str; 16] = [
    "number",
    "at",
    "at_ms",
    "kind",
    "container",
    "container_name",
    "edge",
    "edge_name",
    "migration",
    "verdict",
    "dry_run",
    "reasons",
    "phase",
    "generation",
    "cause",
    "entry",
];

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
}

/// A part of the file: entries from `wanted.from` on.
struct Part {
    app: App,
    wanted: Wanted,
    format: Format,
    is_first: bool,
    is_last: bool,
}

impl Part {
    fn stream(self) -> impl Stream<Item = Result<Bytes, ApiError>> {
        stream::try_unfold(Some(self), |part| async move {
            match part {
                Some(part) => part.write().await.map(Some),
                None => Ok(None),
            }
        })
    }

    /// This part's text, and the part behind it.
    async fn write(mut self) -> Result<(Bytes, Option<Self>), ApiError> {
        let entries = ledger::find(&self.app, &self.wanted).await?;
        self.is_last = entries.len() < AT_A_TIME as usize;
        if let Some(last) = entries.last() {
            self.wanted.from = Some(last.number + 1);
        }
        let text = match self.format {
            Format::Csv => self.csv(&entries).await?,
            Format::Json => self.json(&entries)?,
        };
        self.is_first = false;
        let rest = (!self.is_last).then_some(self);
        Ok((Bytes::from(text), rest))
    }

    fn json(&self, entries: &[LedgerEntry]) -> Result<Vec<u8>, ApiError> {
        let mut text = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let begin: &[u8] = if self.is_first && at == 0 {
                b"[\n"
            } else {
                b",\n"
            };
            text.extend(begin);
            serde_json::to_writer(&mut text, entry).map_err(|error| ApiError::internal(&error))?;
        }
        if self.is_last {
            let none = self.is_first && entries.is_empty();
            text.extend(if none { &b"[]\n"[..] } else { &b"\n]\n"[..] });
        }
        Ok(text)
    }

    async fn csv(&self, entries: &[LedgerEntry]) -> Result<Vec<u8>, ApiError> {
        let names = names(&self.app, entries).await?;
        let internal = |error: csv::Error| ApiError::internal(&error);
        let mut writer = csv::Writer::from_writer(Vec::new());
        if self.is_first {
            writer.write_record(COLUMNS).map_err(internal)?;
        }
        for numbered in entries {
            let row = row(numbered, |id| names.get(id).cloned().unwrap_or_default());
            writer
                .write_record(row.iter().map(|cell| inert(cell)))
                .map_err(internal)?;
        }
        writer
            .into_inner()
            .map_err(|error| ApiError::internal(&error))
    }
}

/// A cell that no program for tables takes for a formula.
fn inert(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

/// An entry in the order of [`COLUMNS`]; what a kind does not have is empty.
fn row(numbered: &LedgerEntry, name: impl Fn(&str) -> String) -> [String; 16] {
    let entry = serde_json::from_value::<Entry>(numbered.entry.clone()).ok();
    let about = entry.as_ref().map(Entry::about).unwrap_or_default();
    let container = about.0.map(|id| id.to_string()).unwrap_or_default();
    let edge = about.1.map(|id| id.to_string()).unwrap_or_default();
    let text = |field: &str| match numbered.entry.get(field) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let reasons = match entry.as_ref().map(|entry| &entry.event) {
        Some(Event::Decision(decision)) => match &decision.verdict {
            Verdict::Deny(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
                reasons.join("; ")
            }
            Verdict::Permit => String::new(),
        },
        _ => String::new(),
    };
    [
        numbered.number.to_string(),
        entry
            .as_ref()
            .map(|entry| utc(entry.at_ms))
            .unwrap_or_default(),
        text("at_ms"),
        text("kind"),
        container.clone(),
        name(&container),
        edge.clone(),
        name(&edge),
        about.2.map(|id| id.to_string()).unwrap_or_default(),
        text("verdict"),
        text("dry_run"),
        reasons,
        text("phase"),
        text("generation"),
        text("cause"),
        numbered.entry.to_string(),
    ]
}

async fn export(
    app: App,
    filter: Result<Query<Filter>, QueryRejection>,
    format: Format,
) -> Result<Response, ApiError> {
    let Query(filter) = filter?;
    // What is entered meanwhile is not in the file: it comes to an end.
    let size = ledger::checkpoint(&app).await?.size;
    let part = Part {
        wanted: Wanted {
            from: Some(0),
            before: Some(size),
            limit: Some(AT_A_TIME),
            ..filter.wanted()?
        },
        app,
        format,
        is_first: true,
        is_last: false,
    };
    // What is wrong with the filter is told before anything is sent.
    let (first, rest) = part.write().await?;
    let rest = stream::iter(rest.map(Part::stream)).flatten();
    let body = stream::iter([Ok(first)]).chain(rest);
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "ledger.csv"),
        Format::Json => ("application/json", "ledger.json"),
    };
    Ok(download(name, kind, Body::from_stream(body)))
}

pub(super) async fn csv(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, ApiError> {
    export(app, filter, Format::Csv).await
}

pub(super) async fn json(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, ApiError> {
    export(app, filter, Format::Json).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_as_a_formula_does() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            assert_eq!(inert(formula), format!("'{formula}"));
        }
        for plain in ["", "app", "a=b", "{\"kind\":\"key\"}", "2026-11-24", "'"] {
            assert_eq!(inert(plain), plain);
        }
    }
}
