//! Probes for a worker that has nothing to ask.
//!
//! The circuit closes when a call goes well, and calls are made by jobs. A worker without a job would stay shut when the NBI is back:
//! not ready, and as a leader it would start no device, whose job could be the one that asks. So a probe of its own goes out where
//! nobody else brings one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::circuit::CircuitState;
use super::{NbiClient, Transport};

/// So long after the circuit lets a probe through; a worker that has jobs brings one sooner.
const ALONE_FOR: Duration = Duration::from_secs(5);

/// Probes now and then while the circuit is open and nobody else does. Goes on for ever.
pub async fn probe_when_idle<T: Transport>(nbi: Arc<NbiClient<T>>) {
    let mut circuit = nbi.circuit();
    loop {
        let state = *circuit.borrow_and_update();
        let changed = match state {
            CircuitState::Closed | CircuitState::Probing => circuit.changed().await,
            CircuitState::Open { until } => tokio::select! {
                changed = circuit.changed() => changed,
                () = sleep_until(until.max(Instant::now()) + ALONE_FOR) => {
                    // What it shows, the circuit knows.
                    drop(nbi.probe().await);
                    Ok(())
                }
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::wire::{Request, Verb};
    use super::super::{NbiSettings, RawAnswer, TransportError};
    use super::*;
    use crate::job::{CpeId, NbiCall};
    use crate::nbi::Nbi;
    use crate::nbi::circuit::CircuitSettings;

    /// Refuses connections until its time has come.
    struct AwayUntil {
        back_at: Instant,
        asked: Mutex<Vec<(Verb, &'static str)>>,
    }

    impl Transport for Arc<AwayUntil> {
        async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
            let mut asked = self.asked.lock().unwrap();
            asked.push((request.verb, request.path));
            if Instant::now() < self.back_at {
                return Err(TransportError::Connect("away".to_owned()));
            }
            Ok(RawAnswer {
                status: 200,
                body: br#"{"code":200,"message":"","details":[]}"#.to_vec(),
                retry_after: None,
                date: None,
                location: None,
            })
        }
    }

    type Away = (Arc<AwayUntil>, Arc<NbiClient<Arc<AwayUntil>>>);

    /// An NBI that is away for so long, and a client whose circuit one failure opens.
    fn away(lasts: Duration) -> Away {
        let server = Arc::new(AwayUntil {
            back_at: Instant::now() + lasts,
            asked: Mutex::default(),
        });
        let settings = NbiSettings {
            circuit: CircuitSettings {
                failures_to_open: 1,
                ..CircuitSettings::default()
            },
            ..NbiSettings::default()
        };
        let nbi = Arc::new(NbiClient::new(server.clone(), settings, Arc::default()));
        (server, nbi)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_jobs_finds_out_by_itself_that_the_nbi_is_back() {
        let away_for = Duration::from_secs(600);
        let (server, nbi) = away(away_for);
        let mut circuit = nbi.circuit();
        let probing = tokio::spawn(probe_when_idle(nbi.clone()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(
            server.asked.lock().unwrap().is_empty(),
            "while all is well nothing is asked"
        );
        let begun = Instant::now();
        let cpe_id = CpeId::parse("CPE1").unwrap();
        assert!(nbi.call(&NbiCall::ReadVersion { cpe_id }).await.is_err());
        let closed = circuit.wait_for(|state| *state == CircuitState::Closed);
        let closed = tokio::time::timeout(Duration::from_secs(3_600), closed).await;
        assert!(closed.is_ok(), "it stays open");
        // At most the longest open time and its own pause after the NBI is back.
        let took = begun.elapsed();
        let latest = away_for + Duration::from_secs(126);
        assert!(
            (away_for - Duration::from_secs(60)..=latest).contains(&took),
            "{took:?}"
        );
        let mut asked = server.asked.lock().unwrap().clone();
        asked.remove(0);
        assert!((5..=12).contains(&asked.len()), "{asked:?}");
        assert!(
            asked.iter().all(|(verb, _)| *verb == Verb::Get),
            "{asked:?}"
        );
        probing.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_the_probe_to_a_worker_that_has_jobs() {
        let (server, nbi) = away(Duration::from_secs(600));
        let probing = tokio::spawn(probe_when_idle(nbi.clone()));
        let cpe_id = CpeId::parse("CPE1").unwrap();
        let version = NbiCall::ReadVersion { cpe_id };
        for _ in 0..300 {
            assert!(nbi.call(&version).await.is_err());
            // Never in the moment in which the circuit lets a probe through.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        let asked = server.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|what| *what == asked[0]), "{asked:?}");
        probing.abort();
    }
}
