//! `worker`: the service.

use super::output::Status;
use crate::app;
use crate::config::Config;

/// Runs until a signal ends it.
pub(super) async fn run(config: Config) -> anyhow::Result<Status> {
    app::run_worker(config).await?;
    Ok(Status::Done)
}
