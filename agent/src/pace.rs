//! How fast something is sent, where that is limited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leaky_bucket::RateLimiter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How often what may be sent is added to, in milliseconds: what goes at once is small.
const REFILL_MS: u64 = 10;
/// How much is passed on at once, in bytes.
const PIECE: usize = 64 << 10;

/// A rate that several streams keep together, and a count of what they sent.
#[derive(Debug, Clone)]
pub struct Pace {
    limiter: Option<Arc<RateLimiter>>,
    sent: Arc<AtomicU64>,
}

impl Pace {
    /// So many bytes a second; `None`: as fast as it goes.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self::counted(bytes_per_s, Arc::default())
    }

    /// The same, and what goes is added to `sent`, in bytes.
    pub fn counted(bytes_per_s: Option<u64>, sent: Arc<AtomicU64>) -> Self {
        let limiter = bytes_per_s.map(|rate| {
            let rate = usize::try_from(rate).unwrap_or(usize::MAX);
            let refill = (rate / 100).max(1);
            Arc::new(
                RateLimiter::builder()
                    .interval(Duration::from_millis(REFILL_MS))
                    .refill(refill)
                    .max(refill)
                    .initial(0)
                    .fair(true)
                    .build(),
            )
        });
        Self { limiter, sent }
    }

    /// Waits until so many bytes may go.
    pub async fn wait(&self, bytes: usize) {
        if let Some(limiter) = &self.limiter {
            limiter.acquire(bytes).await;
        }
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Passes on what `from` says, and its end.
    ///
    /// # Errors
    /// Where either fails.
    pub async fn copy<R, W>(&self, from: &mut R, to: &mut W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; PIECE];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            self.wait(count).await;
            to.write_all(buffer.get(..count).unwrap_or_default())
                .await?;
            to.flush().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const RATE: u64 = 1_000_000;
    const BYTES: usize = 200_000;
    /// That it takes at least so long at that rate does not depend on the machine.
    const AT_LEAST: Duration = Duration::from_millis(150);

    async fn pass(pace: &Pace) {
        let data = vec![7; BYTES];
        let mut received = Vec::new();
        pace.copy(&mut data.as_slice(), &mut received)
            .await
            .unwrap();
        assert_eq!(received, data);
    }

    #[tokio::test]
    async fn what_is_limited_goes_no_faster_than_that() {
        let begun = Instant::now();
        pass(&Pace::new(Some(RATE))).await;
        assert!(begun.elapsed() >= AT_LEAST, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn two_streams_keep_one_rate_together() {
        let pace = Pace::new(Some(RATE));
        let begun = Instant::now();
        tokio::join!(pass(&pace), pass(&pace));
        assert!(begun.elapsed() >= 2 * AT_LEAST, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_is_not_limited_is_passed_on_whole_and_counted() {
        let sent = Arc::default();
        pass(&Pace::counted(None, Arc::clone(&sent))).await;
        assert_eq!(sent.load(Ordering::Relaxed), BYTES as u64);
    }
}
