use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the eleven elements of a policy, in the paper's order (Tables 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    AllowedLocations,
    AllowedOrganizations,
    AllowedManufacturers,
    Virtualization,
    MaxCpuPercent,
    MaxMemoryPercent,
    MinCpuGhz,
    MinMemoryGb,
    AiSupport,
    AiAccessories,
    AiFrameworks,
}

impl Element {
    pub const ALL: [Self; 11] = [
        Self::AllowedLocations,
        Self::AllowedOrganizations,
        Self::AllowedManufacturers,
        Self::Virtualization,
        Self::MaxCpuPercent,
        Self::MaxMemoryPercent,
        Self::MinCpuGhz,
        Self::MinMemoryGb,
        Self::AiSupport,
        Self::AiAccessories,
        Self::AiFrameworks,
    ];

    /// The requirement's name in JSON, TOML and CSV.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowedLocations => "allowed_locations",
            Self::AllowedOrganizations => "allowed_organizations",
            Self::AllowedManufacturers => "allowed_manufacturers",
            Self::Virtualization => "virtualization",
            Self::MaxCpuPercent => "max_cpu_percent",
            Self::MaxMemoryPercent => "max_memory_percent",
            Self::MinCpuGhz => "min_cpu_ghz",
            Self::MinMemoryGb => "min_memory_gb",
            Self::AiSupport => "ai_support",
            Self::AiAccessories => "ai_accessories",
            Self::AiFrameworks => "ai_frameworks",
        }
    }

    /// The paper's name of the requirement (Table 1).
    pub const fn paper_name(self) -> &'static str {
        match self {
            Self::AllowedLocations => "cDAl",
            Self::AllowedOrganizations => "cDAo",
            Self::AllowedManufacturers => "cHRh",
            Self::Virtualization => "cHRt",
            Self::MaxCpuPercent => "cHRcu",
            Self::MaxMemoryPercent => "cHRmu",
            Self::MinCpuGhz => "cHRc",
            Self::MinMemoryGb => "cHRm",
            Self::AiSupport => "cHRgpu",
            Self::AiAccessories => "cHRac",
            Self::AiFrameworks => "cHRaf",
        }
    }

    /// The name of the edge's attribute that it is held against; `None` for utilization, which
    /// no owner declares.
    pub const fn attribute(self) -> Option<&'static str> {
        match self {
            Self::AllowedLocations => Some("location"),
            Self::AllowedOrganizations => Some("organizations"),
            Self::AllowedManufacturers => Some("manufacturer"),
            Self::Virtualization => Some("virtualization"),
            Self::MaxCpuPercent | Self::MaxMemoryPercent => None,
            Self::MinCpuGhz => Some("cpu_ghz"),
            Self::MinMemoryGb => Some("memory_gb"),
            Self::AiSupport => Some("ai_support"),
            Self::AiAccessories => Some("ai_accessories"),
            Self::AiFrameworks => Some("ai_frameworks"),
        }
    }

    /// The paper's name of that attribute (Table 2).
    pub const fn paper_attribute(self) -> Option<&'static str> {
        match self {
            Self::AllowedLocations => Some("eDAl"),
            Self::AllowedOrganizations => Some("eDAo"),
            Self::AllowedManufacturers => Some("eHRh"),
            Self::Virtualization => Some("eHRt"),
            Self::MaxCpuPercent | Self::MaxMemoryPercent => None,
            Self::MinCpuGhz => Some("eHRc"),
            Self::MinMemoryGb => Some("eHRm"),
            Self::AiSupport => Some("eHRgpu"),
            Self::AiAccessories => Some("eHRac"),
            Self::AiFrameworks => Some("eHRaf"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.paper_name())
    }
}
