use carnet_api::v1::Keys;
use clap::{Args, Subcommand};

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::view::details;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carnet key show
  carnet key rotate")]
pub struct KeyCommand {
    #[command(subcommand)]
    action: KeyAction,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Show the public keys that permits and the ledger are verified with
    Show,
    /// Replace the key that permits are signed with; moves under way go on (administrators)
    Rotate,
}

impl KeyCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        let keys = match self.action {
            KeyAction::Show => session.get::<Keys>("/v1/keys").await?,
            KeyAction::Rotate => session.act::<Keys>("/v1/keys/permit/rotate").await?,
        };
        session.show(&keys, |keys, surface| {
            details(
                "keys of the control plane",
                &[
                    ("ledger", keys.ledger.clone()),
                    ("permits", keys.permit.public.clone()),
                    ("kid", keys.permit.kid.clone()),
                ],
                surface.width,
            )
        })?;
        Ok(Outcome::Done)
    }
}
