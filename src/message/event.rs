//! Events for others: CloudEvents 1.0 in structured JSON mode, with ids that a repeat repeats.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::control::{Answer, AnswerReason, Command, Scope};
use super::request::{carried, traced};
use super::time::Rfc3339;
use super::{Incoming, Rejection, Work, json};
use crate::job::event::WaitingFor;
use crate::job::outcome::{Ending, RuleState};
use crate::job::state::{Stage, StageRecord, elapsed};
use crate::job::{Impact, Job, JobEvent, Outcome, Reason};

/// Where events come from and which are wanted.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// The CloudEvents `source`: `/nbi-upgrade/<instance.name>`.
    pub source: String,
    /// Whether `upgrade.progress` is published.
    pub progress: bool,
}

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The request is valid and durable.
    Accepted,
    /// A stage is done.
    Progress,
    /// The deadline of a job can hardly be met.
    Jeopardy,
    /// Final.
    Completed,
    /// Final.
    Failed,
    /// Final.
    Cancelled,
    /// Final: the request was not valid.
    Rejected,
    /// After a final event: a result came late and says otherwise.
    Corrected,
    /// The answer to a command: it stands.
    CommandAccepted,
    /// The answer to a command: it changes nothing.
    CommandRefused,
    /// A campaign was taken on, or devices were added to it.
    CampaignAccepted,
    /// A campaign's counts.
    CampaignProgress,
    /// A campaign starts nothing any more.
    CampaignPaused,
    /// It goes on.
    CampaignResumed,
    /// Its deadline can no longer be met, or can again.
    CampaignJeopardy,
    /// Final: every device has its outcome.
    CampaignCompleted,
    /// Final: an operator ended it.
    CampaignCancelled,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Accepted,
        Self::Progress,
        Self::Jeopardy,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Rejected,
        Self::Corrected,
        Self::CommandAccepted,
        Self::CommandRefused,
        Self::CampaignAccepted,
        Self::CampaignProgress,
        Self::CampaignPaused,
        Self::CampaignResumed,
        Self::CampaignJeopardy,
        Self::CampaignCompleted,
        Self::CampaignCancelled,
    ];

    /// The CloudEvents `type`, which is also the first part of the routing key.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Accepted => "upgrade.accepted",
            Self::Progress => "upgrade.progress",
            Self::Jeopardy => "upgrade.jeopardy",
            Self::Completed => "upgrade.completed",
            Self::Failed => "upgrade.failed",
            Self::Cancelled => "upgrade.cancelled",
            Self::Rejected => "upgrade.rejected",
            Self::Corrected => "upgrade.corrected",
            Self::CommandAccepted => "upgrade.control.accepted",
            Self::CommandRefused => "upgrade.control.refused",
            Self::CampaignAccepted => "upgrade.campaign.accepted",
            Self::CampaignProgress => "upgrade.campaign.progress",
            Self::CampaignPaused => "upgrade.campaign.paused",
            Self::CampaignResumed => "upgrade.campaign.resumed",
            Self::CampaignJeopardy => "upgrade.campaign.jeopardy",
            Self::CampaignCompleted => "upgrade.campaign.completed",
            Self::CampaignCancelled => "upgrade.campaign.cancelled",
        }
    }

    /// Whether it is about a campaign, not about a job.
    #[must_use]
    pub fn is_of_campaign(self) -> bool {
        matches!(
            self,
            Self::CampaignAccepted
                | Self::CampaignProgress
                | Self::CampaignPaused
                | Self::CampaignResumed
                | Self::CampaignJeopardy
                | Self::CampaignCompleted
                | Self::CampaignCancelled
        )
    }

    /// Whether it is the last word about a job or a campaign.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Accepted
            | Self::Progress
            | Self::Jeopardy
            | Self::Corrected
            | Self::CommandAccepted
            | Self::CommandRefused
            | Self::CampaignAccepted
            | Self::CampaignProgress
            | Self::CampaignPaused
            | Self::CampaignResumed
            | Self::CampaignJeopardy => false,
            Self::Completed
            | Self::Failed
            | Self::Cancelled
            | Self::Rejected
            | Self::CampaignCompleted
            | Self::CampaignCancelled => true,
        }
    }

    pub(super) fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Rejected => Self::Rejected,
        }
    }
}

/// An event, ready to be published.
#[derive(Debug, Clone)]
pub struct EventMessage {
    /// What kind.
    pub kind: EventKind,
    /// The CloudEvent's id and the message's `message_id`.
    pub id: String,
    /// The routing key on `<p>.results`.
    pub routing_key: String,
    /// The CloudEvent's type and the message's `type`.
    pub event_type: &'static str,
    /// The CloudEvent's time and the message's `timestamp`.
    pub time: Timestamp,
    /// The CloudEvent in structured JSON mode.
    pub body: Vec<u8>,
    /// `correlation_id` of the request.
    pub correlation_id: Option<String>,
    /// Only on final events: the queue that also gets it.
    pub reply_to: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
}

/// Names the space of event ids: version 5 UUID of the DNS name `nbi-upgrade.event.v1`, which need not be hashed for each event.
pub(super) const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x49a3_980c_37d2_5d13_aef0_5b43_1e31_f09c);

/// What most events fit in, in bytes.
const SIZE: usize = 2_048;

/// The schema of `data`, with its version.
pub const DATA_SCHEMA: &str = "urn:nbi-upgrade:event:v1";

/// Its type, the device as `subject`, and in `data` what is known. Readers ignore members that they do not know: new ones may come.
#[derive(Serialize, JsonSchema)]
pub(super) struct CloudEvent<'a, D> {
    #[schemars(extend("const" = "1.0"))]
    specversion: &'static str,
    /// The same in every copy of the event: what tells a repeat.
    #[schemars(extend("pattern" = "^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"))]
    id: &'a str,
    /// `/nbi-upgrade/` and the name of the worker.
    #[schemars(extend("pattern" = "^/nbi-upgrade/."))]
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'static str,
    /// The device, `cpe_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    /// When it happened.
    time: Rfc3339,
    #[schemars(extend("const" = "application/json"))]
    datacontenttype: &'static str,
    #[schemars(extend("const" = DATA_SCHEMA))]
    dataschema: &'static str,
    /// W3C trace context of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    /// W3C trace state of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    data: D,
}

/// What is known of the job. What is not known is absent, never null.
#[derive(Serialize, JsonSchema, Default)]
pub(super) struct Data<'a> {
    /// Of an answer to an order: which order.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    /// Of an answer to an order: whether it is for everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    /// Of an answer to an order: the order's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpe_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware_url: Option<&'a str>,
    /// How the job ended; the last word of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = names(Outcome::ALL, Outcome::name)))]
    outcome: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = reasons()))]
    reason: Option<&'static str>,
    /// What may have happened to the device: nothing for sure, perhaps something, the upgrade, or something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = names(Impact::ALL, Impact::name)))]
    impact: Option<&'static str>,
    /// One sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// Of `upgrade.progress`: the stage that is done; of `upgrade.jeopardy`: the one that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = Stage::ALL.map(Stage::name)))]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultData<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageData<'a>>,
    /// Tries of the device, the last one counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_at: Option<Rfc3339>,
    /// Of `upgrade.accepted` and `upgrade.jeopardy`: the job ends then, whatever the device does.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Rfc3339>,
    /// Of `upgrade.jeopardy`: what the job waits for; `nbi` is the management system.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = waits()))]
    waiting_for: Option<&'static str>,
    /// Of `upgrade.jeopardy`: when the job is looked at next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_look_at: Option<Rfc3339>,
    /// When a worker took it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Rfc3339>,
    /// From `requested_at` to `finished_at`, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    /// The request's, untouched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    context: Option<&'a RawValue>,
    /// Of `upgrade.rejected`: every field at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorData<'a>>,
}

/// The rule in the management system.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rule")]
struct RuleData<'a> {
    id: &'a str,
    /// `cleanup_failed`: it may still be armed; somebody must look.
    #[schemars(extend("enum" = names(RuleState::ALL, |state| final_rule_state(state).name())))]
    state: &'static str,
}

/// The result that decided it, as the management system reported it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Result")]
struct ResultData<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    message: &'a str,
    /// Unix seconds.
    ts: i64,
}

/// The device's fault.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Fault")]
struct FaultData<'a> {
    /// The TR-069 code.
    code: u16,
    /// What TR-069 calls it.
    name: &'static str,
    /// The device's words.
    message: &'a str,
    /// Whether another try makes sense.
    transient: bool,
}

/// What happened in a stage.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StageRecord")]
struct StageData<'a> {
    #[schemars(extend("enum" = Stage::ALL.map(Stage::name)))]
    stage: &'static str,
    /// Tries: failed ones and the one that ended it; waits do not count.
    attempts: u32,
    started_at: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Rfc3339>,
    #[schemars(extend("enum" = STAGE_OUTCOMES))]
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
}

/// A field at fault.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FieldError")]
struct ErrorData<'a> {
    /// Its name, or `body` for the whole.
    field: &'a str,
    /// What is wrong with which value, and the remedy.
    message: &'a str,
}

/// How a stage can stand.
const STAGE_OUTCOMES: [&str; 3] = ["ok", "failed", "unfinished"];

/// Every name that a value of `all` is written with, once.
fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for value in all {
        let name = name(*value);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Why a job ended, or an order was answered so.
fn reasons() -> Vec<&'static str> {
    let mut reasons = names(Reason::ALL, Reason::name);
    reasons.extend(names(AnswerReason::ALL, AnswerReason::name));
    reasons
}

/// What a job whose deadline is in jeopardy can wait for.
fn waits() -> Vec<&'static str> {
    let mut waits = names(&WaitingFor::ALL, WaitingFor::name);
    waits.push(NBI);
    waits
}

/// Where it is no device, no operator and no other job that a job waits for.
const NBI: &str = "nbi";

/// The events that others see among what happened.
pub(super) fn published(
    work: &Work,
    events: &[JobEvent],
    settings: &EventSettings,
    now: Timestamp,
) -> Vec<EventMessage> {
    events
        .iter()
        .filter_map(|event| of_job(work, event, settings, now))
        .collect()
}

fn of_job(
    work: &Work,
    event: &JobEvent,
    settings: &EventSettings,
    now: Timestamp,
) -> Option<EventMessage> {
    let job = &work.job;
    let id_of = |kind: EventKind, detail: &str| {
        event_id(job.order.job_id.as_str(), kind, detail.as_bytes())
    };
    let (kind, id, time, data) = match event {
        JobEvent::Accepted => (
            EventKind::Accepted,
            id_of(EventKind::Accepted, ""),
            now,
            Data {
                deadline: Some(Rfc3339(job.order.deadline)),
                ..job_data(work)
            },
        ),
        JobEvent::StageDone { stage, attempt, .. } if settings.progress => {
            let id = id_of(EventKind::Progress, &format!("{}:{attempt}", stage.name()));
            (EventKind::Progress, id, now, progress_data(work, *stage))
        }
        JobEvent::InJeopardy {
            stage,
            next_look_at,
            waiting_for,
        } => {
            let data = Data {
                message: Some("less time is left at the next look than a device takes"),
                deadline: Some(Rfc3339(job.order.deadline)),
                waiting_for: Some(waiting_for.map_or(NBI, WaitingFor::name)),
                next_look_at: Some(Rfc3339(*next_look_at)),
                ..progress_data(work, *stage)
            };
            (
                EventKind::Jeopardy,
                id_of(EventKind::Jeopardy, ""),
                now,
                data,
            )
        }
        JobEvent::Finished { ending, .. } => {
            let kind = EventKind::of_outcome(ending.outcome);
            (
                kind,
                id_of(kind, ""),
                ending.decided_at,
                final_data(work, ending),
            )
        }
        JobEvent::Corrected { ending } => (
            EventKind::Corrected,
            id_of(EventKind::Corrected, ""),
            ending.decided_at,
            final_data(work, ending),
        ),
        JobEvent::StageDone { .. }
        | JobEvent::StageWaits { .. }
        | JobEvent::StageRetried { .. }
        | JobEvent::StageFailed { .. }
        | JobEvent::DeviceFaulted { .. }
        | JobEvent::Released { .. } => return None,
    };
    let campaign = job
        .order
        .campaign_id
        .as_ref()
        .map_or("-", |campaign| campaign.as_str());
    let envelope = Envelope {
        kind,
        id,
        subject: Some(job.order.cpe_id.as_str()),
        campaign,
        time,
        traceparent: work.carried.traceparent.as_deref(),
        tracestate: work.carried.tracestate.as_deref(),
        correlation_id: work.carried.correlation_id.as_deref(),
        reply_to: work.carried.reply_to.as_deref(),
    };
    Some(envelope.seal(settings, data))
}

/// The event about a request that is not valid.
pub(super) fn rejected(
    incoming: &Incoming<'_>,
    rejection: &Rejection,
    settings: &EventSettings,
    now: Timestamp,
) -> EventMessage {
    let errors: Vec<ErrorData<'_>> = rejection
        .faults
        .iter()
        .map(|fault| ErrorData {
            field: &fault.field,
            message: &fault.message,
        })
        .collect();
    let data = Data {
        job_id: rejection.job_id.as_deref(),
        cpe_id: rejection.cpe_id.as_deref(),
        campaign_id: rejection.campaign_id.as_deref(),
        outcome: Some(Outcome::Rejected.name()),
        reason: Some(Reason::InvalidRequest.name()),
        impact: Some(Impact::None.name()),
        message: Some("the request is not valid and was not carried out"),
        finished_at: Some(Rfc3339(now)),
        errors,
        ..Data::default()
    };
    // Two different faulty requests may carry one job id, and a request may carry none: the body tells them apart.
    let id = event_id(
        rejection.job_id.as_deref().unwrap_or_default(),
        EventKind::Rejected,
        incoming.body,
    );
    let envelope = Envelope {
        kind: EventKind::Rejected,
        id,
        subject: rejection
            .cpe_id
            .as_deref()
            .filter(|cpe_id| !cpe_id.is_empty()),
        campaign: rejection.campaign_id.as_deref().unwrap_or("-"),
        time: now,
        traceparent: traced(incoming.traceparent),
        tracestate: traced(incoming.tracestate),
        correlation_id: carried(incoming.correlation_id),
        reply_to: carried(incoming.reply_to),
    };
    envelope.seal(settings, data)
}

/// The answer to a command.
pub(super) fn of_command(
    answer: &Answer<'_>,
    settings: &EventSettings,
    now: Timestamp,
) -> EventMessage {
    let command = answer.command;
    let errors = answer
        .faults
        .iter()
        .map(|fault| ErrorData {
            field: &fault.field,
            message: &fault.message,
        })
        .collect();
    let data = Data {
        command: command.map(|command| command.verb.name()),
        job_id: command.and_then(Command::job_id),
        campaign_id: command.and_then(Command::campaign_id),
        all: command
            .is_some_and(|command| command.scope == Scope::All)
            .then_some(true),
        correlation_id: carried(answer.incoming.correlation_id),
        reason: Some(answer.reason.name()),
        message: Some(&answer.message),
        errors,
        ..Data::default()
    };
    let kind = if answer.reason.is_accepted() {
        EventKind::CommandAccepted
    } else {
        EventKind::CommandRefused
    };
    let envelope = Envelope {
        kind,
        // One id whatever the answer is: a command that comes twice has one answer, the first.
        id: event_id(answer.key, EventKind::CommandAccepted, b"answer"),
        subject: command.and_then(|command| command.job_id().or_else(|| command.campaign_id())),
        campaign: command.and_then(Command::campaign_id).unwrap_or("-"),
        time: now,
        traceparent: traced(answer.incoming.traceparent),
        tracestate: traced(answer.incoming.tracestate),
        correlation_id: carried(answer.incoming.correlation_id),
        reply_to: None,
    };
    envelope.seal(settings, data)
}

/// Everything of an event but its data.
pub(super) struct Envelope<'a> {
    pub(super) kind: EventKind,
    pub(super) id: String,
    pub(super) subject: Option<&'a str>,
    pub(super) campaign: &'a str,
    pub(super) time: Timestamp,
    pub(super) traceparent: Option<&'a str>,
    pub(super) tracestate: Option<&'a str>,
    pub(super) correlation_id: Option<&'a str>,
    pub(super) reply_to: Option<&'a str>,
}

impl Envelope<'_> {
    /// The event as a message.
    pub(super) fn seal<D: Serialize>(self, settings: &EventSettings, data: D) -> EventMessage {
        let event_type = self.kind.event_type();
        let event = CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: &settings.source,
            event_type,
            subject: self.subject,
            time: Rfc3339(self.time),
            datacontenttype: "application/json",
            dataschema: DATA_SCHEMA,
            traceparent: self.traceparent,
            tracestate: self.tracestate,
            data,
        };
        let body = json::written(&event, SIZE);
        EventMessage {
            kind: self.kind,
            routing_key: [event_type, ".", self.campaign].concat(),
            event_type,
            time: self.time,
            body,
            correlation_id: self.correlation_id.map(str::to_owned),
            reply_to: self
                .reply_to
                .filter(|_| self.kind.is_final())
                .map(str::to_owned),
            traceparent: self.traceparent.map(str::to_owned),
            tracestate: self.tracestate.map(str::to_owned),
            id: self.id,
        }
    }
}

/// The job that an event of ours is about.
#[must_use]
pub fn job_id_of_event(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Seen {
        data: SeenData,
    }
    #[derive(Deserialize)]
    struct SeenData {
        job_id: Option<String>,
    }
    serde_json::from_slice::<Seen>(body).ok()?.data.job_id
}

/// The id of an event about a job or a campaign: a repeat has the same.
pub(super) fn event_id(about: &str, kind: EventKind, detail: &[u8]) -> String {
    let mut name = Vec::with_capacity(about.len() + detail.len() + 32);
    name.extend_from_slice(about.as_bytes());
    name.push(0);
    name.extend_from_slice(kind.event_type().as_bytes());
    name.push(0);
    name.extend_from_slice(detail);
    Uuid::new_v5(&EVENT_NAMESPACE, &name).to_string()
}

fn job_data(work: &Work) -> Data<'_> {
    let Job { order, progress } = &work.job;
    Data {
        job_id: Some(order.job_id.as_str()),
        cpe_id: Some(order.cpe_id.as_str()),
        campaign_id: order.campaign_id.as_ref().map(|campaign| campaign.as_str()),
        firmware_url: Some(order.firmware_url.as_str()),
        requested_at: Some(Rfc3339(order.requested_at)),
        started_at: progress.started_at.map(Rfc3339),
        context: work.carried.context.as_deref(),
        ..Data::default()
    }
}

fn progress_data(work: &Work, stage: Stage) -> Data<'_> {
    Data {
        stage: Some(stage.name()),
        attempts: Some(work.job.progress.attempt),
        stages: stages_data(&work.job.progress.stages),
        ..job_data(work)
    }
}

fn final_data<'a>(work: &'a Work, ending: &'a Ending) -> Data<'a> {
    let Job { order, progress } = &work.job;
    let took = elapsed(order.requested_at, ending.decided_at);
    Data {
        outcome: Some(ending.outcome.name()),
        reason: Some(ending.reason.name()),
        impact: Some(ending.impact.name()),
        message: Some(&ending.message),
        rule: Some(RuleData {
            id: order.rule_id.as_str(),
            state: final_rule_state(progress.rule).name(),
        }),
        result: ending.result.as_ref().map(|row| ResultData {
            id: &row.id,
            code: row.code,
            message: &row.message,
            ts: row.ts,
        }),
        fault: ending.fault.as_ref().map(|fault| FaultData {
            code: fault.code,
            name: fault.name,
            message: &fault.message,
            transient: fault.transient,
        }),
        stages: stages_data(&progress.stages),
        attempts: Some(progress.attempt),
        finished_at: Some(Rfc3339(ending.decided_at)),
        duration_ms: u64::try_from(took.as_millis()).ok(),
        ..job_data(work)
    }
}

/// A rule that is still armed when the job is over was not cleaned up.
fn final_rule_state(state: RuleState) -> RuleState {
    if state == RuleState::Armed {
        RuleState::CleanupFailed
    } else {
        state
    }
}

fn stages_data(records: &[StageRecord]) -> Vec<StageData<'_>> {
    records
        .iter()
        .map(|record| StageData {
            stage: record.stage.name(),
            attempts: record.attempts,
            started_at: Rfc3339(record.started_at),
            finished_at: record.finished_at.map(Rfc3339),
            outcome: match (record.finished_at.is_some(), record.failed) {
                (true, false) => STAGE_OUTCOMES[0],
                (true, true) => STAGE_OUTCOMES[1],
                (false, _) => STAGE_OUTCOMES[2],
            },
            last_error: record.last_error.as_deref(),
        })
        .collect()
}
