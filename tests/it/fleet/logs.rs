//! Logs of real workers: no secret at any level, and few lines about what lasts.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{GRACE, PATIENCE, PREFIX, Plan, Site, requests};

/// Each of them is somewhere in what the worker handles.
const SECRETS: [&str; 5] = [
    "s3cret",         // the broker's password
    "n0b0dy-knows",   // the NBI's
    "f1rmware-login", // in the firmware's URL
    "t0ken-in-query",
    "bm9ib2R5LWtub3dz", // Base64 of the NBI's password, at a border of three characters
];

#[tokio::test]
async fn no_secret_is_in_a_log_at_any_level_whatever_happens() {
    let node = tokio::task::spawn_blocking(Node::shared).await.unwrap();
    let vhost = node.vhost();
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    let url = node.user(&vhost, "logged", all);
    let environment = [
        ("NBI_UPGRADE_NBI__USERNAME", "worker"),
        ("NBI_UPGRADE_NBI__PASSWORD", "n0b0dy-knows"),
        ("NBI_UPGRADE_FIRMWARE__ALLOW_CREDENTIALS", "true"),
        ("NBI_UPGRADE_LOG__LEVEL", "trace,lapin=trace"),
    ];
    let simulator = [
        "--username",
        "worker",
        "--password",
        "n0b0dy-knows",
        "--devices",
        "9",
    ];
    let plan = Plan {
        simulator: &simulator,
        environment: &environment,
    };
    let mut site = Site::begin_on(vhost.clone(), 0, plan).await;
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL", &url);
    // The first never gets in at the NBI.
    site.unset("NBI_UPGRADE_NBI__USERNAME");
    site.set("NBI_UPGRADE_NBI__USERNAME", "stranger");
    site.start_worker().await;
    let all: Vec<Value> = requests(9)
        .into_iter()
        .map(|mut request| {
            request["firmware_url"] =
                json!("https://user:f1rmware-login@files.example/fw-2.bin?sig=t0ken-in-query");
            request
        })
        .collect();
    let traced = |trace: usize| {
        let mut headers = FieldTable::default();
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e{trace:04x}-00f067aa0ba902b7-01");
        headers.insert("traceparent".into(), AMQPValue::LongString(text.into()));
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_headers(headers)
    };
    for (number, request) in all.iter().enumerate() {
        let (exchange, body) = (format!("{PREFIX}.requests"), request.to_string());
        let properties = traced(number);
        site.client()
            .publish(&exchange, "request", body.as_bytes(), properties)
            .await;
    }
    site.workers[0].not_ready("circuit").await;
    let stranger = site.workers.remove(0);
    let mut log = stranger.process.log();
    stranger.stop(GRACE).await;
    site.set("NBI_UPGRADE_NBI__USERNAME", "worker");
    site.start_worker().await;
    site.workers[0].ready().await;
    // The management API learns of connections a second later.
    until("connections to close", PATIENCE, async || {
        (node.close_connections(&vhost) > 0).then_some(())
    })
    .await;
    site.results.finals(9, PATIENCE).await;
    log.extend(site.workers[0].process.log());
    let mut lines = 0;
    for line in log {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
        // A library may print bytes as numbers.
        assert!(!line.contains("115, 51, 99, 114, 101, 116"), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        let is_of_a_job = line["job_id"].is_string() && line["message"] != "duplicate dropped";
        if is_of_a_job {
            let trace_id = line["trace_id"].as_str().unwrap_or_default();
            assert!(
                trace_id.starts_with("4bf92f3577b34da6a3ce929d0e0e000"),
                "{line}"
            );
        }
        lines += 1;
    }
    assert!(lines > 100, "{lines}");
    for worker in site.workers.drain(..) {
        worker.stop(GRACE).await;
    }
}

#[tokio::test]
async fn a_broker_that_stays_away_is_a_few_lines_and_not_hundreds() {
    let mut site = Site::begin(0, Plan::default()).await;
    site.unset("NBI_UPGRADE_AMQP__URL");
    // Nobody listens on the port for discarding.
    site.set(
        "NBI_UPGRADE_AMQP__URL",
        "amqp://guest:guest@127.0.0.1:9/%2f",
    );
    site.start_worker().await;
    let worker = &site.workers[0];
    until("several tries", PATIENCE, async || {
        let tries = worker.process.log().len();
        (tries >= 2).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let log = worker.process.log();
    println!("{}", log.join("\n"));
    assert!(log.len() <= 4, "{log:#?}");
}
