//! Three nodes as one broker, while a worker is killed every second: a node killed, the leader's node killed, a node cut off. Nothing may
//! be lost, and who was on that node goes on by another.

use std::time::{Duration, Instant};

use super::bench::aside;
use super::soak::{BETWEEN_WORKERS, WORKERS, jobs, replace_a_worker, to_the_end};
use crate::support::cluster::Cluster;
use crate::support::processes::Worker;
use crate::support::site::{PREFIX, Plan, Site, is_long, requests};

/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(5);
/// How long a node is cut off after the other two have noticed it, and it has paused itself.
const APART: Duration = Duration::from_secs(60);
const SUBMITTED_AT_ONCE: usize = 1_000;
/// Workers of which one is on a certain node of three: that none is, is a chance of one in a thousand million.
const TRIES: usize = 50;

/// Kills a worker every second and starts another, while something is done to the cluster.
async fn killing_workers(
    site: &mut Site,
    mut cluster: Cluster,
    trouble: impl FnOnce(&mut Cluster) + Send + 'static,
) -> (Cluster, usize) {
    let done = tokio::task::spawn_blocking(move || {
        trouble(&mut cluster);
        cluster
    });
    let mut killed = 0;
    while !done.is_finished() {
        replace_a_worker(site).await;
        killed += 1;
        site.results.take_until(BETWEEN_WORKERS, |_| false).await;
    }
    (done.await.unwrap(), killed)
}

/// Which of these nodes a worker is connected to, as its log says.
fn node_of(worker: &Worker, addresses: &[String]) -> Option<usize> {
    let log = worker.process.log();
    let last = log.iter().rev();
    let line = last
        .into_iter()
        .find(|line| line.contains("broker connected"))?;
    let is_there = |address: &String| line.contains(&format!("//{address}/"));
    addresses.iter().position(is_there)
}

/// A worker that is connected to this node, and that nobody kills.
async fn one_on(site: &mut Site, node: usize, addresses: &[String]) -> Worker {
    // Where a worker begins is chance.
    for _ in 0..TRIES {
        site.start_worker().await;
        let worker = site.workers.pop().unwrap();
        worker.ready().await;
        if node_of(&worker, addresses) == Some(node) {
            return worker;
        }
        worker.kill9().await;
    }
    panic!("of {TRIES} workers none is on node {node}");
}

/// It has gone on by another node, and may be killed from now on.
async fn moved(site: &mut Site, worker: Worker, from: usize, addresses: &[String]) {
    worker.ready().await;
    let now = node_of(&worker, addresses);
    println!("a worker on node {from} is on {now:?} now");
    assert!(now.is_some_and(|now| now != from), "{now:?}");
    assert!(worker.metric("broker_reconnects_total").await >= 1.0);
    site.workers.push(worker);
}

async fn submit(site: &Site, requests: &[serde_json::Value]) {
    for part in requests.chunks(SUBMITTED_AT_ONCE) {
        site.submit(part).await;
    }
}

#[tokio::test]
async fn a_cluster_that_loses_nodes_loses_no_job() {
    if !is_long() {
        return;
    }
    let jobs = jobs();
    let begun = Instant::now();
    let mut cluster = aside(Cluster::start).await;
    let vhost = cluster.nodes[0].vhost();
    println!("three nodes joined after {:.0?}", begun.elapsed());
    let urls = cluster.urls(&vhost).join(",");
    let addresses: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.sees(&vhost).address())
        .collect();
    let devices = jobs.to_string();
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", "0.1"],
        environment: &[
            ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "4s"),
            ("NBI_UPGRADE_AWAIT_RESULT__MAX", "8s"),
            ("NBI_UPGRADE_AMQP__HEARTBEAT", "5s"),
        ],
    };
    let mut site = Site::begin_on(vhost.clone(), 0, plan).await;
    site.set_urls(&urls);
    for _ in 0..WORKERS {
        site.start_worker().await;
    }
    for worker in &site.workers {
        worker.ready().await;
    }
    let all = requests(jobs);
    let (first, second) = all.split_at(jobs / 2);
    submit(&site, first).await;
    // The collector and the client beside it are on the first node, which stays.
    let leader = cluster.leader(0, &vhost, &format!("{PREFIX}.steps"));
    let (victim, other) = if leader == 0 {
        (1, 2)
    } else {
        (leader, 3 - leader)
    };
    let mut workers_killed = 0;
    for (what, node) in [("a node", other), ("the leader's node", victim)] {
        let steady = one_on(&mut site, node, &addresses).await;
        let at = Instant::now();
        let before = site.results.count_of_finals();
        let (back, killed) = killing_workers(&mut site, cluster, move |cluster| {
            cluster.nodes[node].kill9();
            std::thread::sleep(AWAY);
            cluster.nodes[node].begin_again();
            cluster.wait_until_whole();
        })
        .await;
        cluster = back;
        workers_killed += killed;
        println!(
            "{what} (leads steps: {}) killed with {before} jobs over, whole again after {:.0?} and {killed} workers killed; {} jobs are over",
            leader == node,
            at.elapsed(),
            site.results.count_of_finals()
        );
        moved(&mut site, steady, node, &addresses).await;
    }
    submit(&site, second).await;
    let steady = one_on(&mut site, victim, &addresses).await;
    let before = site.results.count_of_finals();
    let (back, killed) = killing_workers(&mut site, cluster, move |cluster| {
        cluster.isolate(victim, true);
        let begun = Instant::now();
        cluster.wait_until_apart(victim);
        println!(
            "cut off: seen as gone and paused after {:.0?}",
            begun.elapsed()
        );
        std::thread::sleep(APART);
        cluster.isolate(victim, false);
        cluster.wait_until_whole();
    })
    .await;
    cluster = back;
    workers_killed += killed;
    println!(
        "a node was cut off for more than {APART:?} with {before} jobs over and is back, {killed} workers killed; {} jobs are over",
        site.results.count_of_finals()
    );
    moved(&mut site, steady, victim, &addresses).await;
    let healed = to_the_end(&mut site, jobs).await;
    println!(
        "{workers_killed} workers killed, all over {healed:.0?} after the last trouble: {:?}",
        site.results.outcomes()
    );
    site.reconnect().await;
    let summary = site.end(jobs).await;
    println!("{summary}; {:.0?} in all", begun.elapsed());
    aside(move || drop(cluster)).await;
}
