//! The NBI: the management system's north-bound HTTP interface.
//!
//! Only this folder knows the vendor's JSON and its HTTP statuses. [`NbiClient`] turns the core's [`NbiCall`] into a request,
//! sends it through a [`Transport`] under limits, and turns what comes back into the core's words.
//!
//! The seam is [`Nbi`]; the transport below it has two implementations, real HTTP and the simulator in the same process, so that
//! the vendor's format and the failure table are exercised by every test.

use std::future::Future;

use crate::job::{NbiAnswer, NbiCall, NbiFailure};

mod access;
mod address;
pub mod answer;
pub mod budget;
pub mod circuit;
pub mod client;
mod gate;
mod headers;
pub mod http;
mod idle;
mod json;
pub mod limit;
mod listing;
pub mod look;
mod names;
pub mod openapi;
pub mod pace;
mod pauses;
mod places;
mod reply;
mod settings;
mod setup;
mod text;
mod version;
pub mod wire;

pub use client::{NbiClient, NbiSettings};
pub use http::HttpTransport;
pub use idle::probe_when_idle;

/// Asks the NBI one thing.
pub trait Nbi: Send + Sync + 'static {
    /// Asks, and waits for the answer within the client's own time limits.
    ///
    /// # Errors
    ///
    /// [`NbiFailure`] when the answer could not be learnt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the effect done or not done; callers treat it as unknown.
    fn call(&self, call: &NbiCall) -> impl Future<Output = Result<NbiAnswer, NbiFailure>> + Send;
}

/// Carries one request to the NBI and brings back what it answered, whatever it is.
pub trait Transport: Send + Sync + 'static {
    /// Sends once; no retry, no judgement.
    ///
    /// # Errors
    ///
    /// [`TransportError`] when no complete answer came back.
    fn send(
        &self,
        request: &wire::Request,
    ) -> impl Future<Output = Result<RawAnswer, TransportError>> + Send;
}

/// A complete HTTP answer.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most `nbi.max_response_bytes`.
    pub body: Vec<u8>,
    /// `Retry-After`, as it was sent.
    pub retry_after: Option<String>,
    /// `Date`, as it was sent.
    pub date: Option<String>,
    /// `Location`, as it was sent.
    pub location: Option<String>,
}

/// Why no complete answer came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The connection could not be made (refused, DNS, TLS): the request was certainly not carried out.
    #[error("could not connect: {0}")]
    Connect(String),
    /// The request was sent, or may have been, and no whole answer came in time: whether it was carried out is unknown.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The request was sent, or may have been, and the connection ended without a whole answer: whether it was carried out is
    /// unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer has more than the allowed bytes.
    #[error("the answer is larger than {limit} bytes (`nbi.max_response_bytes`)")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
}

impl TransportError {
    /// What the metrics call it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::TimedOut(_) => "timeout",
            Self::NoAnswer(_) => "no_answer",
            Self::TooLarge { .. } => "too_large",
        }
    }
}
