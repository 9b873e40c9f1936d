//! The way to the simulator, with a crash point on either side of every effect.
//!
//! It stands below the NBI client, at each HTTP request, and not around it: one call of the core may be several requests (a second name
//! of the filter, a quick retry), and a worker may die between them too.

use std::sync::Arc;
use std::time::Duration;

use nbi_upgrade::nbi::wire::Request;
use nbi_upgrade::nbi::{RawAnswer, Transport, TransportError};
use nbi_upgrade::simulator::InProcessTransport;

use super::broker::Broker;
use super::points::Life;

/// The way of one worker process.
pub(crate) struct CrashingTransport {
    pub(crate) inner: InProcessTransport,
    pub(crate) life: Arc<Life>,
    /// For the draws of its latency.
    pub(crate) broker: Broker,
    pub(crate) latency: Duration,
}

impl CrashingTransport {
    async fn half_way(&self) {
        tokio::time::sleep(self.latency / 2 + self.broker.latency()).await;
    }
}

impl Transport for CrashingTransport {
    async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
        let operation = request.operation;
        self.life
            .point(|| format!("before {operation} is sent"))
            .await;
        self.half_way().await;
        self.life.history.add_call(request);
        let answer = self.inner.send(request).await;
        self.life
            .point(|| format!("{operation} carried out, not answered"))
            .await;
        self.half_way().await;
        let seen = match &answer {
            Ok(raw) => {
                let body = String::from_utf8_lossy(&raw.body);
                let body: String = body.chars().take(160).collect();
                format!("{} {}", raw.status, body.replace('\n', " "))
            }
            Err(error) => error.to_string(),
        };
        self.life.note(format!("nbi {operation}: {seen}"));
        answer
    }
}
