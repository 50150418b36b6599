//! Signals that ask for the end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::LabError;
use crate::progress::tell;

/// From here on, a signal that asks for the end is remembered in what is returned, so that the
/// lab goes away in order. A second one ends this process at once; what is left of the lab then
/// goes with the next one of its name.
///
/// # Errors
/// Where signals cannot be watched.
pub fn watch() -> Result<Arc<AtomicI32>, LabError> {
    let cannot = |error: std::io::Error| LabError::Other(format!("cannot watch signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let asked = Arc::new(AtomicI32::new(0));
    let mut watched = tokio::task::JoinSet::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let number = kind.as_raw_value();
        // Who started this by nohup(1), or in the background, does not want it to hear of it.
        if is_ignored(number)? {
            continue;
        }
        let _inside = runtime.enter();
        let mut signals = signal(kind).map_err(cannot)?;
        let asked = asked.clone();
        watched.spawn_on(
            async move {
                while signals.recv().await.is_some() {
                    if asked.swap(number, Ordering::Relaxed) != 0 {
                        std::process::exit(128 + number);
                    }
                    tell("          asked to end (once more: at once, and the next lab of its name removes the rest)");
                }
            },
            runtime.handle(),
        );
    }
    std::thread::spawn(move || runtime.block_on(watched.join_all()));
    Ok(asked)
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: i32) -> Result<bool, LabError> {
    let path = Path::new("/proc/self/status");
    let status = std::fs::read_to_string(path).map_err(LabError::file(path))?;
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    Ok(ignored >> (signal - 1) & 1 == 1)
}
