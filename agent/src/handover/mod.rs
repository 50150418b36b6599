//! An edge's part in a hand-over, order by order.
//!
//! A [`Record`] on disk says what this edge has to do with a migration. It is written before
//! anything is made, and says that the hand-over ended only after everything is gone: what a
//! crash leaves behind always has a record, and what has no record is none of a hand-over's
//! business. So `discard` removes a container only if this hand-over brought it, and `release`
//! only if this hand-over took it away. Orders that come late, after the end, are refused: see
//! the promises in [`carnet_api::agent`].
//!
//! Nothing is done but on what the control plane has signed for it ([`statement`]).

mod peers;
mod record;
mod source;
mod statement;
mod target;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use carnet_api::agent::{Done, Order, TimedStep};
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;

pub use self::peers::Peers;
use self::record::Records;
pub use self::record::{End, Progress, Record, Role, Sent};
use self::source::Leaving;
use self::statement::Entitled;
use self::target::Arriving;
pub use self::target::{PAGES, Stream};
use crate::permits::Permits;
use crate::problem::cannot;
use crate::runtime::{ContainerName, Runtime};

/// The hand-overs that an edge takes part in.
pub struct Handovers<R> {
    runtime: Arc<R>,
    permits: Arc<Permits>,
    records: Records,
    peers: Peers,
    /// What this process knows of containers that leave; lost with it.
    leaving: Mutex<HashMap<MigrationId, Leaving>>,
    /// And of those that arrive.
    arriving: Mutex<HashMap<MigrationId, Arriving>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Runtime> Handovers<R> {
    /// Of the edge that `peers` is of, with records in the directory `records`.
    pub fn new(runtime: Arc<R>, permits: Arc<Permits>, records: PathBuf, peers: Peers) -> Self {
        Self {
            runtime,
            permits,
            records: Records::new(records),
            peers,
            leaving: Mutex::default(),
            arriving: Mutex::default(),
        }
    }

    /// Ends what a process before this one has left half done, and forgets hand-overs that ended
    /// long ago.
    pub async fn recover(&self) {
        if let Err(error) = self.records.forget_old() {
            tracing::warn!(%error, "hand-overs that ended long ago cannot be forgotten");
        }
        match self.records.unfinished() {
            Ok(records) => {
                let names: Vec<ContainerName> = records
                    .iter()
                    .filter_map(|record| ContainerName::new(&record.order.container).ok())
                    .collect();
                self.runtime.recover(&names).await;
            }
            Err(problem) => {
                tracing::error!(problem = problem.detail, "hand-overs cannot be read");
            }
        }
    }

    /// Waits until no memory is on its way from or to this edge any more.
    pub async fn settle_all(&self) {
        let pumps: Vec<_> = lock(&self.leaving)
            .values_mut()
            .filter_map(|leaving| leaving.pages.take())
            .collect();
        for pump in pumps {
            // An error: it was ended.
            let _ = pump.await;
        }
        for record in self.records.unfinished().unwrap_or_default() {
            if let Role::Target {
                progress: Progress::Restored,
                strategy: Some(Strategy::PostCopy),
                ..
            } = record.role
                && let Ok(name) = ContainerName::new(&record.order.container)
                && let Err(error) = self.runtime.settle(&name).await
            {
                tracing::error!(container = %name, %error, "memory was lost");
            }
        }
    }

    /// Ends the hand-over on this edge. A crash before the record is saved: the order comes
    /// again, and finds less to do.
    async fn end(&self, order: Order, entitled: Entitled, how: End) -> Result<Done, Problem> {
        match entitled.role() {
            // Also where the container has come to other generations since.
            Some(Role::Ended { how: before }) if *before == how => return Ok(Done {}),
            Some(Role::Ended { .. }) => return Err(not_prepared(&order)),
            _ => self.come_to(&entitled.claim)?,
        }
        let name = &entitled.name;
        let migration = order.migration;
        match (entitled.role(), how) {
            // Nothing is here; what comes late is refused from now on.
            (None, _) => {}
            (Some(Role::Source { .. }), End::Release) => {
                self.runtime.remove(name).await.map_err(cannot)?;
            }
            (
                Some(&Role::Source {
                    is_held: true,
                    is_stopped,
                    ..
                }),
                End::Resume,
            ) => {
                let back = self.runtime.boot(name, !is_stopped).await;
                back.map_err(cannot)?;
            }
            (Some(Role::Source { .. }), End::Resume) => {
                self.stop_giving_pages(migration);
                self.runtime.thaw(name).await.map_err(cannot)?;
            }
            (Some(Role::Target { .. }), End::Clean) => {
                self.runtime.forget_images(name).await.map_err(cannot)?;
            }
            (
                Some(Role::Target {
                    progress: Progress::Restored,
                    ..
                }),
                End::Discard,
            ) if self.runtime.has_started(name) && !entitled.is_taken_back() => {
                return Err(cannot(format!(
                    "`{name}` has run here since, and may have answered clients"
                )));
            }
            (Some(Role::Target { .. }), End::Discard) => {
                let _received = self.stop_receiving(migration).await;
                self.finish_making(migration).await;
                self.runtime.remove(name).await.map_err(cannot)?;
            }
            (Some(_), _) => return Err(not_prepared(&order)),
        }
        self.records.save(&Record {
            order,
            role: Role::Ended { how },
            permit: entitled.permit().cloned(),
        })?;
        lock(&self.leaving).remove(&migration);
        lock(&self.arriving).remove(&migration);
        Ok(Done {})
    }
}

fn not_prepared(order: &Order) -> Problem {
    cannot(format!(
        "migration {} is not at this point on this edge: it was not prepared here, or has gone on or ended",
        order.migration
    ))
}

/// Does `work`, and says when that was, counted from `zero`.
async fn timed<T>(zero: Instant, step: &str, work: impl Future<Output = T>) -> (T, TimedStep) {
    let began = Instant::now();
    let outcome = work.await;
    let ended = Instant::now();
    (outcome, timed_step(zero, step, began, ended))
}

fn timed_step(zero: Instant, step: &str, began: Instant, ended: Instant) -> TimedStep {
    TimedStep {
        step: step.to_owned(),
        began_ms: milliseconds(zero, began),
        ended_ms: milliseconds(zero, ended),
    }
}

/// From `zero` to `instant`, in milliseconds; negative where that was before.
fn milliseconds(zero: Instant, instant: Instant) -> f64 {
    let after = instant.saturating_duration_since(zero);
    let before = zero.saturating_duration_since(instant);
    (after.as_secs_f64() - before.as_secs_f64()) * 1e3
}
