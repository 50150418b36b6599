//! Who may do what: every route, in one table. What is not in it is refused.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carnet_api::v1::Role;
use carnet_core::ids::AccountId;
use carnet_core::instant::UnixMillis;

use super::App;
use super::problem::ApiError;
use crate::{clock, secret};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// Whoever has an account.
    AnyAccount,
    /// Whoever has one of these roles.
    Roles(&'static [Role]),
}

use Access::{AnyAccount, Public, Roles};

const EDGE_OWNER: Access = Roles(&[Role::EdgeOwner]);
const CONTAINER_OWNER: Access = Roles(&[Role::ContainerOwner]);
const ADMINISTRATOR: Access = Roles(&[Role::Administrator]);
const ACCOUNTS: Access = Roles(&[Role::Administrator, Role::Auditor]);
/// Handlers show of each kind of thing what its reader may see.
const READERS: Access = Roles(&[
    Role::EdgeOwner,
    Role::ContainerOwner,
    Role::Auditor,
    Role::Administrator,
]);
const CONTAINER_READERS: Access = READERS;
const MIGRATION_READERS: Access =
    Roles(&[Role::ContainerOwner, Role::Auditor, Role::Administrator]);

/// The ledger holds everyone's policies.
const LEDGER_READERS: Access = Roles(&[Role::Auditor, Role::Administrator]);

/// Every route of the API.
pub const ROUTES: &[(Method, &str, Access)] = &[
    (Method::GET, "/v1/health", Public),
    (Method::GET, "/v1/openapi.json", Public),
    (Method::POST, "/v1/enrolments", Public),
    (Method::GET, "/v1/keys", Public),
    (Method::GET, "/v1/keys/history", ACCOUNTS),
    (Method::POST, "/v1/keys/permit/rotate", ADMINISTRATOR),
    (Method::GET, "/v1/parts", ACCOUNTS),
    (Method::GET, "/ledger/{*path}", LEDGER_READERS),
    (Method::GET, "/v1/ledger/entries", LEDGER_READERS),
    (Method::GET, "/v1/ledger/entries/{number}", LEDGER_READERS),
    (Method::GET, "/v1/ledger/consistency", LEDGER_READERS),
    (Method::GET, "/v1/ledger/stays", LEDGER_READERS),
    (Method::GET, "/v1/ledger/verification", LEDGER_READERS),
    (Method::GET, "/v1/ledger/witnesses", LEDGER_READERS),
    (Method::GET, "/v1/whoami", AnyAccount),
    (Method::GET, "/v1/tokens", AnyAccount),
    (Method::POST, "/v1/tokens", AnyAccount),
    (Method::DELETE, "/v1/tokens/{token}", AnyAccount),
    (Method::GET, "/v1/accounts", ACCOUNTS),
    (Method::POST, "/v1/accounts", ADMINISTRATOR),
    (Method::POST, "/v1/accounts/{account}/tokens", ADMINISTRATOR),
    (
        Method::POST,
        "/v1/accounts/{account}/password",
        ADMINISTRATOR,
    ),
    (Method::GET, "/v1/edges", READERS),
    (Method::POST, "/v1/edges", EDGE_OWNER),
    (Method::GET, "/v1/edges/{edge}", READERS),
    (Method::GET, "/v1/edges/{edge}/utilization", READERS),
    (Method::PUT, "/v1/edges/{edge}/attributes", EDGE_OWNER),
    (
        Method::POST,
        "/v1/edges/{edge}/enrolment-tokens",
        EDGE_OWNER,
    ),
    (Method::POST, "/v1/edges/{edge}/disenrol", EDGE_OWNER),
    (
        Method::GET,
        "/v1/edges/{edge}/share-keys",
        Roles(&[Role::EdgeOwner, Role::Auditor]),
    ),
    (Method::POST, "/v1/edges/{edge}/share-keys", EDGE_OWNER),
    (
        Method::GET,
        "/v1/share-keys",
        Roles(&[Role::EdgeOwner, Role::ContainerOwner, Role::Auditor]),
    ),
    (Method::DELETE, "/v1/share-keys/{key}", EDGE_OWNER),
    (Method::POST, "/v1/share-keys/redeem", CONTAINER_OWNER),
    (Method::GET, "/v1/containers", CONTAINER_READERS),
    (Method::POST, "/v1/containers", CONTAINER_OWNER),
    (Method::GET, "/v1/containers/{container}", CONTAINER_READERS),
    (
        Method::DELETE,
        "/v1/containers/{container}",
        CONTAINER_OWNER,
    ),
    (
        Method::PUT,
        "/v1/containers/{container}/allow-post-copy",
        CONTAINER_OWNER,
    ),
    (
        Method::PUT,
        "/v1/containers/{container}/requirements",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/v1/containers/{container}/claims",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/v1/containers/{container}/confirm-claim",
        CONTAINER_OWNER,
    ),
    (
        Method::POST,
        "/v1/containers/{container}/confirm",
        EDGE_OWNER,
    ),
    (Method::POST, "/v1/audits", CONTAINER_OWNER),
    (Method::GET, "/v1/migrations", MIGRATION_READERS),
    (Method::POST, "/v1/migrations", CONTAINER_OWNER),
    (Method::GET, "/v1/migrations/{migration}", MIGRATION_READERS),
    (
        Method::GET,
        "/v1/migrations/{migration}/events",
        MIGRATION_READERS,
    ),
    (
        Method::GET,
        "/v1/migrations/{migration}/entries",
        MIGRATION_READERS,
    ),
    (
        Method::GET,
        "/v1/migrations/{migration}/entries/{number}",
        MIGRATION_READERS,
    ),
    (
        Method::POST,
        "/v1/migrations/{migration}/cancel",
        Roles(&[Role::ContainerOwner, Role::Administrator]),
    ),
    (
        Method::POST,
        "/v1/migrations/{migration}/give-up",
        ADMINISTRATOR,
    ),
];

/// Who is calling.
#[derive(Debug, Clone)]
pub struct Caller {
    pub account: AccountId,
    pub name: String,
    pub roles: Vec<Role>,
    /// When the token that is shown ends.
    pub token_expires_at: Option<UnixMillis>,
}

impl Caller {
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the caller sees what is others'.
    pub fn sees_everything(&self) -> bool {
        self.is(Role::Auditor) || self.is(Role::Administrator)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| ApiError::internal(&"a handler asks who calls a public route"))
    }
}

/// Lets through what the table allows.
pub async fn enforce(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // A request is not to be held while the store is asked.
    let access = access(&request);
    let token = bearer(&request).map(str::to_owned);
    match admit(&app, access, token).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// What the table says of a request's route.
fn access(request: &Request) -> Result<Access, ApiError> {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str)
        .unwrap_or_default();
    // What answers GET answers HEAD.
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    let mut known = ROUTES
        .iter()
        .filter(|(_, route, _)| *route == path)
        .peekable();
    if known.peek().is_none() {
        return Err(ApiError::no_route(request.uri().path()));
    }
    known
        .find(|(allowed, _, _)| allowed == method)
        .map(|(_, _, access)| *access)
        .ok_or_else(|| ApiError::method(method.as_str(), request.uri().path()))
}

fn bearer(request: &Request) -> Option<&str> {
    request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, token)| token.trim())
}

async fn admit(
    app: &App,
    access: Result<Access, ApiError>,
    token: Option<String>,
) -> Result<Option<Caller>, ApiError> {
    let access = access?;
    if access == Public {
        return Ok(None);
    }
    let token = token.ok_or_else(|| {
        ApiError::unauthenticated("an API token is needed: Authorization: Bearer TOKEN")
    })?;
    let caller = authenticate(app, &token).await?;
    match access {
        Roles(roles) if !roles.iter().any(|role| caller.is(*role)) => {
            Err(ApiError::forbidden(format!(
                "this takes one of the roles {}; `{}` has {}",
                names(roles),
                caller.name,
                names(&caller.roles)
            )))
        }
        _ => Ok(Some(caller)),
    }
}

/// Roles by their names on the wire.
pub(crate) fn names(roles: &[Role]) -> String {
    let names: Vec<String> = roles
        .iter()
        .filter_map(|role| serde_json::to_value(role).ok())
        .filter_map(|name| name.as_str().map(|name| format!("`{name}`")))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

async fn authenticate(app: &App, token: &str) -> Result<Caller, ApiError> {
    let holder = app
        .store
        .token_holder(&secret::hash(token), clock::now())
        .await?
        .ok_or_else(|| {
            ApiError::unauthenticated("the API token is unknown, revoked, or has expired")
        })?;
    Ok(Caller {
        account: holder.account,
        name: holder.name,
        roles: holder.roles,
        token_expires_at: holder.expires_at,
    })
}
