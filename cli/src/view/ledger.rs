use std::fmt::Write as _;

use carnet_api::v1::{LedgerEntry, ProvenEntry, Stay, Witness};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Decision, Entry, Event, Report, leaf_hash};
use carnet_core::policy::{Reason, Verdict};
use serde_json::json;

use super::quantity::utc;
use super::{details, table, written};
use crate::failure::Failure;
use crate::ledger::Verified;
use crate::output::Surface;

/// What an entry says, in one line.
fn summary(entry: &LedgerEntry) -> String {
    let value = &entry.entry;
    let text = |name: &str| written(value.get(name), "-");
    match text("kind").as_str() {
        "decision" => {
            let elements: Vec<String> = value
                .get("reasons")
                .and_then(serde_json::Value::as_array)
                .into_iter()
                .flatten()
                .map(|reason| written(reason.get("element"), ""))
                .collect();
            let dry = if value.get("dry_run").is_some_and(|dry| *dry == true) {
                " (dry run)"
            } else {
                ""
            };
            format!(
                "{}{dry} {} → {} {}",
                text("verdict"),
                text("container"),
                text("candidate"),
                elements.join(", ")
            )
        }
        "migration" => format!(
            "{} {} on {}",
            text("migration"),
            text("phase"),
            text("edge")
        ),
        "permit" => text("migration"),
        "requirements" => format!("{} revision {}", text("container"), text("revision")),
        "attributes" => format!("{} revision {}", text("edge"), text("revision")),
        "grant" => format!(
            "{} {} for {}",
            text("change"),
            text("edge"),
            text("grantee")
        ),
        "refusal" => format!("{} by {}: {}", text("check"), text("edge"), text("asked")),
        "refusals_dropped" => format!("{} more by {}", text("count"), text("edge")),
        "key" => format!("{} {}", text("purpose"), text("public")),
        _ => [
            "account",
            "token",
            "edge",
            "container",
            "certificate",
            "roles",
        ]
        .iter()
        .filter_map(|name| value.get(*name).map(|value| written(Some(value), "")))
        .collect::<Vec<_>>()
        .join(" "),
    }
    .trim_end()
    .to_owned()
}

pub fn entries(entries: &[LedgerEntry], surface: Surface) -> String {
    let rows = entries.iter().map(|entry| {
        vec![
            entry.number.to_string(),
            utc(UnixMillis(
                entry
                    .entry
                    .get("at_ms")
                    .and_then(serde_json::Value::as_i64)
                    .unwrap_or_default(),
            )),
            written(entry.entry.get("kind"), "-"),
            summary(entry),
        ]
    });
    table(&["ENTRY", "AT", "KIND", "WHAT"], rows, surface.width)
}

pub fn stays(stays: &[Stay], surface: Surface) -> String {
    let rows = stays.iter().map(|stay| {
        let dash = || "-".to_owned();
        vec![
            stay.container_name
                .clone()
                .unwrap_or_else(|| stay.container.to_string()),
            stay.edge_name.clone(),
            stay.country.clone().unwrap_or_else(dash),
            utc(stay.since_at_ms),
            stay.until_at_ms.map_or_else(|| "now".to_owned(), utc),
            stay.requirements_revision.to_string(),
            stay.attributes_revision.to_string(),
            stay.decision.map_or_else(dash, |number| number.to_string()),
        ]
    });
    table(
        &[
            "CONTAINER",
            "EDGE",
            "COUNTRY",
            "FROM",
            "UNTIL",
            "REQUIREMENTS",
            "ATTRIBUTES",
            "DECISION",
        ],
        rows,
        surface.width,
    )
}

pub fn witnesses(witnesses: &[Witness], surface: Surface) -> String {
    let rows = witnesses.iter().map(|witness| {
        vec![
            witness.name.clone(),
            witness.url.clone(),
            witness.cosigned_size.to_string(),
            witness.problem.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    table(
        &["WITNESS", "URL", "COSIGNED", "PROBLEM"],
        rows,
        surface.width,
    )
}

pub fn report(report: &Report) -> String {
    let mut text = format!(
        "{}: {} entries, root {}\n",
        report.origin, report.size, report.root
    );
    for (kind, count) in &report.kinds {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {count:>8} {kind}");
    }
    for (witness, at) in &report.cosigned {
        let at = i64::try_from(*at).unwrap_or(i64::MAX).saturating_mul(1_000);
        let _ = writeln!(text, "  cosigned by {witness} at {}", utc(UnixMillis(at)));
    }
    if report.is_sound() {
        text.push_str("every hash, signature, decision, permit and move is as it should be");
    } else {
        let _ = write!(text, "{} faults:", report.faults.len());
        for fault in &report.faults {
            let _ = write!(text, "\n  {fault}");
        }
    }
    text
}

/// An entry, what it says, and what a decision comes to when it is made again.
pub fn explained(
    proven: &ProvenEntry,
    entry: &Entry,
    again: Option<&(Verdict, bool)>,
    surface: Surface,
) -> String {
    let number = proven.entry.number;
    let mut text = details(
        &format!("entry {number}, {}", entry.kind()),
        &[("at", utc(entry.at_ms)), ("says", summary(&proven.entry))],
        surface.width,
    );
    if let Event::Decision(decision) = &entry.event {
        text.push('\n');
        text.push_str(&decided(decision, surface));
    }
    text.push_str("\n\nthe ledger has it: its inclusion proof holds for the signed checkpoint");
    match again {
        Some((_, true)) => {
            text.push_str("\ndecided again from what is recorded: the same, with the same reasons");
        }
        Some((verdict, false)) => {
            let _ = write!(text, "\ndecided again, it comes out otherwise: {verdict:?}");
        }
        None => {}
    }
    text
}

fn decided(decision: &Decision, surface: Surface) -> String {
    let utilization = decision.utilization.as_ref().map_or_else(
        || "no reading".to_owned(),
        |reading| {
            format!(
                "CPU {} %, memory {} %, read at {}",
                reading.cpu,
                reading.memory,
                utc(reading.read_at)
            )
        },
    );
    let mut text = details(
        "",
        &[
            (
                "requirements",
                format!(
                    "revision {}: {}",
                    decision.requirements.revision, decision.requirements.policy
                ),
            ),
            (
                "attributes",
                format!(
                    "revision {}: {}",
                    decision.attributes.revision, decision.attributes.policy
                ),
            ),
            ("utilization", utilization),
        ],
        surface.width,
    )
    .trim_start_matches('\n')
    .to_owned();
    if let Verdict::Deny(reasons) = &decision.verdict {
        for reason in reasons.iter() {
            let _ = write!(text, "\n  {reason}");
        }
    }
    text
}

fn unwritable(error: impl std::fmt::Display) -> Failure {
    Failure::other(format!("cannot be written: {error}"))
}

/// One object a line: number, hash, proof, and the entry; the first line is the checkpoint.
pub fn export_jsonl(verified: &Verified) -> Result<String, Failure> {
    let mut text = json!({ "checkpoint": verified.note }).to_string();
    for (number, bytes) in (0..).zip(&verified.entries) {
        let entry: serde_json::Value = serde_json::from_slice(bytes).map_err(unwritable)?;
        let line = json!({
            "number": number,
            "hash": leaf_hash(bytes).to_string(),
            "proof": verified.proof(number)?,
            "text": String::from_utf8_lossy(bytes),
            "entry": entry,
        });
        let _ = write!(text, "\n{line}");
    }
    Ok(text)
}

/// A row an entry; what a kind does not have is empty.
pub fn export_csv(verified: &Verified) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record([
            "number",
            "at_ms",
            "kind",
            "container",
            "edge",
            "migration",
            "verdict",
            "dry_run",
            "reasons",
            "phase",
            "hash",
            "proof",
            "entry",
        ])
        .map_err(unwritable)?;
    for (number, bytes) in (0..).zip(&verified.entries) {
        let entry = Entry::from_bytes(bytes).map_err(Failure::other)?;
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(unwritable)?;
        let (container, edge, migration) = entry.about();
        let or_empty = |id: Option<String>| id.unwrap_or_default();
        let reasons = match &entry.event {
            Event::Decision(decision) => match &decision.verdict {
                Verdict::Deny(reasons) => reasons
                    .iter()
                    .map(Reason::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
                Verdict::Permit => String::new(),
            },
            _ => String::new(),
        };
        writer
            .write_record([
                number.to_string(),
                entry.at_ms.0.to_string(),
                entry.kind().to_owned(),
                or_empty(container.map(|id| id.to_string())),
                or_empty(edge.map(|id| id.to_string())),
                or_empty(migration.map(|id| id.to_string())),
                written(value.get("verdict"), ""),
                written(value.get("dry_run"), ""),
                reasons,
                written(value.get("phase"), ""),
                leaf_hash(bytes).to_string(),
                verified.proof(number)?.join(" "),
                String::from_utf8_lossy(bytes).into_owned(),
            ])
            .map_err(unwritable)?;
    }
    String::from_utf8(writer.into_inner().map_err(unwritable)?).map_err(unwritable)
}
