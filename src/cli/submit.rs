//! `submit`: publishes requests, each confirmed; with `--wait` follows them to their outcomes.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::blocked::Blocked;
use super::follow::Follow;
use super::jobs::{Request, Source};
use super::output::{self, Format, Status};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::{AmqpSettings, Requester};

/// Publishes under way at a time: below 16 the broker pays double, above 200 nothing is gained.
const WINDOW: usize = 200;

/// Publishes requests.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade submit jobs.jsonl --wait
  nbi-upgrade submit fleet.csv
  nbi-upgrade submit --cpe-id 001122-ABC --firmware-url https://files.example/fw-2.bin --wait

A line of jobs.jsonl:
  {\"job_id\":\"order-4711\",\"cpe_id\":\"001122-ABC\",\"firmware_url\":\"https://files.example/fw-2.bin\",
   \"requested_at\":\"2026-06-01T02:07:15Z\"}   (on one line)

A line may be a campaign:
  {\"campaign_id\":\"spring\",\"devices\":[\"001122-ABC\",…],
   \"firmware_url\":…,\"pace\":{\"starts_per_minute\":60}}   (on one line)
Its jobs are <campaign_id>:<cpe_id>; docs/campaigns.md has the fields.

Keep requested_at when you send a request again: by it a job that is done is
known as done.")]
pub(super) struct Submit {
    #[command(flatten)]
    source: Source,
    /// Waits for the outcomes; the exit status is 1 unless every job completed.
    #[arg(long)]
    wait: bool,
    /// Stops waiting after this long, e.g. 90m; the jobs go on.
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = output::duration)]
    wait_timeout: Option<Duration>,
}

impl Submit {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let requests = self.source.read_with_campaigns(&app::codec(&config))?;
        let urls = config.require_amqp()?;
        let settings = AmqpSettings {
            urls,
            ..app::amqp_settings(&config)
        };
        let mut requester = Requester::connect(settings)
            .await
            .context("failed to reach the broker")?;
        let finals = [
            "upgrade.completed.#",
            "upgrade.failed.#",
            "upgrade.cancelled.#",
            "upgrade.rejected.#",
        ];
        let events = if self.wait {
            Some(
                requester
                    .subscribe(&finals)
                    .await
                    .context("failed to listen to results")?,
            )
        } else {
            None
        };
        Blocked::of(requester.blocked())
            .told_while(publish(&requester, &requests))
            .await?;
        let count = requests.len();
        let status = match events {
            None => {
                match format {
                    Format::Text => output::line(&format!(
                        "{} published and confirmed",
                        output::count(count, "request")
                    )),
                    Format::Json => output::line(&json!({"published": count}).to_string()),
                }
                Status::Done
            }
            Some(mut events) => {
                output::note(&format!(
                    "{} published and confirmed; waiting for outcomes",
                    output::count(count, "request")
                ));
                let mut follow = Follow::new(
                    requests.into_iter().flat_map(|request| request.jobs),
                    format,
                );
                let until = async {
                    while !follow.is_done() {
                        let Some(body) = events.recv().await else {
                            bail!(
                                "the connection to the broker ended; the jobs go on, their outcomes are in the event history"
                            );
                        };
                        follow.take(&body);
                    }
                    Ok(())
                };
                match self.wait_timeout {
                    None => until.await?,
                    Some(limit) => tokio::time::timeout(limit, until).await.unwrap_or(Ok(()))?,
                }
                follow.finish()
            }
        };
        requester.close().await;
        Ok(status)
    }
}

/// Publishes all; the first that is not confirmed ends the command and says how many are safe.
async fn publish(requester: &Requester, requests: &[Request]) -> anyhow::Result<()> {
    let publishes = requests
        .iter()
        .map(|request| requester.publish(&request.job_id, request.body.clone(), None));
    let bar = ProgressBar::new(u64::try_from(requests.len())?);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} published")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut confirmed = 0;
    let mut under_way = stream::iter(publishes).buffered(WINDOW);
    while let Some(published) = under_way.next().await {
        published.with_context(|| {
            format!("{confirmed} of {} requests are with the broker; send all again; those with a `requested_at` are not carried out twice", requests.len())
        })?;
        confirmed += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
