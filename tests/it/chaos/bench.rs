//! The driver on a vhost, its telemetry, and a client beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{AmqpDriver, AmqpSettings, Token, topology};
use nbi_upgrade::driver::{Delivery, Destination, Driver, HandOver};
use nbi_upgrade::message::{Codec, EventKind, EventMessage, EventSettings, RequestSettings, Work};
use nbi_upgrade::telemetry::Telemetry;
use secrecy::SecretString;

use crate::support::rabbit::{Client, Node, Vhost};

/// Longer than anything takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Settings for this URL.
pub(super) fn settings(url: &str) -> AmqpSettings {
    AmqpSettings {
        urls: vec![SecretString::from(url.to_owned())],
        publish_timeout: Duration::from_secs(10),
        ..AmqpSettings::default()
    }
}

/// The usual wire formats.
pub(super) fn codec() -> Codec {
    let events = EventSettings {
        source: "/nbi-upgrade/test".to_owned(),
        progress: false,
    };
    Codec {
        requests: RequestSettings::default(),
        events,
    }
}

/// Does something that blocks the thread, aside.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A new vhost of the shared node.
pub(super) async fn shared_vhost() -> Vhost {
    aside(|| Node::shared().vhost()).await
}

/// A driver and what stands beside it.
pub(super) struct Bench {
    pub(super) driver: Arc<AmqpDriver>,
    pub(super) client: Client,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Bench {
    /// On this vhost, straight.
    pub(super) async fn on(vhost: &Vhost) -> Self {
        Self::with(vhost, settings(&vhost.url())).await
    }

    /// On this vhost, with these settings, which may lead there by a detour.
    pub(super) async fn with(vhost: &Vhost, settings: AmqpSettings) -> Self {
        if let Ok(level) = std::env::var("NBI_UPGRADE_TEST_LOG") {
            // Another test may have started it.
            let _ = nbi_upgrade::telemetry::log::init_text(&level);
        }
        let direct = AmqpSettings {
            urls: vec![SecretString::from(vhost.url())],
            ..settings.clone()
        };
        topology::declare_once(&direct).await.unwrap();
        let telemetry: Arc<Telemetry> = Arc::default();
        let driver = AmqpDriver::start(settings, codec(), Arc::clone(&telemetry), clock::system());
        Self {
            driver: Arc::new(driver),
            client: vhost.client().await,
            telemetry,
        }
    }

    pub(super) async fn submit(&self, job_id: &str) {
        submit(&self.client, job_id).await;
    }

    pub(super) async fn receive(&self) -> Delivery<Token> {
        let delivery = tokio::time::timeout(PATIENCE, self.driver.receive()).await;
        delivery
            .expect("a delivery in time")
            .expect("the driver has not ended")
    }

    pub(super) async fn receives_nothing(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.driver.receive())
            .await
            .is_err()
    }

    /// The job is over.
    pub(super) async fn finish(&self, delivery: Delivery<Token>) {
        let over = to(delivery.work, Destination::Nowhere);
        self.driver.carry_out(delivery.token, over).await.unwrap();
    }

    /// A metric without labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        metric(&self.telemetry, name)
    }

    /// Waits until a metric has this value.
    pub(super) async fn metric_becomes(&self, name: &str, expected: f64) {
        until(name, PATIENCE, async || self.metric(name) == expected).await;
    }

    /// Waits until a counter has come so far. Whether it goes further shows when nothing more can come.
    pub(super) async fn metric_reaches(&self, name: &str, expected: f64) {
        until(name, PATIENCE, async || self.metric(name) >= expected).await;
    }

    /// Waits until the ready messages of a queue are as many, as confirms and acknowledgements take their time.
    pub(super) async fn settles_at(&self, queue: &str, expected: u32) {
        settles_at(&self.client, queue, expected).await;
    }

    /// Stops and closes the driver; how long it took.
    pub(super) async fn end(self) -> Duration {
        let begun = Instant::now();
        self.driver.stop().await;
        self.driver.close().await;
        begun.elapsed()
    }
}

/// A metric without labels.
pub(super) fn metric(telemetry: &Telemetry, name: &str) -> f64 {
    let text = telemetry.metrics_text().unwrap();
    let start = format!("nbi_upgrade_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.expect("the metric is there").parse().unwrap()
}

/// Waits until something holds.
pub(super) async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited {within:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn settles_at(client: &Client, queue: &str, expected: u32) {
    let what = format!("{queue} to hold {expected}");
    until(&what, PATIENCE, async || {
        client.depth(queue).await == expected
    })
    .await;
}

pub(super) fn request(job_id: &str) -> Vec<u8> {
    format!(r#"{{"job_id":"{job_id}","cpe_id":"CPE-{job_id}","firmware_url":"http://files.example/fw.bin"}}"#).into_bytes()
}

pub(super) async fn submit(client: &Client, job_id: &str) {
    let properties = BasicProperties::default().with_content_type("application/json".into());
    client
        .publish("upgrade.requests", "request", &request(job_id), properties)
        .await;
}

/// The same job after one more hand-over.
pub(super) fn next(mut work: Work) -> Work {
    work.job.progress.seq += 1;
    work
}

pub(super) fn to(work: Work, to: Destination) -> HandOver {
    HandOver {
        work,
        to,
        events: Vec::new(),
    }
}

pub(super) fn in_seconds(seconds: i64) -> Destination {
    Destination::At(Timestamp::now() + SignedDuration::from_secs(seconds))
}

/// The end of a job with its event.
pub(super) fn ended(work: Work) -> HandOver {
    let event = EventMessage {
        kind: EventKind::Completed,
        id: format!("event of {}", work.job.order.job_id.as_str()),
        routing_key: "upgrade.completed.-".to_owned(),
        event_type: "upgrade.completed",
        time: Timestamp::now(),
        body: b"{}".to_vec(),
        correlation_id: None,
        reply_to: None,
        traceparent: None,
        tracestate: None,
    };
    HandOver {
        work,
        to: Destination::Nowhere,
        events: vec![event],
    }
}
