use std::collections::BTreeMap;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use carnet_api::v1::Stay;
use carnet_core::ids::{ContainerId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::policy::Country;
use serde::Deserialize;

use super::access::Visitor;
use super::form::{Field, Form, Kind};
use super::ledger::filled;
use super::page::{Frame, page};
use super::paging::{Asked, Paged, ROWS, cut};
use super::words::{lasting, utc};
use crate::clock;
use crate::http::App;
use crate::http::ledger::{self, Whereabouts};
use crate::http::problem::ApiError;

/// How many kinds of bars the style sheet has.
const COLOURS: usize = 6;
/// A line is so wide, in units of its own.
const WIDTH: f64 = 1_000.0;
/// A bar is seen however short its time was.
const NARROWEST: f64 = 3.0;

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

fn name(stay: &Stay) -> String {
    let id = || stay.container.to_string();
    stay.container_name.clone().unwrap_or_else(id)
}

fn stay_row(stay: Stay) -> StayRow {
    StayRow {
        container: name(&stay),
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

/// A time on one edge, whatever policies changed meanwhile, as a bar of a line.
struct Bar {
    x: String,
    width: String,
    /// Of the style sheet; the same edge has the same one in all lines.
    colour: usize,
    edge: String,
    country: String,
    since: String,
    until: String,
    lasted: String,
}

/// Where one container's data has been, as a line of time.
struct Line {
    container: String,
    begins: String,
    ends: String,
    bars: Vec<Bar>,
}

/// Consecutive stays on one edge.
struct Time {
    edge: EdgeId,
    edge_name: String,
    country: Option<String>,
    since: UnixMillis,
    until: Option<UnixMillis>,
}

fn country_name(code: &str) -> String {
    Country::from_code(code).map_or_else(|| code.to_owned(), |country| country.name().to_owned())
}

/// A line for each container that has a stay among `shown`, of all its stays in `all`.
fn lines(all: &[Stay], shown: &[Stay], now: UnixMillis) -> Vec<Line> {
    let mut times: BTreeMap<ContainerId, (String, Vec<Time>)> = shown
        .iter()
        .map(|stay| (stay.container, (name(stay), Vec::new())))
        .collect();
    for stay in all {
        let Some((_, times)) = times.get_mut(&stay.container) else {
            continue;
        };
        match times.last_mut() {
            Some(last)
                if last.edge == stay.edge
                    && last.country == stay.country
                    && last.until == Some(stay.since_at_ms) =>
            {
                last.until = stay.until_at_ms;
            }
            _ => times.push(Time {
                edge: stay.edge,
                edge_name: stay.edge_name.clone(),
                country: stay.country.clone(),
                since: stay.since_at_ms,
                until: stay.until_at_ms,
            }),
        }
    }
    let mut colours: BTreeMap<EdgeId, usize> = BTreeMap::new();
    times
        .into_values()
        .map(|(container, times)| line(container, &times, &mut colours, now))
        .collect()
}

fn line(
    container: String,
    times: &[Time],
    colours: &mut BTreeMap<EdgeId, usize>,
    now: UnixMillis,
) -> Line {
    let ends_at = |time: &Time| time.until.unwrap_or(now).0.max(time.since.0);
    let begin = times.first().map_or(now.0, |time| time.since.0);
    let end = times.last().map_or(now.0, ends_at);
    let whole = (end - begin).max(1) as f64;
    let bars = times.iter().map(|time| {
        let x = (time.since.0 - begin) as f64 / whole * WIDTH;
        let width = (ends_at(time) - time.since.0) as f64 / whole * WIDTH;
        let width = width.max(NARROWEST);
        let next = colours.len() % COLOURS;
        Bar {
            x: format!("{:.1}", x.min(WIDTH - width).max(0.0)),
            width: format!("{width:.1}"),
            colour: *colours.entry(time.edge).or_insert(next),
            edge: time.edge_name.clone(),
            country: time
                .country
                .as_deref()
                .map_or_else(|| "no country declared".to_owned(), country_name),
            since: utc(time.since),
            until: time.until.map_or_else(|| "now".to_owned(), utc),
            lasted: lasting(time.since, time.until.unwrap_or(now)),
        }
    });
    Line {
        container,
        begins: utc(UnixMillis(begin)),
        ends: match times.last() {
            Some(last) if last.until.is_some() => utc(UnixMillis(end)),
            _ => "now".to_owned(),
        },
        bars: bars.collect(),
    }
}

#[derive(Template)]
#[template(path = "stays.html")]
struct StaysPage {
    frame: Frame,
    form: Form,
    lines: Vec<Line>,
    list: Paged<StayRow>,
}

pub(super) async fn list(
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
    let list = cut(&address, "page", asked.page, ROWS, found.clone());
    let listed = StaysPage {
        frame: Frame::of(&visitor),
        form,
        lines: lines(&found, &list.rows, clock::now()),
        list: list.map(stay_row),
    };
    page(status, &listed)
}
