//! Messages that nobody can read: answered, kept untouched among the dead letters, and harmless to the next one.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use serde_json::Value;

use crate::support::site::{PATIENCE, PREFIX, Plan, Site, requests};

/// A body, and the field that the rejection must name.
fn bad_requests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |more: &str| {
        format!(
            r#"{{"job_id":"bad","cpe_id":"CPE1","firmware_url":"https://files.example/fw.bin"{more}}}"#
        )
    };
    let large = format!(r#"{{"job_id":"bad","context":"{}"}}"#, "x".repeat(1 << 20));
    let deep = with(&format!(
        r#","context":{}{}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    ));
    let mut broken_text = with("").into_bytes();
    broken_text[12] = 0xff;
    vec![
        ("empty", Vec::new(), "body"),
        ("no JSON", b"upgrade CPE1, please".to_vec(), "body"),
        ("half", with("").into_bytes()[..40].to_vec(), "body"),
        ("a list", b"[1,2]".to_vec(), "body"),
        ("zeros", vec![0; 100], "body"),
        ("1 MiB", large.into_bytes(), "body"),
        ("invalid UTF-8", broken_text, "body"),
        ("nesting", deep.into_bytes(), "context"),
        ("nested body", "[".repeat(30_000).into_bytes(), "body"),
        (
            "wrong types",
            br#"{"job_id":7,"cpe_id":["CPE1"],"firmware_url":null}"#.to_vec(),
            "cpe_id",
        ),
        (
            "unknown field",
            with(r#","deadlin":"2030-01-01T00:00:00Z""#).into_bytes(),
            "deadlin",
        ),
        (
            "repeated field",
            with(r#","job_id":"other""#).into_bytes(),
            "job_id",
        ),
        (
            "pattern",
            with("").replace("CPE1", "CPE*").into_bytes(),
            "cpe_id",
        ),
        (
            "other scheme",
            with("").replace("https", "file").into_bytes(),
            "firmware_url",
        ),
        (
            "range",
            with(r#","max_attempts":0"#).into_bytes(),
            "max_attempts",
        ),
        (
            "number",
            with(r#","priority":1e400"#).into_bytes(),
            "priority",
        ),
        (
            "past the end",
            with(r#","deadline":"2030-02-30T00:00:00Z""#).into_bytes(),
            "deadline",
        ),
    ]
}

#[tokio::test]
async fn bad_requests_are_rejected_kept_untouched_and_harm_nobody() {
    let mut site = Site::begin(1, Plan::default()).await;
    let bad = bad_requests();
    for (name, body, _) in &bad {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id((*name).into());
        site.client()
            .publish(&format!("{PREFIX}.requests"), "request", body, properties)
            .await;
    }
    site.submit(&requests(1)).await;
    let is_enough = site
        .results
        .take_until(PATIENCE, |all| all.final_events().count() > bad.len())
        .await;
    assert!(is_enough, "{:?}", site.results.outcomes());
    assert_eq!(site.results.outcomes()["completed/upgraded"], 1);

    let mut dead = BTreeMap::new();
    for _ in &bad {
        let letter = site.client().wait_for(&format!("{PREFIX}.dead")).await;
        let id = letter
            .properties
            .message_id()
            .as_ref()
            .map(|id| id.as_str().to_owned());
        dead.insert(id.unwrap(), letter);
    }
    for (name, body, field) in &bad {
        let letter = &dead[*name];
        assert!(letter.body == *body, "{name}: the body was touched");
        assert_eq!(
            letter.header("nbi-upgrade-reason").as_deref(),
            Some("invalid_request"),
            "{name}"
        );
        assert_eq!(
            letter.header("nbi-upgrade-queue"),
            Some(format!("{PREFIX}.requests")),
            "{name}"
        );
        let error = letter.header("nbi-upgrade-error").unwrap();
        assert!(error.contains(field), "{name}: {error}");
        let named = |seen: &&crate::support::collector::Seen| {
            let errors = seen.body["data"]["errors"].as_array();
            errors.is_some_and(|errors| errors.iter().any(|one| one["field"] == *field))
        };
        assert!(
            site.results.final_events().any(|seen| named(&seen)),
            "{name}: no event names {field}"
        );
    }
    let rejected = site
        .results
        .final_events()
        .filter(|seen| seen.data("outcome") == "rejected");
    assert_eq!(
        rejected.count(),
        bad.len(),
        "one event each, with an id of its own"
    );
    assert_eq!(site.depths().await.map(|(_, depth)| depth), [0; 4]);
    assert!(
        !site.workers[0]
            .process
            .log()
            .iter()
            .any(|line| line.contains("panicked"))
    );
    site.workers.remove(0).stop(PATIENCE).await;
    site.delete_vhost().await;
}

#[tokio::test]
async fn steps_that_cannot_be_read_are_dead_and_those_of_a_newer_release_wait() {
    let mut site = Site::begin(1, Plan::default()).await;
    let steps = format!("{PREFIX}.steps");
    let fixture: &[u8] = include_bytes!("../../fixtures/messages/v1/step-first.json");
    let text = String::from_utf8(fixture.to_vec()).unwrap();
    let bad = [
        b"no json".to_vec(),
        b"{}".to_vec(),
        br#"{"v":1}"#.to_vec(),
        br#"{"v":-1}"#.to_vec(),
        text.replace("preflight", "some where").into_bytes(),
        fixture[..fixture.len() / 2].to_vec(),
        vec![0xff; 1 << 20],
        "[".repeat(100_000).into_bytes(),
    ];
    for body in &bad {
        assert_ne!(body, fixture);
        site.client()
            .publish("", &steps, body, BasicProperties::default())
            .await;
    }
    let newer = [
        br#"{"v":2,"unheard_of":[1,2,3]}"#.to_vec(),
        text.replace("preflight", "unheard_of").into_bytes(),
    ];
    for body in &newer {
        site.client()
            .publish("", &steps, body, BasicProperties::default())
            .await;
    }
    site.submit(&requests(1)).await;
    site.results.finals(1, PATIENCE).await;
    let dead = format!("{PREFIX}.dead");
    let mut letters = Vec::new();
    for _ in &bad {
        letters.push(site.client().wait_for(&dead).await);
    }
    for body in &bad {
        let letter = letters
            .iter()
            .find(|letter| letter.body == *body)
            .expect("it is among the dead, untouched");
        assert_eq!(
            letter.header("nbi-upgrade-reason").as_deref(),
            Some("malformed_step")
        );
        assert_eq!(letter.header("nbi-upgrade-queue").as_ref(), Some(&steps));
    }
    // Where the job can still be read, it is named: its rule may be armed.
    let job_id = serde_json::from_slice::<Value>(fixture).unwrap()["order"]["job_id"].clone();
    let names = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["message"] == "step dead-lettered" && line["job_id"] == job_id
    };
    assert!(job_id.is_string() && site.workers[0].process.log().iter().any(names));
    // They wait for a newer worker, as they are.
    let parked = format!("{PREFIX}.delay.32s");
    let mut waiting = Vec::new();
    for _ in &newer {
        waiting.push(site.client().wait_for(&parked).await.body);
    }
    waiting.sort();
    let mut newer = newer.to_vec();
    newer.sort();
    assert_eq!(waiting, newer);
    site.end(1).await;
}
