//! The trace that a delivery belongs to: the requester's W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! A task that works on a delivery runs within [`Trace::scope`]; lines that are written there name the trace, so that a log store finds
//! them from the trace and the other way round. Where the requester sent no context, there is none.

use std::sync::Arc;

tokio::task_local! {
    static CURRENT: Trace;
}

/// A trace, or none.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// 32 hexadecimal digits.
    id: Option<Arc<str>>,
}

impl Trace {
    /// The trace that this header names; none if it is not valid.
    #[must_use]
    pub fn of(traceparent: Option<&str>) -> Self {
        let id = traceparent.and_then(trace_id_in).map(Arc::from);
        Self { id }
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

/// The trace id in a `traceparent`: `version-trace id-parent id-flags`, in lower-case hexadecimal digits; later versions may append.
fn trace_id_in(traceparent: &str) -> Option<&str> {
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
