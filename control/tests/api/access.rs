//! Who may use which route.

use std::collections::BTreeSet;

use carnet_api::v1::Role;
use carnet_control::http::access::{Access, ROUTES};
use reqwest::Method;
use serde_json::json;

use crate::plane::{Plane, Someone};

const ALL: [Role; 4] = [
    Role::EdgeOwner,
    Role::ContainerOwner,
    Role::Auditor,
    Role::Administrator,
];

/// A path of the route, on which there is nothing.
fn filled(route: &str) -> String {
    let parts = route.split('/');
    let parts: Vec<&str> = parts
        .map(|part| if part.starts_with('{') { "none" } else { part })
        .collect();
    parts.join("/")
}

/// Someone for each set of roles.
async fn people(plane: &Plane) -> Vec<(Vec<Role>, Someone)> {
    let mut people = Vec::new();
    let alone = ALL.map(|role| vec![role]);
    for roles in alone.into_iter().chain([ALL.to_vec()]) {
        let name = format!("someone-{}", people.len());
        let someone = plane.account(&name, &roles).await;
        people.push((roles, someone));
    }
    people
}

#[tokio::test]
async fn every_route_lets_in_whom_the_table_names_and_nobody_else() {
    let plane = Plane::start().await;
    let people = people(&plane).await;
    for (method, route, access) in ROUTES {
        let path = filled(route);
        let ask = || plane.ask(method.clone(), &path).json(json!({}));

        let strangers = [ask(), ask().by("carnet_00"), ask().by("")];
        for stranger in strangers {
            let answer = stranger.send().await;
            if *access == Access::Public {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{answer:?}");
            } else {
                answer.problem(401, "unauthenticated");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            }
        }
        for (roles, someone) in &people {
            let answer = ask().by(someone).send().await;
            let may = match access {
                Access::Public | Access::AnyAccount => true,
                Access::Roles(allowed) => roles.iter().any(|role| allowed.contains(role)),
            };
            if may {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{answer:?}");
            } else {
                let detail = answer.detail(403, "forbidden");
                assert!(detail.contains(&someone.name), "{detail}");
            }
        }
    }
}

/// The table itself: what is said of the roles elsewhere holds in it.
#[test]
fn an_auditor_reads_and_an_administrator_administers_and_neither_does_more() {
    let public = ROUTES
        .iter()
        .filter(|(_, _, access)| *access == Access::Public);
    let public: Vec<&str> = public.map(|(_, route, _)| *route).collect();
    let known = [
        "/v1/health",
        "/v1/openapi.json",
        "/v1/enrolments",
        "/v1/keys",
    ];
    assert_eq!(public, known);

    for (method, route, access) in ROUTES {
        let Access::Roles(roles) = access else {
            continue;
        };
        let reads = *method == Method::GET;
        assert_eq!(roles.contains(&Role::Auditor), reads, "{method} {route}");
        let administers = ["/v1/accounts", "/v1/keys", "/v1/migrations/{migration}/"];
        if !reads && !administers.iter().any(|path| route.starts_with(path)) {
            assert!(!roles.contains(&Role::Administrator), "{method} {route}");
        }
        if route.starts_with("/v1/accounts") {
            assert!(!roles.contains(&Role::EdgeOwner), "{method} {route}");
            assert!(!roles.contains(&Role::ContainerOwner), "{method} {route}");
        }
    }
}

#[tokio::test]
async fn the_document_describes_the_routes_of_the_table_and_no_others() {
    let plane = Plane::start().await;
    let name = |method: &Method, route: &str| format!("{method} {route}");
    let table: BTreeSet<String> = ROUTES
        .iter()
        .map(|(method, route, _)| name(method, &route.replace("{*", "{")))
        .collect();
    assert_eq!(
        table.len(),
        ROUTES.len(),
        "a route stands twice in the table"
    );
    let described = plane.contract().operations();
    let described: BTreeSet<String> = described
        .iter()
        .map(|(method, route)| name(method, route))
        .collect();
    assert_eq!(described, table);
}

#[tokio::test]
async fn every_schema_of_the_document_is_one() {
    let plane = Plane::start().await;
    let schemas = plane.contract().schemas();
    // A success and a problem each, at the least.
    assert!(schemas.len() >= 2 * ROUTES.len());
    for schema in schemas {
        plane.contract().validator(&schema);
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_not_there() {
    let plane = Plane::start().await;
    let everyone = plane.account("everyone", &ALL).await;
    let strays = [
        "/v1",
        "/v1/nothing",
        "/v1/edges/",
        "/v2/edges",
        "/v1/edges/a/b",
        "//",
    ];
    for path in strays {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let ask = || plane.ask(method.clone(), path);
            for answer in [ask().send().await, ask().by(&everyone).send().await] {
                let detail = answer.detail(404, "no-such-route");
                assert!(detail.contains("/v1/openapi.json"), "{detail}");
            }
        }
    }
    // Not a name: no text at all.
    let answer = plane.get(&everyone, "/v1/edges/%ff").await;
    answer.problem(404, "no-such-route");
}

#[tokio::test]
async fn what_cannot_be_done_to_a_route_says_what_can() {
    let plane = Plane::start().await;
    let everyone = plane.account("everyone", &ALL).await;
    let routes: BTreeSet<&str> = ROUTES.iter().map(|(_, route, _)| *route).collect();
    for route in routes {
        let of_route = ROUTES.iter().filter(|(_, other, _)| *other == route);
        let mut allowed: BTreeSet<&str> = of_route.map(|(method, _, _)| method.as_str()).collect();
        if allowed.contains("GET") {
            allowed.insert("HEAD");
        }
        for method in [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW",
        ] {
            // `redeem` is taken for a key, where it is not a word of the API.
            if allowed.contains(method) || (route, method) == ("/v1/share-keys/redeem", "DELETE") {
                continue;
            }
            let method: Method = method.parse().unwrap();
            let ask = || plane.ask(method.clone(), &filled(route));
            for answer in [ask().send().await, ask().by(&everyone).send().await] {
                answer.problem(405, "method-not-allowed");
                let told = answer.headers["allow"].to_str().unwrap().split(',');
                let told: BTreeSet<&str> = told.map(str::trim).collect();
                assert_eq!(told, allowed, "{method} {route}");
            }
        }
    }
}

#[tokio::test]
async fn head_is_answered_as_get_is_without_the_body() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let edges = |method| plane.ask(method, "/v1/edges");
    let head = edges(Method::HEAD).by(&owner).send().await;
    let get = edges(Method::GET).by(&owner).send().await;
    assert_eq!(head.status, 200);
    assert_eq!(
        head.headers["content-length"],
        get.headers["content-length"]
    );
    assert!(head.body.is_empty());
    assert_eq!(edges(Method::HEAD).send().await.status, 401);
}
