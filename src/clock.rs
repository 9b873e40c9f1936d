//! Where the time comes from: the system, or tokio's clock, which tests can stop and turn.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time. Handed to every part whose behaviour depends on it, so that a test can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's wall clock.
#[must_use]
pub fn system() -> Clock {
    Arc::new(Timestamp::now)
}

/// `start`, and from then on as tokio's time passes; under a paused runtime it passes as fast as nothing is to be done.
#[must_use]
pub fn from_tokio(start: Timestamp) -> Clock {
    let origin = Instant::now();
    Arc::new(move || {
        let passed = SignedDuration::try_from(origin.elapsed()).unwrap_or(SignedDuration::MAX);
        start.checked_add(passed).unwrap_or(Timestamp::MAX)
    })
}

/// The time from `now` until `then`, zero if it is past.
#[must_use]
pub fn until(now: Timestamp, then: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(then.duration_since(now)).unwrap_or_default()
}
