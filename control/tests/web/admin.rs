//! What an administrator sees and does.

use carnet_api::v1::{Account, Keys, Parts, Role, SigningKey};
use serde_json::json;

use crate::browser::Browser;
use crate::plane::Plane;

/// What was shown once.
fn secret(html: &str) -> &str {
    let (_, rest) = html.split_once(r#"<code class="secret">"#).expect(html);
    rest.split('<').next().unwrap()
}

async fn log_in(plane: &Plane, name: &str, password: &str) -> Browser {
    let mut browser = Browser::new(plane);
    let fields = [("name", name), ("password", password)];
    let page = browser.fill("/log-in", "/log-in", &fields).await;
    page.leads_to("/");
    browser
}

#[tokio::test]
async fn everyone_begins_where_their_work_is() {
    let plane = Plane::start().await;
    let homes: [(&[Role], &str); 5] = [
        (&[Role::EdgeOwner], "/edges"),
        (&[Role::ContainerOwner], "/containers"),
        (&[Role::Auditor], "/entries"),
        (&[Role::Administrator], "/admin"),
        (&[Role::Administrator, Role::EdgeOwner], "/edges"),
    ];
    for (index, (roles, home)) in homes.into_iter().enumerate() {
        let someone = plane.account(&format!("someone-{index}"), roles).await;
        let mut browser = Browser::of(&plane, &someone).await;
        browser.get("/").await.leads_to(home);
        let page = browser.get(home).await;
        let leads = page.is(200).contains(r#"<a href="/admin">"#);
        assert_eq!(leads, roles.contains(&Role::Administrator), "{roles:?}");
    }
}

#[tokio::test]
async fn an_account_is_made_with_its_roles_and_a_password_that_is_shown_once() {
    let plane = Plane::start().await;
    let administrator = plane.administrator.clone();
    let mut browser = Browser::of(&plane, &administrator).await;
    let fields = [
        ("name", "audrey"),
        ("roles", "auditor"),
        ("roles", "edge_owner"),
    ];
    let page = browser.fill("/accounts", "/accounts", &fields).await;
    let password = secret(page.is(200)).to_owned();
    assert!(!browser.get("/accounts").await.is(200).contains(&password));
    let accounts: Vec<Account> = plane.get(&administrator, "/v1/accounts").await.read(200);
    let audrey = accounts.iter().find(|account| account.name == "audrey");
    assert_eq!(audrey.unwrap().roles, [Role::EdgeOwner, Role::Auditor]);
    let mut of_audrey = log_in(&plane, "audrey", &password).await;
    of_audrey.get("/entries").await.is(200);
    // She reads the list, and is offered nothing to change in it.
    let page = of_audrey.get("/accounts").await;
    let html = page.is(200);
    assert!(
        html.contains("administrator") && !html.contains("New password"),
        "{html}"
    );
    let token = of_audrey.get("/account").await.form_token();
    let send = [
        ("form_token", token.as_str()),
        ("name", "x"),
        ("roles", "administrator"),
    ];
    of_audrey.send("/accounts", &send).await.is(403);

    let page = browser
        .fill("/accounts", "/accounts/audrey/password", &[])
        .await;
    let next = secret(page.is(200)).to_owned();
    assert_ne!(next, password);
    of_audrey
        .get("/entries")
        .await
        .leads_to("/log-in?next=%2Fentries");
    log_in(&plane, "audrey", &next).await;

    let page = browser
        .fill("/accounts", "/accounts", &[("name", "no way")])
        .await;
    page.is(422);
    assert!(!page.faults_at("name").is_empty() && !page.faults_at("roles").is_empty());
    let page = browser.fill("/accounts", "/accounts", &fields).await;
    assert!(
        page.is(409)
            .contains("there is an account <code>audrey</code> already")
    );
    let token = page.form_token();
    let path = "/accounts/nobody/password";
    browser.send(path, &[("form_token", &token)]).await.is(404);
    assert!(
        browser
            .get("/accounts?search=edge_ow")
            .await
            .is(200)
            .contains("audrey")
    );
    let page = browser.get("/accounts?search=nothing").await;
    assert!(page.is(200).contains("No account is like this"));
}

#[tokio::test]
async fn the_parts_are_told_as_they_are() {
    let plane = Plane::start().await;
    let administrator = plane.administrator.clone();
    let mut browser = Browser::of(&plane, &administrator).await;
    let page = browser.get("/admin").await;
    assert!(
        page.is(200).contains("○ has not looked yet"),
        "{}",
        page.html
    );
    let owner = plane.edge_owner("lender").await;
    let (up, down) = (
        plane.edge(&owner, "up").await,
        plane.edge(&owner, "down").await,
    );
    plane.edge(&owner, "sick").await;
    let new = json!({"name": "new", "address": "192.0.2.9:1", "attributes": {}});
    plane.post(&owner, "/v1/edges", new).await.json(201);
    plane.agents.change(down.id, |edge| edge.reachable = false);
    plane.look().await;
    let sick = plane.show_edge(&owner, "sick").await;
    plane
        .agents
        .change(sick.id, |edge| edge.problems.push("no bridge".to_owned()));
    plane.look().await;
    assert_eq!(up.name, "up");
    let parts: Parts = plane.get(&administrator, "/v1/parts").await.read(200);
    let agents = &parts.agents;
    let counted = [
        agents.healthy,
        agents.degraded,
        agents.unreachable,
        agents.unknown,
    ];
    assert_eq!((counted, agents.not_enrolled), ([1, 1, 1, 0], 1));
    assert!(parts.store.bytes > 0 && parts.store.ledger_entries > 0);
    assert!(parts.monitor.looked_at_ms.is_some());
    let of_edges = parts
        .certificates
        .iter()
        .filter(|one| one.edge_name.is_some());
    assert_eq!(of_edges.count(), 3);
    let page = browser.get("/admin").await;
    let html = page.is(200);
    for told in [
        "✕ some are unreachable",
        "1 healthy, 1 degraded, 1 unreachable, 0 not looked at yet, 1 not enrolled",
        "● looks after the edges",
        "Edge down",
        "The key for permits",
    ] {
        assert!(html.contains(told), "{told}: {html}");
    }
    plane
        .change("UPDATE edges SET certificate_expires_at = 1 WHERE name = 'down'")
        .await;
    assert!(browser.get("/admin").await.is(200).contains("✕ expired"));
}

#[tokio::test]
async fn the_key_for_permits_is_replaced_when_that_is_confirmed() {
    let plane = Plane::start().await;
    let administrator = plane.administrator.clone();
    let mut browser = Browser::of(&plane, &administrator).await;
    let kid = async || {
        let keys: Keys = plane.get(&administrator, "/v1/keys").await.read(200);
        keys.permit.kid
    };
    let before = kid().await;
    let page = browser.get("/admin").await;
    assert!(page.is(200).contains(&before), "{}", page.html);
    let page = browser.fill("/admin", "/admin/rotate-key", &[]).await;
    assert!(page.is(422).contains("tick the box"), "{}", page.html);
    assert_eq!(kid().await, before);
    let confirmed = [("confirm", "yes")];
    let page = browser
        .fill("/admin", "/admin/rotate-key", &confirmed)
        .await;
    page.leads_to("/admin");
    let after = kid().await;
    assert_ne!(after, before);
    let path = "/v1/keys/history";
    let keys: Vec<SigningKey> = plane.get(&administrator, path).await.read(200);
    let told: Vec<_> = keys
        .iter()
        .map(|key| {
            (
                key.purpose.as_str(),
                key.kid.clone(),
                key.until_at_ms.is_some(),
            )
        })
        .collect();
    let ledger = keys.last().unwrap().kid.clone();
    assert_eq!(
        told,
        [
            ("permit", after.clone(), false),
            ("permit", before.clone(), true),
            ("ledger", ledger, false)
        ]
    );
    let page = browser.get("/admin").await;
    let html = page.is(200);
    assert!(html.contains(&after) && html.contains(&before), "{html}");
    assert!(html.contains("○ replaced"), "{html}");
}
