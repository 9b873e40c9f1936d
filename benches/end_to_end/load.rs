//! The load: publishes requests and sees the final events come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde_json::Value;

/// Publishes that wait for their confirms at a time.
const WINDOW: usize = 256;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// What its connection is called.
pub(crate) const LOAD: &str = "bench-load";

/// A publisher of requests and a consumer of final events.
pub(crate) struct Load {
    connection: Connection,
    publisher: Channel,
    finals: Consumer,
    next: usize,
}

impl Load {
    pub(crate) async fn on(url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name(LOAD.into());
        let connection = Connection::connect(url, properties)
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
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let requests = numbers.map(|number| (number, request(number)));
        self.publish_all(("upgrade.requests", "request"), requests)
            .await;
    }

    /// Puts so many jobs beside the one that waits in this queue: each is its message, for a device of its own.
    pub(crate) async fn multiply(&mut self, queue: &str, count: usize) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let one = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await;
        let one = one.expect("the queue stands").expect("a job waits in it");
        let text = String::from_utf8(one.delivery.data.clone()).expect("it is ours");
        let options = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        one.acker.nack(options).await.expect("the channel stands");
        drop(channel.close(200, "OK".into()).await);
        let number = text.split("bench:").nth(1).expect("a job of ours");
        let number = number
            .split('"')
            .next()
            .expect("a number")
            .parse()
            .expect("a number");
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let copies = numbers.map(|other| {
            let copy = text.replace(&job_id(number), &job_id(other));
            (other, copy.replace(&device(number), &device(other)))
        });
        self.publish_all(("", queue), copies).await;
    }

    async fn publish_all(&self, to: (&str, &str), messages: impl Iterator<Item = (usize, String)>) {
        let mut confirms = std::collections::VecDeque::with_capacity(WINDOW);
        for (number, body) in messages {
            if confirms.len() == WINDOW {
                self.confirmed(confirms.pop_front()).await;
            }
            confirms.push_back(self.write(to, number, &body).await);
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

    async fn write(&self, to: (&str, &str), number: usize, body: &str) -> lapin::PublisherConfirm {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(job_id(number).into());
        let (exchange, key) = to;
        let written = self.publisher.basic_publish(
            exchange.into(),
            key.into(),
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
                    begun.insert(job_id(number), Instant::now());
                    drop(self.write(("upgrade.requests", "request"), number, &request(number)).await);
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

fn job_id(number: usize) -> String {
    format!("bench:{number}")
}

fn device(number: usize) -> String {
    format!("CPE{number:08}")
}

fn request(number: usize) -> String {
    format!(
        r#"{{"job_id":"{}","cpe_id":"{}","firmware_url":"https://files.example.com/firmware/model-a/2.4.1.bin"}}"#,
        job_id(number),
        device(number)
    )
}

/// The value below which this share of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[at - 1]
}
