use carnet_api::v1::Migration;
use carnet_core::ids::MigrationId;
use clap::{Args, Subcommand};

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::view;

/// How long a cancelled migration is waited for, in seconds.
const WAIT_S: u64 = 60;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carnet migration list
  carnet migration show 0192d3c4-6a1f-7c3e-9b0a-5d2f8e7c1a40
  carnet migration cancel 0192d3c4-6a1f-7c3e-9b0a-5d2f8e7c1a40")]
pub struct MigrationCommand {
    #[command(subcommand)]
    action: MigrationAction,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum MigrationAction {
    /// List migrations, the latest first
    List,
    /// Show a migration: every candidate and reason, phases, bytes, stall
    Show {
        /// Its id
        id: MigrationId,
    },
    /// Cancel a migration before its commit: the container goes on at its source as it was
    Cancel {
        /// Its id
        id: MigrationId,
        /// Do not wait until the container runs on
        #[arg(long)]
        no_wait: bool,
    },
}

impl MigrationCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        match self.action {
            MigrationAction::List => {
                let migrations = session.get::<Vec<Migration>>("/v1/migrations").await?;
                session.show(&migrations, |migrations, surface| {
                    view::migration::migrations(migrations, surface)
                })?;
            }
            MigrationAction::Show { id } => {
                let migration = session
                    .get::<Migration>(&format!("/v1/migrations/{id}"))
                    .await?;
                session.show(&migration, view::migration::migration)?;
            }
            MigrationAction::Cancel { id, no_wait } => {
                let wait = if no_wait { 0 } else { WAIT_S };
                let path = format!("/v1/migrations/{id}/cancel?wait={wait}");
                let migration = session.act::<Migration>(&path).await?;
                session.show(&migration, view::migration::migration)?;
                if !migration.value.state.is_ended() {
                    session.output().hint(&format!(
                        "it is not over yet; to see how it goes: carnet migration show {id}"
                    ));
                }
            }
        }
        Ok(Outcome::Done)
    }
}
