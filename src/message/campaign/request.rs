//! A campaign's request: what all its devices have in common, and the devices.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::fields::{Fields, shown};
use super::super::request::{
    self, RequestSettings, carried_of, cpe_id, open, read_common, read_context,
};
use super::super::{Incoming, Rejection};
use super::definition::{Definition, TEMPLATE_FIELDS};
use super::plan::{COUNT_MAX, read_abort, read_pace, read_window};
use super::queued::Asked;
use super::{BODY_MAX, DEVICES_MAX, KEY_MAX, job_id};
use crate::campaign::{Device, Plan};
use crate::job::{CampaignId, RuleId};

/// The fields of a campaign's request.
const FIELDS: [&str; 17] = [
    "campaign_id",
    "devices",
    "firmware_url",
    "requested_at",
    "not_before",
    "deadline",
    "cleanup",
    "priority",
    "executions",
    "max_attempts",
    "expected_version",
    "force",
    "context",
    "pace",
    "abort",
    "window",
    "max_in_flight_per_key",
];

/// A campaign's request, checked.
#[derive(Debug, Clone)]
pub struct CampaignRequest {
    /// What all devices have in common.
    pub definition: Definition,
    /// The devices, each once.
    pub devices: Vec<Device>,
}

/// The request if it is a campaign's, that is, if it has `devices`.
pub(in crate::message) fn decode(
    incoming: &Incoming<'_>,
    settings: &RequestSettings,
    now: Timestamp,
) -> Option<Result<CampaignRequest, Rejection>> {
    // Most requests are no campaign's, and are not to be parsed twice for it.
    let needle = b"\"devices\"";
    if !incoming
        .body
        .windows(needle.len())
        .any(|part| part == needle)
    {
        return None;
    }
    let mut fields = match open(incoming, BODY_MAX) {
        Ok(fields) => fields,
        // What no campaign is is told so where single requests are read, unless it is too large for those.
        Err(rejection) if incoming.body.len() > request::BODY_MAX => return Some(Err(rejection)),
        Err(_) => return None,
    };
    fields.raw("devices")?;
    Some(read(&mut fields, incoming, settings, now))
}

fn read(
    fields: &mut Fields<'_>,
    incoming: &Incoming<'_>,
    settings: &RequestSettings,
    now: Timestamp,
) -> Result<CampaignRequest, Rejection> {
    for (name, instead) in [
        ("job_id", "a device's job is <campaign_id>:<cpe_id>"),
        ("cpe_id", "devices stand in `devices`"),
    ] {
        if fields.raw(name).is_some() {
            fields.fault(name, format!("has no place beside `devices`: {instead}"));
        }
    }
    let common = read_common(fields, incoming, settings, now);
    if fields.raw("campaign_id").is_none_or(|raw| raw == "null") {
        fields.fault("campaign_id", "is missing; a campaign needs one");
    }
    let pace = read_pace(fields);
    let window = read_window(fields);
    let abort = read_abort(fields);
    let max_in_flight_per_key = fields.integer("max_in_flight_per_key", 1, COUNT_MAX);
    let context = read_context(fields);
    let devices = match &common.campaign_id {
        Some(campaign_id) => read_devices(fields, campaign_id, settings),
        None => Vec::new(),
    };
    if max_in_flight_per_key.is_some()
        && devices
            .iter()
            .all(|device| device.concurrency_key.is_none())
        && !devices.is_empty()
    {
        fields.fault(
            "max_in_flight_per_key",
            "means nothing here, as no device has a concurrency_key; leave it out, or give devices as {\"cpe_id\", \"concurrency_key\"}",
        );
    }
    let template: Vec<(String, Box<RawValue>)> = TEMPLATE_FIELDS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), fields.kept(name)?)))
        .filter(|(_, raw)| raw.get() != "null")
        .collect();
    // The last two are known, as their fault is told already.
    let known: Vec<&str> = FIELDS.into_iter().chain(["job_id", "cpe_id"]).collect();
    fields.refuse_unknown(&known);
    let asked = Asked::new(common.requested_at, common.is_dated_by_itself());
    match common.campaign_id {
        Some(campaign_id) if fields.faults.is_empty() => Ok(CampaignRequest {
            definition: Definition {
                campaign_id,
                plan: Plan {
                    not_before: common.not_before,
                    deadline: common.deadline,
                    pace: pace.unwrap_or_default(),
                    window,
                    abort,
                    max_in_flight_per_key,
                    configuration_faults: settings.campaign_configuration_faults,
                },
                began_at: now,
                asked,
                template,
                carried: carried_of(incoming, context),
            },
            devices,
        }),
        campaign_id => Err(Rejection {
            campaign_id: campaign_id.map(|id| id.to_string()),
            faults: std::mem::take(&mut fields.faults),
            ..Rejection::default()
        }),
    }
}

/// The devices; one that is named twice with the same key counts once.
fn read_devices(
    fields: &mut Fields<'_>,
    campaign_id: &CampaignId,
    settings: &RequestSettings,
) -> Vec<Device> {
    let Some(items) = fields.items("devices") else {
        if fields.raw("devices") == Some("null") {
            fields.fault("devices", "is null; name 1 to 10000 devices");
        }
        return Vec::new();
    };
    if items.is_empty() || items.len() > DEVICES_MAX {
        fields.fault(
            "devices",
            format!(
                "must have 1 to {DEVICES_MAX} devices, has {}; send more of them in further requests of the same campaign",
                items.len()
            ),
        );
        return Vec::new();
    }
    let mut seen = std::collections::HashMap::with_capacity(items.len());
    let mut devices = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match device(item.get(), campaign_id, settings) {
            Err((field, message)) => fields.fault(&format!("devices[{index}]{field}"), message),
            Ok(device) => match seen.get(&device.cpe_id) {
                None => {
                    seen.insert(device.cpe_id.clone(), device.concurrency_key.clone());
                    devices.push(device);
                }
                Some(key) if *key == device.concurrency_key => {}
                Some(_) => fields.fault(
                    &format!("devices[{index}].concurrency_key"),
                    format!(
                        "differs from the one that {:?} has above",
                        device.cpe_id.as_str()
                    ),
                ),
            },
        }
    }
    devices
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceObject {
    cpe_id: String,
    #[serde(default)]
    concurrency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceItem {
    Id(String),
    Object(DeviceObject),
}

/// The device, or the field below it that is at fault and why.
fn device(
    raw: &str,
    campaign_id: &CampaignId,
    settings: &RequestSettings,
) -> Result<Device, (&'static str, String)> {
    // An array would be taken for the object's fields in their order.
    let read = Some(raw).filter(|raw| !raw.starts_with('['));
    let item = read.and_then(|raw| serde_json::from_str(raw).ok());
    let item: DeviceItem = item.ok_or_else(|| {
        let message = format!(
            "must be a device's id or {{\"cpe_id\", \"concurrency_key\"}}, is {}",
            shown(raw)
        );
        ("", message)
    })?;
    let (field, text, concurrency_key) = match item {
        DeviceItem::Id(text) => ("", text, None),
        DeviceItem::Object(object) => (".cpe_id", object.cpe_id, object.concurrency_key),
    };
    let of_id = |error: String| (field, format!("{:?} {error}", shown(&text)));
    let cpe_id = cpe_id(&text).map_err(of_id)?;
    let job_id = job_id(campaign_id, &cpe_id);
    let _: RuleId = request::rule_id(&settings.rule_id, &job_id, &cpe_id).map_err(of_id)?;
    if let Some(key) = &concurrency_key {
        let length = key.chars().count();
        if length == 0 || length > KEY_MAX || key.chars().any(char::is_control) {
            let message = format!(
                "{:?} must have 1 to {KEY_MAX} characters and no control characters",
                shown(key)
            );
            return Err((".concurrency_key", message));
        }
    }
    Ok(Device {
        cpe_id,
        concurrency_key,
    })
}
