//! The witness against a plain model of it: a list of the entries that it has seen. What begins
//! with that list, is signed and proven is cosigned, and nothing else.

use carnet_core::ledger::{
    AddCheckpoint, Checkpoint, Growth, Hash, LedgerSigner, LedgerVerifier, Nodes, Uncosigned,
    consistency_nodes, leaf_hash, prove_consistency, witness,
};
use proptest::prelude::*;

/// An entry is a byte here.
type Entries = Vec<u8>;

fn signer() -> LedgerSigner {
    LedgerSigner::new("carnet.example/ledger", &[7; 32]).unwrap()
}

fn verifier() -> LedgerVerifier {
    LedgerVerifier::new(&signer().verifier_key()).unwrap()
}

fn tree(entries: &[u8]) -> Growth {
    let mut tree = Growth::new(0, Nodes::default());
    for entry in entries {
        tree.append(leaf_hash(&[*entry])).unwrap();
    }
    tree
}

fn checkpoint(entries: &[u8]) -> Checkpoint {
    Checkpoint {
        size: entries.len() as u64,
        root: tree(entries).root().unwrap(),
    }
}

/// As an honest ledger would prove it; nothing where it cannot.
fn prove(entries: &[u8], old: u64) -> Vec<Hash> {
    let size = entries.len() as u64;
    let nodes = Nodes(tree(entries).grown().iter().copied().collect());
    match consistency_nodes(old, size) {
        Ok(_) => prove_consistency(old, size, &nodes).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// What is sent beside the entries.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SignedBy {
    Ledger,
    AnotherKey,
    AnotherLedger,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Proof {
    Honest,
    Flipped,
    Shortened,
    Lengthened,
}

/// What the ledger shows next.
#[derive(Debug, Clone)]
struct Shown {
    /// How many of the entries seen last it keeps, in 256ths.
    kept: u8,
    /// What comes behind them.
    then: Entries,
    /// The old size that is claimed, where it is not the true one.
    old: Option<u8>,
    signed: SignedBy,
    proof: Proof,
}

fn honest() -> impl Strategy<Value = Shown> {
    proptest::collection::vec(any::<u8>(), 0..9).prop_map(|then| Shown {
        kept: 255,
        then,
        old: None,
        signed: SignedBy::Ledger,
        proof: Proof::Honest,
    })
}

fn any_shown() -> impl Strategy<Value = Shown> {
    let signed = prop_oneof![
        4 => Just(SignedBy::Ledger),
        1 => Just(SignedBy::AnotherKey),
        1 => Just(SignedBy::AnotherLedger),
    ];
    let proof = prop_oneof![
        4 => Just(Proof::Honest),
        1 => Just(Proof::Flipped),
        1 => Just(Proof::Shortened),
        1 => Just(Proof::Lengthened),
    ];
    let old = prop_oneof![3 => Just(None), 1 => (0u8..30).prop_map(Some)];
    let kept = prop_oneof![Just(255), any::<u8>()];
    // Few different entries: the same ones come again.
    let then = proptest::collection::vec(0u8..3, 0..9);
    (kept, then, old, signed, proof).prop_map(|(kept, then, old, signed, proof)| Shown {
        kept,
        then,
        old,
        signed,
        proof,
    })
}

/// What a witness with no notion of hashes would answer: 200, or a refusal's status.
fn model(seen: &[u8], shown: &[u8], old: u64, signed: SignedBy, proven: bool) -> u16 {
    if signed == SignedBy::AnotherLedger {
        return 404;
    }
    if signed == SignedBy::AnotherKey {
        return 403;
    }
    if old > shown.len() as u64 {
        return 400;
    }
    if old != seen.len() as u64 || (shown.len() == seen.len() && shown != seen) {
        return 409;
    }
    if !shown.starts_with(seen) || !proven {
        return 422;
    }
    200
}

fn request(shown: &Shown, entries: &[u8], old: u64) -> (AddCheckpoint, bool) {
    let signer = match shown.signed {
        SignedBy::Ledger => signer(),
        SignedBy::AnotherKey => LedgerSigner::new(signer().origin(), &[8; 32]).unwrap(),
        SignedBy::AnotherLedger => LedgerSigner::new("carnet.example/other", &[7; 32]).unwrap(),
    };
    let mut proof = prove(entries, old);
    let before = proof.clone();
    match shown.proof {
        Proof::Honest => {}
        Proof::Flipped => {
            if let Some(hash) = proof.first_mut() {
                hash.0[0] ^= 1;
            }
        }
        Proof::Shortened => drop(proof.pop()),
        Proof::Lengthened => proof.push(leaf_hash(b"more")),
    }
    let proven = proof == before;
    let note = signer.sign(&checkpoint(entries)).unwrap();
    (AddCheckpoint { old, proof, note }, proven)
}

/// As a witness does, over the body of a request.
fn ask(remembered: Option<Checkpoint>, body: &str) -> Result<Checkpoint, Uncosigned> {
    let request = AddCheckpoint::parse(body)?;
    let ledgers = [verifier()];
    witness(request.ledger_of(&ledgers)?, remembered, &request)
}

proptest! {
    #[test]
    fn it_cosigns_what_begins_with_what_it_has_seen_and_nothing_else(
        steps in proptest::collection::vec(prop_oneof![honest(), any_shown()], 1..12),
    ) {
        let mut seen = Entries::new();
        let mut remembered: Option<Checkpoint> = None;
        for shown in steps {
            let kept = (seen.len() * usize::from(shown.kept)).div_ceil(255);
            let mut entries = seen[..kept].to_vec();
            entries.extend(&shown.then);
            let old = shown.old.map_or(seen.len() as u64, u64::from);
            let (request, proven) = request(&shown, &entries, old);
            let answer = ask(remembered, &request.to_body());
            let status = answer.as_ref().map_or_else(Uncosigned::status, |_| 200);
            let expected = model(&seen, &entries, old, shown.signed, proven);
            prop_assert_eq!(status, expected, "{:?}", answer);
            if let Ok(newer) = answer {
                let before = remembered.map_or(0, |before| before.size);
                prop_assert!(newer.size >= before, "it goes back");
                prop_assert_eq!(newer, checkpoint(&entries));
                remembered = Some(newer);
                seen = entries;
            } else if let Err(Uncosigned::OtherSize { size }) = answer {
                prop_assert_eq!(size, seen.len() as u64);
            }
        }
    }

    #[test]
    fn honest_growth_is_always_cosigned(
        growths in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
    ) {
        let mut entries = Entries::new();
        let mut remembered = None;
        for growth in growths {
            let old = entries.len() as u64;
            entries.extend(growth);
            let request = AddCheckpoint {
                old,
                proof: prove(&entries, old),
                note: signer().sign(&checkpoint(&entries)).unwrap(),
            };
            let answer = ask(remembered, &request.to_body());
            prop_assert_eq!(answer, Ok(checkpoint(&entries)));
            remembered = Some(checkpoint(&entries));
        }
    }

    #[test]
    fn a_request_reads_as_it_was_written(
        old in any::<u64>(),
        proof in proptest::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..=63),
        note in "(\\PC|\n){0,80}",
    ) {
        let request = AddCheckpoint { old, proof, note };
        prop_assert_eq!(AddCheckpoint::parse(&request.to_body()), Ok(request));
    }

    /// Whatever sizes the ledger's own key has signed, and whatever proof comes with them.
    #[test]
    fn no_size_and_no_proof_ends_the_witness(
        last in prop_oneof![any::<u64>(), 0u64..9, (u64::MAX - 9)..=u64::MAX],
        size in prop_oneof![any::<u64>(), 0u64..9, (u64::MAX - 9)..=u64::MAX],
        proof in proptest::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..=63),
    ) {
        let next = Checkpoint { size, root: leaf_hash(b"next") };
        let remembered = Checkpoint { size: last, root: leaf_hash(b"last") };
        let request = AddCheckpoint { old: last, proof, note: signer().sign(&next).unwrap() };
        prop_assert!(ask(Some(remembered), &request.to_body()).is_err());
    }

    #[test]
    fn arbitrary_text_is_refused(body in "(old [0-9]{1,3}\n)?(\\PC|\n){0,100}") {
        prop_assert!(ask(None, &body).is_err());
    }
}

#[test]
fn a_request_that_breaks_the_format_is_malformed() {
    let note = signer().sign(&checkpoint(b"abc")).unwrap();
    let hash = leaf_hash(b"hash").to_string();
    let long = format!("old 3\n{}\n{note}", format!("{hash}\n").repeat(64));
    for body in [
        String::new(),
        note.clone(),
        format!("old\n\n{note}"),
        format!("old -1\n\n{note}"),
        format!("old 01\n\n{note}"),
        format!("old +1\n\n{note}"),
        format!("old 1 \n\n{note}"),
        format!("old 1\r\n\n{note}"),
        format!("old 18446744073709551616\n\n{note}"),
        format!("old 1\nAAAA\n\n{note}"),
        format!("old 1\n{hash}\n{note}"),
        long,
    ] {
        assert_eq!(
            ask(None, &body).map_err(|refusal| refusal.status()),
            Err(400),
            "{body}"
        );
    }
    let longest = format!("old 0\n{}\n{note}", format!("{hash}\n").repeat(63));
    assert_eq!(AddCheckpoint::parse(&longest).unwrap().proof.len(), 63);
}

/// A tree without entries has one root.
#[test]
fn an_empty_ledger_with_another_root_is_refused() {
    let forged = Checkpoint {
        size: 0,
        root: leaf_hash(b"forged"),
    };
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        note: signer().sign(&forged).unwrap(),
    };
    assert_eq!(
        ask(None, &request.to_body()),
        Err(Uncosigned::OtherRoot { size: 0 })
    );
}
