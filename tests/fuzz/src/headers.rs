//! Any headers and properties, structure-aware: `Retry-After` and `Date` of an answer; content type, timestamp, correlation and trace
//! context of a message.
//!
//! Never a panic; a pause is between nothing and an hour; what is carried on is bounded, and so are events about rejected requests.

use arbitrary::{Arbitrary, Unstructured};
use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::{CpeId, JobEvent, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId};
use nbi_upgrade::message::headers::truncate;
use nbi_upgrade::message::{Incoming, unix_seconds};
use nbi_upgrade::nbi::RawAnswer;
use nbi_upgrade::nbi::answer::judge;
use serde_json::Value;

use super::{Accepted, EVENT_MAX, check_event, check_round_trip, codec, is_one_line};

const REQUEST: &[u8] = br#"{"job_id":"j","cpe_id":"c","firmware_url":"https://files.example/fw"}"#;
const NO_ROW: &[u8] = br#"{"code":404,"message":"Not found","details":""}"#;

/// What an answer or a message carries beside its body.
#[derive(Debug, Arbitrary)]
struct Carried<'a> {
    retry_after: Option<&'a str>,
    date: Option<&'a str>,
    location: Option<&'a str>,
    now: i64,
    content_type: Option<&'a str>,
    timestamp: Option<u64>,
    correlation_id: Option<&'a str>,
    reply_to: Option<&'a str>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
    max: u8,
    is_valid: bool,
}

/// One input, and as what it was accepted; bytes that make none are passed over.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(bytes: &[u8]) -> Accepted {
    let mut accepted = Accepted::new();
    let Ok(input) = Carried::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return accepted;
    };
    let now = Timestamp::from_second(input.now)
        .or_else(|_| Timestamp::from_second(input.now % 200_000_000_000))
        .unwrap_or(Timestamp::MIN);
    answer(&input, now, &mut accepted);
    message(&input, now, &mut accepted);
    accepted
}

fn answer(input: &Carried<'_>, now: Timestamp, accepted: &mut Accepted) {
    let rule_id = RuleId::parse("UPGRADE_x").expect("an id");
    let cpe_id = CpeId::parse("x").expect("an id");
    let call = NbiCall::ReadResults {
        rule_id,
        cpe_id,
        purpose: Purpose::Look,
    };
    let raw = |status, body: &[u8]| RawAnswer {
        status,
        body: body.to_vec(),
        retry_after: input.retry_after.map(str::to_owned),
        date: input.date.map(str::to_owned),
        location: input.location.map(str::to_owned),
    };
    match judge(&call, &raw(503, b""), &[], now).outcome {
        Err(NbiFailure::Transient { retry_after, .. }) => {
            let asked = retry_after.unwrap_or_default();
            assert!(!asked.is_negative() && asked <= SignedDuration::from_hours(1));
            if retry_after.is_some() {
                accepted.push("retry_after");
            }
        }
        other => panic!("503 is {other:?}"),
    }
    match judge(&call, &raw(404, NO_ROW), &[], now).outcome {
        Ok(NbiAnswer::Results { rows, .. }) => assert!(rows.is_empty()),
        other => panic!("no row is {other:?}"),
    }
}

fn message(input: &Carried<'_>, now: Timestamp, accepted: &mut Accepted) {
    let incoming = Incoming {
        body: if input.is_valid { REQUEST } else { b"{}" },
        content_type: input.content_type,
        timestamp: input.timestamp,
        correlation_id: input.correlation_id,
        reply_to: input.reply_to,
        traceparent: input.traceparent,
        tracestate: input.tracestate,
    };
    let codec = codec(true);
    match codec.decode_request(&incoming, now) {
        Ok(work) => {
            assert!(work.job.order.deadline >= work.job.order.requested_at);
            accepted.push("request");
            if work.carried.traceparent.is_some() {
                accepted.push("traceparent");
            }
            check_round_trip(&codec, &work);
            for event in codec.published_events(&work, &[JobEvent::Accepted], now) {
                check_attributes(&check_event(&event, EVENT_MAX));
            }
        }
        Err(rejection) => {
            check_attributes(&check_event(
                &codec.rejected_event(&incoming, &rejection, now),
                EVENT_MAX,
            ));
        }
    }
    let _ = unix_seconds(now);
    let max = usize::from(input.max);
    for text in [input.tracestate, input.content_type].into_iter().flatten() {
        assert!(truncate(text, max).chars().count() <= max + 1);
    }
}

/// CloudEvents 1.0 forbids control characters in attributes.
fn check_attributes(event: &Value) {
    for (name, attribute) in event.as_object().expect("an object") {
        assert!(
            name == "data" || attribute.as_str().is_some_and(is_one_line),
            "{name}"
        );
    }
}
