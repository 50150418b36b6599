use carnet_api::v1::{Account, CreateAccount, NewPassword, Role};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

use super::token::{NewToken, show_secret};
use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::reference::Reference;
use crate::view;

/// A role, as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleArgument(pub Role);

impl ValueEnum for RoleArgument {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(Role::EdgeOwner),
            Self(Role::ContainerOwner),
            Self(Role::Auditor),
            Self(Role::Administrator),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Role::EdgeOwner => "lends edges",
            Role::ContainerOwner => "owns and moves containers",
            Role::Auditor => "reads everything, changes nothing",
            Role::Administrator => "makes accounts",
        };
        Some(PossibleValue::new(view::account::role(self.0)).help(help))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carnet account create erin --role edge-owner --role container-owner
  carnet account token erin --label laptop --valid-for 90days > erin.token
  carnet account password erin > erin.password
  carnet account list")]
pub struct AccountCommand {
    #[command(subcommand)]
    action: AccountAction,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum AccountAction {
    /// Make an account
    Create {
        /// Unique; letters, digits, `.`, `_` and `-`
        name: Reference,
        /// What it may do; give it several times for several roles
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<RoleArgument>,
    },
    /// List all accounts
    List,
    /// Make an API token for an account; its secret goes to standard output, this once
    Token {
        /// The account
        account: Reference,
        #[command(flatten)]
        token: NewToken,
    },
    /// Give an account a new password for the pages; it goes to standard output, this once, and
    /// the account's browser sessions end
    Password {
        /// The account
        account: Reference,
    },
}

impl AccountCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        match self.action {
            AccountAction::Create { name, roles } => {
                let body = CreateAccount {
                    name: name.to_string(),
                    roles: roles.iter().map(|role| role.0).collect(),
                };
                let created = session.create::<_, Account>("/v1/accounts", &body).await?;
                session.show(&created, view::account::account)?;
                session.output().hint(&format!(
                    "next: carnet account token {name} --label WHAT-FOR"
                ));
            }
            AccountAction::List => {
                let accounts = session.get::<Vec<Account>>("/v1/accounts").await?;
                session.show(&accounts, |accounts, surface| {
                    view::account::accounts(accounts, surface)
                })?;
            }
            AccountAction::Token { account, token } => {
                let path = format!("/v1/accounts/{account}/tokens");
                let created = session.create(&path, &token.body()).await?;
                show_secret(&session, &created, account.as_str())?;
            }
            AccountAction::Password { account } => {
                let path = format!("/v1/accounts/{account}/password");
                let body = serde_json::json!({});
                let created = session.create::<_, NewPassword>(&path, &body).await?;
                session.show(&created, |created, _| created.secret.clone())?;
                session.output().hint(&format!(
                    "{account} logs in with it, and sets another on the account's page"
                ));
            }
        }
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct WhoamiCommand {
    #[command(flatten)]
    client: ClientArguments,
}

impl WhoamiCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        let account = session.get::<Account>("/v1/whoami").await?;
        session.show(&account, view::account::account)?;
        Ok(Outcome::Done)
    }
}
