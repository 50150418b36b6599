//! What `serve`, `agent` and `witness` log, to stderr.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// The environment variable that says what is logged.
const VARIABLE: &str = "CARNET_LOG";
/// What is logged where it says nothing.
const DEFAULT: &str = "info";

/// Starts logging.
///
/// # Errors
/// Where the environment asks for what is no filter.
pub fn to_stderr() -> Result<(), Failure> {
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    let asked = if asked.is_empty() { DEFAULT } else { &asked };
    let filter = EnvFilter::try_new(asked).map_err(|error| {
        Failure::bad_input(format!("{VARIABLE} is `{asked}`: {error}"))
            .with_help("it reads like `info`, or `carnet_control=debug,info`")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .try_init()
        .map_err(|error| Failure::other(format!("cannot log: {error}")))
}
