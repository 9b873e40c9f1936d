//! What people and Prometheus see of the worker: one call per thing that happened gives its log line and its metrics.

use std::time::Duration;

use crate::job::{Job, JobEvent};

/// Counts and logs what happens. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Telemetry {}

impl Telemetry {
    /// What was decided about a job.
    pub fn job(&self, _job: &Job, _events: &[JobEvent]) {}
    /// A request that was not valid.
    pub fn request_rejected(&self, _rejection: &crate::message::Rejection) {}
    /// A continuation that nobody can read went to the dead letters.
    pub fn step_dead_lettered(&self, _error: &str) {}
    /// A continuation of a newer release was parked.
    pub fn step_parked(&self, _error: &str) {}
    /// A panic in a step was caught.
    pub fn step_panicked(&self, _job: &Job) {}
    /// A delivery could not be settled; the broker will bring it again.
    pub fn hand_over_failed(&self, _job: &Job, _error: &crate::driver::DriverError) {}

    /// The NBI was asked. `status` is the HTTP status, or a word from a closed set where there was none
    /// (`timeout`, `connect`, `too_large`).
    pub fn nbi_answered(&self, _operation: &'static str, _status: &str, _took: Duration) {}
    /// Time a call waited for its turn at the limiter.
    pub fn nbi_waited(&self, _took: Duration) {}
    /// The circuit opened.
    pub fn circuit_opened(&self, _reason: &str) {}
    /// The circuit closed.
    pub fn circuit_closed(&self) {}

    /// A delivery arrived on `requests` or `steps`.
    pub fn received(&self, _queue: &'static str, _redelivered: bool) {}
    /// A delayed continuation arrived this long after its time.
    pub fn lateness(&self, _late: Duration) {}
    /// A publish was confirmed. `exchange` is one of `results`, `steps`, `delay`, `dead`, `reply`, `requests`.
    pub fn published(&self, _exchange: &'static str, _took: Duration) {}
    /// Deliveries in hand changed.
    pub fn in_hand(&self, _change: i64) {}
    /// The broker is connected, the topology stands, consumers run.
    pub fn broker_connected(&self, _broker: &str) {}
    /// The connection ended; the supervisor comes back in `retry_in`.
    pub fn broker_lost(&self, _broker: &str, _reason: &str, _retry_in: Duration) {}
    /// The broker blocks publishers (memory or disk alarm), or no longer does.
    pub fn broker_blocked(&self, _reason: Option<&str>) {}
    /// A redelivered continuation was acknowledged without running: its replacement is known to be confirmed.
    pub fn duplicate_dropped(&self, _job: &Job) {}
    /// The final event could not be sent to the requester's `reply_to` queue.
    pub fn reply_failed(&self, _queue: &str, _reason: &str) {}
    /// The worker shuts down: not ready any more.
    pub fn stopping(&self) {}
}
