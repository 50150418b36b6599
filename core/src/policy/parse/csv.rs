use std::collections::BTreeSet;

use super::cell::{self, Cell};
use super::{Cells, Columns, REQUIREMENT_COLUMNS, field};
use crate::policy::{Attributes, Fault, Faults, Requirements};

/// The most rows that are read of one file.
const MAX_ROWS: usize = 100_000;

/// An edge's row: its name and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRow {
    pub name: String,
    pub attributes: Attributes,
}

/// Reads containers: a header with `name` and any of the elements, by our words or the paper's
/// names (Table 5), then a container a row. Other columns are faults, but for `edge`.
///
/// # Errors
/// Every fault of every row at once.
pub fn requirements_from_csv(text: &str) -> Result<Vec<(String, Requirements)>, Faults> {
    read(text, &REQUIREMENT_COLUMNS, &["edge"], field::requirements)
}

/// Reads edges: a header with `name` and any of the attributes, by our words or the paper's
/// names (Table 6), then an edge a row. Other columns are faults, but for `cpu_usage` and
/// `memory_usage`, which the paper prints and no owner declares.
///
/// # Errors
/// Every fault of every row at once.
pub fn attributes_from_csv(text: &str) -> Result<Vec<EdgeRow>, Faults> {
    let rows = read(
        text,
        &Attributes::COLUMNS,
        &["cpu_usage", "memory_usage"],
        field::attributes,
    )?;
    Ok(rows
        .into_iter()
        .map(|(name, attributes)| EdgeRow { name, attributes })
        .collect())
}

fn read<T>(
    text: &str,
    columns: &'static Columns,
    ignored: &[&str],
    policy: impl Fn(&Cells, &mut Faults) -> T,
) -> Result<Vec<(String, T)>, Faults> {
    let mut faults = Faults::default();
    let mut reader = ::csv::ReaderBuilder::new()
        .trim(::csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(Faults(vec![malformed(text, &error)])),
    };
    let header_line = header.position().map_or(1, |at| line_of(text, at));
    let header_place = format!("line {header_line}");
    let mut seen = BTreeSet::new();
    for name in &header {
        let column = cell::column(name, columns);
        let known = name == "name" || ignored.contains(&name);
        if !known && column.is_none() {
            faults
                .0
                .push(cell::unknown_field(&header_place, name, columns));
        } else if !seen.insert(column.unwrap_or(name)) {
            // One of the two would be left out, and with it what somebody requires.
            faults.0.push(Fault {
                found: name.to_owned(),
                ..fault(&header_place, "a column twice", "every column once")
            });
        }
    }
    if !header.iter().any(|name| name == "name") {
        faults
            .0
            .push(fault(&header_place, "no column `name`", "a column `name`"));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        if rows.len() == MAX_ROWS {
            faults.0.push(fault(
                "file",
                "too many rows",
                &format!("at most {MAX_ROWS} rows"),
            ));
            break;
        }
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                faults.0.push(malformed(text, &error));
                continue;
            }
        };
        let line = record.position().map_or(0, |at| line_of(text, at));
        let mut cells = Cells::new();
        let mut name = "";
        for (title, text) in header.iter().zip(&record) {
            if title == "name" {
                name = text;
            } else if let Some(word) = cell::column(title, columns)
                && !text.is_empty()
            {
                let place = format!("line {line}, {title}");
                cells.insert(word, Cell::from_text(place, text));
            }
        }
        rows.push((name.to_owned(), policy(&cells, &mut faults)));
    }
    faults.into_result(rows)
}

fn malformed(text: &str, error: &::csv::Error) -> Fault {
    let line = error.position().map_or(1, |at| line_of(text, at));
    let problem = match error.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields instead of {expected_len}"),
        _ => error.to_string(),
    };
    fault(
        &format!("line {line}"),
        &problem,
        "comma-separated values with as many fields as the header",
    )
}

/// The line on which a record begins. The reader's own count is taken before it skips what is
/// left of the line before (the second half of `\r\n`) and empty lines.
fn line_of(text: &str, at: &::csv::Position) -> u64 {
    let skipped = usize::try_from(at.byte())
        .ok()
        .and_then(|start| text.as_bytes().get(start..))
        .unwrap_or_default()
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|byte| **byte == b'\n')
        .count();
    at.line() + skipped as u64
}

fn fault(place: &str, problem: &str, allowed: &str) -> Fault {
    Fault {
        place: place.to_owned(),
        found: String::new(),
        problem: problem.to_owned(),
        allowed: allowed.to_owned(),
        suggestion: None,
    }
}
