//! The paper's tables, as far as the demo needs them: its edges, its container, what must be
//! permitted and denied, and the times it printed.

use serde::Deserialize;
use thiserror::Error;

const EDGES: &str = include_str!("../../../core/fixtures/paper/edges.csv");
const CONTAINERS: &str = include_str!("../../../core/fixtures/paper/containers.csv");
const DECISIONS: &str = include_str!("../../../core/fixtures/paper/decisions.csv");
const RESULTS: &str = include_str!("../../../core/fixtures/paper/results.csv");

/// A fixture that is not as expected.
#[derive(Debug, Error)]
#[error("the paper's table {table} cannot be read: {source}")]
pub struct TableError {
    table: &'static str,
    source: csv::Error,
}

/// An edge of Table 6.
#[derive(Debug, Clone)]
pub struct Edge {
    pub name: String,
    /// The organization that manages it.
    pub organization: String,
    /// Its attributes, as one compact row, the region first.
    pub attributes: String,
}

/// The requirements of Table 5, as one compact row.
#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub edge: String,
    pub requirements: String,
}

/// Where a run of the demo asks to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Edge(String),
    Region(String),
    Anywhere,
}

/// One run: what is asked for, what must come of it, and what the paper measured.
#[derive(Debug, Clone)]
pub struct Run {
    /// 1: an edge is named; 2: a region; 3: nothing.
    pub case: u8,
    /// As the paper's tables name it.
    pub label: String,
    pub destination: Destination,
    /// Edges that are permitted, and on which it may land.
    pub permitted: Vec<String>,
    /// Edges that must be denied when they are drawn.
    pub denied: Vec<Denied>,
    pub paper_audit_ms: f64,
    /// Absent where the paper denies.
    pub paper_migration_ms: Option<f64>,
}

/// An edge that the paper denies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub edge: String,
    /// The element that it fails, by the paper's name.
    pub element: String,
}

#[derive(Debug, Deserialize)]
struct Decision {
    case: String,
    to: String,
    expect: String,
    note: String,
}

#[derive(Debug, Deserialize)]
struct Measured {
    case: u8,
    to: String,
    data_audit_ms: f64,
    migration_ms: f64,
}

fn rows<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    text: &str,
) -> Result<Vec<T>, TableError> {
    csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|source| TableError { table, source })
}

fn records(table: &'static str, text: &str) -> Result<Vec<csv::StringRecord>, TableError> {
    csv::Reader::from_reader(text.as_bytes())
        .into_records()
        .collect::<Result<_, _>>()
        .map_err(|source| TableError { table, source })
}

/// The eight edges of the lab.
///
/// # Errors
/// [`TableError`].
pub fn edges() -> Result<Vec<Edge>, TableError> {
    /// Columns of a row: its name, and what is read at the time of an audit.
    const NAME: usize = 1;
    const USAGE: usize = 2;
    let rows = records("edges.csv", EDGES)?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let attributes: Vec<&str> = row
                .iter()
                .skip(NAME)
                .take(row.len().saturating_sub(NAME + USAGE))
                .collect();
            let [region, _, organization, ..] = attributes.as_slice() else {
                return None;
            };
            // Table 4 stands in the same file and is no edge of the lab: it has no region.
            (!region.is_empty()).then(|| Edge {
                name: row.get(0).unwrap_or_default().to_owned(),
                organization: (*organization).to_owned(),
                attributes: attributes.join(" "),
            })
        })
        .collect())
}

/// App1.
///
/// # Errors
/// [`TableError`].
pub fn container() -> Result<Option<Container>, TableError> {
    let rows = records("containers.csv", CONTAINERS)?;
    Ok(rows.iter().find_map(|row| {
        let mut columns = row.iter();
        let (name, edge) = (columns.next()?, columns.next()?);
        (!edge.is_empty()).then(|| Container {
            name: name.to_owned(),
            edge: edge.to_owned(),
            requirements: columns.collect::<Vec<_>>().join(" "),
        })
    }))
}

/// Every run of the paper's cases 1 to 3, in the paper's order.
///
/// # Errors
/// [`TableError`].
pub fn runs() -> Result<Vec<Run>, TableError> {
    let decisions: Vec<Decision> = rows("decisions.csv", DECISIONS)?;
    let measured: Vec<Measured> = rows("results.csv", RESULTS)?;
    Ok(measured
        .into_iter()
        .filter_map(|figures| {
            // Table 8's rows are named after their runs; what is asked for is `anywhere`.
            let to = if figures.case == 3 {
                "anywhere"
            } else {
                &figures.to
            };
            let decision = decisions
                .iter()
                .find(|decision| decision.case == figures.case.to_string() && decision.to == to)?;
            Some(run(&figures, to, decision, &decisions))
        })
        .collect())
}

fn run(figures: &Measured, to: &str, decision: &Decision, all: &[Decision]) -> Run {
    let destination = match to.strip_prefix("region ") {
        Some(region) => Destination::Region(region.to_owned()),
        None if to == "anywhere" => Destination::Anywhere,
        None => Destination::Edge(to.to_owned()),
    };
    let is_permitted = decision.expect == "permit";
    let (permitted, denied) = match (&destination, is_permitted) {
        (Destination::Edge(edge), true) => (vec![edge.clone()], Vec::new()),
        (Destination::Edge(edge), false) => (Vec::new(), vec![edge.clone()]),
        // The note of a region's row: `lands on EdgeX or EdgeY; EdgeZ … denied …`.
        _ => {
            let note = decision.note.as_str();
            let (lands_on, denied) = note.split_once(';').unwrap_or((note, ""));
            (edge_names(lands_on), edge_names(denied))
        }
    };
    // What an edge fails stands where it alone is asked for.
    let element_of = |edge: &String| {
        all.iter()
            .find(|decision| decision.case == "1" && decision.to == *edge)
            .map(|decision| decision.note.clone())
            .unwrap_or_default()
    };
    Run {
        case: figures.case,
        label: figures.to.clone(),
        destination,
        denied: denied
            .into_iter()
            .map(|edge| Denied {
                element: element_of(&edge),
                edge,
            })
            .collect(),
        permitted,
        paper_audit_ms: figures.data_audit_ms,
        paper_migration_ms: is_permitted.then_some(figures.migration_ms),
    }
}

fn edge_names(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| word.starts_with("Edge"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_of_the_cases_is_run() {
        let runs = runs().unwrap();
        assert_eq!(runs.iter().filter(|run| run.case == 1).count(), 7);
        assert_eq!(runs.iter().filter(|run| run.case == 2).count(), 3);
        assert_eq!(runs.iter().filter(|run| run.case == 3).count(), 5);
        let denied = |run: &Run| -> Vec<String> {
            run.denied
                .iter()
                .map(|denied| format!("{} by {}", denied.edge, denied.element))
                .collect()
        };
        let edge2 = runs.first().unwrap();
        assert_eq!(denied(edge2), ["Edge2 by cDAl"]);
        assert_eq!(edge2.permitted, Vec::<String>::new());
        assert_eq!(edge2.paper_migration_ms, None);
        let region_c = runs.iter().find(|run| run.label == "region C").unwrap();
        assert_eq!(region_c.permitted, ["Edge5"]);
        assert_eq!(denied(region_c), ["Edge4 by cDAo", "Edge6 by cDAl"]);
        let anywhere = runs.last().unwrap();
        assert_eq!(anywhere.permitted, ["Edge3", "Edge5", "Edge7", "Edge8"]);
        assert_eq!(
            denied(anywhere),
            ["Edge2 by cDAl", "Edge4 by cDAo", "Edge6 by cDAl"]
        );
    }

    #[test]
    fn the_container_and_the_edges_are_the_papers() {
        let app1 = container().unwrap().unwrap();
        assert_eq!(app1.requirements, "jp,us,fr -caB * lxc 60 50 1.6 4 * * *");
        assert_eq!(app1.edge, "Edge1");
        let edges = edges().unwrap();
        assert_eq!(edges.len(), 8);
        let edge4 = edges.get(3).unwrap();
        assert_eq!(edge4.organization, "caB");
        assert_eq!(edge4.attributes, "C us caB deD lxc 2.6 8 - - -");
    }
}
