//! `dead`: what could not be understood or crashed workers, looked at, sent back, removed.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;

use super::columns::Columns;
use super::letter::{as_json, print, row};
use super::output::{self, Format, Status, Usage, plain};
use super::requeue::Requeue;
use crate::app;
use crate::config::Config;
use crate::driver::amqp::{AmqpSettings, DeadLetters, Letter};
use crate::message::{DeadLetter, Named};

/// Looks at dead letters, sends them back or removes them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Dead {
    /// Lists dead letters, the oldest first.
    List(List),
    /// Shows dead letters whole: reason, error, headers, the original body.
    Show(Show),
    /// Sends dead letters back to the workers, and says what became of them.
    Requeue(Requeue),
    /// Removes dead letters for good.
    Drop(Remove),
}

/// Why letters are dead: by us, by the broker, or for a reason that nobody says.
const REASONS: [&str; 7] = [
    DeadLetter::INVALID_REQUEST,
    DeadLetter::MALFORMED_STEP,
    "delivery_limit",
    "rejected",
    "expired",
    "maxlen",
    "unknown",
];

/// Which letters.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Which letters")]
pub(super) struct Filter {
    /// Only with this reason; a worker gives the first two, the broker the others.
    #[arg(long, value_name = "REASON", value_parser = REASONS)]
    reason: Option<String>,
    /// Only those of this job.
    #[arg(long, value_name = "ID")]
    job_id: Option<String>,
    /// Only those for this device.
    #[arg(long, value_name = "ID")]
    cpe_id: Option<String>,
    /// Only those of this campaign.
    #[arg(long, value_name = "ID")]
    campaign_id: Option<String>,
    /// Only those whose error contains this text.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        let fields = [
            &self.reason,
            &self.job_id,
            &self.cpe_id,
            &self.campaign_id,
            &self.error,
        ];
        fields.iter().all(|field| field.is_none())
    }

    fn takes(&self, letter: &Letter, named: &Named) -> bool {
        let equal = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        equal(&self.reason, Some(&letter.reason))
            && equal(&self.job_id, named.job_id.as_deref())
            && equal(&self.cpe_id, named.cpe_id.as_deref())
            && equal(&self.campaign_id, named.campaign_id.as_deref())
            && self.error.as_ref().is_none_or(|text| {
                let error = letter.error.as_deref().unwrap_or_default();
                error.contains(text.as_str())
            })
    }
}

/// Letters by id, by filter, or all.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Choice {
    /// Ids as `dead list` shows them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every letter.
    #[arg(long, conflicts_with = "ids", help_heading = "Which letters")]
    all: bool,
}

impl Choice {
    /// Checked: a command that changes something must be told what.
    pub(super) fn checked(self) -> Result<Self, Usage> {
        if self.ids.is_empty() && self.filter.is_empty() && !self.all {
            return Err(Usage(
                "say which letters: ids from `nbi-upgrade dead list`, a filter such as --reason, or --all"
                    .to_owned(),
            ));
        }
        Ok(self)
    }

    pub(super) fn takes(&self, letter: &Letter, named: &Named) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id)) && self.filter.takes(letter, named)
    }

    /// The ids that were asked for and are not among those found.
    pub(super) fn missing(&self, found: &HashSet<String>) -> Vec<&String> {
        self.ids.iter().filter(|id| !found.contains(*id)).collect()
    }
}

/// Lists.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade dead list
  nbi-upgrade dead list --reason invalid_request --error firmware_url
  nbi-upgrade dead list --output json | jq -r .job_id

Looking takes a letter and gives it back to its old place. A letter that was
looked at a few times is replaced by a copy with the same id, so that the
broker's delivery limit never drops it.")]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Lists at most so many.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// Shows.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade dead show 5b0f8c1d2e
  nbi-upgrade dead show --job-id order-4711
  nbi-upgrade dead show --all --output json > letters.jsonl")]
pub(super) struct Show {
    #[command(flatten)]
    choice: Choice,
}

/// Removes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade dead drop 5b0f8c1d2e --yes
  nbi-upgrade dead drop --reason invalid_request --save dropped.jsonl --yes")]
pub(super) struct Remove {
    #[command(flatten)]
    choice: Choice,
    /// Appends each letter to this file, and removes it only when it is on the disk there.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Does not ask. Needed where nobody can be asked.
    #[arg(long)]
    yes: bool,
}

impl Dead {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        match self {
            Self::List(list) => list.run(&config, format).await,
            Self::Show(show) => show.run(&config, format).await,
            Self::Requeue(requeue) => requeue.run(&config, format).await,
            Self::Drop(drop) => drop.run(&config, format).await,
        }
    }
}

/// Opens the queue of dead letters.
pub(super) async fn open(config: &Config) -> anyhow::Result<DeadLetters> {
    let settings = AmqpSettings {
        urls: config.require_amqp()?,
        ..app::amqp_settings(config)
    };
    DeadLetters::open(settings)
        .await
        .context("failed to look at the dead letters")
}

impl List {
    async fn run(self, config: &Config, format: Format) -> anyhow::Result<Status> {
        let mut dead = open(config).await?;
        let now = Timestamp::now();
        let mut columns = Columns::new(&["ID", "AGE", "REASON", "JOB", "ERROR"]);
        let (mut listed, mut seen) = (0, 0);
        while listed < self.limit
            && let Some(letter) = dead.next().await?
        {
            seen += 1;
            let named = Named::in_body(&letter.body);
            if self.filter.takes(&letter, &named) {
                listed += 1;
                match format {
                    Format::Json => output::line(&as_json(&letter, false).to_string()),
                    Format::Text => columns.push(row(&letter, &named, now)),
                }
            }
            dead.keep(letter);
        }
        let unseen = usize::try_from(dead.waiting())?.saturating_sub(seen);
        dead.close().await?;
        if format == Format::Text {
            if listed > 0 {
                columns.print();
            }
            let more = if unseen > 0 {
                format!("; {unseen} more were not looked at (--limit)")
            } else {
                String::new()
            };
            let what = if self.filter.is_empty() {
                output::count(listed, "dead letter")
            } else {
                format!("{} of {seen} match", output::count(listed, "dead letter"))
            };
            output::note(&format!("{what}{more}"));
        }
        Ok(Status::Done)
    }
}

impl Show {
    async fn run(self, config: &Config, format: Format) -> anyhow::Result<Status> {
        let choice = self.choice.checked()?;
        let mut dead = open(config).await?;
        let mut found = HashSet::new();
        while let Some(letter) = dead.next().await? {
            if choice.takes(&letter, &Named::in_body(&letter.body)) {
                match format {
                    Format::Json => output::line(&as_json(&letter, true).to_string()),
                    Format::Text => {
                        if !found.is_empty() {
                            output::line("");
                        }
                        print(&letter);
                    }
                }
                found.insert(letter.id.clone());
            }
            dead.keep(letter);
        }
        dead.close().await?;
        Ok(found_all(&choice, &found))
    }
}

/// Says what was not found; the status says whether there is anything.
pub(super) fn found_all(choice: &Choice, found: &HashSet<String>) -> Status {
    let missing = choice.missing(found);
    for id in &missing {
        output::note(&format!(
            "no dead letter has the id {}; `nbi-upgrade dead list` shows them",
            plain(id)
        ));
    }
    if found.is_empty() && missing.is_empty() {
        output::note("no dead letter matches");
    }
    if found.is_empty() || !missing.is_empty() {
        Status::Failed
    } else {
        Status::Done
    }
}

impl Remove {
    async fn run(self, config: &Config, format: Format) -> anyhow::Result<Status> {
        let choice = self.choice.clone().checked()?;
        let terminal = console::Term::stderr();
        if !self.yes && !console::user_attended() {
            return Err(Usage(
                "dropped letters are gone for good; say --yes, and --save FILE to keep a copy"
                    .to_owned(),
            )
            .into());
        }
        let mut save = match &self.save {
            None => None,
            Some(path) => Some(
                std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .with_context(|| format!("failed to open {}", path.display()))?,
            ),
        };
        let mut dead = open(config).await?;
        let mut chosen = Vec::new();
        while let Some(letter) = dead.next().await? {
            if choice.takes(&letter, &Named::in_body(&letter.body)) {
                chosen.push(letter);
            } else {
                dead.keep(letter);
            }
        }
        if !self.yes && !chosen.is_empty() {
            let question = format!(
                "drop {} for good? [y/N] ",
                output::count(chosen.len(), "dead letter")
            );
            terminal.write_str(&question)?;
            if !matches!(terminal.read_line()?.trim(), "y" | "Y" | "yes") {
                for letter in chosen {
                    dead.keep(letter);
                }
                dead.close().await?;
                output::note("nothing was dropped");
                return Ok(Status::Failed);
            }
        }
        let mut found = HashSet::new();
        let mut failure = None;
        for letter in chosen {
            if failure.is_some() {
                dead.keep(letter);
                continue;
            }
            if let Err(error) = self.drop_one(&mut dead, &letter, &mut save).await {
                failure = Some(error);
                dead.keep(letter);
                continue;
            }
            match format {
                Format::Json => {
                    output::line(&json!({"id": letter.id, "result": "dropped"}).to_string());
                }
                Format::Text => output::line(&format!("{}  dropped", letter.id)),
            }
            found.insert(letter.id);
        }
        if let Some(failure) = failure {
            // Those that were kept go back in order; the failure is what matters.
            drop(dead.close().await);
            return Err(failure);
        }
        dead.close().await?;
        Ok(found_all(&choice, &found))
    }

    /// Saves the letter where that is wanted, and removes it then.
    async fn drop_one(
        &self,
        dead: &mut DeadLetters,
        letter: &Letter,
        save: &mut Option<File>,
    ) -> anyhow::Result<()> {
        if let (Some(file), Some(path)) = (save, &self.save) {
            let line = format!("{}\n", as_json(letter, true));
            file.write_all(line.as_bytes())
                .and_then(|()| file.sync_data())
                .with_context(|| {
                    let path = path.display();
                    format!(
                        "failed to write {path}; letter {} was not dropped",
                        letter.id
                    )
                })?;
        }
        Ok(dead.remove(letter).await?)
    }
}
