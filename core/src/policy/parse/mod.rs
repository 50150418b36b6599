//! Policies as people and programs write them. Whatever the format, each field becomes a
//! [`Cell`]; [`field`] reads cells, and collects every fault on the way.

mod cell;
mod csv;
mod field;
mod suggest;

pub use self::csv::{EdgeRow, attributes_from_csv, requirements_from_csv};
pub use suggest::nearest;

use std::collections::BTreeMap;

use serde_json::Value;

use self::cell::Cell;
use super::{Attributes, Element, Faults, Requirements};

/// The most entries that a list may have.
pub const MAX_LIST: usize = 256;
/// The longest compact row, in bytes.
const MAX_ROW: usize = 64 * 1024;

/// The cells of one policy, by their long names.
type Cells = BTreeMap<&'static str, Cell>;

/// Both names of each field: the word that we use, and the paper's.
type Columns = [(&'static str, &'static str)];

const REQUIREMENT_COLUMNS: [(&str, &str); 11] = {
    let mut columns = [("", ""); 11];
    let mut i = 0;
    while i < columns.len() {
        #[expect(
            clippy::indexing_slicing,
            reason = "both arrays have eleven elements; checked at compile time"
        )]
        {
            columns[i] = (Element::ALL[i].name(), Element::ALL[i].paper_name());
        }
        i += 1;
    }
    columns
};

/// Reads an object with the long names. What is left out is not considered.
///
/// # Errors
/// Every fault at once.
pub fn requirements_from_json(value: &Value) -> Result<Requirements, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_json(value, &REQUIREMENT_COLUMNS, &mut faults);
    let requirements = field::requirements(&cells, &mut faults);
    faults.into_result(requirements)
}

/// Reads an object with the long names. What is left out is not known.
///
/// # Errors
/// Every fault at once.
pub fn attributes_from_json(value: &Value) -> Result<Attributes, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_json(value, &Attributes::COLUMNS, &mut faults);
    let attributes = field::attributes(&cells, &mut faults);
    faults.into_result(attributes)
}

/// Reads TOML with the long names; faults have line and column.
///
/// # Errors
/// Every fault at once.
pub fn requirements_from_toml(text: &str) -> Result<Requirements, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_toml(text, &REQUIREMENT_COLUMNS, &mut faults);
    let requirements = field::requirements(&cells, &mut faults);
    faults.into_result(requirements)
}

/// Reads TOML with the long names; faults have line and column.
///
/// # Errors
/// Every fault at once.
pub fn attributes_from_toml(text: &str) -> Result<Attributes, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_toml(text, &Attributes::COLUMNS, &mut faults);
    let attributes = field::attributes(&cells, &mut faults);
    faults.into_result(attributes)
}

/// Reads a row of the paper's Table 5: the eleven elements in the paper's order, separated by
/// white space, as in `jp,us,fr -caB * lxc 60 50 1.6 4 * * *`.
///
/// # Errors
/// Every fault at once.
pub fn requirements_from_compact(row: &str) -> Result<Requirements, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_row(row, &REQUIREMENT_COLUMNS, &mut faults);
    let requirements = field::requirements(&cells, &mut faults);
    faults.into_result(requirements)
}

/// Reads a row of the paper's Table 6: region and the nine attributes, separated by white
/// space, as in `B de caA deB lxc 2.6 8 - - -`.
///
/// # Errors
/// Every fault at once.
pub fn attributes_from_compact(row: &str) -> Result<Attributes, Faults> {
    let mut faults = Faults::default();
    let cells = cell::from_row(row, &Attributes::COLUMNS, &mut faults);
    let attributes = field::attributes(&cells, &mut faults);
    faults.into_result(attributes)
}
