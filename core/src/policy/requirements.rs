use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{AllowList, Element, Frequency, Location, Memory, Name, Percent};

/// What a container's owner requires of an edge (paper, Table 1). Satisfied only if every
/// element is; the default asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requirements {
    /// cDAl
    pub allowed_locations: AllowList<Location>,
    /// cDAo
    pub allowed_organizations: AllowList<Name>,
    /// cHRh
    pub allowed_manufacturers: AllowList<Name>,
    /// cHRt
    pub virtualization: Option<Name>,
    /// cHRcu
    pub max_cpu: Option<Percent>,
    /// cHRmu
    pub max_memory: Option<Percent>,
    /// cHRc
    pub min_cpu: Option<Frequency>,
    /// cHRm
    pub min_memory: Option<Memory>,
    /// cHRgpu
    pub ai_support: bool,
    /// cHRac
    pub ai_accessories: BTreeSet<Name>,
    /// cHRaf
    pub ai_frameworks: BTreeSet<Name>,
}

impl Requirements {
    /// What `element` asks for, as the paper's tables write it; `*`: nothing.
    pub fn written(&self, element: Element) -> String {
        match element {
            Element::AllowedLocations => self.allowed_locations.to_string(),
            Element::AllowedOrganizations => self.allowed_organizations.to_string(),
            Element::AllowedManufacturers => self.allowed_manufacturers.to_string(),
            Element::Virtualization => or_any(self.virtualization.as_ref()),
            Element::MaxCpuPercent => or_any(self.max_cpu.as_ref()),
            Element::MaxMemoryPercent => or_any(self.max_memory.as_ref()),
            Element::MinCpuGhz => or_any(self.min_cpu.as_ref()),
            Element::MinMemoryGb => or_any(self.min_memory.as_ref()),
            Element::AiSupport => if self.ai_support { "yes" } else { "*" }.to_owned(),
            Element::AiAccessories => list_or(&self.ai_accessories, "*"),
            Element::AiFrameworks => list_or(&self.ai_frameworks, "*"),
        }
    }

    /// One row of the paper's Table 5: the eleven elements, separated by spaces.
    pub fn to_compact(&self) -> String {
        Element::ALL.map(|element| self.written(element)).join(" ")
    }

    /// An object with the long names; elements that ask for nothing are left out.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |element: Element, value: Value| {
            object.insert(element.name().to_owned(), value);
        };
        for element in Element::ALL {
            let written = self.written(element);
            if written == "*" {
                continue;
            }
            match element {
                Element::AllowedLocations
                | Element::AllowedOrganizations
                | Element::AllowedManufacturers
                | Element::AiAccessories
                | Element::AiFrameworks => {
                    put(element, written.split(',').collect::<Vec<_>>().into());
                }
                Element::Virtualization => put(element, written.into()),
                Element::AiSupport => put(element, json!(true)),
                Element::MaxCpuPercent
                | Element::MaxMemoryPercent
                | Element::MinCpuGhz
                | Element::MinMemoryGb => put(element, number(&written)),
            }
        }
        Value::Object(object)
    }
}

pub(super) fn or_any<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "*".to_owned(), ToString::to_string)
}

pub(super) fn list_or(names: &BTreeSet<Name>, none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}

/// A decimal number as JSON. At most nine significant digits: it reads back as it was.
pub(super) fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
