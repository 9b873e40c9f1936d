//! What happens to jobs.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use tracing::field::display as shown;

use super::{TARGET, cut};
use crate::driver::DriverError;
use crate::job::event::WaitingFor;
use crate::job::fault::Fault;
use crate::job::outcome::Ending;
use crate::job::{Job, JobEvent, Outcome, Reason, Stage};
use crate::message::Rejection;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{FIELDS, NBI, closed, fault_code};
use crate::telemetry::trace;

/// A line about a job.
macro_rules! job_line {
    ($level:ident, $job:expr, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        tracing::$level!(
            target: TARGET,
            job_id = %$job.order.job_id,
            cpe_id = %$job.order.cpe_id,
            campaign_id = $job.order.campaign_id.as_ref().map(shown),
            attempt = $job.progress.attempt,
            trace_id = trace::current_id().as_deref(),
            $($field = $value,)*
            $message
        )
    };
}

impl Telemetry {
    /// What was decided about a job.
    pub fn job(&self, job: &Job, events: &[JobEvent]) {
        self.job_spans(job, events);
        for event in events {
            self.job_event(job, event);
        }
    }

    fn job_event(&self, job: &Job, event: &JobEvent) {
        if let JobEvent::StageWaits { .. }
        | JobEvent::StageRetried { .. }
        | JobEvent::Released { .. } = event
        {
            self.oldest.goes_on(began(job), Timestamp::now());
        }
        match event {
            JobEvent::Accepted => self.job_accepted(job),
            JobEvent::StageDone {
                stage,
                attempt: _,
                took,
            } => self.stage_done(job, *stage, *took),
            JobEvent::StageWaits {
                stage,
                until,
                waiting_for,
            } => self.stage_waits(job, *stage, *until, *waiting_for),
            JobEvent::StageRetried {
                stage,
                until,
                error,
            } => {
                self.stage_left(*stage, "retry");
                let (stage, until, error) = (stage.name(), shown(until), cut(error));
                let failures = job.progress.retries.failures;
                job_line!(
                    warn,
                    job,
                    "stage failed, will retry",
                    stage = stage,
                    failures = failures,
                    until = until,
                    error = error
                );
            }
            JobEvent::StageFailed { stage, error } => {
                self.stage_left(*stage, "failed");
                job_line!(
                    warn,
                    job,
                    "stage gave up",
                    stage = stage.name(),
                    error = cut(error)
                );
            }
            JobEvent::DeviceFaulted { fault, tries_again } => {
                self.device_faulted(job, fault, *tries_again)
            }
            JobEvent::InJeopardy {
                stage,
                next_look_at,
                waiting_for,
            } => {
                let waiting_for = waiting_for.map_or(NBI, WaitingFor::name);
                self.metrics
                    .jobs
                    .in_jeopardy
                    .with_label_values(&[waiting_for])
                    .inc();
                let (next_look_at, deadline) = (shown(next_look_at), shown(job.order.deadline));
                job_line!(
                    warn,
                    job,
                    "job will hardly meet its deadline",
                    stage = stage.name(),
                    waiting_for = waiting_for,
                    next_look_at = next_look_at,
                    deadline = deadline
                );
            }
            JobEvent::Released { stage, error } => {
                self.metrics.jobs.released.inc();
                // What keeps the worker from asking is logged once, when the circuit opens; this comes for every job then.
                job_line!(
                    debug,
                    job,
                    "job released",
                    stage = stage.name(),
                    error = cut(error)
                );
            }
            JobEvent::Corrected { ending } => {
                let outcome = ending.outcome.name();
                self.metrics
                    .jobs
                    .corrected
                    .with_label_values(&[outcome])
                    .inc();
                job_line!(
                    warn,
                    job,
                    "a late result corrects the outcome",
                    outcome = outcome,
                    reason = ending.reason.name(),
                );
            }
            JobEvent::Finished { ending, took } => self.job_finished(job, ending, *took),
        }
    }

    fn job_accepted(&self, job: &Job) {
        self.metrics.jobs.accepted.inc();
        let (rule_id, deadline) = (shown(&job.order.rule_id), shown(job.order.deadline));
        job_line!(
            info,
            job,
            "job accepted",
            rule_id = rule_id,
            deadline = deadline
        );
    }

    fn stage_done(&self, job: &Job, stage: Stage, took: SignedDuration) {
        self.stage_left(stage, "ok");
        self.metrics
            .jobs
            .stage_duration
            .with_label_values(&[stage.name()])
            .observe(seconds(took));
        job_line!(
            debug,
            job,
            "stage done",
            stage = stage.name(),
            duration_ms = milliseconds(took)
        );
    }

    fn stage_waits(&self, job: &Job, stage: Stage, until: Timestamp, waiting_for: WaitingFor) {
        self.stage_left(stage, "wait");
        if waiting_for == WaitingFor::Result {
            let used = deadline_used(job, Timestamp::now());
            self.metrics.jobs.deadline_used.observe(used);
        }
        let waiting_for = waiting_for.name();
        self.metrics
            .jobs
            .waits
            .with_label_values(&[waiting_for])
            .inc();
        let until = shown(until);
        job_line!(
            debug,
            job,
            "stage waits",
            stage = stage.name(),
            waiting_for = waiting_for,
            until = until
        );
    }

    fn device_faulted(&self, job: &Job, fault: &Fault, tries_again: bool) {
        self.metrics
            .jobs
            .device_faults
            .with_label_values(&[&fault_code(fault.code)])
            .inc();
        job_line!(
            warn,
            job,
            "device reported a fault",
            code = fault.code,
            fault = fault.name,
            transient = fault.transient,
            tries_again = tries_again,
            device_message = cut(&fault.message),
        );
    }

    fn stage_left(&self, stage: Stage, result: &'static str) {
        self.metrics
            .jobs
            .stage_attempts
            .with_label_values(&[stage.name(), result])
            .inc();
    }

    fn job_finished(&self, job: &Job, ending: &Ending, took: SignedDuration) {
        let (outcome, reason) = (ending.outcome.name(), ending.reason.name());
        self.metrics
            .jobs
            .finished
            .with_label_values(&[outcome, reason])
            .inc();
        self.metrics
            .jobs
            .impact
            .with_label_values(&[outcome, ending.impact.name()])
            .inc();
        self.metrics
            .jobs
            .rules_ended
            .with_label_values(&[job.progress.rule.name()])
            .inc();
        self.metrics
            .jobs
            .duration
            .with_label_values(&[outcome])
            .observe(seconds(took));
        let (impact, rule, took) = (
            ending.impact.name(),
            job.progress.rule.name(),
            milliseconds(took),
        );
        let explanation = cut(&ending.message);
        match ending.outcome {
            Outcome::Failed => job_line!(
                warn,
                job,
                "job failed",
                outcome = outcome,
                reason = reason,
                impact = impact,
                rule = rule,
                duration_ms = took,
                explanation = explanation,
            ),
            Outcome::Completed | Outcome::Cancelled | Outcome::Rejected => job_line!(
                info,
                job,
                "job finished",
                outcome = outcome,
                reason = reason,
                impact = impact,
                rule = rule,
                duration_ms = took,
                explanation = explanation,
            ),
        }
    }

    /// A request that was not valid, with the `traceparent` that its sender gave it.
    pub fn request_rejected(&self, rejection: &Rejection, traceparent: Option<&str>) {
        let fields: BTreeSet<&str> = rejection
            .faults
            .iter()
            .map(|fault| closed(&fault.field, &FIELDS))
            .collect();
        for field in fields {
            self.metrics.jobs.rejected.with_label_values(&[field]).inc();
        }
        self.metrics
            .jobs
            .finished
            .with_label_values(&[Outcome::Rejected.name(), Reason::InvalidRequest.name()])
            .inc();
        self.metrics
            .broker
            .dead_lettered
            .with_label_values(&["invalid_request"])
            .inc();
        let errors = rejection.to_string();
        tracing::warn!(
            target: TARGET,
            job_id = rejection.job_id.as_deref().map(cut),
            cpe_id = rejection.cpe_id.as_deref().map(cut),
            campaign_id = rejection.campaign_id.as_deref().map(cut),
            trace_id = traceparent.and_then(trace::trace_id_in),
            errors = cut(&errors),
            "request rejected"
        );
    }

    /// A panic in a step was caught.
    pub fn step_panicked(&self, job: &Job) {
        self.metrics.jobs.panics.inc();
        job_line!(
            error,
            job,
            "step panicked",
            stage = job.progress.stage.name()
        );
    }

    /// A delivery could not be settled; the broker will bring it again.
    pub fn hand_over_failed(&self, job: &Job, error: &DriverError) {
        self.metrics.jobs.hand_overs_failed.inc();
        let text = error.to_string();
        job_line!(
            error,
            job,
            "hand-over failed",
            stage = job.progress.stage.name(),
            error = cut(&text)
        );
    }

    /// A redelivered continuation was acknowledged without running: its replacement is known to be confirmed.
    pub fn duplicate_dropped(&self, job: &Job) {
        self.metrics.jobs.duplicates_dropped.inc();
        job_line!(debug, job, "duplicate dropped", seq = job.progress.seq);
    }
}

/// When a job's time begins: nothing happens before `not_before`, so waiting for that makes no job old.
fn began(job: &Job) -> Timestamp {
    let requested = job.order.requested_at;
    job.order
        .not_before
        .map_or(requested, |not_before| not_before.max(requested))
}

/// The share of a job's time that is used; a deadline that leaves no time is used up.
fn deadline_used(job: &Job, now: Timestamp) -> f64 {
    let began = began(job);
    let whole = job.order.deadline.duration_since(began).as_secs_f64();
    let used = now.duration_since(began).as_secs_f64();
    if whole > 0.0 {
        (used / whole).max(0.0)
    } else {
        1.0
    }
}

fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}

fn milliseconds(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
