//! `watch`: follows the events as they come, or through the history.
//!
//! Reading takes nothing away from anybody. A lost connection is made again, and nothing is missed in between.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use console::{pad_str, truncate_str};
use lru::LruCache;

use super::output::{self, Format, Status, plain};
use super::seen::{Seen, short_time};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::AmqpSettings;
use crate::driver::amqp::stream::{Start, Stream, StreamReader};
use crate::message::EventKind;

/// Repeats come soon after the first.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

const NO_END: &str = "failed to find the end of the history";

/// As wide as `progress connection_request`; what is wider is rare.
const WORD_WIDTH: usize = 27;

/// Between two tries to connect again.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows the events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade watch
  nbi-upgrade watch --campaign spring --outcome failed
  nbi-upgrade watch --from 2026-06-01T02:00:00Z --no-follow --output json | jq -r .subject

An event that was published twice is shown once. Times are in UTC. The history
reaches back as far as events.retention says. Ctrl-C ends it.")]
pub(super) struct Watch {
    /// Where to begin: first (the oldest that is kept), last (a little before the end), next, or a time (RFC 3339).
    #[arg(long, value_name = "WHERE", default_value = "next", value_parser = str::parse::<Start>)]
    from: Start,
    /// Only events of this campaign.
    #[arg(long, alias = "campaign-id", value_name = "ID")]
    campaign: Option<String>,
    /// Only events with this outcome, or of this kind; `control` and `campaign` are all of theirs.
    #[arg(long, value_name = "OUTCOME", value_parser = outcomes())]
    outcome: Option<String>,
    /// Only events of this device.
    #[arg(long, alias = "cpe-id", value_name = "ID")]
    device: Option<String>,
    /// Only events of this job.
    #[arg(long, alias = "job-id", value_name = "ID")]
    job: Option<String>,
    /// Ends at what is the end now, instead of waiting for more.
    #[arg(long)]
    no_follow: bool,
}

impl Watch {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let mut reader = open(&config, self.from).await?;
        if self.from == Start::Next && !self.no_follow {
            // From a place in the stream, so that a connection lost before the first event loses none either.
            let end = reader.end().await.context(NO_END)?;
            reader.close().await;
            reader = open(&config, Start::Offset(end)).await?;
        }
        let end = if self.no_follow {
            Some(reader.end().await.context(NO_END)?)
        } else {
            output::note("waiting for events; Ctrl-C ends");
            None
        };
        let mut ids = LruCache::new(REMEMBERED);
        loop {
            let next = match end {
                Some(end) => reader.next_before(end).await,
                None => reader.next().await.map(Some),
            };
            match next {
                Ok(None) => break,
                Ok(Some(record)) => {
                    if let Some(seen) = Seen::parse(&record.body)
                        && self.takes(&seen)
                        && ids.put(seen.id().to_owned(), ()).is_none()
                    {
                        print(&seen, format);
                    }
                }
                Err(error) if end.is_some() => {
                    return Err(error).context("failed to read the history");
                }
                Err(error) => come_back(&mut reader, &error.to_string()).await,
            }
        }
        reader.close().await;
        Ok(Status::Done)
    }

    fn takes(&self, seen: &Seen) -> bool {
        let equal = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        let is_outcome = self.outcome.as_deref().is_none_or(|wanted| {
            seen.text("outcome") == Some(wanted) || is_of(seen.kind(), wanted)
        });
        is_outcome
            && equal(&self.campaign, seen.text("campaign_id"))
            && equal(&self.device, seen.text("cpe_id"))
            && equal(&self.job, seen.text("job_id"))
    }
}

/// Every kind of event, and the two that are families.
fn outcomes() -> PossibleValuesParser {
    let kinds = EventKind::ALL.map(|kind| {
        let kind = kind.event_type();
        kind.strip_prefix("upgrade.").unwrap_or(kind)
    });
    PossibleValuesParser::new(kinds.into_iter().chain(["control", "campaign"]))
}

/// `campaign.paused` is of the kind `campaign.paused`, and of `campaign`.
fn is_of(kind: &str, wanted: &str) -> bool {
    let rest = kind.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Opens the history.
pub(super) async fn open(config: &Config, from: Start) -> anyhow::Result<StreamReader> {
    let settings = AmqpSettings {
        urls: config.require_amqp()?,
        ..app::amqp_settings(config)
    };
    StreamReader::connect(settings, Stream::Events, from)
        .await
        .context("failed to read the history")
}

/// Connects again, however long that takes.
async fn come_back(reader: &mut StreamReader, why: &str) {
    output::note(&plain(&format!("{why}; connecting again")));
    loop {
        tokio::time::sleep(PAUSE).await;
        if reader.resume().await.is_ok() {
            output::note("connected again");
            return;
        }
    }
}

fn print(seen: &Seen, format: Format) {
    if format == Format::Json {
        return output::line(&seen.event.to_string());
    }
    let about = seen.text("job_id").or_else(|| seen.text("campaign_id"));
    let word = pad_str(
        &plain(&seen.word()),
        WORD_WIDTH,
        console::Alignment::Left,
        None,
    )
    .into_owned();
    let rest = plain(&format!(
        "{}  {}  {}",
        about.unwrap_or("-"),
        seen.text("cpe_id").unwrap_or("-"),
        seen.told()
    ));
    let time = short_time(seen.time());
    let room = output::width().map(|width| width.saturating_sub(time.len() + 2 + word.len() + 2));
    let rest = match room {
        Some(room) => truncate_str(&rest, room, "…").into_owned(),
        None => rest,
    };
    output::line(format!("{time}  {}  {rest}", seen.style().apply_to(word)).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_takes_its_own_and_no_other() {
        assert!(
            is_of("campaign.paused", "campaign") && is_of("campaign.paused", "campaign.paused")
        );
        assert!(!is_of("campaign.paused", "control") && !is_of("campaigns", "campaign"));
        assert!(!is_of("failed", "fail"));
    }
}
