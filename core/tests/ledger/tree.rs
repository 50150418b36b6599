use std::collections::HashMap;

use carnet_core::ledger::{
    Growth, Hash, Nodes, check_consistency, check_inclusion, consistency_nodes, frontier,
    inclusion_nodes, leaf_hash, prove_consistency, prove_inclusion, root,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// RFC 6962, section 2.1, word for word.
fn merkle_tree_hash(entries: &[Vec<u8>]) -> [u8; 32] {
    match entries {
        [] => Sha256::digest([]).into(),
        [entry] => Sha256::new()
            .chain_update([0])
            .chain_update(entry)
            .finalize()
            .into(),
        entries => {
            let mut half = 1;
            while half * 2 < entries.len() {
                half *= 2;
            }
            Sha256::new()
                .chain_update([1])
                .chain_update(merkle_tree_hash(&entries[..half]))
                .chain_update(merkle_tree_hash(&entries[half..]))
                .finalize()
                .into()
        }
    }
}

/// The tree of `entries`, grown in batches of these sizes; each batch begins with no more than
/// the frontier that was kept.
fn grow(entries: &[Vec<u8>], batches: &[usize]) -> HashMap<u64, Hash> {
    let mut kept: HashMap<u64, Hash> = HashMap::new();
    let mut size = 0_usize;
    let mut batches = batches.iter().cycle();
    while size < entries.len() {
        let batch = (*batches.next().unwrap()).max(1).min(entries.len() - size);
        let mut growth = Growth::new(size as u64, read(&kept, &frontier(size as u64)));
        for entry in &entries[size..size + batch] {
            growth.append(leaf_hash(entry)).unwrap();
        }
        kept.extend(growth.grown().iter().copied());
        size += batch;
        assert_eq!(growth.size(), size as u64);
        assert_eq!(growth.root().unwrap().0, merkle_tree_hash(&entries[..size]));
    }
    kept
}

fn read(kept: &HashMap<u64, Hash>, wanted: &[u64]) -> Nodes {
    Nodes(wanted.iter().map(|node| (*node, kept[node])).collect())
}

fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..70)
}

proptest! {
    #[test]
    fn the_root_is_that_of_rfc_6962_however_it_has_grown(
        entries in entries(),
        batches in proptest::collection::vec(1usize..9, 1..5),
    ) {
        let kept = grow(&entries, &batches);
        let size = entries.len() as u64;
        let found = root(size, &read(&kept, &frontier(size))).unwrap();
        prop_assert_eq!(found.0, merkle_tree_hash(&entries));
    }

    #[test]
    fn what_is_in_the_tree_can_be_proven_and_nothing_else(
        entries in entries(),
        leaf in any::<prop::sample::Index>(),
        other in proptest::collection::vec(any::<u8>(), 21..22),
    ) {
        let kept = grow(&entries, &[3]);
        let size = entries.len() as u64;
        let leaf = leaf.index(entries.len()) as u64;
        let root = Hash(merkle_tree_hash(&entries));
        let nodes = read(&kept, &inclusion_nodes(size, leaf).unwrap());
        let proof = prove_inclusion(size, leaf, &nodes).unwrap();
        let hash = leaf_hash(&entries[leaf as usize]);
        prop_assert!(check_inclusion(&proof, size, root, leaf, hash).is_ok());
        prop_assert!(check_inclusion(&proof, size, root, leaf, leaf_hash(&other)).is_err());
        prop_assert!(check_inclusion(&proof, size, root, size, hash).is_err());
        if !proof.is_empty() {
            let mut broken = proof.clone();
            broken[0].0[0] ^= 1;
            prop_assert!(check_inclusion(&broken, size, root, leaf, hash).is_err());
            prop_assert!(check_inclusion(&proof[1..], size, root, leaf, hash).is_err());
        }
    }

    #[test]
    fn a_tree_begins_with_every_tree_that_it_was_and_with_no_other(
        entries in entries(),
        older in any::<prop::sample::Index>(),
        changed in any::<prop::sample::Index>(),
    ) {
        let kept = grow(&entries, &[2]);
        let newer = entries.len() as u64;
        let older = older.index(entries.len() + 1);
        let nodes = read(&kept, &consistency_nodes(older as u64, newer).unwrap());
        let proof = prove_consistency(older as u64, newer, &nodes).unwrap();
        let newer_root = Hash(merkle_tree_hash(&entries));
        let older_root = Hash(merkle_tree_hash(&entries[..older]));
        let check = |older_root| {
            check_consistency(&proof, (older as u64, older_root), (newer, newer_root))
        };
        prop_assert!(check(older_root).is_ok());
        if older > 0 {
            let mut rewritten = entries[..older].to_vec();
            rewritten[changed.index(older)].push(0);
            prop_assert!(check(Hash(merkle_tree_hash(&rewritten))).is_err());
        }
        let shrunk = check_consistency(&proof, (newer + 1, newer_root), (newer, newer_root));
        prop_assert!(shrunk.is_err());
    }
}

#[test]
fn the_empty_tree_has_the_root_of_rfc_6962() {
    assert_eq!(root(0, &Nodes::default()).unwrap().0, merkle_tree_hash(&[]));
    assert!(inclusion_nodes(0, 0).is_err());
}

#[test]
fn a_tree_whose_nodes_are_missing_does_not_grow() {
    let mut growth = Growth::new(1, Nodes::default());
    assert!(growth.append(leaf_hash(b"x")).is_err());
}

mod tiles {
    use super::*;
    use carnet_core::ledger::tile::{Tile, bundle, unbundle};

    #[test]
    fn paths_are_those_of_c2sp() {
        for (path, tile) in [
            (
                "tile/0/000",
                Tile::Hashes {
                    level: 0,
                    index: 0,
                    width: 256,
                },
            ),
            (
                "tile/1/x001/x234/067.p/8",
                Tile::Hashes {
                    level: 1,
                    index: 1_234_067,
                    width: 8,
                },
            ),
            (
                "tile/entries/999.p/1",
                Tile::Entries {
                    index: 999,
                    width: 1,
                },
            ),
        ] {
            assert_eq!(tile.path(), path);
            assert_eq!(Tile::from_path(path), Some(tile));
        }
        for path in [
            "",
            "tile",
            "tile/0",
            "tile/0/0",
            "tile/0/0000",
            "tile/data/000",
            "tile/-1/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/x000/001",
            "tile/0/../001",
            "tile/8/0/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_ledger_has_its_tiles_and_no_wider_ones() {
        let all: Vec<String> = Tile::all(70_000).map(|tile| tile.path()).collect();
        assert_eq!(all.len(), 274 + 274 + 2 + 1);
        assert_eq!(all[273], "tile/entries/273.p/112");
        assert_eq!(
            &all[548..],
            ["tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
        );
        assert!(Tile::all(70_000).all(|tile| tile.is_in(70_000)));
        assert!(
            !Tile::from_path("tile/entries/273.p/113")
                .unwrap()
                .is_in(70_000)
        );
        assert!(!Tile::from_path("tile/1/001.p/18").unwrap().is_in(70_000));
        for path in [
            "tile/9/000.p/1",
            "tile/255/000",
            "tile/0/x072/x057/x594/x037/x927/935",
        ] {
            let tile = Tile::from_path(path).unwrap();
            assert_eq!(tile.nodes(u64::MAX / 2), None, "{path}");
        }
        assert_eq!(Tile::all(0).count(), 0);
        assert_eq!(Tile::all(u64::MAX).take(3).count(), 3);
    }

    proptest! {
        #[test]
        fn entries_are_bundled_and_unbundled_alike(entries in entries()) {
            let bundled = bundle(entries.iter().map(Vec::as_slice));
            prop_assert_eq!(unbundle(&bundled).unwrap(), entries.clone());
            if bundled.len() > 2 && !entries.last().unwrap().is_empty() {
                prop_assert!(unbundle(&bundled[..bundled.len() - 1]).is_err());
            }
        }

        #[test]
        fn arbitrary_paths_and_bytes_do_no_harm(path in ".{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Tile::from_path(&path);
            if let Some(tile) = Tile::from_path(&format!("tile/{path}")) {
                let _ = tile.nodes(70_000);
            }
            let _ = unbundle(&bytes);
        }

        #[test]
        fn a_tiles_nodes_are_in_the_tree(size in 1u64..2_000) {
            let entries: Vec<Vec<u8>> = (0..size).map(|n| n.to_be_bytes().to_vec()).collect();
            let mut growth = Growth::new(0, Nodes::default());
            for entry in &entries {
                growth.append(leaf_hash(entry)).unwrap();
            }
            let kept: HashMap<u64, Hash> = growth.grown().iter().copied().collect();
            for tile in Tile::all(size) {
                for node in tile.nodes(size).unwrap() {
                    prop_assert!(kept.contains_key(&node));
                }
            }
        }
    }
}
