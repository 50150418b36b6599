//! Names of accounts, edges and containers.

use uuid::Uuid;

use crate::http::problem::ApiError;

/// Names become parts of paths, certificates and command lines of edges. Where a name may stand,
/// an id may stand too: a name that looks like one could pass for another's.
///
/// # Errors
/// Where `name`, which stands in the field `place`, is none.
pub fn check_name(place: &str, name: &str) -> Result<(), ApiError> {
    if name.contains('-') && Uuid::try_parse(name).is_ok() {
        return Err(ApiError::fault(
            place,
            name,
            "an id, not a name",
            "a name that is not a UUID",
        ));
    }
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
