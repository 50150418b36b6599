//! Browser sessions: a random secret in a cookie, of which the database keeps the hash.

use axum::http::{HeaderMap, HeaderValue, header};
use carnet_core::ids::{AccountId, SessionId};
use carnet_core::instant::UnixMillis;
use uuid::Uuid;

use super::Address;
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::problem::ApiError;
use crate::secret::{self, Secret};
use crate::store::{Good, NewSession, Session};

/// `__Host-`: browsers take it from this server alone, over TLS, and send it to no other.
pub(super) const SESSION_COOKIE: &str = "__Host-carnet-session";
/// Binds forms to a browser in which nobody is logged in.
pub(super) const FORM_COOKIE: &str = "__Host-carnet-form";
/// Random bytes in either.
const SECRET_BYTES: usize = 32;
/// How long a session is good for that is not used.
const IDLE_MS: i64 = 12 * 3600 * 1000;
/// How long any is.
const LONGEST_MS: i64 = 7 * 24 * 3600 * 1000;
/// A use is noted no more often than this.
const NOTED_MS: i64 = 60 * 1000;
/// How much is kept of what a browser calls itself, in characters.
const MAX_BROWSER: usize = 200;

/// What a cookie holds.
pub(super) fn secret() -> Secret {
    Secret::new("", SECRET_BYTES)
}

fn good(now: UnixMillis) -> Good {
    Good {
        begun_after: UnixMillis(now.0 - LONGEST_MS),
        used_after: UnixMillis(now.0 - IDLE_MS),
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// What sets a cookie until the browser is closed; the server's own limits may come before.
pub(super) fn set_cookie(name: &str, value: &str) -> Option<HeaderValue> {
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(cookie).ok()
}

/// What has a browser forget a cookie.
pub(super) fn forget_cookie(name: &str) -> Option<HeaderValue> {
    let cookie = format!("{name}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    HeaderValue::try_from(cookie).ok()
}

/// Begins a session; returns the cookie for it. Each log-in has one of its own: a cookie that
/// somebody else put into the browser before is worth nothing.
pub(super) async fn begin(
    app: &App,
    account: AccountId,
    from: Option<Address>,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, ApiError> {
    let now = clock::now();
    let secret = secret();
    let browser = headers
        .get(header::USER_AGENT)
        .and_then(|browser| browser.to_str().ok())
        .unwrap_or("a browser that does not say which");
    let new = NewSession {
        id: SessionId::from_uuid(Uuid::now_v7()),
        account,
        secret_hash: secret.hash(),
        created_at: now,
        address: from.map_or_else(|| "unknown".to_owned(), |from| from.0.ip().to_string()),
        browser: browser.chars().take(MAX_BROWSER).collect(),
    };
    app.store.begin_session(&new, good(now)).await?;
    Ok(set_cookie(SESSION_COOKIE, &secret.reveal()))
}

/// Whether somebody asks, and not a page that is open and shows changes: that one is not to keep
/// a session from ending. Browsers say which it is.
fn is_use(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-mode")
        .is_none_or(|mode| mode == "navigate")
}

/// Whose session a cookie is of. Its account may do in it what its roles allow.
pub(super) async fn holder(
    app: &App,
    cookie: &str,
    headers: &HeaderMap,
) -> Result<Option<(Caller, SessionId)>, ApiError> {
    let now = clock::now();
    let hash = secret::hash(cookie);
    let Some(holder) = app.store.session_holder(&hash, good(now)).await? else {
        return Ok(None);
    };
    if is_use(headers) && now.0 - holder.used_at.0 >= NOTED_MS {
        app.store.use_session(holder.session, now).await?;
    }
    let caller = Caller {
        account: holder.account,
        name: holder.name,
        roles: holder.roles,
        token_expires_at: Some(UnixMillis(holder.created_at.0 + LONGEST_MS)),
    };
    Ok(Some((caller, holder.session)))
}

/// The sessions of an account that are good.
pub(super) async fn all(app: &App, account: AccountId) -> Result<Vec<Session>, ApiError> {
    Ok(app.store.sessions(account, good(clock::now())).await?)
}
