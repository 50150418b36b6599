use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Auditor, Entry, Event, GrantChange, Wrong};
use carnet_core::migration::Phase;
use carnet_core::permit::{Part, Permit, Unverified};
use carnet_core::policy::{Utilization, Verdict};
use proptest::prelude::*;
use uuid::Uuid;

use crate::history::{Deed, History};

fn audit(entries: &[Entry]) -> Vec<Wrong> {
    let mut auditor = Auditor::default();
    entries
        .iter()
        .filter_map(|entry| auditor.take(&entry.to_bytes().unwrap()).err())
        .collect()
}

fn deed() -> impl Strategy<Value = Deed> {
    let byte = any::<u8>;
    prop_oneof![
        6 => (byte(), byte(), byte()).prop_map(|(container, to, fails)| Deed::Move { container, to, fails }),
        2 => (byte(), byte()).prop_map(|(container, to)| Deed::DryRun { container, to }),
        1 => (byte(), byte()).prop_map(|(container, requirements)| Deed::Require { container, requirements }),
        1 => (byte(), byte()).prop_map(|(edge, attributes)| Deed::Describe { edge, attributes }),
        1 => byte().prop_map(|edge| Deed::RevokeGrant { edge }),
        1 => byte().prop_map(|edge| Deed::Renew { edge }),
        1 => Just(Deed::RotateKey),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    proptest::collection::vec(deed(), 0..25)
}

/// A move that completes, on an edge that permits it.
const MOVED: Deed = Deed::Move {
    container: 1,
    to: 3,
    fails: 7,
};

proptest! {
    #[test]
    fn a_history_in_which_all_is_right_has_nothing_wrong(deeds in deeds()) {
        let history = History::of(&deeds);
        prop_assert_eq!(audit(&history.entries), Vec::new());
    }

    #[test]
    fn an_entry_is_written_and_read_alike(deeds in deeds()) {
        for entry in History::of(&deeds).entries {
            let bytes = entry.to_bytes().unwrap();
            prop_assert_eq!(Entry::from_bytes(&bytes).unwrap(), entry);
        }
    }

    /// A ledger that was rewritten whole, tree and signature with it, still has to be a history
    /// that could have happened: none from which a link is missing.
    #[test]
    fn a_permit_or_decision_that_is_left_out_is_missed(deeds in deeds(), left_out in any::<prop::sample::Index>()) {
        let mut deeds = deeds;
        deeds.push(MOVED);
        let mut entries = History::of(&deeds).entries;
        let links: Vec<usize> = (0..entries.len())
            .filter(|&at| match &entries[at].event {
                Event::Permit { .. } => true,
                Event::Decision(decision) => {
                    !decision.dry_run && decision.verdict == Verdict::Permit
                }
                _ => false,
            })
            .collect();
        if !links.is_empty() {
            entries.remove(links[left_out.index(links.len())]);
            prop_assert!(!audit(&entries).is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_entry_and_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Auditor::default().take(&bytes).is_err());
    }
}

/// The history of one completed move, changed; what is found, and where.
fn wrong_when(change: impl Fn(&mut Entry) -> bool) -> Wrong {
    let mut entries = History::of(&[MOVED]).entries;
    assert_eq!(audit(&entries), []);
    let changed = entries
        .iter_mut()
        .position(change)
        .expect("something to change");
    let found = audit(&entries);
    let first = found.first().expect("the change is found").clone();
    assert!(
        first.number >= changed as u64,
        "{first} was found at {changed}"
    );
    first
}

#[test]
fn a_decision_that_comes_out_otherwise_is_found() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Decision(decision) => {
            decision.utilization = Utilization::new(10_000, 10_000, decision.decided_at_ms);
            decision.requirements.policy["max_cpu_percent"] = 1.into();
            true
        }
        _ => false,
    });
    assert!(
        wrong.problem.contains("requirements are not those"),
        "{wrong}"
    );

    let history = History::of(&[Deed::DryRun {
        container: 1,
        to: 1,
    }]);
    let mut entries = history.entries;
    let Event::Decision(decision) = &mut entries.last_mut().unwrap().event else {
        panic!("a decision is last");
    };
    assert_ne!(decision.verdict, Verdict::Permit);
    decision.verdict = Verdict::Permit;
    let wrong = audit(&entries).pop().unwrap();
    assert_eq!(
        wrong.problem,
        "it says permit, and made again it is deny (cDAl)"
    );
}

#[test]
fn a_permit_with_another_signature_is_found() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Permit { permit, .. } => {
            let last = permit.pop().unwrap();
            let middle = permit.len() - 10;
            permit.replace_range(middle..=middle, if last == 'A' { "B" } else { "A" });
            permit.push(last);
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("the permit is refused"), "{wrong}");
}

#[test]
fn a_permit_for_another_move_is_found() {
    let other = MigrationId::from_uuid(Uuid::from_u128(5));
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Permit { migration, .. } => {
            *migration = other;
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("says something else"), "{wrong}");
}

#[test]
fn a_move_to_where_it_was_not_permitted_is_found() {
    let elsewhere = EdgeId::from_uuid(Uuid::from_u128(101));
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Migration { phase, edge, .. } if *phase == Phase::Completed => {
            *edge = elsewhere;
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("and it is not"), "{wrong}");
}

#[test]
fn a_step_that_was_skipped_is_found() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Migration { phase, .. } if *phase == Phase::Committing => {
            *phase = Phase::Restoring;
            true
        }
        _ => false,
    });
    assert_eq!(wrong.problem, "restoring cannot follow handing over");
}

/// A move that has come so far, and was cancelled in front of the entry that says so; what is found.
fn wrong_when_cancelled_before(phase: Phase) -> Vec<Wrong> {
    let mut entries = History::of(&[MOVED]).entries;
    let before = |entry: &Entry| match &entry.event {
        Event::Migration {
            migration,
            container,
            phase: reached,
            ..
        } if *reached == phase => Some(Event::Cancel {
            migration: *migration,
            container: *container,
        }),
        _ => None,
    };
    let (at, event) = (0..)
        .zip(&entries)
        .find_map(|(at, entry)| Some((at, before(entry)?)))
        .expect("it comes so far");
    let cancel = Entry {
        event,
        ..entries[at].clone()
    };
    entries.insert(at, cancel);
    audit(&entries)
}

#[test]
fn a_move_that_is_committed_although_it_was_cancelled_is_found() {
    for phase in [
        Phase::Preparing,
        Phase::CopyingAhead,
        Phase::Committing,
        Phase::Restoring,
    ] {
        let found = wrong_when_cancelled_before(phase);
        let wrong = found.first().expect("it is found");
        assert!(
            wrong.problem.ends_with("was cancelled, and goes on"),
            "{wrong}"
        );
    }
}

#[test]
fn a_cancel_after_the_commit_is_found() {
    for phase in [Phase::Settling, Phase::Completed] {
        let found = wrong_when_cancelled_before(phase);
        let first = found.first().expect("it is found");
        assert!(first.problem.ends_with("cannot be cancelled"), "{first}");
    }
}

#[test]
fn a_move_that_ends_as_cancelled_although_nobody_did_is_found() {
    let mut entries = History::of(&[Deed::Move {
        to: 3,
        container: 1,
        fails: 1,
    }])
    .entries;
    let ended = entries.iter_mut().find_map(|entry| match &mut entry.event {
        Event::Migration { phase, .. } if *phase == Phase::Failed => Some(phase),
        _ => None,
    });
    *ended.expect("it fails") = Phase::Cancelled;
    let found = audit(&entries);
    let first = found.first().expect("it is found");
    assert!(first.problem.starts_with("nobody has cancelled"), "{first}");
}

/// A move that was taken back from its target without asking it; with `lost`, after an operator had
/// declared an edge in this part lost.
fn taken_back_unasked(lost: Option<Part>) -> Vec<Wrong> {
    let mut entries = History::of(&[Deed::Move {
        to: 3,
        container: 1,
        fails: 4,
    }])
    .entries;
    let at = entries
        .iter()
        .position(|entry| {
            matches!(&entry.event, Event::Migration { phase, .. } if *phase == Phase::WithdrawingTarget)
        })
        .expect("it is withdrawn");
    let Event::Migration {
        migration,
        container,
        ..
    } = entries[at].event
    else {
        unreachable!("it was looked for");
    };
    let permit = entries.iter().find_map(|entry| match &entry.event {
        Event::Permit { permit, .. } => Some(permit),
        _ => None,
    });
    let claim = Unverified::<Permit>::parse(permit.expect("it has a permit"))
        .unwrap()
        .into_unverified()
        .claim;
    match lost {
        None => drop(entries.remove(at)),
        Some(part) => {
            entries[at].event = Event::Lost {
                migration,
                container,
                edge: match part {
                    Part::Source => claim.source.edge,
                    Part::Target => claim.target.edge,
                },
                part,
            };
        }
    }
    audit(&entries)
}

#[test]
fn a_container_is_taken_back_unasked_only_from_a_target_that_was_declared_lost() {
    assert_eq!(taken_back_unasked(Some(Part::Target)), []);
    for lost in [None, Some(Part::Source)] {
        let found = taken_back_unasked(lost);
        let first = found.first().expect("it is found");
        assert!(
            first.problem.starts_with("nobody has declared the target"),
            "{first}"
        );
    }
}

#[test]
fn a_generation_that_is_not_the_containers_is_found() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Migration {
            phase, generation, ..
        } if *phase == Phase::Restoring => {
            *generation = Some(1);
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("generation"), "{wrong}");
}

#[test]
fn a_grant_that_was_taken_back_permits_nothing() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Grant(grant)
            if grant.change == GrantChange::Redeemed && grant.edge == crate::history::edge(3) =>
        {
            grant.change = GrantChange::Revoked;
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("no share key"), "{wrong}");
}

#[test]
fn an_entry_dated_before_the_one_in_front_is_found() {
    let wrong = wrong_when(|entry| match entry.event {
        Event::Permit { .. } => {
            entry.at_ms = UnixMillis(5);
            true
        }
        _ => false,
    });
    assert!(wrong.problem.contains("dated before"), "{wrong}");
}

#[test]
fn a_policy_whose_revision_was_skipped_is_found() {
    let wrong = wrong_when(|entry| match &mut entry.event {
        Event::Requirements { requirements, .. } => {
            requirements.revision = 2;
            true
        }
        _ => false,
    });
    assert_eq!(wrong.problem, "its revision is 2, and 1 would be next");
}

#[test]
fn what_a_permit_was_based_on_must_hold_at_the_commit() {
    let entries = History::of(&[MOVED]).entries;
    let committing = entries
        .iter()
        .position(|entry| {
            matches!(&entry.event, Event::Migration { phase, .. } if *phase == Phase::Committing)
        })
        .unwrap();
    let changed = History::of(&[
        Deed::Require {
            container: 1,
            requirements: 2,
        },
        Deed::Describe {
            edge: 3,
            attributes: 0,
        },
        Deed::RevokeGrant { edge: 3 },
    ])
    .entries;
    for (change, words) in [
        (changed.len() - 5, "requirements had changed"),
        (changed.len() - 4, "attributes had changed"),
        (
            changed.len() - 3,
            "share key of the target had been revoked",
        ),
    ] {
        let mut between = changed[change].clone();
        between.at_ms = entries[committing].at_ms;
        let mut entries = entries.clone();
        entries.insert(committing, between);
        let found = audit(&entries);
        assert!(
            found.iter().any(|wrong| wrong.problem.contains(words)),
            "{words}: {found:?}"
        );
    }
}
