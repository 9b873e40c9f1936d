//! A job that waits is a message in a delay queue and nowhere in the worker.

use std::time::Instant;

use crate::support::processes::until;
use crate::support::site::{PATIENCE, Plan, Site, is_long, request};

const WARM_UP: usize = 500;
/// More than the worker's memory may grow by.
const TOO_MUCH: f64 = 10.0 * 1024.0 * 1024.0;

/// Hours until the next poll: whoever has begun only waits.
const PATIENT: [(&str, &str); 4] = [
    ("NBI_UPGRADE_JOB__TIMEOUT", "12h"),
    ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "2h"),
    ("NBI_UPGRADE_AWAIT_RESULT__MAX", "2h"),
    ("NBI_UPGRADE_NBI__TIMEOUT", "30s"),
];

#[tokio::test]
async fn ten_thousand_waiting_jobs_cost_the_worker_no_memory() {
    let count = if is_long() { 100_000 } else { 10_000 };
    let devices = (count + WARM_UP).to_string();
    let plan = Plan {
        simulator: &["--devices", &devices, "--time-scale", "20"],
        environment: &PATIENT,
    };
    let mut site = Site::begin(1, plan).await;
    let before = waiting(&site, 1, WARM_UP).await;
    let begun = Instant::now();
    let after = waiting(&site, WARM_UP + 1, WARM_UP + count).await;
    let took = begun.elapsed();
    let worker = &site.workers[0];
    assert_eq!(worker.metric("deliveries_in_hand").await, 0.0);
    assert_eq!(
        site.depths().await.map(|(_, depth)| depth),
        [0, 0, 0, u32::try_from(WARM_UP + count).unwrap()]
    );
    let more = after - before;
    println!(
        "resident with {WARM_UP} waiting jobs {:.1} MB, with {} {:.1} MB: {:+.1} MB, ratio {:.3}; {count} jobs brought to waiting in {took:.1?}",
        before / 1e6,
        WARM_UP + count,
        after / 1e6,
        more / 1e6,
        after / before
    );
    site.delete_vhost().await;
    site.workers.remove(0).kill9().await;
    assert!(more < TOO_MUCH, "the worker grew by {:.1} MB", more / 1e6);
}

/// Brings these devices' jobs to waiting; the worker's memory then.
async fn waiting(site: &Site, from: usize, to: usize) -> f64 {
    let all: Vec<_> = (from..=to)
        .map(|number| request(&format!("job-{number}"), number, "fw-2.bin"))
        .collect();
    site.submit(&all).await;
    let expected = u32::try_from(to).unwrap();
    until(
        "all jobs to wait in delay queues",
        PATIENCE * 4,
        async || (site.delayed().await == expected).then_some(()),
    )
    .await;
    let resident = site.workers[0].process.resident() as f64;
    let told = site.workers[0].metrics().await;
    let told = told
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let told: f64 = told
        .and_then(|text| text.parse().ok())
        .expect("the worker tells its memory");
    assert!(
        (told / resident - 1.0).abs() < 0.1,
        "{told} told, {resident} used"
    );
    resident
}
