use carnet_api::v1::{GiveUp, LostEdge, Migration};
use carnet_core::ids::MigrationId;
use clap::{Args, Subcommand};

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::view;

/// How long the end of a migration that is cancelled or given up is waited for, in seconds.
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
    /// Declare an edge of a migration lost, for the migration to go on without it (administrator)
    #[command(after_help = GIVE_UP_HELP)]
    GiveUp {
        /// Its id
        id: MigrationId,
        #[command(flatten)]
        lost: Lost,
    },
}

const GIVE_UP_HELP: &str = "\
`carnet migration show` says when a migration needs this, and what each of the two leads to.

A target that is declared lost after the commit is not asked whether it still runs the container:
the source goes on as it was when it was frozen or stopped. If the target is only cut off, there are
two running copies until it can be reached, when its own is removed. That this is not so is your
word, and the ledger keeps it.";

/// Which edge is lost.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Lost {
    /// The edge that the container comes from, and what was on it, is gone for good
    #[arg(long)]
    source_is_lost: bool,
    /// The edge that the container goes to, and what ran on it, is gone for good
    #[arg(long)]
    target_is_lost: bool,
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
            MigrationAction::GiveUp { id, lost } => {
                let lost = if lost.target_is_lost {
                    LostEdge::Target
                } else {
                    LostEdge::Source
                };
                let path = format!("/v1/migrations/{id}/give-up?wait={WAIT_S}");
                let migration = session.ask::<_, Migration>(&path, &GiveUp { lost }).await?;
                session.show(&migration, view::migration::migration)?;
                if !migration.value.state.is_ended() {
                    session.output().hint(&format!(
                        "it is not over yet; to see how it goes: carnet migration show {id}"
                    ));
                }
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
