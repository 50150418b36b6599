//! Words of policies.

use std::fmt;

/// The longest name, in bytes.
pub(super) const MAX_NAME: usize = 63;

/// A country: an ISO 3166-1 alpha-2 code, lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// `None` where ISO 3166-1 has no such code. Upper case is accepted.
    pub fn from_code(code: &str) -> Option<Self> {
        let found = rust_iso3166::from_alpha2(&code.to_ascii_uppercase())?;
        let lower = found.alpha2.to_ascii_lowercase();
        lower.as_bytes().try_into().ok().map(Self)
    }

    /// Every country's code, with its English short name, by name.
    pub fn every() -> Vec<(String, &'static str)> {
        let mut every: Vec<_> = rust_iso3166::ALL
            .iter()
            .map(|country| (country.alpha2.to_ascii_lowercase(), country.name))
            .collect();
        every.sort_unstable_by_key(|(_, name)| *name);
        every
    }

    /// Its English short name.
    pub fn name(&self) -> &'static str {
        // Only codes that ISO 3166-1 has get in.
        rust_iso3166::from_alpha2(&self.code().to_ascii_uppercase())
            .map_or("", |country| country.name)
    }

    pub fn code(&self) -> &str {
        // Only ASCII letters get in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A name that owners agree on: an organization, a manufacturer, a tool, an accessory, a
/// framework. Letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 63.
/// Case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// `None` where `text` is not of that form, or reads `na`, which means "not known".
    pub fn new(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let first = characters.next()?;
        let well_formed = first.is_ascii_alphanumeric()
            && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && text.len() <= MAX_NAME
            && !text.eq_ignore_ascii_case("na");
        well_formed.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of our regions: edges that belong together (paper, Table 7: A to D).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Name);

impl Region {
    /// `None` where `text` is no [`Name`].
    pub fn new(text: &str) -> Option<Self> {
        Name::new(text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where data may be, or may not be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    Country(Country),
    /// Written `region:NAME`.
    Region(Region),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Country(country) => country.fmt(f),
            Self::Region(region) => write!(f, "region:{region}"),
        }
    }
}
