//! Queues that are deleted, full, or whose delivery is held for too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use nbi_upgrade::driver::amqp::AmqpSettings;
use nbi_upgrade::driver::{Destination, Driver, DriverError};

use super::bench::{Bench, aside, ended, in_seconds, next, settings, shared_vhost, to};
use crate::support::rabbit::Node;
use crate::support::site::is_long;

#[tokio::test]
async fn a_queue_deleted_under_its_consumer_is_declared_again() {
    let bench = Bench::on(&shared_vhost().await).await;
    bench.submit("in-hand").await;
    let in_hand = bench.receive().await;
    for queue in ["upgrade.requests", "upgrade.steps"] {
        let before = bench.metric("broker_reconnects_total");
        bench.client.delete(queue).await;
        bench
            .metric_reaches("broker_reconnects_total", before + 1.0)
            .await;
    }
    // Its own message went with the queue; the job is in hand and goes on.
    let outcome = bench
        .driver
        .carry_out(in_hand.token, to(next(in_hand.work), Destination::Now))
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    bench.submit("after").await;
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.order.job_id.as_str(), "after");
    bench.finish(delivery).await;
    bench.end().await;
}

/// The broker takes away what is held for too long, so the leader of campaigns gives it back from time to time, and gets it again.
#[tokio::test]
async fn what_the_leader_of_campaigns_gives_back_comes_again_and_it_leads_on() {
    let vhost = shared_vhost().await;
    let often = AmqpSettings {
        campaign_held_max: Duration::from_secs(1),
        ..settings(&vhost.url())
    };
    let bench = Bench::with(&vhost, often).await;
    bench.metric_becomes("campaign_leader", 1.0).await;
    let campaign = br#"{"campaign_id":"spring","firmware_url":"https://files.example/fw.bin","devices":["A","B"],
        "not_before":"2090-01-01T00:00:00Z","deadline":"2091-01-01T00:00:00Z"}"#;
    let properties = BasicProperties::default();
    bench
        .client
        .publish("upgrade.requests", "request", campaign, properties)
        .await;
    bench.metric_becomes("campaigns_active", 1.0).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        let (leads, active) = (
            bench.metric("campaign_leader"),
            bench.metric("campaigns_active"),
        );
        assert_eq!((leads, active), (1.0, 1.0), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_delay_queue_at_its_limit_refuses_until_the_limit_is_lifted() {
    if !is_long() {
        return;
    }
    let vhost = shared_vhost().await;
    let bench = Bench::on(&vhost).await;
    for _ in 0..3 {
        bench
            .client
            .publish("", "upgrade.delay.32s", b"{}", BasicProperties::default())
            .await;
    }
    let policy = format!("/api/policies/{}/full", vhost.name());
    let limit = r#"{"pattern":"^upgrade\\.delay\\.32s$","apply-to":"queues","definition":{"max-length":1}}"#;
    aside({
        let policy = policy.clone();
        move || Node::shared().api("PUT", &policy, Some(limit))
    })
    .await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    let driver = Arc::clone(&bench.driver);
    let carried = tokio::spawn(async move {
        driver
            .carry_out(delivery.token, to(next(delivery.work), in_seconds(33)))
            .await
    });
    // The policy takes effect a moment after the answer; the refusals begin at once then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!carried.is_finished(), "it was not refused");
    aside(move || Node::shared().api("DELETE", &policy, None)).await;
    let lifted = Instant::now();
    let outcome = carried.await.unwrap();
    println!(
        "limit lifted: confirmed after {:.0?}, {} reconnects, {outcome:?}",
        lifted.elapsed(),
        bench.metric("broker_reconnects_total")
    );
    assert!(!matches!(outcome, Err(DriverError::NotPublished { .. })));
    bench.settles_at("upgrade.requests", 0).await;
    bench.end().await;
}

#[tokio::test]
async fn a_missing_events_stream_is_declared_again_and_the_event_reaches_it() {
    let bench = Bench::on(&shared_vhost().await).await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    bench.client.delete("upgrade.events").await;
    let outcome = bench
        .driver
        .carry_out(delivery.token, ended(delivery.work))
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    bench.settles_at("upgrade.events", 1).await;
    bench.metric_reaches("duplicates_dropped_total", 1.0).await;
    assert_eq!(bench.metric("broker_reconnects_total"), 1.0);
    bench.settles_at("upgrade.requests", 0).await;
    bench.end().await;
}

/// The broker looks for such deliveries once a minute.
#[tokio::test]
async fn a_delivery_held_for_too_long_is_taken_away_and_not_worked_on_twice() {
    if !is_long() {
        return;
    }
    let node = aside(Node::start).await;
    // Channels take the limit over when they open.
    node.control(&[
        "eval",
        "application:set_env(rabbit, consumer_timeout, 5000).",
    ]);
    let bench = Bench::on(&node.vhost()).await;
    bench.submit("held").await;
    let held = bench.receive().await;
    let begun = Instant::now();
    super::bench::until(
        "the broker's patience to end",
        Duration::from_secs(200),
        async || bench.metric("broker_reconnects_total") == 1.0,
    )
    .await;
    println!("held delivery taken away after {:.0?}", begun.elapsed());
    let outcome = bench
        .driver
        .carry_out(held.token, to(next(held.work), Destination::Now))
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    bench.metric_reaches("duplicates_dropped_total", 1.0).await;
    bench.settles_at("upgrade.requests", 0).await;
    bench.end().await;
    aside(move || drop(node)).await;
}
