//! Three nodes as one broker, while workers run: a node killed, the leader's node killed, a node cut off. Nothing may be lost.

use std::time::{Duration, Instant};

use super::bench::aside;
use crate::support::cluster::Cluster;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, is_long, requests};

const JOBS: usize = 300;
/// How long a node is cut off: longer than the other two need to notice it.
const APART: Duration = Duration::from_secs(75);

#[tokio::test]
async fn a_cluster_that_loses_nodes_loses_no_job() {
    if !is_long() {
        return;
    }
    let begun = Instant::now();
    let mut cluster = aside(Cluster::start).await;
    let vhost = cluster.nodes[0].vhost();
    println!("three nodes joined after {:.0?}", begun.elapsed());
    let urls = cluster.urls(&vhost).join(",");
    let devices = (2 * JOBS).to_string();
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", "0.1"],
        environment: &[("NBI_UPGRADE_AMQP__HEARTBEAT", "5s")],
    };
    let mut site = Site::begin_on(vhost.clone(), 0, plan).await;
    site.set_urls(&urls);
    for _ in 0..2 {
        site.start_worker().await;
    }
    for worker in &site.workers {
        worker.ready().await;
    }
    site.submit(&requests(JOBS)).await;
    // The collector and the client beside it are on the first node, which stays.
    let leader = cluster.leader(0, &vhost, &format!("{PREFIX}.steps"));
    let (victim, other) = if leader == 0 {
        (1, 2)
    } else {
        (leader, 3 - leader)
    };
    for (what, node) in [("a node", other), ("the leader's node", victim)] {
        let killed = Instant::now();
        let named = leader == node;
        cluster = aside(move || {
            cluster.nodes[node].kill9();
            cluster
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster = aside(move || {
            cluster.nodes[node].begin_again();
            cluster.wait_until_whole();
            cluster
        })
        .await;
        println!(
            "{what} (leads steps: {named}) killed, whole again after {:.0?}; {} jobs are over",
            killed.elapsed(),
            site.results.count_of_finals()
        );
    }
    site.submit(&requests(2 * JOBS)[JOBS..]).await;
    cluster = aside(move || {
        cluster.isolate(victim, true);
        cluster
    })
    .await;
    tokio::time::sleep(APART).await;
    cluster = aside(move || {
        cluster.isolate(victim, false);
        cluster.wait_until_whole();
        cluster
    })
    .await;
    println!("a node was cut off for {APART:?} and is back");
    let healed = Instant::now();
    for worker in &site.workers {
        worker.ready().await;
    }
    site.results.finals(2 * JOBS, 2 * PATIENCE).await;
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    println!(
        "all over {:.0?} after the last trouble: {outcomes:?}, {repeats} repeated events",
        healed.elapsed()
    );
    site.reconnect().await;
    let summary = site.end(2 * JOBS).await;
    println!("{summary}; {:.0?} in all", begun.elapsed());
    aside(move || drop(cluster)).await;
}
