//! Events as a consumer of the results sees them: a durable queue of its own, read across lost connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

use super::processes::LOOK_AGAIN;
use super::repeats;

/// Not under the program's prefix: a consumer's own.
const QUEUE: &str = "collector";
const FINALS: [&str; 4] = [
    "upgrade.completed",
    "upgrade.failed",
    "upgrade.cancelled",
    "upgrade.rejected",
];

/// An event as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) body: Value,
    pub(crate) properties: BasicProperties,
}

impl Seen {
    /// A text of the event's data.
    pub(crate) fn data(&self, name: &str) -> &str {
        self.body["data"][name].as_str().unwrap_or("-")
    }

    fn is_final(&self) -> bool {
        self.body["type"]
            .as_str()
            .is_some_and(|kind| FINALS.contains(&kind))
    }
}

/// Everything that came, counted.
pub(crate) struct Collector {
    url: String,
    consumer: Option<(Connection, Consumer)>,
    /// By id, the first of each.
    events: BTreeMap<String, Seen>,
    /// Jobs by the ids of their final events.
    finals: BTreeMap<String, BTreeSet<String>>,
    /// Events that came again with the same id.
    pub(crate) repeats: usize,
}

impl Collector {
    /// Binds a queue to the results, which must stand.
    pub(crate) async fn begin(url: &str, exchange: &str) -> Self {
        let mut collector = Self {
            url: url.to_owned(),
            consumer: None,
            events: BTreeMap::new(),
            finals: BTreeMap::new(),
            repeats: 0,
        };
        let begun = collector.bind(exchange).await;
        begun.expect("a consumer can bind a queue of its own");
        collector
    }

    async fn bind(&mut self, exchange: &str) -> lapin::Result<()> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(QUEUE.into(), options, arguments)
            .await?;
        let nothing = FieldTable::default();
        let bound = channel.queue_bind(
            QUEUE.into(),
            exchange.into(),
            "#".into(),
            QueueBindOptions::default(),
            nothing,
        );
        bound.await?;
        connection.close(200, "done".into()).await
    }

    async fn connect(&self) -> lapin::Result<(Connection, Consumer)> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(500, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(QUEUE.into(), "".into(), options, FieldTable::default())
            .await?;
        Ok((connection, consumer))
    }

    /// Takes what comes until `is_enough` or the time is over; says whether it was enough.
    pub(crate) async fn take_until(
        &mut self,
        within: Duration,
        mut is_enough: impl FnMut(&Self) -> bool,
    ) -> bool {
        let deadline = Instant::now() + within;
        while !is_enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.consumer.is_none() {
                self.consumer = self.connect().await.ok();
            }
            let Some((_, consumer)) = &mut self.consumer else {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            };
            match tokio::time::timeout(left, consumer.next()).await {
                Err(_) => return false,
                Ok(Some(Ok(delivery))) => {
                    let body = serde_json::from_slice(&delivery.data).expect("an event is JSON");
                    let properties = delivery.properties;
                    self.count(Seen { body, properties }, delivery.redelivered);
                    drop(delivery.acker.ack(BasicAckOptions::default()).await);
                }
                // The connection is lost: what was not acknowledged comes again, marked.
                Ok(Some(Err(_)) | None) => self.consumer = None,
            }
        }
        true
    }

    fn count(&mut self, seen: Seen, is_redelivered: bool) {
        let id = seen.body["id"]
            .as_str()
            .expect("an event has an id")
            .to_owned();
        if let Some(first) = self.events.get(&id) {
            // Whoever sends two commands under one id, or a request with two deadlines, gets two answers under one: that is the sender's matter.
            if seen.is_final() {
                let differences = repeats::differences(&first.body, &seen.body, false);
                assert!(
                    differences.is_empty(),
                    "one id, two events: {id}: {differences:?}"
                );
            }
            self.repeats += usize::from(!is_redelivered);
            return;
        }
        if seen.is_final() {
            let job = seen.data("job_id").to_owned();
            self.finals.entry(job).or_default().insert(id.clone());
        }
        self.events.insert(id, seen);
    }

    /// Waits until this many jobs have an outcome.
    pub(crate) async fn finals(&mut self, count: usize, within: Duration) {
        let is_enough = self
            .take_until(within, |all| all.finals.len() >= count)
            .await;
        assert!(
            is_enough,
            "{} of {count} jobs have an outcome after {within:?}: {:?}",
            self.finals.len(),
            self.outcomes()
        );
    }

    /// How many jobs have an outcome.
    pub(crate) fn count_of_finals(&self) -> usize {
        self.finals.len()
    }

    /// Jobs with more than one final event, which must not be.
    pub(crate) fn contradictory(&self) -> Vec<&String> {
        let many = self.finals.iter().filter(|(_, ids)| ids.len() > 1);
        many.map(|(job, _)| job).collect()
    }

    /// All events, the first of each id.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Seen> {
        self.events.values()
    }

    /// Final events.
    pub(crate) fn final_events(&self) -> impl Iterator<Item = &Seen> {
        self.events().filter(|seen| seen.is_final())
    }

    /// Final events by outcome and reason.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.final_events() {
            let name = format!("{}/{}", seen.data("outcome"), seen.data("reason"));
            *counts.entry(name).or_default() += 1;
        }
        counts
    }
}
