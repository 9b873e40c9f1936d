//! `[connection_request]`: waking devices.

use jiff::SignedDuration;

use super::reader::Reader;
use crate::job::policy::OnConnectionRequestFailure;

/// Waking devices.
#[derive(Debug, Clone)]
pub struct ConnectionRequest {
    /// Tries before the job goes on without.
    pub attempts: u32,
    /// A silent device gets another one after this long; zero: never.
    pub resend_interval: SignedDuration,
    /// What it means when all of them failed.
    pub on_failure: OnConnectionRequestFailure,
}

impl ConnectionRequest {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let on_failure = [
            ("continue", OnConnectionRequestFailure::Continue),
            ("fail", OnConnectionRequestFailure::Fail),
        ];
        Self {
            attempts: reader.number("connection_request.attempts", 1..=100),
            resend_interval: reader.duration(
                "connection_request.resend_interval",
                SignedDuration::ZERO..=SignedDuration::from_hours(24 * 30),
            ),
            on_failure: reader.one_of("connection_request.on_failure", &on_failure),
        }
    }
}
