//! The other end: publishes requests, and listens to what becomes of them. For the command line.
//!
//! Connects once and does not come back by itself: a command that loses its broker says so and ends. A request counts only when it is
//! confirmed and routed.

use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::Connection;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::connection::{self, CALL_TIMEOUT, Ending, Purpose};
use super::error::{BrokerError, bounded, is_of_a_channel};
use super::outgoing::{Outgoing, Target, short};
use super::properties;
use super::publish::Publisher;
use super::settings::AmqpSettings;
use crate::message::Command;
use crate::telemetry::Telemetry;

/// Events buffered for a slow reader.
const BUFFER: usize = 256;

const DECLARE_IT: &str =
    "check amqp.prefix; `nbi-upgrade topology declare` creates what is missing";

/// A connection that publishes requests.
#[derive(Debug)]
pub struct Requester {
    pub(super) settings: AmqpSettings,
    pub(super) connection: Arc<Connection>,
    pub(super) publisher: Publisher,
    ending: Arc<Ending>,
    blocked: watch::Receiver<Option<String>>,
    tasks: JoinSet<()>,
}

impl Requester {
    /// Connects to the first broker that lets us in. The exchanges must stand.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] of the last broker tried.
    pub async fn connect(settings: AmqpSettings) -> Result<Self, BrokerError> {
        let connection = Arc::new(connection::connect_any(&settings, Purpose::Requesting).await?);
        let ending = Arc::new(Ending::default());
        let (blocked_sender, blocked) = watch::channel(None);
        let (mut events, status) = (connection.events_listener(), connection.status().clone());
        let mut tasks = JoinSet::new();
        let watched = Arc::clone(&ending);
        tasks.spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    lapin::Event::ConnectionBlocked(reason) => {
                        drop(blocked_sender.send_replace(Some(reason)))
                    }
                    lapin::Event::ConnectionUnblocked => drop(blocked_sender.send_replace(None)),
                    lapin::Event::Error(error) if is_of_a_channel(&error, &status) => {}
                    lapin::Event::Error(error) => watched.end(super::error::text(&error)),
                    _ => {}
                }
            }
        });
        let telemetry = Arc::new(Telemetry::default());
        let publisher = Publisher::open(
            Arc::clone(&connection),
            &settings,
            Arc::clone(&ending),
            blocked.clone(),
            telemetry,
        )
        .await?;
        Ok(Self {
            settings,
            connection,
            publisher,
            ending,
            blocked,
            tasks,
        })
    }

    /// Why the broker takes no messages, while it does not; everything that is published waits meanwhile.
    #[must_use]
    pub fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.clone()
    }

    /// Publishes one request and awaits its confirm. Many may be under way at a time, and are gathered into batches.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: the request is not safely with the broker. It may be sent again, as `job_id` makes it idempotent.
    pub async fn publish(
        &self,
        message_id: &str,
        body: Vec<u8>,
        reply_to: Option<&str>,
    ) -> Result<(), BrokerError> {
        let properties = properties::of_request(message_id, reply_to, Timestamp::now());
        let message = Outgoing {
            target: Target::Requests,
            properties,
            body,
        };
        self.send(message).await
    }

    /// Publishes an operator's command and awaits its confirm: from then on it holds. Its answer has `id` as `correlation_id`.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: the command is not safely with the broker. It may be sent again.
    pub async fn command(&self, id: &str, command: &Command) -> Result<(), BrokerError> {
        let message = Outgoing {
            target: Target::Control,
            properties: properties::of_command(id, Timestamp::now()),
            body: command.encode(),
        };
        self.send(message).await
    }

    async fn send(&self, message: Outgoing) -> Result<(), BrokerError> {
        let target = message.target.name(&self.settings.prefix);
        self.publisher.publish(message).await.map_err(|error| {
            let error = BrokerError::new(format!("publish to {target}"), error.to_string());
            if error.cause.contains("NOT_FOUND") {
                error.with_remedy(DECLARE_IT)
            } else {
                error
            }
        })
    }

    /// Listens to events under these routing keys (`upgrade.completed.#`), from now on: subscribe before the first publish.
    ///
    /// The queue is exclusive and goes with the connection. Its name begins with `<prefix>.listener.`: who may declare nothing there, as
    /// the shipped role of a worker, is refused. The receiver ends when the connection does.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker refuses the queue or a binding.
    pub async fn subscribe(
        &mut self,
        routing_keys: &[&str],
    ) -> Result<mpsc::Receiver<Vec<u8>>, BrokerError> {
        let keys: Vec<_> = routing_keys.iter().map(|key| ("results", *key)).collect();
        self.subscribe_to(&keys).await
    }

    /// As [`Requester::subscribe`], to exchanges by their short names and with a key each.
    pub(super) async fn subscribe_to(
        &mut self,
        bindings: &[(&str, &str)],
    ) -> Result<mpsc::Receiver<Vec<u8>>, BrokerError> {
        let channel = connection::channel(&self.connection, "results").await?;
        let prefix = &self.settings.prefix;
        let name = format!("{prefix}.listener.{}", Uuid::new_v4());
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(short(&name)?, options, FieldTable::default());
        let queue = bounded(
            || "declare a queue for results".to_owned(),
            CALL_TIMEOUT,
            declared,
        )
        .await
        .map_err(|error| match error.code {
            Some(403) => error.with_remedy(
                "only some users may listen: use the role upgrade-operator (deploy/rabbitmq); nothing was sent",
            ),
            _ => error,
        })?
        .name()
        .clone();
        for (exchange, key) in bindings {
            let exchange = format!("{prefix}.{exchange}");
            let bound = channel.queue_bind(
                queue.clone(),
                short(&exchange)?,
                short(key)?,
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bounded(
                || format!("listen to exchange \"{exchange}\""),
                CALL_TIMEOUT,
                bound,
            )
            .await
            .map_err(|error| match error.code {
                Some(404) => error.with_remedy(DECLARE_IT),
                _ => error,
            })?;
        }
        let what = || "consume results".to_owned();
        let prefetch = u16::try_from(BUFFER).unwrap_or(u16::MAX);
        bounded(
            what,
            CALL_TIMEOUT,
            channel.basic_qos(prefetch, BasicQosOptions::default()),
        )
        .await?;
        let consume = channel.basic_consume(
            queue,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = bounded(what, CALL_TIMEOUT, consume).await?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        self.tasks.spawn(async move {
            // The channel lives as long as its consumer.
            let _channel = channel;
            while let Some(Ok(delivery)) = consumer.next().await {
                if sender.send(delivery.data).await.is_err() {
                    return;
                }
                drop(delivery.acker.ack(BasicAckOptions::default()).await);
            }
        });
        Ok(receiver)
    }

    /// Closes the connection; bounded in time.
    pub async fn close(mut self) {
        self.ending.end("closed");
        connection::close(&self.connection).await;
        self.tasks.shutdown().await;
    }
}
