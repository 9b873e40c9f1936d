//! Persistent, mandatory, confirmed; or an error.
//!
//! One channel in confirm mode on a connection of its own, shared by all tasks: many publishes wait for their confirms at the same time,
//! bounded by a window. Only an ack without a returned message counts: a nack, an unroutable message, a missing confirm and silence are
//! errors. Silence ends the generation, as its outcome is unknown; while the broker blocks publishers, silence is only waited out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::{Semaphore, watch};

use super::connection::{self, Ending};
use super::delay::Rung;
use super::error::{self, BrokerError, bounded};
use crate::telemetry::Telemetry;

/// Publishes that wait for their confirm at a time: throughput is flat above, only latency grows.
const WINDOW: u32 = 256;

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
    fn address(&self, prefix: &str) -> (String, String) {
        match self {
            Self::Results(key) => (format!("{prefix}.results"), key.clone()),
            Self::Requests => (format!("{prefix}.requests"), "request".to_owned()),
            Self::RequestsQueue => (String::new(), format!("{prefix}.requests")),
            Self::Steps => (String::new(), format!("{prefix}.steps")),
            Self::Delay(rung) => (String::new(), rung.queue(prefix)),
            Self::Dead => (format!("{prefix}.dead"), String::new()),
            Self::DeadQueue => (String::new(), format!("{prefix}.dead")),
            Self::Control => (format!("{prefix}.control"), String::new()),
            Self::ControlStream => (String::new(), format!("{prefix}.control")),
            Self::Reply(queue) | Self::Queue(queue) => (String::new(), queue.clone()),
            Self::CampaignRequests => (String::new(), super::campaign::requests(prefix)),
        }
    }

    /// The name in metrics, from a closed set.
    fn label(&self) -> &'static str {
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

/// Why a message is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// The broker refused it; a queue is full. The broker's matter; tried again later.
    #[error("the broker refused the message (a queue behind it is full)")]
    Nacked,
    /// No queue took it: an object is missing. Our generation ends and declares everything again.
    #[error("no queue took the message ({0})")]
    Returned(String),
    /// The channel is not in confirm mode: a fault of this program.
    #[error("the broker was not asked to confirm")]
    NotRequested,
    /// The name cannot be one of AMQP's. Nobody's queue.
    #[error("{0}")]
    BadName(String),
    /// The connection ended first; the outcome is unknown.
    #[error("the connection ended before the confirm ({0})")]
    Lost(String),
    /// The broker was silent; the outcome is unknown. The generation ends.
    #[error("no confirm within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
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

/// The publishing channel of one generation.
#[derive(Debug)]
pub(super) struct Publisher {
    channel: Channel,
    window: Semaphore,
    timeout: Duration,
    prefix: String,
    ending: Arc<Ending>,
    blocked: watch::Receiver<Option<String>>,
    telemetry: Arc<Telemetry>,
}

impl Publisher {
    /// Opens a channel in confirm mode.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker refuses or is silent.
    pub(super) async fn open(
        broker: &lapin::Connection,
        settings: &super::AmqpSettings,
        ending: Arc<Ending>,
        blocked: watch::Receiver<Option<String>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, BrokerError> {
        let channel = connection::channel(broker, "publishing").await?;
        let selected = channel.confirm_select(ConfirmSelectOptions::default());
        bounded(
            || "turn publisher confirms on".to_owned(),
            connection::CALL_TIMEOUT,
            selected,
        )
        .await?;
        Ok(Self {
            channel,
            window: Semaphore::new(WINDOW as usize),
            timeout: settings.publish_timeout,
            prefix: settings.prefix.clone(),
            ending,
            blocked,
            telemetry,
        })
    }

    /// Publishes one message and awaits its confirm.
    pub(super) async fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        self.publish_all(std::slice::from_ref(message))
            .await
            .pop()
            .unwrap_or(Err(PublishError::NotRequested))
    }

    /// Publishes in order without waiting in between, then awaits every confirm. One answer a message, in the same order.
    ///
    /// The window is entered once for all of them: entering it message by message could leave every task waiting for another's place.
    pub(super) async fn publish_all(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let places = u32::try_from(messages.len())
            .unwrap_or(WINDOW)
            .clamp(1, WINDOW);
        let Ok(_places) = self.window.acquire_many(places).await else {
            return messages
                .iter()
                .map(|_| Err(PublishError::Lost("the driver is closed".to_owned())))
                .collect();
        };
        let begun = Instant::now();
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            confirms.push(self.write(message).await);
        }
        let mut answers = Vec::with_capacity(messages.len());
        for (message, confirm) in messages.iter().zip(confirms) {
            let answer = match confirm {
                Ok(confirm) => self.confirmed(confirm).await,
                Err(error) => Err(error),
            };
            if answer.is_ok() {
                self.telemetry
                    .published(message.target.label(), begun.elapsed());
            }
            answers.push(answer);
        }
        answers
    }

    /// Writes the frames.
    async fn write(&self, message: &Outgoing) -> Result<PublisherConfirm, PublishError> {
        let (exchange, key) = message.target.address(&self.prefix);
        let name = |text: &str| {
            ShortString::try_new(text).map_err(|error| PublishError::BadName(error.to_string()))
        };
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let written = self.channel.basic_publish(
            name(&exchange)?,
            name(&key)?,
            options,
            &message.body,
            message.properties.clone(),
        );
        self.patiently(written).await
    }

    /// Awaits the broker's word.
    async fn confirmed(&self, confirm: PublisherConfirm) -> Result<(), PublishError> {
        match self.patiently(confirm).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => Err(PublishError::Returned(format!(
                "{} {}",
                returned.reply_code, returned.reply_text
            ))),
            Confirmation::Nack(_) => Err(PublishError::Nacked),
            Confirmation::NotRequested => Err(PublishError::NotRequested),
        }
    }

    /// Awaits a call; silence ends the generation unless the broker has said that it blocks publishers.
    async fn patiently<T>(
        &self,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, PublishError> {
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                outcome = &mut call => {
                    return outcome.map_err(|error| {
                        self.ending.end(format!("publishing failed: {}", error::text(&error)));
                        PublishError::Lost(error::text(&error))
                    });
                }
                () = self.ending.ended() => return Err(PublishError::Lost(self.ending.reason())),
                () = tokio::time::sleep(self.timeout) => {
                    if self.blocked.borrow().is_none() {
                        self.ending.end(format!("no confirm within {} s", self.timeout.as_secs_f32()));
                        return Err(PublishError::TimedOut(self.timeout));
                    }
                }
            }
        }
    }

    /// The prefix of our names.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Closes the channel within the bound of a close.
    pub(super) async fn close(&self) {
        connection::close_channel(&self.channel).await;
    }
}
