//! Every state of a migration with every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use carnet_api::v1::{DestinationSpec, Migration, MigrationState};
use carnet_core::ids::MigrationId;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::edges::{Ask, Fate, When, reading};
use crate::invariants::{Before, assert_hold};
use crate::plane::Plane;
use crate::telling::Told;

/// Cases that run beside each other: they wait for the disk most of the time.
const BESIDE: usize = 4;
/// How often a control plane is killed at most in one move.
const KILLS: usize = 12;

/// Every state in which something is done.
const STATES: [&str; 12] = [
    "admitting",
    "preparing",
    "copying_ahead",
    "handing_over",
    "committing",
    "restoring",
    "settling",
    "releasing",
    "withdrawing_target",
    "taking_back",
    "resuming_source",
    "discarding_target",
];

/// What happens without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the target.
    Forward,
    /// The source fails to hand over, having frozen the container.
    GivenUp,
    /// The commit finds that the container's requirements have changed.
    Stopped,
    /// No target can restore: past the commit and back again.
    TakenBack,
    /// Memory that follows is lost on its way: past the commit and back again.
    LostMemory,
    /// Every target is denied.
    Denied,
}

const WAYS: [Way; 6] = [
    Way::Forward,
    Way::GivenUp,
    Way::Stopped,
    Way::TakenBack,
    Way::LostMemory,
    Way::Denied,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The n-th asking meets a fate.
    Asking(usize, Fate),
    /// The state cannot be saved for a while.
    Saving(&'static str),
    /// The control plane is killed when it is about to save the state.
    KilledSaving(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct Case {
    way: Way,
    fault: Fault,
}

/// What a case saw.
struct Seen {
    /// The state that was met by the fault.
    met: Option<String>,
    asks: Vec<Ask>,
    migration: Migration,
}

impl Way {
    /// A plane on which a move goes this way, with the move about to be asked for.
    async fn plane(self) -> (Plane, carnet_core::ids::ContainerId, Before) {
        let plane = Plane::new().await;
        let source = plane.edge("source").await;
        let targets = [plane.edge("left").await, plane.edge("right").await];
        let requirements = match self {
            Self::Denied => json!({ "max_cpu_percent": 5.0 }),
            _ => json!({}),
        };
        let container = plane.container_with("web", source, requirements).await;
        match self {
            Self::Forward => {}
            Self::GivenUp => plane.edges.set_cannot(source, Ask::HandOver, true),
            Self::Stopped => {
                sqlx::query(
                    "CREATE TRIGGER meanwhile AFTER UPDATE ON migrations
                     WHEN NEW.phase = 'committing' BEGIN
                         UPDATE containers SET requirements_revision = requirements_revision + 1;
                     END",
                )
                .execute(&plane.ledger)
                .await
                .unwrap();
            }
            Self::TakenBack => {
                for target in targets {
                    plane.edges.set_cannot(target, Ask::Restore, true);
                }
            }
            Self::LostMemory => {
                plane.allow_post_copy(container).await;
                for target in targets {
                    plane.edges.set_cannot(target, Ask::Settle, true);
                }
            }
            Self::Denied => {
                for target in targets {
                    plane.edges.set_reading(target, reading(501, 0));
                }
            }
        }
        let before = Before {
            edge: source,
            generation: plane.container_now(container).await.generation,
        };
        (plane, container, before)
    }

    /// The states on this way, in order.
    fn states(self) -> &'static [&'static str] {
        match self {
            Self::Forward => &[
                "admitting",
                "preparing",
                "copying_ahead",
                "handing_over",
                "committing",
                "restoring",
                "settling",
                "releasing",
                "completed",
            ],
            Self::GivenUp => &[
                "admitting",
                "preparing",
                "copying_ahead",
                "handing_over",
                "resuming_source",
                "discarding_target",
                "failed",
            ],
            Self::Stopped => &[
                "admitting",
                "preparing",
                "copying_ahead",
                "handing_over",
                "committing",
                "resuming_source",
                "discarding_target",
                "failed",
            ],
            Self::TakenBack => &[
                "admitting",
                "preparing",
                "copying_ahead",
                "handing_over",
                "committing",
                "restoring",
                "withdrawing_target",
                "taking_back",
                "resuming_source",
                "discarding_target",
                "failed",
            ],
            Self::LostMemory => &[
                "admitting",
                "preparing",
                "copying_ahead",
                "handing_over",
                "committing",
                "restoring",
                "settling",
                "withdrawing_target",
                "taking_back",
                "resuming_source",
                "discarding_target",
                "failed",
            ],
            Self::Denied => &["admitting", "denied"],
        }
    }

    /// What is asked on this way, in order.
    fn asks(self) -> Vec<Ask> {
        let handed_over = [
            Ask::Reading,
            Ask::PrepareSource,
            Ask::PrepareTarget,
            Ask::CopyAhead,
            Ask::HandOver,
        ];
        let rest: &[Ask] = match self {
            Self::Forward => &[Ask::Restore, Ask::Settle, Ask::Release, Ask::Clean],
            Self::GivenUp | Self::Stopped => &[Ask::Resume, Ask::Containers, Ask::Discard],
            Self::TakenBack => &[
                Ask::Restore,
                Ask::Restore,
                Ask::Discard,
                Ask::Resume,
                Ask::Containers,
                Ask::Discard,
            ],
            Self::LostMemory => &[
                Ask::Restore,
                Ask::Settle,
                Ask::Discard,
                Ask::Resume,
                Ask::Containers,
                Ask::Discard,
            ],
            Self::Denied => return vec![Ask::Reading, Ask::Reading],
        };
        [&handed_over, rest].concat()
    }

    /// How a move ends, and what its failure begins with.
    fn end(self) -> (MigrationState, Option<&'static str>) {
        match self {
            Self::Forward => (MigrationState::Completed, None),
            Self::GivenUp => (MigrationState::Failed, Some("handing over: ")),
            Self::Stopped => (MigrationState::Failed, Some("committing: ")),
            Self::TakenBack => (MigrationState::Failed, Some("restoring: ")),
            Self::LostMemory => (MigrationState::Failed, Some("settling: ")),
            Self::Denied => (MigrationState::Denied, None),
        }
    }
}

impl Case {
    /// How it must end: a fault before the commit undoes the move, unless it was only the
    /// control plane that died; everything else is overcome.
    fn end(self, ask: Option<Ask>) -> (MigrationState, Option<&'static str>) {
        let undone = match self.fault {
            Fault::Asking(_, fate) => matches!(
                fate,
                Fate::Refused
                    | Fate::Half
                    | Fate::Unwell
                    | Fate::UnwellDone
                    | Fate::RequestLost
                    | Fate::AnswerLost
                    | Fate::Late
                    | Fate::LateAfterTheEnd
            ),
            _ => false,
        };
        let failed = match ask {
            Some(Ask::PrepareSource | Ask::PrepareTarget) => Some("preparing: "),
            Some(Ask::CopyAhead) => Some("copying ahead: "),
            Some(Ask::HandOver) => Some("handing over: "),
            _ => None,
        };
        match failed {
            Some(_) if undone => (MigrationState::Failed, failed),
            _ => self.way.end(),
        }
    }

    async fn run(self) -> Seen {
        let (told, _guard) = Told::listen();
        let (mut plane, container, before) = self.way.plane().await;
        if let Fault::Asking(n, fate) = self.fault {
            plane.edges.script(When::Nth(n), fate);
        }
        if let Fault::Saving(state) | Fault::KilledSaving(state) = self.fault {
            plane.refuse_to_save(state).await;
        }
        let id = plane
            .request(container, DestinationSpec::Anywhere(true))
            .await;
        let mut met = None;
        if let Fault::Saving(_) | Fault::KilledSaving(_) = self.fault {
            told.until("trying again", 2).await;
            met = Some(plane.phase(id).await);
            if let Fault::KilledSaving(_) = self.fault {
                assert_eq!(plane.kill().await, 1, "{self:?}: it is taken up");
                told.until("trying again", 3).await;
            }
            plane.save_again().await;
        }
        let migration = plane.ended(id).await;
        let what = format!("{self:?}");
        assert_hold(&plane, &migration, before, &what).await;
        plane.edges.deliver_the_late();
        assert_hold(&plane, &migration, before, &what).await;
        assert_eq!(told.times("the runner is at fault"), 0, "{what}");
        let asked = plane.edges.asked();
        let mut ask = None;
        if let Fault::Asking(n, fate) = self.fault {
            assert_eq!(asked[n].fate, fate, "{what}: it was not met");
            ask = Some(asked[n].ask);
            met = asked[n].phase.clone().or(Some("admitting".to_owned()));
        }
        let (state, failure) = self.end(ask);
        assert_eq!(migration.state, state, "{what}\n{}", plane.edges.trail());
        if let Some(failure) = failure {
            let found = migration.failure.as_deref().unwrap_or_default();
            assert!(found.starts_with(failure), "{what}: {found}");
        }
        Seen {
            met,
            asks: asked.iter().map(|asked| asked.ask).collect(),
            migration,
        }
    }
}

impl Plane {
    /// The state that is saved now.
    async fn phase(&self, id: MigrationId) -> String {
        sqlx::query_scalar("SELECT phase FROM migrations WHERE id = ?")
            .bind(id.to_string())
            .fetch_one(&self.ledger)
            .await
            .unwrap()
    }
}

/// Whether `fate` is one that can befall `ask`.
fn befalls(fate: Fate, ask: Ask) -> bool {
    match fate {
        // Nothing to be seen, and what the test itself must let go.
        Fate::Answered | Fate::Held => false,
        Fate::Half => ask.can_fail_half_done(),
        // A question leaves nothing behind.
        Fate::UnwellDone | Fate::Late | Fate::LateAfterTheEnd | Fate::Twice | Fate::KilledLate => {
            !matches!(ask, Ask::Reading | Ask::Containers)
        }
        Fate::Refused
        | Fate::Unwell
        | Fate::RequestLost
        | Fate::AnswerLost
        | Fate::Slow
        | Fate::KilledBefore
        | Fate::KilledAfter => true,
    }
}

const FATES: [Fate; 15] = [
    Fate::Answered,
    Fate::Refused,
    Fate::Half,
    Fate::Unwell,
    Fate::UnwellDone,
    Fate::RequestLost,
    Fate::AnswerLost,
    Fate::Late,
    Fate::LateAfterTheEnd,
    Fate::Twice,
    Fate::Slow,
    Fate::Held,
    Fate::KilledBefore,
    Fate::KilledAfter,
    Fate::KilledLate,
];

/// Runs every case, several beside each other, and returns what they saw in their order.
fn run(cases: &[Case]) -> Vec<Seen> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut seen = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index) else {
                return seen;
            };
            seen.push((index, runtime().block_on(case.run())));
        }
    };
    let mut seen: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..BESIDE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    seen.sort_by_key(|&(index, _)| index);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn every_state_survives_every_fault() {
    let plain: Vec<Case> = WAYS
        .iter()
        .map(|&way| Case {
            way,
            fault: Fault::None,
        })
        .collect();
    let mut cases = Vec::new();
    for (case, seen) in plain.iter().zip(run(&plain)) {
        let way = case.way;
        let timings = &seen.migration.timings;
        let went: Vec<String> = timings
            .iter()
            .map(|timing| serde_json::to_value(timing.state).unwrap())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(went, way.states(), "{way:?}");
        assert_eq!(seen.asks, way.asks(), "{way:?}");
        for (n, &ask) in seen.asks.iter().enumerate() {
            let fates = FATES.iter().filter(|&&fate| befalls(fate, ask));
            cases.extend(fates.map(|&fate| Case {
                way,
                fault: Fault::Asking(n, fate),
            }));
        }
        for &state in &way.states()[1..] {
            cases.extend([
                Case {
                    way,
                    fault: Fault::Saving(state),
                },
                Case {
                    way,
                    fault: Fault::KilledSaving(state),
                },
            ]);
        }
    }
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for (case, seen) in cases.iter().zip(run(&cases)) {
        *met.entry(seen.met.unwrap()).or_default() += 1;
        // Who is slow, or hears it twice, is not asked again.
        if let Fault::Asking(_, Fate::Slow | Fate::Twice) = case.fault {
            assert_eq!(seen.asks, case.way.asks(), "{case:?}");
        }
    }
    println!("{} cases; met in: {met:#?}", cases.len());
    let states: BTreeSet<&str> = met.keys().map(String::as_str).collect();
    assert_eq!(states, BTreeSet::from(STATES));
    assert!(cases.len() > 400, "only {} cases", cases.len());
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Answered),
        2 => proptest::sample::select(&FATES[..]).prop_filter("the test lets it go", |fate| *fate != Fate::Held),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_number_of_faults_in_one_move_is_survived(
        way in proptest::sample::select(&WAYS[..]),
        fates in proptest::collection::vec(any_fate(), 0..30),
    ) {
        runtime().block_on(async {
            let (told, _guard) = Told::listen();
            let (mut plane, container, before) = way.plane().await;
            for (n, &fate) in fates.iter().enumerate() {
                plane.edges.script(When::Nth(n), fate);
            }
            let id = plane.request(container, DestinationSpec::Anywhere(true)).await;
            let migration = plane.ended(id).await;
            plane.edges.deliver_the_late();
            assert_hold(&plane, &migration, before, &format!("{way:?}")).await;
            assert_eq!(told.times("the runner is at fault"), 0);
        });
    }
}

/// Also between two statements of one transaction, and while an answer is on its way.
#[test]
fn a_control_plane_killed_again_and_again_at_any_moment_carries_its_moves_out() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    for round in 0..5 * WAYS.len() {
        let way = WAYS[round % WAYS.len()];
        kills += runtime().block_on(killed_at_any_moment(way, seed, &mut random));
    }
    println!("killed {kills} times");
    assert!(kills > 25, "only {kills} kills");
}

async fn killed_at_any_moment(way: Way, seed: u64, random: &mut StdRng) -> usize {
    let (mut plane, container, before) = way.plane().await;
    let id = plane
        .request(container, DestinationSpec::Anywhere(true))
        .await;
    while plane.kills < KILLS {
        let moment = Duration::from_micros(random.random_range(0..6_000));
        let ended = tokio::time::timeout(moment, plane.ended(id)).await;
        if ended.is_ok() {
            break;
        }
        plane.kill().await;
    }
    let migration = plane.ended(id).await;
    assert_hold(&plane, &migration, before, &format!("{way:?}, seed {seed}")).await;
    assert_eq!(migration.state, way.end().0);
    plane.kills
}
