use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    AllowList, Attributes, Country, Element, Location, Name, Percent, Region, Requirements,
};
use crate::instant::UnixMillis;

/// A reading may be dated later than the audit by so much and still count: clocks are set while
/// systems run.
pub const CLOCK_TOLERANCE_MS: u64 = 1_000;

/// An edge's CPU and memory use, with the instant at which it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilization {
    pub cpu: Percent,
    pub memory: Percent,
    pub read_at: UnixMillis,
}

impl Utilization {
    /// Of CPU and memory in hundredths of a percent; `None` where one is above 100 %.
    pub fn new(cpu_hundredths: u16, memory_hundredths: u16, read_at: UnixMillis) -> Option<Self> {
        Some(Self {
            cpu: Percent::from_hundredths(cpu_hundredths)?,
            memory: Percent::from_hundredths(memory_hundredths)?,
            read_at,
        })
    }

    /// Whether the reading counts at `now`: not older than `max_age_ms`, and not from the future.
    pub fn is_fresh(&self, now: UnixMillis, max_age_ms: u64) -> bool {
        let age = i128::from(now.0) - i128::from(self.read_at.0);
        age <= i128::from(max_age_ms) && -age <= i128::from(CLOCK_TOLERANCE_MS)
    }
}

/// Whether a container may go to an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reasons", rename_all = "snake_case")]
pub enum Verdict {
    Permit,
    Deny(Reasons),
}

/// Every reason of a denial, in the paper's order of elements; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Reason>", into = "Vec<Reason>")]
pub struct Reasons(Vec<Reason>);

impl Reasons {
    /// `None` where there is no reason: then nothing is denied.
    pub fn new(reasons: Vec<Reason>) -> Option<Self> {
        (!reasons.is_empty()).then_some(Self(reasons))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Reason> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Reason>> for Reasons {
    type Error = &'static str;

    fn try_from(reasons: Vec<Reason>) -> Result<Self, Self::Error> {
        Self::new(reasons).ok_or("a denial has at least one reason")
    }
}

impl From<Reasons> for Vec<Reason> {
    fn from(reasons: Reasons) -> Self {
        reasons.0
    }
}

/// Why an element is not satisfied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub element: Element,
    /// What the container's owner requires.
    pub required: String,
    /// What the edge has.
    pub found: String,
    /// What would satisfy it.
    pub satisfied_by: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: requires {}; the edge has {}; {} would satisfy it",
            self.element, self.required, self.found, self.satisfied_by
        )
    }
}

/// Holds an edge's attributes and utilization against a container's requirements, element by
/// element (paper, section 3.2.3).
///
/// What is not known never passes: an attribute that is not declared, no reading, or one older
/// than `max_reading_age_ms` denies every element that asks for it.
pub fn audit(
    requirements: &Requirements,
    attributes: &Attributes,
    utilization: Option<&Utilization>,
    now: UnixMillis,
    max_reading_age_ms: u64,
) -> Verdict {
    let fresh = utilization.filter(|reading| reading.is_fresh(now, max_reading_age_ms));
    let no_reading = if utilization.is_some() {
        "a reading that is too old or from the future"
    } else {
        "no reading"
    };
    let mut reasons = Vec::new();
    let mut deny = |element, required: String, found: String, satisfied_by: String| {
        reasons.push(Reason {
            element,
            required,
            found,
            satisfied_by,
        });
    };

    let locations = &requirements.allowed_locations;
    if !location_is_allowed(locations, attributes.location, attributes.region.as_ref()) {
        deny(
            Element::AllowedLocations,
            words(locations),
            found_location(locations, attributes),
            format!("an edge in {}", words(locations)),
        );
    }
    let organizations = &requirements.allowed_organizations;
    if !every_organization_is_allowed(organizations, &attributes.organizations) {
        deny(
            Element::AllowedOrganizations,
            words(organizations),
            known_list(&attributes.organizations),
            format!("an edge managed only by {}", words(organizations)),
        );
    }
    let manufacturers = &requirements.allowed_manufacturers;
    if !is_allowed(manufacturers, attributes.manufacturer.as_ref()) {
        deny(
            Element::AllowedManufacturers,
            words(manufacturers),
            known(attributes.manufacturer.as_ref(), ""),
            format!("an edge made by {}", words(manufacturers)),
        );
    }
    if let Some(tool) = &requirements.virtualization
        && !attributes.virtualization.contains(tool)
    {
        deny(
            Element::Virtualization,
            format!("`{tool}`"),
            known_list(&attributes.virtualization),
            format!("an edge with `{tool}`"),
        );
    }
    let used = [
        (
            Element::MaxCpuPercent,
            requirements.max_cpu,
            fresh.map(|reading| reading.cpu),
            "CPU",
        ),
        (
            Element::MaxMemoryPercent,
            requirements.max_memory,
            fresh.map(|reading| reading.memory),
            "memory",
        ),
    ];
    for (element, max, now_used, what) in used {
        if let Some(max) = max
            && now_used.is_none_or(|used| used > max)
        {
            deny(
                element,
                format!("at most {max} %"),
                now_used.map_or_else(|| no_reading.to_owned(), |used| format!("{used} % now")),
                format!("{what} use of {max} % or less"),
            );
        }
    }
    if let Some(min) = requirements.min_cpu
        && attributes.cpu.is_none_or(|cpu| cpu < min)
    {
        deny(
            Element::MinCpuGhz,
            format!("at least {min} GHz"),
            known(attributes.cpu.as_ref(), " GHz"),
            format!("an edge with {min} GHz or more"),
        );
    }
    if let Some(min) = requirements.min_memory
        && attributes.memory.is_none_or(|memory| memory < min)
    {
        deny(
            Element::MinMemoryGb,
            format!("at least {min} GB"),
            known(attributes.memory.as_ref(), " GB"),
            format!("an edge with {min} GB or more"),
        );
    }
    if requirements.ai_support && attributes.ai_support != Some(true) {
        deny(
            Element::AiSupport,
            "support for AI".to_owned(),
            match attributes.ai_support {
                Some(_) => "no support for AI".to_owned(),
                None => UNKNOWN.to_owned(),
            },
            "an edge that supports AI".to_owned(),
        );
    }
    let sets = [
        (
            Element::AiAccessories,
            &requirements.ai_accessories,
            &attributes.ai_accessories,
        ),
        (
            Element::AiFrameworks,
            &requirements.ai_frameworks,
            &attributes.ai_frameworks,
        ),
    ];
    for (element, required, has) in sets {
        let missing: Vec<&Name> = required.difference(has).collect();
        if !missing.is_empty() {
            deny(
                element,
                and_words(required),
                known_list(has),
                format!("an edge that also has {}", and_words(missing)),
            );
        }
    }
    match Reasons::new(reasons) {
        Some(reasons) => Verdict::Deny(reasons),
        None => Verdict::Permit,
    }
}

const UNKNOWN: &str = "nothing known";

/// A country and a region are two things that may each be known or not: what is excluded of a
/// kind asks for that kind to be known; what is named is satisfied by either.
fn location_is_allowed(
    list: &AllowList<Location>,
    country: Option<Country>,
    region: Option<&Region>,
) -> bool {
    let country = country.map(Location::Country);
    let region = region.cloned().map(Location::Region);
    let is_country = |location: &&Location| matches!(location, Location::Country(_));
    let excludes_countries = list.excluded().iter().any(|location| is_country(&location));
    let excludes_regions = list
        .excluded()
        .iter()
        .any(|location| !is_country(&location));
    if (excludes_countries && country.is_none()) || (excludes_regions && region.is_none()) {
        return false;
    }
    let known: Vec<&Location> = country.iter().chain(&region).collect();
    list.admits_one_of(&known)
}

/// Where an edge is managed by several organizations (paper, Figure 3), every one must be
/// allowed.
fn every_organization_is_allowed(list: &AllowList<Name>, organizations: &BTreeSet<Name>) -> bool {
    list.is_any()
        || (!organizations.is_empty() && organizations.iter().all(|name| list.allows(name)))
}

fn is_allowed(list: &AllowList<Name>, value: Option<&Name>) -> bool {
    list.is_any() || value.is_some_and(|value| list.allows(value))
}

fn known<T: fmt::Display>(value: Option<&T>, unit: &str) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("`{value}`{unit}"))
}

fn known_list(names: &BTreeSet<Name>) -> String {
    if names.is_empty() {
        UNKNOWN.to_owned()
    } else {
        and_words(names)
    }
}

fn found_location(list: &AllowList<Location>, attributes: &Attributes) -> String {
    let asks_for_regions = list
        .named()
        .iter()
        .chain(list.excluded())
        .any(|location| matches!(location, Location::Region(_)));
    let country = known(attributes.location.as_ref(), "");
    if !asks_for_regions {
        return country;
    }
    let region = attributes.region.as_ref().map_or_else(
        || "an unknown region".to_owned(),
        |region| format!("`region:{region}`"),
    );
    format!("{country} in {region}")
}

/// `a`, `b` or `c`, but not `d`.
fn words<T: Ord + fmt::Display>(list: &AllowList<T>) -> String {
    let named = enumerate(list.named(), "or");
    let excluded = enumerate(list.excluded(), "or");
    match (list.named().is_empty(), list.excluded().is_empty()) {
        (_, true) => named,
        (true, false) => format!("anything but {excluded}"),
        (false, false) => format!("{named}, but not {excluded}"),
    }
}

fn and_words<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    enumerate(names, "and")
}

fn enumerate<T: fmt::Display>(items: impl IntoIterator<Item = T>, conjunction: &str) -> String {
    let mut quoted: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    match (quoted.pop(), quoted.is_empty()) {
        (None, _) => String::new(),
        (Some(only), true) => only,
        (Some(last), false) => format!("{} {conjunction} {last}", quoted.join(", ")),
    }
}
