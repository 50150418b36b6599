//! The data map: where a container may go now, edge by edge, and where it has been.
//!
//! The verdicts are those of [`preview`], of the requirements that are saved or of those that are
//! being typed. The picture and the matrix are two forms of the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::f64::consts::TAU;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{Container, Role};
use carnet_core::policy::{Country, Requirements, attributes_from_json, requirements_from_json};

use super::access::Visitor;
use super::choice;
use super::containers::is_preview;
use super::fields::Fields;
use super::form::{Form, Kind};
use super::migrations::{AttemptRow, attempt_rows};
use super::page::{Frame, page, shown};
use super::preview::{self, Candidate, Standing, counts};
use super::requirements;
use super::words::{Sign, ago};
use super::world::{self, Point};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::problem::{ApiError, Named};
use crate::http::{containers, edges};

/// How many edges are shown one by one; more are counted, country by country.
const ONE_BY_ONE: usize = 60;
/// Of how many edges every reason is told in full.
const EXPLAINED: usize = 20;
/// How many organizations have a column of their own.
const COLUMNS: usize = 20;
/// How many of its moves' numbers stand at an arc.
const NUMBERS: usize = 4;
/// How far marks are from each other, in the map's units.
const APART: f64 = 50.0;
/// Rounds in which marks that are too close move from each other.
const ROUNDS: usize = 60;

/// What somebody sees of a container's map.
#[derive(Template)]
#[template(path = "map.html")]
struct MapPage {
    frame: Frame,
    container: String,
    name: String,
    edge: String,
    /// For its owner.
    form: Option<Form>,
    is_unsaved: bool,
    /// `None`: what is typed cannot be read.
    view: Option<View>,
    past: Vec<Stop>,
}

/// The map and the matrix.
struct View {
    width: u32,
    height: u32,
    land: &'static str,
    countries: Vec<Shape>,
    arcs: Vec<Arc>,
    marks: Vec<Mark>,
    legend: Vec<Sign>,
    summary: String,
    columns: Vec<String>,
    rows: Vec<MatrixRow>,
    /// Why, edge by edge.
    attempts: Vec<AttemptRow>,
    /// How many edges there are beyond those.
    more: usize,
}

/// A country with edges.
struct Shape {
    path: &'static str,
    class: &'static str,
}

/// An edge, or all edges of a country.
struct Mark {
    link: String,
    told: String,
    sign: Sign,
    /// How many it stands for, where it is not one.
    count: Option<usize>,
    is_here: bool,
    x: i64,
    y: i64,
    /// From where it was moved, for marks not to cover each other.
    anchor: Option<(i64, i64)>,
}

/// From one stop to the next, as often as it was gone.
struct Arc {
    path: String,
    /// Which of the moves these were.
    label: String,
    /// Of the label.
    width: usize,
    x: i64,
    y: i64,
}

struct MatrixRow {
    country: String,
    /// Part of an address on the page.
    code: String,
    cells: Vec<Vec<CellEntry>>,
}

struct CellEntry {
    /// `None`: so many edges.
    edge: Option<String>,
    count: usize,
    sign: Sign,
    /// By what it is denied, by the paper's names.
    why: String,
    is_here: bool,
}

/// Where the container has been.
struct Stop {
    edge: String,
    country: String,
    since: String,
    migration: Option<String>,
    place: Option<Country>,
}

/// The container, if the caller may see where it may go: who owns its edge alone may not.
async fn seen(app: &App, caller: &Caller, name: &str) -> Result<Container, ApiError> {
    let container = containers::one(app, caller, name).await?;
    let is_own = container.owner == caller.account && caller.is(Role::ContainerOwner);
    if is_own || caller.sees_everything() {
        Ok(container)
    } else {
        Err(ApiError::not_found("container", name))
    }
}

async fn owners_form(app: &App, container: &Container) -> Result<Form, ApiError> {
    let mut fields = requirements::fields_with_picks(app, container.owner).await?;
    requirements::fill(&mut fields, &requirements::of(container));
    Ok(Form::new(fields))
}

async fn map_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    container: Container,
    form: Option<Form>,
    view: Option<(&Requirements, &[Candidate])>,
) -> Result<MapPage, ApiError> {
    let past = stops(app, caller, &container).await?;
    Ok(MapPage {
        frame: Frame::of(visitor),
        container: container.id.to_string(),
        form,
        is_unsaved: view.is_none_or(|(shown, _)| *shown != requirements::of(&container)),
        view: view.map(|(_, candidates)| View::of(candidates, &container.edge_name, &past)),
        past,
        name: container.name,
        edge: container.edge_name,
    })
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let container = seen(&app, &caller, &name).await?;
    let required = requirements::of(&container);
    let candidates = preview::candidates(&app, container.owner, &required).await?;
    let form = if container.owner == caller.account {
        let mut form = owners_form(&app, &container).await?;
        preview::warn(&mut form, &required, &candidates);
        Some(form)
    } else {
        None
    };
    let view = Some((&required, candidates.as_slice()));
    shown(&map_page(&app, &visitor, &caller, container, form, view).await?)
}

/// The map of requirements that are not saved, or saves them.
pub(super) async fn change(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    let container = containers::owned(&app, &caller, &name).await?;
    let mut form = owners_form(&app, &container).await?.filled(&typed);
    let asked = requirements::typed(&typed);
    let done = if is_preview(&typed) {
        requirements_from_json(&asked).map_err(ApiError::from)
    } else {
        match containers::replace_requirements(&app, &caller, &name, &asked).await {
            Ok(_) => return Ok(Redirect::to(&format!("/containers/{name}/map")).into_response()),
            Err(error) => Err(error),
        }
    };
    match done {
        Ok(required) => {
            let candidates = preview::candidates(&app, container.owner, &required).await?;
            preview::warn(&mut form, &required, &candidates);
            let view = Some((&required, candidates.as_slice()));
            let shown = map_page(&app, &visitor, &caller, container, Some(form), view);
            page(StatusCode::OK, &shown.await?)
        }
        Err(error) => {
            let status = error.status();
            let form = Some(form.refused(error)?);
            let shown = map_page(&app, &visitor, &caller, container, form, None);
            page(status, &shown.await?)
        }
    }
}

/// Where the container has been, in order; the last is where it is.
async fn stops(app: &App, caller: &Caller, container: &Container) -> Result<Vec<Stop>, ApiError> {
    let id = container.id.to_string();
    let completed = choice::completed(app, caller, &id).await?;
    let places: HashMap<_, _> = edges::all_visible(app, caller)
        .await?
        .iter()
        .filter_map(|edge| {
            let attributes = attributes_from_json(&edge.attributes).ok()?;
            Some((edge.id, attributes.location?))
        })
        .collect();
    let now = clock::now();
    let stop = |edge: String, id, since: String, migration| {
        let place: Option<Country> = places.get(&id).copied();
        Stop {
            edge,
            country: place.map_or_else(|| "country not known".to_owned(), named),
            since,
            migration,
            place,
        }
    };
    let mut stops = Vec::new();
    for migration in completed.into_iter().rev() {
        if stops.is_empty() {
            let before = "before".to_owned();
            stops.push(stop(
                migration.source_name.clone(),
                migration.source,
                before,
                None,
            ));
        }
        if let (Some(target), Some(name)) = (migration.target, migration.target_name) {
            let since = migration.ended_at_ms.unwrap_or(migration.created_at_ms);
            let id = Some(migration.id.to_string());
            stops.push(stop(name, target, ago(since, now), id));
        }
    }
    if stops.is_empty() {
        let edge = container.edge_name.clone();
        let since = "since it was registered".to_owned();
        stops.push(stop(edge, container.edge, since, None));
    }
    Ok(stops)
}

fn named(country: Country) -> String {
    format!("{} ({country})", country.name())
}

/// Where a candidate is, as a row of the matrix: what is not known comes last.
fn row_of(candidate: &Candidate) -> (bool, Option<Country>) {
    let country = candidate.attributes.location;
    (country.is_none(), country)
}

impl View {
    fn of(candidates: &[Candidate], here: &str, past: &[Stop]) -> Self {
        let size = world::size();
        let is_counted = candidates.len() > ONE_BY_ONE;
        let mut by_country: BTreeMap<_, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates {
            let edges = by_country.entry(row_of(candidate)).or_default();
            edges.push(candidate);
        }
        let countries = by_country
            .iter()
            .filter_map(|((_, country), edges)| {
                let best = edges.iter().map(|edge| edge.standing()).min()?;
                Some(Shape {
                    path: world::shape((*country)?)?,
                    class: best.sign().class,
                })
            })
            .collect();
        let placed: Vec<(Option<Country>, &[&Candidate])> = by_country
            .iter()
            .map(|((_, country), edges)| (*country, edges.as_slice()))
            .collect();
        let marks = if is_counted {
            counted_marks(&placed)
        } else {
            single_marks(&placed, here)
        };
        let (columns, rows) = matrix(&placed, here, is_counted);
        Self {
            width: size.x as u32,
            height: size.y as u32,
            land: world::land(),
            countries,
            arcs: arcs(past, &marks),
            marks,
            legend: Standing::ALL.map(Standing::sign).into(),
            summary: preview::summary(candidates),
            columns,
            rows,
            attempts: attempt_rows(
                candidates
                    .iter()
                    .take(EXPLAINED)
                    .map(|candidate| &candidate.attempt),
            ),
            more: candidates.len().saturating_sub(EXPLAINED),
        }
    }
}

/// A mark per edge, those of a country around a point of it.
fn single_marks(placed: &[(Option<Country>, &[&Candidate])], here: &str) -> Vec<Mark> {
    let mut anchors = Vec::new();
    let mut points = Vec::new();
    let mut edges = Vec::new();
    for (country, of_country) in placed {
        let Some(anchor) = country.and_then(world::point) else {
            continue;
        };
        for (index, candidate) in of_country.iter().enumerate() {
            let around = TAU * index as f64 / of_country.len() as f64;
            let radius = if of_country.len() > 1 { 1.0 } else { 0.0 };
            points.push(Point {
                x: anchor.x + around.cos() * radius,
                y: anchor.y + around.sin() * radius,
            });
            anchors.push(anchor);
            edges.push((country, *candidate));
        }
    }
    spread(&mut points);
    points
        .into_iter()
        .zip(anchors)
        .zip(edges)
        .map(|((point, anchor), (country, candidate))| {
            let name = &candidate.attempt.edge_name;
            let sign = candidate.standing().sign();
            let is_here = name == here;
            let told = format!(
                "{name}, {}: {}{}",
                country.map_or("", |country| country.name()),
                sign.word,
                if is_here {
                    "; the container is here"
                } else {
                    ""
                }
            );
            let is_moved = (point.x - anchor.x).hypot(point.y - anchor.y) > 4.0;
            Mark {
                link: format!("/edges/{name}"),
                told,
                sign,
                count: None,
                is_here,
                x: point.x.round() as i64,
                y: point.y.round() as i64,
                anchor: is_moved.then_some((anchor.x as i64, anchor.y as i64)),
            }
        })
        .collect()
}

/// A mark per country, with how many edges are there.
fn counted_marks(placed: &[(Option<Country>, &[&Candidate])]) -> Vec<Mark> {
    placed
        .iter()
        .filter_map(|(country, edges)| {
            let country = (*country)?;
            let point = world::point(country)?;
            let best = edges.iter().map(|edge| edge.standing()).min()?;
            let told: Vec<String> = counts(edges.iter().copied())
                .into_iter()
                .map(|(standing, count)| format!("{count} {}", standing.sign().word))
                .collect();
            Some(Mark {
                link: format!("#in-{country}"),
                told: format!("{}: {}", country.name(), told.join(", ")),
                sign: best.sign(),
                count: Some(edges.len()),
                is_here: false,
                x: point.x as i64,
                y: point.y as i64,
                anchor: None,
            })
        })
        .collect()
}

/// Moves points that are too close away from each other, and none off the map.
fn spread(points: &mut [Point]) {
    let size = world::size();
    for _ in 0..ROUNDS {
        let before = points.to_vec();
        for (index, point) in points.iter_mut().enumerate() {
            for (other_index, other) in before.iter().enumerate() {
                let (dx, dy) = (point.x - other.x, point.y - other.y);
                let distance = dx.hypot(dy);
                if index == other_index || distance >= APART {
                    continue;
                }
                // Two in one place part, each in a direction of its own.
                let (dx, dy, distance) = if distance < 0.01 {
                    let around = index as f64;
                    (around.cos(), around.sin(), 1.0)
                } else {
                    (dx, dy, distance)
                };
                let push = (APART - distance) / 2.0 * 0.6;
                point.x += dx / distance * push;
                point.y += dy / distance * push;
            }
            point.x = point
                .x
                .clamp(APART / 2.0, (size.x - APART / 2.0).max(APART));
            point.y = point
                .y
                .clamp(APART / 2.0, (size.y - APART / 2.0).max(APART));
        }
    }
}

/// From each stop to the next: from mark to mark, or from country to country where an edge has no
/// mark of its own. A way that was gone several times is one arc.
fn arcs(past: &[Stop], marks: &[Mark]) -> Vec<Arc> {
    let at = |stop: &Stop| -> Option<Point> {
        let link = format!("/edges/{}", stop.edge);
        match marks.iter().find(|mark| mark.link == link) {
            Some(mark) => Some(Point {
                x: mark.x as f64,
                y: mark.y as f64,
            }),
            None => stop.place.and_then(world::point),
        }
    };
    let mut ways: Vec<(&Stop, &Stop, Vec<String>)> = Vec::new();
    for (index, (from, to)) in past.iter().zip(past.iter().skip(1)).enumerate() {
        let number = (index + 1).to_string();
        let known = ways
            .iter_mut()
            .find(|(begin, end, _)| begin.edge == from.edge && end.edge == to.edge);
        match known {
            Some((_, _, numbers)) => numbers.push(number),
            None => ways.push((from, to, vec![number])),
        }
    }
    ways.into_iter()
        .filter_map(|(from, to, numbers)| arc(at(from)?, at(to)?, &numbers))
        .collect()
}

/// `None` where both ends are in one place.
fn arc(from: Point, to: Point, numbers: &[String]) -> Option<Arc> {
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let length = dx.hypot(dy);
    if length < 1.0 {
        return None;
    }
    // There and back bend to different sides; a short one is seen beside its marks.
    let bend = 0.2 + (60.0 / length).min(1.2);
    let middle = Point {
        x: (from.x + to.x) / 2.0 + dy * bend,
        y: (from.y + to.y) / 2.0 - dx * bend,
    };
    // Not under the marks themselves.
    let toward = |end: Point| {
        let (dx, dy) = (middle.x - end.x, middle.y - end.y);
        let gap = APART * 0.55 / dx.hypot(dy).max(APART);
        Point {
            x: end.x + dx * gap,
            y: end.y + dy * gap,
        }
    };
    let (begin, end) = (toward(from), toward(to));
    let mut label = numbers
        .iter()
        .take(NUMBERS)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    if numbers.len() > NUMBERS {
        label.push('…');
    }
    Some(Arc {
        path: format!(
            "M{:.0} {:.0}Q{:.0} {:.0} {:.0} {:.0}",
            begin.x, begin.y, middle.x, middle.y, end.x, end.y
        ),
        width: 14 + 11 * label.chars().count(),
        label,
        x: ((begin.x + end.x) / 4.0 + middle.x / 2.0).round() as i64,
        y: ((begin.y + end.y) / 4.0 + middle.y / 2.0).round() as i64,
    })
}

/// Country × organization: an edge that several manage stands in the column of each.
fn matrix(
    placed: &[(Option<Country>, &[&Candidate])],
    here: &str,
    is_counted: bool,
) -> (Vec<String>, Vec<MatrixRow>) {
    let mut managed: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_unmanaged = false;
    for candidate in placed.iter().flat_map(|(_, edges)| edges.iter()) {
        let organizations = &candidate.attributes.organizations;
        is_unmanaged |= organizations.is_empty();
        for organization in organizations {
            *managed.entry(organization.to_string()).or_default() += 1;
        }
    }
    // Those with the most edges; the others share a column.
    let mut by_count: Vec<(&String, &usize)> = managed.iter().collect();
    by_count.sort_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
    let own: BTreeSet<&String> = by_count
        .into_iter()
        .take(COLUMNS)
        .map(|(name, _)| name)
        .collect();
    let has_others = own.len() < managed.len();
    let mut columns: Vec<(String, Column)> = own
        .iter()
        .map(|name| ((*name).clone(), Column::Of((*name).clone())))
        .collect();
    if has_others {
        columns.push(("others".to_owned(), Column::Others));
    }
    if is_unmanaged {
        columns.push(("organization not said".to_owned(), Column::NotSaid));
    }
    let rows = placed
        .iter()
        .map(|(country, edges)| MatrixRow {
            country: country.map_or_else(|| "country not said".to_owned(), named),
            code: country.map_or_else(|| "none".to_owned(), |country| country.to_string()),
            cells: columns
                .iter()
                .map(|(_, column)| {
                    let of_cell = edges
                        .iter()
                        .copied()
                        .filter(|edge| column.holds(edge, &own));
                    if is_counted {
                        counted_entries(of_cell)
                    } else {
                        of_cell.map(|edge| single_entry(edge, here)).collect()
                    }
                })
                .collect(),
        })
        .collect();
    (columns.into_iter().map(|(name, _)| name).collect(), rows)
}

enum Column {
    Of(String),
    /// Whoever has no column.
    Others,
    NotSaid,
}

impl Column {
    fn holds(&self, candidate: &Candidate, own: &BTreeSet<&String>) -> bool {
        let organizations = &candidate.attributes.organizations;
        let mut names = organizations.iter().map(ToString::to_string);
        match self {
            Self::Of(column) => names.any(|name| name == *column),
            Self::Others => names.any(|name| !own.contains(&name)),
            Self::NotSaid => organizations.is_empty(),
        }
    }
}

fn single_entry(candidate: &Candidate, here: &str) -> CellEntry {
    let why: Vec<&str> = candidate
        .reasons()
        .iter()
        .map(|reason| reason.paper_name.as_str())
        .collect();
    CellEntry {
        edge: Some(candidate.attempt.edge_name.clone()),
        count: 1,
        sign: candidate.standing().sign(),
        why: why.join(", "),
        is_here: candidate.attempt.edge_name == here,
    }
}

fn counted_entries<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Vec<CellEntry> {
    counts(candidates)
        .into_iter()
        .map(|(standing, count)| CellEntry {
            edge: None,
            count,
            sign: standing.sign(),
            why: String::new(),
            is_here: false,
        })
        .collect()
}
