//! API tokens, and how they are shown.

use carnet_api::v1::{Account, ApiToken, NewApiToken, Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::plane::{Plane, Someone};

async fn token(plane: &Plane, who: impl AsRef<str>, body: Value) -> NewApiToken {
    plane.post(who, "/v1/tokens", body).await.read(201)
}

async fn roles(plane: &Plane, who: impl AsRef<str>) -> Vec<Role> {
    plane
        .get(who, "/v1/whoami")
        .await
        .read::<Account>(200)
        .roles
}

async fn is_good(plane: &Plane, secret: &str) -> bool {
    let answer = plane.get(secret, "/v1/whoami").await;
    if answer.status != 200 {
        answer.problem(401, "unauthenticated");
    }
    answer.status == 200
}

async fn both(plane: &Plane) -> Someone {
    plane
        .account("both", &[Role::EdgeOwner, Role::ContainerOwner])
        .await
}

#[tokio::test]
async fn a_token_with_a_part_of_the_roles_does_that_part_alone() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let part = json!({"label": "part", "roles": ["edge_owner"]});
    let part = token(&plane, &both, part).await.secret;
    assert_eq!(roles(&plane, &part).await, [Role::EdgeOwner]);
    plane.get(&part, "/v1/edges").await.json(200);
    let refused = plane.post(&part, "/v1/audits", json!({})).await;
    let detail = refused.detail(403, "forbidden");
    assert!(
        detail.contains("`container_owner`; `both` has `edge_owner`"),
        "{detail}"
    );
    // The account itself can.
    let allowed = plane.post(&both, "/v1/audits", json!({})).await;
    allowed.problem(422, "unfit-body");
}

#[tokio::test]
async fn a_token_makes_none_that_can_do_more_or_lasts_longer() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let part = json!({"label": "part", "roles": ["edge_owner"], "valid_for_seconds": 60});
    let part = token(&plane, &both, part).await;
    for (asked, told) in [
        (json!(["container_owner"]), "`container_owner`"),
        (
            json!(["edge_owner", "container_owner"]),
            "`edge_owner`, `container_owner`",
        ),
        (json!(["administrator"]), "`administrator`"),
        (json!([]), "none"),
    ] {
        let body = json!({"label": "more", "roles": asked});
        let refused = plane.post(&part.secret, "/v1/tokens", body).await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!(
            (fault.place.as_str(), fault.found.as_str()),
            ("roles", told)
        );
        assert_eq!(fault.allowed, "one or more of `edge_owner`");
    }
    for asked in [
        json!({"label": "as long"}),
        json!({"label": "", "valid_for_seconds": u64::MAX}),
    ] {
        let made = token(&plane, &part.secret, asked).await.token;
        assert_eq!(made.roles, [Role::EdgeOwner]);
        assert_eq!(made.expires_at_ms, part.token.expires_at_ms);
    }
    let shorter = json!({"label": "shorter", "valid_for_seconds": 30});
    let shorter = token(&plane, &part.secret, shorter).await.token;
    assert!(shorter.expires_at_ms < part.token.expires_at_ms);
}

#[tokio::test]
async fn a_token_that_has_expired_is_good_for_nothing() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let expired = json!({"label": "expired", "valid_for_seconds": 0});
    let expired = token(&plane, &both, expired).await.secret;
    assert!(!is_good(&plane, &expired).await);

    let hour = json!({"label": "an hour", "valid_for_seconds": 3600});
    let hour = token(&plane, &both, hour).await;
    let (made, ends) = (hour.token.created_at_ms, hour.token.expires_at_ms.unwrap());
    assert_eq!(ends.0 - made.0, 3_600_000);
    assert!(is_good(&plane, &hour.secret).await);
    plane
        .change("UPDATE api_tokens SET expires_at = expires_at - 3600000 WHERE label = 'an hour'")
        .await;
    assert!(!is_good(&plane, &hour.secret).await);
    assert!(is_good(&plane, &both.token).await);
}

#[tokio::test]
async fn a_token_that_is_revoked_is_good_for_nothing_at_once() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let made = token(&plane, &both, json!({"label": "laptop"})).await;
    let listed: Vec<ApiToken> = plane.get(&both, "/v1/tokens").await.read(200);
    assert_eq!(listed[0], made.token, "the newest first");
    assert_eq!(listed.len(), 2);

    let path = format!("/v1/tokens/{}", made.token.id);
    plane.delete(&both, &path).await.json(200);
    assert!(!is_good(&plane, &made.secret).await);
    plane.delete(&both, &path).await.problem(404, "not-found");
    let listed: Vec<ApiToken> = plane.get(&both, "/v1/tokens").await.read(200);
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn a_role_that_the_account_loses_is_lost_to_its_tokens() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let part = json!({"label": "part", "roles": ["edge_owner"]});
    let part = token(&plane, &both, part).await.secret;
    plane
        .change(r#"UPDATE accounts SET roles = '["container_owner"]' WHERE name = 'both'"#)
        .await;
    assert_eq!(roles(&plane, &both).await, [Role::ContainerOwner]);
    assert_eq!(roles(&plane, &part).await, []);
    let refused = plane.get(&both, "/v1/edges/none/share-keys").await;
    refused.problem(403, "forbidden");
    let refused = plane.get(&part, "/v1/edges").await;
    assert!(
        refused
            .detail(403, "forbidden")
            .ends_with("`both` has none")
    );
}

#[tokio::test]
async fn a_token_is_shown_in_one_way() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    let ask = |value: &str| {
        let ask = plane.ask(Method::GET, "/v1/whoami");
        ask.header("authorization", value)
    };
    for good in ["Bearer", "bearer", "BEARER"] {
        let answer = ask(&format!("{good} {}", both.token)).send().await;
        assert_eq!(answer.read::<Account>(200).id, both.id);
    }
    let token = both.token.as_str();
    for bad in [
        token.to_owned(),
        format!("Basic {token}"),
        format!("Bearer{token}"),
        format!("Bearer x{token}"),
        format!("Bearer {token}x"),
        format!("Bearer {}", token.to_uppercase()),
        format!("Bearer {token} {token}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer é".to_owned(),
    ] {
        ask(&bad).send().await.problem(401, "unauthenticated");
    }
    // Nor in the path, where it would be logged.
    let path = format!("/v1/whoami?token={token}&access_token={token}");
    let answer = plane.ask(Method::GET, &path).send().await;
    answer.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_label_has_a_length() {
    let plane = Plane::start().await;
    let both = both(&plane).await;
    token(&plane, &both, json!({"label": "é".repeat(200)})).await;
    let body = json!({"label": "é".repeat(201)});
    let refused = plane.post(&both, "/v1/tokens", body).await;
    let fault = refused.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(
        (fault.place.as_str(), fault.problem.as_str()),
        ("label", "too long")
    );
    assert_eq!(fault.found, "é".repeat(80), "not all of it is repeated");
}
