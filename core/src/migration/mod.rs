//! One move of a container, as a state machine that survives crashes.
//!
//! ```text
//!  Admitting ──► Denied
//!      │    ──► Failed, Cancelled
//!      ▼                                                         any failure up to here, or a cancel:
//!  Preparing ─► CopyingAhead ─► HandingOver ─► Committing        ResumingSource ─► DiscardingTarget ─► Failed
//!                                                  │                                               ─► Cancelled
//!  ════════════════ the commit: generation raised ═╪════════
//!                                                  ▼             restore fails for good,
//!  Completed ◄── Releasing ◄── Settling ◄─── Restoring           or memory is lost on its way:
//!                                                                WithdrawingTarget ─► TakingBack ─► ResumingSource …
//! ```
//!
//! [`step`] is the only place where a migration changes state. Each state names at most one
//! [`Effect`], the thing to be done while in it ([`State::effect`]). The runner performs the
//! effect, feeds the resulting [`Event`] to `step`, saves the new state, and goes on. Effects
//! are idempotent, so a runner that finds a saved state after a crash performs the state's
//! effect again: recovery and the normal path are the same code.
//!
//! What the edges promise for this to be safe stands at `carnet_api::agent`; `tests/migration`
//! explores it with loss, repetition, delay and crashes.

mod downtime;
mod plan;
mod state;
mod step;
mod strategy;

pub use downtime::{Terms, expected_downtime_ms, sent_within_ms};
pub use plan::{Candidate, MigrationPlan, Subject};
pub use state::{Cause, Effect, Event, Phase, State};
pub use step::{Misplaced, RESTORE_ATTEMPTS, step};
pub use strategy::{COLD_IS_LEFT, Choice, Circumstances, LITTLE_MEMORY_BYTES, Strategy, choose};
