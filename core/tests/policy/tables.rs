//! The files of `fixtures/policy`: a row is a container's requirements, an edge's attributes and
//! its utilization, each cell as the paper writes it, and what must be decided of them.
//!
//! Columns that a file leaves out, and empty cells, are absent. `expect` is `permit` or the
//! elements that deny; `reason`, where a file has it, is all that is said of the denial. Every
//! row goes through the real parsers, and through the form for fleets as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use carnet_core::instant::UnixMillis;
use carnet_core::policy::compiled::Fleet;
use carnet_core::policy::{
    Attributes, Element, Requirements, Utilization, Verdict, attributes_from_csv, audit,
    requirements_from_csv,
};

use crate::written::{MAX_READING_AGE_MS, NOW, WrittenReading};

/// Columns of a table that belong to neither policy.
const OTHER_COLUMNS: [&str; 6] = [
    "cpu_usage",
    "memory_usage",
    "age_ms",
    "expect",
    "reason",
    "why",
];

struct Row {
    /// File and line.
    place: String,
    /// As written.
    cells: BTreeMap<String, String>,
    requirements: Requirements,
    attributes: Attributes,
    utilization: Option<Utilization>,
}

impl Row {
    fn cell(&self, column: &str) -> &str {
        self.cells.get(column).map_or("", String::as_str)
    }

    fn verdict(&self) -> Verdict {
        decide(
            &self.requirements,
            &self.attributes,
            self.utilization.as_ref(),
        )
    }
}

/// The verdict of `audit`, after it was seen that the form for fleets says the same.
pub fn decide(
    requirements: &Requirements,
    attributes: &Attributes,
    utilization: Option<&Utilization>,
) -> Verdict {
    let verdict = audit(
        requirements,
        attributes,
        utilization,
        NOW,
        MAX_READING_AGE_MS,
    );
    let mut fleet = Fleet::default();
    let position = fleet.push(attributes).unwrap();
    let fresh = utilization.filter(|reading| reading.is_fresh(NOW, MAX_READING_AGE_MS));
    assert_eq!(
        fleet.compile(requirements).permits(position, fresh),
        verdict == Verdict::Permit,
        "{} at {}",
        requirements.to_compact(),
        attributes.to_compact()
    );
    verdict
}

/// `permit`, or the elements that deny by the paper's names.
pub fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Permit => "permit".to_owned(),
        Verdict::Deny(reasons) => {
            let elements: Vec<_> = reasons
                .iter()
                .map(|reason| reason.element.paper_name())
                .collect();
            elements.join(" ")
        }
    }
}

/// The rows of one file of the package's fixtures.
pub fn rows(file: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(file).unwrap();
    let header = reader.headers().unwrap().clone();
    reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let cells = header.iter().zip(&record);
            cells
                .map(|(title, cell)| (title.to_owned(), cell.to_owned()))
                .collect()
        })
        .collect()
}

/// One row as a file of its own, with the columns that `keep` keeps.
fn one_row(cells: &BTreeMap<String, String>, keep: impl Fn(&str) -> bool) -> String {
    let kept: Vec<_> = cells.iter().filter(|(title, _)| keep(title)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let titles = kept.iter().map(|(title, _)| title.as_str());
    writer
        .write_record(std::iter::once("name").chain(titles))
        .unwrap();
    let values = kept.iter().map(|(_, value)| value.as_str());
    writer
        .write_record(std::iter::once("row").chain(values))
        .unwrap();
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

fn read(place: String, cells: BTreeMap<String, String>) -> Row {
    let is_requirement = |title: &str| {
        Element::ALL
            .iter()
            .any(|element| element.paper_name() == title)
    };
    let text = one_row(&cells, is_requirement);
    let (_, requirements) = requirements_from_csv(&text)
        .unwrap_or_else(|faults| panic!("{place}: {faults}"))
        .remove(0);
    let text = one_row(&cells, |title| {
        !is_requirement(title) && !OTHER_COLUMNS.contains(&title)
    });
    let attributes = attributes_from_csv(&text)
        .unwrap_or_else(|faults| panic!("{place}: {faults}"))
        .remove(0)
        .attributes;
    let cell = |title: &str| cells.get(title).filter(|cell| !cell.is_empty());
    let utilization = match (cell("cpu_usage"), cell("memory_usage"), cell("age_ms")) {
        (Some(cpu), Some(memory), Some(age_ms)) => {
            let reading = WrittenReading {
                cpu: cpu.clone(),
                memory: memory.clone(),
                age_ms: age_ms.parse().unwrap(),
            };
            Some(reading.utilization())
        }
        (None, None, None) => None,
        _ => panic!("{place}: half a reading"),
    };
    Row {
        place,
        cells,
        requirements,
        attributes,
        utilization,
    }
}

/// Every row of every file.
fn all() -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (position, cells) in rows(&file).into_iter().enumerate() {
            // After the header, and counted from one.
            all.push(read(format!("{name}:{}", position + 2), cells));
        }
    }
    all
}

#[test]
fn every_row_is_decided_as_it_says() {
    let mut wrong = Vec::new();
    for row in all() {
        let found = told(&row.verdict());
        if found != row.cell("expect") {
            wrong.push(format!(
                "{}: {found} instead of {} ({})",
                row.place,
                row.cell("expect"),
                row.cell("why")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_denial_says_what_is_required_what_was_found_and_what_would_do() {
    let mut told = 0;
    for row in all().iter().filter(|row| !row.cell("reason").is_empty()) {
        let Verdict::Deny(reasons) = row.verdict() else {
            panic!("{}: permitted", row.place);
        };
        let found: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(found.join("\n"), row.cell("reason"), "{}", row.place);
        told += 1;
    }
    assert!(told >= Element::ALL.len(), "{told} reasons");
}

#[test]
fn every_element_permits_in_one_row_and_alone_denies_in_another() {
    let (mut permits, mut denies) = (BTreeSet::new(), BTreeSet::new());
    for row in all() {
        let expected = row.cell("expect");
        for element in Element::ALL {
            let name = element.paper_name();
            let asked = row.requirements.written(element) != "*";
            if expected == name {
                denies.insert(element);
            } else if asked && !expected.split(' ').any(|denied| denied == name) {
                permits.insert(element);
            }
        }
    }
    assert_eq!(permits, BTreeSet::from(Element::ALL));
    assert_eq!(denies, BTreeSet::from(Element::ALL));
}

#[test]
fn a_reading_is_fresh_at_the_ends_of_time_too() {
    let read_at = |instant| Utilization::new(0, 0, UnixMillis(instant)).unwrap();
    let (first, last) = (UnixMillis(i64::MIN), UnixMillis(i64::MAX));
    assert!(!read_at(i64::MIN).is_fresh(last, 60_000));
    assert!(!read_at(i64::MAX).is_fresh(first, u64::MAX));
    assert!(read_at(i64::MIN).is_fresh(last, u64::MAX));
    assert!(read_at(i64::MIN).is_fresh(first, 0));
}
