use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carnet_core::ledger::{
    Checkpoint, Cosigner, LedgerSigner, LedgerVerifier, NoteFault, WitnessVerifier, leaf_hash,
};
use ed25519_dalek::{Signature, SigningKey, Verifier};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const AT: u64 = 1_800_000_000;

fn signer() -> LedgerSigner {
    LedgerSigner::new("carnet.example/ledger", &[7; 32]).unwrap()
}

fn cosigner() -> Cosigner {
    Cosigner::new("witness.example", &[8; 32]).unwrap()
}

fn note() -> String {
    let checkpoint = Checkpoint {
        size: 12,
        root: leaf_hash(b"root"),
    };
    signer().sign(&checkpoint).unwrap()
}

/// Against the specification, by hand.
#[test]
fn a_cosignature_is_that_of_c2sp() {
    let note = note();
    let line = cosigner().cosign(&note, AT).unwrap();
    let encoded = line
        .strip_prefix("— witness.example ")
        .and_then(|rest| rest.strip_suffix('\n'))
        .unwrap();
    let bytes = BASE64_STANDARD.decode(encoded).unwrap();
    assert_eq!(bytes.len(), 4 + 8 + 64);
    let key = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let mut named = b"witness.example\n\x04".to_vec();
    named.extend(key.to_bytes());
    assert_eq!(bytes[..4], Sha256::digest(&named)[..4]);
    assert_eq!(bytes[4..12], AT.to_be_bytes());
    let (text, _) = note.split_once("\n\n").unwrap();
    let message = format!("cosignature/v1\ntime {AT}\n{text}\n");
    let signature = Signature::from_slice(&bytes[12..]).unwrap();
    key.verify(message.as_bytes(), &signature).unwrap();
    let id = hex::encode(&bytes[..4]);
    let public = BASE64_STANDARD.encode(&named["witness.example\n".len()..]);
    assert_eq!(
        cosigner().verifier().to_string(),
        format!("witness.example+{id}+{public}")
    );
}

#[test]
fn a_cosigned_checkpoint_is_still_the_ledgers_and_tells_when_it_was_cosigned() {
    let note = note();
    let line = cosigner().cosign(&note, AT).unwrap();
    let cosigned = format!("{note}{line}");
    assert_eq!(cosigner().verifier().cosigned_at(&cosigned), Ok(AT));
    let ledger = LedgerVerifier::new(&signer().verifier_key()).unwrap();
    assert_eq!(ledger.open(&cosigned).unwrap(), ledger.open(&note).unwrap());
}

#[test]
fn what_another_witness_cosigned_this_one_did_not() {
    let note = note();
    let other = Cosigner::new("witness.example", &[9; 32]).unwrap();
    let line = other.cosign(&note, AT).unwrap();
    let verifier = cosigner().verifier();
    let not_cosigned = Err(NoteFault::NotCosigned("witness.example".to_owned()));
    assert_eq!(
        verifier.cosigned_at(&format!("{note}{line}")),
        not_cosigned.clone()
    );
    assert_eq!(verifier.cosigned_at(&note), not_cosigned);
}

#[test]
fn a_ledgers_own_signature_is_no_cosignature() {
    let ledger_key = signer().verifier_key();
    assert!(matches!(
        ledger_key.parse::<WitnessVerifier>(),
        Err(NoteFault::Key(problem)) if problem.contains("cosignature/v1")
    ));
    let witness_key = cosigner().verifier().to_string();
    assert!(LedgerVerifier::new(&witness_key).is_err());
}

/// Base64 has a `+` of its own.
#[test]
fn a_verifier_key_reads_as_it_is_written_whatever_its_letters() {
    for secret in 0..=255 {
        let verifier = Cosigner::new("witness.example", &[secret; 32])
            .unwrap()
            .verifier();
        assert_eq!(verifier.to_string().parse(), Ok(verifier));
    }
    let key = cosigner().verifier().to_string();
    let (name, rest) = key.split_once('+').unwrap();
    let (id, encoded) = rest.split_once('+').unwrap();
    for broken in [
        String::new(),
        name.to_owned(),
        format!("{name}+{id}"),
        format!("other+{id}+{encoded}"),
        format!("{name}+00000000+{encoded}"),
        format!("{name}+{}+{encoded}", id.to_uppercase()),
        format!("a b+{id}+{encoded}"),
        format!("{name}+{id}+BAAA"),
    ] {
        assert!(broken.parse::<WitnessVerifier>().is_err(), "{broken}");
    }
    for name in ["", "a b", "a+b"] {
        assert!(Cosigner::new(name, &[7; 32]).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_changed_byte_of_a_cosigned_note_is_found(
        at in any::<prop::sample::Index>(),
        by in 1u8..=255,
    ) {
        let note = note();
        let (text, _) = note.split_once("\n\n").unwrap();
        let line = cosigner().cosign(&note, AT).unwrap();
        // The ledger's own signature is the ledger's verifier's to check.
        let mut bytes = format!("{text}\n\n{line}").into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let altered = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert!(cosigner().verifier().cosigned_at(&altered).is_err());
    }
}
