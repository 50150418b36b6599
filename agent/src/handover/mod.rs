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

mod statement;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use carnet_api::agent::{CopiedAhead, Described, Done, HandedOver, Order, PrepareTarget};
use carnet_api::tls::{Peer, client_config_for_peer, edge_name};
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::permit::{Abort, Commit, Fingerprint, Part, Party, Permit};
use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use self::statement::{COMMITTED, DISCARDED, Entitled, RESUMED, is_good, refused, unpermitted};
use crate::permits::Permits;
use crate::problem::{cannot, internal, not_found, not_yours};
use crate::runtime::{ContainerName, Runtime};
use crate::state::{AgentState, write_private};
use crate::transfer;
use crate::tree::Manifest;

/// Passes over the root file system while the container runs: the first sends everything, the
/// next what changed meanwhile. More would chase a busy container for ever.
const PASSES_AHEAD: u32 = 2;

/// How long an ended hand-over is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What this edge has to do with a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub order: Order,
    pub role: Role,
    /// What was accepted for it; absent where the first that was heard of it was its end.
    pub permit: Option<Permit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum Role {
    Source {
        /// Set once everything has been sent; the container has been frozen since then.
        handed_over: Option<Sent>,
    },
    Target {
        container: Described,
        progress: Progress,
    },
    /// Whatever comes for this hand-over now comes too late.
    Ended { how: End },
}

/// How far a target has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// A part of what is prepared may be there.
    Preparing,
    /// All that is prepared is there, and perhaps streams that came since.
    Prepared,
    /// It has run here. Set before it is heard on the network.
    Restored,
}

/// The order that ended a hand-over on this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Source: it runs elsewhere.
    Release,
    /// Source: it runs on here.
    Resume,
    /// Target: it is at home.
    Clean,
    /// Target: it never ran here.
    Discard,
}

/// What was sent while the container was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    rootfs_difference_bytes: u64,
    image_bytes: u64,
}

/// The hand-overs that an edge takes part in.
pub struct Handovers<R> {
    runtime: Arc<R>,
    permits: Arc<Permits>,
    records: PathBuf,
    peers: Peers,
    /// What was sent ahead; lost with the process, and then everything is sent again.
    sent_ahead: Mutex<HashMap<MigrationId, Manifest>>,
    frozen: Mutex<HashMap<MigrationId, Instant>>,
    receiving: Mutex<HashMap<MigrationId, Receiving>>,
}

/// The streams that a target receives for one hand-over: one at a time.
struct Receiving {
    /// Breaks the newest off.
    newest: AbortHandle,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Clients for other agents, each for the holder of one certificate. Each keeps its connection
/// open, so that none has to be made while a container is frozen.
pub struct Peers {
    state: Arc<AgentState>,
    clients: Mutex<HashMap<(Party, Fingerprint, String), reqwest::Client>>,
}

impl Peers {
    /// With the certificate of this edge in `state`.
    pub fn new(state: Arc<AgentState>) -> Self {
        Self {
            state,
            clients: Mutex::new(HashMap::new()),
        }
    }

    /// This edge, as statements name it now.
    fn me(&self) -> Party {
        Party {
            edge: self.state.edge.id,
            certificate: self.state.identity.fingerprint(),
        }
    }

    /// A client for the agent of `peer`, and the beginning of its URLs.
    fn client(&self, peer: Party, address: &str) -> Result<(reqwest::Client, String), Problem> {
        let address: std::net::SocketAddr = address
            .parse()
            .map_err(|_| cannot(format!("`{address}` is not an address, ip:port")))?;
        let name = edge_name(peer.edge);
        let base = format!("https://{name}:{}", address.port());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let me = self.me();
        // Its connections were made with a certificate that permits do not name any more.
        clients.retain(|(mine, ..), _| *mine == me);
        let key = (me, peer.certificate, address.to_string());
        if let Some(client) = clients.get(&key) {
            return Ok((client.clone(), base));
        }
        let tls = client_config_for_peer(
            &self.state.authority,
            &self.state.identity,
            vec![peer.certificate],
        )
        .map_err(|error| internal(&error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(&name, address)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| internal(&error))?;
        clients.insert(key, client.clone());
        Ok((client, base))
    }
}

/// What a stream from another agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Rootfs,
    Images,
}

impl<R: Runtime> Handovers<R> {
    /// Of the edge that `peers` is of, with records in the directory `records`.
    pub fn new(runtime: Arc<R>, permits: Arc<Permits>, records: PathBuf, peers: Peers) -> Self {
        Self {
            runtime,
            permits,
            records,
            peers,
            sent_ahead: Mutex::new(HashMap::new()),
            frozen: Mutex::new(HashMap::new()),
            receiving: Mutex::new(HashMap::new()),
        }
    }

    /// Source: checks that the container can move, and describes it.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn prepare_source(&self, order: Order) -> Result<Described, Problem> {
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        if let Some(other) = self.other_handover(&order)? {
            return Err(cannot(format!(
                "`{name}` is being handed over already, by migration {other}"
            )));
        }
        if !matches!(
            entitled.role(),
            None | Some(Role::Source { handed_over: None })
        ) {
            return Err(not_prepared(&order));
        }
        let described = self.runtime.describe(name).await.map_err(cannot)?;
        self.come_to(&entitled.claim)?;
        self.save(&Record {
            order,
            role: Role::Source { handed_over: None },
            permit: Some(permit),
        })?;
        Ok(described)
    }

    /// Target: checks that the container can come, and makes ready.
    ///
    /// # Errors
    /// Why it cannot. `discard` removes what was made by then.
    pub async fn prepare_target(&self, asked: PrepareTarget) -> Result<Done, Problem> {
        let PrepareTarget { order, container } = asked;
        let (entitled, permit) = self.permitted(&order, Part::Target)?;
        let name = &entitled.name;
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
            }) => return Ok(Done {}),
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
            },
            permit: Some(permit.clone()),
        };
        self.save(&record(Progress::Preparing))?;
        self.runtime
            .prepare(name, &container)
            .await
            .map_err(cannot)?;
        self.save(&record(Progress::Prepared))?;
        Ok(Done {})
    }

    /// Source: sends the root file system while the container runs.
    ///
    /// # Errors
    /// Why it did not get there.
    pub async fn copy_ahead(&self, order: Order) -> Result<CopiedAhead, Problem> {
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        if sent_before(&order, &entitled)?.is_some() {
            // The order comes late. What would be sent again may be being restored from.
            return Ok(CopiedAhead {
                bytes: 0,
                passes: 0,
            });
        }
        let mut bytes = 0;
        let mut manifest = None;
        for _ in 0..PASSES_AHEAD {
            let (sent, now) = self
                .send(
                    &order,
                    permit.claim.target,
                    Stream::Rootfs,
                    self.runtime.rootfs(name),
                    manifest,
                )
                .await?;
            bytes += sent;
            manifest = Some(now);
        }
        if let Some(manifest) = manifest {
            self.sent_ahead
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(order.migration, manifest);
        }
        Ok(CopiedAhead {
            bytes,
            passes: PASSES_AHEAD,
        })
    }

    /// Source: freezes the container and sends what is still missing.
    ///
    /// # Errors
    /// What went wrong. The container is frozen then; `resume` lets it run on.
    pub async fn hand_over(&self, order: Order) -> Result<HandedOver, Problem> {
        let (entitled, permit) = self.permitted(&order, Part::Source)?;
        let name = &entitled.name;
        let migration = order.migration;
        let sent = match sent_before(&order, &entitled)? {
            Some(sent) => sent,
            None => {
                let began = Instant::now();
                self.frozen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(migration)
                    .or_insert(began);
                self.runtime.freeze(name).await.map_err(cannot)?;
                let sent = self.send_rest(&order, permit.claim.target, name).await?;
                self.save(&Record {
                    order,
                    role: Role::Source {
                        handed_over: Some(sent),
                    },
                    permit: Some(permit),
                })?;
                sent
            }
        };
        let frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(HandedOver {
            rootfs_difference_bytes: sent.rootfs_difference_bytes,
            image_bytes: sent.image_bytes,
            frozen_ms: frozen
                .get(&migration)
                .map_or(0.0, |began| began.elapsed().as_secs_f64() * 1_000.0),
        })
    }

    /// Memory is dumped while the files' difference is on its way.
    async fn send_rest(
        &self,
        order: &Order,
        to: Party,
        name: &ContainerName,
    ) -> Result<Sent, Problem> {
        let manifest = self
            .sent_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&order.migration);
        let difference = self.send(
            order,
            to,
            Stream::Rootfs,
            self.runtime.rootfs(name),
            manifest,
        );
        let dump = async { self.runtime.dump(name).await.map_err(cannot) };
        // Both to their ends, whichever fails: CRIU is never interrupted.
        let (difference, dumped) = tokio::join!(difference, dump);
        let (rootfs_difference_bytes, _) = difference?;
        dumped?;
        let (image_bytes, _) = self
            .send(order, to, Stream::Images, self.runtime.images(name), None)
            .await?;
        Ok(Sent {
            rootfs_difference_bytes,
            image_bytes,
        })
    }

    /// Sends to the holder of the certificate of `to`, and to nobody else.
    async fn send(
        &self,
        order: &Order,
        to: Party,
        stream: Stream,
        directory: PathBuf,
        previous: Option<Manifest>,
    ) -> Result<(u64, Manifest), Problem> {
        let (client, base) = self.peers.client(to, &order.target_address)?;
        let what = match stream {
            Stream::Rootfs => "rootfs",
            Stream::Images => "images",
        };
        let url = format!("{base}/v1/handovers/{}/{what}", order.migration);
        transfer::send(&client, &url, directory, previous)
            .await
            .map_err(|error| cannot(format!("sending the {what}: {}", chain(&error))))
    }

    /// Target: takes a stream from the source's agent, `peer`.
    ///
    /// # Errors
    /// Where this edge was not asked to take it from there, or it is broken.
    pub async fn receive<S, E>(
        &self,
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
        // The hand-over may have gone on, or ended, meanwhile.
        let name = self.expected(migration, peer)?;
        let directory = match stream {
            Stream::Rootfs => self.runtime.rootfs(&name),
            Stream::Images => self.runtime.images(&name),
        };
        transfer::receive(Abortable::new(body, registration), directory)
            .await
            .map_err(|error| cannot(format!("what arrived cannot be unpacked: {error}")))
    }

    /// The name of the container that this edge was asked to take from `peer`.
    fn expected(&self, migration: MigrationId, peer: &Peer) -> Result<ContainerName, Problem> {
        let record = self
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
        ContainerName::new(&record.order.container).map_err(cannot)
    }

    /// Breaks off the stream of `migration` that is being received, if there is one, and waits
    /// until nothing of it is written any more: its source may have died in its midst without
    /// this edge noticing. Nothing else is received until the guard is dropped; the registration
    /// is for the stream that comes next.
    async fn stop_receiving(
        &self,
        migration: MigrationId,
    ) -> (AbortRegistration, OwnedMutexGuard<()>) {
        let (newest, registration) = AbortHandle::new_pair();
        let turn = {
            let mut receiving = self
                .receiving
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let turn = match receiving.remove(&migration) {
                Some(before) => {
                    before.newest.abort();
                    before.turn
                }
                None => Arc::default(),
            };
            let known = Receiving {
                newest,
                turn: turn.clone(),
            };
            receiving.insert(migration, known);
            turn
        };
        (registration, turn.lock_owned().await)
    }

    /// Target: brings the container to life. Once it has run here this is done, whatever has
    /// become of it since.
    ///
    /// # Errors
    /// Why it cannot be brought to life; it does not run then.
    pub async fn restore(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Commit>(&order, Part::Target, COMMITTED)?;
        let name = &entitled.name;
        match entitled.role() {
            Some(Role::Target {
                container,
                progress: Progress::Prepared,
            }) => {
                self.come_to(&entitled.claim)?;
                self.runtime.restore(name).await.map_err(cannot)?;
                // A crash before this line: it runs and nobody has heard it; it is restored
                // again.
                self.save(&Record {
                    order,
                    role: Role::Target {
                        container: container.clone(),
                        progress: Progress::Restored,
                    },
                    permit: entitled.permit().cloned(),
                })?;
            }
            Some(Role::Target {
                progress: Progress::Restored,
                ..
            }) => {}
            _ => return Err(not_prepared(&order)),
        }
        // It runs, so that a failure here must not read as if it did not.
        self.runtime
            .connect(name)
            .await
            .map_err(|error| internal(&error))?;
        Ok(Done {})
    }

    /// Target: the container is at home; its images go.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub async fn clean(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Commit>(&order, Part::Target, COMMITTED)?;
        self.end(order, entitled, End::Clean).await
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

    /// Target: what this hand-over brought goes, unless it has run here.
    ///
    /// # Errors
    /// Where it has, or cannot be removed.
    pub async fn discard(&self, order: Order) -> Result<Done, Problem> {
        let entitled = self.concluded::<Abort>(&order, Part::Target, DISCARDED)?;
        self.end(order, entitled, End::Discard).await
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
        match (entitled.role(), how) {
            // Nothing is here; what comes late is refused from now on.
            (None, _) => {}
            (Some(Role::Source { .. }), End::Release) => {
                self.runtime.remove(name).await.map_err(cannot)?;
            }
            (Some(Role::Source { .. }), End::Resume) => {
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
            ) => {
                return Err(cannot(format!(
                    "`{name}` has run here since, and may have answered clients"
                )));
            }
            (Some(Role::Target { .. }), End::Discard) => {
                let _received = self.stop_receiving(order.migration).await;
                self.runtime.remove(name).await.map_err(cannot)?;
            }
            (Some(_), _) => return Err(not_prepared(&order)),
        }
        let migration = order.migration;
        self.save(&Record {
            order,
            role: Role::Ended { how },
            permit: entitled.permit().cloned(),
        })?;
        self.sent_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&migration);
        self.frozen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&migration);
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&migration);
        Ok(Done {})
    }

    /// What this edge has to do with the order's migration; an error where that is about another
    /// container, or between other edges, than the order says.
    fn record(&self, order: &Order) -> Result<Option<Record>, Problem> {
        let Some(record) = self.load(order.migration)? else {
            return Ok(None);
        };
        let known = &record.order;
        if (&known.container, known.source, known.target)
            == (&order.container, order.source, order.target)
        {
            Ok(Some(record))
        } else {
            Err(cannot(format!(
                "migration {} moves `{}` from edge {} to edge {}, not `{}` from edge {} to edge {}",
                order.migration,
                known.container,
                known.source,
                known.target,
                order.container,
                order.source,
                order.target
            )))
        }
    }

    /// Another hand-over of the same container that has not ended.
    fn other_handover(&self, order: &Order) -> Result<Option<MigrationId>, Problem> {
        let Ok(entries) = fs::read_dir(&self.records) else {
            return Ok(None);
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse().ok()) else {
                continue;
            };
            if id != order.migration
                && let Some(record) = self.load(id)?
                && record.order.container == order.container
                && !matches!(record.role, Role::Ended { .. })
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn path(&self, migration: MigrationId) -> PathBuf {
        self.records.join(format!("{migration}.json"))
    }

    fn load(&self, migration: MigrationId) -> Result<Option<Record>, Problem> {
        match fs::read(self.path(migration)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| internal(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(internal(&error)),
        }
    }

    fn save(&self, record: &Record) -> Result<(), Problem> {
        let text = serde_json::to_string(record).map_err(|error| internal(&error))?;
        write_private(&self.path(record.order.migration), &text).map_err(|error| internal(&error))
    }

    /// Forgets hand-overs that ended so long ago that no order for them can still be on its way.
    ///
    /// # Errors
    /// Where the records cannot be read.
    pub fn forget_old(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.records)? {
            let entry = entry?;
            let is_old = entry
                .metadata()?
                .modified()?
                .elapsed()
                .is_ok_and(|age| age > REMEMBERED);
            let ended = serde_json::from_slice::<Record>(&fs::read(entry.path())?)
                .is_ok_and(|record| matches!(record.role, Role::Ended { .. }));
            if is_old && ended {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What was sent already, if it was; an error where this edge is not the source.
fn sent_before(order: &Order, entitled: &Entitled) -> Result<Option<Sent>, Problem> {
    match entitled.role() {
        Some(Role::Source { handed_over }) => Ok(*handed_over),
        _ => Err(not_prepared(order)),
    }
}

fn not_prepared(order: &Order) -> Problem {
    cannot(format!(
        "migration {} is not at this point on this edge: it was not prepared here, or has gone on or ended",
        order.migration
    ))
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
