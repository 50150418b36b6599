//! Which candidate's turn it is (paper, section 3.2: edges are drawn at random until one is
//! permitted or none is left).

/// Draws from candidates at random, each once, in an order in which every permutation is equally
/// likely.
///
/// `random` returns uniformly distributed numbers; `core` makes none itself.
#[derive(Debug)]
pub struct Draw<T, R> {
    left: Vec<T>,
    random: R,
}

impl<T, R: FnMut() -> u64> Draw<T, R> {
    pub fn new(candidates: Vec<T>, random: R) -> Self {
        Self {
            left: candidates,
            random,
        }
    }

    /// A uniformly distributed number below `bound` (which is not zero), by rejection: no
    /// candidate is favoured by a remainder.
    fn below(&mut self, bound: u64) -> u64 {
        let rejected_from = u64::MAX - u64::MAX % bound;
        loop {
            let number = (self.random)();
            if number < rejected_from {
                return number % bound;
            }
        }
    }
}

impl<T, R: FnMut() -> u64> Iterator for Draw<T, R> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let bound = self.left.len() as u64;
        if bound == 0 {
            return None;
        }
        let drawn = usize::try_from(self.below(bound)).unwrap_or(0);
        Some(self.left.swap_remove(drawn))
    }
}
