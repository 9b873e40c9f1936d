//! One suite for all drivers: what the worker relies on holds in one process as on RabbitMQ, and over the sweep's model of it
//! (`sweep/contract.rs`).

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{AmqpDriver, AmqpSettings, topology};
use nbi_upgrade::driver::local::{LocalDriver, Properties};
use nbi_upgrade::driver::{Delivery, Destination, Driver, HandOver, Intake};
use nbi_upgrade::message::{Codec, EventSettings, RequestSettings, Work};
use nbi_upgrade::telemetry::Telemetry;
use secrecy::SecretString;

use crate::support::rabbit::{Client, Node, Vhost};

const PATIENCE: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_millis(400);

/// A driver and a way to put requests before it and to look at what it could not understand.
pub(crate) trait Bench {
    type Driver: Driver;

    fn driver(&self) -> &Self::Driver;
    async fn publish(&self, body: &[u8]);
    async fn dead(&self) -> usize;

    async fn receive(&self) -> Delivery<<Self::Driver as Driver>::Token> {
        tokio::time::timeout(PATIENCE, self.driver().receive())
            .await
            .expect("a delivery in time")
            .expect("the driver goes on")
    }

    async fn receives_nothing(&self) -> bool {
        tokio::time::timeout(A_WHILE, self.driver().receive())
            .await
            .is_err()
    }
}

struct Local {
    driver: LocalDriver,
    _events: tokio::sync::mpsc::UnboundedReceiver<nbi_upgrade::message::EventMessage>,
}

struct Amqp {
    driver: AmqpDriver,
    client: Client,
    _vhost: Vhost,
}

pub(crate) fn codec() -> Codec {
    Codec {
        requests: RequestSettings::default(),
        events: EventSettings {
            source: "/nbi-upgrade/test".to_owned(),
            progress: false,
        },
    }
}

fn local() -> Local {
    let (driver, events) = LocalDriver::new(codec(), clock::system(), Arc::default(), 256);
    Local {
        driver,
        _events: events,
    }
}

async fn amqp() -> Amqp {
    let vhost = Node::shared().vhost();
    let settings = AmqpSettings {
        urls: vec![SecretString::from(vhost.url())],
        ..AmqpSettings::default()
    };
    topology::declare_once(&settings).await.unwrap();
    let client = vhost.client().await;
    let telemetry: Arc<Telemetry> = Arc::default();
    let driver = AmqpDriver::start(settings, codec(), telemetry, clock::system());
    Amqp {
        driver,
        client,
        _vhost: vhost,
    }
}

impl Bench for Local {
    type Driver = LocalDriver;

    fn driver(&self) -> &LocalDriver {
        &self.driver
    }

    async fn publish(&self, body: &[u8]) {
        self.driver.submit(body.to_vec(), Properties::default());
    }

    async fn dead(&self) -> usize {
        self.driver.dead().len()
    }
}

impl Bench for Amqp {
    type Driver = AmqpDriver;

    fn driver(&self) -> &AmqpDriver {
        &self.driver
    }

    async fn publish(&self, body: &[u8]) {
        self.client
            .publish(
                "upgrade.requests",
                "request",
                body,
                BasicProperties::default(),
            )
            .await;
    }

    async fn dead(&self) -> usize {
        usize::try_from(self.client.depth("upgrade.dead").await).unwrap()
    }
}

fn request(job_id: &str) -> Vec<u8> {
    format!(
        r#"{{"job_id":"{job_id}","cpe_id":"CPE1","firmware_url":"https://files.example/fw.bin"}}"#
    )
    .into_bytes()
}

fn advanced(mut work: Work) -> Work {
    work.job.progress.seq += 1;
    work
}

fn to(work: Work, to: Destination) -> HandOver {
    HandOver {
        work,
        to,
        events: Vec::new(),
    }
}

async fn a_request_comes_out_once(bench: &impl Bench) {
    bench.publish(&request("a")).await;
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.order.job_id.as_str(), "a");
    assert_eq!(delivery.work.job.progress.seq, 0);
    assert!(!delivery.redelivered);
    assert!(bench.receives_nothing().await);
    let done = to(delivery.work, Destination::Nowhere);
    bench
        .driver()
        .carry_out(delivery.token, done)
        .await
        .unwrap();
    assert!(bench.receives_nothing().await);
}

async fn a_job_handed_on_comes_again_as_it_was(bench: &impl Bench) {
    bench.publish(&request("b")).await;
    let first = bench.receive().await;
    let mut work = advanced(first.work);
    work.job.progress.polls = 7;
    let mut expected = work.job.clone();
    // Nobody said when it was asked for; from the hand-over on its date stays.
    expected.order_mut().is_dated_on_arrival = false;
    bench
        .driver()
        .carry_out(first.token, to(work, Destination::Now))
        .await
        .unwrap();
    let second = bench.receive().await;
    assert_eq!(second.work.job, expected);
    assert!(!second.redelivered);
    bench
        .driver()
        .carry_out(second.token, to(second.work, Destination::Nowhere))
        .await
        .unwrap();
}

async fn a_job_that_waits_comes_when_it_is_due(bench: &impl Bench) {
    bench.publish(&request("c")).await;
    let first = bench.receive().await;
    let due = Timestamp::now() + SignedDuration::from_secs(2);
    let work = advanced(first.work);
    bench
        .driver()
        .carry_out(first.token, to(work, Destination::At(due)))
        .await
        .unwrap();
    assert!(bench.receives_nothing().await);
    let second = bench.receive().await;
    let early = due.duration_since(Timestamp::now());
    assert!(early <= SignedDuration::from_millis(1_100), "{early} early");
    bench
        .driver()
        .carry_out(second.token, to(second.work, Destination::Nowhere))
        .await
        .unwrap();
}

async fn what_is_not_valid_is_dead_lettered_and_the_next_comes(bench: &impl Bench) {
    let before = bench.dead().await;
    bench.publish(b"not JSON").await;
    bench.publish(br#"{"job_id":"x","cpe_id":"DM*"}"#).await;
    bench.publish(&request("d")).await;
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.order.job_id.as_str(), "d");
    bench
        .driver()
        .carry_out(delivery.token, to(delivery.work, Destination::Nowhere))
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.dead().await < before + 2 {
        assert!(tokio::time::Instant::now() < deadline, "not dead-lettered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_rejected_delivery_comes_again_and_says_so(bench: &impl Bench) {
    bench.publish(&request("e")).await;
    let first = bench.receive().await;
    bench.driver().reject(first.token).await;
    let second = bench.receive().await;
    assert!(second.redelivered);
    assert_eq!(second.work.job.order.job_id.as_str(), "e");
    bench
        .driver()
        .carry_out(second.token, to(second.work, Destination::Nowhere))
        .await
        .unwrap();
}

async fn a_closed_intake_lets_nothing_through(bench: &impl Bench) {
    bench.driver().set_intake(Intake::Closed);
    tokio::time::sleep(A_WHILE).await;
    bench.publish(&request("f")).await;
    assert!(bench.receives_nothing().await);
    bench.driver().set_intake(Intake::Open);
    let delivery = bench.receive().await;
    bench
        .driver()
        .carry_out(delivery.token, to(delivery.work, Destination::Nowhere))
        .await
        .unwrap();
}

async fn a_stopped_driver_settles_what_is_in_hand_and_gives_no_more(bench: &impl Bench) {
    bench.publish(&request("g")).await;
    let delivery = bench.receive().await;
    bench.driver().stop().await;
    bench
        .driver()
        .carry_out(delivery.token, to(delivery.work, Destination::Nowhere))
        .await
        .unwrap();
    bench.publish(&request("h")).await;
    let next = tokio::time::timeout(PATIENCE, bench.driver().receive()).await;
    assert!(next.expect("an answer in time").is_none());
    bench.driver().close().await;
}

pub(crate) async fn the_whole_contract(bench: impl Bench) {
    a_request_comes_out_once(&bench).await;
    a_job_handed_on_comes_again_as_it_was(&bench).await;
    a_job_that_waits_comes_when_it_is_due(&bench).await;
    what_is_not_valid_is_dead_lettered_and_the_next_comes(&bench).await;
    a_rejected_delivery_comes_again_and_says_so(&bench).await;
    a_closed_intake_lets_nothing_through(&bench).await;
    a_stopped_driver_settles_what_is_in_hand_and_gives_no_more(&bench).await;
}

#[tokio::test]
async fn the_local_driver_keeps_the_contract() {
    the_whole_contract(local()).await;
}

#[tokio::test]
async fn the_amqp_driver_keeps_the_contract() {
    the_whole_contract(amqp().await).await;
}
