//! The load: publishes requests and sees the final events come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

/// Publishes that wait for their confirms at a time.
const WINDOW: usize = 256;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A publisher of requests and a consumer of final events.
pub(crate) struct Load {
    connection: Connection,
    publisher: Channel,
    finals: Consumer,
    next: usize,
}

impl Load {
    pub(crate) async fn on(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the broker is up");
        let publisher = connection.create_channel().await.expect("a channel");
        publisher
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        let channel = connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare("finals".into(), options, FieldTable::default())
            .await
            .expect("a queue");
        for key in [
            "upgrade.completed.#",
            "upgrade.failed.#",
            "upgrade.rejected.#",
        ] {
            channel
                .queue_bind(
                    "finals".into(),
                    "upgrade.results".into(),
                    key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .expect("a binding");
        }
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let finals = channel
            .basic_consume("finals".into(), "".into(), options, FieldTable::default())
            .await;
        Self {
            connection,
            publisher,
            finals: finals.expect("it is ours"),
            next: 0,
        }
    }

    /// Publishes so many requests for new devices; all are with the broker afterwards.
    pub(crate) async fn publish(&mut self, count: usize) {
        let mut confirms = std::collections::VecDeque::with_capacity(WINDOW);
        for _ in 0..count {
            if confirms.len() == WINDOW {
                self.confirmed(confirms.pop_front()).await;
            }
            let number = self.next;
            self.next += 1;
            confirms.push_back(self.write(number).await);
        }
        while !confirms.is_empty() {
            self.confirmed(confirms.pop_front()).await;
        }
    }

    async fn confirmed(&self, confirm: Option<lapin::PublisherConfirm>) {
        let confirm = confirm.expect("there is one");
        assert!(
            matches!(confirm.await, Ok(lapin::Confirmation::Ack(None))),
            "a request is not confirmed"
        );
    }

    async fn write(&self, number: usize) -> lapin::PublisherConfirm {
        let body = format!(
            r#"{{"job_id":"bench:{number}","cpe_id":"CPE{number:08}","firmware_url":"https://files.example.com/firmware/model-a/2.4.1.bin"}}"#
        );
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into());
        let written = self.publisher.basic_publish(
            "upgrade.requests".into(),
            "request".into(),
            options,
            body.as_bytes(),
            properties,
        );
        written.await.expect("it is written")
    }

    /// Waits for so many final events; all must be completions.
    pub(crate) async fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.take_one().await;
        }
    }

    async fn take_one(&mut self) -> Vec<u8> {
        let next = tokio::time::timeout(PATIENCE, self.finals.next()).await;
        let delivery = next
            .expect("an outcome in time")
            .expect("the connection stands")
            .expect("a delivery");
        let is_completed = delivery
            .routing_key
            .as_str()
            .starts_with("upgrade.completed");
        assert!(is_completed, "{}", String::from_utf8_lossy(&delivery.data));
        delivery.data
    }

    /// One request each `every`; from each publish to its final event, in milliseconds, sorted.
    pub(crate) async fn trickle(&mut self, count: usize, every: Duration) -> Vec<f64> {
        let mut begun = HashMap::new();
        let mut took = Vec::with_capacity(count);
        let mut tick = tokio::time::interval(every);
        let first = self.next;
        while took.len() < count {
            tokio::select! {
                biased;
                body = self.take_one() => {
                    let now = Instant::now();
                    let event: Value = serde_json::from_slice(&body).expect("it is JSON");
                    let job_id = event["data"]["job_id"].as_str().expect("a job").to_owned();
                    let since: Instant = begun.remove(&job_id).expect("each job ends once");
                    took.push(now.duration_since(since).as_secs_f64() * 1_000.0);
                }
                _ = tick.tick(), if self.next < first + count => {
                    let number = self.next;
                    self.next += 1;
                    begun.insert(format!("bench:{number}"), Instant::now());
                    drop(self.write(number).await);
                }
            }
        }
        took.sort_by(f64::total_cmp);
        took
    }

    /// Messages ready in a queue.
    pub(crate) async fn depth(&self, queue: &str) -> usize {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        let depth = queue.expect("the queue stands").message_count();
        drop(channel.close(200, "OK".into()).await);
        usize::try_from(depth).expect("a count")
    }
}

/// The value below which this share of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[at - 1]
}
