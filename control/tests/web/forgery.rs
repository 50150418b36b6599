//! Forms that another site's page sends in somebody's name.

use carnet_api::v1::Role;
use carnet_control::web::access::PAGES;
use reqwest::Method;

use crate::browser::{Browser, PASSWORD, written};
use crate::plane::Plane;

fn filled(route: &str) -> String {
    let parts = route.split('/');
    let parts: Vec<&str> = parts
        .map(|part| if part.starts_with('{') { "none" } else { part })
        .collect();
    parts.join("/")
}

#[tokio::test]
async fn no_form_is_taken_that_is_not_from_a_page_of_ours() {
    let plane = Plane::start().await;
    // Whom every page lets in.
    let roles = [
        Role::EdgeOwner,
        Role::ContainerOwner,
        Role::Auditor,
        Role::Administrator,
    ];
    let ann = plane.account("ann", &roles).await;
    let mut ann = Browser::of(&plane, &ann).await;
    let bob = plane.account("bob", &roles).await;
    let mut bob = Browser::of(&plane, &bob).await;
    let token = ann.get("/account").await.form_token();
    let of_bob = bob.get("/account").await.form_token();
    let ours = plane.base().to_owned();
    let origin = |origin: &str| ("origin", origin.to_owned());
    let site = |site: &str| ("sec-fetch-site", site.to_owned());
    let right = || vec![origin(&ours), site("same-origin")];
    let forged = [
        (
            "another origin",
            vec![origin("https://evil.example")],
            token.as_str(),
        ),
        ("no origin that can be told", vec![origin("null")], &token),
        (
            "another site",
            vec![origin(&ours), site("cross-site")],
            &token,
        ),
        ("another port", vec![site("same-site")], &token),
        ("typed in", vec![site("none")], &token),
        ("nothing said", vec![], &token),
        ("no token", right(), ""),
        ("another's token", right(), &of_bob),
        ("a token of no page", right(), "00"),
    ];
    for (method, route, _) in PAGES {
        if *method != Method::POST {
            continue;
        }
        let path = filled(route);
        for (what, headers, token) in &forged {
            let body = Some(written(&[("form_token", token)]));
            let page = ann.ask(Method::POST, &path, headers, body).await;
            let html = page.is(403);
            assert!(
                html.contains("the form was not taken"),
                "{what}, {path}: {html}"
            );
        }
        // As JSON, which a page of another site cannot send without asking first.
        let mut headers = right();
        headers.push(("content-type", "application/json".to_owned()));
        let page = ann.ask(Method::POST, &path, &headers, None).await;
        page.is(403);
    }
    // None of it has done anything.
    ann.get("/account").await.is(200);
}

#[tokio::test]
async fn nobody_is_logged_in_to_anothers_account_by_a_form_from_elsewhere() {
    let plane = Plane::start().await;
    Browser::registered(&plane, "eve", &["edge_owner"]).await;
    let mut ann = Browser::new(&plane);
    ann.get("/log-in").await.is(200);
    // Eve's own token does not fit the cookie that Ann's browser has.
    let token = Browser::new(&plane).get("/log-in").await.form_token();
    let fields = [
        ("name", "eve"),
        ("password", PASSWORD),
        ("form_token", token.as_str()),
    ];
    let page = ann.send("/log-in", &fields).await;
    assert!(page.is(403).contains("the form was not taken"));
    assert_eq!(ann.cookie("__Host-carnet-session"), None);
}

#[tokio::test]
async fn a_browser_session_is_no_token_of_the_api() {
    let plane = Plane::start().await;
    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let page = ann.ask(Method::GET, "/v1/edges", &[], None).await;
    assert_eq!(page.status, 401, "the cookie alone lets nobody in");
    let cookie = ann.cookie("__Host-carnet-session").unwrap();
    plane
        .get(cookie, "/v1/edges")
        .await
        .problem(401, "unauthenticated");
}
