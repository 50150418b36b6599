//! Permits as an attacker would try them: altered, relabelled, for others, at other times.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::permit::{
    Abort, Claim, Commit, Fingerprint, Part, Party, Permit, Policy, Signer, StatementFault,
    Unverified,
};
use carnet_core::policy::Utilization;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const TOLERANCE_S: i64 = 5;

fn party(number: u128) -> Party {
    Party {
        edge: EdgeId::from_uuid(Uuid::from_u128(number)),
        certificate: Fingerprint::of(&number.to_be_bytes()),
    }
}

fn claim() -> Claim {
    Claim {
        iss: Claim::issuer(),
        jti: "b54f5c2c".to_owned(),
        iat: NOW.0 / 1_000,
        sub: ContainerId::from_uuid(Uuid::from_u128(7)),
        name: "App1".to_owned(),
        migration: MigrationId::from_uuid(Uuid::from_u128(8)),
        generation: 3,
        source: party(1),
        target: party(2),
    }
}

fn permit() -> Permit {
    Permit {
        claim: claim(),
        exp: NOW.0 / 1_000 + 300,
        requirements: Policy::of(4, &json!({"allowed_locations": ["jp"]})),
        attributes: Policy::of(5, &json!({"location": "jp"})),
        utilization: Utilization::new(1_000, 2_000, NOW),
        decision: 41,
    }
}

fn signer(secret: u8) -> Signer {
    Signer::new(&[secret; 32])
}

fn verify(token: &str, secret: u8) -> Result<Permit, StatementFault> {
    Unverified::<Permit>::parse(token)?.verify_with(&signer(secret).public())
}

#[test]
fn a_permit_says_what_was_signed() {
    let token = signer(1).sign(&permit()).unwrap();
    assert_eq!(verify(&token, 1), Ok(permit()));
    let unverified = Unverified::<Permit>::parse(&token).unwrap();
    assert_eq!(
        unverified.key(),
        Fingerprint::of(signer(1).public().as_bytes())
    );
}

#[test]
fn its_form_is_that_of_rfc_7515_and_rfc_8037() {
    let token = signer(1).sign(&permit()).unwrap();
    let parts: Vec<Vec<u8>> = token
        .split('.')
        .map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap())
        .collect();
    let header: Value = serde_json::from_slice(&parts[0]).unwrap();
    assert_eq!(header["alg"], "EdDSA");
    assert_eq!(header["typ"], "carnet-permit+jwt");
    let claims: Value = serde_json::from_slice(&parts[1]).unwrap();
    assert_eq!(claims["iss"], "carnet");
    assert_eq!(claims["exp"], permit().exp);
    assert_eq!(claims["target"]["edge"], party(2).edge.to_string());
    assert_eq!(parts[2].len(), 64);
}

#[test]
fn another_keys_signature_is_refused() {
    let token = signer(1).sign(&permit()).unwrap();
    assert_eq!(verify(&token, 2), Err(StatementFault::Signature));
}

#[test]
fn one_kind_of_statement_is_never_taken_for_another() {
    let signer = signer(1);
    let commit = signer.sign(&Commit { claim: claim() }).unwrap();
    let abort = signer.sign(&Abort { claim: claim() }).unwrap();
    assert!(matches!(
        verify(&commit, 1),
        Err(StatementFault::Kind { .. })
    ));
    assert!(matches!(
        Unverified::<Commit>::parse(&abort),
        Err(StatementFault::Kind { .. })
    ));
    assert!(matches!(
        Unverified::<Abort>::parse(&commit),
        Err(StatementFault::Kind { .. })
    ));
}

/// The token with its header changed, and signed again by nobody.
fn with_header(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut header: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(&parts[0]).unwrap()).unwrap();
    change(&mut header);
    parts[0] = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    parts.join(".")
}

#[test]
fn no_other_algorithm_is_accepted() {
    let token = signer(1).sign(&permit()).unwrap();
    for algorithm in ["none", "HS256", "RS256", "eddsa", "Ed25519", ""] {
        let altered = with_header(&token, |header| header["alg"] = algorithm.into());
        assert_eq!(
            verify(&altered, 1),
            Err(StatementFault::Algorithm(algorithm.to_owned()))
        );
    }
    let altered = with_header(&token, |header| header["jwk"] = json!({}));
    assert!(matches!(
        verify(&altered, 1),
        Err(StatementFault::Malformed(_))
    ));
}

/// Every value in the claims, changed in turn.
#[test]
fn an_alteration_of_any_claim_breaks_the_signature() {
    fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => object
                .iter()
                .for_each(|(key, value)| leaves(value, format!("{path}/{key}"), found)),
            _ => found.push(path),
        }
    }
    let token = signer(1).sign(&permit()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let mut paths = Vec::new();
    leaves(&claims, String::new(), &mut paths);
    assert!(paths.len() >= 18, "{paths:?}");
    for path in paths {
        let mut altered = claims.clone();
        let value = altered.pointer_mut(&path).unwrap();
        *value = match &*value {
            Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
            Value::String(text) => {
                // Another of the same form.
                let last = if text.ends_with('0') { '1' } else { '0' };
                format!("{}{last}", &text[..text.len() - 1]).into()
            }
            other => panic!("{path}: {other}"),
        };
        let token = format!(
            "{}.{}.{}",
            parts[0],
            BASE64_URL_SAFE_NO_PAD.encode(altered.to_string()),
            parts[2]
        );
        let fault = verify(&token, 1).unwrap_err();
        assert!(
            matches!(
                fault,
                StatementFault::Signature | StatementFault::Malformed("its issuer is not Carnet")
            ),
            "{path}: {fault}"
        );
    }
}

proptest! {
    #[test]
    fn any_changed_byte_is_found_and_nothing_panics(at in 0usize..2_000, to in any::<u8>()) {
        let token = signer(1).sign(&permit()).unwrap();
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = to;
        let altered = String::from_utf8_lossy(&bytes).into_owned();
        if altered != token {
            prop_assert!(verify(&altered, 1).is_err());
        }
    }

    #[test]
    fn arbitrary_text_is_no_permit(text in ".{0,200}") {
        prop_assert!(verify(&text, 1).is_err());
    }
}

#[test]
fn a_permit_is_good_from_its_making_to_its_end_give_or_take_the_tolerance() {
    let at = |offset_s: i64| {
        let now = UnixMillis(NOW.0 + offset_s * 1_000);
        permit()
            .is_good(now, TOLERANCE_S)
            .map_err(|fault| fault.name())
    };
    for (offset_s, expected) in [
        (-6, Err("not-yet")),
        (-5, Ok(())),
        (0, Ok(())),
        (299, Ok(())),
        (304, Ok(())),
        (305, Err("expired")),
        (100_000, Err("expired")),
    ] {
        assert_eq!(at(offset_s), expected, "{offset_s}");
    }
}

#[test]
fn a_permit_that_claims_a_long_life_is_refused() {
    let mut long = permit();
    long.exp = long.claim.iat + Permit::LONGEST_S + 1;
    assert_eq!(
        long.is_good(NOW, TOLERANCE_S).map_err(|fault| fault.name()),
        Err("life")
    );
    long.exp = long.claim.iat - 1;
    assert_eq!(
        long.is_good(NOW, TOLERANCE_S).map_err(|fault| fault.name()),
        Err("life")
    );
    long.exp = i64::MAX;
    assert!(long.is_good(NOW, TOLERANCE_S).is_err());
}

#[test]
fn a_permit_is_for_two_edges_in_their_parts_and_for_nobody_else() {
    let claim = claim();
    let name = |checked: Result<(), StatementFault>| checked.map_err(|fault| fault.name());
    assert_eq!(name(claim.is_for(&party(1), Part::Source)), Ok(()));
    assert_eq!(name(claim.is_for(&party(2), Part::Target)), Ok(()));
    assert_eq!(name(claim.is_for(&party(2), Part::Source)), Err("audience"));
    assert_eq!(name(claim.is_for(&party(1), Part::Target)), Err("audience"));
    let renewed = Party {
        certificate: Fingerprint::of(b"another"),
        ..party(1)
    };
    assert_eq!(name(claim.is_for(&renewed, Part::Source)), Err("audience"));
    assert_eq!(
        name(claim.has_peer(&party(2).certificate, Part::Source)),
        Ok(())
    );
    assert_eq!(
        name(claim.has_peer(&party(1).certificate, Part::Source)),
        Err("peer")
    );
    assert_eq!(
        name(claim.has_peer(&party(3).certificate, Part::Target)),
        Err("peer")
    );
}

#[test]
fn a_permit_is_about_one_move_of_one_container_at_one_generation() {
    let claim = claim();
    let other = MigrationId::from_uuid(Uuid::from_u128(9));
    assert!(claim.is_about(claim.migration, "App1").is_ok());
    assert_eq!(
        claim.is_about(other, "App1").unwrap_err().name(),
        "migration"
    );
    assert_eq!(
        claim.is_about(claim.migration, "App2").unwrap_err().name(),
        "container"
    );
    assert!(permit().is_of_generation(3).is_ok());
    for generation in [2, 4] {
        let fault = permit().is_of_generation(generation).unwrap_err();
        assert_eq!(fault.name(), "generation");
    }
}

#[test]
fn a_fingerprint_reads_back_and_is_written_in_one_way() {
    let fingerprint = Fingerprint::of(b"x");
    let text = fingerprint.to_string();
    assert_eq!(text.parse(), Ok(fingerprint));
    assert!(text.to_uppercase().parse::<Fingerprint>().is_err());
    assert!(text[1..].parse::<Fingerprint>().is_err());
}
