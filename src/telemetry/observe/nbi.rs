//! What happens between the worker and the NBI.

use std::time::Duration;

use super::{TARGET, cut};
use crate::job::NbiCall;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{self, CALL_CLASSES, closed};

impl Telemetry {
    /// The NBI was asked. `status` is the HTTP status, or a word from a closed set where there was none
    /// (`timeout`, `connect`, `no_answer`, `too_large`).
    pub fn nbi_answered(&self, operation: &'static str, status: &str, took: Duration) {
        let operation = closed(operation, &NbiCall::OPERATIONS);
        let status = labels::status(status);
        self.metrics
            .nbi
            .request_duration
            .with_label_values(&[operation, status])
            .observe(took.as_secs_f64());
        tracing::debug!(target: TARGET, operation, status, duration_ms = took.as_secs_f64() * 1_000.0, "nbi answered");
    }

    /// The NBI refused a call for our credentials or rights, by its status or in its body.
    pub fn nbi_refused(&self) {
        self.metrics.nbi.refusals.inc();
    }

    /// Time a call of this class waited for its turn at the limiter.
    pub fn nbi_waited(&self, class: &'static str, took: Duration) {
        self.metrics
            .nbi
            .limiter_wait
            .with_label_values(&[closed(class, &CALL_CLASSES)])
            .observe(took.as_secs_f64());
    }

    /// So many requests may be under way to the NBI now.
    pub fn nbi_concurrency_limit(&self, limit: usize) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.metrics.nbi.concurrency_limit.set(limit);
        tracing::debug!(target: TARGET, limit, "nbi concurrency limit changed");
    }

    /// The circuit opened.
    pub fn circuit_opened(&self, reason: &str) {
        self.metrics.nbi.circuit_is("open");
        self.health.circuit_opened(cut(reason));
        tracing::warn!(target: TARGET, reason = cut(reason), "circuit opened");
    }

    /// A request is under way to find out whether the NBI answers again; the circuit is not closed yet.
    pub fn circuit_probing(&self) {
        self.metrics.nbi.circuit_is("probing");
        tracing::debug!(target: TARGET, "circuit probing");
    }

    /// The probe failed: the circuit is open for longer.
    pub fn circuit_reopened(&self) {
        self.metrics.nbi.circuit_is("open");
        tracing::debug!(target: TARGET, "circuit open again");
    }

    /// The circuit closed.
    pub fn circuit_closed(&self) {
        self.metrics.nbi.circuit_is("closed");
        self.health.circuit_closed();
        tracing::info!(target: TARGET, "circuit closed");
    }
}
