//! Accounts.

use carnet_api::v1::{Account, NewApiToken, Role};
use serde_json::{Value, json};

use crate::plane::Plane;

#[tokio::test]
async fn an_account_is_made_with_its_roles_and_shown_to_itself_and_those_who_read() {
    let plane = Plane::start().await;
    let body = json!({"name": "ann", "roles": ["container_owner", "edge_owner", "edge_owner"]});
    let made: Account = plane
        .post(&plane.administrator, "/v1/accounts", body)
        .await
        .read(201);
    assert_eq!(made.name, "ann");
    assert_eq!(
        made.roles,
        [Role::EdgeOwner, Role::ContainerOwner],
        "each once"
    );

    // By name and by id.
    for named in ["ann".to_owned(), made.id.to_string()] {
        let path = format!("/v1/accounts/{named}/tokens");
        let body = json!({"label": "laptop", "roles": ["edge_owner", "edge_owner"]});
        let token: NewApiToken = plane
            .post(&plane.administrator, &path, body)
            .await
            .read(201);
        assert_eq!(token.token.roles, [Role::EdgeOwner], "each once");
        let whoami: Account = plane.get(&token.secret, "/v1/whoami").await.read(200);
        let roles = vec![Role::EdgeOwner];
        assert_eq!(
            whoami,
            Account {
                roles,
                ..made.clone()
            }
        );
    }
    let auditor = plane.account("zoe", &[Role::Auditor]).await;
    for reader in [&plane.administrator, &auditor] {
        let listed: Vec<Account> = plane.get(reader, "/v1/accounts").await.read(200);
        let names: Vec<&str> = listed.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(names, ["administrator", "ann", "zoe"]);
        assert!(listed.contains(&made));
    }
}

#[tokio::test]
async fn an_account_has_a_name_of_its_own_and_a_role() {
    let plane = Plane::start().await;
    let make = |name: Value, roles: Value| {
        let body = json!({"name": name, "roles": roles});
        plane.post(&plane.administrator, "/v1/accounts", body)
    };
    let ann: Account = make(json!("ann"), json!(["auditor"])).await.read(201);
    let detail = make(json!("ann"), json!(["edge_owner"])).await;
    let detail = detail.detail(409, "conflict");
    assert_eq!(detail, "there is an account `ann` already");

    // What could pass for another's id is no name either.
    let id = ann.id.to_string();
    let long = "n".repeat(64);
    let bad = [
        "",
        "a b",
        "-a",
        ".a",
        "é",
        "a/b",
        "a\n",
        "..",
        long.as_str(),
        id.as_str(),
    ];
    for name in bad.iter().copied().chain([id.to_uppercase().as_str()]) {
        let refused = make(json!(name), json!(["auditor"])).await;
        let faults = refused.problem(422, "faulty-input").faults;
        assert_eq!(
            (faults[0].place.as_str(), faults[0].found.as_str()),
            ("name", name)
        );
    }
    for good in ["A", "0", "a.b_c-d", &"n".repeat(63), "a-b-c-d-e"] {
        make(json!(good), json!(["auditor"])).await.json(201);
    }
    let none = make(json!("bob"), json!([])).await;
    assert_eq!(none.problem(422, "faulty-input").faults[0].place, "roles");
    let unknown = make(json!("bob"), json!(["king"])).await;
    let detail = unknown.detail(422, "unfit-body");
    assert!(
        detail.contains("`king`") && detail.contains("`auditor`"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_token_is_made_for_an_account_that_there_is() {
    let plane = Plane::start().await;
    let body = json!({"label": "x"});
    let refused = plane
        .post(&plane.administrator, "/v1/accounts/nobody/tokens", body)
        .await;
    let detail = refused.detail(404, "not-found");
    assert_eq!(
        detail,
        "there is no account `nobody`, or you may not see it"
    );
    // An administrator gives no role that the account has not.
    plane.edge_owner("ann").await;
    let body = json!({"label": "x", "roles": ["auditor"]});
    let refused = plane
        .post(&plane.administrator, "/v1/accounts/ann/tokens", body)
        .await;
    let fault = refused.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(fault.found, "`auditor`");
    assert_eq!(fault.allowed, "one or more of `edge_owner`");
}
