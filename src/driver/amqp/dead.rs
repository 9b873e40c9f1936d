//! The dead letters: looked at, sent back, removed. For the command line.
//!
//! A quorum queue cannot be read without taking: a letter that is looked at is taken and given back. Brokers before 4.3 count that towards
//! the queue's delivery limit, past which a dead letter is dropped for good. Ours is a million, but a policy may lower it, and a queue that
//! an earlier version declared has the broker's, which is 20 from 4.0 on. So a letter that has
//! been given back `LOOKS_MAX` times is replaced by a copy, whose count begins anew. What is given back goes to the front in its old order.
//! No letter leaves the queue before what replaces it is confirmed; a command that is killed in between leaves two copies of one letter,
//! with the same id.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::connection::{self, CALL_TIMEOUT};
use super::error::{BrokerError, bounded};
use super::origin::Origin;
use super::outgoing::{Outgoing, Target, short};
use super::properties;
use super::requester::Requester;
use super::settings::AmqpSettings;
use crate::message::DeadLetter;

/// How often a letter is given back before it is replaced by a copy: below any limit that a site would set for its queues.
const LOOKS_MAX: u64 = 2;
/// Letters replaced in one go.
const BATCH: usize = 100;
/// Acknowledgements are forgotten when the connection closes too early; see `Link::settled`.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);

/// A dead letter in hand: kept, sent back or removed by [`DeadLetters`].
#[derive(Debug)]
pub struct Letter {
    /// Names the letter in every listing: the beginning of a hash of what it is and when it died.
    pub id: String,
    /// Why it is here: `invalid_request`, `malformed_step`, or the broker's word, e.g. `delivery_limit`.
    pub reason: String,
    /// What is wrong with it, where a worker said so.
    pub error: Option<String>,
    /// The queue it came from.
    pub queue: Option<String>,
    /// The worker that gave up on it.
    pub instance: Option<String>,
    /// When it died.
    pub time: Option<Timestamp>,
    /// Its `message_id`.
    pub message_id: Option<String>,
    /// Its `content_type`.
    pub content_type: Option<String>,
    /// Its headers that travel on, as text.
    pub headers: Vec<(String, String)>,
    /// The message as it was.
    pub body: Vec<u8>,
    looks: u64,
    delivery: Delivery,
}

impl Letter {
    fn of(mut delivery: Delivery) -> Self {
        let body = std::mem::take(&mut delivery.data);
        let table = delivery.properties.headers().clone().unwrap_or_default();
        let own = |name: &str| properties::header_text(&table, name).map(str::to_owned);
        let death = Death::of(&table);
        let reason = own(DeadLetter::REASON).or(death.reason);
        let queue = own(DeadLetter::QUEUE).or(death.queue);
        let time = own(DeadLetter::TIME)
            .and_then(|text| text.parse().ok())
            .or(death.time);
        let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.to_string());
        let message_id = text(delivery.properties.message_id());
        let mut named = body.clone();
        let when = time.as_ref().map(ToString::to_string);
        for part in [&message_id, &reason, &queue, &when] {
            named.push(0);
            named.extend_from_slice(part.as_deref().unwrap_or_default().as_bytes());
        }
        let mut id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &named)
            .simple()
            .to_string();
        id.truncate(10);
        Self {
            id,
            reason: reason.unwrap_or_else(|| "unknown".to_owned()),
            error: own(DeadLetter::ERROR),
            queue,
            instance: own(DeadLetter::INSTANCE),
            time,
            message_id,
            content_type: text(delivery.properties.content_type()),
            headers: travelling(&delivery),
            body,
            looks: looks(&table),
            delivery,
        }
    }

    /// Where it came from, if that is one of our queues.
    #[must_use]
    pub fn origin(&self, prefix: &str) -> Option<Origin> {
        Origin::of(self.queue.as_deref()?, prefix)
    }

    /// The same letter as a new message: what the broker said of its death is said in our headers, as its own are not ours to set.
    fn renewed(&self) -> Outgoing {
        let properties = properties::of_original(&self.delivery.properties);
        let mut headers = properties.headers().clone().unwrap_or_default();
        let time = self.time.as_ref().map(ToString::to_string);
        for (name, value) in [
            (DeadLetter::REASON, Some(&self.reason)),
            (DeadLetter::QUEUE, self.queue.as_ref()),
            (DeadLetter::TIME, time.as_ref()),
        ] {
            if let Some(value) = value {
                headers.insert(name.into(), AMQPValue::LongString(value.as_str().into()));
            }
        }
        Outgoing {
            target: Target::DeadQueue,
            properties: properties.with_headers(headers),
            body: self.body.clone(),
        }
    }

    /// The message as it was before it died, without what was said about its death.
    fn revived(&self, origin: Origin, prefix: &str) -> Outgoing {
        let properties = properties::of_original(&self.delivery.properties);
        let mut headers = FieldTable::default();
        for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
            if !DeadLetter::HEADERS.contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        let properties = properties.with_headers(headers);
        // A request that was found invalid was never worked on; of everything else that is not certain.
        let properties = if self.reason == DeadLetter::INVALID_REQUEST {
            properties
        } else {
            properties::marked_redelivered(properties)
        };
        Outgoing {
            target: origin.target(prefix),
            properties,
            body: self.body.clone(),
        }
    }
}

/// What the broker says of a message that it dead-lettered itself.
#[derive(Debug, Default)]
struct Death {
    reason: Option<String>,
    queue: Option<String>,
    time: Option<Timestamp>,
}

impl Death {
    /// The latest death; the broker puts it first.
    fn of(headers: &FieldTable) -> Self {
        let deaths = match headers.inner().get("x-death") {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice(),
            _ => &[],
        };
        let Some(AMQPValue::FieldTable(latest)) = deaths.first() else {
            return Self::default();
        };
        let time = match latest.inner().get("time") {
            Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds)
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds).ok()),
            _ => None,
        };
        Self {
            reason: properties::header_text(latest, "reason").map(str::to_owned),
            queue: properties::header_text(latest, "queue").map(str::to_owned),
            time,
        }
    }
}

/// How often it was given back, as far as the broker says; brokers from 4.3 on count takings apart.
fn looks(headers: &FieldTable) -> u64 {
    match headers.inner().get("x-delivery-count") {
        Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongInt(count)) => u64::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongUInt(count)) => u64::from(*count),
        _ => 0,
    }
}

/// The headers that a new message takes along, without ours, as text.
fn travelling(delivery: &Delivery) -> Vec<(String, String)> {
    let safe = properties::of_original(&delivery.properties);
    let all = safe.headers().iter().flat_map(FieldTable::inner);
    all.filter(|(name, _)| !DeadLetter::HEADERS.contains(&name.as_str()))
        .map(|(name, value)| {
            let text = match value {
                AMQPValue::LongString(text) => text.to_string(),
                AMQPValue::ShortString(text) => text.to_string(),
                AMQPValue::Boolean(value) => value.to_string(),
                other => format!("{other:?}"),
            };
            (name.to_string(), text)
        })
        .collect()
}

/// The queue of dead letters, opened for one command.
#[derive(Debug)]
pub struct DeadLetters {
    requester: Requester,
    channel: Channel,
    queue: String,
    waiting: u32,
    taken: u32,
    worn: Vec<Letter>,
}

impl DeadLetters {
    /// Connects, and counts what is there.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker does not let us in or the queue does not stand.
    pub async fn open(settings: AmqpSettings) -> Result<Self, BrokerError> {
        let queue = format!("{}.dead", settings.prefix);
        let requester = Requester::connect(settings).await?;
        let channel = connection::channel(&requester.connection, "dead letters").await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(short(&queue)?, options, FieldTable::default());
        let declared = bounded(|| format!("find queue \"{queue}\""), CALL_TIMEOUT, declared)
            .await
            .map_err(|error| match error.code {
                Some(404) => error.with_remedy(
                    "declare it with `nbi-upgrade topology declare`, or correct amqp.prefix",
                ),
                _ => error,
            })?;
        Ok(Self {
            waiting: declared.message_count(),
            requester,
            channel,
            queue,
            taken: 0,
            worn: Vec::new(),
        })
    }

    /// Why the broker takes no messages, while it does not.
    #[must_use]
    pub fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.requester.blocked()
    }

    /// Letters that were there when the queue was opened and that nobody else has in hand.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Listens to events and to what dies, from now on: what becomes of letters that are sent back.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker refuses.
    pub async fn listen(&mut self) -> Result<mpsc::Receiver<Vec<u8>>, BrokerError> {
        self.requester
            .subscribe_to(&[("results", "#"), ("dead", "")])
            .await
    }

    /// Takes the next letter; none that came after the queue was opened.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]; letters in hand go back by themselves.
    pub async fn next(&mut self) -> Result<Option<Letter>, BrokerError> {
        if self.taken == self.waiting {
            return Ok(None);
        }
        let got = self
            .channel
            .basic_get(short(&self.queue)?, BasicGetOptions::default());
        let action = || format!("take a letter from queue \"{}\"", self.queue);
        let got = bounded(action, CALL_TIMEOUT, got).await?;
        self.taken += 1;
        Ok(got.map(|got| Letter::of(got.delivery)))
    }

    /// The letter stays; it goes back when the queue is closed.
    pub fn keep(&mut self, letter: Letter) {
        if letter.looks >= LOOKS_MAX {
            self.worn.push(letter);
        }
    }

    /// Sends the letter back to the workers, and removes it here once that is confirmed.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: nothing was removed.
    pub async fn requeue(&mut self, letter: &Letter, origin: Origin) -> Result<(), BrokerError> {
        let message = letter.revived(origin, &self.requester.settings.prefix);
        self.publish(vec![message]).await?;
        self.remove(letter).await
    }

    /// Removes the letter.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]: it may still be there.
    pub async fn remove(&mut self, letter: &Letter) -> Result<(), BrokerError> {
        let action = || format!("remove letter {} from queue \"{}\"", letter.id, self.queue);
        let acked = letter.delivery.acker.ack(BasicAckOptions::default());
        if bounded(action, CALL_TIMEOUT, acked).await? {
            Ok(())
        } else {
            Err(BrokerError::new(action(), "the channel is closed"))
        }
    }

    /// Gives back what was kept, and closes the connection.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when letters that were looked at often could not be replaced; they are there all the same.
    pub async fn close(mut self) -> Result<(), BrokerError> {
        let renewed = self.renew().await;
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        // Tag 0 stands for all. Where it fails, they go back with the connection.
        let given_back = self.channel.basic_nack(0, all);
        drop(tokio::time::timeout(CALL_TIMEOUT, given_back).await);
        if self.taken > 0 {
            tokio::time::sleep(SETTLES_WITHIN).await;
        }
        connection::close_channel(&self.channel).await;
        self.requester.close().await;
        renewed
    }

    async fn renew(&mut self) -> Result<(), BrokerError> {
        let worn = std::mem::take(&mut self.worn);
        for batch in worn.chunks(BATCH) {
            let copies: Vec<_> = batch.iter().map(Letter::renewed).collect();
            self.publish(copies).await?;
            for letter in batch {
                self.remove(letter).await?;
            }
        }
        Ok(())
    }

    /// Publishes all; every one is confirmed, or it is an error.
    async fn publish(&self, messages: Vec<Outgoing>) -> Result<(), BrokerError> {
        let prefix = &self.requester.settings.prefix;
        let messages = Arc::new(messages);
        let answers = self.requester.publisher.publish_all(&messages, false).await;
        for (message, answer) in messages.iter().zip(answers) {
            answer.map_err(|error| {
                let action = format!("publish to {}", message.target.name(prefix));
                BrokerError::new(action, error.to_string())
            })?;
        }
        Ok(())
    }
}
