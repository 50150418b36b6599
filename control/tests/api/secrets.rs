//! What is shown once is kept nowhere.

use std::fs;

use carnet_api::v1::{Claim, NewApiToken, NewPassword, NewShareKey};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::Answer;
use crate::plane::{Plane, Someone, certificate_request};

/// Every byte of the database, wherever it is.
fn kept(plane: &Plane) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut files = 0;
    for file in fs::read_dir(plane.data()).unwrap() {
        let path = file.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("carnet.db")
        {
            kept.extend(fs::read(path).unwrap());
            files += 1;
        }
    }
    assert!(files >= 2, "the database and its journal");
    kept
}

fn holds(kept: &[u8], what: &[u8]) -> bool {
    kept.windows(what.len()).any(|window| window == what)
}

#[tokio::test]
async fn no_secret_stands_in_the_database() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let ann = plane.container_owner("ann").await;
    plane.edge(&owner, "north").await;
    // With a key each, so that the answers are kept too.
    let once = async |who: &Someone, path: &str, body: Value| -> Answer {
        let ask = plane.ask(Method::POST, path).by(who).json(body);
        ask.once(path).send().await
    };
    let path = "/v1/edges/north/share-keys";
    let key: NewShareKey = once(&owner, path, json!({"grantee": "ann"}))
        .await
        .read(201);
    let redeem = json!({"key": key.key});
    once(&ann, "/v1/share-keys/redeem", redeem).await.json(200);
    let token: NewApiToken = once(&ann, "/v1/tokens", json!({"label": "x"}))
        .await
        .read(201);
    let web = plane.pending(&ann, "north", "web").await;
    let claim: Claim = once(&ann, "/v1/containers/web/claims", json!({}))
        .await
        .read(201);
    plane.agents.place(web.edge, "web", &claim.code);
    let path = "/v1/edges/north/enrolment-tokens";
    let enrolment = once(&owner, path, json!({})).await.json(201);
    let enrolment = enrolment["token"].as_str().unwrap().to_owned();
    let kept_before_use = kept(&plane);
    once(&ann, "/v1/containers/web/confirm-claim", json!({}))
        .await
        .json(200);
    let body = json!({
        "token": enrolment, "certificate_request": certificate_request(), "detected": {},
    });
    once(&owner, "/v1/enrolments", body).await.json(201);

    let password: NewPassword = once(&plane.administrator, "/v1/accounts/ann/password", json!({}))
        .await
        .read(201);
    let kept_with_password = kept(&plane);
    assert!(holds(&kept_with_password, b"$argon2id$"));
    assert!(!holds(&kept_with_password, password.secret.as_bytes()));

    let secret_of_enrolment = enrolment.split('.').nth(1).unwrap();
    let secrets = [
        plane.administrator.token.as_str(),
        owner.token.as_str(),
        ann.token.as_str(),
        key.key.as_str(),
        token.secret.as_str(),
        claim.code.as_str(),
        secret_of_enrolment,
    ];
    let kept_after_use = kept(&plane);
    // What is looked for would be found.
    assert!(holds(&kept_after_use, web.id.to_string().as_bytes()));
    for secret in secrets {
        assert!(
            holds(&kept_before_use, &Sha256::digest(secret)),
            "its hash is there"
        );
        let bare = secret
            .trim_start_matches("carnet_")
            .trim_start_matches("carnet-claim-");
        for kept in [&kept_before_use, &kept_after_use] {
            assert!(!holds(kept, bare.as_bytes()));
            assert!(!holds(kept, &hex::decode(bare).unwrap()), "nor as bytes");
        }
    }
}
