//! The vendor's requests, field for field (source of each shape: the vendor's page "Firmware Upgrade via NBI", documented).

/// The HTTP verb of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read.
    Get,
    /// Create, or call a method.
    Post,
    /// Update.
    Put,
    /// Delete.
    Delete,
}

/// One request as it goes over the wire, without host and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The verb.
    pub verb: Verb,
    /// The path below the NBI's base URL, e.g. `/v1/dyn/FirmwareStorage/.*`; the last segment literally `.*`.
    pub path: &'static str,
    /// One query parameter, name and value, not yet percent-encoded.
    pub query: Option<(String, String)>,
    /// The JSON body.
    pub body: Option<Vec<u8>>,
    /// The operation, for logs and metrics.
    pub operation: &'static str,
}
