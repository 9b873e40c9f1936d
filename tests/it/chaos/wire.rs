//! Connections cut between two frames, in the middle of one, half-open, slow.

use std::time::{Duration, Instant};

use nbi_upgrade::driver::amqp::AmqpSettings;
use nbi_upgrade::driver::{Destination, Driver, DriverError};

use super::bench::{Bench, ended, next, settings, shared_vhost, to};
use crate::support::amqp_proxy::{ACK, AmqpProxy, From, PUBLISH};

const A_WHILE: Duration = Duration::from_secs(2);

/// A driver behind a proxy.
async fn behind_a_proxy() -> (AmqpProxy, Bench) {
    let vhost = shared_vhost().await;
    let proxy = AmqpProxy::before(vhost.address()).await;
    let settings = AmqpSettings {
        heartbeat: Duration::from_secs(2),
        ..settings(&proxy.url(vhost.name()))
    };
    let bench = Bench::with(&vhost, settings).await;
    (proxy, bench)
}

/// Nothing more comes and nothing is left.
async fn is_over(bench: Bench) {
    assert!(bench.receives_nothing(A_WHILE).await, "something is left");
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }
    // What is unacknowledged comes back when the driver ends.
    let Bench { driver, client, .. } = bench;
    driver.stop().await;
    driver.close().await;
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        super::bench::settles_at(&client, queue, 0).await;
    }
}

#[tokio::test]
async fn a_cut_before_the_publish_repeats_the_publish_alone() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Client, PUBLISH);
    let outcome = bench
        .driver
        .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
        .await;
    assert!(proxy.has_cut());
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    bench.metric_becomes("duplicates_dropped_total", 1.0).await;
    is_over(bench).await;
}

#[tokio::test]
async fn a_cut_between_publish_and_confirm_makes_a_marked_copy_that_is_dropped() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Broker, ACK);
    let outcome = bench
        .driver
        .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
        .await;
    assert!(proxy.has_cut());
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    // Both are there now: the one whose confirm was lost, and the one published again.
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    assert!(bench.receives_nothing(A_WHILE).await, "the copy waits");
    bench.finish(delivery).await;
    bench.metric_becomes("duplicates_dropped_total", 2.0).await;
    is_over(bench).await;
}

#[tokio::test]
async fn an_event_whose_confirm_is_lost_may_come_twice_and_the_job_does_not() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Broker, ACK);
    let outcome = bench
        .driver
        .carry_out(delivery.token, ended(delivery.work))
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    bench.settles_at("upgrade.events", 2).await;
    bench.metric_becomes("duplicates_dropped_total", 1.0).await;
    is_over(bench).await;
}

#[tokio::test]
async fn an_acknowledgement_lost_on_the_wire_does_not_make_the_stage_run_again() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Client, ACK);
    // To the client the acknowledgement is as good as sent, so either answer is right.
    let outcome = bench
        .driver
        .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
        .await;
    assert!(
        matches!(outcome, Ok(()) | Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    bench.metric_becomes("duplicates_dropped_total", 1.0).await;
    assert!(proxy.has_cut());
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    is_over(bench).await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_by_the_heartbeat() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.freeze();
    let begun = Instant::now();
    bench.metric_becomes("broker_reconnects_total", 1.0).await;
    println!(
        "half-open connection: connected again after {:.1?} at a heartbeat of 2 s",
        begun.elapsed()
    );
    let outcome = bench
        .driver
        .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    // The broker notices as well, and delivers the request again.
    bench.metric_becomes("duplicates_dropped_total", 1.0).await;
    is_over(bench).await;
}

#[tokio::test]
async fn a_publish_into_silence_goes_on_by_the_next_connection() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.freeze();
    let begun = Instant::now();
    let outcome = bench
        .driver
        .carry_out(delivery.token, to(next(delivery.work), Destination::Now))
        .await;
    println!(
        "publish into silence: confirmed after {:.1?}",
        begun.elapsed()
    );
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    bench.metric_becomes("duplicates_dropped_total", 1.0).await;
    is_over(bench).await;
}

#[tokio::test]
async fn a_connection_cut_anywhere_loses_no_job() {
    let mut cuts = Vec::new();
    for side in [From::Client, From::Broker] {
        // From the greeting of a new connection to the middle of its work.
        for bytes in [0, 30, 1_000, 2_500, 5_000, 6_500] {
            cuts.push(three_jobs_with_a_cut_after(side, bytes));
        }
    }
    let ran: usize = futures_util::future::join_all(cuts).await.into_iter().sum();
    println!("12 cuts: 36 jobs ran {ran} times");
    assert_eq!(ran, 36);
}

/// How often the jobs ran, together.
async fn three_jobs_with_a_cut_after(side: From, bytes: usize) -> usize {
    let (proxy, bench) = behind_a_proxy().await;
    proxy.cut_after(side, bytes);
    let mut ran = std::collections::BTreeMap::<String, usize>::new();
    for number in 0..3 {
        bench.submit(&format!("job-{number}")).await;
    }
    while ran.len() < 3 {
        let delivery = bench.receive().await;
        let job = delivery.work.job.order.job_id.as_str().to_owned();
        let over = to(delivery.work, Destination::Nowhere);
        let outcome = bench.driver.carry_out(delivery.token, over).await;
        assert!(
            !matches!(outcome, Err(DriverError::NotPublished { .. })),
            "{side:?} {bytes}: {outcome:?}"
        );
        *ran.entry(job).or_default() += 1;
    }
    is_over(bench).await;
    ran.values().sum()
}

#[tokio::test]
async fn a_slow_network_only_slows() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("first").await;
    let first = bench.receive().await;
    bench.finish(first).await;
    proxy.delay(Duration::from_millis(150));
    for number in 0..20 {
        bench.submit(&format!("job-{number}")).await;
    }
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let delivery = bench.receive().await;
        let driver = std::sync::Arc::clone(&bench.driver);
        tasks.spawn(async move {
            let over = ended(delivery.work);
            driver.carry_out(delivery.token, over).await.unwrap();
        });
    }
    tasks.join_all().await;
    println!("20 jobs over a way of 150 ms: {:.1?}", begun.elapsed());
    assert_eq!(bench.metric("broker_reconnects_total"), 0.0);
    is_over(bench).await;
}
