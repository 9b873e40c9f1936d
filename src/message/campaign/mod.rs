//! Campaigns on the wire: the request with its devices, the definition that outlives it, a device in the queue, the log, the events.
//!
//! The definition and the log are read by the next release too: both carry a version, and what is added must be optional.

mod definition;
mod event;
mod later;
mod log;
mod logged;
mod plan;
mod queued;
mod request;

use uuid::Uuid;

use crate::job::{CampaignId, CpeId, JobId};

pub use definition::{Definition, DefinitionError};
pub use event::{CampaignEvent, Happened, Summary, never_started};
pub use log::{
    Entry, Log, encode_asked_since, encode_everything_resumed, encode_marker, encode_release,
};
pub use queued::{Asked, DeviceRequest, Waiting};
pub use request::CampaignRequest;

pub(super) use event::{Data as EventData, STATES};
pub(super) use plan::{COUNT_MAX, CRITERIA_MAX, DAYS, FACTOR_MAX};
pub(super) use request::decode;

/// Largest campaign request, in bytes: 10,000 devices with the longest ids and keys that are allowed fit.
pub const BODY_MAX: usize = 4 * 1024 * 1024;

/// Most devices of one request.
pub const DEVICES_MAX: usize = 10_000;

/// Longest `concurrency_key`, in characters.
pub const KEY_MAX: usize = 128;

/// Names the space of job ids whose device's id is no part of a job id: version 5 UUID of the DNS name `nbi-upgrade.campaign.v1`.
fn job_namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"nbi-upgrade.campaign.v1")
}

/// The job of a campaign's device: `<campaign_id>:<cpe_id>`.
///
/// A device's id may hold characters that a job's may not (`# & , ; = @`), and both together may be too long. Then it is
/// `<campaign_id>:u-<uuid>`, with the version 5 UUID of the device's id: always the same for the same device.
#[must_use]
pub fn job_id(campaign_id: &CampaignId, cpe_id: &CpeId) -> JobId {
    JobId::parse(format!("{campaign_id}:{cpe_id}")).unwrap_or_else(|_| {
        let id = Uuid::new_v5(&job_namespace(), cpe_id.as_str().as_bytes());
        JobId::parse(format!("{campaign_id}:u-{id}"))
            .expect("64 characters, a colon, `u-` and a UUID are a job's id")
    })
}
