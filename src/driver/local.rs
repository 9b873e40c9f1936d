//! Everything in one process: same wire format, tokio's clock, nothing durable.
//!
//! For `demo`, `run` and the stories of the tests. Continuations are encoded and decoded as on the broker, so that what does not
//! survive the wire shows here too. A job dies with the process.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

use super::{Delivery, Destination, Driver, DriverError, HandOver, Intake};
use crate::clock::{self, Clock};
use crate::message::{Codec, DeadLetter, EventMessage, Incoming};
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
    events: mpsc::UnboundedSender<EventMessage>,
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
    delayed: BinaryHeap<Reverse<Delayed>>,
    arrivals: u64,
    in_hand: usize,
    intake: Intake,
    stopped: bool,
    dead: Vec<(Vec<u8>, DeadLetter)>,
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

#[derive(Debug)]
struct Delayed {
    due: Timestamp,
    arrival: u64,
    message: Message,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.arrival) == (other.due, other.arrival)
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.arrival).cmp(&(other.due, other.arrival))
    }
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
            events,
        };
        (driver, received)
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
                        self.telemetry.request_rejected(&rejection);
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
                    self.telemetry.step_dead_lettered(&error.to_string());
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

    async fn carry_out(&self, _token: LocalToken, hand_over: HandOver) -> Result<(), DriverError> {
        let HandOver { work, to, events } = hand_over;
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
            Destination::At(due) => {
                let message = step();
                state.arrivals += 1;
                let arrival = state.arrivals;
                state.delayed.push(Reverse(Delayed {
                    due,
                    arrival,
                    message,
                }));
            }
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
