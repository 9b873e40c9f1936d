//! Maintenance windows: when devices may be started, by the wall clock of a place.
//!
//! A window is local time from `start` to `end`; one whose end is not after its start goes over midnight and belongs to the day on which
//! it begins. Where clocks change, a window opens late and closes early rather than the reverse: at no moment of an open window does the
//! wall clock stand outside of it.
//!
//! - Clocks go forward: a start that does not exist that day moves behind the gap, an end that does not exist moves before it; a window
//!   that lies in the gap as a whole does not exist that day.
//! - Clocks go back: a start that comes twice counts the second time, an end that comes twice the first time; a window that comes twice
//!   as a whole opens the first time.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Days looked ahead for the next window: more than a week and a day on which it does not exist.
const DAYS_AHEAD: i32 = 16;

/// From when to when devices may be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// When it opens.
    pub start: Time,
    /// When it closes; never equal to `start`.
    pub end: Time,
    /// Whose clock.
    pub time_zone: TimeZone,
    /// The days on which it opens; empty: every day.
    pub days: Vec<Weekday>,
}

/// Whether a window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is, until then.
    Open {
        /// When it closes.
        until: Timestamp,
    },
    /// It is not.
    Closed {
        /// When it opens next; `None` only at the end of the calendar.
        opens_at: Option<Timestamp>,
    },
}

impl Window {
    /// Whether it is open at that time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Opening {
        let today = self.time_zone.to_datetime(now).date();
        // Yesterday's may go over midnight.
        for ahead in -1..=DAYS_AHEAD {
            let Ok(date) = today.checked_add(ahead.days()) else {
                continue;
            };
            match self.on(date) {
                Some((_, closes)) if closes <= now => {}
                Some((opens, until)) if opens <= now => return Opening::Open { until },
                Some((opens, _)) => {
                    return Opening::Closed {
                        opens_at: Some(opens),
                    };
                }
                None => {}
            }
        }
        Opening::Closed { opens_at: None }
    }

    /// The window that begins on this day, if there is one.
    fn on(&self, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&date.weekday()) {
            return None;
        }
        let last_day = if self.end <= self.start {
            date.tomorrow().ok()?
        } else {
            date
        };
        let start = self
            .time_zone
            .to_ambiguous_timestamp(date.to_datetime(self.start));
        let closes = self
            .time_zone
            .to_ambiguous_timestamp(last_day.to_datetime(self.end))
            .earlier()
            .ok()?;
        let comes_twice = matches!(start.offset(), AmbiguousOffset::Fold { .. });
        let second = start.later().ok()?;
        let opens = if second >= closes && comes_twice {
            start.earlier().ok()?
        } else {
            second
        };
        (opens < closes).then_some((opens, closes))
    }
}
