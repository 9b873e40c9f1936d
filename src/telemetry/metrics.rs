//! All metrics: name, help, labels, buckets. The labels' values are in `labels.rs`.
//!
//! Combinations of labels that can occur stand at zero from the start, so that the first occurrence is seen as a rise.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use super::labels::{
    DEAD_REASONS, EXCHANGES, FIELDS, QUEUES, STAGE_RESULTS, WAITS, endings, fault_code,
};
use crate::job::{NbiCall, Outcome, Stage};

/// What every name begins with.
const PREFIX: &str = "nbi_upgrade";

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

/// Every metric.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) jobs: JobMetrics,
    pub(super) nbi: NbiMetrics,
    pub(super) broker: BrokerMetrics,
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
            registry: registry.clone(),
        };
        let build_info = new.gauges(
            "build_info",
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
    pub(super) duration: HistogramVec,
    pub(super) stage_attempts: IntCounterVec,
    pub(super) stage_duration: HistogramVec,
    pub(super) waits: IntCounterVec,
    pub(super) released: IntCounter,
    pub(super) device_faults: IntCounterVec,
    pub(super) panics: IntCounter,
    pub(super) hand_overs_failed: IntCounter,
    pub(super) duplicates_dropped: IntCounter,
}

impl JobMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            accepted: new.counter(
                "jobs_accepted_total",
                "Requests that were valid and are durable.",
            ),
            rejected: new.counters(
                "jobs_rejected_total",
                "Requests that were not valid, once for each field at fault.",
                &["field"],
            ),
            finished: new.counters(
                "jobs_finished_total",
                "Jobs that have their outcome.",
                &["outcome", "reason"],
            ),
            duration: new.histograms(
                "job_duration_seconds",
                "From request to outcome.",
                &["outcome"],
                &JOB_SECONDS,
            ),
            stage_attempts: new.counters(
                "stage_attempts_total",
                "Attempts of stages by how they went.",
                &["stage", "result"],
            ),
            stage_duration: new.histograms(
                "stage_duration_seconds",
                "From the first attempt of a stage until it was left for good.",
                &["stage"],
                &STAGE_SECONDS,
            ),
            waits: new.counters(
                "waits_total",
                "Times a job was put to sleep, by what it waits for.",
                &["waiting_for"],
            ),
            released: new.counter(
                "released_total",
                "Jobs given back unchanged, as this worker could not ask the NBI.",
            ),
            device_faults: new.counters(
                "device_faults_total",
                "TR-069 faults that devices reported.",
                &["code"],
            ),
            panics: new.counter("panics_total", "Panics in steps that were caught."),
            hand_overs_failed: new.counter(
                "hand_overs_failed_total",
                "Deliveries that could not be settled; the broker brings them again.",
            ),
            duplicates_dropped: new.counter(
                "duplicates_dropped_total",
                "Redelivered continuations whose replacement was confirmed.",
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
            }
        }
        for stage in Stage::ALL.map(Stage::name) {
            self.stage_duration.with_label_values(&[stage]);
            for result in STAGE_RESULTS {
                self.stage_attempts.with_label_values(&[stage, result]);
            }
        }
        for wait in WAITS {
            self.waits.with_label_values(&[wait.name()]);
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
    pub(super) limiter_wait: Histogram,
    pub(super) concurrency_limit: IntGauge,
    pub(super) circuit_open: IntGauge,
}

impl NbiMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            request_duration: new.histograms(
                "nbi_request_duration_seconds",
                "Calls of the NBI, each repeat by itself.",
                &["operation", "status"],
                &CALL_SECONDS,
            ),
            limiter_wait: new.histogram(
                "nbi_limiter_wait_seconds",
                "Time calls waited for their turn (nbi.max_concurrency, nbi.requests_per_second, the budgets of the classes).",
                &CALL_SECONDS,
            ),
            concurrency_limit: new.gauge(
                "nbi_concurrency_limit",
                "Calls that may be under way at once: nbi.max_concurrency, or less while the NBI is slow or fails.",
            ),
            circuit_open: new.gauge(
                "nbi_circuit_open",
                "1 while the circuit towards the NBI is open.",
            ),
        };
        for operation in NbiCall::OPERATIONS {
            metrics
                .request_duration
                .with_label_values(&[operation, "200"]);
        }
        metrics
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
    pub(super) replies_failed: IntCounter,
    pub(super) connected: IntGauge,
    pub(super) blocked: IntGauge,
    pub(super) reconnects: IntCounter,
    pub(super) deliveries_in_hand: IntGauge,
    pub(super) step_lateness: Histogram,
}

impl BrokerMetrics {
    fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            received: new.counters("messages_received_total", "Deliveries.", &["queue"]),
            redelivered: new.counters(
                "messages_redelivered_total",
                "Deliveries that came before.",
                &["queue"],
            ),
            published: new.counters(
                "messages_published_total",
                "Confirmed publishes.",
                &["exchange"],
            ),
            confirm: new.histograms(
                "publish_confirm_seconds",
                "From publish to the broker's confirm.",
                &["exchange"],
                &CONFIRM_SECONDS,
            ),
            dead_lettered: new.counters(
                "dead_lettered_total",
                "Messages that this worker put aside.",
                &["reason"],
            ),
            steps_parked: new.counter(
                "steps_parked_total",
                "Continuations of a newer release that were parked.",
            ),
            replies_failed: new.counter(
                "replies_failed_total",
                "Final events that could not be sent to a reply_to queue.",
            ),
            connected: new.gauge(
                "broker_connected",
                "1 while the broker is connected and consumers run.",
            ),
            blocked: new.gauge(
                "broker_blocked",
                "1 while the broker blocks publishers (memory or disk alarm).",
            ),
            reconnects: new.counter(
                "broker_reconnects_total",
                "Connections made after the first one.",
            ),
            deliveries_in_hand: new.gauge("deliveries_in_hand", "Deliveries that are worked on."),
            step_lateness: new.histogram(
                "step_lateness_seconds",
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
        for reason in DEAD_REASONS {
            metrics.dead_lettered.with_label_values(&[reason]);
        }
        metrics
    }
}

/// Makes metrics and registers them.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn register(&self, metric: impl Collector + 'static) {
        self.0
            .register(Box::new(metric))
            .expect("each name is registered once, in an empty registry");
    }

    fn keep<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect(
            "names, labels and buckets are constants of this file, all of them made by every test",
        );
        self.register(metric.clone());
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(
            Opts::new(name, help).namespace(PREFIX),
        ))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(
            Opts::new(name, help).namespace(PREFIX),
            labels,
        ))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(Opts::new(name, help).namespace(PREFIX)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(
            Opts::new(name, help).namespace(PREFIX),
            labels,
        ))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.keep(Histogram::with_opts(
            HistogramOpts::new(name, help)
                .namespace(PREFIX)
                .buckets(buckets.to_vec()),
        ))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.keep(HistogramVec::new(
            HistogramOpts::new(name, help)
                .namespace(PREFIX)
                .buckets(buckets.to_vec()),
            labels,
        ))
    }
}
