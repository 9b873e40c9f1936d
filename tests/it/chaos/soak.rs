//! Everything at once, for long: workers killed every second, the broker every 20 s. Prints the sums as Jepsen does.

use std::time::{Duration, Instant};

use super::bench::aside;
use crate::support::rabbit::Node;
use crate::support::site::{Plan, Site, is_long, requests};

pub(super) const WORKERS: usize = 3;
pub(super) const BETWEEN_WORKERS: Duration = Duration::from_secs(1);
const BETWEEN_BROKERS: Duration = Duration::from_secs(20);
/// How long trouble is made; afterwards everything must finish by itself.
const TROUBLE: Duration = Duration::from_secs(180);
/// Until the last job is over.
const REST: Duration = Duration::from_secs(600);
const SUBMITTED_AT_ONCE: usize = 1_000;

/// How many jobs the long runs have.
pub(super) fn jobs() -> usize {
    std::env::var("NBI_UPGRADE_SOAK_JOBS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000)
}

/// Kills one of the workers and starts another.
pub(super) async fn replace_a_worker(site: &mut Site) {
    let victim = fastrand::usize(..site.workers.len());
    site.workers.swap_remove(victim).kill9().await;
    site.start_worker().await;
}

/// Waits in quiet until all jobs are over, or for long enough, and prints the sums; how long that took.
pub(super) async fn to_the_end(site: &mut Site, jobs: usize) -> Duration {
    let calm = Instant::now();
    site.results
        .take_until(REST, |all| all.count_of_finals() >= jobs)
        .await;
    let ok = site.results.count_of_finals();
    println!(
        "attempted {jobs}, ok {ok}, lost {}, duplicated {} (events, same id), unexpected {} (jobs with two outcomes)",
        jobs - ok,
        site.results.repeats,
        site.results.contradictory().len()
    );
    calm.elapsed()
}

#[tokio::test]
async fn ten_thousand_jobs_while_everything_is_killed() {
    if !is_long() {
        return;
    }
    let jobs = jobs();
    let devices = jobs.to_string();
    let mut node = aside(Node::start).await;
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", "0.05"],
        environment: &[
            ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "4s"),
            ("NBI_UPGRADE_AWAIT_RESULT__MAX", "8s"),
            ("NBI_UPGRADE_AMQP__HEARTBEAT", "5s"),
        ],
    };
    let mut site = Site::begin_on(node.vhost(), WORKERS, plan).await;
    let all = requests(jobs);
    let begun = Instant::now();
    for part in all.chunks(SUBMITTED_AT_ONCE) {
        site.submit(part).await;
    }
    println!("{jobs} jobs submitted in {:.0?}", begun.elapsed());
    let begun = Instant::now();
    let (mut workers_killed, mut brokers_killed) = (0, 0);
    let mut next_broker = begun + BETWEEN_BROKERS;
    while begun.elapsed() < TROUBLE && site.results.count_of_finals() < jobs {
        if Instant::now() >= next_broker {
            node = aside(move || {
                node.kill9();
                node.restart();
                node
            })
            .await;
            brokers_killed += 1;
            next_broker = Instant::now() + BETWEEN_BROKERS;
        }
        replace_a_worker(&mut site).await;
        workers_killed += 1;
        site.results
            .take_until(BETWEEN_WORKERS, |all| all.count_of_finals() >= jobs)
            .await;
    }
    let during = site.results.count_of_finals();
    let calm = to_the_end(&mut site, jobs).await;
    println!(
        "{workers_killed} workers and {brokers_killed} brokers killed; {during} jobs over in {TROUBLE:?} of trouble, all {calm:.0?} after it; {:?}",
        site.results.outcomes()
    );
    site.reconnect().await;
    let summary = site.end(jobs).await;
    println!("{summary}");
    aside(move || drop(node)).await;
}
