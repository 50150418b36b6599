//! Where a run of the demo came out otherwise than in the paper.

use std::fmt;

use carnet_api::v1::{Attempt, AttemptOutcome, Migration, MigrationState, Reason};

use super::paper::Run;
use super::sensor_client::Observation;

/// The elements that compare with an edge's utilization, which is the machine's and not the
/// paper's.
const LOAD: [&str; 2] = ["cHRcu", "cHRmu"];

/// One thing that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Denied in the paper, permitted here.
    Permitted { edge: String, element: String },
    /// Permitted in the paper, denied here.
    Denied { edge: String, reasons: String },
    /// The same, because of its utilization alone.
    Loaded { edge: String, reasons: String },
    /// The same, because its utilization could not be read.
    NotRead { edge: String },
    /// Permitted in the paper and by policy, but the edge could not take a container.
    NotReady { edge: String, problems: String },
    /// Denied in both, but by other elements.
    Element {
        edge: String,
        paper: String,
        reasons: String,
    },
    /// Audited, and none of the paper's candidates.
    Stranger { edge: String },
    /// Nothing was audited.
    NotAudited,
    /// It ended on another edge than the paper permits; `None`: it did not move.
    Landed {
        on: Option<String>,
        paper: Vec<String>,
    },
    /// The hand-over failed.
    Failed { why: String },
    /// The client's connection broke.
    Broken { why: String },
    /// Writes that were acknowledged are not there.
    Lost { count: usize, first: String },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permitted { edge, element } => {
                write!(f, "{edge} is permitted; the paper denies it by {element}")
            }
            Self::Denied { edge, reasons } => {
                write!(f, "{edge} is denied; the paper permits it: {reasons}")
            }
            Self::Loaded { edge, reasons } => write!(
                f,
                "{edge} was too busy at that time, and is permitted in the paper: {reasons}"
            ),
            Self::NotRead { edge } => write!(
                f,
                "{edge} is permitted in the paper, but its utilization could not be read here: \
                 its agent does not answer, or cannot tell"
            ),
            Self::NotReady { edge, problems } => write!(
                f,
                "{edge} is permitted, as in the paper, but was not ready: {problems}"
            ),
            Self::Element {
                edge,
                paper,
                reasons,
            } => write!(
                f,
                "{edge} is denied; in the paper by {paper}, here: {reasons}"
            ),
            Self::Stranger { edge } => {
                write!(f, "{edge} was audited, and is no candidate in the paper")
            }
            Self::NotAudited => write!(f, "no edge was audited"),
            Self::Landed { on, paper } => write!(
                f,
                "it {}; in the paper it {}",
                landed(on.as_deref().as_slice()),
                landed(&paper.iter().map(String::as_str).collect::<Vec<_>>())
            ),
            Self::Failed { why } => write!(f, "the move failed: {why}"),
            Self::Broken { why } => write!(f, "the client's connection broke: {why}"),
            Self::Lost { count, first } => {
                write!(
                    f,
                    "{count} acknowledged writes are lost, the first: {first}"
                )
            }
        }
    }
}

fn landed(on: &[&str]) -> String {
    if on.is_empty() {
        "stayed where it was".to_owned()
    } else {
        format!("landed on {}", on.join(" or "))
    }
}

/// `cDAl requires jp or us, found de`: every reason, set apart by `between`.
pub fn reasons(reasons: &[Reason], between: &str) -> String {
    let each: Vec<String> = reasons
        .iter()
        .map(|reason| {
            format!(
                "{} requires {}, found {}",
                reason.paper_name, reason.required, reason.found
            )
        })
        .collect();
    each.join(between)
}

/// Whether utilization alone denies an edge.
pub fn is_by_load(outcome: &AttemptOutcome) -> bool {
    matches!(outcome, AttemptOutcome::Denied { reasons }
        if !reasons.is_empty() && reasons.iter().all(|reason| LOAD.contains(&reason.paper_name.as_str())))
}

/// Where the decisions of a run, and what came of it, differ from the paper's.
pub fn of_decisions(run: &Run, migration: &Migration) -> Vec<Difference> {
    let mut differences: Vec<Difference> = migration
        .attempts
        .iter()
        .filter_map(|attempt| of_attempt(run, attempt))
        .collect();
    if migration.attempts.is_empty() {
        differences.push(Difference::NotAudited);
    }
    let on = match migration.state {
        MigrationState::Completed => migration.target_name.clone(),
        MigrationState::Denied => None,
        _ => {
            differences.push(Difference::Failed {
                why: migration
                    .failure
                    .clone()
                    .unwrap_or_else(|| "it is not said why".to_owned()),
            });
            return differences;
        }
    };
    let as_in_paper = match &on {
        Some(edge) => run.permitted.contains(edge),
        None => run.permitted.is_empty(),
    };
    if !as_in_paper {
        differences.push(Difference::Landed {
            on,
            paper: run.permitted.clone(),
        });
    }
    differences
}

fn of_attempt(run: &Run, attempt: &Attempt) -> Option<Difference> {
    let edge = attempt.edge_name.clone();
    if run.permitted.contains(&edge) {
        return match &attempt.outcome {
            AttemptOutcome::Permitted => None,
            AttemptOutcome::NotReady { problems } => Some(Difference::NotReady {
                edge,
                problems: problems.join("; "),
            }),
            AttemptOutcome::Denied { reasons: found } => {
                let reasons = reasons(found, "; ");
                let is_by_load = is_by_load(&attempt.outcome);
                Some(match attempt.utilization {
                    None if is_by_load => Difference::NotRead { edge },
                    Some(_) if is_by_load => Difference::Loaded { edge, reasons },
                    _ => Difference::Denied { edge, reasons },
                })
            }
        };
    }
    let Some(denied) = run.denied.iter().find(|denied| denied.edge == edge) else {
        return Some(Difference::Stranger { edge });
    };
    let found = match &attempt.outcome {
        AttemptOutcome::Denied { reasons } => reasons.as_slice(),
        // Not ready is told only of what the policy permits.
        AttemptOutcome::Permitted | AttemptOutcome::NotReady { .. } => {
            return Some(Difference::Permitted {
                edge,
                element: denied.element.clone(),
            });
        }
    };
    // That an edge is busy too does not make it another decision.
    let policy: Vec<&str> = found
        .iter()
        .map(|reason| reason.paper_name.as_str())
        .filter(|element| !LOAD.contains(element))
        .collect();
    (policy != [denied.element.as_str()]).then(|| Difference::Element {
        edge,
        paper: denied.element.clone(),
        reasons: reasons(found, "; "),
    })
}

/// What the client lost, if it lost anything.
pub fn of_client(seen: &Observation) -> Vec<Difference> {
    let mut differences = Vec::new();
    if let Some(why) = &seen.broken {
        differences.push(Difference::Broken { why: why.clone() });
    }
    if let Some(first) = seen.lost.first() {
        differences.push(Difference::Lost {
            count: seen.lost.len(),
            first: first.clone(),
        });
    }
    differences
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::demo::paper::runs;

    fn run(label: &str) -> Run {
        let mut runs = runs().unwrap();
        runs.retain(|run| run.label == label);
        runs.remove(0)
    }

    pub fn permitted(edge: &str) -> Value {
        attempt(edge, json!({"outcome": "permitted"}))
    }

    /// Denied by these elements.
    pub fn denied(edge: &str, elements: &[&str]) -> Value {
        let reasons: Vec<Value> = elements
            .iter()
            .map(|element| {
                json!({"element": "words", "paper_name": element, "required": "`jp` or `us`",
                       "found": "`de`", "satisfied_by": "another"})
            })
            .collect();
        attempt(edge, json!({"outcome": "denied", "reasons": reasons}))
    }

    fn not_ready(edge: &str) -> Value {
        attempt(
            edge,
            json!({"outcome": "not_ready", "problems": ["no CRIU"]}),
        )
    }

    fn attempt(edge: &str, outcome: Value) -> Value {
        let mut attempt = json!({
            "edge": "0192d3c4-0000-7000-8000-000000000002", "edge_name": edge,
            "attributes_revision": 1, "audited_at_ms": 1,
            "utilization": {"cpu_percent": 40, "memory_percent": 30, "read_at_ms": 1},
            "compare_micros": 1.25, "reading_micros": 2_345.0,
        });
        let more = outcome.as_object().unwrap().clone();
        attempt.as_object_mut().unwrap().extend(more);
        attempt
    }

    /// A migration that ended in `state`.
    pub fn migration(state: &str, attempts: Vec<Value>, target: Option<&str>) -> Migration {
        let id = "0192d3c4-0000-7000-8000-000000000001";
        let timings = json!([
            {"state": "admitting", "started_at_ms": 1, "duration_ms": 20.0},
            {"state": "preparing", "started_at_ms": 1, "duration_ms": 30.0},
            {"state": "copying_ahead", "started_at_ms": 1, "duration_ms": 400.25},
            {"state": state, "started_at_ms": 1},
        ]);
        serde_json::from_value(json!({
            "id": id, "container": id, "container_name": "App1", "to": {"edge": "x"},
            "state": state, "source": id, "source_name": "Edge1", "target_name": target,
            "attempts": attempts, "timings": timings, "created_at_ms": 1,
            "transferred": {"rootfs_ahead_bytes": 10_000_000, "rootfs_difference_bytes": 0,
                            "image_bytes": 40_000_000},
            "failure": (state == "failed").then_some("the edge is gone"),
        }))
        .unwrap()
    }

    pub fn observation() -> Observation {
        Observation {
            longest_gap: Duration::from_micros(412_400),
            acknowledged: 1_523,
            lost: Vec::new(),
            broken: None,
        }
    }

    fn told(label: &str, migration: &Migration) -> Vec<String> {
        of_decisions(&run(label), migration)
            .iter()
            .map(Difference::to_string)
            .collect()
    }

    #[test]
    fn what_is_as_in_the_paper_is_no_difference() {
        let none = Vec::<String>::new();
        let denial = migration("denied", vec![denied("Edge2", &["cDAl"])], None);
        assert_eq!(told("Edge2", &denial), none);
        let busy_too = migration("denied", vec![denied("Edge4", &["cDAo", "cHRcu"])], None);
        assert_eq!(told("Edge4", &busy_too), none);
        let attempts = vec![denied("Edge2", &["cDAl"]), permitted("Edge3")];
        let region = migration("completed", attempts, Some("Edge3"));
        assert_eq!(told("region B", &region), none);
        let anywhere = migration("completed", vec![permitted("Edge8")], Some("Edge8"));
        assert_eq!(told("run 5", &anywhere), none);
    }

    #[test]
    fn a_verdict_that_is_turned_round_is_told() {
        let moved = migration("completed", vec![permitted("Edge2")], Some("Edge2"));
        assert_eq!(
            told("Edge2", &moved),
            [
                "Edge2 is permitted; the paper denies it by cDAl",
                "it landed on Edge2; in the paper it stayed where it was"
            ]
        );
        let denial = migration("denied", vec![denied("Edge3", &["cDAl", "cHRcu"])], None);
        assert_eq!(
            told("Edge3", &denial),
            [
                "Edge3 is denied; the paper permits it: cDAl requires `jp` or `us`, found `de`; \
                 cHRcu requires `jp` or `us`, found `de`",
                "it stayed where it was; in the paper it landed on Edge3"
            ]
        );
        let permitted_by_policy = migration("denied", vec![not_ready("Edge6")], None);
        assert_eq!(
            told("Edge6", &permitted_by_policy),
            ["Edge6 is permitted; the paper denies it by cDAl"]
        );
    }

    #[test]
    fn a_busy_or_unready_edge_is_told_as_what_it_is() {
        let attempts = vec![denied("Edge7", &["cHRcu", "cHRmu"]), permitted("Edge8")];
        let elsewhere = migration("completed", attempts, Some("Edge8"));
        let told_of = told("region D", &elsewhere);
        assert_eq!(told_of.len(), 1);
        assert!(told_of[0].starts_with("Edge7 was too busy at that time"));
        let mut silent = migration("denied", vec![denied("Edge8", &["cHRcu", "cHRmu"])], None);
        silent.attempts[0].utilization = None;
        assert!(matches!(
            &of_decisions(&run("Edge8"), &silent)[..],
            [Difference::NotRead { edge }, Difference::Landed { .. }] if edge == "Edge8"
        ));
        let unready = migration("denied", vec![not_ready("Edge5")], None);
        assert_eq!(
            told("Edge5", &unready),
            [
                "Edge5 is permitted, as in the paper, but was not ready: no CRIU",
                "it stayed where it was; in the paper it landed on Edge5"
            ]
        );
    }

    #[test]
    fn another_element_is_told() {
        for elements in [&["cDAo"][..], &["cDAl", "cHRh"], &["cHRcu"], &[]] {
            let denial = migration("denied", vec![denied("Edge2", elements)], None);
            let differences = of_decisions(&run("Edge2"), &denial);
            assert!(
                matches!(&differences[..], [Difference::Element { paper, .. }] if paper == "cDAl"),
                "{elements:?}: {differences:?}"
            );
        }
    }

    #[test]
    fn a_wrong_landing_place_is_told() {
        let strange = migration("completed", vec![permitted("Edge1")], Some("Edge1"));
        assert_eq!(
            told("run 1", &strange),
            [
                "Edge1 was audited, and is no candidate in the paper",
                "it landed on Edge1; in the paper it landed on Edge3 or Edge5 or Edge7 or Edge8"
            ]
        );
        // Whatever its attempts say.
        let elsewhere = migration("completed", vec![permitted("Edge7")], Some("Edge6"));
        assert_eq!(
            told("region D", &elsewhere),
            ["it landed on Edge6; in the paper it landed on Edge7 or Edge8"]
        );
        let nothing = migration("denied", Vec::new(), None);
        assert_eq!(told("Edge2", &nothing), ["no edge was audited"]);
    }

    #[test]
    fn a_failed_move_is_told() {
        let failed = migration("failed", vec![permitted("Edge3")], Some("Edge3"));
        assert_eq!(
            told("Edge3", &failed),
            ["the move failed: the edge is gone"]
        );
    }

    #[test]
    fn what_the_client_lost_is_told() {
        assert_eq!(of_client(&observation()), []);
        let seen = Observation {
            lost: vec!["live:7".to_owned(), "live:9".to_owned()],
            broken: Some("reset".to_owned()),
            ..observation()
        };
        let told: Vec<String> = of_client(&seen).iter().map(Difference::to_string).collect();
        assert_eq!(
            told,
            [
                "the client's connection broke: reset",
                "2 acknowledged writes are lost, the first: live:7"
            ]
        );
    }
}
