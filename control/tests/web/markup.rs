//! Markup that somebody types stays text.

use carnet_control::web::access::PAGES;
use reqwest::Method;

use crate::browser::Browser;
use crate::plane::Plane;

const MARKUP: &str = "\"><script>alert(1)</script>'&lt;";

/// Every field of every form of a page.
fn fields(html: &str) -> Vec<String> {
    html.split(" name=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .filter(|name| !["viewport", "color-scheme", "form_token"].contains(&name.as_str()))
        .collect()
}

fn hold(what: &str, html: &str) {
    assert!(!html.contains("<script>"), "{what}: {html}");
    assert!(!html.contains("alert(1)</"), "{what}: {html}");
}

#[tokio::test]
async fn script_in_every_field_of_every_form_stays_text() {
    let plane = Plane::start().await;
    let roles = ["edge_owner", "container_owner"];
    let mut ann = Browser::registered(&plane, "ann", &roles).await;
    let token = ann.get("/account").await.form_token();
    let north = [("name", "north"), ("address", "192.0.2.7:7443")];
    ann.fill("/register-edge", "/register-edge", &north)
        .await
        .leads_to("/edges/north");
    let app = [("name", "app"), ("edge", "north")];
    let page = ann
        .fill("/register-container", "/register-container", &app)
        .await;
    assert_eq!(page.status, 303, "{}", page.html);
    let mut tried = 0;
    for (method, route, _) in PAGES
        .iter()
        .filter(|(method, _, _)| *method == Method::POST)
    {
        if route.ends_with("/log-out") || route.ends_with("/forget") {
            continue;
        }
        let path = route
            .replace("{edge}", "north")
            .replace("{container}", "app");
        let shown = match *route {
            "/account/password" => "/account",
            "/share-keys" => "/edges",
            "/containers/{container}/requirements" | "/containers/{container}/move" => &path,
            route if route.starts_with("/containers/{container}/") => "/containers/app",
            route if route.starts_with("/edges/{edge}/") && route != "/edges/{edge}/attributes" => {
                "/edges/north"
            }
            _ => path.as_str(),
        };
        let shown = ann.get(shown).await;
        let names = fields(&shown.html);
        let mut sent: Vec<(&str, &str)> = vec![("form_token", &token)];
        sent.extend(names.iter().map(|name| (name.as_str(), MARKUP)));
        tried += names.len();
        let page = ann.send(&path, &sent).await;
        hold(&format!("{method} {route}"), &page.html);
    }
    assert!(tried > 60, "{tried}");
    // What was typed is there, as text.
    let typed = [("form_token", token.as_str()), ("name", MARKUP)];
    let page = ann.send("/register-edge", &typed).await;
    assert!(
        page.html.contains("&#60;script&#62;alert(1)"),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn script_in_an_address_stays_text() {
    let plane = Plane::start().await;
    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let script = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for (method, route, _) in PAGES {
        if *method == Method::GET && route.contains('{') {
            let parts = route.split('/');
            let parts: Vec<&str> = parts
                .map(|part| if part.starts_with('{') { script } else { part })
                .collect();
            let page = ann.get(&parts.join("/")).await;
            hold(route, &page.html);
        }
    }
    let page = ann.get(&format!("/{script}")).await;
    hold("no page", page.is(404));
    let mut nobody = Browser::new(&plane);
    let page = nobody.get(&format!("/log-in?next={script}")).await;
    hold("log-in", page.is(200));
}

#[tokio::test]
async fn what_a_browser_calls_itself_stays_text() {
    let plane = Plane::start().await;
    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    plane
        .change("UPDATE sessions SET browser = '\"><script>alert(1)</script>'")
        .await;
    let page = ann.get("/account").await;
    hold("account", page.is(200));
    assert!(page.html.contains("&#60;script&#62;"), "{}", page.html);
}
