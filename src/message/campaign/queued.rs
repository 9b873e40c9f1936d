//! A device of a campaign as it waits for its turn, and the request that it is started with.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Definition;
use crate::campaign::Device;
use crate::job::{CpeId, JobId};

/// When devices were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Results newer than this are theirs. In whole seconds where the request does not say it, as a message's timestamp has no more.
    pub at: Timestamp,
    /// Whether the request itself says it. If not, the same request sent again has another time, and looks like a new one.
    pub is_said: bool,
}

impl Asked {
    pub(super) fn new(at: Timestamp, is_said: bool) -> Self {
        let second = Timestamp::from_second(at.as_second());
        let at = if is_said { at } else { second.unwrap_or(at) };
        Self { at, is_said }
    }
}

/// A device that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub device: Device,
    /// When it was asked for: devices may come from several requests of one campaign.
    pub asked: Asked,
}

/// A device's request, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The device's job.
    pub job_id: JobId,
    /// The message's body.
    pub body: Vec<u8>,
    /// The message's `timestamp`: when it is published; or when it was asked for, where the body does not say so.
    pub timestamp: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct WaitingV1 {
    cpe_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency_key: Option<String>,
    /// Absent: as the campaign's definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dated_by_request: bool,
}

impl Definition {
    /// A device as it waits in the campaign's queue.
    #[must_use]
    pub fn encode_waiting(&self, waiting: &Waiting) -> Vec<u8> {
        let Waiting { device, asked } = waiting;
        let own = Some(asked).filter(|asked| **asked != self.asked);
        let wire = WaitingV1 {
            cpe_id: device.cpe_id.to_string(),
            concurrency_key: device.concurrency_key.clone(),
            requested_at: own.map(|asked| asked.at),
            dated_by_request: own.is_some_and(|asked| asked.is_said),
        };
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// The device in a message of the campaign's queue; `None`: nobody can read it.
    #[must_use]
    pub fn decode_waiting(&self, body: &[u8]) -> Option<Waiting> {
        let wire: WaitingV1 = serde_json::from_slice(body).ok()?;
        let asked = wire
            .requested_at
            .map_or(self.asked, |at| Asked::new(at, wire.dated_by_request));
        let device = Device {
            cpe_id: CpeId::parse(wire.cpe_id).ok()?,
            concurrency_key: wire.concurrency_key,
        };
        Some(Waiting { device, asked })
    }
}
