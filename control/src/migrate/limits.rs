//! How long a move may take, phase by phase.

use std::time::Duration;

use carnet_core::migration::Phase;
use carnet_core::permit::Permit;

/// Reading and auditing candidates: one that does not answer takes seconds.
const ADMITTING: Duration = Duration::from_secs(10 * 60);
/// Both edges making ready, one after the other; each has its own limit, which says which it was.
const PREPARING: Duration = Duration::from_secs(5 * 60);
/// Sending a root file system while the container runs. What is left to do then takes a permit
/// that is good, and none is good for longer.
const COPYING_AHEAD: Duration = Duration::from_secs(Permit::LONGEST_S.unsigned_abs());
/// The container stands still all that time.
const HANDING_OVER: Duration = Duration::from_secs(15 * 60);

/// Nothing that was asked of an edge has been done: longer than it takes to start a machine anew.
const WAITING: Duration = Duration::from_secs(15 * 60);

/// How long each phase before the commit may take; then the move fails, and its source resumes.
///
/// The commit has none: it is the control plane's own, in one transaction with the state, and where
/// the store cannot make that, it cannot keep that the move has failed either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub admitting: Duration,
    pub preparing: Duration,
    pub copying_ahead: Duration,
    pub handing_over: Duration,
    /// How long a move that cannot be given up asks in vain before it needs an operator.
    pub waiting: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            admitting: ADMITTING,
            preparing: PREPARING,
            copying_ahead: COPYING_AHEAD,
            handing_over: HANDING_OVER,
            waiting: WAITING,
        }
    }
}

impl Limits {
    /// How long `phase` may take; `None`: as long as it takes.
    pub(super) fn of(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Admitting => Some(self.admitting),
            Phase::Preparing => Some(self.preparing),
            Phase::CopyingAhead => Some(self.copying_ahead),
            Phase::HandingOver => Some(self.handing_over),
            _ => None,
        }
    }
}
