//! The form in which a container's owner says what is required of an edge.

use std::collections::BTreeSet;

use carnet_api::v1::Container;
use carnet_core::ids::AccountId;
use carnet_core::policy::{
    Attributes, Country, Element, Location, Requirements, requirements_from_json,
};
use serde_json::Value;

use super::edges::policy;
use super::fields::Fields;
use super::form::{Field, Kind, Pick};
use super::words::flag;
use crate::http::App;
use crate::http::problem::ApiError;

/// What is asked about a container's requirements, in the order of the paper's table.
pub(super) fn fields() -> Vec<Field> {
    let described = |element: Element| -> (&'static str, &'static str) {
        match element {
            Element::AllowedLocations => (
                "Countries where it may be",
                "Countries by their codes, and regions: jp,us,region:B. A leading - excludes: -de.",
            ),
            Element::AllowedOrganizations => (
                "Organizations that may manage the edge",
                "Separated by commas; a leading - excludes. All that manage the edge must be allowed.",
            ),
            Element::AllowedManufacturers => (
                "Manufacturers of the edge",
                "Separated by commas; a leading - excludes.",
            ),
            Element::Virtualization => (
                "Virtualization tool",
                "One that the edge must have, such as lxc.",
            ),
            Element::MaxCpuPercent => (
                "CPU use at the most, %",
                "Of the edge, when it is asked: 0 to 100, such as 60.",
            ),
            Element::MaxMemoryPercent => (
                "Memory use at the most, %",
                "Of the edge, when it is asked: 0 to 100, such as 50.",
            ),
            Element::MinCpuGhz => (
                "CPU clock at the least, GHz",
                "As the edge's owner declares it, such as 1.6.",
            ),
            Element::MinMemoryGb => (
                "Memory at the least, GB",
                "All that the edge has, not what is free; GB are 10⁹ bytes. Such as 4.",
            ),
            Element::AiSupport => (
                "AI support",
                "Whether the edge must have something that speeds up AI work.",
            ),
            Element::AiAccessories => (
                "AI accessories",
                "The edge must have all of these; separated by commas.",
            ),
            Element::AiFrameworks => (
                "AI frameworks",
                "The edge must have all of these; separated by commas.",
            ),
        }
    };
    Element::ALL
        .into_iter()
        .map(|element| {
            let (label, hint) = described(element);
            let kind = if element == Element::AiSupport {
                let choices = [("", "not required"), ("yes", "required")];
                let owned = choices.map(|(value, label)| (value.to_owned(), label.to_owned()));
                Kind::Choice(owned.to_vec())
            } else {
                Kind::Text
            };
            Field::new(element.name(), label, kind)
                .paper(element.paper_name())
                .hint(hint)
        })
        .collect()
}

/// The same, with what can be picked: every country, and what there is among the edges that
/// `owner` may use.
pub(super) async fn fields_with_picks(app: &App, owner: AccountId) -> Result<Vec<Field>, ApiError> {
    let edges = app.store.usable_edges(owner).await?;
    let edges: Vec<&Attributes> = edges.iter().map(|edge| &edge.attributes).collect();
    let mut fields = fields();
    for (field, element) in fields.iter_mut().zip(Element::ALL) {
        let names = |values: &dyn Fn(&Attributes) -> Vec<String>| -> Vec<String> {
            let all: BTreeSet<String> = edges.iter().flat_map(|edge| values(edge)).collect();
            all.into_iter().collect()
        };
        let texts = |values: &BTreeSet<_>| values.iter().map(ToString::to_string).collect();
        let (what, excludes, found) = match element {
            Element::AllowedLocations => {
                field.pick = Some(places(&edges));
                continue;
            }
            Element::Virtualization => {
                field.known = names(&|edge| texts(&edge.virtualization));
                continue;
            }
            Element::AllowedOrganizations => {
                let found = names(&|edge| texts(&edge.organizations));
                ("an organization", true, found)
            }
            Element::AllowedManufacturers => {
                let made =
                    |edge: &Attributes| edge.manufacturer.iter().map(ToString::to_string).collect();
                ("a manufacturer", true, names(&made))
            }
            Element::AiAccessories => {
                let found = names(&|edge| texts(&edge.ai_accessories));
                ("an accessory", false, found)
            }
            Element::AiFrameworks => {
                let found = names(&|edge| texts(&edge.ai_frameworks));
                ("a framework", false, found)
            }
            Element::MaxCpuPercent
            | Element::MaxMemoryPercent
            | Element::MinCpuGhz
            | Element::MinMemoryGb
            | Element::AiSupport => continue,
        };
        if !found.is_empty() {
            let values = found.into_iter().map(|name| (name.clone(), name)).collect();
            field.pick = Some(Pick {
                what,
                groups: vec![("Among the edges that you may use", values)],
                excludes,
            });
        }
    }
    Ok(fields)
}

/// Where edges are, and every country.
fn places(edges: &[&Attributes]) -> Pick {
    let named = |country: &Country| {
        let told = format!("{} {} ({country})", flag(*country), country.name());
        (country.to_string(), told)
    };
    let regions: BTreeSet<Location> = edges
        .iter()
        .filter_map(|edge| edge.region.clone().map(Location::Region))
        .collect();
    let countries: BTreeSet<Country> = edges.iter().filter_map(|edge| edge.location).collect();
    let regions = regions.iter().map(ToString::to_string);
    let regions = regions.map(|region| (region.clone(), region));
    let every = Country::every();
    let every = every
        .iter()
        .filter_map(|(code, _)| Country::from_code(code));
    let groups = [
        (
            "Where edges are that you may use",
            countries.iter().map(named).collect::<Vec<_>>(),
        ),
        ("Their regions", regions.collect()),
        (
            "All countries",
            every.map(|country| named(&country)).collect(),
        ),
    ];
    Pick {
        what: "a country or region",
        groups: groups
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect(),
        excludes: true,
    }
}

/// What somebody typed, as the API takes it.
pub(super) fn typed(typed: &Fields) -> Value {
    policy(typed, Element::ALL.iter().map(|element| element.name()))
}

/// What is required now. What the store has was read by the same parser before.
pub(super) fn of(container: &Container) -> Requirements {
    requirements_from_json(&container.requirements).unwrap_or_default()
}

/// Fills in what is required.
pub(super) fn fill(fields: &mut [Field], requirements: &Requirements) {
    for (field, element) in fields.iter_mut().zip(Element::ALL) {
        let written = requirements.written(element);
        if written != "*" {
            field.value = written;
        }
    }
}
