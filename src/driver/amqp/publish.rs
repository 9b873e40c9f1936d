//! Persistent, mandatory, confirmed; or an error.
//!
//! One channel in confirm mode on a connection of its own, shared by all tasks: many publishes wait for their confirms at the same time,
//! bounded by a window. Only an ack without a returned message counts: a nack, an unroutable message, a missing confirm and silence are
//! errors. Silence ends the generation, as its outcome is unknown; while the broker blocks publishers, silence is only waited out. The queue
//! of a requester is nobody's business but his: its silence is a failed reply and nothing more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use tokio::sync::{Semaphore, watch};

use super::connection::{self, Ending};
use super::delay::Rung;
use super::error::{self, BrokerError, bounded};
use super::settings::{AmqpSettings, TopologyMode};
use crate::telemetry::Telemetry;

/// Publishes that wait for their confirm at a time: throughput is flat above, only latency grows.
const WINDOW: u32 = 256;
/// Patience with a requester's own queue, behind the confirms of everything else: a job waits for it.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

/// How the names of RabbitMQ's direct replies begin.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

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
    /// No queue took it: an object or a binding is missing.
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
    /// The broker was silent; the outcome is unknown. The generation ends, unless it was a reply.
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
    connection: Arc<Connection>,
    /// The channel, and since when it is open.
    channel: Mutex<(Arc<Channel>, Instant)>,
    window: Semaphore,
    timeout: Duration,
    anew_after: Duration,
    prefix: String,
    declares: bool,
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
        connection: Arc<Connection>,
        settings: &AmqpSettings,
        ending: Arc<Ending>,
        blocked: watch::Receiver<Option<String>>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, BrokerError> {
        let channel = confirming(&connection).await?;
        Ok(Self {
            connection,
            channel: Mutex::new((Arc::new(channel), Instant::now())),
            window: Semaphore::new(WINDOW as usize),
            timeout: settings.publish_timeout,
            anew_after: settings.refused_anew_after,
            prefix: settings.prefix.clone(),
            declares: settings.topology == TopologyMode::Declare,
            ending,
            blocked,
            telemetry,
        })
    }

    fn channel(&self) -> (Arc<Channel>, Instant) {
        let current = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current.0), current.1)
    }

    /// After a refusal: a new channel in the place of one that has been open for a while, once nothing is under way on that. A broker whose
    /// queue is no longer limited goes on refusing the channels that it refused before (seen on 3.10), and only a new one asks again.
    ///
    /// What is in hand stays so, which the end of the generation would make the broker count. Where it fails, the next refusal tries again.
    pub(super) async fn asks_anew(&self) {
        if self.channel().1.elapsed() < self.anew_after {
            return;
        }
        let Ok(_everything) = self.window.acquire_many(WINDOW).await else {
            return;
        };
        let (refused, since) = self.channel();
        if since.elapsed() < self.anew_after {
            return;
        }
        if let Ok(fresh) = confirming(&self.connection).await {
            *self.channel.lock().unwrap_or_else(PoisonError::into_inner) =
                (Arc::new(fresh), Instant::now());
            connection::close_channel(&refused).await;
        }
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
        let (channel, _) = self.channel();
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            confirms.push(Some(self.write(&channel, message).await));
        }
        let mut answers: Vec<_> = messages
            .iter()
            .map(|_| Err(PublishError::NotRequested))
            .collect();
        // Replies last: what waits for one of them must not keep the others' confirms waiting.
        for are_replies in [false, true] {
            for (index, message) in messages.iter().enumerate() {
                if matches!(message.target, Target::Reply(_)) != are_replies {
                    continue;
                }
                answers[index] = match confirms[index].take() {
                    Some(Ok(confirm)) => self.confirmed(confirm, are_replies).await,
                    Some(Err(error)) => Err(error),
                    None => Err(PublishError::NotRequested),
                };
                if answers[index].is_ok() {
                    self.telemetry
                        .published(message.target.label(), begun.elapsed());
                }
            }
        }
        answers
    }

    /// Writes the frames.
    async fn write(
        &self,
        channel: &Channel,
        message: &Outgoing,
    ) -> Result<PublisherConfirm, PublishError> {
        let (exchange, key) = message.target.address(&self.prefix);
        let name = |text: &str| {
            ShortString::try_new(text).map_err(|error| PublishError::BadName(error.to_string()))
        };
        let options = BasicPublishOptions {
            // What waits for a direct reply is no queue, and the broker would return what it has delivered.
            mandatory: !key.starts_with(DIRECT_REPLY),
            immediate: false,
        };
        let written = channel.basic_publish(
            name(&exchange)?,
            name(&key)?,
            options,
            &message.body,
            message.properties.clone(),
        );
        self.patiently(self.timeout, written)
            .await
            .inspect_err(|error| self.ends_by(error))
    }

    /// Awaits the broker's word.
    async fn confirmed(
        &self,
        confirm: PublisherConfirm,
        is_reply: bool,
    ) -> Result<(), PublishError> {
        let confirmation = if is_reply {
            self.patiently(REPLY_WITHIN.min(self.timeout), confirm)
                .await?
        } else {
            self.patiently(self.timeout, confirm)
                .await
                .inspect_err(|error| self.ends_by(error))?
        };
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => Err(PublishError::Returned(format!(
                "{} {}",
                returned.reply_code, returned.reply_text
            ))),
            Confirmation::Nack(_) => Err(PublishError::Nacked),
            Confirmation::NotRequested => Err(PublishError::NotRequested),
        }
    }

    /// Awaits a call until the generation ends, and for at most this long while the broker takes messages. A call that fails ends it.
    async fn patiently<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, PublishError> {
        tokio::select! {
            biased;
            outcome = within(limit, self.blocked.clone(), call) => match outcome {
                None => Err(PublishError::TimedOut(limit)),
                Some(outcome) => outcome.map_err(|error| {
                    self.ending.end(format!("publishing failed: {}", error::text(&error)));
                    PublishError::Lost(error::text(&error))
                }),
            },
            () = self.ending.ended() => Err(PublishError::Lost(self.ending.reason())),
        }
    }

    /// Silence ends the generation.
    fn ends_by(&self, error: &PublishError) {
        if matches!(error, PublishError::TimedOut(_)) {
            self.ending.end(error.to_string());
        }
    }

    /// The prefix of our names.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the next generation declares and binds what is missing.
    pub(super) fn declares(&self) -> bool {
        self.declares
    }

    /// Closes the channel within the bound of a close.
    pub(super) async fn close(&self) {
        connection::close_channel(&self.channel().0).await;
    }
}

/// A channel in confirm mode.
async fn confirming(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection::channel(connection, "publishing").await?;
    let selected = channel.confirm_select(ConfirmSelectOptions::default());
    let what = || "turn publisher confirms on".to_owned();
    bounded(what, connection::CALL_TIMEOUT, selected).await?;
    Ok(channel)
}

/// Awaits something for at most this long; `None`: it did not come. The time begins anew when the broker begins or ends to block
/// publishers, and stands still while it does.
async fn within<T>(
    limit: Duration,
    mut blocked: watch::Receiver<Option<String>>,
    call: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(call);
    loop {
        let is_blocked = blocked.borrow_and_update().is_some();
        tokio::select! {
            biased;
            outcome = &mut call => return Some(outcome),
            Ok(()) = blocked.changed() => {}
            () = tokio::time::sleep(limit), if !is_blocked => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until when silence is borne, in seconds, where the broker blocks publishers from one time to another.
    async fn patience(blocks: f32, unblocks: f32) -> f32 {
        let begun = tokio::time::Instant::now();
        let (sender, blocked) = watch::channel(None);
        let blocking = async {
            tokio::time::sleep(Duration::from_secs_f32(blocks)).await;
            sender.send_replace(Some("memory".to_owned()));
            tokio::time::sleep(Duration::from_secs_f32(unblocks - blocks)).await;
            sender.send_replace(None);
            std::future::pending::<()>().await;
        };
        let silence = std::future::pending::<()>();
        tokio::select! {
            answer = within(Duration::from_secs(30), blocked, silence) => assert_eq!(answer, None),
            () = blocking => {}
        }
        begun.elapsed().as_secs_f32()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_confirm_begins_anew_when_the_broker_takes_messages_again() {
        assert!((59.0..61.0).contains(&patience(1.0, 29.9).await));
        assert!((129.0..131.0).contains(&patience(29.0, 100.0).await));
        assert!((29.0..31.0).contains(&patience(40.0, 50.0).await));
    }
}
