//! How much a new consumer takes: little at first, more with each delivery that it acknowledges.
//!
//! A message that kills its worker takes a delivery off everything that this worker has in hand, up to the queue's delivery limit. What
//! is taken bit by bit is mostly over when that happens, so that only the message itself reaches the limit.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// After so many acknowledgements, so much more at a time: four times as many with each round trip.
const WIDTHS: [(u32, u16); 4] = [(0, 1), (1, 4), (4, 16), (16, 64)];
/// Acknowledgements after which there is no limit any more.
const OPEN_AT: u32 = 64;
/// The same after this time, so that slow deliveries hold nothing up; what kills a worker does so at once.
const OPEN_AFTER: Duration = Duration::from_secs(2);

/// The limit of one consumer in one generation.
#[derive(Debug)]
pub(super) struct Opening {
    since: Instant,
    acknowledged: AtomicU32,
    widened: Notify,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            acknowledged: AtomicU32::new(0),
            widened: Notify::new(),
        }
    }
}

impl Opening {
    /// Unsettled deliveries at most, now.
    pub(super) fn limit(&self) -> u16 {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        if acknowledged >= OPEN_AT || self.since.elapsed() >= OPEN_AFTER {
            return u16::MAX;
        }
        WIDTHS
            .iter()
            .rev()
            .find(|(at, _)| acknowledged >= *at)
            .map_or(1, |(_, width)| *width)
    }

    /// One more delivery was acknowledged.
    pub(super) fn acknowledged(&self) {
        if self.acknowledged.load(Ordering::Relaxed) >= OPEN_AT {
            return;
        }
        let now = self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
        if now == OPEN_AT || WIDTHS.iter().any(|(at, _)| *at == now) {
            self.widened.notify_one();
        }
    }

    /// Waits until the limit is another one; forever, once there is none.
    pub(super) async fn widens(&self) {
        if self.limit() == u16::MAX {
            return std::future::pending().await;
        }
        tokio::select! {
            () = self.widened.notified() => {}
            () = tokio::time::sleep_until(self.since + OPEN_AFTER) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn widens_with_acknowledgements_and_with_time() {
        let opening = Opening::default();
        let mut limits = vec![opening.limit()];
        for _ in 0..OPEN_AT {
            opening.acknowledged();
            if limits.last() != Some(&opening.limit()) {
                opening.widens().await;
                limits.push(opening.limit());
            }
        }
        assert_eq!(limits, [1, 4, 16, 64, u16::MAX]);
        let opening = Opening::default();
        opening.widens().await;
        assert_eq!(opening.limit(), u16::MAX);
        assert_eq!(opening.since.elapsed(), OPEN_AFTER);
    }
}
