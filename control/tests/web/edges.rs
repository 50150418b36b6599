//! The pages of those who lend edges.

use carnet_api::v1::{Edge, Role, ShareKey, UtilizationReading};
use reqwest::Method;

use crate::browser::Browser;
use crate::plane::{ATTRIBUTES, Plane};

/// A right one, as the form sends it.
const NORTH: [(&str, &str); 8] = [
    ("name", "north"),
    ("address", "192.0.2.7:7443"),
    ("region", "B"),
    ("location", "de"),
    ("organizations", "caA,caB"),
    ("manufacturer", "deB"),
    ("cpu_ghz", "2.6"),
    ("ai_support", "yes"),
];

#[tokio::test]
async fn an_edge_is_registered_and_is_what_the_api_would_have_made() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mut browser = Browser::of(&plane, &lender).await;
    let empty = browser.get("/edges").await;
    assert!(empty.is(200).contains("You have registered no edge yet"));
    let page = browser
        .fill("/register-edge", "/register-edge", &NORTH)
        .await;
    page.leads_to("/edges/north");
    let page = browser.get("/edges/north").await;
    let html = page.is(200);
    for told in [
        "192.0.2.7:7443",
        "Germany (de)",
        "caA,caB",
        "eDAl",
        "not enrolled",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    let list = browser.get("/edges").await;
    assert!(list.is(200).contains(r#"href="/edges/north""#));

    let made = plane.show_edge(&lender, "north").await;
    assert_eq!(made.owner, Some(lender.id));
    let expected = serde_json::json!({
        "region": "B", "location": "de", "organizations": ["caA", "caB"],
        "manufacturer": "deB", "cpu_ghz": 2.6, "ai_support": true,
    });
    assert_eq!(made.attributes, expected);
}

#[tokio::test]
async fn every_fault_of_an_edge_is_told_at_its_field_with_what_was_meant() {
    let plane = Plane::start().await;
    let mut browser = Browser::registered(&plane, "lender", &["edge_owner"]).await;
    let wrong = [
        ("name", "no name"),
        ("address", "192.0.2.7"),
        ("location", "germany"),
        ("organizations", "ca A"),
        ("cpu_ghz", "fast"),
        ("memory_gb", "-1"),
        ("ai_support", "maybe"),
    ];
    let page = browser
        .fill("/register-edge", "/register-edge", &wrong)
        .await;
    page.is(422);
    for (field, typed) in wrong {
        let told = page.faults_at(field);
        assert!(
            told.contains(typed) && told.contains("Allowed"),
            "{field}: {told}"
        );
        if !["location", "ai_support"].contains(&field) {
            let kept = format!(r#"name="{field}" value="{typed}""#);
            assert!(page.html.contains(&kept), "{field}: {}", page.html);
        }
    }
    assert!(
        page.faults_at("location")
            .contains("Did you mean <q>de</q>?"),
        "{}",
        page.faults_at("location")
    );
    assert_eq!(page.faults_at("region"), "");

    browser
        .fill("/register-edge", "/register-edge", &NORTH)
        .await
        .leads_to("/edges/north");
    let page = browser
        .fill("/register-edge", "/register-edge", &NORTH)
        .await;
    assert!(
        page.is(409)
            .contains("there is an edge named <code>north</code>"),
        "{}",
        page.html
    );
    for (field, of_another) in [("name", "address"), ("address", "name")] {
        assert!(page.faults_at(field).contains("taken"), "{}", page.html);
        // The one that is taken, and not the other.
        let other = match of_another {
            "name" => ("name", "south"),
            _ => ("address", "192.0.2.8:7443"),
        };
        let mut typed: Vec<(&str, &str)> = NORTH.to_vec();
        typed.retain(|(name, _)| *name != of_another);
        typed.push(other);
        let page = browser
            .fill("/register-edge", "/register-edge", &typed)
            .await;
        page.is(409);
        assert!(page.faults_at(field).contains("taken"), "{}", page.html);
        assert_eq!(page.faults_at(of_another), "", "{}", page.html);
    }
    // What was said of one edge can be picked for the next.
    let page = browser.get("/register-edge").await;
    let html = page.is(200);
    assert!(
        html.contains(r#"<option value="caA">caA</option>"#),
        "{html}"
    );
    let picked = [
        ("name", "south"),
        ("address", "192.0.2.8:7443"),
        ("organizations", "caZ"),
        ("organizations_pick", "caA"),
    ];
    browser
        .fill("/register-edge", "/register-edge", &picked)
        .await
        .leads_to("/edges/south");
    let page = browser.get("/edges/south").await;
    assert!(page.is(200).contains("caA,caZ"), "{}", page.html);
}

#[tokio::test]
async fn what_is_declared_stands_beside_what_was_found_and_can_be_changed() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    plane
        .edge_as(&lender, "north", "B de caA deB lxc 9.9 - - - -")
        .await;
    plane.change("UPDATE edges SET detected = '{\"virtualization\": [\"lxc\"], \"cpu_mhz\": 2400, \"memory_mb\": 8000, \"kernel\": \"6.18.1\"}'").await;
    let mut browser = Browser::of(&plane, &lender).await;
    let page = browser.get("/edges/north").await;
    let html = page.is(200);
    assert!(
        html.contains("▲ less than declared") && html.contains("6.18.1"),
        "{html}"
    );

    let form = browser.get("/edges/north/attributes").await;
    assert!(form.is(200).contains(r#"name="cpu_ghz" value="9.9""#));
    assert!(
        form.html
            .contains("Declared is <code>9.9</code>, and the agent found 2.4."),
        "{}",
        form.html
    );
    assert!(
        html.contains("found what you have not declared:</strong> Memory, GB."),
        "{html}"
    );
    // Where nothing is declared, what was found is offered.
    assert!(
        form.html.contains(r#"name="memory_gb" value="8""#),
        "{}",
        form.html
    );
    let wrong = [("location", "de"), ("cpu_ghz", "fast")];
    let action = "/edges/north/attributes";
    let page = browser.fill(action, action, &wrong).await;
    page.is(422);
    assert!(page.faults_at("cpu_ghz").contains("fast"));
    let right = [("location", "fr"), ("cpu_ghz", "2.4")];
    browser
        .fill(action, action, &right)
        .await
        .leads_to("/edges/north");
    let edge = plane.show_edge(&lender, "north").await;
    assert_eq!(
        edge.attributes,
        serde_json::json!({"location": "fr", "cpu_ghz": 2.4})
    );
    assert_eq!(edge.attributes_revision, 2);
}

#[tokio::test]
async fn a_share_key_is_shown_once_and_taken_back() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    plane.edge(&lender, "north").await;
    let mut browser = Browser::of(&plane, &lender).await;
    let share = "/edges/north/share";
    let page = browser
        .fill("/edges/north", share, &[("grantee", "nobody")])
        .await;
    page.is(422);
    assert!(
        page.faults_at("grantee")
            .contains("no container owner has this name")
    );
    assert!(page.html.contains(r#"name="grantee" value="nobody""#));

    let page = browser
        .fill("/edges/north", share, &[("grantee", "mover")])
        .await;
    let (_, rest) = page.is(200).split_once(r#"<code class="secret">"#).unwrap();
    let key = rest.split('<').next().unwrap().to_owned();
    assert_eq!(key.len(), 40);
    assert_eq!(page.headers["cache-control"], "no-store");
    let page = browser.get("/edges/north").await;
    assert!(!page.is(200).contains(&key), "once");
    assert!(page.html.contains("not entered yet"));
    let body = serde_json::json!({"key": key});
    let entered = plane.post(&mover, "/v1/share-keys/redeem", body).await;
    let entered: ShareKey = entered.read(200);
    assert!(browser.get("/edges/north").await.html.contains("in use"));

    let revoke = format!("/share-keys/{}/revoke", entered.id);
    browser
        .fill("/edges/north", &revoke, &[])
        .await
        .leads_to("/edges/north");
    assert!(browser.get("/edges/north").await.html.contains("revoked"));
    let seen: Vec<Edge> = plane.get(&mover, "/v1/edges").await.read(200);
    assert!(seen.is_empty());
}

#[tokio::test]
async fn an_agent_enrols_with_the_command_and_is_trusted_no_more_when_its_owner_says_so() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    plane.edge(&lender, "north").await;
    let mut browser = Browser::of(&plane, &lender).await;
    let page = browser
        .fill("/edges/north", "/edges/north/enrol", &[])
        .await;
    let host = plane.base().split_once("://").unwrap().1;
    let command = format!("carnet agent enrol --control https://{host} ");
    assert!(page.is(200).contains(&command), "{}", page.html);
    let (_, token) = page.html.split_once("--token ").unwrap();
    let token = token.split('<').next().unwrap();
    let body = serde_json::json!({
        "token": token, "certificate_request": crate::plane::certificate_request(), "detected": {},
    });
    let ask = plane.ask(Method::POST, "/v1/enrolments").json(body);
    ask.send().await.json(201);

    browser
        .fill("/edges/north", "/edges/north/disenrol", &[])
        .await
        .leads_to("/edges/north");
    assert!(!plane.show_edge(&lender, "north").await.enrolled);
    assert!(
        browser
            .get("/edges/north")
            .await
            .is(200)
            .contains("It has no agent yet")
    );
}

#[tokio::test]
async fn anothers_edge_and_its_keys_are_as_if_they_were_not_there() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let north = plane.edge(&lender, "north").await;
    let key = plane.share(&lender, "north", &mover).await;
    let both = [Role::EdgeOwner, Role::ContainerOwner];
    let stranger = plane.account("stranger", &both).await;
    let mut browser = Browser::of(&plane, &stranger).await;
    let token = browser.get("/account").await.form_token();
    let posts = ["attributes", "enrol", "disenrol", "share"];
    for named in ["north".to_owned(), north.id.to_string()] {
        let nobodys = "nowhere";
        let mut paths = vec![
            (Method::GET, "/edges/{}".to_owned()),
            (Method::GET, "/edges/{}/attributes".to_owned()),
        ];
        paths.extend(posts.map(|act| (Method::POST, format!("/edges/{{}}/{act}"))));
        for (method, path) in paths {
            let mut told = Vec::new();
            for named in [named.as_str(), nobodys] {
                let path = path.replace("{}", named);
                let page = if method == Method::GET {
                    browser.get(&path).await
                } else {
                    let fields = [("form_token", token.as_str()), ("grantee", "mover")];
                    browser.send(&path, &fields).await
                };
                told.push(page.is(404).replace(named, ""));
            }
            assert_eq!(told[0], told[1], "{method} {path}");
        }
    }
    let path = format!("/share-keys/{}/revoke", key.id);
    browser.send(&path, &[("form_token", &token)]).await.is(404);
    assert!(!browser.get("/edges").await.is(200).contains("north"));
    assert!(plane.show_edge(&lender, "north").await.enrolled);

    // Who holds a key sees the edge, and neither its keys nor how to change it.
    let mut mover = Browser::of(&plane, &mover).await;
    let page = mover.get("/edges/north").await;
    let html = page.is(200);
    assert!(
        html.contains("192.0.2.7") && !html.contains("Share keys"),
        "{html}"
    );
    assert!(!html.contains("/edges/north/attributes"), "{html}");
    assert!(!html.contains("lender"), "{html}");
    assert!(
        mover
            .get("/edges")
            .await
            .is(200)
            .contains(r#"href="/edges/north""#)
    );
}

#[tokio::test]
async fn health_and_readings_are_shown_as_the_monitor_saw_them() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let north = plane.edge_as(&lender, "north", ATTRIBUTES).await;
    let mut browser = Browser::of(&plane, &lender).await;
    assert!(
        browser
            .get("/edges")
            .await
            .is(200)
            .contains("○ not looked at yet")
    );
    plane.look().await;
    let page = browser.get("/edges").await;
    let html = page.is(200);
    assert!(
        html.contains("● healthy") && html.contains("5.0 %"),
        "{html}"
    );
    assert!(html.contains("10.0 %"), "{html}");
    plane.agents.change(north.id, |edge| {
        edge.problems = vec!["no CRIU <b>".to_owned()]
    });
    plane.look().await;
    let page = browser.get("/edges/north").await;
    assert!(page.is(200).contains("▲ degraded"), "{}", page.html);
    assert!(page.html.contains("no CRIU &#60;b&#62;"), "{}", page.html);
    plane.agents.change(north.id, |edge| edge.reachable = false);
    plane.look().await;
    assert!(
        browser
            .get("/edges")
            .await
            .is(200)
            .contains("✕ unreachable")
    );
}

#[tokio::test]
async fn an_edge_is_shown_with_its_last_hour_as_a_picture_and_in_words() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("lender").await;
    let edge = plane.edge(&owner, "north").await;
    plane.look().await;
    let mut browser = Browser::of(&plane, &owner).await;
    assert!(!browser.get("/edges").await.is(200).contains("sparkline"));
    // The hour before.
    plane
        .change(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
             INSERT OR REPLACE INTO utilization_samples
             SELECT edge, (minute - i + 60) % 60, 100 * i, 7000, read_at - i * 60000
             FROM n, utilization_samples",
        )
        .await;
    let path = "/v1/edges/north/utilization";
    let history: Vec<UtilizationReading> = plane.get(&owner, path).await.read(200);
    assert_eq!(history.len(), 41);
    assert_eq!(
        (history[0].cpu_percent, history[40].cpu_percent),
        (40.0, 5.0)
    );
    assert!(history.is_sorted_by_key(|reading| reading.read_at_ms));
    for page in ["/edges", "/edges/north"] {
        let page = browser.get(page).await;
        let html = page.is(200);
        let words = "CPU use over 40 min: 1.0 to 40.0 %, last 5.0 %";
        assert!(html.contains(&format!(r#"aria-label="{words}""#)), "{html}");
        assert!(
            html.contains("Memory use over 40 min: 10.0 to 70.0 %"),
            "{html}"
        );
        assert_eq!(html.matches("<path d=\"M").count(), 3, "the brand and two");
    }
    let stranger = plane.container_owner("stranger").await;
    let of = format!("/v1/edges/{}/utilization", edge.id);
    plane.get(&stranger, &of).await.problem(404, "not-found");
}
