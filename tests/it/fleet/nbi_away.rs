//! An NBI that is down and one that refuses the password: jobs wait, nothing fails, nobody hammers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::campaigns::{campaign, cleared_away, event};
use crate::support::processes::until;
use crate::support::proxy::Proxy;
use crate::support::site::{GRACE, PATIENCE, Plan, Site, request, requests};

/// Time in which a worker that cannot work is watched: no wait for anything, the thing itself.
const WATCHED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_nbi_that_is_down_for_a_while_pauses_the_worker_and_fails_no_job() {
    let count = 200;
    let mut site = Site::begin(
        0,
        Plan {
            simulator: &["--devices", "200"],
            ..Plan::default()
        },
    )
    .await;
    let mut proxy = Proxy::closed(site.simulator.address());
    proxy.open().await;
    site.set(
        "NBI_UPGRADE_NBI__URL",
        &format!("http://{}", proxy.address()),
    );
    site.start_worker().await;
    site.workers[0].ready().await;
    site.submit(&requests(count)).await;
    site.results.finals(20, PATIENCE).await;
    proxy.close().await;
    let why = site.workers[0].not_ready("circuit").await;
    let worker = &site.workers[0];
    assert_eq!(worker.metric("nbi_circuit_open").await, 1.0);
    // What was in hand is put away first.
    until(
        "the worker to put away what it had in hand",
        PATIENCE,
        async || (worker.metric("deliveries_in_hand").await <= 1.0).then_some(()),
    )
    .await;
    let numbers = async || {
        (
            worker.metric("messages_received_total").await,
            worker.metric("nbi_request_duration_seconds_count").await,
        )
    };
    let before = numbers().await;
    tokio::time::sleep(WATCHED).await;
    let after = numbers().await;
    let (received, calls) = (after.0 - before.0, after.1 - before.1);
    eprintln!(
        "in {WATCHED:?} without an NBI: {received} messages received, {calls} calls tried; {why}"
    );
    assert!(
        received <= 40.0,
        "{received} messages received while the NBI was away"
    );
    assert!(calls <= 40.0, "{calls} calls tried while the NBI was away");
    let done = site.results.count_of_finals();
    assert!(done < count, "the NBI was away too late to see anything");
    proxy.open().await;
    site.workers[0].ready().await;
    site.results.finals(count, PATIENCE).await;
    assert_eq!(
        site.results.outcomes().into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    let summary = site.end(count).await;
    assert_eq!(summary["flashes"], count, "{summary}");
}

#[tokio::test]
async fn a_wrong_password_for_the_nbi_fails_no_job() {
    let count = 50;
    let wrong = [("NBI_UPGRADE_NBI__PASSWORD", "wr0ng")];
    let mut site = Site::begin(
        1,
        Plan {
            environment: &wrong,
            ..Plan::default()
        },
    )
    .await;
    site.submit(&requests(count)).await;
    let why = site.workers[0].not_ready("circuit").await;
    assert!(why.contains("401") && !why.contains("wr0ng"), "{why}");
    let some = site
        .results
        .take_until(WATCHED, |all| all.count_of_finals() > 0)
        .await;
    assert!(!some, "{:?}", site.results.outcomes());
    let worker = site.workers.remove(0);
    let calls = worker.metric("nbi_request_duration_seconds_count").await;
    eprintln!("{calls} calls were refused in about {WATCHED:?}; {why}");
    // All that were under way together, and probes since then.
    let under_way = count as f64;
    assert!(
        calls <= under_way + 10.0,
        "{calls} calls with a wrong password lock an account"
    );
    assert!(!worker.process.log().join("\n").contains("wr0ng"));
    worker.stop(GRACE).await;
    site.set("NBI_UPGRADE_NBI__PASSWORD", "nbi");
    site.start_worker().await;
    site.results.finals(count, PATIENCE).await;
    assert_eq!(
        site.results.outcomes().into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    site.end(count).await;
}

#[tokio::test]
async fn a_campaign_goes_on_after_an_nbi_that_was_away_longer_than_any_job_lived() {
    let count = 5;
    let mut site = Site::begin(
        0,
        Plan {
            simulator: &["--devices", "5"],
            environment: &[("NBI_UPGRADE_NBI__CIRCUIT_FAILURES", "1")],
        },
    )
    .await;
    let mut proxy = Proxy::closed(site.simulator.address());
    site.set(
        "NBI_UPGRADE_NBI__URL",
        &format!("http://{}", proxy.address()),
    );
    site.start_worker().await;
    // One job opens the circuit and is over before the circuit lets a call through again.
    let mut short = request("short", 1, "fw-1.bin");
    short["deadline"] = json!(Timestamp::now() + SignedDuration::from_secs(3));
    site.submit(&[short]).await;
    site.results.finals(1, PATIENCE).await;
    site.submit(&[campaign(1..=count, json!({}))]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    site.workers[0].not_ready("circuit").await;
    assert_eq!(site.results.count_of_finals(), 1);
    proxy.open().await;
    site.workers[0].ready().await;
    site.results.finals(1 + count, PATIENCE).await;
    cleared_away(&site).await;
    let summary = site.end(1 + count).await;
    assert_eq!(summary["flashes"], count, "{summary}");
}
