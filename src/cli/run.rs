//! `run`: carries requests out in this process, without a broker. Events go to standard output, one a line; a journal keeps every job.
//!
//! The journal is what a broker would be: a job that was handed over is on the disk before anything follows from it. So the process may
//! be killed at any moment and started again. Events of earlier runs are printed again, with the same ids: the last run's output is whole.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use console::Term;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::follow::Follow;
use super::jobs::{Request, Source, refuse};
use super::output::{self, Format, Status, Usage, plain};
use crate::config::Config;
use crate::driver::journal::Journal;
use crate::driver::local::{LocalDriver, Properties};
use crate::message::journal::{Jobs, of_request};
use crate::message::{EventMessage, Named};
use crate::telemetry::{REVISION, Telemetry, VERSION, log};
use crate::worker::Worker;
use crate::{app, clock};

/// How often it is looked whether a job was given up for good.
const LOOK: Duration = Duration::from_secs(1);

/// Carries requests out here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade run fleet.csv --concurrency 20
  nbi-upgrade run jobs.jsonl --output json > events.jsonl
  nbi-upgrade run --journal jobs.jsonl.journal            goes on with what is in the journal
  nbi-upgrade run --cpe-id 001122-ABC --firmware-url https://files.example/fw-2.bin

Events go to standard output, one JSON document a line; on a terminal only
what did not complete is shown. Ctrl-C finishes what is in hand and says how
to go on. Run the same file again to go on, also after a crash: no job is lost
and none is carried out twice. A file whose jobs are all done prints their
outcomes again; delete the journal, or use new job ids, to begin anew. A
deadline counts from a request's requested_at: for a file that takes long,
give a larger job.timeout.")]
pub(super) struct Run {
    #[command(flatten)]
    source: Source,
    /// Devices under way at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    concurrency: u16,
    /// The file that keeps every job, so that a run can be taken up again. Default: JOBS.journal beside JOBS.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// What is to be done, and what is known already.
struct Plan {
    kept: Jobs,
    waiting: VecDeque<Vec<u8>>,
    job_ids: Vec<String>,
}

impl Run {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        let codec = app::codec(&config);
        let requests = if self.source.is_given() || self.journal.is_none() {
            self.source.read(&codec)?
        } else {
            self.refuse_no_journal()?;
            Vec::new()
        };
        refuse_repeats(&requests)?;
        let access = config.require_nbi()?;
        init_log(&config)?;
        let telemetry = Arc::new(Telemetry::new(VERSION, REVISION));
        let nbi = Arc::new(app::nbi_client(&config, &access, Arc::clone(&telemetry))?);

        let (journal, kept) = match self.journal_path() {
            Some(path) => {
                let (journal, kept) = Journal::open(&path)?;
                (Some(journal), kept)
            }
            None => (None, Jobs::default()),
        };
        let plan = plan(requests, kept, journal.as_ref()).await?;
        if plan.job_ids.is_empty() {
            let path = self.journal_path().unwrap_or_default();
            return Err(Usage(format!(
                "there are no jobs in the journal {}; name the file of requests with it: nbi-upgrade run JOBS --journal {0}",
                path.display()
            ))
            .into());
        }
        let broken = journal.as_ref().map(Journal::broken).unwrap_or_default();
        let concurrency = usize::from(self.concurrency);
        let (driver, events) = LocalDriver::new(
            codec.clone(),
            clock::system(),
            Arc::clone(&telemetry),
            concurrency,
        );
        let driver = Arc::new(driver.with_journal(journal));
        let stop = CancellationToken::new();
        let worker = Worker::new(
            nbi,
            Arc::clone(&driver),
            codec,
            config.policy(),
            telemetry,
            clock::system(),
        );
        let (stopped, grace) = (stop.clone(), app::grace(&config));
        let signals = tokio::spawn(app::until_signalled(stop.clone())?);
        let mut course = Course::begin(plan, Arc::clone(&driver), concurrency, format)?;
        let working = tokio::spawn(async move { worker.run(stopped, grace).await });
        let mut events = events;
        let mut look = tokio::time::interval(LOOK);
        while !course.follow.is_done() {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => course.take(&event),
                    None => break,
                },
                _ = look.tick() => course.look_for_dead(),
                () = broken.cancelled() => break,
                () = stop.cancelled() => {
                    output::note("stopping: what is in hand is finished; a second Ctrl-C ends at once");
                    break;
                }
            }
        }
        stop.cancel();
        working.await?;
        signals.abort();
        while let Ok(event) = events.try_recv() {
            course.take(&event);
        }
        let unfinished = course.follow.unfinished();
        let status = course.follow.finish();
        if broken.is_cancelled() {
            return Err(anyhow!(
                "free space or repair the disk, then {}",
                self.how_to_go_on()
            )
            .context("the journal could not be written, so that nothing could go on"));
        }
        if unfinished > 0 {
            output::note(&self.parting(unfinished));
        }
        Ok(status)
    }

    /// A journal that is to be taken up must be there; a slip of the keyboard must not make one.
    fn refuse_no_journal(&self) -> Result<(), Usage> {
        match &self.journal {
            Some(path) if !path.exists() => Err(Usage(format!(
                "the journal {} does not exist; name one that a run has made, or a file of requests: nbi-upgrade run JOBS",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    fn journal_path(&self) -> Option<PathBuf> {
        self.journal.clone().or_else(|| {
            let mut name = self.source.path()?.as_os_str().to_owned();
            name.push(".journal");
            Some(name.into())
        })
    }

    fn how_to_go_on(&self) -> String {
        match (self.source.path(), self.journal_path()) {
            (Some(file), _) if self.journal.is_none() => {
                format!("run the same again: nbi-upgrade run {}", file.display())
            }
            (_, Some(journal)) => format!(
                "run the journal: nbi-upgrade run --journal {}",
                journal.display()
            ),
            (_, None) => "run it again".to_owned(),
        }
    }

    fn parting(&self, unfinished: usize) -> String {
        let jobs = output::count(unfinished, "job");
        if self.journal_path().is_none() {
            return format!(
                "{jobs} ended without an outcome, as there is no journal: their rules may still be armed. \
                 Run the requests again with the same job_id and requested_at, and with --journal FILE"
            );
        }
        format!(
            "{jobs} not finished, and not lost. Devices whose rule is armed may upgrade meanwhile. To go on, {}",
            self.how_to_go_on()
        )
    }
}

/// The log is for what goes wrong here; whoever wants more asks for it.
fn init_log(config: &Config) -> anyhow::Result<()> {
    if config.log.level == "info" {
        log::init_text("warn").context("failed to start the log")
    } else {
        app::init_log(config)
    }
}

/// A job twice in one file is a slip; which of the two is meant?
fn refuse_repeats(requests: &[Request]) -> anyhow::Result<()> {
    let mut lines = HashMap::new();
    let mut faults = Vec::new();
    for request in requests {
        if let Some(first) = lines.insert(&request.job_id, request.line) {
            faults.push(format!(
                "line {}: job_id: {:?} stands on line {first} too; a job is carried out once",
                request.line, request.job_id
            ));
        }
    }
    refuse("nothing was sent, as jobs are there twice", &faults)?;
    Ok(())
}

/// Brings requests and journal together; what is new is in the journal afterwards.
async fn plan(
    requests: Vec<Request>,
    kept: Jobs,
    journal: Option<&Journal>,
) -> anyhow::Result<Plan> {
    let mut faults = Vec::new();
    let mut fresh = Vec::new();
    for request in requests {
        match kept.get(&request.job_id) {
            Some(known) if is_same(&known.request, &request.body) => {}
            Some(_) => faults.push(format!(
                "line {}: job_id: {:?} was begun with another request; give this one another job_id, or another --journal",
                request.line, request.job_id
            )),
            None => fresh.push(request),
        }
    }
    refuse(
        "nothing was sent, as the journal knows jobs of these ids otherwise",
        &faults,
    )?;
    if let Some(journal) = journal
        && !fresh.is_empty()
    {
        let records = fresh
            .iter()
            .flat_map(|request| of_request(&request.job_id, &request.body));
        journal
            .write(records.collect())
            .await
            .map_err(|error| anyhow!(error).context("nothing was sent"))?;
    }
    let known = kept.list().iter().map(|job| job.job_id.clone());
    let job_ids = known
        .chain(fresh.iter().map(|request| request.job_id.clone()))
        .collect();
    let not_begun = kept
        .list()
        .iter()
        .filter(|job| !job.is_over && job.step.is_none())
        .map(|job| job.request.clone());
    let waiting = not_begun
        .chain(fresh.into_iter().map(|request| request.body))
        .collect();
    Ok(Plan {
        kept,
        waiting,
        job_ids,
    })
}

/// Whether two requests say the same, however they are written.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let parsed = |body| serde_json::from_slice::<Value>(body).ok();
    one == other || (parsed(one).is_some() && parsed(one) == parsed(other))
}

/// The run as it goes: so many devices under way, the others in line.
struct Course {
    driver: Arc<LocalDriver>,
    follow: Follow,
    format: Format,
    /// Whether standard output is for people, who want no JSON.
    is_for_people: bool,
    waiting: VecDeque<Vec<u8>>,
    under_way: usize,
    concurrency: usize,
    dead: usize,
}

impl Course {
    /// Tells what is known already, takes up what was begun, and begins with the rest.
    fn begin(
        plan: Plan,
        driver: Arc<LocalDriver>,
        concurrency: usize,
        format: Format,
    ) -> anyhow::Result<Self> {
        let is_for_people = format == Format::Text && Term::stdout().is_term();
        let job_ids = plan.job_ids.into_iter();
        let follow = if is_for_people {
            Follow::new(job_ids, format)
        } else {
            Follow::beside_events(job_ids)
        };
        let mut course = Self {
            driver,
            follow,
            format,
            is_for_people,
            waiting: plan.waiting,
            under_way: 0,
            concurrency,
            dead: 0,
        };
        for job in plan.kept.list() {
            for event in &job.events {
                course.print(event, false);
            }
            if let Some(step) = &job.step {
                course.driver.resume(step.clone()).with_context(|| {
                    format!(
                        "failed to take up job {} from the journal; run it with the release that wrote it",
                        plain(&job.job_id)
                    )
                })?;
                course.under_way += 1;
            }
        }
        course.fill();
        Ok(course)
    }

    /// Begins jobs while there is room.
    fn fill(&mut self) {
        while self.under_way < self.concurrency
            && let Some(request) = self.waiting.pop_front()
        {
            self.driver.submit(request, Properties::default());
            self.under_way += 1;
        }
    }

    fn take(&mut self, event: &EventMessage) {
        self.print(&event.body, event.kind.is_final());
        if event.kind.is_final() {
            self.under_way = self.under_way.saturating_sub(1);
            self.fill();
        }
    }

    /// Prints an event and takes note of it. Of an earlier run's it is seen here whether it is final.
    fn print(&mut self, body: &[u8], is_final: bool) {
        let text = String::from_utf8_lossy(body);
        let is_final = is_final
            || serde_json::from_str::<Value>(&text)
                .is_ok_and(|event| event["data"]["outcome"].is_string());
        if self.format == Format::Json || (is_final && !self.is_for_people) {
            output::line(&text);
        }
        self.follow.take(body);
    }

    /// A job that made this program panic again and again has no outcome; the others go on.
    fn look_for_dead(&mut self) {
        let dead = self.driver.dead();
        for (body, letter) in dead.iter().skip(self.dead) {
            let job_id = Named::in_body(body).job_id.unwrap_or_default();
            self.follow.give_up(&job_id, &letter.error);
            self.under_way = self.under_way.saturating_sub(1);
        }
        self.dead = dead.len();
        self.fill();
    }
}
