//! A campaign's log: what the coordinator writes for itself, and the events that are bound to the log as well.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job_id;
use crate::campaign::{Device, FailureKind, PauseReason, Record};
use crate::job::{CampaignId, CpeId, Outcome, Reason};

/// What an entry of the log says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A coordinator took over: whoever wrote before it has to stop.
    Marker {
        /// Which.
        coordinator: String,
    },
    /// Something that the state is folded from.
    Record(Record),
    /// Nothing that matters here.
    Other,
}

#[derive(Serialize, Deserialize)]
struct PrivateV1 {
    v: u32,
    coordinator: String,
    at: Timestamp,
    /// Empty: a marker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<(String, Option<String>)>,
}

/// Says that a coordinator took over.
#[must_use]
pub fn encode_marker(coordinator: &str, at: Timestamp) -> Vec<u8> {
    encode(coordinator, at, Vec::new())
}

/// Says that these devices are about to be started.
#[must_use]
pub fn encode_release(coordinator: &str, at: Timestamp, devices: &[Device]) -> Vec<u8> {
    let devices = devices
        .iter()
        .map(|device| (device.cpe_id.to_string(), device.concurrency_key.clone()))
        .collect();
    encode(coordinator, at, devices)
}

fn encode(coordinator: &str, at: Timestamp, devices: Vec<(String, Option<String>)>) -> Vec<u8> {
    let private = PrivateV1 {
        v: 1,
        coordinator: coordinator.to_owned(),
        at,
        devices,
    };
    serde_json::to_vec(&private).unwrap_or_default()
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    job_id: Option<String>,
    #[serde(default)]
    cpe_id: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    fault: Option<Fault>,
    #[serde(default)]
    order: Option<String>,
    #[serde(default)]
    began_at: Option<Timestamp>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    in_jeopardy: Option<bool>,
}

#[derive(Deserialize)]
struct Fault {
    code: u16,
}

/// Reads an entry of a campaign's log. What nobody can read is [`Entry::Other`]: a log holds what was confirmed and cannot be repaired.
#[must_use]
pub fn decode_entry(
    body: &[u8],
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Entry {
    if let Ok(event) = serde_json::from_slice::<Event>(body) {
        return of_event(event, campaign_id, configuration_codes)
            .map_or(Entry::Other, Entry::Record);
    }
    let Ok(PrivateV1 {
        v: 1,
        coordinator,
        at,
        devices,
    }) = serde_json::from_slice(body)
    else {
        return Entry::Other;
    };
    if devices.is_empty() {
        return Entry::Marker { coordinator };
    }
    let devices = devices.into_iter().filter_map(|(cpe_id, concurrency_key)| {
        Some(Device {
            cpe_id: CpeId::parse(cpe_id).ok()?,
            concurrency_key,
        })
    });
    Entry::Record(Record::Released {
        coordinator,
        at,
        devices: devices.collect(),
    })
}

fn of_event(
    event: Event,
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Option<Record> {
    let Event {
        kind,
        time: at,
        data,
    } = event;
    let order = data.order.clone();
    match kind.as_str() {
        "upgrade.campaign.accepted" => Some(Record::Accepted { at }),
        "upgrade.campaign.paused" => Some(Record::Paused {
            at,
            reason: PauseReason::from_name(data.reason.as_deref()?)?,
            message: data.message.unwrap_or_default(),
            order,
        }),
        "upgrade.campaign.resumed" => Some(Record::Resumed { at, order }),
        "upgrade.campaign.progress"
            if data.state.as_deref() == Some("cancelling") && order.is_some() =>
        {
            Some(Record::Cancelling { at, order })
        }
        "upgrade.campaign.progress" => Some(Record::Progressed { at }),
        "upgrade.campaign.jeopardy" => Some(Record::Jeopardy {
            is_in_jeopardy: data.in_jeopardy?,
        }),
        "upgrade.campaign.completed" | "upgrade.campaign.cancelled" => Some(Record::Concluded {
            began_at: data.began_at?,
        }),
        _ => finished(&kind, at, data, campaign_id, configuration_codes),
    }
}

/// The device and its outcome in a final event of one of the campaign's own jobs.
fn finished(
    kind: &str,
    at: Timestamp,
    data: Data,
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Option<Record> {
    let outcome = Outcome::from_name(kind.strip_prefix("upgrade.")?)?;
    let cpe_id = CpeId::parse(data.cpe_id?).ok()?;
    // Other jobs may carry the campaign's id too.
    if data.job_id? != job_id(campaign_id, &cpe_id).as_str() {
        return None;
    }
    let reason = Reason::from_name(&data.reason?)?;
    let is_configuration = data
        .fault
        .is_some_and(|fault| configuration_codes.contains(&fault.code));
    Some(Record::Finished {
        at,
        cpe_id,
        outcome,
        failure: FailureKind::of(outcome, reason, is_configuration),
    })
}
