//! `status`: what the history knows of a job or of a campaign.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context as _;
use console::Style;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::columns::{Cell, Columns};
use super::control::{campaign_id, job_id};
use super::output::{self, Format, Status as ExitStatus, Usage, plain};
use super::seen::{Seen, short_time};
use super::watch;
use crate::config::Config;
use crate::driver::amqp::stream::Start;
use crate::job::{CampaignId, JobId};

/// The type of an answer to an order that stands.
const STANDS: &str = "upgrade.control.accepted";

/// Tells of a job or a campaign.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade status order-4711
  nbi-upgrade status --campaign spring
  nbi-upgrade status order-4711 --since 2026-06-01T00:00:00Z --output json

The history reaches back as far as events.retention says; it is read once from
the beginning, or from --since. Exit status: 0 something is known, 1 nothing
is.")]
pub(super) struct Status {
    #[command(flatten)]
    what: What,
    /// Reads the history only from this time on (RFC 3339), which is quicker.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The job.
    #[arg(value_name = "JOB_ID", value_parser = job_id)]
    job_id: Option<JobId>,
    /// A campaign: its jobs in numbers.
    #[arg(long, alias = "campaign-id", value_name = "ID", value_parser = campaign_id)]
    campaign: Option<CampaignId>,
}

/// What the history says.
#[derive(Debug, Default)]
struct History {
    /// Every event of the job or campaign, each once, in order.
    events: Vec<Seen>,
    /// Whether the last order about everything was a pause.
    is_all_paused: bool,
}

impl Status {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<ExitStatus> {
        let start = self.since.map_or(Start::First, Start::Time);
        match (&self.what.job_id, &self.what.campaign) {
            (Some(job_id), _) => {
                let job_id = job_id.as_str();
                let history = read(&config, start, "job_id", job_id).await?;
                Ok(tell_job(job_id, &history, &config, format))
            }
            (None, Some(campaign)) => {
                let campaign = campaign.as_str();
                let history = read(&config, start, "campaign_id", campaign).await?;
                Ok(tell_campaign(campaign, &history.events, format))
            }
            (None, None) => Err(Usage("name a job or a campaign".to_owned()).into()),
        }
    }
}

/// Reads the events whose field has this value, and what was ordered about everything.
async fn read(config: &Config, start: Start, field: &str, value: &str) -> anyhow::Result<History> {
    let mut reader = watch::open(config, start).await?;
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} events read") {
        bar.set_style(style);
    }
    let end = reader
        .end()
        .await
        .context("failed to find the end of the history")?;
    let mut ids = HashSet::new();
    let mut history = History::default();
    while let Some(record) = reader
        .next_before(end)
        .await
        .context("failed to read the history")?
    {
        bar.inc(1);
        // Cheaper than taking every event apart.
        let may_be_an_order = contains(&record.body, STANDS.as_bytes());
        if !may_be_an_order && !contains(&record.body, value.as_bytes()) {
            continue;
        }
        let Some(seen) = Seen::parse(&record.body) else {
            continue;
        };
        if seen.kind() == "control.accepted" && seen.event["data"]["all"] == true {
            history.is_all_paused = seen.text("command") == Some("pause");
        }
        if seen.text(field) == Some(value) && ids.insert(seen.id().to_owned()) {
            history.events.push(seen);
        }
    }
    bar.finish_and_clear();
    reader.close().await;
    Ok(history)
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window == wanted)
}

fn tell_job(job_id: &str, history: &History, config: &Config, format: Format) -> ExitStatus {
    let events = &history.events;
    let last_word = events.iter().find(|seen| seen.is_final());
    let Some(latest) = last_word.or_else(|| events.last()) else {
        if format == Format::Json {
            output::line(&json!({"job_id": job_id, "state": "unknown", "events": []}).to_string());
        }
        output::note(&format!(
            "the history has no event of job {}: it was not submitted, not yet taken by a worker, or is older than \
             events.retention ({}); `nbi-upgrade dead list --job-id {0}` shows whether it died",
            plain(job_id),
            kept_for(config.events.retention)
        ));
        return ExitStatus::Failed;
    };
    let data = &latest.event["data"];
    if format == Format::Json {
        let list: Vec<_> = events
            .iter()
            .map(|seen| json!({"id": seen.id(), "type": seen.event["type"], "time": seen.event["time"]}))
            .collect();
        let state = if last_word.is_some() {
            "over"
        } else {
            "under_way"
        };
        let all = json!({"job_id": job_id, "state": state, "data": data, "events": list});
        output::line(&all.to_string());
        return ExitStatus::Done;
    }
    let word = match last_word {
        Some(seen) => seen.style().apply_to(plain(&seen.word())).to_string(),
        None => Style::new()
            .yellow()
            .apply_to(format!("under way ({})", plain(&latest.word())))
            .to_string(),
    };
    let impact = latest
        .text("impact")
        .map(|impact| format!(", impact {}", plain(impact)));
    field("job", Some(&plain(job_id)));
    field(
        "outcome",
        Some(&format!("{word}{}", impact.unwrap_or_default())),
    );
    for (name, value) in facts(data) {
        if let Some(value) = value {
            field(name, Some(&output::wrapped(&value, INDENT)));
        }
    }
    if last_word.is_none() {
        let deadline = events.iter().rev().find_map(|seen| seen.text("deadline"));
        let deadline = deadline.map(|text| {
            text.parse()
                .map_or_else(|_| plain(text), output::to_the_second)
        });
        field("deadline", deadline.as_deref());
        let paused = "everything is paused; `nbi-upgrade resume --all` ends it";
        field("held", history.is_all_paused.then_some(paused));
    }
    let stages = data["stages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !stages.is_empty() {
        output::line("");
        stage_table(stages).print();
    }
    output::line("");
    let mut columns = Columns::new(&["TIME (UTC)", "EVENT", "ID"]);
    for seen in events {
        columns.push(vec![
            short_time(seen.time()).into(),
            Cell::styled(&seen.word(), seen.style()),
            Cell::styled(seen.id(), Style::new().dim()),
        ]);
    }
    columns.print();
    ExitStatus::Done
}

/// A retention as it is written in the configuration.
fn kept_for(retention: SignedDuration) -> String {
    let hours = retention.as_hours();
    if hours % 24 == 0 && retention == SignedDuration::from_hours(hours) {
        format!("{}d", hours / 24)
    } else {
        format!("{retention:#}")
    }
}

/// Width of a field's name and what is between.
const INDENT: usize = 13;

fn field(name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let name = Style::new().dim().apply_to(format!("{name:<INDENT$}"));
        output::line(&format!("{name}{value}"));
    }
}

fn facts(data: &Value) -> Vec<(&'static str, Option<String>)> {
    let text = |name: &str| data[name].as_str().map(str::to_owned);
    let time = |name: &str| {
        let text = data[name].as_str()?;
        Some(
            text.parse()
                .map_or_else(|_| text.to_owned(), output::to_the_second),
        )
    };
    let rule = &data["rule"];
    let rule = rule["id"]
        .as_str()
        .map(|id| format!("{id}, {}", rule["state"].as_str().unwrap_or("-")));
    let fault = &data["fault"];
    let fault = fault["code"].as_u64().map(|code| {
        let name = fault["name"].as_str().unwrap_or("-");
        let lasts = if fault["transient"] == true {
            "transient"
        } else {
            "permanent"
        };
        format!(
            "{code} {name}, {lasts}: {}",
            fault["message"].as_str().unwrap_or_default()
        )
    });
    let took = data["duration_ms"].as_u64().map(|millis| {
        spoken(SignedDuration::from_millis(
            i64::try_from(millis).unwrap_or(i64::MAX),
        ))
    });
    vec![
        ("message", text("message")),
        ("fault", fault),
        ("device", text("cpe_id")),
        ("campaign", text("campaign_id")),
        ("firmware", text("firmware_url")),
        ("rule", rule),
        ("requested", time("requested_at")),
        ("started", time("started_at")),
        ("finished", time("finished_at")),
        ("took", took),
    ]
}

/// The stages in order; a wait is the time between the end of one and the beginning of the next.
fn stage_table(stages: &[Value]) -> Columns {
    let mut columns = Columns::new(&["STAGE", "TRIES", "WAITED", "TOOK", "OUTCOME", "LAST ERROR"]);
    let mut before: Option<Timestamp> = None;
    for stage in stages {
        let time = |name: &str| -> Option<Timestamp> { stage[name].as_str()?.parse().ok() };
        let text = |name: &str| stage[name].as_str().unwrap_or("-").to_owned();
        let (started, finished) = (time("started_at"), time("finished_at"));
        let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
            from.zip(to).map_or_else(
                || "-".to_owned(),
                |(from, to)| spoken(to.duration_since(from)),
            )
        };
        let outcome = text("outcome");
        let style = match outcome.as_str() {
            "ok" => Style::new().green(),
            "failed" => Style::new().red(),
            _ => Style::new().yellow(),
        };
        columns.push(vec![
            text("stage").into(),
            stage["attempts"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |tries| tries.to_string())
                .into(),
            between(before, started).into(),
            between(started, finished).into(),
            Cell::styled(&outcome, style),
            text("last_error").into(),
        ]);
        before = finished;
    }
    columns
}

/// A duration in its two largest units.
fn spoken(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64().max(0.0)),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

fn tell_campaign(campaign: &str, events: &[Seen], format: Format) -> ExitStatus {
    let mut jobs: HashMap<&str, Option<String>> = HashMap::new();
    let mut own: Option<&Seen> = None;
    for seen in events {
        match seen.text("job_id") {
            None if seen.kind().starts_with("campaign.") => own = Some(seen),
            // An answer to an order, or a request that was rejected.
            None => {}
            Some(job_id) => {
                let word = jobs.entry(job_id).or_default();
                // The first outcome counts.
                if word.is_none() && seen.is_final() {
                    *word = Some(seen.word());
                }
            }
        }
    }
    // Each event of a campaign counts all its devices; those whose turn has not come have no event of their own.
    let not_started = own.and_then(|seen| {
        let counts = &seen.event["data"]["counts"];
        let devices = counts["waiting"].as_u64()? + counts["released"].as_u64()?;
        usize::try_from(devices).ok()?.checked_sub(jobs.len())
    });
    let under_way = jobs.values().filter(|word| word.is_none()).count();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for word in jobs.values().flatten() {
        *outcomes.entry(word).or_default() += 1;
    }
    let times = || events.iter().filter_map(Seen::time);
    let (first, latest) = (times().min(), times().max());
    if format == Format::Json {
        let counts: Map<_, _> = outcomes
            .iter()
            .map(|(word, count)| ((*word).to_owned(), json!(count)))
            .collect();
        let all = json!({"campaign_id": campaign, "jobs": jobs.len(), "under_way": under_way, "not_started": not_started, "outcomes": counts,
            "first_event_at": first, "last_event_at": latest, "campaign": own.map(|seen| &seen.event)});
        output::line(&all.to_string());
    } else if !events.is_empty() {
        field("campaign", Some(&plain(campaign)));
        for name in ["state", "message"] {
            let text = own.and_then(|seen| seen.text(name));
            field(name, text.map(plain).as_deref());
        }
        field("jobs", Some(&jobs.len().to_string()));
        field("first event", first.map(output::to_the_second).as_deref());
        field("last event", latest.map(output::to_the_second).as_deref());
        output::line("");
        let mut columns = Columns::new(&["OUTCOME", "JOBS"]);
        for (word, count) in &outcomes {
            let style = if word.starts_with("completed") {
                Style::new().green()
            } else {
                Style::new().red()
            };
            columns.push(vec![Cell::styled(word, style), count.to_string().into()]);
        }
        columns.push(vec!["under way".into(), under_way.to_string().into()]);
        if let Some(count) = not_started.filter(|count| *count > 0) {
            columns.push(vec!["not started".into(), count.to_string().into()]);
        }
        columns.print();
    }
    if events.is_empty() {
        output::note(&format!(
            "the history has no event of campaign {}",
            plain(campaign)
        ));
        return ExitStatus::Failed;
    }
    ExitStatus::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken_in_two_units() {
        for (millis, text) in [
            (-5, "0.0 s"),
            (1_240, "1.2 s"),
            (38_900, "38 s"),
            (83_000, "1 min 23 s"),
            (7_260_000, "2 h 1 min"),
        ] {
            assert_eq!(spoken(SignedDuration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_retention_is_told_as_it_is_written() {
        for (hours, text) in [(168, "7d"), (720, "30d"), (36, "36h")] {
            assert_eq!(kept_for(SignedDuration::from_hours(hours)), text);
        }
    }

    #[test]
    fn waits_are_the_time_between_stages() {
        let stages = json!([
            {"stage": "preflight", "attempts": 1, "started_at": "2026-06-01T12:00:00Z", "finished_at": "2026-06-01T12:00:01Z", "outcome": "ok"},
            {"stage": "create_rule", "attempts": 3, "started_at": "2026-06-01T12:01:01Z", "outcome": "unfinished", "last_error": "HTTP 503"},
        ]);
        let lines = stage_table(stages.as_array().unwrap()).render(None);
        assert!(lines[1].contains("1.0 s"), "{lines:#?}");
        assert!(
            lines[2].contains("1 min 0 s") && lines[2].contains("HTTP 503"),
            "{lines:#?}"
        );
    }
}
