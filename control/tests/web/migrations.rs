//! Moving a container, and following a move.

use carnet_api::v1::{Keys, LedgerEntry, Migration, MigrationState, ProvenEntry, Role};
use carnet_core::ledger::{Hash, LedgerVerifier, check_inclusion, leaf_hash};
use reqwest::Method;

use crate::browser::Browser;
use crate::containers::{row, world};
use crate::plane::{Plane, Someone};

const AUDIT: &str = "/containers/{}/audit";
const MOVE: &str = "/containers/{}/move";

/// `app`, which may go to `south` and not to `far`, and its owner's browser.
async fn app() -> (Plane, Someone, Browser, String) {
    let (plane, lender, mover) = world().await;
    let body = serde_json::json!({
        "name": "app", "edge": "north",
        "requirements": "jp,us,fr -caB * lxc 60 50 1.6 4 * * *",
    });
    let made = plane.post(&mover, "/v1/containers", body).await.json(201);
    let id = made["id"].as_str().unwrap().to_owned();
    let confirm = format!("/v1/containers/{id}/confirm");
    plane
        .post(&lender, &confirm, serde_json::json!({}))
        .await
        .json(200);
    let browser = Browser::of(&plane, &mover).await;
    (plane, mover, browser, id)
}

async fn migrations(plane: &Plane, who: &Someone) -> Vec<Migration> {
    plane.get(who, "/v1/migrations").await.read(200)
}

#[tokio::test]
async fn edges_that_would_be_denied_are_shown_with_their_reasons_and_cannot_be_picked() {
    let (plane, mover, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    let page = browser.get(&form).await;
    let html = page.is(200);
    assert!(
        html.contains(r#"value="region:B""#) && html.contains(r#"value="anywhere:""#),
        "{html}"
    );
    assert!(
        !html.contains("post-copy)"),
        "its owner has not allowed it: {html}"
    );

    let page = browser.fill(&form, &AUDIT.replace("{}", &id), &[]).await;
    let html = page.is(200);
    let (south, far) = (row(html, "south"), row(html, "far"));
    assert!(
        south.contains("● permitted") && !south.contains("disabled"),
        "{south}"
    );
    assert!(
        far.contains("✕ denied") && far.contains("disabled"),
        "{far}"
    );
    assert!(far.contains("cDAl") && far.contains("cDAo"), "{far}");
    assert!(
        !html.contains(r#"value="edge:north""#),
        "it is there already"
    );
    assert!(migrations(&plane, &mover).await.is_empty(), "nothing moves");

    // Whoever sends it all the same is told by the audit.
    let far = [("to", "edge:far")];
    let page = browser.fill(&form, &form, &far).await;
    assert_eq!(page.status, 303, "{}", page.html);
    let path = page.headers["location"].to_str().unwrap().to_owned();
    let migration = migrations(&plane, &mover).await.remove(0);
    let ended = plane.end_of(&mover, &migration).await;
    assert_eq!(ended.state, MigrationState::Denied);
    let page = browser.get(&path).await;
    let html = page.is(200);
    assert!(
        html.contains("✕ denied") && html.contains("Would satisfy it"),
        "{html}"
    );
}

#[tokio::test]
async fn edges_that_are_permitted_show_what_decides_among_them_the_least_used_first() {
    let (plane, mover, mut browser, id) = app().await;
    let lender = plane.edge_owner("another").await;
    let made = plane
        .edge_as(&lender, "west", "A us caA deA lxc 2.6 8 - - -")
        .await;
    plane.share(&lender, "west", &mover).await;
    let form = MOVE.replace("{}", &id);
    for target in ["south", "north"] {
        let begun = plane.start_move(&mover, &id, target).await;
        let ended = plane.end_of(&mover, &begun).await;
        assert_eq!(ended.state, MigrationState::Completed);
    }
    let order = async |browser: &mut Browser| -> Vec<String> {
        let page = browser.fill(&form, &AUDIT.replace("{}", &id), &[]).await;
        page.is(200)
            .split(r#"value="edge:"#)
            .skip(1)
            .map(|row| row.split('"').next().unwrap().to_owned())
            .collect()
    };
    plane
        .agents
        .change(made.id, |edge| edge.used = Some((100, 2_500)));
    assert_eq!(order(&mut browser).await, ["south", "west", "far"]);
    plane
        .agents
        .change(made.id, |edge| edge.used = Some((100, 200)));
    assert_eq!(order(&mut browser).await, ["west", "south", "far"]);

    let page = browser.fill(&form, &AUDIT.replace("{}", &id), &[]).await;
    let html = page.is(200);
    let (west, south, far) = (row(html, "west"), row(html, "south"), row(html, "far"));
    assert!(west.contains("the least used of those permitted"), "{west}");
    assert!(west.contains("about 7.8 of its 8 GB"), "{west}");
    assert!(!west.contains("stood still"), "it was never there: {west}");
    assert!(!south.contains("the least used"), "{south}");
    assert!(south.contains("when it last moved there"), "{south}");
    assert!(!far.contains("free"), "{far}");
    assert!(
        html.contains("Stop and copy: it last stood still for"),
        "{html}"
    );
}

#[tokio::test]
async fn a_move_is_begun_followed_and_seen_to_end() {
    let (plane, mover, mut browser, id) = app().await;
    plane.agents.moves.close();
    let form = MOVE.replace("{}", &id);
    let page = browser.fill(&form, &form, &[("to", "region:B")]).await;
    assert_eq!(page.status, 303, "{}", page.html);
    let path = page.headers["location"].to_str().unwrap().to_owned();
    plane.agents.moves.until_waiting(1).await;
    let page = browser.get(&path).await;
    let html = page.is(200);
    assert!(
        html.contains("preparing") && html.contains("under way"),
        "{html}"
    );
    assert!(
        html.contains(r#"http-equiv="refresh""#),
        "it loads itself anew: {html}"
    );
    let list = browser.get("/containers").await;
    assert!(
        list.is(200).contains("being moved") && list.html.contains(&path),
        "{}",
        list.html
    );
    assert!(list.html.contains(r#"http-equiv="refresh""#));
    // No second one meanwhile.
    let page = browser.fill(&form, &form, &[("to", "anywhere:")]).await;
    assert!(
        page.is(409).contains("is being moved already"),
        "{}",
        page.html
    );

    plane.agents.moves.open();
    let migration = migrations(&plane, &mover).await.remove(0);
    let ended = plane.end_of(&mover, &migration).await;
    assert_eq!(ended.state, MigrationState::Completed);
    let page = browser.get(&path).await;
    let html = page.is(200);
    for told in [
        "● completed",
        "north → south",
        "16.8 MB",
        "handing over",
        "stop and copy",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    assert!(!html.contains(r#"http-equiv="refresh""#), "it has ended");
    assert!(
        html.contains("<rect class=\""),
        "the stall's timeline: {html}"
    );
    let list = browser.get("/containers").await;
    assert!(
        list.is(200).contains(r#"href="/edges/south""#),
        "{}",
        list.html
    );
    assert!(browser.get("/migrations").await.is(200).contains(&path));

    // With a move that can be gone by, the next one says how long it may take.
    assert!(!html.contains("Time left"), "it has ended: {html}");
    plane.agents.moves.close();
    let back = plane.start_move(&mover, &id, "north").await;
    plane.agents.moves.until_waiting(1).await;
    let page = browser.get(&format!("/migrations/{}", back.id)).await;
    let html = page.is(200);
    assert!(html.contains("Time left"), "{html}");
    assert!(html.contains("its last move"), "{html}");
    plane.agents.moves.open();
    plane.end_of(&mover, &back).await;
}

#[tokio::test]
async fn what_cannot_be_moved_says_why_on_the_page() {
    let (plane, _, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    let wrong = [
        ("", 422, "choose where it is to go"),
        ("edge:nowhere", 422, "there is no such edge"),
        (
            "region:Z",
            422,
            "none of the edges that you may use is in such a region",
        ),
        ("edge:north", 409, "already"),
    ];
    for (to, status, told) in wrong {
        let page = browser.fill(&form, &form, &[("to", to)]).await;
        assert!(page.is(status).contains(told), "{told}: {}", page.html);
    }
    let post_copy = [("to", "edge:south"), ("strategy", "post_copy")];
    let page = browser.fill(&form, &form, &post_copy).await;
    assert!(
        page.is(409).contains("is not to be moved by post-copy"),
        "{}",
        page.html
    );

    // What a cold move costs is said where it is chosen.
    let page = browser.get(&form).await;
    assert!(
        page.is(200).contains("it is started anew (cold)"),
        "{}",
        page.html
    );
    assert!(
        page.is(200).contains("its connections are lost"),
        "{}",
        page.html
    );

    plane.change("UPDATE share_keys SET revoked_at = 1").await;
    let page = browser.fill(&form, &AUDIT.replace("{}", &id), &[]).await;
    assert!(
        page.is(409).contains("there is no edge to go to"),
        "{}",
        page.html
    );
}

#[tokio::test]
async fn what_is_asked_of_a_move_goes_with_it_and_is_kept_where_it_is_wrong() {
    let (plane, mover, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    // All that is wrong is told, and nothing has to be typed again.
    let wrong = [
        ("strategy", "pre_copy"),
        ("max_downtime", "1 s"),
        ("bandwidth", "<b>"),
    ];
    let page = browser.fill(&form, &form, &wrong).await;
    let html = page.is(422);
    for told in [
        "choose where it is to go",
        "<code>1 s</code> is not a whole number of milliseconds",
        "is not a number of MB a second",
        r#"value="pre_copy" selected"#,
        r#"value="1 s""#,
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    assert!(!html.contains("<b>"), "{html}");
    // What the API refuses, too.
    let little = [("to", "edge:south"), ("bandwidth", "0.01")];
    let page = browser.fill(&form, &form, &little).await;
    assert!(
        page.is(422).contains("bandwidth_bytes_per_s"),
        "{}",
        page.html
    );

    let terms = [
        ("to", "edge:south"),
        ("max_downtime", "60000"),
        ("bandwidth", "12.5"),
    ];
    let page = browser.fill(&form, &form, &terms).await;
    assert_eq!(page.status, 303, "{}", page.html);
    let migration = migrations(&plane, &mover).await.remove(0);
    assert_eq!(migration.max_downtime_ms, Some(60_000));
    assert_eq!(migration.bandwidth_bytes_per_s, Some(12_500_000));
    plane.end_of(&mover, &migration).await;
}

#[tokio::test]
async fn anothers_move_is_as_if_it_were_not_there_and_an_auditor_sees_its_entries() {
    let (plane, mover, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    let page = browser.fill(&form, &form, &[("to", "edge:south")]).await;
    let path = page.headers["location"].to_str().unwrap().to_owned();
    let migration = migrations(&plane, &mover).await.remove(0);
    plane.end_of(&mover, &migration).await;

    let stranger = plane.container_owner("stranger").await;
    let mut stranger = Browser::of(&plane, &stranger).await;
    let theirs = stranger
        .get(&path)
        .await
        .is(404)
        .replace(&migration.id.to_string(), "");
    let nobody = uuid::Uuid::now_v7().to_string();
    let nobodys = stranger.get(&format!("/migrations/{nobody}")).await;
    assert_eq!(theirs, nobodys.is(404).replace(&nobody, ""));
    assert!(!stranger.get("/migrations").await.is(200).contains(&path));

    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let ledger = format!("/v1/ledger/entries?migration={}", migration.id);
    let entries: Vec<LedgerEntry> = plane.get(&auditor, &ledger).await.read(200);
    let mut auditor = Browser::of(&plane, &auditor).await;
    let page = auditor.get(&path).await;
    let html = page.is(200);
    assert!(!entries.is_empty());
    for entry in &entries {
        assert!(
            html.contains(&format!("Entry {}: ", entry.number)),
            "{html}"
        );
    }
    assert!(
        html.contains(": permit<") && html.contains(": decision<"),
        "{html}"
    );
    // It reads everything, and changes nothing.
    assert!(auditor.get("/edges").await.is(200).contains("north"));
    assert!(auditor.get("/containers").await.is(200).contains("app"));
    let token = auditor.get("/account").await.form_token();
    let moved = auditor.ask(Method::GET, &form, &[], None).await;
    moved.is(403);
    auditor
        .send(&form, &[("form_token", &token), ("to", "anywhere:")])
        .await
        .is(403);
}

#[tokio::test]
async fn an_owner_reads_of_the_ledger_what_concerns_their_own_move_with_its_proof() {
    let (plane, mover, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    let page = browser.fill(&form, &form, &[("to", "edge:south")]).await;
    let path = page.headers["location"].to_str().unwrap().to_owned();
    let migration = migrations(&plane, &mover).await.remove(0);
    plane.end_of(&mover, &migration).await;

    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let ledger = format!("/v1/ledger/entries?migration={}", migration.id);
    let of_it: Vec<LedgerEntry> = plane.get(&auditor, &ledger).await.read(200);
    let api = format!("/v1/migrations/{}/entries", migration.id);
    let owners: Vec<LedgerEntry> = plane.get(&mover, &api).await.read(200);
    assert_eq!(owners, of_it);
    let page = browser.get(&path).await;
    let html = page.is(200);
    for told in [
        "<dt>From</dt><dd>north</dd>",
        "<dt>To</dt><dd>south</dd>",
        "<dt>Signed with</dt><dd>key ",
        "The statement itself, signed",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    assert!(!html.contains(r#"href="/entries"#), "the auditors': {html}");

    // What is in the file holds, by the ledger's own key.
    let keys: Keys = plane.get(&mover, "/v1/keys").await.read(200);
    let verifier = LedgerVerifier::new(&keys.ledger).unwrap();
    for entry in &of_it {
        assert!(
            html.contains(&format!("Entry {}: ", entry.number)),
            "{html}"
        );
        let file = browser
            .get(&format!("{path}/entries/{}", entry.number))
            .await;
        assert_eq!(file.status, 200);
        assert!(file.headers.contains_key("content-disposition"));
        let proven: ProvenEntry = serde_json::from_str(&file.html).unwrap();
        let of_api = format!("{api}/{}", entry.number);
        let of_api: ProvenEntry = plane.get(&mover, &of_api).await.read(200);
        assert_eq!(proven, of_api);
        assert_eq!(proven.entry, *entry);
        let checkpoint = verifier.open(&proven.checkpoint).unwrap();
        let proof: Vec<Hash> = proven
            .proof
            .iter()
            .map(|hash| Hash::parse_hash(hash).unwrap())
            .collect();
        let leaf = leaf_hash(proven.text.as_bytes());
        let (size, root) = (checkpoint.size, checkpoint.root);
        check_inclusion(&proof, size, root, entry.number, leaf).unwrap();
    }
    // Of the rest of the ledger nothing is told, nor to anybody else of this.
    let stranger = plane.container_owner("stranger").await;
    let mut strangers = Browser::of(&plane, &stranger).await;
    let theirs = of_it[0].number;
    for number in ["0".to_owned(), "1000000".to_owned(), "x".to_owned()] {
        browser
            .get(&format!("{path}/entries/{number}"))
            .await
            .is(404);
        let of_api = plane.get(&mover, &format!("{api}/{number}")).await;
        of_api.problem(404, "not-found");
    }
    strangers
        .get(&format!("{path}/entries/{theirs}"))
        .await
        .is(404);
    let of_api = plane.get(&stranger, &format!("{api}/{theirs}")).await;
    of_api.problem(404, "not-found");
    browser.get("/entries").await.is(403);
}

/// With a thousand edges, a move "anywhere" may audit them all.
#[tokio::test]
async fn a_move_with_many_attempts_is_shown_a_part_at_a_time() {
    let (plane, mover, mut browser, _) = app().await;
    let migration = plane.start_move(&mover, "app", "far").await;
    plane.end_of(&mover, &migration).await;
    plane
        .change(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             INSERT INTO migration_attempts (migration, position, attempt)
             SELECT migration, i, json_set(attempt, '$.edge_name', 'edge-' || i)
             FROM n, migration_attempts WHERE position = 0",
        )
        .await;
    let mut path = format!("/migrations/{}", migration.id);
    let mut found = 0;
    loop {
        let page = browser.get(&path).await;
        let html = page.is(200);
        assert!(html.len() < 200_000, "{} bytes", html.len());
        found += html.matches("✕ denied</span></td>").count();
        let Some((before, _)) = html.split_once(r#"" rel="next""#) else {
            break;
        };
        path = before.rsplit_once(r#"href=""#).unwrap().1.to_owned();
    }
    assert_eq!(found, 1_000);
}

/// Where there are many edges, the best of them can be picked, and the rest are counted.
#[tokio::test]
async fn the_page_for_moving_lists_the_best_of_many_edges() {
    let (plane, mover, mut browser, id) = app().await;
    let lender = plane.account("lender-of-many", &[Role::EdgeOwner]).await;
    for number in 0..60 {
        let name = format!("one-of-many-{number:02}");
        // A denial has as many reasons as there are elements.
        let row = match number % 2 {
            0 => "B jp caA deA lxc 2.6 8 - - -",
            _ => "B de caB deB docker 0.1 1 - - -",
        };
        plane.edge_as(&lender, &name, row).await;
        plane.share(&lender, &name, &mover).await;
    }
    let form = MOVE.replace("{}", &id);
    let page = browser.fill(&form, &AUDIT.replace("{}", &id), &[]).await;
    let html = page.is(200);
    assert!(html.len() < 200_000, "{} bytes", html.len());
    let listed = html.matches(r#"name="to" value="edge:"#).count();
    // All that are permitted come before those that are denied: 30 of these, and `south`.
    let denied = html.matches(" disabled").count();
    assert_eq!((listed, denied), (50, 19));
    assert!(
        html.contains("more edges, not listed here. A region"),
        "{html}"
    );
}

#[tokio::test]
async fn a_move_that_has_not_been_committed_is_cancelled_by_its_owner() {
    let (plane, mover, mut browser, id) = app().await;
    plane.agents.moves.close();
    let form = MOVE.replace("{}", &id);
    let page = browser.fill(&form, &form, &[("to", "region:B")]).await;
    let path = page.headers["location"].to_str().unwrap().to_owned();
    plane.agents.moves.until_waiting(1).await;
    let cancel = format!("{path}/cancel");
    assert!(browser.get(&path).await.is(200).contains(&cancel));

    let page = browser.fill(&path, &cancel, &[]).await;
    assert_eq!(page.headers["location"].to_str().unwrap(), path);
    plane.agents.moves.open();
    let migration = migrations(&plane, &mover).await.remove(0);
    let ended = plane.end_of(&mover, &migration).await;
    assert_eq!(ended.state, MigrationState::Cancelled);
    let page = browser.get(&path).await;
    let html = page.is(200);
    assert!(
        html.contains("cancelled") && !html.contains(&cancel),
        "{html}"
    );

    // Asked again, nothing changes.
    let token = browser.get("/account").await.form_token();
    let page = browser.send(&cancel, &[("form_token", &token)]).await;
    assert_eq!(page.status, 303, "{}", page.html);
}

#[tokio::test]
async fn a_cold_move_is_asked_for_on_the_page_and_the_page_says_what_it_was() {
    let (plane, mover, mut browser, id) = app().await;
    let form = MOVE.replace("{}", &id);
    let cold = [("to", "edge:south"), ("strategy", "cold")];
    let page = browser.fill(&form, &form, &cold).await;
    let path = page.headers["location"].to_str().unwrap().to_owned();
    let migration = migrations(&plane, &mover).await.remove(0);
    plane.end_of(&mover, &migration).await;
    let page = browser.get(&path).await;
    assert!(
        page.is(200).contains("cold: it was asked for"),
        "{}",
        page.html
    );
}
