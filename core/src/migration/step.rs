use thiserror::Error;

use super::{Cause, Event, Phase, State};

/// How often the target tries to restore before the container is taken back to the source.
pub const RESTORE_ATTEMPTS: usize = 2;

/// An event that cannot happen in the state it was fed to: a fault of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{event:?}` cannot happen while {phase}")]
pub struct Misplaced {
    pub phase: Phase,
    pub event: Event,
}

/// The next state of a migration: the only place where one changes.
///
/// Up to [`State::Committing`] every failure leads back to the source as it was, and what is not
/// known to have been done counts as failed: the source is asked to resume, whatever it did.
///
/// Up to there it can be cancelled as well: that is undone as a failure is, and ends by its own
/// name.
///
/// From [`State::Restoring`] on there is only forward, unless the target has *answered* that it
/// could not restore, and, asked to let go, that it holds nothing: then the generation is raised
/// once more and the source, still frozen, goes on. While it is not known whether the target has
/// restored, it is asked again and never withdrawn: its copy may have run and answered clients,
/// and the source's knows nothing of that.
///
/// In [`State::Settling`] the target's copy may have answered clients. Only its own answer that it
/// has lost memory, and killed the copy, leads back: to the source as it was when it was frozen.
///
/// Where an edge is gone for good, an operator says so. A target that is declared lost after the
/// commit is not asked to let go: the generation is raised, and the source goes on as it was when it
/// was frozen. That there is one running copy is then the operator's word, until the target can be
/// reached and has removed what it has: what an edge still owes ([`State::is_owed`]) is kept.
///
/// What must not be given up (to release, to take back, to resume, to discard) stays in its
/// state when it fails, and is tried again by the runner. A target that refuses to let go is
/// asked again for what it was asked for before.
///
/// # Errors
/// [`Misplaced`] where `event` is none that `state`'s effect can end with; the state stands.
pub fn step(state: State, event: Event) -> Result<State, Misplaced> {
    let phase = state.phase();
    let failed = |problem| Cause::failed(phase, problem);
    Ok(match (state, event) {
        (State::Admitting, Event::Admitted(plan)) => State::Preparing { plan },
        (State::Admitting, Event::Denied) => State::Denied,
        (State::Admitting, Event::Failed(problem)) => State::Failed {
            cause: failed(problem),
        },

        (State::Admitting, Event::Cancelled) => State::Cancelled {
            cause: Cause::cancelled(phase),
        },

        (State::Preparing { plan }, Event::Done) => State::CopyingAhead { plan },
        (State::CopyingAhead { plan }, Event::Done) => State::HandingOver { plan },
        (State::HandingOver { plan }, Event::Done) => State::Committing { plan },
        (
            State::Preparing { plan } | State::CopyingAhead { plan } | State::HandingOver { plan },
            Event::Failed(problem) | Event::Unclear(problem),
        ) => State::ResumingSource {
            plan,
            cause: failed(problem),
        },

        (
            State::Preparing { plan }
            | State::CopyingAhead { plan }
            | State::HandingOver { plan }
            | State::Committing { plan },
            Event::Cancelled,
        ) => State::ResumingSource {
            plan,
            cause: Cause::cancelled(phase),
        },

        // Saved in one transaction with what it says, so it is never unclear.
        (State::Committing { plan }, Event::Done) => State::Restoring {
            plan,
            failures: Vec::new(),
        },
        (State::Committing { plan }, Event::Failed(problem)) => State::ResumingSource {
            plan,
            cause: failed(problem),
        },

        (State::Restoring { plan, .. }, Event::Done) => State::Settling { plan },
        (State::Restoring { plan, mut failures }, Event::Failed(problem)) => {
            failures.push(problem);
            if failures.len() < RESTORE_ATTEMPTS {
                State::Restoring { plan, failures }
            } else {
                State::WithdrawingTarget {
                    plan,
                    cause: failed(failures.swap_remove(0)),
                }
            }
        }
        (State::Settling { plan }, Event::Done) => State::Releasing { plan },
        (State::Settling { plan }, Event::Failed(problem)) => State::WithdrawingTarget {
            plan,
            cause: failed(problem),
        },
        (State::Releasing { plan }, Event::Done | Event::SourceLost | Event::TargetLost) => {
            State::Completed { plan }
        }

        (State::Restoring { plan, .. } | State::Settling { plan }, Event::TargetLost) => {
            State::TakingBack {
                plan,
                cause: failed("its target was declared lost".to_owned()),
            }
        }
        (State::WithdrawingTarget { plan, cause }, Event::TargetLost) => {
            State::TakingBack { plan, cause }
        }

        (State::WithdrawingTarget { plan, cause }, Event::Done) => {
            State::TakingBack { plan, cause }
        }
        (State::WithdrawingTarget { plan, cause }, Event::Failed(_))
            if cause.phase == Phase::Settling =>
        {
            State::Settling { plan }
        }
        // It does not let go: perhaps because a restore that came late has brought the container
        // to life. Asked to restore, it says so.
        (State::WithdrawingTarget { plan, cause }, Event::Failed(_)) => State::Restoring {
            plan,
            failures: vec![cause.problem],
        },
        (State::TakingBack { plan, cause }, Event::Done) => State::ResumingSource { plan, cause },
        (State::ResumingSource { plan, cause }, Event::Done | Event::SourceLost) => {
            State::DiscardingTarget { plan, cause }
        }
        (State::DiscardingTarget { cause, .. }, Event::Done | Event::TargetLost) => {
            if cause.cancelled {
                State::Cancelled { cause }
            } else {
                State::Failed { cause }
            }
        }

        (
            state @ (State::Releasing { .. }
            | State::ResumingSource { .. }
            | State::DiscardingTarget { .. }),
            Event::Failed(_) | Event::Unclear(_),
        )
        | (state @ State::TakingBack { .. }, Event::Failed(_))
        | (
            state @ (State::Restoring { .. }
            | State::Settling { .. }
            | State::WithdrawingTarget { .. }),
            Event::Unclear(_),
        ) => state,

        (_, event) => return Err(Misplaced { phase, event }),
    })
}
