//! What auditors read.

use carnet_api::v1::{LedgerEntry, LedgerVerification, ProvenEntry, Role};

use crate::browser::{Browser, Page};
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
    let newest_first: Vec<u64> = decisions.iter().rev().copied().collect();
    assert_eq!(listed(&page), newest_first);
    for told in ["✕ denied", "● permitted", "candidate <strong>far</strong>"] {
        assert!(html.contains(told), "{told}: {html}");
    }
    for (filter, of) in [("container=app", "container"), ("edge=far", "edge")] {
        let path = format!("/v1/ledger/entries?{filter}");
        let wanted: Vec<LedgerEntry> = plane.get(&auditor, &path).await.read(200);
        assert!(!wanted.is_empty() && wanted.len() < all.len(), "{of}");
        let page = browser.get(&format!("/entries?{filter}")).await;
        page.is(200);
        let numbers: Vec<u64> = wanted.iter().rev().map(|entry| entry.number).collect();
        assert_eq!(listed(&page), numbers, "{of}");
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

/// The numbers of the entries that a page lists.
fn listed(page: &Page) -> Vec<u64> {
    let begin = r#"class="number"><a href="/entries/"#;
    let rest = page.html.split(begin).skip(1);
    let numbers = rest.map(|rest| rest.split('"').next().unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// Where the link to the page before or behind leads.
fn beside(page: &Page, which: &str) -> Option<String> {
    let (before, _) = page.html.split_once(&format!(r#"" rel="{which}""#))?;
    let (_, path) = before.rsplit_once(r#"href=""#)?;
    Some(path.replace("&#38;", "&"))
}

#[tokio::test]
async fn entries_are_paged_through_from_the_newest_to_the_first_and_back() {
    let (plane, auditor, mut browser) = moved().await;
    for number in 0..60 {
        let name = format!("someone-{number}");
        plane.account(&name, &[Role::Auditor]).await;
    }
    for filter in ["", "?kind=account", "?kind=account,token"] {
        let path = "/v1/ledger/entries?limit=1000";
        let path = format!("{path}{}", filter.replace('?', "&"));
        let all: Vec<LedgerEntry> = plane.get(&auditor, &path).await.read(200);
        let mut expected: Vec<u64> = all.iter().map(|entry| entry.number).collect();
        assert!(expected.len() > 60);
        expected.reverse();
        let mut next = Some(format!("/entries{filter}"));
        let (mut found, mut last) = (Vec::new(), String::new());
        while let Some(path) = next.take() {
            let page = browser.get(&path).await;
            page.is(200);
            found.extend(listed(&page));
            (next, last) = (beside(&page, "next"), path);
        }
        assert_eq!(found, expected, "{filter}");
        let mut back = listed(&browser.get(&last).await);
        while let Some(path) = beside(&browser.get(&last).await, "prev") {
            let page = browser.get(&path).await;
            let numbers = listed(&page);
            if numbers.is_empty() {
                break;
            }
            back.splice(0..0, numbers);
            last = path;
        }
        assert_eq!(back, expected, "{filter}, back");
    }
}

/// Every filter, and how many entries it lets through.
#[tokio::test]
async fn decisions_and_moves_are_filtered_as_the_api_filters_them() {
    let (plane, auditor, mut browser) = moved().await;
    let moves = "kind=decision,permit,migration,cancel,lost,refusal";
    let filters = [
        "verdict=deny".to_owned(),
        "verdict=permit".to_owned(),
        "country=fr".to_owned(),
        "country=FR&verdict=permit".to_owned(),
        "organization=caA".to_owned(),
        "owner=mover".to_owned(),
        "owner=mover&kind=permit".to_owned(),
        "container=app&kind=permit".to_owned(),
        "country=fr&kind=permit".to_owned(),
        format!("{moves}&container=app"),
        "organization=nobody".to_owned(),
    ];
    let mut counts = Vec::new();
    for filter in &filters {
        let path = format!("/v1/ledger/entries?limit=1000&{filter}");
        let found: Vec<LedgerEntry> = plane.get(&auditor, &path).await.read(200);
        let mut numbers: Vec<u64> = found.iter().map(|entry| entry.number).collect();
        numbers.reverse();
        let page = browser.get(&format!("/entries?{filter}")).await;
        page.is(200);
        assert_eq!(listed(&page), numbers, "{filter}");
        counts.push((filter.as_str(), numbers.len()));
    }
    let count = |filter: &str| counts.iter().find(|(known, _)| *known == filter).unwrap().1;
    assert_eq!((count("verdict=deny"), count("verdict=permit")), (1, 1));
    assert_eq!(count("country=FR&verdict=permit"), 1);
    assert_eq!(count("country=fr&kind=permit"), 1);
    assert_eq!(count("container=app&kind=permit"), 1);
    assert_eq!(count("owner=mover&kind=permit"), 1);
    assert!(count("country=fr") > 2);
    assert_eq!(count("organization=nobody"), 0);

    let page = browser.get("/entries?verdict=deny").await;
    let html = page.is(200);
    for told in [
        "allowed_locations",
        "cDAl",
        "Would satisfy it:",
        "its proof",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    let page = browser.get("/entries?verdict=permit").await;
    let permit = listed(&browser.get("/entries?kind=permit").await)[0];
    let link = format!(r#"<a href="/entries/{permit}">its permit"#);
    assert!(page.is(200).contains(&link), "{}", page.html);

    let page = browser
        .get("/entries?country=atlantis&verdict=perhaps")
        .await;
    page.is(422);
    assert!(page.faults_at("country").contains("no such country"));
    assert!(page.faults_at("verdict").contains("no verdict"));
    let page = browser
        .get("/entries?since=yesterday&until=2026-13-01")
        .await;
    page.is(422);
    assert!(page.faults_at("since").contains("not a time"));
    assert!(page.faults_at("until").contains("not a time"));
    browser.get("/entries?owner=stranger").await.is(404);

    let far = browser.get("/entries?since=2100-01-01").await;
    assert!(far.is(200).contains("No entry is like this"));
    let past = browser.get("/entries?until=2100-01-01&kind=decision").await;
    assert_eq!(listed(&past).len(), 2);
}

#[tokio::test]
async fn what_a_filter_shows_is_exported_whole_as_csv_and_json() {
    let (plane, auditor, mut browser) = moved().await;
    plane
        .change(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
             INSERT INTO accounts (id, name, roles, created_at)
             SELECT 'a' || i, 'a' || i, '[]', 0 FROM n",
        )
        .await;
    // A name as long and as strange as an owner may give it.
    plane
        .change("UPDATE containers SET name = '=cmd|\"/c calc\"!A1,\"x'")
        .await;
    for _ in 0..120 {
        let path = "/v1/accounts/mover/tokens";
        let body = serde_json::json!({"label": "for a test"});
        plane.post(&plane.administrator, path, body).await.json(201);
    }
    for filter in [
        "",
        "kind=decision",
        "kind=token",
        "country=fr",
        "organization=nobody",
    ] {
        let path = format!("/v1/ledger/entries?limit=1000&{filter}");
        let expected: Vec<LedgerEntry> = plane.get(&auditor, &path).await.read(200);
        let file = browser.get(&format!("/entries.json?{filter}")).await;
        assert_eq!(file.status, 200);
        assert_eq!(file.headers["content-type"], "application/json");
        let kept = file.headers["content-disposition"].to_str().unwrap();
        assert_eq!(kept, r#"attachment; filename="ledger.json""#);
        let found: Vec<LedgerEntry> = serde_json::from_str(&file.html).unwrap();
        assert_eq!(found, expected, "{filter}");

        let file = browser
            .get(&format!("/entries.csv?{filter}&before=2"))
            .await;
        assert_eq!(file.status, 200);
        let mut reader = csv::Reader::from_reader(file.html.as_bytes());
        let columns = reader.headers().unwrap().clone();
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), expected.len(), "{filter}");
        for (row, entry) in rows.iter().zip(&expected) {
            let cell = |name: &str| {
                let at = columns.iter().position(|column| column == name).unwrap();
                row.get(at).unwrap()
            };
            assert_eq!(cell("number"), entry.number.to_string());
            let text: serde_json::Value = serde_json::from_str(cell("entry")).unwrap();
            assert_eq!(text, entry.entry);
            if entry.entry["kind"] == "decision" {
                assert_eq!(cell("container_name"), "'=cmd|\"/c calc\"!A1,\"x");
                let denied = entry.entry["verdict"] == "deny";
                assert_eq!(cell("reasons").contains("allowed_locations"), denied);
            }
            for cell in row {
                assert!(
                    !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                    "{cell}"
                );
            }
        }
    }
    browser.get("/entries.csv?verdict=perhaps").await.is(422);
}

/// More than is held at a time.
#[tokio::test]
async fn a_long_export_comes_to_an_end_and_lacks_nothing() {
    let (plane, _, mut browser) = moved().await;
    let store = plane.store();
    let of = plane.administrator.id;
    let entry = store.entries(0, 1_000).await.unwrap();
    let decision = entry
        .iter()
        .find_map(|entry| {
            let entry = carnet_core::ledger::Entry::from_bytes(&entry.bytes).unwrap();
            match entry.event {
                carnet_core::ledger::Event::Decision(decision) => Some(*decision),
                _ => None,
            }
        })
        .unwrap();
    let many = vec![decision; 1_100];
    store.enter_dry_run(of, many).await.unwrap();
    let file = browser.get("/entries.json?kind=decision").await;
    let found: Vec<LedgerEntry> = serde_json::from_str(&file.html).unwrap();
    assert_eq!(found.len(), 1_102);
    assert!(found.is_sorted_by_key(|entry| entry.number));
}

#[tokio::test]
async fn the_server_checks_its_ledger_and_says_what_that_is_worth() {
    let (plane, _, mut browser) = moved().await;
    let page = browser.fill("/entries", "/entries", &[]).await;
    let html = page.is(200);
    for told in [
        "● sound",
        "Nothing is wrong.",
        "This is the server's own word.",
        "carnet ledger verify --key KEY",
        "carnet.test/ledger",
        "2 decision",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    let administrator = plane.administrator.clone();
    let path = "/v1/ledger/verification";
    let found: LedgerVerification = plane.get(&administrator, path).await.read(200);
    assert_eq!(found.faults, Vec::<String>::new());
    assert!(html.contains(&found.root), "{html}");
    assert_eq!(found.kinds.values().sum::<u64>(), found.size);
}

/// Each way to change the past behind the server's back, and what the button tells.
#[tokio::test]
async fn a_ledger_that_was_tampered_with_is_told_by_the_button() {
    let changes = [
        (
            "UPDATE ledger_entries SET entry = CAST(replace(CAST(entry AS TEXT), '\"deny\"',
                 '\"permit\"') AS BLOB) WHERE kind = 'decision'
                 AND json_extract(CAST(entry AS TEXT), '$.verdict') = 'deny'",
            "it is not what was entered there",
        ),
        (
            "DELETE FROM ledger_entries WHERE number = 4",
            "entry 4 is missing",
        ),
        (
            "UPDATE ledger_nodes SET hash = randomblob(32) WHERE node = 2",
            "node 2 of its tree does not hold the hash of the entries",
        ),
        (
            "UPDATE ledger_checkpoint SET note = replace(note, 'carnet.test', 'carnet.best')",
            "the checkpoint is not believed",
        ),
        (
            "UPDATE ledger_checkpoint SET size = size - 1",
            "and is kept as one of",
        ),
        (
            "UPDATE ledger_entries SET entry = x'00ff' WHERE number = 5",
            "entry 5: it is not an entry of a ledger",
        ),
    ];
    for (change, told) in changes {
        let (plane, _, mut browser) = moved().await;
        plane.change(change).await;
        let page = browser.fill("/entries", "/entries", &[]).await;
        let html = page.is(200);
        assert!(html.contains("✕ not sound"), "{change}: {html}");
        assert!(html.contains(told), "{change}: {html}");
        assert!(!html.contains("Nothing is wrong"), "{change}");
    }
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
    let file = browser.get("/entries/3/proof").await;
    assert_eq!(file.status, 200);
    let found: ProvenEntry = serde_json::from_str(&file.html).unwrap();
    assert_eq!(found.proof, proven.proof);
    let permit = listed(&browser.get("/entries?kind=permit").await)[0];
    let page = browser.get(&format!("/entries/{permit}")).await;
    let html = page.is(200);
    for told in [
        "What the permit says",
        "<dt>From</dt><dd>north</dd>",
        "<dt>To</dt><dd>south",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
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
    // The line of time, and the same in words.
    assert_eq!(html.matches("<rect class=\"stay-").count(), 2, "{html}");
    assert!(
        html.contains("<strong>north</strong>, Japan, for"),
        "{html}"
    );
    assert!(
        html.contains("<strong>south</strong>, France, for"),
        "{html}"
    );
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
