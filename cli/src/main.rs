//! The binary `carnet`: the control plane, the agent, and the commands for people and programs.
//!
//! Thin: a command reads its arguments, asks the control plane by its public API, and shows the
//! answer. What it shows is made in [`view`], out of data alone.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod arguments;
mod client;
mod command;
mod failure;
mod ledger;
mod log;
mod output;
mod policy_source;
mod reference;
mod shutdown;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::failure::{Failure, Outcome};
use crate::output::note;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(command::run(arguments.command)));
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            note(&failure.to_string());
            Outcome::from(&failure).into()
        }
    }
}
