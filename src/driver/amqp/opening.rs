//! How much a new consumer takes: one delivery at a time until it has dealt with some, then all that it may.
//!
//! A message that kills its worker takes a delivery off everything that this worker has in hand, up to the queue's delivery limit. One at
//! a time, only the message itself reaches the limit: what stands before it in the queue is dealt with, and what stands behind it waits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Deliveries that are acknowledged one at a time.
const OPENS_AT: u32 = 16;
/// It opens then at the latest, so that slow deliveries hold nothing up; what kills a worker does so at once.
const OPENS_AFTER: Duration = Duration::from_secs(2);

/// The beginning of one consumer in one generation.
#[derive(Debug)]
pub(super) struct Opening {
    since: Instant,
    acknowledged: AtomicU32,
    enough: Notify,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            acknowledged: AtomicU32::new(0),
            enough: Notify::new(),
        }
    }
}

impl Opening {
    /// Whether more than one may be taken at a time.
    pub(super) fn is_over(&self) -> bool {
        self.acknowledged.load(Ordering::Relaxed) >= OPENS_AT || self.since.elapsed() >= OPENS_AFTER
    }

    /// One more delivery was acknowledged.
    pub(super) fn acknowledged(&self) {
        if self.acknowledged.load(Ordering::Relaxed) < OPENS_AT
            && self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == OPENS_AT
        {
            self.enough.notify_one();
        }
    }

    /// Waits until more than one may be taken at a time. For one waiter.
    pub(super) async fn over(&self) {
        if self.is_over() {
            return;
        }
        tokio::select! {
            () = self.enough.notified() => {}
            () = tokio::time::sleep_until(self.since + OPENS_AFTER) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_over_after_some_acknowledgements_or_some_time() {
        let opening = Opening::default();
        for _ in 0..OPENS_AT {
            assert!(!opening.is_over());
            opening.acknowledged();
        }
        opening.over().await;
        assert_eq!(opening.since.elapsed(), Duration::ZERO);
        let opening = Opening::default();
        opening.over().await;
        assert!(opening.is_over());
        assert_eq!(opening.since.elapsed(), OPENS_AFTER);
    }
}
