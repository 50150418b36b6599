use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::requirements::{list_or, number};
use super::{Country, Frequency, Memory, Name, Region};

/// What an edge's owner declares of it (paper, Table 2). The default is an edge of which
/// nothing is known, and what is not known never passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// eDAl
    pub location: Option<Country>,
    /// The region of ours that it belongs to (paper, Table 7).
    pub region: Option<Region>,
    /// eDAo: every organization that manages it; empty: not known.
    pub organizations: BTreeSet<Name>,
    /// eHRh
    pub manufacturer: Option<Name>,
    /// eHRt: its tools; empty: none or not known.
    pub virtualization: BTreeSet<Name>,
    /// eHRc
    pub cpu: Option<Frequency>,
    /// eHRm
    pub memory: Option<Memory>,
    /// eHRgpu; `None`: not known.
    pub ai_support: Option<bool>,
    /// eHRac
    pub ai_accessories: BTreeSet<Name>,
    /// eHRaf
    pub ai_frameworks: BTreeSet<Name>,
}

impl Attributes {
    /// The names of the attributes in JSON, TOML and CSV, with the paper's, in the order of a
    /// compact row.
    pub const COLUMNS: [(&'static str, &'static str); 10] = [
        ("region", "region"),
        ("location", "eDAl"),
        ("organizations", "eDAo"),
        ("manufacturer", "eHRh"),
        ("virtualization", "eHRt"),
        ("cpu_ghz", "eHRc"),
        ("memory_gb", "eHRm"),
        ("ai_support", "eHRgpu"),
        ("ai_accessories", "eHRac"),
        ("ai_frameworks", "eHRaf"),
    ];

    /// What is declared under a name of [`Attributes::COLUMNS`], as the paper's tables write it;
    /// `-`: none or not known.
    pub fn written(&self, column: &str) -> String {
        fn or_none<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        match column {
            "region" => or_none(self.region.as_ref()),
            "location" => or_none(self.location.as_ref()),
            "organizations" => list_or(&self.organizations, "-"),
            "manufacturer" => or_none(self.manufacturer.as_ref()),
            "virtualization" => list_or(&self.virtualization, "-"),
            "cpu_ghz" => or_none(self.cpu.as_ref()),
            "memory_gb" => or_none(self.memory.as_ref()),
            "ai_support" => match self.ai_support {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
            "ai_accessories" => list_or(&self.ai_accessories, "-"),
            "ai_frameworks" => list_or(&self.ai_frameworks, "-"),
            _ => String::new(),
        }
    }

    /// One row of the paper's Table 6: region and the nine attributes, separated by spaces.
    pub fn to_compact(&self) -> String {
        Self::COLUMNS.map(|(name, _)| self.written(name)).join(" ")
    }

    /// An object with the long names; what is not known is left out.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (name, _) in Self::COLUMNS {
            let written = self.written(name);
            if written == "-" {
                continue;
            }
            let value = match name {
                "organizations" | "virtualization" | "ai_accessories" | "ai_frameworks" => {
                    written.split(',').collect::<Vec<_>>().into()
                }
                "cpu_ghz" | "memory_gb" => number(&written),
                "ai_support" => json!(self.ai_support),
                _ => written.into(),
            };
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
}
