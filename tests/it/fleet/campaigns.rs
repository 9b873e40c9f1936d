//! Campaigns: many devices from one request, at a pace, on a real broker, with coordinators that die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use nbi_upgrade::driver::amqp::AmqpSettings;
use nbi_upgrade::driver::amqp::stream::{Start, Stream, StreamReader};
use nbi_upgrade::job::CampaignId;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::processes::{LOOK_AGAIN, until};
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, is_long};

/// A campaign's request for these devices, with more fields. It is dated, so that the requests of its devices have the time of their start
/// as `timestamp`.
pub(crate) fn campaign(devices: std::ops::RangeInclusive<usize>, more: Value) -> Value {
    let devices: Vec<_> = devices.map(|number| format!("CPE{number:06}")).collect();
    let mut request = json!({
        "campaign_id": "spring",
        "devices": devices,
        "firmware_url": "https://files.example/fw-2.bin",
        "requested_at": Timestamp::now(),
    });
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request
}

/// Reads every request that is published, beside the workers, and gives orders.
pub(super) struct Observer {
    channel: Channel,
    requests: Consumer,
    _connection: Connection,
    /// When each request was published, in seconds, in the order of arrival; and of which job.
    pub(super) starts: Vec<(u64, String)>,
}

impl Observer {
    pub(super) async fn begin(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the broker is up");
        let channel = connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare("observer".into(), options, FieldTable::default());
        declared.await.expect("a queue of its own");
        let exchange = format!("{PREFIX}.requests");
        let bound = channel.queue_bind(
            "observer".into(),
            exchange.as_str().into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("it may listen");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consume =
            channel.basic_consume("observer".into(), "".into(), options, FieldTable::default());
        let requests = consume.await.expect("it may read");
        Self {
            channel,
            requests,
            _connection: connection,
            starts: Vec::new(),
        }
    }

    /// Takes what has come so far.
    pub(super) async fn look(&mut self) {
        // At most a second: at a high pace there is always more.
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(Some(Ok(delivery))) = tokio::time::timeout_at(
            until
                .min(Instant::now() + Duration::from_millis(200))
                .into(),
            self.requests.next(),
        )
        .await
        {
            let body: Value = serde_json::from_slice(&delivery.data).expect("a request is JSON");
            if let Some(job_id) = body["job_id"].as_str() {
                let at = delivery.properties.timestamp().expect("it says when");
                self.starts.push((at, job_id.to_owned()));
            }
        }
    }

    /// Sends events of these kinds to a queue as well.
    pub(super) async fn send_events(&self, queue: &str, kinds: &str) {
        let exchange = format!("{PREFIX}.results");
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.as_str().into(),
            kinds.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("it may listen");
    }

    /// Gives an order.
    pub(super) async fn order(&self, order: Value) {
        let exchange = format!("{PREFIX}.control");
        let body = order.to_string();
        let published = self.channel.basic_publish(
            exchange.as_str().into(),
            "".into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default()
                .with_delivery_mode(2)
                .with_timestamp(Timestamp::now().as_second().cast_unsigned())
                .with_correlation_id("order-1".into()),
        );
        published.await.expect("it is written");
    }

    /// Every span of whole seconds holds its share at this rate and one second's worth more, at most. The starts of the busiest minute.
    fn assert_pace(&self, starts_per_minute: u64) -> u64 {
        let mut by_second: BTreeMap<u64, u64> = BTreeMap::new();
        for (at, _) in &self.starts {
            *by_second.entry(*at).or_default() += 1;
        }
        let mut busiest = 0;
        for from in by_second.keys() {
            for seconds in 1..=60_u64 {
                let count: u64 = by_second
                    .range(from..&(from + seconds))
                    .map(|(_, count)| count)
                    .sum();
                let allowed = (seconds + 1) * starts_per_minute / 60;
                assert!(
                    count <= allowed,
                    "{count} starts in {seconds} s, {allowed} allowed: {by_second:?}"
                );
                busiest = busiest.max(count);
            }
        }
        busiest
    }

    /// Waits until the requests of so many devices were seen, and no other ones.
    pub(super) async fn has_seen(&mut self, count: usize) {
        let patience = Instant::now() + PATIENCE;
        while self.devices().len() < count {
            assert!(
                Instant::now() < patience,
                "{} of {count} devices were started",
                self.devices().len()
            );
            self.look().await;
        }
        assert_eq!(self.devices().len(), count);
    }

    pub(super) fn devices(&self) -> BTreeSet<&str> {
        self.starts
            .iter()
            .map(|(_, job_id)| job_id.as_str())
            .collect()
    }
}

/// The campaign's event of this type, waited for: the last one.
pub(crate) async fn event(site: &mut Site, kind: &str, count: usize) -> Value {
    let of_kind = |seen: &&crate::support::collector::Seen| seen.body["type"] == kind;
    let is_there = site
        .results
        .take_until(PATIENCE, |all| {
            all.events().filter(of_kind).count() >= count
        })
        .await;
    assert!(is_there, "no {count} events {kind}");
    let mut all: Vec<_> = site.results.events().filter(of_kind).collect();
    all.sort_by_key(|seen| seen.body["time"].as_str().map(str::to_owned));
    all.last().expect("at least one").body.clone()
}

/// Which worker leads the campaigns.
pub(super) async fn leader(site: &Site) -> Option<usize> {
    for (index, worker) in site.workers.iter().enumerate() {
        if worker.metric("campaign_leader").await > 0.0 {
            return Some(index);
        }
    }
    None
}

/// Waits until queue and log of the campaign are gone.
pub(crate) async fn cleared_away(site: &Site) {
    until("queue and log to be deleted", PATIENCE, async || {
        let names: Vec<_> = site.statistics().await;
        let is_left = names.iter().any(|queue| {
            queue["name"]
                .as_str()
                .is_some_and(|name| name.contains(".campaign."))
        });
        (!is_left).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_campaign_goes_from_its_requests_to_its_summary_and_leaves_nothing_behind() {
    let flags = ["--devices", "250"];
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &flags,
            ..Plan::default()
        },
    )
    .await;
    let more =
        json!({"pace": {"starts_per_minute": 1_200, "max_in_flight": 60}, "context": {"order": 7}});
    // Devices 81 to 100 are named twice, and the whole second request is sent twice.
    site.submit(&[
        campaign(1..=100, more.clone()),
        campaign(81..=250, more.clone()),
        campaign(81..=250, more),
    ])
    .await;
    site.results.finals(250, PATIENCE).await;
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    let data = &end["data"];
    assert_eq!(end["subject"], "spring");
    assert_eq!(
        (&data["state"], &data["context"]["order"]),
        (&json!("completed"), &json!(7))
    );
    for (name, count) in [
        ("released", 250),
        ("completed", 250),
        ("failed", 0),
        ("waiting", 0),
        ("in_flight", 0),
        ("unfinished", 0),
    ] {
        assert_eq!(data["counts"][name], count, "{name} in {data}");
    }
    let jobs: BTreeSet<_> = site
        .results
        .final_events()
        .map(|seen| seen.data("job_id").to_owned())
        .collect();
    assert!(jobs.contains("spring:CPE000001") && jobs.len() == 250);
    let accepted = event(&mut site, "upgrade.campaign.accepted", 2).await;
    assert_eq!(accepted["data"]["state"], "running");
    cleared_away(&site).await;
    let summary = site.end(250).await;
    assert_eq!(summary["flashes"], 250, "{summary}");
}

fn time(of: &Value) -> Timestamp {
    let time = of.as_str().map(str::parse);
    time.expect("a text").expect("a time")
}

/// From the first to the last.
fn span(times: &BTreeSet<Timestamp>) -> Duration {
    let span = times.last().zip(times.first());
    let span = span.map(|(last, first)| last.duration_since(*first));
    span.unwrap_or_default().unsigned_abs()
}

/// When each entry of the campaign's log was written that says that devices are started, until all are. The log, which is gone with the
/// campaign, is opened as soon as it stands.
async fn releases(url: String, devices: usize) -> BTreeSet<Timestamp> {
    let settings = AmqpSettings {
        urls: vec![SecretString::from(url)],
        prefix: PREFIX.to_owned(),
        ..AmqpSettings::default()
    };
    let spring = CampaignId::parse("spring").expect("a name");
    let deadline = Instant::now() + PATIENCE;
    let mut log = loop {
        let stream = Stream::CampaignLog(spring.clone());
        match StreamReader::connect(settings.clone(), stream, Start::First).await {
            Ok(log) => break log,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let (mut entries, mut started) = (BTreeSet::new(), 0);
    while started < devices {
        let next = tokio::time::timeout(PATIENCE, log.next()).await;
        let entry = next.expect("devices start").expect("it can be read");
        let entry: Value = serde_json::from_slice(&entry.body).expect("JSON");
        if let Some(of) = entry["devices"].as_array() {
            started += of.len();
            entries.insert(time(&entry["at"]));
        }
    }
    log.close().await;
    entries
}

#[tokio::test]
async fn devices_that_may_start_at_once_are_started_and_ended_together() {
    let (devices, waiting) = if is_long() {
        (2_000, 2_000)
    } else {
        (200, 500)
    };
    let flags = ["--devices", &(devices + waiting).to_string()];
    let mut site = Site::begin(
        1,
        Plan {
            simulator: &flags,
            ..Plan::default()
        },
    )
    .await;
    let observer = Observer::begin(&site.vhost.url()).await;
    let entries = tokio::spawn(releases(site.vhost.url(), devices));
    site.submit(&[campaign(1..=devices, json!({}))]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    let entries = entries.await.expect("the log is read");
    eprintln!(
        "{devices} devices started with {} entries of the log, within {:.1?}",
        entries.len(),
        span(&entries)
    );
    site.results.finals(devices, PATIENCE).await;
    event(&mut site, "upgrade.campaign.completed", 1).await;

    let mut later = campaign(
        devices + 1..=devices + waiting,
        json!({"not_before": Timestamp::now() + SignedDuration::from_hours(2)}),
    );
    later["campaign_id"] = json!("summer");
    site.submit(&[later]).await;
    event(&mut site, "upgrade.campaign.accepted", 2).await;
    observer
        .order(json!({"command": "cancel", "campaign_id": "summer"}))
        .await;
    let end = event(&mut site, "upgrade.campaign.cancelled", 1).await;
    assert_eq!(end["data"]["counts"]["cancelled"], waiting, "{end}");
    site.results.finals(devices + waiting, PATIENCE).await;
    // Those that are told together have one time.
    let cancelled = site.results.final_events();
    let cancelled = cancelled.filter(|seen| seen.body["type"] == "upgrade.cancelled");
    let times: BTreeSet<_> = cancelled.map(|seen| time(&seen.body["time"])).collect();
    eprintln!(
        "{waiting} devices cancelled in {} parts, within {:.1?}",
        times.len(),
        span(&times)
    );
    let (entries, parts) = (entries.len(), times.len());
    assert!(
        entries * 4 <= devices && parts * 4 <= waiting,
        "{entries} entries of the log, {parts} parts"
    );
    cleared_away(&site).await;
    let summary = site.end(devices + waiting).await;
    assert_eq!(summary["flashes"], devices, "{summary}");
}

#[tokio::test]
async fn a_request_without_a_date_that_comes_again_after_its_campaign_flashes_no_device_again() {
    let flags = ["--devices", "10"];
    let mut site = Site::begin(
        1,
        Plan {
            simulator: &flags,
            ..Plan::default()
        },
    )
    .await;
    let request = campaign(1..=10, json!({"requested_at": null}));
    for run in 1..=2 {
        site.submit(std::slice::from_ref(&request)).await;
        let end = event(&mut site, "upgrade.campaign.completed", run).await;
        assert_eq!(end["data"]["counts"]["completed"], 10, "{end}");
        cleared_away(&site).await;
        // Sent again it has another timestamp.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let summary = site.end(10).await;
    assert_eq!(summary["flashes"], 10, "{summary}");
}

#[tokio::test]
async fn coordinators_killed_again_and_again_keep_the_pace_and_lose_no_device() {
    let (count, rate) = if is_long() {
        (5_000, 1_200)
    } else {
        (300, 600)
    };
    let devices = count.to_string();
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", &devices],
            ..Plan::default()
        },
    )
    .await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let more = json!({"pace": {"starts_per_minute": rate}});
    let requests: Vec<_> = (0..count / 100)
        .map(|part| campaign(part * 100 + 1..=part * 100 + 100, more.clone()))
        .collect();
    site.submit(&requests).await;
    // The first kill falls into the fan-out; then one every five seconds, however long the one before took.
    let begun = Instant::now();
    let mut due = begun + Duration::from_millis(500);
    let mut kills = Vec::new();
    while site.results.count_of_finals() < count {
        let pause = due.saturating_duration_since(Instant::now());
        site.results
            .take_until(pause, |all| all.count_of_finals() >= count)
            .await;
        observer.look().await;
        if Instant::now() < due {
            continue;
        }
        let index = until("a leader", PATIENCE, async || leader(&site).await).await;
        site.workers.remove(index).kill9().await;
        kills.push(begun.elapsed());
        site.start_worker().await;
        due += Duration::from_secs(5);
        assert!(kills.len() < count, "it does not come forward");
    }
    let took = begun.elapsed();
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["released"], count, "{end}");
    assert_eq!(end["data"]["counts"]["completed"], count, "{end}");
    observer.has_seen(count).await;
    let busiest = observer.assert_pace(rate);
    let again = observer.starts.len() - count;
    cleared_away(&site).await;
    let summary = site.end(count).await;
    let gaps = kills.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().unwrap_or_default();
    eprintln!(
        "{} coordinators killed in {} s, at most {:.1} s apart; {again} requests published again; {busiest} starts in the busiest minute; calls {}",
        kills.len(),
        took.as_secs(),
        longest.as_secs_f64(),
        summary["calls"]
    );
    assert_eq!(summary["flashes"], count, "{summary}");
    let expected = took.as_secs() / 5;
    assert!(
        kills.len() >= 3 && kills.len() as u64 >= expected * 4 / 5,
        "{} kills in {} s: {kills:?}",
        kills.len(),
        took.as_secs()
    );
}

/// The largest campaign that was carried out for real: two requests of as many devices as one may name. About a quarter of an hour.
#[tokio::test]
async fn twenty_thousand_devices_start_once_each_and_end_once_each() {
    if !is_long() {
        return;
    }
    let (count, rate, places) = (20_000, 2_400, 2_000);
    let devices = count.to_string();
    let plan = Plan {
        simulator: &["--devices", &devices],
        environment: &[("NBI_UPGRADE_NBI__TIMEOUT", "30s")],
    };
    let mut site = Site::begin(3, plan).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let more = json!({"pace": {"starts_per_minute": rate, "max_in_flight": places}});
    let resident = async |site: &Site| {
        let index = until("somebody to lead", PATIENCE, async || leader(site).await).await;
        site.workers[index].process.resident() / (1 << 20)
    };
    let before = resident(&site).await;
    let begun = Instant::now();
    site.submit(&[
        campaign(1..=10_000, more.clone()),
        campaign(10_001..=20_000, more),
    ])
    .await;
    let submitted = begun.elapsed();
    let (mut most, mut last, mut moved) = (before, 0, Instant::now());
    while site.results.count_of_finals() < count {
        site.results
            .take_until(Duration::from_secs(10), |all| {
                all.count_of_finals() >= count
            })
            .await;
        observer.look().await;
        most = most.max(resident(&site).await);
        if site.results.count_of_finals() > last {
            (last, moved) = (site.results.count_of_finals(), Instant::now());
        }
        eprintln!(
            "{:.0?}: {last} finished, {} started, the leader has {} MiB",
            begun.elapsed(),
            observer.starts.len(),
            resident(&site).await
        );
        assert!(moved.elapsed() < PATIENCE, "it does not come forward");
    }
    let took = begun.elapsed();
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["released"], count, "{end}");
    assert_eq!(end["data"]["counts"]["completed"], count, "{end}");
    assert_eq!(
        site.results.outcomes().into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    until("every request to be seen", PATIENCE, async || {
        observer.look().await;
        (observer.starts.len() >= count).then_some(())
    })
    .await;
    observer.assert_pace(rate);
    assert_eq!(
        (observer.devices().len(), observer.starts.len()),
        (count, count)
    );
    let seconds = observer.starts.iter().map(|(at, _)| *at);
    let starting = seconds.clone().max().zip(seconds.min());
    let starting = starting.map_or(0, |(last, first)| last - first);
    cleared_away(&site).await;
    let repeats = site.results.repeats;
    let summary = site.end(count).await;
    assert_eq!(
        (&summary["flashes"], &summary["devices_flashed"]),
        (&count.into(), &count.into()),
        "{summary}"
    );
    eprintln!(
        "{count} devices in {took:.0?}, submitted in {submitted:.1?}, started within {starting} s, {:.0} a minute; leader {before} MiB \
         before, {most} MiB at most; {repeats} events repeated; NBI calls {}",
        count as f64 * 60.0 / starting as f64,
        summary["calls"]
    );
}

#[tokio::test]
async fn a_bad_image_stops_its_campaign_and_resuming_does_not_trip_on_what_is_known() {
    let mut site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", "1"],
            ..Plan::default()
        },
    )
    .await;
    let bad: Vec<_> = (2..=201)
        .map(|number| {
            json!({
                "cpe_id": format!("CPE{number:06}"),
                "session_delay_seconds": 1, "download_seconds": 1, "reboot_seconds": 1,
                "attempts": [{"fault": {"code": 9018, "text": "File corrupted"}}],
            })
        })
        .collect();
    site.simulator.add(&bad).await;
    let mut observer = Observer::begin(&site.vhost.url()).await;
    let (threshold, places) = (10, 20);
    let more = json!({
        "pace": {"max_in_flight": places},
        "abort": [{"failure": "device_fault", "percent": 50, "min_finished": threshold}],
    });
    site.submit(&[campaign(2..=201, more)]).await;
    let paused = event(&mut site, "upgrade.campaign.paused", 1).await;
    assert_eq!(paused["data"]["reason"], "abort", "{paused}");
    site.results.finals(threshold, PATIENCE).await;
    let is_more = site
        .results
        .take_until(Duration::from_secs(8), |all| {
            all.count_of_finals() > threshold + places
        })
        .await;
    assert!(!is_more, "more than the threshold and what was in flight");
    observer.look().await;
    let before = observer.devices().len();
    assert!(
        (threshold..=threshold + places).contains(&before),
        "{before} started"
    );

    observer
        .order(json!({"command": "resume", "campaign_id": "spring", "arm_again_after": "1s"}))
        .await;
    event(&mut site, "upgrade.campaign.resumed", 1).await;
    let answer = site
        .results
        .events()
        .find(|seen| seen.body["type"] == "upgrade.campaign.resumed");
    let correlation_id = answer.and_then(|seen| seen.properties.correlation_id().clone());
    assert_eq!(
        correlation_id.as_ref().map(|id| id.as_str()),
        Some("order-1"),
        "an order is answered under its own id"
    );
    let paused = event(&mut site, "upgrade.campaign.paused", 2).await;
    let failed = paused["data"]["counts"]["device_fault"].as_u64();
    assert!(
        failed >= Some(2 * threshold as u64),
        "it went on until as many had failed again: {paused}"
    );
    observer.look().await;
    let after = observer.devices().len();
    assert!(
        after <= before + threshold + places,
        "{before}, then {after} started: no more than fail again and are in flight"
    );

    observer
        .order(json!({"command": "cancel", "campaign_id": "spring"}))
        .await;
    let end = event(&mut site, "upgrade.campaign.cancelled", 1).await;
    site.results.finals(200, PATIENCE).await;
    let counts = &end["data"]["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap_or_default();
    assert_eq!(number("failed") + number("cancelled"), 200, "{end}");
    assert_eq!(number("released"), after as u64, "{end}");
    cleared_away(&site).await;
    site.end(200).await;
}

#[tokio::test]
async fn a_request_that_does_not_fit_its_campaign_is_rejected_and_the_campaign_goes_on() {
    let flags = ["--devices", "20"];
    let mut site = Site::begin(
        1,
        Plan {
            simulator: &flags,
            ..Plan::default()
        },
    )
    .await;
    let slow = json!({"pace": {"starts_per_minute": 60}});
    site.submit(&[campaign(1..=10, slow.clone())]).await;
    event(&mut site, "upgrade.campaign.accepted", 1).await;
    // What nobody can read there is put aside, and not lost.
    let devices = format!("{PREFIX}.campaign.spring");
    site.client()
        .publish("", &devices, b"no device", BasicProperties::default())
        .await;
    let other = json!({"pace": {"starts_per_minute": 600}, "firmware_url": "https://files.example/other.bin"});
    site.submit(&[campaign(11..=20, other)]).await;
    let rejected = event(&mut site, "upgrade.rejected", 1).await;
    let fields: Vec<_> = rejected["data"]["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| error["field"].clone())
        .collect();
    assert_eq!(
        fields,
        ["firmware_url", "pace.starts_per_minute"],
        "{rejected}"
    );
    let end = event(&mut site, "upgrade.campaign.completed", 1).await;
    assert_eq!(end["data"]["counts"]["completed"], 10, "{end}");
    cleared_away(&site).await;
    // The rejected request counts as an outcome here, and lies among the dead, as the message does that was no device.
    site.results.finals(11, PATIENCE).await;
    site.end_with(11, 2).await;
}
