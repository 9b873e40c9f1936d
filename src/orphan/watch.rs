//! The worker's own sweep, from time to time, by the one worker that leads.

use std::time::Duration;

use tokio::time::Instant;

use super::{Past, Settings, Sweep};
use crate::clock::Clock;
use crate::nbi::Nbi;
use crate::telemetry::{Swept, Telemetry};

/// The first sweep comes this long after the worker's start, or after `interval` if that is shorter.
const AT_FIRST: Duration = Duration::from_secs(60);
/// How often it is looked at who leads: what this worker has shown goes soon after another one leads.
const LOOK: Duration = Duration::from_secs(5);
/// A history of millions of events and hundreds of thousands of rules take minutes.
const SWEPT_WITHIN: Duration = Duration::from_secs(6 * 3600);
const TOO_LONG: &str = "it took longer than 6 hours";

/// How the worker sweeps.
#[derive(Debug, Clone)]
pub struct Periodic {
    /// Between two sweeps.
    pub interval: Duration,
    /// Whether orphans are disarmed; what nobody knows never is.
    pub disarm: bool,
    /// How it looks.
    pub settings: Settings,
}

/// Sweeps until it is dropped. `connect` opens the history from its beginning; `leads` says whether this worker is the one that does it: that
/// two believe it for a moment harms nothing, as each looks before it disarms.
pub async fn watch<N: Nbi, P: Past, C: Future<Output = Result<P, String>> + Send>(
    periodic: &Periodic,
    nbi: &N,
    connect: impl Fn() -> C + Send,
    leads: impl Fn() -> bool + Send,
    telemetry: &Telemetry,
    clock: Clock,
) {
    let mut due = Instant::now() + AT_FIRST.min(periodic.interval);
    loop {
        tokio::time::sleep(LOOK.min(periodic.interval)).await;
        if !leads() {
            telemetry.sweeps_elsewhere();
        } else if Instant::now() >= due {
            due = Instant::now() + periodic.interval;
            let swept = tokio::time::timeout(
                SWEPT_WITHIN,
                sweep(periodic, nbi, connect(), telemetry, &clock),
            );
            if let Err(error) = swept.await.unwrap_or_else(|_| Err(TOO_LONG.to_owned())) {
                telemetry.sweep_failed(&error);
            }
        }
    }
}

async fn sweep<N: Nbi, P: Past>(
    periodic: &Periodic,
    nbi: &N,
    connect: impl Future<Output = Result<P, String>>,
    telemetry: &Telemetry,
    clock: &Clock,
) -> Result<(), String> {
    let past = connect.await?;
    let mut sweep = Sweep::new(nbi, past, periodic.settings.clone(), clock.clone());
    let mut report = sweep.look().await.map_err(|error| error.to_string())?;
    let mut outcome = Ok(());
    if periodic.disarm {
        outcome = sweep.disarm(&mut report, false).await;
        for found in &report.found {
            if let Some(done) = &found.done {
                telemetry.orphan_handled(
                    found.rule_id.as_str(),
                    found.cpe_id.as_str(),
                    done.name(),
                    done.why(),
                );
            }
        }
    }
    // Also where the history could be read no more midway: what was disarmed is told.
    telemetry.swept(&Swept {
        orphans: report.left("orphan"),
        unsure: report.left("unsure"),
        disarmed: report.disarmed(),
        is_whole: report.is_whole && outcome.is_ok(),
        notes: &report.notes,
    });
    outcome.map_err(|error| error.to_string())
}
