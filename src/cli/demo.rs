//! `demo`: a fleet upgrading before your eyes. Real worker, real wire formats, simulated NBI and devices; time runs a hundred times faster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use console::Term;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::output::{self, Format, Status};
use super::table::{self, Cell, Look};
use crate::driver::local::{LocalDriver, Properties};
use crate::job::retry::Backoff;
use crate::job::{Policy, Stage};
use crate::message::{Codec, EventKind, EventMessage, EventSettings, RequestSettings};
use crate::nbi::{NbiClient, NbiSettings};
use crate::simulator::{
    Character, Fleet, InProcessSettings, InProcessTransport, SharedSimulator, Simulator,
    SimulatorSettings, Summary,
};
use crate::telemetry::Telemetry;
use crate::worker::{Grace, Worker};
use crate::{app, clock};

/// Shows a fleet upgrading.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade demo
  nbi-upgrade demo --devices 500 --output json

It reads no configuration: --config and --set change nothing here.")]
pub(super) struct Demo {
    /// Devices in the fleet.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Seed of the fleet: the same seed, the same devices.
    #[arg(long, value_name = "N", default_value_t = 4)]
    seed: u64,
}

/// Devices live this much faster, so that an hour is 36 seconds.
const TIME_SCALE: f64 = 0.01;

/// Every job's time: devices that stay silent are given up then.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(45);

/// How often the table is drawn.
const REDRAW: Duration = Duration::from_millis(200);

impl Demo {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<Status> {
        let clock = clock::system();
        let mut model = Simulator::new(SimulatorSettings {
            seed: self.seed,
            ..SimulatorSettings::default()
        });
        let ids = fleet(self.seed).add_to(&mut model, usize::try_from(self.devices)?, clock());
        let simulator = SharedSimulator::new(model, Arc::clone(&clock));
        let telemetry = Arc::new(Telemetry::default());
        let latency = InProcessSettings {
            latency: Duration::from_millis(20),
            ..InProcessSettings::default()
        };
        let transport = InProcessTransport::new(simulator.clone(), latency);
        let nbi = Arc::new(NbiClient::new(
            transport,
            NbiSettings::default(),
            Arc::clone(&telemetry),
        ));
        let codec = Codec {
            requests: RequestSettings {
                timeout: TIMEOUT,
                max_attempts: 2,
                ..RequestSettings::default()
            },
            events: EventSettings {
                source: "/nbi-upgrade/demo".to_owned(),
                progress: true,
            },
        };
        let (driver, events) = LocalDriver::new(
            codec.clone(),
            Arc::clone(&clock),
            Arc::clone(&telemetry),
            256,
        );
        let driver = Arc::new(driver);
        for cpe_id in &ids {
            let request = json!({"job_id": format!("demo-{cpe_id}"), "cpe_id": cpe_id, "firmware_url": "https://files.example/ALPHA-2.4.bin"});
            driver.submit(request.to_string().into_bytes(), Properties::default());
        }
        let stop = CancellationToken::new();
        let worker = Worker::new(nbi, driver, codec, policy(), telemetry, clock);
        let stopped = stop.clone();
        let working = tokio::spawn(async move { worker.run(stopped, Grace::default()).await });
        let signals = tokio::spawn(app::until_signalled(stop.clone())?);
        let mut screen = Screen::new(simulator.clone(), format);
        let is_complete = screen.show(events, &stop).await;
        stop.cancel();
        working.await?;
        signals.abort();
        let summary = simulator.with(|simulator, now| simulator.summary(now));
        screen.summarize(&summary);
        let is_sound =
            is_complete && summary.devices_flashed_twice == 0 && summary.armed_rules == 0;
        Ok(if is_sound {
            Status::Done
        } else {
            Status::Failed
        })
    }
}

/// A few devices of each kind, so that every story is seen.
fn fleet(seed: u64) -> Fleet {
    Fleet::new(seed).time_scale(TIME_SCALE).mix(&[
        (Character::Quick, 44),
        (Character::Slow, 14),
        (Character::OfflineAtFirst, 12),
        (Character::FailsAtFirst, 10),
        (Character::FailsForGood, 8),
        (Character::Sleepy, 8),
        (Character::Silent, 4),
    ])
}

/// The defaults, at the devices' pace.
fn policy() -> Policy {
    let growing = |initial, multiplier, max| Backoff {
        initial: SignedDuration::from_millis(initial),
        multiplier,
        max: SignedDuration::from_millis(max),
    };
    Policy {
        retry: growing(500, 2.0, 3_000),
        await_result: growing(500, 1.5, 3_000),
        attempt_pause: growing(4_000, 2.0, 8_000),
        connection_request_resend_interval: SignedDuration::from_secs(9),
        ..Policy::default()
    }
}

/// What the viewer knows of a job.
struct Seen {
    stage: Stage,
    attempt: u64,
    outcome: Option<(String, Look)>,
}

/// What is shown.
struct Screen {
    simulator: SharedSimulator,
    format: Format,
    terminal: Term,
    is_live: bool,
    begun: Instant,
    jobs: BTreeMap<String, Seen>,
    outcomes: BTreeMap<(String, String), usize>,
    drawn: usize,
}

impl Screen {
    fn new(simulator: SharedSimulator, format: Format) -> Self {
        let terminal = Term::stdout();
        let is_live = terminal.is_term() && format == Format::Text;
        let jobs = simulator.with(|simulator, now| {
            let begun = |cpe_id| {
                (
                    cpe_id,
                    Seen {
                        stage: Stage::Preflight,
                        attempt: 1,
                        outcome: None,
                    },
                )
            };
            simulator
                .devices(now)
                .into_iter()
                .map(|device| begun(device.cpe_id))
                .collect()
        });
        Self {
            simulator,
            format,
            terminal,
            is_live,
            begun: Instant::now(),
            jobs,
            outcomes: BTreeMap::new(),
            drawn: 0,
        }
    }

    /// Shows events until every job has its outcome, or until the viewer has had enough.
    async fn show(
        &mut self,
        mut events: mpsc::UnboundedReceiver<EventMessage>,
        stop: &CancellationToken,
    ) -> bool {
        if self.is_live {
            let count = self.jobs.len();
            output::line(&format!(
                "{count} devices, one upgrade each; an hour of theirs is 36 seconds here.\n"
            ));
        }
        let mut redraw = tokio::time::interval(REDRAW);
        while self.jobs.values().any(|job| job.outcome.is_none()) {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => return false,
                },
                _ = redraw.tick() => self.draw(),
                () = stop.cancelled() => return false,
            }
        }
        self.draw();
        true
    }

    fn take(&mut self, event: &EventMessage) {
        let Ok(body) = serde_json::from_slice::<Value>(&event.body) else {
            return;
        };
        if self.format == Format::Json {
            output::line(&body.to_string());
        }
        let data = &body["data"];
        let text = |name: &str| data[name].as_str().unwrap_or("-").to_owned();
        let cpe_id = text("cpe_id");
        let Some(job) = self.jobs.get_mut(&cpe_id) else {
            return;
        };
        if event.kind == EventKind::Progress {
            let done = data["stage"].as_str().and_then(Stage::from_name);
            job.attempt = data["attempts"].as_u64().unwrap_or(job.attempt);
            job.stage = done.and_then(after).unwrap_or(Stage::Preflight);
        }
        if !event.kind.is_final() {
            return;
        }
        let outcome = format!("{} ({})", text("outcome"), text("reason"));
        let reason = text("reason");
        let look = if event.kind == EventKind::Completed {
            Look::Good
        } else {
            Look::Bad
        };
        job.outcome = Some((reason, look));
        let device = self
            .simulator
            .with(|simulator, now| simulator.device(&cpe_id, now));
        let character = device.map_or("-", |device| device.character).to_owned();
        if !self.is_live && self.format == Format::Text {
            let seconds = self.begun.elapsed().as_secs_f64();
            output::line(&format!(
                "{seconds:5.1}s  {cpe_id}  {character:<17}{outcome:<28} {}",
                text("message")
            ));
        }
        *self.outcomes.entry((character, outcome)).or_default() += 1;
    }

    fn draw(&mut self) {
        if !self.is_live {
            return;
        }
        let (height, width) = self.terminal.size();
        let devices = self.simulator.with(|simulator, now| simulator.devices(now));
        let cells: Vec<Cell> = devices
            .into_iter()
            .filter_map(|device| {
                let job = self.jobs.get(&device.cpe_id)?;
                let (state, look) = match &job.outcome {
                    Some((reason, look)) => (reason.clone(), *look),
                    None => {
                        let tries = if job.attempt > 1 {
                            format!(" #{}", job.attempt)
                        } else {
                            String::new()
                        };
                        let look = if job.stage == Stage::Preflight {
                            Look::Waiting
                        } else {
                            Look::Working
                        };
                        let doing = match job.stage {
                            Stage::AwaitResult => device.state.name(),
                            stage => stage.name(),
                        };
                        (format!("{doing}{tries}"), look)
                    }
                };
                Some(Cell {
                    name: device.cpe_id,
                    character: device.character.to_owned(),
                    state,
                    look,
                })
            })
            .collect();
        let done = self
            .jobs
            .values()
            .filter(|job| job.outcome.is_some())
            .count();
        let mut lines = table::render(
            &cells,
            usize::from(width),
            usize::from(height).saturating_sub(4),
        );
        lines.push(format!(
            "{done} of {} done, {:.0} s",
            self.jobs.len(),
            self.begun.elapsed().as_secs_f64()
        ));
        // A terminal that has gone away shows nothing; the jobs go on.
        drop(self.terminal.clear_last_lines(self.drawn));
        self.drawn = lines.len();
        for line in lines {
            drop(self.terminal.write_line(&line));
        }
    }

    fn summarize(&self, summary: &Summary) {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.format == Format::Json {
            let outcomes: Vec<Value> = self
                .outcomes
                .iter()
                .map(|((character, outcome), count)| json!({"character": character, "outcome": outcome, "jobs": count}))
                .collect();
            let text = json!({"summary": {"devices": summary.devices, "outcomes": outcomes,
                "devices_flashed_twice": summary.devices_flashed_twice, "armed_rules": summary.armed_rules,
                "nbi_calls": summary.calls.values().sum::<u64>(), "seconds": seconds}});
            output::line(&text.to_string());
            return;
        }
        output::line("\nWhat became of them:");
        for ((character, outcome), count) in &self.outcomes {
            output::line(&format!("  {count:4}  {character:<17}{outcome}"));
        }
        let calls: u64 = summary.calls.values().sum();
        output::line(&format!(
            "\n{} devices in {seconds:.0} s, {calls} NBI calls. Flashed twice: {}. Rules left armed: {}.",
            summary.devices, summary.devices_flashed_twice, summary.armed_rules
        ));
        if self
            .outcomes
            .keys()
            .any(|(_, outcome)| outcome.contains("timed_out"))
        {
            output::line(
                "timed_out has impact \"possible\": a silent device flashed and never said so.",
            );
        }
    }
}

/// The stage that follows.
fn after(done: Stage) -> Option<Stage> {
    let next = Stage::ALL.iter().position(|stage| *stage == done)? + 1;
    match Stage::ALL.get(next)? {
        // Versions are not read back in the demonstration.
        Stage::Verify => Some(Stage::DeactivateRule),
        stage => Some(*stage),
    }
}
