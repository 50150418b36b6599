use std::fmt;

use serde::{Deserialize, Serialize};

use super::MigrationPlan;
use crate::permit::Part;

/// Where a migration stands. Saved after every [`step`](super::step).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Candidates are audited, one after the other; no edge has been touched.
    Admitting,
    /// Both edges check that they can do it and make ready. The container runs at the source.
    Preparing { plan: MigrationPlan },
    /// The root file system is copied while the container runs.
    CopyingAhead { plan: MigrationPlan },
    /// The container is frozen; its memory and what changed of its files go to the target.
    HandingOver { plan: MigrationPlan },
    /// The target holds all it needs. The generation is about to be raised.
    Committing { plan: MigrationPlan },
    /// Committed: the target is the container now, and brings it back to life.
    /// `failures`: what the target answered where it could not; the first is the cause to mend.
    Restoring {
        plan: MigrationPlan,
        failures: Vec<String>,
    },
    /// The container runs at the target; what memory stayed behind follows. Both edges are needed.
    Settling { plan: MigrationPlan },
    /// All of the container is at the target; the source's frozen copy is removed.
    Releasing { plan: MigrationPlan },
    /// The target could not restore, or lost memory that was to follow; it must give up what it
    /// holds before the source may run.
    WithdrawingTarget { plan: MigrationPlan, cause: Cause },
    /// The target holds nothing; the generation is raised once more, back to the source.
    TakingBack { plan: MigrationPlan, cause: Cause },
    /// The source's container is thawed; it runs on as it was.
    ResumingSource { plan: MigrationPlan, cause: Cause },
    /// The source runs; the target removes what was prepared.
    DiscardingTarget { plan: MigrationPlan, cause: Cause },
    /// The container runs at the target and nowhere else.
    Completed { plan: MigrationPlan },
    /// No candidate was permitted; nothing was touched.
    Denied,
    /// The container is where it was.
    Failed { cause: Cause },
    /// The container is where it was, because somebody wanted that.
    Cancelled { cause: Cause },
}

/// Why a move does not go on, in words for the person who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What was being done.
    pub phase: Phase,
    /// What went wrong, where, and what to do about it.
    pub problem: String,
    /// Nothing went wrong: the move was cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

impl Cause {
    /// Something went wrong in `phase`.
    pub fn failed(phase: Phase, problem: String) -> Self {
        Self {
            phase,
            problem,
            cancelled: false,
        }
    }

    /// The move was cancelled in `phase`.
    pub fn cancelled(phase: Phase) -> Self {
        Self {
            phase,
            problem: "it was cancelled".to_owned(),
            cancelled: true,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.problem)
    }
}

/// The name of a [`State`], without what it carries: for lists, events and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Admitting,
    Preparing,
    CopyingAhead,
    HandingOver,
    Committing,
    Restoring,
    Settling,
    Releasing,
    WithdrawingTarget,
    TakingBack,
    ResumingSource,
    DiscardingTarget,
    Completed,
    Denied,
    Failed,
    Cancelled,
}

impl Phase {
    /// The phase's name as it stands in JSON and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitting => "admitting",
            Self::Preparing => "preparing",
            Self::CopyingAhead => "copying_ahead",
            Self::HandingOver => "handing_over",
            Self::Committing => "committing",
            Self::Restoring => "restoring",
            Self::Settling => "settling",
            Self::Releasing => "releasing",
            Self::WithdrawingTarget => "withdrawing_target",
            Self::TakingBack => "taking_back",
            Self::ResumingSource => "resuming_source",
            Self::DiscardingTarget => "discarding_target",
            Self::Completed => "completed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more will happen.
    pub fn is_ended(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Denied | Self::Failed | Self::Cancelled
        )
    }

    /// The container is the source's, and nothing has been decided yet: a move can be cancelled.
    pub fn is_before_the_commit(self) -> bool {
        matches!(
            self,
            Self::Admitting
                | Self::Preparing
                | Self::CopyingAhead
                | Self::HandingOver
                | Self::Committing
        )
    }

    /// Whether a migration that was last in `before` (nowhere yet: `None`) can come into `phase`:
    /// what [`step`](super::step) allows, by names alone.
    pub fn may_follow(before: Option<Self>, phase: Self) -> bool {
        let next: &[Self] = match before {
            None => &[Self::Admitting],
            Some(Self::Admitting) => {
                &[Self::Preparing, Self::Denied, Self::Failed, Self::Cancelled]
            }
            Some(Self::Preparing) => &[Self::CopyingAhead, Self::ResumingSource],
            Some(Self::CopyingAhead) => &[Self::HandingOver, Self::ResumingSource],
            Some(Self::HandingOver) => &[Self::Committing, Self::ResumingSource],
            Some(Self::Committing) => &[Self::Restoring, Self::ResumingSource],
            Some(Self::Restoring) => &[Self::Settling, Self::WithdrawingTarget, Self::TakingBack],
            Some(Self::Settling) => &[Self::Releasing, Self::WithdrawingTarget, Self::TakingBack],
            Some(Self::Releasing) => &[Self::Completed],
            Some(Self::WithdrawingTarget) => &[Self::TakingBack, Self::Restoring, Self::Settling],
            Some(Self::TakingBack) => &[Self::ResumingSource],
            Some(Self::ResumingSource) => &[Self::DiscardingTarget],
            Some(Self::DiscardingTarget) => &[Self::Failed, Self::Cancelled],
            Some(Self::Completed | Self::Denied | Self::Failed | Self::Cancelled) => &[],
        };
        next.contains(&phase)
    }

    /// What fails here is tried again until it is done: giving up would leave a container, or
    /// parts of one, where nobody looks after them.
    pub fn is_not_given_up(self) -> bool {
        matches!(
            self,
            Self::Restoring
                | Self::Settling
                | Self::Releasing
                | Self::WithdrawingTarget
                | Self::TakingBack
                | Self::ResumingSource
                | Self::DiscardingTarget
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}

/// What is to be done in a state. Each is idempotent: done twice, it leaves what once leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Draw candidates and audit them.
    Admit,
    /// Both edges: check, and make directories, network and listeners ready.
    Prepare(&'a MigrationPlan),
    /// Source: send the root file system while the container runs.
    CopyAhead(&'a MigrationPlan),
    /// Source: freeze, dump, send memory and the files' difference, or stop it and send that; target:
    /// verify them.
    HandOver(&'a MigrationPlan),
    /// Control plane: compare generation, revisions and grants, and raise the generation.
    /// In one transaction with the change of state.
    Commit(&'a MigrationPlan),
    /// Target: restore, join the network.
    Restore(&'a MigrationPlan),
    /// Target: wait until no memory is missing any more. Failed: some never will be there, and
    /// the target has killed its copy.
    Settle(&'a MigrationPlan),
    /// Source: kill the frozen copy and remove it; target: remove the images.
    Release(&'a MigrationPlan),
    /// Target: stop and remove whatever it has of this container. Must be confirmed.
    WithdrawTarget(&'a MigrationPlan),
    /// Control plane: raise the generation with the source as the place. In one transaction
    /// with the change of state.
    TakeBack(&'a MigrationPlan),
    /// Source: back on the network, thawed; or started again, if it was stopped for the move.
    ResumeSource(&'a MigrationPlan),
    /// Target: remove what was prepared.
    DiscardTarget(&'a MigrationPlan),
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Effect::Admit`] found an edge that is permitted and ready.
    Admitted(MigrationPlan),
    /// [`Effect::Admit`] found none.
    Denied,
    /// The state's effect was carried out.
    Done,
    /// Whoever was asked has answered that the effect failed.
    Failed(String),
    /// It is not known whether the effect was carried out: the request or its answer was lost.
    Unclear(String),
    /// An operator has declared the target lost: whatever it has of the container counts for
    /// nothing any more.
    TargetLost,
    /// An operator has declared the source lost.
    SourceLost,
    /// Somebody wants the container to stay where it is. What the state's effect has done by then
    /// is not known.
    Cancelled,
}

impl State {
    /// The state's name.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Admitting => Phase::Admitting,
            Self::Preparing { .. } => Phase::Preparing,
            Self::CopyingAhead { .. } => Phase::CopyingAhead,
            Self::HandingOver { .. } => Phase::HandingOver,
            Self::Committing { .. } => Phase::Committing,
            Self::Restoring { .. } => Phase::Restoring,
            Self::Settling { .. } => Phase::Settling,
            Self::Releasing { .. } => Phase::Releasing,
            Self::WithdrawingTarget { .. } => Phase::WithdrawingTarget,
            Self::TakingBack { .. } => Phase::TakingBack,
            Self::ResumingSource { .. } => Phase::ResumingSource,
            Self::DiscardingTarget { .. } => Phase::DiscardingTarget,
            Self::Completed { .. } => Phase::Completed,
            Self::Denied => Phase::Denied,
            Self::Failed { .. } => Phase::Failed,
            Self::Cancelled { .. } => Phase::Cancelled,
        }
    }

    /// What is to be done now; `None` once the migration has ended.
    pub fn effect(&self) -> Option<Effect<'_>> {
        match self {
            Self::Admitting => Some(Effect::Admit),
            Self::Preparing { plan } => Some(Effect::Prepare(plan)),
            Self::CopyingAhead { plan } => Some(Effect::CopyAhead(plan)),
            Self::HandingOver { plan } => Some(Effect::HandOver(plan)),
            Self::Committing { plan } => Some(Effect::Commit(plan)),
            Self::Restoring { plan, .. } => Some(Effect::Restore(plan)),
            Self::Settling { plan } => Some(Effect::Settle(plan)),
            Self::Releasing { plan } => Some(Effect::Release(plan)),
            Self::WithdrawingTarget { plan, .. } => Some(Effect::WithdrawTarget(plan)),
            Self::TakingBack { plan, .. } => Some(Effect::TakeBack(plan)),
            Self::ResumingSource { plan, .. } => Some(Effect::ResumeSource(plan)),
            Self::DiscardingTarget { plan, .. } => Some(Effect::DiscardTarget(plan)),
            Self::Completed { .. }
            | Self::Denied
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// The plan being carried out, from the permit on until the end of a move that succeeded.
    pub fn plan(&self) -> Option<&MigrationPlan> {
        match self {
            Self::Preparing { plan }
            | Self::CopyingAhead { plan }
            | Self::HandingOver { plan }
            | Self::Committing { plan }
            | Self::Restoring { plan, .. }
            | Self::Settling { plan }
            | Self::Releasing { plan }
            | Self::WithdrawingTarget { plan, .. }
            | Self::TakingBack { plan, .. }
            | Self::ResumingSource { plan, .. }
            | Self::DiscardingTarget { plan, .. }
            | Self::Completed { plan } => Some(plan),
            Self::Admitting | Self::Denied | Self::Failed { .. } | Self::Cancelled { .. } => None,
        }
    }

    /// Which edges an operator can declare lost for this state to be left: those that it waits for.
    pub fn waits_for(&self) -> &'static [Part] {
        match self.phase() {
            Phase::Restoring
            | Phase::Settling
            | Phase::WithdrawingTarget
            | Phase::DiscardingTarget => &[Part::Target],
            Phase::Releasing => &[Part::Source, Part::Target],
            Phase::ResumingSource => &[Part::Source],
            _ => &[],
        }
    }

    /// Whether this state's effect remains to be done, whenever the edge is there again, if the
    /// state is left because that edge was declared lost.
    pub fn is_owed(&self) -> bool {
        matches!(
            self,
            Self::Releasing { .. } | Self::ResumingSource { .. } | Self::DiscardingTarget { .. }
        )
    }

    /// The container's generation in this state, under which orders are given to the edges;
    /// `None` where nothing is being carried out.
    pub fn generation(&self) -> Option<u64> {
        let plan = self.plan()?;
        Some(match self {
            Self::Restoring { .. }
            | Self::Settling { .. }
            | Self::Releasing { .. }
            | Self::WithdrawingTarget { .. }
            | Self::TakingBack { .. }
            | Self::Completed { .. } => plan.committed_generation(),
            // Only these lead here past the commit, by way of taking back.
            Self::ResumingSource { cause, .. } | Self::DiscardingTarget { cause, .. }
                if matches!(cause.phase, Phase::Restoring | Phase::Settling) =>
            {
                plan.taken_back_generation()
            }
            _ => plan.generation(),
        })
    }

    /// Why it does not go on, where it does not.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::WithdrawingTarget { cause, .. }
            | Self::TakingBack { cause, .. }
            | Self::ResumingSource { cause, .. }
            | Self::DiscardingTarget { cause, .. }
            | Self::Failed { cause }
            | Self::Cancelled { cause } => Some(cause),
            _ => None,
        }
    }
}
