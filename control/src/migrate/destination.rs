//! Which edges a destination names (paper, section 3.2: an edge, a region, or nothing).

use carnet_api::v1::{DestinationSpec, InputFault};
use carnet_core::placement::Draw;
use carnet_core::policy::{Region, nearest};
use rand::{RngCore, TryRngCore};

use crate::http::problem::ApiError;
use crate::store::migrations::{Moving, UsableEdge};

/// The candidates of a destination, in the order in which they are drawn; never the edge that
/// the container is on.
///
/// # Errors
/// Where there is no such edge or region, or none that the owner may use.
pub fn draw(
    moving: &Moving,
    usable: Vec<UsableEdge>,
    to: &DestinationSpec,
) -> Result<Vec<UsableEdge>, ApiError> {
    let mut candidates = match to {
        DestinationSpec::Edge(name) => named(moving, usable, name)?,
        DestinationSpec::Region(name) => in_region(usable, name)?,
        DestinationSpec::Anywhere(true) => usable,
        DestinationSpec::Anywhere(false) => {
            return Err(ApiError::fault(
                "to.anywhere",
                "false",
                "means nothing",
                "true",
            ));
        }
    };
    candidates.retain(|edge| edge.endpoint.edge != moving.edge);
    if candidates.is_empty() {
        return Err(ApiError::conflict(format!(
            "there is no edge to go to: `{}` is on `{}`, and you may use no other there",
            moving.name, moving.source.name
        )));
    }
    let mut random = rand::rngs::OsRng.unwrap_err();
    Ok(Draw::new(candidates, || random.next_u64()).collect())
}

fn named(
    moving: &Moving,
    usable: Vec<UsableEdge>,
    name: &str,
) -> Result<Vec<UsableEdge>, ApiError> {
    let is_it =
        |edge: &UsableEdge| edge.endpoint.name == name || edge.endpoint.edge.to_string() == name;
    let suggestion =
        nearest(name, usable.iter().map(|edge| edge.endpoint.name.as_str())).map(str::to_owned);
    let Some(edge) = usable.into_iter().find(is_it) else {
        return Err(ApiError::faults(vec![InputFault {
            place: "to.edge".to_owned(),
            found: name.chars().take(80).collect(),
            problem: "there is no such edge, or you hold no key of it".to_owned(),
            allowed: "an edge whose share key you have entered".to_owned(),
            suggestion,
        }]));
    };
    if edge.endpoint.edge == moving.edge {
        return Err(ApiError::conflict(format!(
            "`{}` is on `{}` already",
            moving.name, edge.endpoint.name
        )));
    }
    Ok(vec![edge])
}

fn in_region(usable: Vec<UsableEdge>, name: &str) -> Result<Vec<UsableEdge>, ApiError> {
    let region_of = |edge: &UsableEdge| edge.attributes.region.as_ref().map(Region::to_string);
    let regions: Vec<String> = usable.iter().filter_map(region_of).collect();
    if !regions.iter().any(|region| region == name) {
        return Err(ApiError::faults(vec![InputFault {
            place: "to.region".to_owned(),
            found: name.chars().take(80).collect(),
            problem: "none of the edges that you may use is in such a region".to_owned(),
            allowed: "the region of an edge whose share key you have entered".to_owned(),
            suggestion: nearest(name, regions.iter().map(String::as_str)).map(str::to_owned),
        }]));
    }
    Ok(usable
        .into_iter()
        .filter(|edge| region_of(edge).as_deref() == Some(name))
        .collect())
}
