//! Browser sessions.

use reqwest::Method;
use sha2::{Digest, Sha256};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::browser::{Browser, PASSWORD};
use crate::plane::Plane;

const SESSION: &str = "__Host-carnet-session";
const TO_LOG_IN: &str = "/log-in?next=%2Faccount";

async fn ann(plane: &Plane) -> Browser {
    Browser::registered(plane, "ann", &["edge_owner"]).await
}

async fn ann_again(plane: &Plane) -> Browser {
    let mut browser = Browser::new(plane);
    let fields = [("name", "ann"), ("password", PASSWORD)];
    browser
        .fill("/log-in", "/log-in", &fields)
        .await
        .leads_to("/");
    browser
}

#[tokio::test]
async fn a_session_is_random_and_only_its_hash_is_kept() {
    let plane = Plane::start().await;
    let ann = ann(&plane).await;
    let cookie = ann.cookie(SESSION).unwrap();
    assert_eq!(hex::decode(cookie).unwrap().len(), 32);
    let again = ann_again(&plane).await;
    assert_ne!(again.cookie(SESSION), Some(cookie), "each is another");

    let path = plane.data().join("carnet.db");
    let database = SqliteConnectOptions::new().filename(path);
    let mut database = database.connect().await.unwrap();
    let kept: Vec<Vec<u8>> = sqlx::query_scalar("SELECT secret_hash FROM sessions")
        .fetch_all(&mut database)
        .await
        .unwrap();
    assert!(kept.contains(&Sha256::digest(cookie).to_vec()));
    for file in std::fs::read_dir(plane.data()).unwrap() {
        let kept = std::fs::read(file.unwrap().path()).unwrap();
        let text = cookie.as_bytes();
        assert!(!kept.windows(text.len()).any(|window| window == text));
    }
}

#[tokio::test]
async fn a_log_in_does_not_take_a_session_that_is_there_already() {
    let plane = Plane::start().await;
    ann(&plane).await;
    let mut browser = Browser::new(&plane);
    let planted = "00".repeat(32);
    browser.put_cookie(SESSION, &planted);
    let fields = [("name", "ann"), ("password", PASSWORD)];
    browser
        .fill("/log-in", "/log-in", &fields)
        .await
        .leads_to("/");
    assert_ne!(browser.cookie(SESSION), Some(planted.as_str()));
}

#[tokio::test]
async fn who_logs_out_is_out_and_so_is_the_cookie() {
    let plane = Plane::start().await;
    let mut ann = ann(&plane).await;
    let cookie = ann.cookie(SESSION).unwrap().to_owned();
    ann.fill("/account", "/log-out", &[])
        .await
        .leads_to("/log-in");
    assert_eq!(ann.cookie(SESSION), None);
    ann.put_cookie(SESSION, &cookie);
    ann.get("/account").await.leads_to(TO_LOG_IN);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_account_alone() {
    let plane = Plane::start().await;
    let mut here = ann(&plane).await;
    let mut there = ann_again(&plane).await;
    let page = here.get("/account").await;
    let action = page
        .is(200)
        .split(r#"action=""#)
        .map(|rest| rest.split('"').next().unwrap())
        .find(|action| action.starts_with("/account/sessions/"))
        .unwrap()
        .to_owned();
    assert_eq!(
        page.html.matches("/account/sessions/").count(),
        1,
        "not this one"
    );

    let mut bob = Browser::registered(&plane, "bob", &["edge_owner"]).await;
    let token = bob.get("/account").await.form_token();
    bob.send(&action, &[("form_token", &token)]).await.is(404);
    there.get("/account").await.is(200);

    here.fill("/account", &action, &[])
        .await
        .leads_to("/account");
    there.get("/account").await.leads_to(TO_LOG_IN);
    here.get("/account").await.is(200);
    let token = here.get("/account").await.form_token();
    here.send(&action, &[("form_token", &token)]).await.is(404);
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_when_it_is_old() {
    let plane = Plane::start().await;
    let mut ann = ann(&plane).await;
    // A minute less than twelve hours, each time since it was used last; and then all of it.
    for _ in 0..2 {
        plane
            .change("UPDATE sessions SET used_at = used_at - 43140000")
            .await;
        ann.get("/account").await.is(200);
    }
    plane
        .change("UPDATE sessions SET used_at = used_at - 43200000")
        .await;
    ann.get("/account").await.leads_to(TO_LOG_IN);

    let mut ann = ann_again(&plane).await;
    // A minute less than seven days.
    plane
        .change("UPDATE sessions SET created_at = created_at - 604740000")
        .await;
    ann.get("/account").await.is(200);
    plane
        .change("UPDATE sessions SET created_at = created_at - 60000")
        .await;
    ann.get("/account").await.leads_to(TO_LOG_IN);
}

#[tokio::test]
async fn a_page_that_only_shows_changes_does_not_keep_a_session_from_ending() {
    let plane = Plane::start().await;
    let mut ann = ann(&plane).await;
    let long = "UPDATE sessions SET used_at = used_at - 43140000";
    plane.change(long).await;
    let by_the_module = [("sec-fetch-mode", "cors".to_owned())];
    let page = ann.ask(Method::GET, "/edges", &by_the_module, None).await;
    page.is(200);
    plane.change(long).await;
    ann.get("/account").await.leads_to(TO_LOG_IN);

    let mut ann = ann_again(&plane).await;
    plane.change(long).await;
    let by_somebody = [("sec-fetch-mode", "navigate".to_owned())];
    ann.ask(Method::GET, "/edges", &by_somebody, None)
        .await
        .is(200);
    plane.change(long).await;
    ann.get("/account").await.is(200);
}

#[tokio::test]
async fn a_role_that_an_account_has_lost_is_lost_to_its_sessions() {
    let plane = Plane::start().await;
    let mut ann = ann(&plane).await;
    assert!(ann.get("/account").await.is(200).contains("edge owner"));
    plane
        .change("UPDATE accounts SET roles = '[\"container_owner\"]' WHERE name = 'ann'")
        .await;
    let page = ann.get("/account").await;
    assert!(!page.is(200).contains("edge owner"), "{}", page.html);
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_the_other_sessions_end() {
    let plane = Plane::start().await;
    let mut here = ann(&plane).await;
    let mut there = ann_again(&plane).await;
    let change = |current: &'static str| [("current", current), ("password", "another long one")];
    let action = "/account/password";
    let page = here
        .fill("/account", action, &change("a wrong password"))
        .await;
    page.is(422);
    assert!(page.faults_at("current").contains("not your password"));
    let short = [("current", PASSWORD), ("password", "short")];
    let page = here.fill("/account", action, &short).await;
    page.is(422);
    assert!(page.faults_at("password").contains("too short"));
    there.get("/account").await.is(200);

    let page = here.fill("/account", action, &change(PASSWORD)).await;
    assert!(page.is(200).contains("Your password is changed"));
    here.get("/account").await.is(200);
    there.get("/account").await.leads_to(TO_LOG_IN);
    let mut late = Browser::new(&plane);
    let old = [("name", "ann"), ("password", PASSWORD)];
    late.fill("/log-in", "/log-in", &old).await.is(422);
    let new = [("name", "ann"), ("password", "another long one")];
    late.fill("/log-in", "/log-in", &new).await.leads_to("/");
}
