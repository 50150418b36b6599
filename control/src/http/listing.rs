use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Caller;
use super::problem::ApiError;
use crate::store::listing::{Search, Sight};
use carnet_api::v1::Role;

/// The most that is listed at a time where a limit is given.
pub(crate) const MAX_LISTED: u32 = 1_000;
/// The longest text that is looked for, in characters.
const LONGEST_SEARCH: usize = 200;

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listing {
    /// Only those in one of whose names this stands, whatever its case: of an edge, its region,
    /// country or organizations too; of a container, its owner and its edge; of an account, its
    /// roles.
    pub search: Option<String>,
    /// Without so many of the first.
    pub offset: Option<u32>,
    /// At most so many: 1 to 1,000; all where it is absent.
    pub limit: Option<u32>,
}

impl Listing {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn search(&self) -> Result<Search, ApiError> {
        let text = self.search.as_deref().map(str::trim);
        let text = text.filter(|text| !text.is_empty());
        if let Some(text) = text
            && text.chars().count() > LONGEST_SEARCH
        {
            return Err(ApiError::fault(
                "search",
                text,
                "too long",
                "at most 200 characters",
            ));
        }
        if let Some(limit) = self.limit {
            check_limit(limit)?;
        }
        Ok(Search {
            text: text.map(str::to_owned),
            offset: self.offset.unwrap_or_default(),
            limit: self.limit,
        })
    }
}

/// # Errors
/// Where it is none.
pub(crate) fn check_limit(limit: u32) -> Result<(), ApiError> {
    if (1..=MAX_LISTED).contains(&limit) {
        return Ok(());
    }
    let limit = limit.to_string();
    Err(ApiError::fault(
        "limit",
        &limit,
        "out of range",
        "1 to 1,000",
    ))
}

impl From<&Caller> for Sight {
    fn from(caller: &Caller) -> Self {
        Self {
            account: caller.account,
            sees_everything: caller.sees_everything(),
            is_edge_owner: caller.is(Role::EdgeOwner),
            is_container_owner: caller.is(Role::ContainerOwner),
        }
    }
}
