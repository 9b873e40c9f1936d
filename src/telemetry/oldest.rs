//! How old the oldest job is, without a database: the oldest of those that were lately put to wait, as old as it was then.
//!
//! A job that waits for its device is in some worker's hands at least every `await_result.max` (5 min by default), so the last ten
//! minutes see each of them. A worker knows only what passed through its own hands; the oldest of the fleet is the maximum over its
//! workers. One age for each minute is kept, whatever the number of jobs. An age does not grow afterwards: whether the job is over
//! meanwhile is not known here, and a job that is over must not look like one that hangs.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Minutes that are remembered: the one that runs and ten whole ones.
const MINUTES: usize = 11;

/// The greatest ages of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Oldest(Mutex<[Minute; MINUTES]>);

/// The greatest age in one minute.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    number: i64,
    age: SignedDuration,
}

impl Oldest {
    /// A job that began at `began` goes on.
    pub(super) fn goes_on(&self, began: Timestamp, now: Timestamp) {
        let number = now.as_second().div_euclid(60);
        let index = usize::try_from(number.rem_euclid(MINUTES as i64)).unwrap_or(0);
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = &mut minutes[index];
        if minute.number != number {
            *minute = Minute {
                number,
                age: SignedDuration::ZERO,
            };
        }
        minute.age = minute.age.max(now.duration_since(began));
    }

    /// The greatest age of the last ten minutes, in seconds; 0 when there was none.
    pub(super) fn age(&self, now: Timestamp) -> f64 {
        let first = now.as_second().div_euclid(60) - (MINUTES as i64 - 1);
        let minutes = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = minutes.iter().filter(|minute| minute.number >= first);
        let oldest = recent.map(|minute| minute.age).max();
        oldest.map_or(0.0, |age| age.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(number: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(10_000 + number)
    }

    #[test]
    fn the_oldest_of_ten_minutes_counts_and_what_is_longer_ago_is_forgotten() {
        let oldest = Oldest::default();
        assert_eq!(oldest.age(minute(0)), 0.0);
        oldest.goes_on(minute(-90), minute(0));
        oldest.goes_on(minute(-5), minute(0));
        oldest.goes_on(minute(-20), minute(3));
        assert_eq!(oldest.age(minute(0)), 90.0 * 60.0);
        // It may be over by now: it is as old as it was.
        assert_eq!(oldest.age(minute(10)), 90.0 * 60.0);
        assert_eq!(oldest.age(minute(11)), 23.0 * 60.0);
        assert_eq!(oldest.age(minute(13)), 23.0 * 60.0);
        assert_eq!(oldest.age(minute(14)), 0.0);
    }

    #[test]
    fn a_minute_that_comes_round_again_begins_anew() {
        let oldest = Oldest::default();
        oldest.goes_on(minute(-90), minute(0));
        oldest.goes_on(minute(10), minute(MINUTES as i64));
        assert_eq!(oldest.age(minute(MINUTES as i64)), 60.0);
    }

    #[test]
    fn a_job_that_begins_later_has_no_age() {
        let oldest = Oldest::default();
        oldest.goes_on(minute(50), minute(0));
        assert_eq!(oldest.age(minute(0)), 0.0);
    }
}
