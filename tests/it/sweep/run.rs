//! One scenario with one plan: worker processes are born, work, die and are replaced, over a broker and an NBI that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::app::follow_circuit;
use nbi_upgrade::clock::{self, Clock};
use nbi_upgrade::message::{Codec, EventSettings};
use nbi_upgrade::nbi::NbiClient;
use nbi_upgrade::simulator::{
    DeviceView, InProcessSettings, InProcessTransport, SharedSimulator, Simulator,
    SimulatorSettings,
};
use nbi_upgrade::telemetry::Telemetry;
use nbi_upgrade::worker::{Grace, Worker};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broken;
use super::broker::Broker;
use super::check::{self, Tally};
use super::copies::Copies;
use super::driver::{ModelDriver, Parts};
use super::faults::Cut;
use super::history::{Failure, History, Line, NbiWrite, Published, Rule, table};
use super::nbi::CrashingTransport;
use super::points::{Life, Plan, Points};
use super::scenarios::Scenario;
use crate::support::world::start;

/// What a run left behind.
#[derive(Clone, Default)]
pub(crate) struct Facts {
    pub(crate) events: Vec<Published>,
    pub(crate) writes: Vec<NbiWrite>,
    /// NBI calls, and those of them that had no proper answer.
    pub(crate) calls: usize,
    pub(crate) failures: Vec<Failure>,
    pub(crate) copies: BTreeMap<String, Copies>,
    pub(crate) dead: Vec<String>,
    /// Messages that were left when the patience was over.
    pub(crate) left: usize,
    /// What stood in the storage of rules, from when on, and what stands there at the end.
    pub(crate) rules: Vec<(Timestamp, Vec<Rule>)>,
    pub(crate) at_the_end: Vec<Rule>,
    pub(crate) devices: Vec<DeviceView>,
    pub(crate) crashes: usize,
}

/// What a run showed.
pub(crate) struct Run {
    pub(crate) points: usize,
    pub(crate) calls: usize,
    /// Writes that arm a rule.
    pub(crate) armings: usize,
    pub(crate) crashes: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) verdicts: BTreeMap<String, BTreeSet<String>>,
    pub(crate) tally: Tally,
}

impl Run {
    /// What is wrong, how to see it again, and the history.
    pub(crate) fn report(&self, replay: &str) -> String {
        let mut text = format!("replay with {replay}\n");
        for violation in &self.violations {
            text.push_str(&format!("  ! {violation}\n"));
        }
        text.push_str(&table(&self.lines));
        text
    }
}

/// Plays a scenario. The same scenario and plan give the same run.
pub(crate) fn run(scenario: &Scenario, plan: Plan) -> Run {
    fastrand::seed(scenario.faults.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(scenario, plan))
}

/// The world of one run.
struct Stage<'a> {
    scenario: &'a Scenario,
    clock: Clock,
    simulator: SharedSimulator,
    broker: Broker,
    points: Arc<Points>,
    history: History,
    deaths: mpsc::UnboundedSender<usize>,
    /// Of each living process: the worker, its intake, and what follows its circuit.
    processes: BTreeMap<usize, [JoinHandle<()>; 3]>,
    /// What tells a worker to stop.
    stops: BTreeMap<usize, CancellationToken>,
    born: usize,
}

async fn play(scenario: &Scenario, plan: Plan) -> Run {
    let (deaths, died) = mpsc::unbounded_channel();
    let clock = clock::from_tokio(start());
    let history = History::new(clock.clone());
    let mut simulator = Simulator::new(SimulatorSettings {
        semantics: scenario.setup.semantics.clone(),
        troubles: scenario.setup.troubles.clone(),
        seed: scenario.faults.seed,
        ..SimulatorSettings::default()
    });
    for device in &scenario.setup.devices {
        simulator.add_device(device.clone(), start());
    }
    for (cpe_id, code, message) in &scenario.old_results {
        let time = start() - SignedDuration::from_hours(48);
        simulator.add_result(cpe_id, &format!("UPGRADE_{cpe_id}"), *code, message, time);
    }
    let mut stage = Stage {
        scenario,
        simulator: SharedSimulator::new(simulator, clock.clone()),
        broker: Broker::new(scenario.faults.clone(), history.clone()),
        points: Points::new(plan),
        history,
        deaths,
        processes: BTreeMap::new(),
        stops: BTreeMap::new(),
        born: 0,
        clock,
    };
    for _ in 0..scenario.workers {
        stage.give_birth();
    }
    stage.live(died).await;
    stage.end().await
}

impl Stage<'_> {
    /// A worker process with no memory.
    fn give_birth(&mut self) {
        self.born += 1;
        let scenario = self.scenario;
        let life = Life::new(
            self.born,
            Arc::clone(&self.points),
            self.deaths.clone(),
            self.history.clone(),
        );
        let skew = scenario.skews[(self.born - 1) % scenario.skews.len()];
        let true_clock = self.clock.clone();
        let clock: Clock = Arc::new(move || true_clock() + skew);
        let codec = Codec {
            requests: scenario.setup.requests.clone(),
            events: EventSettings {
                source: "/nbi-upgrade/sweep".to_owned(),
                progress: scenario.setup.progress,
            },
        };
        let telemetry = Arc::new(Telemetry::default());
        let transport = CrashingTransport {
            inner: InProcessTransport::new(self.simulator.clone(), InProcessSettings::default()),
            life: Arc::clone(&life),
            broker: self.broker.clone(),
            latency: scenario.ways[(self.born - 1) % scenario.ways.len()],
        };
        let mut settings = scenario.setup.nbi.clone();
        // The client's jitter is not ours to seed: pauses of nothing have none.
        settings.quick_retry_initial = Duration::ZERO;
        let nbi = Arc::new(NbiClient::new(transport, settings, Arc::clone(&telemetry)));
        let parts = Parts::new(
            self.broker.clone(),
            life,
            codec.clone(),
            clock.clone(),
            scenario.broken,
        );
        let (driver, intake) = ModelDriver::new(parts);
        let driver = Arc::new(driver);
        let circuit = tokio::spawn(follow_circuit(nbi.circuit(), Arc::clone(&driver)));
        let policy = scenario.setup.policy.clone();
        let work = match scenario.broken {
            Some(broken) if broken.is_of_the_loop() => {
                let worker = broken::BrokenWorker {
                    broken,
                    nbi,
                    driver,
                    codec,
                    policy,
                    clock,
                };
                tokio::spawn(worker.run())
            }
            Some(_) | None => {
                let worker = Worker::new(nbi, driver, codec, policy, telemetry, clock);
                let stop = CancellationToken::new();
                self.stops.insert(self.born, stop.clone());
                let grace = Grace {
                    finish: Duration::from_secs(1),
                    ..Grace::default()
                };
                tokio::spawn(async move { worker.run(stop, grace).await })
            }
        };
        self.processes.insert(self.born, [work, intake, circuit]);
    }

    /// Tells the oldest worker to stop, and waits until it has.
    async fn stop(&mut self) {
        let Some((worker, stop)) = self.stops.pop_first() else {
            return;
        };
        self.history.note(worker, "is told to stop");
        stop.cancel();
        if let Some([work, ..]) = self.processes.get_mut(&worker) {
            // It is bounded by its grace, and ends well.
            let _ = work.await;
        }
        self.history.note(worker, "has stopped");
        if let Some([_, intake, circuit]) = self.processes.remove(&worker) {
            intake.abort();
            circuit.abort();
        }
        self.broker.consumer_died(worker);
        self.give_birth();
    }

    /// Ends a process: nothing of it ever runs again.
    async fn bury(&mut self, worker: usize) {
        self.stops.remove(&worker);
        for task in self.processes.remove(&worker).into_iter().flatten() {
            task.abort();
            // Aborted, as it was just told to be.
            let _ = task.await;
        }
    }

    /// Lets time pass until everything is settled and stays so, or patience is over.
    async fn live(&mut self, mut died: mpsc::UnboundedReceiver<usize>) {
        let begun = tokio::time::Instant::now();
        let give_up = begun + self.scenario.patience;
        let mut sends: Vec<_> = self.scenario.sends.iter().collect();
        sends.reverse();
        let mut commands: Vec<_> = self.scenario.commands.iter().collect();
        commands.reverse();
        let mut stops: Vec<_> = self.scenario.stops.iter().collect();
        stops.reverse();
        let mut restarts = self.scenario.faults.restarts.clone();
        restarts.sort();
        restarts.reverse();
        let mut cuts = self.scenario.faults.cuts.clone();
        cuts.sort_by_key(|cut| std::cmp::Reverse(cut.at));
        loop {
            let broker = self.broker.clone();
            let settled = broker.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let now = tokio::time::Instant::now();
            let is_settled = sends.is_empty() && commands.is_empty() && self.broker.depth() == 0;
            if !is_settled && now >= give_up {
                return;
            }
            let next_send = sends.last().map(|send| begun + send.after);
            let next_command = commands.last().map(|command| begun + command.after);
            let stop_at = stops.last().map(|after| begun + **after);
            let restart_at = restarts.last().map(|at| begun + clock::until(start(), *at));
            let cut_at = cuts.last().map(|cut| begun + clock::until(start(), cut.at));
            // Once all is settled, devices go on living, and what was left armed fires.
            let idle_until = if is_settled {
                now + self.scenario.aftermath
            } else {
                give_up
            };
            tokio::select! {
                biased;
                Some(worker) = died.recv() => {
                    self.bury(worker).await;
                    self.broker.consumer_died(worker);
                    self.give_birth();
                }
                () = sleep_until(next_command) => {
                    self.broker.order(&commands.pop().unwrap().body);
                }
                () = sleep_until(next_send) => {
                    let send = sends.pop().unwrap();
                    self.broker.submit(&send.job, send.body.to_string().into_bytes());
                }
                () = sleep_until(stop_at) => {
                    stops.pop();
                    self.stop().await;
                }
                () = sleep_until(restart_at) => {
                    restarts.pop();
                    self.broker.restart();
                }
                () = sleep_until(cut_at) => {
                    let Cut { lasts, worker, .. } = cuts.pop().unwrap();
                    let alive: Vec<usize> = self.processes.keys().copied().collect();
                    self.broker.cut(worker.map(|nth| alive[nth % alive.len()]), lasts);
                }
                () = settled => {}
                () = tokio::time::sleep_until(idle_until) => {
                    if is_settled && self.broker.depth() == 0 {
                        return;
                    }
                }
            }
        }
    }

    async fn end(mut self) -> Run {
        let workers: Vec<usize> = self.processes.keys().copied().collect();
        for worker in workers {
            self.bury(worker).await;
        }
        let (points, crashes) = self.points.counts();
        let (rules, devices) = self
            .simulator
            .with(|simulator, now| (simulator.rules(), simulator.devices(now)));
        let facts = Facts {
            events: self.history.events(),
            writes: self.history.writes(),
            calls: self.history.calls(),
            failures: self.history.failures(),
            copies: self.broker.copies(),
            dead: self.broker.dead(),
            left: self.broker.depth(),
            rules: self.history.rules(),
            at_the_end: rules.iter().map(Rule::from_row).collect(),
            devices,
            crashes,
        };
        let mut verdicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in facts.events.iter().filter(|event| event.is_final) {
            let job = event.text("job_id").to_owned();
            verdicts.entry(job).or_default().insert(event.verdict());
        }
        let (violations, tally) = check::check(self.scenario, &facts);
        let mut lines = self.history.lines();
        lines.extend(flashes(&facts.devices));
        lines.sort_by_key(|line| line.at);
        Run {
            points,
            calls: facts.calls,
            armings: facts.writes.iter().filter(|w| w.file.is_some()).count(),
            crashes,
            violations,
            lines,
            verdicts,
            tally,
        }
    }
}

/// What devices did, as lines of the history.
fn flashes(devices: &[DeviceView]) -> impl Iterator<Item = Line> + '_ {
    devices.iter().flat_map(|device| {
        device.flashes.iter().map(|flash| Line {
            at: flash.started_at,
            worker: 0,
            what: format!(
                "{} runs {} ({}), until {}",
                device.cpe_id,
                flash.file,
                flash.result.name(),
                flash
                    .ended_at
                    .map_or_else(|| "-".to_owned(), |at: Timestamp| at.to_string()),
            ),
        })
    })
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
