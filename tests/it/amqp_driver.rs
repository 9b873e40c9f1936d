//! The AMQP driver against a real broker, which is broken on purpose here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{
    AmqpDriver, AmqpSettings, Requester, Token, TopologyMode, topology,
};
use nbi_upgrade::driver::{Delivery, Destination, Driver, DriverError, HandOver, Intake};
use nbi_upgrade::message::{Codec, EventKind, EventMessage, EventSettings, RequestSettings, Work};
use nbi_upgrade::telemetry::Telemetry;
use secrecy::SecretString;

use crate::support::proxy::Proxy;
use crate::support::rabbit::{Client, Node, Vhost};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(url: &str) -> AmqpSettings {
    AmqpSettings {
        urls: vec![SecretString::from(url.to_owned())],
        publish_timeout: Duration::from_secs(10),
        ..AmqpSettings::default()
    }
}

fn codec() -> Codec {
    let events = EventSettings {
        source: "/nbi-upgrade/test".to_owned(),
        progress: false,
    };
    Codec {
        requests: RequestSettings::default(),
        events,
    }
}

fn start(settings: AmqpSettings) -> AmqpDriver {
    AmqpDriver::start(
        settings,
        codec(),
        Arc::new(Telemetry::default()),
        clock::system(),
    )
}

fn request(job_id: &str) -> Vec<u8> {
    format!(r#"{{"job_id":"{job_id}","cpe_id":"CPE-{job_id}","firmware_url":"http://files.example/fw.bin"}}"#).into_bytes()
}

/// The driver and a client beside it, on a vhost of the shared node whose topology stands.
async fn bench() -> (Vhost, AmqpDriver, Client) {
    let vhost = Node::shared().vhost();
    topology::declare_once(&settings(&vhost.url()))
        .await
        .expect("the broker is up");
    let client = vhost.client().await;
    let driver = start(settings(&vhost.url()));
    (vhost, driver, client)
}

async fn receive(driver: &AmqpDriver) -> Delivery<Token> {
    tokio::time::timeout(PATIENCE, driver.receive())
        .await
        .expect("a delivery in time")
        .expect("the driver has not ended")
}

async fn receives_nothing(driver: &AmqpDriver, within: Duration) -> bool {
    tokio::time::timeout(within, driver.receive())
        .await
        .is_err()
}

async fn submit(client: &Client, job_id: &str) {
    let properties = BasicProperties::default().with_content_type("application/json".into());
    client
        .publish("upgrade.requests", "request", &request(job_id), properties)
        .await;
}

/// The same job after one more hand-over.
fn next(mut work: Work) -> Work {
    work.job.progress.seq += 1;
    work
}

fn hand_over(work: Work, to: Destination) -> HandOver {
    HandOver {
        work,
        to,
        events: Vec::new(),
    }
}

fn in_seconds(seconds: i64) -> Destination {
    Destination::At(Timestamp::now() + SignedDuration::from_secs(seconds))
}

fn final_event(reply_to: Option<&str>) -> EventMessage {
    EventMessage {
        kind: EventKind::Completed,
        id: "event-1".to_owned(),
        routing_key: "upgrade.completed.-".to_owned(),
        event_type: "upgrade.completed",
        time: Timestamp::now(),
        body: b"{}".to_vec(),
        correlation_id: Some("correlation-1".to_owned()),
        reply_to: reply_to.map(str::to_owned),
        traceparent: Some("00-abc".to_owned()),
        tracestate: None,
    }
}

/// Waits until the depth is as expected, as confirms and acknowledgements take their time.
async fn settles_at(client: &Client, queue: &str, expected: u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let depth = client.depth(queue).await;
        if depth == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{queue} holds {depth}, not {expected}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn end(driver: AmqpDriver) {
    driver.stop().await;
    driver.close().await;
}

#[tokio::test]
async fn topology_can_be_declared_again_and_checked() {
    let vhost = Node::shared().vhost();
    let settings = settings(&vhost.url());
    let missing = topology::check_once(&settings)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("exchange \"upgrade.dead\"") && missing.contains("topology declare"),
        "{missing}"
    );
    topology::declare_once(&settings).await.unwrap();
    topology::declare_once(&settings).await.unwrap();
    topology::check_once(&settings).await.unwrap();
}

#[tokio::test]
async fn who_comes_before_the_topology_stands_is_told_how_to_make_it() {
    let vhost = Node::shared().vhost();
    let mut requester = Requester::connect(settings(&vhost.url())).await.unwrap();
    let listening = requester
        .subscribe(&["upgrade.#"])
        .await
        .unwrap_err()
        .to_string();
    let publishing = requester
        .publish("m", b"{}".to_vec(), None)
        .await
        .unwrap_err()
        .to_string();
    for text in [listening, publishing] {
        assert!(
            text.contains("`nbi-upgrade topology declare` creates what is missing"),
            "{text}"
        );
    }
    requester.close().await;
}

#[tokio::test]
async fn an_unequal_argument_is_named_with_its_remedy() {
    let vhost = Node::shared().vhost();
    let quorum = ("x-queue-type", AMQPValue::LongString("quorum".into()));
    vhost
        .client()
        .await
        .declare(
            "upgrade.delay.4s",
            &[quorum, ("x-message-ttl", AMQPValue::LongLongInt(9))],
        )
        .await;
    let error = topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap_err();
    assert!(error.is_permanent());
    let text = error.to_string();
    assert!(
        text.contains("queue \"upgrade.delay.4s\"") && text.contains("delete the queue"),
        "{text}"
    );
    assert!(
        text.contains("x-message-ttl")
            || text.contains("x-dead-letter")
            || text.contains("x-overflow"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stream_that_stands_with_another_age_or_size_is_not_waited_for_to_be_empty() {
    let vhost = Node::shared().vhost();
    let ours = settings(&vhost.url());
    topology::declare_once(&ours).await.unwrap();
    let older = |events: &str, control: &str| AmqpSettings {
        events_max_age: events.to_owned(),
        control_max_age: control.to_owned(),
        ..ours.clone()
    };
    let larger = AmqpSettings {
        events_max_length_bytes: ours.events_max_length_bytes * 2,
        ..ours.clone()
    };
    let (events, control) = (&ours.events_max_age, &ours.control_max_age);
    for (settings, wanted) in [
        (
            older("99D", control),
            ["\"upgrade.events\"", "x-max-age", "its history is lost"],
        ),
        (
            larger,
            [
                "\"upgrade.events\"",
                "x-max-length-bytes",
                "put the old value back",
            ],
        ),
        (
            older(events, "99D"),
            [
                "\"upgrade.control\"",
                "x-max-age",
                "all standing cancellations and pauses are lost",
            ],
        ),
    ] {
        let text = topology::declare_once(&settings)
            .await
            .unwrap_err()
            .to_string();
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
        // A stream is never empty.
        assert!(!text.contains("once it is empty"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_and_no_password_is_printed() {
    let node = Node::shared();
    let vhost = node.vhost();
    let url = node.user(
        &vhost,
        "poor",
        r#"{"configure":"^upgrade\\.dead$","write":"","read":""}"#,
    );
    let text = topology::declare_once(&settings(&url))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("bind queue \"upgrade.dead\"") && text.contains("write on the queue"),
        "{text}"
    );
    let url = url.replace("s3cret", "wr0ng");
    let error = topology::declare_once(&settings(&url)).await.unwrap_err();
    assert!(
        error.is_permanent() && !error.to_string().contains("wr0ng"),
        "{error}"
    );
    assert!(
        error.to_string().contains("check the user and password"),
        "{error}"
    );
    let url = format!("{}-missing", vhost.url());
    let error = topology::declare_once(&settings(&url)).await.unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("create the vhost"),
        "{error}"
    );
}

#[tokio::test]
async fn a_request_becomes_a_continuation_and_then_an_event() {
    let (_vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    assert!(!delivery.redelivered);
    driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), Destination::Now),
        )
        .await
        .unwrap();
    let delivery = receive(&driver).await;
    assert_eq!(delivery.work.job.progress.seq, 1);
    let events = vec![final_event(None)];
    driver
        .carry_out(
            delivery.token,
            HandOver {
                work: delivery.work,
                to: Destination::Nowhere,
                events,
            },
        )
        .await
        .unwrap();
    end(driver).await;
    for queue in ["upgrade.requests", "upgrade.steps", "upgrade.dead"] {
        settles_at(&client, queue, 0).await;
    }
    settles_at(&client, "upgrade.events", 1).await;
}

#[tokio::test]
async fn a_job_that_waits_comes_when_it_is_due_and_not_before() {
    let (_vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    let due = Timestamp::now() + SignedDuration::from_secs(3);
    driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), Destination::At(due)),
        )
        .await
        .unwrap();
    let delivery = receive(&driver).await;
    let late = Timestamp::now().duration_since(due);
    assert!(
        late > SignedDuration::from_millis(-501) && late < SignedDuration::from_secs(2),
        "{late:?}"
    );
    assert_eq!(
        (delivery.work.not_due_before, delivery.work.job.progress.seq),
        (Some(due), 1)
    );
    assert!(!delivery.redelivered);
    end(driver).await;
}

#[tokio::test]
async fn a_malformed_step_is_dead_lettered_as_it_is() {
    let (_vhost, driver, client) = bench().await;
    let mut headers = FieldTable::default();
    headers.insert("origin".into(), AMQPValue::LongString("somewhere".into()));
    headers.insert("x-death".into(), AMQPValue::LongString("forged".into()));
    let properties = BasicProperties::default()
        .with_content_type("text/odd".into())
        .with_headers(headers);
    client
        .publish("", "upgrade.steps", b"no json", properties)
        .await;
    let message = client.wait_for("upgrade.dead").await;
    assert_eq!(message.body, b"no json");
    assert_eq!(
        message
            .properties
            .content_type()
            .as_ref()
            .map(|text| text.as_str()),
        Some("text/odd")
    );
    assert_eq!(
        message.header("nbi-upgrade-reason").as_deref(),
        Some("malformed_step")
    );
    assert_eq!(
        message.header("nbi-upgrade-queue").as_deref(),
        Some("upgrade.steps")
    );
    assert_eq!(
        message.header("nbi-upgrade-instance").as_deref(),
        Some("nbi-upgrade")
    );
    assert_eq!(message.header("origin").as_deref(), Some("somewhere"));
    assert_eq!(message.header("x-death"), None);
    end(driver).await;
    settles_at(&client, "upgrade.steps", 0).await;
}

#[tokio::test]
async fn a_step_of_a_newer_release_is_parked_unchanged() {
    let (_vhost, driver, client) = bench().await;
    client
        .publish(
            "",
            "upgrade.steps",
            br#"{"v":999}"#,
            BasicProperties::default(),
        )
        .await;
    assert_eq!(
        client.wait_for("upgrade.delay.32s").await.body,
        br#"{"v":999}"#
    );
    end(driver).await;
    settles_at(&client, "upgrade.steps", 0).await;
}

#[tokio::test]
async fn an_invalid_request_is_answered_and_dead_lettered() {
    let (_vhost, driver, client) = bench().await;
    client.declare("answers", &[]).await;
    let properties = BasicProperties::default()
        .with_reply_to("answers".into())
        .with_correlation_id("c-1".into());
    client
        .publish("upgrade.requests", "request", b"{}", properties)
        .await;
    let answer = client.wait_for("answers").await;
    assert_eq!(
        answer.properties.kind().as_ref().map(|text| text.as_str()),
        Some("upgrade.rejected")
    );
    assert_eq!(
        answer
            .properties
            .correlation_id()
            .as_ref()
            .map(|text| text.as_str()),
        Some("c-1")
    );
    let dead = client.wait_for("upgrade.dead").await;
    assert_eq!(
        (
            dead.body.as_slice(),
            dead.header("nbi-upgrade-reason").as_deref()
        ),
        (&b"{}"[..], Some("invalid_request"))
    );
    settles_at(&client, "upgrade.events", 1).await;
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
}

#[tokio::test]
async fn a_message_whose_headers_fill_a_frame_is_dead_lettered_too() {
    let (_vhost, driver, client) = bench().await;
    let mut headers = FieldTable::default();
    headers.insert("origin".into(), AMQPValue::LongString("somewhere".into()));
    // A frame has 128 KiB; with what a dead letter says of itself the same headers would not fit again.
    let filler = AMQPValue::LongString("x".repeat(130_950).into());
    headers.insert("z-filler".into(), filler);
    let properties = BasicProperties::default().with_headers(headers);
    client
        .publish("upgrade.requests", "request", b"{}", properties)
        .await;
    let dead = client.wait_for("upgrade.dead").await;
    assert_eq!(dead.body, b"{}");
    assert_eq!(dead.header("origin").as_deref(), Some("somewhere"));
    assert_eq!(
        dead.header("nbi-upgrade-reason").as_deref(),
        Some("invalid_request")
    );
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
}

#[tokio::test]
async fn a_final_event_also_goes_to_the_requester_and_a_missing_queue_is_no_error() {
    let (_vhost, driver, client) = bench().await;
    client.declare("answers", &[]).await;
    for (job_id, reply_to) in [
        ("job-1", "answers"),
        ("job-2", "nobody"),
        ("job-3", "upgrade.steps"),
    ] {
        submit(&client, job_id).await;
        let delivery = receive(&driver).await;
        let events = vec![final_event(Some(reply_to))];
        driver
            .carry_out(
                delivery.token,
                HandOver {
                    work: delivery.work,
                    to: Destination::Nowhere,
                    events,
                },
            )
            .await
            .unwrap();
    }
    let answer = client.wait_for("answers").await;
    assert_eq!(
        answer
            .properties
            .message_id()
            .as_ref()
            .map(|text| text.as_str()),
        Some("event-1")
    );
    assert_eq!(*answer.properties.delivery_mode(), Some(2));
    assert_eq!(answer.header("traceparent").as_deref(), Some("00-abc"));
    settles_at(&client, "upgrade.events", 3).await;
    end(driver).await;
    settles_at(&client, "upgrade.steps", 0).await;
}

#[tokio::test]
async fn a_deleted_delay_queue_is_declared_again_and_the_job_goes_on() {
    let (_vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    client.delete("upgrade.delay.2s").await;
    // The delivery belongs to the generation that the missing queue ends.
    let outcome = driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), in_seconds(3)),
        )
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = receive(&driver).await;
    assert_eq!(
        delivery.work.job.progress.seq, 1,
        "the redelivered request is known and dropped"
    );
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
}

/// Keeps the only thread busy, so that much of what the broker says is heard at the same time and in any order.
fn hog() -> tokio::task::JoinHandle<()> {
    tokio::spawn(async {
        loop {
            std::thread::sleep(Duration::from_millis(3));
            tokio::task::yield_now().await;
        }
    })
}

/// Takes deliveries of this hand-over until every job has come, or none comes for a while.
async fn come_again(
    driver: &AmqpDriver,
    seq: u64,
    jobs: usize,
) -> BTreeMap<String, Delivery<Token>> {
    let mut come = BTreeMap::new();
    while come.len() < jobs {
        let next = tokio::time::timeout(PATIENCE / 2, driver.receive()).await;
        let Ok(Some(delivery)) = next else { break };
        if delivery.work.job.progress.seq == seq {
            come.insert(delivery.work.job.order.job_id.to_string(), delivery);
        }
    }
    come
}

/// The client library tells a return to the next confirm, whichever publish it belongs to.
#[tokio::test]
async fn of_many_publishes_at_once_none_is_lost_where_some_find_no_queue() {
    const JOBS: usize = 60;
    const ROUNDS: u64 = 3;
    let (_vhost, driver, client) = bench().await;
    let driver = Arc::new(driver);
    for number in 0..JOBS {
        submit(&client, &format!("job-{number}")).await;
    }
    let mut deliveries = come_again(&driver, 0, JOBS).await;
    for round in 1..=ROUNDS {
        assert_eq!(deliveries.len(), JOBS, "before round {round}");
        client.delete("upgrade.delay.1s").await;
        let hog = hog();
        let handed_over = deliveries
            .into_values()
            .enumerate()
            .map(|(number, delivery)| {
                let to = if number % 2 == 0 {
                    Destination::Now
                } else {
                    Destination::At(Timestamp::now() + SignedDuration::from_millis(1_200))
                };
                let job_id = delivery.work.job.order.job_id.clone();
                let event = EventMessage {
                    id: format!("{job_id}-{round}"),
                    ..final_event(None)
                };
                let hand_over = HandOver {
                    work: next(delivery.work),
                    to,
                    events: vec![event],
                };
                let driver = Arc::clone(&driver);
                tokio::spawn(async move { driver.carry_out(delivery.token, hand_over).await })
            });
        for outcome in join_all(handed_over).await {
            assert!(
                !matches!(outcome, Ok(Err(DriverError::NotPublished { .. })) | Err(_)),
                "{outcome:?}"
            );
        }
        hog.abort();
        deliveries = come_again(&driver, round, JOBS).await;
    }
    assert_eq!(deliveries.len(), JOBS, "{:?}", deliveries.keys());
    drop(deliveries);
    end(Arc::into_inner(driver).expect("no task has it")).await;
}

#[tokio::test]
async fn a_publish_that_is_dropped_midway_swallows_nobodys_return_and_costs_no_connection() {
    const JOBS: usize = 60;
    let vhost = Node::shared().vhost();
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    let client = vhost.client().await;
    // What is dropped stays in hand.
    let driver = start(AmqpSettings {
        prefetch_requests: 4 * JOBS as u16,
        ..settings(&vhost.url())
    });
    for is_gone in [false, true] {
        for number in 0..JOBS {
            submit(&client, &format!("job-{is_gone}-{number}")).await;
        }
        let deliveries = come_again(&driver, 0, JOBS).await;
        assert_eq!(deliveries.len(), JOBS);
        if is_gone {
            client.delete("upgrade.delay.1s").await;
        }
        let hog = hog();
        let handed_over =
            deliveries
                .into_iter()
                .enumerate()
                .map(async |(number, (job_id, delivery))| {
                    let goes_on = number % 2 == 0;
                    let to = if is_gone && goes_on {
                        Destination::At(Timestamp::now() + SignedDuration::from_millis(1_200))
                    } else {
                        Destination::Now
                    };
                    let event = EventMessage {
                        id: job_id.clone(),
                        ..final_event(None)
                    };
                    let hand_over = HandOver {
                        work: next(delivery.work),
                        to,
                        events: vec![event],
                    };
                    let limit = if goes_on {
                        2 * PATIENCE
                    } else {
                        Duration::from_micros(250 * number as u64)
                    };
                    let carried = driver.carry_out(delivery.token, hand_over);
                    (goes_on, job_id, tokio::time::timeout(limit, carried).await)
                });
        let mut handed_over_whole = BTreeSet::new();
        for (goes_on, job_id, outcome) in join_all(handed_over).await {
            match outcome {
                Ok(Ok(())) => {}
                // Its connection ended as the queue was gone, and the redelivery is dropped.
                Ok(Err(DriverError::NotAcknowledged { .. })) if is_gone => {}
                Err(_) if !goes_on => continue,
                other => panic!("{job_id}: {other:?}"),
            }
            handed_over_whole.insert(job_id);
        }
        hog.abort();
        assert!(
            (JOBS / 2..JOBS).contains(&handed_over_whole.len()),
            "{} were handed over whole",
            handed_over_whole.len()
        );
        while !handed_over_whole.is_empty() {
            let next = tokio::time::timeout(PATIENCE / 2, driver.receive()).await;
            let Ok(Some(delivery)) = next else { break };
            let Delivery { work, token, .. } = delivery;
            if work.job.progress.seq == 1 {
                handed_over_whole.remove(work.job.order.job_id.as_str());
                let over = hand_over(work, Destination::Nowhere);
                drop(driver.carry_out(token, over).await);
            }
        }
        assert!(handed_over_whole.is_empty(), "lost: {handed_over_whole:?}");
    }
    end(driver).await;
}

#[tokio::test]
async fn requesters_whose_queues_are_gone_end_no_connection() {
    const JOBS: u32 = 60;
    let (_vhost, driver, client) = bench().await;
    client.declare("answers", &[]).await;
    for number in 0..JOBS {
        submit(&client, &format!("job-{number}")).await;
    }
    let deliveries = come_again(&driver, 0, JOBS as usize).await;
    let hog = hog();
    let handed_over = deliveries
        .into_iter()
        .enumerate()
        .map(|(number, (job_id, delivery))| {
            let reply_to = ["answers", "gone"][number % 2];
            let event = EventMessage {
                id: job_id,
                ..final_event(Some(reply_to))
            };
            let hand_over = HandOver {
                work: delivery.work,
                to: Destination::Nowhere,
                events: vec![event],
            };
            driver.carry_out(delivery.token, hand_over)
        });
    // A connection that ended would leave something unacknowledged.
    for outcome in join_all(handed_over).await {
        outcome.unwrap();
    }
    hog.abort();
    settles_at(&client, "answers", JOBS / 2).await;
    settles_at(&client, "upgrade.events", JOBS).await;
    end(driver).await;
}

/// The messages have no ids, by which they could be told apart.
#[tokio::test]
async fn of_requests_without_ids_none_is_lost_where_the_queue_of_campaigns_is_gone() {
    const EACH: usize = 30;
    let (_vhost, driver, client) = bench().await;
    driver.set_intake(Intake::Closed);
    for number in 0..EACH {
        let campaign = format!(
            r#"{{"campaign_id":"spring","devices":["CPE{number:06}"],"firmware_url":"http://files.example/fw.bin"}}"#
        );
        for body in [campaign.as_bytes(), b"{}"] {
            let properties = BasicProperties::default();
            client
                .publish("upgrade.requests", "request", body, properties)
                .await;
        }
    }
    settles_at(&client, "upgrade.requests", 2 * EACH as u32).await;
    client.delete("upgrade.campaigns.requests").await;
    let hog = hog();
    driver.set_intake(Intake::Open);
    tokio::time::sleep(Duration::from_millis(500)).await;
    hog.abort();
    let mut devices = BTreeSet::new();
    while devices.len() < EACH {
        let next = tokio::time::timeout(PATIENCE / 2, driver.receive()).await;
        let Ok(Some(Delivery { work, token, .. })) = next else {
            break;
        };
        devices.insert(work.job.order.cpe_id.to_string());
        let over = hand_over(work, Destination::Nowhere);
        drop(driver.carry_out(token, over).await);
    }
    assert_eq!(devices.len(), EACH, "{devices:?}");
    end(driver).await;
    // What was refused before the connection ended is buried a second time.
    let buried = client.depth("upgrade.dead").await;
    assert!(buried >= EACH as u32, "{buried}");
}

#[tokio::test]
async fn a_lost_connection_costs_nothing_but_time() {
    let (vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    drop(client);
    let mut closed = 0;
    let deadline = Instant::now() + PATIENCE;
    while closed < 2 && Instant::now() < deadline {
        closed = Node::shared().close_connections(&vhost);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(closed >= 2);
    let outcome = driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), Destination::Now),
        )
        .await;
    assert!(
        matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
        "{outcome:?}"
    );
    let delivery = receive(&driver).await;
    assert_eq!(
        delivery.work.job.progress.seq, 1,
        "the redelivered request is known and dropped"
    );
    driver
        .carry_out(
            delivery.token,
            hand_over(delivery.work, Destination::Nowhere),
        )
        .await
        .unwrap();
    assert!(receives_nothing(&driver, Duration::from_secs(2)).await);
    end(driver).await;
    let client = vhost.client().await;
    settles_at(&client, "upgrade.requests", 0).await;
    settles_at(&client, "upgrade.steps", 0).await;
}

#[tokio::test]
async fn a_broker_that_goes_away_is_left_for_the_next_of_the_list() {
    let vhost = Node::shared().vhost();
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    let client = vhost.client().await;
    let mut first = Proxy::closed(&vhost.address());
    let mut second = Proxy::closed(&vhost.address());
    let by = |way: &Proxy| {
        let url = format!("amqp://guest:guest@{}/{}", way.address(), vhost.name());
        SecretString::from(url)
    };
    second.open().await;
    let driver = start(AmqpSettings {
        urls: vec![by(&first), by(&second)],
        ..settings(&vhost.url())
    });
    submit(&client, "job-1").await;
    let mut delivery = receive(&driver).await;
    // There and back: the list is a circle.
    for seq in [1, 2] {
        first.open().await;
        second.close().await;
        let outcome = driver
            .carry_out(
                delivery.token,
                hand_over(next(delivery.work), Destination::Now),
            )
            .await;
        assert!(
            matches!(outcome, Err(DriverError::NotAcknowledged { .. })),
            "{outcome:?}"
        );
        delivery = receive(&driver).await;
        assert_eq!(delivery.work.job.progress.seq, seq);
        std::mem::swap(&mut first, &mut second);
    }
    let over = hand_over(delivery.work, Destination::Nowhere);
    driver.carry_out(delivery.token, over).await.unwrap();
    assert!(receives_nothing(&driver, Duration::from_secs(1)).await);
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
    settles_at(&client, "upgrade.steps", 0).await;
}

#[tokio::test]
async fn workers_begin_at_different_brokers_of_the_list() {
    let bind = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = (bind().await, bind().await);
    let urls = [&one, &other].map(|listener| {
        let address = listener.local_addr().unwrap();
        SecretString::from(format!("amqp://guest:guest@{address}/%2f"))
    });
    let impatient = AmqpSettings {
        urls: urls.to_vec(),
        // Nobody gets to the second of his list.
        connect_timeout: 2 * PATIENCE,
        ..AmqpSettings::default()
    };
    // That all of them begin at the same one is a chance of one in two thousand million.
    let drivers: Vec<_> = (0..32).map(|_| start(impatient.clone())).collect();
    let both = async { tokio::join!(one.accept(), other.accept()) };
    let called = tokio::time::timeout(PATIENCE, both).await;
    assert!(called.is_ok(), "all began at the same broker");
    join_all(drivers.into_iter().map(end)).await;
}

/// The library says again, and without asking, what the broker said to an earlier channel of the same number.
#[tokio::test]
async fn a_connection_whose_channel_numbers_are_used_up_is_closed_and_repeats_no_old_refusal() {
    let vhost = Node::shared().vhost();
    let url = format!("{}?channel_max=5", vhost.url());
    let mut requester = Requester::connect(settings(&url)).await.unwrap();
    let mut refused = async || {
        let refused = requester.subscribe(&["upgrade.#"]).await;
        refused.unwrap_err().to_string()
    };
    // Nothing is declared, so each of these costs a channel: one of the five is for replies.
    for _ in 0..4 {
        let text = refused().await;
        assert!(
            text.contains("listen to exchange \"upgrade.results\""),
            "{text}"
        );
    }
    let stale = refused().await;
    assert!(
        stale.contains("open the results channel") && stale.contains("NOT_FOUND"),
        "{stale}"
    );
    let after = refused().await;
    assert!(!after.contains("NOT_FOUND"), "{after}");
    requester.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_hand_over_waits_for_room() {
    let vhost = Node::shared().vhost();
    let client = vhost.client().await;
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    client.delete("upgrade.delay.2s").await;
    let text = |value: &str| AMQPValue::LongString(value.into());
    let full = [
        ("x-queue-type", text("quorum")),
        ("x-max-length", AMQPValue::LongLongInt(1)),
        ("x-overflow", text("reject-publish")),
    ];
    client.declare("upgrade.delay.2s", &full).await;
    for _ in 0..2 {
        client
            .publish("", "upgrade.delay.2s", b"{}", BasicProperties::default())
            .await;
    }
    let driver = start(AmqpSettings {
        topology: TopologyMode::Check,
        ..settings(&vhost.url())
    });
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    let carried = driver.carry_out(
        delivery.token,
        hand_over(next(delivery.work), in_seconds(3)),
    );
    // The refusals are waited out: as soon as there is room, it is taken.
    let room = async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        while client.take("upgrade.delay.2s").await.is_some() {}
    };
    let (outcome, ()) = tokio::join!(carried, room);
    outcome.unwrap();
    settles_at(&client, "upgrade.delay.2s", 1).await;
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
}

#[tokio::test]
async fn a_rejected_delivery_comes_again_until_the_limit_and_is_then_dead() {
    let (_vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    for count in 0..=20 {
        let delivery = receive(&driver).await;
        assert_eq!(delivery.redelivered, count > 0);
        driver.reject(delivery.token).await;
    }
    assert_eq!(client.wait_for("upgrade.dead").await.body, request("job-1"));
    end(driver).await;
}

#[tokio::test]
async fn a_closed_intake_gives_everything_back_without_counting_it() {
    let (_vhost, driver, client) = bench().await;
    for number in 0..5 {
        submit(&client, &format!("job-{number}")).await;
    }
    let delivery = receive(&driver).await;
    assert!(delivery.work.job.order.is_dated_on_arrival);
    driver.set_intake(Intake::Closed);
    settles_at(&client, "upgrade.requests", 4).await;
    assert!(receives_nothing(&driver, Duration::from_millis(500)).await);
    driver.set_intake(Intake::Probe);
    let probe = receive(&driver).await;
    assert!(!probe.redelivered);
    // A copy of it that comes later says the same.
    assert!(!probe.work.job.order.is_dated_on_arrival);
    assert!(receives_nothing(&driver, Duration::from_millis(500)).await);
    driver
        .carry_out(probe.token, hand_over(probe.work, Destination::Nowhere))
        .await
        .unwrap();
    driver.set_intake(Intake::Open);
    driver
        .carry_out(
            delivery.token,
            hand_over(delivery.work, Destination::Nowhere),
        )
        .await
        .unwrap();
    for _ in 0..3 {
        let delivery = receive(&driver).await;
        driver
            .carry_out(
                delivery.token,
                hand_over(delivery.work, Destination::Nowhere),
            )
            .await
            .unwrap();
    }
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_unacknowledged_and_what_is_in_hand_can_end() {
    let (_vhost, driver, client) = bench().await;
    for number in 0..10 {
        submit(&client, &format!("job-{number}")).await;
    }
    let delivery = receive(&driver).await;
    driver.stop().await;
    settles_at(&client, "upgrade.requests", 9).await;
    assert!(driver.receive().await.is_none());
    driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), Destination::Now),
        )
        .await
        .unwrap();
    let begun = Instant::now();
    driver.close().await;
    assert!(begun.elapsed() < Duration::from_secs(6));
    settles_at(&client, "upgrade.requests", 9).await;
    settles_at(&client, "upgrade.steps", 1).await;
}

#[tokio::test]
async fn two_copies_of_one_request_are_not_worked_on_at_the_same_time() {
    let (_vhost, driver, client) = bench().await;
    submit(&client, "job-1").await;
    submit(&client, "job-1").await;
    let delivery = receive(&driver).await;
    assert!(receives_nothing(&driver, Duration::from_millis(500)).await);
    driver
        .carry_out(
            delivery.token,
            hand_over(next(delivery.work), in_seconds(60)),
        )
        .await
        .unwrap();
    assert!(receives_nothing(&driver, Duration::from_millis(500)).await);
    end(driver).await;
    settles_at(&client, "upgrade.requests", 0).await;
    settles_at(&client, "upgrade.delay.32s", 1).await;
}

#[tokio::test]
async fn a_broker_that_is_killed_loses_no_job() {
    let mut node = tokio::task::spawn_blocking(Node::start).await.unwrap();
    let vhost = node.vhost();
    let driver = start(settings(&vhost.url()));
    topology::declare_once(&settings(&vhost.url()))
        .await
        .unwrap();
    let client = vhost.client().await;
    for number in 0..20 {
        submit(&client, &format!("job-{number}")).await;
    }
    let in_hand = receive(&driver).await;
    // RabbitMQ 3.10 does not find a stream again that was declared less than a second before it is killed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let node = tokio::task::spawn_blocking(move || {
        node.kill9();
        node.restart();
        node
    });
    let outcome = driver
        .carry_out(
            in_hand.token,
            hand_over(next(in_hand.work), Destination::Now),
        )
        .await;
    assert!(
        !matches!(outcome, Err(DriverError::NotPublished { .. })),
        "{outcome:?}"
    );
    let mut done = BTreeSet::new();
    while done.len() < 20 {
        let Delivery { work, token, .. } = receive(&driver).await;
        let job_id = work.job.order.job_id.to_string();
        driver
            .carry_out(token, hand_over(work, Destination::Nowhere))
            .await
            .unwrap();
        done.insert(job_id);
    }
    end(driver).await;
    drop(node.await.unwrap());
}

#[tokio::test]
async fn a_requester_sends_requests_and_hears_of_their_end() {
    let (vhost, driver, _client) = bench().await;
    let mut requester = Requester::connect(settings(&vhost.url())).await.unwrap();
    let mut events = requester.subscribe(&["upgrade.completed.#"]).await.unwrap();
    requester
        .publish("job-1", request("job-1"), None)
        .await
        .unwrap();
    let delivery = receive(&driver).await;
    let hand_over = HandOver {
        work: delivery.work,
        to: Destination::Nowhere,
        events: vec![final_event(None)],
    };
    driver.carry_out(delivery.token, hand_over).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
    assert_eq!(event.as_deref(), Some(&b"{}"[..]));
    requester.close().await;
    end(driver).await;
}
