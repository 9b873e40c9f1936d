//! A whole world in virtual time: simulated devices, the worker, the local driver. A story is five lines on top of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock;
use nbi_upgrade::driver::local::{LocalDriver, Properties};
use nbi_upgrade::job::Policy;
use nbi_upgrade::message::{Codec, EventSettings, RequestSettings};
use nbi_upgrade::nbi::{NbiClient, NbiSettings};
use nbi_upgrade::simulator::{
    Device, InProcessSettings, InProcessTransport, Semantics, SharedSimulator, Simulator,
    SimulatorSettings, TroublePlan,
};
use nbi_upgrade::telemetry::Telemetry;
use nbi_upgrade::worker::{Grace, Worker};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// When every story begins.
pub(crate) fn start() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// What a world is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) semantics: Semantics,
    pub(crate) troubles: TroublePlan,
    pub(crate) devices: Vec<Device>,
    pub(crate) policy: Policy,
    pub(crate) requests: RequestSettings,
    pub(crate) nbi: NbiSettings,
    pub(crate) latency: Duration,
    pub(crate) progress: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            semantics: Semantics::default(),
            troubles: TroublePlan::none(),
            devices: vec![Device::new("CPE1")],
            policy: Policy::default(),
            requests: RequestSettings::default(),
            nbi: NbiSettings::default(),
            latency: Duration::from_millis(2),
            progress: false,
        }
    }
}

/// A running world.
pub(crate) struct World {
    pub(crate) simulator: SharedSimulator,
    pub(crate) driver: Arc<LocalDriver>,
    events: mpsc::UnboundedReceiver<nbi_upgrade::message::EventMessage>,
    seen: Vec<Value>,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

/// A request for this device with this file.
pub(crate) fn request(job_id: &str, cpe_id: &str, file: &str) -> Value {
    json!({"job_id": job_id, "cpe_id": cpe_id, "firmware_url": format!("https://files.example/{file}")})
}

impl World {
    /// Begins; to be called in a runtime whose time is paused.
    pub(crate) fn begin(setup: Setup) -> Self {
        let clock = clock::from_tokio(start());
        let mut simulator = Simulator::new(SimulatorSettings {
            semantics: setup.semantics,
            troubles: setup.troubles,
            ..SimulatorSettings::default()
        });
        for device in setup.devices {
            simulator.add_device(device, start());
        }
        let simulator = SharedSimulator::new(simulator, clock.clone());
        let transport = InProcessTransport::new(
            simulator.clone(),
            InProcessSettings {
                latency: setup.latency,
                ..InProcessSettings::default()
            },
        );
        let telemetry = Arc::new(Telemetry::default());
        let nbi = Arc::new(NbiClient::new(transport, setup.nbi, Arc::clone(&telemetry)));
        let codec = Codec {
            requests: setup.requests,
            events: EventSettings {
                source: "/nbi-upgrade/story".to_owned(),
                progress: setup.progress,
            },
        };
        let (driver, events) =
            LocalDriver::new(codec.clone(), clock.clone(), Arc::clone(&telemetry), 256);
        let driver = Arc::new(driver);
        let worker = Worker::new(
            nbi,
            Arc::clone(&driver),
            codec,
            setup.policy,
            telemetry,
            clock,
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let worker = tokio::spawn(async move { worker.run(stopped, Grace::default()).await });
        Self {
            simulator,
            driver,
            events,
            seen: Vec::new(),
            stop,
            worker,
        }
    }

    pub(crate) fn submit(&self, request: &Value) {
        self.driver
            .submit(request.to_string().into_bytes(), Properties::default());
    }

    pub(crate) fn submit_bytes(&self, body: &[u8]) {
        self.driver.submit(body.to_vec(), Properties::default());
    }

    /// Gives an operator's command.
    pub(crate) fn order(&self, body: &str) {
        self.driver.command(body.as_bytes()).expect("a command");
    }

    /// Rules that are armed now.
    pub(crate) fn armed(&self) -> Vec<String> {
        self.simulator.with(|simulator, _| simulator.armed_rules())
    }

    /// Waits for an event of this type.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        loop {
            if let Some(event) = self.seen.iter().find(|event| event["type"] == kind) {
                return event.clone();
            }
            let next = tokio::time::timeout(Duration::from_hours(24 * 3), self.events.recv()).await;
            let Ok(Some(event)) = next else {
                panic!("no {kind}; seen: {:#?}", self.seen)
            };
            self.seen.push(serde_json::from_slice(&event.body).unwrap());
        }
    }

    /// Lets time pass; what was published meanwhile is seen.
    pub(crate) async fn pass(&mut self, time: SignedDuration) {
        tokio::time::sleep(Duration::try_from(time).unwrap()).await;
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(serde_json::from_slice(&event.body).unwrap());
        }
    }

    /// Waits until that many final events are there, and returns all finals by job.
    pub(crate) async fn outcomes(&mut self, count: usize) -> BTreeMap<String, Vec<Value>> {
        loop {
            let finals = self.finals();
            if finals.values().map(Vec::len).sum::<usize>() >= count {
                return finals;
            }
            let event =
                tokio::time::timeout(Duration::from_hours(24 * 3), self.events.recv()).await;
            let Ok(Some(event)) = event else {
                panic!("no more events; seen: {:#?}", self.seen)
            };
            self.seen.push(serde_json::from_slice(&event.body).unwrap());
        }
    }

    /// The one outcome of the one job, as `outcome/reason impact rule-state`.
    pub(crate) async fn outcome(&mut self) -> String {
        let finals = self.outcomes(1).await;
        describe(finals.values().next().unwrap().first().unwrap())
    }

    /// All events seen by now.
    pub(crate) fn events(&self) -> &[Value] {
        &self.seen
    }

    fn finals(&self) -> BTreeMap<String, Vec<Value>> {
        let mut finals: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in self
            .seen
            .iter()
            .filter(|event| event["data"]["outcome"].is_string())
        {
            let job_id = event["data"]["job_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            finals.entry(job_id).or_default().push(event.clone());
        }
        finals
    }

    /// Ends the world and checks what must hold in any: nothing armed, nobody flashed twice by one job, nothing left in the queue.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.worker.await.unwrap();
        assert_eq!(self.driver.depth(), 0, "messages are left");
        self.simulator.with(|simulator, _| {
            assert_eq!(
                simulator.armed_rules(),
                Vec::<String>::new(),
                "rules are left armed"
            );
        });
    }

    /// Times that firmware was written to this device.
    pub(crate) fn flashes(&self, cpe_id: &str) -> usize {
        self.simulator.with(|simulator, _| {
            simulator
                .flashes(cpe_id)
                .iter()
                .filter(|flash| flash.result.writes_firmware())
                .count()
        })
    }

    /// Times that this device ran a rule.
    pub(crate) fn attempts(&self, cpe_id: &str) -> usize {
        self.simulator
            .with(|simulator, _| simulator.flashes(cpe_id).len())
    }
}

/// An outcome in one line.
pub(crate) fn describe(event: &Value) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    format!(
        "{}/{} {} {}",
        text(&data["outcome"]),
        text(&data["reason"]),
        text(&data["impact"]),
        text(&data["rule"]["state"])
    )
}
