//! What readiness knows: the broker, the circuit, and whether the worker stops.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What no queue takes is tried again every few seconds by whoever has it in hand. Where nobody has, any more, nothing says how it is.
const UNROUTED_FOR: Duration = Duration::from_secs(30);

/// What the worker needs to be ready. A worker starts without a broker, with a closed circuit.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    broker_is_connected: bool,
    broker_was_connected: bool,
    broker_trouble: Option<String>,
    broker_blocks: Option<String>,
    /// Why no queue takes what goes to an exchange, and when that was seen last.
    unrouted: BTreeMap<&'static str, (String, Instant)>,
    circuit_trouble: Option<String>,
    is_stopping: bool,
    is_paused: bool,
}

/// Whether the worker is ready, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What is missing; empty when ready.
    pub missing: Vec<Missing>,
    /// Whether an operator has paused everything. The worker is ready all the same: it disarms, watches and ends what was begun.
    pub is_paused: bool,
}

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `broker`, `circuit` or `running`.
    pub what: &'static str,
    /// Why, for people.
    pub why: String,
}

impl Readiness {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ready() {
            return formatter.write_str("ready");
        }
        formatter.write_str("not ready")?;
        self.missing
            .iter()
            .try_for_each(|missing| write!(formatter, "; {}: {}", missing.what, missing.why))
    }
}

impl Health {
    /// The broker is connected. Says whether it was before, so that this is a reconnect.
    pub(super) fn broker_connected(&self) -> bool {
        let mut state = self.lock();
        state.broker_is_connected = true;
        state.broker_trouble = None;
        // Whether a queue takes what is published shows anew.
        state.unrouted.clear();
        std::mem::replace(&mut state.broker_was_connected, true)
    }

    pub(super) fn broker_lost(&self, reason: &str) {
        let mut state = self.lock();
        state.broker_is_connected = false;
        state.broker_trouble = Some(reason.to_owned());
    }

    /// The broker blocks publishers for this reason, or no longer does.
    pub(super) fn broker_blocked(&self, reason: Option<&str>) {
        self.lock().broker_blocks = reason.map(str::to_owned);
    }

    /// Why no queue takes what goes to an exchange, or `None` as one has taken something. Says whether that is news.
    pub(super) fn unrouted(&self, exchange: &'static str, reason: Option<&str>) -> bool {
        let unrouted = &mut self.lock().unrouted;
        match reason {
            Some(reason) => {
                let seen = (reason.to_owned(), Instant::now());
                let before = unrouted.insert(exchange, seen);
                before.is_none_or(|(_, seen_at)| seen_at.elapsed() >= UNROUTED_FOR)
            }
            None => unrouted.remove(exchange).is_some(),
        }
    }

    pub(super) fn circuit_opened(&self, reason: &str) {
        self.lock().circuit_trouble = Some(reason.to_owned());
    }

    pub(super) fn circuit_closed(&self) {
        self.lock().circuit_trouble = None;
    }

    /// Says what was before.
    pub(super) fn emergency_stop(&self, is_on: bool) -> bool {
        std::mem::replace(&mut self.lock().is_paused, is_on)
    }

    pub(super) fn stopping(&self) {
        self.lock().is_stopping = true;
    }

    pub(super) fn readiness(&self) -> Readiness {
        let state = self.lock();
        let mut missing = Vec::new();
        if !state.broker_is_connected {
            // Whoever connects during an alarm waits for its end, as what was ordered is known by a mark that must be published.
            let why = match (&state.broker_blocks, &state.broker_trouble) {
                (Some(reason), _) => format!("it blocks publishers: {reason}"),
                (None, Some(reason)) => format!("the connection is lost: {reason}"),
                (None, None) => "not connected yet".to_owned(),
            };
            missing.push(Missing {
                what: "broker",
                why,
            });
        }
        let unrouted = state.unrouted.values();
        let unrouted = unrouted.filter(|(_, seen_at)| seen_at.elapsed() < UNROUTED_FOR);
        missing.extend(unrouted.map(|(reason, _)| Missing {
            what: "broker",
            why: reason.clone(),
        }));
        if let Some(reason) = &state.circuit_trouble {
            missing.push(Missing {
                what: "circuit",
                why: format!("open towards the NBI: {reason}"),
            });
        }
        if state.is_stopping {
            missing.push(Missing {
                what: "running",
                why: "shutdown is under way".to_owned(),
            });
        }
        Readiness {
            missing,
            is_paused: state.is_paused,
        }
    }

    /// The state is whole after each of the short changes above, also where another thread panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
