//! Registering and logging in.

use std::net::IpAddr;

use carnet_api::v1::{Account, NewPassword, Role};
use serde_json::json;

use crate::browser::{Browser, PASSWORD, Page};
use crate::plane::Plane;

const LOG_IN: &str = "/log-in";

async fn log_in(browser: &mut Browser, name: &str, password: &str) -> Page {
    let fields = [("name", name), ("password", password)];
    browser.fill(LOG_IN, LOG_IN, &fields).await
}

#[tokio::test]
async fn who_registers_is_logged_in_with_the_roles_that_were_chosen() {
    let plane = Plane::start().await;
    let roles = ["edge_owner", "container_owner"];
    let mut ann = Browser::registered(&plane, "ann", &roles).await;
    let page = ann.get("/account").await;
    let html = page.is(200);
    assert!(
        html.contains("ann") && html.contains("edge owner"),
        "{html}"
    );
    assert!(html.contains("container owner"), "{html}");

    let accounts: Vec<Account> = plane
        .get(&plane.administrator, "/v1/accounts")
        .await
        .read(200);
    let made = accounts
        .iter()
        .find(|account| account.name == "ann")
        .unwrap();
    assert_eq!(made.roles, [Role::EdgeOwner, Role::ContainerOwner]);

    let mut elsewhere = Browser::new(&plane);
    log_in(&mut elsewhere, "ann", PASSWORD).await.leads_to("/");
    elsewhere.get("/account").await.is(200);
}

#[tokio::test]
async fn nobody_gives_themselves_a_role_that_reads_everything() {
    let plane = Plane::start().await;
    let mut eve = Browser::new(&plane);
    let fields = [
        ("name", "eve"),
        ("password", PASSWORD),
        ("roles", "edge_owner"),
        ("roles", "auditor"),
    ];
    let page = eve.fill("/register", "/register", &fields).await;
    assert!(
        page.is(403)
            .contains("an administrator makes accounts with other roles")
    );
    let accounts: Vec<Account> = plane
        .get(&plane.administrator, "/v1/accounts")
        .await
        .read(200);
    assert!(accounts.iter().all(|account| account.name != "eve"));
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_registration_is_told_at_its_field() {
    let plane = Plane::start().await;
    let mut browser = Browser::new(&plane);
    let fields = [("name", "a b"), ("password", "short")];
    let page = browser.fill("/register", "/register", &fields).await;
    page.is(422);
    assert!(page.faults_at("name").contains("not a name"));
    assert!(page.faults_at("password").contains("too short"));
    assert!(page.faults_at("roles").contains("no role"));
    assert!(
        page.html.contains(r#"value="a b""#),
        "what was typed is kept"
    );
    assert!(!page.html.contains("short\""), "but for the password");

    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    ann.get("/account").await.is(200);
    let again = [
        ("name", "ann"),
        ("password", PASSWORD),
        ("roles", "edge_owner"),
    ];
    let page = browser.fill("/register", "/register", &again).await;
    assert!(
        page.is(409)
            .contains("there is an account <code>ann</code> already")
    );
}

#[tokio::test]
async fn an_unknown_name_is_answered_as_a_wrong_password_is() {
    let plane = Plane::start().await;
    Browser::registered(&plane, "ann", &["edge_owner"]).await;
    // Made for a program: it has tokens, and no password.
    plane.edge_owner("robot").await;
    let mut told = Vec::new();
    for name in ["ann", "bob", "robot"] {
        let mut browser = Browser::new(&plane);
        let page = log_in(&mut browser, name, "not the password").await;
        let html = page.is(422).replace(&page.form_token(), "");
        told.push(html.replace(&format!(r#"value="{name}""#), ""));
        assert_eq!(browser.cookie("__Host-carnet-session"), None);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

#[tokio::test]
async fn passwords_are_not_to_be_guessed_at_by_trying() {
    let plane = Plane::start().await;
    Browser::registered(&plane, "ann", &["edge_owner"]).await;
    // Known or not, a name is answered alike.
    for name in ["ann", "bob"] {
        let mut browser = Browser::new(&plane);
        for _ in 0..10 {
            log_in(&mut browser, name, "not the password").await.is(422);
        }
        // From elsewhere too, and with the right one.
        let mut elsewhere = Browser::at(&plane, IpAddr::from([127, 0, 0, 2]));
        let page = log_in(&mut elsewhere, name, PASSWORD).await;
        assert!(page.is(429).contains("try again in "), "{}", page.html);
    }
}

#[tokio::test]
async fn one_address_does_not_try_many_names() {
    let plane = Plane::start().await;
    Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let mut browser = Browser::at(&plane, IpAddr::from([127, 0, 0, 3]));
    for attempt in 0..50 {
        let name = format!("name-{attempt}");
        log_in(&mut browser, &name, "not the password")
            .await
            .is(422);
    }
    log_in(&mut browser, "ann", PASSWORD).await.is(429);
    let mut elsewhere = Browser::at(&plane, IpAddr::from([127, 0, 0, 4]));
    log_in(&mut elsewhere, "ann", PASSWORD).await.leads_to("/");
}

#[tokio::test]
async fn one_address_does_not_make_many_accounts() {
    let plane = Plane::start().await;
    let register = async |browser: &mut Browser, name: String| {
        let fields = [
            ("name", name.as_str()),
            ("password", PASSWORD),
            ("roles", "edge_owner"),
        ];
        browser.fill("/register", "/register", &fields).await
    };
    for number in 0..20 {
        let mut browser = Browser::new(&plane);
        let page = register(&mut browser, format!("someone-{number}")).await;
        page.leads_to("/");
    }
    let mut browser = Browser::new(&plane);
    let page = register(&mut browser, "one-more".to_owned()).await;
    assert!(page.is(429).contains("try again in "), "{}", page.html);
    let mut elsewhere = Browser::at(&plane, IpAddr::from([127, 0, 0, 5]));
    register(&mut elsewhere, "one-more".to_owned())
        .await
        .leads_to("/");
}

#[tokio::test]
async fn an_administrator_gives_an_account_a_password_and_its_sessions_end() {
    let plane = Plane::start().await;
    let robot = plane.edge_owner("robot").await;
    let mut first = Browser::of(&plane, &robot).await;
    first.get("/account").await.is(200);
    let path = "/v1/accounts/robot/password";
    let made = plane.post(&plane.administrator, path, json!({})).await;
    let password: NewPassword = made.read(201);
    assert_eq!(password.account, "robot");
    first
        .get("/account")
        .await
        .leads_to("/log-in?next=%2Faccount");
    let mut second = Browser::new(&plane);
    log_in(&mut second, "robot", &password.secret)
        .await
        .leads_to("/");
    // Its tokens are what they were.
    plane.get(&robot, "/v1/whoami").await.json(200);
    let missing = "/v1/accounts/nobody/password";
    let missing = plane.post(&plane.administrator, missing, json!({})).await;
    missing.problem(404, "not-found");
}

#[tokio::test]
async fn who_logs_in_comes_to_the_page_that_was_asked_for_and_to_nobody_elses() {
    let plane = Plane::start().await;
    Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let targets = [
        ("/account", "/account"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
    ];
    for (next, expected) in targets {
        let mut browser = Browser::new(&plane);
        let fields = [("name", "ann"), ("password", PASSWORD), ("next", next)];
        let page = browser.fill(LOG_IN, LOG_IN, &fields).await;
        page.leads_to(expected);
    }
    let mut browser = Browser::new(&plane);
    let page = browser.get("/log-in?next=%2Faccount").await;
    assert!(page.is(200).contains(r#"name="next" value="/account""#));
}
