//! The draw: each candidate once, in an order in which every permutation is equally likely.
//!
//! Nothing is estimated: the random numbers are chosen, and every case that they make is counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::HashMap;

use carnet_core::placement::Draw;
use proptest::prelude::*;

/// A source that gives `numbers` and fails the test when it is asked for more.
fn source(numbers: &[u64]) -> impl FnMut() -> u64 {
    let mut numbers = numbers.iter().copied();
    move || numbers.next().expect("no more numbers are asked for")
}

#[test]
fn every_permutation_comes_of_one_choice_of_numbers() {
    for count in 0..=6_u64 {
        // A number below the count, then one below the count less one, …: as many choices as
        // permutations.
        let permutations = (1..=count).product::<u64>();
        let mut orders: HashMap<Vec<u64>, u32> = HashMap::new();
        let mut chosen = vec![0; usize::try_from(count).unwrap()];
        loop {
            let draw = Draw::new((0..count).collect(), source(&chosen));
            *orders.entry(draw.collect()).or_default() += 1;
            let mut bound = count;
            let carried = chosen.iter_mut().all(|digit| {
                *digit = (*digit + 1) % bound;
                bound -= 1;
                *digit == 0
            });
            if carried {
                break;
            }
        }
        assert_eq!(orders.len() as u64, permutations, "{count} candidates");
        assert!(orders.values().all(|&times| times == 1), "{orders:?}");
    }
}

/// What is drawn first of `bound` candidates by `number`; `None` where it is not accepted.
fn first(bound: u64, number: u64) -> Option<u64> {
    let mut asked = 0;
    let mut draw = Draw::new((0..bound).collect(), || {
        asked += 1;
        if asked == 1 { number } else { 0 }
    });
    let drawn = draw.next().unwrap();
    drop(draw);
    (asked == 1).then_some(drawn)
}

#[test]
fn no_candidate_is_favoured_by_a_remainder() {
    for bound in [1, 2, 3, 5, 6, 7, 10, 16, 17, 255, 256, 1_000] {
        // The accepted numbers are those below some limit, at most 2^64: find it.
        let is_accepted =
            |number: u128| u64::try_from(number).is_ok_and(|number| first(bound, number).is_some());
        let (mut accepted, mut limit) = (0, 1_u128 << 64);
        assert!(is_accepted(accepted), "{bound}");
        while limit - accepted > 1 {
            let middle = accepted.midpoint(limit);
            if is_accepted(middle) {
                accepted = middle;
            } else {
                limit = middle;
            }
        }
        // As many numbers for each candidate, and hardly any drawn in vain.
        let wide = u128::from(bound);
        assert_eq!(limit % wide, 0, "{limit} numbers for {bound} candidates");
        assert!((1 << 64) - limit <= wide, "{limit} numbers for {bound}");
        for start in [0, wide, limit / 2 / wide * wide, limit - wide] {
            let mut drawn: Vec<_> = (start..start + wide)
                .map(|number| first(bound, u64::try_from(number).unwrap()).expect("accepted"))
                .collect();
            drawn.sort_unstable();
            assert!(drawn.into_iter().eq(0..bound), "{bound} from {start}");
        }
        assert!(
            (limit..1 << 64).all(|number| !is_accepted(number)),
            "{bound}"
        );
    }
}

#[test]
fn a_number_that_is_refused_is_replaced_by_the_next() {
    let mut draw = Draw::new(vec!['a', 'b', 'c'], source(&[u64::MAX, u64::MAX, 1, 1, 0]));
    assert_eq!(draw.next(), Some('b'));
    assert_eq!(draw.next(), Some('c'));
    assert_eq!(draw.next(), Some('a'));
    assert_eq!(draw.next(), None);
}

#[test]
fn of_nobody_nobody_is_drawn_and_no_number_is_asked_for() {
    let mut draw = Draw::new(Vec::<u8>::new(), source(&[]));
    assert_eq!(draw.next(), None);
    assert_eq!(draw.next(), None);
}

proptest! {
    #[test]
    fn whatever_the_numbers_each_candidate_is_drawn_once(
        candidates in proptest::collection::vec(any::<u8>(), 0..50),
        numbers in proptest::collection::vec(any::<u64>(), 1..60),
    ) {
        let mut numbers = numbers.into_iter().chain(std::iter::repeat(0));
        let draw = Draw::new(candidates.clone(), || numbers.next().unwrap());
        let mut drawn: Vec<u8> = draw.collect();
        let mut expected = candidates;
        drawn.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(drawn, expected);
    }
}
