//! Orders given by the command line to running workers, to workers that start later, and across a lost connection.

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{GRACE, PATIENCE, Plan, Site, request};

/// Devices that come only long after the test, so that their rules stay armed.
const ABSENT: usize = 6;

async fn site(workers: usize) -> Site {
    let environment = [
        ("NBI_UPGRADE_JOB__TIMEOUT", "20m"),
        ("NBI_UPGRADE_JOB__FLASH_TIME_MAX", "15s"),
    ];
    let site = Site::begin(
        workers,
        Plan {
            simulator: &["--devices", "0"],
            environment: &environment,
        },
    )
    .await;
    let device = |number: usize| {
        json!({"cpe_id": format!("CPE{number:06}"), "offline_for_seconds": 3_600,
            "session_delay_seconds": 0, "download_seconds": 1, "reboot_seconds": 1})
    };
    let absent: Vec<Value> = (1..=ABSENT).map(device).collect();
    site.simulator.add(&absent).await;
    let present = json!({"cpe_id": "CPE000100", "inform_interval_seconds": 3,
        "session_delay_seconds": 0, "download_seconds": 1, "reboot_seconds": 1});
    site.simulator.add(&[present]).await;
    site
}

fn of_campaign(job: &str, number: usize) -> Value {
    let mut request = request(job, number, "fw-2.bin");
    request["campaign_id"] = json!("c");
    request
}

async fn armed(site: &Site, count: usize) {
    until(&format!("{count} armed rules"), PATIENCE, async || {
        (site.simulator.summary().await["armed_rules"] == count).then_some(())
    })
    .await;
}

async fn emergency_stop_is(site: &Site, value: f64) {
    for worker in &site.workers {
        until("the emergency stop", PATIENCE, async || {
            (worker.metric("emergency_stop").await == value).then_some(())
        })
        .await;
    }
}

fn reason(answer: &(Option<i32>, Value)) -> (Option<i32>, &str) {
    (
        answer.0,
        answer.1["data"]["reason"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn orders_reach_every_worker_and_each_is_answered() {
    let mut site = site(2).await;
    let jobs: Vec<Value> = (1..=ABSENT)
        .map(|number| of_campaign(&format!("job-{number}"), number))
        .collect();
    site.submit(&jobs).await;
    armed(&site, ABSENT).await;

    // One job.
    let answer = site.order(&["cancel", "job-1"]).await;
    // The order may be carried out before it is answered.
    let is_cancelled = ["stands", "already_cancelled"].map(|reason| (Some(0), reason));
    assert!(is_cancelled.contains(&reason(&answer)), "{answer:?}");
    assert_eq!(answer.1["type"], "upgrade.control.accepted");
    site.results.finals(1, PATIENCE).await;
    armed(&site, ABSENT - 1).await;
    let answer = site.order(&["cancel", "job-1"]).await;
    assert_eq!(reason(&answer), (Some(0), "already_cancelled"));

    // A job that nobody has heard of, and that comes later.
    let answer = site.order(&["cancel", "job-later"]).await;
    assert_eq!(reason(&answer), (Some(0), "unknown_job"));
    site.submit(&[request("job-later", 100, "fw-2.bin")]).await;
    site.results.finals(2, PATIENCE).await;

    // A job that is over.
    site.submit(&[request("job-over", 100, "fw-3.bin")]).await;
    site.results.finals(3, PATIENCE).await;
    let answer = site.order(&["cancel", "job-over"]).await;
    assert_eq!(reason(&answer), (Some(1), "already_finished"));
    assert_eq!(answer.1["type"], "upgrade.control.refused");

    // The emergency stop, and its end: what had not begun is disarmed, and armed again when that is certain.
    let answer = site.order(&["pause", "--all"]).await;
    assert_eq!(reason(&answer), (Some(0), "stands"));
    emergency_stop_is(&site, 1.0).await;
    armed(&site, 0).await;
    let ready = site.workers[0].get("/readyz").await.expect("it answers");
    assert!(format!("{ready:?}").contains("emergency_stop"), "{ready:?}");
    // Who asks why a job does not end is told.
    let told = site.run(&["status", "job-2"]).await.expect(0).out;
    assert!(
        told.contains("\ndeadline ") && told.contains("everything is paused"),
        "{told}"
    );
    site.submit(&[request("job-waits", 100, "fw-4.bin")]).await;

    // A connection that is lost between two orders.
    let vhost = site.vhost.clone();
    let closed = tokio::task::spawn_blocking(move || {
        (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            Node::shared().close_connections(&vhost) > 3
        })
    });
    assert!(closed.await.unwrap());
    site.reconnect().await;
    // A worker that starts while everything is stopped knows it before its first job.
    site.start_worker().await;
    for worker in &site.workers {
        worker.ready().await;
    }
    emergency_stop_is(&site, 1.0).await;
    assert_eq!(site.simulator.summary().await["armed_rules"], 0);
    let answer = site.order(&["resume", "--all"]).await;
    assert_eq!(reason(&answer), (Some(0), "stands"));
    emergency_stop_is(&site, 0.0).await;
    let told = site.run(&["status", "job-2"]).await.expect(0).out;
    assert!(!told.contains("everything is paused"), "{told}");
    site.results.finals(4, PATIENCE).await;
    armed(&site, ABSENT - 1).await;

    // The rest, by their campaign.
    let answer = site.order(&["cancel", "--campaign", "c"]).await;
    assert_eq!(reason(&answer), (Some(0), "stands"));
    site.results.finals(ABSENT + 3, PATIENCE).await;

    // What is no command is refused, and says why.
    let properties = BasicProperties::default()
        .with_correlation_id("bad".into())
        .with_message_id("bad".into());
    site.client()
        .publish("fleet.control", "", br#"{"command":"stop"}"#, properties)
        .await;
    let refused = |all: &crate::support::collector::Collector| {
        all.events().any(|seen| {
            seen.body["data"]["correlation_id"] == "bad"
                && seen.body["type"] == "upgrade.control.refused"
                && seen.body["data"]["errors"][0]["field"] == "command"
        })
    };
    assert!(site.results.take_until(PATIENCE, refused).await);

    let outcomes: Vec<_> = site.results.outcomes().into_iter().collect();
    assert_eq!(
        outcomes,
        [
            ("cancelled/cancelled".to_owned(), ABSENT + 1),
            ("completed/upgraded".to_owned(), 2)
        ]
    );
    // Two jobs have upgraded the device that is there, once each.
    let summary = site.end_with(ABSENT + 3, 0).await;
    assert_eq!(summary["flashes"], 2, "{summary}");
}

#[tokio::test]
async fn a_worker_that_starts_later_knows_what_was_ordered_before() {
    let mut site = site(1).await;
    for worker in site.workers.drain(..) {
        worker.stop(GRACE).await;
    }
    // Nobody is there: the order holds all the same, and the command says so.
    let (status, answer) = site.order(&["cancel", "job-1", "--timeout", "2s"]).await;
    assert_eq!(status, Some(1), "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("holds for every worker")
    );
    let (status, _) = site
        .order(&["pause", "--campaign", "c", "--timeout", "2s"])
        .await;
    assert_eq!(status, Some(1));
    site.submit(&[request("job-1", 100, "fw-2.bin"), of_campaign("job-2", 1)])
        .await;
    site.start_worker().await;
    site.results.finals(1, PATIENCE).await;
    let outcomes: Vec<_> = site.results.outcomes().into_iter().collect();
    assert_eq!(outcomes, [("cancelled/cancelled".to_owned(), 1)]);
    let summary = site.simulator.summary().await;
    assert_eq!(
        (&summary["attempts"], &summary["armed_rules"]),
        (&json!(0), &json!(0)),
        "{summary}"
    );
    // The answers come from the worker that started later, too.
    let answers = |all: &crate::support::collector::Collector| {
        all.events()
            .filter(|seen| seen.body["type"] == "upgrade.control.accepted")
            .count()
            == 2
    };
    assert!(site.results.take_until(PATIENCE, answers).await);
    let (status, _) = site.order(&["cancel", "--campaign", "c"]).await;
    assert_eq!(status, Some(0));
    site.results.finals(2, PATIENCE).await;
    site.end(2).await;
}

#[tokio::test]
async fn an_emergency_stop_that_nobody_answers_holds_for_who_comes_later() {
    let mut site = Site::begin(0, Plan::default()).await;
    let told = site
        .run(&["pause", "--all", "--timeout", "1s"])
        .await
        .expect(1);
    assert!(
        told.err.contains("no worker has answered yet")
            && told.err.contains("holds for every worker"),
        "{}",
        told.err
    );
    site.start_worker().await;
    site.workers[0].ready().await;
    emergency_stop_is(&site, 1.0).await;
    site.end(0).await;
}
