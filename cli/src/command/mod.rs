//! What each command does: one module per noun.

pub mod account;
pub mod agent;
pub mod audit;
pub mod container;
pub mod edge;
pub mod key;
pub mod ledger;
pub mod migrate;
pub mod migration;
pub mod serve;
pub mod token;
pub mod witness;

use crate::arguments::Command;
use crate::failure::{Failure, Outcome};

/// Carries out a command.
///
/// # Errors
/// Why it came to nothing.
pub async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Serve(command) => command.run().await,
        Command::Agent(command) => command.run().await,
        Command::Account(command) => command.run().await,
        Command::Token(command) => command.run().await,
        Command::Whoami(command) => command.run().await,
        Command::Edge(command) => command.run().await,
        Command::Container(command) => command.run().await,
        Command::Audit(command) => command.run().await,
        Command::Migrate(command) => command.run().await,
        Command::Migration(command) => command.run().await,
        Command::Ledger(command) => command.run().await,
        Command::Key(command) => command.run().await,
        Command::Witness(command) => command.run().await,
    }
}
