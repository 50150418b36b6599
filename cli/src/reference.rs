use std::fmt;
use std::str::FromStr;

/// The name or id of an edge, a container, an account or a migration, as it was typed. Letters,
/// digits, `.`, `_` and `-`, beginning with a letter or digit: it can stand in a URL's path as
/// it is, and names nothing but one segment of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(String);

/// The longest name.
const MAX_CHARACTERS: usize = 63;

impl Reference {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() <= MAX_CHARACTERS
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "a name or id has letters, digits, `.`, `_` and `-`, begins with a letter or \
                 digit, and has at most {MAX_CHARACTERS} characters"
            ))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_segment_of_a_path() {
        for text in [
            "Edge1",
            "a.b_c-d",
            "0192d3c4-0000-7000-8000-000000000000",
            "9",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().as_str(), text);
        }
        let long = "a".repeat(64);
        for text in [
            "",
            ".",
            "..",
            "../accounts",
            "a/b",
            "a?b",
            "a b",
            "-a",
            "é",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
