//! What holds campaigns, on a real broker: windows, busy keys, deadlines, pauses of their own and of operators, the emergency stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp, ToSpan, Unit};
use serde_json::{Value, json};

use super::campaigns::{Observer, campaign, cleared_away, event, leader};
use crate::support::http;
use crate::support::processes::until;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, is_long};

/// A gauge of the worker that leads; 0 where nobody does.
async fn of_leader(site: &Site, series: &str) -> f64 {
    match leader(site).await {
        Some(index) => site.workers[index].metric(series).await,
        None => 0.0,
    }
}

async fn condition_is(site: &Site, condition: &str, value: f64) {
    let series = format!("campaign_condition{{campaign=\"spring\",condition=\"{condition}\"}}");
    until(&series, PATIENCE, async || {
        (of_leader(site, &series).await == value).then_some(())
    })
    .await;
}

pub(super) async fn site(workers: usize, devices: usize) -> Site {
    let devices = devices.to_string();
    Site::begin(
        workers,
        Plan {
            simulator: &["--devices", &devices],
            ..Plan::default()
        },
    )
    .await
}

/// A window of so many minutes from then on, by the clock of a place far from here.
pub(super) fn window(from: Timestamp, minutes: i64) -> Value {
    let zone = "Asia/Kathmandu";
    let start = from.in_tz(zone).expect("a zone");
    let end = start.checked_add(minutes.minutes()).expect("a time");
    json!({
        "start": start.strftime("%H:%M").to_string(),
        "end": end.strftime("%H:%M").to_string(),
        "time_zone": zone,
    })
}

#[tokio::test]
async fn nothing_of_a_campaign_starts_outside_its_window() {
    let mut site = site(1, 20).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let now = Timestamp::now();
    // The long version sees it open: at the next full minute that is not too near.
    let full = (now + SignedDuration::from_secs(64))
        .round(Unit::Minute)
        .expect("a time");
    let opens_at = if is_long() {
        full
    } else {
        now + SignedDuration::from_hours(2)
    };
    site.submit(&[campaign(1..=10, json!({"window": window(opens_at, 30)}))])
        .await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    condition_is(&site, "closed", 1.0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    observer.look().await;
    assert_eq!(observer.starts, []);
    if is_long() {
        observer.has_seen(10).await;
        let opened = opens_at.as_second().cast_unsigned();
        let early = observer.starts.iter().filter(|(at, _)| *at < opened);
        assert_eq!(early.count(), 0, "{opens_at}: {:?}", observer.starts);
        site.results.finals(10, PATIENCE).await;
    } else {
        observer
            .order(json!({"command": "cancel", "campaign_id": "spring"}))
            .await;
        let end = event(&mut site, "upgrade.campaign.cancelled", 1).await;
        assert_eq!(end["data"]["counts"]["cancelled"], 10, "{end}");
        assert_eq!(end["data"]["counts"]["released"], 0, "{end}");
    }
    // One that is open already.
    let mut open = campaign(
        11..=20,
        json!({"window": window(now - SignedDuration::from_mins(5), 60)}),
    );
    open["campaign_id"] = json!("summer");
    site.submit(&[open]).await;
    site.results.finals(20, PATIENCE).await;
    cleared_away(&site).await;
    let flashes = site.end(20).await["flashes"].clone();
    assert_eq!(flashes, if is_long() { 20 } else { 10 });
}

#[tokio::test]
async fn devices_behind_one_access_node_go_one_after_the_other() {
    const NODES: usize = 3;
    const DEVICES: usize = 12;
    let mut site = site(2, DEVICES).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let node = |number: usize| format!("node-{}", number % NODES);
    let devices: Vec<Value> = (1..=DEVICES)
        .map(|number| json!({"cpe_id": format!("CPE{number:06}"), "concurrency_key": node(number)}))
        .collect();
    let mut request = campaign(1..=1, json!({"max_in_flight_per_key": 1}));
    request["devices"] = json!(devices);
    site.submit(&[request]).await;
    site.results.finals(DEVICES, PATIENCE).await;
    observer.has_seen(DEVICES).await;
    let ends: BTreeMap<String, u64> = site
        .results
        .final_events()
        .map(|seen| {
            let time: Timestamp = seen.body["time"]
                .as_str()
                .expect("a time")
                .parse()
                .expect("one");
            (
                seen.data("job_id").to_owned(),
                time.as_second().cast_unsigned(),
            )
        })
        .collect();
    let number = |job_id: &str| -> usize {
        let digits = job_id
            .strip_prefix("spring:CPE")
            .expect("a job of the campaign");
        digits.parse().expect("a number")
    };
    let mut before: BTreeMap<String, u64> = BTreeMap::new();
    let mut at_once = BTreeSet::new();
    for (at, job_id) in &observer.starts {
        if let Some(end) = before.insert(node(number(job_id)), ends[job_id]) {
            // Both are whole seconds.
            assert!(
                *at >= end,
                "{job_id} began at {at}, the one before ended at {end}"
            );
        } else {
            at_once.insert(*at);
        }
    }
    assert_eq!(before.len(), NODES);
    let spread = at_once.last().expect("some") - at_once.first().expect("some");
    assert!(spread <= 2, "nodes do not wait for each other: {at_once:?}");
    cleared_away(&site).await;
    assert_eq!(site.end(DEVICES).await["flashes"], DEVICES);
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_announced_and_what_waits_is_not_touched() {
    const DEVICES: usize = 40;
    let mut site = site(1, DEVICES).await;
    let deadline = Timestamp::now() + SignedDuration::from_secs(12);
    let more = json!({"pace": {"starts_per_minute": 60}, "deadline": deadline});
    site.submit(&[campaign(1..=DEVICES, more)]).await;
    let jeopardy = event(&mut site, "upgrade.campaign.jeopardy", 1).await;
    assert_eq!(jeopardy["data"]["in_jeopardy"], true, "{jeopardy}");
    let done_at: Timestamp = jeopardy["data"]["done_at"]
        .as_str()
        .expect("it says when")
        .parse()
        .expect("a time");
    assert!(done_at > deadline, "{jeopardy}");
    condition_is(&site, "in_jeopardy", 1.0).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    site.results.finals(DEVICES, PATIENCE).await;
    let untouched = site
        .results
        .final_events()
        .filter(|seen| seen.data("reason") == "timed_out" && seen.data("impact") == "none")
        .count();
    let released = end["data"]["counts"]["released"].as_u64().expect("a count");
    assert!((1..20).contains(&released), "{end}");
    assert!(
        untouched as u64 >= DEVICES as u64 - released,
        "{untouched} of {end}"
    );
    cleared_away(&site).await;
    site.end(DEVICES).await;
}

#[tokio::test]
async fn the_emergency_stop_holds_a_running_campaign_and_its_end_lets_it_go_on() {
    const DEVICES: usize = 40;
    let mut site = site(2, DEVICES).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let more = json!({"pace": {"starts_per_minute": 180}});
    site.submit(&[campaign(1..=DEVICES, more)]).await;
    site.results.finals(5, PATIENCE).await;
    observer
        .order(json!({"command": "pause", "all": true}))
        .await;
    condition_is(&site, "held", 1.0).await;
    for worker in &site.workers {
        until("the emergency stop", PATIENCE, async || {
            (worker.metric("emergency_stop").await == 1.0).then_some(())
        })
        .await;
    }
    observer.look().await;
    let started = observer.devices().len();
    assert!(started < DEVICES, "{started}");
    // Nothing more is started, and nothing stays armed but where a device is at it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    observer.look().await;
    assert_eq!(observer.devices().len(), started);
    until("everything to be disarmed", PATIENCE, async || {
        (site.simulator.summary().await["armed_rules"] == 0).then_some(())
    })
    .await;
    observer
        .order(json!({"command": "resume", "all": true, "arm_again_after": "4s"}))
        .await;
    site.results.finals(DEVICES, PATIENCE).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["completed"], DEVICES, "{end}");
    cleared_away(&site).await;
    assert_eq!(site.end(DEVICES).await["flashes"], DEVICES);
}

#[tokio::test]
async fn a_campaign_that_pauses_itself_disarms_what_has_not_begun_and_goes_on_when_told_when() {
    const BAD: usize = 3;
    /// Longer than it takes to pause.
    const AWAY: Duration = Duration::from_secs(25);
    const LATE: usize = 6;
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", "0"],
            ..Plan::default()
        },
    )
    .await;
    let device = |number: usize| {
        let mut device = json!({"cpe_id": format!("CPE{number:06}"), "inform_interval_seconds": 2,
            "session_delay_seconds": 0, "download_seconds": 1, "reboot_seconds": 1});
        if number <= BAD {
            device["attempts"] = json!([{"fault": {"code": 9016, "text": "file not found"}}]);
        } else {
            device["offline_for_seconds"] = json!(AWAY.as_secs());
        }
        device
    };
    let all: Vec<Value> = (1..=BAD + LATE).map(device).collect();
    site.simulator.add(&all).await;
    let back_at = Instant::now() + AWAY;
    let observer = Observer::begin(&site.vhost.url()).await;
    site.submit(&[campaign(1..=BAD + LATE, json!({}))]).await;
    let paused = event(&mut site, "upgrade.campaign.paused", 1).await;
    assert_eq!(paused["data"]["reason"], "configuration_faults", "{paused}");
    assert!(paused["data"]["order"].is_string(), "{paused}");
    condition_is(&site, "paused_by_itself", 1.0).await;
    // An operator's pause does no more.
    until("the rules to be disarmed", PATIENCE, async || {
        (site.simulator.summary().await["armed_rules"] == 0).then_some(())
    })
    .await;
    let is_answered = site
        .results
        .events()
        .any(|seen| seen.body["type"] == "upgrade.control.accepted");
    assert!(!is_answered, "nobody asked");
    assert!(Instant::now() < back_at, "it took too long to be paused");
    // The devices come back while it is paused, and find nothing.
    tokio::time::sleep_until((back_at + Duration::from_secs(3)).into()).await;
    assert_eq!(site.simulator.summary().await["flashes"], 0);
    observer
        .order(json!({"command": "resume", "campaign_id": "spring", "arm_again_after": "2s"}))
        .await;
    site.results.finals(BAD + LATE, PATIENCE).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["completed"], LATE, "{end}");
    assert_eq!(end["data"]["counts"]["configuration"], BAD, "{end}");
    cleared_away(&site).await;
    assert_eq!(site.end(BAD + LATE).await["flashes"], LATE);
}

#[tokio::test]
async fn a_pause_that_stands_before_its_campaign_holds_it_from_the_first_device_on() {
    let mut site = site(1, 5).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    observer
        .order(json!({"command": "pause", "campaign_id": "spring"}))
        .await;
    // Times of orders are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    site.submit(&[campaign(1..=5, json!({}))]).await;
    event(&mut site, "upgrade.campaign.paused", 1).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    condition_is(&site, "paused_by_order", 1.0).await;
    observer.look().await;
    assert_eq!(observer.starts, []);
    observer
        .order(json!({"command": "resume", "campaign_id": "spring"}))
        .await;
    site.results.finals(5, PATIENCE).await;
    event(&mut site, "upgrade.campaign.completed", 1).await;
    cleared_away(&site).await;
    assert_eq!(site.end(5).await["flashes"], 5);
}

#[tokio::test]
async fn a_leader_killed_in_the_middle_of_a_fan_out_loses_and_doubles_no_device() {
    const DEVICES: usize = 2_000;
    let mut site = site(2, DEVICES).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let index = until("a leader", PATIENCE, async || leader(&site).await).await;
    let queue = format!("{PREFIX}.campaign.spring");
    let submitted = site.submitting(
        &[campaign(
            1..=DEVICES,
            json!({"pace": {"starts_per_minute": 300}, "requested_at": null}),
        )],
        &[],
    );
    // The first devices are in the queue, the last ones are not.
    let partial = until("a part of the devices", PATIENCE, async || {
        let depth = site.client().depth_if_there(&queue).await.unwrap_or(0);
        (depth > 0).then_some(depth)
    })
    .await;
    site.workers.remove(index).kill9().await;
    crate::support::site::succeeds(submitted).await;
    let is_accepted = site
        .results
        .take_until(Duration::ZERO, |all| {
            all.events()
                .any(|seen| seen.body["type"] == "upgrade.campaign.accepted")
        })
        .await;
    assert!(
        (partial as usize) < DEVICES && !is_accepted,
        "it was over before the kill: {partial}"
    );
    site.start_worker().await;
    let accepted = event(&mut site, "upgrade.campaign.accepted", 1).await;
    let waiting = accepted["data"]["counts"]["waiting"]
        .as_u64()
        .expect("a count");
    eprintln!(
        "killed with {partial} of {DEVICES} in the queue; {waiting} messages after the second fan-out"
    );
    site.results.finals(20, PATIENCE).await;
    observer
        .order(json!({"command": "cancel", "campaign_id": "spring"}))
        .await;
    let end = event(&mut site, "upgrade.campaign.cancelled", 1).await;
    site.results.finals(DEVICES, PATIENCE).await;
    observer.look().await;
    let counts = &end["data"]["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap_or_default();
    assert_eq!(
        number("completed") + number("cancelled"),
        DEVICES as u64,
        "{end}"
    );
    assert_eq!(number("released"), observer.devices().len() as u64, "{end}");
    cleared_away(&site).await;
    let summary = site.end(DEVICES).await;
    assert_eq!(summary["flashes"], summary["devices_flashed"], "{summary}");
    // A device that was at it when the order came was flashed, and its job is cancelled.
    let flashes = summary["flashes"].as_u64().expect("a count");
    assert!(
        (number("completed")..=number("released")).contains(&flashes),
        "{summary}"
    );
}

#[tokio::test]
async fn a_campaign_whose_job_was_lost_goes_on_when_a_request_with_that_job_comes() {
    let mut site = site(1, 2).await;
    let request = campaign(1..=2, json!({}));
    site.submit(std::slice::from_ref(&request)).await;
    event(&mut site, "upgrade.accepted", 2).await;
    site.workers.remove(0).kill9().await;
    // What waits, and what the dead worker had in hand, goes.
    for _ in 0..20 {
        let delays = (0..3).map(|power| format!("delay.{}s", 1 << power));
        for queue in delays.chain(["requests".to_owned(), "steps".to_owned()]) {
            let path = format!(
                "/api/queues/{}/{PREFIX}.{queue}/contents",
                site.vhost.name()
            );
            let answer = http::send(&site.vhost.management(), "DELETE", &path, "").await;
            assert!(matches!(answer, Ok((204, _))), "{answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    site.start_worker().await;
    let is_over = site
        .results
        .take_until(Duration::from_secs(4), |all| all.count_of_finals() > 0)
        .await;
    assert!(!is_over, "nobody has these jobs");
    // A rule that the lost job has armed looks like the work of a copy, which is waited for until the deadline.
    let deadline = Timestamp::now() + SignedDuration::from_secs(12);
    let single = |number: usize| {
        json!({
            "job_id": format!("spring:CPE{number:06}"),
            "cpe_id": format!("CPE{number:06}"),
            "campaign_id": "spring",
            "firmware_url": request["firmware_url"],
            "requested_at": request["requested_at"],
            "deadline": deadline,
        })
    };
    site.submit(&[single(1), single(2)]).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["completed"], 2, "{end}");
    cleared_away(&site).await;
    assert_eq!(site.end(2).await["flashes"], 2);
}
