//! What every publish needs: channels in confirm mode, a message written to one, and patience with the broker's answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Connection, PublisherConfirm};
use tokio::sync::watch;

use super::confirms::Known;
use super::connection::Ending;
use super::error;
use super::outgoing::Outgoing;
use super::publish::PublishError;
use crate::telemetry::Telemetry;

/// How the names of RabbitMQ's direct replies begin.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// The publishing connection of one generation.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) connection: Arc<Connection>,
    /// Patience with one answer of the broker.
    pub(super) timeout: Duration,
    /// A channel that had trouble is not used again at this age.
    pub(super) anew_after: Duration,
    pub(super) prefix: String,
    pub(super) ending: Arc<Ending>,
    pub(super) blocked: watch::Receiver<Option<String>>,
    pub(super) telemetry: Arc<Telemetry>,
}

/// A channel in confirm mode, and since when.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) channel: Channel,
    since: Instant,
}

impl Open {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// Those of the broker and the connection.
    pub(super) async fn on(connection: &Connection) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let since = Instant::now();
        Ok(Self { channel, since })
    }
}

impl Wire {
    /// Opens a channel, as patiently as a confirm is awaited: the broker opens none while it blocks publishers.
    pub(super) async fn open(&self) -> Result<Open, PublishError> {
        self.patiently(self.timeout, Open::on(&self.connection))
            .await
    }

    /// Whether a channel is not used again after trouble.
    pub(super) fn is_old(&self, open: &Open) -> bool {
        open.since.elapsed() >= self.anew_after
    }

    /// What a message is known by when it comes back.
    pub(super) fn known(&self, message: &Outgoing) -> Known {
        let (exchange, key) = message.target.address(&self.prefix);
        let id = message.properties.message_id().as_ref();
        Known {
            exchange,
            key,
            id: id.map(ToString::to_string),
        }
    }

    /// A message on its way to a channel: numbered and queued at the first poll, done when its frames are written.
    ///
    /// # Errors
    ///
    /// [`PublishError::BadName`].
    pub(super) fn write<'a>(
        &self,
        channel: &'a Channel,
        message: &'a Outgoing,
    ) -> Result<impl Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a, PublishError>
    {
        let (exchange, key) = message.target.address(&self.prefix);
        let name = |text: &str| {
            ShortString::try_new(text).map_err(|error| PublishError::BadName(error.to_string()))
        };
        let options = BasicPublishOptions {
            // What waits for a direct reply is no queue, and the broker would return what it has delivered.
            mandatory: !key.starts_with(DIRECT_REPLY),
            immediate: false,
        };
        Ok(channel.basic_publish(
            name(&exchange)?,
            name(&key)?,
            options,
            &message.body,
            message.properties.clone(),
        ))
    }

    /// Awaits a call until the generation ends, and for at most this long while the broker takes messages. A call that fails ends it.
    pub(super) async fn patiently<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, PublishError> {
        tokio::select! {
            biased;
            outcome = within(limit, self.blocked.clone(), call) => match outcome {
                None => Err(PublishError::TimedOut(limit)),
                Some(outcome) => outcome.map_err(|error| {
                    if error::code(&error) == Some(403) {
                        self.ending.may_not_publish.store(true, Ordering::Relaxed);
                    }
                    self.ending.end(format!("publishing failed: {}", error::text(&error)));
                    PublishError::Lost(error::text(&error))
                }),
            },
            () = self.ending.ended() => Err(PublishError::Lost(self.ending.reason())),
        }
    }

    /// Silence ends the generation.
    pub(super) fn ends_by(&self, error: &PublishError) {
        if matches!(error, PublishError::TimedOut(_)) {
            self.ending.end(error.to_string());
        }
    }
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
