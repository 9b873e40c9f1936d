//! Properties and headers of what we publish: built new, or taken over from a delivery by a white list.
//!
//! `x-death` and its kind are never copied: brokers up to 3.13 take a copied one for a circle and never deliver the message again.
//! `expiration`, `priority`, `user_id` and `CC`/`BCC` are not copied either: each of them changes where or whether a message goes.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::message::campaign::DeviceRequest;
use crate::message::control::{COMMAND_TYPE, MARK_TYPE};
use crate::message::{Carried, DeadLetter, EventMessage, Incoming, Work, unix_seconds};

/// `app_id` of everything that we publish.
const APP_ID: &str = "nbi-upgrade";
/// Persistent.
const PERSISTENT: u8 = 2;
/// Most bytes of headers taken over from a delivery.
const HEADERS_MAX: usize = 32 * 1024;
/// Header of an order that a campaign gives itself: why.
pub(super) const WHY: &str = "nbi-upgrade-why";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Marks a message published again after it may have been worked on.
const REDELIVERED: &str = "nbi-upgrade-redelivered";

/// What stands in `reply_to` for a queue of the publisher's own; the broker refuses it from whoever has none on his channel.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// The text as AMQP's short string, cut to 255 bytes.
pub(super) fn cut(text: &str) -> ShortString {
    ShortString::try_new(&text[..text.floor_char_boundary(255)]).unwrap_or_default()
}

/// Of an event.
pub(super) fn of_event(event: &EventMessage) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/cloudevents+json".into())
        .with_message_id(cut(&event.id))
        .with_type(cut(event.event_type))
        .with_timestamp(unix_seconds(event.time))
        .with_app_id(APP_ID.into());
    if let Some(id) = &event.correlation_id {
        properties = properties.with_correlation_id(cut(id));
    }
    // The broker decodes an empty table as well.
    match trace_headers(&event.traceparent, &event.tracestate) {
        headers if headers.inner().is_empty() => properties,
        headers => properties.with_headers(headers),
    }
}

/// Of a continuation; what it carries stands in the body.
pub(super) fn of_step(work: &Work, now: Timestamp) -> BasicProperties {
    let (job_id, seq) = (&work.job.order.job_id, work.job.progress.seq);
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(cut(&format!("{job_id}:{seq}")))
        .with_type("upgrade.step".into())
        .with_timestamp(unix_seconds(now))
        .with_app_id(APP_ID.into())
}

/// Of a request that we send.
pub(super) fn of_request(
    message_id: &str,
    reply_to: Option<&str>,
    now: Timestamp,
) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(cut(message_id))
        .with_type("upgrade.request".into())
        .with_timestamp(unix_seconds(now))
        .with_app_id(APP_ID.into());
    match reply_to {
        Some(queue) => properties.with_reply_to(cut(queue)),
        None => properties,
    }
}

/// Of an operator's command; its answer has the same `correlation_id`.
pub(super) fn of_command(id: &str, now: Timestamp) -> BasicProperties {
    of_control(id, COMMAND_TYPE, now).with_correlation_id(cut(id))
}

/// Of a worker's own mark in the stream of commands.
pub(super) fn of_mark(id: &str, now: Timestamp) -> BasicProperties {
    of_control(id, MARK_TYPE, now)
}

/// Of an order that a campaign gives itself.
pub(super) fn of_own_order(id: &str, why: Option<&str>, now: Timestamp) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(why) = why {
        headers.insert(WHY.into(), AMQPValue::LongString(why.into()));
    }
    of_control(id, COMMAND_TYPE, now).with_headers(headers)
}

fn of_control(id: &str, kind: &'static str, now: Timestamp) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(cut(id))
        .with_type(kind.into())
        .with_timestamp(unix_seconds(now))
        .with_app_id(APP_ID.into())
}

/// Of a message that campaigns send themselves.
pub(super) fn of_campaign(kind: &str, message_id: &str, now: Timestamp) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_message_id(cut(message_id))
        .with_type(cut(kind))
        .with_timestamp(unix_seconds(now))
        .with_app_id(APP_ID.into())
}

/// Of a campaign's request on its way to the leader: when it was asked for must be known from now on.
pub(super) fn of_campaign_request(delivery: &Delivery, now: Timestamp) -> BasicProperties {
    let properties = of_original(&delivery.properties);
    match properties.timestamp() {
        Some(_) => properties,
        None => properties.with_timestamp(unix_seconds(now)),
    }
}

/// Of the request of a campaign's device. Its outcome is not sent to the requester's queue: that gets the campaign's.
pub(super) fn of_device_request(request: &DeviceRequest, carried: &Carried) -> BasicProperties {
    let mut properties = of_request(request.job_id.as_str(), None, request.timestamp);
    if let Some(id) = &carried.correlation_id {
        properties = properties.with_correlation_id(cut(id));
    }
    properties.with_headers(trace_headers(&carried.traceparent, &carried.tracestate))
}

fn trace_headers(traceparent: &Option<String>, tracestate: &Option<String>) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [(TRACEPARENT, traceparent), (TRACESTATE, tracestate)] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(value.as_str().into()));
        }
    }
    headers
}

/// The same, marked: it, or what it was made from, may have been worked on before.
///
/// A message that is published again is new to the broker, which would forget that; the core must know it.
pub(super) fn marked_redelivered(properties: BasicProperties) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(REDELIVERED.into(), AMQPValue::Boolean(true));
    properties.with_headers(headers)
}

/// Whether a delivery may have been worked on before, as the broker or the mark says.
pub(super) fn is_redelivered(delivery: &Delivery) -> bool {
    let marked = delivery
        .properties
        .headers()
        .as_ref()
        .and_then(|headers| headers.inner().get(REDELIVERED));
    delivery.redelivered || matches!(marked, Some(AMQPValue::Boolean(true)))
}

/// Of a delivery that is published again unchanged.
pub(super) fn of_again(delivery: &Delivery) -> BasicProperties {
    let properties = of_original(&delivery.properties);
    if is_redelivered(delivery) {
        marked_redelivered(properties)
    } else {
        properties
    }
}

/// Of a request that goes back to its queue. Copies of it may part here, and each must know since when it was asked for: one that comes
/// after another is done would else take itself for a new order. What may have been worked on before stays undated, as that counts too.
pub(super) fn of_request_again(delivery: &Delivery, now: Timestamp) -> BasicProperties {
    let properties = of_again(delivery);
    if is_redelivered(delivery) {
        return properties;
    }
    let now = unix_seconds(now);
    let said = properties.timestamp().filter(|said| *said <= now);
    properties.with_timestamp(said.unwrap_or(now))
}

pub(super) fn of_original(original: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(safe_headers(original));
    macro_rules! take_over {
        ($($get:ident $with:ident),+ $(,)?) => {
            $(if let Some(value) = original.$get().clone() { properties = properties.$with(value); })+
        };
    }
    take_over!(
        content_type with_content_type,
        content_encoding with_content_encoding,
        correlation_id with_correlation_id,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        app_id with_app_id,
    );
    let reply_to = original.reply_to().clone();
    match reply_to.filter(|queue| queue.as_str() != DIRECT_REPLY) {
        Some(queue) => properties.with_reply_to(queue),
        None => properties,
    }
}

/// Of a delivery that goes to the dead letters: unchanged, and why.
pub(super) fn of_dead_letter(
    original: &BasicProperties,
    letter: &DeadLetter,
    queue: &str,
    instance: &str,
    now: Timestamp,
) -> BasicProperties {
    let mut headers = safe_headers(original);
    let time = now.to_string();
    for (name, value) in [
        (DeadLetter::REASON, letter.reason),
        (DeadLetter::ERROR, letter.error.as_str()),
        (DeadLetter::QUEUE, queue),
        (DeadLetter::INSTANCE, instance),
        (DeadLetter::TIME, time.as_str()),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    of_original(original).with_headers(headers)
}

/// Headers that neither route nor count: no `x-…`, no tables and arrays, no `CC` and `BCC`.
///
/// Properties must fit in one frame (128 KiB by default), and what we add must fit beside those that were sent: the broker closes the
/// connection over a larger one. So headers beyond [`HEADERS_MAX`] are left behind.
fn safe_headers(original: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut left = HEADERS_MAX;
    for (name, value) in original
        .headers()
        .iter()
        .flat_map(|headers| headers.inner())
    {
        let is_plain = matches!(
            value,
            AMQPValue::Boolean(_)
                | AMQPValue::ShortShortInt(_)
                | AMQPValue::ShortShortUInt(_)
                | AMQPValue::ShortInt(_)
                | AMQPValue::ShortUInt(_)
                | AMQPValue::LongInt(_)
                | AMQPValue::LongUInt(_)
                | AMQPValue::LongLongInt(_)
                | AMQPValue::ShortString(_)
                | AMQPValue::LongString(_)
                | AMQPValue::Timestamp(_)
        );
        let text = name.as_str();
        let is_routing = ["cc", "bcc"]
            .iter()
            .any(|routing| text.eq_ignore_ascii_case(routing));
        let size = text.len() + size_of_plain(value);
        if is_plain && !text.starts_with("x-") && !is_routing && size <= left {
            left -= size;
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

/// What a header's value takes at most on the wire, tables and arrays aside.
fn size_of_plain(value: &AMQPValue) -> usize {
    let text = match value {
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::ShortString(text) => text.as_str().len(),
        _ => 0,
    };
    text + 16
}

/// What the codec wants to know of a delivery.
pub(super) fn incoming(delivery: &Delivery) -> Incoming<'_> {
    let properties = &delivery.properties;
    let header = |name: &str| {
        properties
            .headers()
            .as_ref()
            .and_then(|headers| header_text(headers, name))
    };
    Incoming {
        body: &delivery.data,
        content_type: properties.content_type().as_ref().map(ShortString::as_str),
        timestamp: *properties.timestamp(),
        correlation_id: properties
            .correlation_id()
            .as_ref()
            .map(ShortString::as_str),
        reply_to: properties.reply_to().as_ref().map(ShortString::as_str),
        traceparent: header(TRACEPARENT),
        tracestate: header(TRACESTATE),
    }
}

pub(super) fn header_text<'a>(headers: &'a FieldTable, name: &str) -> Option<&'a str> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    #[test]
    fn what_routes_or_counts_is_not_copied() {
        let mut headers = FieldTable::default();
        headers.insert(
            "x-death".into(),
            AMQPValue::FieldArray(FieldArray::default()),
        );
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::default()));
        headers.insert("traceparent".into(), AMQPValue::LongString("00-ab".into()));
        let original = BasicProperties::default()
            .with_headers(headers)
            .with_expiration("1000".into())
            .with_priority(9)
            .with_content_type("text/weird".into());
        let copy = of_original(&original);
        let names: Vec<_> = copy
            .headers()
            .iter()
            .flat_map(|headers| headers.inner().keys())
            .map(ShortString::as_str)
            .collect();
        assert_eq!(names, ["traceparent"]);
        assert_eq!(
            copy.content_type().as_ref().map(ShortString::as_str),
            Some("text/weird")
        );
        assert!(copy.expiration().is_none() && copy.priority().is_none());
        assert_eq!(*copy.delivery_mode(), Some(2));
    }

    #[test]
    fn headers_that_would_not_fit_in_a_frame_are_left_behind() {
        let mut headers = FieldTable::default();
        headers.insert("a-small".into(), AMQPValue::LongString("kept".into()));
        headers.insert(
            "b-large".into(),
            AMQPValue::LongString("x".repeat(60_000).into()),
        );
        headers.insert("bcc".into(), AMQPValue::LongString("upgrade.steps".into()));
        for index in 0..2_000 {
            headers.insert(
                format!("c-{index}").into(),
                AMQPValue::LongString("y".repeat(50).into()),
            );
        }
        let original = BasicProperties::default().with_headers(headers);
        let letter = DeadLetter {
            reason: "invalid_request",
            error: "z".repeat(DeadLetter::ERROR_MAX),
        };
        let copy = of_dead_letter(&original, &letter, "upgrade.requests", "i", Timestamp::MAX);
        let headers = copy.headers().clone().unwrap();
        let names: Vec<_> = headers.inner().keys().map(ShortString::as_str).collect();
        assert!(names.contains(&"a-small") && names.contains(&DeadLetter::ERROR));
        assert!(!names.contains(&"b-large") && !names.contains(&"bcc"));
        let size: usize = headers
            .inner()
            .iter()
            .map(|(name, value)| name.as_str().len() + size_of_plain(value))
            .sum();
        assert!(size <= HEADERS_MAX + 8 * 1024, "{size}");
    }

    #[test]
    fn a_direct_reply_that_is_nobodys_yet_is_not_copied() {
        for (reply_to, is_copied) in [
            ("amq.rabbitmq.reply-to", false),
            ("amq.rabbitmq.reply-to.g2dk.AAAA", true),
            ("answers", true),
        ] {
            let original = BasicProperties::default().with_reply_to(reply_to.into());
            let copy = of_original(&original);
            assert_eq!(copy.reply_to().is_some(), is_copied, "{reply_to}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(200)).as_str().len(), 254);
    }
}
