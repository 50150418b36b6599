//! One candidate's audit, with its utilization as it is now.

use std::time::{Duration, Instant};

use carnet_api::v1::{Attempt, AttemptOutcome, ContainerState, Reason, UtilizationReading};
use carnet_core::ledger::Decision;
use carnet_core::migration::{COLD_IS_LEFT, Candidate, MigrationPlan, Strategy, Subject};
use carnet_core::policy::{self, Element, Utilization, Verdict};

use crate::agents::{Agents, read};
use crate::clock;
use crate::store::migrations::{Moving, UsableEdge};
use crate::store::sightings::EdgeSighting;

/// What came of a candidate.
pub struct Audited {
    pub attempt: Attempt,
    /// The same for the ledger, as a dry run's.
    pub decision: Decision,
    /// Where it is permitted and ready.
    pub plan: Option<Box<MigrationPlan>>,
    /// What its agent's answer says of the edge, where it has an agent.
    pub sighting: Option<EdgeSighting>,
}

/// Reads the candidate's utilization from its agent and audits it (paper, Figure 9). Nothing is
/// changed anywhere.
///
/// `name_taken` says that the edge has another container of that name. What only keeps the edge
/// from taking the container now is told where the policy permits it; where it denies, that is
/// what counts. What a cold move does not need keeps nothing from a move that `asked` says is to be
/// one, nor from that of a container that is stopped.
pub async fn audit(
    agents: &dyn Agents,
    max_reading_age_ms: u64,
    moving: &Moving,
    edge: &UsableEdge,
    asked: Option<Strategy>,
    name_taken: bool,
) -> Audited {
    let mut problems = Vec::new();
    let mut utilization = None;
    let mut sighting = None;
    let mut reading_took = Duration::ZERO;
    if edge.enrolled {
        let (reading, took) = read(agents, &edge.endpoint, clock::now).await;
        let seen = EdgeSighting::of(edge.endpoint.edge, &reading);
        match reading {
            Ok(reading) => {
                problems.extend(reading.problems);
                if !reading.live_problems.is_empty() && !is_cold(agents, moving, asked).await {
                    problems.extend(reading.live_problems);
                    problems.push(COLD_IS_LEFT.to_owned());
                }
            }
            Err(_) => problems.extend(seen.problems.iter().cloned()),
        }
        utilization = seen.utilization;
        sighting = Some(seen);
        reading_took = took;
    } else {
        problems.push(format!(
            "`{}` has not been enrolled: it has no agent yet",
            edge.endpoint.name
        ));
    }
    if name_taken {
        problems.push(format!(
            "`{}` has another container `{}`",
            edge.endpoint.name, moving.name
        ));
    }
    let now = clock::now();
    let began = Instant::now();
    let subject = Subject {
        container: moving.container,
        generation: moving.generation,
        source: moving.edge,
        requirements: &moving.requirements,
        requirements_revision: moving.requirements_revision,
    };
    let candidate = Candidate {
        edge: edge.endpoint.edge,
        attributes: &edge.attributes,
        attributes_revision: edge.attributes_revision,
        utilization: utilization.as_ref(),
    };
    let planned = MigrationPlan::from_audit(&subject, &candidate, now, max_reading_age_ms);
    let compare_took = began.elapsed();
    let verdict = match &planned {
        Ok(_) => Verdict::Permit,
        Err(reasons) => Verdict::Deny(reasons.clone()),
    };
    let mut decision = Decision::of(&subject, &candidate, now, max_reading_age_ms, verdict);
    decision.ready = problems.is_empty();
    let attempt = |outcome| Attempt {
        edge: edge.endpoint.edge,
        edge_name: edge.endpoint.name.clone(),
        attributes_revision: edge.attributes_revision,
        utilization: utilization.as_ref().map(wire_reading),
        outcome,
        audited_at_ms: now,
        compare_micros: compare_took.as_secs_f64() * 1e6,
        reading_micros: reading_took.as_secs_f64() * 1e6,
    };
    let (outcome, plan) = match planned {
        Err(reasons) => (
            AttemptOutcome::Denied {
                reasons: reasons
                    .iter()
                    .map(|reason| told(reason, utilization.is_none(), &problems))
                    .collect(),
            },
            None,
        ),
        Ok(_) if !problems.is_empty() => (AttemptOutcome::NotReady { problems }, None),
        Ok(plan) => (AttemptOutcome::Permitted, Some(Box::new(plan))),
    };
    Audited {
        attempt: attempt(outcome),
        decision,
        plan,
        sighting,
    }
}

/// Whether a move would be a cold one, as far as can be told before its edges make ready: it is
/// asked for, or the container is stopped, which its agent is asked then.
async fn is_cold(agents: &dyn Agents, moving: &Moving, asked: Option<Strategy>) -> bool {
    match asked {
        Some(asked) => asked == Strategy::Cold,
        None => {
            let there = agents.containers(&moving.source).await.unwrap_or_default();
            there.iter().any(|container| {
                container.name == moving.name && container.state == ContainerState::Stopped
            })
        }
    }
}

/// A reason, and where it is that there is no reading, why there is none.
pub(crate) fn told(reason: &policy::Reason, unread: bool, problems: &[String]) -> Reason {
    let mut told = Reason::from(reason);
    let asks_for_reading = matches!(
        reason.element,
        Element::MaxCpuPercent | Element::MaxMemoryPercent
    );
    if unread && asks_for_reading && !problems.is_empty() {
        told.found = format!("{}: {}", told.found, problems.join("; "));
    }
    told
}

pub(crate) fn wire_reading(reading: &Utilization) -> UtilizationReading {
    UtilizationReading {
        cpu_percent: f64::from(reading.cpu.hundredths()) / 100.0,
        memory_percent: f64::from(reading.memory.hundredths()) / 100.0,
        read_at_ms: reading.read_at,
    }
}
