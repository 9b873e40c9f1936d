//! `watch` and `status` against a real broker with real jobs: the history told, and followed as it is written.

use std::process::Stdio;
use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::processes::until;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, request, requests};

fn of_campaign(mut request: Value, campaign: &str) -> Value {
    request["campaign_id"] = json!(campaign);
    request
}

#[tokio::test]
async fn status_tells_the_life_of_a_job_and_a_campaign_in_numbers() {
    let mut site = Site::begin(1, Plan::default()).await;
    let mut all: Vec<_> = requests(3)
        .into_iter()
        .map(|request| of_campaign(request, "spring"))
        .collect();
    let mut late = of_campaign(request("late", 4, "fw.bin"), "spring");
    late["deadline"] = json!("2020-01-01T00:00:00Z");
    late["requested_at"] = json!("2020-01-01T00:00:00Z");
    all.push(late);
    site.submit(&all).await;
    site.results.finals(4, PATIENCE).await;

    let told = site.run(&["status", "job-1"]).await.expect(0).out;
    for said in [
        "completed/upgraded, impact applied",
        "CPE000001",
        "UPGRADE_CPE000001, deactivated",
        "await_result",
        "accepted",
    ] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    let told = site
        .run(&["status", "late", "--output", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(told[0]["state"], "over");
    assert_eq!(told[0]["data"]["reason"], "timed_out");
    let none = site.run(&["status", "nobody"]).await.expect(1);
    assert!(none.out.is_empty() && none.err.contains("no event of job nobody"));
    let told = site
        .run(&["status", "--campaign", "spring", "--output", "json"])
        .await
        .expect(0)
        .json();
    assert_eq!(
        told[0]["outcomes"],
        json!({"completed/upgraded": 3, "failed/timed_out": 1})
    );
    assert_eq!(
        (&told[0]["jobs"], &told[0]["under_way"]),
        (&json!(4), &json!(0))
    );
    // Nothing of it is younger than tomorrow.
    let tomorrow = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    site.run(&["status", "job-1", "--since", &tomorrow])
        .await
        .expect(1);
    site.end(4).await;
}

#[tokio::test]
async fn watch_filters_the_history_and_shows_repeats_once() {
    let mut site = Site::begin(1, Plan::default()).await;
    let all = [
        of_campaign(request("a", 1, "fw.bin"), "spring"),
        of_campaign(request("b", 2, "fw.bin"), "autumn"),
        request("c", 3, "fw.bin"),
    ];
    site.submit(&all).await;
    site.results.finals(3, PATIENCE).await;
    // The same once more, as after a crash; and something that is no event, and something that would steer.
    let again = site
        .results
        .final_events()
        .next()
        .expect("one")
        .body
        .to_string();
    let hostile = json!({"id": "x", "type": "upgrade.failed", "time": "2026-06-01T00:00:00Z", "subject": "S",
        "data": {"job_id": "evil\u{1b}[2J", "cpe_id": "C", "outcome": "failed", "reason": "\u{202e}", "message": "a\nb"}});
    for body in [
        again,
        r#"{"id":"y","no":"event"}"#.to_owned(),
        hostile.to_string(),
    ] {
        site.client()
            .publish(
                &format!("{PREFIX}.results"),
                "x",
                body.as_bytes(),
                BasicProperties::default(),
            )
            .await;
    }
    let watched = async |more: &[&str]| {
        let arguments = [&["watch", "--from", "first", "--no-follow"], more].concat();
        site.run(&arguments).await.expect(0).out
    };
    let all = watched(&[]).await;
    assert_eq!(all.lines().count(), 7, "{all}");
    assert!(!all.contains(['\u{1b}', '\u{202e}']), "{all:?}");
    for (filter, count) in [
        (&["--campaign", "spring"][..], 2),
        (&["--outcome", "completed"][..], 3),
        (&["--outcome", "accepted"][..], 3),
        (&["--device", "CPE000002"][..], 2),
        (&["--job", "c", "--outcome", "completed"][..], 1),
        (&["--job", "nobody"][..], 0),
    ] {
        let some = watched(filter).await;
        assert_eq!(some.lines().count(), count, "{filter:?}: {some}");
    }
    let events = watched(&["--job", "a", "--output", "json"]).await;
    let kinds: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(kinds, ["upgrade.accepted", "upgrade.completed"]);
    site.end_with(4, 0).await;
}

#[tokio::test]
async fn watch_follows_what_comes_also_across_a_lost_connection() {
    let mut site = Site::begin(1, Plan::default()).await;
    let file = |name: &str| std::fs::File::create(site.directory().join(name)).unwrap();
    let (out, err) = (file("watched"), file("watched.err"));
    let mut watching = site
        .command(&["watch", "--outcome", "completed"])
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(site.directory().join(name)).unwrap();
    let node = crate::support::rabbit::Node::shared();
    until("the watcher to read", PATIENCE, async || {
        read("watched.err")
            .contains("waiting for events")
            .then_some(())
    })
    .await;
    site.submit(&requests(1)).await;
    until("the first outcome", PATIENCE, async || {
        read("watched").contains("job-1").then_some(())
    })
    .await;
    // The broker lists a connection some seconds after it was made.
    until("the loss", PATIENCE, async || {
        node.close_connections(&site.vhost);
        tokio::time::sleep(Duration::from_millis(500)).await;
        read("watched.err")
            .contains("connecting again")
            .then_some(())
    })
    .await;
    site.submit(&[request("job-2", 2, "fw.bin")]).await;
    until("the second outcome", PATIENCE, async || {
        read("watched").contains("job-2").then_some(())
    })
    .await;
    let seen = read("watched");
    assert_eq!(seen.matches("job-1").count(), 1, "{seen}");
    watching.start_kill().unwrap();
    tokio::time::timeout(Duration::from_secs(60), watching.wait())
        .await
        .unwrap()
        .unwrap();
    site.reconnect().await;
    site.results.finals(2, PATIENCE).await;
    site.end(2).await;
}
