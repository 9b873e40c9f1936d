//! Which delay queue for how long: pure arithmetic.
//!
//! Fifteen queues hold messages for 1 s, 2 s, 4 s … 16,384 s. A job that waits goes to the longest one that is not too long; when it
//! comes back early, it goes to a shorter one for the rest. So any time can be waited for, and each hop costs one confirmed publish.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What is due within this is run at once: the shortest queue would be later.
pub const DUE_WITHIN: SignedDuration = SignedDuration::from_millis(500);

/// One delay queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rung(u8);

impl Rung {
    /// All of them, shortest first.
    pub const ALL: [Self; 15] = {
        let mut all = [Self(0); 15];
        let mut index = 0;
        while index < 15 {
            all[index as usize] = Self(index);
            index += 1;
        }
        all
    };

    /// Where continuations of a newer release wait for a newer worker: 32 s.
    pub const NEWER_VERSION: Self = Self(5);

    /// Seconds that a message stays.
    #[must_use]
    pub fn seconds(self) -> u64 {
        1 << self.0
    }

    /// The queue's name; it holds the time to live, so that a changed ladder makes new queues.
    #[must_use]
    pub fn queue(self, prefix: &str) -> String {
        format!("{prefix}.delay.{}s", self.seconds())
    }
}

/// Where a job goes that is due at `due`; `None`: it is due, or nearly.
#[must_use]
pub fn rung(due: Timestamp, now: Timestamp) -> Option<Rung> {
    let remaining = due.duration_since(now);
    if remaining <= DUE_WITHIN {
        return None;
    }
    // A hop arrives some milliseconds late; without rounding up, 15.99 s left would take four hops instead of one.
    let seconds = u64::try_from((remaining + DUE_WITHIN).as_secs())
        .unwrap_or(0)
        .max(1);
    let exponent = seconds.ilog2().min(14);
    u8::try_from(exponent).ok().map(Rung)
}

/// A delay that is ours to choose, cut to at most two hops: whole seconds with at most two bits set, longer than asked by less than half a second.
///
/// The error is at most a quarter and inside the jitter of polls and retries; apply it after the jitter. A time given by a user
/// is not rounded. Delays under a second become one second.
#[must_use]
pub fn round_delay(delay: Duration) -> Duration {
    // Asked for a moment ago, 16 s have become 15.99 s: cutting that to 15 s would make two hops and 12 s of it.
    let seconds = delay
        .saturating_add(Duration::from_millis(500))
        .as_secs()
        .max(1);
    let high = 1_u64 << seconds.ilog2();
    let rest = seconds - high;
    let low = if rest == 0 { 0 } else { 1 << rest.ilog2() };
    Duration::from_secs(high + low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_of(remaining: SignedDuration) -> Option<u64> {
        let now = Timestamp::UNIX_EPOCH;
        rung(now + remaining, now).map(Rung::seconds)
    }

    #[test]
    fn the_longest_queue_that_is_not_too_long_is_taken() {
        for (millis, expected) in [
            (-5_000, None),
            (0, None),
            (500, None),
            (501, Some(1)),
            (999, Some(1)),
            (1_499, Some(1)),
            (1_999, Some(2)),
            (15_990, Some(16)),
            (2_000, Some(2)),
            (300_000, Some(256)),
            (44_000, Some(32)),
            (16_384_000, Some(16_384)),
            (1_000_000_000, Some(16_384)),
        ] {
            assert_eq!(
                seconds_of(SignedDuration::from_millis(millis)),
                expected,
                "{millis} ms"
            );
        }
    }

    #[test]
    fn any_time_is_reached_in_as_many_hops_as_bits_are_set() {
        for total in [1_u64, 3, 300, 12_345, 16_384, 40_000] {
            let (mut left, mut hops) = (total, 0);
            while let Some(seconds) =
                seconds_of(SignedDuration::from_secs(i64::try_from(left).unwrap()))
            {
                assert!(seconds <= left);
                left -= seconds;
                hops += 1;
            }
            assert_eq!(left, 0);
            assert!(hops <= total.count_ones() + 2, "{total}: {hops} hops");
        }
    }

    #[test]
    fn a_chosen_delay_takes_at_most_two_hops_and_is_never_longer() {
        for seconds in 1..5_000 {
            let rounded = round_delay(Duration::from_secs(seconds)).as_secs();
            assert!(
                rounded <= seconds && rounded * 4 + 4 > seconds * 3,
                "{seconds} became {rounded}"
            );
            assert!(rounded.count_ones() <= 2);
        }
        assert_eq!(
            round_delay(Duration::from_millis(20)),
            Duration::from_secs(1)
        );
        assert_eq!(
            round_delay(Duration::from_millis(15_990)),
            Duration::from_secs(16)
        );
        assert_eq!(
            round_delay(Duration::from_secs(300)),
            Duration::from_secs(288)
        );
    }

    #[test]
    fn names_hold_the_time_to_live() {
        let names: Vec<_> = Rung::ALL.iter().map(|rung| rung.queue("upgrade")).collect();
        assert_eq!(names.first().map(String::as_str), Some("upgrade.delay.1s"));
        assert_eq!(
            names.last().map(String::as_str),
            Some("upgrade.delay.16384s")
        );
        assert_eq!(Rung::NEWER_VERSION.seconds(), 32);
    }
}
