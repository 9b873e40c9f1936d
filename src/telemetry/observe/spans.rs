//! Spans: what a trace shows. Nothing is done where no collector is configured.

use std::time::Duration;

use super::{TARGET, cut};
use crate::job::{Job, JobEvent};
use crate::message::Work;
use crate::telemetry::Telemetry;
use crate::telemetry::trace::{self, NbiSpan, Trace};

impl Telemetry {
    /// Work on a delivery begins: the trace that it belongs to.
    pub fn delivery(&self, work: &Work, redelivered: bool) -> Trace {
        let trace = Trace::of(work.carried.traceparent.as_deref());
        let spans = self.spans.as_ref();
        match spans.map(|spans| spans.delivery(work, redelivered)) {
            Some(delivery) => trace.with(delivery),
            None => trace,
        }
    }

    /// A request to the NBI has ended, after `took`.
    pub fn nbi_sent(&self, call: &NbiSpan<'_>, took: Duration) {
        if let Some((spans, delivery)) = self.spans.as_ref().zip(trace::current_delivery()) {
            spans.nbi(&delivery, call, took);
        }
    }

    /// What replaces the delivery is with the broker, or is not.
    pub fn handed_over(&self, to: &'static str, took: Duration, is_error: bool) {
        if let Some((spans, delivery)) = self.spans.as_ref().zip(trace::current_delivery()) {
            spans.handed_over(&delivery, to, took, is_error);
        }
    }

    /// Stages and jobs that are over.
    pub(super) fn job_spans(&self, job: &Job, events: &[JobEvent]) {
        if let Some((spans, delivery)) = self.spans.as_ref().zip(trace::current_delivery()) {
            spans.job(&delivery, job, events);
        }
    }

    /// Sends what is left, for a moment at most. Blocks.
    pub fn send_last_spans(&self) {
        if let Some(spans) = &self.spans {
            spans.finish();
        }
    }

    /// The collector did not take so many spans; they are gone. `times` and `lasts_s`: how often and for how long that is so.
    pub fn spans_lost(error: &str, spans: usize, times: u64, lasts_s: u64) {
        tracing::warn!(target: TARGET, error = cut(error), spans, times, lasts_s, "spans lost");
    }

    /// The collector takes spans again.
    pub fn spans_sent_again(times: u64, lasted_s: u64) {
        tracing::info!(target: TARGET, times, lasted_s, "spans sent again");
    }
}
