//! `run`: carries requests out in this process, without a broker. Events go to standard output, one a line.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::jobs::Source;
use super::output::{self, Format, Status};
use crate::config::Config;
use crate::driver::local::{LocalDriver, Properties};
use crate::telemetry::{REVISION, Telemetry, VERSION};
use crate::worker::Worker;
use crate::{app, clock};

/// Carries requests out here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Jobs live in this process: when it ends, what is unfinished ends with it,
and its rules stay as they are. Run the same file again to go on; give each request
a `requested_at`, so that finished jobs are known as done.")]
pub(super) struct Run {
    #[command(flatten)]
    source: Source,
    /// Jobs that may talk to the NBI at the same time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    concurrency: usize,
}

impl Run {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let codec = app::codec(&config);
        let requests = self.source.read(&codec)?;
        let access = config.require_nbi()?;
        app::init_log(&config)?;
        let telemetry = Arc::new(Telemetry::new(VERSION, REVISION));
        let nbi = Arc::new(app::nbi_client(&config, &access, Arc::clone(&telemetry))?);
        let (driver, mut events) = LocalDriver::new(
            codec.clone(),
            clock::system(),
            Arc::clone(&telemetry),
            self.concurrency,
        );
        let driver = Arc::new(driver);
        for request in &requests {
            driver.submit(request.body.clone(), Properties::default());
        }
        let stop = CancellationToken::new();
        let worker = Worker::new(
            nbi,
            driver,
            codec,
            config.policy(),
            telemetry,
            clock::system(),
        );
        let (stopped, grace) = (stop.clone(), app::grace(&config));
        let working = tokio::spawn(async move { worker.run(stopped, grace).await });
        let signals = tokio::spawn(app::until_signalled(stop.clone())?);

        let mut follow = Follow::beside_events(requests.into_iter().map(|request| request.job_id));
        while !follow.is_done() {
            let event = tokio::select! {
                event = events.recv() => event,
                () = stop.cancelled() => break,
            };
            let Some(event) = event else { break };
            if format == Format::Json || event.kind.is_final() {
                output::line(&String::from_utf8_lossy(&event.body));
            }
            follow.take(&event.body);
        }
        stop.cancel();
        working.await?;
        signals.abort();
        Ok(follow.finish())
    }
}
