//! Where requirements would let a container go, before they are saved, and what about them is
//! hardly meant.

use std::collections::{BTreeMap, BTreeSet};

use carnet_api::v1::{Attempt, AttemptOutcome, Reason};
use carnet_core::ids::AccountId;
use carnet_core::policy::{AllowList, Attributes, Element, Location, Name, Requirements, nearest};

use super::form::Form;
use super::words::Sign;
use crate::http::App;
use crate::http::audits;
use crate::http::problem::ApiError;

/// How many values a warning names.
const NAMED: usize = 12;

/// An edge that may be used, held against requirements.
pub(super) struct Candidate {
    pub attributes: Attributes,
    pub attempt: Attempt,
}

/// What decides on a candidate now. The better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Permitted,
    /// The policy permits it, and the edge cannot take a container.
    NotReady,
    /// By nothing but its CPU or memory use.
    DeniedByLoad,
    /// By nothing but that its use is not known.
    NoReading,
    /// By what its owner declares.
    DeniedByRule,
}

impl Standing {
    pub(super) const ALL: [Self; 5] = [
        Self::Permitted,
        Self::NotReady,
        Self::DeniedByLoad,
        Self::NoReading,
        Self::DeniedByRule,
    ];

    pub(super) fn sign(self) -> Sign {
        let (class, sign, word) = match self {
            Self::Permitted => ("good", "●", "permitted"),
            Self::NotReady => ("ready", "◐", "permitted, not ready"),
            Self::DeniedByLoad => ("load", "▲", "denied by load"),
            Self::NoReading => ("unread", "?", "no fresh reading"),
            Self::DeniedByRule => ("bad", "✕", "denied by rule"),
        };
        Sign { class, sign, word }
    }
}

impl Candidate {
    /// The reasons of a denial.
    pub(super) fn reasons(&self) -> &[Reason] {
        match &self.attempt.outcome {
            AttemptOutcome::Denied { reasons } => reasons,
            AttemptOutcome::Permitted | AttemptOutcome::NotReady { .. } => &[],
        }
    }

    fn is_denied_by(&self, element: Element) -> bool {
        let mut reasons = self.reasons().iter();
        reasons.any(|reason| reason.element == element.name())
    }

    pub(super) fn standing(&self) -> Standing {
        match self.attempt.outcome {
            AttemptOutcome::Permitted => Standing::Permitted,
            AttemptOutcome::NotReady { .. } => Standing::NotReady,
            AttemptOutcome::Denied { .. } => {
                if Element::ALL
                    .into_iter()
                    .any(|element| !is_load(element) && self.is_denied_by(element))
                {
                    Standing::DeniedByRule
                } else if audits::had_fresh_reading(&self.attempt) {
                    Standing::DeniedByLoad
                } else {
                    Standing::NoReading
                }
            }
        }
    }
}

/// Whether an element asks for what changes all the time.
fn is_load(element: Element) -> bool {
    element.attribute().is_none()
}

/// Holds requirements against every edge that `owner` may use, now; by the edges' names.
pub(super) async fn candidates(
    app: &App,
    owner: AccountId,
    requirements: &Requirements,
) -> Result<Vec<Candidate>, ApiError> {
    let mut candidates: Vec<Candidate> = audits::preview(app, owner, requirements)
        .await?
        .into_iter()
        .map(|(attributes, attempt)| Candidate {
            attributes,
            attempt,
        })
        .collect();
    // In the order of drawing nothing is found again.
    candidates.sort_by(|one, other| one.attempt.edge_name.cmp(&other.attempt.edge_name));
    Ok(candidates)
}

/// How many edges stand how.
pub(super) fn counts<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
) -> Vec<(Standing, usize)> {
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    for candidate in candidates {
        *counts.entry(candidate.standing()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// The same in words.
pub(super) fn summary(candidates: &[Candidate]) -> String {
    let counts: Vec<String> = counts(candidates.iter())
        .into_iter()
        .map(|(standing, count)| format!("{count} {}", standing.sign().word))
        .collect();
    match candidates.len() {
        0 => "You may use no edge yet: enter a share key that an edge's owner has given you."
            .to_owned(),
        1 => format!("Of 1 edge: {}.", counts.join(", ")),
        all => format!("Of {all} edges: {}.", counts.join(", ")),
    }
}

/// Says at each field what can be saved, and is hardly meant.
pub(super) fn warn(form: &mut Form, requirements: &Requirements, candidates: &[Candidate]) {
    let mut warn_at = |element: Element, warning: String| {
        let field = form
            .fields
            .iter_mut()
            .find(|field| field.name == element.name());
        if let Some(field) = field {
            field.warnings.push(warning);
        }
    };
    let mut is_hopeless = false;
    for element in Element::ALL {
        if !candidates.is_empty() && candidates.iter().all(|edge| edge.is_denied_by(element)) {
            is_hopeless |= !is_load(element);
            warn_at(element, satisfied_by_none(element, candidates));
        }
    }
    for (element, problem) in idle_exclusions(requirements)
        .into_iter()
        .chain(unknown_names(requirements, candidates))
    {
        warn_at(element, problem);
    }
    let none_is_left = candidates
        .iter()
        .all(|edge| edge.standing() == Standing::DeniedByRule);
    if none_is_left && !is_hopeless && !candidates.is_empty() {
        form.warnings.push(format!(
            "Each requirement is met by some edge, and all of them together by none of the {} that you may use.",
            candidates.len()
        ));
    }
}

fn satisfied_by_none(element: Element, candidates: &[Candidate]) -> String {
    let count = match candidates.len() {
        1 => "The one edge that you may use does not satisfy this".to_owned(),
        count => format!("None of the {count} edges that you may use satisfies this"),
    };
    let attributes = || candidates.iter().map(|candidate| &candidate.attributes);
    let known = match element {
        Element::AllowedLocations => {
            let countries = attributes().filter_map(|edge| edge.location);
            let regions = attributes().filter_map(|edge| edge.region.clone());
            let places = countries
                .map(Location::Country)
                .chain(regions.map(Location::Region));
            listed("They are in", places)
        }
        Element::AllowedOrganizations => listed(
            "They are managed by",
            attributes().flat_map(|edge| &edge.organizations),
        ),
        Element::AllowedManufacturers => listed(
            "They are made by",
            attributes().filter_map(|edge| edge.manufacturer.as_ref()),
        ),
        Element::Virtualization => listed(
            "They have",
            attributes().flat_map(|edge| &edge.virtualization),
        ),
        Element::AiAccessories => listed(
            "They have",
            attributes().flat_map(|edge| &edge.ai_accessories),
        ),
        Element::AiFrameworks => listed(
            "They have",
            attributes().flat_map(|edge| &edge.ai_frameworks),
        ),
        Element::MinCpuGhz => attributes()
            .filter_map(|edge| edge.cpu)
            .max()
            .map(|most| format!("The most that one has is {most} GHz")),
        Element::MinMemoryGb => attributes()
            .filter_map(|edge| edge.memory)
            .max()
            .map(|most| format!("The most that one has is {most} GB")),
        Element::AiSupport => Some("None is known to support AI".to_owned()),
        Element::MaxCpuPercent | Element::MaxMemoryPercent => {
            return format!("{count} now. That may change: it is asked again at each move.");
        }
    };
    let known = known.unwrap_or_else(|| "Nothing is known of any of them here".to_owned());
    format!("{count}. {known}.")
}

/// What there is, each once; `None`: nothing.
fn listed<T: ToString>(beginning: &str, values: impl Iterator<Item = T>) -> Option<String> {
    let values: BTreeSet<String> = values.map(|value| value.to_string()).collect();
    let more = values.len().saturating_sub(NAMED);
    let named: Vec<String> = values
        .iter()
        .take(NAMED)
        .map(|value| format!("`{value}`"))
        .collect();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("{beginning} {}", named.join(", "))),
        (false, more) => Some(format!("{beginning} {} and {more} more", named.join(", "))),
    }
}

/// Where names are listed, nothing else is allowed: to exclude something else changes nothing.
fn idle_exclusions(requirements: &Requirements) -> Vec<(Element, String)> {
    fn told<T: Ord + ToString>(list: &AllowList<T>) -> Option<String> {
        if list.named().is_empty() {
            return None;
        }
        listed(
            "Only what is named is allowed here; it changes nothing to exclude",
            list.excluded().iter().map(ToString::to_string),
        )
    }
    let locations = &requirements.allowed_locations;
    // A country within a region can be excluded, and the other way round.
    let has_regions = locations
        .named()
        .iter()
        .chain(locations.excluded())
        .any(|location| matches!(location, Location::Region(_)));
    let idle = [
        (
            Element::AllowedLocations,
            if has_regions { None } else { told(locations) },
        ),
        (
            Element::AllowedOrganizations,
            told(&requirements.allowed_organizations),
        ),
        (
            Element::AllowedManufacturers,
            told(&requirements.allowed_manufacturers),
        ),
    ];
    idle.into_iter()
        .filter_map(|(element, told)| Some((element, format!("{}.", told?))))
        .collect()
}

/// Names that no edge goes by: they may be mistyped.
fn unknown_names(requirements: &Requirements, candidates: &[Candidate]) -> Vec<(Element, String)> {
    let attributes = || candidates.iter().map(|candidate| &candidate.attributes);
    let listed_names = |list: &AllowList<Name>| -> Vec<String> {
        let names = list.named().iter().chain(list.excluded());
        names.map(ToString::to_string).collect()
    };
    let names = |names: &BTreeSet<Name>| names.iter().map(ToString::to_string).collect();
    let regions = requirements.allowed_locations.named().iter();
    let regions = regions
        .chain(requirements.allowed_locations.excluded())
        .filter(|location| matches!(location, Location::Region(_)));
    let lists: [(Element, Vec<String>, BTreeSet<String>); 5] = [
        (
            Element::AllowedLocations,
            regions.map(ToString::to_string).collect(),
            attributes()
                .filter_map(|edge| edge.region.clone())
                .map(|region| Location::Region(region).to_string())
                .collect(),
        ),
        (
            Element::AllowedOrganizations,
            listed_names(&requirements.allowed_organizations),
            attributes()
                .flat_map(|edge| &edge.organizations)
                .map(ToString::to_string)
                .collect(),
        ),
        (
            Element::AllowedManufacturers,
            listed_names(&requirements.allowed_manufacturers),
            attributes()
                .filter_map(|edge| edge.manufacturer.as_ref())
                .map(ToString::to_string)
                .collect(),
        ),
        (
            Element::AiAccessories,
            names(&requirements.ai_accessories),
            attributes()
                .flat_map(|edge| &edge.ai_accessories)
                .map(ToString::to_string)
                .collect(),
        ),
        (
            Element::AiFrameworks,
            names(&requirements.ai_frameworks),
            attributes()
                .flat_map(|edge| &edge.ai_frameworks)
                .map(ToString::to_string)
                .collect(),
        ),
    ];
    let mut unknown = Vec::new();
    // Without an edge nothing is known of anything.
    if candidates.is_empty() {
        return unknown;
    }
    for (element, written, known) in lists {
        for name in written.iter().filter(|name| !known.contains(*name)) {
            let meant = nearest(name, known.iter().map(String::as_str));
            let meant = meant.map_or_else(String::new, |meant| format!(" Did you mean `{meant}`?"));
            let told = format!("No edge that you may use goes by `{name}`.{meant}");
            unknown.push((element, told));
        }
    }
    unknown
}
