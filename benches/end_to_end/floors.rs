//! The floors: the least lapin and reqwest programs that do what the worker does, to be compared with.
//!
//! | floor | does |
//! | --- | --- |
//! | `durable` | the worker's nine NBI calls and its confirmed hand-overs; no validation, no fault handling, no metrics, no log |
//! | `durable-contract` | the same with the messages that the contract demands (`contract.rs`): the bytes that worker, broker and NBI move are the worker's |
//! | `durable-contract-log` | the same with the worker's two log lines, written together every 20 ms |
//! | `…-hop` | each of these with one wait of a second in a delay queue |
//! | `bare` | consume, four NBI calls, one event, ack; nothing durable between |
//! | `broker` | the hand-overs of `durable` without the calls |
//!
//! Everything is confirmed before the delivery is acknowledged, and many are in hand at a time, as in the worker. One thread.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::contract::{Line, Step};

/// As the worker's defaults.
const PREFETCH: u16 = 256;
const PREFETCH_REQUESTS: u16 = 64;
const CALLS: usize = 64;
const LINES_WAIT: Duration = Duration::from_millis(20);

/// A request, and what the floor carries between deliveries.
#[derive(Serialize, Deserialize)]
struct Job {
    job_id: String,
    cpe_id: String,
    firmware_url: String,
    #[serde(default)]
    stage: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Durable,
    DurableHop,
    Bare,
    Broker,
    Contract { waits: bool, logs: bool },
}

/// A message on its way out.
pub(crate) struct Outgoing {
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

struct Floor {
    kind: Kind,
    log: Mutex<Vec<u8>>,
    client: reqwest::Client,
    nbi: String,
    calls: Semaphore,
    publisher: Channel,
}

/// Works for ever; prints a line when it consumes.
pub(crate) async fn run(kind: &str, url: &str, nbi: &str) {
    let contract = |waits, logs| Kind::Contract { waits, logs };
    let kind = match kind {
        "durable" => Kind::Durable,
        "durable-hop" => Kind::DurableHop,
        "bare" => Kind::Bare,
        "broker" => Kind::Broker,
        "durable-contract" => contract(false, false),
        "durable-contract-hop" => contract(true, false),
        "durable-contract-log" => contract(false, true),
        "durable-contract-log-hop" => contract(true, true),
        other => panic!("{other:?} is no floor"),
    };
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("the broker is up");
    let publisher = connection.create_channel().await.expect("a channel");
    publisher
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert(
        "authorization",
        "Basic bmJpOm5iaQ==".parse().expect("a header"),
    );
    if matches!(kind, Kind::Contract { .. }) {
        let agent = concat!("nbi-upgrade/", env!("CARGO_PKG_VERSION"));
        headers.insert("user-agent", agent.parse().expect("a header"));
    }
    let client = reqwest::Client::builder()
        .default_headers(headers)
        .http1_only()
        .no_proxy()
        .tls_certs_only([])
        .pool_max_idle_per_host(CALLS)
        .build();
    let floor = Arc::new(Floor {
        kind,
        log: Mutex::default(),
        client: client.expect("a client"),
        nbi: format!("http://{nbi}"),
        calls: Semaphore::new(CALLS),
        publisher,
    });
    let mut tasks = Vec::new();
    for (queue, prefetch) in [
        ("upgrade.steps", PREFETCH),
        ("upgrade.requests", PREFETCH_REQUESTS),
    ] {
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .expect("a prefetch");
        let consumed = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = consumed.await.expect("the queue stands");
        let floor = Arc::clone(&floor);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                tokio::spawn(Arc::clone(&floor).work(delivery));
            }
        }));
    }
    if matches!(kind, Kind::Contract { logs: true, .. }) {
        tasks.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LINES_WAIT).await;
                let lines = std::mem::take(&mut *floor.log.lock().expect("no panic"));
                std::io::stderr().write_all(&lines).expect("a log");
            }
        }));
    }
    println!("ready");
    for task in tasks {
        task.await.expect("no panic");
    }
}

impl Floor {
    async fn work(self: Arc<Self>, delivery: Delivery) {
        match self.kind {
            Kind::Contract { waits, .. } => self.as_contracted(&delivery, waits).await,
            _ => self.in_short(&delivery.data).await,
        }
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .expect("the channel stands");
    }

    async fn in_short(&self, body: &[u8]) {
        let mut job: Job = serde_json::from_slice(body).expect("it is ours");
        match (self.kind, job.stage) {
            (Kind::Bare, _) => {
                self.arm(&job.cpe_id, &job.firmware_url).await;
                self.wake(&job.cpe_id).await;
                self.results(&job.cpe_id).await;
                self.disarm(&job.cpe_id).await;
                self.publish(&[completed(&job)]).await;
            }
            (Kind::Broker, 0) | (Kind::Durable | Kind::DurableHop, 0) => {
                if self.kind != Kind::Broker {
                    self.results(&job.cpe_id).await;
                }
                job.stage = 1;
                let next = step("upgrade.steps", &job);
                self.publish(&[accepted(&job), next]).await;
            }
            (Kind::Broker, _) => self.publish(&[completed(&job)]).await,
            (Kind::DurableHop, 1) => {
                self.begin(&job).await;
                job.stage = 2;
                self.publish(&[step("upgrade.delay.1s", &job)]).await;
            }
            (Kind::DurableHop, _) => self.end(&job).await,
            (Kind::Durable, _) => {
                self.begin(&job).await;
                self.end(&job).await;
            }
            (Kind::Contract { .. }, _) => unreachable!("it has messages of its own"),
        }
    }

    /// The same calls and hand-overs with the contract's messages.
    async fn as_contracted(&self, delivery: &Delivery, waits: bool) {
        if delivery.exchange.as_str() == "upgrade.requests" {
            let mut step = Step::of_request(&delivery.data);
            self.results(&step.order.cpe_id).await;
            step.goes_on();
            self.line(step.line_of_accepted());
            let messages = [step.accepted(), step.to("upgrade.steps")];
            return self.publish(&messages).await;
        }
        let mut step = Step::of_step(&delivery.data);
        if !step.has_waited() {
            let order = &step.order;
            self.results(&order.cpe_id).await;
            self.rule(&order.cpe_id).await;
            self.arm(&order.cpe_id, &order.firmware_url).await;
            self.rule(&order.cpe_id).await;
            step.goes_on();
            self.wake(&step.order.cpe_id).await;
            step.goes_on();
            if waits {
                step.waits();
                return self.publish(&[step.to("upgrade.delay.1s")]).await;
            }
        }
        let result = self.results(&step.order.cpe_id).await;
        step.goes_on();
        self.rule(&step.order.cpe_id).await;
        self.disarm(&step.order.cpe_id).await;
        step.goes_on();
        self.line(step.line_of_completed());
        self.publish(&[step.completed(&result)]).await;
    }

    fn line(&self, line: Line<'_>) {
        if matches!(self.kind, Kind::Contract { logs: true, .. }) {
            let mut lines = self.log.lock().expect("no panic");
            serde_json::to_writer(&mut *lines, &line).expect("it is JSON");
            lines.push(b'\n');
        }
    }

    /// To the connection request: five calls.
    async fn begin(&self, job: &Job) {
        self.results(&job.cpe_id).await;
        self.rule(&job.cpe_id).await;
        self.arm(&job.cpe_id, &job.firmware_url).await;
        self.rule(&job.cpe_id).await;
        self.wake(&job.cpe_id).await;
    }

    /// From the first poll on: three calls and the event.
    async fn end(&self, job: &Job) {
        self.results(&job.cpe_id).await;
        self.rule(&job.cpe_id).await;
        self.disarm(&job.cpe_id).await;
        self.publish(&[completed(job)]).await;
    }

    async fn results(&self, cpe_id: &str) -> serde_json::Value {
        let address = format!(
            "{}/v1/dyn/FirmwareResultStorage/.*?id=UPGRADE_{}",
            self.nbi, cpe_id
        );
        self.call(self.client.get(address)).await
    }

    async fn rule(&self, cpe_id: &str) {
        let address = format!(
            "{}/v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_{}",
            self.nbi, cpe_id
        );
        self.call(self.client.get(address)).await;
    }

    async fn arm(&self, cpe_id: &str, firmware_url: &str) {
        let body = format!(
            r#"{{"id":"UPGRADE_{0}","enabled":true,"automatic":true,"file":"{1}","condition":{{"cpeid":"{0}"}},"executions":1,"priority":1,"author":"api"}}"#,
            cpe_id, firmware_url
        );
        let address = format!("{}/v1/dyn/FirmwareStorage/.*", self.nbi);
        self.call(
            self.client
                .post(address)
                .header("content-type", "application/json")
                .body(body),
        )
        .await;
    }

    async fn disarm(&self, cpe_id: &str) {
        let body = format!(
            r#"{{"id":"UPGRADE_{}","enabled":false,"automatic":false}}"#,
            cpe_id
        );
        let address = format!(
            "{}/v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_{}",
            self.nbi, cpe_id
        );
        self.call(
            self.client
                .put(address)
                .header("content-type", "application/json")
                .body(body),
        )
        .await;
    }

    async fn wake(&self, cpe_id: &str) {
        let body = format!(r#"{{"search_options":{{"cpe_id":"{}"}}}}"#, cpe_id);
        let address = format!("{}/v1/method/SendCNR", self.nbi);
        self.call(
            self.client
                .post(address)
                .header("content-type", "application/json")
                .body(body),
        )
        .await;
    }

    /// Reads the answer as JSON, whatever it says.
    async fn call(&self, request: reqwest::RequestBuilder) -> serde_json::Value {
        let _place = self.calls.acquire().await.expect("never closed");
        let answer = request.send().await.expect("the NBI answers");
        let body = answer.bytes().await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        assert!(body.is_object());
        body
    }

    /// Publishes all, then awaits every confirm.
    async fn publish(&self, messages: &[Outgoing]) {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            let written = self.publisher.basic_publish(
                message.exchange.into(),
                message.key.into(),
                options,
                &message.body,
                message.properties.clone(),
            );
            confirms.push(written.await.expect("it is written"));
        }
        for confirm in confirms {
            let confirmed = confirm.await.expect("it is answered");
            assert!(
                matches!(confirmed, lapin::Confirmation::Ack(None)),
                "{confirmed:?}"
            );
        }
    }
}

fn event(job: &Job, key: &'static str, what: &str) -> Outgoing {
    let body = format!(
        r#"{{"specversion":"1.0","id":"{0}:{1}","source":"/floor","type":"upgrade.{1}","data":{{"job_id":"{0}","cpe_id":"{2}"}}}}"#,
        job.job_id, what, job.cpe_id
    );
    Outgoing {
        exchange: "upgrade.results",
        key,
        body: body.into_bytes(),
        properties: BasicProperties::default().with_delivery_mode(2),
    }
}

fn accepted(job: &Job) -> Outgoing {
    event(job, "upgrade.accepted.-", "accepted")
}

fn completed(job: &Job) -> Outgoing {
    event(job, "upgrade.completed.-", "completed")
}

fn step(queue: &'static str, job: &Job) -> Outgoing {
    Outgoing {
        exchange: "",
        key: queue,
        body: serde_json::to_vec(job).expect("it is JSON"),
        properties: BasicProperties::default().with_delivery_mode(2),
    }
}
