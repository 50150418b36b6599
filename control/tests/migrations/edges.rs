//! A fake of the agents: edges with containers that keep the promises of `carnet_api::agent`, as
//! `core/tests/migration/model.rs` has them. It records what is asked, lets each asking meet the
//! fate that a test has written for it, and looks after the invariants whenever something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use carnet_api::agent::{
    Container, CopiedAhead, Described, Facts, HandOver, HandedOver, MAKING_SURE, Order,
    PlacedClaim, PrepareTarget, Prepared, Reading, Refusals, Refused, Restored, TimedStep,
    Utilization,
};
use carnet_api::tls::{Authority, Identity};
use carnet_api::v1::{ContainerState, InputFault, Problem};
use carnet_control::agents::{AgentError, AgentFault, Agents, Asked, Command, Endpoint};
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::migration::Strategy;
use carnet_core::permit::{
    Abort, Claim, Commit, Fingerprint, Party, Permit, Statement, Unverified, key_id,
};
use ed25519_dalek::VerifyingKey;
use rcgen::{CertificateParams, KeyPair};
use sqlx::{Row, SqlitePool};
use tokio::sync::watch;

use crate::plane::certificate_of;

/// What a source sends, as it says.
pub const ROOTFS_AHEAD_BYTES: u64 = 1_000;
pub const ROOTFS_DIFFERENCE_BYTES: u64 = 20;
pub const IMAGE_BYTES: u64 = 300;
/// How much memory a container has: enough for it to be worth following.
pub const MEMORY_BYTES: u64 = 64 << 20;
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

impl Inside {
    fn post_copy_problems(&self, edge: EdgeId) -> Vec<String> {
        self.post_copy_problems
            .get(&edge)
            .into_iter()
            .cloned()
            .collect()
    }

    /// An order arrives at its edge and is carried out as agents promise.
    fn arrive(&mut self, edge: EdgeId, ask: Ask, order: &Order) -> Result<(), String> {
        let done = self.carry_out(edge, ask, order);
        self.look_after_invariants(ask, order);
        done
    }

    fn carry_out(&mut self, edge: EdgeId, ask: Ask, order: &Order) -> Result<(), String> {
        let refused = |why: &str| Err(why.to_owned());
        let here = (edge, order.container.clone());
        let target = (order.target, order.migration);
        let to = self.parts.get(&target).copied().unwrap_or_default();
        let cannot = self.machines[&edge].cannot.contains(&ask);
        let part = self.parts.entry((edge, order.migration)).or_default();
        match part.ended {
            Some(ended) if ended == ask => return Ok(()),
            Some(_) => return refused("the hand-over has ended here"),
            None => {}
        }
        let taken_back = order.generation > part.ran_as;
        if ask == Ask::Discard && part.has_run && !part.lost && !taken_back {
            return refused("the container has run here");
        }
        if ask == Ask::Restore && part.has_run {
            return Ok(());
        }
        match ask {
            Ask::HandOver if !self.copies.contains_key(&here) => {
                return refused("there is no such container");
            }
            Ask::HandOver => {
                self.copies.insert(here.clone(), Process::Frozen);
            }
            _ => {}
        }
        if ask == Ask::Settle && (cannot || part.lost) {
            part.lost = true;
            self.copies.remove(&here);
            return refused("memory of it was lost on its way, and it was killed");
        }
        if cannot {
            return refused("it cannot");
        }
        match ask {
            Ask::Reading | Ask::Containers => {}
            Ask::PrepareSource if !self.copies.contains_key(&here) => {
                return refused("there is no such container");
            }
            Ask::PrepareSource => {}
            Ask::PrepareTarget => part.prepared = true,
            Ask::CopyAhead | Ask::HandOver if !to.prepared || to.ended.is_some() => {
                return refused("the target is not prepared");
            }
            Ask::CopyAhead => {}
            Ask::HandOver => self.parts.get_mut(&target).unwrap().images = true,
            Ask::Restore if !part.images => return refused("there are no images"),
            Ask::Restore => {
                (part.has_run, part.ran_as) = (true, order.generation);
                self.copies.insert(here, Process::Running);
            }
            Ask::Settle if !part.has_run => return refused("it does not run"),
            Ask::Settle => part.settled = true,
            Ask::Release => {
                self.copies.remove(&here);
            }
            Ask::Clean => part.images = false,
            Ask::Resume => match self.copies.get_mut(&here) {
                Some(process) => {
                    *process = Process::Running;
                    part.ran_as = order.generation;
                }
                None => return refused("there is no such container"),
            },
            Ask::Discard => {
                if part.has_run {
                    self.copies.remove(&here);
                }
                (part.prepared, part.images) = (false, false);
            }
        }
        if matches!(ask, Ask::Release | Ask::Resume | Ask::Clean | Ask::Discard) {
            self.parts.get_mut(&(edge, order.migration)).unwrap().ended = Some(ask);
        }
        Ok(())
    }

    /// The order is carried out in part, in the ways that the promises leave open.
    fn arrive_half(&mut self, edge: EdgeId, ask: Ask, order: &Order) {
        let here = (edge, order.container.clone());
        let images = self.parts.get(&(order.target, order.migration));
        let images = images.is_some_and(|part| part.images);
        let part = self.parts.entry((edge, order.migration)).or_default();
        match ask {
            // Frozen, and the images never came or are not whole.
            Ask::HandOver if part.ended.is_none() && !images => {
                if let Some(process) = self.copies.get_mut(&here) {
                    *process = Process::Frozen;
                }
            }
            // A directory is there, the network is not.
            Ask::PrepareTarget if part.ended.is_none() => part.prepared = true,
            // Thawed, but not back on the network; killed, but its files are still there.
            Ask::Resume | Ask::Release | Ask::Clean => {
                let _ = self.carry_out(edge, ask, order);
            }
            // The images are gone, the rest is not.
            Ask::Discard if part.ended.is_none() && !part.has_run => part.images = false,
            _ => {}
        }
        self.look_after_invariants(ask, order);
    }

    fn look_after_invariants(&mut self, ask: Ask, order: &Order) {
        let of = |process| {
            let copies = self.copies.iter();
            copies
                .filter(|((edge, name), is)| {
                    *name == order.container && **is == process && !self.lost.contains(edge)
                })
                .count()
        };
        let source = (order.source, order.container.clone());
        let to = self
            .parts
            .get(&(order.target, order.migration))
            .copied()
            .unwrap_or_default();
        let from = self
            .parts
            .get(&(order.source, order.migration))
            .copied()
            .unwrap_or_default();
        // Memory was lost, or all of the target, and a newer generation says that the source goes on.
        let is_lost = to.lost || self.declared_lost.contains(&order.target);
        let is_taken_back = is_lost && from.ran_as > to.ran_as;
        let invariants = [
            ("never two running copies", of(Process::Running) <= 1),
            (
                "never none that can be brought back",
                self.copies.iter().any(|((_, name), process)| {
                    *name == order.container && *process != Process::Stopped
                }),
            ),
            (
                "the source never runs stale",
                !(to.has_run
                    && !is_taken_back
                    && from.ended != Some(Ask::Release)
                    && self.copies.get(&source) == Some(&Process::Running)),
            ),
            (
                "the source is killed only once the target has run and all memory is there",
                from.ended != Some(Ask::Release) || to.has_run && to.settled,
            ),
        ];
        for (name, holds) in invariants {
            if !holds {
                self.violations.push(format!("{ask:?}: {name}"));
            }
        }
    }
}

/// A refusal of the statement, as agents tell it.
fn statement_refused(check: &str, problem: &str) -> Problem {
    Problem {
        kind: "urn:carnet:problem:statement-refused".to_owned(),
        title: "the statement does not entitle to this".to_owned(),
        status: 403,
        detail: Some(format!("the statement is refused ({check}): {problem}")),
        faults: vec![InputFault {
            place: "statement".to_owned(),
            found: check.to_owned(),
            problem: problem.to_owned(),
            allowed: "what the control plane has signed for this order".to_owned(),
            suggestion: None,
        }],
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
    }
}

fn words(ask: Ask) -> &'static str {
    match ask {
        Ask::Reading => "read its utilization",
        Ask::Containers => "list its containers",
        Ask::PrepareSource => "make ready to send the container",
        Ask::PrepareTarget => "make ready to take the container",
        Ask::CopyAhead => "send the root file system",
        Ask::HandOver => "freeze the container and send its memory",
        Ask::Restore => "bring the container to life",
        Ask::Settle => "wait until all memory is there",
        Ask::Release => "remove the frozen copy",
        Ask::Clean => "remove the memory images",
        Ask::Resume => "let the container run on",
        Ask::Discard => "remove what was sent",
    }
}

/// Whether an order's statement is the one that is right for it, signed by one of `keys`: a permit
/// names the certificates that source and target had when it was made, whatever follows those in
/// `certificates`, which they have now.
fn check(
    ask: Ask,
    order: &Order,
    permit: Option<&str>,
    certificates: [Option<Fingerprint>; 2],
    keys: &[VerifyingKey],
) -> Result<(), String> {
    let permit = permit.ok_or("there is no permit")?;
    let token = &order.statement;
    let permitted = Unverified::<Permit>::parse(permit)
        .map_err(|fault| fault.to_string())?
        .into_unverified()
        .claim;
    // By how much the generation may be raised.
    let (claim, raised): (Claim, &[u64]) = match ask {
        Ask::PrepareSource | Ask::PrepareTarget | Ask::CopyAhead | Ask::HandOver => {
            if token != permit {
                return Err("it is not the permit".to_owned());
            }
            (opened::<Permit>(token, keys)?, &[0])
        }
        Ask::Restore | Ask::Settle | Ask::Release | Ask::Clean => {
            (opened::<Commit>(token, keys)?, &[1])
        }
        Ask::Resume => (opened::<Abort>(token, keys)?, &[0, 2]),
        Ask::Discard => (opened::<Abort>(token, keys)?, &[0, 1, 2]),
        Ask::Reading | Ask::Containers => return Err("it is no order".to_owned()),
    };
    let is_permit = token == permit;
    let party = |edge, now: Option<Fingerprint>, permitted: Party| Party {
        edge,
        certificate: match now {
            Some(now) if !is_permit => now,
            _ => permitted.certificate,
        },
    };
    let [source, target] = certificates;
    let right = Claim {
        iss: Claim::issuer(),
        jti: permitted.jti,
        iat: claim.iat,
        sub: permitted.sub,
        name: order.container.clone(),
        migration: order.migration,
        generation: order.generation,
        source: party(order.source, source, permitted.source),
        target: party(order.target, target, permitted.target),
    };
    if claim != right {
        return Err(format!("it says {claim:?} instead of {right:?}"));
    }
    let fits = |raised: &u64| permitted.generation + raised == claim.generation;
    if !raised.iter().any(fits) {
        return Err(format!("of generation {}", claim.generation));
    }
    Ok(())
}

fn opened<T: Statement>(token: &str, keys: &[VerifyingKey]) -> Result<Claim, String> {
    let read = Unverified::<T>::parse(token).map_err(|fault| fault.to_string())?;
    let key = keys.iter().find(|key| key_id(key) == read.key());
    let key = key.ok_or("the edge was not told its key")?;
    let opened = read.verify_with(key).map_err(|fault| fault.to_string())?;
    Ok(opened.claim().clone())
}

impl Edges {
    /// Something that is not scripted: it is lost where the edge cannot be reached.
    async fn aside<T>(
        &self,
        endpoint: &Endpoint,
        asked: &'static str,
        answer: impl FnOnce(&mut Machine) -> T,
    ) -> Result<T, AgentError> {
        let answered = self.change(|inside| {
            let machine = inside.machines.get_mut(&endpoint.edge).unwrap();
            machine.reachable.then(|| answer(machine))
        });
        answered.ok_or_else(|| AgentError {
            edge: endpoint.name.clone(),
            address: endpoint.address.clone(),
            asked,
            fault: AgentFault::Unreachable("the connection broke".to_owned()),
        })
    }
}

impl Edges {
    /// Something of a renewal: the edge refuses where `answer` does.
    async fn renewing<T>(
        &self,
        endpoint: &Endpoint,
        asked: Renewing,
        words: &'static str,
        answer: impl FnOnce(&mut Machine) -> Result<T, &'static str>,
    ) -> Result<T, AgentError> {
        let edge = endpoint.edge;
        let fault = |fault| AgentError {
            edge: endpoint.name.clone(),
            address: endpoint.address.clone(),
            asked: words,
            fault,
        };
        let lost = self.change(|inside| {
            let at = inside.lose.iter().position(|l| (l.0, l.1) == (edge, asked));
            at.map(|at| inside.lose.remove(at).2)
        });
        let unreachable = || AgentFault::Unreachable("the connection broke".to_owned());
        if lost == Some(Lost::Request) {
            return Err(fault(unreachable()));
        }
        let shown = self.shown(edge);
        if ![endpoint.certificate, endpoint.pending].contains(&Some(shown)) {
            return Err(fault(unreachable()));
        }
        let answered = self.aside(endpoint, words, answer).await?;
        if lost == Some(Lost::Answer) {
            return Err(fault(unreachable()));
        }
        answered.map_err(|why| {
            fault(AgentFault::Refused(Problem {
                kind: "urn:carnet:problem:statement-refused".to_owned(),
                title: "refused".to_owned(),
                status: 403,
                detail: Some(why.to_owned()),
                faults: Vec::new(),
            }))
        })
    }
}

impl Agents for Edges {
    fn tell_signing_key<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        let key = self.authority.signing_key(certificate).unwrap();
        let key = VerifyingKey::from_bytes(&key).unwrap();
        Box::pin(self.aside(edge, "take the signing key", move |machine| {
            machine.told += 1;
            if machine.keys.last() != Some(&key) {
                machine.keys.push(key);
            }
        }))
    }

    fn shown_certificate<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Fingerprint> {
        let asked = "show its certificate";
        Box::pin(self.renewing(edge, Renewing::Show, asked, |machine| Ok(machine.shown)))
    }

    fn certificate_request<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, String> {
        let asked = "request its next certificate";
        Box::pin(self.renewing(edge, Renewing::Request, asked, |machine| {
            let next = machine.next.get_or_insert_with(|| {
                let key = KeyPair::generate().unwrap();
                let request = CertificateParams::default().serialize_request(&key);
                (request.unwrap().pem().unwrap(), key.serialize_pem())
            });
            Ok(next.0.clone())
        }))
    }

    fn give_certificate<'a>(&'a self, edge: &'a Endpoint, certificate: &'a str) -> Asked<'a, ()> {
        let asked = "take its next certificate";
        Box::pin(self.renewing(edge, Renewing::Give, asked, move |machine| {
            let given = Identity::fingerprint_of(certificate).unwrap();
            if given == machine.shown {
                return Ok(());
            }
            let (_, key) = machine.next.as_ref().ok_or("none was requested")?;
            Identity::from_pem(certificate, key).map_err(|_| "it is for another key")?;
            machine.shown = given;
            machine.next = None;
            Ok(())
        }))
    }

    fn refusals<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Refusals> {
        Box::pin(
            self.aside(edge, "list what it refused", |machine| Refusals {
                refusals: machine.refusals.clone(),
                dropped: machine.dropped,
            }),
        )
    }

    fn forget_refusals<'a>(&'a self, edge: &'a Endpoint, through: u64) -> Asked<'a, ()> {
        Box::pin(self.aside(edge, "forget what it refused", move |machine| {
            if machine.forgets {
                machine.refusals.retain(|refused| refused.number > through);
            }
        }))
    }

    fn facts<'a>(&'a self, _: &'a Endpoint) -> Asked<'a, Facts> {
        unimplemented!("nothing under test asks for an edge's facts")
    }

    fn claim<'a>(&'a self, _: &'a Endpoint, _: &'a str) -> Asked<'a, PlacedClaim> {
        unimplemented!("nothing under test asks for a claim")
    }

    fn reading<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Reading> {
        Box::pin(self.ask(edge, Ask::Reading, None, |inside| {
            inside.machines[&edge.edge].reading.clone()
        }))
    }

    fn containers<'a>(&'a self, edge: &'a Endpoint) -> Asked<'a, Vec<Container>> {
        Box::pin(self.ask(edge, Ask::Containers, None, |inside| {
            let here = inside.copies.iter().filter(|((at, _), _)| *at == edge.edge);
            here.map(|((_, name), process)| Container {
                name: name.clone(),
                state: match process {
                    Process::Running => ContainerState::Running,
                    Process::Frozen => ContainerState::Frozen,
                    Process::Stopped => ContainerState::Stopped,
                },
            })
            .collect()
        }))
    }

    fn prepare_source<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Described> {
        Box::pin(
            self.ask(edge, Ask::PrepareSource, Some(order), |inside| Described {
                description: serde_json::json!({ "container": order.container }),
                memory_bytes: MEMORY_BYTES,
                rootfs_bytes: 1 << 24,
                post_copy_problems: inside.post_copy_problems(edge.edge),
            }),
        )
    }

    fn prepare_target<'a>(
        &'a self,
        edge: &'a Endpoint,
        order: &'a PrepareTarget,
    ) -> Asked<'a, Prepared> {
        Box::pin(
            self.ask(edge, Ask::PrepareTarget, Some(&order.order), |inside| {
                Prepared {
                    post_copy_problems: inside.post_copy_problems(edge.edge),
                }
            }),
        )
    }

    fn copy_ahead<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, CopiedAhead> {
        Box::pin(
            self.ask(edge, Ask::CopyAhead, Some(order), |_| CopiedAhead {
                bytes: ROOTFS_AHEAD_BYTES,
                passes: 2,
            }),
        )
    }

    fn hand_over<'a>(&'a self, edge: &'a Endpoint, asked: &'a HandOver) -> Asked<'a, HandedOver> {
        self.change_strategies(asked.strategy);
        Box::pin(
            self.ask(edge, Ask::HandOver, Some(&asked.order), |_| HandedOver {
                rootfs_difference_bytes: ROOTFS_DIFFERENCE_BYTES,
                image_bytes: IMAGE_BYTES,
                frozen_ms: FROZEN_MS,
                steps: vec![timed("dumping", 1.0, 9.0)],
            }),
        )
    }

    fn restore<'a>(&'a self, edge: &'a Endpoint, order: &'a Order) -> Asked<'a, Restored> {
        Box::pin(self.ask(edge, Ask::Restore, Some(order), |_| Restored {
            running_ms: 0.0,
            steps: vec![timed(MAKING_SURE, -0.2, -0.1), timed("running", -0.1, 0.0)],
        }))
    }

    fn command<'a>(
        &'a self,
        edge: &'a Endpoint,
        command: Command,
        order: &'a Order,
    ) -> Asked<'a, ()> {
        let ask = match command {
            Command::Settle => Ask::Settle,
            Command::Release => Ask::Release,
            Command::Clean => Ask::Clean,
            Command::Resume => Ask::Resume,
            Command::Discard => Ask::Discard,
        };
        Box::pin(self.ask(edge, ask, Some(order), |_| ()))
    }
}
