//! Waiting jobs after the broker was killed: how late they come.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::driver::Driver;

use super::bench::{Bench, aside, in_seconds, next, to};
use crate::support::rabbit::Node;
use crate::support::site::is_long;

const JOBS: usize = 120;
/// With the setting that is shipped (`dead_letter_worker_publisher_confirm_timeout` 15 s); the broker's own would be three minutes.
const LATEST: SignedDuration = SignedDuration::from_secs(30);

#[tokio::test]
async fn waiting_jobs_come_in_time_after_the_broker_was_killed() {
    let rounds = if is_long() { 6 } else { 1 };
    for round in 1..=rounds {
        let found = one_round().await;
        println!("round {round}: {found}");
    }
}

/// What was found, in words.
async fn one_round() -> String {
    let node = aside(Node::start).await;
    let vhost = node.vhost();
    let bench = Bench::on(&vhost).await;
    // RabbitMQ 3.10 does not find a stream again that was declared less than a second before it is killed.
    let settled = Instant::now() + Duration::from_secs(5);
    for number in 0..JOBS {
        bench.submit(&format!("job-{number}")).await;
    }
    for number in 0..JOBS {
        let delivery = bench.receive().await;
        let waits = 8 + i64::try_from(number % 30).unwrap();
        let parked = to(next(delivery.work), in_seconds(waits));
        bench
            .driver
            .carry_out(delivery.token, parked)
            .await
            .unwrap();
    }
    tokio::time::sleep_until(settled.into()).await;
    let killed = Instant::now();
    let node = aside(move || {
        let mut node = node;
        node.kill9();
        node.restart();
        node
    })
    .await;
    let (up, away) = (Timestamp::now(), killed.elapsed());
    let mut late: Vec<SignedDuration> = Vec::new();
    let mut came = std::collections::BTreeSet::new();
    while came.len() < JOBS {
        let delivery = bench.receive().await;
        let due = delivery.work.not_due_before.unwrap();
        late.push(Timestamp::now().duration_since(due.max(up)));
        came.insert(delivery.work.job.order.job_id.as_str().to_owned());
        bench.finish(delivery).await;
    }
    late.sort();
    let found = format!(
        "broker away for {away:.1?}; {JOBS} waiting jobs, {} deliveries, lateness p50 {:#}, max {:#}",
        late.len(),
        late[late.len() / 2],
        late[late.len() - 1]
    );
    assert!(late.iter().all(|late| *late < LATEST));
    bench.end().await;
    aside(move || drop(node)).await;
    found
}
