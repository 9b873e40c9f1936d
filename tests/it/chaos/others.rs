//! Queues of others that are full, unbound or silent: what is in hand waits, and no delivery is counted for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use nbi_upgrade::driver::Driver;
use nbi_upgrade::driver::amqp::{AmqpSettings, TopologyMode};

use super::bench::{Bench, PATIENCE, aside, ended, settings, shared_vhost, until};
use crate::support::rabbit::{Node, Vhost};

/// Several times the age at which a channel that is refused is replaced.
const AWHILE: Duration = Duration::from_secs(5);

async fn bind(vhost: &Vhost, queue: &str) {
    let path = format!("/api/bindings/{}/e/upgrade.results/q/{queue}", vhost.name());
    let key = Some(r##"{"routing_key":"#"}"##);
    aside(move || Node::shared().api("POST", &path, key)).await;
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
    bind(&vhost, "theirs").await;
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
    let path = format!(
        "/api/bindings/{}/e/upgrade.results/q/upgrade.events/%23",
        vhost.name()
    );
    aside(move || Node::shared().api("DELETE", &path, None)).await;
    let driver = Arc::clone(&bench.driver);
    let carried =
        tokio::spawn(async move { driver.carry_out(delivery.token, ended(delivery.work)).await });
    let said = "not ready; broker: nothing is bound to exchange \"upgrade.results\"";
    until("what is missing", PATIENCE, async || {
        bench.telemetry.readiness().to_string().starts_with(said)
    })
    .await;
    tokio::time::sleep(AWHILE).await;
    assert!(!carried.is_finished());
    bind(&vhost, "upgrade.events").await;
    let outcome = tokio::time::timeout(PATIENCE, carried).await;
    outcome.expect("it goes on").unwrap().unwrap();
    assert!(bench.telemetry.readiness().is_ready());
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
    let process = |what: &str| {
        let queue = format!(
            "rabbit_misc:r(<<\"{}\">>, queue, <<\"theirs\">>)",
            vhost.name()
        );
        let call = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), sys:{what}(amqqueue:get_pid(Q))."
        );
        aside(move || Node::shared().control(&["eval", &call]))
    };
    process("suspend").await;
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
    process("resume").await;
    ends_without_a_reconnect(bench).await;
}
