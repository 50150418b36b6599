//! Long lists: nothing is lost between their pages, and no page is heavy.

use std::collections::BTreeSet;

use carnet_api::v1::Role;
use serde_json::json;

use crate::browser::{Browser, Page};
use crate::plane::{Plane, Someone};

/// What a page may weigh, in bytes.
const MAX_PAGE: usize = 200_000;
const MANY: usize = 1_000;

/// A plane with [`MANY`] of everything, each row as long as they get.
async fn crowded() -> (Plane, Someone) {
    let plane = Plane::start().await;
    let both = [Role::EdgeOwner, Role::ContainerOwner];
    let owner = plane.account("owner-of-all-that-there-is", &both).await;
    let row = "region-of-the-north jp org-a,org-b maker lxc 2.6 8 yes - -";
    for edge in ["first", "second"] {
        plane.edge_as(&owner, edge, row).await;
        plane.share(&owner, edge, &owner).await;
    }
    let body = json!({"name": "app", "edge": "first", "requirements": "jp * * * * * * * * * *"});
    let made = plane.post(&owner, "/v1/containers", body).await.json(201);
    let confirm = format!("/v1/containers/{}/confirm", made["id"].as_str().unwrap());
    plane.post(&owner, &confirm, json!({})).await.json(200);
    let migration = plane.start_move(&owner, "app", "second").await;
    plane.end_of(&owner, &migration).await;
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)";
    let id = "printf('00000000-0000-7000-8000-%012x', i)";
    let name = "printf('%s-%040d', 'a-name-as-long-as-it-gets', i)";
    let rows = [
        ("edges", "id", id.to_owned()),
        ("containers", "id", id.to_owned()),
        ("accounts", "id", id.to_owned()),
    ];
    for (table, key, value) in rows {
        // All columns of the first row, but these.
        let others = match table {
            "edges" => "owner, attributes, attributes_revision, enrolled_at, detected, created_at",
            "containers" => {
                "owner, edge, requirements, requirements_revision, generation, created_at"
            }
            _ => "roles, created_at",
        };
        let (own, own_values) = match table {
            "edges" => (
                "name, address, ",
                format!("{name}, '[2001:db8::' || i || ']:7443', "),
            ),
            _ => ("name, ", format!("{name}, ")),
        };
        let there = if table == "edges" { 2 } else { 1 };
        let last = format!("(SELECT * FROM {table} ORDER BY created_at DESC LIMIT 1)");
        plane
            .change(&format!(
                "{numbers} INSERT INTO {table} ({key}, {own}{others})
                 SELECT {value}, {own_values}{others} FROM n, {last} WHERE i <= {MANY} - {there}"
            ))
            .await;
    }
    plane
        .change(
            "INSERT OR REPLACE INTO edge_sightings
                 (edge, health, since, problems, cpu_hundredths, memory_hundredths, read_at)
             SELECT id, 'degraded', 0, json_array(printf('%0300d', 7)), 9999, 9999, 0 FROM edges",
        )
        .await;
    plane
        .change(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 59)
             INSERT OR REPLACE INTO utilization_samples
             SELECT id, i, i * 7777 % 10000, 9999, unixepoch() * 1000 - i * 60000 FROM n, edges",
        )
        .await;
    plane
        .change(&format!(
            "{numbers} INSERT INTO migrations
                 (id, container, requested_by, destination, source, target, state, phase, facts,
                  created_at, ended_at)
             SELECT {id}, container, requested_by, destination, source, target, state, phase, facts,
                  created_at, ended_at
             FROM n, (SELECT * FROM migrations LIMIT 1)"
        ))
        .await;
    (plane, owner)
}

/// What the page's list leads to, below `path`.
fn linked(page: &Page, path: &str) -> Vec<String> {
    let begin = format!(r#"<a href="{path}/"#);
    let rest = page.html.split(&begin).skip(1);
    let ids = rest.map(|rest| rest.split('"').next().unwrap().to_owned());
    ids.filter(|id| !id.contains('/')).collect()
}

fn light(page: &Page) {
    let size = page.html.len();
    assert!(size < MAX_PAGE, "{size} bytes");
}

/// Follows a list from its first page to its last, and back.
async fn walked(browser: &mut Browser, first: &str, path: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut next = Some(first.to_owned());
    let mut last = String::new();
    let mut pages = 0;
    while let Some(address) = next.take() {
        let page = browser.get(&address).await;
        page.is(200);
        light(&page);
        let mut ids = linked(&page, path);
        ids.dedup();
        for id in ids {
            assert!(all.insert(id.clone()), "{id} stands on two pages");
        }
        next = beside(&page, "next");
        last = address;
        pages += 1;
    }
    assert!(pages > 10, "{pages} pages");
    let mut back = 1;
    while let Some(address) = beside(&browser.get(&last).await, "prev") {
        last = address;
        back += 1;
    }
    assert_eq!((last.as_str(), back), (first, pages));
    all
}

/// Where the link to the page before or behind leads.
fn beside(page: &Page, which: &str) -> Option<String> {
    let (before, _) = page.html.split_once(&format!(r#"" rel="{which}""#))?;
    let (_, path) = before.rsplit_once(r#"href=""#)?;
    Some(path.replace("&#38;", "&"))
}

#[tokio::test]
async fn every_page_of_long_lists_is_light_and_together_they_have_all() {
    let (plane, owner) = crowded().await;
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let mut of_owner = Browser::of(&plane, &owner).await;
    let mut of_auditor = Browser::of(&plane, &auditor).await;
    for browser in [&mut of_owner, &mut of_auditor] {
        let edges = walked(browser, "/edges", "/edges").await;
        assert_eq!(edges.len(), MANY);
        let migrations = walked(browser, "/migrations", "/migrations").await;
        assert_eq!(migrations.len(), MANY);
    }
    plane
        .change(
            "INSERT INTO share_keys (id, edge, grantee, key_hash, created_at)
             SELECT accounts.id, edges.id, accounts.id, randomblob(32), 0
             FROM accounts, edges WHERE edges.name = 'first' AND accounts.name LIKE 'a-name%'",
        )
        .await;
    let mut administrator = Browser::of(&plane, &plane.administrator).await;
    let of_owner_too = ["/edges/first", "/edges/first?keys=20"];
    let of_administrator = ["/accounts", "/accounts?page=20", "/admin"];
    for (browser, paths) in [
        (&mut of_owner, &of_owner_too[..]),
        (&mut administrator, &of_administrator[..]),
        (&mut of_auditor, &["/entries", "/stays"][..]),
    ] {
        for path in paths {
            let page = browser.get(path).await;
            page.is(200);
            light(&page);
        }
    }
    // Each leads to its edge too.
    let containers = walked(&mut of_owner, "/containers", "/containers").await;
    assert_eq!(containers.len(), MANY);
    let containers = walked(&mut of_auditor, "/containers", "/containers").await;
    assert_eq!(containers.len(), MANY);
}

#[tokio::test]
async fn lists_are_searched_by_name_region_country_and_organization() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("lender").await;
    for (name, row) in [
        ("north", "alpha jp org-a maker lxc 2.6 8 - - -"),
        ("south", "beta de org-b,org-c maker lxc 2.6 8 - - -"),
        ("we_st", "gamma us na maker lxc 2.6 8 - - -"),
    ] {
        plane.edge_as(&owner, name, row).await;
    }
    let mut browser = Browser::of(&plane, &owner).await;
    let cases: [(&str, &[&str]); 10] = [
        ("NORT", &["north"]),
        ("bet", &["south"]),
        ("jp", &["north"]),
        ("germ", &["south"]),
        ("org-c", &["south"]),
        ("org", &["north", "south"]),
        ("_", &["we_st"]),
        ("%25", &[]),
        ("", &["north", "south", "we_st"]),
        ("192.0.2.7", &[]),
    ];
    for (search, expected) in cases {
        let page = browser.get(&format!("/edges?search={search}")).await;
        page.is(200);
        assert_eq!(linked(&page, "/edges"), expected, "{search}");
        let answer = plane
            .get(&owner, &format!("/v1/edges?search={search}"))
            .await;
        let found = answer.json(200);
        let found: Vec<_> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["name"])
            .collect();
        assert_eq!(json!(found), json!(expected), "{search}");
    }
    let page = browser.get("/edges?search=nothing").await;
    assert!(page.is(200).contains("None of your edges is like this"));
    assert!(
        page.html
            .contains(r#"name="search" type="search" value="nothing""#)
    );
    let page = browser.get("/edges?own=7").await;
    assert!(page.is(200).contains("None of 3 is here"), "{}", page.html);
    assert_eq!(beside(&page, "prev").as_deref(), Some("/edges"));
    browser.get("/edges?own=x").await.is(400);
    let long = format!("/edges?search={}", "x".repeat(201));
    browser.get(&long).await.is(422);
}
