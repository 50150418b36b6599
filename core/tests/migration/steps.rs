//! The table of `step`: every state with every event.

use carnet_core::migration::{Cause, Event, MigrationPlan, Phase, State, step};
use carnet_core::permit::Part;

/// Rows: the state. Columns: the event. `!`: misplaced.
const TABLE: &str = "
                      admitted   denied  done               failed              unclear             cancelled        target_lost  source_lost
admitting             preparing  denied  !                  failed              !                   cancelled        !            !
preparing             !          !       copying_ahead      resuming_source     resuming_source     resuming_source  !            !
copying_ahead         !          !       handing_over       resuming_source     resuming_source     resuming_source  !            !
handing_over          !          !       committing         resuming_source     resuming_source     resuming_source  !            !
committing            !          !       restoring          resuming_source     !                   resuming_source  !            !
restoring             !          !       settling           restoring           restoring           !                taking_back  !
restoring_again       !          !       settling           withdrawing_target  restoring           !                taking_back  !
settling              !          !       releasing          withdrawing_target  settling            !                taking_back  !
releasing             !          !       completed          releasing           releasing           !                completed    completed
withdrawing_target    !          !       taking_back        restoring           withdrawing_target  !                taking_back  !
withdrawing_lost      !          !       taking_back        settling            withdrawing_target  !                taking_back  !
taking_back           !          !       resuming_source    taking_back         !                   !                !            !
resuming_source       !          !       discarding_target  resuming_source     resuming_source     !                !            discarding_target
discarding_target     !          !       failed             discarding_target   discarding_target   !                failed       !
discarding_cancelled  !          !       cancelled          discarding_target   discarding_target   !                cancelled    !
completed             !          !       !                  !                   !                   !                !            !
denied                !          !       !                  !                   !                   !                !            !
failed                !          !       !                  !                   !                   !                !            !
cancelled             !          !       !                  !                   !                   !                !            !
";

fn states() -> Vec<(&'static str, State)> {
    let plan = plan();
    let cause = Cause::failed(Phase::Restoring, "no room".to_owned());
    let with = |failures: &[&str]| State::Restoring {
        plan: plan.clone(),
        failures: failures.iter().map(|&text| text.to_owned()).collect(),
    };
    vec![
        ("admitting", State::Admitting),
        ("preparing", State::Preparing { plan: plan.clone() }),
        ("copying_ahead", State::CopyingAhead { plan: plan.clone() }),
        ("handing_over", State::HandingOver { plan: plan.clone() }),
        ("committing", State::Committing { plan: plan.clone() }),
        ("restoring", with(&[])),
        ("restoring_again", with(&["no room"])),
        ("settling", State::Settling { plan: plan.clone() }),
        ("releasing", State::Releasing { plan: plan.clone() }),
        (
            "withdrawing_target",
            State::WithdrawingTarget {
                plan: plan.clone(),
                cause: cause.clone(),
            },
        ),
        (
            "withdrawing_lost",
            State::WithdrawingTarget {
                plan: plan.clone(),
                cause: Cause::failed(Phase::Settling, "the link broke".to_owned()),
            },
        ),
        (
            "taking_back",
            State::TakingBack {
                plan: plan.clone(),
                cause: cause.clone(),
            },
        ),
        (
            "resuming_source",
            State::ResumingSource {
                plan: plan.clone(),
                cause: cause.clone(),
            },
        ),
        (
            "discarding_target",
            State::DiscardingTarget {
                plan: plan.clone(),
                cause: cause.clone(),
            },
        ),
        (
            "discarding_cancelled",
            State::DiscardingTarget {
                plan: plan.clone(),
                cause: Cause::cancelled(Phase::HandingOver),
            },
        ),
        ("completed", State::Completed { plan }),
        ("denied", State::Denied),
        ("failed", State::Failed { cause }),
        (
            "cancelled",
            State::Cancelled {
                cause: Cause::cancelled(Phase::HandingOver),
            },
        ),
    ]
}

fn event(name: &str) -> Event {
    match name {
        "admitted" => Event::Admitted(plan()),
        "denied" => Event::Denied,
        "done" => Event::Done,
        "failed" => Event::Failed("failed now".to_owned()),
        "unclear" => Event::Unclear("unclear now".to_owned()),
        "cancelled" => Event::Cancelled,
        "target_lost" => Event::TargetLost,
        "source_lost" => Event::SourceLost,
        other => panic!("no event `{other}`"),
    }
}

#[test]
fn every_state_with_every_event() {
    let mut rows = TABLE.lines().filter(|line| !line.trim().is_empty());
    let events: Vec<_> = rows.next().unwrap().split_whitespace().collect();
    let mut states = states().into_iter();
    for row in rows {
        let mut cells = row.split_whitespace();
        let name = cells.next().unwrap();
        let (expected_name, state) = states.next().expect("a state for every row");
        assert_eq!(name, expected_name);
        for (cell, event_name) in cells.by_ref().zip(&events) {
            let found = match step(state.clone(), event(event_name)) {
                Ok(next) => next.phase().name(),
                Err(misplaced) => {
                    assert_eq!(misplaced.phase, state.phase());
                    "!"
                }
            };
            assert_eq!(found, cell, "{name} with {event_name}");
        }
    }
    assert!(states.next().is_none(), "a row for every state");
}

#[test]
fn an_ended_migration_asks_for_nothing_and_every_other_does() {
    for (name, state) in states() {
        assert_eq!(state.effect().is_none(), state.phase().is_ended(), "{name}");
    }
}

#[test]
fn what_is_not_given_up_never_ends_by_a_failure() {
    for (name, state) in states() {
        let next = step(state.clone(), event("failed"));
        if state.phase().is_not_given_up() {
            assert!(!next.unwrap().phase().is_ended(), "{name}");
        }
    }
}

#[test]
fn a_move_can_be_cancelled_before_its_commit_and_never_after() {
    for (name, state) in states() {
        let phase = state.phase();
        let next = step(state, Event::Cancelled);
        assert_eq!(next.is_ok(), phase.is_before_the_commit(), "{name}");
        if let Ok(next) = next {
            assert_eq!(next.cause(), Some(&Cause::cancelled(phase)), "{name}");
        }
    }
}

#[test]
fn an_edge_is_declared_lost_only_where_it_is_waited_for() {
    for (name, state) in states() {
        let lost = |event| step(state.clone(), event).is_ok();
        let waits_for = state.waits_for();
        assert_eq!(
            lost(Event::TargetLost),
            waits_for.contains(&Part::Target),
            "{name}"
        );
        assert_eq!(
            lost(Event::SourceLost),
            waits_for.contains(&Part::Source),
            "{name}"
        );
        // What is not given up waits for an edge, or for the control plane itself.
        let waits = !waits_for.is_empty() || state.phase() == Phase::TakingBack;
        assert_eq!(state.phase().is_not_given_up(), waits, "{name}");
    }
}

#[test]
fn a_cause_that_was_saved_before_moves_could_be_cancelled_is_a_failure() {
    let saved = r#"{"state":"failed","cause":{"phase":"preparing","problem":"no room"}}"#;
    let read: State = serde_json::from_str(saved).unwrap();
    let cause = Cause::failed(Phase::Preparing, "no room".to_owned());
    assert_eq!(read, State::Failed { cause });
}

#[test]
fn a_phase_follows_another_by_name_as_step_says() {
    let names = [
        "admitted",
        "denied",
        "done",
        "failed",
        "unclear",
        "cancelled",
        "target_lost",
        "source_lost",
    ];
    let phases: Vec<Phase> = states().iter().map(|(_, state)| state.phase()).collect();
    for &phase in &phases {
        let of = states()
            .into_iter()
            .filter(|(_, state)| state.phase() == phase);
        let reached: Vec<Phase> = of
            .flat_map(|(_, state)| names.map(|name| step(state.clone(), event(name))))
            .filter_map(|next| Some(next.ok()?.phase()))
            .collect();
        for &next in phases.iter().filter(|&&next| next != phase) {
            let expected = reached.contains(&next);
            assert_eq!(
                Phase::may_follow(Some(phase), next),
                expected,
                "{phase} {next}"
            );
        }
    }
}

#[test]
fn the_cause_is_the_first_restore_that_failed() {
    let restoring = State::Restoring {
        plan: plan(),
        failures: vec!["no room".to_owned()],
    };
    let withdrawing = step(restoring, event("failed")).unwrap();
    assert_eq!(withdrawing.cause().unwrap().problem, "no room");
    let again = step(withdrawing, event("failed")).unwrap();
    let withdrawing = step(again, event("failed")).unwrap();
    assert_eq!(withdrawing.cause().unwrap().problem, "no room");
}

#[test]
fn the_generation_rises_with_the_commit_and_again_where_it_is_taken_back() {
    let before = plan().generation();
    for (name, state) in states() {
        let expected = match name {
            "admitting" | "denied" | "failed" | "cancelled" => None,
            "preparing"
            | "copying_ahead"
            | "handing_over"
            | "committing"
            | "discarding_cancelled" => Some(before),
            // The cause of `states` is a restore that failed.
            "resuming_source" | "discarding_target" => Some(before + 2),
            _ => Some(before + 1),
        };
        assert_eq!(state.generation(), expected, "{name}");
    }
    let never_committed = step(State::Preparing { plan: plan() }, event("failed")).unwrap();
    assert_eq!(never_committed.generation(), Some(before));
}

#[test]
fn a_saved_state_is_read_back_as_it_was() {
    for (name, state) in states() {
        let saved = serde_json::to_string(&state).unwrap();
        let read: State = serde_json::from_str(&saved).unwrap();
        assert_eq!(read, state, "{name}");
    }
}

/// A plan that an audit permitted.
pub fn plan() -> MigrationPlan {
    MigrationPlan::from_audit(
        &carnet_core::migration::Subject {
            container: carnet_core::ids::ContainerId::from_uuid(uuid::Uuid::from_u128(1)),
            generation: 7,
            source: carnet_core::ids::EdgeId::from_uuid(uuid::Uuid::from_u128(2)),
            requirements: &carnet_core::policy::Requirements::default(),
            requirements_revision: 3,
        },
        &carnet_core::migration::Candidate {
            edge: carnet_core::ids::EdgeId::from_uuid(uuid::Uuid::from_u128(4)),
            attributes: &carnet_core::policy::Attributes::default(),
            attributes_revision: 5,
            utilization: None,
        },
        carnet_core::instant::UnixMillis(0),
        0,
    )
    .unwrap()
}
