//! Everything that can happen to a migration with a bounded number of faults.

use std::collections::HashMap;

use carnet_core::migration::{Effect, Event, Phase, Strategy};

use crate::model::{Answer, Key, Order, Process, Promises, World};
use crate::run::Run;
use crate::steps::plan;

/// Faults per path.
const FAULTS: u32 = 7;
/// No path is longer: with `FAULTS` faults there is only so much to do again.
const LONGEST: u32 = 200;

/// What may go wrong with one order.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It arrives, is carried out and answered.
    Answered,
    /// It never arrives.
    RequestLost,
    /// It is carried out, the answer is lost.
    AnswerLost,
    /// It is given up, and arrives some time later, or never.
    Late,
    /// It arrives twice.
    Twice,
    /// The edge refuses and does nothing.
    Refused,
    /// The edge fails half way and says so.
    Half,
    /// It is carried out; the control plane is killed before it can save that.
    ControlKilled,
    /// The control plane is killed while it is on its way.
    ControlKilledLate,
}

const FATES: [Fate; 9] = [
    Fate::Answered,
    Fate::RequestLost,
    Fate::AnswerLost,
    Fate::Late,
    Fate::Twice,
    Fate::Refused,
    Fate::Half,
    Fate::ControlKilled,
    Fate::ControlKilledLate,
];

impl Fate {
    fn words(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::RequestLost => "the request is lost",
            Self::AnswerLost => "done, the answer is lost",
            Self::Late => "given up, and still on its way",
            Self::Twice => "arrives twice",
            Self::Refused => "refused",
            Self::Half => "fails half way",
            Self::ControlKilled => "done, and the control plane is killed",
            Self::ControlKilledLate => "still on its way, and the control plane is killed",
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
struct Explored {
    /// Paths from each world to an end, by the faults left.
    paths: HashMap<(Key, u32), u128>,
    violation: Option<(&'static str, Run)>,
    ends: HashMap<Phase, u64>,
}

struct Explorer {
    promises: Promises,
    explored: Explored,
    /// What has happened so far, for the report of a violation.
    events: Vec<String>,
}

fn explore(faults: u32, promises: Promises) -> (u128, Explored) {
    let mut explorer = Explorer {
        promises,
        explored: Explored::default(),
        events: Vec::new(),
    };
    // With pre-copy, as with stop-and-copy, all memory is there before the commit: the edges promise
    // the same.
    let worlds = [Strategy::StopAndCopy, Strategy::PostCopy, Strategy::Cold].map(World::new);
    let paths = worlds
        .iter()
        .chain([&World::stopped()])
        .map(|world| explorer.walk(world, faults, 0))
        .sum();
    (paths, explorer.explored)
}

impl Explorer {
    /// Walks everything that can come after `world`, and counts the paths.
    fn walk(&mut self, world: &World, faults: u32, length: u32) -> u128 {
        if self.explored.violation.is_some() {
            return 0;
        }
        let key = (world.key(), faults);
        if let Some(&paths) = self.explored.paths.get(&key) {
            return paths;
        }
        let violated = world
            .violated()
            .or((length > LONGEST).then_some("it ends once nothing goes wrong any more"));
        if let Some(name) = violated {
            let run = Run {
                strategy: world.strategy,
                is_stopped: world.was_stopped,
                broken: None,
                violates: Some(name.to_owned()),
                events: self.events.clone(),
            };
            self.explored.violation = Some((name, run));
            return 0;
        }
        let mut paths = 0;
        for (what, next, cost) in successors(world, self.promises) {
            if cost <= faults {
                self.events.push(what);
                paths += self.walk(&next, faults - cost, length + 1);
                self.events.pop();
            }
        }
        if world.state.effect().is_none() {
            // What is still on its way may as well never arrive.
            *self.explored.ends.entry(world.state.phase()).or_default() += 1;
            paths += 1;
        }
        self.explored.paths.insert(key, paths);
        paths
    }
}

/// What can happen next, and how many faults each costs.
pub fn successors(world: &World, promises: Promises) -> Vec<(String, World, u32)> {
    let mut next: Vec<_> = (0..world.on_their_way.len())
        .map(|index| {
            let mut later = world.clone();
            let order = later.on_their_way.remove(index);
            later.arrive(order, promises);
            (format!("{order:?} arrives late"), later, 0)
        })
        .collect();
    let mut own = |what: &str, cost, change: &dyn Fn(&mut World)| {
        let mut later = world.clone();
        change(&mut later);
        next.push((what.to_owned(), later, cost));
    };
    if world.state.phase().is_before_the_commit() {
        if world.cancel {
            // Seen by the runner before the state's next order.
            own("cancelled", 0, &|w| w.feed(Event::Cancelled));
        } else {
            own("asked to cancel", 1, &|w| w.ask_to_cancel());
        }
    }
    for &part in world.state.waits_for() {
        // Rare, and counted so: an operator does not say it often.
        own(&format!("the {part:?} is declared lost"), 3, &|w| {
            w.lose_an_edge(part, promises);
        });
    }
    for (index, order) in world.owed.iter().enumerate() {
        own(&format!("{order:?}, which was owed, arrives"), 0, &|w| {
            let order = w.owed.remove(index);
            w.arrive(order, promises);
        });
    }
    if world.source.process == Process::Stopped {
        own("somebody starts it at the source", 1, &World::start_by_hand);
    }
    if world.can_lose_memory() {
        own("memory is lost on its way", 1, &|w| w.lose_memory(promises));
    }
    match world.state.effect() {
        None => {}
        // Compared in the transactions: neither a permit nor a commit after a cancel.
        Some(Effect::Admit | Effect::Commit(_)) if world.cancel && promises.compare_the_cancel => {}
        Some(Effect::Admit) => {
            own("admitted", 0, &|w| w.feed(Event::Admitted(plan())));
            own("denied", 0, &|w| w.feed(Event::Denied));
            own("not admitted", 1, &|w| w.feed(Event::Failed(String::new())));
        }
        Some(Effect::Commit(_)) => {
            own("committed", 0, &World::commit);
            own("commit refused", 1, &|w| {
                w.feed(Event::Failed(String::new()))
            });
        }
        Some(Effect::TakeBack(_)) => {
            own("taken back", 0, &World::take_back);
            own("not taken back", 1, &|w| {
                w.feed(Event::Failed(String::new()))
            });
        }
        Some(_) => {
            let order = world.orders()[world.position];
            next.extend(FATES.iter().filter_map(|&fate| {
                let (later, cost) = meets(world, order, fate, promises)?;
                Some((format!("{order:?}: {}", fate.words()), later, cost))
            }));
            if world.cancel && world.state.phase().is_before_the_commit() {
                next.extend(broken_off(world, order, promises));
            }
        }
    }
    next
}

/// What may have become of an order that the runner does not wait for any more, because the
/// move is cancelled.
fn broken_off(world: &World, order: Order, promises: Promises) -> Vec<(String, World, u32)> {
    let after = |what: &str, become_of_it: &dyn Fn(&mut World)| {
        let mut later = world.clone();
        become_of_it(&mut later);
        later.feed(Event::Cancelled);
        (format!("{order:?}, cancelled: {what}"), later, 0)
    };
    vec![
        after("carried out", &|w| {
            w.arrive(order, promises);
        }),
        after("carried out by half", &|w| {
            // Where there is no half, nothing.
            let _ = w.arrive_half(order, promises);
        }),
        after("on its way", &|w| {
            w.on_their_way.push(order);
            w.on_their_way.sort_unstable();
        }),
    ]
}

fn meets(world: &World, order: Order, fate: Fate, promises: Promises) -> Option<(World, u32)> {
    let mut world = world.clone();
    let answer = match fate {
        Fate::Answered => Some(world.arrive(order, promises)),
        Fate::Twice => {
            world.arrive(order, promises);
            Some(world.arrive(order, promises))
        }
        Fate::RequestLost => None,
        Fate::AnswerLost => {
            world.arrive(order, promises);
            None
        }
        Fate::Late | Fate::ControlKilledLate => {
            world.on_their_way.push(order);
            world.on_their_way.sort_unstable();
            None
        }
        Fate::Refused => Some(Answer::Refused),
        Fate::Half => {
            world.arrive_half(order, promises)?;
            Some(Answer::Refused)
        }
        Fate::ControlKilled => {
            world.arrive(order, promises);
            None
        }
    };
    if matches!(fate, Fate::ControlKilled | Fate::ControlKilledLate) {
        // The saved state stands, and its effect is begun again.
        world.position = 0;
        return Some((world, 1));
    }
    match answer {
        Some(Answer::Done) if world.position + 1 < world.orders().len() => world.position += 1,
        Some(Answer::Done) => world.feed(Event::Done),
        Some(Answer::Refused) => world.feed(Event::Failed(String::new())),
        None if promises.unclear_is_not_failed => {
            world.feed(Event::Unclear(String::new()));
        }
        None => world.feed(Event::Failed(String::new())),
    }
    Some((world, u32::from(!matches!(fate, Fate::Answered))))
}

#[test]
fn every_invariant_holds_whatever_is_lost_repeated_late_or_killed() {
    let (paths, explored) = explore(FAULTS, Promises::ALL_KEPT);
    if let Some((name, run)) = &explored.violation {
        panic!(
            "violated: {name}\n{}\nstored in {}",
            run.text(),
            run.store().display()
        );
    }
    println!(
        "{paths} paths with at most {FAULTS} faults, through {} situations; ends: {:?}",
        explored.paths.len(),
        explored.ends
    );
    for phase in [
        Phase::Completed,
        Phase::Denied,
        Phase::Failed,
        Phase::Cancelled,
    ] {
        assert!(
            explored.ends.contains_key(&phase),
            "{phase} is never reached"
        );
    }
    assert!(paths > 1_000_000, "only {paths} paths");
}

#[test]
fn without_faults_it_completes_or_is_denied() {
    let (paths, explored) = explore(0, Promises::ALL_KEPT);
    assert!(explored.violation.is_none());
    // With each strategy, and a container that is stopped.
    assert_eq!(paths, 8);
    assert_eq!(explored.ends.len(), 2);
}

/// What comes of a broken promise, with as few faults as it takes: what it violates, and how.
fn violation(promise: &str) -> Option<(&'static str, Run)> {
    let promises = Promises::without(promise).unwrap();
    let found = (0..=FAULTS).find_map(|faults| explore(faults, promises).1.violation);
    found.map(|(name, run)| {
        let broken = Some(promise.to_owned());
        (name, Run { broken, ..run })
    })
}

/// That it is found out shows that the exploration can find what is wrong. The run is stored, for
/// people to read what the promise is for, and replayed with the others.
#[test]
fn a_broken_promise_is_found_out() {
    for (promise, violated) in [
        ("remember_the_end", "no freeze without a plan"),
        ("keep_what_has_run", "the source never runs stale"),
        ("kill_what_lost_memory", "nothing runs without its memory"),
        (
            "wait_for_memory",
            "the source is killed only once the target has run and all memory is there",
        ),
        ("compare_the_cancel", "what is cancelled is not committed"),
        ("keep_what_is_owed", "it ends as it says"),
        (
            "hold_what_is_stopped",
            "nobody runs but where the control plane says",
        ),
        ("remember_that_it_ran", "it ends as it says"),
        ("compare_the_state", "it ends as it says"),
    ] {
        let (name, run) = violation(promise).unwrap_or_else(|| panic!("{promise}: not found out"));
        assert_eq!(name, violated, "{promise}: {}", run.text());
        assert!(
            run.is_stored(),
            "{promise}: the run was not stored yet; it is now, in {}",
            run.store().display()
        );
    }
}

/// Then moves are undone without need, but nothing is lost: the target keeps what has run.
#[test]
fn a_runner_that_takes_a_lost_answer_for_a_refusal_does_no_harm() {
    assert_eq!(violation("unclear_is_not_failed"), None);
}
