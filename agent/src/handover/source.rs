//! The source's part: the container leaves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnet_api::agent::{
    CopiedAhead, CopyAhead, Described, Done, HandOver, HandedOver, MemoryAhead, Order, SentSoFar,
    StandBy, TimedStep,
};
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;
use carnet_core::permit::{Abort, Commit, Part, Party, Permit};
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, UPGRADE};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::statement::{COMMITTED, Entitled, RESUMED};
use super::target::{PAGES, Stream};
use super::{End, Handovers, Record, Role, Sent, lock, not_prepared, timed};
use crate::pace::Pace;
use crate::problem::{cannot, internal};
use crate::runtime::{ContainerName, Pages, Runtime};
use crate::transfer;
use crate::tree::{Changes, Manifest, Mapped, Previous, Watch};

/// Passes over the root file system while the container runs: the first sends everything, the
/// next what changed meanwhile. More would chase a busy container for ever.
const PASSES_AHEAD: u32 = 2;

/// Rounds of memory while the container runs: the first sends all of it, each next what was written
/// to meanwhile.
const ROUNDS_AHEAD: u32 = 5;

/// Another round is no use where the last found so little, in bytes: it goes over in the time that
/// dumping takes anyhow.
const LITTLE_MEMORY: u64 = 4 << 20;

/// Less than this goes over too fast for a rate to be told by it, in bytes.
const RATED_FROM_BYTES: u64 = 1 << 20;

/// What this process knows of a container that leaves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// What was sent ahead; where it is lost, everything is sent again.
    sent_ahead: Option<SentAhead>,
    /// The images of memory that was sent ahead.
    memory_ahead: Option<Manifest>,
    frozen: Option<Instant>,
    /// What the time since went into.
    steps: Vec<TimedStep>,
    /// What has been sent, in bytes.
    sent: Arc<AtomicU64>,
    /// The move is off: nothing more is sent.
    called_off: CancellationToken,
    /// Gives out pages of memory, as long as somebody asks.
    pub(super) pages: Option<JoinHandle<()>>,
}

/// What was sent of the root file system while the container ran.
#[derive(Debug)]
struct SentAhead {
    manifest: Manifest,
    /// Since before any of it was sent; `None` where the kernel does not watch.
    watch: Option<Watch>,
    /// What the container wrote to in memory as it was sent.
    mapped: Vec<Mapped>,
}

impl<R: Runtime> Handovers<R> {
    /// Source: checks that the container can move, and describes it.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn prepare_source(&self, order: Order) -> Result<Described, Problem> {
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        if let Some(other) = self.records.other(&order)? {
            return Err(cannot(format!(
                "`{name}` is being handed over already, by migration {other}"
            )));
        }
        if !matches!(
            entitled.role(),
            None | Some(Role::Source {
                handed_over: None,
                is_held: false,
                ..
            })
        ) {
            return Err(not_prepared(&order));
        }
        let described = self.runtime.describe(name).await.map_err(cannot)?;
        self.come_to(&entitled.claim)?;
        self.records.save(&Record {
            order,
            role: Role::Source {
                handed_over: None,
                is_stopped: described.is_stopped,
                is_held: false,
            },
            permit: Some(permit),
        })?;
        Ok(described)
    }

    /// Source: sends the root file system while the container runs, and memory, where the strategy
    /// says so.
    ///
    /// # Errors
    /// Why it did not get there.
    pub async fn copy_ahead(&self, asked: CopyAhead) -> Result<CopiedAhead, Problem> {
        let CopyAhead {
            order,
            strategy,
            bandwidth_bytes_per_s,
        } = asked;
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        if sent_before(&order, &entitled)?.is_some() {
            // The order comes late. What would be sent again may be being restored from.
            return Ok(CopiedAhead {
                bytes: 0,
                passes: 0,
                bytes_per_s: None,
                memory: None,
            });
        }
        let pace = self.pace(order.migration, bandwidth_bytes_per_s);
        let to = permit.claim.target;
        let files = self.copy_files_ahead(&order, to, name, pace.clone());
        let (bytes, bytes_per_s) = match strategy {
            // What goes while it stands still is little then: CRIU's looking at each page is what
            // takes long.
            Strategy::PostCopy => {
                let both = async { tokio::join!(files, self.runtime.use_huge_pages(name)) };
                let (copied, ()) = self.unless_called_off(order.migration, both).await?;
                copied?
            }
            Strategy::StopAndCopy | Strategy::PreCopy | Strategy::Cold => files.await?,
        };
        let memory = match strategy {
            Strategy::PreCopy => Some(self.copy_memory_ahead(&order, to, name, pace).await?),
            Strategy::StopAndCopy | Strategy::PostCopy | Strategy::Cold => None,
        };
        Ok(CopiedAhead {
            bytes,
            passes: PASSES_AHEAD,
            bytes_per_s,
            memory,
        })
    }

    /// Sends the root file system, and what changes of it meanwhile. Returns how many bytes that
    /// were, and at what rate they went, in bytes a second, where it can be told.
    async fn copy_files_ahead(
        &self,
        order: &Order,
        to: Party,
        name: &ContainerName,
        pace: Pace,
    ) -> Result<(u64, Option<u64>), Problem> {
        let rootfs = self.runtime.rootfs(name);
        let watch = watch(rootfs.clone()).await;
        let mut bytes = 0;
        let mut bytes_per_s = None;
        let mut last: Option<(Manifest, Vec<Mapped>)> = None;
        for _ in 0..PASSES_AHEAD {
            let mapped = self.runtime.mapped(name).map_err(cannot)?;
            let previous = last.take().map(|(manifest, before)| {
                Previous::new(
                    manifest,
                    changes(watch.as_ref()),
                    before.iter().chain(&mapped),
                )
            });
            let began = Instant::now();
            let sending = Sending {
                stream: Stream::Rootfs,
                directory: rootfs.clone(),
                previous,
                pace: pace.clone(),
            };
            let (sent, manifest) = self.send(order, to, sending).await?;
            bytes += sent;
            bytes_per_s = bytes_per_s.or_else(|| rate(sent, began.elapsed()));
            last = Some((manifest, mapped));
        }
        lock(&self.leaving)
            .entry(order.migration)
            .or_default()
            .sent_ahead = last.map(|(manifest, mapped)| SentAhead {
            manifest,
            watch,
            mapped,
        });
        Ok((bytes, bytes_per_s))
    }

    /// Sends memory, until little of it is written to in the time that a round takes.
    ///
    /// A crash in its midst: nothing of it counts, and the next dump is of all memory.
    async fn copy_memory_ahead(
        &self,
        order: &Order,
        to: Party,
        name: &ContainerName,
        pace: Pace,
    ) -> Result<MemoryAhead, Problem> {
        let mut sent_before = None;
        let mut ahead = MemoryAhead {
            bytes: 0,
            rounds: 0,
            last_round_bytes: u64::MAX,
        };
        loop {
            if self.is_called_off(order.migration) {
                return Err(called_off());
            }
            let is_first = ahead.rounds == 0;
            let found = self.runtime.dump_ahead(name, is_first).await;
            let found = found.map_err(cannot)?;
            let sending = Sending {
                stream: Stream::MemoryAhead,
                directory: self.runtime.images(name),
                previous: sent_before.take().map(Previous::of_what_stays),
                pace: pace.clone(),
            };
            let (bytes, manifest) = self.send(order, to, sending).await?;
            sent_before = Some(manifest);
            ahead.bytes += bytes;
            ahead.rounds += 1;
            // A container that writes as fast as the link carries is not caught up with.
            let is_gaining = found < ahead.last_round_bytes / 4 * 3;
            ahead.last_round_bytes = found;
            if found <= LITTLE_MEMORY || !is_gaining || ahead.rounds >= ROUNDS_AHEAD {
                break;
            }
        }
        lock(&self.leaving)
            .entry(order.migration)
            .or_default()
            .memory_ahead = sent_before;
        Ok(ahead)
    }

    fn is_called_off(&self, migration: MigrationId) -> bool {
        lock(&self.leaving)
            .get(&migration)
            .is_some_and(|leaving| leaving.called_off.is_cancelled())
    }

    /// Source: freezes the container, or stops it, and sends what is still missing.
    ///
    /// # Errors
    /// What went wrong. The container is frozen or stopped then; `resume` lets it go on.
    pub async fn hand_over(&self, asked: HandOver) -> Result<HandedOver, Problem> {
        let order = asked.order.clone();
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        let migration = order.migration;
        let sent = match sent_before(&order, &entitled)? {
            Some(sent) => sent,
            None => {
                let is_cold = asked.strategy == Strategy::Cold;
                let sent = match is_cold {
                    true => self.stop_and_send(&asked, &entitled, &permit).await?,
                    false => {
                        let to = permit.claim.target;
                        self.freeze_and_send(&asked, to, name).await?
                    }
                };
                self.records.save(&Record {
                    order,
                    role: Role::Source {
                        handed_over: Some(sent),
                        is_stopped: was_stopped(&entitled),
                        is_held: is_cold,
                    },
                    permit: Some(permit),
                })?;
                sent
            }
        };
        let leaving = lock(&self.leaving);
        let leaving = leaving.get(&migration);
        Ok(HandedOver {
            rootfs_difference_bytes: sent.rootfs_difference_bytes,
            image_bytes: sent.image_bytes,
            frozen_ms: leaving
                .and_then(|leaving| leaving.frozen)
                .map_or(0.0, |began| began.elapsed().as_secs_f64() * 1_000.0),
            steps: leaving
                .map(|leaving| leaving.steps.clone())
                .unwrap_or_default(),
        })
    }

    /// Everything that can be done before the container stands still is done before.
    async fn freeze_and_send(
        &self,
        asked: &HandOver,
        to: Party,
        name: &ContainerName,
    ) -> Result<Sent, Problem> {
        let &HandOver {
            ref order,
            strategy,
            bandwidth_bytes_per_s,
            within_ms,
        } = asked;
        let pace = self.pace(order.migration, bandwidth_bytes_per_s);
        let migration = order.migration;
        // Of a hand-over that was begun before, and failed.
        self.stop_giving_pages(migration);
        let stand_by = StandBy {
            strategy,
            is_stopped: false,
        };
        let (is_ready, stands_by) = tokio::join!(
            self.runtime.ready_to_freeze(name),
            self.ask_to_stand_by(order, to, stand_by)
        );
        stands_by?;
        is_ready.map_err(cannot)?;
        let pages_to = match strategy {
            Strategy::StopAndCopy | Strategy::PreCopy | Strategy::Cold => None,
            Strategy::PostCopy => Some(self.open_pages(order, to).await?),
        };
        let (sent_ahead, memory_ahead) = {
            let mut leaving = lock(&self.leaving);
            let leaving = leaving.entry(migration).or_default();
            if leaving.called_off.is_cancelled() {
                return Err(called_off());
            }
            leaving.steps.clear();
            (leaving.sent_ahead.take(), leaving.memory_ahead.take())
        };
        let zero = Instant::now();
        lock(&self.leaving)
            .entry(migration)
            .or_default()
            .frozen
            .get_or_insert(zero);
        let (frozen, freezing) = timed(zero, "freezing", self.runtime.freeze(name)).await;
        frozen.map_err(cannot)?;
        let rootfs = self.runtime.rootfs(name);
        let mapped = self.runtime.mapped(name).map_err(cannot)?;
        let previous = sent_ahead.map(|sent| {
            let changes = changes(sent.watch.as_ref());
            end(sent.watch);
            Previous::new(sent.manifest, changes, sent.mapped.iter().chain(&mapped))
        });
        let late = || stood_still_too_long(zero, within_ms);
        // Both to their ends, whichever fails: CRIU is never interrupted.
        let ((dumped, dumping), (difference, sending)) = tokio::join!(
            timed(zero, "dumping", self.runtime.dump(name, strategy)),
            timed(
                zero,
                "sending what has changed of its files",
                unless(
                    late(),
                    self.send(
                        order,
                        to,
                        Sending {
                            stream: Stream::Rootfs,
                            directory: rootfs,
                            previous,
                            pace: pace.clone(),
                        }
                    )
                )
            ),
        );
        let (rootfs_difference_bytes, _) = difference?;
        let pages = dumped.map_err(cannot)?;
        if let (Some(near), Some(far)) = (pages, pages_to) {
            let pump = tokio::spawn(pass_pages(near, far, pace.clone()));
            lock(&self.leaving).entry(migration).or_default().pages = Some(pump);
        }
        let all_images = Sending {
            stream: Stream::Images,
            directory: self.runtime.images(name),
            previous: memory_ahead.map(Previous::of_what_stays),
            pace,
        };
        let (sent, sending_images) = timed(
            zero,
            "sending images",
            unless(late(), self.send(order, to, all_images)),
        )
        .await;
        let (image_bytes, _) = sent?;
        lock(&self.leaving).entry(migration).or_default().steps =
            vec![freezing, dumping, sending, sending_images];
        Ok(Sent {
            rootfs_difference_bytes,
            image_bytes,
        })
    }

    /// A cold move: the container is stopped, if it runs, and what has changed of its files goes.
    ///
    /// A crash in here, once it is written down that it is held, leaves a container that is being
    /// stopped or is stopped: asked again, it goes on from there, and `resume` starts it again if it
    /// ran.
    async fn stop_and_send(
        &self,
        asked: &HandOver,
        entitled: &Entitled,
        permit: &Permit,
    ) -> Result<Sent, Problem> {
        let HandOver {
            order, within_ms, ..
        } = asked;
        let (name, to) = (&entitled.name, permit.claim.target);
        let is_held = matches!(entitled.role(), Some(Role::Source { is_held: true, .. }));
        let is_stopped = was_stopped(entitled);
        if !is_held && self.runtime.is_stopped(name) != is_stopped {
            return Err(cannot(match is_stopped {
                true => format!(
                    "`{name}` was stopped when its move began, and runs now; it is left as it is: ask for the move again"
                ),
                false => format!(
                    "`{name}` ran when its move began, and is stopped now; it is left as it is: ask for the move again"
                ),
            }));
        }
        let stand_by = StandBy {
            strategy: Strategy::Cold,
            is_stopped,
        };
        self.ask_to_stand_by(order, to, stand_by).await?;
        let sent_ahead = {
            let mut leaving = lock(&self.leaving);
            let leaving = leaving.entry(order.migration).or_default();
            if leaving.called_off.is_cancelled() {
                return Err(called_off());
            }
            leaving.steps.clear();
            leaving.sent_ahead.take()
        };
        self.records.save(&Record {
            order: order.clone(),
            role: Role::Source {
                handed_over: None,
                is_stopped,
                is_held: true,
            },
            permit: Some(permit.clone()),
        })?;
        let zero = Instant::now();
        lock(&self.leaving)
            .entry(order.migration)
            .or_default()
            .frozen
            .get_or_insert(zero);
        let mapped = self.runtime.mapped(name).map_err(cannot)?;
        let (stopped, stopping) = timed(zero, "stopping it", self.runtime.stop(name)).await;
        stopped.map_err(cannot)?;
        // All of it is looked at: what is written to in memory as it shuts down no watch tells, but
        // the files' times do, which change with the first write to each.
        let previous = sent_ahead.map(|sent| {
            end(sent.watch);
            let mapped = sent.mapped.iter().chain(&mapped);
            Previous::new(sent.manifest, Changes::Anywhere, mapped)
        });
        let difference = Sending {
            stream: Stream::Rootfs,
            directory: self.runtime.rootfs(name),
            previous,
            pace: self.pace(order.migration, asked.bandwidth_bytes_per_s),
        };
        let (sent, sending) = timed(
            zero,
            "sending what has changed of its files",
            unless(
                stood_still_too_long(zero, *within_ms),
                self.send(order, to, difference),
            ),
        )
        .await;
        let (rootfs_difference_bytes, _) = sent?;
        // Nothing can start it but who goes out of their way; what that has written since is not
        // with the target.
        if !self.runtime.is_stopped(name) {
            return Err(cannot(format!(
                "`{name}` was started by somebody while its files went over"
            )));
        }
        lock(&self.leaving)
            .entry(order.migration)
            .or_default()
            .steps = vec![stopping, sending];
        Ok(Sent {
            rootfs_difference_bytes,
            image_bytes: 0,
        })
    }

    /// Ends the giving out of pages, where there is any: CRIU lets go of the container then.
    pub(super) fn stop_giving_pages(&self, migration: MigrationId) {
        let pages = lock(&self.leaving)
            .get_mut(&migration)
            .and_then(|leaving| leaving.pages.take());
        if let Some(pages) = pages {
            pages.abort();
        }
    }

    /// Has the target do what it can before the images come.
    async fn ask_to_stand_by(
        &self,
        order: &Order,
        to: Party,
        asked: StandBy,
    ) -> Result<(), Problem> {
        let (client, base) = self.peers.client(to, &order.target_address)?;
        let url = format!("{base}/v1/handovers/{}/stand-by", order.migration);
        let asked = serde_json::to_vec(&asked).map_err(|error| internal(&error))?;
        let asking = client
            .put(url)
            .header("Content-Type", "application/json")
            .body(asked)
            .send();
        let answer = self
            .unless_called_off(order.migration, asking)
            .await?
            .map_err(|error| {
                cannot(format!(
                    "asking the target to stand by: it cannot be reached: {}",
                    chain(&error)
                ))
            })?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(refusal("asking the target to stand by", answer).await)
    }

    /// Opens the way that pages go by.
    async fn open_pages(&self, order: &Order, to: Party) -> Result<Pages, Problem> {
        let (client, base) = self.peers.client(to, &order.target_address)?;
        let url = format!("{base}/v1/handovers/{}/pages", order.migration);
        let failed = |error: reqwest::Error| {
            cannot(format!(
                "opening a way for pages: the target cannot be reached: {}",
                chain(&error)
            ))
        };
        let asking = client
            .post(url)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, PAGES)
            .send();
        let answer = self.unless_called_off(order.migration, asking).await?;
        let answer = answer.map_err(failed)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal("opening a way for pages", answer).await);
        }
        Ok(Box::new(answer.upgrade().await.map_err(failed)?))
    }

    /// Sends to the holder of the certificate of `to`, and to nobody else.
    async fn send(
        &self,
        order: &Order,
        to: Party,
        sending: Sending,
    ) -> Result<(u64, Manifest), Problem> {
        let Sending {
            stream,
            directory,
            previous,
            pace,
        } = sending;
        let (client, base) = self.peers.client(to, &order.target_address)?;
        let what = stream.name();
        let url = format!("{base}/v1/handovers/{}/{what}", order.migration);
        let sending = transfer::send(&client, &url, directory, previous, pace);
        self.unless_called_off(order.migration, sending)
            .await?
            .map_err(|error| cannot(format!("sending the {what}: {}", chain(&error))))
    }

    /// Does `work`, unless the move is off before it is done: then it is dropped. What was asked
    /// of the target breaks off with its connection; it is told to discard what it has.
    ///
    /// A connection may break in such a way that its end is never told (hyper's client waits for
    /// ever where that happens as a request is handed over): the phase's deadline then ends the
    /// move, and this the waiting.
    async fn unless_called_off<T>(
        &self,
        migration: MigrationId,
        work: impl Future<Output = T>,
    ) -> Result<T, Problem> {
        let off = lock(&self.leaving)
            .entry(migration)
            .or_default()
            .called_off
            .clone();
        tokio::select! {
            biased;
            () = off.cancelled() => Err(called_off()),
            done = work => Ok(done),
        }
    }

    fn pace(&self, migration: MigrationId, bytes_per_s: Option<u64>) -> Pace {
        let mut leaving = lock(&self.leaving);
        let sent = leaving.entry(migration).or_default().sent.clone();
        Pace::counted(bytes_per_s, sent)
    }

    /// Source: how much has been sent, by this process.
    pub fn sent_so_far(&self, migration: MigrationId) -> SentSoFar {
        let leaving = lock(&self.leaving);
        let sent = leaving.get(&migration).map(|leaving| &leaving.sent);
        SentSoFar {
            bytes: sent.map_or(0, |sent| sent.load(Ordering::Relaxed)),
        }
    }

    /// Source: what is under way for the move that `order` ends, if its statement is good, is not
    /// sent to its end: the order's turn comes after it. CRIU, where it is at work, is not
    /// interrupted.
    pub fn call_off(&self, order: &Order) {
        if self
            .concluded::<Abort>(order, Part::Source, RESUMED)
            .is_ok()
        {
            lock(&self.leaving)
                .entry(order.migration)
                .or_default()
                .called_off
                .cancel();
        }
    }

    /// Source: the container runs elsewhere; what is here of it goes.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub async fn release(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Commit>(&order, Part::Source, COMMITTED)?;
        self.end(order, entitled, End::Release).await
    }

    /// Source: the container runs on here.
    ///
    /// # Errors
    /// Where it cannot be thawed.
    pub async fn resume(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Abort>(&order, Part::Source, RESUMED)?;
        self.end(order, entitled, End::Resume).await
    }
}

/// A directory, and how it goes over.
struct Sending {
    stream: Stream,
    directory: PathBuf,
    /// What the target has of it.
    previous: Option<Previous>,
    pace: Pace,
}

/// The rate of what was sent, in bytes a second, where it was enough to tell.
fn rate(bytes: u64, took: Duration) -> Option<u64> {
    if bytes < RATED_FROM_BYTES {
        return None;
    }
    let micros = took.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).ok()
}

/// Completes, with what is to be said of it, once a container that was frozen at `zero` has stood
/// still for longer than all may take that is to be sent.
async fn stood_still_too_long(zero: Instant, within_ms: Option<u64>) -> Problem {
    let Some(within_ms) = within_ms else {
        return std::future::pending().await;
    };
    tokio::time::sleep_until((zero + Duration::from_millis(within_ms)).into()).await;
    cannot(format!(
        "what had to be sent while the container stood still was not sent within {within_ms} ms; it may stand still for no longer (max_downtime_ms)"
    ))
}

/// Does `work`, unless it is too late before it is done: then it is dropped.
async fn unless<T>(
    late: impl Future<Output = Problem>,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::select! {
        biased;
        done = work => done,
        problem = late => Err(problem),
    }
}

/// Passes pages on until one of both has nothing more to say.
async fn pass_pages(near: Pages, far: Pages, pace: Pace) {
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    // What is asked for is little.
    let unlimited = Pace::new(None);
    let ended = tokio::try_join!(
        pace.copy(&mut near_reader, &mut far_writer),
        unlimited.copy(&mut far_reader, &mut near_writer),
    );
    tracing::debug!(?ended, "no more pages are asked for");
}

/// Watches the root file system, where the kernel does: else all of it is looked at.
async fn watch(rootfs: PathBuf) -> Option<Watch> {
    let begun = tokio::task::spawn_blocking(move || Watch::begin(&rootfs)).await;
    match begun {
        Ok(Ok(watch)) => Some(watch),
        Ok(Err(error)) => {
            tracing::warn!(%error, "while the container is frozen all its files are looked at");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the watch of its files died");
            None
        }
    }
}

fn changes(watch: Option<&Watch>) -> Changes {
    watch.map_or(Changes::Anywhere, Watch::changes)
}

/// Lets go of a watch, which takes the kernel 10 ms and more: nobody waits for it.
fn end(watch: Option<Watch>) {
    tokio::task::spawn_blocking(move || drop(watch));
}

/// What the target answered, where it was not what was hoped for.
async fn refusal(what: &str, answer: reqwest::Response) -> Problem {
    let status = answer.status();
    let told = match answer.json::<Problem>().await {
        Ok(problem) => problem.detail.unwrap_or(problem.title),
        Err(_) => status.to_string(),
    };
    cannot(format!("{what}: the target refuses: {told}"))
}

fn called_off() -> Problem {
    cannot("the move was called off")
}

/// What was sent already, if it was; an error where this edge is not the source.
fn sent_before(order: &Order, entitled: &Entitled) -> Result<Option<Sent>, Problem> {
    match entitled.role() {
        Some(Role::Source { handed_over, .. }) => Ok(*handed_over),
        _ => Err(not_prepared(order)),
    }
}

/// Whether the container did not run when it was made ready.
fn was_stopped(entitled: &Entitled) -> bool {
    matches!(
        entitled.role(),
        Some(Role::Source {
            is_stopped: true,
            ..
        })
    )
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}
