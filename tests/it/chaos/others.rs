//! Queues of others that are full, unbound or silent: what is in hand waits, and no delivery is counted for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use nbi_upgrade::driver::amqp::{AmqpSettings, TopologyMode, topology};
use nbi_upgrade::driver::{Destination, Driver, DriverError};
use tokio::task::JoinSet;

use super::bench::{
    Bench, PATIENCE, aside, ended, next, request, settings, settles_at, shared_vhost, to, until,
};
use crate::support::rabbit::{Node, Vhost};

/// Jobs whose event goes to a queue that never confirms, and jobs beside them.
const STUCK: usize = 4;
const OTHERS: usize = 8;
/// Several times the age at which a channel that is refused is replaced.
const AWHILE: Duration = Duration::from_secs(5);

async fn bind(vhost: &Vhost, queue: &str, key: &str) {
    bind_to(vhost, "upgrade.results", queue, key).await;
}

pub(super) async fn bind_to(vhost: &Vhost, exchange: &str, queue: &str, key: &str) {
    let path = format!("/api/bindings/{}/e/{exchange}/q/{queue}", vhost.name());
    let binding = format!(r#"{{"routing_key":"{key}"}}"#);
    aside(move || Node::shared().api("POST", &path, Some(&binding))).await;
}

/// Takes a binding away; `key` as the management API writes it.
async fn unbind(vhost: &Vhost, exchange: &str, queue: &str, key: &str) {
    let path = format!(
        "/api/bindings/{}/e/{exchange}/q/{queue}/{key}",
        vhost.name()
    );
    aside(move || Node::shared().api("DELETE", &path, None)).await;
}

/// Waits until the worker is not ready for this reason.
async fn is_not_ready(bench: &Bench, reason: &str) {
    let said = format!("not ready; broker: {reason}");
    until("what is missing", PATIENCE, async || {
        bench.telemetry.readiness().to_string().starts_with(&said)
    })
    .await;
}

/// Waits until it is again: what it published may be taken before it hears of the confirm.
async fn is_ready_again(bench: &Bench) {
    until("the worker is ready", PATIENCE, async || {
        bench.telemetry.readiness().is_ready()
    })
    .await;
}

/// Suspends or resumes the process of the queue `theirs`: meanwhile it confirms nothing.
async fn process(vhost: &Vhost, what: &str) {
    let queue = format!(
        "rabbit_misc:r(<<\"{}\">>, queue, <<\"theirs\">>)",
        vhost.name()
    );
    let call =
        format!("{{ok, Q}} = rabbit_amqqueue:lookup({queue}), sys:{what}(amqqueue:get_pid(Q)).");
    aside(move || Node::shared().control(&["eval", &call])).await;
}

/// Not a single reconnect, which would make the broker count everything in hand.
async fn ends_without_a_reconnect(bench: Bench) {
    assert_eq!(bench.metric("broker_reconnects_total"), 0.0);
    assert_eq!(
        bench.metric("messages_redelivered_total{queue=\"requests\"}"),
        0.0
    );
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_full_queue_of_somebody_else_holds_jobs_and_nothing_is_counted() {
    let vhost = shared_vhost().await;
    let often = AmqpSettings {
        refused_anew_after: Duration::from_secs(1),
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, often).await;
    let theirs = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-max-length", AMQPValue::LongLongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    bench.client.declare("theirs", &theirs).await;
    for _ in 0..2 {
        let properties = BasicProperties::default();
        bench.client.publish("", "theirs", b"{}", properties).await;
    }
    bind(&vhost, "theirs", "#").await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    let driver = Arc::clone(&bench.driver);
    let carried =
        tokio::spawn(async move { driver.carry_out(delivery.token, ended(delivery.work)).await });
    tokio::time::sleep(AWHILE).await;
    assert!(!carried.is_finished(), "it was not refused");
    // As soon as there is room, it is taken.
    while bench.client.take("theirs").await.is_some() {}
    let outcome = tokio::time::timeout(PATIENCE, carried).await;
    outcome.expect("it goes on").unwrap().unwrap();
    ends_without_a_reconnect(bench).await;
}

#[tokio::test]
async fn events_that_no_queue_takes_are_waited_out_where_bindings_are_somebody_elses() {
    let vhost = shared_vhost().await;
    let checks = AmqpSettings {
        topology: TopologyMode::Check,
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, checks).await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    unbind(&vhost, "upgrade.results", "upgrade.events", "%23").await;
    let driver = Arc::clone(&bench.driver);
    let carried =
        tokio::spawn(async move { driver.carry_out(delivery.token, ended(delivery.work)).await });
    is_not_ready(&bench, "nothing is bound to exchange \"upgrade.results\"").await;
    tokio::time::sleep(AWHILE).await;
    assert!(!carried.is_finished());
    bind(&vhost, "upgrade.events", "#").await;
    let outcome = tokio::time::timeout(PATIENCE, carried).await;
    outcome.expect("it goes on").unwrap().unwrap();
    assert!(bench.telemetry.readiness().is_ready());
    ends_without_a_reconnect(bench).await;
}

#[tokio::test]
async fn dead_letters_and_requests_that_no_queue_takes_are_waited_out_where_bindings_are_somebody_elses()
 {
    let vhost = shared_vhost().await;
    let checks = AmqpSettings {
        topology: TopologyMode::Check,
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, checks).await;
    bench.metric_becomes("campaign_leader", 1.0).await;
    let publish = async |body: &[u8]| {
        let properties = BasicProperties::default();
        bench
            .client
            .publish("", "upgrade.requests", body, properties)
            .await;
    };
    unbind(&vhost, "upgrade.dead", "upgrade.dead", "~").await;
    publish(b"{}").await;
    let missing =
        "nothing is bound to exchange \"upgrade.dead\" with key \"\": bind queue \"upgrade.dead\"";
    is_not_ready(&bench, missing).await;
    tokio::time::sleep(AWHILE).await;
    bind_to(&vhost, "upgrade.dead", "upgrade.dead", "").await;
    let letter = bench.client.wait_for("upgrade.dead").await;
    assert_eq!(letter.body, b"{}");
    is_ready_again(&bench).await;

    unbind(&vhost, "upgrade.requests", "upgrade.requests", "%23").await;
    publish(
        br#"{"campaign_id":"spring","firmware_url":"https://files.example/fw.bin","devices":["A"]}"#,
    )
    .await;
    let missing = "nothing is bound to exchange \"upgrade.requests\" with key \"request\": bind queue \"upgrade.requests\"";
    is_not_ready(&bench, missing).await;
    tokio::time::sleep(AWHILE).await;
    bind_to(&vhost, "upgrade.requests", "upgrade.requests", "#").await;
    let delivery = bench.receive().await;
    is_ready_again(&bench).await;
    bench.finish(delivery).await;
    ends_without_a_reconnect(bench).await;
}

#[tokio::test]
async fn a_requesters_queue_that_never_confirms_costs_its_reply_alone() {
    let vhost = shared_vhost().await;
    let soon = AmqpSettings {
        publish_timeout: Duration::from_secs(2),
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, soon).await;
    bench.client.declare("theirs", &[]).await;
    process(&vhost, "suspend").await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    let mut hand_over = ended(delivery.work);
    hand_over.events[0].reply_to = Some("theirs".to_owned());
    let begun = Instant::now();
    let carried = bench.driver.carry_out(delivery.token, hand_over);
    let outcome = tokio::time::timeout(PATIENCE, carried).await;
    outcome.expect("it goes on").unwrap();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(2),
        "it was confirmed after {took:?}"
    );
    assert_eq!(bench.metric("replies_failed_total"), 1.0);
    bench.settles_at("upgrade.events", 1).await;
    process(&vhost, "resume").await;
    ends_without_a_reconnect(bench).await;
}

/// All come to an end. Connections that were given up leave acknowledgements in doubt, and nothing else.
async fn published(mut all: JoinSet<Result<(), DriverError>>) {
    let ended = async {
        while let Some(outcome) = all.join_next().await {
            let outcome = outcome.unwrap();
            assert!(
                matches!(outcome, Ok(()) | Err(DriverError::NotAcknowledged { .. })),
                "{outcome:?}"
            );
        }
    };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("they end");
}

/// Hand-overs whose confirm never comes hold a channel each until the connection is given up; more of them than there are channels.
#[tokio::test]
async fn a_bound_queue_that_never_confirms_holds_its_own_jobs_and_the_others_are_done_once_each() {
    let vhost = shared_vhost().await;
    let soon = AmqpSettings {
        publish_timeout: Duration::from_secs(2),
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, soon).await;
    bench.client.declare("theirs", &[]).await;
    bind(&vhost, "theirs", "upgrade.completed.theirs").await;
    process(&vhost, "suspend").await;
    for number in 0..STUCK {
        bench.submit(&format!("stuck-{number}")).await;
    }
    for number in 0..OTHERS {
        bench.submit(&format!("other-{number}")).await;
    }
    let (mut stuck, mut others) = (Vec::new(), Vec::new());
    while stuck.len() + others.len() < STUCK + OTHERS {
        let delivery = bench.receive().await;
        if delivery.work.job.order.job_id.as_str().starts_with("stuck") {
            stuck.push(delivery);
        } else {
            others.push(delivery);
        }
    }
    let begun = Instant::now();
    let mut carried = JoinSet::new();
    for delivery in stuck {
        let driver = Arc::clone(&bench.driver);
        let mut over = ended(delivery.work);
        over.events[0].routing_key = "upgrade.completed.theirs".to_owned();
        carried.spawn(async move { driver.carry_out(delivery.token, over).await });
    }
    let mut handed_over = JoinSet::new();
    for delivery in others {
        let driver = Arc::clone(&bench.driver);
        let step = to(next(delivery.work), Destination::Now);
        handed_over.spawn(async move { driver.carry_out(delivery.token, step).await });
    }
    let mut done = BTreeSet::new();
    while done.len() < OTHERS {
        let delivery = bench.receive().await;
        let job = delivery.work.job.order.job_id.as_str().to_owned();
        assert_eq!(delivery.work.job.progress.seq, 1, "{job}");
        assert!(done.insert(job.clone()), "{job} came twice");
        let over = ended(delivery.work);
        let driver = Arc::clone(&bench.driver);
        handed_over.spawn(async move { driver.carry_out(delivery.token, over).await });
    }
    published(handed_over).await;
    println!(
        "{OTHERS} jobs beside {STUCK} whose confirm never comes: done after {:.1?} and {} reconnects",
        begun.elapsed(),
        bench.metric("broker_reconnects_total")
    );
    assert!(carried.try_join_next().is_none(), "they were confirmed");
    process(&vhost, "resume").await;
    published(carried).await;
    assert!(bench.receives_nothing(Duration::from_secs(1)).await);
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }
    let Bench { driver, client, .. } = bench;
    driver.stop().await;
    driver.close().await;
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        settles_at(&client, queue, 0).await;
    }
}

/// RabbitMQ's direct replies have no queue, and a mandatory message to one comes back although it is delivered.
#[tokio::test]
async fn a_direct_reply_is_delivered_and_counts_as_no_failure() {
    let vhost = shared_vhost().await;
    let bench = Bench::on(&vhost).await;
    let url = vhost.url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = "amq.rabbitmq.reply-to";
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let consume = channel.basic_consume(name.into(), "".into(), options, FieldTable::default());
    let mut replies = consume.await.unwrap();
    let properties = BasicProperties::default().with_reply_to(name.into());
    let (exchange, options) = ("upgrade.requests".into(), BasicPublishOptions::default());
    let body = request("job");
    let published = channel.basic_publish(exchange, "request".into(), options, &body, properties);
    published.await.unwrap().await.unwrap();
    let delivery = bench.receive().await;
    let mut hand_over = ended(delivery.work);
    hand_over.events[0].reply_to = hand_over.work.carried.reply_to.clone();
    let outcome = bench.driver.carry_out(delivery.token, hand_over).await;
    outcome.unwrap();
    let reply = tokio::time::timeout(PATIENCE, replies.next()).await;
    assert_eq!(reply.unwrap().unwrap().unwrap().data, b"{}");
    assert_eq!(bench.metric("replies_failed_total"), 0.0);
    ends_without_a_reconnect(bench).await;
}

/// What takes the place of a process of its own, whose threads and handles are nobody else's.
const CHILD: &str = "NBI_UPGRADE_TEST_IS_CHILD";

/// A broker that lets in and says nothing: each attempt ends whole.
#[tokio::test]
async fn a_silent_broker_costs_no_threads_and_no_sockets() {
    if std::env::var_os(CHILD).is_none() {
        let name = "chaos::others::a_silent_broker_costs_no_threads_and_no_sockets";
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
        let ended = tokio::time::timeout(PATIENCE, child.kill_on_drop(true).output()).await;
        let output = ended.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
        return;
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(silent.accept().await.unwrap());
        }
    });
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count()
    };
    for scheme in ["amqp", "amqps"] {
        let impatient = AmqpSettings {
            connect_timeout: Duration::from_millis(100),
            ..settings(&format!("{scheme}://{address}"))
        };
        // What the runtime itself needs is there then.
        topology::check_once(&impatient).await.unwrap_err();
        let before = (count("task"), count("fd"));
        for _ in 0..25 {
            topology::check_once(&impatient).await.unwrap_err();
        }
        // The other side of each socket is here too, and stays.
        let bound = (before.0 + 5, before.1 + 25 + 5);
        until("threads and sockets to be gone", PATIENCE, async || {
            count("task") <= bound.0 && count("fd") <= bound.1
        })
        .await;
    }
    accepted.abort();
}
