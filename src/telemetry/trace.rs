//! The trace that a delivery belongs to: the requester's W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! A task that works on a delivery runs within [`Trace::scope`]; lines that are written there name the trace, so that a log store finds
//! them from the trace and the other way round. Where the requester sent no context, there is none.

use std::borrow::Cow;
use std::sync::Arc;

use super::spans::Delivery;
use crate::message::{Carried, Work};

tokio::task_local! {
    static CURRENT: Trace;
}

/// A trace, or none.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// 32 hexadecimal digits.
    id: Option<Arc<str>>,
    /// The span of the delivery that is worked on, where spans are written.
    delivery: Option<Delivery>,
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct SpanSettings {
    /// The collector's base address; `/v1/traces` is appended.
    pub endpoint: String,
    /// The share of traces that are kept, 0 to 1, where the requester has not decided.
    pub sample_ratio: f64,
    /// This worker's name.
    pub instance: String,
    /// What the names of broker objects begin with.
    pub prefix: String,
    /// The NBI's host and port.
    pub nbi: (String, u16),
}

/// A request to the NBI.
#[derive(Debug, Clone, Copy)]
pub struct NbiSpan<'a> {
    /// What it does, from a closed set.
    pub operation: &'static str,
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path, which names no device.
    pub path: &'a str,
    /// The HTTP status, or a word from a closed set.
    pub status: &'a str,
}

impl Trace {
    /// The trace that this header names; none if it is not valid.
    #[must_use]
    pub fn of(traceparent: Option<&str>) -> Self {
        let id = traceparent.and_then(trace_id_in).map(Arc::from);
        Self { id, delivery: None }
    }

    /// The trace that this delivery's span belongs to.
    pub(super) fn with(self, delivery: Delivery) -> Self {
        Self {
            id: Some(Arc::from(delivery.trace_id())),
            delivery: Some(delivery),
        }
    }

    /// The work as it goes on: where the requester sent no context and spans are written, the trace that was begun travels with it.
    #[must_use]
    pub fn carried_by(&self, mut work: Work) -> Work {
        let has_context = Self::of(work.carried.traceparent.as_deref()).id.is_some();
        if let Some(delivery) = self.delivery.as_ref().filter(|_| !has_context) {
            work.carried.traceparent = Some(delivery.jobs_traceparent());
            work.carried.tracestate = None;
        }
        work
    }

    /// The work as its events tell of it: their parent is the delivery that publishes them, where it has a span.
    #[must_use]
    pub fn told_by<'a>(&self, work: &'a Work) -> Cow<'a, Work> {
        let Some(delivery) = &self.delivery else {
            return Cow::Borrowed(work);
        };
        Cow::Owned(Work {
            carried: Carried {
                traceparent: Some(delivery.traceparent()),
                ..work.carried.clone()
            },
            ..work.clone()
        })
    }

    /// Does this work as part of the trace.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

/// The trace of the work that is being done.
pub(super) fn current_id() -> Option<Arc<str>> {
    CURRENT.try_with(|trace| trace.id.clone()).ok().flatten()
}

/// The span of the delivery that is worked on.
pub(super) fn current_delivery() -> Option<Delivery> {
    CURRENT
        .try_with(|trace| trace.delivery.clone())
        .ok()
        .flatten()
}

/// The trace id in a `traceparent`: `version-trace id-parent id-flags`, in lower-case hexadecimal digits; later versions may append.
pub(super) fn trace_id_in(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let mut part = |digits: usize| {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        parts
            .next()
            .filter(|part| part.len() == digits && part.bytes().all(is_hex))
    };
    let (version, trace_id, parent_id) = (part(2)?, part(32)?, part(16)?);
    part(2)?;
    let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
    let is_whole = version != "00" || parts.next().is_none();
    (version != "ff" && is_whole && !is_zero(trace_id) && !is_zero(parent_id)).then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_id_is_taken_from_valid_headers_alone() {
        for (header, is_valid) in [
            (format!("00-{ID}-00f067aa0ba902b7-01"), true),
            (
                format!("cc-{ID}-00f067aa0ba902b7-01-what-comes-later"),
                true,
            ),
            (format!("00-{ID}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{ID}-00f067aa0ba902b7-01"), false),
            (
                format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
                false,
            ),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{ID}-0000000000000000-01"), false),
            (format!("00-{ID}-00f067aa0ba902b7"), false),
            (ID.to_owned(), false),
            (String::new(), false),
        ] {
            let found = trace_id_in(&header);
            assert_eq!(found, is_valid.then_some(ID), "{header}");
        }
    }

    #[tokio::test]
    async fn it_holds_within_its_scope_alone() {
        let trace = Trace::of(Some(&format!("00-{ID}-00f067aa0ba902b7-01")));
        let id = trace.scope(async { current_id() }).await;
        assert_eq!(id.as_deref(), Some(ID));
        assert_eq!(current_id(), None);
    }
}
