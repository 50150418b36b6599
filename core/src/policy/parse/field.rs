use std::collections::BTreeSet;

use super::cell::Cell;
use super::{Cells, MAX_LIST, suggest};
use crate::policy::{
    AllowList, Attributes, Contradiction, Country, Fault, Faults, Frequency, Location, Memory,
    Name, Percent, Region, Requirements,
};

const NAME: &str =
    "a name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 63";
const COUNTRY: &str = "a country's code of ISO 3166-1 alpha-2, such as `jp`";
const LOCATION: &str =
    "a country's code of ISO 3166-1 alpha-2, such as `jp`, or a region of ours, such as `region:B`";

/// Reads requirements out of their cells. An absent cell asks for nothing.
pub(super) fn requirements(cells: &Cells, faults: &mut Faults) -> Requirements {
    let mut reader = Reader { cells, faults };
    Requirements {
        allowed_locations: reader.allow_list("allowed_locations", LOCATION, location),
        allowed_organizations: reader.allow_list("allowed_organizations", NAME, name),
        allowed_manufacturers: reader.allow_list("allowed_manufacturers", NAME, name),
        virtualization: reader.single("virtualization", Blank::Requirement, NAME, name),
        max_cpu: reader.single("max_cpu_percent", Blank::Requirement, PERCENT, percent),
        max_memory: reader.single("max_memory_percent", Blank::Requirement, PERCENT, percent),
        min_cpu: reader.single("min_cpu_ghz", Blank::Requirement, GHZ, frequency),
        min_memory: reader.single("min_memory_gb", Blank::Requirement, GB, memory),
        ai_support: reader
            .single("ai_support", Blank::Requirement, YES_OR_NO, yes_or_no)
            .unwrap_or(false),
        ai_accessories: reader.set("ai_accessories", Blank::Requirement),
        ai_frameworks: reader.set("ai_frameworks", Blank::Requirement),
    }
}

/// Reads attributes out of their cells. An absent cell is not known.
pub(super) fn attributes(cells: &Cells, faults: &mut Faults) -> Attributes {
    let mut reader = Reader { cells, faults };
    Attributes {
        location: reader.single("location", Blank::Attribute, COUNTRY, country),
        region: reader.single("region", Blank::Attribute, NAME, |text| {
            Region::new(text).ok_or_else(|| Refused::plain("not a name"))
        }),
        organizations: reader.set("organizations", Blank::Attribute),
        manufacturer: reader.single("manufacturer", Blank::Attribute, NAME, name),
        virtualization: reader.set("virtualization", Blank::Attribute),
        cpu: reader.single("cpu_ghz", Blank::Attribute, GHZ, frequency),
        memory: reader.single("memory_gb", Blank::Attribute, GB, memory),
        ai_support: reader.single("ai_support", Blank::Attribute, YES_OR_NO, yes_or_no),
        ai_accessories: reader.set("ai_accessories", Blank::Attribute),
        ai_frameworks: reader.set("ai_frameworks", Blank::Attribute),
    }
}

/// Which marks stand for "nothing" in a field.
#[derive(Clone, Copy)]
enum Blank {
    /// `*` or `-`: not considered.
    Requirement,
    /// `-` or `na`: none, or not known.
    Attribute,
}

impl Blank {
    fn is(self, entries: &[String]) -> bool {
        let [only] = entries else {
            return entries.is_empty();
        };
        match self {
            Self::Requirement => matches!(only.as_str(), "*" | "-"),
            Self::Attribute => only == "-" || only.eq_ignore_ascii_case("na"),
        }
    }

    fn allowed(self, what: &str) -> String {
        match self {
            Self::Requirement => format!("{what}; or `*`: not considered"),
            Self::Attribute => format!("{what}; or `-`: none or not known"),
        }
    }
}

/// Why a text is not what it should be.
struct Refused {
    problem: String,
    suggestion: Option<String>,
}

impl Refused {
    fn plain(problem: &str) -> Self {
        Self {
            problem: problem.to_owned(),
            suggestion: None,
        }
    }
}

struct Reader<'a> {
    cells: &'a Cells,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    /// A field with one value.
    fn single<T>(
        &mut self,
        field: &str,
        blank: Blank,
        allowed: &str,
        read: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let cell = self.cells.get(field)?;
        if blank.is(&cell.entries) {
            return None;
        }
        let allowed = blank.allowed(allowed);
        let [entry] = cell.entries.as_slice() else {
            let problem = "several values where one may stand";
            self.faults
                .0
                .push(cell.fault(&cell.entries.join(","), problem, &allowed));
            return None;
        };
        self.entry(cell, entry, &allowed, &read)
    }

    /// A field with any number of names.
    fn set(&mut self, field: &str, blank: Blank) -> BTreeSet<Name> {
        let Some(cell) = self.cells.get(field) else {
            return BTreeSet::new();
        };
        if blank.is(&cell.entries) || !self.is_bounded(cell) {
            return BTreeSet::new();
        }
        let allowed = blank.allowed(NAME);
        let mut names = BTreeSet::new();
        for entry in &cell.entries {
            if let Some(name) = self.entry(cell, entry, &allowed, &name) {
                names.insert(name);
            }
        }
        names
    }

    /// A field with names, exclusions, or both.
    fn allow_list<T: Ord + Clone + std::fmt::Display>(
        &mut self,
        field: &str,
        allowed: &str,
        read: impl Fn(&str) -> Result<T, Refused>,
    ) -> AllowList<T> {
        let Some(cell) = self.cells.get(field) else {
            return AllowList::default();
        };
        let allowed = format!("{allowed}; `-` before it: anything but it; or `*` alone: anything");
        if cell.entries.is_empty() {
            // Whoever filtered a list until nothing was left did not mean "anything".
            let problem = "an empty list: nothing would be allowed";
            self.faults.0.push(cell.fault("", problem, &allowed));
            return AllowList::default();
        }
        if Blank::Requirement.is(&cell.entries) || !self.is_bounded(cell) {
            return AllowList::default();
        }
        let mut everything = false;
        let (mut named, mut excluded) = (BTreeSet::new(), BTreeSet::new());
        for entry in &cell.entries {
            match entry.strip_prefix('-') {
                None if entry == "*" => everything = true,
                None => named.extend(self.entry(cell, entry, &allowed, &read)),
                Some(rest) => excluded.extend(self.entry(cell, rest, &allowed, &read)),
            }
        }
        if everything && !named.is_empty() {
            let written = cell.entries.join(",");
            self.faults.0.push(cell.fault(
                &written,
                "`*` beside names: the names would mean nothing",
                &allowed,
            ));
        }
        match AllowList::new(named, excluded) {
            Ok(list) => list,
            Err(Contradiction(both)) => {
                let problem = "both allowed and excluded";
                let faults = both
                    .iter()
                    .map(|value| cell.fault(&value.to_string(), problem, "one of the two"));
                self.faults.0.extend(faults);
                AllowList::default()
            }
        }
    }

    fn entry<T>(
        &mut self,
        cell: &Cell,
        entry: &str,
        allowed: &str,
        read: &impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        match read(entry) {
            Ok(value) => Some(value),
            Err(refused) => {
                self.faults.0.push(Fault {
                    suggestion: refused.suggestion,
                    ..cell.fault(entry, &refused.problem, allowed)
                });
                None
            }
        }
    }

    fn is_bounded(&mut self, cell: &Cell) -> bool {
        let bounded = cell.entries.len() <= MAX_LIST;
        if !bounded {
            self.faults.0.push(cell.fault(
                "",
                "too many entries",
                &format!("at most {MAX_LIST} entries"),
            ));
        }
        bounded
    }
}

fn name(text: &str) -> Result<Name, Refused> {
    Name::new(text).ok_or_else(|| Refused {
        problem: if text.is_empty() {
            "an empty entry"
        } else {
            "not a name"
        }
        .to_owned(),
        suggestion: None,
    })
}

fn country(text: &str) -> Result<Country, Refused> {
    Country::from_code(text).ok_or_else(|| Refused {
        problem: if text.is_empty() {
            "an empty entry"
        } else {
            "not a country"
        }
        .to_owned(),
        suggestion: suggest::country(text),
    })
}

fn location(text: &str) -> Result<Location, Refused> {
    match text.strip_prefix("region:") {
        Some(region) => Region::new(region)
            .map(Location::Region)
            .ok_or_else(|| Refused::plain("not the name of a region")),
        None => country(text).map(Location::Country),
    }
}

const YES_OR_NO: &str = "`yes` or `no`, true or false";

fn yes_or_no(text: &str) -> Result<bool, Refused> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(Refused::plain("neither yes nor no")),
    }
}

const PERCENT: &str = "a number from 0 to 100 with at most 2 decimals";
const GHZ: &str = "gigahertz, from 0.001 to 65.535, with at most 3 decimals";
const GB: &str = "gigabytes, from 0.001 to 4,000,000, with at most 3 decimals";
const MAX_MEMORY_MB: u32 = 4_000_000_000;

fn percent(text: &str) -> Result<Percent, Refused> {
    decimal(text, 2)
        .ok()
        .and_then(|hundredths| u16::try_from(hundredths).ok())
        .and_then(Percent::from_hundredths)
        .ok_or_else(|| not_a_number(text, 2))
}

fn frequency(text: &str) -> Result<Frequency, Refused> {
    decimal(text, 3)
        .ok()
        .filter(|mhz| (1..=u32::from(u16::MAX)).contains(mhz))
        .map(Frequency::from_mhz)
        .ok_or_else(|| not_a_number(text, 3))
}

fn memory(text: &str) -> Result<Memory, Refused> {
    decimal(text, 3)
        .ok()
        .filter(|mb| (1..=MAX_MEMORY_MB).contains(mb))
        .map(Memory::from_mb)
        .ok_or_else(|| not_a_number(text, 3))
}

fn not_a_number(text: &str, digits: u32) -> Refused {
    Refused::plain(match decimal(text, digits) {
        Ok(_) => "a number out of range",
        Err(problem) => problem,
    })
}

/// `text` in units of which 10 to the power of `digits` make one. Nothing is rounded.
fn decimal(text: &str, digits: u32) -> Result<u32, &'static str> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !are_digits(whole)
        || !are_digits(fraction)
        || (fraction.is_empty() && text.contains('.'))
    {
        return Err("not a number");
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > digits as usize {
        return Err("more decimals than can be kept");
    }
    let scaled = format!("{whole}{fraction:0<width$}", width = digits as usize);
    scaled.parse().map_err(|_| "a number out of range")
}
