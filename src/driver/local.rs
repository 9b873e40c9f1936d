//! Everything in one process: same wire format, tokio's clock, durable only with a journal.
//!
//! For `demo`, `run` and the stories of the tests. Continuations are encoded and decoded as on the broker, so that what does not
//! survive the wire shows here too. Without a journal a job dies with the process. With one, a hand-over counts only when it is on the
//! disk, as on the broker only when it is confirmed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc};

use super::delayed::Delayed;
use super::journal::Journal;
use super::{Delivery, Destination, Driver, DriverError, HandOver, Intake};
use crate::clock::{self, Clock};
use crate::job::Standing;
use crate::job::state::Order;
use crate::message::journal as records;
use crate::message::{
    Codec, Command, DeadLetter, EventMessage, FieldFault, Incoming, Named, Orders, StepError,
};
use crate::telemetry::Telemetry;

/// Deliveries of one message that made the worker panic before it is given up, as on the broker (`x-delivery-limit`).
const DELIVERY_LIMIT: u32 = 20;

/// The driver in one process.
pub struct LocalDriver {
    codec: Codec,
    clock: Clock,
    telemetry: Arc<Telemetry>,
    in_hand_max: usize,
    state: Mutex<State>,
    changed: Notify,
    orders: Orders,
    events: mpsc::UnboundedSender<EventMessage>,
    journal: Option<Journal>,
}

impl std::fmt::Debug for LocalDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LocalDriver")
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Message>,
    delayed: BinaryHeap<Reverse<Delayed<Message>>>,
    arrivals: u64,
    in_hand: usize,
    intake: Intake,
    stopped: bool,
    dead: Vec<(Vec<u8>, DeadLetter)>,
}

impl State {
    fn delay(&mut self, due: Timestamp, message: Message) {
        self.arrivals += 1;
        self.delayed.push(Reverse(Delayed {
            due,
            arrival: self.arrivals,
            message,
        }));
    }
}

/// A message in this process.
#[derive(Debug, Clone)]
struct Message {
    kind: Kind,
    body: Vec<u8>,
    deliveries: u32,
}

#[derive(Debug, Clone)]
enum Kind {
    Request(Properties),
    Step,
}

/// The properties of a request.
#[derive(Debug, Clone, Default)]
pub struct Properties {
    /// `content_type`.
    pub content_type: Option<String>,
    /// `correlation_id`.
    pub correlation_id: Option<String>,
    /// Header `traceparent`.
    pub traceparent: Option<String>,
}

/// What settles a delivery of this driver. Dropped unsettled, the message is lost with the process, as everything here.
#[derive(Debug)]
pub struct LocalToken(Message);

impl LocalDriver {
    /// A driver that hands out at most `in_hand_max` deliveries at a time, and the events it publishes.
    #[must_use]
    pub fn new(
        codec: Codec,
        clock: Clock,
        telemetry: Arc<Telemetry>,
        in_hand_max: usize,
    ) -> (Self, mpsc::UnboundedReceiver<EventMessage>) {
        let (events, received) = mpsc::unbounded_channel();
        let state = State {
            ready: VecDeque::new(),
            delayed: BinaryHeap::new(),
            arrivals: 0,
            in_hand: 0,
            intake: Intake::Open,
            stopped: false,
            dead: Vec::new(),
        };
        let driver = Self {
            codec,
            clock,
            telemetry,
            in_hand_max: in_hand_max.max(1),
            state: Mutex::new(state),
            changed: Notify::new(),
            orders: Orders::new(SignedDuration::MAX),
            events,
            journal: None,
        };
        (driver, received)
    }

    /// The same, with a journal.
    #[must_use]
    pub fn with_journal(self, journal: Option<Journal>) -> Self {
        Self { journal, ..self }
    }

    /// Publishes a request.
    pub fn submit(&self, body: Vec<u8>, properties: Properties) {
        self.state().ready.push_back(Message {
            kind: Kind::Request(properties),
            body,
            deliveries: 0,
        });
        self.changed.notify_waiters();
    }

    /// Takes up a continuation that an earlier process left; it may have been worked on since it was written.
    ///
    /// # Errors
    ///
    /// [`StepError`] when it cannot be read; it is not taken up then.
    pub fn resume(&self, body: Vec<u8>) -> Result<(), StepError> {
        let incoming = Incoming {
            body: &body,
            ..Incoming::default()
        };
        let due = self.codec.decode_step(&incoming)?.not_due_before;
        let message = Message {
            kind: Kind::Step,
            body,
            deliveries: 1,
        };
        let mut state = self.state();
        match due {
            Some(due) => state.delay(due, message),
            None => state.ready.push_back(message),
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Publishes an operator's command. It reaches what waits at its next look, as on the broker.
    ///
    /// # Errors
    ///
    /// Every field at fault.
    pub fn command(&self, body: &[u8]) -> Result<(), Vec<FieldFault>> {
        let now = (self.clock)();
        self.orders.apply(&Command::decode(body)?, now, now);
        Ok(())
    }

    /// Messages that wait or are in hand.
    #[must_use]
    pub fn depth(&self) -> usize {
        let state = self.state();
        state.ready.len() + state.delayed.len() + state.in_hand
    }

    /// What could not be understood, with the reason.
    #[must_use]
    pub fn dead(&self) -> Vec<(Vec<u8>, DeadLetter)> {
        self.state().dead.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message that is due and allowed, or until when there is none.
    fn next(&self) -> Poll {
        let now = (self.clock)();
        let mut state = self.state();
        if state.stopped {
            return Poll::Stopped;
        }
        while state
            .delayed
            .peek()
            .is_some_and(|Reverse(delayed)| delayed.due <= now)
        {
            if let Some(Reverse(delayed)) = state.delayed.pop() {
                state.ready.push_back(delayed.message);
            }
        }
        let limit = match state.intake {
            Intake::Open => self.in_hand_max,
            Intake::Probe => 1,
            Intake::Closed => 0,
        };
        if state.in_hand < limit
            && let Some(message) = state.ready.pop_front()
        {
            state.in_hand += 1;
            return Poll::Ready(message);
        }
        Poll::Empty(
            state
                .delayed
                .peek()
                .map(|Reverse(delayed)| clock::until(now, delayed.due)),
        )
    }

    /// The delivery of a message, or nothing if it cannot be understood, which settles it.
    fn open(&self, message: Message) -> Option<Delivery<LocalToken>> {
        let redelivered = message.deliveries > 0;
        let now = (self.clock)();
        let decoded = match &message.kind {
            Kind::Request(properties) => {
                self.telemetry.received("requests", redelivered);
                let incoming = Incoming {
                    body: &message.body,
                    content_type: properties.content_type.as_deref(),
                    correlation_id: properties.correlation_id.as_deref(),
                    traceparent: properties.traceparent.as_deref(),
                    ..Incoming::default()
                };
                self.codec
                    .decode_request(&incoming, now)
                    .map_err(|rejection| {
                        self.telemetry
                            .request_rejected(&rejection, incoming.traceparent);
                        self.publish(self.codec.rejected_event(&incoming, &rejection, now));
                        DeadLetter::invalid_request(&rejection)
                    })
            }
            Kind::Step => {
                self.telemetry.received("steps", redelivered);
                let incoming = Incoming {
                    body: &message.body,
                    ..Incoming::default()
                };
                self.codec.decode_step(&incoming).map_err(|error| {
                    self.telemetry
                        .step_dead_lettered(&Named::in_body(&message.body), &error.to_string());
                    DeadLetter::malformed_step(&error.to_string())
                })
            }
        };
        match decoded {
            Ok(work) => Some(Delivery {
                work,
                redelivered,
                token: LocalToken(message),
            }),
            Err(dead_letter) => {
                let mut state = self.state();
                state.in_hand -= 1;
                state.dead.push((message.body, dead_letter));
                None
            }
        }
    }

    fn publish(&self, event: EventMessage) {
        // Nobody listens any more: the events of this process have no other place.
        let _ = self.events.send(event);
    }
}

enum Poll {
    Ready(Message),
    Empty(Option<std::time::Duration>),
    Stopped,
}

impl Driver for LocalDriver {
    type Token = LocalToken;

    async fn receive(&self) -> Option<Delivery<LocalToken>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a change between looking and waiting is not missed.
            changed.as_mut().enable();
            match self.next() {
                Poll::Stopped => return None,
                Poll::Ready(message) => {
                    if let Some(delivery) = self.open(message) {
                        return Some(delivery);
                    }
                }
                Poll::Empty(None) => changed.await,
                Poll::Empty(Some(pause)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn carry_out(&self, token: LocalToken, hand_over: HandOver) -> Result<(), DriverError> {
        let HandOver { work, to, events } = hand_over;
        if let Some(journal) = &self.journal {
            let is_over = to == Destination::Nowhere;
            let record = records::of_hand_over(&self.codec, &work, is_over, &events);
            if let Err(message) = journal.write(record).await {
                let mut state = self.state();
                state.in_hand -= 1;
                state.ready.push_back(token.0);
                return Err(DriverError::NotPublished {
                    target: "the journal".to_owned(),
                    message,
                });
            }
        }
        for event in events {
            self.publish(event);
        }
        let step = || Message {
            kind: Kind::Step,
            body: self.codec.encode_step(&work),
            deliveries: 0,
        };
        let mut state = self.state();
        match to {
            Destination::Now => {
                let message = step();
                state.ready.push_back(message);
            }
            Destination::At(due) => state.delay(due, step()),
            Destination::Nowhere => {}
        }
        state.in_hand -= 1;
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn reject(&self, token: LocalToken) {
        let mut message = token.0;
        message.deliveries += 1;
        let mut state = self.state();
        state.in_hand -= 1;
        if message.deliveries > DELIVERY_LIMIT {
            let error = "the message made the worker panic again and again";
            state
                .dead
                .push((message.body, DeadLetter::malformed_step(error)));
        } else {
            state.ready.push_back(message);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn standing(&self, order: &Order) -> Standing {
        self.orders.standing(order)
    }

    fn set_intake(&self, intake: Intake) {
        self.state().intake = intake;
        self.changed.notify_waiters();
    }

    async fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_waiters();
    }

    async fn close(&self) {}
}
