//! What is in a stream: which there are, where a reader may begin, and a message with its place.

use std::str::FromStr;

use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};

use super::campaign;
use super::properties;
use crate::job::CampaignId;
use crate::message::unix_seconds;

/// Where a message comes with its place in the stream, and where a reader says its own.
pub(super) const OFFSET: &str = "x-stream-offset";

/// The streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// `<p>.events`: everything that was published to the results.
    Events,
    /// `<p>.control`: every command.
    Control,
    /// `<p>.campaign.<campaign_id>.log`: what a campaign's coordinator must know.
    CampaignLog(CampaignId),
}

impl Stream {
    pub(super) fn queue(&self, prefix: &str) -> String {
        match self {
            Self::Events => format!("{prefix}.events"),
            Self::Control => format!("{prefix}.control"),
            Self::CampaignLog(campaign_id) => campaign::log(prefix, campaign_id),
        }
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message that is kept.
    First,
    /// A little before the end: with the messages that were written together with the last one.
    Last,
    /// With what comes from now on.
    Next,
    /// With this message, or the oldest that is kept if that is newer.
    Offset(u64),
    /// With what was published at this time or later, to the second.
    Time(Timestamp),
}

impl Start {
    pub(super) fn argument(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Next => AMQPValue::LongString("next".into()),
            Self::Offset(offset) => {
                AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
            }
            Self::Time(time) => AMQPValue::Timestamp(unix_seconds(time)),
        }
    }
}

/// `first`, `last`, `next` or a time as in RFC 3339.
impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            "next" => Ok(Self::Next),
            other => other.parse().map(Self::Time).map_err(|_| {
                "write first, last, next or a time like 2026-01-31T08:00:00Z".to_owned()
            }),
        }
    }
}

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place; grows by one from message to message.
    pub offset: u64,
    /// When it was published, to the second, as the publisher says.
    pub published_at: Option<Timestamp>,
    /// Its routing key.
    pub routing_key: String,
    /// `message_id`; of an event, its id.
    pub message_id: Option<String>,
    /// `type`.
    pub kind: Option<String>,
    /// `app_id`.
    pub app_id: Option<String>,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `correlation_id`.
    pub correlation_id: Option<String>,
    /// Of an order that a campaign gives itself: why.
    pub(super) why: Option<String>,
    /// W3C `traceparent`.
    pub traceparent: Option<String>,
    /// W3C `tracestate`.
    pub tracestate: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Record {
    /// `None` where the broker did not say its place.
    pub(super) fn of(delivery: Delivery) -> Option<Self> {
        let incoming = properties::incoming(&delivery);
        let (traceparent, tracestate) = (
            incoming.traceparent.map(str::to_owned),
            incoming.tracestate.map(str::to_owned),
        );
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref()?;
        let offset = match headers.inner().get(OFFSET)? {
            AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok()?,
            AMQPValue::LongUInt(offset) => u64::from(*offset),
            AMQPValue::LongInt(offset) => u64::try_from(*offset).ok()?,
            _ => return None,
        };
        let why = match headers.inner().get(properties::WHY) {
            Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).ok(),
            _ => None,
        };
        let text =
            |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
        Some(Self {
            offset,
            published_at: properties
                .timestamp()
                .and_then(|seconds| Timestamp::from_second(i64::try_from(seconds).ok()?).ok()),
            routing_key: delivery.routing_key.as_str().to_owned(),
            message_id: text(properties.message_id()),
            kind: text(properties.kind()),
            app_id: text(properties.app_id()),
            content_type: text(properties.content_type()),
            correlation_id: text(properties.correlation_id()),
            why,
            traceparent,
            tracestate,
            body: delivery.data,
        })
    }
}
