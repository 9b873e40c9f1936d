//! The circuit as all calls share it: its clock, its watchers and its place in the telemetry.
//!
//! [`Gate::admit`] lets a request through and gives an [`Admission`]; the request's result goes back through it. An admission
//! that is dropped without a result (the call was given up) leaves a probe's place to the next request, so that a circuit cannot
//! stay probing for ever. `client.rs` is the only caller.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Judged;
use super::circuit::{Circuit, CircuitSettings, CircuitState, Sign, Ticket};
use crate::job::NbiFailure;
use crate::telemetry::Telemetry;

/// The circuit, shared by all calls and watched by the worker.
#[derive(Debug)]
pub(crate) struct Gate {
    circuit: Mutex<Circuit>,
    state: watch::Sender<CircuitState>,
    telemetry: Arc<Telemetry>,
}

impl Gate {
    pub(crate) fn new(settings: CircuitSettings, telemetry: Arc<Telemetry>) -> Self {
        let circuit = Circuit::new(settings);
        let state = watch::Sender::new(circuit.state());
        Self {
            circuit: Mutex::new(circuit),
            state,
            telemetry,
        }
    }

    /// The state, and every change of it.
    pub(crate) fn watch(&self) -> watch::Receiver<CircuitState> {
        self.state.subscribe()
    }

    /// Whether a request would be turned away now. Changes nothing.
    pub(crate) fn turns_away(&self) -> bool {
        self.wait(Instant::now()).is_some()
    }

    /// Fails if a request would be turned away `now`. Changes nothing.
    pub(crate) fn check(&self, operation: &'static str, now: Instant) -> Result<(), NbiFailure> {
        self.wait(now)
            .map_or(Ok(()), |wait| Err(not_sent(operation, wait)))
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        self.circuit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .turned_away_for(now)
    }

    /// Lets a request through that is sent `now`.
    pub(crate) fn admit(
        &self,
        operation: &'static str,
        now: Instant,
    ) -> Result<Admission<'_>, NbiFailure> {
        let ticket = self.change("", |circuit| circuit.admit(now));
        let ticket = ticket.map_err(|wait| not_sent(operation, wait))?;
        Ok(Admission {
            gate: self,
            ticket: Some(ticket),
        })
    }

    /// Changes the circuit, and tells who watches it.
    fn change<R>(&self, reason: &str, act: impl FnOnce(&mut Circuit) -> R) -> R {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let before = circuit.state();
        let result = act(&mut circuit);
        let after = circuit.state();
        if before != after {
            self.state.send_replace(after);
            match (before, after) {
                (CircuitState::Closed, _) => self.telemetry.circuit_opened(reason),
                (_, CircuitState::Closed) => self.telemetry.circuit_closed(),
                // The circuit stays open all the while.
                (_, CircuitState::Probing) => self.telemetry.circuit_probing(),
                (_, CircuitState::Open { .. }) => self.telemetry.circuit_reopened(reason),
            }
        }
        result
    }
}

/// Permission for one request; when it is dropped without a result, a probe leaves its place to the next request.
#[must_use = "the result goes back through it"]
pub(crate) struct Admission<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Admission<'_> {
    /// Tells the circuit what came of the request, which ended at `now`.
    pub(crate) fn record(mut self, judged: &Judged, now: Instant) {
        let reason = judged
            .outcome
            .as_ref()
            .err()
            .map(NbiFailure::to_string)
            .unwrap_or_default();
        if judged.sign == Sign::Refused {
            self.gate.telemetry.nbi_refused();
        }
        if let Some(ticket) = self.ticket.take() {
            self.gate
                .change(&reason, |circuit| circuit.record(ticket, judged.sign, now));
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate
                .change("", |circuit| circuit.abandon(ticket, Instant::now()));
        }
    }
}

/// A request that the open circuit turned away.
fn not_sent(operation: &'static str, wait: Duration) -> NbiFailure {
    NbiFailure::NotSent {
        message: format!("{operation}: not sent, as the circuit to the NBI is open"),
        retry_after: SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
    }
}
