//! The worker's own sweep, from time to time, by the one worker that leads.

use std::time::Duration;

use super::{Past, Report, Settings, Sweep};
use crate::clock::Clock;
use crate::nbi::Nbi;
use crate::telemetry::{Swept, Telemetry};

/// The first sweep comes this long after the worker's start, or after `interval` if that is shorter.
const AT_FIRST: Duration = Duration::from_secs(60);

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
    tokio::time::sleep(AT_FIRST.min(periodic.interval)).await;
    loop {
        if leads() {
            match sweep(periodic, nbi, connect(), &clock).await {
                Ok(report) => telemetry.swept(&Swept {
                    orphans: report.left("orphan"),
                    unsure: report.left("unsure"),
                    disarmed: report.disarmed(),
                    is_whole: report.is_whole,
                    notes: &report.notes,
                }),
                Err(error) => telemetry.sweep_failed(&error),
            }
        } else {
            telemetry.sweeps_elsewhere();
        }
        tokio::time::sleep(periodic.interval).await;
    }
}

async fn sweep<N: Nbi, P: Past>(
    periodic: &Periodic,
    nbi: &N,
    connect: impl Future<Output = Result<P, String>>,
    clock: &Clock,
) -> Result<Report, String> {
    let past = connect.await?;
    let mut sweep = Sweep::new(nbi, past, periodic.settings.clone(), clock.clone());
    let mut report = sweep.look().await.map_err(|error| error.to_string())?;
    if periodic.disarm {
        let disarmed = sweep.disarm(&mut report, false).await;
        disarmed.map_err(|error| error.to_string())?;
    }
    Ok(report)
}
