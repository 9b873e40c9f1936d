//! Pages below `/sim/` for operators and tests: what no real NBI would show.
//!
//! - `GET /sim/devices`: every device with state, version and flashes.
//! - `GET /sim/rules`, `GET /sim/results`: the storages' rows.
//! - `GET /sim/summary`: the whole in numbers.
//! - `POST /sim/devices`: adds one device or a list of them; only `cpe_id` must be given.

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::device::{AttemptResult, Device, Flash};
use super::reply::Reply;
use super::shared::SharedSimulator;
use super::view::{DeviceView, Summary};

/// Answers a request for a page.
pub(super) fn answer(
    simulator: &SharedSimulator,
    method: &Method,
    page: &str,
    body: &[u8],
) -> Reply {
    let shown = match (method, page) {
        (&Method::GET, "devices") => simulator
            .with(|simulator, now| simulator.devices(now).iter().map(device).collect::<Value>()),
        (&Method::GET, "rules") => Value::Array(simulator.with(|simulator, _| simulator.rules())),
        (&Method::GET, "results") => {
            Value::Array(simulator.with(|simulator, _| simulator.results()))
        }
        (&Method::GET, "summary") => {
            summary(&simulator.with(|simulator, now| simulator.summary(now)))
        }
        (&Method::POST, "devices") => match devices_in(body) {
            Ok(devices) => {
                let count = devices.len();
                simulator.with(|simulator, now| {
                    devices
                        .into_iter()
                        .for_each(|wanted| simulator.add_device(wanted.into_device(now), now));
                });
                json!({"added": count})
            }
            Err(error) => return Reply::json(400, &json!({"error": error.to_string()})),
        },
        _ => return Reply::no_such_page(),
    };
    Reply::json(200, &shown)
}

fn device(view: &DeviceView) -> Value {
    json!({
        "cpe_id": view.cpe_id,
        "character": view.character,
        "state": view.state.name(),
        "version": view.version,
        "flashes": view.flashes.iter().map(flash).collect::<Value>(),
    })
}

fn flash(flash: &Flash) -> Value {
    json!({
        "rule_id": flash.rule_id,
        "file": flash.file,
        "started_at": flash.started_at.to_string(),
        "ended_at": flash.ended_at.map(|time| time.to_string()),
        "result": flash.result.name(),
    })
}

fn summary(summary: &Summary) -> Value {
    json!({
        "devices": summary.devices,
        "attempts": summary.attempts,
        "flashes": summary.flashes,
        "devices_flashed": summary.devices_flashed,
        "devices_flashed_twice": summary.devices_flashed_twice,
        "armed_rules": summary.armed_rules,
        "rules": summary.rules,
        "results": summary.results,
        "states": summary.states,
        "calls": summary.calls,
        "troubles": summary.troubles,
    })
}

fn devices_in(body: &[u8]) -> serde_json::Result<Vec<Wanted>> {
    let body: Value = serde_json::from_slice(body)?;
    if body.is_array() {
        serde_json::from_value(body)
    } else {
        Ok(vec![serde_json::from_value(body)?])
    }
}

/// A device as it is asked for; what is absent is as [`Device::new`] has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    cpe_id: String,
    version: Option<String>,
    offline_for_seconds: Option<u32>,
    accepts_connection_requests: Option<bool>,
    inform_interval_seconds: Option<u32>,
    session_delay_seconds: Option<u32>,
    download_seconds: Option<u32>,
    reboot_seconds: Option<u32>,
    #[serde(default)]
    reports_before_flashing: bool,
    #[serde(default)]
    attempts: Vec<WantedResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedResult {
    Success,
    Fault { code: u16, text: String },
    Silent,
    SameVersion,
    Lost,
}

impl Wanted {
    fn into_device(self, now: Timestamp) -> Device {
        let plain = Device::new(&self.cpe_id);
        let interval = self.inform_interval_seconds.map(seconds);
        Device {
            offline_until: self
                .offline_for_seconds
                .and_then(|offline| now.checked_add(seconds(offline)).ok()),
            accepts_connection_requests: self
                .accepts_connection_requests
                .unwrap_or(plain.accepts_connection_requests),
            first_inform_after: interval.unwrap_or(plain.first_inform_after),
            inform_interval: interval.or(plain.inform_interval),
            session_delay: self
                .session_delay_seconds
                .map_or(plain.session_delay, seconds),
            download: self.download_seconds.map_or(plain.download, seconds),
            reboot: self.reboot_seconds.map_or(plain.reboot, seconds),
            reports_before_flashing: self.reports_before_flashing,
            attempts: self.attempts.into_iter().map(AttemptResult::from).collect(),
            version: self.version.unwrap_or(plain.version),
            cpe_id: plain.cpe_id,
            character: plain.character,
        }
    }
}

impl From<WantedResult> for AttemptResult {
    fn from(wanted: WantedResult) -> Self {
        match wanted {
            WantedResult::Success => Self::Success,
            WantedResult::Fault { code, text } => Self::Fault { code, text },
            WantedResult::Silent => Self::Silent,
            WantedResult::SameVersion => Self::SameVersion,
            WantedResult::Lost => Self::Lost,
        }
    }
}

fn seconds(number: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(number))
}
