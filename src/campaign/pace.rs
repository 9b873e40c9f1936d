//! The pace: starts per minute over all workers, worked out from the history of releases alone.
//!
//! A generic cell rate algorithm: each start moves the time of the next one by the rate's interval, and time that passed unused is
//! worth at most `CREDIT` of starts. So any span of time holds at most its share of starts and half a second's worth more, whatever was
//! asked in between, and a coordinator that takes over gets the same answer as the one before: both fold the same releases. Should their
//! clocks differ, a change of coordinator is worth no more than that credit either, as a time in the future counts for one interval.

use jiff::{SignedDuration, Timestamp};

/// What unused time is worth at most. Half a second's worth leaves the other half of the promise (never more than a second's worth above
/// the pace) to a batch whose publishing was delayed.
const CREDIT: SignedDuration = SignedDuration::from_millis(500);

/// When the next start is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pacer {
    next: Option<Timestamp>,
}

impl Pacer {
    /// How many may start now, at `rate` starts a minute.
    #[must_use]
    pub fn allowed(&self, rate: f64, now: Timestamp) -> u32 {
        let interval = interval(rate);
        let due = self.due(interval, now);
        if due > now {
            return 0;
        }
        let passed = now.duration_since(due).as_nanos() / interval.as_nanos().max(1);
        u32::try_from(passed).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// When the next may start.
    #[must_use]
    pub fn next_at(&self, rate: f64, now: Timestamp) -> Timestamp {
        self.due(interval(rate), now).max(now)
    }

    /// Notes that so many started at that time.
    pub fn took(&mut self, count: usize, rate: f64, at: Timestamp) {
        let interval = interval(rate);
        let times = i32::try_from(count).unwrap_or(i32::MAX);
        let due = self.due(interval, at);
        self.next = Some(
            due.checked_add(interval.checked_mul(times).unwrap_or(SignedDuration::MAX))
                .unwrap_or(Timestamp::MAX),
        );
    }

    /// When the next is due: not longer ago than the credit, and no more than an interval ahead.
    fn due(&self, interval: SignedDuration, now: Timestamp) -> Timestamp {
        let earliest = now
            .checked_sub((CREDIT - interval).max(SignedDuration::ZERO))
            .unwrap_or(now);
        let latest = now.checked_add(interval).unwrap_or(now);
        self.next.unwrap_or(earliest).clamp(earliest, latest)
    }
}

/// The time between two starts.
fn interval(rate: f64) -> SignedDuration {
    let seconds = 60.0 / rate.clamp(0.001, 60_000_000.0);
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::from_secs(60))
}
