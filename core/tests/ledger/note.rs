use carnet_core::ledger::{Checkpoint, LedgerSigner, LedgerVerifier, NoteFault, leaf_hash};
use proptest::prelude::*;

fn signer() -> LedgerSigner {
    LedgerSigner::new("carnet.example/ledger", &[7; 32]).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        size: 12,
        root: leaf_hash(b"root"),
    }
}

#[test]
fn a_checkpoint_is_a_signed_note_of_c2sp() {
    let note = signer().sign(&checkpoint()).unwrap();
    let lines: Vec<&str> = note.lines().collect();
    assert_eq!(lines[0], "carnet.example/ledger");
    assert_eq!(lines[1], "12");
    assert_eq!(lines[2], checkpoint().root.to_string());
    assert_eq!(lines[3], "");
    assert!(lines[4].starts_with("— carnet.example/ledger "));
    let verifier = LedgerVerifier::new(&signer().verifier_key()).unwrap();
    assert_eq!(verifier.open(&note).unwrap(), checkpoint());
}

/// Base64 has a `+` of its own.
#[test]
fn a_verifier_key_tells_the_public_key_whatever_its_letters() {
    for secret in 0..=255 {
        let signer = LedgerSigner::new("carnet.example/ledger", &[secret; 32]).unwrap();
        let verifier = LedgerVerifier::new(&signer.verifier_key()).unwrap();
        assert_eq!(verifier.public(), hex::encode(signer.public()));
    }
}

#[test]
fn another_ledgers_checkpoint_is_refused() {
    let verifier = LedgerVerifier::new(&signer().verifier_key()).unwrap();
    let same_name = LedgerSigner::new("carnet.example/ledger", &[8; 32]).unwrap();
    assert!(matches!(
        verifier.open(&same_name.sign(&checkpoint()).unwrap()),
        Err(NoteFault::Signature(_))
    ));
    let same_key = LedgerSigner::new("carnet.example/other", &[7; 32]).unwrap();
    assert!(
        verifier
            .open(&same_key.sign(&checkpoint()).unwrap())
            .is_err()
    );
}

#[test]
fn a_name_that_notes_cannot_have_is_refused() {
    for name in ["", "a b", "a+b"] {
        assert!(LedgerSigner::new(name, &[7; 32]).is_err(), "{name}");
    }
    assert!(LedgerVerifier::new("carnet.example/ledger+00000000+AAAA").is_err());
}

proptest! {
    #[test]
    fn any_changed_byte_of_a_note_is_found(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let note = signer().sign(&checkpoint()).unwrap();
        let mut bytes = note.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let altered = String::from_utf8_lossy(&bytes).into_owned();
        if altered != note {
            let verifier = LedgerVerifier::new(&signer().verifier_key()).unwrap();
            prop_assert!(verifier.open(&altered).is_err());
        }
    }

    #[test]
    fn arbitrary_text_is_no_checkpoint(text in "\\PC{0,100}") {
        let verifier = LedgerVerifier::new(&signer().verifier_key()).unwrap();
        prop_assert!(verifier.open(&text).is_err());
    }
}
