use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{
    CreateShareKey, DetectedFacts, Edge, RegisterEdge, ShareKey, UtilizationReading,
};
use carnet_core::ids::{EdgeId, ShareKeyId};
use carnet_core::policy::{Attributes, Country, Frequency, Memory, attributes_from_json};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::access::Visitor;
use super::fields::Fields;
use super::form::{Field, Form, Kind, Pick};
use super::page::{Frame, Secret, page, shown};
use super::paging::{Asked, Paged, ROWS, cut, listing, paged};
use super::sparkline::{Sparkline, sparkline};
use super::words::{self, Sign, Use, ago, flag, lasting};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::problem::{ApiError, Named};
use crate::http::{edges, share_keys};
use crate::store::listing::Whose;

/// An edge in a list.
pub(super) struct EdgeRow {
    pub name: String,
    pub region: String,
    pub place: String,
    pub address: String,
    pub containers: u64,
    pub health: Sign,
    pub since: String,
    pub problems: Vec<String>,
    pub utilization: Option<Use>,
    /// Over the last hour.
    pub cpu: Option<Sparkline>,
    pub memory: Option<Sparkline>,
}

impl EdgeRow {
    /// With what was read of it in the last hour.
    pub(super) fn of(edge: &Edge, history: &HashMap<EdgeId, Vec<UtilizationReading>>) -> Self {
        let now = clock::now();
        let read = history.get(&edge.id).map_or(&[][..], Vec::as_slice);
        let declared = declared(edge);
        Self {
            name: edge.name.clone(),
            region: declared.written("region"),
            place: declared
                .location
                .map_or_else(|| "-".to_owned(), |country| country_name(&country)),
            address: edge.address.clone(),
            containers: edge.active_containers,
            health: words::health(&edge.health, edge.enrolled),
            since: lasting(edge.health.since_at_ms, now),
            problems: edge.health.problems.clone(),
            utilization: edge
                .utilization
                .as_ref()
                .map(|reading| words::utilization(reading, now)),
            cpu: sparkline("CPU", read, |reading| reading.cpu_percent, now),
            memory: sparkline("Memory", read, |reading| reading.memory_percent, now),
        }
    }
}

fn country_name(country: &Country) -> String {
    format!("{} ({country})", country.name())
}

/// What an edge's owner declares. What the store has was read by the same parser before.
fn declared(edge: &Edge) -> Attributes {
    attributes_from_json(&edge.attributes).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "edges.html")]
struct EdgesPage {
    frame: Frame,
    search: String,
    own: Paged<EdgeRow>,
    /// Those that the reader holds a key of; for who reads everything, everyone's.
    shared: Paged<EdgeRow>,
    key_form: Form,
}

impl EdgesPage {
    /// Whether there are so many that one looks for some.
    fn is_searched(&self) -> bool {
        let (own, shared) = (&self.own.pager, &self.shared.pager);
        !self.search.is_empty() || own.is_needed() || shared.is_needed()
    }
}

/// Which part of the lists is to be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    search: String,
    own: Option<u32>,
    shared: Option<u32>,
}

fn key_fields() -> Form {
    Form::new(vec![
        Field::new("key", "Share key", Kind::Text)
            .hint("40 hexadecimal digits, from the edge's owner."),
    ])
}

async fn edges_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    part: &Part,
) -> Result<EdgesPage, ApiError> {
    let asked = Asked::new("/edges")
        .with("search", part.search.as_str())
        .with_page("own", part.own)
        .with_page("shared", part.shared);
    let own = listing(&part.search, part.own);
    let own = edges::listed(app, caller, Whose::Own, &own).await?;
    let shared = listing(&part.search, part.shared);
    let shared = edges::listed(app, caller, Whose::Others, &shared).await?;
    let mut history = edges::history(app, &own.items).await?;
    history.extend(edges::history(app, &shared.items).await?);
    let row = |edge| EdgeRow::of(&edge, &history);
    Ok(EdgesPage {
        frame: Frame::of(visitor),
        search: part.search.clone(),
        own: paged(&asked, "own", part.own, own).map(row),
        shared: paged(&asked, "shared", part.shared, shared).map(row),
        key_form: key_fields(),
    })
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    shown(&edges_page(&app, &visitor, &caller, &part).await?)
}

/// What is asked about an edge's attributes, in the order of the paper's table.
fn attribute_fields() -> Vec<Field> {
    let mut countries = vec![(String::new(), "not said".to_owned())];
    let every = Country::every();
    let every = every
        .iter()
        .filter_map(|(code, _)| Country::from_code(code));
    countries.extend(every.map(|country| {
        let told = format!("{} {}", flag(country), country_name(&country));
        (country.to_string(), told)
    }));
    let yes_or_no = [("", "not said"), ("yes", "yes"), ("no", "no")]
        .map(|(value, label)| (value.to_owned(), label.to_owned()))
        .to_vec();
    vec![
        Field::new("region", "Region", Kind::Text)
            .hint("A name of yours for edges that belong together."),
        Field::new("location", "Country", Kind::Choice(countries)).paper("eDAl"),
        Field::new("organizations", "Organizations", Kind::Text)
            .paper("eDAo")
            .hint("All that manage it, separated by commas."),
        Field::new("manufacturer", "Manufacturer", Kind::Text)
            .paper("eHRh")
            .hint("Who made the machine, in one word, such as Dell."),
        Field::new("virtualization", "Virtualization tools", Kind::Text)
            .paper("eHRt")
            .hint("Separated by commas, such as lxc."),
        Field::new("cpu_ghz", "CPU clock, GHz", Kind::Text)
            .paper("eHRc")
            .hint("Such as 2.6."),
        Field::new("memory_gb", "Memory, GB", Kind::Text)
            .paper("eHRm")
            .hint("All that it has; GB are 10⁹ bytes. Such as 8."),
        Field::new("ai_support", "AI support", Kind::Choice(yes_or_no))
            .paper("eHRgpu")
            .hint("Whether it has something that speeds up AI work, such as a GPU."),
        Field::new("ai_accessories", "AI accessories", Kind::Text)
            .paper("eHRac")
            .hint("Separated by commas."),
        Field::new("ai_frameworks", "AI frameworks", Kind::Text)
            .paper("eHRaf")
            .hint("Separated by commas."),
    ]
}

/// With what is said of the edges that the owner has already, to pick from: one thing is to have
/// one name.
async fn with_known(app: &App, caller: &Caller, mut form: Form) -> Result<Form, ApiError> {
    let edges = edges::all_visible(app, caller).await?;
    let own = edges
        .iter()
        .filter(|edge| edge.owner == Some(caller.account));
    let own: Vec<Attributes> = own.map(declared).collect();
    for field in &mut form.fields {
        let said: BTreeSet<String> = own
            .iter()
            .map(|edge| edge.written(field.name))
            .filter(|written| written != "-")
            .flat_map(|written| written.split(',').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let what = match field.name {
            "region" | "manufacturer" => {
                field.known = said.into_iter().collect();
                continue;
            }
            "organizations" => "an organization",
            "virtualization" => "a tool",
            "ai_accessories" => "an accessory",
            "ai_frameworks" => "a framework",
            _ => continue,
        };
        if !said.is_empty() {
            let values = said.into_iter().map(|name| (name.clone(), name)).collect();
            field.pick = Some(Pick {
                what,
                groups: vec![("Of your other edges", values)],
                excludes: false,
            });
        }
    }
    Ok(form)
}

fn register_fields() -> Form {
    let mut fields = vec![
        Field::new("name", "Name", Kind::Text).hint("Letters, digits, . _ and -, at most 63."),
        Field::new("address", "Address", Kind::Text)
            .hint("Where its agent will listen: IP address and port, such as 192.0.2.7:7443."),
    ];
    fields.extend(attribute_fields());
    Form::new(fields)
}

/// The fields of a policy that are filled in, as the API takes them.
pub(super) fn policy<'a>(typed: &Fields, names: impl Iterator<Item = &'a str>) -> Value {
    let filled: Map<String, Value> = names
        .map(|name| (name.to_owned(), typed.list(name)))
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, text)| (name, text.into()))
        .collect();
    Value::Object(filled)
}

fn attributes(typed: &Fields) -> Value {
    policy(typed, Attributes::COLUMNS.iter().map(|(name, _)| *name))
}

#[derive(Template)]
#[template(path = "edge_form.html")]
struct EdgeFormPage {
    frame: Frame,
    form: Form,
    /// Of the edge that is described anew; `None`: a new one.
    edge: Option<String>,
}

pub(super) async fn register_form(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
) -> Result<Response, ApiError> {
    shown(&EdgeFormPage {
        frame: Frame::of(&visitor),
        form: with_known(&app, &caller, register_fields()).await?,
        edge: None,
    })
}

pub(super) async fn register(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    typed: Fields,
) -> Result<Response, ApiError> {
    let asked = RegisterEdge {
        name: typed.text("name").to_owned(),
        address: typed.text("address").to_owned(),
        attributes: attributes(&typed),
    };
    match edges::add(&app, &caller, asked).await {
        Ok(edge) => Ok(Redirect::to(&format!("/edges/{}", edge.name)).into_response()),
        Err(error) => {
            let status = error.status();
            let form = with_known(&app, &caller, register_fields()).await?;
            let form = form.filled(&typed).refused(error)?;
            let frame = Frame::of(&visitor);
            let edge = None;
            page(status, &EdgeFormPage { frame, form, edge })
        }
    }
}

/// One attribute: declared beside detected.
struct AttributeRow {
    label: &'static str,
    paper: &'static str,
    declared: String,
    detected: String,
    contradicted: bool,
}

/// What the agent found, as it would be declared; empty where it finds out no such thing.
fn detected(facts: &DetectedFacts, attribute: &str) -> String {
    match attribute {
        "manufacturer" => facts.manufacturer.clone().unwrap_or_default(),
        "virtualization" => facts.virtualization.join(","),
        "cpu_ghz" => facts
            .cpu_mhz
            .map(|mhz| Frequency::from_mhz(mhz).to_string())
            .unwrap_or_default(),
        "memory_gb" => facts
            .memory_mb
            .and_then(|mb| u32::try_from(mb).ok())
            .map(|mb| Memory::from_mb(mb).to_string())
            .unwrap_or_default(),
        "ai_support" => match facts.ai_support {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => String::new(),
        },
        _ => String::new(),
    }
}

fn attribute_rows(edge: &Edge) -> Vec<AttributeRow> {
    let declared = declared(edge);
    attribute_fields()
        .into_iter()
        .map(|field| AttributeRow {
            label: field.label,
            paper: field.paper.unwrap_or_default(),
            declared: match (field.name, declared.location) {
                ("location", Some(country)) => country_name(&country),
                _ => declared.written(field.name),
            },
            detected: edge
                .detected
                .as_ref()
                .map(|facts| detected(facts, field.name))
                .unwrap_or_default(),
            contradicted: edge
                .contradictions
                .iter()
                .any(|contradiction| contradiction.attribute == field.name),
        })
        .collect()
}

/// Who holds a key.
struct KeyRow {
    id: ShareKeyId,
    grantee: String,
    state: Sign,
    given: String,
    is_living: bool,
}

fn key_row(key: ShareKey) -> KeyRow {
    let now = clock::now();
    KeyRow {
        id: key.id,
        grantee: key.grantee,
        state: match (key.redeemed_at_ms, key.revoked_at_ms) {
            (_, Some(_)) => Sign::new("none", "revoked"),
            (Some(_), None) => Sign::new("good", "in use"),
            (None, None) => Sign::new("warn", "not entered yet"),
        },
        given: ago(key.created_at_ms, now),
        is_living: key.revoked_at_ms.is_none(),
    }
}

#[derive(Template)]
#[template(path = "edge.html")]
struct EdgePage {
    frame: Frame,
    row: EdgeRow,
    revision: u64,
    is_own: bool,
    enrolled: bool,
    attributes: Vec<AttributeRow>,
    software: Vec<(&'static str, String)>,
    keys: Paged<KeyRow>,
    form: Form,
    secret: Option<Secret>,
}

impl EdgePage {
    /// What the agent found, and its owner has not said.
    fn undeclared(&self) -> Vec<&'static str> {
        self.attributes
            .iter()
            .filter(|row| row.declared == "-" && !row.detected.is_empty())
            .map(|row| row.label)
            .collect()
    }
}

fn share_fields() -> Form {
    Form::new(vec![
        Field::new("grantee", "Container owner", Kind::Text)
            .hint("The name of the account that is to use this edge."),
    ])
}

async fn edge_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    name: &str,
    form: Form,
    secret: Option<Secret>,
    keys_page: Option<u32>,
) -> Result<EdgePage, ApiError> {
    let edge = edges::one(app, caller, name).await?;
    let is_own = edge.owner == Some(caller.account);
    let keys = if is_own {
        share_keys::of_edge(app, caller, name).await?
    } else {
        Vec::new()
    };
    let asked = Asked::new(format!("/edges/{}", edge.name)).with_page("keys", keys_page);
    let history = edges::history(app, std::slice::from_ref(&edge)).await?;
    let software = edge.detected.as_ref().map_or_else(Vec::new, |facts| {
        [
            ("Kernel", &facts.kernel),
            ("LXC", &facts.lxc_version),
            ("CRIU", &facts.criu_version),
        ]
        .into_iter()
        .filter_map(|(what, version)| Some((what, version.clone()?)))
        .collect()
    });
    Ok(EdgePage {
        frame: Frame::of(visitor),
        row: EdgeRow::of(&edge, &history),
        revision: edge.attributes_revision,
        is_own,
        enrolled: edge.enrolled,
        attributes: attribute_rows(&edge),
        software,
        keys: cut(&asked, "keys", keys_page, ROWS, keys).map(key_row),
        form,
        secret,
    })
}

/// Which part of its share keys an edge's page shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeysPart {
    keys: Option<u32>,
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    part: Result<Query<KeysPart>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    let form = share_fields();
    shown(&edge_page(&app, &visitor, &caller, &name, form, None, part.keys).await?)
}

/// What is declared, and what the agent found where nothing is.
fn described(edge: &Edge) -> Form {
    let declared = declared(edge);
    let mut fields = attribute_fields();
    for field in &mut fields {
        let found = edge
            .detected
            .as_ref()
            .map(|facts| detected(facts, field.name))
            .unwrap_or_default();
        let written = declared.written(field.name);
        let exceeds = edge
            .contradictions
            .iter()
            .any(|contradiction| contradiction.attribute == field.name);
        if exceeds {
            let found = if found.is_empty() { "nothing" } else { &found };
            field.warnings.push(format!(
                "Declared is `{written}`, and the agent found {found}."
            ));
        }
        if !found.is_empty() {
            field.hint = format!("The agent found: {found}. {}", field.hint);
        }
        field.value = if written == "-" { found } else { written };
    }
    Form::new(fields)
}

pub(super) async fn describe_form(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    let edge = edges::own(&app, &caller, &name).await?;
    shown(&EdgeFormPage {
        frame: Frame::of(&visitor),
        form: with_known(&app, &caller, described(&edge)).await?,
        edge: Some(edge.name),
    })
}

pub(super) async fn describe(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    let edge = edges::own(&app, &caller, &name).await?;
    match edges::replace_attributes(&app, &caller, &name, &attributes(&typed)).await {
        Ok(edge) => Ok(Redirect::to(&format!("/edges/{}", edge.name)).into_response()),
        Err(error) => {
            let status = error.status();
            let form = with_known(&app, &caller, described(&edge)).await?;
            let form = form.filled(&typed).refused(error)?;
            let frame = Frame::of(&visitor);
            let edge = Some(edge.name);
            page(status, &EdgeFormPage { frame, form, edge })
        }
    }
}

pub(super) async fn enrol(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let token = edges::make_enrolment_token(&app, &caller, &name).await?;
    // As the browser reaches it; the edge may have to name it otherwise.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("HOST:PORT");
    let secret = Secret {
        title: "On the edge, as root, within the hour",
        text: format!(
            "carnet agent enrol --control https://{host} --state /var/lib/carnet-agent --token {}",
            token.token
        ),
        hint: "It is shown this once, and good for one use. Then start the agent there: carnet agent run."
            .to_owned(),
    };
    let page = edge_page(
        &app,
        &visitor,
        &caller,
        &name,
        share_fields(),
        Some(secret),
        None,
    );
    shown(&page.await?)
}

pub(super) async fn disenrol(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named,
) -> Result<Redirect, ApiError> {
    let edge = edges::distrust(&app, &caller, &name).await?;
    Ok(Redirect::to(&format!("/edges/{}", edge.name)))
}

pub(super) async fn share(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
    typed: Fields,
) -> Result<Response, ApiError> {
    let asked = CreateShareKey {
        grantee: typed.text("grantee").to_owned(),
    };
    let (status, form, secret) = match share_keys::give(&app, &caller, &name, &asked).await {
        Ok(given) => {
            let secret = Secret {
                title: "The share key",
                text: given.key,
                hint: format!(
                    "It is shown this once. Give it to {}; to anybody else it is worth nothing.",
                    given.share_key.grantee
                ),
            };
            (StatusCode::OK, share_fields(), Some(secret))
        }
        // Another's edge: there is none.
        Err(error) if error.0.status == 404 => return Err(error),
        Err(error) => {
            let status = error.status();
            (status, share_fields().filled(&typed).refused(error)?, None)
        }
    };
    page(
        status,
        &edge_page(&app, &visitor, &caller, &name, form, secret, None).await?,
    )
}

/// Enters a key that somebody was given.
pub(super) async fn enter_key(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    typed: Fields,
) -> Result<Response, ApiError> {
    match share_keys::enter(&app, &caller, typed.text("key")).await {
        Ok(key) => Ok(Redirect::to(&format!("/edges/{}", key.edge_name)).into_response()),
        Err(error) => {
            let status = error.status();
            let mut again = edges_page(&app, &visitor, &caller, &Part::default()).await?;
            // The key is not repeated: it may be another's.
            again.key_form = key_fields().refused(ApiError::fault(
                "key",
                "",
                "no such key was given to you, or it was taken back",
                "the 40 hexadecimal digits that an edge's owner gave you",
            ))?;
            if error.0.status != 404 {
                return Err(error);
            }
            page(status, &again)
        }
    }
}

pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named,
) -> Result<Redirect, ApiError> {
    let key = share_keys::take_back(&app, &caller, &id).await?;
    Ok(Redirect::to(&format!("/edges/{}", key.edge_name)))
}
