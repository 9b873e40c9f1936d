//! What all devices of a campaign have in common: kept in a message of its own until the campaign is over.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::Carried;
use super::job_id;
use super::plan::{DAYS, time, time_zone, weekday};
use crate::campaign::{Abort, Device, FailureKind, Pace, Plan, Ramp, Window};
use crate::job::{CampaignId, JobId};

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
    /// When it was asked for: results newer than this belong to its devices.
    pub requested_at: Timestamp,
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
struct DefinitionV1 {
    v: u32,
    campaign_id: String,
    began_at: Timestamp,
    requested_at: Timestamp,
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

    fn wire(&self) -> DefinitionV1 {
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
            requested_at: self.requested_at,
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
            requested_at: wire.requested_at,
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

    /// The fields in which a later request of the same campaign differs; times and what is carried may.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let value = |definition: &Self| serde_json::to_value(definition.wire());
        let (Ok(Value::Object(ours)), Ok(Value::Object(theirs))) = (value(self), value(other))
        else {
            return vec!["body".to_owned()];
        };
        let may_differ = [
            "began_at",
            "requested_at",
            "configuration_faults",
            "correlation_id",
            "reply_to",
            "traceparent",
            "tracestate",
        ];
        let mut differing = Vec::new();
        for (name, value) in &ours {
            if may_differ.contains(&name.as_str()) || theirs.get(name) == Some(value) {
                continue;
            }
            match (name.as_str(), value, theirs.get(name)) {
                ("template", Value::Object(ours), Some(Value::Object(theirs))) => {
                    let names = ours.keys().chain(theirs.keys());
                    let names = names.filter(|name| ours.get(*name) != theirs.get(*name));
                    differing.extend(names.cloned());
                }
                ("starts_per_minute" | "max_in_flight" | "ramp", _, _) => {
                    differing.push(format!("pace.{name}"));
                }
                ("in_flight_timeout_ms", _, _) => {
                    differing.push("pace.in_flight_timeout".to_owned())
                }
                _ => differing.push(name.clone()),
            }
        }
        differing.sort();
        differing.dedup();
        differing
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

    /// The request of a device that is started at `at`, and its job. Its time runs from then, and not beyond the campaign's.
    #[must_use]
    pub fn request(
        &self,
        device: &Device,
        at: Timestamp,
        timeout: SignedDuration,
    ) -> (JobId, Vec<u8>) {
        #[derive(Serialize)]
        struct Request<'a> {
            job_id: &'a str,
            cpe_id: &'a str,
            campaign_id: &'a str,
            requested_at: Timestamp,
            deadline: Timestamp,
            #[serde(flatten)]
            template: std::collections::BTreeMap<&'a str, &'a RawValue>,
        }
        let job_id = job_id(&self.campaign_id, &device.cpe_id);
        let ends_at = at.checked_add(timeout).unwrap_or(Timestamp::MAX);
        let request = Request {
            job_id: job_id.as_str(),
            cpe_id: device.cpe_id.as_str(),
            campaign_id: self.campaign_id.as_str(),
            requested_at: self.requested_at,
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
        (job_id, body)
    }
}
