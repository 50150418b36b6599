//! The pages of those who own containers.

use carnet_api::v1::{Container, ContainerRegistration, Role};
use reqwest::Method;
use serde_json::json;

use crate::browser::{Browser, Page};
use crate::plane::{Plane, Someone};

/// `north` and `south` are permitted by [`APP`], `far` is denied by its country and its owner.
pub async fn world() -> (Plane, Someone, Someone) {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let rows = [
        ("north", "A jp caA deA lxc 2.6 8 - - -"),
        ("south", "B fr caC deA lxc 2.6 8 - - -"),
        ("far", "C de caB deB lxc 2.6 8 - - -"),
    ];
    for (name, row) in rows {
        plane.edge_as(&lender, name, row).await;
        plane.share(&lender, name, &mover).await;
    }
    (plane, lender, mover)
}

/// As the form sends it.
pub const APP: [(&str, &str); 6] = [
    ("name", "app"),
    ("edge", "north"),
    ("allowed_locations", "jp,us,fr"),
    ("allowed_organizations", "-caB"),
    ("max_memory_percent", "50"),
    ("min_cpu_ghz", "1.6"),
];

/// What the form says is asked for.
fn asked() -> serde_json::Value {
    json!({
        "allowed_locations": ["fr", "jp", "us"], "allowed_organizations": ["-caB"],
        "max_memory_percent": 50, "min_cpu_ghz": 1.6,
    })
}

/// The row of an edge in a table of verdicts.
pub fn row<'a>(html: &'a str, edge: &str) -> &'a str {
    html.split("<tr")
        .find(|row| {
            row.contains(&format!(r#"href="/edges/{edge}""#))
                || row.contains(&format!(r#"value="edge:{edge}""#))
        })
        .unwrap_or_else(|| panic!("no {edge}: {html}"))
}

#[tokio::test]
async fn a_share_key_is_entered_by_whom_it_was_given_to() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let other = plane.container_owner("other").await;
    plane.edge(&lender, "north").await;
    let given = plane.give_key(&lender, "north", &mover).await;
    let mut other = Browser::of(&plane, &other).await;
    let mut mover = Browser::of(&plane, &mover).await;
    for wrong in [given.key.as_str(), "", "00"] {
        let page = other.fill("/edges", "/share-keys", &[("key", wrong)]).await;
        page.is(404);
        assert!(
            page.faults_at("key")
                .contains("no such key was given to you")
        );
        assert!(!page.html.contains(&given.key), "it is not repeated");
    }
    let typed = format!("  {} ", given.key);
    let page = mover
        .fill("/edges", "/share-keys", &[("key", &typed)])
        .await;
    page.leads_to("/edges/north");
    mover.get("/edges/north").await.is(200);
}

#[tokio::test]
async fn where_a_container_could_go_is_seen_before_anything_is_saved() {
    let (plane, _, mover) = world().await;
    let mut browser = Browser::of(&plane, &mover).await;
    let form = "/register-container";
    let mut typed = APP.to_vec();
    typed.push(("act", "preview"));
    let page = browser.fill(form, form, &typed).await;
    let html = page.is(200);
    assert!(row(html, "north").contains("● permitted"), "{html}");
    assert!(row(html, "south").contains("● permitted"), "{html}");
    let far = row(html, "far");
    assert!(far.contains("✕ denied"), "{far}");
    for told in [
        "allowed_locations",
        "cDAl",
        "allowed_organizations",
        "cDAo",
        "Would satisfy it",
    ] {
        assert!(far.contains(told), "{told}: {far}");
    }
    assert!(
        html.contains(r#"name="allowed_locations" value="jp,us,fr""#),
        "it is kept"
    );
    let mine: Vec<Container> = plane.get(&mover, "/v1/containers").await.read(200);
    assert!(mine.is_empty(), "nothing is saved");
}

#[tokio::test]
async fn every_fault_of_a_requirement_is_told_at_its_field() {
    let (plane, _, mover) = world().await;
    let mut browser = Browser::of(&plane, &mover).await;
    let wrong = [
        ("name", "no name"),
        ("edge", "north"),
        ("allowed_locations", "jpn"),
        ("max_cpu_percent", "160"),
        ("min_memory_gb", "much"),
    ];
    let form = "/register-container";
    let page = browser.fill(form, form, &wrong).await;
    page.is(422);
    for (field, typed) in wrong.iter().filter(|(field, _)| *field != "edge") {
        let told = page.faults_at(field);
        assert!(told.contains(typed), "{field}: {told}");
        assert!(
            page.html
                .contains(&format!(r#"name="{field}" value="{typed}""#))
        );
    }
    assert!(
        page.faults_at("allowed_locations")
            .contains("Did you mean <q>jp</q>?")
    );
    assert!(
        page.html.contains(r#"<option value="north" selected>"#),
        "{}",
        page.html
    );
    // Of a preview too.
    let mut previewed = wrong.to_vec();
    previewed.push(("act", "preview"));
    let page = browser.fill(form, form, &previewed).await;
    assert!(
        page.faults_at("max_cpu_percent").contains("160"),
        "{}",
        page.html
    );
    // An edge that is not the reader's to use.
    let page = browser
        .fill(form, form, &[("name", "app"), ("edge", "nowhere")])
        .await;
    assert!(
        page.is(404)
            .contains("there is no edge <code>nowhere</code>"),
        "{}",
        page.html
    );
}

async fn registered(browser: &mut Browser) -> String {
    let page = browser
        .fill("/register-container", "/register-container", &APP)
        .await;
    assert_eq!(page.status, 303, "{}", page.html);
    let path = page.headers["location"].to_str().unwrap().to_owned();
    assert!(path.starts_with("/containers/"), "{path}");
    path
}

#[tokio::test]
async fn a_container_is_registered_claimed_and_shown_to_be_its_owners() {
    let (plane, _, mover) = world().await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = registered(&mut browser).await;
    let page = browser.get(&path).await;
    let html = page.is(200);
    assert!(
        html.contains("It is not shown yet that it is yours"),
        "{html}"
    );
    assert!(html.contains("jp") && html.contains("cHRmu"), "{html}");
    let made = plane.show_container(&mover, "app").await;
    assert_eq!(made.requirements, asked());

    let check = format!("{path}/check-claim");
    let page = browser.fill(&path, &check, &[]).await;
    assert!(
        page.is(409).contains("write the claim code into it"),
        "{}",
        page.html
    );
    let page = browser.fill(&path, &format!("{path}/claim"), &[]).await;
    let (_, code) = page.is(200).split_once("echo ").unwrap();
    let code = code.split(' ').next().unwrap();
    plane.agents.place(made.edge, "app", code);
    browser.fill(&path, &check, &[]).await.leads_to(&path);
    let confirmed = plane.show_container(&mover, "app").await;
    assert_eq!(confirmed.registration, ContainerRegistration::Confirmed);
    let page = browser.get(&path).await;
    assert!(page.is(200).contains("● confirmed"), "{}", page.html);
    // A second code is not made.
    let token = page.form_token();
    let page = browser
        .send(&format!("{path}/claim"), &[("form_token", &token)])
        .await;
    assert!(
        page.is(409).contains("is confirmed already"),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn an_edges_owner_says_whose_a_container_is() {
    let (plane, lender, mover) = world().await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = registered(&mut browser).await;
    let mut lender = Browser::of(&plane, &lender).await;
    let list = lender.get("/containers").await;
    let html = list.is(200);
    assert!(html.contains("Confirm: it is mover's"), "{html}");
    let confirm = format!("{path}/confirm");
    lender
        .fill("/containers", &confirm, &[])
        .await
        .leads_to(&path);
    // It is shown what stands on its edge, and no way to change or move it.
    let page = lender.get(&path).await;
    let html = page.is(200);
    for act in ["/move", "/requirements", "/forget", "Moves"] {
        assert!(!html.contains(act), "{act}: {html}");
    }
    assert!(
        browser
            .get("/containers")
            .await
            .is(200)
            .contains("● confirmed")
    );
}

#[tokio::test]
async fn requirements_and_what_is_accepted_are_changed_and_a_container_is_forgotten() {
    let (plane, _, mover) = world().await;
    let mut browser = Browser::of(&plane, &mover).await;
    let path = registered(&mut browser).await;
    let form = format!("{path}/requirements");
    let page = browser.get(&form).await;
    let action = "/containers/app/requirements";
    let html = page.is(200);
    assert!(
        html.contains(r#"name="allowed_locations" value="fr,jp,us""#),
        "{html}"
    );
    let preview = [("allowed_locations", "de"), ("act", "preview")];
    let page = browser.fill(&form, action, &preview).await;
    assert!(
        row(page.is(200), "far").contains("● permitted"),
        "{}",
        page.html
    );
    assert_eq!(
        plane.show_container(&mover, "app").await.requirements,
        asked()
    );
    let page = browser
        .fill(&form, action, &[("max_cpu_percent", "x")])
        .await;
    page.is(422);
    assert!(
        page.faults_at("max_cpu_percent").contains("not a number"),
        "{}",
        page.html
    );
    let page = browser
        .fill(&form, action, &[("allowed_locations", "de")])
        .await;
    page.leads_to("/containers/app");
    let changed = plane.show_container(&mover, "app").await;
    assert_eq!(changed.requirements, json!({"allowed_locations": ["de"]}));

    let allow = format!("{path}/allow-post-copy");
    browser
        .fill(&path, &allow, &[("allow", "yes")])
        .await
        .leads_to(&path);
    assert!(plane.show_container(&mover, "app").await.allow_post_copy);
    browser
        .fill(&path, &allow, &[("allow", "no")])
        .await
        .leads_to(&path);
    assert!(!plane.show_container(&mover, "app").await.allow_post_copy);

    let forget = format!("{path}/forget");
    browser
        .fill(&path, &forget, &[])
        .await
        .leads_to("/containers");
    browser.get(&path).await.is(404);
}

#[tokio::test]
async fn anothers_container_is_as_if_it_were_not_there() {
    let (plane, lender, mover) = world().await;
    let app = plane.container(&mover, &lender, "north", "app").await;
    let both = [Role::EdgeOwner, Role::ContainerOwner];
    let stranger = plane.account("stranger", &both).await;
    let mut browser = Browser::of(&plane, &stranger).await;
    let token = browser.get("/account").await.form_token();
    let posts = [
        "requirements",
        "claim",
        "check-claim",
        "confirm",
        "allow-post-copy",
        "forget",
        "audit",
        "move",
        "map",
    ];
    let mut paths = vec![
        (Method::GET, "/containers/{}".to_owned()),
        (Method::GET, "/containers/{}/requirements".to_owned()),
        (Method::GET, "/containers/{}/move".to_owned()),
        (Method::GET, "/containers/{}/map".to_owned()),
    ];
    paths.extend(posts.map(|act| (Method::POST, format!("/containers/{{}}/{act}"))));
    let ask = async |browser: &mut Browser, method: &Method, path: &str| -> Page {
        if *method == Method::GET {
            return browser.get(path).await;
        }
        let fields = [("form_token", token.as_str()), ("to", "anywhere:")];
        browser.send(path, &fields).await
    };
    for (method, path) in &paths {
        let theirs_id = app.id.to_string();
        for theirs in ["app", theirs_id.as_str()] {
            let theirs_told = ask(&mut browser, method, &path.replace("{}", theirs)).await;
            let nobodys_told = ask(&mut browser, method, &path.replace("{}", "zz")).await;
            let theirs_told = theirs_told.is(404).replace(theirs, "");
            assert_eq!(
                theirs_told,
                nobodys_told.is(404).replace("zz", ""),
                "{path}"
            );
        }
    }
    assert!(!browser.get("/containers").await.is(200).contains("app<"));
    assert_eq!(plane.show_container(&mover, "app").await, app);
}
