use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Cells, Columns, MAX_LIST, MAX_ROW, nearest};
use crate::policy::{Fault, Faults};

/// How much of what somebody wrote is repeated to them, in characters.
const MAX_QUOTED: usize = 64;

/// One field as it was written: its entries, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub place: String,
    pub entries: Vec<String>,
}

impl Cell {
    /// From text with entries separated by commas.
    pub(super) fn from_text(place: String, text: &str) -> Self {
        Self {
            place,
            entries: text
                .split(',')
                .map(|entry| entry.trim().to_owned())
                .collect(),
        }
    }

    /// A fault of this field.
    pub(super) fn fault(&self, found: &str, problem: &str, allowed: &str) -> Fault {
        Fault {
            place: self.place.clone(),
            found: quoted(found),
            problem: problem.to_owned(),
            allowed: allowed.to_owned(),
            suggestion: None,
        }
    }
}

/// The beginning of what somebody wrote, fit to be shown.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_QUOTED)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

fn fault(place: &str, found: &str, problem: &str, allowed: impl Into<String>) -> Fault {
    Fault {
        place: place.to_owned(),
        found: quoted(found),
        problem: problem.to_owned(),
        allowed: allowed.into(),
        suggestion: None,
    }
}

/// The long name of the field that is called `name`, by our word or by the paper's.
pub(super) fn column(name: &str, columns: &Columns) -> Option<&'static str> {
    columns
        .iter()
        .find(|(word, paper)| *word == name || *paper == name)
        .map(|(word, _)| *word)
}

/// The fault of a field that there is none of.
pub(super) fn unknown_field(place: &str, name: &str, columns: &Columns) -> Fault {
    let words = columns.iter().map(|(word, _)| *word);
    let meant = column(name, columns).or_else(|| nearest(name, words.clone()));
    Fault {
        suggestion: meant.map(str::to_owned),
        ..fault(
            place,
            name,
            "there is no such field",
            words.collect::<Vec<_>>().join(", "),
        )
    }
}

/// Reads a row: one entry per column, separated by white space.
pub(super) fn from_row(row: &str, columns: &'static Columns, faults: &mut Faults) -> Cells {
    let mut cells = Cells::new();
    if row.len() > MAX_ROW {
        faults.0.push(fault(
            "row",
            row,
            "the row is too long",
            format!("at most {MAX_ROW} bytes"),
        ));
        return cells;
    }
    let fields: Vec<&str> = row.split_whitespace().collect();
    if fields.len() != columns.len() {
        faults.0.push(fault(
            "row",
            row,
            &format!("{} fields instead of {}", fields.len(), columns.len()),
            columns
                .iter()
                .map(|(word, paper)| format!("{word} ({paper})"))
                .collect::<Vec<_>>()
                .join(", "),
        ));
        return cells;
    }
    for (position, (field, (word, paper))) in fields.iter().zip(columns).enumerate() {
        let place = format!("field {}, {}", position + 1, both_names(word, paper));
        cells.insert(word, Cell::from_text(place, field));
    }
    cells
}

/// `allowed_locations (cDAl)`.
pub(super) fn both_names(word: &str, paper: &str) -> String {
    if word == paper {
        word.to_owned()
    } else {
        format!("{word} ({paper})")
    }
}

/// What a field may hold besides text, in formats that tell the two apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: `false` is no answer to "which country" (it is not Norway, `no`).
    Text,
    Number,
    Truth,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "max_cpu_percent" | "max_memory_percent" | "min_cpu_ghz" | "min_memory_gb"
            | "cpu_ghz" | "memory_gb" => Self::Number,
            "ai_support" => Self::Truth,
            _ => Self::Text,
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Self::Text => "text, or a list of texts",
            Self::Number => "a number, or text",
            Self::Truth => "true or false, or text",
        }
    }
}

/// Reads an object.
pub(super) fn from_json(value: &Value, columns: &'static Columns, faults: &mut Faults) -> Cells {
    let mut cells = Cells::new();
    let Some(object) = value.as_object() else {
        faults.0.push(fault(
            "policy",
            &value.to_string(),
            "not an object",
            "an object with the fields of a policy",
        ));
        return cells;
    };
    for (name, value) in object {
        let Some(word) = columns
            .iter()
            .map(|(word, _)| *word)
            .find(|word| word == name)
        else {
            let place = if name.is_empty() {
                "policy".to_owned()
            } else {
                quoted(name)
            };
            faults.0.push(unknown_field(&place, name, columns));
            continue;
        };
        let place = word.to_owned();
        let kind = Kind::of(word);
        let entries = match value {
            Value::Null => continue,
            Value::Array(values) => {
                let mut entries = Vec::new();
                for value in values.iter().take(MAX_LIST + 1) {
                    match value {
                        Value::String(text) => entries.push(text.trim().to_owned()),
                        other => faults.0.push(fault(
                            &place,
                            &other.to_string(),
                            "an entry that is not text",
                            "text",
                        )),
                    }
                }
                if entries.is_empty() && !values.is_empty() {
                    continue;
                }
                entries
            }
            Value::String(text) => {
                cells.insert(word, Cell::from_text(place, text));
                continue;
            }
            Value::Number(number) if kind == Kind::Number => vec![number.to_string()],
            Value::Bool(truth) if kind == Kind::Truth => vec![yes_or_no(*truth)],
            Value::Number(_) | Value::Bool(_) | Value::Object(_) => {
                faults.0.push(fault(
                    &place,
                    &value.to_string(),
                    "of the wrong kind",
                    kind.allowed(),
                ));
                continue;
            }
        };
        cells.insert(word, Cell { place, entries });
    }
    cells
}

fn yes_or_no(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

/// Reads TOML.
pub(super) fn from_toml(text: &str, columns: &'static Columns, faults: &mut Faults) -> Cells {
    let mut cells = Cells::new();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = error
            .span()
            .map_or_else(|| "file".to_owned(), |span| position(text, span.start));
        faults.0.push(fault(
            &place,
            "",
            error.message(),
            "TOML, as in: allowed_locations = [\"jp\", \"us\"]",
        ));
    }
    for (name, value) in table.get_ref() {
        let at = position(text, name.span().start);
        let Some(word) = columns
            .iter()
            .map(|(word, _)| *word)
            .find(|word| *word == name.get_ref().as_ref())
        else {
            faults.0.push(unknown_field(&at, name.get_ref(), columns));
            continue;
        };
        let place = format!("{at}, {word}");
        let kind = Kind::of(word);
        match value.get_ref() {
            DeValue::String(text) => {
                cells.insert(word, Cell::from_text(place, text));
            }
            DeValue::Array(values) => {
                let entries = toml_entries(values, text, faults);
                if !entries.is_empty() || values.is_empty() {
                    cells.insert(word, Cell { place, entries });
                }
            }
            other => match toml_scalar(other, kind) {
                Some(entry) => {
                    cells.insert(
                        word,
                        Cell {
                            place,
                            entries: vec![entry],
                        },
                    );
                }
                None => faults.0.push(fault(
                    &place,
                    other.type_str(),
                    "of the wrong kind",
                    kind.allowed(),
                )),
            },
        }
    }
    cells
}

fn toml_scalar(value: &DeValue<'_>, kind: Kind) -> Option<String> {
    match (value, kind) {
        // With its `0x`, if it has one: then it is none of our numbers.
        (DeValue::Integer(number), Kind::Number) => Some(number.to_string()),
        (DeValue::Float(number), Kind::Number) => Some(number.as_str().to_owned()),
        (DeValue::Boolean(truth), Kind::Truth) => Some(yes_or_no(*truth)),
        _ => None,
    }
}

fn toml_entries<'a>(
    values: impl IntoIterator<Item = &'a Spanned<DeValue<'a>>>,
    text: &str,
    faults: &mut Faults,
) -> Vec<String> {
    let mut entries = Vec::new();
    for value in values.into_iter().take(MAX_LIST + 1) {
        match value.get_ref() {
            DeValue::String(entry) => entries.push(entry.trim().to_owned()),
            other => faults.0.push(fault(
                &position(text, value.span().start),
                other.type_str(),
                "an entry that is not text",
                "text",
            )),
        }
    }
    entries
}

/// `line 3, column 9`, counted from one, of a byte offset.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}
