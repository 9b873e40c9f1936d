//! When to come back: delays from the attempt, the policy, the jitter and the remaining time. Pure arithmetic.

use jiff::{SignedDuration, Timestamp};

/// Growing delays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first delay; zero: at once, and the later ones grow from one second.
    pub initial: SignedDuration,
    /// Each delay is this many times the one before; at least 1.
    pub multiplier: f64,
    /// No delay is longer.
    pub max: SignedDuration,
}

impl Backoff {
    /// The delay before try `n + 1` (`n` from 0), spread over ±10 % by `jitter` in `0.0..1.0`.
    ///
    /// A fleet that started in one minute would otherwise poll in one second, for hours. The delay ladder rounds by up to 14 %
    /// afterwards, so a finer spread would be lost.
    #[must_use]
    pub fn delay(&self, n: u32, jitter: f64) -> SignedDuration {
        let exponent = i32::try_from(n.min(1_000)).unwrap_or(1_000);
        let initial = if n == 0 {
            self.initial
        } else {
            self.initial.max(SignedDuration::from_secs(1))
        };
        let plain = initial.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let bounded = plain.min(self.max.as_secs_f64());
        let spread = 0.9 + 0.2 * jitter.clamp(0.0, 1.0);
        SignedDuration::try_from_secs_f64(bounded * spread).unwrap_or(self.max)
    }
}

/// Failed tries of the current stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retries {
    /// Failed tries in a row, of every kind.
    pub failures: u32,
    /// Unintelligible answers among them.
    pub unintelligible: u32,
    /// When the first of them was.
    pub since: Option<Timestamp>,
}

impl Retries {
    /// One more failed try.
    #[must_use]
    pub fn failed(self, now: Timestamp) -> Self {
        Self {
            failures: self.failures.saturating_add(1),
            since: self.since.or(Some(now)),
            ..self
        }
    }

    /// One more answer that nobody could understand.
    #[must_use]
    pub fn unintelligible(self, now: Timestamp) -> Self {
        let failed = self.failed(now);
        Self {
            unintelligible: failed.unintelligible.saturating_add(1),
            ..failed
        }
    }

    /// Whether the tries have lasted `max_elapsed` or longer.
    #[must_use]
    pub fn are_used_up(&self, now: Timestamp, max_elapsed: SignedDuration) -> bool {
        self.since
            .is_some_and(|since| now.duration_since(since) >= max_elapsed)
    }
}
