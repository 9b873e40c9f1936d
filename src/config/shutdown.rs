//! `[shutdown]`: the end of the process.

use jiff::SignedDuration;

use super::reader::Reader;

/// The end of the process.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// How long what is in hand may still take; the rest goes back to the broker.
    pub grace: SignedDuration,
}

impl Shutdown {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            grace: reader.duration(
                "shutdown.grace",
                SignedDuration::ZERO..=SignedDuration::from_hours(1),
            ),
        }
    }
}
