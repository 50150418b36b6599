//! Commands of the machine, and waiting for what they bring about.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::LabError;

/// How much of a failed command's standard error is told, in characters.
const STDERR_END: usize = 2_000;

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// Where it cannot be started or ends with another status than 0.
pub fn run(command: &mut Command) -> Result<String, LabError> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::NotRun {
            command: shown.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let length = stderr.chars().count();
    Err(LabError::Failed {
        command: shown,
        status: output.status,
        stderr: stderr
            .trim()
            .chars()
            .skip(length.saturating_sub(STDERR_END))
            .collect(),
    })
}

/// Runs a program of the machine.
///
/// # Errors
/// Where it cannot be started or ends with another status than 0.
pub fn tool(program: &str, arguments: &[&str]) -> Result<String, LabError> {
    run(Command::new(program).args(arguments))
}

/// Program and arguments, for messages.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Waits until `condition` is met.
///
/// # Errors
/// Where it is not within `seconds`; `what` says what was waited for.
pub fn wait_until(
    what: &str,
    seconds: u64,
    mut condition: impl FnMut() -> bool,
) -> Result<(), LabError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        if Instant::now() >= deadline {
            return Err(LabError::Late {
                what: what.to_owned(),
                seconds,
            });
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
