//! Beginning and end of the process.

use std::net::SocketAddr;

use super::TARGET;
use crate::telemetry::{REVISION, Telemetry, VERSION};

impl Telemetry {
    /// The worker runs.
    pub fn started(&self, instance: &str, listen: SocketAddr) {
        let listen = listen.to_string();
        tracing::info!(target: TARGET, version = VERSION, revision = REVISION, instance, listen, "worker started");
    }

    /// A signal asks the process to end.
    pub fn signalled(signal: &'static str) {
        let remedy = "what is in hand is finished; a second signal ends at once";
        tracing::info!(target: TARGET, signal, remedy, "signal received");
    }

    /// The worker shuts down: not ready any more.
    pub fn stopping(&self) {
        self.health.stopping();
        tracing::info!(target: TARGET, "stopping");
    }

    /// Everything is handed back or done.
    pub fn stopped(&self) {
        tracing::info!(target: TARGET, "worker stopped");
    }

    /// Metrics and health are no longer served.
    pub fn endpoint_failed(&self, error: &std::io::Error) {
        let error = error.to_string();
        tracing::error!(target: TARGET, error, "metrics endpoint ended");
    }
}
