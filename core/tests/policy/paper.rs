//! What the paper decides: its containers, its edges and its decisions, from the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use carnet_core::placement::Draw;
use carnet_core::policy::{
    Attributes, Requirements, Utilization, Verdict, attributes_from_csv, requirements_from_csv,
};

use crate::tables::{decide, rows, told};
use crate::written::WrittenReading;

struct Edge {
    attributes: Attributes,
    utilization: Utilization,
}

impl Edge {
    fn verdict(&self, container: &Container) -> Verdict {
        decide(
            &container.requirements,
            &self.attributes,
            Some(&self.utilization),
        )
    }
}

struct Container {
    /// The edge that it runs on; empty: none of the lab's.
    edge: String,
    requirements: Requirements,
}

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures/paper", name]
        .iter()
        .collect()
}

fn edges() -> BTreeMap<String, Edge> {
    let text = std::fs::read_to_string(file("edges.csv")).unwrap();
    let read = attributes_from_csv(&text).unwrap();
    let printed = rows(&file("edges.csv"));
    assert_eq!(read.len(), printed.len());
    read.into_iter()
        .zip(printed)
        .map(|(row, printed)| {
            assert_eq!(row.name, printed["name"]);
            let reading = WrittenReading {
                cpu: printed["cpu_usage"].clone(),
                memory: printed["memory_usage"].clone(),
                age_ms: 0,
            };
            let edge = Edge {
                attributes: row.attributes,
                utilization: reading.utilization(),
            };
            (row.name, edge)
        })
        .collect()
}

fn containers() -> BTreeMap<String, Container> {
    let text = std::fs::read_to_string(file("containers.csv")).unwrap();
    let read = requirements_from_csv(&text).unwrap();
    let printed = rows(&file("containers.csv"));
    assert_eq!(read.len(), printed.len());
    read.into_iter()
        .zip(printed)
        .map(|((name, requirements), printed)| {
            assert_eq!(name, printed["name"]);
            let container = Container {
                edge: printed["edge"].clone(),
                requirements,
            };
            (name, container)
        })
        .collect()
}

/// The edges named in a part of a note.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.starts_with("Edge"))
        .map(str::to_owned)
        .collect()
}

/// The edges of the lab that a destination names, but for the one that the container is on.
fn candidates<'a>(
    edges: &'a BTreeMap<String, Edge>,
    to: &str,
    container: &Container,
) -> BTreeMap<&'a String, &'a Edge> {
    edges
        .iter()
        .filter(|(name, edge)| {
            **name != container.edge
                && edge
                    .attributes
                    .region
                    .as_ref()
                    .is_some_and(|region| to == "anywhere" || to == format!("region {region}"))
        })
        .collect()
}

#[test]
fn every_edge_that_is_named_is_decided_as_the_paper_decides() {
    let (edges, containers) = (edges(), containers());
    let mut decided = 0;
    for row in rows(&file("decisions.csv")) {
        let Some(edge) = edges.get(&row["to"]) else {
            continue;
        };
        let expected = match row["expect"].as_str() {
            "permit" => "permit",
            "deny" => {
                let note = row["note"].strip_prefix("only ").unwrap_or(&row["note"]);
                note.strip_suffix(" fails").unwrap_or(note)
            }
            other => panic!("neither permit nor deny: {other}"),
        };
        let verdict = edge.verdict(&containers[&row["container"]]);
        assert_eq!(told(&verdict), expected, "{row:?}");
        decided += 1;
    }
    assert_eq!(decided, 8);
}

#[test]
fn in_a_region_and_anywhere_those_edges_permit_that_the_paper_lands_on() {
    let (edges, containers) = (edges(), containers());
    let mut decided = 0;
    for row in rows(&file("decisions.csv")) {
        if edges.contains_key(&row["to"]) {
            continue;
        }
        assert_eq!(row["expect"], "permit", "{row:?}");
        let container = &containers[&row["container"]];
        let candidates = candidates(&edges, &row["to"], container);
        let (lands, denied) = row["note"].split_once(';').unwrap_or((&row["note"], ""));
        let (lands, denied) = (named(lands), named(denied));
        let (permitting, denying): (Vec<_>, Vec<_>) = candidates
            .iter()
            .partition(|(_, edge)| edge.verdict(container) == Verdict::Permit);
        let names = |edges: Vec<(&&String, &&Edge)>| {
            edges
                .into_iter()
                .map(|(name, _)| (*name).clone())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(permitting), lands, "{row:?}");
        assert_eq!(names(denying), denied, "{row:?}");

        // Drawn until one is permitted: whatever the order, it lands there and nowhere else.
        let count = candidates.len() as u64;
        let mut landed = BTreeSet::new();
        for first in 0..count {
            for second in 0..count {
                let mut numbers = [first, second].into_iter().chain(std::iter::repeat(0));
                let draw = Draw::new(candidates.iter().collect(), || numbers.next().unwrap());
                let drawn = { draw }.find(|(_, edge)| edge.verdict(container) == Verdict::Permit);
                landed.insert((*drawn.expect("one permits").0).clone());
            }
        }
        assert_eq!(landed, lands, "{row:?}");
        decided += 1;
    }
    assert_eq!(decided, 4);
}

#[test]
fn every_row_of_the_papers_tables_reads_the_same_in_compact_form() {
    for (name, container) in containers() {
        let row = container.requirements.to_compact();
        let read = carnet_core::policy::requirements_from_compact(&row).unwrap();
        assert_eq!(read, container.requirements, "{name}: {row}");
    }
    for (name, edge) in edges() {
        let row = edge.attributes.to_compact();
        let read = carnet_core::policy::attributes_from_compact(&row).unwrap();
        assert_eq!(read, edge.attributes, "{name}: {row}");
    }
    assert_eq!(
        containers()["App1"].requirements.to_compact(),
        "fr,jp,us -caB * lxc 60 50 1.6 4 * * *"
    );
    assert_eq!(
        edges()["Edge2"].attributes.to_compact(),
        "B de caA deB lxc 2.6 8 - - -"
    );
}
