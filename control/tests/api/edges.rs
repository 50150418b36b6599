//! Edges: registering, describing, and what the monitor sees of them.

use carnet_api::v1::{Edge, HealthState, Role};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::plane::{ATTRIBUTES, Plane, REQUIREMENTS, certificate_request};

fn edge(name: &str, address: &str, attributes: Value) -> Value {
    json!({"name": name, "address": address, "attributes": attributes})
}

/// Place, what stood there, and what was probably meant, of every fault.
fn faults(answer: &Answer) -> Vec<(String, String, Option<String>)> {
    let problem = answer.problem(422, "faulty-input");
    let faults = problem.faults.into_iter();
    faults
        .map(|fault| (fault.place, fault.found, fault.suggestion))
        .collect()
}

fn fault(place: &str, found: &str, suggestion: Option<&str>) -> (String, String, Option<String>) {
    (
        place.to_owned(),
        found.to_owned(),
        suggestion.map(str::to_owned),
    )
}

#[tokio::test]
async fn an_edge_is_registered_by_long_names_or_by_a_compact_row() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let long = json!({
        "region": "B", "location": "DE", "organizations": ["caA"], "manufacturer": "deB",
        "virtualization": ["lxc"], "cpu_ghz": 2.6, "memory_gb": 8,
    });
    let by_row = edge("north", "192.0.2.7:7443", json!(ATTRIBUTES));
    let north: Edge = plane.post(&owner, "/v1/edges", by_row).await.read(201);
    let by_names = edge("south", "[2001:db8::7]:7443", long);
    let south: Edge = plane.post(&owner, "/v1/edges", by_names).await.read(201);
    assert_eq!(north.attributes, south.attributes);
    assert_eq!(north.attributes["location"], "de");
    assert_eq!(north.attributes_revision, 1);
    assert_eq!(north.owner, Some(owner.id));
    assert!(!north.enrolled);
    assert_eq!(north.health.state, HealthState::Unknown);
    assert_eq!(north.active_containers, 0);
    for named in ["north", &north.id.to_string()] {
        assert_eq!(plane.show_edge(&owner, named).await, north);
    }
    let listed: Vec<Edge> = plane.get(&owner, "/v1/edges").await.read(200);
    assert_eq!(listed, [north, south]);
}

#[tokio::test]
async fn every_fault_of_an_edge_is_told_at_once_with_its_place() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let long = json!({"locatoin": "de", "location": "germany", "cpu_ghz": "fast", "memory_gb": 8});
    let refused = plane
        .post(&owner, "/v1/edges", edge("no name", "north:7443", long))
        .await;
    let mut told = faults(&refused);
    told.sort();
    assert_eq!(
        told,
        [
            fault("address", "north:7443", None),
            fault("cpu_ghz", "fast", None),
            fault("location", "germany", Some("de")),
            fault("locatoin", "locatoin", Some("location")),
            fault("name", "no name", None),
        ]
    );
    let detail = refused.detail(422, "faulty-input");
    assert_eq!(detail, "the input has 5 faults");

    let row = json!("B uk caA deB lxc 2,6 8 - - -");
    let refused = plane
        .post(&owner, "/v1/edges", edge("north", "192.0.2.7", row))
        .await;
    assert_eq!(
        faults(&refused),
        [
            fault("address", "192.0.2.7", None),
            fault("field 2, location (eDAl)", "uk", Some("gb")),
            fault("field 6, cpu_ghz (eHRc)", "2,6", None),
        ]
    );
    for nothing in [json!(7), json!(null), json!([]), json!("")] {
        let refused = plane
            .post(&owner, "/v1/edges", edge("north", "192.0.2.7:1", nothing))
            .await;
        assert_eq!(faults(&refused).len(), 1);
    }
    let listed: Vec<Edge> = plane.get(&owner, "/v1/edges").await.read(200);
    assert_eq!(listed, [], "none was registered");
}

#[tokio::test]
async fn no_two_edges_have_one_name_or_one_address() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let other = plane.edge_owner("other").await;
    let register = |name: &str, address: &str| edge(name, address, json!(ATTRIBUTES));
    let first = register("north", "[2001:db8::7]:7443");
    let first: Edge = plane.post(&owner, "/v1/edges", first).await.read(201);
    for (name, address) in [
        ("north", "192.0.2.8:7443"),
        ("south", "[2001:db8::7]:7443"),
        ("south", "[2001:0db8:0:0:0:0:0:7]:7443"),
        ("south", "[2001:DB8::0:7]:7443"),
    ] {
        let body = register(name, address);
        let refused = plane.post(&other, "/v1/edges", body).await;
        let detail = refused.detail(409, "conflict");
        assert!(detail.contains(&format!("`{name}`")), "{detail}");
    }
    // Nor the id of another: whoever asks by that would find the wrong one.
    let body = register(&first.id.to_string(), "192.0.2.8:7443");
    let refused = plane.post(&other, "/v1/edges", body).await;
    let id = first.id.to_string();
    assert_eq!(faults(&refused), [fault("name", &id, None)]);
}

#[tokio::test]
async fn describing_an_edge_replaces_its_attributes_and_raises_the_revision() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    plane.edge(&owner, "north").await;
    let path = "/v1/edges/north/attributes";
    for (revision, attributes) in [(2, json!({"location": "fr"})), (3, json!(ATTRIBUTES))] {
        let body = json!({"attributes": attributes});
        let described: Edge = plane.put(&owner, path, body).await.read(200);
        assert_eq!(described.attributes_revision, revision);
        assert_eq!(described, plane.show_edge(&owner, "north").await);
    }
    let refused = plane.put(&owner, path, json!({"attributes": "B"})).await;
    assert_eq!(faults(&refused)[0].0, "row");
    let edge = plane.show_edge(&owner, "north").await;
    assert_eq!(
        edge.attributes_revision, 3,
        "what is refused changes nothing"
    );
    assert_eq!(edge.attributes["location"], "de");
}

#[tokio::test]
async fn what_contradicts_the_agents_findings_is_told() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    plane.edge(&owner, "north").await;
    let enrol = async |detected: Value| -> Edge {
        let token = plane.enrolment_token(&owner, "north").await.token;
        let body = json!({
            "token": token, "certificate_request": certificate_request(), "detected": detected,
        });
        plane.post("-", "/v1/enrolments", body).await.json(201);
        plane.show_edge(&owner, "north").await
    };
    let found = json!({"cpu_mhz": 1200, "memory_mb": 8000, "virtualization": ["kvm"]});
    let edge = enrol(found).await;
    let told: Vec<(&str, &str, &str)> = edge
        .contradictions
        .iter()
        .map(|each| {
            (
                each.attribute.as_str(),
                each.declared.as_str(),
                each.detected.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("cpu_ghz", "2.6", "1.2"), ("virtualization", "lxc", "kvm")]
    );

    let body = json!({"attributes": "B de caA deB - 1.2 8 - - -"});
    let path = "/v1/edges/north/attributes";
    let described: Edge = plane.put(&owner, path, body).await.read(200);
    assert_eq!(described.contradictions, []);

    // Whatever an agent claims to have found can be shown.
    let most = json!({
        "cpu_mhz": u32::MAX, "memory_mb": u64::MAX, "virtualization": ["lxc"], "kernel": "x",
    });
    let edge = enrol(most).await;
    assert_eq!(edge.contradictions, []);
    assert_eq!(edge.detected.unwrap().memory_mb, Some(u64::MAX));
}

#[tokio::test]
async fn an_edge_shows_what_the_monitor_saw_last() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let mover = plane.container_owner("mover").await;
    let north = plane.edge(&owner, "north").await;
    plane.share(&owner, "north", &mover).await;
    plane.container(&mover, &owner, "north", "web").await;
    plane.pending(&mover, "north", "job").await;
    for name in ["web", "job"] {
        plane
            .agents
            .run(north.id, name, carnet_api::v1::ContainerState::Running);
    }

    plane
        .agents
        .change(north.id, |edge| edge.used = Some((1234, 50)));
    plane.look().await;
    let healthy = plane.show_edge(&owner, "north").await;
    assert_eq!(healthy.health.state, HealthState::Healthy);
    assert_eq!(healthy.active_containers, 1, "those that are confirmed");
    let reading = healthy.utilization.clone().unwrap();
    assert_eq!((reading.cpu_percent, reading.memory_percent), (12.34, 0.5));

    // Seen again as it was: since when does not change.
    plane.look().await;
    let again = plane.show_edge(&owner, "north").await;
    assert_eq!(again.health, healthy.health);

    plane.agents.change(north.id, |edge| {
        edge.used = None;
        edge.problems = vec!["criu is missing".to_owned()];
    });
    plane.look().await;
    let degraded = plane.show_edge(&owner, "north").await;
    assert_eq!(degraded.health.state, HealthState::Degraded);
    assert_eq!(degraded.health.problems, ["criu is missing"]);
    assert_eq!(
        degraded.utilization, again.utilization,
        "the last reading stands"
    );

    plane.agents.change(north.id, |edge| edge.reachable = false);
    plane.look().await;
    let gone = plane.show_edge(&owner, "north").await;
    assert_eq!(gone.health.state, HealthState::Unreachable);
    assert!(gone.health.problems[0].contains("connection refused"));
    assert_eq!(gone.active_containers, 0);
}

#[tokio::test]
async fn whose_an_edge_is_is_not_shown_to_those_who_hold_only_a_key() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let mover = plane.container_owner("mover").await;
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let north = plane.edge(&owner, "north").await;
    plane.share(&owner, "north", &mover).await;
    let seen = plane.show_edge(&mover, "north").await;
    assert_eq!(seen.owner, None);
    assert_eq!(
        Edge {
            owner: Some(owner.id),
            ..seen
        },
        north
    );
    for reader in [&auditor, &plane.administrator] {
        assert_eq!(plane.show_edge(reader, "north").await, north);
    }
    // A role that the token does not have shows nothing either.
    let both = plane
        .account("both", &[Role::EdgeOwner, Role::ContainerOwner])
        .await;
    plane.edge(&both, "south").await;
    let body = json!({"label": "x", "roles": ["container_owner"]});
    let part = plane.post(&both, "/v1/tokens", body).await.json(201);
    let part = part["secret"].as_str().unwrap();
    plane
        .get(part, "/v1/edges/south")
        .await
        .problem(404, "not-found");
    let body = json!({"name": "x", "edge": "south", "requirements": REQUIREMENTS});
    let refused = plane.post(part, "/v1/containers", body).await;
    refused.problem(404, "not-found");
}
