//! A broker that drops connections, dies, or is not there yet.

use std::time::Instant;

use serde_json::Value;

use crate::support::processes::until;
use crate::support::proxy::Proxy;
use crate::support::rabbit::Node;
use crate::support::site::{PATIENCE, Plan, Site, is_long, requests};

/// Devices take 8 to 26 s, so that trouble finds jobs in every stage.
const SLOW: &str = "0.2";

fn count() -> usize {
    if is_long() { 3_000 } else { 300 }
}

/// All completed, each device flashed once; prints what the trouble cost.
async fn ends_well(site: Site, count: usize, trouble: &str) {
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    let mut lateness = Vec::new();
    for worker in &site.workers {
        lateness.push(latest(&worker.metrics().await));
    }
    let summary = site.end(count).await;
    let completed: usize = outcomes
        .iter()
        .filter(|(name, _)| name.starts_with("completed/"))
        .map(|(_, count)| count)
        .sum();
    eprintln!(
        "{trouble}: {outcomes:?}, {repeats} repeated events, latest step within {lateness:?} s"
    );
    assert_eq!(
        (completed, &summary["flashes"]),
        (count, &count.into()),
        "{outcomes:?} {summary}"
    );
}

/// The bound of the bucket that the latest step is in.
fn latest(metrics: &str) -> String {
    let buckets = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("nbi_upgrade_step_lateness_seconds_bucket{le=\""));
    let buckets: Vec<(&str, u64)> = buckets
        .filter_map(|line| {
            let (bound, count) = line.split_once("\"} ")?;
            Some((bound, count.parse().ok()?))
        })
        .collect();
    let all = buckets.last().map_or(0, |(_, count)| *count);
    let first = buckets.iter().find(|(_, count)| *count == all);
    first.map_or_else(String::new, |(bound, _)| (*bound).to_owned())
}

#[tokio::test]
async fn connections_that_are_closed_again_and_again_lose_no_job() {
    let count = count();
    let devices = count.to_string();
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", SLOW],
        ..Plan::default()
    };
    let mut site = Site::begin(2, plan).await;
    site.submit(&requests(count)).await;
    for _ in 0..3 {
        let vhost = site.vhost.clone();
        // The management API knows of a connection some seconds after it was made.
        until(
            "the workers' connections to be closed",
            PATIENCE,
            async || {
                let vhost = vhost.clone();
                let close = move || Node::shared().close_connections(&vhost);
                let closed = tokio::task::spawn_blocking(close).await.unwrap();
                (closed >= 4).then_some(())
            },
        )
        .await;
        for worker in &site.workers {
            worker.ready().await;
        }
    }
    assert!(site.results.count_of_finals() < count);
    site.results.finals(count, PATIENCE).await;
    site.reconnect().await;
    ends_well(site, count, "connections closed three times").await;
}

#[tokio::test]
async fn a_broker_killed_in_the_middle_loses_no_job() {
    let count = count();
    let devices = count.to_string();
    let node = tokio::task::spawn_blocking(Node::start).await.unwrap();
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", SLOW],
        ..Plan::default()
    };
    let mut site = Site::begin_on(node.vhost(), 2, plan).await;
    site.submit(&requests(count)).await;
    // Some devices take longer than RabbitMQ 3.10 needs until it finds a stream again after it was killed, which is a second or more.
    site.results.finals(count / 10, PATIENCE).await;
    let restarting = tokio::task::spawn_blocking(move || {
        let mut node = node;
        node.kill9();
        node.restart();
        node
    });
    let node = restarting.await.unwrap();
    let begun = Instant::now();
    for worker in &site.workers {
        worker.ready().await;
    }
    let ready = begun.elapsed();
    site.results.finals(count, PATIENCE).await;
    site.reconnect().await;
    let trouble = format!(
        "broker killed; workers ready {ready:.1?} after it, all done after {:.1?}",
        begun.elapsed()
    );
    ends_well(site, count, &trouble).await;
    tokio::task::spawn_blocking(move || drop(node))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_worker_without_a_broker_starts_calmly_and_connects_when_it_comes() {
    let mut site = Site::begin(0, Plan::default()).await;
    let mut proxy = Proxy::closed(&site.vhost.address());
    let url = format!(
        "amqp://guest:guest@{}/{}",
        proxy.address(),
        site.vhost.name()
    );
    site.set("NBI_UPGRADE_AMQP__URL", &url);
    site.start_worker().await;
    let worker = &site.workers[0];
    let why = worker.not_ready("broker").await;
    assert!(
        worker
            .get("/livez")
            .await
            .is_some_and(|(status, _)| status == 200)
    );
    // What lasts is not said again for each attempt.
    let complaints = until("a line about it", PATIENCE, async || {
        let log = worker.process.log();
        let complaints: Vec<_> = log
            .into_iter()
            .filter(|line| !line.contains("\"INFO\""))
            .collect();
        (!complaints.is_empty()).then_some(complaints)
    })
    .await;
    assert!(complaints.len() <= 3, "{complaints:?}");
    eprintln!("{why}\n{}", complaints.join("\n"));
    for line in &complaints {
        let line: Value = serde_json::from_str(line).expect("one line each, and nothing else");
        let text = line.to_string();
        assert!(
            text.contains("broker lost") && text.contains(&proxy.address()),
            "{text}"
        );
        assert!(
            text.contains("retry_in_ms") && !text.contains("guest:guest"),
            "{text}"
        );
    }
    assert_eq!(worker.metric("broker_connected").await, 0.0);
    proxy.open().await;
    worker.ready().await;
    assert_eq!(worker.metric("broker_connected").await, 1.0);
    site.submit(&requests(1)).await;
    site.results.finals(1, PATIENCE).await;
    site.end(1).await;
}
