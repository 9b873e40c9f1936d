//! Spans for a collector, in OTLP over HTTP. Only with the cargo feature `otel`; `spans_off.rs` stands in its place without.
//!
//! A job may take hours and many deliveries, so no span waits for it in memory. Each delivery is a span of its own. Stages and the job as a
//! whole are written when they are over, with the time at which they began. All of them are children of the requester's span; where the
//! requester sent no context, of the first delivery's, which then travels in the continuation. Events name the delivery that published them
//! as their parent.
//!
//! Finished spans go into a bounded queue, which a thread of its own empties: a collector that is away costs spans, never a job's time.
//! Names follow OpenTelemetry's conventions for messaging and HTTP clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::SignedDuration;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
    SpanExporter as Exporter,
};

use super::Telemetry;
use super::trace::{NbiSpan, SpanSettings};
use super::trouble::Trouble;
use crate::job::{Job, JobEvent, Outcome};
use crate::message::{Carried, Work};

/// Finished spans that wait for the collector; what comes on top is dropped. A few seconds of a busy worker.
const QUEUE_MAX: usize = 4_096;
/// Spans sent at a time.
const BATCH_MAX: usize = 512;
/// How long spans wait for company.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Longest time of one request to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What the last spans may take at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// Why spans cannot be sent at all: a wrong address.
#[derive(Debug, thiserror::Error)]
#[error("failed to set tracing up for `otel.endpoint`")]
pub struct SpanError(#[source] opentelemetry_otlp::ExporterBuildError);

/// Writes spans.
#[derive(Debug)]
pub(super) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    settings: SpanSettings,
}

/// The span of a delivery that is worked on; it ends with the last copy.
#[derive(Debug, Clone)]
pub(super) struct Delivery(Arc<Open>);

#[derive(Debug)]
struct Open {
    span: Mutex<Span>,
    context: SpanContext,
    /// Parent of all that the job does.
    parent: Context,
}

impl Spans {
    /// Starts the thread that sends. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// [`SpanError`] for an address that is none.
    pub(super) fn start(settings: SpanSettings) -> Result<Self, SpanError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!(
                "{}/v1/traces",
                settings.endpoint.trim_end_matches('/')
            ))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(SpanError)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(SEND_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(Watched {
            exporter,
            trouble: Trouble::default(),
        })
        .with_batch_config(batches)
        .build();
        let resource = Resource::builder_empty()
            .with_service_name("nbi-upgrade")
            .with_attributes([
                KeyValue::new("service.version", super::VERSION),
                KeyValue::new("service.instance.id", settings.instance.clone()),
            ])
            .build();
        let ratio = Sampler::TraceIdRatioBased(settings.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_resource(resource)
            .build();
        Ok(Self {
            tracer: provider.tracer("nbi-upgrade"),
            provider,
            settings,
        })
    }

    /// Begins the span of a delivery.
    pub(super) fn delivery(&self, work: &Work, redelivered: bool) -> Delivery {
        let parent = parent_of(&work.carried);
        let queue = if work.job.progress.seq == 0 {
            "requests"
        } else {
            "steps"
        };
        let queue = format!("{}.{queue}", self.settings.prefix);
        let mut attributes = about(&work.job);
        attributes.extend([
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", queue.clone()),
            KeyValue::new("nbi_upgrade.redelivered", redelivered),
            KeyValue::new("nbi_upgrade.stage", work.job.progress.stage.name()),
        ]);
        let id = work.carried.correlation_id.clone();
        attributes.extend(id.map(|id| KeyValue::new("messaging.message.conversation_id", id)));
        let span = self
            .tracer
            .span_builder(format!("process {queue}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        let context = span.span_context().clone();
        let parent = if parent.span().span_context().is_valid() {
            parent
        } else {
            Context::new().with_remote_span_context(context.clone())
        };
        Delivery(Arc::new(Open {
            span: Mutex::new(span),
            context,
            parent,
        }))
    }

    /// A request to the NBI has ended, after `took`.
    pub(super) fn nbi(&self, delivery: &Delivery, call: &NbiSpan<'_>, took: Duration) {
        let (host, port) = &self.settings.nbi;
        let mut attributes = vec![
            KeyValue::new("http.request.method", call.method),
            KeyValue::new("url.template", call.path.to_owned()),
            KeyValue::new("server.address", host.clone()),
            KeyValue::new("server.port", i64::from(*port)),
            KeyValue::new("nbi_upgrade.operation", call.operation),
        ];
        let http = call.status.parse::<i64>().ok();
        if let Some(status) = http {
            attributes.push(KeyValue::new("http.response.status_code", status));
        }
        let is_error = http.is_none_or(|status| status >= 400);
        if is_error {
            attributes.push(KeyValue::new("error.type", call.status.to_owned()));
        }
        let parent = Context::new().with_remote_span_context(delivery.0.context.clone());
        let name = format!("{} {}", call.method, call.path);
        self.past(name, SpanKind::Client, &parent, took, attributes, is_error);
    }

    /// What replaces a delivery is with the broker, or is not.
    pub(super) fn handed_over(
        &self,
        delivery: &Delivery,
        to: &'static str,
        took: Duration,
        is_error: bool,
    ) {
        let destination = format!("{}.{to}", self.settings.prefix);
        let attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", destination.clone()),
        ];
        let parent = Context::new().with_remote_span_context(delivery.0.context.clone());
        let name = format!("publish {destination}");
        self.past(
            name,
            SpanKind::Producer,
            &parent,
            took,
            attributes,
            is_error,
        );
    }

    /// What was decided about a job: stages and jobs that are over, and what else the delivery shows.
    pub(super) fn job(&self, delivery: &Delivery, job: &Job, events: &[JobEvent]) {
        for event in events {
            match event {
                JobEvent::StageDone { stage, took, .. } => {
                    let mut attributes = about(job);
                    attributes.push(KeyValue::new("nbi_upgrade.stage", stage.name()));
                    let name = format!("stage {}", stage.name());
                    self.past(
                        name,
                        SpanKind::Internal,
                        &delivery.0.parent,
                        std(*took),
                        attributes,
                        false,
                    );
                }
                JobEvent::Finished { ending, took } => {
                    let mut attributes = about(job);
                    attributes.extend([
                        KeyValue::new("nbi_upgrade.outcome", ending.outcome.name()),
                        KeyValue::new("nbi_upgrade.reason", ending.reason.name()),
                        KeyValue::new("nbi_upgrade.impact", ending.impact.name()),
                    ]);
                    let is_error = ending.outcome == Outcome::Failed;
                    let (kind, parent) = (SpanKind::Internal, &delivery.0.parent);
                    self.past(
                        "job".to_owned(),
                        kind,
                        parent,
                        std(*took),
                        attributes,
                        is_error,
                    );
                }
                JobEvent::StageRetried { stage, .. } => {
                    delivery.notes("stage failed, will retry", stage.name())
                }
                JobEvent::StageFailed { stage, .. } => {
                    delivery.notes("stage gave up", stage.name())
                }
                JobEvent::StageWaits { stage, .. } => delivery.notes("stage waits", stage.name()),
                JobEvent::Released { stage, .. } => delivery.notes("job released", stage.name()),
                JobEvent::DeviceFaulted { fault, .. } => {
                    delivery.notes("device reported a fault", fault.name);
                }
                _ => {}
            }
        }
    }

    /// A span that is over already.
    fn past(
        &self,
        name: String,
        kind: SpanKind,
        parent: &Context,
        took: Duration,
        attributes: Vec<KeyValue>,
        is_error: bool,
    ) {
        let end = SystemTime::now();
        let mut span = self
            .tracer
            .span_builder(name)
            .with_kind(kind)
            .with_start_time(end.checked_sub(took).unwrap_or(end))
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent);
        if is_error {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(end);
    }

    /// Sends what is left, for a moment at most. Blocks.
    pub(super) fn finish(&self) {
        // A collector that is away has been reported.
        drop(self.provider.shutdown_with_timeout(LAST));
    }
}

impl Delivery {
    /// The trace it belongs to.
    pub(super) fn trace_id(&self) -> String {
        self.0.context.trace_id().to_string()
    }

    /// `traceparent` of what this delivery publishes for others.
    pub(super) fn traceparent(&self) -> String {
        header(&self.0.context)
    }

    /// `traceparent` that the job goes on with.
    pub(super) fn jobs_traceparent(&self) -> String {
        header(self.0.parent.span().span_context())
    }

    fn notes(&self, what: &'static str, detail: &'static str) {
        let mut span = self.0.span.lock().unwrap_or_else(PoisonError::into_inner);
        span.add_event(what, vec![KeyValue::new("nbi_upgrade.detail", detail)]);
    }
}

/// The requester's span, if it sent a context that is valid.
fn parent_of(carried: &Carried) -> Context {
    let headers = [
        ("traceparent", carried.traceparent.clone()),
        ("tracestate", carried.tracestate.clone()),
    ];
    let headers = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<std::collections::HashMap<_, _>>();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}

fn about(job: &Job) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("nbi_upgrade.job_id", job.order.job_id.to_string()),
        KeyValue::new("nbi_upgrade.cpe_id", job.order.cpe_id.to_string()),
        KeyValue::new("nbi_upgrade.attempt", i64::from(job.progress.attempt)),
    ];
    let campaign = job.order.campaign_id.as_ref();
    attributes.extend(campaign.map(|id| KeyValue::new("nbi_upgrade.campaign_id", id.to_string())));
    attributes
}

fn header(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags()
    )
}

fn std(took: SignedDuration) -> Duration {
    Duration::try_from(took).unwrap_or_default()
}

/// An exporter that says when it fails, as others are silent.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    trouble: Trouble,
}

impl Exporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                if let Some(so_far) = self.trouble.is_over(Instant::now()) {
                    Telemetry::spans_sent_again(so_far.times, so_far.seconds());
                }
            }
            Err(error) => {
                // The text names counts and times; the kind of trouble does not change with them.
                if let Some(so_far) = self.trouble.shows("", Instant::now()) {
                    let (times, lasts_s) = (so_far.times, so_far.seconds());
                    Telemetry::spans_lost(&error.to_string(), count, times, lasts_s);
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
