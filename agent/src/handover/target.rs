//! The target's part: the container arrives.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnet_api::agent::{
    Described, Done, MAKING_SURE, Order, PrepareTarget, Prepared, Restored, StandBy, TimedStep,
};
use carnet_api::tls::Peer;
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;
use carnet_core::permit::{Abort, Commit, Part};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::JoinHandle;

use super::statement::{COMMITTED, DISCARDED, is_good, refused, unpermitted};
use super::{End, Handovers, Progress, Record, Role, lock, not_prepared, timed_step};
use crate::problem::{cannot, internal, not_found, not_yours};
use crate::runtime::{ContainerName, Pages, Runtime};
use crate::transfer;

/// The name of what a connection is upgraded to, for pages of memory.
pub const PAGES: &str = "carnet-pages";
/// How long a way for pages may take to come up once it was answered for.
const PAGES_LIMIT: Duration = Duration::from_secs(10);
/// How often what arrives is written out to the disk. Little that comes while the container stands
/// still takes so long: the disk is to be free then.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// What a stream from another agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Rootfs,
    /// Images of memory while the container runs on at the source.
    MemoryAhead,
    /// All that is left to be sent of its images.
    Images,
}

impl Stream {
    /// Its name, in paths and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rootfs => "rootfs",
            Self::MemoryAhead => "memory-ahead",
            Self::Images => "images",
        }
    }
}

/// What this process knows of a container that arrives.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    receiving: Option<Receiving>,
    /// Where its pages will come by.
    pages: Option<oneshot::Receiver<Pages>>,
    /// The making of its processes: when it began and ended, or why it failed.
    making: Option<JoinHandle<Result<(Instant, Instant), String>>>,
}

/// The streams that a target receives for one hand-over: one at a time.
#[derive(Debug)]
struct Receiving {
    /// Breaks the newest off.
    newest: AbortHandle,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<R: Runtime> Handovers<R> {
    /// Target: checks that the container can come, and makes ready.
    ///
    /// # Errors
    /// Why it cannot. `discard` removes what was made by then.
    pub async fn prepare_target(&self, asked: PrepareTarget) -> Result<Prepared, Problem> {
        let PrepareTarget { order, container } = asked;
        let (entitled, permit) = self.permitted(&order, Part::Target)?;
        let name = &entitled.name;
        let prepared = self.runtime.receiving_problems(&container).await;
        match entitled.role() {
            // By half: from the beginning.
            Some(Role::Target {
                progress: Progress::Preparing,
                ..
            }) => self.runtime.remove(name).await.map_err(cannot)?,
            // The order may come late, when the container's files and memory are here already,
            // and the only ones: they are not touched.
            Some(Role::Target {
                progress: Progress::Prepared,
                ..
            }) => return Ok(prepared),
            Some(_) => return Err(not_prepared(&order)),
            None => self.runtime.check(name, &container).await.map_err(cannot)?,
        }
        self.come_to(&entitled.claim)?;
        // A crash from here on leaves a part of the container, and a record by which `discard`
        // knows that it may remove it.
        let record = |progress| Record {
            order: order.clone(),
            role: Role::Target {
                container: container.clone(),
                progress,
                strategy: None,
            },
            permit: Some(permit.clone()),
        };
        self.records.save(&record(Progress::Preparing))?;
        self.runtime
            .prepare(name, &container)
            .await
            .map_err(cannot)?;
        self.records.save(&record(Progress::Prepared))?;
        Ok(prepared)
    }

    /// Target: the source's agent, `peer`, is about to freeze the container.
    ///
    /// # Errors
    /// Where this edge was not asked to take it from there, or cannot make ready.
    pub async fn stand_by(
        &self,
        migration: MigrationId,
        peer: &Peer,
        asked: StandBy,
    ) -> Result<Done, Problem> {
        let (record, name) = self.expected(migration, peer)?;
        let Role::Target {
            container,
            progress,
            ..
        } = record.role
        else {
            return Err(not_prepared(&record.order));
        };
        self.records.save(&Record {
            role: Role::Target {
                // It may have been asked to make ready twice, and this is from the last time.
                container: Described {
                    is_stopped: asked.is_stopped,
                    ..container
                },
                progress,
                strategy: Some(asked.strategy),
            },
            ..record
        })?;
        self.finish_making(migration).await;
        let (flushed, stands_by) = tokio::join!(
            // Before it is frozen: what is written down then waits for whatever the disk is busy with.
            flush(self.runtime.rootfs(&name)),
            self.runtime.stand_by(&name, asked.strategy)
        );
        flushed?;
        stands_by.map_err(cannot)?;
        Ok(Done {})
    }

    /// Target: pages of memory will come from the source's agent, `peer`, by what is sent into
    /// the sender that is returned.
    ///
    /// # Errors
    /// Where this edge was not asked to take the container from there.
    pub fn expect_pages(
        &self,
        migration: MigrationId,
        peer: &Peer,
    ) -> Result<oneshot::Sender<Pages>, Problem> {
        self.expected(migration, peer)?;
        let (sender, pages) = oneshot::channel();
        lock(&self.arriving).entry(migration).or_default().pages = Some(pages);
        Ok(sender)
    }

    /// Target: takes a stream from the source's agent, `peer`. Once the images are here, the
    /// container is made from them, but does not run.
    ///
    /// # Errors
    /// Where this edge was not asked to take it from there, or it is broken.
    pub async fn receive<S, E>(
        self: &Arc<Self>,
        migration: MigrationId,
        stream: Stream,
        peer: &Peer,
        body: S,
    ) -> Result<transfer::Received, Problem>
    where
        S: futures_util::Stream<Item = Result<bytes::Bytes, E>> + Send + Unpin + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        self.expected(migration, peer)?;
        let (registration, _turn) = self.stop_receiving(migration).await;
        // It reads the images that would be written over.
        let before = match stream {
            Stream::Rootfs => None,
            Stream::MemoryAhead | Stream::Images => lock(&self.arriving)
                .get_mut(&migration)
                .and_then(|arriving| arriving.making.take()),
        };
        if let Some(before) = before {
            let _ = before.await;
        }
        // The hand-over may have gone on, or ended, meanwhile.
        let (record, name) = self.expected(migration, peer)?;
        if let (
            Stream::MemoryAhead | Stream::Images,
            Role::Target {
                strategy: Some(Strategy::Cold),
                ..
            },
        ) = (stream, &record.role)
        {
            return Err(not_prepared(&record.order));
        }
        let directory = match stream {
            Stream::Rootfs => self.runtime.rootfs(&name),
            Stream::MemoryAhead | Stream::Images => self.runtime.images(&name),
        };
        if stream == Stream::MemoryAhead {
            self.runtime.expect_images(&name).map_err(cannot)?;
        }
        let receiving = transfer::receive(Abortable::new(body, registration), directory.clone());
        let received = match stream {
            Stream::Rootfs => tokio::select! {
                received = receiving => received,
                never = keep_flushing(directory) => match never {},
            },
            Stream::MemoryAhead | Stream::Images => receiving.await,
        };
        let received = received
            .map_err(|error| cannot(format!("what arrived cannot be unpacked: {error}")))?;
        if let (
            Stream::Images,
            Role::Target {
                strategy: Some(strategy),
                ..
            },
        ) = (stream, record.role)
        {
            let handovers = self.clone();
            let making =
                tokio::spawn(async move { handovers.make(migration, &name, strategy).await });
            lock(&self.arriving).entry(migration).or_default().making = Some(making);
        }
        Ok(received)
    }

    /// Waits until nothing of the container is being made any more: CRIU is never interrupted, and
    /// what it makes after the container was removed would stay. Pages that have not come are not
    /// waited for.
    pub(super) async fn finish_making(&self, migration: MigrationId) {
        let making = lock(&self.arriving)
            .get_mut(&migration)
            .and_then(|arriving| {
                arriving.pages = None;
                arriving.making.take()
            });
        if let Some(making) = making {
            // However it ended.
            let _ = making.await;
        }
    }

    /// Makes the container's processes, while the control plane decides.
    async fn make(
        &self,
        migration: MigrationId,
        name: &ContainerName,
        strategy: Strategy,
    ) -> Result<(Instant, Instant), String> {
        let began = Instant::now();
        let coming = lock(&self.arriving)
            .get_mut(&migration)
            .and_then(|arriving| arriving.pages.take());
        let pages = match coming {
            Some(coming) => tokio::time::timeout(PAGES_LIMIT, coming)
                .await
                .ok()
                .and_then(Result::ok),
            None => None,
        };
        self.runtime
            .restore(name, strategy, pages)
            .await
            .map_err(|error| error.to_string())?;
        Ok((began, Instant::now()))
    }

    /// The record of a container that this edge was asked to take from `peer`, and its name.
    fn expected(
        &self,
        migration: MigrationId,
        peer: &Peer,
    ) -> Result<(Record, ContainerName), Problem> {
        let record = self
            .records
            .load(migration)?
            .ok_or_else(|| unpermitted(migration))?;
        let is_prepared = matches!(
            record.role,
            Role::Target {
                progress: Progress::Prepared,
                ..
            }
        );
        // A source that does not know yet that it was called off may send still: no attack.
        if !is_prepared {
            return Err(not_found(format!(
                "this edge was not asked to receive migration {migration}"
            )));
        }
        let (Some(permit), Some(certificate)) = (&record.permit, peer.fingerprint()) else {
            return Err(not_yours("nothing is taken but on a permit"));
        };
        if !peer.is_edge(permit.claim.source.edge) {
            return Err(not_yours(
                "only the source that the control plane named may send this container",
            ));
        }
        permit
            .claim
            .has_peer(&certificate, Part::Target)
            .map_err(refused)?;
        is_good(permit)?;
        let name = ContainerName::new(&record.order.container).map_err(cannot)?;
        Ok((record, name))
    }

    /// Breaks off the stream of `migration` that is being received, if there is one, and waits
    /// until nothing of it is written any more: its source may have died in its midst without
    /// this edge noticing. Nothing else is received until the guard is dropped; the registration
    /// is for the stream that comes next.
    pub(super) async fn stop_receiving(
        &self,
        migration: MigrationId,
    ) -> (AbortRegistration, OwnedMutexGuard<()>) {
        let (newest, registration) = AbortHandle::new_pair();
        let turn = {
            let mut arriving = lock(&self.arriving);
            let arriving = arriving.entry(migration).or_default();
            let turn = match arriving.receiving.take() {
                Some(before) => {
                    before.newest.abort();
                    before.turn
                }
                None => Arc::default(),
            };
            arriving.receiving = Some(Receiving {
                newest,
                turn: turn.clone(),
            });
            turn
        };
        (registration, turn.lock_owned().await)
    }

    /// Target: brings the container to life. Once it has run here this is done, whatever has
    /// become of it since.
    ///
    /// # Errors
    /// Why it cannot be brought to life; it does not run then.
    pub async fn restore(&self, order: Order) -> Result<Restored, Problem> {
        let arrived = Instant::now();
        let entitled = self.concluded::<Commit>(&order, Part::Target, COMMITTED)?;
        let name = &entitled.name;
        let migration = order.migration;
        let Some(Role::Target {
            container,
            progress,
            strategy,
        }) = entitled.role()
        else {
            return Err(not_prepared(&order));
        };
        let record = |progress| Record {
            order: order.clone(),
            role: Role::Target {
                container: container.clone(),
                progress,
                strategy: *strategy,
            },
            permit: entitled.permit().cloned(),
        };
        let has_started = match progress {
            Progress::Preparing | Progress::Lost => return Err(not_prepared(&order)),
            Progress::Prepared => false,
            Progress::Restored => self.runtime.has_started(name),
        };
        let mut made = None;
        if !has_started {
            self.come_to(&entitled.claim)?;
            let making = lock(&self.arriving)
                .get_mut(&migration)
                .and_then(|arriving| arriving.making.take());
            let strategy = strategy.unwrap_or(Strategy::StopAndCopy);
            match making {
                None => {}
                Some(making) => match making.await {
                    Ok(Ok(when)) => made = Some(when),
                    Ok(Err(problem)) if strategy == Strategy::PostCopy => {
                        return Err(cannot(problem));
                    }
                    Ok(Err(problem)) => {
                        tracing::warn!(%migration, problem, "it is restored once more");
                    }
                    Err(error) => return Err(cannot(error)),
                },
            }
            self.runtime
                .restore(name, strategy, None)
                .await
                .map_err(cannot)?;
            // A crash after this line, and before it runs: what was made ends, and is known not
            // to have run.
            self.records.save(&record(Progress::Restored))?;
        }
        let ready = Instant::now();
        let is_cold = *strategy == Some(Strategy::Cold);
        let started = match is_cold {
            true => self.runtime.boot(name, !container.is_stopped).await,
            false => self.runtime.start(name).await,
        };
        if let Err(error) = started {
            if self.runtime.has_started(name) {
                // It may run, so that this must not read as if it did not.
                return Err(internal(&error));
            }
            self.records.save(&record(Progress::Prepared))?;
            return Err(cannot(error));
        }
        let runs = Instant::now();
        let mut steps: Vec<TimedStep> = Vec::new();
        if let Some((began, ended)) = made {
            steps.push(timed_step(runs, "making its processes", began, ended));
            // Where the commit came first, nothing waited for it.
            if ended < arrived {
                steps.push(timed_step(runs, "waiting for the commit", ended, arrived));
            }
        }
        steps.push(timed_step(runs, MAKING_SURE, arrived, ready));
        let last = match is_cold {
            true => "starting it",
            false => "letting it run",
        };
        steps.push(timed_step(runs, last, ready, runs));
        Ok(Restored {
            running_ms: runs.elapsed().as_secs_f64() * 1e3,
            steps,
        })
    }

    /// Target: waits until no memory of the container is missing any more, and its files are on
    /// the disk.
    ///
    /// # Errors
    /// Where some memory never will be here; the container was killed. Where files cannot be
    /// written out: it runs on, and this may be asked for again.
    pub async fn settle(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Commit>(&order, Part::Target, COMMITTED)?;
        let name = &entitled.name;
        let Some(Role::Target {
            container,
            progress: progress @ (Progress::Restored | Progress::Lost),
            strategy,
        }) = entitled.role()
        else {
            return Err(not_prepared(&order));
        };
        let settled = match (progress, strategy) {
            (Progress::Lost, _) => {
                Err("memory of it was lost on its way, and it was killed".to_owned())
            }
            // All of it was here before it ran.
            (_, None | Some(Strategy::StopAndCopy | Strategy::PreCopy | Strategy::Cold)) => Ok(()),
            (_, Some(Strategy::PostCopy)) => self
                .runtime
                .settle(name)
                .await
                .map_err(|error| error.to_string()),
        };
        let Err(problem) = settled else {
            // The source removes its copy next: what is not on the disk then would go with this
            // machine's power.
            flush(self.runtime.rootfs(name)).await?;
            return Ok(Done {});
        };
        // From here on it may be discarded.
        self.records.save(&Record {
            role: Role::Target {
                container: container.clone(),
                progress: Progress::Lost,
                strategy: *strategy,
            },
            permit: entitled.permit().cloned(),
            order,
        })?;
        Err(cannot(problem))
    }

    /// Target: the container is at home; its images go.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub async fn clean(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Commit>(&order, Part::Target, COMMITTED)?;
        self.end(order, entitled, End::Clean).await
    }

    /// Target: what this hand-over brought goes, unless it has run here, and was not taken back.
    ///
    /// # Errors
    /// Where it has and was not, or cannot be removed.
    pub async fn discard(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Abort>(&order, Part::Target, DISCARDED)?;
        self.end(order, entitled, End::Discard).await
    }
}

/// Writes out what arrives while more does, until it is dropped: the less is left for when somebody
/// waits for it.
async fn keep_flushing(directory: PathBuf) -> Infallible {
    loop {
        tokio::time::sleep(FLUSH_INTERVAL).await;
        if let Err(problem) = flush(directory.clone()).await {
            // It is found out again when it matters.
            tracing::debug!(problem = problem.detail, "what arrives is not written out");
        }
    }
}

/// Has everything be on the disk that was written to the file system that `directory` is on.
async fn flush(directory: PathBuf) -> Result<(), Problem> {
    let flushed = tokio::task::spawn_blocking(move || match File::open(&directory) {
        Ok(open) => nix::unistd::syncfs(&open).map_err(io::Error::from),
        // Somebody has removed it by hand since: there is nothing to keep.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    });
    match flushed.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(internal(&format!(
            "the container's files cannot be written out to the disk: {error}"
        ))),
        Err(error) => Err(internal(&error)),
    }
}
