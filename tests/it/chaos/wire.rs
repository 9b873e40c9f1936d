//! Connections cut between two frames, in the middle of one, half-open, silent at an exact moment, slow.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use nbi_upgrade::driver::amqp::{AmqpSettings, Token};
use nbi_upgrade::driver::{Delivery, Destination, Driver, DriverError};

use super::bench::{Bench, PATIENCE, ended, in_seconds, next, settings, shared_vhost, to};
use crate::support::amqp_proxy::{ACK, AmqpProxy, CONSUME, DECLARED, From, PUBLISH};

const A_WHILE: Duration = Duration::from_secs(2);
/// Short, where silence is to be noticed soon. A busy machine may miss it where nobody is silent: then there is one more reconnect.
const SHORT: Duration = Duration::from_secs(2);
/// Connections of a generation.
const CONNECTIONS: u32 = 2;

/// Plans something for the connections behind a proxy.
type Plan = fn(&AmqpProxy);

/// A driver behind a proxy.
async fn behind_a_proxy() -> (AmqpProxy, Bench) {
    behind_a_proxy_that(|_| {}, |_| {}).await
}

/// The same where silence is noticed soon.
async fn behind_a_proxy_with_short_heartbeats() -> (AmqpProxy, Bench) {
    behind_a_proxy_that(|_| {}, soon).await
}

fn soon(settings: &mut AmqpSettings) {
    settings.heartbeat = SHORT;
    settings.connect_timeout = 2 * SHORT;
}

/// The same where something is planned for the first connections of all.
async fn behind_a_proxy_that(
    plan: impl FnOnce(&AmqpProxy),
    change: impl FnOnce(&mut AmqpSettings),
) -> (AmqpProxy, Bench) {
    let vhost = shared_vhost().await;
    let proxy = AmqpProxy::before(vhost.address()).await;
    plan(&proxy);
    let mut settings = settings(&proxy.url(vhost.name()));
    change(&mut settings);
    let bench = Bench::with(&vhost, settings).await;
    (proxy, bench)
}

/// Nothing more comes, nothing is left, and so many copies were dropped.
async fn is_over(bench: Bench, dropped: RangeInclusive<u32>) {
    let [least, most] = [*dropped.start(), *dropped.end()].map(f64::from);
    bench
        .metric_reaches("duplicates_dropped_total", least)
        .await;
    assert!(bench.receives_nothing(A_WHILE).await, "something is left");
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        bench.settles_at(queue, 0).await;
    }
    let [seen, reconnects] =
        ["duplicates_dropped_total", "broker_reconnects_total"].map(|name| bench.metric(name));
    // What was in hand at a reconnect that nobody planned came again.
    assert!(
        seen <= most || reconnects > 1.0,
        "{seen} copies dropped after {reconnects} reconnects, not {dropped:?}"
    );
    // What is unacknowledged comes back when the driver ends.
    let Bench { driver, client, .. } = bench;
    driver.stop().await;
    driver.close().await;
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        super::bench::settles_at(&client, queue, 0).await;
    }
}

/// The job is over. Its acknowledgement may be lost with a connection that a busy machine gives up.
async fn finish(bench: &Bench, delivery: Delivery<Token>) {
    let over = to(delivery.work, Destination::Nowhere);
    let outcome = bench.driver.carry_out(delivery.token, over).await;
    if outcome.is_err() {
        assert!(
            matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
            "{outcome:?}"
        );
        bench.metric_reaches("broker_reconnects_total", 2.0).await;
    }
}

/// Hands it over while the proxy cuts the connection: the next one publishes it, and cannot acknowledge.
async fn goes_on_over_the_cut(
    proxy: &AmqpProxy,
    bench: &Bench,
    delivery: Delivery<Token>,
    destination: Destination,
) {
    let hand_over = to(next(delivery.work), destination);
    let outcome = bench.driver.carry_out(delivery.token, hand_over).await;
    assert!(proxy.has_struck());
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_cut_before_the_publish_repeats_the_publish_alone() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Client, PUBLISH);
    goes_on_over_the_cut(&proxy, &bench, delivery, Destination::Now).await;
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    is_over(bench, 1..=1).await;
}

#[tokio::test]
async fn a_cut_between_publish_and_confirm_makes_a_marked_copy_that_is_dropped() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Broker, ACK);
    goes_on_over_the_cut(&proxy, &bench, delivery, Destination::Now).await;
    // Both are there now: the one whose confirm was lost, and the one published again.
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    assert!(bench.receives_nothing(A_WHILE).await, "the copy waits");
    bench.finish(delivery).await;
    is_over(bench, 2..=2).await;
}

#[tokio::test]
async fn a_marked_copy_that_comes_after_the_first_is_over_is_dropped_too() {
    let (proxy, bench) = behind_a_proxy().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.cut_before(From::Broker, ACK);
    goes_on_over_the_cut(&proxy, &bench, delivery, in_seconds(1)).await;
    // The one whose confirm was lost is due first; the one published again comes later by what the reconnect took.
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    is_over(bench, 2..=2).await;
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
    assert!(proxy.has_struck());
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    bench.settles_at("upgrade.events", 2).await;
    is_over(bench, 1..=1).await;
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
    bench.metric_reaches("duplicates_dropped_total", 1.0).await;
    assert!(proxy.has_struck());
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    bench.finish(delivery).await;
    is_over(bench, 1..=1).await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_by_the_heartbeat() {
    let (proxy, bench) = behind_a_proxy_with_short_heartbeats().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.freeze();
    let begun = Instant::now();
    bench.metric_reaches("broker_reconnects_total", 1.0).await;
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
    finish(&bench, delivery).await;
    // The broker notices as well, and delivers the request again.
    is_over(bench, 1..=1).await;
}

#[tokio::test]
async fn a_publish_into_silence_goes_on_by_the_next_connection() {
    let (proxy, bench) = behind_a_proxy_with_short_heartbeats().await;
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
    finish(&bench, delivery).await;
    is_over(bench, 1..=1).await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_instead_of_confirming_makes_a_marked_copy_that_is_dropped() {
    let (proxy, bench) = behind_a_proxy_with_short_heartbeats().await;
    bench.submit("job").await;
    let delivery = bench.receive().await;
    proxy.freeze_before(From::Broker, ACK);
    let step = to(next(delivery.work), Destination::Now);
    let carried = bench.driver.carry_out(delivery.token, step);
    // The heartbeat ends it, and nobody's longer patience.
    let outcome = tokio::time::timeout(PATIENCE, carried).await.unwrap();
    assert!(proxy.has_struck());
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = bench.receive().await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    finish(&bench, delivery).await;
    // The copy, and the request once the broker has noticed the silence as well.
    is_over(bench, 2..=2).await;
}

#[tokio::test]
async fn a_connection_cut_anywhere_loses_no_job() {
    let mut cuts = Vec::new();
    // From the greeting of a new connection to the middle of its work; the broker says less.
    for (side, places) in [
        (From::Client, [0, 30, 1_000, 2_500, 5_000, 6_500]),
        (From::Broker, [0, 30, 1_000, 2_000, 2_500, 3_300]),
    ] {
        for bytes in places {
            cuts.push(async move {
                let cut = |proxy: &AmqpProxy| proxy.cut_after(side, bytes);
                let (proxy, bench) = behind_a_proxy_that(cut, |_| {}).await;
                three_jobs(&bench).await;
                assert!(proxy.has_struck(), "{side:?} {bytes}");
                is_over(bench, 0..=3).await;
            });
        }
    }
    futures_util::future::join_all(cuts).await;
}

/// Nothing of it came to stand, so the next generation is the first.
#[tokio::test]
async fn a_connection_that_falls_silent_while_it_is_set_up_is_given_up_for_the_next() {
    let places: [(&str, Plan); 6] = [
        ("the greeting", |it| it.freeze_after(From::Client, 0)),
        ("its answer", |it| it.freeze_after(From::Broker, 0)),
        ("the topology", |it| {
            it.freeze_before(From::Broker, DECLARED)
        }),
        ("the middle of it", |it| {
            it.freeze_after(From::Broker, 1_000)
        }),
        ("the end of it", |it| it.freeze_after(From::Client, 4_000)),
        ("the orders", |it| it.freeze_before(From::Client, CONSUME)),
    ];
    let silences = places.map(async |(place, freeze)| {
        let (proxy, bench) = behind_a_proxy_that(freeze, soon).await;
        three_jobs(&bench).await;
        assert!(proxy.has_struck(), "{place}");
        // A generation that stood, after the first one that did, has connections of its own.
        let reconnects = bench.metric("broker_reconnects_total");
        let generations = f64::from(proxy.accepted() / CONNECTIONS);
        assert!(
            reconnects <= generations - 2.0,
            "{place}: {reconnects} reconnects, {generations} generations"
        );
        is_over(bench, 0..=3).await;
    });
    futures_util::future::join_all(silences).await;
}

/// Submits three jobs and ends each; each must come exactly once.
async fn three_jobs(bench: &Bench) {
    let all: BTreeSet<_> = (0..3).map(|number| format!("job-{number}")).collect();
    for job in &all {
        bench.submit(job).await;
    }
    let mut ran = BTreeSet::new();
    while ran.len() < all.len() {
        let delivery = bench.receive().await;
        let job = delivery.work.job.order.job_id.as_str().to_owned();
        let over = to(delivery.work, Destination::Nowhere);
        let outcome = bench.driver.carry_out(delivery.token, over).await;
        assert!(
            !matches!(outcome, Err(DriverError::NotPublished { .. })),
            "{outcome:?}"
        );
        assert!(ran.insert(job), "one ran twice");
    }
    assert_eq!(ran, all);
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
    is_over(bench, 0..=0).await;
}
