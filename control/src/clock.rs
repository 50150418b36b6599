//! The control plane's clock. Only here is the time read.

use std::time::{SystemTime, UNIX_EPOCH};

use carnet_core::instant::UnixMillis;

/// Now.
pub fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
