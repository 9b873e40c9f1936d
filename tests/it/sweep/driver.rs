//! The worker's seam over the model broker: the order of publish, confirm and acknowledgement of `driver/amqp`, with a crash point on
//! either side of every effect.
//!
//! Left out on purpose: the real driver's memory of lost acknowledgements and of what is in hand. It only makes copies rarer, does not
//! survive a process, and what it hides must be right without it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock::Clock;
use nbi_upgrade::driver::amqp::{PUBLISH_WITHIN, delay};
use nbi_upgrade::driver::{Delivery, Destination, Driver, DriverError, HandOver, Intake};
use nbi_upgrade::job::Standing;
use nbi_upgrade::job::state::Order;
use nbi_upgrade::message::{Codec, EventMessage, Orders};
use tokio::sync::{Notify, watch};

use super::broken::Broken;
use super::broker::Broker;
use super::faults::Fate;
use super::message::{Message, Queue};
use super::points::Life;

/// How long a confirm is waited for.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// What a confirm takes at least.
const CONFIRM_TAKES: Duration = Duration::from_millis(1);
/// How long the other queues take when the continuation's is quicker.
const OVERTAKEN_BY: Duration = Duration::from_secs(1);
/// Pauses after a refusal grow from this…
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(500);
/// …to this.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(8);
/// What closing waits for.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// What a command takes at most until a worker that runs knows of it.
pub(crate) const LAG: SignedDuration = SignedDuration::from_secs(2);

/// How long orders are kept.
const ORDERS_KEPT: SignedDuration = SignedDuration::from_hours(24 * 30);

/// What settles a delivery.
#[derive(Debug)]
pub(crate) struct ModelToken {
    pub(super) tag: u64,
    pub(super) job: String,
}

/// A delivery, and the message it came as.
pub(super) struct Item {
    pub(super) delivery: Delivery<ModelToken>,
    pub(super) message: Message,
}

/// What the worker wants to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) intake: Intake,
    pub(super) is_stopping: bool,
}

/// How far the intake has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    TakesIn,
    TakesNothing,
    Settled,
}

/// What is let in, and what waits for the worker.
pub(super) struct Gate {
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) progress: watch::Sender<Progress>,
    inbox: Mutex<VecDeque<Item>>,
    changed: Notify,
}

impl Gate {
    fn new() -> Self {
        let wanted = Wanted {
            intake: Intake::Open,
            is_stopping: false,
        };
        Self {
            wanted: watch::Sender::new(wanted),
            progress: watch::Sender::new(Progress::TakesIn),
            inbox: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn inbox(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: Item) {
        self.inbox().push_back(item);
        self.changed.notify_waiters();
    }

    /// What waits and is not wanted any more.
    pub(super) fn left_over(&self) -> Vec<Item> {
        if self.keeps() {
            return Vec::new();
        }
        self.inbox().drain(..).collect()
    }

    /// Whether what comes in is wanted.
    pub(super) fn keeps(&self) -> bool {
        let wanted = *self.wanted.borrow();
        !wanted.is_stopping && wanted.intake != Intake::Closed
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.wanted.borrow().is_stopping
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let was = *wanted;
            change(wanted);
            *wanted != was
        });
        self.changed.notify_waiters();
    }
}

/// A message on its way out.
pub(super) enum Outgoing {
    Event(EventMessage),
    /// To its queue, or to a delay queue.
    Again {
        message: Message,
        ttl: Option<Duration>,
    },
    /// To the dead letters, for this reason.
    Dead {
        message: Message,
        reason: &'static str,
    },
}

impl Outgoing {
    fn name(&self) -> &'static str {
        match self {
            Self::Event(event) => event.event_type,
            Self::Again { .. } => "the continuation",
            Self::Dead { .. } => "the dead letter",
        }
    }

    /// For its next try. A continuation of which nobody knows whether it arrived may be a copy from then on.
    fn again(mut self, fate: Fate) -> Self {
        if let Self::Again { message, .. } = &mut self
            && message.queue == Queue::Steps
        {
            message.marked |= fate.is_unknown();
        }
        self
    }
}

/// The parts that intake and hand-over share.
pub(crate) struct Parts {
    pub(super) broker: Broker,
    pub(super) life: Arc<Life>,
    pub(super) codec: Codec,
    /// The worker's own clock, which may be wrong.
    pub(super) clock: Clock,
    pub(super) broken: Option<Broken>,
    /// What this process knows of the commands.
    orders: Orders,
    /// Commands read.
    read: Mutex<usize>,
    pub(super) gate: Gate,
}

/// The driver of one worker process.
pub(crate) struct ModelDriver {
    parts: Arc<Parts>,
}

impl ModelDriver {
    /// A driver, and the task that fills it, which dies with the process.
    pub(crate) fn new(parts: Parts) -> (Self, tokio::task::JoinHandle<()>) {
        let parts = Arc::new(parts);
        let intake = tokio::spawn(Arc::clone(&parts).take_in());
        (Self { parts }, intake)
    }
}

impl Parts {
    /// Of a process that is born: it reads all commands before it takes a job.
    pub(crate) fn new(
        broker: Broker,
        life: Arc<Life>,
        codec: Codec,
        clock: Clock,
        broken: Option<Broken>,
    ) -> Self {
        // One that forgets begins with what comes next.
        let read = match broken {
            Some(Broken::ForgetsOrders) => broker.commands(0, Timestamp::MAX).len(),
            Some(_) | None => 0,
        };
        let parts = Self {
            broker,
            life,
            codec,
            clock,
            broken,
            orders: Orders::new(ORDERS_KEPT),
            read: Mutex::new(read),
            gate: Gate::new(),
        };
        parts.read_commands(SignedDuration::ZERO);
        parts
    }

    /// Reads on in the stream of commands; they come with a delay, which is not the same for all. After a lost connection the stream is
    /// read from its beginning, and what that gave takes the place of what stood.
    fn read_commands(&self, lag: SignedDuration) {
        let now = self.life.history.now();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if self.broker.commands_come_again() {
            let orders = Orders::new(ORDERS_KEPT);
            let all = self.broker.commands(0, now - lag);
            for (at, command) in &all {
                orders.apply(command, *at, now);
            }
            // Never less than was known: a reading ends at a mark of its own.
            if all.len() >= *read {
                *read = all.len();
                self.orders.replace(orders);
            }
            return;
        }
        for (at, command) in self.broker.commands(*read, now - lag) {
            *read += 1;
            self.orders.apply(&command, at, now);
        }
    }

    fn lag(&self) -> SignedDuration {
        LAG * i32::try_from(self.life.worker % 2).unwrap()
    }

    /// Publishes in order, as one group, and waits for all confirms; what is not confirmed comes back, ready for its next try.
    async fn publish_once(&self, tag: u64, job: &str, messages: Vec<Outgoing>) -> Vec<Outgoing> {
        self.life
            .point(|| format!("{job}: before publishing {}", messages.len()))
            .await;
        // Each queue has its own pace: the continuation may be there before the events are.
        let overtakes = messages.len() > 1 && self.broker.overtakes();
        let mut order: Vec<usize> = (0..messages.len()).collect();
        if overtakes {
            order.rotate_right(1);
        }
        let mut fates = vec![Fate::PublishLost; messages.len()];
        let mut takes = Duration::ZERO;
        for (position, index) in order.into_iter().enumerate() {
            let message = &messages[index];
            if overtakes && position == 1 {
                tokio::time::sleep(OVERTAKEN_BY).await;
            }
            let worker = self.life.worker;
            let fate = match message {
                Outgoing::Event(event) => self.broker.publish_event(worker, tag, event),
                Outgoing::Again { message, ttl } => {
                    self.broker.publish_step(worker, tag, message.clone(), *ttl)
                }
                Outgoing::Dead { message, reason } => {
                    self.broker.publish_dead(worker, message, reason)
                }
            };
            takes = takes.max(match fate {
                Fate::ConfirmLate => CONFIRM_WITHIN,
                _ => CONFIRM_TAKES + self.broker.latency(),
            });
            fates[index] = fate;
            self.life
                .point(|| format!("{job}: {} published, not confirmed", message.name()))
                .await;
        }
        tokio::time::sleep(takes).await;
        self.life
            .point(|| format!("{job}: answered: {fates:?}"))
            .await;
        messages
            .into_iter()
            .zip(fates)
            .filter(|(_, fate)| *fate != Fate::Confirmed)
            .map(|(message, fate)| message.again(fate))
            .collect()
    }

    /// Publishes until all is confirmed; false: the time is up, or the worker stops and `yields`.
    pub(super) async fn publish(
        &self,
        tag: u64,
        job: &str,
        mut messages: Vec<Outgoing>,
        yields: bool,
    ) -> bool {
        let begun = tokio::time::Instant::now();
        let mut pause = REFUSED_PAUSE_MIN;
        while !messages.is_empty() {
            messages = self.publish_once(tag, job, messages).await;
            if messages.is_empty() {
                break;
            }
            if begun.elapsed() + pause >= PUBLISH_WITHIN || yields && self.gate.is_stopping() {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REFUSED_PAUSE_MAX);
        }
        true
    }

    pub(super) async fn ack(&self, tag: u64, job: &str) -> bool {
        self.life.point(|| format!("{job}: before the ack")).await;
        let is_done = self.broker.ack(self.life.worker, tag);
        self.life.point(|| format!("{job}: acknowledged")).await;
        is_done
    }

    /// Everything that a hand-over publishes: the events, then the continuation.
    fn messages(&self, hand_over: HandOver) -> Vec<Outgoing> {
        let HandOver {
            mut work,
            to,
            events,
        } = hand_over;
        let mut messages: Vec<Outgoing> = events
            .into_iter()
            .map(|mut event| {
                if self.broken == Some(Broken::RandomEventId) {
                    event.id = format!("{:032x}", fastrand::u128(..));
                }
                Outgoing::Event(event)
            })
            .collect();
        let due = match to {
            Destination::Nowhere => return messages,
            Destination::Now => None,
            Destination::At(due) => Some(due),
        };
        work.not_due_before = due;
        let job = work.job.order.job_id.as_str();
        let message = Message::new(Queue::Steps, job, self.codec.encode_step(&work), false);
        messages.push(Outgoing::Again {
            message,
            ttl: due.and_then(|due| self.until(due)),
        });
        messages
    }

    /// How long a message that is due then stays in a delay queue, if it goes into one.
    pub(super) fn until(&self, due: Timestamp) -> Option<Duration> {
        delay::rung(due, (self.clock)()).map(|rung| Duration::from_secs(rung.seconds()))
    }

    async fn hand_over(&self, tag: u64, job: &str, hand_over: HandOver) -> Result<(), DriverError> {
        let is_over = hand_over.to == Destination::Nowhere;
        let messages = self.messages(hand_over);
        if !self.publish(tag, job, messages, false).await {
            return Err(DriverError::NotPublished {
                target: "the broker".to_owned(),
                message: "not confirmed in time".to_owned(),
            });
        }
        if is_over {
            self.broker.is_over(tag);
        }
        Ok(())
    }
}

impl Driver for ModelDriver {
    type Token = ModelToken;

    async fn receive(&self) -> Option<Delivery<ModelToken>> {
        let Parts { gate, broker, .. } = &*self.parts;
        loop {
            let changed = gate.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if gate.is_stopping() {
                return None;
            }
            while gate.keeps() {
                let Some(item) = gate.inbox().pop_front() else {
                    break;
                };
                // What a lost connection brought is thrown away: it comes again.
                let tag = item.delivery.token.tag;
                if broker.is_in_hand(tag) {
                    return Some(item.delivery);
                }
                broker.let_go(tag);
            }
            changed.await;
        }
    }

    async fn carry_out(&self, token: ModelToken, hand_over: HandOver) -> Result<(), DriverError> {
        let ModelToken { tag, job } = token;
        let parts = &self.parts;
        if parts.broken == Some(Broken::AckFirst) {
            parts.ack(tag, &job).await;
            return parts.hand_over(tag, &job, hand_over).await;
        }
        if let Err(error) = parts.hand_over(tag, &job, hand_over).await {
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

    fn set_intake(&self, intake: Intake) {
        self.parts.gate.change(|wanted| wanted.intake = intake);
    }

    async fn stop(&self) {
        let gate = &self.parts.gate;
        gate.change(|wanted| wanted.is_stopping = true);
        // It ends at once: nothing in it waits. An error would say that the process is gone.
        let _ = gate
            .progress
            .subscribe()
            .wait_for(|progress| *progress >= Progress::TakesNothing)
            .await;
    }

    async fn close(&self) {
        let mut progress = self.parts.gate.progress.subscribe();
        let settled = progress.wait_for(|progress| *progress == Progress::Settled);
        // What is not settled by then comes again.
        let _ = tokio::time::timeout(SETTLE_WITHIN, settled).await;
    }
}
