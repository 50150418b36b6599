//! The pages, for people with a browser: what the API does, without a terminal.
//!
//! A page's handler reads what was asked, calls the function that the API's handler calls, and
//! shows what came of it. Who may see a page stands in [`access`], in a table of its own; a
//! browser session makes the same [`Caller`](crate::http::access::Caller) that a token makes.
//! Pages work without scripts, and load nothing from elsewhere; one module of ours shows changes
//! as they happen, another answers a form while it is filled in.

pub mod access;
mod account;
mod accounts;
mod admin;
mod asset;
mod choice;
mod containers;
mod edges;
mod export;
mod fields;
mod form;
mod ledger;
mod live;
mod map;
mod migrations;
mod page;
mod paging;
mod permit;
mod preview;
mod progress;
mod requirements;
mod session;
mod sparkline;
mod stays;
mod throttle;
mod words;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{FromRef, Request};
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use carnet_api::tls::TlsListener;
use carnet_api::v1::{Problem, Role};
use tokio::net::TcpListener;

use self::page::Frame;
use self::throttle::Throttles;
use crate::http::App;
use crate::http::access::Caller;

/// From where a request comes: axum's `ConnectInfo` on the control plane's listeners.
#[derive(Debug, Clone, Copy)]
pub struct Address(pub SocketAddr);

impl Connected<IncomingStream<'_, TlsListener>> for Address {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Address {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// What pages work with.
#[derive(Clone)]
struct Web {
    app: App,
    throttles: Arc<Throttles>,
}

impl FromRef<Web> for App {
    fn from_ref(web: &Web) -> Self {
        web.app.clone()
    }
}

/// Every page.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(app: App) -> Router<S> {
    let web = Web {
        app,
        throttles: Arc::default(),
    };
    Router::new()
        .route("/", get(home))
        .route("/log-in", get(account::log_in_form).post(account::log_in))
        .route(
            "/register",
            get(account::register_form).post(account::register),
        )
        .route("/log-out", post(account::log_out))
        .route("/account", get(account::show))
        .route("/account/password", post(account::change_password))
        .route(
            "/account/sessions/{session}/end",
            post(account::end_session),
        )
        .route("/live", get(live::follow))
        .route("/edges", get(edges::list))
        .route(
            "/register-edge",
            get(edges::register_form).post(edges::register),
        )
        .route("/edges/{edge}", get(edges::show))
        .route(
            "/edges/{edge}/attributes",
            get(edges::describe_form).post(edges::describe),
        )
        .route("/edges/{edge}/enrol", post(edges::enrol))
        .route("/edges/{edge}/disenrol", post(edges::disenrol))
        .route("/edges/{edge}/share", post(edges::share))
        .route("/share-keys", post(edges::enter_key))
        .route("/share-keys/{key}/revoke", post(edges::revoke))
        .route("/containers", get(containers::list))
        .route(
            "/register-container",
            get(containers::register_form).post(containers::register),
        )
        .route("/containers/{container}", get(containers::show))
        .route(
            "/containers/{container}/requirements",
            get(containers::require_form).post(containers::require),
        )
        .route(
            "/containers/{container}/map",
            get(map::show).post(map::change),
        )
        .route("/containers/{container}/claim", post(containers::claim))
        .route(
            "/containers/{container}/check-claim",
            post(containers::check_claim),
        )
        .route(
            "/containers/{container}/confirm",
            post(containers::vouch_for),
        )
        .route(
            "/containers/{container}/allow-post-copy",
            post(containers::allow_post_copy),
        )
        .route("/containers/{container}/forget", post(containers::forget))
        .route("/containers/{container}/audit", post(migrations::audit))
        .route(
            "/containers/{container}/move",
            get(migrations::move_form).post(migrations::begin),
        )
        .route("/entries", get(ledger::list).post(ledger::verify))
        .route("/entries.csv", get(export::csv))
        .route("/entries.json", get(export::json))
        .route("/entries/{number}", get(ledger::show))
        .route("/entries/{number}/proof", get(ledger::proof))
        .route("/stays", get(stays::list))
        .route("/accounts", get(accounts::list).post(accounts::make))
        .route(
            "/accounts/{account}/password",
            post(accounts::reset_password),
        )
        .route("/admin", get(admin::show))
        .route("/admin/rotate-key", post(admin::rotate_key))
        .route("/migrations", get(migrations::list))
        .route("/migrations/{migration}", get(migrations::show))
        .route("/migrations/{migration}/cancel", post(migrations::cancel))
        .route(
            "/migrations/{migration}/entries/{number}",
            get(migrations::proof),
        )
        .route_layer(middleware::from_fn_with_state(web.clone(), access::enforce))
        .route("/assets/{file}", get(asset::serve))
        .with_state(web)
}

/// Where someone begins who has just logged in.
async fn home(caller: Caller) -> Redirect {
    Redirect::to(begin(&caller))
}

fn begin(caller: &Caller) -> &'static str {
    if caller.is(Role::EdgeOwner) {
        "/edges"
    } else if caller.is(Role::ContainerOwner) {
        "/containers"
    } else if caller.is(Role::Administrator) {
        "/admin"
    } else {
        "/entries"
    }
}

/// Whether a request that fits no route was meant for a page.
pub(crate) fn is_page(request: &Request) -> bool {
    let path = request.uri().path();
    let takes_html = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    takes_html && !path.starts_with("/v1/") && !path.starts_with("/ledger/")
}

/// There is no page there.
pub(crate) fn no_page(request: &Request) -> Response {
    told(crate::http::problem::ApiError::not_found("page", request.uri().path()).0)
}

/// A problem, told in words to somebody of whom nothing is known.
pub(crate) fn told(problem: Problem) -> Response {
    page::secured(page::told(Frame::default(), problem).into_response())
}
