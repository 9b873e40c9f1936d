//! Which of many equal lines about a lasting trouble are worth writing: the first for each reason, then a reminder now and then.
//!
//! A broker that is away for an hour is tried hundreds of times; a log that repeats each of them hides what else happens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about a trouble of which nothing new is known.
pub(super) const REMINDER: Duration = Duration::from_secs(300);

/// The most reasons of one trouble that are told apart; what comes after them waits for the next reminder.
const REASONS_MAX: usize = 8;

/// One thing that can be in trouble.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<Lasting>>);

#[derive(Debug)]
struct Lasting {
    since: Instant,
    said: Instant,
    times: u64,
    reasons: Vec<String>,
}

/// A trouble so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SoFar {
    /// How often it showed.
    pub(super) times: u64,
    /// Since it first showed.
    pub(super) lasts: Duration,
}

impl Trouble {
    /// It showed (again). Something is worth a line if the reason is a new one, or if the last line is long ago.
    pub(super) fn shows(&self, reason: &str, now: Instant) -> Option<SoFar> {
        let mut lasting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = lasting.get_or_insert_with(|| Lasting {
            since: now,
            said: now,
            times: 0,
            reasons: Vec::new(),
        });
        lasting.times += 1;
        let is_new = lasting.reasons.len() < REASONS_MAX
            && !lasting.reasons.iter().any(|known| known == reason);
        if is_new {
            lasting.reasons.push(reason.to_owned());
        }
        let is_due = now.saturating_duration_since(lasting.said) >= REMINDER;
        if !is_new && !is_due {
            return None;
        }
        lasting.said = now;
        Some(lasting.so_far(now))
    }

    /// It is over; `None` if there was none.
    pub(super) fn is_over(&self, now: Instant) -> Option<SoFar> {
        let lasting = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        lasting.map(|lasting| lasting.so_far(now))
    }
}

impl Lasting {
    fn so_far(&self, now: Instant) -> SoFar {
        SoFar {
            times: self.times,
            lasts: now.saturating_duration_since(self.since),
        }
    }
}

/// In whole seconds, as a field.
impl SoFar {
    pub(super) fn seconds(self) -> u64 {
        self.lasts.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_one_trouble_is_a_line_and_a_few_reminders() {
        let (trouble, begun) = (Trouble::default(), Instant::now());
        let lines = (0..720_u64)
            .filter(|number| {
                let now = begun + Duration::from_secs(5 * number);
                trouble.shows("refused", now).is_some()
            })
            .count();
        assert_eq!(lines, 12);
        let end = begun + Duration::from_secs(3_600);
        let over = trouble.is_over(end);
        assert_eq!(
            over,
            Some(SoFar {
                times: 720,
                lasts: Duration::from_secs(3_600)
            })
        );
        assert_eq!(trouble.is_over(end), None);
        assert!(trouble.shows("refused", end).is_some());
    }

    #[test]
    fn a_new_reason_is_said_at_once_and_two_that_alternate_are_not_repeated() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        let said: Vec<bool> = ["a", "b", "a", "b", "c", "a"]
            .iter()
            .map(|reason| trouble.shows(reason, now).is_some())
            .collect();
        assert_eq!(said, [true, true, false, false, true, false]);
        let lines = (0..1_000)
            .filter(|number| trouble.shows(&number.to_string(), now).is_some())
            .count();
        assert_eq!(lines, REASONS_MAX - 3);
    }
}
