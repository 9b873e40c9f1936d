//! What people and Prometheus see of the worker: one call per thing that happened gives its log line and its metrics.
//!
//! `observe/` has the calls and is the only place that logs or counts; `metrics.rs` lists every metric, [`names`] what they are called;
//! [`health`] is what readiness knows; [`http`] serves both; [`log`] sets up the log lines, [`trace`] says which trace they belong to.
//! No label takes a device or a job. A campaign is a label for the first twenty that are active; the others are counted as one.

mod campaigns;
mod observe;

pub mod health;
pub mod http;
mod json_line;
mod labels;
mod lines;
pub mod log;
mod metrics;
pub mod names;
mod oldest;
mod orphans;
mod register;
#[cfg_attr(feature = "otel", path = "spans_otel.rs")]
#[cfg_attr(not(feature = "otel"), path = "spans_off.rs")]
mod spans;
pub mod trace;
mod trouble;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use health::Readiness;
pub use observe::orphans::Swept;
pub use spans::SpanError;
pub use trace::Trace;

/// This package's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this program was built from, where the build said it (`NBI_UPGRADE_REVISION`).
pub const REVISION: &str = match option_env!("NBI_UPGRADE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Counts and logs what happens. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Telemetry {
    metrics: metrics::Metrics,
    health: health::Health,
    oldest: oldest::Oldest,
    troubles: Troubles,
    spans: Option<spans::Spans>,
}

/// What can be in trouble for long.
#[derive(Debug, Default)]
struct Troubles {
    broker: trouble::Trouble,
    circuit: trouble::Trouble,
    nbi_files: trouble::Trouble,
}

impl Telemetry {
    /// With every metric registered, in a registry of its own.
    #[must_use]
    pub fn new(version: &str, revision: &str) -> Self {
        Self {
            metrics: metrics::Metrics::new(version, revision),
            health: health::Health::default(),
            oldest: oldest::Oldest::default(),
            troubles: Troubles::default(),
            spans: None,
        }
    }

    /// With spans for a collector.
    ///
    /// # Errors
    ///
    /// [`SpanError`] for an address that is none, and in a program without the cargo feature `otel`.
    pub fn with_spans(mut self, settings: trace::SpanSettings) -> Result<Self, SpanError> {
        self.spans = Some(spans::Spans::start(settings)?);
        Ok(self)
    }

    /// Whether the worker is ready, and what is missing.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    /// All metrics in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    ///
    /// A metric that cannot be written; a fault of this program.
    pub fn metrics_text(&self) -> Result<String, prometheus::Error> {
        let age = self.oldest.age(Timestamp::now());
        self.metrics.jobs.oldest.set(age);
        self.metrics.text()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(VERSION, REVISION)
    }
}
