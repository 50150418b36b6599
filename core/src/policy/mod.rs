//! The data-audit (paper, section 3.2): what a container's owner requires, what an edge's owner
//! declares, and whether the one satisfies the other.
//!
//! [`Requirements`] × [`Attributes`] × [`Utilization`] → [`Verdict`], by [`audit`]. A fleet is
//! audited by the [`compiled`] form, which says the same and no more than yes or no.
//!
//! The virtual-machine mechanism of section 3.1 is the first two elements alone.

pub mod compiled;

mod allow_list;
mod attributes;
mod audit;
mod element;
mod fault;
mod parse;
mod quantity;
mod requirements;
mod term;

pub use allow_list::{AllowList, Contradiction};
pub use attributes::Attributes;
pub use audit::{CLOCK_TOLERANCE_MS, Reason, Reasons, Utilization, Verdict, audit};
pub use element::Element;
pub use fault::{Fault, Faults};
pub use parse::{
    EdgeRow, MAX_LIST, attributes_from_compact, attributes_from_csv, attributes_from_json,
    attributes_from_toml, nearest, requirements_from_compact, requirements_from_csv,
    requirements_from_json, requirements_from_toml,
};
pub use quantity::{Frequency, Memory, Percent};
pub use requirements::Requirements;
pub use term::{Country, Location, Name, Region};
