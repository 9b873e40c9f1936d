//! What consumers and monitoring see of a run: properties of events, replies, names of metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use crate::support::collector::Seen;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, request, requests};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACESTATE: &str = "vendor=opaque";

fn text<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// What the contract says of every event.
fn check(seen: &Seen) {
    let (body, properties) = (&seen.body, &seen.properties);
    assert_eq!(*properties.delivery_mode(), Some(2), "{body}");
    assert_eq!(
        text(properties.content_type()),
        "application/cloudevents+json"
    );
    assert_eq!(text(properties.message_id()), body["id"].as_str().unwrap());
    assert_eq!(text(properties.kind()), body["type"].as_str().unwrap());
    assert_eq!(text(properties.app_id()), "nbi-upgrade");
    let time: jiff::Timestamp = body["time"].as_str().unwrap().parse().unwrap();
    let stamp = i64::try_from(properties.timestamp().unwrap()).unwrap();
    assert_eq!(stamp, time.as_second(), "{body}");
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(body["source"], "/nbi-upgrade/worker-under-test");
    assert_eq!(body["datacontenttype"], "application/json");
    assert_eq!(body["dataschema"], "urn:nbi-upgrade:event:v1");
    assert_eq!(body["subject"], body["data"]["cpe_id"]);
}

#[tokio::test]
async fn events_carry_what_the_contract_promises_and_come_to_the_requester() {
    let name = [("NBI_UPGRADE_INSTANCE__NAME", "worker-under-test")];
    let mut site = Site::begin(
        1,
        Plan {
            environment: &name,
            ..Plan::default()
        },
    )
    .await;
    site.client().declare("answers", &[]).await;
    let mut headers = FieldTable::default();
    for (name, value) in [("traceparent", TRACEPARENT), ("tracestate", TRACESTATE)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_reply_to("answers".into())
        .with_correlation_id("order-4711".into())
        .with_headers(headers);
    let mut asked = request("job-1", 1, "fw-2.bin");
    asked["context"] = serde_json::json!({"ticket": [1, 2.50, "ä"]});
    asked["campaign_id"] = "spring".into();
    let body = asked.to_string();
    site.client()
        .publish(
            &format!("{PREFIX}.requests"),
            "any.key",
            body.as_bytes(),
            properties,
        )
        .await;
    site.results.finals(1, PATIENCE).await;
    let answer = site.client().wait_for("answers").await;
    let answer = Seen {
        body: serde_json::from_slice(&answer.body).unwrap(),
        properties: answer.properties,
    };
    let kinds: Vec<_> = site
        .results
        .events()
        .map(|seen| seen.body["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.len(), 2, "accepted and completed: {kinds:?}");
    for seen in site.results.events().chain([&answer]) {
        check(seen);
        assert_eq!(text(seen.properties.correlation_id()), "order-4711");
        assert_eq!(
            header(&seen.properties, "traceparent").as_deref(),
            Some(TRACEPARENT)
        );
        assert_eq!(
            header(&seen.properties, "tracestate").as_deref(),
            Some(TRACESTATE)
        );
        assert_eq!(seen.body["data"]["context"], asked["context"]);
        assert_eq!(seen.data("campaign_id"), "spring");
    }
    let end = site.results.final_events().next().unwrap();
    assert_eq!(end.body, answer.body, "the requester hears the same");
    assert_eq!(
        (end.data("outcome"), end.data("reason"), end.data("impact")),
        ("completed", "upgraded", "applied")
    );
    site.end(1).await;
}

/// Section 10 of the contract.
const NAMES: [&str; 20] = [
    "jobs_accepted_total",
    "jobs_rejected_total",
    "jobs_finished_total",
    "job_duration_seconds",
    "stage_attempts_total",
    "stage_duration_seconds",
    "nbi_request_duration_seconds",
    "nbi_circuit_open",
    "device_faults_total",
    "messages_received_total",
    "messages_redelivered_total",
    "messages_published_total",
    "publish_confirm_seconds",
    "broker_connected",
    "broker_reconnects_total",
    "deliveries_in_hand",
    "step_lateness_seconds",
    "build_info",
    // Not of the contract, but what alarms are made of.
    "hand_overs_failed_total",
    "panics_total",
];

#[tokio::test]
async fn metrics_after_a_run_have_the_promised_names_and_add_up() {
    let count = 20;
    let mut site = Site::begin(1, Plan::default()).await;
    site.submit(&requests(count)).await;
    site.results.finals(count, PATIENCE).await;
    let worker = &site.workers[0];
    let metrics = worker.metrics().await;
    for name in NAMES {
        let is_told = metrics.contains(&format!("# TYPE nbi_upgrade_{name} "))
            && metrics.contains(&format!("\nnbi_upgrade_{name}"));
        assert!(is_told, "{name} is missing");
    }
    for device in ["CPE0000", "job-"] {
        assert!(!metrics.contains(device), "a label takes a device or job");
    }
    let expected = count as f64;
    assert_eq!(worker.metric("jobs_accepted_total").await, expected);
    assert_eq!(
        worker
            .metric("jobs_finished_total{outcome=\"completed\",reason=\"upgraded\"}")
            .await,
        expected
    );
    assert_eq!(
        worker
            .metric("job_duration_seconds_count{outcome=\"completed\"}")
            .await,
        expected
    );
    assert_eq!(
        worker
            .metric("messages_received_total{queue=\"requests\"}")
            .await,
        expected
    );
    assert_eq!(
        worker
            .metric("messages_published_total{exchange=\"results\"}")
            .await,
        2.0 * expected
    );
    assert_eq!(
        worker.metric("panics_total").await + worker.metric("hand_overs_failed_total").await,
        0.0
    );
    println!("{}", promtool(&metrics));
    site.end(count).await;
}

/// What promtool says, where it is installed.
fn promtool(metrics: &str) -> String {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return "promtool is not installed: its check is skipped".to_owned();
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    format!("promtool: {said}")
}
