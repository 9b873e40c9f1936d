//! Persistent, mandatory, confirmed; or an error.
//!
//! A connection of its own, and on it a channel for each group of messages (`pool.rs`): the group is written without waiting in between, all
//! its confirms are awaited, and then they are judged together (`confirms.rs`). Only an ack without a returned message counts: a nack, an
//! unroutable message, a missing confirm and silence are errors. Silence ends the generation, as its outcome is unknown; while the broker
//! blocks publishers, silence is only waited out. Groups overtake one another: who needs an order awaits the first, or makes one group.
//!
//! The queue of a requester is nobody's business but his: its silence is a failed reply and nothing more. So replies, which are returned
//! whenever a requester has gone, share a channel of their own, where a return is told to any of them and is reported under its own name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Connection, PublisherConfirm};
use tokio::sync::watch;

use super::confirms::{self, Heard, Known};
use super::connection::{self, Ending};
use super::error::{self, BrokerError, bounded};
use super::outgoing::{Outgoing, Target};
use super::pool::{self, Pool};
use super::settings::{AmqpSettings, TopologyMode};
use crate::telemetry::Telemetry;

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
    /// The connection ended before all of the group was confirmed; the outcome is unknown.
    #[error("the connection ended before the confirm ({0})")]
    Lost(String),
    /// The broker was silent about this one or another of its group; the outcome is unknown. The generation ends, unless it was a reply.
    #[error("no confirm within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

/// The publishing channels of one generation.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Arc<Connection>,
    pool: Pool,
    /// The channel of all replies, and since when it is open. One at a time writes: the library numbers a message and queues its frames in
    /// two steps.
    replies: tokio::sync::Mutex<(Channel, Instant)>,
    timeout: Duration,
    prefix: String,
    declares: bool,
    ending: Arc<Ending>,
    blocked: watch::Receiver<Option<String>>,
    telemetry: Arc<Telemetry>,
}

impl Publisher {
    /// Opens the channel for replies; the others are opened as they are needed.
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
        let what = || "open a publishing channel".to_owned();
        let replies = bounded(what, connection::CALL_TIMEOUT, pool::open(&connection)).await?;
        let anew_after = settings.refused_anew_after;
        Ok(Self {
            pool: Pool::new(Arc::clone(&connection), anew_after, Arc::clone(&ending)),
            connection,
            replies: tokio::sync::Mutex::new((replies, Instant::now())),
            timeout: settings.publish_timeout,
            prefix: settings.prefix.clone(),
            declares: settings.topology == TopologyMode::Declare,
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
    /// May be dropped at any time; what is on the wire by then may arrive.
    pub(super) async fn publish_all(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let is_reply = |message: &&Outgoing| matches!(message.target, Target::Reply(_));
        let replies: Vec<_> = messages.iter().filter(is_reply).collect();
        if replies.is_empty() {
            return self.group(&messages.iter().collect::<Vec<_>>()).await;
        }
        let group: Vec<_> = messages.iter().filter(|it| !is_reply(it)).collect();
        // What waits for a reply must not keep the channel of the others.
        let replied = join_all(replies.into_iter().map(|message| self.reply(message)));
        let (answers, replied) = join(self.group(&group), replied).await;
        let (mut answers, mut replied) = (answers.into_iter(), replied.into_iter());
        let in_order = messages.iter().map(|message| {
            let next = if is_reply(&message) {
                replied.next()
            } else {
                answers.next()
            };
            next.unwrap_or(Err(PublishError::NotRequested))
        });
        in_order.collect()
    }

    /// Publishes through a channel that nobody else has meanwhile.
    async fn group(&self, messages: &[&Outgoing]) -> Vec<Result<(), PublishError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let lease = match self.lease().await {
            Ok(lease) => lease,
            Err(error) => return messages.iter().map(|_| Err(error.clone())).collect(),
        };
        let begun = Instant::now();
        let confirms = self.write_all(lease.channel(), messages).await;
        let heard = confirms.into_iter().map(async |written| {
            let heard = async {
                let confirmation = self.patiently(self.timeout, written?).await;
                confirms::heard(confirmation.inspect_err(|error| self.ends_by(error))?)
            };
            (heard.await, begun.elapsed())
        });
        let (heard, took): (Vec<_>, Vec<_>) = join_all(heard).await.into_iter().unzip();
        if heard.iter().all(is_answered) {
            let is_refused = |heard: &Result<Heard, _>| matches!(heard, Ok(heard) if !heard.is_ack);
            lease.give_back(heard.iter().any(is_refused));
        }
        let answers = confirms::judge(heard, |number| self.known(messages[number]));
        for ((message, answer), took) in messages.iter().zip(&answers).zip(took) {
            if answer.is_ok() {
                self.telemetry.published(message.target.label(), took);
            }
        }
        answers
    }

    /// A channel for one group. Waits for a free one, and for a new one as patiently as for a confirm: the broker opens none while it blocks
    /// publishers.
    async fn lease(&self) -> Result<pool::Lease<'_>, PublishError> {
        let taken = self.pool.take(async |connection| {
            self.patiently(self.timeout, pool::open(connection))
                .await
                .inspect_err(|error| self.ends_by(error))
        });
        tokio::select! {
            biased;
            taken = taken => taken,
            () = self.ending.ended() => Err(PublishError::Lost(self.ending.reason())),
        }
    }

    /// What a message is known by when it comes back.
    fn known(&self, message: &Outgoing) -> Known {
        let (exchange, key) = message.target.address(&self.prefix);
        let id = message.properties.message_id().as_ref();
        Known {
            exchange,
            key,
            id: id.map(ToString::to_string),
        }
    }

    /// Publishes to a requester's queue.
    async fn reply(&self, message: &Outgoing) -> Result<(), PublishError> {
        let begun = Instant::now();
        let (channel, written) = {
            let replies = self.replies.lock().await;
            let channel = replies.0.clone();
            let written = self.write_all(&channel, &[message]).await.pop();
            (channel, written.unwrap_or(Err(PublishError::NotRequested)))
        };
        let limit = REPLY_WITHIN.min(self.timeout);
        let confirmation = self.patiently(limit, written?).await;
        // The last one who waits on a channel that was replaced closes it.
        drop(channel);
        if matches!(confirmation, Err(PublishError::TimedOut(_))) {
            self.renew_replies().await;
        }
        let Heard { is_ack, returned } = confirms::heard(confirmation?)?;
        if let Some((known, why)) = returned {
            let error = PublishError::Returned(why);
            if known == self.known(message) {
                return Err(error);
            }
            // Another's, who hears nothing of it.
            self.telemetry.reply_failed(&known.key, &error.to_string());
        }
        if !is_ack {
            return Err(PublishError::Nacked);
        }
        self.telemetry
            .published(message.target.label(), begun.elapsed());
        Ok(())
    }

    /// After a confirm that never came, of which the library keeps something as long as the channel lives: another one in the place of one
    /// that has been open for a while.
    async fn renew_replies(&self) {
        let mut replies = self.replies.lock().await;
        if self.pool.is_old(replies.1)
            && let Ok(fresh) = self
                .patiently(self.timeout, pool::open(&self.connection))
                .await
        {
            *replies = (fresh, Instant::now());
        }
    }

    /// Writes the frames of all, one after the other.
    async fn write_all(
        &self,
        channel: &Channel,
        messages: &[&Outgoing],
    ) -> Vec<Result<PublisherConfirm, PublishError>> {
        let writing = self.pool.writing(channel);
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            confirms.push(self.write(channel, message).await);
        }
        if confirms.iter().all(is_answered) {
            writing.finish();
        }
        confirms
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
}

/// Whether nothing is left to be answered: it was answered, or never sent, as there is no such name.
fn is_answered<T>(outcome: &Result<T, PublishError>) -> bool {
    matches!(outcome, Ok(_) | Err(PublishError::BadName(_)))
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
