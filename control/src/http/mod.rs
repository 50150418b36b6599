//! The REST API under `/v1`: one module per noun, each with its routes.
//!
//! A handler loads, decides, saves and answers. Who may call it stands in [`access`]; whatever
//! goes wrong is answered as a problem ([`problem`], RFC 9457).

pub mod access;
pub(crate) mod accounts;
pub(crate) mod audits;
pub(crate) mod containers;
pub(crate) mod edges;
mod enrolments;
mod idempotency;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod listing;
pub(crate) mod migrations;
pub mod openapi;
pub(crate) mod parts;
pub mod problem;
pub(crate) mod share_keys;
mod tokens;
pub(crate) mod verification;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Notify, watch};
use utoipa_axum::router::OpenApiRouter;

use self::problem::ApiError;
use crate::agents::Agents;
use crate::authority::CertificateAuthority;
use crate::keys::PermitKey;
use crate::migrate::Migrations;
use crate::store::Store;
use crate::web;
use crate::witnesses::Witnesses;

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// What handlers work with.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub agents: Arc<dyn Agents>,
    pub migrations: Arc<Migrations>,
    pub authority: Arc<CertificateAuthority>,
    pub permit_key: Arc<PermitKey>,
    /// What checkpoints of the ledger are verified with (C2SP signed-note).
    pub verifier_key: Arc<str>,
    pub witnesses: Arc<Witnesses>,
    /// Notified when there is something new for the monitor to look at.
    pub look_now: Arc<Notify>,
    /// Changes when the control plane is about to stop: whoever waits is answered.
    pub stopping: watch::Receiver<()>,
}

/// Every route, with its description.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(openapi::routes())
        .merge(accounts::routes())
        .merge(tokens::routes())
        .merge(edges::routes())
        .merge(enrolments::routes())
        .merge(share_keys::routes())
        .merge(containers::routes())
        .merge(audits::routes())
        .merge(migrations::routes())
        .merge(ledger::routes())
        .merge(verification::routes())
        .merge(keys::routes())
        .merge(parts::routes())
}

/// The API, and the pages beside it.
pub fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route_layer(middleware::from_fn_with_state(
            app.clone(),
            idempotency::once,
        ))
        .route_layer(middleware::from_fn_with_state(app.clone(), access::enforce))
        .merge(web::router(app.clone()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

async fn no_route(request: Request) -> Response {
    if web::is_page(&request) {
        return web::no_page(&request);
    }
    ApiError::no_route(request.uri().path()).into_response()
}

async fn no_method(request: Request) -> Response {
    let error = ApiError::method(request.method().as_str(), request.uri().path());
    if web::is_page(&request) {
        return web::told(error.0);
    }
    error.into_response()
}
