//! A campaign's log: what the coordinator writes for itself, and the events that are bound to the log as well.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Definition, job_id};
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
    /// Devices are about to be added that were asked for then, earlier than those before them.
    AskedSince {
        /// When.
        at: Timestamp,
    },
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

/// Without a `coordinator`, so that a release which does not know what it says takes it for nothing, and not for a marker.
#[derive(Serialize, Deserialize)]
struct NoteV1 {
    v: u32,
    at: Timestamp,
    #[serde(flatten)]
    says: SaysV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SaysV1 {
    EverythingResumed(ResumedV1),
    AskedSince(Timestamp),
}

#[derive(Serialize, Deserialize)]
struct ResumedV1 {
    order: String,
    #[serde(default)]
    ends_pause: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arm_again_after_s: Option<u32>,
}

/// Says that an operator has resumed everything: whether that ended a pause, and when what it disarmed may be armed again.
#[must_use]
pub fn encode_everything_resumed(
    at: Timestamp,
    ends_pause: bool,
    arm_again_after: Option<SignedDuration>,
    order: &str,
) -> Vec<u8> {
    let arm_again_after_s = arm_again_after.and_then(|after| u32::try_from(after.as_secs()).ok());
    let resumed = ResumedV1 {
        order: order.to_owned(),
        ends_pause,
        arm_again_after_s,
    };
    encode_note(at, SaysV1::EverythingResumed(resumed))
}

fn encode_note(at: Timestamp, says: SaysV1) -> Vec<u8> {
    serde_json::to_vec(&NoteV1 { v: 1, at, says }).unwrap_or_default()
}

/// Says that a coordinator took over.
#[must_use]
pub fn encode_marker(coordinator: &str, at: Timestamp) -> Vec<u8> {
    encode(coordinator, at, Vec::new())
}

/// Says that devices are about to be added which were asked for at `since`, earlier than those before them.
#[must_use]
pub fn encode_asked_since(at: Timestamp, since: Timestamp) -> Vec<u8> {
    encode_note(at, SaysV1::AskedSince(since))
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
    requested_at: Option<Timestamp>,
    #[serde(default)]
    began_at: Option<Timestamp>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    in_jeopardy: Option<bool>,
    #[serde(default)]
    arm_again_after: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    code: u16,
}

/// The log of one campaign, read from its beginning.
///
/// An outcome counts unless it says that its job was asked for before all devices of this campaign: then it is that of an earlier campaign
/// of the same name, told late or again, and the device's own is to come.
#[derive(Debug, Clone)]
pub struct Log {
    campaign_id: CampaignId,
    began_at: Timestamp,
    /// When its first request was made.
    asked_at: Timestamp,
    /// When the earliest of its requests so far was made.
    asked_since: Timestamp,
}

impl Log {
    /// Of this campaign; nothing is read yet.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        Self {
            campaign_id: definition.campaign_id.clone(),
            began_at: definition.began_at,
            asked_at: definition.asked.at,
            asked_since: definition.asked.at,
        }
    }

    /// Whether devices that were asked for then need an [`Entry::AskedSince`] first.
    #[must_use]
    pub fn is_before(&self, asked_at: Timestamp) -> bool {
        // Undated requests have whole seconds.
        asked_at.as_second() < self.asked_since.as_second()
    }

    /// Reads the next entry.
    #[must_use]
    pub fn read(&mut self, body: &[u8], configuration_codes: &BTreeSet<u16>) -> Entry {
        let (entry, asked_at) = decode(body, &self.campaign_id, configuration_codes);
        match &entry {
            Entry::AskedSince { at } => self.asked_since = self.asked_since.min(*at),
            // What came before belongs to an earlier campaign of the same name.
            Entry::Record(Record::Concluded { began_at }) if *began_at != self.began_at => {
                self.asked_since = self.asked_at;
            }
            Entry::Record(Record::Finished { .. })
                if asked_at.is_some_and(|asked_at| self.is_before(asked_at)) =>
            {
                return Entry::Other;
            }
            Entry::Record(_) | Entry::Marker { .. } | Entry::Other => {}
        }
        entry
    }
}

/// Reads an entry of a campaign's log. What nobody can read is [`Entry::Other`]: a log holds what was confirmed and cannot be repaired.
#[must_use]
pub fn decode_entry(
    body: &[u8],
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Entry {
    decode(body, campaign_id, configuration_codes).0
}

/// An entry, and when the job was asked for that it is about, if it says so.
fn decode(
    body: &[u8],
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> (Entry, Option<Timestamp>) {
    let Ok(event) = serde_json::from_slice::<Event>(body) else {
        return (of_coordinator(body), None);
    };
    let asked_at = event.data.requested_at;
    let record = of_event(event, campaign_id, configuration_codes);
    (record.map_or(Entry::Other, Entry::Record), asked_at)
}

/// An entry that a coordinator wrote for itself.
fn of_coordinator(body: &[u8]) -> Entry {
    if let Ok(NoteV1 { v: 1, at, says }) = serde_json::from_slice(body) {
        let resumed = match says {
            SaysV1::EverythingResumed(resumed) => resumed,
            SaysV1::AskedSince(at) => return Entry::AskedSince { at },
        };
        let after = resumed.arm_again_after_s;
        return Entry::Record(Record::EverythingResumed {
            at,
            ends_pause: resumed.ends_pause,
            arm_again_after: after.map(|seconds| SignedDuration::from_secs(seconds.into())),
            order: resumed.order,
        });
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
        "upgrade.campaign.resumed" => Some(Record::Resumed {
            at,
            arm_again_after: data.arm_again_after.and_then(|text| text.parse().ok()),
            order,
        }),
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
