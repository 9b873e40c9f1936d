//! JSON to and from bytes, as cheaply as the library does it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A text; borrowed where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Reads a body. That it is UTF-8 is looked at once, not text by text.
///
/// # Errors
///
/// Those of `serde_json`.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        // It says where, and does not mind a member that nobody reads.
        Err(_) => serde_json::from_slice(body),
    }
}

/// A body of about `size` bytes: if it is that, nothing is moved while it grows.
pub(super) fn written(message: &impl Serialize, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size);
    // Our own types always serialise.
    match serde_json::to_writer(&mut body, message) {
        Ok(()) => body,
        Err(_) => Vec::new(),
    }
}
