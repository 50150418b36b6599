use super::Strategy;

/// What a container stands still for whatever its memory: until it is frozen and dumped, made
/// anew, and let run. In milliseconds; measured, see `carnet-bench handover`.
const LEAST_DOWNTIME_MS: u64 = 150;

/// Of that, what comes after all has been sent: making its processes, the commit, letting it run.
const AFTER_SENDING_MS: u64 = 80;

/// With post-copy memory is looked through while the container stands still: so many bytes in a
/// millisecond.
const LOOKED_THROUGH_BYTES_PER_MS: u64 = 10 << 20;

/// The rate that is reckoned with where none could be measured, in bytes a second: 1 Gbit/s.
const UNKNOWN_BYTES_PER_S: u64 = 125_000_000;

/// How a move is to be carried out, as far as whoever asked for it said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How memory goes over; `None`: the best way.
    pub strategy: Option<Strategy>,
    /// For how long the container may stand still, in milliseconds: else the move is given up.
    pub max_downtime_ms: Option<u64>,
    /// How much of the link it may take, in bytes a second.
    pub bandwidth_bytes_per_s: Option<u64>,
}

/// How long a container is expected to stand still, in milliseconds. `memory_bytes`: what of its
/// memory is not at the target yet. `bytes_per_s`: the rate at which something was sent just before;
/// `None` where none is known.
///
/// `None` where nobody can tell: how long a container takes to shut down and to start is its own.
pub fn expected_downtime_ms(
    strategy: Strategy,
    memory_bytes: u64,
    bytes_per_s: Option<u64>,
) -> Option<u64> {
    let memory_ms = match strategy {
        Strategy::StopAndCopy | Strategy::PreCopy => {
            let rate = bytes_per_s.unwrap_or(UNKNOWN_BYTES_PER_S).max(1);
            let ms = u128::from(memory_bytes) * 1_000 / u128::from(rate);
            u64::try_from(ms).unwrap_or(u64::MAX)
        }
        Strategy::PostCopy => memory_bytes / LOOKED_THROUGH_BYTES_PER_MS,
        Strategy::Cold => return None,
    };
    Some(LEAST_DOWNTIME_MS.saturating_add(memory_ms))
}

/// Until when all must have been sent, in milliseconds after the freeze, for a container to stand
/// still for no longer than `max_downtime_ms`.
pub fn sent_within_ms(max_downtime_ms: u64) -> u64 {
    max_downtime_ms.saturating_sub(AFTER_SENDING_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_goes_over_while_it_stands_still_costs_what_the_link_takes() {
        let expected = |strategy, megabytes: u64, rate| {
            expected_downtime_ms(strategy, megabytes * 1_000_000, rate).unwrap()
        };
        let stop = |megabytes, rate| expected(Strategy::StopAndCopy, megabytes, rate);
        assert_eq!(stop(0, Some(1)), LEAST_DOWNTIME_MS);
        assert_eq!(stop(100, Some(100_000_000)), LEAST_DOWNTIME_MS + 1_000);
        assert_eq!(stop(125, None), LEAST_DOWNTIME_MS + 1_000);
        // Whatever the rate.
        let post_copy = |rate| expected(Strategy::PostCopy, 1_000, rate);
        assert_eq!(post_copy(Some(1_000)), post_copy(None));
        assert!(post_copy(None) < LEAST_DOWNTIME_MS + 200);
    }

    #[test]
    fn no_amount_of_memory_and_no_rate_is_too_much_to_reckon_with() {
        for rate in [None, Some(0), Some(1), Some(u64::MAX)] {
            for strategy in [Strategy::StopAndCopy, Strategy::PostCopy, Strategy::PreCopy] {
                let expected = expected_downtime_ms(strategy, u64::MAX, rate);
                assert!(expected.is_some_and(|expected| expected >= LEAST_DOWNTIME_MS));
            }
        }
        assert_eq!(sent_within_ms(0), 0);
    }

    #[test]
    fn nobody_can_tell_how_long_a_container_takes_to_shut_down_and_start() {
        assert_eq!(expected_downtime_ms(Strategy::Cold, 0, Some(1)), None);
    }
}
