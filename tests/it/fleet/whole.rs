//! Many jobs from end to end: one outcome each, one flash each, nothing left behind.

use std::time::Instant;

use crate::support::site::{PATIENCE, Plan, Site, is_long, requests};

#[tokio::test]
async fn a_thousand_jobs_end_once_each_and_leave_nothing_behind() {
    let count = if is_long() { 10_000 } else { 1_000 };
    let devices = count.to_string();
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", &devices],
            ..Plan::default()
        },
    )
    .await;
    let begun = Instant::now();
    let mut submitting = site.submitting(&requests(count), &["--wait", "--wait-timeout", "10m"]);
    site.results.finals(count, PATIENCE * 4).await;
    let took = begun.elapsed();
    let status = submitting.ended(PATIENCE).await;
    assert!(status.success(), "submit --wait: {status}");
    assert_eq!(
        site.results.outcomes().into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    for worker in &site.workers {
        let share = worker.metric("jobs_finished_total").await;
        assert!(share > 0.0, "one worker did nothing");
        println!("a worker finished {share} jobs");
    }
    site.quiet_in_statistics().await;
    let repeats = site.results.repeats;
    let summary = site.end(count).await;
    assert_eq!(
        (&summary["flashes"], &summary["devices_flashed"]),
        (&count.into(), &count.into()),
        "{summary}"
    );
    println!(
        "{count} jobs in {took:.1?}, {repeats} repeated events, NBI calls {}",
        summary["calls"]
    );
}

#[tokio::test]
async fn an_nbi_in_trouble_costs_time_but_no_job() {
    let count = 200;
    let flags = ["--devices", "200", "--trouble", "0.08", "--seed", "7"];
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &flags,
            ..Plan::default()
        },
    )
    .await;
    let begun = Instant::now();
    site.submit(&requests(count)).await;
    site.results.finals(count, PATIENCE).await;
    let (took, outcomes) = (begun.elapsed(), site.results.outcomes());
    let summary = site.end(count).await;
    println!(
        "{count} jobs in {took:.1?}: {outcomes:?}, troubles {}",
        summary["troubles"]
    );
    let completed: usize = outcomes
        .iter()
        .filter(|(name, _)| name.starts_with("completed/"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(completed, count, "{outcomes:?}");
    assert_eq!(summary["flashes"], count, "{summary}");
}
