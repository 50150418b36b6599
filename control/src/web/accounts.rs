use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use carnet_api::v1::{Account, CreateAccount, Role};
use serde::Deserialize;

use super::access::Visitor;
use super::fields::Fields;
use super::form::{Field, Form, Kind};
use super::page::{Frame, Secret, page, shown};
use super::paging::{Asked, Paged, listing, paged};
use super::words::{ago, role};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::accounts;
use crate::http::problem::{ApiError, Named};

/// An account in a list.
struct AccountRow {
    name: String,
    roles: Vec<&'static str>,
    made: String,
}

fn row(account: Account) -> AccountRow {
    AccountRow {
        roles: account.roles.iter().map(|one| role(*one)).collect(),
        made: ago(account.created_at_ms, clock::now()),
        name: account.name,
    }
}

#[derive(Template)]
#[template(path = "accounts.html")]
struct AccountsPage {
    frame: Frame,
    search: String,
    list: Paged<AccountRow>,
    /// For an administrator.
    form: Option<Form>,
    secret: Option<Secret>,
}

impl AccountsPage {
    /// Whether somebody mends what was refused, or copies what is shown once.
    fn is_busy(&self) -> bool {
        self.secret.is_some() || self.form.as_ref().is_some_and(Form::is_refused)
    }
}

/// Which part of the list is to be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    search: String,
    page: Option<u32>,
}

fn fields() -> Form {
    Form::new(vec![
        Field::new("name", "Name", Kind::Name)
            .hint("Letters, digits, . _ and -, at most 63. It cannot be changed."),
        Field::new(
            "roles",
            "Roles",
            Kind::Boxes(vec![
                ("edge_owner", "Edge owner: lends edges"),
                (
                    "container_owner",
                    "Container owner: says where containers may go, and moves them",
                ),
                ("auditor", "Auditor: reads everything, changes nothing"),
                (
                    "administrator",
                    "Administrator: makes accounts, replaces keys, ends what is stuck",
                ),
            ]),
        )
        .hint("At least one."),
    ])
}

async fn accounts_page(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    part: &Part,
) -> Result<AccountsPage, ApiError> {
    let asked = Asked::new("/accounts")
        .with("search", part.search.as_str())
        .with_page("page", part.page);
    let found = accounts::listed(app, &listing(&part.search, part.page)).await?;
    Ok(AccountsPage {
        frame: Frame::of(visitor),
        search: part.search.clone(),
        list: paged(&asked, "page", part.page, found).map(row),
        form: caller.is(Role::Administrator).then(fields),
        secret: None,
    })
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    shown(&accounts_page(&app, &visitor, &caller, &part).await?)
}

/// The page with an account's password, which is shown this once.
async fn with_password(
    app: &App,
    visitor: &Visitor,
    caller: &Caller,
    account: &str,
) -> Result<Response, ApiError> {
    let given = accounts::give_password(app, caller, account).await?;
    let mut again = accounts_page(app, visitor, caller, &Part::default()).await?;
    again.secret = Some(Secret {
        title: "The password",
        text: given.secret,
        hint: format!(
            "It is shown this once. With it {} logs in, and sets another; the password before is good no more, and its sessions have ended.",
            given.account
        ),
    });
    shown(&again)
}

pub(super) async fn make(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    typed: Fields,
) -> Result<Response, ApiError> {
    let asked = CreateAccount {
        name: typed.text("name").to_owned(),
        roles: typed
            .all("roles")
            .filter_map(|role| serde_json::from_value(role.into()).ok())
            .collect(),
    };
    match accounts::add(&app, &caller, asked).await {
        // A crash before the password: an account that has none, and can be given one.
        Ok(account) => with_password(&app, &visitor, &caller, &account.name).await,
        Err(error) => {
            let status = error.status();
            let mut again = accounts_page(&app, &visitor, &caller, &Part::default()).await?;
            again.form = Some(fields().filled(&typed).refused(error)?);
            page(status, &again)
        }
    }
}

pub(super) async fn reset_password(
    State(app): State<App>,
    visitor: Visitor,
    caller: Caller,
    Named(name): Named,
) -> Result<Response, ApiError> {
    with_password(&app, &visitor, &caller, &name).await
}
