//! A fake of the agents: edges with containers that keep the promises of `carnet_api::agent`, as
//! `core/tests/migration/model.rs` has them. It records what is asked, lets each asking meet the
//! fate that a test has written for it, and looks after the invariants whenever something changes.

mod answers;
mod promises;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use carnet_api::agent::{MemoryAhead, Order, Reading, Refused, TimedStep, Utilization};
use carnet_api::tls::Authority;
use carnet_api::v1::{DetectedFacts, Problem};
use carnet_control::agents::{AgentError, AgentFault, Endpoint};
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::migration::Strategy;
use carnet_core::permit::Fingerprint;
use ed25519_dalek::VerifyingKey;
use sqlx::{Row, SqlitePool};
use tokio::sync::watch;

use self::statements::{check, statement_refused};
use crate::plane::certificate_of;

/// What a source sends, as it says.
pub const ROOTFS_AHEAD_BYTES: u64 = 1_000;
/// As fast as that went.
pub const BYTES_PER_S: u64 = 1_000_000;
pub const ROOTFS_DIFFERENCE_BYTES: u64 = 20;
pub const IMAGE_BYTES: u64 = 300;
/// How much memory a container has: enough for it to be worth following.
pub const MEMORY_BYTES: u64 = 64 << 20;
/// What of it goes ahead, where it can.
pub const MEMORY_AHEAD: MemoryAhead = MemoryAhead {
    bytes: 70 << 20,
    rounds: 2,
    last_round_bytes: 6 << 20,
};
/// How long a container was frozen when the source answered.
pub const FROZEN_MS: f64 = 12.5;
/// A wait that takes longer has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What an agent can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    Reading,
    Containers,
    PrepareSource,
    PrepareTarget,
    CopyAhead,
    HandOver,
    Restore,
    Settle,
    Release,
    Clean,
    Resume,
    Discard,
}

impl Ask {
    /// Whether there is a way to fail half done that the promises leave open.
    pub fn can_fail_half_done(self) -> bool {
        matches!(
            self,
            Self::PrepareTarget
                | Self::HandOver
                | Self::Release
                | Self::Clean
                | Self::Resume
                | Self::Discard
        )
    }
}

/// What becomes of one asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It arrives, is carried out and answered.
    Answered,
    /// The edge refuses (4xx) and does nothing.
    Refused,
    /// The edge fails half way and says so (4xx).
    Half,
    /// The edge is at fault (5xx) and has done nothing.
    Unwell,
    /// The edge is at fault (5xx) and has done it.
    UnwellDone,
    /// It never arrives.
    RequestLost,
    /// It is carried out, the answer is lost.
    AnswerLost,
    /// It is given up, and arrives just before the next order to that edge.
    Late,
    /// It is given up, and arrives when everything is over.
    LateAfterTheEnd,
    /// It arrives twice.
    Twice,
    /// It is carried out, and takes a while.
    Slow,
    /// It does not arrive until the test lets it; if it is given up before, when everything is
    /// over.
    Held,
    /// The control plane is killed before it arrives.
    KilledBefore,
    /// It is carried out; the control plane is killed before it hears of it.
    KilledAfter,
    /// The control plane is killed, and it arrives just before the next order to that edge.
    KilledLate,
}

/// Which askings a fate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The n-th of all, from 0.
    Nth(usize),
    /// The n-th of its kind, from 0.
    NthOf(Ask, usize),
    /// Every one of its kind at this edge.
    Every(Ask, EdgeId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Running,
    Frozen,
    Stopped,
}

/// An edge's part in a hand-over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    pub prepared: bool,
    pub images: bool,
    /// The container has run here: it may have answered clients.
    pub has_run: bool,
    /// All of its memory is here.
    pub settled: bool,
    /// Memory of it was lost on its way, and it was killed.
    pub lost: bool,
    /// The generation under which the container was last let run here.
    pub ran_as: u64,
    /// The container did not run when it was made ready here.
    pub is_stopped: bool,
    /// How the hand-over ended here, once it has.
    pub ended: Option<Ask>,
}

#[derive(Debug, Clone)]
struct Machine {
    name: String,
    reading: Reading,
    reachable: bool,
    /// What it fails at, whenever it is asked.
    cannot: BTreeSet<Ask>,
    /// What its agent finds there, and how often it was asked.
    detected: DetectedFacts,
    described: usize,
    /// The signing keys that it was told.
    keys: Vec<VerifyingKey>,
    /// How often it was told one.
    told: usize,
    /// What it has refused and not forgotten.
    refusals: Vec<Refused>,
    /// How many it has refused and not kept.
    dropped: u64,
    /// It is not heard when it is to forget.
    forgets: bool,
    /// The certificate that it shows.
    shown: Fingerprint,
    /// The request for the next one, and its key, PEM.
    next: Option<(String, String)>,
}

/// What an agent is asked while its certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewing {
    Request,
    Give,
    Show,
}

/// What of one asking is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Request,
    Answer,
}

/// One asking.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub edge: EdgeId,
    pub ask: Ask,
    pub at: Instant,
    pub fate: Fate,
    /// Where an order: the state in which the store had its migration.
    pub phase: Option<String>,
    /// Where an order: its generation and its migration.
    pub order: Option<(u64, MigrationId)>,
}

#[derive(Default)]
struct Inside {
    machines: BTreeMap<EdgeId, Machine>,
    copies: BTreeMap<(EdgeId, String), Process>,
    parts: BTreeMap<(EdgeId, MigrationId), Part>,
    script: Vec<(When, Fate)>,
    asked: Vec<Recorded>,
    /// Orders given up that have not arrived yet.
    on_their_way: Vec<(Fate, EdgeId, Ask, Order)>,
    held: BTreeSet<usize>,
    /// Those that refuse each statement for its generation.
    ahead: BTreeSet<EdgeId>,
    /// What an operator has ever declared lost.
    declared_lost: BTreeSet<EdgeId>,
    /// Copies here do not count: an operator says that they will not run again.
    lost: BTreeSet<EdgeId>,
    post_copy_problems: BTreeMap<EdgeId, String>,
    /// Their kernels tell which memory is written to.
    can_send_memory_ahead: bool,
    live_problems: BTreeMap<EdgeId, String>,
    strategies: Vec<Strategy>,
    /// The next of each is lost.
    lose: Vec<(EdgeId, Renewing, Lost)>,
    kill: bool,
    violations: Vec<String>,
}

/// The edges of one test.
pub struct Edges {
    inside: Mutex<Inside>,
    /// Changes with everything inside.
    changed: watch::Sender<()>,
    /// The control plane's database, to look into while an order arrives.
    ledger: SqlitePool,
    /// The authority that agents trust.
    authority: Authority,
    /// Whether the database is to agree with each order.
    compare: std::sync::atomic::AtomicBool,
}

impl Edges {
    pub fn new(ledger: SqlitePool, authority: Authority) -> Self {
        Self {
            inside: Mutex::default(),
            changed: watch::channel(()).0,
            ledger,
            authority,
            compare: true.into(),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        let done = change(&mut self.inside());
        self.changed.send_replace(());
        done
    }

    pub fn add(&self, edge: EdgeId, name: &str) {
        self.change(|inside| {
            inside.machines.insert(
                edge,
                Machine {
                    name: name.to_owned(),
                    reading: reading(1_000, 2_000),
                    reachable: true,
                    cannot: BTreeSet::new(),
                    keys: Vec::new(),
                    detected: DetectedFacts::default(),
                    described: 0,
                    told: 0,
                    refusals: Vec::new(),
                    dropped: 0,
                    forgets: true,
                    shown: certificate_of(edge),
                    next: None,
                },
            )
        });
    }

    /// Puts a container there.
    pub fn place(&self, edge: EdgeId, container: &str, process: Process) {
        self.change(|inside| inside.copies.insert((edge, container.to_owned()), process));
    }

    pub fn remove(&self, edge: EdgeId, container: &str) {
        self.change(|inside| inside.copies.remove(&(edge, container.to_owned())));
    }

    pub fn set_reading(&self, edge: EdgeId, reading: Reading) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().reading = reading);
    }

    /// What the edge's agent finds on its machine from now on.
    pub fn set_detected(&self, edge: EdgeId, detected: DetectedFacts) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().detected = detected);
    }

    /// How often the edge was asked what its machine is.
    pub fn described(&self, edge: EdgeId) -> usize {
        self.inside().machines[&edge].described
    }

    pub fn set_reachable(&self, edge: EdgeId, reachable: bool) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().reachable = reachable);
    }

    /// The signing keys that the edge was told, the newest last.
    pub fn keys(&self, edge: EdgeId) -> Vec<VerifyingKey> {
        self.inside().machines[&edge].keys.clone()
    }

    /// How often the edge was told a signing key.
    pub fn times_told(&self, edge: EdgeId) -> usize {
        self.inside().machines[&edge].told
    }

    /// The edge refuses something.
    pub fn refuse(&self, edge: EdgeId, refused: Refused) {
        self.change(|inside| {
            let machine = inside.machines.get_mut(&edge).unwrap();
            machine.refusals.push(refused);
        });
    }

    /// The edge refuses so many more, and does not keep them.
    pub fn drop_refusals(&self, edge: EdgeId, count: u64) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().dropped += count);
    }

    /// The next time that the edge is asked this, it is in vain.
    pub fn lose(&self, edge: EdgeId, asked: Renewing, lost: Lost) {
        self.change(|inside| inside.lose.push((edge, asked, lost)));
    }

    /// The certificate that the edge shows.
    pub fn shown(&self, edge: EdgeId) -> Fingerprint {
        self.inside().machines[&edge].shown
    }

    /// Whether the edge has a key that waits for its certificate.
    pub fn has_requested(&self, edge: EdgeId) -> bool {
        self.inside().machines[&edge].next.is_some()
    }

    /// The edge loses the key that is to come.
    pub fn forget_request(&self, edge: EdgeId) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().next = None);
    }

    /// What the edge has refused and not forgotten.
    pub fn kept_refusals(&self, edge: EdgeId) -> Vec<Refused> {
        self.inside().machines[&edge].refusals.clone()
    }

    /// Whether the edge hears when it is to forget refusals.
    pub fn set_forgets(&self, edge: EdgeId, forgets: bool) {
        self.change(|inside| inside.machines.get_mut(&edge).unwrap().forgets = forgets);
    }

    /// Memory cannot follow at this edge, and why.
    pub fn set_post_copy_problem(&self, edge: EdgeId, problem: &str) {
        self.change(|inside| inside.post_copy_problems.insert(edge, problem.to_owned()));
    }

    /// Memory can go ahead between all edges; before, it cannot.
    pub fn have_memory_go_ahead(&self) {
        self.change(|inside| inside.can_send_memory_ahead = true);
    }

    /// Nothing but a cold move can be made from or to this edge, and why.
    pub fn set_live_problem(&self, edge: EdgeId, problem: &str) {
        self.change(|inside| {
            let machine = inside.machines.get_mut(&edge).unwrap();
            machine.reading.live_problems = vec![problem.to_owned()];
            inside.live_problems.insert(edge, problem.to_owned());
        });
    }

    fn change_strategies(&self, strategy: Strategy) {
        self.change(|inside| inside.strategies.push(strategy));
    }

    /// How sources were told to hand over, in turn.
    pub fn strategies(&self) -> Vec<Strategy> {
        self.inside().strategies.clone()
    }

    /// An operator has declared the edge lost; `false`: what it has counts again.
    pub fn set_lost(&self, edge: EdgeId, lost: bool) {
        self.change(|inside| {
            if lost {
                inside.declared_lost.insert(edge);
                inside.lost.insert(edge);
            } else {
                inside.lost.remove(&edge);
            }
        });
    }

    /// The edge has seen every container under a newer generation than anybody names.
    pub fn set_ahead(&self, edge: EdgeId) {
        self.change(|inside| inside.ahead.insert(edge));
    }

    /// The edge fails at `ask`, whenever it is asked; `false`: no more.
    pub fn set_cannot(&self, edge: EdgeId, ask: Ask, cannot: bool) {
        self.change(|inside| {
            let machine = inside.machines.get_mut(&edge).unwrap();
            if cannot {
                machine.cannot.insert(ask);
            } else {
                machine.cannot.remove(&ask);
            }
        });
    }

    /// From now on, what is asked `when` meets `fate`; of two such rules the first counts.
    pub fn script(&self, when: When, fate: Fate) {
        self.change(|inside| inside.script.push((when, fate)));
    }

    /// The test puts something else into the database than Carnet does: do not compare any more.
    pub fn do_not_compare(&self) {
        self.compare
            .store(false, std::sync::atomic::Ordering::Relaxed);
    }

    /// Everything asked so far.
    pub fn asked(&self) -> Vec<Recorded> {
        self.inside().asked.clone()
    }

    /// How often `ask` was asked, of all edges.
    pub fn times(&self, ask: Ask) -> usize {
        self.inside()
            .asked
            .iter()
            .filter(|asked| asked.ask == ask)
            .count()
    }

    pub fn process(&self, edge: EdgeId, container: &str) -> Option<Process> {
        self.inside()
            .copies
            .get(&(edge, container.to_owned()))
            .copied()
    }

    /// The edge's part in a hand-over; the default where it has none.
    pub fn part(&self, edge: EdgeId, migration: MigrationId) -> Part {
        self.inside()
            .parts
            .get(&(edge, migration))
            .copied()
            .unwrap_or_default()
    }

    pub fn violations(&self) -> Vec<String> {
        self.inside().violations.clone()
    }

    /// What happened, for messages.
    pub fn trail(&self) -> String {
        let inside = self.inside();
        let lines: Vec<String> = inside
            .asked
            .iter()
            .map(|asked| {
                format!(
                    "{} {:?} {:?} in {:?}",
                    inside.machines[&asked.edge].name, asked.ask, asked.fate, asked.phase
                )
            })
            .collect();
        lines.join("\n")
    }

    /// Waits, within [`LIMIT`], until `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(LIMIT, waiting).await.is_err() {
            panic!("waited in vain for: {what}\n{}", self.trail());
        }
    }

    /// Waits until so many askings are held at the same time.
    pub async fn until_held(&self, count: usize) {
        self.until("askings that are held", |edges| {
            edges.inside().held.len() >= count
        })
        .await;
    }

    /// Lets everything arrive that is held now.
    pub fn let_go(&self) {
        self.change(|inside| inside.held.clear());
    }

    /// Waits until the control plane is to be killed.
    pub async fn until_killed(&self) {
        let mut changed = self.changed.subscribe();
        while !self.inside().kill {
            changed.changed().await.unwrap();
        }
    }

    pub fn was_killed(&self) {
        self.inside().kill = false;
    }

    /// Lets everything arrive that never did.
    pub fn deliver_the_late(&self) {
        self.change(|inside| {
            for (_, edge, ask, order) in std::mem::take(&mut inside.on_their_way) {
                let _ = inside.arrive(edge, ask, &order);
            }
        });
    }

    /// Notes an asking, and says which it is of all and what becomes of it.
    fn note(
        &self,
        edge: EdgeId,
        ask: Ask,
        order: Option<&Order>,
        phase: Option<String>,
    ) -> (usize, Fate) {
        self.change(|inside| {
            let nth = inside.asked.len();
            let nth_of = inside.asked.iter().filter(|a| a.ask == ask).count();
            let fate = inside
                .script
                .iter()
                .find(|(when, _)| match *when {
                    When::Nth(n) => n == nth,
                    When::NthOf(of, n) => (of, n) == (ask, nth_of),
                    When::Every(of, at) => (of, at) == (ask, edge),
                })
                .map_or(Fate::Answered, |&(_, fate)| fate);
            inside.asked.push(Recorded {
                edge,
                ask,
                at: Instant::now(),
                fate,
                phase,
                order: order.map(|order| (order.generation, order.migration)),
            });
            if fate == Fate::Held {
                inside.held.insert(nth);
            }
            (nth, fate)
        })
    }

    /// What the database says of an order's migration: its state's name. What does not agree
    /// with the order is noted as a violation.
    async fn compare(&self, edge: EdgeId, ask: Ask, order: &Order) -> Option<String> {
        let row = sqlx::query(
            "SELECT migrations.phase, migrations.permit, containers.generation, containers.edge,
                 (SELECT certificate FROM edges WHERE id = ?3) AS source_certificate,
                 (SELECT certificate FROM edges WHERE id = ?2) AS target_certificate,
                 (SELECT count(*) FROM migration_attempts WHERE migration = migrations.id
                  AND attempt ->> 'outcome' = 'permitted' AND attempt ->> 'edge' = ?2)
                 AS permitted
             FROM migrations JOIN containers ON containers.id = migrations.container
             WHERE migrations.id = ?1",
        )
        .bind(order.migration.to_string())
        .bind(order.target.to_string())
        .bind(order.source.to_string())
        .fetch_optional(&self.ledger)
        .await
        .unwrap();
        let row = row?;
        let phase: String = row.get("phase");
        let permit: Option<String> = row.get("permit");
        let keys = self.keys(edge);
        let certificates = ["source_certificate", "target_certificate"].map(|column| {
            let certificate: Option<String> = row.get(column);
            certificate.map(|certificate| certificate.parse().unwrap())
        });
        if let Err(fault) = check(ask, order, permit.as_deref(), certificates, &keys) {
            let violation = format!("{ask:?} in {phase}: its statement: {fault}");
            self.change(|inside| inside.violations.push(violation));
        }
        if !self.compare.load(std::sync::atomic::Ordering::Relaxed) {
            return Some(phase);
        }
        let place: EdgeId = row.get::<String, _>("edge").parse().unwrap();
        let generation: i64 = row.get("generation");
        let after_the_commit = matches!(
            phase.as_str(),
            "restoring"
                | "settling"
                | "releasing"
                | "withdrawing_target"
                | "taking_back"
                | "completed"
        );
        let owner = if after_the_commit {
            order.target
        } else {
            order.source
        };
        let mut wrong = Vec::new();
        if i64::try_from(order.generation) != Ok(generation) {
            wrong.push(format!(
                "the generation is the database's: the order has {}, the database {generation}",
                order.generation
            ));
        }
        if place != owner {
            wrong.push("the place is the one that the state says".to_owned());
        }
        if ask == Ask::HandOver && row.get::<i64, _>("permitted") != 1 {
            wrong.push("no freeze without a permitted attempt on record".to_owned());
        }
        let running_elsewhere = |inside: &Inside| {
            inside.copies.iter().any(|((edge, name), &process)| {
                *name == order.container
                    && *edge != place
                    && !inside.lost.contains(edge)
                    && process == Process::Running
            })
        };
        self.change(|inside| {
            if running_elsewhere(inside) {
                wrong.push("it runs nowhere but where the database says".to_owned());
            }
            let wrong = wrong.into_iter();
            inside
                .violations
                .extend(wrong.map(|what| format!("{ask:?} in {phase}: {what}")));
        });
        Some(phase)
    }

    /// A question or an order on its way to `edge` and back.
    async fn ask<T>(
        &self,
        endpoint: &Endpoint,
        ask: Ask,
        order: Option<&Order>,
        answer: impl Fn(&Inside) -> T,
    ) -> Result<T, AgentError> {
        let edge = endpoint.edge;
        let fault = |fault| AgentError {
            edge: endpoint.name.clone(),
            address: endpoint.address.clone(),
            asked: words(ask),
            fault,
        };
        let refused = |detail: String| {
            fault(AgentFault::Refused(Problem {
                kind: "urn:carnet:problem:edge-cannot".to_owned(),
                title: "the edge cannot do this".to_owned(),
                status: 409,
                detail: Some(detail),
                faults: Vec::new(),
            }))
        };
        let unwell = || {
            fault(AgentFault::Unwell {
                status: 500,
                start: "its disk is broken".to_owned(),
            })
        };
        let lost = || fault(AgentFault::Unreachable("the connection broke".to_owned()));
        let too_slow = || fault(AgentFault::TooSlow(Duration::from_secs(120)));

        let phase = match order {
            Some(order) => self.compare(edge, ask, order).await,
            None => None,
        };
        let (nth, fate) = self.note(edge, ask, order, phase);
        if !self.inside().machines[&edge].reachable {
            return Err(lost());
        }
        if self.inside().ahead.contains(&edge) {
            return Err(fault(AgentFault::Refused(statement_refused(
                "generation",
                "of generation 1, and this edge has seen 9",
            ))));
        }
        if fate == Fate::Held {
            let _given_up = GivenUp {
                edges: self,
                order: order.map(|order| (edge, ask, order.clone())),
                nth,
            };
            self.until("an asking that is let go", |edges| {
                !edges.inside().held.contains(&nth)
            })
            .await;
        }
        // Late ones get there first.
        self.change(|inside| {
            let late = inside
                .on_their_way
                .extract_if(.., |(fate, to, ..)| {
                    *to == edge && *fate != Fate::LateAfterTheEnd
                })
                .collect::<Vec<_>>();
            for (_, edge, ask, order) in late {
                let _ = inside.arrive(edge, ask, &order);
            }
        });
        let arrive = || match order {
            Some(order) => self.change(|inside| inside.arrive(edge, ask, order)),
            None => Ok(()),
        };
        let give_up = || {
            if let Some(order) = order {
                self.change(|inside| {
                    inside.on_their_way.push((fate, edge, ask, order.clone()));
                });
            }
        };
        match fate {
            Fate::Answered | Fate::Held => arrive().map_err(refused)?,
            Fate::Refused => return Err(refused("it has no room".to_owned())),
            Fate::Half => {
                if let Some(order) = order {
                    self.change(|inside| inside.arrive_half(edge, ask, order));
                }
                return Err(refused("it broke half way".to_owned()));
            }
            Fate::Unwell => return Err(unwell()),
            Fate::UnwellDone => {
                let _ = arrive();
                return Err(unwell());
            }
            Fate::RequestLost => return Err(lost()),
            Fate::AnswerLost => {
                let _ = arrive();
                return Err(lost());
            }
            Fate::Late | Fate::LateAfterTheEnd => {
                give_up();
                return Err(too_slow());
            }
            Fate::Twice => {
                let _ = arrive();
                arrive().map_err(refused)?;
            }
            Fate::Slow => {
                arrive().map_err(refused)?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Fate::KilledBefore => self.kill().await,
            Fate::KilledAfter => {
                let _ = arrive();
                self.kill().await;
            }
            Fate::KilledLate => {
                give_up();
                self.kill().await;
            }
        }
        Ok(answer(&self.inside()))
    }

    /// Has the control plane killed; whoever waits for this waits for ever.
    async fn kill(&self) {
        self.change(|inside| inside.kill = true);
        std::future::pending().await
    }
}

/// A held order; dropped while it is held, it is on its way.
struct GivenUp<'a> {
    edges: &'a Edges,
    order: Option<(EdgeId, Ask, Order)>,
    nth: usize,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.edges.change(|inside| {
            if inside.held.remove(&self.nth)
                && let Some((edge, ask, order)) = self.order.take()
            {
                let late = (Fate::LateAfterTheEnd, edge, ask, order);
                inside.on_their_way.push(late);
            }
        });
    }
}

fn timed(step: &str, began_ms: f64, ended_ms: f64) -> TimedStep {
    TimedStep {
        step: step.to_owned(),
        began_ms,
        ended_ms,
    }
}

/// A reading taken just now, of an edge that is ready.
pub fn reading(cpu_hundredths: u16, memory_hundredths: u16) -> Reading {
    Reading {
        utilization: Some(Utilization {
            cpu_hundredths,
            memory_hundredths,
            age_ms: 0,
        }),
        problems: Vec::new(),
        live_problems: Vec::new(),
    }
}

fn words(ask: Ask) -> &'static str {
    match ask {
        Ask::Reading => "read its utilization",
        Ask::Containers => "list its containers",
        Ask::PrepareSource => "make ready to send the container",
        Ask::PrepareTarget => "make ready to take the container",
        Ask::CopyAhead => "send the root file system",
        Ask::HandOver => "freeze or stop the container and send what is missing",
        Ask::Restore => "bring the container to life",
        Ask::Settle => "wait until all memory is there",
        Ask::Release => "remove its copy",
        Ask::Clean => "remove the memory images",
        Ask::Resume => "let the container go on",
        Ask::Discard => "remove what was sent",
    }
}
