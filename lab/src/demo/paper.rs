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
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    pub name: String,
    pub region: String,
    #[serde(rename = "eDAl")]
    pub location: String,
    #[serde(rename = "eDAo")]
    pub organizations: String,
    #[serde(rename = "eHRh")]
    pub manufacturer: String,
    #[serde(rename = "eHRt")]
    pub virtualization: String,
    #[serde(rename = "eHRc")]
    pub cpu_ghz: f64,
    #[serde(rename = "eHRm")]
    pub memory_gb: f64,
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
    pub permitted: bool,
    /// Edges on which it may land; for a denied edge, none.
    pub lands_on: Vec<String>,
    /// Edges that must be denied when they are drawn.
    pub denied: Vec<String>,
    /// The element that must be among the reasons, by the paper's name.
    pub denied_by: Option<String>,
    pub paper_audit_ms: f64,
    /// Absent where the paper denies.
    pub paper_migration_ms: Option<f64>,
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

/// The eight edges of the lab.
///
/// # Errors
/// [`TableError`].
pub fn edges() -> Result<Vec<Edge>, TableError> {
    let mut edges: Vec<Edge> = rows("edges.csv", EDGES)?;
    // Table 4 stands in the same file and is no edge of the lab: it has no region.
    edges.retain(|edge| !edge.region.is_empty());
    Ok(edges)
}

/// App1.
///
/// # Errors
/// [`TableError`].
pub fn container() -> Result<Option<Container>, TableError> {
    let rows: Vec<csv::StringRecord> = csv::Reader::from_reader(CONTAINERS.as_bytes())
        .into_records()
        .collect::<Result<_, _>>()
        .map_err(|source| TableError {
            table: "containers.csv",
            source,
        })?;
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
            let to = if figures.case == 3 { "anywhere" } else { &figures.to };
            let decision = decisions
                .iter()
                .find(|decision| decision.case == figures.case.to_string() && decision.to == to)?;
            Some(run(&figures, to, decision))
        })
        .collect())
}

fn run(figures: &Measured, to: &str, decision: &Decision) -> Run {
    let destination = match to.strip_prefix("region ") {
        Some(region) => Destination::Region(region.to_owned()),
        None if to == "anywhere" => Destination::Anywhere,
        None => Destination::Edge(to.to_owned()),
    };
    let permitted = decision.expect == "permit";
    let (lands_on, denied, denied_by) = match (&destination, permitted) {
        (Destination::Edge(edge), true) => (vec![edge.clone()], Vec::new(), None),
        (Destination::Edge(edge), false) => {
            (Vec::new(), vec![edge.clone()], Some(decision.note.clone()))
        }
        // The note of a region's row: `lands on EdgeX or EdgeY; EdgeZ … denied …`.
        _ => {
            let (lands_on, denied) = decision.note.split_once(';').unwrap_or((&decision.note, ""));
            (edge_names(lands_on), edge_names(denied), None)
        }
    };
    Run {
        case: figures.case,
        label: figures.to.clone(),
        destination,
        permitted,
        lands_on,
        denied,
        denied_by,
        paper_audit_ms: figures.data_audit_ms,
        paper_migration_ms: permitted.then_some(figures.migration_ms),
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
        let edge2 = runs.first().unwrap();
        assert_eq!(edge2.denied_by.as_deref(), Some("cDAl"));
        assert_eq!(edge2.paper_migration_ms, None);
        let region_c = runs.iter().find(|run| run.label == "region C").unwrap();
        assert_eq!(region_c.lands_on, ["Edge5"]);
        assert_eq!(region_c.denied, ["Edge4", "Edge6"]);
        let anywhere = runs.last().unwrap();
        assert_eq!(anywhere.lands_on, ["Edge3", "Edge5", "Edge7", "Edge8"]);
        assert_eq!(anywhere.denied, ["Edge2", "Edge4", "Edge6"]);
    }

    #[test]
    fn the_container_and_the_edges_are_the_papers() {
        let app1 = container().unwrap().unwrap();
        assert_eq!(app1.requirements, "jp,us,fr -caB * lxc 60 50 1.6 4 * * *");
        assert_eq!(app1.edge, "Edge1");
        assert_eq!(edges().unwrap().len(), 8);
    }
}
