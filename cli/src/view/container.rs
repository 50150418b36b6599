use carnet_api::v1::{Claim, Container, ContainerRegistration, ContainerState};
use carnet_core::policy::Element;

use super::quantity::{age, instant};
use super::{details, table, written};
use crate::output::Surface;

fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Unknown => "unknown",
        ContainerState::Running => "running",
        ContainerState::Frozen => "frozen",
        ContainerState::Stopped => "stopped",
        ContainerState::Missing => "missing",
    }
}

fn registration(registration: ContainerRegistration) -> &'static str {
    match registration {
        ContainerRegistration::Pending => "pending",
        ContainerRegistration::Confirmed => "confirmed",
    }
}

pub fn containers(containers: &[Container], surface: Surface) -> String {
    let rows = containers.iter().map(|container| {
        vec![
            container.name.clone(),
            container.edge_name.clone(),
            state(container.state).to_owned(),
            age(container.state_since_at_ms, surface.now),
            registration(container.registration).to_owned(),
            container
                .migration
                .map_or_else(|| "-".to_owned(), |migration| migration.to_string()),
        ]
    });
    table(
        &[
            "CONTAINER",
            "EDGE",
            "STATE",
            "SINCE",
            "REGISTRATION",
            "MOVING",
        ],
        rows,
        surface.width,
    )
}

pub fn container(container: &Container, surface: Surface) -> String {
    let values = [
        ("edge", container.edge_name.clone()),
        (
            "state",
            format!(
                "{}, since {}",
                state(container.state),
                instant(container.state_since_at_ms, surface.now)
            ),
        ),
        (
            "registration",
            match container.registration {
                ContainerRegistration::Confirmed => "confirmed".to_owned(),
                ContainerRegistration::Pending => format!(
                    "pending; next: carnet container claim {name}, or its edge's owner: \
                     carnet container confirm {id}",
                    name = container.name,
                    id = container.id
                ),
            },
        ),
        ("generation", container.generation.to_string()),
        (
            "post-copy",
            if container.allow_post_copy {
                "allowed: its memory may follow after it runs at a target"
            } else {
                "not allowed: it stands still until all of its memory is over"
            }
            .to_owned(),
        ),
        (
            "moving",
            container
                .migration
                .map(|migration| format!("carnet migration show {migration}"))
                .unwrap_or_default(),
        ),
        ("registered", instant(container.created_at_ms, surface.now)),
        ("id", container.id.to_string()),
    ];
    let rows = Element::ALL.map(|element| {
        vec![
            element.name().to_owned(),
            element.paper_name().to_owned(),
            written(container.requirements.get(element.name()), "*"),
        ]
    });
    format!(
        "{}\n\nrequirements, revision {}\n{}",
        details(&container.name, &values, surface.width),
        container.requirements_revision,
        table(&["ELEMENT", "PAPER", "REQUIRED"], rows, surface.width)
    )
}

/// How to place a claim's code, and what comes then.
pub fn claim(name: &str, claim: &Claim, surface: Surface) -> String {
    format!(
        "to show that `{name}` is yours, write the code above inside it, as its root:\n  \
         echo {code} > {path}\n\
         or, where you can enter it on its edge:\n  \
         lxc-attach -n {name} -- sh -c 'echo {code} > {path}'\n\
         then: carnet container prove {name}\n\
         the code is good until {until}",
        code = claim.code,
        path = claim.path,
        until = instant(claim.expires_at_ms, surface.now),
    )
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

    fn app1(registration: &str) -> Container {
        serde_json::from_value(json!({
            "id": "0192d3c4-0000-7000-8000-000000000007", "name": "App1",
            "owner": "0192d3c4-0000-7000-8000-000000000008",
            "edge": "0192d3c4-0000-7000-8000-000000000001", "edge_name": "Edge1",
            "requirements": {"allowed_locations": ["jp", "us", "fr"],
                             "allowed_organizations": ["-caB"], "virtualization": "lxc",
                             "max_cpu_percent": 60, "min_cpu_ghz": 1.6},
            "requirements_revision": 1, "generation": 4, "registration": registration, "allow_post_copy": true,
            "state": "running", "state_since_at_ms": 1_762_171_265_000_i64,
            "created_at_ms": 1_762_171_265_000_i64,
        }))
        .unwrap()
    }

    #[test]
    fn containers_stand_one_a_line() {
        assert_eq!(
            containers(&[app1("pending")], SURFACE),
            "CONTAINER  EDGE   STATE    SINCE      REGISTRATION  MOVING\n\
             App1       Edge1  running  3 min ago  pending       -"
        );
    }

    #[test]
    fn a_container_is_shown_with_every_element_also_those_that_ask_for_nothing() {
        assert_eq!(
            container(&app1("confirmed"), SURFACE),
            "\
App1
  edge          Edge1
  state         running, since 2025-11-03 12:01:05 UTC (3 min ago)
  registration  confirmed
  generation    4
  post-copy     allowed: its memory may follow after it runs at a target
  registered    2025-11-03 12:01:05 UTC (3 min ago)
  id            0192d3c4-0000-7000-8000-000000000007

requirements, revision 1
ELEMENT                PAPER   REQUIRED
allowed_locations      cDAl    jp,us,fr
allowed_organizations  cDAo    -caB
allowed_manufacturers  cHRh    *
virtualization         cHRt    lxc
max_cpu_percent        cHRcu   60
max_memory_percent     cHRmu   *
min_cpu_ghz            cHRc    1.6
min_memory_gb          cHRm    *
ai_support             cHRgpu  *
ai_accessories         cHRac   *
ai_frameworks          cHRaf   *"
        );
        assert!(
            container(&app1("pending"), SURFACE)
                .contains("pending; next: carnet container claim App1")
        );
    }
}
