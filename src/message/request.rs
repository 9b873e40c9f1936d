//! Upgrade requests: JSON in, a job or every field at fault out.
//!
//! Every fault is reported at once, each with field, value and remedy, so that a publisher repairs a request in one go. Unknown and
//! repeated fields are faults: a misspelt `deadline` must not become a job without one.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::firmware::firmware_url;
use super::time::timestamp;
use super::{Carried, Incoming, Work};
use crate::job::fault::FaultPolicy;
use crate::job::state::{Cleanup, Order};
use crate::job::{CampaignId, CpeId, FirmwareUrl, Job, JobId, RuleId};

/// Defaults and limits of requests, from the configuration.
#[derive(Debug, Clone)]
pub struct RequestSettings {
    /// `job.timeout`.
    pub timeout: SignedDuration,
    /// `job.repeat_window`.
    pub repeat_window: SignedDuration,
    /// `job.cleanup`.
    pub cleanup: Cleanup,
    /// `job.max_attempts`.
    pub max_attempts: u32,
    /// `nbi.rule_id`: a template with `{cpe_id}` and, if wanted, `{job_id}`.
    pub rule_id: String,
    /// `firmware.allowed_url_prefixes`; empty: any.
    pub allowed_url_prefixes: Vec<String>,
    /// `firmware.allow_credentials`: whether a URL may carry a user and password.
    pub allow_url_credentials: bool,
    /// `verify.enabled`: without it `expected_version` is refused.
    pub verify: bool,
    /// `campaign.configuration_faults`.
    pub campaign_configuration_faults: u32,
    /// `faults.configuration`: what counts as a configuration fault.
    pub configuration_codes: BTreeSet<u16>,
}

impl Default for RequestSettings {
    fn default() -> Self {
        Self {
            timeout: SignedDuration::from_hours(1),
            repeat_window: SignedDuration::from_hours(24),
            cleanup: Cleanup::default(),
            max_attempts: 1,
            rule_id: "UPGRADE_{cpe_id}".to_owned(),
            allowed_url_prefixes: Vec::new(),
            allow_url_credentials: false,
            verify: false,
            campaign_configuration_faults: 3,
            configuration_codes: FaultPolicy::default().configuration,
        }
    }
}

/// Largest request, in bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// Largest `context`, in bytes as it was sent.
pub const CONTEXT_MAX: usize = 16 * 1024;

/// Deepest nesting of `context`: readers of events stop at 127 (`serde_json`) or less, and it stands two levels deep in them.
pub const CONTEXT_DEPTH_MAX: usize = 64;

/// Longest `expected_version`, in characters.
pub const VERSION_MAX: usize = 256;

/// Longest `correlation_id`, `reply_to`, `traceparent` and `tracestate` carried, in bytes (AMQP's short strings end there; W3C allows
/// trace states to be cut at 512).
const CARRIED_MAX: usize = 512;

/// Most tries of a device, rule executions and the highest priority that a request can ask for: a slip of the keyboard
/// must not flash a device for days.
pub(super) const ATTEMPTS_MAX: u32 = 100;
pub(super) const EXECUTIONS_MAX: u32 = 1_000;
pub(super) const PRIORITY_MAX: u32 = 1_000_000;

/// The fields of a request.
pub const FIELDS: [&str; 15] = [
    "job_id",
    "cpe_id",
    "firmware_url",
    "campaign_id",
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
    "devices",
];

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field, or `body` for the whole.
    pub field: String,
    /// What is wrong with which value, and the remedy.
    pub message: String,
}

/// A request that is not valid, with every field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejection {
    /// The job's id, if it could be read.
    pub job_id: Option<String>,
    /// The device, if it could be read.
    pub cpe_id: Option<String>,
    /// The campaign, if it could be read and is valid.
    pub campaign_id: Option<String>,
    /// What is wrong.
    pub faults: Vec<FieldFault>,
}

impl Rejection {
    fn of_body(message: impl Into<String>) -> Self {
        Self {
            faults: vec![FieldFault {
                field: "body".to_owned(),
                message: message.into(),
            }],
            ..Self::default()
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{}: {}", fault.field, fault.message)?;
        }
        Ok(())
    }
}

pub(super) fn decode(
    incoming: &Incoming<'_>,
    settings: &RequestSettings,
    now: Timestamp,
) -> Result<Work, Rejection> {
    let mut fields = open(incoming, BODY_MAX)?;
    let order = read_order(&mut fields, incoming, settings, now);
    let context = read_context(&mut fields);
    fields.refuse_unknown(&FIELDS);
    match order {
        Some(order) if fields.faults.is_empty() => Ok(Work {
            job: Job::new(order),
            carried: carried_of(incoming, context),
            not_due_before: None,
        }),
        Some(_) | None => Err(Rejection {
            job_id: fields.peek_string("job_id", JobId::MAX),
            cpe_id: fields.peek_string("cpe_id", CpeId::MAX),
            campaign_id: fields
                .peek_string("campaign_id", CampaignId::MAX)
                .filter(|id| CampaignId::parse(id.as_str()).is_ok()),
            faults: fields.faults,
        }),
    }
}

/// What travels with a job.
pub(super) fn carried_of(incoming: &Incoming<'_>, context: Option<Box<RawValue>>) -> Carried {
    Carried {
        context,
        correlation_id: carried(incoming.correlation_id).map(str::to_owned),
        reply_to: carried(incoming.reply_to).map(str::to_owned),
        traceparent: traced(incoming.traceparent).map(str::to_owned),
        tracestate: traced(incoming.tracestate).map(str::to_owned),
    }
}

/// The fields of the request, out of plain JSON or of a CloudEvent.
pub(super) fn open<'a>(incoming: &Incoming<'a>, max: usize) -> Result<Fields<'a>, Rejection> {
    let length = incoming.body.len();
    if length > max {
        return Err(Rejection::of_body(format!(
            "has {length} bytes; at most {max} are allowed"
        )));
    }
    let Ok(text) = std::str::from_utf8(incoming.body) else {
        return Err(Rejection::of_body("is not UTF-8; encode the JSON as UTF-8"));
    };
    let fields = Fields::parse(text).map_err(|error| {
        Rejection::of_body(format!(
            "is not a JSON object: {error}; send one JSON object; `nbi-upgrade schema request` has its fields"
        ))
    })?;
    let media_type = incoming.content_type.unwrap_or("application/json");
    match media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/json" | "" => Ok(fields),
        "application/cloudevents+json" => open_cloud_event(&fields),
        other => Err(Rejection::of_body(format!(
            "has content_type {other:?}; send application/json or application/cloudevents+json"
        ))),
    }
}

fn open_cloud_event<'a>(event: &Fields<'a>) -> Result<Fields<'a>, Rejection> {
    if event.peek_string("specversion", 16).as_deref() != Some("1.0") {
        return Err(Rejection::of_body(
            "is no CloudEvent 1.0: `specversion` must be \"1.0\"",
        ));
    }
    let Some(data) = event.raw("data") else {
        return Err(Rejection::of_body(
            "is a CloudEvent without `data`; put the request there",
        ));
    };
    Fields::parse(data).map_err(|error| {
        Rejection::of_body(format!(
            "is a CloudEvent whose `data` is not a JSON object: {error}"
        ))
    })
}

/// What a single request and a campaign have in common.
pub(super) struct Common {
    firmware_url: Option<FirmwareUrl>,
    pub(super) campaign_id: Option<CampaignId>,
    pub(super) requested_at: Timestamp,
    dated_by: DatedBy,
    pub(super) not_before: Option<Timestamp>,
    pub(super) deadline: Option<Timestamp>,
    cleanup: Option<Cleanup>,
    priority: Option<u32>,
    executions: Option<u32>,
    max_attempts: Option<u32>,
    expected_version: Option<String>,
    force: Option<bool>,
}

impl Common {
    /// Whether the request says itself when it was made.
    pub(super) fn is_dated_by_itself(&self) -> bool {
        self.dated_by == DatedBy::Request
    }
}

/// Who says when a request was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatedBy {
    /// The request itself: the same however often it is sent.
    Request,
    /// Its message: the same however often that is delivered.
    Message,
    /// Nobody: it is dated when it comes, and anew when it comes again.
    Arrival,
}

/// A request that is dated further ahead than this says nothing about when it was made; less is a clock.
const AHEAD_MAX: SignedDuration = SignedDuration::from_secs(60);

/// When a request was made.
fn dated(said: Option<Timestamp>, incoming: &Incoming<'_>, now: Timestamp) -> (Timestamp, DatedBy) {
    let is_past = |time: &Timestamp| time.duration_since(now) <= AHEAD_MAX;
    let of_message = || {
        let seconds = i64::try_from(incoming.timestamp?).ok()?;
        Timestamp::from_second(seconds).ok()
    };
    if let Some(time) = said.filter(is_past) {
        (time, DatedBy::Request)
    } else if let Some(time) = of_message().filter(is_past) {
        (time, DatedBy::Message)
    } else {
        (now, DatedBy::Arrival)
    }
}

/// Reads what a single request and a campaign have in common; faults are noted in `fields`.
pub(super) fn read_common(
    fields: &mut Fields<'_>,
    incoming: &Incoming<'_>,
    settings: &RequestSettings,
    now: Timestamp,
) -> Common {
    let firmware_url = fields.required("firmware_url", |text| firmware_url(text, settings));
    let campaign_id = fields.optional("campaign_id", |text| {
        CampaignId::parse(text).map_err(|error| error.to_string())
    });
    let said = fields.optional("requested_at", timestamp);
    let (requested_at, dated_by) = dated(said, incoming, now);
    let not_before = fields.optional("not_before", timestamp);
    let deadline = fields.optional("deadline", timestamp);
    if let (Some(not_before), Some(deadline)) = (not_before, deadline)
        && deadline <= not_before
    {
        fields.fault(
            "deadline",
            format!(
                "{deadline} is not after not_before ({not_before}); give the job time between them"
            ),
        );
    }
    let cleanup = fields.optional("cleanup", |text| {
        Cleanup::from_name(text).ok_or_else(|| "is none of deactivate, delete, keep".to_owned())
    });
    let priority = fields.integer("priority", 0, PRIORITY_MAX);
    let executions = fields.integer("executions", 1, EXECUTIONS_MAX);
    let max_attempts = fields.integer("max_attempts", 1, ATTEMPTS_MAX);
    let expected_version = fields.optional("expected_version", |text| match text.chars().count() {
        _ if text.chars().any(char::is_control) => {
            Err("contains a control character; no version has one".to_owned())
        }
        1..=VERSION_MAX => Ok(text.to_owned()),
        length => Err(format!(
            "must have 1 to {VERSION_MAX} characters, has {length}"
        )),
    });
    if expected_version.is_some() && !settings.verify {
        fields.fault(
            "expected_version",
            "versions are not read back here; leave it out or have `verify.enabled` switched on",
        );
    }
    Common {
        firmware_url,
        campaign_id,
        requested_at,
        dated_by,
        not_before,
        deadline,
        cleanup,
        priority,
        executions,
        max_attempts,
        expected_version,
        force: fields.boolean("force"),
    }
}

fn read_order(
    fields: &mut Fields<'_>,
    incoming: &Incoming<'_>,
    settings: &RequestSettings,
    now: Timestamp,
) -> Option<Order> {
    if fields.raw("devices").is_some() {
        fields.fault(
            "devices",
            "campaigns are carried out through the broker; send this request with `nbi-upgrade submit`",
        );
    }
    let job_id = fields.required("job_id", |text| {
        JobId::parse(text).map_err(|error| error.to_string())
    });
    let cpe_id = fields.required("cpe_id", cpe_id);
    let common = read_common(fields, incoming, settings, now);
    let Common {
        requested_at,
        not_before,
        ..
    } = common;
    let window = match common.dated_by {
        DatedBy::Request => SignedDuration::ZERO,
        DatedBy::Message if common.force == Some(true) => SignedDuration::ZERO,
        DatedBy::Message | DatedBy::Arrival => settings.repeat_window,
    };
    let repeats_since = requested_at.checked_sub(window).unwrap_or(Timestamp::MIN);
    let begins_at = not_before.map_or(requested_at, |not_before| not_before.max(requested_at));
    let deadline = common
        .deadline
        .or_else(|| begins_at.checked_add(settings.timeout).ok())
        .unwrap_or(Timestamp::MAX);
    let (job_id, cpe_id) = (job_id?, cpe_id?);
    let rule_id = fields.check("cpe_id", rule_id(&settings.rule_id, &job_id, &cpe_id))?;
    Some(Order {
        job_id,
        cpe_id,
        firmware_url: common.firmware_url?,
        rule_id,
        campaign_id: common.campaign_id,
        requested_at,
        repeats_since,
        is_dated_on_arrival: common.dated_by == DatedBy::Arrival,
        not_before,
        deadline,
        cleanup: common.cleanup.unwrap_or(settings.cleanup),
        priority: common.priority.unwrap_or(1),
        executions: common.executions.unwrap_or(1),
        max_attempts: common.max_attempts.unwrap_or(settings.max_attempts),
        expected_version: common.expected_version,
        force: common.force.unwrap_or(false),
    })
}

pub(super) fn rule_id(template: &str, job_id: &JobId, cpe_id: &CpeId) -> Result<RuleId, String> {
    let text = template
        .replace("{cpe_id}", cpe_id.as_str())
        .replace("{job_id}", job_id.as_str());
    RuleId::parse(text).map_err(|error| {
        format!("makes no valid rule id with `nbi.rule_id` = {template:?}: it {error}")
    })
}

/// A device's id. One of dots alone is a pattern for every id of its length where the NBI reads conditions as expressions.
pub(super) fn cpe_id(text: &str) -> Result<CpeId, String> {
    let id = CpeId::parse(text).map_err(|error| error.to_string())?;
    if id.as_str().chars().any(|c| c.is_ascii_alphanumeric()) {
        Ok(id)
    } else {
        Err("has neither a letter nor a digit; name one device".to_owned())
    }
}

pub(super) fn read_context(fields: &mut Fields<'_>) -> Option<Box<RawValue>> {
    // `null` counts as absent here as elsewhere: a continuation does not tell them apart, so events would differ.
    let raw = fields.kept("context").filter(|raw| raw.get() != "null")?;
    let length = raw.get().len();
    if length > CONTEXT_MAX {
        fields.fault(
            "context",
            format!("has {length} bytes; at most {CONTEXT_MAX} are allowed"),
        );
    } else {
        match serde_json::from_str::<serde_json::Value>(raw.get()) {
            Ok(value) if depth(&value) > CONTEXT_DEPTH_MAX => fields.fault(
                "context",
                format!("is nested deeper than {CONTEXT_DEPTH_MAX} levels"),
            ),
            Ok(_) => {}
            Err(error) => fields.fault("context", format!("cannot be read: {error}")),
        }
    }
    Some(raw)
}

/// Levels of arrays and objects; the parser has limited them to 127.
fn depth(value: &serde_json::Value) -> usize {
    let inner = match value {
        serde_json::Value::Array(items) => items.iter().map(depth).max(),
        serde_json::Value::Object(entries) => entries.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// A W3C header that is passed through; events carry it as an attribute, and CloudEvents forbids control characters there.
pub(super) fn traced(value: Option<&str>) -> Option<&str> {
    carried(value).filter(|text| !text.chars().any(char::is_control))
}

/// A property that is passed through, unless it is longer than anything sensible.
pub(super) fn carried(value: Option<&str>) -> Option<&str> {
    value.filter(|text| !text.is_empty() && text.len() <= CARRIED_MAX)
}
