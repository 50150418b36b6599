use std::collections::HashSet;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{Container, ContainerRegistration, ContainerState, RegisterContainer};
use carnet_core::ids::{ContainerId, EdgeId};
use carnet_core::policy::{Element, attributes_from_json, requirements_from_json};
use serde::Deserialize;

use super::access::Visitor;
use super::fields::Fields;
use super::form::{Field, Form, Kind};
use super::migrations::{AttemptRow, MigrationRow, attempt_rows};
use super::page::{Frame, Secret, page, shown};
use super::paging::{Asked, Paged, listing, paged};
use super::preview;
use super::requirements;
use super::words::{Sign, lasting};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::listing::Listing;
use crate::http::problem::{ApiError, Named};
use crate::http::{containers, edges, migrations};
use crate::store::listing::Whose;

/// How many of its last moves a container's page lists.
const LAST_MOVES: u32 = 20;
/// Of how many edges a preview, or the page for moving, tells every reason.
pub(super) const PREVIEWED: usize = 50;

/// A container in a list.
pub(super) struct ContainerRow {
    pub id: ContainerId,
    pub name: String,
    /// Whose it is, where it is not the reader's.
    pub owner: String,
    pub edge: String,
    pub state: Sign,
    pub since: String,
    pub registration: Sign,
    pub is_pending: bool,
    /// It is on an edge of the reader's, who can confirm it.
    pub is_to_confirm: bool,
    /// The migration under way.
    pub migration: Option<String>,
}

fn state(state: ContainerState) -> Sign {
    match state {
        ContainerState::Unknown => Sign::new("none", "not looked at yet"),
        ContainerState::Running => Sign::new("good", "running"),
        ContainerState::Frozen => Sign::new("warn", "frozen"),
        ContainerState::Stopped => Sign::new("warn", "stopped"),
        ContainerState::Missing => Sign::new("bad", "missing on its edge"),
    }
}

impl ContainerRow {
    fn of(container: &Container) -> Self {
        let is_pending = container.registration == ContainerRegistration::Pending;
        Self {
            id: container.id,
            name: container.name.clone(),
            owner: String::new(),
            edge: container.edge_name.clone(),
            state: match container.migration {
                Some(_) => Sign::new("warn", "being moved"),
                None => state(container.state),
            },
            since: lasting(container.state_since_at_ms, clock::now()),
            registration: if is_pending {
                Sign::new("warn", "to be confirmed")
            } else {
                Sign::new("good", "confirmed")
            },
            is_pending,
            is_to_confirm: false,
            migration: container.migration.map(|id| id.to_string()),
        }
    }
}

#[derive(Template)]
#[template(path = "containers.html")]
struct ContainersPage {
    frame: Frame,
    search: String,
    own: Paged<ContainerRow>,
    /// On the reader's edges; for who reads everything, everyone's.
    others: Paged<ContainerRow>,
}

impl ContainersPage {
    /// Something is being moved: the page loads itself anew.
    fn is_moving(&self) -> bool {
        let mut rows = self.own.rows.iter().chain(&self.others.rows);
        rows.any(|row| row.migration.is_some())
    }

    /// Whether there are so many that one looks for some.
    fn is_searched(&self) -> bool {
        let (own, others) = (&self.own.pager, &self.others.pager);
        !self.search.is_empty() || own.is_needed() || others.is_needed()
    }
}

/// Which part of the lists is to be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    search: String,
    own: Option<u32>,
    others: Option<u32>,
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    let asked = Asked::new("/containers")
        .with("search", part.search.as_str())
        .with_page("own", part.own)
        .with_page("others", part.others);
    let own = listing(&part.search, part.own);
    let own = containers::listed(&app, &caller, Whose::Own, &own).await?;
    let own = paged(&asked, "own", part.own, own);
    let others = listing(&part.search, part.others);
    let others = containers::listed(&app, &caller, Whose::Others, &others).await?;
    let others = paged(&asked, "others", part.others, others);
    let pending = |container: &Container| container.registration == ContainerRegistration::Pending;
    let own_edges: HashSet<EdgeId> = if own.rows.iter().chain(&others.rows).any(pending) {
        let all = edges::listed(&app, &caller, Whose::Own, &Listing::default()).await?;
        all.items.into_iter().map(|edge| edge.id).collect()
    } else {
        HashSet::new()
    };
    // Whoever confirms a container must know whose it is to be.
    let owners = others
        .rows
        .iter()
        .map(|container| container.owner.to_string());
    let owners = app.store.names(&owners.collect()).await?;
    let row = |container: &Container| {
        let mut row = ContainerRow::of(container);
        row.is_to_confirm = row.is_pending && own_edges.contains(&container.edge);
        row
    };
    shown(&ContainersPage {
        frame: Frame::of(&visitor),
        search: part.search,
        own: own.map(|container| row(&container)),
        others: others.map(|container| {
            let owner = owners.get(&container.owner.to_string());
            ContainerRow {
                owner: owner.cloned().unwrap_or_default(),
                ..row(&container)
            }
        }),
    })
}

async fn register_fields(app: &App, caller: &Caller) -> Result<Form, ApiError> {
    let edges = edges::all_visible(app, caller).await?;
    let mut choices = vec![(String::new(), "choose".to_owned())];
    choices.extend(edges.into_iter().map(|edge| (edge.name.clone(), edge.name)));
    let mut fields = vec![
        Field::new("name", "Name", Kind::Text)
            .hint("Its name in LXC: letters, digits, . _ and -, at most 63."),
        Field::new("edge", "Edge it is on", Kind::Choice(choices))
            .hint("One of those that you may use."),
    ];
    fields.extend(requirements::fields_with_picks(app, caller.account).await?);
    Ok(Form::new(fields))
}

/// What is to be done with a form that is filled in.
pub(super) fn is_preview(typed: &Fields) -> bool {
    typed.text("act") == "preview"
}

#[derive(Template)]
#[template(path = "container_form.html")]
struct ContainerFormPage {
    frame: Frame,
    form: Form,
    /// Whose requirements are changed; `None`: a new one.
    container: Option<String>,
    preview: Option<Preview>,
}

/// Where it could go.
struct Preview {
    summary: String,
    rows: Vec<AttemptRow>,
    /// How many edges there are beyond those.
    more: usize,
}

pub(super) async fn register_form(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
) -> Result<Response, ApiError> {
    shown(&ContainerFormPage {
        frame: Frame::of(&visitor),
        form: register_fields(&app, &caller).await?,
        container: None,
        preview: None,
    })
}

/// Where what is typed would let a container go; what is hardly meant is said in `form`.
async fn previewed(
    app: &App,
    caller: &Caller,
    typed: &Fields,
    form: &mut Form,
) -> Result<Preview, ApiError> {
    let requirements = requirements_from_json(&requirements::typed(typed))?;
    let candidates = preview::candidates(app, caller.account, &requirements).await?;
    preview::warn(form, &requirements, &candidates);
    let shown = candidates.iter().take(PREVIEWED);
    Ok(Preview {
        summary: preview::summary(&candidates),
        rows: attempt_rows(shown.map(|candidate| &candidate.attempt)),
        more: candidates.len().saturating_sub(PREVIEWED),
    })
}

pub(super) async fn register(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    typed: Fields,
) -> Result<Response, ApiError> {
    let mut form = register_fields(&app, &caller).await?.filled(&typed);
    let done = if is_preview(&typed) {
        let preview = previewed(&app, &caller, &typed, &mut form);
        preview.await.map(Some)
    } else {
        let asked = RegisterContainer {
            name: typed.text("name").to_owned(),
            edge: typed.text("edge").to_owned(),
            requirements: requirements::typed(&typed),
            allow_post_copy: false,
        };
        match containers::add(&app, &caller, asked).await {
            Ok(container) => {
                let path = format!("/containers/{}", container.id);
                return Ok(Redirect::to(&path).into_response());
            }
            Err(error) => Err(error),
        }
    };
    answer(&visitor, form, None, done)
}

/// The form again, with where the container could go, or with what is wrong.
fn answer(
    visitor: &Visitor,
    form: Form,
    container: Option<String>,
    done: Result<Option<Preview>, ApiError>,
) -> Result<Response, ApiError> {
    let (status, form, preview) = match done {
        Ok(preview) => (StatusCode::OK, form, preview),
        Err(error) => (error.status(), form.refused(error)?, None),
    };
    let frame = Frame::of(visitor);
    let answered = ContainerFormPage {
        frame,
        form,
        container,
        preview,
    };
    page(status, &answered)
}

/// The form with what is required now.
async fn required(app: &App, container: &Container) -> Result<Form, ApiError> {
    let mut fields = requirements::fields_with_picks(app, container.owner).await?;
    requirements::fill(&mut fields, &requirements::of(container));
    Ok(Form::new(fields))
}

pub(super) async fn require_form(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let container = containers::owned(&app, &caller, &name).await?;
    let form = required(&app, &container).await?;
    answer(&visitor, form, Some(container.name), Ok(None))
}

pub(super) async fn require(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    let container = containers::owned(&app, &caller, &name).await?;
    let mut form = required(&app, &container).await?.filled(&typed);
    let done = if is_preview(&typed) {
        let preview = previewed(&app, &caller, &typed, &mut form);
        preview.await.map(Some)
    } else {
        let asked = requirements::typed(&typed);
        match containers::replace_requirements(&app, &caller, &name, &asked).await {
            Ok(_) => return Ok(Redirect::to(&format!("/containers/{name}")).into_response()),
            Err(error) => Err(error),
        }
    };
    answer(&visitor, form, Some(container.name), done)
}

/// One requirement.
struct RequirementRow {
    label: &'static str,
    paper: &'static str,
    required: String,
}

#[derive(Template)]
#[template(path = "container.html")]
struct ContainerPage {
    frame: Frame,
    row: ContainerRow,
    is_own: bool,
    revision: u64,
    generation: u64,
    allow_post_copy: bool,
    requirements: Vec<RequirementRow>,
    moves: Vec<MigrationRow>,
    problem: Option<String>,
    secret: Option<Secret>,
}

async fn container_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    name: &str,
) -> Result<ContainerPage, ApiError> {
    let container = containers::one(app, caller, name).await?;
    let is_own = container.owner == caller.account;
    let requirements = requirements::of(&container);
    // An edge's owner sees that it is there, and not where it has been.
    let moves = if is_own || caller.sees_everything() {
        let id = container.id.to_string();
        let last = migrations::Wanted {
            container: Some(id),
            limit: Some(LAST_MOVES),
            ..migrations::Wanted::default()
        };
        migrations::listed(app, caller, last).await?.items
    } else {
        Vec::new()
    };
    Ok(ContainerPage {
        frame: Frame::of(visitor),
        row: ContainerRow::of(&container),
        is_own,
        revision: container.requirements_revision,
        generation: container.generation,
        allow_post_copy: container.allow_post_copy,
        requirements: requirements::fields()
            .into_iter()
            .zip(Element::ALL)
            .map(|(field, element)| RequirementRow {
                label: field.label,
                paper: element.paper_name(),
                required: requirements.written(element),
            })
            .collect(),
        moves: moves.iter().map(MigrationRow::of).collect(),
        problem: None,
        secret: None,
    })
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    shown(&container_page(&app, &visitor, &caller, &name).await?)
}

/// The container's page again after an act: with what is wrong, where something is.
async fn acted<T>(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    name: &str,
    done: Result<T, ApiError>,
) -> Result<Response, ApiError> {
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/containers/{name}")).into_response()),
        Err(error) if matches!(error.0.status, 409 | 502) => {
            let mut again = container_page(app, visitor, caller, name).await?;
            let status = error.status();
            again.problem = error.0.detail;
            page(status, &again)
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn claim(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    match containers::make_claim(&app, &caller, &name).await {
        Ok(claim) => {
            let mut again = container_page(&app, &visitor, &caller, &name).await?;
            again.secret = Some(Secret {
                title: "Inside the container, within 15 minutes",
                text: format!("echo {} > {}", claim.code, claim.path),
                hint: "Then have it checked, here below. The code is shown this once.".to_owned(),
            });
            shown(&again)
        }
        Err(error) => acted::<()>(&app, &visitor, &caller, &name, Err(error)).await,
    }
}

pub(super) async fn check_claim(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let done = containers::check_claim(&app, &caller, &name).await;
    acted(&app, &visitor, &caller, &name, done).await
}

pub(super) async fn vouch_for(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let done = containers::vouch_for(&app, &caller, &name).await;
    acted(&app, &visitor, &caller, &name, done).await
}

pub(super) async fn allow_post_copy(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    let allow = typed.text("allow") == "yes";
    let done = containers::set_allow_post_copy(&app, &caller, &name, allow).await;
    acted(&app, &visitor, &caller, &name, done).await
}

pub(super) async fn forget(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    match containers::remove(&app, &caller, &name).await {
        Ok(()) => Ok(Redirect::to("/containers").into_response()),
        Err(error) => acted::<()>(&app, &visitor, &caller, &name, Err(error)).await,
    }
}

/// The regions of the edges that somebody may use.
pub(super) async fn regions(app: &App, caller: &Caller) -> Result<Vec<String>, ApiError> {
    let mut regions: Vec<String> = edges::all_visible(app, caller)
        .await?
        .iter()
        .filter_map(|edge| attributes_from_json(&edge.attributes).ok()?.region)
        .map(|region| region.to_string())
        .collect();
    regions.sort_unstable();
    regions.dedup();
    Ok(regions)
}
