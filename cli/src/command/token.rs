use std::time::Duration;

use carnet_api::v1::{ApiToken, CreateApiToken, NewApiToken};
use carnet_core::ids::TokenId;
use clap::{Args, Subcommand};

use super::account::RoleArgument;
use crate::client::{Answer, ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::view;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carnet token create --label ci --role auditor --valid-for 30days > ci.token
  carnet token list
  carnet token revoke 0192d3c4-6a1f-7c3e-9b0a-5d2f8e7c1a40")]
pub struct TokenCommand {
    #[command(subcommand)]
    action: TokenAction,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum TokenAction {
    /// Make a token for yourself; its secret goes to standard output, this once
    Create {
        #[command(flatten)]
        token: NewToken,
    },
    /// List your tokens, without their secrets
    List,
    /// End a token at once
    Revoke {
        /// Its id, as `carnet token list` shows it
        id: TokenId,
    },
}

/// What a new token is to be.
#[derive(Debug, Args)]
pub struct NewToken {
    /// What it is for, in your words
    #[arg(long, value_name = "TEXT")]
    label: String,
    /// A role that it may use; all of the account's where none is given
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleArgument>,
    /// How long it is good for, e.g. 12h or 30days; for ever where it is not given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    valid_for: Option<Duration>,
}

impl NewToken {
    pub fn body(&self) -> CreateApiToken {
        CreateApiToken {
            label: self.label.clone(),
            roles: (!self.roles.is_empty()).then(|| self.roles.iter().map(|role| role.0).collect()),
            valid_for_seconds: self.valid_for.map(|span| span.as_secs()),
        }
    }
}

/// The secret alone on stdout, so that it can go into a file; what to do with it on stderr.
pub fn show_secret(
    session: &Session,
    created: &Answer<NewApiToken>,
    whose: &str,
) -> Result<(), Failure> {
    session.show(created, |created, _| created.secret.clone())?;
    session.output().hint(&format!(
        "the token above is shown this once; whoever holds it acts as {whose}.\n\
         to use it: keep it in a file that only you can read, and set CARNET_TOKEN_FILE to it.\n\
         to end it: carnet token revoke {}",
        created.value.token.id
    ));
    Ok(())
}

impl TokenCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        match self.action {
            TokenAction::Create { token } => {
                let created = session.create("/v1/tokens", &token.body()).await?;
                show_secret(&session, &created, "you")?;
            }
            TokenAction::List => {
                let tokens = session.get::<Vec<ApiToken>>("/v1/tokens").await?;
                session.show(&tokens, |tokens, surface| {
                    view::account::tokens(tokens, surface)
                })?;
            }
            TokenAction::Revoke { id } => {
                let revoked = session.delete(&format!("/v1/tokens/{id}")).await?;
                session
                    .output()
                    .answer(&revoked, |_| format!("token {id} is revoked"))?;
            }
        }
        Ok(Outcome::Done)
    }
}
