use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::CreateAccount;
use carnet_core::ids::{AccountId, SessionId};
use serde::Deserialize;

use super::access::Visitor;
use super::fields::Fields;
use super::form::{Field, Form, Kind};
use super::page::{Frame, page, shown};
use super::throttle::of_address;
use super::words::{ago, role};
use super::{Web, session};
use crate::http::access::Caller;
use crate::http::problem::{ApiError, Named};
use crate::http::{App, accounts};
use crate::{clock, passwords};

/// Where to go once logged in.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Onward {
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "log_in.html")]
struct LogInPage {
    frame: Frame,
    form: Form,
}

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterPage {
    frame: Frame,
    form: Form,
}

fn log_in_fields(onward: &str) -> Form {
    Form::new(vec![
        Field::new("name", "Name", Kind::Name),
        Field::new("password", "Password", Kind::Password),
        Field::new("next", "", Kind::Hidden).value(onward),
    ])
}

fn register_fields() -> Form {
    Form::new(vec![
        Field::new("name", "Name", Kind::Name)
            .hint("Others know you by it: letters, digits, . _ and -, at most 63."),
        Field::new("password", "Password", Kind::NewPassword)
            .hint("At least 12 characters. A few words make a good one."),
        Field::new(
            "roles",
            "What you have",
            Kind::Boxes(vec![
                (
                    "edge_owner",
                    "Edges: I lend servers, and say who may use them",
                ),
                (
                    "container_owner",
                    "Containers: I say where they may go, and move them",
                ),
            ]),
        )
        .hint("One or both."),
    ])
}

pub(super) async fn log_in_form(
    visitor: Visitor,
    onward: Result<Query<Onward>, QueryRejection>,
) -> Result<Response, ApiError> {
    if visitor.known.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    let Query(onward) = onward.unwrap_or_default();
    shown(&LogInPage {
        frame: Frame::of(&visitor),
        form: log_in_fields(&onward.next),
    })
}

/// A path of ours. Anything else would lead somebody who has just logged in to wherever a link
/// says.
fn of_ours(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next.starts_with("//")
        && next
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours { next } else { "/" }
}

fn too_many(wait: Duration) -> ApiError {
    let minutes = wait.as_secs().div_ceil(60).max(1);
    ApiError::too_many(format!(
        "too many attempts; try again in {minutes} min. Whoever has forgotten a password asks an administrator for a new one"
    ))
}

/// The account, if the password is its. What is told of an unknown name and of a wrong password is
/// the same, and takes as long.
async fn checked(
    web: &Web,
    visitor: &Visitor,
    name: &str,
    password: &str,
) -> Result<AccountId, ApiError> {
    let now = Instant::now();
    let address = of_address(visitor.from);
    let throttles = &web.throttles;
    throttles
        .addresses
        .attempt(&address, now)
        .map_err(too_many)?;
    throttles.names.attempt(name, now).map_err(too_many)?;
    let (account, hash) = web.app.store.password(name).await?.unzip();
    let is_it = passwords::verify(password.to_owned(), hash).await?;
    match account {
        Some(account) if is_it => {
            throttles.addresses.succeeded(&address);
            throttles.names.succeeded(name);
            Ok(account)
        }
        _ => Err(ApiError::refused_input(
            "the name or the password is wrong; an account that was made for programs has no password until an administrator gives it one",
        )),
    }
}

pub(super) async fn log_in(
    State(web): State<Web>,
    visitor: Visitor,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    match checked(&web, &visitor, fields.text("name"), fields.raw("password")).await {
        Ok(account) => {
            let onward = of_ours(fields.text("next")).to_owned();
            logged_in(&web.app, account, &visitor, &headers, &onward).await
        }
        Err(error) => {
            let status = error.status();
            let form = log_in_fields("").filled(&fields).refused(error)?;
            let frame = Frame::of(&visitor);
            page(status, &LogInPage { frame, form })
        }
    }
}

async fn logged_in(
    app: &App,
    account: AccountId,
    visitor: &Visitor,
    headers: &HeaderMap,
    onward: &str,
) -> Result<Response, ApiError> {
    let cookie = session::begin(app, account, visitor.from, headers).await?;
    let mut response = Redirect::to(onward).into_response();
    put_cookies(
        &mut response,
        [cookie, session::forget_cookie(session::FORM_COOKIE)],
    );
    Ok(response)
}

fn put_cookies<const N: usize>(response: &mut Response, cookies: [Option<HeaderValue>; N]) {
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

pub(super) async fn register_form(visitor: Visitor) -> Result<Response, ApiError> {
    shown(&RegisterPage {
        frame: Frame::of(&visitor),
        form: register_fields(),
    })
}

pub(super) async fn register(
    State(web): State<Web>,
    visitor: Visitor,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let asked = CreateAccount {
        name: fields.text("name").to_owned(),
        roles: fields
            .all("roles")
            .filter_map(|role| serde_json::from_value(role.into()).ok())
            .collect(),
    };
    let address = of_address(visitor.from);
    let passed = web
        .throttles
        .registrations
        .attempt(&address, Instant::now())
        .map_err(too_many);
    let made = match passed {
        Ok(()) => accounts::register(&web.app, asked, fields.raw("password").to_owned()).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(account) => logged_in(&web.app, account.id, &visitor, &headers, "/").await,
        Err(error) => {
            let status = error.status();
            let form = register_fields().filled(&fields).refused(error)?;
            let frame = Frame::of(&visitor);
            page(status, &RegisterPage { frame, form })
        }
    }
}

pub(super) async fn log_out(
    State(app): State<App>,
    visitor: Visitor,
) -> Result<Response, ApiError> {
    if let Some((caller, session)) = visitor.known {
        app.store.end_session(caller.account, session).await?;
    }
    let mut response = Redirect::to("/log-in").into_response();
    put_cookies(
        &mut response,
        [session::forget_cookie(session::SESSION_COOKIE)],
    );
    Ok(response)
}

/// A session, as a page shows it.
struct SessionRow {
    id: SessionId,
    is_this: bool,
    begun: String,
    used: String,
    address: String,
    browser: String,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    roles: Vec<&'static str>,
    sessions: Vec<SessionRow>,
    form: Form,
    changed: bool,
}

fn password_fields() -> Form {
    Form::new(vec![
        Field::new("current", "Current password", Kind::Password),
        Field::new("password", "New password", Kind::NewPassword)
            .hint("At least 12 characters. A few words make a good one. Your other sessions end."),
    ])
}

async fn account_page(
    app: &App,
    visitor: &Visitor,
    form: Form,
    changed: bool,
) -> Result<AccountPage, ApiError> {
    let (caller, current) = visitor
        .known
        .as_ref()
        .ok_or_else(|| ApiError::unauthenticated("nobody is logged in"))?;
    let now = clock::now();
    let sessions = session::all(app, caller.account).await?;
    Ok(AccountPage {
        frame: Frame::of(visitor),
        roles: caller.roles.iter().map(|one| role(*one)).collect(),
        sessions: sessions
            .into_iter()
            .map(|session| SessionRow {
                id: session.id,
                is_this: session.id == *current,
                begun: ago(session.created_at, now),
                used: ago(session.used_at, now),
                address: session.address,
                browser: session.browser,
            })
            .collect(),
        form,
        changed,
    })
}

pub(super) async fn show(State(app): State<App>, visitor: Visitor) -> Result<Response, ApiError> {
    shown(&account_page(&app, &visitor, password_fields(), false).await?)
}

pub(super) async fn change_password(
    State(web): State<Web>,
    visitor: Visitor,
    caller: Caller,
    fields: Fields,
) -> Result<Response, ApiError> {
    let changed = change(&web, &visitor, &caller, &fields).await;
    let (status, form, changed) = match changed {
        Ok(()) => (StatusCode::OK, password_fields(), true),
        Err(error) => {
            let status = error.status();
            (status, password_fields().refused(error)?, false)
        }
    };
    page(
        status,
        &account_page(&web.app, &visitor, form, changed).await?,
    )
}

/// Whoever found a session open does not know the password: it is asked for again.
async fn change(
    web: &Web,
    visitor: &Visitor,
    caller: &Caller,
    fields: &Fields,
) -> Result<(), ApiError> {
    let password = fields.raw("password");
    passwords::check("password", &caller.name, password)?;
    checked(web, visitor, &caller.name, fields.raw("current"))
        .await
        .map_err(|error| match error.0.status {
            422 => ApiError::fault(
                "current",
                "",
                "not your password",
                "the one you logged in with",
            ),
            _ => error,
        })?;
    let hash = passwords::hash(password.to_owned()).await?;
    let session = visitor.known.as_ref().map(|(_, session)| *session);
    web.app
        .store
        .set_password(caller.account, &hash, caller.account, session, clock::now())
        .await?;
    Ok(())
}

pub(super) async fn end_session(
    State(app): State<App>,
    Named(id): Named,
    caller: Caller,
) -> Result<Redirect, ApiError> {
    let missing = || ApiError::not_found("session", &id);
    let session: SessionId = id.parse().map_err(|_| missing())?;
    if app.store.end_session(caller.account, session).await? {
        Ok(Redirect::to("/account"))
    } else {
        Err(missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_logged_in_is_led_to_pages_of_ours_only() {
        for ours in ["/", "/edges/north", "/containers?x=1"] {
            assert_eq!(of_ours(ours), ours);
        }
        let others = [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a b",
            "/a\r\nset-cookie: x",
            "javascript:alert(1)",
        ];
        for others in others {
            assert_eq!(of_ours(others), "/");
        }
    }
}
