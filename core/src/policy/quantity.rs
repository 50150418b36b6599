//! Numbers of policies: integers fine enough that nothing anyone may write is rounded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A share of the whole, in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Percent(u16);

impl Percent {
    pub const MAX: Self = Self(10_000);

    /// `None` above 100 %.
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= Self::MAX.0 {
            Some(Self(hundredths))
        } else {
            None
        }
    }

    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Percent {
    type Error = &'static str;

    fn try_from(hundredths: u16) -> Result<Self, Self::Error> {
        Self::from_hundredths(hundredths).ok_or("more than 100 %")
    }
}

impl From<Percent> for u16 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

/// A clock rate in whole megahertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frequency(u32);

impl Frequency {
    pub const fn from_mhz(mhz: u32) -> Self {
        Self(mhz)
    }

    pub const fn mhz(self) -> u32 {
        self.0
    }
}

/// An amount of memory in whole megabytes; 1 MB is 10⁶ bytes, 1 GB 1,000 MB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Memory(u32);

impl Memory {
    pub const fn from_mb(mb: u32) -> Self {
        Self(mb)
    }

    pub const fn mb(self) -> u32 {
        self.0
    }
}

/// `units` of which `scale` (a power of ten) make one, as the shortest decimal number.
pub(super) fn decimal(units: u32, scale: u32) -> String {
    let (whole, rest) = (units / scale, units % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = scale.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(u32::from(self.0), 100))
    }
}

/// In GHz.
impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(self.0, 1_000))
    }
}

/// In GB.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(self.0, 1_000))
    }
}
