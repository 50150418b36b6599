//! Names of accounts, edges and containers.

use crate::http::problem::ApiError;

/// Names become parts of paths, certificates and command lines of edges.
///
/// # Errors
/// Where `name`, which stands in the field `place`, is none.
pub fn check_name(place: &str, name: &str) -> Result<(), ApiError> {
    let well_formed = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if well_formed {
        Ok(())
    } else {
        Err(ApiError::fault(
            place,
            name,
            "not a name",
            "letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 63",
        ))
    }
}
