//! Events for others.

use jiff::Timestamp;

/// Where events come from and which are wanted.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// The CloudEvents `source`: `/nbi-upgrade/<instance.name>`.
    pub source: String,
    /// Whether `upgrade.progress` is published.
    pub progress: bool,
}

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The request is valid and durable.
    Accepted,
    /// A stage is done.
    Progress,
    /// Final.
    Completed,
    /// Final.
    Failed,
    /// Final.
    Cancelled,
    /// Final: the request was not valid.
    Rejected,
}

/// An event, ready to be published.
#[derive(Debug, Clone)]
pub struct EventMessage {
    /// What kind.
    pub kind: EventKind,
    /// The CloudEvent's id and the message's `message_id`.
    pub id: String,
    /// The routing key on `<p>.results`.
    pub routing_key: String,
    /// The CloudEvent's type and the message's `type`.
    pub event_type: &'static str,
    /// The CloudEvent's time and the message's `timestamp`.
    pub time: Timestamp,
    /// The CloudEvent in structured JSON mode.
    pub body: Vec<u8>,
    /// `correlation_id` of the request.
    pub correlation_id: Option<String>,
    /// Only on final events: the queue that also gets it.
    pub reply_to: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
}
