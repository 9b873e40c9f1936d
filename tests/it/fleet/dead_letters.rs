//! The `dead` command against a real broker: letters listed, shown, sent back and dropped, and none lost by being looked at.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{GRACE, PATIENCE, PREFIX, Plan, Site, request};

fn dead() -> String {
    format!("{PREFIX}.dead")
}

/// Puts a message among the dead, as if a worker had.
async fn bury(site: &Site, body: &Value, reason: &str, from: &str) {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("nbi-upgrade-reason", reason),
        ("nbi-upgrade-error", "cpe_id: \u{1b}[2J is \"no\" good"),
        ("nbi-upgrade-queue", &format!("{PREFIX}.{from}")),
        ("nbi-upgrade-time", "2026-06-01T02:07:15Z"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("x-odd", "1"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id(body["job_id"].as_str().unwrap_or("none").into())
        .with_headers(headers);
    site.client()
        .publish(&dead(), "", body.to_string().as_bytes(), properties)
        .await;
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters
        .iter()
        .map(|letter| letter["id"].as_str().unwrap())
        .collect()
}

/// Before 4.3 every look counts; the limit here is as low as one that a site may have set for all its queues.
#[tokio::test]
async fn looking_at_letters_loses_none_and_keeps_their_order() {
    let site = Site::begin(0, Plan::default()).await;
    let policy =
        json!({"pattern": "dead$", "definition": {"delivery-limit": 3}, "apply-to": "queues"});
    let path = format!("/api/policies/{}/limit", site.vhost.name());
    Node::shared().api("PUT", &path, Some(&policy.to_string()));
    for number in 1..=30 {
        let body = request(&format!("job-{number}"), number, "fw.bin");
        bury(&site, &body, "invalid_request", "requests").await;
    }
    let first = site
        .run(&["dead", "list", "--output", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(first.len(), 30);
    let jobs: Vec<_> = first
        .iter()
        .map(|letter| letter["job_id"].clone())
        .collect();
    assert_eq!(jobs[0], "job-1");
    assert_eq!(jobs[29], "job-30");
    for _ in 0..8 {
        let again = site
            .run(&["dead", "list", "--output", "json"])
            .await
            .expect(0)
            .json();
        assert_eq!(
            ids(&again),
            ids(&first),
            "the same letters, in the same order"
        );
    }
    // A part of them, and one of them, again and again.
    for _ in 0..5 {
        let some = site
            .run(&["dead", "list", "--limit", "3", "--output", "json"])
            .await
            .expect(0)
            .json();
        assert_eq!(some.len(), 3);
        site.run(&["dead", "show", ids(&first)[29]]).await.expect(0);
    }
    let mut last: Vec<_> = site
        .run(&["dead", "list", "--output", "json"])
        .await
        .expect(0)
        .json();
    let by_id = |letter: &Value| letter["id"].as_str().unwrap().to_owned();
    last.sort_by_key(by_id);
    let mut first = first;
    first.sort_by_key(by_id);
    assert_eq!(last, first, "nothing of any letter has changed");
    assert_eq!(site.client().depth(&dead()).await, 30);
    site.delete_vhost().await;
}

/// By people and tools that are not ours, which count the looks of none. From 4.0 on the broker's own limit is 20.
#[tokio::test]
async fn a_letter_that_others_look_at_again_and_again_is_not_dropped() {
    let site = Site::begin(0, Plan::default()).await;
    let body = request("job-1", 1, "fw.bin");
    bury(&site, &body, "invalid_request", "requests").await;
    site.client().give_back(&dead(), 60).await;
    until("the letter to be back", PATIENCE, async || {
        (site.client().depth(&dead()).await == 1).then_some(())
    })
    .await;
    let listed = site.run(&["dead", "list", "--output", "json"]).await;
    assert_eq!(listed.expect(0).json()[0]["job_id"], "job-1");
    site.delete_vhost().await;
}

#[tokio::test]
async fn a_queue_of_dead_letters_that_stands_from_before_stays() {
    let mut site = Site::begin(0, Plan::default()).await;
    site.client().delete(&dead()).await;
    let quorum = AMQPValue::LongString("quorum".into());
    let earlier = [("x-queue-type", quorum)];
    site.client().declare(&dead(), &earlier).await;
    for command in [
        &["topology", "declare"][..],
        &["topology", "check"],
        &["check"],
    ] {
        site.run(command).await.expect(0);
    }
    let body = request("job-1", 1, "fw.bin");
    bury(&site, &body, "invalid_request", "requests").await;
    let listed = site.run(&["dead", "list", "--output", "json"]).await;
    assert_eq!(listed.expect(0).json()[0]["job_id"], "job-1");
    // A worker, which declares it too, takes the refusal for what it is.
    site.start_worker().await;
    site.workers[0].ready().await;
    assert_eq!(site.workers[0].metric("broker_reconnects_total").await, 0.0);
    site.workers.remove(0).stop(GRACE).await;
    // In any other form it is not taken for ours.
    site.client().delete(&dead()).await;
    let other = [("x-queue-type", AMQPValue::LongString("classic".into()))];
    site.client().declare(&dead(), &other).await;
    let refused = site.run(&["topology", "declare"]).await.expect(1);
    assert!(refused.err.contains("x-queue-type"), "{}", refused.err);
    site.delete_vhost().await;
}

#[tokio::test]
async fn a_letter_is_shown_whole_and_cannot_steer_the_terminal() {
    let site = Site::begin(0, Plan::default()).await;
    let body = json!({"job_id": "odd", "cpe_id": "C*", "note": "\u{1b}[31mred"});
    bury(&site, &body, "invalid_request", "requests").await;
    site.client()
        .publish(&dead(), "", &[0xff, 0, 1], BasicProperties::default())
        .await;
    let listed = site.run(&["dead", "list"]).await.expect(0);
    assert!(listed.out.contains("ERROR") && listed.out.contains("[2J is \"no\" good"));
    assert!(listed.err.contains("2 dead letters"), "{}", listed.err);
    let shown = site
        .run(&["dead", "show", "--job-id", "odd"])
        .await
        .expect(0);
    for said in [
        "invalid_request",
        "fleet.requests",
        "2026-06-01T02:07:15Z",
        "traceparent=00-0af",
        r#""cpe_id":"C*""#,
    ] {
        assert!(shown.out.contains(said), "{said} is not in {}", shown.out);
    }
    let all = site.run(&["dead", "show", "--all"]).await.expect(0);
    assert!(all.out.contains("3 bytes, not text"), "{}", all.out);
    for finished in [listed, shown, all] {
        assert!(!finished.out.contains('\u{1b}'), "{:?}", finished.out);
    }
    let all = site
        .run(&["dead", "show", "--all", "--output", "json"])
        .await
        .expect(0)
        .json();
    let text = all.iter().find(|letter| letter["job_id"] == "odd").unwrap();
    assert_eq!(text["body"], body.to_string());
    let bytes = all
        .iter()
        .find(|letter| letter["reason"] == "unknown")
        .unwrap();
    assert_eq!(bytes["body_base64"], "/wAB");
    let none = site.run(&["dead", "show", "0000000000"]).await.expect(1);
    assert!(none.err.contains("no dead letter has the id 0000000000"));
    site.delete_vhost().await;
}

#[tokio::test]
async fn letters_go_back_as_they_were_and_their_fate_is_told() {
    let mut site = Site::begin(1, Plan::default()).await;
    // The configuration was at fault: by now the request is a good one.
    bury(
        &site,
        &request("good", 1, "fw-2.bin"),
        "invalid_request",
        "requests",
    )
    .await;
    // It is as wrong as before.
    bury(
        &site,
        &json!({"job_id": "bad"}),
        "invalid_request",
        "requests",
    )
    .await;
    // Nobody knows where it came from.
    site.client()
        .publish(&dead(), "", b"stray", BasicProperties::default())
        .await;
    let finished = site
        .run(&[
            "dead", "requeue", "--all", "--output", "json", "--wait", "60s",
        ])
        .await
        .expect(1);
    let said = finished.json();
    let of = |job: &str| said.iter().find(|line| line["job_id"] == job).unwrap();
    assert_eq!(of("good")["fate"], "accepted");
    assert_eq!(of("good")["queue"], format!("{PREFIX}.requests"));
    assert_eq!(of("bad")["is_dead_again"], true);
    let kept = said.iter().find(|line| line["result"] == "kept").unwrap();
    assert!(kept["error"].as_str().unwrap().contains("--to"));
    site.results.finals(2, PATIENCE).await;
    assert_eq!(site.results.outcomes()["completed/upgraded"], 1);
    assert_eq!(site.results.outcomes()["rejected/invalid_request"], 1);
    // The trace goes on, and nothing of the death does.
    let event = site
        .results
        .final_events()
        .find(|seen| seen.data("job_id") == "good");
    let headers = event.unwrap().properties.headers().clone().unwrap();
    assert!(headers.inner().contains_key("traceparent"));
    let left = site
        .run(&["dead", "list", "--output", "json"])
        .await
        .expect(0)
        .json();
    let mut reasons: Vec<_> = left.iter().map(|letter| letter["reason"].clone()).collect();
    reasons.sort_by_key(Value::to_string);
    assert_eq!(reasons, ["invalid_request", "unknown"]);
    site.end_with(2, 2).await;
}

#[tokio::test]
async fn a_letter_goes_back_to_whichever_queue_of_ours_it_came_from() {
    let site = Site::begin(0, Plan::default()).await;
    for (number, from) in ["campaigns.requests", "commands", "elsewhere"]
        .into_iter()
        .enumerate()
    {
        let body = request(&format!("job-{number}"), number, "fw.bin");
        bury(&site, &body, "delivery_limit", from).await;
    }
    let all = [
        "dead", "requeue", "--all", "--wait", "0s", "--output", "json",
    ];
    let said = site.run(&all).await.expect(1).json();
    for queue in ["campaigns.requests", "commands"] {
        let queue = format!("{PREFIX}.{queue}");
        assert!(said.iter().any(|line| line["queue"] == queue), "{said:?}");
        assert_eq!(site.client().depth(&queue).await, 1);
    }
    let kept = said.iter().find(|line| line["result"] == "kept").unwrap();
    let why = kept["error"].as_str().unwrap();
    assert!(
        why.contains("\"fleet.elsewhere\"") && why.contains("--to"),
        "{why}"
    );
    assert_eq!(site.client().depth(&dead()).await, 1);
    site.delete_vhost().await;
}

/// The queue goes while the command waits, so that a letter that was looked at often cannot be put back as a copy.
#[tokio::test]
async fn what_was_sent_back_is_told_also_where_the_command_fails_later() {
    let site = Site::begin(0, Plan::default()).await;
    bury(
        &site,
        &request("worn", 1, "fw.bin"),
        "delivery_limit",
        "elsewhere",
    )
    .await;
    site.client().give_back(&dead(), 3).await;
    bury(
        &site,
        &request("sent", 2, "fw.bin"),
        "invalid_request",
        "requests",
    )
    .await;
    let all = [
        "dead", "requeue", "--all", "--wait", "4s", "--output", "json",
    ];
    let requests = format!("{PREFIX}.requests");
    let gone = async {
        until("the letter to be back", PATIENCE, async || {
            (site.client().depth(&requests).await == 1).then_some(())
        })
        .await;
        site.client().delete(&dead()).await;
    };
    let (finished, ()) = tokio::join!(site.run(&all), gone);
    let finished = finished.expect(1);
    assert!(
        finished.out.contains("failed to publish to queue"),
        "{}",
        finished.out
    );
    let said = finished
        .out
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut sent = said.filter(|line| line["result"] == "requeued");
    assert_eq!(sent.next().expect("it is told")["job_id"], "sent");
    site.delete_vhost().await;
}

/// A continuation that crashed every worker, dead-lettered by the broker itself, whose own headers would stop it in a delay queue.
#[tokio::test]
async fn what_the_broker_gave_up_on_goes_back_without_the_brokers_headers() {
    let mut site = Site::begin(0, Plan::default()).await;
    let steps = format!("{PREFIX}.steps");
    let step = include_bytes!("../../fixtures/messages/v1/step-first.json");
    site.client()
        .publish("", &steps, step, BasicProperties::default())
        .await;
    // The limit is 20; the next return is one too many.
    site.client().give_back(&steps, 21).await;
    until("the letter", PATIENCE, async || {
        (site.client().depth(&dead()).await == 1).then_some(())
    })
    .await;
    for _ in 0..4 {
        let letters = site
            .run(&["dead", "list", "--output", "json"])
            .await
            .expect(0)
            .json();
        assert_eq!(letters[0]["reason"], "delivery_limit");
        assert_eq!(letters[0]["queue"], steps);
        assert_eq!(letters[0]["job_id"], "job-1");
    }
    let finished = site
        .run(&[
            "dead",
            "requeue",
            "--reason",
            "delivery_limit",
            "--wait",
            "0s",
        ])
        .await
        .expect(0);
    assert!(finished.out.contains("not waited for"), "{}", finished.out);
    let back = site.client().take(&steps).await.expect("it is there");
    assert_eq!(back.body, step);
    let headers = back.properties.headers().clone().unwrap();
    let names: Vec<_> = headers.inner().keys().map(|name| name.as_str()).collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| **name != "x-delivery-count")
            .collect::<Vec<_>>(),
        [&"nbi-upgrade-redelivered"],
        "only the mark that it may have been worked on"
    );
    site.end_with(0, 0).await;
}

#[tokio::test]
async fn letters_are_dropped_only_when_they_are_saved() {
    let site = Site::begin(0, Plan::default()).await;
    for number in 1..=3 {
        let body = request(&format!("job-{number}"), number, "fw.bin");
        bury(&site, &body, "invalid_request", "requests").await;
    }
    let asked = site.run(&["dead", "drop", "--all"]).await.expect(2);
    assert!(asked.err.contains("--yes"));
    // The disk is full: nothing goes.
    let full = ["dead", "drop", "--all", "--yes", "--save", "/dev/full"];
    assert!(site.run(&full).await.expect(1).err.contains("not dropped"));
    assert_eq!(site.client().depth(&dead()).await, 3);
    let save = [
        "dead",
        "drop",
        "--job-id",
        "job-2",
        "--yes",
        "--save",
        "saved.jsonl",
    ];
    let dropped = site.run(&save).await.expect(0);
    assert!(dropped.out.contains("dropped"));
    let saved = std::fs::read_to_string(site.directory().join("saved.jsonl")).unwrap();
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert!(saved["body"].as_str().unwrap().contains("job-2"));
    let left = site
        .run(&["dead", "list", "--output", "json"])
        .await
        .expect(0)
        .json();
    let jobs: Vec<_> = left.iter().map(|letter| letter["job_id"].clone()).collect();
    assert_eq!(jobs, ["job-1", "job-3"]);
    site.delete_vhost().await;
}
