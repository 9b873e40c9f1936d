//! What all devices of a campaign have in common: kept in a message of its own until the campaign is over.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::Carried;
use super::job_id;
use super::plan::{DAYS, time, time_zone, weekday};
use super::queued::{Asked, DeviceRequest, Waiting};
use crate::campaign::{Abort, FailureKind, Pace, Plan, Ramp, Window};
use crate::job::CampaignId;

/// Fields of the request that go into every device's request as they are.
pub(super) const TEMPLATE_FIELDS: [&str; 8] = [
    "firmware_url",
    "cleanup",
    "priority",
    "executions",
    "max_attempts",
    "expected_version",
    "force",
    "context",
];

/// What all devices of a campaign have in common.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Which campaign.
    pub campaign_id: CampaignId,
    /// Pace, window and limits.
    pub plan: Plan,
    /// When it was taken on; tells campaigns of the same name apart.
    pub began_at: Timestamp,
    /// When it was asked for, by its first request.
    pub asked: Asked,
    /// Fields of every device's request, as they were sent.
    pub(super) template: Vec<(String, Box<RawValue>)>,
    /// What the requester sent along.
    pub carried: Carried,
}

/// Why a definition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition of a campaign cannot be read: {0}")]
pub struct DefinitionError(String);

#[derive(Serialize, Deserialize)]
pub(super) struct DefinitionV1 {
    v: u32,
    campaign_id: String,
    began_at: Timestamp,
    requested_at: Timestamp,
    /// Absent: taken for undated, so that no device is upgraded twice.
    #[serde(default)]
    dated_by_request: bool,
    #[serde(default)]
    not_before: Option<Timestamp>,
    #[serde(default)]
    deadline: Option<Timestamp>,
    #[serde(default)]
    starts_per_minute: Option<u32>,
    #[serde(default)]
    max_in_flight: Option<u32>,
    #[serde(default)]
    in_flight_timeout_ms: Option<u64>,
    #[serde(default)]
    ramp: Option<RampV1>,
    #[serde(default)]
    window: Option<WindowV1>,
    #[serde(default)]
    abort: Vec<AbortV1>,
    #[serde(default)]
    max_in_flight_per_key: Option<u32>,
    #[serde(default)]
    configuration_faults: u32,
    template: Map<String, Value>,
    #[serde(default)]
    context: Option<Box<RawValue>>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    reply_to: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    tracestate: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RampV1 {
    factor: f64,
    after_successes: u32,
    max_starts_per_minute: u32,
}

#[derive(Serialize, Deserialize)]
struct WindowV1 {
    start: String,
    end: String,
    time_zone: String,
    #[serde(default)]
    days: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct AbortV1 {
    failure: String,
    percent: f64,
    min_finished: u32,
}

impl Definition {
    /// The message that keeps it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.wire()).unwrap_or_default()
    }

    pub(super) fn wire(&self) -> DefinitionV1 {
        let Plan {
            not_before,
            deadline,
            pace,
            window,
            abort,
            max_in_flight_per_key,
            configuration_faults,
        } = &self.plan;
        let template = self.template.iter().filter(|(name, _)| name != "context");
        DefinitionV1 {
            v: 1,
            campaign_id: self.campaign_id.to_string(),
            began_at: self.began_at,
            requested_at: self.asked.at,
            dated_by_request: self.asked.is_said,
            not_before: *not_before,
            deadline: *deadline,
            starts_per_minute: pace.starts_per_minute,
            max_in_flight: pace.max_in_flight,
            in_flight_timeout_ms: pace
                .in_flight_timeout
                .and_then(|timeout| u64::try_from(timeout.as_millis()).ok()),
            ramp: pace.ramp.as_ref().map(|ramp| RampV1 {
                factor: ramp.factor,
                after_successes: ramp.after_successes,
                max_starts_per_minute: ramp.max_starts_per_minute,
            }),
            window: window.as_ref().map(|window| WindowV1 {
                start: window.start.strftime("%H:%M").to_string(),
                end: window.end.strftime("%H:%M").to_string(),
                time_zone: window.time_zone.iana_name().unwrap_or("UTC").to_owned(),
                days: DAYS
                    .iter()
                    .filter(|(_, day)| window.days.contains(day))
                    .map(|(name, _)| (*name).to_owned())
                    .collect(),
            }),
            abort: abort
                .iter()
                .map(|abort| AbortV1 {
                    failure: abort.failure.name().to_owned(),
                    percent: abort.percent,
                    min_finished: abort.min_finished,
                })
                .collect(),
            max_in_flight_per_key: *max_in_flight_per_key,
            configuration_faults: *configuration_faults,
            template: template
                .filter_map(|(name, raw)| {
                    Some((name.clone(), serde_json::from_str(raw.get()).ok()?))
                })
                .collect(),
            context: self.carried.context.clone(),
            correlation_id: self.carried.correlation_id.clone(),
            reply_to: self.carried.reply_to.clone(),
            traceparent: self.carried.traceparent.clone(),
            tracestate: self.carried.tracestate.clone(),
        }
    }

    /// Reads the message that keeps it.
    ///
    /// # Errors
    ///
    /// [`DefinitionError`] says why it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Self, DefinitionError> {
        let wrong = |error: &dyn std::fmt::Display| DefinitionError(error.to_string());
        let wire: DefinitionV1 = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
        if wire.v != 1 {
            return Err(DefinitionError(format!("its version is {}", wire.v)));
        }
        let window = wire.window.map(|window| {
            Ok::<_, String>(Window {
                start: time(&window.start)?,
                end: time(&window.end)?,
                time_zone: time_zone(&window.time_zone)?,
                days: window.days.iter().filter_map(|day| weekday(day)).collect(),
            })
        });
        let abort = wire.abort.into_iter().filter_map(|abort| {
            Some(Abort {
                failure: FailureKind::from_name(&abort.failure)?,
                percent: abort.percent,
                min_finished: abort.min_finished,
            })
        });
        let raw = |value: &Value| serde_json::value::to_raw_value(value).ok();
        let mut template: Vec<_> = wire
            .template
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), raw(value)?)))
            .collect();
        if let Some(context) = &wire.context {
            template.push(("context".to_owned(), context.clone()));
        }
        Ok(Self {
            campaign_id: CampaignId::parse(wire.campaign_id).map_err(|error| wrong(&error))?,
            plan: Plan {
                not_before: wire.not_before,
                deadline: wire.deadline,
                pace: Pace {
                    starts_per_minute: wire.starts_per_minute,
                    max_in_flight: wire.max_in_flight,
                    in_flight_timeout: wire
                        .in_flight_timeout_ms
                        .and_then(|millis| i64::try_from(millis).ok())
                        .map(SignedDuration::from_millis),
                    ramp: wire.ramp.map(|ramp| Ramp {
                        factor: ramp.factor,
                        after_successes: ramp.after_successes,
                        max_starts_per_minute: ramp.max_starts_per_minute,
                    }),
                },
                window: window.transpose().map_err(|error| wrong(&error))?,
                abort: abort.collect(),
                max_in_flight_per_key: wire.max_in_flight_per_key,
                configuration_faults: wire.configuration_faults,
            },
            began_at: wire.began_at,
            asked: Asked::new(wire.requested_at, wire.dated_by_request),
            template,
            carried: Carried {
                context: wire.context,
                correlation_id: wire.correlation_id,
                reply_to: wire.reply_to,
                traceparent: wire.traceparent,
                tracestate: wire.tracestate,
            },
        })
    }

    /// The file, for events and people.
    #[must_use]
    pub fn firmware_url(&self) -> String {
        self.template
            .iter()
            .find(|(name, _)| name == "firmware_url")
            .and_then(|(_, raw)| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default()
    }

    /// The request of a device that is started at `at`. Its time runs from then, and not beyond the campaign's.
    ///
    /// It says when it was asked for where the campaign's request does. Where that does not, its message says it, so that it is carried
    /// out once in `job.repeat_window` like any other undated request: the campaign may begin anew when its request is sent again.
    #[must_use]
    pub fn request(
        &self,
        waiting: &Waiting,
        at: Timestamp,
        timeout: SignedDuration,
    ) -> DeviceRequest {
        #[derive(Serialize)]
        struct Request<'a> {
            job_id: &'a str,
            cpe_id: &'a str,
            campaign_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            requested_at: Option<Timestamp>,
            deadline: Timestamp,
            #[serde(flatten)]
            template: std::collections::BTreeMap<&'a str, &'a RawValue>,
        }
        let Waiting { device, asked } = waiting;
        let job_id = job_id(&self.campaign_id, &device.cpe_id);
        let ends_at = at.checked_add(timeout).unwrap_or(Timestamp::MAX);
        let request = Request {
            job_id: job_id.as_str(),
            cpe_id: device.cpe_id.as_str(),
            campaign_id: self.campaign_id.as_str(),
            requested_at: asked.is_said.then_some(asked.at),
            deadline: self
                .plan
                .deadline
                .map_or(ends_at, |deadline| deadline.min(ends_at)),
            template: self
                .template
                .iter()
                .map(|(name, raw)| (name.as_str(), &**raw))
                .collect(),
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        DeviceRequest {
            job_id,
            body,
            timestamp: if asked.is_said { at } else { asked.at },
        }
    }
}
