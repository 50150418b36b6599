//! How much has to be under way to keep a link busy: what it carries in the time that an answer
//! takes. Neither is known beforehand, and both are seen from the answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PIECE;

/// As many pages are under way at least: while one piece is on its way, the next is asked for.
const LEAST: u64 = 2 * PIECE;
/// And at most: 16 MB, what 1 Gbit/s carries in 130 ms.
pub const MOST: u64 = 4_096;
/// At least so many later, so that the link has something to carry while processors are at something
/// else, for milliseconds. A container that begins to run waits for one page after the other, and
/// each waits for all that is under way: so little is, until as many pages have come as it is likely
/// to need.
const LEAST_LATER: u64 = 8 * PIECE;
/// With so many pages that come, one more is under way at least.
const GROWS_EVERY: u64 = 64;

/// What has been seen of a link.
#[derive(Debug, Default)]
pub struct Link {
    under_way: VecDeque<Request>,
    pages_come: u64,
    /// The shortest time in which an answer came: no other was in its way.
    shortest: Option<Duration>,
    window: u64,
}

#[derive(Debug)]
struct Request {
    at: Instant,
    /// How many pages had come before it.
    pages_come: u64,
}

impl Link {
    /// As many pages should be under way.
    pub fn window(&self) -> u64 {
        let least = (self.pages_come / GROWS_EVERY).clamp(LEAST, LEAST_LATER);
        self.window.clamp(least, MOST)
    }

    /// A request goes.
    pub fn ask(&mut self, now: Instant) {
        self.under_way.push_back(Request {
            at: now,
            pages_come: self.pages_come,
        });
    }

    /// So many pages come: the answer to the oldest request.
    pub fn come(&mut self, now: Instant, pages: u64) {
        self.pages_come += pages;
        let Some(request) = self.under_way.pop_front() else {
            return;
        };
        let took = now.saturating_duration_since(request.at);
        let shortest = self.shortest.map_or(took, |shortest| shortest.min(took));
        self.shortest = Some(shortest);
        let meanwhile = (self.pages_come - request.pages_come) as f64;
        // A link that is not full carries what is under way, and twice that is tried next. Of one
        // that is, half waits in line: little enough for whoever needs a page at once.
        let share = shortest.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE);
        self.window = (2.0 * meanwhile * share) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that a link carries in a second, and the time that a word takes there and back.
    const LINKS: [(f64, Duration); 6] = [
        (30_000.0, Duration::from_micros(200)),
        (30_000.0, Duration::from_millis(5)),
        (30_000.0, Duration::from_millis(80)),
        (300_000.0, Duration::from_micros(200)),
        (300_000.0, Duration::from_millis(10)),
        (3_000.0, Duration::from_millis(200)),
    ];

    /// A container that begins to run does not wait behind many pages.
    #[test]
    fn little_is_under_way_until_some_have_come() {
        let mut link = Link::default();
        let mut windows = vec![link.window()];
        for _ in 0..LEAST_LATER * GROWS_EVERY / PIECE {
            let asked = Instant::now();
            link.ask(asked);
            // A link without a way there and back: nothing keeps it busy but what is there at least.
            link.come(asked, PIECE);
            windows.push(link.window());
        }
        let first = LEAST * GROWS_EVERY / PIECE;
        let (at_first, later) = windows.split_at(first as usize);
        assert!(at_first.iter().all(|window| *window == LEAST));
        assert!(later.is_sorted());
        assert_eq!(later.last(), Some(&LEAST_LATER));
    }

    /// Any link is soon busy, and not much more waits in line than it carries meanwhile.
    #[test]
    fn a_link_is_kept_busy() {
        for (pages_per_s, there_and_back) in LINKS {
            let begin = Instant::now();
            let (mut link, mut now, mut free_at) = (Link::default(), begin, begin);
            let mut answers: VecDeque<Instant> = VecDeque::new();
            let rounds = 20_u32;
            let (mut before, mut carried) = (begin, 0);
            for _ in 0..rounds * 200 {
                while (answers.len() as u64) * PIECE < link.window() {
                    link.ask(now);
                    // It goes once all before it are gone, and then it takes its time.
                    free_at = free_at.max(now + there_and_back)
                        + Duration::from_secs_f64(PIECE as f64 / pages_per_s);
                    answers.push_back(free_at);
                }
                now = answers.pop_front().unwrap();
                link.come(now, PIECE);
                // The first rounds find out how it is.
                if now < begin + there_and_back * rounds {
                    before = now;
                } else {
                    carried += PIECE;
                }
            }
            let rate = carried as f64 / (now - before).as_secs_f64();
            let label = format!("{pages_per_s} pages/s, {there_and_back:?}");
            assert!(rate > 0.9 * pages_per_s, "{label}: {rate}");
            let in_flight = pages_per_s * there_and_back.as_secs_f64();
            let bound = 3.0 * (in_flight + LEAST_LATER as f64);
            assert!(link.window() as f64 <= bound, "{label}: {}", link.window());
        }
    }
}
