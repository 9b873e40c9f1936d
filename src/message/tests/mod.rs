//! Tests of the wire formats.

mod campaigns;
mod events;
mod requests;
mod schemas;
mod schemas_of_many;
mod steps;

use jiff::Timestamp;

use super::*;

pub(super) fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

pub(super) fn codec() -> Codec {
    Codec {
        requests: RequestSettings::default(),
        events: EventSettings {
            source: "/nbi-upgrade/test".to_owned(),
            progress: true,
        },
    }
}

pub(super) fn decode(body: &str) -> Result<Work, Rejection> {
    codec().decode_request(
        &Incoming {
            body: body.as_bytes(),
            ..Incoming::default()
        },
        noon(),
    )
}

pub(super) const MINIMAL: &str =
    r#"{"job_id":"job-1","cpe_id":"CPE1","firmware_url":"https://files.example/fw-2.bin"}"#;
