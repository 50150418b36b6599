use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Address;
use crate::secret;

/// How many names or addresses are remembered at a time.
const REMEMBERED: usize = 10_000;

/// What is asked for too often, and how often that is.
pub(super) struct Throttles {
    /// Log-ins to one name, whether there is such an account or not.
    pub names: Throttle,
    /// Log-ins from one address.
    pub addresses: Throttle,
    /// Accounts made from one address.
    pub registrations: Throttle,
}

impl Default for Throttles {
    fn default() -> Self {
        let quarter = Duration::from_secs(15 * 60);
        Self {
            names: Throttle::new(10, quarter),
            addresses: Throttle::new(50, quarter),
            registrations: Throttle::new(20, Duration::from_secs(3600)),
        }
    }
}

/// Lets `limit` attempts through in `window`, for each key.
pub(super) struct Throttle {
    limit: u32,
    window: Duration,
    /// By the hash of the key: what somebody types has no bound.
    counted: Mutex<HashMap<Vec<u8>, Counted>>,
}

#[derive(Clone, Copy)]
struct Counted {
    attempts: u32,
    since: Instant,
}

impl Throttle {
    fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit,
            window,
            counted: Mutex::default(),
        }
    }

    /// Counts an attempt, before it is made: many at the same time are counted too.
    ///
    /// # Errors
    /// How long to wait, where there were too many.
    pub(super) fn attempt(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let key = secret::hash(key);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= REMEMBERED && !counted.contains_key(&key) {
            self.make_room(&mut counted, now);
        }
        let of_key = counted.entry(key).or_insert(Counted {
            attempts: 0,
            since: now,
        });
        let passed = now.saturating_duration_since(of_key.since);
        if passed >= self.window {
            *of_key = Counted {
                attempts: 0,
                since: now,
            };
        } else if of_key.attempts >= self.limit {
            return Err(self.window.saturating_sub(passed));
        }
        of_key.attempts += 1;
        Ok(())
    }

    /// Takes back the attempt that succeeded.
    pub(super) fn succeeded(&self, key: &str) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_key) = counted.get_mut(&secret::hash(key)) {
            of_key.attempts = of_key.attempts.saturating_sub(1);
        }
    }

    /// Forgets what is over, or else the one with the fewest attempts.
    fn make_room(&self, counted: &mut HashMap<Vec<u8>, Counted>, now: Instant) {
        counted.retain(|_, of_key| now.saturating_duration_since(of_key.since) < self.window);
        if counted.len() >= REMEMBERED
            && let Some(fewest) = counted
                .iter()
                .min_by_key(|(_, of_key)| of_key.attempts)
                .map(|(key, _)| key.clone())
        {
            counted.remove(&fewest);
        }
    }
}

/// Whom an address is counted as: who has one of IPv6 has the 2⁶⁴ beside it too.
pub(super) fn of_address(from: Option<Address>) -> String {
    match from.map(|from| from.0.ip()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_attempts_pass_in_a_window_and_no_more() {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(throttle.attempt("ann", at(second)), Ok(()));
        }
        assert_eq!(
            throttle.attempt("ann", at(10)),
            Err(Duration::from_secs(50))
        );
        assert_eq!(throttle.attempt("bob", at(10)), Ok(()), "each has its own");
        assert_eq!(throttle.attempt("ann", at(60)), Ok(()), "it is over");
    }

    #[test]
    fn what_succeeds_is_not_counted() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(throttle.attempt("ann", now), Ok(()));
            throttle.succeeded("ann");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_who_tried_most_is_in_it() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let now = Instant::now();
        for _ in 0..2 {
            assert_eq!(throttle.attempt("ann", now), Ok(()));
        }
        for name in 0..=REMEMBERED {
            assert_eq!(throttle.attempt(&name.to_string(), now), Ok(()));
        }
        assert_eq!(throttle.counted.lock().unwrap().len(), REMEMBERED);
        assert!(throttle.attempt("ann", now).is_err());
    }

    #[test]
    fn an_address_stands_for_those_that_its_holder_has() {
        let of = |text: &str| of_address(Some(Address(text.parse().unwrap())));
        assert_eq!(of("192.0.2.7:1"), "192.0.2.7");
        assert_eq!(of("[::ffff:192.0.2.7]:1"), "192.0.2.7");
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
    }
}
