//! A first look at the NBI, below all retries and limits: does it answer, to whom, and what time does it think it is?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::headers::nbi_time;
use super::wire::{RESULTS, Request, Verb};
use super::{Transport, TransportError};

/// What a first look shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The HTTP status of a read under an id that nobody has.
    pub status: u16,
    /// How long the answer took, with the connection.
    pub took: Duration,
    /// How far the NBI's clock is ahead of ours by its `Date`, which is exact to a second.
    pub clock_offset: Option<SignedDuration>,
}

/// Reads the results of a rule that nobody has.
///
/// # Errors
///
/// [`TransportError`] when no answer came.
pub async fn look(
    transport: &impl Transport,
    rule_id: &str,
    now: impl Fn() -> Timestamp,
) -> Result<Look, TransportError> {
    let request = Request {
        verb: Verb::Get,
        path: RESULTS,
        query: vec![("id".to_owned(), rule_id.to_owned())],
        body: None,
        operation: "look",
        timeout: None,
    };
    let (begun, asked_at) = (Instant::now(), now());
    let answer = transport.send(&request).await?;
    let answered_at = now();
    Ok(Look {
        status: answer.status,
        took: begun.elapsed(),
        clock_offset: nbi_time(&answer).map(|time| offset(time, asked_at, answered_at)),
    })
}

/// The answer was dated between question and answer; `Date` leaves the fraction of its second out. What both can explain is no offset.
fn offset(dated: Timestamp, asked_at: Timestamp, answered_at: Timestamp) -> SignedDuration {
    let latest = dated + SignedDuration::from_secs(1);
    if latest < asked_at {
        latest.duration_since(asked_at)
    } else if dated > answered_at {
        dated.duration_since(answered_at)
    } else {
        SignedDuration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_way_and_the_lost_fraction_do_not_explain_is_an_offset() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let (asked, answered) = (at("2026-06-01T12:00:00.9Z"), at("2026-06-01T12:00:02.1Z"));
        for (dated, millis) in [
            ("2026-06-01T12:00:00Z", 0),
            ("2026-06-01T12:00:02Z", 0),
            ("2026-06-01T12:00:05Z", 2_900),
            ("2026-06-01T11:59:50Z", -9_900),
        ] {
            let found = offset(at(dated), asked, answered);
            assert_eq!(found, SignedDuration::from_millis(millis), "{dated}");
        }
    }
}
