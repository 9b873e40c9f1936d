//! All metrics: help, labels, buckets. The names are in `names.rs`, the labels' values in `labels.rs`.
//!
//! Combinations of labels that can occur stand at zero from the start, so that the first occurrence is seen as a rise.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use super::campaigns::CampaignMetrics;
use super::labels::{
    CALL_CLASSES, CIRCUIT_STATES, DEAD_REASONS, DEPTHS, EXCHANGES, FIELDS, NBI, QUEUES,
    RULE_STATES, STAGE_RESULTS, endings, fault_code,
};
use super::names;
use super::orphans::OrphanMetrics;
use super::register::Register;
use crate::job::event::WaitingFor;
use crate::job::outcome::Impact;
use crate::job::{NbiCall, Outcome, Stage};

/// 10 s to 24 h: from a device that answers at once to one that comes once a day.
const JOB_SECONDS: [f64; 14] = [
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0,
    43_200.0, 86_400.0,
];
/// 5 ms to 24 h: one call, or a wait for a device.
const STAGE_SECONDS: [f64; 14] = [
    0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
    86_400.0,
];
/// 5 ms to 60 s: from the cache of the NBI to twice its usual time limit.
const CALL_SECONDS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// 0.5 ms to 30 s: from one disk write to `amqp.publish_timeout`.
const CONFIRM_SECONDS: [f64; 11] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 10.0, 30.0,
];
/// 10 ms to 1 h: idle lateness is some milliseconds; minutes mean that workers or the broker cannot keep up.
const LATENESS_SECONDS: [f64; 12] = [
    0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0,
];

/// Quarters, and the last tenth: jobs with more used than that are about to time out.
const USED_RATIOS: [f64; 5] = [0.25, 0.5, 0.75, 0.9, 1.0];

/// Every metric.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) jobs: JobMetrics,
    pub(super) nbi: NbiMetrics,
    pub(super) broker: BrokerMetrics,
    pub(super) instance_info: IntGaugeVec,
    pub(super) campaigns: CampaignMetrics,
    pub(super) orphans: OrphanMetrics,
}

impl Metrics {
    /// Everything registered, every closed combination at zero.
    pub(super) fn new(version: &str, revision: &str) -> Self {
        let registry = Registry::new();
        let new = Register(&registry);
        let metrics = Self {
            jobs: JobMetrics::new(&new),
            nbi: NbiMetrics::new(&new),
            broker: BrokerMetrics::new(&new),
            instance_info: new.gauges(
                names::INSTANCE_INFO,
                "1, with amqp.prefix and instance.name of this worker.",
                &["prefix", "name"],
            ),
            campaigns: CampaignMetrics::new(&new),
            orphans: OrphanMetrics::new(&new),
            registry: registry.clone(),
        };
        let build_info = new.gauges(
            names::BUILD_INFO,
            "1, with what this program was built from.",
            &["version", "revision"],
        );
        build_info.with_label_values(&[version, revision]).set(1);
        #[cfg(target_os = "linux")]
        new.register(prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// The text format 0.0.4.
    pub(super) fn text(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        String::from_utf8(buffer).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// What happens to jobs.
#[derive(Debug)]
pub(super) struct JobMetrics {
    pub(super) accepted: IntCounter,
    pub(super) rejected: IntCounterVec,
    pub(super) finished: IntCounterVec,
    pub(super) impact: IntCounterVec,
    pub(super) rules_ended: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) deadline_used: Histogram,
    pub(super) oldest: Gauge,
    pub(super) stage_attempts: IntCounterVec,
    pub(super) stage_duration: HistogramVec,
    pub(super) waits: IntCounterVec,
    pub(super) released: IntCounter,
    pub(super) device_faults: IntCounterVec,
    pub(super) panics: IntCounter,
    pub(super) hand_overs_failed: IntCounter,
    pub(super) duplicates_dropped: IntCounter,
    pub(super) corrected: IntCounterVec,
    pub(super) in_jeopardy: IntCounterVec,
}

impl JobMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            accepted: new.counter(
                names::JOBS_ACCEPTED,
                "Requests that were valid and are durable.",
            ),
            rejected: new.counters(
                names::JOBS_REJECTED,
                "Requests that were not valid, once for each field at fault.",
                &["field"],
            ),
            finished: new.counters(
                names::JOBS_FINISHED,
                "Jobs that have their outcome.",
                &["outcome", "reason"],
            ),
            impact: new.counters(
                names::JOBS_IMPACT,
                "Jobs that have their outcome, by what it means for the device.",
                &["outcome", "impact"],
            ),
            rules_ended: new.counters(
                names::RULES_ENDED,
                "Jobs that have their outcome, by what became of their rule; after cleanup_failed it may still be armed.",
                &["state"],
            ),
            deadline_used: new.histogram(
                names::JOB_DEADLINE_USED,
                "Share of a job's time, from begin to deadline, that was used when it was put to wait for its device's result.",
                &USED_RATIOS,
            ),
            oldest: new.fraction(
                names::OLDEST_JOB,
                "Age of the oldest job that was put to wait here within the last ten minutes, at that moment; 0 without one.",
            ),
            duration: new.histograms(
                names::JOB_DURATION,
                "From request to outcome.",
                &["outcome"],
                &JOB_SECONDS,
            ),
            stage_attempts: new.counters(
                names::STAGE_ATTEMPTS,
                "Attempts of stages by how they went.",
                &["stage", "result"],
            ),
            stage_duration: new.histograms(
                names::STAGE_DURATION,
                "From the first attempt of a stage until it was left for good.",
                &["stage"],
                &STAGE_SECONDS,
            ),
            waits: new.counters(
                names::WAITS,
                "Times a job was put to sleep, by what it waits for.",
                &["waiting_for"],
            ),
            released: new.counter(
                names::RELEASED,
                "Jobs given back unchanged, as this worker could not ask the NBI.",
            ),
            device_faults: new.counters(
                names::DEVICE_FAULTS,
                "TR-069 faults that devices reported.",
                &["code"],
            ),
            panics: new.counter(names::PANICS, "Panics in steps that were caught."),
            hand_overs_failed: new.counter(
                names::HAND_OVERS_FAILED,
                "Deliveries that could not be settled; the broker brings them again.",
            ),
            duplicates_dropped: new.counter(
                names::DUPLICATES_DROPPED,
                "Redelivered continuations whose replacement was confirmed.",
            ),
            corrected: new.counters(
                names::JOBS_CORRECTED,
                "Jobs that had timed out and whose result came late, by the outcome that it tells.",
                &["outcome"],
            ),
            in_jeopardy: new.counters(
                names::JOBS_IN_JEOPARDY,
                "Jobs whose deadline could hardly be met any more, once a job, by what they waited for.",
                &["waiting_for"],
            ),
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        for field in FIELDS.into_iter().chain(["other"]) {
            self.rejected.with_label_values(&[field]);
        }
        for (outcome, reason) in endings() {
            self.finished
                .with_label_values(&[outcome.name(), reason.name()]);
            if outcome != Outcome::Rejected {
                self.duration.with_label_values(&[outcome.name()]);
                for impact in Impact::ALL {
                    self.impact
                        .with_label_values(&[outcome.name(), impact.name()]);
                }
            }
        }
        for stage in Stage::ALL.map(Stage::name) {
            self.stage_duration.with_label_values(&[stage]);
            for result in STAGE_RESULTS {
                self.stage_attempts.with_label_values(&[stage, result]);
            }
        }
        for state in RULE_STATES {
            self.rules_ended.with_label_values(&[state.name()]);
        }
        for outcome in [Outcome::Completed, Outcome::Failed] {
            self.corrected.with_label_values(&[outcome.name()]);
        }
        for wait in WaitingFor::ALL {
            self.waits.with_label_values(&[wait.name()]);
        }
        for wait in WaitingFor::ALL
            .map(WaitingFor::name)
            .into_iter()
            .chain([NBI])
        {
            self.in_jeopardy.with_label_values(&[wait]);
        }
        for code in (9000..=9020).chain([9800, 0]) {
            self.device_faults.with_label_values(&[&fault_code(code)]);
        }
    }
}

/// What happens between the worker and the NBI.
#[derive(Debug)]
pub(super) struct NbiMetrics {
    pub(super) request_duration: HistogramVec,
    pub(super) refusals: IntCounter,
    pub(super) limiter_wait: HistogramVec,
    pub(super) concurrency_limit: IntGauge,
    pub(super) circuit_open: IntGauge,
    pub(super) circuit_state: IntGaugeVec,
}

impl NbiMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            request_duration: new.histograms(
                names::NBI_REQUEST_DURATION,
                "Calls of the NBI, each repeat by itself.",
                &["operation", "status"],
                &CALL_SECONDS,
            ),
            refusals: new.counter(
                names::NBI_REFUSALS,
                "Calls that the NBI refused for the worker's credentials or rights (401, 403).",
            ),
            limiter_wait: new.histograms(
                names::NBI_LIMITER_WAIT,
                "Time calls waited for their turn (nbi.max_concurrency, nbi.requests_per_second, the budgets of the classes).",
                &["class"],
                &CALL_SECONDS,
            ),
            concurrency_limit: new.gauge(
                names::NBI_CONCURRENCY_LIMIT,
                "Calls that may be under way at once: nbi.max_concurrency, or less while the NBI is slow or fails.",
            ),
            circuit_open: new.gauge(
                names::NBI_CIRCUIT_OPEN,
                "1 while the circuit towards the NBI is open or probing.",
            ),
            circuit_state: new.gauges(
                names::NBI_CIRCUIT_STATE,
                "1 for the state of the circuit towards the NBI, 0 for the others.",
                &["state"],
            ),
        };
        for operation in NbiCall::OPERATIONS {
            metrics
                .request_duration
                .with_label_values(&[operation, "200"]);
        }
        for class in CALL_CLASSES {
            metrics.limiter_wait.with_label_values(&[class]);
        }
        metrics.circuit_is(CIRCUIT_STATES[0]);
        metrics
    }

    /// Sets the state of the circuit, one of [`CIRCUIT_STATES`]. It counts as open until it is closed: a probe is no recovery.
    pub(super) fn circuit_is(&self, state: &'static str) {
        self.circuit_open.set(i64::from(state != CIRCUIT_STATES[0]));
        for known in CIRCUIT_STATES {
            self.circuit_state
                .with_label_values(&[known])
                .set(i64::from(known == state));
        }
    }
}

/// What happens between the worker and the broker.
#[derive(Debug)]
pub(super) struct BrokerMetrics {
    pub(super) received: IntCounterVec,
    pub(super) redelivered: IntCounterVec,
    pub(super) published: IntCounterVec,
    pub(super) confirm: HistogramVec,
    pub(super) dead_lettered: IntCounterVec,
    pub(super) steps_parked: IntCounter,
    pub(super) emergency_stop: IntGauge,
    pub(super) commands_answered: IntCounterVec,
    pub(super) replies_failed: IntCounter,
    pub(super) connected: IntGauge,
    pub(super) blocked: IntGauge,
    pub(super) reconnects: IntCounter,
    pub(super) queue_messages: GaugeVec,
    pub(super) deliveries_in_hand: IntGauge,
    pub(super) step_lateness: Histogram,
}

impl BrokerMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            received: new.counters(names::MESSAGES_RECEIVED, "Deliveries.", &["queue"]),
            redelivered: new.counters(
                names::MESSAGES_REDELIVERED,
                "Deliveries that came before.",
                &["queue"],
            ),
            published: new.counters(
                names::MESSAGES_PUBLISHED,
                "Confirmed publishes.",
                &["exchange"],
            ),
            confirm: new.histograms(
                names::PUBLISH_CONFIRM,
                "From publish to the broker's confirm; those of one batch are looked at in turn.",
                &["exchange"],
                &CONFIRM_SECONDS,
            ),
            dead_lettered: new.counters(
                names::DEAD_LETTERED,
                "Messages that this worker put aside.",
                &["reason"],
            ),
            emergency_stop: new.gauge(
                names::EMERGENCY_STOP,
                "1 while an operator has paused everything.",
            ),
            commands_answered: new.counters(
                names::COMMANDS_ANSWERED,
                "Commands of operators that this worker answered.",
                &["answer"],
            ),
            steps_parked: new.counter(
                names::STEPS_PARKED,
                "Continuations of a newer release that were parked.",
            ),
            replies_failed: new.counter(
                names::REPLIES_FAILED,
                "Final events that could not be sent to a reply_to queue.",
            ),
            connected: new.gauge(
                names::BROKER_CONNECTED,
                "1 while the broker is connected and consumers run.",
            ),
            blocked: new.gauge(
                names::BROKER_BLOCKED,
                "1 while the broker blocks publishers (memory or disk alarm).",
            ),
            reconnects: new.counter(
                names::BROKER_RECONNECTS,
                "Connections made after the first one.",
            ),
            queue_messages: new.fractions(
                names::QUEUE_MESSAGES,
                "Messages ready in the broker, all delay queues together, as last asked; NaN while that is not known.",
                &["queue"],
            ),
            deliveries_in_hand: new.gauge(names::DELIVERIES_IN_HAND, "Deliveries that are worked on."),
            step_lateness: new.histogram(
                names::STEP_LATENESS,
                "Arrival of a delayed step minus the time asked for.",
                &LATENESS_SECONDS,
            ),
        };
        for queue in QUEUES {
            metrics.received.with_label_values(&[queue]);
            metrics.redelivered.with_label_values(&[queue]);
        }
        for exchange in EXCHANGES {
            metrics.published.with_label_values(&[exchange]);
            metrics.confirm.with_label_values(&[exchange]);
        }
        for answer in ["accepted", "refused"] {
            metrics.commands_answered.with_label_values(&[answer]);
        }
        for reason in DEAD_REASONS {
            metrics.dead_lettered.with_label_values(&[reason]);
        }
        for queue in DEPTHS {
            metrics
                .queue_messages
                .with_label_values(&[queue])
                .set(f64::NAN);
        }
        metrics
    }
}
