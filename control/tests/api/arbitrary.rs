//! Whatever is asked, it is the asker's fault, or carried out: never Carnet's fault.

use carnet_api::v1::Role;
use carnet_control::http::access::ROUTES;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::plane::{ATTRIBUTES, Plane, REQUIREMENTS, Someone};

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

/// Two edges, a container on one of them, one that is pending, and one who may do everything.
async fn world() -> (Plane, Someone) {
    let plane = Plane::start().await;
    let roles = [
        Role::EdgeOwner,
        Role::ContainerOwner,
        Role::Auditor,
        Role::Administrator,
    ];
    let all = plane.account("all", &roles).await;
    for edge in ["north", "south"] {
        plane.edge(&all, edge).await;
        plane.share(&all, edge, &all).await;
    }
    plane.container(&all, &all, "north", "web").await;
    plane.pending(&all, "north", "job").await;
    (plane, all)
}

/// Words that mean something somewhere.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "name",
        "address",
        "attributes",
        "requirements",
        "edge",
        "region",
        "anywhere",
        "container",
        "to",
        "roles",
        "label",
        "key",
        "token",
        "grantee",
        "allowed_locations",
        "cpu_ghz",
        "north",
        "south",
        "web",
        "job",
        "all",
        "B",
        "de",
        "-de",
        "*",
        "lxc",
        "edge_owner",
        "192.0.2.7:1",
        REQUIREMENTS,
        ATTRIBUTES,
        "",
        "\u{0}",
    ];
    prop_oneof![3 => select(known.map(str::to_owned).to_vec()), 1 => any::<String>()]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2..200_i16).prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(word(), inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

/// A body that the route takes, or would if the names in it were free.
fn right(route: &str) -> Value {
    match route {
        "/v1/enrolments" => {
            json!({"token": "carnet-enrol.0.0", "certificate_request": "", "detected": {}})
        }
        "/v1/tokens" | "/v1/accounts/{account}/tokens" => {
            json!({"label": "x", "roles": ["auditor"], "valid_for_seconds": 60})
        }
        "/v1/accounts" => json!({"name": "bob", "roles": ["auditor"]}),
        "/v1/edges" => json!({"name": "east", "address": "192.0.2.7:1", "attributes": ATTRIBUTES}),
        "/v1/edges/{edge}/attributes" => json!({"attributes": {"location": "de", "cpu_ghz": 2.6}}),
        "/v1/edges/{edge}/share-keys" => json!({"grantee": "all"}),
        "/v1/share-keys/redeem" => json!({"key": "00"}),
        "/v1/containers" => json!({"name": "new", "edge": "north", "requirements": REQUIREMENTS}),
        "/v1/containers/{container}/allow-post-copy" => json!({"allow_post_copy": true}),
        "/v1/containers/{container}/requirements" => {
            json!({"requirements": {"allowed_locations": ["de"], "max_cpu_percent": 60}})
        }
        "/v1/migrations/{migration}/give-up" => json!({"lost": "target"}),
        "/v1/audits" | "/v1/migrations" => json!({"container": "web", "to": {"anywhere": true}}),
        _ => json!({}),
    }
}

/// `body` with one thing in it changed: a field, or what is in a field.
fn bent(body: Value, which: &Index, name: String, with: Value, how: u8) -> Value {
    let Value::Object(mut fields) = body else {
        return with;
    };
    let names: Vec<String> = fields.keys().cloned().collect();
    let Some(chosen) = (!names.is_empty()).then(|| which.get(&names).clone()) else {
        return Value::from(Map::from_iter([(name, with)]));
    };
    match how {
        0 => fields.remove(&chosen),
        1 => fields.insert(name, with),
        2 if fields[&chosen].is_object() => {
            let inner = bent(fields[&chosen].clone(), which, name, with, 1);
            fields.insert(chosen, inner)
        }
        _ => fields.insert(chosen, with),
    };
    Value::from(fields)
}

fn body(route: &'static str) -> impl Strategy<Value = Value> {
    let bent = (any::<Index>(), word(), json_value(), 0..5_u8)
        .prop_map(move |(which, name, with, how)| bent(right(route), &which, name, with, how));
    prop_oneof![1 => json_value(), 5 => bent, 1 => Just(right(route))]
}

/// The path of a route, to things that there are.
fn filled(route: &str) -> String {
    route
        .replace("{account}", "all")
        .replace("{edge}", "north")
        .replace("{container}", "job")
}

#[test]
fn no_body_is_carnets_fault() {
    let runtime = Runtime::new().unwrap();
    let (plane, all) = runtime.block_on(world());
    let takes = |method: &Method| [Method::POST, Method::PUT].contains(method);
    let routes: Vec<_> = ROUTES
        .iter()
        .filter(|(method, _, _)| takes(method))
        .collect();
    assert_eq!(routes.len(), 22);
    for (method, route, _) in routes {
        let ask = |body: Value| {
            let ask = plane.ask(method.clone(), &filled(route)).by(&all);
            runtime.block_on(ask.json(body).send())
        };
        TestRunner::new(config(40))
            .run(&body(route), |body| {
                let answer = ask(body);
                prop_assert!(!answer.status.is_server_error(), "{:?}", answer);
                Ok(())
            })
            .unwrap();
        // What was meant to be right was read as such.
        let answer = ask(right(route));
        assert_ne!(answer.status, 400, "{answer:?}");
        assert!(!answer.text().contains("unfit-body"), "{answer:?}");
    }
}

#[test]
fn no_path_and_no_query_is_carnets_fault() {
    let runtime = Runtime::new().unwrap();
    let (plane, all) = runtime.block_on(world());
    let reads = |method: &Method| [Method::GET, Method::DELETE].contains(method);
    let routes: Vec<_> = ROUTES
        .iter()
        .filter(|(method, _, _)| reads(method))
        .collect();
    let text = prop_oneof![word().prop_map(String::into_bytes), vec(any::<u8>(), 0..40)];
    let query = (
        select(std::vec![
            "limit",
            "container",
            "wait",
            "from",
            "country",
            "search",
            "offset",
            "before",
            "organization",
            "verdict",
            "x"
        ]),
        text.clone(),
    );
    let asked = (select(routes), text, proptest::option::of(query));
    TestRunner::new(config(250))
        .run(&asked, |((method, route, _), name, query)| {
            let name = encoded(&name);
            let parts = route.split('/');
            let parts: Vec<&str> = parts
                .map(|part| {
                    if part.starts_with('{') {
                        name.as_str()
                    } else {
                        part
                    }
                })
                .collect();
            let query = query.map(|(field, value)| format!("?{field}={}", encoded(&value)));
            let path = format!("{}{}", parts.join("/"), query.unwrap_or_default());
            let ask = plane.ask(method.clone(), &path).by(&all);
            let answer = runtime.block_on(ask.send());
            prop_assert!(!answer.status.is_server_error(), "{:?}", answer);
            Ok(())
        })
        .unwrap();
}

/// Every byte by its number.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}
