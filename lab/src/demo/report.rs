//! What the demo shows: tables as the paper's, with what was measured here beside its figures,
//! at 100 columns.

use std::fmt::Write;

use carnet_api::v1::{Attempt, AttemptOutcome, Edge, Migration, MigrationState};
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::difference::{Difference, reasons};
use super::sensor_client::Observation;
use super::{Ran, Returned};

/// In characters.
const WIDTH: u16 = 100;

/// Marks what differs from the paper.
const DIFFERS: &str = "!";

/// What the lab is made of.
pub fn edges(edges: &[Edge]) -> String {
    let mut regions: Vec<&str> = edges
        .iter()
        .filter_map(|edge| edge.attributes.get("region")?.as_str())
        .collect();
    regions.sort_unstable();
    regions.dedup();
    format!(
        "{} edges in {} regions, each a host with LXC and CRIU behind 1 Gbit/s\n{}",
        edges.len(),
        regions.len(),
        software(edges)
    )
}

fn software(edges: &[Edge]) -> String {
    let mut found: Vec<String> = edges
        .iter()
        .filter_map(|edge| edge.detected.as_ref())
        .map(|detected| {
            let version = |version: &Option<String>| version.clone().unwrap_or("?".to_owned());
            format!(
                "Linux {}, LXC {}, CRIU {}",
                version(&detected.kernel),
                version(&detected.lxc_version),
                version(&detected.criu_version)
            )
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.join("; ")
}

/// The runs of one of the paper's cases.
pub fn case(runs: &[Ran]) -> String {
    let title = match runs.first().map(|ran| ran.run.case) {
        Some(1) => "Case 1: to one named edge (the paper's Figure 19)",
        Some(2) => "Case 2: to a region, whose edges are drawn at random (the paper's Table 7)",
        _ => "Case 3: anywhere, of all edges drawn at random (the paper's Table 8)",
    };
    let mut table = table(&[
        "asked\nfor",
        "edges tried, in order",
        "audit:\ncompare",
        "\nread",
        "in the\npaper",
        "move",
        "in the\npaper",
        "down\ntime",
        "connection,\nwrites",
    ]);
    for ran in runs {
        add_run(&mut table, ran);
    }
    align_right(&mut table, &[2, 3, 4, 5, 6, 7]);
    format!("{title}\n{}", text(&table))
}

/// A row for each edge tried. What the paper measured stands in the first, what came of the run
/// in the last.
fn add_run(table: &mut Table, ran: &Ran) {
    let mark = if ran.differences.is_empty() {
        ""
    } else {
        DIFFERS
    };
    let label = format!("{mark}{}", ran.run.label);
    let paper_audit = format!("{:.3}", ran.run.paper_audit_ms);
    let paper_move = match ran.run.paper_migration_ms {
        Some(ms) => format!("{ms:.3}"),
        None => "-".to_owned(),
    };
    let [moved, down, client] = outcome(&ran.migration, &ran.seen);
    let attempts = ran.migration.attempts.as_slice();
    if attempts.is_empty() {
        let nothing = "none was audited".to_owned();
        let none = || "-".to_owned();
        table.add_row([
            label,
            nothing,
            none(),
            none(),
            paper_audit,
            moved,
            paper_move,
            down,
            client,
        ]);
        return;
    }
    let last = attempts.len() - 1;
    for (position, attempt) in attempts.iter().enumerate() {
        let first = |text: &String| when(position == 0, text);
        let last = |text: &String| when(position == last, text);
        table.add_row([
            first(&label),
            tried(attempt),
            format!("{:.4}", attempt.compare_micros / 1e3),
            format!("{:.2}", attempt.reading_micros / 1e3),
            first(&paper_audit),
            last(&moved),
            last(&paper_move),
            last(&down),
            last(&client),
        ]);
    }
}

fn when(condition: bool, text: &str) -> String {
    if condition {
        text.to_owned()
    } else {
        String::new()
    }
}

/// A candidate and what came of it, with every reason.
fn tried(attempt: &Attempt) -> String {
    let edge = &attempt.edge_name;
    match &attempt.outcome {
        AttemptOutcome::Permitted => format!("{edge} permitted"),
        AttemptOutcome::Denied { reasons: found } => {
            format!("{edge} denied: {}", reasons(found, ",\n"))
        }
        AttemptOutcome::NotReady { problems } => {
            format!("{edge} not ready: {}", problems.join("; "))
        }
    }
}

/// Time of the move, downtime, and how the client fared.
fn outcome(migration: &Migration, seen: &Observation) -> [String; 3] {
    let is_moved = migration.state == MigrationState::Completed;
    let (moved, down) = if is_moved {
        (
            milliseconds(move_ms(migration)),
            milliseconds(seen.longest_gap.as_secs_f64() * 1e3),
        )
    } else if migration.state == MigrationState::Denied {
        ("-".to_owned(), "-".to_owned())
    } else {
        ("failed".to_owned(), "-".to_owned())
    };
    [moved, down, client(seen)]
}

fn client(seen: &Observation) -> String {
    if seen.broken.is_some() {
        "BROKEN".to_owned()
    } else if seen.lost.is_empty() {
        format!("open, {}", thousands(seen.acknowledged))
    } else {
        format!(
            "open, LOST {} of {}",
            thousands(seen.lost.len() as u64),
            thousands(seen.acknowledged)
        )
    }
}

/// From the permit to the end: everything but the audits.
fn move_ms(migration: &Migration) -> f64 {
    migration
        .timings
        .iter()
        .filter(|timing| timing.state != MigrationState::Admitting)
        .filter_map(|timing| timing.duration_ms)
        .sum()
}

/// The moves back between the runs.
pub fn returns(returned: &[Returned]) -> String {
    let mut table = table(&["after", "from", "move", "down\ntime", "connection,\nwrites"]);
    for back in returned {
        let [moved, down, client] = outcome(&back.migration, &back.seen);
        table.add_row([
            back.after.clone(),
            back.migration.source_name.clone(),
            moved,
            down,
            client,
        ]);
    }
    align_right(&mut table, &[2, 3]);
    format!(
        "Moves back to where the paper's runs start; they are none of the paper's\n{}",
        text(&table)
    )
}

/// What the columns say.
pub fn legend(runs: &[Ran], returned: &[Returned]) -> String {
    let sent: Vec<u64> = runs
        .iter()
        .map(|ran| &ran.migration)
        .chain(returned.iter().map(|back| &back.migration))
        .filter(|migration| migration.state == MigrationState::Completed)
        .map(|migration| migration.transferred.sum())
        .collect();
    let megabytes = |bytes: Option<&u64>| bytes.copied().unwrap_or(0).div_ceil(1_000_000);
    let sent = match (megabytes(sent.iter().min()), megabytes(sent.iter().max())) {
        (least, most) if least == most => format!("{most} MB"),
        (least, most) => format!("{least} to {most} MB"),
    };
    format!(
        "\
Times are in milliseconds.
  audit:compare  requirements compared with the edge's attributes and utilization
  audit:read     the edge's agent asked for its CPU and memory use, just before; the paper's audit
                 times are given once for each run, over all edges tried
  move           from the permit until the source is cleaned up; {sent} were sent. The paper
                 prints about 16 ms for LXC with CRIU over 1 Gbit/s; we set it beside as printed
  downtime       the longest wait between two replies, as the client outside saw it
  writes         acknowledged by App1 during the run, and read back at its end
  {DIFFERS}              differs from the paper; how, is said at the end"
    )
}

/// How much of a run its audits took, where App1 was moved: the least and the most over all runs,
/// here and in the paper, in percent.
fn audit_shares(runs: &[Ran]) -> Option<String> {
    let moved: Vec<&Ran> = runs
        .iter()
        .filter(|ran| ran.migration.state == MigrationState::Completed)
        .collect();
    let here = moved.iter().map(|ran| {
        let attempts = ran.migration.attempts.iter();
        let audits: f64 = attempts
            .map(|attempt| (attempt.compare_micros + attempt.reading_micros) / 1e3)
            .sum();
        share(audits, move_ms(&ran.migration))
    });
    let paper = moved.iter().filter_map(|ran| {
        let moved = ran.run.paper_migration_ms?;
        Some(share(ran.run.paper_audit_ms, moved))
    });
    let (least, most) = extremes(here)?;
    let (paper_least, paper_most) = extremes(paper)?;
    Some(format!(
        "The audits took {least:.2} to {most:.2} % of the time of a run that moved it; \
         in the paper {paper_least:.2} to {paper_most:.2} %."
    ))
}

fn share(part: f64, rest: f64) -> f64 {
    100.0 * part / (part + rest)
}

fn extremes(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let least = values.clone().reduce(f64::min)?;
    Some((least, values.reduce(f64::max)?))
}

/// What it comes to.
pub fn summary(runs: &[Ran], returned: &[Returned], everything: &Observation) -> String {
    let moves = runs
        .iter()
        .filter(|ran| ran.migration.state == MigrationState::Completed)
        .count();
    let mut summary = String::new();
    let differing = runs
        .iter()
        .filter(|ran| !ran.differences.is_empty())
        .count();
    let total = runs.len();
    let _ = if differing == 0 {
        writeln!(
            summary,
            "All {total} runs came out as in the paper: verdicts, elements that deny, landing places."
        )
    } else {
        writeln!(
            summary,
            "{differing} of {total} runs came out otherwise than in the paper."
        )
    };
    let _ = write!(
        summary,
        "App1 moved {} times while it ran ({moves} in the paper's runs, {} back). ",
        moves + returned.len(),
        returned.len()
    );
    let _ = match (&everything.broken, everything.lost.len()) {
        (Some(_), _) => write!(summary, "Its client's TCP connection broke."),
        (None, 0) => write!(
            summary,
            "Its client's one TCP connection\nstayed open throughout, and all {} readings that it \
             was ever told are stored are there.",
            thousands(everything.acknowledged)
        ),
        (None, lost) => write!(
            summary,
            "Its client's one TCP connection\nstayed open throughout, but of {} readings that it \
             was told are stored {} are lost.",
            thousands(everything.acknowledged),
            thousands(lost as u64)
        ),
    };
    if let Some(shares) = audit_shares(runs) {
        let _ = write!(summary, "\n{shares}");
    }
    summary
}

/// Everything that differs from the paper, with the run.
pub fn differences(named: &[(String, Difference)]) -> String {
    let mut text = "DIFFERENT FROM THE PAPER:".to_owned();
    for (run, difference) in named {
        text.push('\n');
        text.push_str(&wrapped(&format!("{run}: {difference}")));
    }
    text
}

/// Indented, and further from the second line on.
fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    let mut line = " ".to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > usize::from(WIDTH) {
            lines.push(std::mem::replace(&mut line, "     ".to_owned()));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header.iter().map(Cell::new));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn milliseconds(ms: f64) -> String {
    thousands(ms.round().max(0.0) as u64)
}

/// `12,345`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::difference::tests::{denied, migration, observation, permitted};
    use super::*;
    use crate::demo::paper;

    fn ran(label: &str, migration: Migration, differences: Vec<Difference>) -> Ran {
        let mut runs = paper::runs().unwrap();
        runs.retain(|run| run.label == label);
        Ran {
            run: runs.remove(0),
            migration,
            seen: observation(),
            differences,
        }
    }

    fn two() -> Vec<Ran> {
        let attempts = vec![denied("Edge2", &["cDAl", "cHRcu"]), permitted("Edge3")];
        vec![
            ran(
                "region B",
                migration("completed", attempts, Some("Edge3")),
                Vec::new(),
            ),
            ran(
                "region C",
                migration("denied", vec![denied("Edge4", &["cDAo"])], None),
                vec![Difference::NotAudited],
            ),
        ]
    }

    fn returned() -> Vec<Returned> {
        vec![Returned {
            after: "region B".to_owned(),
            migration: migration("completed", vec![permitted("Edge1")], Some("Edge1")),
            seen: observation(),
        }]
    }

    #[test]
    fn a_case_shows_every_edge_tried_with_every_reason() {
        assert_eq!(
            case(&two()),
            "\
Case 2: to a region, whose edges are drawn at random (the paper's Table 7)
asked      edges tried, in order              audit:        in the  move  in the  down  connection,
for                                          compare  read   paper         paper  time  writes
────────────────────────────────────────────────────────────────────────────────────────────────────
region B   Edge2 denied: cDAl requires `jp`   0.0013  2.35   0.062
           or `us`, found `de`,
           cHRcu requires `jp` or `us`,
           found `de`
           Edge3 permitted                    0.0013  2.35           430  15.941   412  open, 1,523
!region C  Edge4 denied: cDAo requires `jp`   0.0013  2.35   0.075     -  15.740     -  open, 1,523
           or `us`, found `de`"
        );
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let all = [
            case(&two()),
            returns(&returned()),
            legend(&two(), &returned()),
            summary(&two(), &returned(), &observation()),
        ]
        .join("\n");
        for line in all.lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        }
    }

    #[test]
    fn a_client_that_lost_something_stands_out() {
        let mut seen = observation();
        seen.lost = vec!["live:7".to_owned()];
        assert_eq!(client(&seen), "open, LOST 1 of 1,523");
        seen.broken = Some("reset".to_owned());
        assert_eq!(client(&seen), "BROKEN");
    }

    #[test]
    fn a_move_that_failed_has_no_times() {
        let failed = migration("failed", vec![permitted("Edge3")], Some("Edge3"));
        let [moved, down, _] = outcome(&failed, &observation());
        assert_eq!([moved.as_str(), down.as_str()], ["failed", "-"]);
    }

    #[test]
    fn a_summary_says_what_it_comes_to() {
        let good: Vec<Ran> = two().into_iter().take(1).collect();
        assert_eq!(
            summary(&good, &returned(), &observation()),
            "\
All 1 runs came out as in the paper: verdicts, elements that deny, landing places.
App1 moved 2 times while it ran (1 in the paper's runs, 1 back). Its client's one TCP connection
stayed open throughout, and all 1,523 readings that it was ever told are stored are there.
The audits took 1.08 to 1.08 % of the time of a run that moved it; in the paper 0.39 to 0.39 %."
        );
        let seen = Observation {
            lost: vec!["live:7".to_owned()],
            ..observation()
        };
        let bad = summary(&two(), &returned(), &seen);
        assert!(bad.starts_with("1 of 2 runs came out otherwise than in the paper."));
        assert!(bad.contains("of 1,523 readings that it was told are stored 1 are lost."));
        let seen = Observation {
            broken: Some("reset".to_owned()),
            ..observation()
        };
        assert!(summary(&good, &[], &seen).contains("connection broke."));
    }

    #[test]
    fn differences_are_named_with_their_run() {
        let named = [
            ("case 2, region C".to_owned(), Difference::NotAudited),
            (
                "case 3, run 5".to_owned(),
                Difference::Landed {
                    on: Some("Edge6".to_owned()),
                    paper: ["Edge3", "Edge5", "Edge7", "Edge8"]
                        .map(str::to_owned)
                        .to_vec(),
                },
            ),
        ];
        assert_eq!(
            differences(&named),
            "\
DIFFERENT FROM THE PAPER:
  case 2, region C: no edge was audited
  case 3, run 5: it landed on Edge6; in the paper it landed on Edge3 or Edge5 or Edge7 or Edge8"
        );
        let long = wrapped(&"words ".repeat(40));
        assert_eq!(long.lines().count(), 3);
        assert!(
            long.lines()
                .all(|line| line.chars().count() <= usize::from(WIDTH))
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
