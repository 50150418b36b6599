//! Everything that can happen to a migration with a bounded number of faults.

use std::collections::HashMap;

use carnet_core::migration::{Effect, Event, Phase, Strategy};

use crate::model::{ALL_KEPT, Answer, Key, Order, Promises, World};
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

/// What was seen.
#[derive(Debug, Default)]
struct Explored {
    /// Paths from each world to an end, by the faults left.
    paths: HashMap<(Key, u32), u128>,
    violation: Option<(&'static str, Vec<String>)>,
    ends: HashMap<Phase, u64>,
}

struct Explorer {
    promises: Promises,
    explored: Explored,
    /// The path to where it is, for the report of a violation.
    path: Vec<String>,
}

fn explore(faults: u32, promises: Promises) -> (u128, Explored) {
    let mut explorer = Explorer {
        promises,
        explored: Explored::default(),
        path: Vec::new(),
    };
    let paths = [Strategy::StopAndCopy, Strategy::PostCopy]
        .into_iter()
        .map(|strategy| explorer.walk(&World::new(strategy), faults, 0))
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
            self.explored.violation = Some((name, self.path.clone()));
            return 0;
        }
        let mut paths = 0;
        for (what, next, cost) in self.successors(world) {
            if cost <= faults {
                self.path.push(what);
                paths += self.walk(&next, faults - cost, length + 1);
                self.path.pop();
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

    /// What can happen next, and how many faults each costs.
    fn successors(&self, world: &World) -> Vec<(String, World, u32)> {
        let mut next: Vec<_> = (0..world.on_their_way.len())
            .map(|index| {
                let mut later = world.clone();
                let order = later.on_their_way.remove(index);
                later.arrive(order, self.promises);
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
                w.lose_an_edge(part, self.promises);
            });
        }
        for (index, order) in world.owed.iter().enumerate() {
            own(&format!("{order:?}, which was owed, arrives"), 0, &|w| {
                let order = w.owed.remove(index);
                w.arrive(order, self.promises);
            });
        }
        if world.can_lose_memory() {
            own("memory is lost on its way", 1, &|w| {
                w.lose_memory(self.promises)
            });
        }
        match world.state.effect() {
            None => {}
            // Compared in the transactions: neither a permit nor a commit after a cancel.
            Some(Effect::Admit | Effect::Commit(_))
                if world.cancel && self.promises.compare_the_cancel => {}
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
                    let (later, cost) = self.meets(world, order, fate)?;
                    Some((format!("{order:?}: {fate:?}"), later, cost))
                }));
                if world.cancel && world.state.phase().is_before_the_commit() {
                    next.extend(self.broken_off(world, order));
                }
            }
        }
        next
    }

    /// What may have become of an order that the runner does not wait for any more, because the
    /// move is cancelled.
    fn broken_off(&self, world: &World, order: Order) -> Vec<(String, World, u32)> {
        let after = |what: &str, become_of_it: &dyn Fn(&mut World)| {
            let mut later = world.clone();
            become_of_it(&mut later);
            later.feed(Event::Cancelled);
            (format!("{order:?}, cancelled: {what}"), later, 0)
        };
        vec![
            after("carried out", &|w| {
                w.arrive(order, self.promises);
            }),
            after("carried out by half", &|w| {
                // Where there is no half, nothing.
                let _ = w.arrive_half(order, self.promises);
            }),
            after("on its way", &|w| {
                w.on_their_way.push(order);
                w.on_their_way.sort_unstable();
            }),
        ]
    }

    fn meets(&self, world: &World, order: Order, fate: Fate) -> Option<(World, u32)> {
        let mut world = world.clone();
        let answer = match fate {
            Fate::Answered => Some(world.arrive(order, self.promises)),
            Fate::Twice => {
                world.arrive(order, self.promises);
                Some(world.arrive(order, self.promises))
            }
            Fate::RequestLost => None,
            Fate::AnswerLost => {
                world.arrive(order, self.promises);
                None
            }
            Fate::Late | Fate::ControlKilledLate => {
                world.on_their_way.push(order);
                world.on_their_way.sort_unstable();
                None
            }
            Fate::Refused => Some(Answer::Refused),
            Fate::Half => {
                world.arrive_half(order, self.promises)?;
                Some(Answer::Refused)
            }
            Fate::ControlKilled => {
                world.arrive(order, self.promises);
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
            None if self.promises.unclear_is_not_failed => {
                world.feed(Event::Unclear(String::new()));
            }
            None => world.feed(Event::Failed(String::new())),
        }
        Some((world, u32::from(!matches!(fate, Fate::Answered))))
    }
}

#[test]
fn every_invariant_holds_whatever_is_lost_repeated_late_or_killed() {
    let (paths, explored) = explore(FAULTS, ALL_KEPT);
    if let Some((name, path)) = &explored.violation {
        panic!("violated: {name}\n{}", path.join("\n"));
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
    let (paths, explored) = explore(0, ALL_KEPT);
    assert!(explored.violation.is_none());
    // With either strategy.
    assert_eq!(paths, 4);
    assert_eq!(explored.ends.len(), 2);
}

/// That a broken promise is found out shows that the exploration can find what is wrong.
fn violation(promises: Promises) -> Option<(&'static str, String)> {
    let (_, explored) = explore(FAULTS, promises);
    explored
        .violation
        .map(|(name, path)| (name, path.join("\n")))
}

#[test]
fn an_agent_that_forgets_that_a_hand_over_ended_is_found_out() {
    let promises = Promises {
        remember_the_end: false,
        ..ALL_KEPT
    };
    assert!(violation(promises).is_some());
}

#[test]
fn a_target_that_discards_what_has_run_is_found_out() {
    let promises = Promises {
        keep_what_has_run: false,
        ..ALL_KEPT
    };
    let (name, path) = violation(promises).expect("a violation");
    assert_eq!(name, "the source never runs stale", "{path}");
}

#[test]
fn a_target_that_runs_on_without_its_memory_is_found_out() {
    let promises = Promises {
        kill_what_lost_memory: false,
        ..ALL_KEPT
    };
    let (name, path) = violation(promises).expect("a violation");
    assert_eq!(name, "nothing runs without its memory", "{path}");
}

#[test]
fn a_target_that_says_too_early_that_its_memory_is_there_is_found_out() {
    let promises = Promises {
        wait_for_memory: false,
        ..ALL_KEPT
    };
    assert!(violation(promises).is_some());
}

#[test]
fn a_commit_that_does_not_ask_whether_the_move_was_cancelled_is_found_out() {
    let promises = Promises {
        compare_the_cancel: false,
        ..ALL_KEPT
    };
    let (name, path) = violation(promises).expect("a violation");
    assert_eq!(name, "what is cancelled is not committed", "{path}");
}

#[test]
fn an_end_that_forgets_what_a_lost_edge_owes_is_found_out() {
    let promises = Promises {
        keep_what_is_owed: false,
        ..ALL_KEPT
    };
    assert!(violation(promises).is_some());
}

/// Then moves are undone without need, but nothing is lost: the target keeps what has run.
#[test]
fn a_runner_that_takes_a_lost_answer_for_a_refusal_does_no_harm() {
    let promises = Promises {
        unclear_is_not_failed: false,
        ..ALL_KEPT
    };
    assert_eq!(violation(promises), None);
}
