use carnet_api::v1::{DetectedFacts, Edge, Health, HealthState, ShareKey, UtilizationReading};
use carnet_core::policy::Attributes;

use super::quantity::{age, instant, percent};
use super::{details, table, written};
use crate::output::Surface;

fn health_state(state: HealthState) -> &'static str {
    match state {
        HealthState::Unknown => "unknown",
        HealthState::Healthy => "healthy",
        HealthState::Degraded => "degraded",
        HealthState::Unreachable => "unreachable",
    }
}

pub fn edges(edges: &[Edge], surface: Surface) -> String {
    let rows = edges.iter().map(|edge| {
        let attribute = |name| written(edge.attributes.get(name), "-");
        let used = |share: fn(&UtilizationReading) -> f64| {
            let reading = edge.utilization.as_ref();
            reading.map_or_else(|| "-".to_owned(), |reading| percent(share(reading)))
        };
        vec![
            edge.name.clone(),
            attribute("region"),
            attribute("location"),
            edge.address.clone(),
            edge.active_containers.to_string(),
            if edge.enrolled {
                health_state(edge.health.state)
            } else {
                "not enrolled"
            }
            .to_owned(),
            age(edge.health.since_at_ms, surface.now),
            used(|reading| reading.cpu_percent),
            used(|reading| reading.memory_percent),
        ]
    });
    table(
        &[
            "EDGE",
            "REGION",
            "COUNTRY",
            "ADDRESS",
            "CONTAINERS",
            "HEALTH",
            "SINCE",
            "CPU",
            "MEMORY",
        ],
        rows,
        surface.width,
    )
}

pub fn edge(edge: &Edge, surface: Surface) -> String {
    let values = [
        ("address", edge.address.clone()),
        (
            "agent",
            if edge.enrolled {
                "enrolled".to_owned()
            } else {
                format!("not enrolled; next: carnet edge enrol-token {}", edge.name)
            },
        ),
        ("health", health(&edge.health, surface)),
        (
            "utilization",
            edge.utilization
                .as_ref()
                .map(|reading| utilization(reading, surface))
                .unwrap_or_default(),
        ),
        ("containers", edge.active_containers.to_string()),
        (
            "software",
            edge.detected.as_ref().map(software).unwrap_or_default(),
        ),
        ("registered", instant(edge.created_at_ms, surface.now)),
        ("id", edge.id.to_string()),
    ];
    let mut text = details(&edge.name, &values, surface.width);
    for problem in &edge.health.problems {
        text.push_str(&format!("\n  problem: {problem}"));
    }
    text.push_str(&format!(
        "\n\nattributes, revision {}\n{}",
        edge.attributes_revision,
        attributes(edge, surface)
    ));
    if !edge.contradictions.is_empty() {
        text.push_str(
            "\n\nmarked `!`: the agent found something else than what is declared;\n\
             to declare anew: carnet edge describe ",
        );
        text.push_str(&edge.name);
        text.push_str(" --attributes FILE");
    }
    text
}

fn health(health: &Health, surface: Surface) -> String {
    format!(
        "{}, since {}",
        health_state(health.state),
        instant(health.since_at_ms, surface.now)
    )
}

fn utilization(reading: &UtilizationReading, surface: Surface) -> String {
    format!(
        "CPU {}, memory {}, read {}",
        percent(reading.cpu_percent),
        percent(reading.memory_percent),
        age(reading.read_at_ms, surface.now)
    )
}

fn software(detected: &DetectedFacts) -> String {
    let named = |name: &str, version: &Option<String>| {
        version.as_ref().map(|version| format!("{name} {version}"))
    };
    [
        named("kernel", &detected.kernel),
        named("LXC", &detected.lxc_version),
        named("CRIU", &detected.criu_version),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

fn attributes(edge: &Edge, surface: Surface) -> String {
    let rows = Attributes::COLUMNS.map(|(name, paper)| {
        let contradiction = edge
            .contradictions
            .iter()
            .find(|contradiction| contradiction.attribute == name);
        let found = match (contradiction, &edge.detected) {
            (Some(contradiction), _) => format!("{} !", contradiction.detected),
            (None, Some(detected)) => detected_attribute(detected, name),
            (None, None) => String::new(),
        };
        vec![
            name.to_owned(),
            if paper == name { "" } else { paper }.to_owned(),
            written(edge.attributes.get(name), "-"),
            found,
        ]
    });
    table(
        &["ATTRIBUTE", "PAPER", "DECLARED", "DETECTED"],
        rows,
        surface.width,
    )
}

/// What the agent found of an attribute; empty where it cannot tell.
fn detected_attribute(detected: &DetectedFacts, name: &str) -> String {
    let thousandths = |number: f64| ((number * 1e3).round() / 1e3).to_string();
    match name {
        "manufacturer" => detected.manufacturer.clone(),
        "virtualization" => Some(detected.virtualization.join(",")),
        "cpu_ghz" => detected
            .cpu_mhz
            .map(|mhz| thousandths(f64::from(mhz) / 1e3)),
        "memory_gb" => detected.memory_mb.map(|mb| thousandths(mb as f64 / 1e3)),
        "ai_support" => detected
            .ai_support
            .map(|has| if has { "yes" } else { "no" }.to_owned()),
        _ => None,
    }
    .unwrap_or_default()
}

pub fn share_keys(keys: &[ShareKey], surface: Surface) -> String {
    let rows = keys.iter().map(|key| {
        let status = match (key.revoked_at_ms, key.redeemed_at_ms) {
            (Some(at), _) => format!("revoked {}", age(at, surface.now)),
            (None, Some(at)) => format!("in use, entered {}", age(at, surface.now)),
            (None, None) => "not entered yet".to_owned(),
        };
        vec![
            key.edge_name.clone(),
            key.grantee.clone(),
            age(key.created_at_ms, surface.now),
            status,
        ]
    });
    table(&["EDGE", "GRANTEE", "GIVEN", "STATUS"], rows, surface.width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carnet_core::instant::UnixMillis;
    use serde_json::json;

    const SURFACE: Surface = Surface {
        now: UnixMillis(1_762_171_445_000),
        width: None,
    };

    fn edge2() -> Edge {
        serde_json::from_value(json!({
            "id": "0192d3c4-0000-7000-8000-000000000002", "name": "Edge2",
            "address": "10.0.0.2:7443",
            "attributes": {"region": "B", "location": "de", "organizations": ["caA", "caB"],
                           "cpu_ghz": 2.6, "memory_gb": 8, "virtualization": ["lxc"]},
            "attributes_revision": 3, "enrolled": true,
            "health": {"state": "degraded", "since_at_ms": 1_762_171_265_000_i64,
                       "problems": ["`criu` is not installed"]},
            "utilization": {"cpu_percent": 40.0, "memory_percent": 30.25,
                            "read_at_ms": 1_762_171_440_000_i64},
            "active_containers": 1,
            "detected": {"virtualization": ["lxc"], "cpu_mhz": 2100, "memory_mb": 8192,
                         "kernel": "6.18.1", "lxc_version": "6.0.4"},
            "contradictions": [{"attribute": "cpu_ghz", "declared": "2.6", "detected": "2.1"}],
            "created_at_ms": 1_762_160_000_000_i64,
        }))
        .unwrap()
    }

    #[test]
    fn edges_stand_one_a_line() {
        let mut new = edge2();
        new.name = "Edge3".to_owned();
        new.enrolled = false;
        new.utilization = None;
        assert_eq!(
            edges(&[edge2(), new], SURFACE),
            "EDGE   REGION  COUNTRY  ADDRESS        CONTAINERS  HEALTH        SINCE      CPU   MEMORY\n\
             Edge2  B       de       10.0.0.2:7443  1           degraded      3 min ago  40 %  30.25 %\n\
             Edge3  B       de       10.0.0.2:7443  1           not enrolled  3 min ago  -     -"
        );
    }

    #[test]
    fn an_edge_is_shown_with_what_its_agent_contradicts() {
        assert_eq!(
            edge(&edge2(), SURFACE),
            "\
Edge2
  address      10.0.0.2:7443
  agent        enrolled
  health       degraded, since 2025-11-03 12:01:05 UTC (3 min ago)
  utilization  CPU 40 %, memory 30.25 %, read 5 s ago
  containers   1
  software     kernel 6.18.1, LXC 6.0.4
  registered   2025-11-03 08:53:20 UTC (3 h ago)
  id           0192d3c4-0000-7000-8000-000000000002
  problem: `criu` is not installed

attributes, revision 3
ATTRIBUTE       PAPER   DECLARED  DETECTED
region                  B
location        eDAl    de
organizations   eDAo    caA,caB
manufacturer    eHRh    -
virtualization  eHRt    lxc       lxc
cpu_ghz         eHRc    2.6       2.1 !
memory_gb       eHRm    8         8.192
ai_support      eHRgpu  -
ai_accessories  eHRac   -
ai_frameworks   eHRaf   -

marked `!`: the agent found something else than what is declared;
to declare anew: carnet edge describe Edge2 --attributes FILE"
        );
    }

    #[test]
    fn a_key_is_waiting_in_use_or_revoked() {
        let key = |redeemed: Option<i64>, revoked: Option<i64>| -> ShareKey {
            serde_json::from_value(json!({
                "id": "0192d3c4-0000-7000-8000-000000000003",
                "edge": "0192d3c4-0000-7000-8000-000000000002", "edge_name": "Edge2",
                "grantee": "alice", "created_at_ms": 1_762_171_265_000_i64,
                "redeemed_at_ms": redeemed, "revoked_at_ms": revoked,
            }))
            .unwrap()
        };
        let at = Some(1_762_171_385_000);
        assert_eq!(
            share_keys(&[key(None, None), key(at, None), key(at, at)], SURFACE),
            "EDGE   GRANTEE  GIVEN      STATUS\n\
             Edge2  alice    3 min ago  not entered yet\n\
             Edge2  alice    3 min ago  in use, entered 1 min ago\n\
             Edge2  alice    3 min ago  revoked 1 min ago"
        );
    }
}
