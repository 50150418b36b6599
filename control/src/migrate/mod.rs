//! Moves of containers: who may go where ([`admit`]), one task per move ([`runner`]), and
//! taking up what a crash interrupted ([`Migrations::recover`]).

pub(crate) mod admit;
mod destination;
mod limits;
mod runner;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use carnet_api::v1::{Attempt, DestinationSpec, Sending};
use carnet_core::ids::{AccountId, ContainerId, MigrationId};
use carnet_core::migration::{Phase, Strategy};
use carnet_core::permit::Part;
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::admit::Audited;
pub use self::limits::Limits;
use crate::agents::Agents;
use crate::clock;
use crate::http::problem::ApiError;
use crate::keys::PermitKey;
use crate::store::migrations::{Moving, NewMigration, NotLost, UsableEdge};
use crate::store::{Store, StoreError};

/// News that a listener may fall behind by; it then looks into the store, as it does anyway.
const NEWS: usize = 256;
/// How many candidates of a dry run are asked at a time.
const AT_A_TIME: usize = 16;

/// How long to wait before an edge, or the store, is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After the first time in vain; doubled each time.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// The pause after `tries` in vain, from 1.
    pub(crate) fn pause(self, tries: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// All moves of this control plane that have not ended. Dropped, it stops where it is, as a
/// crash would, and [`recover`](Self::recover) goes on from there.
pub struct Migrations {
    parts: Arc<Parts>,
    tasks: Mutex<Tasks>,
}

/// The tasks that carry out moves, one for each.
#[derive(Default)]
struct Tasks {
    all: JoinSet<()>,
    of: HashMap<MigrationId, Carried>,
}

/// A move that is being carried out.
struct Carried {
    task: AbortHandle,
    /// Tells the task what was asked for meanwhile, whatever it waits for.
    wishes: watch::Sender<Wishes>,
}

/// What people ask for while a move is carried out; kept in the store before it is told.
#[derive(Debug, Clone, Copy, Default)]
struct Wishes {
    cancelled: bool,
    source_lost: bool,
    target_lost: bool,
}

/// What carrying out a move takes.
struct Parts {
    store: Store,
    agents: Arc<dyn Agents>,
    /// Signs what edges are given in writing.
    key: Arc<PermitKey>,
    /// Readings older than this, in milliseconds, count as none.
    max_reading_age_ms: u64,
    pace: Pace,
    limits: Limits,
    /// What is on its way now.
    sending: Mutex<HashMap<MigrationId, Sending>>,
    /// Which migration has just changed; how, stands in the store.
    news: broadcast::Sender<MigrationId>,
    /// Notified when a container has come somewhere else, for the monitor to look.
    look_now: Arc<Notify>,
}

impl Migrations {
    pub fn new(
        store: Store,
        agents: Arc<dyn Agents>,
        key: Arc<PermitKey>,
        max_reading_age_ms: u64,
        pace: Pace,
        limits: Limits,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                store,
                agents,
                key,
                max_reading_age_ms,
                pace,
                limits,
                sending: Mutex::default(),
                news: broadcast::channel(NEWS).0,
                look_now: Arc::default(),
            }),
            tasks: Mutex::default(),
        }
    }

    /// What is on its way in a move, where that is known.
    pub fn sending(&self, id: MigrationId) -> Option<Sending> {
        let sending = self.parts.sending.lock();
        let sending = sending.unwrap_or_else(PoisonError::into_inner);
        sending.get(&id).copied()
    }

    /// Saves a migration and begins to carry it out, in a task of its own: whoever asked for it may
    /// hang up in between, and it would be nobody's until the next start.
    ///
    /// # Errors
    /// A duplicate, where the container is being moved already.
    pub async fn begin(self: &Arc<Self>, new: NewMigration) -> Result<(), StoreError> {
        let migrations = self.clone();
        let begun = tokio::spawn(async move {
            migrations.parts.store.create_migration(&new).await?;
            migrations.start(new.id);
            Ok(())
        });
        begun
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Carries out a migration that has just been saved.
    pub fn start(&self, id: MigrationId) {
        self.spawn(id, Some(Instant::now()));
    }

    /// Keeps that `by` wants a migration to be cancelled, and has it undone, unless it is past its
    /// commit: the phase in which it is too late is returned. In a task of its own, as
    /// [`begin`](Self::begin): what is kept would not be heard of before the next start.
    ///
    /// A crash in here, once it is kept: whoever takes the migration up finds it.
    ///
    /// # Errors
    /// Where the store does, or there is no such migration.
    pub async fn cancel(
        self: &Arc<Self>,
        id: MigrationId,
        by: AccountId,
    ) -> Result<Result<(), Phase>, StoreError> {
        let migrations = self.clone();
        let cancelled = tokio::spawn(async move {
            let store = &migrations.parts.store;
            let kept = store.cancel_migration(id, by, clock::now()).await?;
            if kept.is_ok() {
                migrations.wish(id, |wishes| wishes.cancelled = true);
            }
            Ok(kept)
        });
        cancelled
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Keeps that `by` declares an edge of a migration lost, and has it go on without, if it waits
    /// for that edge in vain. As [`cancel`](Self::cancel) in all else.
    ///
    /// # Errors
    /// Where the store does, or there is no such migration.
    pub async fn declare_lost(
        self: &Arc<Self>,
        id: MigrationId,
        part: Part,
        by: AccountId,
    ) -> Result<Result<(), NotLost>, StoreError> {
        let migrations = self.clone();
        let declared = tokio::spawn(async move {
            let kept = migrations.parts.store.declare_lost(id, part, by).await?;
            if kept.is_ok() {
                migrations.wish(id, |wishes| match part {
                    Part::Source => wishes.source_lost = true,
                    Part::Target => wishes.target_lost = true,
                });
            }
            Ok(kept)
        });
        declared
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Tells the task of a migration, where it has one, what was asked for and is kept.
    fn wish(&self, id: MigrationId, wish: impl FnOnce(&mut Wishes)) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(carried) = tasks.of.get(&id) {
            carried.wishes.send_modify(wish);
        }
        self.parts.tell(id);
    }

    /// Takes up every migration that has not ended, or of which something remains to be done, and
    /// that is not being carried out, where it stands.
    /// Returns how many.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut taken_up = 0;
        for id in self.parts.store.migrations_under_way().await? {
            if self.spawn(id, None) {
                tracing::info!(migration = %id, "taken up again");
                taken_up += 1;
            }
        }
        Ok(taken_up)
    }

    /// Whether there is an edge to which `container` could be asked to go; none is asked.
    ///
    /// # Errors
    /// Why there is none, as the API tells it.
    pub async fn check(
        &self,
        container: ContainerId,
        to: &DestinationSpec,
    ) -> Result<(), ApiError> {
        self.parts.candidates(container, to).await?.map(drop)
    }

    /// Audits every candidate of a destination as a move would, in the order of drawing. Nothing
    /// is moved; the ledger keeps what was decided, as a dry run `by` whoever asked.
    ///
    /// # Errors
    /// Where there is no candidate, as the API tells it.
    pub async fn dry_run(
        &self,
        container: ContainerId,
        to: &DestinationSpec,
        by: AccountId,
    ) -> Result<Vec<Attempt>, ApiError> {
        let (moving, candidates) = self.parts.candidates(container, to).await??;
        let audits: Vec<_> = candidates
            .iter()
            .map(|candidate| self.parts.audit(&moving, candidate, None))
            .collect();
        let audited: Vec<Result<Audited, StoreError>> =
            stream::iter(audits).buffered(AT_A_TIME).collect().await;
        let mut attempts = Vec::new();
        let mut decisions = Vec::new();
        for audited in audited {
            let audited = audited?;
            attempts.push(audited.attempt);
            decisions.push(audited.decision);
        }
        self.parts.store.enter_dry_run(by, decisions).await?;
        Ok(attempts)
    }

    /// Notified when there is something new for the monitor to look at.
    pub fn look_now(&self) -> Arc<Notify> {
        self.parts.look_now.clone()
    }

    /// Says which migration has changed, each time one does.
    pub fn news(&self) -> broadcast::Receiver<MigrationId> {
        self.parts.news.subscribe()
    }

    /// Stops every move where it is, as a crash would, and waits until none does anything.
    pub async fn stop(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.all.shutdown().await;
    }

    /// Begins to carry a migration out, unless that is being done: it may have been asked for
    /// before [`recover`](Self::recover) came to it, and two runners would move it to two edges.
    /// Returns whether it did.
    fn spawn(&self, id: MigrationId, began: Option<Instant>) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are let go of here, so that they do not add up.
        while tasks.all.try_join_next().is_some() {}
        tasks.of.retain(|_, carried| !carried.task.is_finished());
        if tasks.of.contains_key(&id) {
            return false;
        }
        let (wishes, told) = watch::channel(Wishes::default());
        let task = tasks
            .all
            .spawn(runner::run(self.parts.clone(), id, began, told));
        tasks.of.insert(id, Carried { task, wishes });
        true
    }
}

impl Parts {
    /// The container and the candidates of a destination, in the order of drawing; or why there
    /// are none.
    async fn candidates(
        &self,
        container: ContainerId,
        to: &DestinationSpec,
    ) -> Result<Result<(Moving, Vec<UsableEdge>), ApiError>, StoreError> {
        let Some(moving) = self.store.moving(container).await? else {
            return Ok(Err(ApiError::conflict(
                "the container is not registered any more",
            )));
        };
        let usable = self.store.usable_edges(moving.owner).await?;
        Ok(destination::draw(&moving, usable, to).map(|candidates| (moving, candidates)))
    }

    /// Audits one candidate with its utilization as it is now, for a move by the strategy that was
    /// asked for.
    async fn audit(
        &self,
        moving: &Moving,
        candidate: &UsableEdge,
        asked: Option<Strategy>,
    ) -> Result<Audited, StoreError> {
        let taken = self
            .store
            .name_is_taken(candidate.endpoint.edge, moving)
            .await?;
        let audited = admit::audit(
            self.agents.as_ref(),
            self.max_reading_age_ms,
            moving,
            candidate,
            asked,
            taken,
        )
        .await;
        if let Some(sighting) = &audited.sighting {
            self.store.see_edge(sighting, clock::now()).await?;
        }
        Ok(audited)
    }

    fn tell(&self, id: MigrationId) {
        // Nobody may be listening.
        let _ = self.news.send(id);
    }

    /// Repeats what the store cannot do now until it can: a full disk or a locked database must
    /// not leave a container half way.
    async fn insist<T, F>(&self, what: &'static str, act: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut tries = 0;
        loop {
            match act().await {
                Ok(done) => return done,
                Err(error) => {
                    tries += 1;
                    tracing::error!(%error, tries, "cannot {what}; trying again");
                    tokio::time::sleep(self.pace.pause(tries)).await;
                }
            }
        }
    }
}
