use askama::Template;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use carnet_api::v1::{Problem, Role};

use super::access::Visitor;
use super::asset;
use crate::http::access::Caller;
use crate::http::problem::ApiError;

/// Nothing but our own style sheet, images and module, which talks to here alone; forms only to
/// here, and in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                      connect-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// What is around every page.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Who is logged in.
    pub name: Option<String>,
    pub lends_edges: bool,
    pub owns_containers: bool,
    pub reads_everything: bool,
    pub administers: bool,
    /// For each form.
    pub form_token: String,
    pub icon: String,
    pub style: String,
    pub live: String,
    pub preview: String,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            name: None,
            lends_edges: false,
            owns_containers: false,
            reads_everything: false,
            administers: false,
            form_token: String::new(),
            icon: asset::icon_path(),
            style: asset::style_path(),
            live: asset::live_path(),
            preview: asset::preview_path(),
        }
    }
}

impl Frame {
    pub(super) fn of(visitor: &Visitor) -> Self {
        let caller = visitor.known.as_ref().map(|(caller, _)| caller);
        let is = |role| caller.is_some_and(|caller| caller.is(role));
        Self {
            name: caller.map(|caller| caller.name.clone()),
            lends_edges: is(Role::EdgeOwner),
            owns_containers: is(Role::ContainerOwner),
            administers: is(Role::Administrator),
            reads_everything: caller.is_some_and(Caller::sees_everything),
            form_token: visitor.form_token.clone(),
            ..Self::default()
        }
    }
}

/// What is shown once, to be copied.
pub(super) struct Secret {
    pub title: &'static str,
    pub text: String,
    pub hint: String,
}

/// A page.
///
/// # Errors
/// Where its template cannot be written, which is Carnet's fault.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Result<Response, ApiError> {
    let html = template
        .render()
        .map_err(|error| ApiError::internal(&error))?;
    Ok((status, Html(html)).into_response())
}

/// A page on which everything went well.
///
/// # Errors
/// As [`page`].
pub(super) fn shown(template: &impl Template) -> Result<Response, ApiError> {
    page(StatusCode::OK, template)
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    problem: Problem,
}

/// A problem, in words.
pub(super) fn told(frame: Frame, problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let told = ProblemPage { frame, problem };
    page(status, &told).unwrap_or_else(|_| status.into_response())
}

/// A file to be kept, and not shown in the browser.
pub(super) fn download(name: &str, kind: &'static str, body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    (headers, body.into()).into_response()
}

/// With the headers that say to a browser what a page may do. What is not to be kept is not.
pub(super) fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let always = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
