//! The schema of a campaign's request: many devices, and how fast. A test holds it and its decoder together.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::pattern::{NO_CONTROL, campaign_id, cpe_id};
use super::request::{Common, without_context_as_required};
use super::{document, of_input};
use crate::campaign::FailureKind;
use crate::job::{CampaignId, CpeId};
use crate::message::campaign::{BODY_MAX, DEVICES_MAX, KEY_MAX};
use crate::message::campaign::{COUNT_MAX, CRITERIA_MAX, DAYS, FACTOR_MAX};

/// Names the schema and its version.
const ID: &str = "urn:nbi-upgrade:campaign:v1";

/// One upgrade of many devices: the body of a message to the exchange `<prefix>.requests` (content type `application/json`), or the `data` of
/// a CloudEvent there (`application/cloudevents+json`). At most 4 MiB. Sent again with the same `campaign_id` it adds devices; `devices` and
/// `requested_at` may differ then, nothing else. The job of a device is `<campaign_id>:<cpe_id>`. An optional field may be null,
/// which counts as absent.
#[derive(JsonSchema)]
#[schemars(title = "Campaign request", deny_unknown_fields, extend("examples" = [example()], "allOf" = [keys_have_devices()]))]
#[expect(dead_code, reason = "only its shape is used")]
struct Campaign {
    /// Names the campaign.
    #[schemars(length(min = 1, max = CampaignId::MAX), extend("pattern" = campaign_id()))]
    campaign_id: String,
    /// The devices. One that is named twice counts once.
    #[schemars(length(min = 1, max = DEVICES_MAX))]
    devices: Vec<Device>,
    #[schemars(flatten)]
    common: Common,
    /// How fast devices are started. Absent: no bound.
    pace: Option<Pace>,
    /// When the campaign pauses by itself.
    #[schemars(length(max = CRITERIA_MAX))]
    abort: Option<Vec<Abort>>,
    /// Nothing starts outside it. Absent: devices start at any time.
    window: Option<Window>,
    /// Devices with the same `concurrency_key` that are under way at a time. Needs a device that has one.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    max_in_flight_per_key: Option<u32>,
}

/// A device: its `cpe_id`, or an object.
#[derive(JsonSchema)]
#[schemars(rename = "CampaignDevice", untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Device {
    Id(CpeIdText),
    Object(DeviceObject),
}

/// The device, as the management system names it.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
#[expect(dead_code, reason = "only its shape is used")]
struct CpeIdText(
    #[schemars(length(min = 1, max = CpeId::MAX), extend("pattern" = cpe_id(), "allOf" = [{"pattern": "[A-Za-z0-9]"}]))]
     String,
);

/// A device with what it shares with others.
#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct DeviceObject {
    cpe_id: CpeIdText,
    /// What it shares with other devices, such as an access node.
    #[schemars(length(min = 1, max = KEY_MAX), extend("pattern" = NO_CONTROL))]
    concurrency_key: Option<String>,
}

/// How fast devices are started, over all workers together.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("allOf" = [needs("in_flight_timeout", "string", "max_in_flight"), needs("ramp", "object", "starts_per_minute")]))]
#[expect(dead_code, reason = "only its shape is used")]
struct Pace {
    /// Starts in a minute. Absent: no bound.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    starts_per_minute: Option<u32>,
    /// Devices under way at a time. Absent: no bound.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    max_in_flight: Option<u32>,
    /// A device that has been under way for so long frees its place, though its job goes on: a duration of at least a
    /// second, like `45m` or `2h`. Absent: only its end frees it.
    in_flight_timeout: Option<String>,
    /// How the rate grows.
    ramp: Option<Ramp>,
}

/// How the rate grows as devices succeed.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Ramp {
    /// `starts_per_minute` is multiplied by it…
    #[schemars(extend("exclusiveMinimum" = 1, "maximum" = FACTOR_MAX))]
    factor: f64,
    /// …after each so many successes.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    after_successes: u32,
    /// It grows no further than this. Absent: ten times `starts_per_minute`.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    max_starts_per_minute: Option<u32>,
}

/// When the campaign pauses by itself.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Abort {
    /// Which failures count.
    #[schemars(extend("enum" = FailureKind::ALL.map(FailureKind::name)))]
    failure: String,
    /// Their share among all that finished, in percent. Reached is enough.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 100))]
    percent: f64,
    /// So many must have finished before the share means anything.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    min_finished: u32,
}

/// When devices may be started, by the clock of a place. A window whose end is before its start goes over midnight.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
struct Window {
    /// When it opens, like `23:00`.
    #[schemars(extend("pattern" = TIME_OF_DAY))]
    start: String,
    /// When it closes. Not the same as `start`.
    #[schemars(extend("pattern" = TIME_OF_DAY))]
    end: String,
    /// Whose clock: a name of the time zone database, like `Europe/Berlin`.
    time_zone: String,
    /// The days on which it opens. Absent: every day.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    days: Option<Vec<Day>>,
}

/// A day by its first three letters.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
#[expect(dead_code, reason = "only its shape is used")]
struct Day(#[schemars(extend("enum" = DAYS.map(|(name, _)| name)))] String);

const TIME_OF_DAY: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";

const _: () = assert!(BODY_MAX == 4 * 1024 * 1024, "the description above says it");

/// The schema of a campaign's request.
#[must_use]
pub fn campaign() -> Value {
    document(ID, without_context_as_required(of_input::<Campaign>()))
}

/// A field that means something only where another one is.
fn needs(field: &str, kind: &str, other: &str) -> Value {
    json!({
        "if": {"required": [field], "properties": {field: {"type": kind}}},
        "then": {"required": [other], "properties": {other: {"type": "integer"}}},
    })
}

fn keys_have_devices() -> Value {
    json!({
        "if": {"required": ["max_in_flight_per_key"], "properties": {"max_in_flight_per_key": {"type": "integer"}}},
        "then": {"properties": {"devices": {"contains": {
            "type": "object", "required": ["concurrency_key"], "properties": {"concurrency_key": {"type": "string"}},
        }}}},
    })
}

fn example() -> Value {
    json!({
        "campaign_id": "spring-26",
        "devices": ["001122-ABC", {"cpe_id": "001122-ABD", "concurrency_key": "olt-7"}],
        "firmware_url": "https://files.example.com/fw-2.bin",
        "requested_at": "2026-06-01T02:07:15Z",
        "deadline": "2026-06-15T00:00:00Z",
        "pace": {
            "starts_per_minute": 60,
            "max_in_flight": 500,
            "in_flight_timeout": "45m",
            "ramp": {"factor": 1.5, "after_successes": 100},
        },
        "abort": [{"failure": "device_fault", "percent": 5, "min_finished": 50}],
        "window": {"start": "23:00", "end": "05:00", "time_zone": "Europe/Berlin", "days": ["mon", "tue", "wed", "thu"]},
        "max_in_flight_per_key": 3,
    })
}
