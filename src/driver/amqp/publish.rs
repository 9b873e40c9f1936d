//! Persistent, mandatory, confirmed; or an error.
//!
//! One channel in confirm mode on a connection of its own, shared by all tasks: many publishes wait for their confirms at the same time,
//! bounded by a window. Only an ack without a returned message counts: a nack, an unroutable message, a missing confirm and silence are
//! errors. Silence ends the generation, as its outcome is unknown; while the broker blocks publishers, silence is only waited out. The queue
//! of a requester is nobody's business but his: its silence is a failed reply and nothing more.
//!
//! The client library does not look which message the broker has returned: it tells the next confirm that comes (seen in its source). So
//! the returned message's id is compared, what is told to the wrong publish is kept for the right one, whose confirm comes later, and
//! replies, which are returned whenever a requester has gone, have a channel of their own. With one thread, the default, the wrong publish
//! is always heard first; with more the right one can be quicker, and is lost then.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use tokio::sync::{Semaphore, watch};

use super::connection::{self, Ending};
use super::error::{self, BrokerError, bounded};
use super::outgoing::{Outgoing, Target};
use super::settings::{AmqpSettings, TopologyMode};
use crate::telemetry::Telemetry;

/// Publishes that wait for their confirm at a time: throughput is flat above, only latency grows.
const WINDOW: u32 = 256;
/// Patience with a requester's own queue, behind the confirms of everything else: a job waits for it.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

/// How the names of RabbitMQ's direct replies begin.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

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

/// The publishing channels of one generation.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Arc<Connection>,
    /// The channel, and since when it is open.
    channel: Mutex<(Arc<Channel>, Instant)>,
    replies: Channel,
    /// The library numbers a message and queues its frames in two steps; in between nobody else may.
    numbering: Mutex<()>,
    /// Ids of messages that were returned, and of which another publish was told.
    misplaced: Mutex<HashSet<String>>,
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
        let replies = confirming(&connection).await?;
        Ok(Self {
            connection,
            replies,
            numbering: Mutex::default(),
            misplaced: Mutex::default(),
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
            let channel = match message.target {
                Target::Reply(_) => &self.replies,
                _ => &*channel,
            };
            confirms.push(self.write(channel, message).await);
        }
        // All at once: what waits for a reply must not keep the others' confirms waiting, and each confirm is looked at as it comes.
        let answers = messages
            .iter()
            .zip(confirms)
            .map(async |(message, written)| {
                let answer = match written {
                    Ok(confirm) => self.confirmed(confirm, message).await,
                    Err(error) => Err(error),
                };
                if answer.is_ok() {
                    self.telemetry
                        .published(message.target.label(), begun.elapsed());
                }
                answer
            });
        join_all(answers).await
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
        tokio::pin!(written);
        let in_turn = poll_fn(|context| {
            let _turn = self
                .numbering
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            written.as_mut().poll(context)
        });
        self.patiently(self.timeout, in_turn)
            .await
            .inspect_err(|error| self.ends_by(error))
    }

    /// Awaits the broker's word.
    async fn confirmed(
        &self,
        confirm: PublisherConfirm,
        message: &Outgoing,
    ) -> Result<(), PublishError> {
        let confirmation = if matches!(message.target, Target::Reply(_)) {
            self.patiently(REPLY_WITHIN.min(self.timeout), confirm)
                .await?
        } else {
            self.patiently(self.timeout, confirm)
                .await
                .inspect_err(|error| self.ends_by(error))?
        };
        let id = id_of(&message.properties);
        if let Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) =
            &confirmation
            && id_of(&returned.properties) != id
        {
            let other = id_of(&returned.properties).to_owned();
            self.misplaced().insert(other);
            // Whether this one was returned too may have been told to a third.
            let why = "the return of another message came with the confirm";
            return Err(PublishError::Lost(why.to_owned()));
        }
        match confirmation {
            Confirmation::Ack(None) if self.was_misplaced(id) => Err(PublishError::Returned(
                "as another publish was told".to_owned(),
            )),
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => Err(PublishError::Returned(format!(
                "{} {}",
                returned.reply_code, returned.reply_text
            ))),
            Confirmation::Nack(_) => Err(PublishError::Nacked),
            Confirmation::NotRequested => Err(PublishError::NotRequested),
        }
    }

    fn was_misplaced(&self, id: &str) -> bool {
        self.misplaced().remove(id)
    }

    fn misplaced(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.misplaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        let (channel, _) = self.channel();
        tokio::join!(
            connection::close_channel(&channel),
            connection::close_channel(&self.replies),
        );
    }
}

/// A message's id; every message of ours has one.
fn id_of(properties: &BasicProperties) -> &str {
    properties
        .message_id()
        .as_ref()
        .map_or("", |id| id.as_str())
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
