//! What is taken away from campaigns, or bounded, while they run; and leaders that die at the end of one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use nbi_upgrade::driver::amqp::AmqpSettings;
use nbi_upgrade::driver::amqp::stream::{Start, Stream, StreamReader};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::campaign_limits::{site, window};
use super::campaigns::{Observer, campaign, cleared_away, event, leader};
use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{GRACE, PATIENCE, PREFIX, Plan, Site};

/// Orders about nobody: what follows them has a higher place in the stream than anything will have that is declared anew.
async fn many_orders(observer: &Observer) {
    for _ in 0..40 {
        observer
            .order(json!({"command": "resume", "campaign_id": "autumn"}))
            .await;
    }
}

/// The workers stop, the stream of orders is deleted and declared anew, and a worker starts.
async fn declare_orders_anew(site: &mut Site) {
    for worker in site.workers.drain(..) {
        worker.stop(GRACE).await;
    }
    site.client().delete(&format!("{PREFIX}.control")).await;
    site.run(&["topology", "declare"]).await.expect(0);
    site.start_worker().await;
    until("a leader", PATIENCE, async || leader(site).await).await;
}

/// Pauses that stand in the stream of orders.
async fn pauses(site: &Site) -> usize {
    let settings = AmqpSettings {
        urls: vec![SecretString::from(site.vhost.url())],
        prefix: PREFIX.to_owned(),
        ..AmqpSettings::default()
    };
    let mut reader = StreamReader::connect(settings, Stream::Control, Start::First)
        .await
        .expect("the stream stands");
    let end = reader.end().await.expect("it has an end");
    let mut pauses = 0;
    while let Some(record) = reader.next_before(end).await.expect("it can be read") {
        pauses += usize::from(String::from_utf8_lossy(&record.body).contains("pause"));
    }
    reader.close().await;
    pauses
}

#[tokio::test]
async fn a_paused_campaign_is_resumed_after_the_stream_of_orders_was_declared_anew() {
    let mut site = site(1, 5).await;
    let observer = Observer::begin(&site.vhost.url()).await;
    many_orders(&observer).await;
    observer
        .order(json!({"command": "pause", "campaign_id": "spring"}))
        .await;
    site.submit(&[campaign(1..=5, json!({}))]).await;
    event(&mut site, "upgrade.campaign.paused", 1).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    declare_orders_anew(&mut site).await;
    observer
        .order(json!({"command": "resume", "campaign_id": "spring"}))
        .await;
    event(&mut site, "upgrade.campaign.resumed", 1).await;
    site.results.finals(5, PATIENCE).await;
    event(&mut site, "upgrade.campaign.completed", 1).await;
    cleared_away(&site).await;
    assert_eq!(site.end(5).await["flashes"], 5);
}

#[tokio::test]
async fn a_campaign_pauses_itself_once_after_the_stream_of_orders_was_declared_anew() {
    const BAD: usize = 12;
    let mut site = Site::begin(
        1,
        Plan {
            simulator: &["--devices", "0"],
            ..Plan::default()
        },
    )
    .await;
    let bad: Vec<_> = (1..=BAD)
        .map(|number| {
            json!({"cpe_id": format!("CPE{number:06}"), "session_delay_seconds": 0, "download_seconds": 1,
                "reboot_seconds": 1, "attempts": [{"fault": {"code": 9018, "text": "File corrupted"}}]})
        })
        .collect();
    site.simulator.add(&bad).await;
    let observer = Observer::begin(&site.vhost.url()).await;
    many_orders(&observer).await;
    observer
        .order(json!({"command": "pause", "campaign_id": "spring"}))
        .await;
    let more = json!({
        "pace": {"starts_per_minute": 60},
        "abort": [{"failure": "device_fault", "percent": 50, "min_finished": 6}],
    });
    site.submit(&[campaign(1..=BAD, more)]).await;
    event(&mut site, "upgrade.campaign.paused", 1).await;
    observer
        .order(json!({"command": "resume", "campaign_id": "spring"}))
        .await;
    event(&mut site, "upgrade.campaign.resumed", 1).await;
    declare_orders_anew(&mut site).await;
    let paused = event(&mut site, "upgrade.campaign.paused", 2).await;
    assert_eq!(paused["data"]["reason"], "abort", "{paused}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(pauses(&site).await, 1);
    observer
        .order(json!({"command": "cancel", "campaign_id": "spring"}))
        .await;
    site.results.finals(BAD, PATIENCE).await;
    event(&mut site, "upgrade.campaign.cancelled", 1).await;
    let all = site.results.events();
    let paused = all.filter(|seen| seen.body["type"] == "upgrade.campaign.paused");
    assert_eq!(paused.count(), 2);
    cleared_away(&site).await;
    site.end(BAD).await;
}

#[tokio::test]
async fn a_policy_that_bounds_the_queue_of_a_campaign_holds_its_request_and_loses_no_device() {
    // More than are held at a time, and wait beside them.
    const DEVICES: usize = 500;
    const BOUND: u32 = 200;
    let mut site = site(1, DEVICES).await;
    let observer = Observer::begin(&site.vhost.url()).await;
    let path = format!("/api/policies/{}/short", site.vhost.name());
    let policy = json!({"pattern": format!("^{PREFIX}\\.campaign\\..*"), "apply-to": "all",
        "definition": {"max-length": BOUND}})
    .to_string();
    let set = |verb: &'static str, body: Option<String>| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Node::shared().api(verb, &path, body.as_deref()))
    };
    set("PUT", Some(policy)).await.expect("a policy");
    let window = window(Timestamp::now() + SignedDuration::from_hours(2), 30);
    site.submit(&[campaign(1..=DEVICES, json!({"window": window}))])
        .await;
    let queue = format!("{PREFIX}.campaign.spring");
    until("a full queue", PATIENCE, async || {
        let depth = site.client().depth_if_there(&queue).await.unwrap_or(0);
        (depth >= BOUND).then_some(())
    })
    .await;
    set("DELETE", None).await.expect("no policy");
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    observer
        .order(json!({"command": "cancel", "campaign_id": "spring"}))
        .await;
    let end = event(&mut site, "upgrade.campaign.cancelled", 1).await;
    assert_eq!(end["data"]["counts"]["cancelled"], DEVICES, "{end}");
    site.results.finals(DEVICES, PATIENCE).await;
    cleared_away(&site).await;
    site.end(DEVICES).await;
}

/// What a leader notes before it clears away what campaign `spring` leaves.
async fn campaign_ended(site: &Site) {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_type("upgrade.campaign.end".into())
        .with_message_id("spring".into());
    let leads = format!("{PREFIX}.campaigns");
    site.client().publish("", &leads, b"{}", properties).await;
}

/// The leader died between two steps of the end: the definition is gone, queue and log are not.
#[tokio::test]
async fn a_leader_that_died_at_the_end_of_a_campaign_leaves_nothing_behind() {
    let mut site = site(0, 5).await;
    for (queue, kind) in [("spring", "quorum"), ("spring.log", "stream")] {
        let queue = format!("{PREFIX}.campaign.{queue}");
        let kind = AMQPValue::LongString(kind.into());
        site.client()
            .declare(&queue, &[("x-queue-type", kind)])
            .await;
    }
    campaign_ended(&site).await;
    // Somebody else takes its end for that of a campaign that was begun since: it is not touched.
    let request = json!({"pace": {"max_in_flight": 1}});
    site.start_worker().await;
    cleared_away(&site).await;
    // As an earlier version declared it.
    let queue = format!("{PREFIX}.campaign.spring");
    let before = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000)),
    ];
    site.client().declare(&queue, &before).await;
    site.submit(&[campaign(1..=5, request)]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    campaign_ended(&site).await;
    site.results.finals(5, PATIENCE).await;
    event(&mut site, "upgrade.campaign.completed", 1).await;
    cleared_away(&site).await;
    assert_eq!(site.end(5).await["flashes"], 5);
}

/// A leader that was cut off finds the end of a campaign, and has not heard of the one that was begun since.
#[tokio::test]
async fn the_end_of_a_campaign_takes_no_device_of_a_later_one_away() {
    let mut site = site(0, 6).await;
    let queue = format!("{PREFIX}.campaign.spring");
    let arguments = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000)),
    ];
    site.client().declare(&queue, &arguments).await;
    let device = json!({"cpe_id": "CPE000006"}).to_string();
    let properties = BasicProperties::default().with_delivery_mode(2);
    site.client()
        .publish("", &queue, device.as_bytes(), properties)
        .await;
    campaign_ended(&site).await;
    site.start_worker().await;
    until("a leader", PATIENCE, async || leader(&site).await).await;
    // It looks every second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.client().depth_if_there(&queue).await, Some(1));
    site.submit(&[campaign(1..=5, json!({}))]).await;
    site.results.finals(6, PATIENCE).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["completed"], 6, "{end}");
    cleared_away(&site).await;
    assert_eq!(site.end(6).await["flashes"], 6);
}

/// The broker confirms no event that a full queue of somebody else refuses; who waits for that passes orders on nevertheless.
#[tokio::test]
async fn an_event_that_is_refused_keeps_no_order_from_campaigns() {
    const DEVICES: usize = 30;
    let mut site = site(1, DEVICES).await;
    let observer = Observer::begin(&site.vhost.url()).await;
    let arguments = [
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-max-length", AMQPValue::LongLongInt(1)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    site.client().declare("theirs", &arguments).await;
    for _ in 0..2 {
        let properties = BasicProperties::default();
        site.client().publish("", "theirs", b"{}", properties).await;
    }
    observer.send_events("theirs", "upgrade.rejected.#").await;
    let slow = json!({"pace": {"starts_per_minute": 6}});
    site.submit(&[campaign(1..=DEVICES, slow)]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    // The leader rejects it, and that is refused.
    site.submit(&[campaign(
        1..=DEVICES,
        json!({"firmware_url": "https://files.example/other.bin"}),
    )])
    .await;
    event(&mut site, "upgrade.rejected", 1).await;
    observer
        .order(json!({"command": "pause", "campaign_id": "spring"}))
        .await;
    let paused = event(&mut site, "upgrade.campaign.paused", 1).await;
    let released = paused["data"]["counts"]["released"].as_u64();
    assert!(
        released.expect("a count") < DEVICES as u64,
        "it came too late: {paused}"
    );
    while site.client().take("theirs").await.is_some() {}
    observer
        .order(json!({"command": "cancel", "campaign_id": "spring"}))
        .await;
    event(&mut site, "upgrade.campaign.cancelled", 1).await;
    site.results.finals(DEVICES + 1, PATIENCE).await;
    cleared_away(&site).await;
    while site.client().take("theirs").await.is_some() {}
    site.end_with(DEVICES + 1, 1).await;
}

/// Of a device that was released by a coordinator which died, nobody knows whether it was started: its job looks before it says anything.
#[tokio::test]
async fn a_device_that_may_have_been_started_gets_one_outcome_at_the_deadline() {
    let mut site = site(1, 3).await;
    let requested_at = Timestamp::now() - SignedDuration::from_mins(1);
    let job = json!({
        "job_id": "spring:CPE000001", "cpe_id": "CPE000001", "campaign_id": "spring", "requested_at": requested_at,
        "firmware_url": "https://files.example/fw-2.bin",
    });
    // Its first copy is done before the campaign's log is there to hear of it.
    site.submit(&[job]).await;
    site.results.finals(1, PATIENCE).await;
    let now = Timestamp::now();
    let more = json!({
        "requested_at": requested_at,
        "window": window(now + SignedDuration::from_hours(2), 30),
        "deadline": now + SignedDuration::from_secs(8),
    });
    site.submit(&[campaign(1..=3, more)]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    let release = json!({"v": 1, "coordinator": "one that died", "at": Timestamp::now(), "devices": [["CPE000001", null]]});
    let log = format!("{PREFIX}.campaign.spring.log");
    let body = release.to_string();
    site.client()
        .publish("", &log, body.as_bytes(), BasicProperties::default())
        .await;
    let end: Value = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["released"], 1, "{end}");
    assert_eq!(end["data"]["counts"]["completed"], 1, "{end}");
    assert_eq!(end["data"]["counts"]["timed_out"], 2, "{end}");
    cleared_away(&site).await;
    assert_eq!(site.end(3).await["flashes"], 1);
}
