//! The simulator as a transport in the same process: no sockets, so tests may run in virtual time.
//!
//! Credentials are not looked at here (requests of the seam carry none); HTTP does that.

use std::time::Duration;

use super::reply::{Call, Reply};
use super::shared::SharedSimulator;
use super::trouble::Trouble;
use crate::nbi::wire::Request;
use crate::nbi::{RawAnswer, Transport, TransportError};

/// How the way to the simulator behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InProcessSettings {
    /// How long the caller waits for an answer that never comes.
    pub client_timeout: Duration,
    /// The largest body that the caller accepts.
    pub max_response_bytes: usize,
    /// How long each call takes; half of it before the effect.
    pub latency: Duration,
}

impl Default for InProcessSettings {
    /// 10 s of patience, 1 MiB, no latency.
    fn default() -> Self {
        Self {
            client_timeout: Duration::from_secs(10),
            max_response_bytes: 1 << 20,
            latency: Duration::ZERO,
        }
    }
}

/// [`Transport`] straight into a [`SharedSimulator`]; clones share it.
#[derive(Debug, Clone)]
pub struct InProcessTransport {
    simulator: SharedSimulator,
    settings: InProcessSettings,
}

impl InProcessTransport {
    /// A way to this simulator.
    #[must_use]
    pub fn new(simulator: SharedSimulator, settings: InProcessSettings) -> Self {
        Self {
            simulator,
            settings,
        }
    }

    /// The simulator at its end.
    #[must_use]
    pub fn simulator(&self) -> &SharedSimulator {
        &self.simulator
    }

    async fn wait_half_the_latency(&self) {
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency / 2).await;
        }
    }

    async fn act_out(&self, reply: Reply, patience: Duration) -> Result<RawAnswer, TransportError> {
        let limit = self.settings.max_response_bytes;
        match reply.trouble {
            Some(Trouble::Refused) => Err(TransportError::Connect("connection refused".to_owned())),
            Some(Trouble::AnswerLost) => {
                Err(TransportError::NoAnswer("connection reset".to_owned()))
            }
            Some(Trouble::Truncated) => Err(TransportError::NoAnswer(
                "connection closed in the body".to_owned(),
            )),
            Some(Trouble::HangBeforeEffect | Trouble::HangAfterEffect) => {
                tokio::time::sleep(patience).await;
                Err(TransportError::TimedOut("the simulator hangs".to_owned()))
            }
            _ if reply.body.len() > limit => Err(TransportError::TooLarge { limit }),
            _ => Ok(RawAnswer {
                status: reply.status,
                body: reply.body,
                retry_after: reply.retry_after,
                date: reply.date,
                location: None,
            }),
        }
    }
}

impl Transport for InProcessTransport {
    async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
        self.wait_half_the_latency().await;
        let reply = self.simulator.handle(Call {
            verb: request.verb,
            path: request.path,
            query: request.query.as_slice(),
            body: request.body.as_deref().unwrap_or_default(),
        });
        self.wait_half_the_latency().await;
        let patience = request.timeout.unwrap_or(self.settings.client_timeout);
        self.act_out(reply, patience).await
    }
}
