//! `cancel`, `pause`, `resume`: an operator's command, confirmed by the broker and answered by a worker.

use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::blocked::Blocked;
use super::output::{self, Format, Status, Usage};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::{AmqpSettings, Requester};
use crate::job::{ArmAgain, CampaignId, JobId};
use crate::message::{Command, Scope, Verb, control};

/// Ends a job, or all jobs of a campaign.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade cancel order-4711                      this job
  nbi-upgrade cancel --campaign spring-2026          all jobs of a campaign

A job that has not armed its rule ends at once. Another one is disarmed at its
next look at the NBI (await_result.max, 5 minutes by default, at the latest);
its event says in `impact` whether the device may have begun. The order also
holds for jobs that come later: names of campaigns are not checked, look with
`status --campaign`.

Exit status: 0 the order stands, 1 refused (the job is over) or not answered
in time.")]
pub(super) struct Cancel {
    #[command(flatten)]
    what: JobOrCampaign,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct JobOrCampaign {
    /// The job.
    #[arg(value_name = "JOB_ID", value_parser = job_id)]
    job: Option<JobId>,
    /// All jobs of this campaign.
    #[arg(long, value_name = "ID", value_parser = campaign_id)]
    campaign: Option<CampaignId>,
}

/// Pauses a campaign, or everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade pause --campaign spring-2026           this campaign
  nbi-upgrade pause --all                            the emergency stop

A pause arms no rule, and disarms those of devices that have not begun, at the
next look of each job. What a device has begun goes on.
Names of campaigns are not checked: look with `status --campaign`.

Exit status: 0 the order stands, 1 not answered in time.")]
pub(super) struct Pause {
    #[command(flatten)]
    what: CampaignOrAll,
    #[command(flatten)]
    wait: Wait,
}

/// Resumes a campaign, or everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade resume --campaign spring-2026          this campaign; what the pause disarmed stays so
  nbi-upgrade resume --campaign spring-2026 --arm-again-after 30m
  nbi-upgrade resume --campaign spring-2026 --arm-again-after 30m --arm-again-over 2h
  nbi-upgrade resume --all                           the end of the emergency stop

After a resume a disarmed rule stays so, as its device may have begun unseen,
and some never report. With --arm-again-after you say that a device without a
result by then has not begun: take more than the slowest needs.
job.flash_time_max says the same of every pause. They are armed again all at
once, past pace and window, unless --arm-again-over spreads them. `resume
--all` ends the emergency stop of `pause --all`; campaigns that are paused by
themselves stay so. Names of campaigns are not checked: look with
`status --campaign`.

Exit status: 0 the order stands, 1 not answered in time.")]
pub(super) struct Resume {
    #[command(flatten)]
    what: CampaignOrAll,
    /// Arms rules that the pause disarmed again, so long after the resume, where there is no result by then; 1s to 1d.
    #[arg(long, value_name = "DURATION", value_parser = arm_again_time)]
    arm_again_after: Option<SignedDuration>,
    /// Spreads that evenly over so long, so that not all devices come at once; 1s to 1d.
    #[arg(long, value_name = "DURATION", value_parser = arm_again_time, requires = "arm_again_after")]
    arm_again_over: Option<SignedDuration>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct CampaignOrAll {
    /// This campaign.
    #[arg(long, value_name = "ID", value_parser = campaign_id)]
    campaign: Option<CampaignId>,
    /// Everything: the emergency stop.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Wait {
    /// Waits so long for the order to be taken and answered; once the broker has it, it holds without an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = output::duration)]
    timeout: Duration,
}

impl Cancel {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let scope = match (self.what.job, self.what.campaign) {
            (Some(job), None) => Scope::Job(job),
            (None, Some(campaign)) => Scope::Campaign(campaign),
            _ => return Err(Usage("give a job or --campaign".to_owned()).into()),
        };
        let verb = Verb::Cancel;
        let command = Command {
            verb,
            scope,
            arm_again: None,
        };
        order(&command, self.wait.timeout, config, format).await
    }
}

impl Pause {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let command = Command {
            verb: Verb::Pause,
            scope: self.what.scope()?,
            arm_again: None,
        };
        order(&command, self.wait.timeout, config, format).await
    }
}

impl Resume {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let command = Command {
            verb: Verb::Resume,
            scope: self.what.scope()?,
            arm_again: self.arm_again_after.map(|after| ArmAgain {
                after,
                over: self.arm_again_over.unwrap_or_default(),
            }),
        };
        order(&command, self.wait.timeout, config, format).await
    }
}

impl CampaignOrAll {
    fn scope(self) -> anyhow::Result<Scope> {
        match (self.campaign, self.all) {
            (Some(campaign), false) => Ok(Scope::Campaign(campaign)),
            (None, true) => Ok(Scope::All),
            _ => Err(Usage("give --campaign or --all".to_owned()).into()),
        }
    }
}

async fn order(
    command: &Command,
    timeout: Duration,
    config: Config,
    format: Format,
) -> anyhow::Result<Status> {
    let urls = config.require_amqp()?;
    let settings = AmqpSettings {
        urls,
        ..app::amqp_settings(&config)
    };
    let mut requester = Requester::connect(settings)
        .await
        .context("failed to reach the broker")?;
    let mut answers = requester
        .subscribe(&["upgrade.control.#"])
        .await
        .context("failed to listen to answers")?;
    let id = Uuid::new_v4().to_string();
    let until = Instant::now() + timeout;
    let mut blocked = Blocked::of(requester.blocked());
    let given = blocked.told_while(requester.command(&id, command));
    match tokio::time::timeout_at(until, given).await {
        Ok(given) => given.context("the order is not safely with the broker; give it again")?,
        Err(_) => {
            requester.close().await;
            anyhow::bail!(
                "it is not known whether the order was given: the broker has not confirmed it within {} s; give it again, which does no harm",
                timeout.as_secs_f32()
            );
        }
    }
    let answer = tokio::time::timeout_at(until, async {
        loop {
            let body = answers.recv().await?;
            let event: Value = serde_json::from_slice(&body).unwrap_or_default();
            if event["data"]["correlation_id"] == id.as_str() {
                return Some(event);
            }
        }
    });
    let answer = answer.await.ok().flatten();
    requester.close().await;
    let Some(event) = answer else {
        anyhow::bail!(
            "no worker has answered yet; the order is with the broker and holds for every worker, also one that starts later"
        );
    };
    let is_accepted = event["type"] == "upgrade.control.accepted";
    match format {
        Format::Json => output::line(&event.to_string()),
        Format::Text => {
            let text = |name: &str| {
                event["data"][name]
                    .as_str()
                    .unwrap_or("-")
                    .replace(char::is_control, " ")
            };
            let word = if is_accepted { "accepted" } else { "refused" };
            output::line(&format!("{word} ({}): {}", text("reason"), text("message")));
        }
    }
    Ok(if is_accepted {
        Status::Done
    } else {
        Status::Failed
    })
}

fn arm_again_time(text: &str) -> Result<SignedDuration, String> {
    control::arm_again_time(text)
}

pub(super) fn job_id(text: &str) -> Result<JobId, String> {
    JobId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn campaign_id(text: &str) -> Result<CampaignId, String> {
    CampaignId::parse(text).map_err(|error| error.to_string())
}
