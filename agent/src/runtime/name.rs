use std::fmt;

use thiserror::Error;

/// A container's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at
/// most 63. It becomes part of paths and arguments, so nothing else is ever one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName(String);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a container's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 63"
)]
pub struct InvalidName(String);

impl ContainerName {
    /// # Errors
    /// Where `text` is no name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let well_formed = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.chars().take(64).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
