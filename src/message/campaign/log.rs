//! A campaign's log: what the coordinator writes for itself, and, by `logged.rs`, the events that are bound to the log as well.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Definition, logged};
use crate::campaign::{Device, Record};
use crate::job::{ArmAgain, CampaignId, CpeId};

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
    /// Absent: at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    arm_again_over_s: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// Says that an operator has resumed everything: whether that ended a pause, and when what it disarmed may be armed again.
#[must_use]
pub fn encode_everything_resumed(
    at: Timestamp,
    ends_pause: bool,
    arm_again: Option<ArmAgain>,
    order: &str,
) -> Vec<u8> {
    let seconds = |time: SignedDuration| u32::try_from(time.as_secs()).ok();
    let resumed = ResumedV1 {
        order: order.to_owned(),
        ends_pause,
        arm_again_after_s: arm_again.and_then(|arm_again| seconds(arm_again.after)),
        arm_again_over_s: arm_again
            .and_then(|arm_again| seconds(arm_again.over))
            .unwrap_or_default(),
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
    /// Whether it said that one of its own requests was accepted.
    is_own: bool,
    /// Whether its campaign is the one whose request was accepted last.
    is_of_any: bool,
}

impl Log {
    /// Of this campaign; nothing is read yet.
    #[must_use]
    pub fn of(definition: &Definition) -> Self {
        // By a clock that is ahead: jobs that cannot believe it are dated when they are started.
        let asked_at = definition.asked.at.min(definition.began_at);
        Self {
            campaign_id: definition.campaign_id.clone(),
            began_at: definition.began_at,
            asked_at,
            asked_since: asked_at,
            is_own: false,
            is_of_any: false,
        }
    }

    /// Of whichever campaign of this name stands in it; nothing is read yet.
    #[must_use]
    pub fn of_any(campaign_id: CampaignId) -> Self {
        Self {
            campaign_id,
            began_at: Timestamp::MIN,
            asked_at: Timestamp::MIN,
            asked_since: Timestamp::MIN,
            is_own: false,
            is_of_any: true,
        }
    }

    /// Whether devices that were asked for then need an [`Entry::AskedSince`] first.
    #[must_use]
    pub fn is_before(&self, asked_at: Timestamp) -> bool {
        // Undated requests have whole seconds.
        asked_at.as_second() < self.asked_since.as_second()
    }

    /// Reads the next entry. What nobody can read is [`Entry::Other`]: a log holds what was confirmed and cannot be repaired.
    #[must_use]
    pub fn read(&mut self, body: &[u8], configuration_codes: &BTreeSet<u16>) -> Entry {
        let (entry, asked_at) = decode(body, &self.campaign_id, configuration_codes);
        match &entry {
            Entry::AskedSince { at } => self.asked_since = self.asked_since.min(*at),
            Entry::Record(Record::Accepted { began_at, .. }) => {
                if self.is_of_any && *began_at != self.began_at {
                    let asked_at = asked_at.unwrap_or(*began_at).min(*began_at);
                    (self.began_at, self.asked_at, self.asked_since) =
                        (*began_at, asked_at, asked_at);
                }
                self.is_own |= *began_at == self.began_at;
            }
            // The end of an earlier campaign of the same name, told late: all that came before is ours.
            Entry::Record(Record::Concluded { began_at })
                if *began_at != self.began_at && self.is_own =>
            {
                return Entry::Other;
            }
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

/// An entry, and when the job was asked for that it is about, if it says so.
fn decode(
    body: &[u8],
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> (Entry, Option<Timestamp>) {
    match logged::read(body, campaign_id, configuration_codes) {
        Some((record, asked_at)) => (record.map_or(Entry::Other, Entry::Record), asked_at),
        None => (of_coordinator(body), None),
    }
}

/// An entry that a coordinator wrote for itself.
fn of_coordinator(body: &[u8]) -> Entry {
    if let Ok(NoteV1 { v: 1, at, says }) = serde_json::from_slice(body) {
        let resumed = match says {
            SaysV1::EverythingResumed(resumed) => resumed,
            SaysV1::AskedSince(at) => return Entry::AskedSince { at },
        };
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        return Entry::Record(Record::EverythingResumed {
            at,
            ends_pause: resumed.ends_pause,
            arm_again: resumed.arm_again_after_s.map(|after| ArmAgain {
                after: seconds(after),
                over: seconds(resumed.arm_again_over_s),
            }),
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
