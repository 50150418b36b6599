//! The audit over a whole fleet: a bit per edge, from 16 bytes per edge.
//!
//! Names are interned; what an edge has several of (organizations; tools and what it has for AI)
//! is interned as a set, and a requirement decides each set of the fleet once, when it is
//! compiled. Utilization stays outside the rows: it changes all the time.
//!
//! Says what [`audit`](super::audit) says; `tests/policy/compiled.rs` holds the one against the
//! other.

use std::collections::{BTreeSet, HashMap};

use super::{
    AllowList, Attributes, Country, Location, Name, Region, Requirements, Utilization, Verdict,
    audit,
};
use crate::instant::UnixMillis;

/// No number, name or set is known. Known ones are counted from one.
const UNKNOWN: u16 = 0;

/// One edge's attributes, 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EdgeRow {
    memory_mb: u32,
    cpu_mhz: u16,
    place: u16,
    organizations: u16,
    manufacturer: u16,
    capabilities: u16,
}

const _: () = assert!(size_of::<EdgeRow>() == 16);

/// Which position of a fleet an edge has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

/// A fleet of more than 65,535 different values of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than 65,535 different {0} in one fleet")]
pub struct TooManyValues(&'static str);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Capabilities {
    tools: BTreeSet<Name>,
    ai_support: Option<bool>,
    accessories: BTreeSet<Name>,
    frameworks: BTreeSet<Name>,
}

type Place = (Option<Country>, Option<Region>);

/// Values seen, in the order of their numbers.
#[derive(Debug)]
struct Interned<T> {
    what: &'static str,
    values: Vec<T>,
    numbers: HashMap<T, u16>,
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            values: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    fn number(&mut self, value: T) -> Result<u16, TooManyValues> {
        if let Some(number) = self.numbers.get(&value) {
            return Ok(*number);
        }
        let number = u16::try_from(self.values.len() + 1).map_err(|_| TooManyValues(self.what))?;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        Ok(number)
    }

    /// Which numbers `allowed` admits; `unknown` for number zero.
    fn admitted(&self, unknown: bool, allowed: impl Fn(&T) -> bool) -> Bits {
        let mut bits = Bits(vec![0; self.values.len() / 64 + 1]);
        let values = self.values.iter().map(allowed);
        for (number, admitted) in std::iter::once(unknown).chain(values).enumerate() {
            if admitted && let Some(word) = bits.0.get_mut(number / 64) {
                *word |= 1 << (number % 64);
            }
        }
        bits
    }
}

/// A bit per interned value.
#[derive(Debug, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, number: u16) -> bool {
        self.0
            .get(usize::from(number / 64))
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Edges, ready to be audited by the million.
#[derive(Debug)]
pub struct Fleet {
    rows: Vec<EdgeRow>,
    places: Interned<Place>,
    organizations: Interned<BTreeSet<Name>>,
    manufacturers: Interned<Name>,
    capabilities: Interned<Capabilities>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            places: Interned::new("pairs of country and region"),
            organizations: Interned::new("sets of organizations"),
            manufacturers: Interned::new("manufacturers"),
            capabilities: Interned::new("sets of tools, accessories and frameworks"),
        }
    }
}

impl Fleet {
    /// Adds an edge.
    ///
    /// # Errors
    /// Where its values cannot be numbered any more; the fleet is as it was.
    pub fn push(&mut self, attributes: &Attributes) -> Result<Position, TooManyValues> {
        let row = EdgeRow {
            memory_mb: attributes.memory.map_or(0, super::Memory::mb),
            // The parsers let no frequency above 65,535 MHz in; more is as good as that.
            cpu_mhz: attributes
                .cpu
                .map_or(UNKNOWN, |cpu| u16::try_from(cpu.mhz()).unwrap_or(u16::MAX)),
            place: self
                .places
                .number((attributes.location, attributes.region.clone()))?,
            organizations: self
                .organizations
                .number(attributes.organizations.clone())?,
            manufacturer: match &attributes.manufacturer {
                Some(name) => self.manufacturers.number(name.clone())?,
                None => UNKNOWN,
            },
            capabilities: self.capabilities.number(Capabilities {
                tools: attributes.virtualization.clone(),
                ai_support: attributes.ai_support,
                accessories: attributes.ai_accessories.clone(),
                frameworks: attributes.ai_frameworks.clone(),
            })?,
        };
        self.rows.push(row);
        Ok(Position(self.rows.len() - 1))
    }

    /// Decides every value of the fleet under `requirements`. The fleet cannot grow while what
    /// is returned is in use, so that no value is ever undecided.
    pub fn compile(&self, requirements: &Requirements) -> CompiledRequirements<'_> {
        let organizations = &requirements.allowed_organizations;
        CompiledRequirements {
            fleet: self,
            places: self
                .places
                .admitted(false, |place| place_is_allowed(requirements, place)),
            organizations: self.organizations.admitted(false, |set| {
                organizations.is_any()
                    || (!set.is_empty() && set.iter().all(|name| organizations.allows(name)))
            }),
            manufacturers: self
                .manufacturers
                .admitted(requirements.allowed_manufacturers.is_any(), |name| {
                    requirements.allowed_manufacturers.allows(name)
                }),
            capabilities: self
                .capabilities
                .admitted(false, |set| set.satisfies(requirements)),
            min_cpu_mhz: requirements.min_cpu.map_or(0, |min| min.mhz().max(1)),
            min_memory_mb: requirements.min_memory.map_or(0, |min| min.mb().max(1)),
            max_cpu_hundredths: requirements.max_cpu.map(super::Percent::hundredths),
            max_memory_hundredths: requirements.max_memory.map(super::Percent::hundredths),
        }
    }
}

/// One truth for places: the plain audit's, asked about the place alone.
fn place_is_allowed(requirements: &Requirements, (location, region): &Place) -> bool {
    let place_alone = Requirements {
        allowed_locations: AllowList::<Location>::clone(&requirements.allowed_locations),
        ..Requirements::default()
    };
    let attributes = Attributes {
        location: *location,
        region: region.clone(),
        ..Attributes::default()
    };
    audit(&place_alone, &attributes, None, UnixMillis(0), 0) == Verdict::Permit
}

impl Capabilities {
    fn satisfies(&self, requirements: &Requirements) -> bool {
        requirements
            .virtualization
            .as_ref()
            .is_none_or(|tool| self.tools.contains(tool))
            && (!requirements.ai_support || self.ai_support == Some(true))
            && requirements.ai_accessories.is_subset(&self.accessories)
            && requirements.ai_frameworks.is_subset(&self.frameworks)
    }
}

/// Requirements, decided for every value of a fleet.
#[derive(Debug, Clone)]
pub struct CompiledRequirements<'a> {
    fleet: &'a Fleet,
    places: Bits,
    organizations: Bits,
    manufacturers: Bits,
    capabilities: Bits,
    /// Zero asks for nothing: a row's zero is not known, and satisfies no minimum.
    min_cpu_mhz: u32,
    min_memory_mb: u32,
    max_cpu_hundredths: Option<u16>,
    max_memory_hundredths: Option<u16>,
}

impl CompiledRequirements<'_> {
    /// Whether the edge at `position` is permitted under a reading of its utilization, `None`
    /// where there is no fresh one ([`Utilization::is_fresh`]).
    pub fn permits(&self, position: Position, fresh: Option<&Utilization>) -> bool {
        self.fleet
            .rows
            .get(position.0)
            .is_some_and(|row| self.permits_row(row) && self.permits_utilization(fresh))
    }

    fn permits_row(&self, row: &EdgeRow) -> bool {
        self.places.has(row.place)
            && self.organizations.has(row.organizations)
            && self.manufacturers.has(row.manufacturer)
            && self.capabilities.has(row.capabilities)
            && u32::from(row.cpu_mhz) >= self.min_cpu_mhz
            && row.memory_mb >= self.min_memory_mb
    }

    fn permits_utilization(&self, fresh: Option<&Utilization>) -> bool {
        let within = |max: Option<u16>, used: Option<u16>| {
            max.is_none_or(|max| used.is_some_and(|used| used <= max))
        };
        within(
            self.max_cpu_hundredths,
            fresh.map(|reading| reading.cpu.hundredths()),
        ) && within(
            self.max_memory_hundredths,
            fresh.map(|reading| reading.memory.hundredths()),
        )
    }
}
