//! Workers under load, in trouble, watched by a real Prometheus with the shipped rules: every panel has data, every rule holds, and
//! what is wrong is seen.
//!
//! With `NBI_UPGRADE_PICTURES` set to a folder the same runs for some minutes as a story, and what the panels show is written there,
//! for `tests/pictures/make`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lapin::BasicProperties;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::drift::dashboards;
use crate::support::processes::until;
use crate::support::prometheus::{JOB, Prometheus, hasty_rules, lint};
use crate::support::proxy::Proxy;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site};

/// How long and how much.
struct Story {
    /// Between two scrapes.
    scrape: Duration,
    /// What `$__rate_interval` stands for.
    rate_interval: &'static str,
    /// Of one act.
    act: Duration,
    /// Jobs a second.
    pace: u32,
    flags: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const SHORT: Story = Story {
    scrape: Duration::from_secs(1),
    rate_interval: "10s",
    act: Duration::from_secs(8),
    pace: 8,
    flags: &["--mixed", "--trouble", "0.04", "--seed", "3"],
    environment: &[
        ("NBI_UPGRADE_JOB__TIMEOUT", "15s"),
        ("NBI_UPGRADE_INSTANCE__NAME", "worker"),
    ],
};

const LONG: Story = Story {
    scrape: Duration::from_secs(2),
    rate_interval: "30s",
    act: Duration::from_secs(80),
    pace: 4,
    flags: &[
        "--mixed",
        "--trouble",
        "0.01",
        "--seed",
        "3",
        "--time-scale",
        "0.05",
    ],
    environment: &[
        ("NBI_UPGRADE_JOB__TIMEOUT", "90s"),
        ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "3s"),
        ("NBI_UPGRADE_AWAIT_RESULT__MAX", "10s"),
        ("NBI_UPGRADE_CONNECTION_REQUEST__RESEND_INTERVAL", "20s"),
        ("NBI_UPGRADE_NBI__CIRCUIT_OPEN_INITIAL", "3s"),
        ("NBI_UPGRADE_NBI__CIRCUIT_OPEN_MAX", "10s"),
        ("NBI_UPGRADE_INSTANCE__NAME", "worker"),
    ],
};

/// A site that is watched.
struct Watched {
    site: Site,
    proxy: Proxy,
    prometheus: Prometheus,
    story: &'static Story,
    /// Devices so far.
    devices: usize,
    began: Timestamp,
}

impl Watched {
    async fn begin(story: &'static Story) -> Self {
        let mut site = Site::begin(
            0,
            Plan {
                simulator: story.flags,
                environment: story.environment,
            },
        )
        .await;
        let mut proxy = Proxy::closed(site.simulator.address());
        proxy.open().await;
        let address = format!("http://{}", proxy.address());
        site.set("NBI_UPGRADE_NBI__URL", &address);
        let prometheus = Prometheus::start(&hasty_rules(), story.scrape).await;
        let mut watched = Self {
            site,
            proxy,
            prometheus,
            story,
            devices: 0,
            began: Timestamp::now(),
        };
        for _ in 0..2 {
            watched.start_worker().await;
        }
        watched
    }

    async fn start_worker(&mut self) {
        self.site.start_worker().await;
        let addresses: Vec<_> = self
            .site
            .workers
            .iter()
            .map(|worker| worker.address())
            .collect();
        self.prometheus.scrape(&addresses);
    }

    /// Sends jobs for new devices for one act; every `each`th of them cannot get its file.
    async fn act(&mut self, times: f64, each: Option<usize>) {
        let end = Instant::now() + self.story.act.mul_f64(times);
        let period = Duration::from_secs(2);
        while Instant::now() < end {
            let next = Instant::now() + period;
            let mut requests = Vec::new();
            let mut without_file = Vec::new();
            for _ in 0..2 * self.story.pace {
                self.devices += 1;
                let cpe_id = format!("CPE{:06}", 100_000 + self.devices);
                if each.is_some_and(|each| self.devices.is_multiple_of(each)) {
                    let fault =
                        json!({"fault": {"code": 9016, "text": "FaultCode 9016: file not found"}});
                    without_file.push(json!({
                        "cpe_id": cpe_id, "attempts": [fault], "session_delay_seconds": 1, "download_seconds": 1,
                    }));
                }
                requests.push(json!({
                    "job_id": format!("order-{}", self.devices), "cpe_id": cpe_id, "campaign_id": "spring",
                    "firmware_url": "https://files.example/fw-2.bin", "max_attempts": 2,
                }));
            }
            if !without_file.is_empty() {
                self.site.simulator.add(&without_file).await;
            }
            self.site.submit(&requests).await;
            tokio::time::sleep_until(next).await;
        }
    }

    /// Begins a campaign that goes on to the end of the story, and cannot meet its deadline.
    async fn begin_campaign(&self) {
        let devices: Vec<_> = (1..=3_000)
            .map(|number| format!("CPE{:06}", 300_000 + number))
            .collect();
        let deadline = Timestamp::now() + jiff::SignedDuration::from_mins(15);
        self.site
            .submit(&[json!({
                "campaign_id": "summer", "devices": devices, "firmware_url": "https://files.example/fw-2.bin",
                "deadline": deadline, "pace": {"starts_per_minute": 120, "max_in_flight": 40},
            })])
            .await;
    }

    /// Begins a campaign whose devices cannot get their file.
    async fn begin_bad_campaign(&self) {
        let devices: Vec<_> = (1..=30)
            .map(|number| format!("CPE{:06}", 400_000 + number))
            .collect();
        let fault = json!({"fault": {"code": 9016, "text": "FaultCode 9016: file not found"}});
        let without_file: Vec<_> = devices
            .iter()
            .map(|cpe_id| {
                json!({"cpe_id": cpe_id, "attempts": [fault], "session_delay_seconds": 1, "download_seconds": 1})
            })
            .collect();
        self.site.simulator.add(&without_file).await;
        self.site
            .submit(&[json!({
                "campaign_id": "autumn", "devices": devices, "firmware_url": "https://files.example/fw-3.bin",
                "pace": {"max_in_flight": 4},
            })])
            .await;
    }

    /// Publishes something that is no request.
    async fn send_nonsense(&self) {
        let body =
            br#"{"job_id":"bad","cpe_id":"CPE*","firmware_url":"https://files.example/fw.bin"}"#;
        let exchange = format!("{PREFIX}.requests");
        self.site
            .client()
            .publish(&exchange, "request", body, BasicProperties::default())
            .await;
    }

    /// Waits until an alert fires.
    async fn fires(&self, alert: &str) -> Value {
        let query = format!("ALERTS{{alertstate=\"firing\",alertname=\"{alert}\"}}");
        until(alert, PATIENCE, async || {
            self.prometheus.query(&query).await.into_iter().next()
        })
        .await
    }

    /// The query of a panel as Grafana would send it.
    fn filled(&self, query: &str) -> String {
        let range = Timestamp::now().duration_since(self.began).as_secs();
        query
            .replace("$__rate_interval", self.story.rate_interval)
            .replace("$__range", &format!("{range}s"))
            .replace("$job", JOB)
            .replace("$prefix", PREFIX)
            .replace("$instance", ".+")
    }

    /// What a panel's query returns: over the whole time, or now.
    async fn shown(&self, query: &str, is_instant: bool) -> Vec<Value> {
        let query = self.filled(query);
        if is_instant {
            return self.prometheus.query(&query).await;
        }
        let (start, end) = (self.began.as_second(), Timestamp::now().as_second());
        let step = (end - start) / 300 + 1;
        let parameters = [
            ("query", query.as_str()),
            ("start", &start.to_string()),
            ("end", &end.to_string()),
            ("step", &step.to_string()),
        ];
        let data = self.prometheus.api("query_range", &parameters).await;
        data["result"].as_array().cloned().unwrap_or_default()
    }

    /// All dashboards, each target with its result.
    async fn boards(&self) -> Vec<(String, Value)> {
        let mut boards = Vec::new();
        for (path, board) in dashboards() {
            let mut board = board.value();
            let panels = board["panels"].as_array_mut().expect("it has panels");
            for target in panels
                .iter_mut()
                .filter_map(|panel| panel.get_mut("targets")?.as_array_mut())
                .flatten()
            {
                let (query, is_instant) = (target["expr"].as_str(), target["instant"] == true);
                let result = self.shown(query.expect("it is text"), is_instant).await;
                target["result"] = Value::Array(result);
            }
            for mark in board["annotations"]["list"].as_array_mut().expect("a list") {
                // Marks look a minute back, which is long where scrapes are a second apart.
                let query = mark["expr"].as_str().expect("it is text");
                let query = query.replace("1m", self.story.rate_interval);
                let result = self.shown(&query, false).await;
                mark["result"] = Value::Array(result);
            }
            let name = path.file_stem().and_then(|name| name.to_str());
            boards.push((name.expect("a plain name").to_owned(), board));
        }
        boards
    }
}

/// Whether there is a number in it.
fn has_data(result: &[Value]) -> bool {
    let numbers = result.iter().flat_map(|series| {
        let many = series["values"].as_array().cloned().unwrap_or_default();
        many.into_iter().chain([series["value"].clone()])
    });
    numbers
        .filter_map(|pair| pair[1].as_str()?.parse::<f64>().ok())
        .any(f64::is_finite)
}

/// Panels and marks that show nothing.
fn empty(boards: &[(String, Value)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, board) in boards {
        let targets = board["panels"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|panel| {
                let targets = panel["targets"].as_array().into_iter().flatten();
                targets.map(|target| (panel["title"].clone(), target))
            });
        let marks = board["annotations"]["list"]
            .as_array()
            .into_iter()
            .flatten();
        for (title, target) in targets.chain(marks.map(|mark| (mark["name"].clone(), mark))) {
            let result = target["result"].as_array().map_or(&[][..], Vec::as_slice);
            if !has_data(result) {
                complaints.push(format!("{name}, {title}: {}", target["expr"]));
            }
        }
    }
    complaints
}

#[test]
fn a_panel_without_data_is_noticed() {
    let board = |result: Value| {
        let target = json!({ "expr": "x", "result": result });
        json!({ "panels": [{ "title": "t", "targets": [target] }], "annotations": { "list": [] } })
    };
    for (result, is_empty) in [
        (json!([]), true),
        (json!([{ "value": [1, "NaN"] }]), true),
        (json!([{ "values": [[1, "NaN"], [2, "NaN"]] }]), true),
        (json!([{ "values": [[1, "NaN"], [2, "0"]] }]), false),
        (json!([{ "value": [1, "3"] }]), false),
    ] {
        let boards = [("b".to_owned(), board(result))];
        assert_eq!(!empty(&boards).is_empty(), is_empty, "{boards:?}");
    }
}

/// Two workers, a third with a wrong password, an NBI that goes away and comes back, a file that some devices cannot get.
#[tokio::test]
async fn every_panel_has_data_and_what_is_wrong_fires() {
    let pictures = std::env::var_os("NBI_UPGRADE_PICTURES").map(PathBuf::from);
    let story = if pictures.is_some() { &LONG } else { &SHORT };
    let mut watched = Watched::begin(story).await;
    watched.begin_campaign().await;
    watched.act(1.0, None).await;
    watched.send_nonsense().await;
    watched.proxy.close().await;
    watched.act(0.5, None).await;
    watched.proxy.open().await;
    watched.act(1.5, None).await;
    watched.begin_bad_campaign().await;
    watched.act(1.0, Some(4)).await;
    for (alert, campaign) in [
        ("NbiUpgradeCampaignPausedItself", "autumn"),
        ("NbiUpgradeCampaignInJeopardy", "summer"),
    ] {
        let fires = watched.fires(alert).await;
        assert_eq!(fires["metric"]["campaign"], campaign, "{fires}");
        assert_eq!(fires["metric"]["prefix"], PREFIX, "{fires}");
    }
    let fault = watched.fires("NbiUpgradeConfigurationFaults").await;
    assert_eq!(fault["metric"]["code"], "9016", "{fault}");
    assert_eq!(fault["metric"]["prefix"], PREFIX, "{fault}");
    let dead = watched.fires("NbiUpgradeDeadLetters").await;
    assert_eq!(dead["metric"]["prefix"], PREFIX, "{dead}");
    // What was changed since does not fire.
    let silent = watched
        .prometheus
        .query(r#"ALERTS{alertname=~"NbiUpgrade(NbiRefusesCredentials|NoWorkers|Panic|BrokerDisconnected|CampaignsWithoutLeader|CampaignStalled)"}"#)
        .await;
    assert!(silent.is_empty(), "{silent:?}");

    watched.site.set("NBI_UPGRADE_NBI__PASSWORD", "wr0ng");
    watched.start_worker().await;
    watched.act(0.5, None).await;
    let refused = watched.fires("NbiUpgradeNbiRefusesCredentials").await;
    assert_eq!(refused["metric"]["severity"], "critical", "{refused}");
    println!("fires: {refused}");

    let boards = watched.boards().await;
    if let Some(folder) = pictures {
        for (name, board) in &boards {
            std::fs::write(folder.join(format!("{name}.json")), board.to_string()).unwrap();
        }
    }
    let complaints = empty(&boards);
    assert!(complaints.is_empty(), "no data:\n{}", complaints.join("\n"));
    rules_hold(&watched.prometheus).await;
    for worker in &watched.site.workers {
        assert_eq!(lint(&worker.metrics().await), "");
    }
    watched.site.delete_vhost().await;
}

/// Every rule was evaluated without an error, and every recorded series is there.
async fn rules_hold(prometheus: &Prometheus) {
    let groups = prometheus.api("rules", &[]).await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    assert!(rules.len() >= 20, "{groups:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().unwrap();
            assert!(
                has_data(&prometheus.query(name).await),
                "{name} records nothing"
            );
        }
    }
}
