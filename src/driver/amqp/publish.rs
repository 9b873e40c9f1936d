//! Persistent, mandatory, confirmed; or an error.
//!
//! A connection of its own, and on it a few channels, which gather what is published at the same time into batches (`lanes.rs`): a batch is
//! written without waiting in between, all its confirms are awaited, and then they are judged together (`confirms.rs`). Only an ack without a
//! returned message counts: a nack, an unroutable message, a missing confirm and silence are errors. Silence ends the generation, as its
//! outcome is unknown; while the broker blocks publishers, silence is only waited out. Groups overtake one another: who needs an order
//! awaits the first, or makes one group.
//!
//! The queue of a requester is nobody's business but his: its silence is a failed reply and nothing more. So replies, which are returned
//! whenever a requester has gone, share a channel of their own, where a return is told to any of them and is reported under its own name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use lapin::Connection;
use tokio::sync::{oneshot, watch};

use super::confirms::{self, Heard};
use super::connection::{self, Ending, guarded};
use super::error::{BrokerError, bounded};
use super::lanes::Lanes;
use super::outgoing::Outgoing;
use super::settings::{AmqpSettings, TopologyMode};
use super::wire::{Open, Wire};
use crate::telemetry::Telemetry;

/// Patience with a requester's own queue, behind the confirms of everything else: a job waits for it.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

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
    /// The connection ended before all of its batch was confirmed; the outcome is unknown.
    #[error("the connection ended before the confirm ({0})")]
    Lost(String),
    /// The broker was silent about this one or another of its batch; the outcome is unknown. The generation ends, unless it was a reply.
    #[error("no confirm within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

/// The publishing channels of one generation.
#[derive(Debug)]
pub(super) struct Publisher {
    lanes: Lanes,
    replies: Arc<Replies>,
    wire: Arc<Wire>,
    declares: bool,
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
        let open = bounded(what, connection::CALL_TIMEOUT, Open::on(&connection)).await?;
        let wire = Arc::new(Wire {
            connection,
            timeout: settings.publish_timeout,
            anew_after: settings.refused_anew_after,
            prefix: settings.prefix.clone(),
            ending,
            blocked,
            telemetry,
        });
        Ok(Self {
            lanes: Lanes::begin(Arc::clone(&wire)),
            replies: Arc::new(Replies {
                wire: Arc::clone(&wire),
                open: tokio::sync::Mutex::new(open),
            }),
            wire,
            declares: settings.topology == TopologyMode::Declare,
        })
    }

    /// Publishes one message and awaits its confirm.
    pub(super) async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        self.publish_all(&Arc::new(vec![message]), false)
            .await
            .pop()
            .unwrap_or(Err(PublishError::NotRequested))
    }

    /// Publishes in order without waiting in between, then awaits every confirm. One answer a message, in the same order.
    ///
    /// What a try before left in doubt is published `alone`, without anybody else's messages. May be dropped at any time; what a lane has
    /// taken by then may arrive.
    pub(super) async fn publish_all(
        &self,
        messages: &Arc<Vec<Outgoing>>,
        alone: bool,
    ) -> Vec<Result<(), PublishError>> {
        let published = self.lanes.publish(Arc::clone(messages), alone);
        if !messages.iter().any(Outgoing::is_reply) {
            return published.await;
        }
        // What waits for a reply must not hold up the others.
        let numbers = (0..messages.len()).filter(|number| messages[*number].is_reply());
        let replied = join_all(numbers.map(|number| self.reply(Arc::clone(messages), number)));
        let (answers, replied) = join(published, replied).await;
        let (mut answers, mut replied) = (answers.into_iter(), replied.into_iter());
        let in_order = messages.iter().map(|message| {
            let next = if message.is_reply() {
                replied.next()
            } else {
                answers.next()
            };
            next.unwrap_or(Err(PublishError::NotRequested))
        });
        in_order.collect()
    }

    /// Publishes to a requester's queue, in a task of its own: whoever gives up must not leave a message half written.
    async fn reply(&self, messages: Arc<Vec<Outgoing>>, number: usize) -> Result<(), PublishError> {
        let (answer, answered) = oneshot::channel();
        let replies = Arc::clone(&self.replies);
        let ending = &self.wire.ending;
        tokio::spawn(guarded(Arc::clone(ending), "a reply", async move {
            drop(answer.send(replies.publish(&messages[number]).await));
        }));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => {
                // It panicked, and ends the generation.
                ending.ended().await;
                Err(PublishError::Lost(ending.reason()))
            }
        }
    }

    /// The prefix of our names.
    pub(super) fn prefix(&self) -> &str {
        &self.wire.prefix
    }

    /// Whether the next generation declares and binds what is missing.
    pub(super) fn declares(&self) -> bool {
        self.declares
    }
}

/// The channel of all replies. One at a time writes: the library numbers a message and queues its frames in two steps.
#[derive(Debug)]
struct Replies {
    wire: Arc<Wire>,
    open: tokio::sync::Mutex<Open>,
}

impl Replies {
    async fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        let wire = &self.wire;
        let begun = Instant::now();
        let (channel, confirm) = {
            let open = self.open.lock().await;
            let channel = open.channel.clone();
            let written = wire
                .patiently(wire.timeout, wire.write(&channel, message)?)
                .await;
            (channel, written.inspect_err(|error| wire.ends_by(error))?)
        };
        let limit = REPLY_WITHIN.min(wire.timeout);
        let confirmation = wire.patiently(limit, confirm).await;
        // The last one who waits on a channel that was replaced closes it.
        drop(channel);
        if matches!(confirmation, Err(PublishError::TimedOut(_))) {
            self.renew().await;
        }
        let Heard { is_ack, returned } = confirms::heard(confirmation?)?;
        if let Some((known, why)) = returned {
            let error = PublishError::Returned(why);
            if known == wire.known(message) {
                return Err(error);
            }
            // Another's, who hears nothing of it.
            wire.telemetry.reply_failed(&known.key, &error.to_string());
        }
        if !is_ack {
            return Err(PublishError::Nacked);
        }
        wire.telemetry
            .published(message.target.label(), begun.elapsed());
        Ok(())
    }

    /// After a confirm that never came, of which the library keeps something as long as the channel lives: another one in the place of one
    /// that has been open for a while.
    async fn renew(&self) {
        let mut open = self.open.lock().await;
        if self.wire.is_old(&open)
            && let Ok(fresh) = self.wire.open().await
        {
            *open = fresh;
        }
    }
}
