//! What happens between the worker and the NBI.

use std::time::{Duration, Instant};

use super::{TARGET, cut};
use crate::job::NbiCall;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{self, CALL_CLASSES, closed};
use crate::telemetry::trace;
use crate::telemetry::trouble::SoFar;

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
        tracing::debug!(
            target: TARGET,
            operation,
            status,
            duration_ms = took.as_secs_f64() * 1_000.0,
            trace_id = trace::current_id().as_deref(),
            "nbi answered"
        );
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
        self.circuit_trouble(reason);
    }

    /// A request is under way to find out whether the NBI answers again; the circuit is not closed yet.
    pub fn circuit_probing(&self) {
        self.metrics.nbi.circuit_is("probing");
        tracing::debug!(target: TARGET, "circuit probing");
    }

    /// The probe failed, for this reason, or was given up, for none: the circuit is open for longer.
    pub fn circuit_reopened(&self, reason: &str) {
        self.metrics.nbi.circuit_is("open");
        tracing::debug!(target: TARGET, "circuit open again");
        if !reason.is_empty() {
            self.circuit_trouble(reason);
        }
    }

    /// Said once for each reason, then as a reminder.
    fn circuit_trouble(&self, reason: &str) {
        let reason = cut(reason);
        self.health.circuit_opened(reason);
        if let Some(so_far) = self.troubles.circuit.shows(reason, Instant::now()) {
            let (times, lasts_s) = (so_far.times, so_far.seconds());
            tracing::warn!(target: TARGET, reason, times, lasts_s, "circuit open");
        }
    }

    /// The circuit closed.
    pub fn circuit_closed(&self) {
        self.metrics.nbi.circuit_is("closed");
        self.health.circuit_closed();
        let so_far = self.troubles.circuit.is_over(Instant::now());
        let lasted_s = so_far.map(SoFar::seconds);
        tracing::info!(target: TARGET, lasted_s, "circuit closed");
    }

    /// The NBI returned rows that were not asked for.
    pub fn nbi_filter_ignored(&self, key: &'static str, query: &str) {
        let remedy = "set the key to the query parameter that the NBI filters this storage by";
        tracing::warn!(target: TARGET, key, query = cut(query), remedy, "nbi ignores the filter");
    }

    /// A changed password or changed certificates were taken over from their files.
    pub fn nbi_files_changed(&self, what: &'static str) {
        tracing::info!(target: TARGET, what, "nbi credentials changed");
    }

    /// The files with password and certificates can be used.
    pub fn nbi_files_read(&self) {
        self.troubles.nbi_files.is_over(Instant::now());
    }

    /// The files with password and certificates cannot be used any more; what they held before goes on. Said once for each reason,
    /// then as a reminder.
    pub fn nbi_files_unusable(&self, error: &str) {
        let error = cut(error);
        if let Some(so_far) = self.troubles.nbi_files.shows(error, Instant::now()) {
            let (times, lasts_s) = (so_far.times, so_far.seconds());
            tracing::warn!(target: TARGET, error, times, lasts_s, "nbi credentials unusable");
        }
    }
}
