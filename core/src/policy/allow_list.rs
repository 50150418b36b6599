use std::collections::BTreeSet;
use std::fmt;

/// Which values are allowed: any, those named, all but those excluded, or those named and not
/// excluded.
///
/// Not considered (`*`) is the list without names and exclusions: it asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList<T: Ord> {
    named: BTreeSet<T>,
    excluded: BTreeSet<T>,
}

/// The values that a list both names and excludes; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction<T>(pub BTreeSet<T>);

impl<T: Ord> Default for AllowList<T> {
    fn default() -> Self {
        Self {
            named: BTreeSet::new(),
            excluded: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Clone> AllowList<T> {
    /// A list of names, exclusions or both; without any, everything is allowed.
    ///
    /// # Errors
    /// Every value that is both named and excluded.
    pub fn new(named: BTreeSet<T>, excluded: BTreeSet<T>) -> Result<Self, Contradiction<T>> {
        let both: BTreeSet<T> = named.intersection(&excluded).cloned().collect();
        if both.is_empty() {
            Ok(Self { named, excluded })
        } else {
            Err(Contradiction(both))
        }
    }
}

impl<T: Ord> AllowList<T> {
    /// Nothing is asked for, so that even what is not known satisfies it.
    pub fn is_any(&self) -> bool {
        self.named.is_empty() && self.excluded.is_empty()
    }

    pub fn named(&self) -> &BTreeSet<T> {
        &self.named
    }

    pub fn excluded(&self) -> &BTreeSet<T> {
        &self.excluded
    }

    /// Whether a value, known, is allowed.
    pub fn allows(&self, value: &T) -> bool {
        self.admits_one_of(std::slice::from_ref(&value))
    }

    /// Whether something that goes by several values at once (a country and a region) is
    /// allowed: one of them named, where any is, and none of them excluded.
    pub fn admits_one_of(&self, values: &[&T]) -> bool {
        (self.named.is_empty() || values.iter().any(|value| self.named.contains(*value)))
            && !values.iter().any(|value| self.excluded.contains(*value))
    }
}

/// As it is written: `jp,us`, `-caB`, `*`.
impl<T: Ord + fmt::Display> fmt::Display for AllowList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("*");
        }
        let mut separator = "";
        for name in &self.named {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        for name in &self.excluded {
            write!(f, "{separator}-{name}")?;
            separator = ",";
        }
        Ok(())
    }
}
