//! Any bytes as a request, under each content type and with strict and permissive settings.
//!
//! Accepted: within the contract's limits, and the same after a trip through the continuation. Rejected: an event that others can
//! read, bounded, with texts fit for one line.

use nbi_upgrade::job::JobEvent;
use nbi_upgrade::message::{DeadLetter, Incoming, step};

use super::{
    Accepted, EVENT_MAX, check_event, check_request, check_round_trip, codec, is_one_line, now,
};

/// One input; as what it was accepted.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(body: &[u8]) -> Accepted {
    let mut accepted = Accepted::new();
    for content_type in [None, Some("application/cloudevents+json; charset=utf-8")] {
        for is_strict in [true, false] {
            let codec = codec(is_strict);
            let incoming = Incoming {
                body,
                content_type,
                ..Incoming::default()
            };
            match codec.decode_request(&incoming, now()) {
                Ok(work) => {
                    check_request(&work);
                    accepted.push(match (content_type, is_strict) {
                        (None, true) => "strict",
                        (None, false) => "permissive",
                        (Some(_), true) => "strict CloudEvent",
                        (Some(_), false) => "permissive CloudEvent",
                    });
                    let order = &work.job.order;
                    assert!(body.len() <= 64 * 1024);
                    let url = url::Url::parse(order.firmware_url.as_str()).expect("a URL");
                    assert!(["http", "https", "ftp"].contains(&url.scheme()) && url.has_host());
                    assert!(!is_strict || (url.username().is_empty() && url.password().is_none()));
                    assert!(!is_strict || order.expected_version.is_none());
                    assert!(order.executions >= 1 && order.max_attempts >= 1);
                    let step = check_round_trip(&codec, &work);
                    assert!(step.len() <= step::BODY_MAX);
                    for event in codec.published_events(&work, &[JobEvent::Accepted], now()) {
                        check_event(&event, EVENT_MAX);
                    }
                }
                Err(rejection) => {
                    assert!(!rejection.faults.is_empty());
                    for fault in &rejection.faults {
                        assert!(is_one_line(&fault.field), "{:?}", fault.field);
                        assert!(is_one_line(&fault.message), "{:?}", fault.message);
                    }
                    let event = codec.rejected_event(&incoming, &rejection, now());
                    let value = check_event(&event, EVENT_MAX);
                    assert!(value["subject"].as_str().is_none_or(is_one_line));
                    let letter = DeadLetter::invalid_request(&rejection);
                    assert!(letter.error.chars().count() <= DeadLetter::ERROR_MAX + 1);
                    assert!(is_one_line(&letter.error));
                }
            }
        }
    }
    accepted
}
