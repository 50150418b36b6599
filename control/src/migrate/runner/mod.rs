//! Carries one migration out: performs what its state asks for, feeds the outcome to
//! [`step`], saves what it says, and goes on until nothing is asked for any more.
//!
//! The task may be killed at any `await`. What it was doing then is done again by the next one,
//! from the saved state: agents' orders are idempotent, and the control plane's own are one
//! transaction with the state.

mod orders;
mod sending;

use std::sync::Arc;
use std::time::{Duration, Instant};

use carnet_api::agent::HandedOver;
use carnet_api::v1::{Attempt, PhaseTiming};
use carnet_core::ids::MigrationId;
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::Decision;
use carnet_core::migration::{Effect, Event, MigrationPlan, Phase, State, step};
use carnet_core::permit::{Fingerprint, Part, Permit};

use thiserror::Error;
use tokio::sync::watch;

use super::{Parts, Wishes};
use crate::agents::{AgentError, AgentFault};
use crate::clock;
use crate::secret::Secret;
use crate::store::migrations::{Facts, Permitting, Refusal, Run, Step, wire_state};

/// How long a permit is good for, in seconds: the copying ahead has to be done within it.
const PERMIT_LIFE_S: i64 = Permit::LONGEST_S;
/// Random bytes in it.
const NONCE_BYTES: usize = 16;

/// Carries out the migration `id` from where it stands to its end. `began` is when its present
/// phase began, where that was in this process; `wishes` says what is asked for meanwhile.
pub(super) async fn run(
    parts: Arc<Parts>,
    id: MigrationId,
    began: Option<Instant>,
    wishes: watch::Receiver<Wishes>,
) {
    let found = parts
        .insist("load a migration", || parts.store.migration_run(id))
        .await;
    let Some(run) = found else {
        tracing::error!(migration = %id, "there is no such migration any more");
        return;
    };
    let mut runner = Runner {
        parts,
        run,
        began,
        wishes,
        frozen: None,
        failures: 0,
        told: None,
    };
    while runner.advance().await {}
    runner.pay().await;
}

struct Runner {
    parts: Arc<Parts>,
    run: Run,
    /// When the present phase began; unknown where another process began it.
    began: Option<Instant>,
    /// What was asked for while this runner was at it.
    wishes: watch::Receiver<Wishes>,
    /// What the source told of the freeze, and when; unknown where another process was told.
    frozen: Option<(HandedOver, Instant)>,
    /// Effects in a row that were not carried out.
    failures: u32,
    /// The signing key that both edges have been told by this runner.
    told: Option<Fingerprint>,
}

/// Why an effect was not carried out.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The strategy that was asked for cannot be had.
    #[error("{0}")]
    Choice(String),
    /// There is nothing to give orders on: a fault of this program.
    #[error("{0}")]
    Statement(String),
}

impl Fault {
    /// Whether it is known that it was not.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Agent(error) => error.is_refusal(),
            Self::Choice(_) | Self::Statement(_) => true,
        }
    }

    /// Whether an agent has refused because it has seen the container under a newer generation.
    fn is_stale(&self) -> bool {
        match self {
            Self::Agent(AgentError {
                fault: AgentFault::Refused(problem),
                ..
            }) => problem.faults.iter().any(|fault| {
                (fault.place.as_str(), fault.found.as_str()) == ("statement", "generation")
            }),
            _ => false,
        }
    }
}

/// What the state machine is told of an effect.
fn event(performed: Result<(), Fault>) -> Event {
    match performed {
        Ok(()) => Event::Done,
        Err(fault) if fault.is_refusal() => Event::Failed(fault.to_string()),
        Err(fault) => Event::Unclear(fault.to_string()),
    }
}

impl Runner {
    /// Performs the state's effect and saves what came of it; `false` once there is none.
    async fn advance(&mut self) -> bool {
        let state = self.run.state.clone();
        let Some(effect) = state.effect() else {
            return false;
        };
        if state.phase().is_before_the_commit() && self.wishes().cancelled {
            return self.feed(Event::Cancelled, None).await;
        }
        // Only while it is asked in vain: an edge that has answered since is not lost.
        if self.run.waiting_since.is_some()
            && let Some(event) = lost(&state, self.wishes())
        {
            return self.feed(event, None).await;
        }
        if let Some(problem) = self.overdue() {
            return self.feed(Event::Failed(problem), None).await;
        }
        // A crash from here until the new state is saved: the same effect again.
        match effect {
            Effect::Admit => self.admit().await,
            Effect::Commit(plan) => self.commit(plan).await,
            Effect::TakeBack(plan) => self.take_back(plan).await,
            Effect::Prepare(plan)
            | Effect::CopyAhead(plan)
            | Effect::HandOver(plan)
            | Effect::Restore(plan)
            | Effect::Settle(plan)
            | Effect::Release(plan)
            | Effect::WithdrawTarget(plan)
            | Effect::DiscardTarget(plan)
            | Effect::ResumeSource(plan) => {
                if let Some(difference) = self.withdrawn(effect).await {
                    return self.feed(Event::Failed(difference), None).await;
                }
                if let Some(problem) = self.would_stand_still_too_long(effect) {
                    return self.feed(Event::Failed(problem), None).await;
                }
                let (wishes, late) = (self.wishes.clone(), self.late());
                let wished = wished(wishes, &state, self.run.waiting_since.is_some());
                let watched = sending::watch(self.parts.clone(), self.run.id, effect, plan.clone());
                let event = tokio::select! {
                    // What has been answered counts.
                    biased;
                    performed = self.perform(effect, plan) => event(performed),
                    late = late => Event::Unclear(late),
                    // The edge may go on for now: it is told to stop with what undoes the move.
                    event = wished => event,
                    never = watched => match never {},
                };
                self.feed(event, None).await
            }
        }
    }

    /// Gives the orders of `effect`.
    async fn perform(&mut self, effect: Effect<'_>, plan: &MigrationPlan) -> Result<(), Fault> {
        let key = self.parts.key.current();
        let (source, target) = self.endpoints(plan).await;
        let statement = self
            .statement(effect, &key, [&source, &target])
            .map_err(|problem| {
                tracing::error!(migration = %self.run.id, problem, "the runner is at fault");
                Fault::Statement(problem)
            })?;
        let edges = self.edges(plan, source, target, statement);
        self.order(effect, edges, &key).await
    }

    /// Does what edges that were declared lost still owe, whenever they are there again: one that
    /// comes back must not go on with what it has of the container. Until then it is asked ever more
    /// rarely.
    async fn pay(&mut self) {
        let parts = self.parts.clone();
        let id = self.run.id;
        let mut tries = 0;
        loop {
            let owed = parts
                .insist("load what is owed", || parts.store.owed(id))
                .await;
            if owed.is_empty() {
                return;
            }
            let mut in_vain = false;
            for state in owed {
                // Under the generation that it had.
                self.run.state = state.clone();
                let (Some(effect), Some(plan)) = (state.effect(), state.plan()) else {
                    tracing::error!(migration = %id, "nothing can be owed in {}", state.phase());
                    return;
                };
                let performed = self.perform(effect, plan).await;
                // An edge that the container has come to since, or been prepared for, had nothing
                // of it left then.
                let is_over = match &performed {
                    Ok(()) => true,
                    Err(fault) => fault.is_stale(),
                };
                if is_over {
                    tracing::info!(migration = %id, state = %state.phase(), ?performed, "nothing is owed any more");
                    parts
                        .insist("keep that nothing is owed", || {
                            parts.store.is_paid(id, &state)
                        })
                        .await;
                } else {
                    in_vain = true;
                }
            }
            if in_vain {
                tries += 1;
                tokio::time::sleep(parts.pace.pause(tries)).await;
            }
        }
    }

    /// How long the present phase may still last, and what is said of it then.
    fn time_left(&self) -> Option<(Duration, String)> {
        let limit = self.parts.limits.of(self.run.state.phase())?;
        let began = self.run.facts.timings.last()?.started_at_ms;
        let lasted = Duration::from_secs_f64(self.lasted_ms(began) / 1e3);
        let late = format!("it took longer than {} s", limit.as_secs_f64());
        Some((limit.saturating_sub(lasted), late))
    }

    /// What is said of a phase that has taken longer than it may, if it has: where a control plane
    /// was not there for a while, say.
    fn overdue(&self) -> Option<String> {
        self.time_left()
            .filter(|(left, _)| left.is_zero())
            .map(|(_, late)| late)
    }

    /// Completes when the present phase has taken longer than it may.
    fn late(&self) -> impl Future<Output = String> + use<> {
        let left = self.time_left();
        async move {
            match left {
                Some((left, late)) => {
                    tokio::time::sleep(left).await;
                    late
                }
                None => std::future::pending().await,
            }
        }
    }

    /// All that has been asked for, before this runner and since.
    fn wishes(&self) -> Wishes {
        let told = *self.wishes.borrow();
        Wishes {
            cancelled: told.cancelled || self.run.cancelled,
            source_lost: told.source_lost || self.run.source_lost,
            target_lost: told.target_lost || self.run.target_lost,
        }
    }

    /// What has changed since the permit was made, where `effect` sends something of the container:
    /// nothing more of it goes then. What changes while it is on its way, the commit finds.
    async fn withdrawn(&self, effect: Effect<'_>) -> Option<String> {
        let (Effect::CopyAhead(plan) | Effect::HandOver(plan)) = effect else {
            return None;
        };
        self.parts
            .insist("compare what a permit was made of", || {
                self.parts.store.withdrawn(plan)
            })
            .await
    }

    /// Why the container is not frozen, where it would stand still for longer than whoever asked for
    /// the move accepts.
    fn would_stand_still_too_long(&self, effect: Effect<'_>) -> Option<String> {
        let (Effect::HandOver(_), Some(most)) = (effect, self.run.terms.max_downtime_ms) else {
            return None;
        };
        let facts = &self.run.facts;
        let expected = facts
            .expected_downtime_ms
            .filter(|&expected| expected > most)?;
        let rate = facts.bytes_per_s.map_or(String::new(), |rate| {
            format!(" at {} kB/s, as fast as its files went", rate / 1_000)
        });
        Some(format!(
            "it would stand still for about {expected} ms ({} kB of memory{rate}), and {most} ms are accepted (max_downtime_ms); it was not frozen. Post-copy stands still for a moment only, where its owner allows it: carnet container allow-post-copy {}",
            facts.memory_bytes / 1_000,
            self.run.container_name
        ))
    }

    /// Audits candidates until one is permitted and ready. No edge is touched: a crash in here
    /// leaves the attempts made so far, and the next runner draws anew.
    async fn admit(&mut self) -> bool {
        let parts = self.parts.clone();
        let (id, container) = (self.run.id, self.run.container);
        let found = parts
            .insist("load the candidates", || {
                parts.candidates(container, &self.run.to)
            })
            .await;
        let (moving, candidates) = match found {
            Ok(found) => found,
            Err(fault) => return self.feed(Event::Failed(fault.to_string()), None).await,
        };
        for candidate in &candidates {
            let asked = self.run.terms.strategy;
            let audit = parts.insist("audit a candidate", || {
                parts.audit(&moving, candidate, asked)
            });
            let audited = tokio::select! {
                biased;
                audited = audit => audited,
                late = self.late() => return self.feed(Event::Failed(late), None).await,
                event = wished(self.wishes.clone(), &State::Admitting, false) => {
                    return self.feed(event, None).await;
                }
            };
            let attempt = audited.attempt;
            // Saved with the state that it leads to: the record never names an edge as permitted
            // that another runner, after a crash, did not move it to.
            let decision = Decision {
                dry_run: false,
                migration: Some(id),
                ..audited.decision
            };
            if let Some(plan) = audited.plan {
                return self.permit(*plan, &attempt, &decision).await;
            }
            let position = self.run.attempts;
            parts
                .insist("save an attempt", || {
                    parts.store.save_attempt(id, position, &attempt, &decision)
                })
                .await;
            self.run.attempts = position.saturating_add(1);
            parts.tell(id);
        }
        self.feed(Event::Denied, None).await
    }

    /// Makes the permit, in the transaction that saves the decision and the state that it leads
    /// to. What has changed since the candidates were loaded ends the migration: nothing has been
    /// touched.
    async fn permit(
        &mut self,
        plan: MigrationPlan,
        attempt: &Attempt,
        decision: &Decision,
    ) -> bool {
        let parts = self.parts.clone();
        let (state, facts) = match self.next(Event::Admitted(plan.clone())) {
            Some(next) => next,
            None => return false,
        };
        let key = parts.key.current();
        let permitting = Permitting {
            plan: &plan,
            decision,
            container_name: &self.run.container_name,
            signer: &key.signer,
            life_s: PERMIT_LIFE_S,
            nonce: Secret::new("", NONCE_BYTES).reveal(),
        };
        let saved = parts
            .insist("save a permit", || {
                parts.store.permit(
                    &permitting,
                    Step {
                        attempt: Some((self.run.attempts, attempt)),
                        ..self.step(&state, &facts)
                    },
                )
            })
            .await;
        let saved = match saved {
            Ok(permit) => {
                self.run.permit = Some(permit);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        self.decided(state, facts, saved).await
    }

    /// Everything that was compared when the move was permitted is compared again, and the
    /// generation is raised, in the transaction that saves the new state.
    ///
    /// A crash before it: nothing has happened, and it is done again. A crash after it: the
    /// target is the container, and the next runner restores it there.
    async fn commit(&mut self, plan: &MigrationPlan) -> bool {
        let parts = self.parts.clone();
        let (state, facts) = match self.next(Event::Done) {
            Some(next) => next,
            None => return false,
        };
        let saved = parts
            .insist("commit a move", || {
                parts.store.commit(plan, self.step(&state, &facts))
            })
            .await;
        self.decided(state, facts, saved).await
    }

    /// Like [`commit`](Self::commit), back to the source, whose copy is still frozen.
    async fn take_back(&mut self, plan: &MigrationPlan) -> bool {
        let parts = self.parts.clone();
        let (state, facts) = match self.next(Event::Done) {
            Some(next) => next,
            None => return false,
        };
        let saved = parts
            .insist("take a container back", || {
                parts.store.take_back(plan, self.step(&state, &facts))
            })
            .await;
        self.decided(state, facts, saved).await
    }

    /// Goes on from a transaction that changed the state, or refused to.
    async fn decided(&mut self, state: State, facts: Facts, saved: Result<(), Refusal>) -> bool {
        match saved {
            Ok(()) => {
                self.failures = 0;
                self.run.waiting_since = None;
                self.enter(state, facts);
                true
            }
            Err(Refusal::Cancelled) => self.feed(Event::Cancelled, None).await,
            Err(Refusal::Differs(what)) => self.feed(Event::Failed(what), None).await,
        }
    }

    /// Feeds an event to the state machine and saves the state that it leads to. Where that gets
    /// nowhere, the effect was in vain, and there is a pause before the next is performed.
    async fn feed(&mut self, event: Event, attempt: Option<&Attempt>) -> bool {
        let problem = match &event {
            Event::Failed(problem) | Event::Unclear(problem) => Some(problem.clone()),
            _ => None,
        };
        self.failures = match problem {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
        // A target that does not let go, too, is asked in vain all the while.
        self.run.waiting_since = problem
            .as_ref()
            .map(|_| self.run.waiting_since.unwrap_or_else(clock::now));
        let is_lost = matches!(event, Event::SourceLost | Event::TargetLost);
        let Some((state, facts)) = self.next(event) else {
            return false;
        };
        let owed = Some(&self.run.state).filter(|state| is_lost && state.is_owed());
        let (left, entered) = (self.run.state.phase(), state.phase());
        // A target that does not let go is asked again for what it was asked for before: without a pause it would be
        // asked the one and the other as fast as it answers.
        let in_vain = entered == left
            || left == Phase::WithdrawingTarget
                && matches!(entered, Phase::Restoring | Phase::Settling);
        let waiting_for = problem.filter(|_| in_vain);
        let needs_operator = waiting_for.is_some() && self.has_waited_too_long();
        let parts = self.parts.clone();
        parts
            .insist("save a migration", || {
                parts.store.save_step(Step {
                    attempt: attempt.map(|attempt| (self.run.attempts, attempt)),
                    waiting_for: waiting_for.as_deref(),
                    needs_operator,
                    owed,
                    ..self.step(&state, &facts)
                })
            })
            .await;
        if entered == left {
            self.run.state = state;
            self.parts.tell(self.run.id);
        } else {
            self.enter(state, facts);
        }
        if in_vain {
            tracing::warn!(
                migration = %self.run.id,
                phase = %entered,
                problem = waiting_for,
                failures = self.failures,
                "to be tried again"
            );
            tokio::time::sleep(self.parts.pace.pause(self.failures)).await;
        }
        true
    }

    fn has_waited_too_long(&self) -> bool {
        let since = self.run.waiting_since.unwrap_or_else(clock::now);
        let waited_ms = clock::now().0.saturating_sub(since.0).unsigned_abs();
        Duration::from_millis(waited_ms) >= self.parts.limits.waiting
    }

    /// The state that `event` leads to, with its timings. `None` where the event cannot happen:
    /// a fault of this program, and nothing is touched any more.
    fn next(&self, event: Event) -> Option<(State, Facts)> {
        let state = match step(self.run.state.clone(), event) {
            Ok(state) => state,
            Err(misplaced) => {
                tracing::error!(migration = %self.run.id, %misplaced, "the runner is at fault");
                return None;
            }
        };
        let mut facts = self.run.facts.clone();
        if state.phase() != self.run.state.phase() {
            if let Some(last) = facts.timings.last_mut() {
                last.duration_ms = Some(self.lasted_ms(last.started_at_ms));
            }
            facts.timings.push(PhaseTiming {
                state: wire_state(state.phase()),
                started_at_ms: clock::now(),
                duration_ms: state.phase().is_ended().then_some(0.0),
            });
        }
        Some((state, facts))
    }

    /// How long the present phase has lasted, in milliseconds. Where another process began it, by
    /// the wall clock: it lasted while no control plane ran, too.
    fn lasted_ms(&self, started_at: UnixMillis) -> f64 {
        match self.began {
            Some(began) => began.elapsed().as_secs_f64() * 1e3,
            None => clock::now().0.saturating_sub(started_at.0).max(0) as f64,
        }
    }

    fn step<'a>(&self, state: &'a State, facts: &'a Facts) -> Step<'a> {
        Step {
            id: self.run.id,
            state,
            facts,
            attempt: None,
            waiting_for: None,
            waiting_since: self.run.waiting_since,
            needs_operator: false,
            owed: None,
            now: clock::now(),
        }
    }

    /// Goes on in a state that has been saved.
    fn enter(&mut self, state: State, mut facts: Facts) {
        tracing::info!(migration = %self.run.id, state = %state.phase(), "goes on");
        // The last phase lasted until this one was saved: a commit's own time is the commit's. It
        // is saved with the next step; a crash before that leaves what was known before.
        if let [.., left, entered] = facts.timings.as_mut_slice() {
            left.duration_ms = Some(self.lasted_ms(left.started_at_ms));
            entered.started_at_ms = clock::now();
        }
        if state.phase().is_ended() {
            self.parts.look_now.notify_one();
        }
        self.run.state = state;
        self.run.facts = facts;
        self.began = Some(Instant::now());
        self.parts.tell(self.run.id);
    }
}

/// What `wishes` say of an edge that `state` waits for.
fn lost(state: &State, wishes: Wishes) -> Option<Event> {
    let waits_for = state.waits_for();
    if wishes.target_lost && waits_for.contains(&Part::Target) {
        Some(Event::TargetLost)
    } else if wishes.source_lost && waits_for.contains(&Part::Source) {
        Some(Event::SourceLost)
    } else {
        None
    }
}

/// Completes when something is asked for that `state` is left by, and never where nothing is.
/// `in_vain`: it has been asked before for what it asks for.
async fn wished(mut wishes: watch::Receiver<Wishes>, state: &State, in_vain: bool) -> Event {
    let event = |wishes: &Wishes| {
        if state.phase().is_before_the_commit() {
            wishes.cancelled.then_some(Event::Cancelled)
        } else {
            lost(state, *wishes).filter(|_| in_vain)
        }
    };
    loop {
        if let Some(event) = event(&wishes.borrow_and_update()) {
            return event;
        }
        // An error: nobody can ask for anything any more.
        if wishes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
