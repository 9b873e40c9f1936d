//! The way to the simulator, with a crash point on either side of every effect.
//!
//! It stands below the NBI client, at each HTTP request, and not around it: one call of the core may be several requests (a second name
//! of the filter, a quick retry), and a worker may die between them too.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nbi_upgrade::nbi::wire::Request;
use nbi_upgrade::nbi::{RawAnswer, Transport, TransportError};
use nbi_upgrade::simulator::InProcessTransport;

use super::broker::Broker;
use super::history::Rule;
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

    /// The call, and what stands in the storage right after its effect, which may be long before the answer.
    async fn have_its_effect(&self, request: &Request) -> Result<RawAnswer, TransportError> {
        let mut sending = pin!(self.inner.send(request));
        let mut is_done = false;
        poll_fn(|context| {
            let polled = sending.as_mut().poll(context);
            // Without latency of its own, the first poll carries it out.
            if !std::mem::replace(&mut is_done, true) {
                let rows = self
                    .inner
                    .simulator()
                    .with(|simulator, _| simulator.rules());
                let rules = rows.iter().map(Rule::from_row).collect();
                self.life.history.add_rules(rules);
            }
            polled
        })
        .await
    }
}

/// Whether an answer is none that anybody can understand; `None` where it is a proper one.
fn is_unintelligible(answer: &Result<RawAnswer, TransportError>) -> Option<bool> {
    match answer {
        Err(TransportError::TooLarge { .. }) => Some(true),
        Err(_) => Some(false),
        // 501 says that rules are not to be read.
        Ok(raw) if matches!(raw.status, 401 | 408 | 425 | 429 | 500 | 502..) => Some(false),
        // One with 204 has no body.
        Ok(raw) if raw.body.is_empty() => None,
        Ok(raw) => serde_json::from_slice::<serde_json::Value>(&raw.body)
            .is_err()
            .then_some(true),
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
        let answer = self.have_its_effect(request).await;
        if let Some(is_unintelligible) = is_unintelligible(&answer) {
            self.life.history.add_failure(is_unintelligible);
        }
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
