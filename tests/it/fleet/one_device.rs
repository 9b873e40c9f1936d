//! A device has one job at a time, whichever workers its jobs meet.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::site::{PATIENCE, Plan, Site, request};

/// Devices, each with two jobs.
const DEVICES: usize = 40;

/// Both jobs of a device come in one burst, and go to two workers within the same millisecond. They are carried out one after the other. Two
/// that write their rule in the same moment, each after the other has read, are known by the device's work for one of them: the other ends
/// at once, as nobody can tell that the device had not begun for it.
#[tokio::test]
async fn two_jobs_for_one_device_at_the_same_moment_do_not_meet() {
    let devices = DEVICES.to_string();
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", &devices],
            environment: &[("NBI_UPGRADE_NBI__TAG_RULES", "true")],
        },
    )
    .await;
    let both = |number: usize| {
        ["a", "b"].map(|which| {
            let job = format!("job-{number}-{which}");
            request(&job, number, &format!("{which}.bin"))
        })
    };
    let requests: Vec<Value> = (1..=DEVICES).flat_map(both).collect();
    site.submit(&requests).await;
    site.results.finals(2 * DEVICES, PATIENCE).await;
    let outcomes: BTreeMap<_, _> = site.results.outcomes().into_iter().collect();
    println!("{outcomes:?}");
    let count = |name: &str| outcomes.get(name).copied().unwrap_or(0);
    let (upgraded, superseded) = (count("completed/upgraded"), count("failed/superseded"));
    assert_eq!(upgraded + superseded, 2 * DEVICES, "{outcomes:?}");
    assert!(superseded <= DEVICES / 4, "{outcomes:?}");
    let mut shares = Vec::new();
    for worker in &site.workers {
        shares.push(
            worker
                .metric("messages_received_total{queue=\"requests\"}")
                .await,
        );
    }
    println!("requests by worker: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0.0), "{shares:?}");
    let summary = site.end_with(2 * DEVICES, 0).await;
    // One flash a job: had two met, one would have been lost or repeated.
    assert_eq!(summary["flashes"], upgraded, "{summary}");
}
