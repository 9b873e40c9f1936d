//! The worker's seam over the model broker: the order of publish, confirm and acknowledgement of `driver/amqp`, with a crash point on
//! either side of every effect.
//!
//! Left out on purpose: the real driver's memory of lost acknowledgements and of what is in hand. It only makes copies rarer, does not
//! survive a process, and what it hides must be right without it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock::Clock;
use nbi_upgrade::driver::amqp::delay;
use nbi_upgrade::driver::{Delivery, Destination, Driver, DriverError, HandOver, Intake};
use nbi_upgrade::job::Standing;
use nbi_upgrade::job::state::Order;
use nbi_upgrade::message::{Codec, Incoming, Orders, Work};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::broken::Broken;
use super::broker::{Broker, Taken};
use super::faults::Fate;
use super::message::{Message, Queue};
use super::points::Life;

/// How long a hand-over is tried before the delivery goes back.
const PUBLISH_WITHIN: Duration = Duration::from_secs(60);
/// How long a confirm is waited for.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// What a confirm takes at least.
const CONFIRM_TAKES: Duration = Duration::from_millis(1);

/// What a command takes at most until a worker that runs knows of it.
pub(crate) const LAG: SignedDuration = SignedDuration::from_secs(2);

/// What settles a delivery.
#[derive(Debug)]
pub(crate) struct ModelToken {
    tag: u64,
    job: String,
}

/// The parts that intake and hand-over share.
pub(crate) struct Parts {
    pub(crate) broker: Broker,
    pub(crate) life: Arc<Life>,
    pub(crate) codec: Codec,
    /// The worker's own clock, which may be wrong.
    pub(crate) clock: Clock,
    pub(crate) broken: Option<Broken>,
    /// What this process knows of the commands.
    pub(crate) orders: Orders,
    /// Commands read.
    pub(crate) read: std::sync::Mutex<usize>,
}

/// The driver of one worker process.
pub(crate) struct ModelDriver {
    parts: Arc<Parts>,
    inbox: Mutex<mpsc::UnboundedReceiver<Delivery<ModelToken>>>,
}

impl ModelDriver {
    /// A driver, and the task that fills it, which dies with the process.
    pub(crate) fn new(parts: Parts) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let parts = Arc::new(parts);
        let intake = tokio::spawn(Arc::clone(&parts).take_in(sender));
        let driver = Self {
            parts,
            inbox: Mutex::new(receiver),
        };
        (driver, intake)
    }
}

impl Parts {
    /// Reads on in the stream of commands. A process that is born reads all of it before it takes a job; later ones come with a delay,
    /// which is not the same for all.
    pub(crate) fn read_commands(&self, lag: SignedDuration) {
        let now = self.life.history.now();
        let mut read = self.read.lock().unwrap();
        for (at, command) in self.broker.commands(*read, now - lag) {
            *read += 1;
            self.orders.apply(&command, at, now);
        }
    }

    fn lag(&self) -> SignedDuration {
        LAG * i32::try_from(self.life.worker % 2).unwrap()
    }
    /// Takes messages in until the process dies. Each is opened in a task of its own, as parking one may take its time.
    async fn take_in(self: Arc<Self>, inbox: mpsc::UnboundedSender<Delivery<ModelToken>>) {
        let mut tasks = JoinSet::new();
        loop {
            let changed = self.broker.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.broker.take(self.life.worker) {
                Taken::Delivery(tag, message) => {
                    tasks.spawn(Arc::clone(&self).open(tag, message, inbox.clone()));
                    while tasks.try_join_next().is_some() {}
                }
                Taken::Empty(None) => changed.await,
                Taken::Empty(Some(pause)) => {
                    // A timer counts whole milliseconds.
                    let pause = pause + Duration::from_millis(1);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// To the worker, or back into a delay queue if it is early, or to the dead letters.
    async fn open(
        self: Arc<Self>,
        tag: u64,
        message: Message,
        inbox: mpsc::UnboundedSender<Delivery<ModelToken>>,
    ) {
        let redelivered = message.is_redelivered();
        self.life
            .point(|| format!("{} taken in", message.job))
            .await;
        let incoming = Incoming {
            body: &message.body,
            ..Incoming::default()
        };
        let now = (self.clock)();
        let decoded = match message.queue {
            Queue::Requests => self
                .codec
                .decode_request(&incoming, now)
                .map_err(|rejection| rejection.to_string()),
            Queue::Steps => self
                .codec
                .decode_step(&incoming)
                .map_err(|error| error.to_string()),
        };
        let work = match decoded {
            Ok(work) => work,
            Err(reason) => return self.broker.dead_letter(self.life.worker, tag, &reason),
        };
        let rung = work
            .not_due_before
            .and_then(|due| delay::rung(due, (self.clock)()));
        if let Some(rung) = rung {
            let ttl = Some(Duration::from_secs(rung.seconds()));
            return self.park(tag, message, ttl, redelivered).await;
        }
        let Work { job, .. } = &work;
        let (stage, seq) = (job.progress.stage.name(), job.progress.seq);
        let again = if redelivered { ", redelivered" } else { "" };
        self.life
            .note(format!("begins {} {stage} seq {seq}{again}", message.job));
        let token = ModelToken {
            tag,
            job: message.job,
        };
        let delivery = Delivery {
            work,
            redelivered,
            token,
        };
        // Nobody listens: the process ends.
        let _ = inbox.send(delivery);
    }

    /// Publishes an early message again unchanged, then acknowledges it.
    async fn park(&self, tag: u64, message: Message, ttl: Option<Duration>, marked: bool) {
        let job = message.job.clone();
        let again = Message::new(message.queue, &job, message.body, marked);
        let fate = self.step(tag, again, ttl).await;
        if fate == Fate::Confirmed {
            self.ack(tag, &job).await;
        } else {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.broker.nack(tag);
        }
    }

    /// One publish of a continuation, with its points.
    async fn step(&self, tag: u64, message: Message, ttl: Option<Duration>) -> Fate {
        let job = message.job.clone();
        self.life
            .point(|| format!("{job}: before publishing the continuation"))
            .await;
        let fate = self
            .broker
            .publish_step(self.life.worker, tag, message, ttl);
        self.life
            .point(|| format!("{job}: continuation published, not confirmed"))
            .await;
        self.confirm(fate).await;
        self.life
            .point(|| format!("{job}: continuation confirmed"))
            .await;
        fate
    }

    async fn confirm(&self, fate: Fate) {
        let takes = match fate {
            Fate::ConfirmLate => CONFIRM_WITHIN,
            _ => CONFIRM_TAKES + self.broker.latency(),
        };
        tokio::time::sleep(takes).await;
    }

    async fn ack(&self, tag: u64, job: &str) -> bool {
        self.life.point(|| format!("{job}: before the ack")).await;
        let is_done = self.broker.ack(self.life.worker, tag);
        self.life.point(|| format!("{job}: acknowledged")).await;
        is_done
    }

    /// Publishes until it is confirmed or the time is up; whether it may have arrived twice does not matter for events.
    async fn events(&self, hand_over: &HandOver) -> Result<(), DriverError> {
        let begun = tokio::time::Instant::now();
        let job = &hand_over.work.job.order.job_id;
        for event in &hand_over.events {
            let mut event = event.clone();
            if self.broken == Some(Broken::RandomEventId) {
                event.id = format!("{:032x}", fastrand::u128(..));
            }
            loop {
                let kind = event.event_type;
                self.life
                    .point(|| format!("{job}: before publishing {kind}"))
                    .await;
                let fate = self.broker.publish_event(self.life.worker, &event);
                self.life
                    .point(|| format!("{job}: {kind} published, not confirmed"))
                    .await;
                self.confirm(fate).await;
                if fate == Fate::Confirmed {
                    break;
                }
                self.again(begun, "results").await?;
            }
        }
        Ok(())
    }

    /// A pause before another try, if there is time for one.
    async fn again(&self, begun: tokio::time::Instant, target: &str) -> Result<(), DriverError> {
        if begun.elapsed() >= PUBLISH_WITHIN {
            return Err(DriverError::NotPublished {
                target: target.to_owned(),
                message: "not confirmed in time".to_owned(),
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    async fn publish(&self, tag: u64, hand_over: HandOver) -> Result<(), DriverError> {
        self.events(&hand_over).await?;
        let begun = tokio::time::Instant::now();
        let HandOver { mut work, to, .. } = hand_over;
        let due: Option<Timestamp> = match to {
            Destination::Nowhere => {
                self.broker.is_over(tag);
                return Ok(());
            }
            Destination::Now => None,
            Destination::At(due) => Some(due),
        };
        work.not_due_before = due;
        let job = work.job.order.job_id.to_string();
        let body = self.codec.encode_step(&work);
        let mut marked = false;
        loop {
            let ttl = due
                .and_then(|due| delay::rung(due, (self.clock)()))
                .map(|rung| Duration::from_secs(rung.seconds()));
            let message = Message::new(Queue::Steps, &job, body.clone(), marked);
            let fate = self.step(tag, message, ttl).await;
            if fate == Fate::Confirmed {
                return Ok(());
            }
            marked |= fate.is_unknown();
            self.again(begun, "steps").await?;
        }
    }
}

impl Driver for ModelDriver {
    type Token = ModelToken;

    async fn receive(&self) -> Option<Delivery<ModelToken>> {
        self.inbox.lock().await.recv().await
    }

    async fn carry_out(&self, token: ModelToken, hand_over: HandOver) -> Result<(), DriverError> {
        let ModelToken { tag, job } = token;
        let parts = &self.parts;
        if parts.broken == Some(Broken::AckFirst) {
            parts.ack(tag, &job).await;
            return parts.publish(tag, hand_over).await;
        }
        if let Err(error) = parts.publish(tag, hand_over).await {
            parts.life.note(format!("gives {job} back: {error}"));
            parts.broker.nack(tag);
            return Err(error);
        }
        if parts.ack(tag, &job).await {
            Ok(())
        } else {
            Err(DriverError::NotAcknowledged {
                message: "the connection is gone".to_owned(),
            })
        }
    }

    async fn reject(&self, token: ModelToken) {
        self.parts.life.note(format!("{} panicked", token.job));
        self.parts.broker.nack(token.tag);
    }

    fn standing(&self, order: &Order) -> Standing {
        self.parts.read_commands(self.parts.lag());
        self.parts.orders.standing(order)
    }

    fn set_intake(&self, _intake: Intake) {}

    async fn stop(&self) {}

    async fn close(&self) {}
}
