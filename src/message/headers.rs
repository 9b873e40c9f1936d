//! Properties of messages: what is read from a delivery, and the headers that say why something was dead-lettered.

use super::request::Rejection;

/// A message as it came in: the body and the properties that matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Incoming<'a> {
    /// The body.
    pub body: &'a [u8],
    /// `content_type`.
    pub content_type: Option<&'a str>,
    /// `timestamp`, Unix seconds.
    pub timestamp: Option<u64>,
    /// `correlation_id`.
    pub correlation_id: Option<&'a str>,
    /// `reply_to`.
    pub reply_to: Option<&'a str>,
    /// Header `traceparent`.
    pub traceparent: Option<&'a str>,
    /// Header `tracestate`.
    pub tracestate: Option<&'a str>,
}

/// Why a message goes to `<p>.dead`. The message itself goes there untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// `invalid_request`, `malformed_step`.
    pub reason: &'static str,
    /// What is wrong, for people; at most [`DeadLetter::ERROR_MAX`] characters.
    pub error: String,
}

impl DeadLetter {
    /// Header that holds the reason.
    pub const REASON: &'static str = "nbi-upgrade-reason";
    /// Header that holds the error.
    pub const ERROR: &'static str = "nbi-upgrade-error";
    /// Header that holds the queue the message came from.
    pub const QUEUE: &'static str = "nbi-upgrade-queue";
    /// Header that holds the instance that gave up on it.
    pub const INSTANCE: &'static str = "nbi-upgrade-instance";
    /// Header that holds when (RFC 3339).
    pub const TIME: &'static str = "nbi-upgrade-time";
    /// All of them.
    pub const HEADERS: [&'static str; 5] = [
        Self::REASON,
        Self::ERROR,
        Self::QUEUE,
        Self::INSTANCE,
        Self::TIME,
    ];
    /// The reason of a request that is not valid.
    pub const INVALID_REQUEST: &'static str = "invalid_request";
    /// The reason of a continuation that nobody can read.
    pub const MALFORMED_STEP: &'static str = "malformed_step";
    /// Longest error, in characters.
    pub const ERROR_MAX: usize = 2_000;

    /// For a request that is not valid.
    #[must_use]
    pub fn invalid_request(rejection: &Rejection) -> Self {
        Self {
            reason: Self::INVALID_REQUEST,
            error: one_line(truncate(&rejection.to_string(), Self::ERROR_MAX)),
        }
    }

    /// For a continuation that nobody can read.
    #[must_use]
    pub fn malformed_step(error: &str) -> Self {
        Self {
            reason: Self::MALFORMED_STEP,
            error: one_line(truncate(error, Self::ERROR_MAX)),
        }
    }
}

/// The first `max` characters.
#[must_use]
pub fn truncate(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Control characters become spaces: names and values of others end up in log lines, headers and terminals.
pub(super) fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.replace(char::is_control, " ")
    } else {
        text
    }
}
