//! What auditors read.

use carnet_api::v1::{LedgerEntry, ProvenEntry, Role};

use crate::browser::Browser;
use crate::containers::world;
use crate::plane::{Plane, Someone};

/// A container that was moved from `north` to `south`, and denied `far`.
async fn moved() -> (Plane, Someone, Browser) {
    let (plane, lender, mover) = world().await;
    let body = serde_json::json!({
        "name": "app", "edge": "north", "requirements": "jp,us,fr * * * * * * * * * *",
    });
    let made = plane.post(&mover, "/v1/containers", body).await.json(201);
    let confirm = format!("/v1/containers/{}/confirm", made["id"].as_str().unwrap());
    let confirmed = plane.post(&lender, &confirm, serde_json::json!({})).await;
    confirmed.json(200);
    for edge in ["far", "south"] {
        let migration = plane.start_move(&mover, "app", edge).await;
        plane.end_of(&mover, &migration).await;
    }
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let browser = Browser::of(&plane, &auditor).await;
    (plane, auditor, browser)
}

#[tokio::test]
async fn entries_are_listed_filtered_and_told_by_names() {
    let (plane, auditor, mut browser) = moved().await;
    let all: Vec<LedgerEntry> = plane.get(&auditor, "/v1/ledger/entries").await.read(200);
    let page = browser.get("/entries").await;
    let html = page.is(200);
    assert!(html.contains(&format!("{} entries", all.len())), "{html}");
    let last = all.last().unwrap().number;
    assert!(
        html.contains(&format!(r#"href="/entries/{last}""#)),
        "{html}"
    );
    assert!(
        html.contains("carnet.test/ledger"),
        "the checkpoint: {html}"
    );

    let page = browser
        .get("/entries?kind=decision&container=app&edge=")
        .await;
    let html = page.is(200);
    let decisions: Vec<u64> = all
        .iter()
        .filter(|entry| entry.entry["kind"] == "decision")
        .map(|entry| entry.number)
        .collect();
    assert_eq!(decisions.len(), 2);
    for entry in &all {
        let link = format!(r#"href="/entries/{}""#, entry.number);
        assert_eq!(
            html.contains(&link),
            decisions.contains(&entry.number),
            "{link}"
        );
    }
    for told in ["✕ denied", "● permitted", "candidate <strong>far</strong>"] {
        assert!(html.contains(told), "{told}: {html}");
    }
    for (filter, of) in [("container=app", "container"), ("edge=far", "edge")] {
        let path = format!("/v1/ledger/entries?{filter}");
        let wanted: Vec<LedgerEntry> = plane.get(&auditor, &path).await.read(200);
        assert!(!wanted.is_empty() && wanted.len() < all.len(), "{of}");
        let page = browser.get(&format!("/entries?{filter}")).await;
        for entry in &all {
            let link = format!(r#"href="/entries/{}""#, entry.number);
            let is_wanted = wanted.iter().any(|other| other.number == entry.number);
            assert_eq!(page.is(200).contains(&link), is_wanted, "{of}: {link}");
        }
    }
    let page = browser.get("/entries?edge=nowhere").await;
    assert!(
        page.is(404)
            .contains("there is no edge <code>nowhere</code>"),
        "{}",
        page.html
    );
    assert!(page.html.contains(r#"name="edge" value="nowhere""#));
    browser.get("/entries?from=x").await.is(400);
}

#[tokio::test]
async fn entries_are_paged_through() {
    let (plane, _, mut browser) = moved().await;
    for number in 0..60 {
        plane
            .account(&format!("someone-{number}"), &[Role::Auditor])
            .await;
    }
    let page = browser.get("/entries").await;
    let html = page.is(200);
    let (_, rest) = html.split_once(r#"href="/entries?from="#).expect(html);
    let earlier: u64 = rest.split('"').next().unwrap().parse().unwrap();
    let page = browser.get(&format!("/entries?from={earlier}")).await;
    let html = page.is(200);
    assert!(
        html.contains(&format!(r#"href="/entries/{earlier}""#)),
        "{html}"
    );
    assert!(html.contains(&format!("from={}", earlier + 50)), "{html}");
    let page = browser.get("/entries?kind=account").await;
    assert_eq!(page.is(200).matches("<tr>").count(), 51, "50 and the head");
    assert!(page.html.contains("kind=account"), "{}", page.html);
}

#[tokio::test]
async fn an_entry_is_shown_with_its_proof() {
    let (plane, auditor, mut browser) = moved().await;
    let proven: ProvenEntry = plane.get(&auditor, "/v1/ledger/entries/3").await.read(200);
    let page = browser.get("/entries/3").await;
    let html = page.is(200);
    assert!(!proven.proof.is_empty());
    for hash in &proven.proof {
        assert!(html.contains(hash.as_str()), "{hash}: {html}");
    }
    assert!(html.contains("carnet ledger explain 3"), "{html}");
    browser.get("/entries/1000000").await.is(404);
    browser.get("/entries/x").await.is(404);
}

#[tokio::test]
async fn where_data_has_been_is_told_by_container_and_country() {
    let (_plane, _, mut browser) = moved().await;
    let page = browser.get("/stays").await;
    let html = page.is(200);
    for told in ["app", "north", "south", "● now", ">jp<", ">fr<"] {
        assert!(html.contains(told), "{told}: {html}");
    }
    let page = browser.get("/stays?container=app&country=fr").await;
    let html = page.is(200);
    assert!(html.contains("south") && !html.contains("north"), "{html}");
    assert!(
        html.contains("/entries/"),
        "the decision that permitted it: {html}"
    );
    assert!(
        browser
            .get("/stays?country=de")
            .await
            .is(200)
            .contains("No container has been there")
    );
    let page = browser.get("/stays?container=nothing").await;
    assert!(
        page.is(404)
            .contains("there is no container <code>nothing</code>")
    );
}
