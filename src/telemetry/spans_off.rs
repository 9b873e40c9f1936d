//! What stands in place of `spans_otel.rs` in a program without the cargo feature `otel`: no spans.

use std::time::Duration;

use super::trace::{NbiSpan, SpanSettings};
use crate::job::{Job, JobEvent};
use crate::message::Work;

/// Why there are no spans.
#[derive(Debug, thiserror::Error)]
#[error("this program was built without tracing; build it with `--features otel`")]
pub struct SpanError;

/// Nobody can have one.
#[derive(Debug)]
pub(super) enum Spans {}

/// Nobody can have one.
#[derive(Debug, Clone)]
pub(super) enum Delivery {}

impl Spans {
    pub(super) fn start(_: SpanSettings) -> Result<Self, SpanError> {
        Err(SpanError)
    }

    pub(super) fn delivery(&self, _: &Work, _: bool) -> Delivery {
        match *self {}
    }

    pub(super) fn nbi(&self, _: &Delivery, _: &NbiSpan<'_>, _: Duration) {
        match *self {}
    }

    pub(super) fn handed_over(&self, _: &Delivery, _: &'static str, _: Duration, _: bool) {
        match *self {}
    }

    pub(super) fn job(&self, _: &Delivery, _: &Job, _: &[JobEvent]) {
        match *self {}
    }

    pub(super) fn finish(&self) {
        match *self {}
    }
}

impl Delivery {
    pub(super) fn trace_id(&self) -> String {
        match *self {}
    }

    pub(super) fn traceparent(&self) -> String {
        match *self {}
    }

    pub(super) fn jobs_traceparent(&self) -> String {
        match *self {}
    }
}
