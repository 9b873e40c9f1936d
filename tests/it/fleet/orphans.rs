//! Rules that no job owns, at a real broker and an NBI over HTTP: by the command, and by the worker that leads.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::http;
use crate::support::processes::until;
use crate::support::rabbit::Client;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, request};

/// The simulated NBI takes the user that the tests' HTTP client is.
const GUEST: [&str; 6] = [
    "--devices",
    "5",
    "--username",
    "guest",
    "--password",
    "guest",
];
const ENVIRONMENT: [(&str, &str); 4] = [
    ("NBI_UPGRADE_NBI__USERNAME", "guest"),
    ("NBI_UPGRADE_NBI__PASSWORD", "guest"),
    ("NBI_UPGRADE_SWEEP__INTERVAL", "1s"),
    ("NBI_UPGRADE_SWEEP__OLDER_THAN", "0s"),
];

/// Somebody writes a rule that no device runs by itself.
async fn arm(site: &Site, rule_id: &str, cpe_id: &str, file: &str) {
    let rule = json!({
        "id": rule_id, "enabled": true, "automatic": false, "file": format!("https://files.example/{file}"),
        "condition": {"cpeid": cpe_id}, "executions": 1, "priority": 1, "author": "somebody",
    });
    let (address, path) = (site.simulator.address(), "/v1/dyn/FirmwareStorage/.*");
    let answer = http::send(address, "POST", path, &rule.to_string()).await;
    assert!(matches!(answer, Ok((200, _))), "{answer:?}");
}

/// Which rules are armed.
async fn armed(site: &Site) -> Vec<String> {
    let rules = http::get_json(site.simulator.address(), "/sim/rules").await;
    let mut armed: Vec<_> = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["enabled"] == true)
        .filter_map(|rule| rule["id"].as_str().map(str::to_owned))
        .collect();
    armed.sort();
    armed
}

/// The history says that a job left its rule armed, hours ago: what a worker tells that could not reach the NBI when the job ended.
async fn tell_of_a_lost_job(site: &Site, client: &Client) {
    let hours_ago = |hours| Timestamp::now() - SignedDuration::from_hours(hours);
    let file = "https://files.example/fw-2.bin";
    let about = json!({"job_id": "lost", "cpe_id": "CPE000001", "firmware_url": file, "deadline": hours_ago(6).to_string()});
    let mut over = about.clone();
    over["outcome"] = json!("failed");
    over["rule"] = json!({"id": "UPGRADE_CPE000001", "state": "cleanup_failed"});
    for (kind, hours, data) in [("accepted", 7, about), ("failed", 5, over)] {
        let event = json!({"type": format!("upgrade.{kind}"), "time": hours_ago(hours).to_string(), "data": data});
        let published_at = u64::try_from(hours_ago(hours).as_second()).expect("a time of today");
        let properties = BasicProperties::default().with_timestamp(published_at);
        let stream = format!("{PREFIX}.events");
        client
            .publish("", &stream, event.to_string().as_bytes(), properties)
            .await;
    }
    assert!(site.results.outcomes().is_empty(), "nobody else is told");
}

/// Sweeps by the command: the exit status, verdict and deed by rule, and the summary.
async fn sweep(site: &Site, flags: &[&str]) -> (Option<i32>, BTreeMap<String, String>, Value) {
    let mut arguments = vec!["sweep", "--output", "json"];
    arguments.extend(flags);
    let finished = site.run(&arguments).await;
    let mut lines = finished.json();
    let summary = lines.pop().expect(&finished.err)["summary"].clone();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rules = lines.iter().map(|line| {
        let verdict = format!("{} {}", text(&line["verdict"]), text(&line["done"]));
        (text(&line["rule_id"]), verdict)
    });
    (finished.status, rules.collect(), summary)
}

#[tokio::test]
async fn an_orphan_is_found_and_disarmed_and_the_rules_of_live_jobs_and_of_others_are_not() {
    let plan = Plan {
        simulator: &GUEST,
        environment: &ENVIRONMENT,
    };
    let mut site = Site::begin(2, plan).await;
    // It takes longer than this test does.
    let slow = json!({"cpe_id": "SLOW", "session_delay_seconds": 3_600});
    site.simulator.add(&[slow]).await;
    let mut live = request("live", 1, "fw-2.bin");
    live["cpe_id"] = json!("SLOW");
    let client = site.vhost.client().await;
    tell_of_a_lost_job(&site, &client).await;
    site.submit(&[live]).await;
    until("the live job's rule", PATIENCE, async || {
        (armed(&site).await == ["UPGRADE_SLOW"]).then_some(())
    })
    .await;
    arm(&site, "UPGRADE_CPE000001", "CPE000001", "fw-2.bin").await;
    arm(&site, "UPGRADE_CPE000002", "CPE000002", "fw-2.bin").await;
    arm(&site, "spring night", "CPE000001", "fw-2.bin").await;
    let all = [
        "UPGRADE_CPE000001",
        "UPGRADE_CPE000002",
        "UPGRADE_SLOW",
        "spring night",
    ];
    assert_eq!(armed(&site).await, all);

    let (status, rules, summary) = sweep(&site, &[]).await;
    let expected = |lost: &str| {
        BTreeMap::from([
            ("UPGRADE_CPE000001".to_owned(), lost.to_owned()),
            ("UPGRADE_CPE000002".to_owned(), "unsure -".to_owned()),
            ("UPGRADE_SLOW".to_owned(), "live -".to_owned()),
        ])
    };
    assert_eq!(
        (status, rules),
        (Some(1), expected("orphan -")),
        "{summary}"
    );
    assert_eq!(
        (&summary["armed_of_others"], &summary["is_whole"]),
        (&json!(1), &json!(true)),
        "{summary}"
    );
    let (status, rules, summary) = sweep(&site, &["--older-than", "24h"]).await;
    assert_eq!(
        (status, rules, &summary["left_by_jobs"]),
        (Some(1), expected("young -"), &json!(1)),
        "a rule that its job left armed is not well"
    );
    let told = site.run(&["sweep", "--older-than", "24h"]).await;
    assert!(
        told.out
            .contains("left it armed (cleanup_failed); not before "),
        "{}",
        told.out
    );
    assert!(told.err.contains("disarm it in the NBI"), "{}", told.err);
    assert_eq!(armed(&site).await, all, "a look changes nothing");

    // One of the workers sees it as well, and leaves it to people.
    let seen = async |site: &Site, metric: &str| {
        let mut sum = 0.0;
        for worker in &site.workers {
            sum += worker.metric(metric).await;
        }
        sum
    };
    until("a worker to count one orphan", PATIENCE, async || {
        let orphans = seen(&site, "orphan_rules{certainty=\"sure\"").await;
        let unsure = seen(&site, "orphan_rules{certainty=\"unsure\"").await;
        (orphans == 1.0 && unsure == 1.0).then_some(())
    })
    .await;

    let (status, rules, summary) = sweep(&site, &["--disarm"]).await;
    assert_eq!(
        (status, rules),
        (Some(0), expected("orphan disarmed")),
        "{summary}"
    );
    let left = ["UPGRADE_CPE000002", "UPGRADE_SLOW", "spring night"];
    assert_eq!(armed(&site).await, left);
    until("no worker to count an orphan", PATIENCE, async || {
        (seen(&site, "orphan_rules{certainty=\"sure\"").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(seen(&site, "orphan_rules_disarmed_total").await, 0.0);

    // Where rules are asked for one by one, only those of the history are.
    arm(&site, "UPGRADE_CPE000001", "CPE000001", "fw-2.bin").await;
    let (status, rules, summary) = sweep(&site, &["--one-by-one"]).await;
    let lost = BTreeMap::from([("UPGRADE_CPE000001".to_owned(), "orphan -".to_owned())]);
    assert_eq!((status, rules), (Some(1), lost), "{summary}");

    // A worker that may disarms it by itself.
    for worker in site.workers.drain(..) {
        worker.stop(crate::support::site::GRACE).await;
    }
    site.set("NBI_UPGRADE_SWEEP__DISARM", "true");
    for _ in 0..2 {
        site.start_worker().await;
    }
    until("the orphan to be disarmed", PATIENCE, async || {
        (armed(&site).await == left).then_some(())
    })
    .await;
    until("the worker to say so", PATIENCE, async || {
        (seen(&site, "orphan_rules_disarmed_total").await == 1.0).then_some(())
    })
    .await;

    let (status, rules, _) = sweep(&site, &["--disarm", "--unsure"]).await;
    assert_eq!(status, Some(0), "{rules:?}");
    assert_eq!(
        rules.get("UPGRADE_CPE000002").map(String::as_str),
        Some("unsure disarmed")
    );
    assert_eq!(armed(&site).await, ["UPGRADE_SLOW", "spring night"]);
    let (status, _) = site.order(&["cancel", "live"]).await;
    assert_eq!(status, Some(0));
    site.results.finals(1, PATIENCE).await;
    until("nothing of ours to be armed", PATIENCE, async || {
        (armed(&site).await == ["spring night"]).then_some(())
    })
    .await;
    site.delete_vhost().await;
}
