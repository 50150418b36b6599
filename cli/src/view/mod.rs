//! What people are shown: data in, text out.

pub mod account;
pub mod attempt;
pub mod container;
pub mod edge;
pub mod ledger;
pub mod migration;
pub mod quantity;
mod table;

use carnet_api::v1::DestinationSpec;
use serde_json::Value;

pub use table::{details, table};

/// A value of a policy as the paper's tables write it; `blank` where there is none.
pub fn written(value: Option<&Value>, blank: &str) -> String {
    match value {
        None | Some(Value::Null) => blank.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Array(entries)) if entries.is_empty() => blank.to_owned(),
        Some(Value::Array(entries)) => entries
            .iter()
            .map(|entry| written(Some(entry), blank))
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

/// A destination in words.
pub fn destination(to: &DestinationSpec) -> String {
    match to {
        DestinationSpec::Edge(edge) => edge.clone(),
        DestinationSpec::Region(region) => format!("region {region}"),
        DestinationSpec::Anywhere(_) => "anywhere".to_owned(),
    }
}
