//! Workers killed in the middle, and workers rolled: the same end as if nothing had happened.

use std::time::Duration;

use crate::support::site::{GRACE, PATIENCE, Plan, Site, is_long, requests};

fn count() -> usize {
    if is_long() { 3_000 } else { 300 }
}

async fn two_workers(count: usize) -> Site {
    let devices = count.to_string();
    let site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", &devices],
            ..Plan::default()
        },
    )
    .await;
    site.submit(&requests(count)).await;
    site
}

#[tokio::test]
async fn workers_killed_in_the_middle_lose_no_job_and_upgrade_no_device_twice() {
    let count = count();
    let mut site = two_workers(count).await;
    let mut kills = 0;
    while site.results.count_of_finals() < count {
        // The first while everything begins, the others along the way.
        let wanted = (kills * count / 6).min(count);
        site.results.finals(wanted, PATIENCE).await;
        if kills < 6 {
            site.workers.remove(0).kill9().await;
            site.start_worker().await;
            kills += 1;
        }
    }
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    let summary = site.end(count).await;
    println!(
        "{kills} kills: {outcomes:?}, {repeats} repeated events, calls {}",
        summary["calls"]
    );
    assert_eq!(summary["flashes"], count, "{summary}");
    let completed: usize = outcomes
        .iter()
        .filter(|(name, _)| name.starts_with("completed/"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(completed, count, "{outcomes:?}");
}

#[tokio::test]
async fn rolled_workers_end_well_within_their_grace_and_repeat_nothing() {
    let count = count();
    let mut site = two_workers(count).await;
    let mut slowest = Duration::ZERO;
    for wave in 0..4 {
        site.results.finals(wave * count / 5, PATIENCE).await;
        site.start_worker().await;
        slowest = slowest.max(site.workers.remove(0).stop(GRACE).await);
    }
    site.results.finals(count, PATIENCE).await;
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    let summary = site.end(count).await;
    println!("4 workers rolled, the slowest ended in {slowest:.1?}; {repeats} repeated events");
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    assert_eq!(
        (&summary["flashes"], repeats),
        (&count.into(), 0),
        "{summary}"
    );
}
