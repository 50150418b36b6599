//! The end of `serve`, `agent` and `witness`: SIGTERM or Ctrl-C.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Completes when this process is asked to end. From now on signals do not end it by themselves.
///
/// # Errors
/// Where signals cannot be waited for.
pub fn asked_for() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let unavailable = |error| Failure::other(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
