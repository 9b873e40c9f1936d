//! Continuations: a job between two deliveries, as JSON with a version.
//!
//! Workers of two releases take turns at one job while a new release is rolled out, and the older one writes back only what it knows: a
//! member that it has not heard of is gone after its turn. So the rule of a version is what may be lost:
//!
//! - An addition within the version is an optional member that every older worker may lose without harm: a time to report, a count to show.
//! - What guards an effect (as `arming` does), what narrows what may be done, and any change of meaning is a new version with a conversion.
//!   Older workers park it until they are replaced too. An encoder that writes the new version only where the guard is set, and this one
//!   elsewhere, keeps most jobs readable for them.
//! - A new name (of a stage, a reason, …) is parked by older workers like a new version: only a newer worker can have written it.
//!
//! `tests/fixtures/messages/v1` holds what was ever written, and `the_members_of_a_version_are_these` every member with what its loss does.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::time::Rfc3339;
use super::{Carried, Incoming, Work, json};
use crate::job::fault;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::retry::Retries;
use crate::job::state::{Baseline, Cleanup, Exit, Order, Progress, Stage, StageRecord};
use crate::job::{CampaignId, CpeId, FirmwareUrl, Job, JobId, ResultRow, RuleId};

/// The version that this release writes.
pub const VERSION: u64 = 1;

/// Largest continuation read, in bytes: a request's `context`, a full baseline and every text at its longest fit in well below.
pub const BODY_MAX: usize = 256 * 1024;

/// What most continuations fit in, in bytes.
const SIZE: usize = 2_048;

/// Longest name of a stage, a state or a reason that any release writes, in bytes.
const NAME_MAX: usize = 64;

/// Why a continuation cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Written by a newer release: park it until this worker is replaced too.
    #[error("the continuation has version {found}, this worker reads up to {known}")]
    NewerVersion {
        /// Version found.
        found: u64,
        /// Newest version known.
        known: u64,
    },
    /// A stage, a state or a reason that this release does not have, so that a newer one wrote it: to be parked as well.
    #[error("the continuation has the {field} {name:?}, which this worker does not know")]
    NewerName {
        /// What is named.
        field: &'static str,
        /// The name found: at most 64 lower-case letters, digits and underscores; anything else is malformed.
        name: String,
    },
    /// Nobody can read it.
    #[error("the continuation cannot be read: {0}")]
    Malformed(String),
}

impl StepError {
    /// Whether a newer release wrote it, so that a newer worker can read it.
    #[must_use]
    pub fn is_of_newer_release(&self) -> bool {
        match self {
            Self::NewerVersion { .. } | Self::NewerName { .. } => true,
            Self::Malformed(_) => false,
        }
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct StepV1<'a> {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_due_before: Option<Rfc3339>,
    #[serde(borrow)]
    order: OrderV1<'a>,
    #[serde(borrow)]
    progress: ProgressV1<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct OrderV1<'a> {
    #[serde(borrow)]
    job_id: Cow<'a, str>,
    #[serde(borrow)]
    cpe_id: Cow<'a, str>,
    #[serde(borrow)]
    firmware_url: Cow<'a, str>,
    #[serde(borrow)]
    rule_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    campaign_id: Option<Cow<'a, str>>,
    requested_at: Rfc3339,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeats_since: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "is_false")]
    dated_on_arrival: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Rfc3339>,
    deadline: Rfc3339,
    #[serde(borrow)]
    cleanup: Cow<'a, str>,
    priority: u32,
    executions: u32,
    max_attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_version: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    force: bool,
}

#[derive(Serialize, Deserialize)]
struct ProgressV1<'a> {
    seq: u64,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    unintelligible: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing_since: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "is_zero")]
    polls: u32,
    attempt: u32,
    announced: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    baseline: Vec<(String, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baseline_older_than: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    waited_for_other: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    arming: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    may_have_twin: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    looked_alike: bool,
    #[serde(borrow)]
    rule: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_until: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disarmed_at: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watched_until: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "is_false")]
    in_jeopardy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection_requested_at: Option<Rfc3339>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ending: Option<EndingV1<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    tries_again_after: Option<FaultV1<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Rfc3339>,
    #[serde(borrow)]
    stages: Vec<StageRecordV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct EndingV1<'a> {
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    impact: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    result: Option<ResultV1<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    fault: Option<FaultV1<'a>>,
    decided_at: Rfc3339,
}

#[derive(Serialize, Deserialize)]
struct ResultV1<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    ts: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule_description: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct FaultV1<'a> {
    code: u16,
    #[serde(borrow)]
    message: Cow<'a, str>,
    transient: bool,
}

#[derive(Serialize, Deserialize)]
struct StageRecordV1<'a> {
    #[serde(borrow)]
    stage: Cow<'a, str>,
    attempts: u32,
    started_at: Rfc3339,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "is_false")]
    failed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<Cow<'a, str>>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

pub(super) fn decode(incoming: &Incoming<'_>) -> Result<Work, StepError> {
    let malformed = |error: String| StepError::Malformed(error);
    if incoming.body.len() > BODY_MAX {
        return Err(malformed(format!(
            "it has {} bytes, at most {BODY_MAX} are read",
            incoming.body.len()
        )));
    }
    // One pass for what this release wrote; the version is looked at only where that fails.
    match json::read::<StepV1<'_>>(incoming.body) {
        Ok(step) if step.v == VERSION => work_of(step),
        Ok(StepV1 { v, .. }) => Err(of_version(v)),
        Err(error) => match serde_json::from_slice(incoming.body) {
            Ok(VersionOnly { v }) if v != VERSION => Err(of_version(v)),
            Ok(_) | Err(_) => Err(malformed(error.to_string())),
        },
    }
}

fn of_version(found: u64) -> StepError {
    if found > VERSION {
        StepError::NewerVersion {
            found,
            known: VERSION,
        }
    } else {
        StepError::Malformed(format!("there is no version {found}"))
    }
}

pub(super) fn encode(work: &Work) -> Vec<u8> {
    let carried = &work.carried;
    let step = StepV1 {
        v: VERSION,
        not_due_before: work.not_due_before.map(Rfc3339),
        order: order_to_wire(&work.job),
        progress: progress_to_wire(&work.job.progress),
        context: carried.context.clone(),
        correlation_id: borrowed(carried.correlation_id.as_ref()),
        reply_to: borrowed(carried.reply_to.as_ref()),
        traceparent: borrowed(carried.traceparent.as_ref()),
        tracestate: borrowed(carried.tracestate.as_ref()),
    };
    json::written(&step, SIZE)
}

fn work_of(step: StepV1<'_>) -> Result<Work, StepError> {
    let StepV1 {
        v: _,
        not_due_before,
        order,
        progress,
        context,
        correlation_id,
        reply_to,
        traceparent,
        tracestate,
    } = step;
    let job = Job {
        order: Arc::new(order_of(order)?),
        progress: Box::new(progress_of(progress)?),
    };
    Ok(Work {
        job,
        carried: Carried {
            context,
            correlation_id: correlation_id.map(Cow::into_owned),
            reply_to: reply_to.map(Cow::into_owned),
            traceparent: traceparent.map(Cow::into_owned),
            tracestate: tracestate.map(Cow::into_owned),
        },
        not_due_before: time(not_due_before),
    })
}

fn borrowed(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

fn time(wire: Option<Rfc3339>) -> Option<Timestamp> {
    wire.map(|time| time.0)
}

fn named<T>(field: &'static str, name: &str, value: Option<T>) -> Result<T, StepError> {
    let is_of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    value.ok_or_else(|| {
        if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_of_name) {
            StepError::NewerName {
                field,
                name: name.to_owned(),
            }
        } else {
            StepError::Malformed(format!("{field} {name:?} is no name"))
        }
    })
}

fn parsed<T, E: std::fmt::Display>(field: &str, value: Result<T, E>) -> Result<T, StepError> {
    value.map_err(|error| StepError::Malformed(format!("{field} {error}")))
}

fn order_to_wire(job: &Job) -> OrderV1<'_> {
    let order = &job.order;
    OrderV1 {
        job_id: order.job_id.as_str().into(),
        cpe_id: order.cpe_id.as_str().into(),
        firmware_url: order.firmware_url.as_str().into(),
        rule_id: order.rule_id.as_str().into(),
        campaign_id: order.campaign_id.as_ref().map(|id| id.as_str().into()),
        requested_at: Rfc3339(order.requested_at),
        repeats_since: Some(order.repeats_since)
            .filter(|since| *since != order.requested_at)
            .map(Rfc3339),
        // From here on the date stays: it says little only of a copy, which may have come before.
        dated_on_arrival: order.is_dated_on_arrival && job.progress.may_have_twin,
        not_before: order.not_before.map(Rfc3339),
        deadline: Rfc3339(order.deadline),
        cleanup: order.cleanup.name().into(),
        priority: order.priority,
        executions: order.executions,
        max_attempts: order.max_attempts,
        expected_version: borrowed(order.expected_version.as_ref()),
        force: order.force,
    }
}

fn order_of(wire: OrderV1<'_>) -> Result<Order, StepError> {
    Ok(Order {
        job_id: parsed("job_id", JobId::parse(wire.job_id))?,
        cpe_id: parsed("cpe_id", CpeId::parse(wire.cpe_id))?,
        firmware_url: parsed("firmware_url", FirmwareUrl::checked(wire.firmware_url))?,
        rule_id: parsed("rule_id", RuleId::parse(wire.rule_id))?,
        campaign_id: wire
            .campaign_id
            .map(|id| parsed("campaign_id", CampaignId::parse(id)))
            .transpose()?,
        requested_at: wire.requested_at.0,
        repeats_since: wire.repeats_since.unwrap_or(wire.requested_at).0,
        is_dated_on_arrival: wire.dated_on_arrival,
        not_before: time(wire.not_before),
        deadline: wire.deadline.0,
        cleanup: named("cleanup", &wire.cleanup, Cleanup::from_name(&wire.cleanup))?,
        priority: wire.priority,
        executions: wire.executions,
        max_attempts: wire.max_attempts,
        expected_version: wire.expected_version.map(Cow::into_owned),
        force: wire.force,
    })
}

fn progress_to_wire(progress: &Progress) -> ProgressV1<'_> {
    let (known, older_than) = progress.baseline.parts();
    let (ending, tries_again_after) = match &progress.exit {
        None => (None, None),
        Some(Exit::End(ending)) => (Some(ending_to_wire(ending)), None),
        Some(Exit::TryAgain(fault)) => (None, Some(fault_to_wire(fault))),
    };
    ProgressV1 {
        seq: progress.seq,
        stage: progress.stage.name().into(),
        failures: progress.retries.failures,
        unintelligible: progress.retries.unintelligible,
        failing_since: progress.retries.since.map(Rfc3339),
        polls: progress.polls,
        attempt: progress.attempt,
        announced: progress.announced,
        baseline: known.to_vec(),
        baseline_older_than: older_than,
        waited_for_other: progress.waited_for_other,
        arming: progress.arming,
        may_have_twin: progress.may_have_twin,
        looked_alike: progress.looked_alike,
        rule: progress.rule.name().into(),
        rests_until: progress.rests_until.map(Rfc3339),
        disarmed_at: progress.disarmed_at.map(Rfc3339),
        watched_until: progress.watched_until.map(Rfc3339),
        in_jeopardy: progress.in_jeopardy,
        connection_requested_at: progress.connection_requested_at.map(Rfc3339),
        ending,
        tries_again_after,
        started_at: progress.started_at.map(Rfc3339),
        stages: progress.stages.iter().map(record_to_wire).collect(),
    }
}

fn progress_of(wire: ProgressV1<'_>) -> Result<Progress, StepError> {
    let exit = match (wire.ending, wire.tries_again_after) {
        (Some(ending), _) => Some(Exit::End(ending_of(ending)?)),
        (None, Some(fault)) => Some(Exit::TryAgain(fault_of(fault))),
        (None, None) => None,
    };
    let stages: Result<Vec<_>, _> = wire
        .stages
        .into_iter()
        .take(Stage::ALL.len())
        .map(record_of)
        .collect();
    Ok(Progress {
        seq: wire.seq,
        stage: named("stage", &wire.stage, Stage::from_name(&wire.stage))?,
        retries: Retries {
            failures: wire.failures,
            unintelligible: wire.unintelligible,
            since: time(wire.failing_since),
        },
        polls: wire.polls,
        attempt: wire.attempt.max(1),
        announced: wire.announced,
        baseline: Baseline::from_parts(wire.baseline, wire.baseline_older_than),
        waited_for_other: wire.waited_for_other,
        arming: wire.arming,
        may_have_twin: wire.may_have_twin,
        looked_alike: wire.looked_alike,
        rule: named("rule", &wire.rule, RuleState::from_name(&wire.rule))?,
        rests_until: time(wire.rests_until),
        disarmed_at: time(wire.disarmed_at),
        watched_until: time(wire.watched_until),
        in_jeopardy: wire.in_jeopardy,
        connection_requested_at: time(wire.connection_requested_at),
        exit,
        started_at: time(wire.started_at),
        stages: stages?,
    })
}

fn ending_to_wire(ending: &Ending) -> EndingV1<'_> {
    EndingV1 {
        outcome: ending.outcome.name().into(),
        reason: ending.reason.name().into(),
        impact: ending.impact.name().into(),
        message: ending.message.as_str().into(),
        result: ending.result.as_ref().map(|row| ResultV1 {
            id: row.id.as_str().into(),
            ts: row.ts,
            code: row.code,
            message: row.message.as_str().into(),
            rule_description: borrowed(row.rule_description.as_ref()),
        }),
        fault: ending.fault.as_ref().map(fault_to_wire),
        decided_at: Rfc3339(ending.decided_at),
    }
}

fn ending_of(wire: EndingV1<'_>) -> Result<Ending, StepError> {
    Ok(Ending {
        outcome: named("outcome", &wire.outcome, Outcome::from_name(&wire.outcome))?,
        reason: named("reason", &wire.reason, Reason::from_name(&wire.reason))?,
        impact: named("impact", &wire.impact, Impact::from_name(&wire.impact))?,
        message: wire.message.into_owned(),
        result: wire.result.map(|row| ResultRow {
            id: row.id.into_owned(),
            ts: row.ts,
            code: row.code,
            message: row.message.into_owned(),
            rule_description: row.rule_description.map(Cow::into_owned),
        }),
        fault: wire.fault.map(fault_of),
        decided_at: wire.decided_at.0,
    })
}

fn fault_to_wire(fault: &fault::Fault) -> FaultV1<'_> {
    FaultV1 {
        code: fault.code,
        message: fault.message.as_str().into(),
        transient: fault.transient,
    }
}

fn fault_of(wire: FaultV1<'_>) -> fault::Fault {
    fault::Fault {
        code: wire.code,
        name: fault::name(wire.code),
        message: wire.message.into_owned(),
        transient: wire.transient,
    }
}

fn record_to_wire(record: &StageRecord) -> StageRecordV1<'_> {
    StageRecordV1 {
        stage: record.stage.name().into(),
        attempts: record.attempts,
        started_at: Rfc3339(record.started_at),
        finished_at: record.finished_at.map(Rfc3339),
        failed: record.failed,
        last_error: borrowed(record.last_error.as_ref()),
    }
}

fn record_of(wire: StageRecordV1<'_>) -> Result<StageRecord, StepError> {
    Ok(StageRecord {
        stage: named("stage", &wire.stage, Stage::from_name(&wire.stage))?,
        attempts: wire.attempts,
        started_at: wire.started_at.0,
        finished_at: time(wire.finished_at),
        failed: wire.failed,
        last_error: wire.last_error.map(Cow::into_owned),
    })
}
