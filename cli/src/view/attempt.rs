use carnet_api::v1::{Attempt, AttemptOutcome, AuditReport, Reason};

use super::quantity::{milliseconds, percent};
use super::{destination, table};
use crate::output::Surface;

/// The verdict over every candidate, and what it comes to.
pub fn report(report: &AuditReport, surface: Surface) -> String {
    let permitted: Vec<&str> = report
        .attempts
        .iter()
        .filter(|attempt| attempt.outcome == AttemptOutcome::Permitted)
        .map(|attempt| attempt.edge_name.as_str())
        .collect();
    let summary = match (permitted.as_slice(), report.attempts.as_slice()) {
        ([], []) => format!(
            "{}: {} has no candidates",
            report.container,
            destination(&report.to)
        ),
        ([], [_]) => format!(
            "{} may not go to {} now",
            report.container,
            destination(&report.to)
        ),
        ([], all) => format!(
            "{} may go to none of {} edges now",
            report.container,
            all.len()
        ),
        ([only], [_]) => format!("{} may go to {only}", report.container),
        (some, all) => format!(
            "{} may go to {} of {} edges: {}",
            report.container,
            some.len(),
            all.len(),
            some.join(", ")
        ),
    };
    format!("{}\n\n{summary}", attempts(&report.attempts, surface))
}

/// A line for each candidate, and one more for each further reason.
pub fn attempts(attempts: &[Attempt], surface: Surface) -> String {
    let rows = attempts.iter().flat_map(|attempt| {
        let (cpu, memory) = match &attempt.utilization {
            Some(reading) => (
                percent(reading.cpu_percent),
                percent(reading.memory_percent),
            ),
            None => ("no reading".to_owned(), String::new()),
        };
        let took = milliseconds((attempt.compare_micros + attempt.reading_micros) / 1e3);
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (verdict, why) in explained(&attempt.outcome) {
            let lead = if rows.is_empty() {
                [
                    attempt.edge_name.clone(),
                    verdict.to_owned(),
                    cpu.clone(),
                    memory.clone(),
                    took.clone(),
                ]
            } else {
                Default::default()
            };
            rows.push(lead.into_iter().chain(why).collect());
        }
        rows
    });
    table(
        &[
            "EDGE",
            "VERDICT",
            "CPU",
            "MEMORY",
            "AUDIT",
            "WHY",
            "REQUIRED",
            "FOUND",
            "WOULD SATISFY",
        ],
        rows,
        surface.width,
    )
}

/// The verdict with each of its reasons; never empty.
fn explained(outcome: &AttemptOutcome) -> Vec<(&'static str, [String; 4])> {
    let lines: Vec<(&str, [String; 4])> = match outcome {
        AttemptOutcome::Permitted => Vec::new(),
        AttemptOutcome::Denied { reasons } => reasons
            .iter()
            .map(|reason| ("denied", reason_cells(reason)))
            .collect(),
        AttemptOutcome::NotReady { problems } => problems
            .iter()
            .map(|problem| {
                (
                    "not ready",
                    [problem.clone(), "".into(), "".into(), "".into()],
                )
            })
            .collect(),
    };
    if lines.is_empty() {
        vec![(verdict(outcome), Default::default())]
    } else {
        lines
    }
}

fn reason_cells(reason: &Reason) -> [String; 4] {
    [
        format!("{} ({})", reason.element, reason.paper_name),
        reason.required.clone(),
        reason.found.clone(),
        reason.satisfied_by.clone(),
    ]
}

/// The verdict in a word or two.
pub fn verdict(outcome: &AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Permitted => "permitted",
        AttemptOutcome::Denied { .. } => "denied",
        AttemptOutcome::NotReady { .. } => "not ready",
    }
}

/// A candidate on one line, with every reason.
pub fn sentence(attempt: &Attempt) -> String {
    let reasons = match &attempt.outcome {
        AttemptOutcome::Permitted => Vec::new(),
        AttemptOutcome::Denied { reasons } => reasons
            .iter()
            .map(|reason| {
                format!(
                    "{} ({}) requires {}, found {}",
                    reason.element, reason.paper_name, reason.required, reason.found
                )
            })
            .collect(),
        AttemptOutcome::NotReady { problems } => problems.clone(),
    };
    let verdict = verdict(&attempt.outcome);
    if reasons.is_empty() {
        format!("{} {verdict}", attempt.edge_name)
    } else {
        format!("{} {verdict}: {}", attempt.edge_name, reasons.join("; "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use carnet_core::instant::UnixMillis;
    use serde_json::{Value, json};

    const SURFACE: Surface = Surface {
        now: UnixMillis(1_762_171_445_000),
        width: None,
    };

    pub fn attempt(edge: &str, outcome: Value) -> Attempt {
        let mut attempt = json!({
            "edge": "0192d3c4-0000-7000-8000-000000000002", "edge_name": edge,
            "attributes_revision": 1,
            "utilization": {"cpu_percent": 40, "memory_percent": 30, "read_at_ms": 1},
            "audited_at_ms": 1_762_171_445_000_i64, "compare_micros": 0.4, "reading_micros": 1200.0,
        });
        attempt
            .as_object_mut()
            .unwrap()
            .extend(outcome.as_object().unwrap().clone());
        serde_json::from_value(attempt).unwrap()
    }

    pub fn denied() -> Value {
        json!({"outcome": "denied", "reasons": [
            {"element": "allowed_locations", "paper_name": "cDAl", "required": "`jp` or `us`",
             "found": "`de`", "satisfied_by": "an edge in `jp` or `us`"},
            {"element": "max_cpu_percent", "paper_name": "cHRcu", "required": "at most 30 %",
             "found": "40 % now", "satisfied_by": "CPU use of 30 % or less"},
        ]})
    }

    #[test]
    fn every_reason_of_every_candidate_is_shown() {
        let mut silent = attempt(
            "Edge4",
            json!({"outcome": "not_ready", "problems": ["no CRIU"]}),
        );
        silent.utilization = None;
        let audited = AuditReport {
            container: "App1".to_owned(),
            to: carnet_api::v1::DestinationSpec::Anywhere(true),
            attempts: vec![
                attempt("Edge2", denied()),
                attempt("Edge3", json!({"outcome": "permitted"})),
                silent,
            ],
        };
        assert_eq!(
            report(&audited, SURFACE),
            "\
EDGE   VERDICT    CPU         MEMORY  AUDIT    WHY                       REQUIRED      FOUND     WOULD SATISFY
Edge2  denied     40 %        30 %    1.20 ms  allowed_locations (cDAl)  `jp` or `us`  `de`      an edge in `jp` or `us`
                                               max_cpu_percent (cHRcu)   at most 30 %  40 % now  CPU use of 30 % or less
Edge3  permitted  40 %        30 %    1.20 ms
Edge4  not ready  no reading          1.20 ms  no CRIU

App1 may go to 1 of 3 edges: Edge3"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_a_narrow_table() {
        let text = attempts(
            &[attempt("Edge2", denied())],
            Surface {
                width: Some(80),
                ..SURFACE
            },
        );
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.unwrap() <= 80, "{text}");
    }

    #[test]
    fn a_summary_fits_the_number_of_candidates() {
        let summary = |attempts: Vec<Attempt>, to: &str| {
            let audited = AuditReport {
                container: "App1".to_owned(),
                to: carnet_api::v1::DestinationSpec::Edge(to.to_owned()),
                attempts,
            };
            report(&audited, SURFACE).lines().last().unwrap().to_owned()
        };
        assert_eq!(
            summary(vec![attempt("Edge2", denied())], "Edge2"),
            "App1 may not go to Edge2 now"
        );
        assert_eq!(
            summary(
                vec![attempt("Edge3", json!({"outcome": "permitted"}))],
                "Edge3"
            ),
            "App1 may go to Edge3"
        );
    }

    #[test]
    fn a_denial_fits_on_a_line() {
        assert_eq!(
            sentence(&attempt("Edge2", denied())),
            "Edge2 denied: allowed_locations (cDAl) requires `jp` or `us`, found `de`; \
             max_cpu_percent (cHRcu) requires at most 30 %, found 40 % now"
        );
    }
}
