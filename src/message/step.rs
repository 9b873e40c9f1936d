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

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Carried, Incoming, Work};
use crate::job::fault;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::retry::Retries;
use crate::job::state::{Baseline, Cleanup, Exit, Order, Progress, Stage, StageRecord};
use crate::job::{CampaignId, CpeId, FirmwareUrl, Job, JobId, ResultRow, RuleId};

/// The version that this release writes.
pub const VERSION: u64 = 1;

/// Largest continuation read, in bytes: a request's `context`, a full baseline and every text at its longest fit in well below.
pub const BODY_MAX: usize = 256 * 1024;

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
struct StepV1 {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_due_before: Option<Timestamp>,
    order: OrderV1,
    progress: ProgressV1,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OrderV1 {
    job_id: String,
    cpe_id: String,
    firmware_url: String,
    rule_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    campaign_id: Option<String>,
    requested_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeats_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    dated_on_arrival: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
    deadline: Timestamp,
    cleanup: String,
    priority: u32,
    executions: u32,
    max_attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_version: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    force: bool,
}

#[derive(Serialize, Deserialize)]
struct ProgressV1 {
    seq: u64,
    stage: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    unintelligible: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing_since: Option<Timestamp>,
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
    rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disarmed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watched_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    in_jeopardy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection_requested_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ending: Option<EndingV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tries_again_after: Option<FaultV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    stages: Vec<StageRecordV1>,
}

#[derive(Serialize, Deserialize)]
struct EndingV1 {
    outcome: String,
    reason: String,
    impact: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<ResultV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<FaultV1>,
    decided_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ResultV1 {
    id: String,
    ts: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule_description: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FaultV1 {
    code: u16,
    message: String,
    transient: bool,
}

#[derive(Serialize, Deserialize)]
struct StageRecordV1 {
    stage: String,
    attempts: u32,
    started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    failed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
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
    match serde_json::from_slice::<StepV1>(incoming.body) {
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
    let carried = work.carried.clone();
    let step = StepV1 {
        v: VERSION,
        not_due_before: work.not_due_before,
        order: order_to_wire(&work.job),
        progress: progress_to_wire(&work.job.progress),
        context: carried.context,
        correlation_id: carried.correlation_id,
        reply_to: carried.reply_to,
        traceparent: carried.traceparent,
        tracestate: carried.tracestate,
    };
    serde_json::to_vec(&step).unwrap_or_default()
}

fn work_of(step: StepV1) -> Result<Work, StepError> {
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
        order: order_of(order)?,
        progress: progress_of(progress)?,
    };
    Ok(Work {
        job,
        carried: Carried {
            context,
            correlation_id,
            reply_to,
            traceparent,
            tracestate,
        },
        not_due_before,
    })
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

fn order_to_wire(job: &Job) -> OrderV1 {
    let order = &job.order;
    OrderV1 {
        job_id: order.job_id.to_string(),
        cpe_id: order.cpe_id.to_string(),
        firmware_url: order.firmware_url.to_string(),
        rule_id: order.rule_id.to_string(),
        campaign_id: order.campaign_id.as_ref().map(ToString::to_string),
        requested_at: order.requested_at,
        repeats_since: (order.repeats_since != order.requested_at).then_some(order.repeats_since),
        // From here on the date stays: it says little only of a copy, which may have come before.
        dated_on_arrival: order.is_dated_on_arrival && job.progress.may_have_twin,
        not_before: order.not_before,
        deadline: order.deadline,
        cleanup: order.cleanup.name().to_owned(),
        priority: order.priority,
        executions: order.executions,
        max_attempts: order.max_attempts,
        expected_version: order.expected_version.clone(),
        force: order.force,
    }
}

fn order_of(wire: OrderV1) -> Result<Order, StepError> {
    Ok(Order {
        job_id: parsed("job_id", JobId::parse(wire.job_id))?,
        cpe_id: parsed("cpe_id", CpeId::parse(wire.cpe_id))?,
        firmware_url: parsed("firmware_url", FirmwareUrl::checked(wire.firmware_url))?,
        rule_id: parsed("rule_id", RuleId::parse(wire.rule_id))?,
        campaign_id: wire
            .campaign_id
            .map(|id| parsed("campaign_id", CampaignId::parse(id)))
            .transpose()?,
        requested_at: wire.requested_at,
        repeats_since: wire.repeats_since.unwrap_or(wire.requested_at),
        is_dated_on_arrival: wire.dated_on_arrival,
        not_before: wire.not_before,
        deadline: wire.deadline,
        cleanup: named("cleanup", &wire.cleanup, Cleanup::from_name(&wire.cleanup))?,
        priority: wire.priority,
        executions: wire.executions,
        max_attempts: wire.max_attempts,
        expected_version: wire.expected_version,
        force: wire.force,
    })
}

fn progress_to_wire(progress: &Progress) -> ProgressV1 {
    let (known, older_than) = progress.baseline.parts();
    let (ending, tries_again_after) = match &progress.exit {
        None => (None, None),
        Some(Exit::End(ending)) => (Some(ending_to_wire(ending)), None),
        Some(Exit::TryAgain(fault)) => (None, Some(fault_to_wire(fault))),
    };
    ProgressV1 {
        seq: progress.seq,
        stage: progress.stage.name().to_owned(),
        failures: progress.retries.failures,
        unintelligible: progress.retries.unintelligible,
        failing_since: progress.retries.since,
        polls: progress.polls,
        attempt: progress.attempt,
        announced: progress.announced,
        baseline: known.to_vec(),
        baseline_older_than: older_than,
        waited_for_other: progress.waited_for_other,
        arming: progress.arming,
        may_have_twin: progress.may_have_twin,
        looked_alike: progress.looked_alike,
        rule: progress.rule.name().to_owned(),
        rests_until: progress.rests_until,
        disarmed_at: progress.disarmed_at,
        watched_until: progress.watched_until,
        in_jeopardy: progress.in_jeopardy,
        connection_requested_at: progress.connection_requested_at,
        ending,
        tries_again_after,
        started_at: progress.started_at,
        stages: progress.stages.iter().map(record_to_wire).collect(),
    }
}

fn progress_of(wire: ProgressV1) -> Result<Progress, StepError> {
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
            since: wire.failing_since,
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
        rests_until: wire.rests_until,
        disarmed_at: wire.disarmed_at,
        watched_until: wire.watched_until,
        in_jeopardy: wire.in_jeopardy,
        connection_requested_at: wire.connection_requested_at,
        exit,
        started_at: wire.started_at,
        stages: stages?,
    })
}

fn ending_to_wire(ending: &Ending) -> EndingV1 {
    EndingV1 {
        outcome: ending.outcome.name().to_owned(),
        reason: ending.reason.name().to_owned(),
        impact: ending.impact.name().to_owned(),
        message: ending.message.clone(),
        result: ending.result.as_ref().map(|row| ResultV1 {
            id: row.id.clone(),
            ts: row.ts,
            code: row.code,
            message: row.message.clone(),
            rule_description: row.rule_description.clone(),
        }),
        fault: ending.fault.as_ref().map(fault_to_wire),
        decided_at: ending.decided_at,
    }
}

fn ending_of(wire: EndingV1) -> Result<Ending, StepError> {
    Ok(Ending {
        outcome: named("outcome", &wire.outcome, Outcome::from_name(&wire.outcome))?,
        reason: named("reason", &wire.reason, Reason::from_name(&wire.reason))?,
        impact: named("impact", &wire.impact, Impact::from_name(&wire.impact))?,
        message: wire.message,
        result: wire.result.map(|row| ResultRow {
            id: row.id,
            ts: row.ts,
            code: row.code,
            message: row.message,
            rule_description: row.rule_description,
        }),
        fault: wire.fault.map(fault_of),
        decided_at: wire.decided_at,
    })
}

fn fault_to_wire(fault: &fault::Fault) -> FaultV1 {
    FaultV1 {
        code: fault.code,
        message: fault.message.clone(),
        transient: fault.transient,
    }
}

fn fault_of(wire: FaultV1) -> fault::Fault {
    fault::Fault {
        code: wire.code,
        name: fault::name(wire.code),
        message: wire.message,
        transient: wire.transient,
    }
}

fn record_to_wire(record: &StageRecord) -> StageRecordV1 {
    StageRecordV1 {
        stage: record.stage.name().to_owned(),
        attempts: record.attempts,
        started_at: record.started_at,
        finished_at: record.finished_at,
        failed: record.failed,
        last_error: record.last_error.clone(),
    }
}

fn record_of(wire: StageRecordV1) -> Result<StageRecord, StepError> {
    Ok(StageRecord {
        stage: named("stage", &wire.stage, Stage::from_name(&wire.stage))?,
        attempts: wire.attempts,
        started_at: wire.started_at,
        finished_at: wire.finished_at,
        failed: wire.failed,
        last_error: wire.last_error,
    })
}
