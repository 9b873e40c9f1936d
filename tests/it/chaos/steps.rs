//! Steps that panic, and steps that never end; the worker on a real broker, with a simulated NBI in the same process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{AmqpDriver, topology};
use nbi_upgrade::job::retry::Backoff;
use nbi_upgrade::job::{NbiAnswer, NbiCall, NbiFailure, Policy};
use nbi_upgrade::nbi::{Nbi, NbiClient, NbiSettings};
use nbi_upgrade::simulator::{
    Device, InProcessSettings, InProcessTransport, SharedSimulator, Simulator, SimulatorSettings,
};
use nbi_upgrade::telemetry::Telemetry;
use nbi_upgrade::worker::{Grace, Worker};
use tokio_util::sync::CancellationToken;

use super::bench::{codec, metric, settings, shared_vhost, submit};
use crate::support::rabbit::Vhost;

/// Devices that bring their calls to grief.
const POISON: &str = "CPE-poison";
const STUCK: &str = "CPE-stuck";

/// An NBI client with faults of its own.
struct Faulty(NbiClient<InProcessTransport>);

impl Nbi for Faulty {
    async fn call(&self, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
        let text = format!("{call:?}");
        assert!(!text.contains(POISON), "this device's answer is poison");
        if text.contains(STUCK) {
            std::future::pending::<()>().await;
        }
        self.0.call(call).await
    }
}

/// A worker that runs.
struct Running {
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    telemetry: Arc<Telemetry>,
}

impl Running {
    fn begin(vhost: &Vhost, nbi: Faulty, grace: Grace) -> Self {
        let telemetry: Arc<Telemetry> = Arc::default();
        let driver = AmqpDriver::start(
            settings(&vhost.url()),
            codec(),
            Arc::clone(&telemetry),
            clock::system(),
        );
        let soon = Backoff {
            initial: SignedDuration::from_secs(1),
            multiplier: 1.0,
            max: SignedDuration::from_secs(1),
        };
        let policy = Policy {
            await_result: soon,
            retry: soon,
            release_pause: SignedDuration::from_secs(1),
            ..Policy::default()
        };
        let worker = Worker::new(
            Arc::new(nbi),
            Arc::new(driver),
            codec(),
            policy,
            Arc::clone(&telemetry),
            clock::system(),
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let worker = tokio::spawn(async move { worker.run(stopped, grace).await });
        Self {
            stop,
            worker,
            telemetry,
        }
    }

    /// Jobs that are over, whatever their outcome.
    fn finished(&self) -> f64 {
        let text = self.telemetry.metrics_text().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("nbi_upgrade_jobs_finished_total{"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Stops it; how long that took.
    async fn end(self) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        self.worker.await.unwrap();
        begun.elapsed()
    }
}

/// Devices that need three seconds for an upgrade.
fn faulty() -> Faulty {
    let mut simulator = Simulator::new(SimulatorSettings::default());
    for cpe_id in [POISON, STUCK, "CPE-good", "CPE-next"] {
        let mut device = Device::new(cpe_id);
        device.session_delay = SignedDuration::from_secs(1);
        device.download = SignedDuration::from_secs(1);
        device.reboot = SignedDuration::from_secs(1);
        simulator.add_device(device, Timestamp::now());
    }
    let simulator = SharedSimulator::in_real_time(simulator);
    let transport = InProcessTransport::new(simulator, InProcessSettings::default());
    Faulty(NbiClient::new(
        transport,
        NbiSettings::default(),
        Arc::default(),
    ))
}

#[tokio::test]
async fn a_step_that_panics_is_dead_in_the_end_and_the_worker_lives() {
    let vhost = shared_vhost().await;
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    let client = vhost.client().await;
    submit(&client, "good").await;
    submit(&client, "poison").await;
    let running = Running::begin(&vhost, faulty(), Grace::default());
    let dead = client.wait_for("upgrade.dead").await;
    assert_eq!(metric(&running.telemetry, "panics_total"), 21.0);
    assert!(
        String::from_utf8_lossy(&dead.body).contains("poison"),
        "{dead:?}"
    );
    let header = |name| dead.header(name).unwrap_or_default();
    assert_eq!(header("x-first-death-reason"), "delivery_limit");
    // A job that advanced before it panicked dies as a step.
    let queue = header("x-first-death-queue");
    assert!(
        matches!(queue.as_str(), "upgrade.requests" | "upgrade.steps"),
        "{queue}"
    );
    assert!(dead.header("x-death").is_some(), "{dead:?}");
    submit(&client, "next").await;
    super::bench::until("both jobs to be over", super::bench::PATIENCE, async || {
        running.finished() == 2.0
    })
    .await;
    let took = running.end().await;
    println!("a poisonous job: dead after 21 panics; the worker stopped in {took:.1?}");
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        super::bench::settles_at(&client, queue, 0).await;
    }
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_hold_the_shutdown_and_its_job_goes_on_elsewhere() {
    let vhost = shared_vhost().await;
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    let client = vhost.client().await;
    submit(&client, "stuck").await;
    let grace = Grace {
        finish: Duration::from_secs(1),
        give_back: Duration::from_secs(2),
    };
    let running = Running::begin(&vhost, faulty(), grace);
    super::bench::until("the job in hand", super::bench::PATIENCE, async || {
        metric(&running.telemetry, "deliveries_in_hand") == 1.0
    })
    .await;
    let took = running.end().await;
    println!("a call that never ends: the worker stopped in {took:.1?} at a grace of 1 s and 2 s");
    assert!(took < Duration::from_secs(5), "{took:?}");
    // It is parked for a second, and then a step of any worker.
    super::bench::settles_at(&client, "upgrade.steps", 1).await;
    super::bench::settles_at(&client, "upgrade.requests", 0).await;
}
