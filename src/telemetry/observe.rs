//! One typed call per thing that happened: its log line and its metrics. The only place that logs or counts.
//!
//! Messages are constants; what varies stands in fields, cut where others wrote it. Levels: `error` for what somebody must look at,
//! `warn` for what did not go as ordered, `info` for beginnings and endings, `debug` for the way, `trace` for single messages.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use tracing::field::display as shown;

use super::Telemetry;
use super::metrics::{EXCHANGES, FIELDS, QUEUES, closed, fault_code, status};
use crate::job::outcome::Ending;
use crate::job::{Job, JobEvent, NbiCall, Outcome, Reason, Stage};

/// The target of every line.
const TARGET: &str = "nbi_upgrade";

/// Longest text of others in a field, in characters.
const TEXT_MAX: usize = 1_000;

/// A line about a job.
macro_rules! job_line {
    ($level:ident, $job:expr, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        tracing::$level!(
            target: TARGET,
            job_id = %$job.order.job_id,
            cpe_id = %$job.order.cpe_id,
            campaign_id = $job.order.campaign_id.as_ref().map(shown),
            attempt = $job.progress.attempt,
            $($field = $value,)*
            $message
        )
    };
}

/// Jobs.
impl Telemetry {
    /// What was decided about a job.
    pub fn job(&self, job: &Job, events: &[JobEvent]) {
        for event in events {
            self.job_event(job, event);
        }
    }

    fn job_event(&self, job: &Job, event: &JobEvent) {
        match event {
            JobEvent::Accepted => {
                self.metrics.jobs_accepted.inc();
                job_line!(
                    info,
                    job,
                    "job accepted",
                    rule_id = shown(&job.order.rule_id),
                    deadline = shown(job.order.deadline)
                );
            }
            JobEvent::StageDone {
                stage,
                attempt: _,
                took,
            } => {
                self.stage_left(*stage, "ok");
                self.metrics
                    .stage_duration
                    .with_label_values(&[stage.name()])
                    .observe(seconds(*took));
                job_line!(
                    debug,
                    job,
                    "stage done",
                    stage = stage.name(),
                    duration_ms = milliseconds(*took)
                );
            }
            JobEvent::StageWaits {
                stage,
                until,
                waiting_for,
            } => {
                self.stage_left(*stage, "wait");
                self.metrics
                    .waits
                    .with_label_values(&[waiting_for.name()])
                    .inc();
                let waiting_for = waiting_for.name();
                job_line!(
                    debug,
                    job,
                    "stage waits",
                    stage = stage.name(),
                    waiting_for = waiting_for,
                    until = shown(until)
                );
            }
            JobEvent::StageRetried {
                stage,
                until,
                error,
            } => {
                self.stage_left(*stage, "retry");
                let failures = job.progress.retries.failures;
                job_line!(
                    warn,
                    job,
                    "stage failed, will retry",
                    stage = stage.name(),
                    failures = failures,
                    until = shown(until),
                    error = cut(error)
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
                self.metrics
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
                    tries_again = *tries_again,
                    device_message = cut(&fault.message),
                );
            }
            JobEvent::Released { stage, error } => {
                self.metrics.released.inc();
                // What keeps the worker from asking is logged once, when the circuit opens; this comes for every job then.
                job_line!(
                    debug,
                    job,
                    "job released",
                    stage = stage.name(),
                    error = cut(error)
                );
            }
            JobEvent::Finished { ending, took } => self.job_finished(job, ending, *took),
        }
    }

    fn stage_left(&self, stage: Stage, result: &'static str) {
        self.metrics
            .stage_attempts
            .with_label_values(&[stage.name(), result])
            .inc();
    }

    fn job_finished(&self, job: &Job, ending: &Ending, took: SignedDuration) {
        let (outcome, reason) = (ending.outcome.name(), ending.reason.name());
        self.metrics
            .jobs_finished
            .with_label_values(&[outcome, reason])
            .inc();
        self.metrics
            .job_duration
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

    /// A request that was not valid.
    pub fn request_rejected(&self, rejection: &crate::message::Rejection) {
        let fields: BTreeSet<&str> = rejection
            .faults
            .iter()
            .map(|fault| closed(&fault.field, &FIELDS))
            .collect();
        for field in fields {
            self.metrics.jobs_rejected.with_label_values(&[field]).inc();
        }
        self.metrics
            .jobs_finished
            .with_label_values(&[Outcome::Rejected.name(), Reason::InvalidRequest.name()])
            .inc();
        self.metrics
            .dead_lettered
            .with_label_values(&["invalid_request"])
            .inc();
        let errors = rejection.to_string();
        tracing::warn!(
            target: TARGET,
            job_id = rejection.job_id.as_deref().map(cut),
            cpe_id = rejection.cpe_id.as_deref().map(cut),
            campaign_id = rejection.campaign_id.as_deref().map(cut),
            errors = cut(&errors),
            "request rejected"
        );
    }

    /// A panic in a step was caught.
    pub fn step_panicked(&self, job: &Job) {
        self.metrics.panics.inc();
        job_line!(
            error,
            job,
            "step panicked",
            stage = job.progress.stage.name()
        );
    }

    /// A delivery could not be settled; the broker will bring it again.
    pub fn hand_over_failed(&self, job: &Job, error: &crate::driver::DriverError) {
        self.metrics.hand_overs_failed.inc();
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
        self.metrics.duplicates_dropped.inc();
        job_line!(debug, job, "duplicate dropped", seq = job.progress.seq);
    }
}

/// The NBI.
impl Telemetry {
    /// The NBI was asked. `status` is the HTTP status, or a word from a closed set where there was none
    /// (`timeout`, `connect`, `no_answer`, `too_large`).
    pub fn nbi_answered(&self, operation: &'static str, status: &str, took: Duration) {
        let operation = closed(operation, &NbiCall::OPERATIONS);
        let status = self::status(status);
        self.metrics
            .nbi_request_duration
            .with_label_values(&[operation, status])
            .observe(took.as_secs_f64());
        tracing::debug!(target: TARGET, operation, status, duration_ms = took.as_secs_f64() * 1_000.0, "nbi answered");
    }

    /// Time a call waited for its turn at the limiter.
    pub fn nbi_waited(&self, took: Duration) {
        self.metrics.nbi_limiter_wait.observe(took.as_secs_f64());
    }

    /// The circuit opened.
    pub fn circuit_opened(&self, reason: &str) {
        self.metrics.nbi_circuit_open.set(1);
        self.health.circuit_opened(cut(reason));
        tracing::warn!(target: TARGET, reason = cut(reason), "circuit opened");
    }

    /// The circuit closed.
    pub fn circuit_closed(&self) {
        self.metrics.nbi_circuit_open.set(0);
        self.health.circuit_closed();
        tracing::info!(target: TARGET, "circuit closed");
    }
}

/// The broker.
impl Telemetry {
    /// A delivery arrived on `requests` or `steps`.
    pub fn received(&self, queue: &'static str, redelivered: bool) {
        let queue = closed(queue, &QUEUES);
        self.metrics
            .messages_received
            .with_label_values(&[queue])
            .inc();
        if redelivered {
            self.metrics
                .messages_redelivered
                .with_label_values(&[queue])
                .inc();
        }
        tracing::trace!(target: TARGET, queue, redelivered, "message received");
    }

    /// A delayed continuation arrived this long after its time.
    pub fn lateness(&self, late: Duration) {
        self.metrics.step_lateness.observe(late.as_secs_f64());
    }

    /// A publish was confirmed. `exchange` is one of `results`, `steps`, `delay`, `dead`, `reply`, `requests`.
    pub fn published(&self, exchange: &'static str, took: Duration) {
        let exchange = closed(exchange, &EXCHANGES);
        self.metrics
            .messages_published
            .with_label_values(&[exchange])
            .inc();
        self.metrics
            .publish_confirm
            .with_label_values(&[exchange])
            .observe(took.as_secs_f64());
        tracing::trace!(target: TARGET, exchange, duration_ms = took.as_secs_f64() * 1_000.0, "message published");
    }

    /// Deliveries in hand changed.
    pub fn in_hand(&self, change: i64) {
        self.metrics.deliveries_in_hand.add(change);
    }

    /// A continuation that nobody can read went to the dead letters.
    pub fn step_dead_lettered(&self, error: &str) {
        self.metrics
            .dead_lettered
            .with_label_values(&["unreadable_step"])
            .inc();
        tracing::error!(target: TARGET, error = cut(error), "step dead-lettered");
    }

    /// A continuation of a newer release was parked.
    pub fn step_parked(&self, error: &str) {
        self.metrics.steps_parked.inc();
        tracing::warn!(target: TARGET, error = cut(error), "step of a newer release parked");
    }

    /// The final event could not be sent to the requester's `reply_to` queue.
    pub fn reply_failed(&self, queue: &str, reason: &str) {
        self.metrics.replies_failed.inc();
        tracing::warn!(target: TARGET, queue = cut(queue), reason = cut(reason), "reply failed");
    }

    /// The broker is connected, the topology stands, consumers run.
    pub fn broker_connected(&self, broker: &str) {
        self.metrics.broker_connected.set(1);
        self.metrics.broker_blocked.set(0);
        let is_reconnect = self.health.broker_connected();
        if is_reconnect {
            self.metrics.broker_reconnects.inc();
        }
        tracing::info!(target: TARGET, broker = without_credentials(broker), is_reconnect, "broker connected");
    }

    /// The connection ended; the supervisor comes back in `retry_in`.
    pub fn broker_lost(&self, broker: &str, reason: &str, retry_in: Duration) {
        self.metrics.broker_connected.set(0);
        self.health.broker_lost(cut(reason));
        let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(target: TARGET, broker = without_credentials(broker), reason = cut(reason), retry_in_ms, "broker lost");
    }

    /// The broker blocks publishers (memory or disk alarm), or no longer does.
    pub fn broker_blocked(&self, reason: Option<&str>) {
        self.metrics.broker_blocked.set(i64::from(reason.is_some()));
        match reason {
            Some(reason) => {
                tracing::warn!(target: TARGET, reason = cut(reason), "broker blocks publishers")
            }
            None => tracing::info!(target: TARGET, "broker accepts publishers again"),
        }
    }

    /// The worker shuts down: not ready any more.
    pub fn stopping(&self) {
        self.health.stopping();
        tracing::info!(target: TARGET, "stopping");
    }
}

fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}

fn milliseconds(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(TEXT_MAX)
        .map_or(text, |(at, _)| &text[..at])
}

/// A broker is named by host and port; should a whole URL be handed in, its password stays out of the log.
fn without_credentials(broker: &str) -> &str {
    broker.rsplit('@').next().unwrap_or(broker)
}
