//! The data map: the same verdicts as the audit's, as a picture and as a matrix.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use carnet_api::v1::{Container, MigrationState, Role};
use carnet_core::policy::{attributes_from_csv, requirements_from_csv};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::containers::world;
use crate::plane::{Plane, Someone};

/// The heaviest that a page may be, with all that it loads.
const HEAVIEST: usize = 200_000;

fn paper(name: &str) -> String {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../core/fixtures/paper", name]
        .iter()
        .collect();
    std::fs::read_to_string(file).unwrap()
}

/// The marks of the map: the edge, and its class, which is its verdict.
fn marks(html: &str) -> BTreeMap<String, String> {
    html.split(r#"<a href="/edges/"#)
        .skip(1)
        .filter_map(|mark| {
            let (edge, rest) = mark.split_once('"')?;
            let class = rest.strip_prefix(r#" class="mark "#)?;
            Some((edge.to_owned(), class.split('"').next()?.to_owned()))
        })
        .collect()
}

/// The entries of the matrix: the country's row, the organization's column, the edge, its class.
fn cells(html: &str) -> BTreeSet<(String, String, String, String)> {
    let (_, matrix) = html.split_once(r#"<div class="matrix""#).expect(html);
    let matrix = matrix.split("</table>").next().unwrap();
    let (head, body) = matrix.split_once("</thead>").unwrap();
    let columns: Vec<&str> = head
        .split(r#"<th scope="col">"#)
        .skip(2)
        .map(|column| column.split('<').next().unwrap())
        .collect();
    let mut cells = BTreeSet::new();
    for row in body.split(r#"<tr id="in-"#).skip(1) {
        let country = row.split('"').next().unwrap();
        for (cell, column) in row.split("<td>").skip(1).zip(&columns) {
            for entry in cell.split(r#"<p class="cell "#).skip(1) {
                let class = entry.split('"').next().unwrap();
                let (_, edge) = entry.split_once(r#"href="/edges/"#).unwrap();
                let edge = edge.split('"').next().unwrap();
                let owned = [country, column, edge, class].map(str::to_owned);
                let [country, column, edge, class] = owned;
                cells.insert((country, column, edge, class));
            }
        }
    }
    cells
}

/// Every entry of the matrix that is of an edge: its text.
fn cell<'a>(html: &'a str, edge: &str) -> &'a str {
    let (_, matrix) = html.split_once(r#"<div class="matrix""#).expect(html);
    let matrix = matrix.split("</table>").next().unwrap();
    matrix
        .split(r#"<p class="cell "#)
        .find(|entry| entry.contains(&format!(r#"href="/edges/{edge}""#)))
        .unwrap_or_else(|| panic!("no {edge}: {matrix}"))
}

/// The picture and the matrix show the same edges with the same verdicts.
fn agree(html: &str) {
    let of_matrix: BTreeMap<String, String> = cells(html)
        .into_iter()
        .map(|(_, _, edge, class)| (edge, class))
        .collect();
    assert_eq!(marks(html), of_matrix, "{html}");
}

/// A container of the mover's on north, which asks for what the form's example asks for.
async fn app(plane: &Plane, lender: &Someone, mover: &Someone) -> Container {
    let app = plane.container(mover, lender, "north", "app").await;
    require(plane, mover, json!("jp,us,fr -caB * * 60 50 1.6 * * * *")).await;
    app
}

async fn require(plane: &Plane, mover: &Someone, requirements: Value) {
    let body = json!({"requirements": requirements});
    let path = "/v1/containers/app/requirements";
    plane.put(mover, path, body).await.json(200);
}

#[tokio::test]
async fn the_papers_edges_are_drawn_as_the_paper_decides_and_the_matrix_says_the_same() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let edges = attributes_from_csv(&paper("edges.csv")).unwrap();
    for row in edges.iter().filter(|row| row.name != "table4") {
        let compact = row.attributes.to_json();
        let port = 7000
            + plane
                .get(&lender, "/v1/edges")
                .await
                .json(200)
                .as_array()
                .unwrap()
                .len();
        let address = format!("192.0.2.9:{port}");
        let asked = json!({"name": row.name, "address": address, "attributes": compact});
        plane.post(&lender, "/v1/edges", asked).await.json(201);
        plane.enrol(&lender, &row.name).await;
        plane.share(&lender, &row.name, &mover).await;
        let edge = plane.show_edge(&lender, &row.name).await;
        // As the caption of its Table 6 has them.
        plane
            .agents
            .change(edge.id, |edge| edge.used = Some((4_000, 3_000)));
    }
    plane.container(&mover, &lender, "Edge1", "app").await;
    let containers = requirements_from_csv(&paper("containers.csv")).unwrap();
    let (_, app1) = containers.iter().find(|(name, _)| name == "App1").unwrap();
    require(&plane, &mover, app1.to_json()).await;

    let mut browser = Browser::of(&plane, &mover).await;
    let page = browser.get("/containers/app/map").await;
    let html = page.is(200);
    agree(html);
    let drawn = marks(html);
    let mut decided = 0;
    for line in paper("decisions.csv")
        .lines()
        .filter(|line| line.starts_with("1,App1,Edge"))
    {
        let cells: Vec<&str> = line.split(',').collect();
        let (edge, expected, element) = (cells[2], cells[3], cells[4]);
        let class = if expected == "permit" { "good" } else { "bad" };
        assert_eq!(drawn[edge], class, "{line}");
        if expected == "deny" {
            let told = format!(r#"<span class="code">{element}</span>"#);
            assert!(cell(html, edge).contains(&told), "{line}: {html}");
        }
        decided += 1;
    }
    assert_eq!((decided, drawn.len()), (7, 8), "{drawn:?}");
    // Edge2 is in Germany, and caA's; the container is on Edge1.
    let owned = ["de", "caA", "Edge2", "bad"].map(str::to_owned);
    assert!(cells(html).contains(&owned.into()), "{html}");
    assert!(cell(html, "Edge1").contains(">here<"), "{html}");
    assert_eq!(html.matches(r#"<circle class="here" r="29"/>"#).count(), 1);
    assert!(
        html.contains("Of 8 edges: 5 permitted, 3 denied by rule."),
        "{html}"
    );
    // By its best edge: in the United States one is permitted, and one is not.
    assert_eq!(
        html.matches(r#"<path class="country good""#).count(),
        3,
        "jp, fr, us"
    );
    assert_eq!(
        html.matches(r#"<path class="country bad""#).count(),
        2,
        "de, kr"
    );
}

#[tokio::test]
async fn load_what_is_not_known_and_what_is_not_ready_are_told_apart_and_agents_words_stay_text() {
    let (plane, lender, mover) = world().await;
    for (name, row) in [
        ("busy", "A jp caA deA lxc 2.6 8 - - -"),
        ("silent", "A jp caA deA lxc 2.6 8 - - -"),
        ("stale", "A jp caA deA lxc 2.6 8 - - -"),
        ("broken", "A jp caA deA lxc 2.6 8 - - -"),
        ("placeless", "A - - deA lxc 2.6 8 - - -"),
    ] {
        plane.edge_as(&lender, name, row).await;
        plane.share(&lender, name, &mover).await;
    }
    app(&plane, &lender, &mover).await;
    let id = async |name: &str| plane.show_edge(&lender, name).await.id;
    plane
        .agents
        .change(id("busy").await, |edge| edge.used = Some((500, 5_001)));
    plane
        .agents
        .change(id("silent").await, |edge| edge.reachable = false);
    plane
        .agents
        .change(id("stale").await, |edge| edge.age_ms = 60_000);
    let problem = "<script>alert(1)</script>".to_owned();
    plane
        .agents
        .change(id("broken").await, |edge| edge.problems = vec![problem]);
    let mut browser = Browser::of(&plane, &mover).await;
    let page = browser.get("/containers/app/map").await;
    let html = page.is(200);
    let expected = [
        ("north", "good"),
        ("south", "good"),
        ("far", "bad"),
        ("busy", "load"),
        ("silent", "unread"),
        ("stale", "unread"),
        ("broken", "ready"),
    ];
    let expected: BTreeMap<String, String> = expected
        .map(|(edge, class)| (edge.to_owned(), class.to_owned()))
        .into();
    assert_eq!(marks(html), expected, "{html}");
    // What is nowhere has no mark, and a row.
    let none = cells(html)
        .into_iter()
        .find(|(_, _, edge, _)| edge == "placeless");
    let (country, column, _, class) = none.expect(html);
    assert_eq!((country.as_str(), class.as_str()), ("none", "bad"));
    assert_eq!(column, "organization not said");
    // A sign and a word each, never the colour alone.
    for told in [
        "▲ denied by load",
        "? no fresh reading",
        "◐ permitted, not ready",
        "✕ denied by rule",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    assert!(html.contains("&#60;script&#62;alert(1)"), "{html}");
    assert!(!html.contains("<script>"), "{html}");
}

#[tokio::test]
async fn a_change_is_answered_before_it_is_saved_and_saved_by_the_button_alone() {
    let (plane, lender, mover) = world().await;
    app(&plane, &lender, &mover).await;
    let before = plane.show_container(&mover, "app").await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = "/containers/app/map";
    assert!(!browser.get(path).await.is(200).contains("Not saved"));
    let typed = [("allowed_locations", "de"), ("act", "preview")];
    let page = browser.fill(path, path, &typed).await;
    let html = page.is(200);
    assert!(html.contains("Not saved."), "{html}");
    assert!(
        !html.contains("data-live"),
        "what is typed is not taken away"
    );
    agree(html);
    let expected = [("far", "good"), ("north", "bad"), ("south", "bad")];
    let expected: BTreeMap<String, String> = expected
        .map(|(edge, class)| (edge.to_owned(), class.to_owned()))
        .into();
    assert_eq!(marks(html), expected);
    assert_eq!(plane.show_container(&mover, "app").await, before);

    // What is picked beside the list counts, in the picture and when it is saved.
    let typed = [
        ("allowed_locations", "jp, fr"),
        ("allowed_locations_pick", "de"),
        ("allowed_organizations_pick", "caC"),
        ("allowed_organizations_as", "excluded"),
        ("act", "preview"),
    ];
    let page = browser.fill(path, path, &typed).await;
    let html = page.is(200);
    assert!(
        html.contains(r#"name="allowed_locations" value="jp, fr,de""#),
        "{html}"
    );
    assert!(
        html.contains(r#"name="allowed_organizations" value="-caC""#),
        "{html}"
    );
    assert_eq!(marks(html)["south"], "bad");
    assert_eq!(marks(html)["far"], "good");
    let mut saved = typed.to_vec();
    saved.pop();
    saved.push(("act", "save"));
    browser.fill(path, path, &saved).await.leads_to(path);
    let after = plane.show_container(&mover, "app").await.requirements;
    let expected =
        json!({"allowed_locations": ["de", "fr", "jp"], "allowed_organizations": ["-caC"]});
    assert_eq!(after, expected);

    // What cannot be read is told at its field, and saved by nothing.
    for act in ["preview", "save"] {
        let typed = [
            ("allowed_locations", "jpn"),
            ("max_cpu_percent", "x"),
            ("act", act),
        ];
        let page = browser.fill(path, path, &typed).await;
        let html = page.is(422);
        assert!(
            page.faults_at("allowed_locations")
                .contains("Did you mean <q>jp</q>?"),
            "{html}"
        );
        assert!(
            page.faults_at("max_cpu_percent").contains("not a number"),
            "{html}"
        );
        assert!(!html.contains(r#"class="mark"#), "{html}");
    }
    let kept = plane.show_container(&mover, "app").await.requirements;
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn what_is_hardly_meant_is_said_at_its_field_before_it_is_saved() {
    let (plane, lender, mover) = world().await;
    app(&plane, &lender, &mover).await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = "/containers/app/map";
    let typed = [
        ("allowed_locations", "kr"),
        ("allowed_organizations", "caAA,-caB"),
        ("min_memory_gb", "8.1"),
        ("max_cpu_percent", "1"),
        ("min_cpu_ghz", "2.6"),
        ("act", "preview"),
    ];
    let page = browser.fill(path, path, &typed).await;
    let html = page.is(200);
    let at = |field: &str| {
        let begin = format!(r#"id="{field}-warnings""#);
        html.split_once(&begin)
            .map(|(_, rest)| rest.split("</div>").next().unwrap())
            .unwrap_or_default()
    };
    let locations = at("allowed_locations");
    assert!(locations.contains("None of the 3 edges"), "{html}");
    assert!(
        locations.contains("<code>de</code>, <code>fr</code>, <code>jp</code>"),
        "{locations}"
    );
    let organizations = at("allowed_organizations");
    assert!(
        organizations.contains("changes nothing to exclude <code>caB</code>"),
        "{organizations}"
    );
    assert!(
        organizations.contains("Did you mean <code>caA</code>?"),
        "{organizations}"
    );
    assert!(
        at("min_memory_gb").contains("The most that one has is 8 GB"),
        "{html}"
    );
    assert!(at("max_cpu_percent").contains("That may change"), "{html}");
    assert_eq!(at("min_cpu_ghz"), "", "every edge has as much");
    // Each by itself is met by some edge, and both by none.
    let typed = [
        ("allowed_locations", "de"),
        ("allowed_organizations", "caA"),
        ("act", "preview"),
    ];
    let page = browser.fill(path, path, &typed).await;
    assert!(
        page.is(200)
            .contains("all of them together by none of the 3"),
        "{}",
        page.html
    );
    // The form elsewhere says the same.
    let form = "/containers/app/requirements";
    let typed = [("min_memory_gb", "9"), ("act", "preview")];
    let page = browser.fill(form, form, &typed).await;
    assert!(
        page.is(200).contains(r#"id="min_memory_gb-warnings""#),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn where_it_has_been_is_drawn_in_order_and_told() {
    let (plane, lender, mover) = world().await;
    app(&plane, &lender, &mover).await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = "/containers/app/map";
    let page = browser.get(path).await;
    assert!(!page.is(200).contains(r#"class="arc""#), "{}", page.html);
    for target in ["south", "north", "south"] {
        let begun = plane.start_move(&mover, "app", target).await;
        let ended = plane.end_of(&mover, &begun).await;
        assert_eq!(ended.state, MigrationState::Completed, "{ended:?}");
    }
    // Denied: it has not been there.
    let denied = plane.start_move(&mover, "app", "far").await;
    plane.end_of(&mover, &denied).await;
    let page = browser.get(path).await;
    let html = page.is(200);
    // There and back; there again is the same way.
    assert_eq!(html.matches(r#"class="arc""#).count(), 2, "{html}");
    for moves in ["1 3", "2"] {
        let label = format!(r#"<text y="7">{moves}</text>"#);
        assert!(html.contains(&label), "{moves}: {html}");
    }
    let (_, stops) = html.split_once(r#"<ol class="stops" start="0">"#).unwrap();
    let stops = stops.split("</ol>").next().unwrap();
    let been: Vec<&str> = stops
        .split(r#"<li><a href="/edges/"#)
        .skip(1)
        .map(|stop| stop.split('"').next().unwrap())
        .collect();
    assert_eq!(been, ["north", "south", "north", "south"]);
    assert!(
        stops.contains("France (fr)") && stops.contains("Japan (jp)"),
        "{stops}"
    );
    assert!(cell(html, "south").contains(">here<"), "{html}");
}

#[tokio::test]
async fn who_reads_everything_sees_the_map_and_changes_nothing() {
    let (plane, lender, mover) = world().await;
    app(&plane, &lender, &mover).await;
    let both = [Role::EdgeOwner, Role::ContainerOwner];
    let stranger = plane.account("stranger", &both).await;
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let mut auditor = Browser::of(&plane, &auditor).await;
    let path = "/containers/app/map";
    let page = auditor.get(path).await;
    let html = page.is(200);
    agree(html);
    assert_eq!(marks(html).len(), 3, "what its owner may use");
    assert!(
        !html.contains("data-preview") && !html.contains(r#"value="save""#),
        "{html}"
    );
    // Whose edge it is on sees the container, and not where else it may go.
    plane
        .edge_as(&stranger, "theirs", "A jp caA deA lxc 2.6 8 - - -")
        .await;
    plane.share(&stranger, "theirs", &mover).await;
    let theirs = plane.pending(&mover, "theirs", "guest").await;
    let mut stranger = Browser::of(&plane, &stranger).await;
    let shown = format!("/containers/{}", theirs.id);
    assert!(!stranger.get(&shown).await.is(200).contains("/map"));
    for hidden in [format!("{shown}/map"), path.to_owned()] {
        stranger.get(&hidden).await.is(404);
    }
}

/// What a page loads, and the page itself, in bytes.
async fn weight(browser: &mut Browser, path: &str) -> usize {
    let page = browser.get(path).await;
    let mut bytes = page.is(200).len();
    let assets: BTreeSet<&str> = page
        .html
        .split('"')
        .filter(|text| text.starts_with("/assets/"))
        .collect();
    assert!(assets.len() >= 4, "{assets:?}");
    for asset in assets {
        bytes += browser.get(asset).await.html.len();
    }
    bytes
}

#[tokio::test]
async fn the_map_stays_light_with_as_many_edges_as_it_shows_one_by_one_and_with_more() {
    let (plane, lender, mover) = world().await;
    app(&plane, &lender, &mover).await;
    let countries = ["jp", "us", "fr", "de", "kr", "br", "sg", "mt", "aq", "li"];
    let mut browser = Browser::of(&plane, &mover).await;
    let path = "/containers/app/map";
    let mut made = 3;
    for (edges, is_counted) in [(60, false), (63, true)] {
        while made < edges {
            let country = countries[made % countries.len()];
            let row = format!("A {country} ca{} deA lxc 2.6 8 - - -", made % 7);
            let name = format!("edge-with-a-long-name-{made}");
            plane.edge_as(&lender, &name, &row).await;
            plane.share(&lender, &name, &mover).await;
            made += 1;
        }
        // Of the worst, which is told at length.
        require(
            &plane,
            &mover,
            json!("no -caB deZ kvm 60 50 3.6 16 yes x y"),
        )
        .await;
        let bytes = weight(&mut browser, path).await;
        println!("{edges} edges: {bytes} bytes");
        assert!(bytes < HEAVIEST, "{bytes} bytes with {edges} edges");
        let page = browser.get(path).await;
        let html = page.is(200);
        if is_counted {
            assert_eq!(marks(html).len(), 0);
            assert!(
                html.contains(r##"<a href="#in-aq" class="mark bad""##),
                "{html}"
            );
            assert!(html.contains(r#"<tr id="in-aq">"#), "{html}");
            let counted: usize = html
                .split(r#"class="mark "#)
                .skip(1)
                .map(|mark| {
                    let (_, text) = mark.split_once(r#"<text y="9">"#).unwrap();
                    text.split('<').next().unwrap().parse::<usize>().unwrap()
                })
                .sum();
            assert_eq!(counted, edges);
        } else {
            agree(html);
            assert_eq!(marks(html).len(), edges);
        }
    }
}
