//! `sweep`: rules that are armed and that no job owns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use console::Style;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::columns::{Cell, Columns};
use super::output::{self, Format, Status, Usage, plain};
use super::seen::short_time;
use crate::config::Config;
use crate::driver::amqp::AmqpSettings;
use crate::orphan::{Done, EventHistory, Found, Report, Settings, Sweep as Sweeper, Verdict};
use crate::telemetry::Telemetry;
use crate::{app, clock};

/// Looks for orphans.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade sweep                                  what is armed, and whose it is; changes nothing
  nbi-upgrade sweep --disarm                         disarms the orphans
  nbi-upgrade sweep --disarm --unsure                also what the history does not know
  nbi-upgrade sweep --output json | jq 'select(.verdict == \"orphan\")'

A rule counts if nbi.rule_id names it so. It is
  live      a job of its device is under way
  young     the last event about its device is younger than --older-than, or
            a job that may have left it armed has time left, and an hour more.
            It may flash its device meanwhile: if that must not be, disarm it
            in the NBI. `not before` says when it can be an orphan
  kept      its job was told to leave it armed
  orphan    a job with its file ended without having disarmed it, and no other
            is under way
  unsure    the history does not say: no job of it, or one that put it away,
            or without an outcome; or trimmed
The history is that of this broker and prefix. Rules of `nbi-upgrade run` and
of other installations at the same NBI are not in it: they are unsure.

Exit status: 0 nothing is left armed that should not be, 1 an orphan is, or a
young rule that its job left armed, or not all could be seen, 2 wrong usage or
configuration.")]
pub(super) struct Sweep {
    /// Disarms the orphans, each after another look.
    #[arg(long)]
    disarm: bool,
    /// Disarms also rules whose owner the history does not know.
    #[arg(long, requires = "disarm")]
    unsure: bool,
    /// How old the last event about a device must be; else `sweep.older_than`.
    #[arg(long, value_name = "DURATION", value_parser = output::duration)]
    older_than: Option<Duration>,
    /// Asks for the rules that the history names, one by one, instead of for a list of all.
    #[arg(long)]
    one_by_one: bool,
}

impl Sweep {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let (urls, access) = config.require_both()?;
        let broker = AmqpSettings {
            urls,
            ..app::amqp_settings(&config)
        };
        let nbi = app::nbi_client(&config, &access, Arc::new(Telemetry::default()))?;
        let mut settings = Settings {
            is_one_by_one: self.one_by_one,
            ..app::sweep_settings(&config)
        };
        if let Some(older_than) = self.older_than {
            settings.older_than = SignedDuration::try_from(older_than)
                .map_err(|_| Usage("--older-than is longer than any time".to_owned()))?;
        }
        let history = EventHistory::connect(broker).await;
        let history = history.context("failed to read the history")?;
        let mut sweeper = Sweeper::new(&nbi, history, settings, clock::system());
        let mut report = sweeper.look().await?;
        let disarmed = if self.disarm {
            sweeper.disarm(&mut report, self.unsure).await
        } else {
            Ok(())
        };
        // What was done is told whatever came between.
        print(&report, format);
        disarmed.context("not every orphan was looked at")?;
        let all_is_well = report.is_whole
            && report.left("orphan") == 0
            && left_by_jobs(&report) == 0
            && !report.found.iter().any(|found| {
                matches!(
                    found.done,
                    Some(Done::DisarmedUnder { .. } | Done::Failed(_))
                )
            });
        Ok(if all_is_well {
            Status::Done
        } else {
            Status::Failed
        })
    }
}

fn print(report: &Report, format: Format) {
    match format {
        Format::Json => print_json(report),
        Format::Text => print_text(report),
    }
    for note in &report.notes {
        output::note(&plain(note));
    }
}

fn print_text(report: &Report) {
    if !report.found.is_empty() {
        let mut columns = Columns::new(&["RULE", "DEVICE", "VERDICT", "LAST (UTC)", "WHY"]);
        for found in &report.found {
            let (word, style) = word(found);
            columns.push(vec![
                found.rule_id.as_str().into(),
                found.cpe_id.as_str().into(),
                Cell::styled(word, style),
                short_time(since(found)).into(),
                why(found).into(),
            ]);
        }
        columns.print();
    }
    let left = report.left("orphan");
    let ours = output::count(report.found.len(), "rule");
    output::note(&format!(
        "{} of {} seen armed under a name of ours: {left} without an owner, {} unsure, {} disarmed; {} more armed, not of ours",
        ours,
        report.seen,
        report.left("unsure"),
        report.disarmed(),
        report.others,
    ));
    if left > 0 {
        output::note("`nbi-upgrade sweep --disarm` disarms what has no owner");
    }
    if left_by_jobs(report) > 0 {
        let young = output::count(left_by_jobs(report), "young rule");
        output::note(&format!(
            "{young} left armed by a job: the device may flash meanwhile; if that must not be, disarm it in the NBI (`enabled` and \
             `automatic` false), else sweep again after the time named"
        ));
    }
}

/// Young rules that a job says to have left armed.
fn left_by_jobs(report: &Report) -> usize {
    let is_it = |found: &&Found| matches!(found.verdict, Verdict::Young { left: Some(_), .. });
    report.found.iter().filter(is_it).count()
}

/// When the last was told of its device, where that matters.
fn since(found: &Found) -> Option<Timestamp> {
    match &found.verdict {
        Verdict::Orphan { since, .. } | Verdict::Young { since, .. } => Some(*since),
        Verdict::Live { .. } | Verdict::Kept { .. } | Verdict::Unsure { .. } => None,
    }
}

fn word(found: &Found) -> (&'static str, Style) {
    match (&found.done, &found.verdict) {
        (Some(Done::Disarmed), _) => ("disarmed", Style::new().green()),
        (Some(Done::DisarmedUnder { .. }), _) => ("disarmed", Style::new().red().bold()),
        (Some(Done::Failed(_)), _) => ("failed", Style::new().red().bold()),
        (_, verdict @ Verdict::Orphan { .. }) => (verdict.name(), Style::new().red()),
        (_, verdict @ Verdict::Unsure { .. }) => (verdict.name(), Style::new().yellow()),
        (_, verdict) => (verdict.name(), Style::new().dim()),
    }
}

fn why(found: &Found) -> String {
    match (&found.done, &found.verdict) {
        (Some(Done::LeftAlone(why) | Done::Failed(why)), _) => why.clone(),
        (Some(Done::DisarmedUnder { owner }), _) => format!(
            "{owner} took the device up in the same moment and may find the rule disarmed: look at it"
        ),
        (_, Verdict::Live { owner }) => owner.clone(),
        (
            _,
            Verdict::Young {
                job_id,
                left: Some(left),
                until,
                ..
            },
        ) => format!(
            "job {job_id} left it armed ({left}); not before {}",
            output::to_the_second(*until)
        ),
        (_, Verdict::Young { job_id, until, .. }) => {
            format!("{job_id}; not before {}", output::to_the_second(*until))
        }
        (_, Verdict::Kept { job_id } | Verdict::Orphan { job_id, .. }) => job_id.clone(),
        (_, Verdict::Unsure { why }) => why.clone(),
    }
}

fn print_json(report: &Report) {
    for found in &report.found {
        let files: Vec<_> = found.armed.iter().map(|row| row.file.as_deref()).collect();
        let done = found.done.as_ref().map(Done::name);
        let since = since(found).map(|since| since.to_string());
        let not_before = match &found.verdict {
            Verdict::Young { until, .. } => Some(until.to_string()),
            Verdict::Live { .. }
            | Verdict::Kept { .. }
            | Verdict::Orphan { .. }
            | Verdict::Unsure { .. } => None,
        };
        let line = json!({
            "rule_id": found.rule_id.as_str(), "cpe_id": found.cpe_id.as_str(), "files": files, "verdict": found.verdict.name(),
            "why": why(found), "since": since, "not_before": not_before, "done": done,
        });
        output::line(&line.to_string());
    }
    let line = json!({"summary": {
        "rules_seen": report.seen, "armed": report.found.len(), "armed_of_others": report.others, "orphans": report.left("orphan"),
        "left_by_jobs": left_by_jobs(report), "unsure": report.left("unsure"), "disarmed": report.disarmed(), "is_whole": report.is_whole, "events": report.events,
        "history_from": report.reach.from.map(|from| from.to_string()), "history_is_trimmed": report.reach.is_trimmed,
        "notes": report.notes,
    }});
    output::line(&line.to_string());
}
