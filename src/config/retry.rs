//! `[retry]` and `[await_result]`: growing delays.

use jiff::SignedDuration;

use super::reader::Reader;
use crate::job::retry::Backoff;

/// Durable retries of failed NBI calls.
#[derive(Debug, Clone)]
pub struct Retry {
    /// The delays.
    pub backoff: Backoff,
    /// A stage whose calls have failed for this long gives up.
    pub max_elapsed: SignedDuration,
    /// Unintelligible answers in a row after which a stage gives up.
    pub unintelligible_max: u32,
}

/// Polling intervals of the result storage.
#[derive(Debug, Clone)]
pub struct AwaitResult {
    /// The intervals.
    pub backoff: Backoff,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

impl Retry {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let retry = Self {
            backoff: backoff(
                reader,
                SECOND,
                "retry.initial",
                "retry.multiplier",
                "retry.max",
            ),
            max_elapsed: reader.duration("retry.max_elapsed", SECOND..=DAY * 365),
            unintelligible_max: reader.number("retry.unintelligible_max", 1..=1_000),
        };
        reader.check_order(
            ("retry.initial", retry.backoff.initial),
            ("retry.max_elapsed", retry.max_elapsed),
        );
        retry
    }
}

impl AwaitResult {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let initial = "await_result.initial";
        let awaited = Self {
            backoff: backoff(
                reader,
                SignedDuration::ZERO,
                initial,
                "await_result.multiplier",
                "await_result.max",
            ),
        };
        // The delay queues know whole seconds: a part of one would silently become one.
        if !awaited.backoff.initial.is_zero() && awaited.backoff.initial < SECOND {
            reader.fault(
                initial,
                "is out of range",
                "give 1s to 1d, or 0s for at once",
            );
        }
        awaited
    }
}

fn backoff(
    reader: &mut Reader,
    least: SignedDuration,
    initial: &'static str,
    multiplier: &'static str,
    max: &'static str,
) -> Backoff {
    let backoff = Backoff {
        initial: reader.duration(initial, least..=DAY),
        multiplier: reader.number(multiplier, 1.0..=10.0),
        max: reader.duration(max, SECOND..=DAY),
    };
    reader.check_order((initial, backoff.initial), (max, backoff.max));
    backoff
}
