//! Messages on their way out, and the objects of the broker that they can go to.

use lapin::BasicProperties;
use lapin::types::ShortString;

use super::delay::Rung;
use super::error::BrokerError;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// To whoever listens to results, under this routing key.
    Results(String),
    /// To the requests exchange.
    Requests,
    /// Back to the requests queue, past the exchange.
    RequestsQueue,
    /// To the next free worker.
    Steps,
    /// To the next free worker after a while.
    Delay(Rung),
    /// To the dead letters.
    Dead,
    /// Back to the queue of dead letters, past the exchange.
    DeadQueue,
    /// To every worker, and to the one that answers.
    Control,
    /// To the stream of commands alone.
    ControlStream,
    /// To a requester's own queue.
    Reply(String),
    /// To the leader of all campaigns.
    CampaignRequests,
    /// To one of a campaign's own queues.
    Queue(String),
}

impl Target {
    /// Exchange and routing key.
    pub(super) fn address(&self, prefix: &str) -> (String, String) {
        let object = |name: &str| [prefix, ".", name].concat();
        match self {
            Self::Results(key) => (object("results"), key.clone()),
            Self::Requests => (object("requests"), "request".to_owned()),
            Self::RequestsQueue => (String::new(), object("requests")),
            Self::Steps => (String::new(), object("steps")),
            Self::Delay(rung) => (String::new(), rung.queue(prefix)),
            Self::Dead => (object("dead"), String::new()),
            Self::DeadQueue => (String::new(), object("dead")),
            Self::Control => (object("control"), String::new()),
            Self::ControlStream => (String::new(), object("control")),
            Self::Reply(queue) | Self::Queue(queue) => (String::new(), queue.clone()),
            Self::CampaignRequests => (String::new(), super::campaign::requests(prefix)),
        }
    }

    /// The name in metrics, from a closed set.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Results(_) => "results",
            Self::Requests | Self::RequestsQueue => "requests",
            Self::Steps => "steps",
            Self::Delay(_) => "delay",
            Self::Dead | Self::DeadQueue => "dead",
            Self::Control | Self::ControlStream => "control",
            Self::Reply(_) => "reply",
            Self::CampaignRequests | Self::Queue(_) => "campaigns",
        }
    }

    /// The name in errors.
    pub(super) fn name(&self, prefix: &str) -> String {
        match self.address(prefix) {
            (exchange, queue) if exchange.is_empty() => format!("queue \"{queue}\""),
            (exchange, key) => format!("exchange \"{exchange}\" with key \"{key}\""),
        }
    }
}

/// A message on its way out.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Where it goes.
    pub(super) target: Target,
    /// Its properties.
    pub(super) properties: BasicProperties,
    /// Its body.
    pub(super) body: Vec<u8>,
}

impl Outgoing {
    /// Whether it goes to a requester's own queue.
    pub(super) fn is_reply(&self) -> bool {
        matches!(self.target, Target::Reply(_))
    }
}

/// A text as AMQP's short string.
pub(super) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| {
        BrokerError::new(
            format!("use the name \"{}\"", super::properties::cut(text)),
            "it is longer than 255 bytes",
        )
    })
}
