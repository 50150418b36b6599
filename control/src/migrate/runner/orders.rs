//! What the edges of a move are told: statements, keys, orders.

use std::time::Instant;

use carnet_api::agent::{
    CopyAhead, HandOver, HandedOver, MAKING_SURE, Order, PrepareTarget, Restored,
};
use carnet_api::v1::{ContainerState, StallPlace, StallStep};
use carnet_core::migration::{
    Circumstances, Effect, MigrationPlan, Strategy, choose, expected_downtime_ms, sent_within_ms,
};
use carnet_core::permit::{Abort, Claim, Commit, Party, Permit, Unverified, key_id};

use super::{Fault, Runner};
use crate::agents::{AgentError, Command, Endpoint};
use crate::clock;
use crate::keys::Current;
use crate::store::migrations::Facts;

/// The two edges of a move, and what goes into each order to them.
pub(super) struct Edges {
    pub(super) source: Endpoint,
    pub(super) target: Endpoint,
    pub(super) order: Order,
}

impl Runner {
    /// What the orders of `effect` are given on: the permit, or a commit or abort of it that
    /// `key` signs. A commit or abort names the certificates that the edges have now: an edge that
    /// was enrolled anew in the midst of the move would refuse its old one for ever.
    ///
    /// # Errors
    /// Where the migration has no permit that can be read, in words; none is past its admission.
    pub(super) fn statement(
        &self,
        effect: Effect<'_>,
        key: &Current,
        [source, target]: [&Endpoint; 2],
    ) -> Result<String, String> {
        let Some(token) = &self.run.permit else {
            return Err("the migration has no permit".to_owned());
        };
        // Nobody else writes to the store; its key may have been replaced since.
        let permit = Unverified::<Permit>::parse(token)
            .map_err(|fault| format!("the migration's permit: {fault}"))?
            .into_unverified();
        let now = |permitted: Party, edge: &Endpoint| Party {
            certificate: edge.certificate.unwrap_or(permitted.certificate),
            ..permitted
        };
        let claim = Claim {
            source: now(permit.claim.source, source),
            target: now(permit.claim.target, target),
            iat: clock::now().0.div_euclid(1_000),
            generation: self
                .run
                .state
                .generation()
                .unwrap_or(permit.claim.generation),
            ..permit.claim
        };
        match effect {
            Effect::Restore(_) | Effect::Settle(_) | Effect::Release(_) => {
                key.signer.sign(&Commit { claim })
            }
            Effect::WithdrawTarget(_) | Effect::DiscardTarget(_) | Effect::ResumeSource(_) => {
                key.signer.sign(&Abort { claim })
            }
            Effect::Prepare(_)
            | Effect::CopyAhead(_)
            | Effect::HandOver(_)
            | Effect::Admit
            | Effect::Commit(_)
            | Effect::TakeBack(_) => Ok(token.clone()),
        }
        .map_err(|error| format!("a statement cannot be written: {error}"))
    }

    /// Tells the edges that `effect` gives orders to which key signs statements: before the move
    /// begins, and before they are shown a statement of a key that this runner has not told them.
    pub(super) async fn tell_key(
        &mut self,
        effect: Effect<'_>,
        edges: &Edges,
        key: &Current,
    ) -> Result<(), AgentError> {
        let id = key_id(&key.signer.public());
        if self.told == Some(id) {
            return Ok(());
        }
        let (source, target) = match effect {
            Effect::Prepare(_) | Effect::Release(_) => (true, true),
            Effect::ResumeSource(_) => (true, false),
            Effect::Restore(_)
            | Effect::Settle(_)
            | Effect::WithdrawTarget(_)
            | Effect::DiscardTarget(_) => (false, true),
            // On the permit, whose key they were told.
            _ => return Ok(()),
        };
        let agents = &self.parts.agents;
        if source {
            agents
                .tell_signing_key(&edges.source, &key.certificate)
                .await?;
        }
        if target {
            agents
                .tell_signing_key(&edges.target, &key.certificate)
                .await?;
        }
        if source && target {
            self.told = Some(id);
        }
        Ok(())
    }

    /// Asks the edges to do what `effect` says, and keeps what they tell.
    pub(super) async fn order(
        &mut self,
        effect: Effect<'_>,
        edges: Edges,
        key: &Current,
    ) -> Result<(), Fault> {
        self.tell_key(effect, &edges, key).await?;
        let Edges {
            source,
            target,
            order,
        } = edges;
        let agents = self.parts.agents.clone();
        let terms = self.run.terms;
        let facts = &mut self.run.facts;
        match effect {
            Effect::Prepare(_) => {
                let container = agents.prepare_source(&source, &order).await?;
                facts.has_run = !container.is_stopped;
                let asked = PrepareTarget { order, container };
                let prepared = agents.prepare_target(&target, &asked).await?;
                let of = |edge: &Endpoint, problems: Vec<String>| {
                    problems
                        .into_iter()
                        .map(|problem| format!("on `{}` {problem}", edge.name))
                        .collect::<Vec<_>>()
                };
                facts.memory_bytes = asked.container.memory_bytes;
                let described = asked.container;
                facts.is_stopped = described.is_stopped;
                let choice = choose(&Circumstances {
                    asked: self.run.terms.strategy,
                    allow_post_copy: self.run.allow_post_copy,
                    memory_bytes: described.memory_bytes,
                    post_copy_problems: [
                        of(&source, described.post_copy_problems),
                        of(&target, prepared.post_copy_problems),
                    ]
                    .concat(),
                    pre_copy_problems: [
                        of(&source, described.pre_copy_problems),
                        of(&target, prepared.pre_copy_problems),
                    ]
                    .concat(),
                    is_stopped: described.is_stopped,
                    live_problems: [
                        of(&source, described.live_problems),
                        of(&target, prepared.live_problems),
                    ]
                    .concat(),
                });
                facts.strategy = Some(choice.map_err(Fault::Choice)?);
                Ok(())
            }
            Effect::CopyAhead(_) => {
                let asked = CopyAhead {
                    order,
                    strategy: strategy(facts),
                    bandwidth_bytes_per_s: terms.bandwidth_bytes_per_s,
                };
                let copied = agents.copy_ahead(&source, &asked).await?;
                facts.transferred.rootfs_ahead_bytes = copied.bytes;
                facts.transferred.memory_ahead_bytes =
                    copied.memory.map_or(0, |memory| memory.bytes);
                facts.bytes_per_s = copied.bytes_per_s.or(terms.bandwidth_bytes_per_s);
                facts.expected_downtime_ms = expected_downtime_ms(
                    strategy(facts),
                    copied
                        .memory
                        .map_or(facts.memory_bytes, |memory| memory.last_round_bytes),
                    facts.bytes_per_s,
                );
                Ok(())
            }
            Effect::HandOver(_) => {
                let asked = HandOver {
                    order,
                    strategy: strategy(facts),
                    bandwidth_bytes_per_s: terms.bandwidth_bytes_per_s,
                    // What is stopped stands still anyway.
                    within_ms: terms
                        .max_downtime_ms
                        .filter(|_| !facts.is_stopped)
                        .map(sent_within_ms),
                };
                let handed_over = agents.hand_over(&source, &asked).await?;
                facts.transferred.rootfs_difference_bytes = handed_over.rootfs_difference_bytes;
                facts.transferred.image_bytes = handed_over.image_bytes;
                self.frozen = Some((handed_over, Instant::now()));
                Ok(())
            }
            Effect::Restore(_) => {
                let restored = agents.restore(&target, &order).await?;
                if let Some((handed_over, said)) = &self.frozen
                    && !facts.is_stopped
                {
                    let answered_ms = handed_over.frozen_ms + said.elapsed().as_secs_f64() * 1e3;
                    let stall_ms = answered_ms - restored.running_ms;
                    facts.stall_ms = Some(stall_ms);
                    facts.stall_steps = stall_steps(handed_over, &restored, stall_ms);
                }
                Ok(())
            }
            Effect::Settle(_) => {
                agents.command(&target, Command::Settle, &order).await?;
                Ok(())
            }
            Effect::Release(_) => {
                // In this order: the images are what the source's copy could be replaced by.
                agents.command(&source, Command::Release, &order).await?;
                agents.command(&target, Command::Clean, &order).await?;
                Ok(())
            }
            Effect::WithdrawTarget(_) | Effect::DiscardTarget(_) => {
                agents.command(&target, Command::Discard, &order).await?;
                Ok(())
            }
            Effect::ResumeSource(_) => {
                agents.command(&source, Command::Resume, &order).await?;
                // Said with the failure. Where it cannot be asked, the monitor will tell.
                if facts.has_run
                    && let Ok(containers) = agents.containers(&source).await
                {
                    facts.has_ended_at_source = containers.iter().any(|found| {
                        found.name == order.container && found.state == ContainerState::Stopped
                    });
                }
                Ok(())
            }
            Effect::Admit | Effect::Commit(_) | Effect::TakeBack(_) => Ok(()),
        }
    }

    pub(super) async fn endpoints(&self, plan: &MigrationPlan) -> (Endpoint, Endpoint) {
        let parts = &self.parts;
        parts
            .insist("load the edges of a migration", || {
                parts.store.endpoints(plan)
            })
            .await
    }

    /// The edges of `plan` and the order that the present state gives them, on `statement`.
    pub(super) fn edges(
        &self,
        plan: &MigrationPlan,
        source: Endpoint,
        target: Endpoint,
        statement: String,
    ) -> Edges {
        let order = Order {
            migration: self.run.id,
            container: self.run.container_name.clone(),
            generation: self.run.state.generation().unwrap_or(plan.generation()),
            source: source.edge,
            target: target.edge,
            target_address: target.address.clone(),
            statement,
        };
        Edges {
            source,
            target,
            order,
        }
    }
}

fn strategy(facts: &Facts) -> Strategy {
    facts
        .strategy
        .as_ref()
        .map_or(Strategy::StopAndCopy, |choice| choice.strategy)
}

/// What the time from the freeze until the container ran, `stall_ms`, went into: what either edge
/// says, and, in between, the control plane and the network.
fn stall_steps(handed_over: &HandedOver, restored: &Restored, stall_ms: f64) -> Vec<StallStep> {
    let of = |place, zero: f64, steps: &[carnet_api::agent::TimedStep]| {
        steps
            .iter()
            .map(|step| StallStep {
                step: step.step.clone(),
                place,
                began_ms: step.began_ms + zero,
                ended_ms: step.ended_ms + zero,
            })
            .collect::<Vec<_>>()
    };
    let source = of(StallPlace::Source, 0.0, &handed_over.steps);
    // The target counts back from when it ran.
    let target = of(StallPlace::Target, stall_ms, &restored.steps);
    let arrived = restored
        .steps
        .iter()
        .find(|step| step.step == MAKING_SURE)
        .map_or(stall_ms, |step| step.began_ms + stall_ms);
    let commit = StallStep {
        step: "comparing again, and raising the generation".to_owned(),
        place: StallPlace::Control,
        began_ms: handed_over.frozen_ms,
        ended_ms: arrived,
    };
    let mut steps = [source, vec![commit], target].concat();
    steps.sort_by(|one, other| one.began_ms.total_cmp(&other.began_ms));
    steps
}
