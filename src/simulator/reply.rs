//! What the model is asked and what it answers, free of any carrier.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};

use super::trouble::Trouble;
use crate::nbi::wire::Verb;

/// One call as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The verb.
    pub verb: Verb,
    /// The path, undecoded.
    pub path: &'a str,
    /// The query parameters, decoded.
    pub query: &'a [(String, String)],
    /// The body; empty for none.
    pub body: &'a [u8],
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// `Date`, by the NBI's clock.
    pub date: Option<String>,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// What went wrong with this call. Where it concerns the connection, the carrier acts it out; the rest is in the fields above.
    pub trouble: Option<Trouble>,
}

impl Reply {
    /// A JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string().into_bytes())
    }

    /// Another body.
    pub(crate) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type,
            body,
            date: None,
            retry_after: None,
            trouble: None,
        }
    }

    /// No body at all.
    pub(crate) fn empty(status: u16) -> Self {
        Self::new(status, "application/json", Vec::new())
    }

    /// What a path outside the NBI answers: a page, not an envelope.
    pub(crate) fn no_such_page() -> Self {
        Self::html(404, "Not Found")
    }

    /// An HTML page.
    pub(crate) fn html(status: u16, title: &str) -> Self {
        let page = format!(
            "<html><head><title>{status} {title}</title></head><body><h1>{title}</h1></body></html>\n"
        );
        Self::new(status, "text/html", page.into_bytes())
    }

    /// The envelope of the vendor's storages (documented).
    pub(crate) fn envelope(status: u16, code: u16, storage: &str, details: Value) -> Self {
        Self::json(
            status,
            &json!({"code": code, "message": format!("response from {storage}"), "details": details}),
        )
    }

    /// What bad credentials answer; the body is inferred.
    pub(crate) fn unauthorized() -> Self {
        Self::json(
            401,
            &json!({"code": 401, "message": "Unauthorized", "details": ""}),
        )
    }

    /// The same with its `Date`.
    pub(crate) fn dated(mut self, nbi_time: Timestamp) -> Self {
        self.date = DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&nbi_time)
            .ok();
        self
    }
}

/// What a call is for; the names are those of the worker's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// GET on the result storage.
    ReadResults,
    /// GET on the rule storage.
    ReadRule,
    /// POST on the rule storage.
    CreateRule,
    /// PUT on the rule storage that leaves the rule enabled.
    UpdateRule,
    /// PUT on the rule storage with `enabled` false.
    DisarmRule,
    /// DELETE on the rule storage.
    DeleteRule,
    /// `SendCNR`.
    ConnectionRequest,
    /// `GetParameterValues`.
    ReadVersion,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every variant.
    pub const ALL: &'static [Self] = &[
        Self::ReadResults,
        Self::ReadRule,
        Self::CreateRule,
        Self::UpdateRule,
        Self::DisarmRule,
        Self::DeleteRule,
        Self::ConnectionRequest,
        Self::ReadVersion,
        Self::Other,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadResults => "read_results",
            Self::ReadRule => "read_rule",
            Self::CreateRule => "create_rule",
            Self::UpdateRule => "update_rule",
            Self::DisarmRule => "disarm_rule",
            Self::DeleteRule => "delete_rule",
            Self::ConnectionRequest => "connection_request",
            Self::ReadVersion => "read_version",
            Self::Other => "other",
        }
    }
}
