//! Who may see and send what: every page, in one table. What is not in it is refused. Whoever
//! sends a form must have got it from here.

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{Problem, Role};
use carnet_core::ids::SessionId;

use super::fields::Fields;
use super::page::{self, Frame};
use super::session::{self, FORM_COOKIE, SESSION_COOKIE};
use super::{Address, Web, form};
use crate::http::MAX_BODY;
use crate::http::access::Access::{self, AnyAccount, Public, Roles};
use crate::http::access::{Caller, names};
use crate::http::problem::ApiError;
use crate::secret;

const EDGE_OWNER: Access = Roles(&[Role::EdgeOwner]);
const CONTAINER_OWNER: Access = Roles(&[Role::ContainerOwner]);
/// Pages show of each kind of thing what its reader may see.
const READERS: Access = Roles(&[
    Role::EdgeOwner,
    Role::ContainerOwner,
    Role::Auditor,
    Role::Administrator,
]);
/// The ledger holds everyone's policies.
const LEDGER_READERS: Access = Roles(&[Role::Auditor, Role::Administrator]);
const ADMINISTRATOR: Access = Roles(&[Role::Administrator]);
const ACCOUNTS: Access = Roles(&[Role::Administrator, Role::Auditor]);
const MIGRATION_READERS: Access =
    Roles(&[Role::ContainerOwner, Role::Auditor, Role::Administrator]);

/// Every page.
pub const PAGES: &[(Method, &str, Access)] = &[
    (Method::GET, "/", AnyAccount),
    (Method::GET, "/log-in", Public),
    (Method::POST, "/log-in", Public),
    (Method::GET, "/register", Public),
    (Method::POST, "/register", Public),
    (Method::POST, "/log-out", AnyAccount),
    (Method::GET, "/account", AnyAccount),
    (Method::POST, "/account/password", AnyAccount),
    (Method::POST, "/account/sessions/{session}/end", AnyAccount),
    (Method::GET, "/live", READERS),
    (Method::GET, "/edges", READERS),
    (Method::GET, "/register-edge", EDGE_OWNER),
    (Method::POST, "/register-edge", EDGE_OWNER),
    (Method::GET, "/edges/{edge}", READERS),
    (Method::GET, "/edges/{edge}/attributes", EDGE_OWNER),
    (Method::POST, "/edges/{edge}/attributes", EDGE_OWNER),
    (Method::POST, "/edges/{edge}/enrol", EDGE_OWNER),
    (Method::POST, "/edges/{edge}/disenrol", EDGE_OWNER),
    (Method::POST, "/edges/{edge}/share", EDGE_OWNER),
    (Method::POST, "/share-keys", CONTAINER_OWNER),
    (Method::POST, "/share-keys/{key}/revoke", EDGE_OWNER),
    (Method::GET, "/containers", READERS),
    (Method::GET, "/register-container", CONTAINER_OWNER),
    (Method::POST, "/register-container", CONTAINER_OWNER),
    (Method::GET, "/containers/{container}", READERS),
    (
        Method::GET,
        "/containers/{container}/requirements",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/containers/{container}/requirements",
        CONTAINER_OWNER,
    ),
    (
        Method::GET,
        "/containers/{container}/map",
        MIGRATION_READERS,
    ),
    (Method::POST, "/containers/{container}/map", CONTAINER_OWNER),
    (
        Method::POST,
        "/containers/{container}/claim",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/containers/{container}/check-claim",
        CONTAINER_OWNER,
    ),
    (Method::POST, "/containers/{container}/confirm", EDGE_OWNER),
    (
        Method::POST,
        "/containers/{container}/allow-post-copy",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/containers/{container}/forget",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/containers/{container}/audit",
        CONTAINER_OWNER,
    ),
    (Method::GET, "/containers/{container}/move", CONTAINER_OWNER),
    (
        Method::POST,
        "/containers/{container}/move",
        CONTAINER_OWNER,
    ),
    (Method::GET, "/entries", LEDGER_READERS),
    (Method::POST, "/entries", LEDGER_READERS),
    (Method::GET, "/entries.csv", LEDGER_READERS),
    (Method::GET, "/entries.json", LEDGER_READERS),
    (Method::GET, "/entries/{number}", LEDGER_READERS),
    (Method::GET, "/entries/{number}/proof", LEDGER_READERS),
    (Method::GET, "/stays", LEDGER_READERS),
    (Method::GET, "/accounts", ACCOUNTS),
    (Method::POST, "/accounts", ADMINISTRATOR),
    (Method::POST, "/accounts/{account}/password", ADMINISTRATOR),
    (Method::GET, "/admin", ADMINISTRATOR),
    (Method::POST, "/admin/rotate-key", ADMINISTRATOR),
    (Method::GET, "/migrations", MIGRATION_READERS),
    (Method::GET, "/migrations/{migration}", MIGRATION_READERS),
    (
        Method::GET,
        "/migrations/{migration}/entries/{number}",
        MIGRATION_READERS,
    ),
    (
        Method::POST,
        "/migrations/{migration}/cancel",
        CONTAINER_OWNER,
    ),
];

/// Who looks at a page.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Who it is, with the session, where somebody is logged in.
    pub known: Option<(Caller, SessionId)>,
    /// From where the request comes, where that is known.
    pub from: Option<Address>,
    /// Stands in each form that the visitor is given, and comes back with it.
    pub form_token: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let visitor = parts.extensions.get::<Self>().cloned();
        visitor.ok_or_else(|| ApiError::internal(&"a page is outside of the table"))
    }
}

/// Lets through what the table allows, and forms that were given out here. What goes wrong
/// behind is told in words.
pub(super) async fn enforce(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    // A request is not to be held while the store is asked.
    let headers = request.headers().clone();
    let from = request.extensions().get::<ConnectInfo<Address>>();
    let from = from.map(|ConnectInfo(from)| *from);
    let (visitor, new_cookie) = match recognize(&web, &headers, from).await {
        Ok(recognized) => recognized,
        Err(error) => return super::told(error.0),
    };
    let frame = Frame::of(&visitor);
    let mut response = match admit(&visitor, &request) {
        Err(Refused::NotLoggedIn) => to_log_in(&request).into_response(),
        Err(Refused::Told(error)) => error.into_response(),
        Ok(()) => {
            if let Some((caller, _)) = &visitor.known {
                request.extensions_mut().insert(caller.clone());
            }
            let form_token = visitor.form_token.clone();
            request.extensions_mut().insert(visitor);
            if request.method() == Method::POST {
                match posted(request, &form_token).await {
                    Ok(request) => next.run(request).await,
                    Err(error) => error.into_response(),
                }
            } else {
                next.run(request).await
            }
        }
    };
    if is_problem(&response) {
        response = in_words(frame, response).await;
    }
    if let Some(cookie) = new_cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    page::secured(response)
}

/// Who asks, and the cookie that binds forms to a browser in which nobody is logged in, where it
/// is to be set.
async fn recognize(
    web: &Web,
    headers: &HeaderMap,
    from: Option<Address>,
) -> Result<(Visitor, Option<HeaderValue>), ApiError> {
    let visitor = |known, cookie: &str| Visitor {
        known,
        from,
        form_token: form::token(cookie),
    };
    if let Some(cookie) = session::cookie(headers, SESSION_COOKIE)
        && let Some((caller, id)) = session::holder(&web.app, cookie, headers).await?
    {
        return Ok((visitor(Some((caller, id)), cookie), None));
    }
    if let Some(cookie) = session::cookie(headers, FORM_COOKIE) {
        return Ok((visitor(None, cookie), None));
    }
    let secret = session::secret().reveal();
    Ok((
        visitor(None, &secret),
        session::set_cookie(FORM_COOKIE, &secret),
    ))
}

enum Refused {
    NotLoggedIn,
    Told(ApiError),
}

fn admit(visitor: &Visitor, request: &Request) -> Result<(), Refused> {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str)
        .unwrap_or_default();
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    let access = PAGES
        .iter()
        .find(|(allowed, page, _)| allowed == method && *page == path)
        .map(|(_, _, access)| *access);
    match (access, &visitor.known) {
        (None, _) => Err(Refused::Told(ApiError::method(
            method.as_str(),
            request.uri().path(),
        ))),
        (Some(Public), _) | (Some(AnyAccount), Some(_)) => Ok(()),
        (Some(_), None) => Err(Refused::NotLoggedIn),
        (Some(Roles(roles)), Some((caller, _))) => {
            if roles.iter().any(|role| caller.is(*role)) {
                Ok(())
            } else {
                Err(Refused::Told(ApiError::forbidden(format!(
                    "this page is for the roles {}; `{}` has {}",
                    names(roles),
                    caller.name,
                    names(&caller.roles)
                ))))
            }
        }
    }
}

/// To where one logs in, and from there back to the page that was asked for.
fn to_log_in(request: &Request) -> Redirect {
    let path = request.uri().path();
    if *request.method() != Method::GET || path == "/" {
        return Redirect::to("/log-in");
    }
    let written: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    Redirect::to(&format!("/log-in?next={written}"))
}

/// The fields of a form that was given out here, taken out of the body.
async fn posted(request: Request, form_token: &str) -> Result<Request, ApiError> {
    let (mut parts, body) = request.into_parts();
    from_here(&parts.headers)?;
    let is_form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Err(foreign("it is no form"));
    }
    let body = to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ApiError::too_large())?;
    let fields = Fields::read(&body);
    // By their hashes: how long it takes says nothing of where they differ.
    if secret::hash(fields.text(form::TOKEN)) != secret::hash(form_token) {
        return Err(foreign(
            "it is from another session, or the browser keeps no cookies",
        ));
    }
    parts.extensions.insert(fields);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// What the browser itself says of where the form was: no page of anybody else's can have it say
/// otherwise.
fn from_here(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return Err(foreign("another site's page sent it"));
    }
    match (text("origin"), site) {
        (Some(origin), _) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            if host.is_some() && host == text("host") {
                Ok(())
            } else {
                Err(foreign("another site's page sent it"))
            }
        }
        (None, Some(_)) => Ok(()),
        (None, None) => Err(foreign("the browser does not say from where it is")),
    }
}

fn foreign(why: &str) -> ApiError {
    ApiError::forbidden(format!(
        "the form was not taken: {why}. Nothing was done. Go back, load the page anew, and send it again"
    ))
}

fn is_problem(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json")
}

/// A problem as a page.
async fn in_words(frame: Frame, response: Response) -> Response {
    let status = response.status();
    let read = to_bytes(response.into_body(), usize::MAX).await;
    let problem: Option<Problem> = read
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    match problem {
        Some(problem) => page::told(frame, problem).into_response(),
        None => StatusCode::into_response(status),
    }
}
