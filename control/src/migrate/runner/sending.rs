//! What is on its way while an edge sends it.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use carnet_api::v1::Sending;
use carnet_core::ids::MigrationId;
use carnet_core::migration::{Effect, MigrationPlan};

use super::Parts;

/// How often the source is asked how much it has sent.
const LOOK: Duration = Duration::from_secs(1);

/// Asks the source of a move again and again how much it has sent, as long as `effect` sends
/// something and this is waited for. What it says is shown, and nothing depends on it: it is not
/// kept, and a source that does not answer is asked again.
pub(super) fn watch(
    parts: Arc<Parts>,
    id: MigrationId,
    effect: Effect<'_>,
    plan: MigrationPlan,
) -> impl Future<Output = Infallible> + use<> {
    let sends = matches!(
        effect,
        Effect::CopyAhead(_) | Effect::HandOver(_) | Effect::Settle(_)
    );
    async move {
        if !sends {
            return std::future::pending().await;
        }
        let shown = Shown { parts, id };
        let mut before = (Instant::now(), None);
        loop {
            tokio::time::sleep(LOOK).await;
            let parts = &shown.parts;
            let Ok((source, _)) = parts.store.endpoints(&plan).await else {
                continue;
            };
            let Ok(sent) = parts.agents.sent(&source, id).await else {
                continue;
            };
            let now = Instant::now();
            let (then, known) = before;
            before = (now, Some(sent.bytes));
            // An agent that was restarted counts from the beginning.
            let Some(more) = known.and_then(|known| sent.bytes.checked_sub(known)) else {
                continue;
            };
            let rate = more as f64 / (now - then).as_secs_f64();
            shown.show(Sending {
                bytes: sent.bytes,
                bytes_per_s: rate as u64,
            });
        }
    }
}

/// What is shown of a move, until nobody looks any more.
struct Shown {
    parts: Arc<Parts>,
    id: MigrationId,
}

impl Shown {
    fn show(&self, sending: Sending) {
        self.parts
            .sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(self.id, sending);
        self.parts.tell(self.id);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.parts
            .sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
