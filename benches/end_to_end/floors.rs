//! The floors: the least lapin and reqwest programs that do what the worker does, to be compared with.
//!
//! | floor | does |
//! | --- | --- |
//! | `durable` | the worker's nine NBI calls and its confirmed hand-overs; no validation, no fault handling, no metrics, no log |
//! | `durable-hop` | the same with one wait of a second in a delay queue |
//! | `bare` | consume, four NBI calls, one event, ack; nothing durable between |
//! | `broker` | the hand-overs of `durable` without the calls |
//!
//! Everything is confirmed before the delivery is acknowledged, and many are in hand at a time, as in the worker. One thread.

use std::sync::Arc;

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

/// As the worker's defaults.
const PREFETCH: u16 = 256;
const PREFETCH_REQUESTS: u16 = 64;
const CALLS: usize = 64;

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
}

struct Floor {
    kind: Kind,
    client: reqwest::Client,
    nbi: String,
    calls: Semaphore,
    publisher: Channel,
}

/// Works for ever; prints a line when it consumes.
pub(crate) async fn run(kind: &str, url: &str, nbi: &str) {
    let kind = match kind {
        "durable" => Kind::Durable,
        "durable-hop" => Kind::DurableHop,
        "bare" => Kind::Bare,
        "broker" => Kind::Broker,
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
    let client = reqwest::Client::builder()
        .default_headers(headers)
        .http1_only()
        .no_proxy()
        .tls_certs_only([])
        .pool_max_idle_per_host(CALLS)
        .build();
    let floor = Arc::new(Floor {
        kind,
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
    println!("ready");
    for task in tasks {
        task.await.expect("no panic");
    }
}

impl Floor {
    async fn work(self: Arc<Self>, delivery: Delivery) {
        let mut job: Job = serde_json::from_slice(&delivery.data).expect("it is ours");
        match (self.kind, job.stage) {
            (Kind::Bare, _) => {
                self.arm(&job).await;
                self.wake(&job).await;
                self.results(&job).await;
                self.disarm(&job).await;
                self.publish(&[self.event(&job, "completed")]).await;
            }
            (Kind::Broker, 0) | (Kind::Durable | Kind::DurableHop, 0) => {
                if self.kind != Kind::Broker {
                    self.results(&job).await;
                }
                job.stage = 1;
                let next = step("upgrade.steps", &job);
                self.publish(&[self.event(&job, "accepted"), next]).await;
            }
            (Kind::Broker, _) => self.publish(&[self.event(&job, "completed")]).await,
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
        }
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .expect("the channel stands");
    }

    /// To the connection request: five calls.
    async fn begin(&self, job: &Job) {
        self.results(job).await;
        self.rule(job).await;
        self.arm(job).await;
        self.rule(job).await;
        self.wake(job).await;
    }

    /// From the first poll on: three calls and the event.
    async fn end(&self, job: &Job) {
        self.results(job).await;
        self.rule(job).await;
        self.disarm(job).await;
        self.publish(&[self.event(job, "completed")]).await;
    }

    async fn results(&self, job: &Job) {
        let address = format!(
            "{}/v1/dyn/FirmwareResultStorage/.*?id=UPGRADE_{}",
            self.nbi, job.cpe_id
        );
        self.call(self.client.get(address)).await;
    }

    async fn rule(&self, job: &Job) {
        let address = format!(
            "{}/v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_{}",
            self.nbi, job.cpe_id
        );
        self.call(self.client.get(address)).await;
    }

    async fn arm(&self, job: &Job) {
        let body = format!(
            r#"{{"id":"UPGRADE_{0}","enabled":true,"automatic":true,"file":"{1}","condition":{{"cpeid":"{0}"}},"executions":1,"priority":1,"author":"api"}}"#,
            job.cpe_id, job.firmware_url
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

    async fn disarm(&self, job: &Job) {
        let body = format!(
            r#"{{"id":"UPGRADE_{}","enabled":false,"automatic":false}}"#,
            job.cpe_id
        );
        let address = format!(
            "{}/v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_{}",
            self.nbi, job.cpe_id
        );
        self.call(
            self.client
                .put(address)
                .header("content-type", "application/json")
                .body(body),
        )
        .await;
    }

    async fn wake(&self, job: &Job) {
        let body = format!(r#"{{"search_options":{{"cpe_id":"{}"}}}}"#, job.cpe_id);
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
    async fn call(&self, request: reqwest::RequestBuilder) {
        let _place = self.calls.acquire().await.expect("never closed");
        let answer = request.send().await.expect("the NBI answers");
        let body = answer.bytes().await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        assert!(body.is_object());
    }

    fn event(&self, job: &Job, what: &str) -> (&'static str, String, Vec<u8>) {
        let body = format!(
            r#"{{"specversion":"1.0","id":"{0}:{1}","source":"/floor","type":"upgrade.{1}","data":{{"job_id":"{0}","cpe_id":"{2}"}}}}"#,
            job.job_id, what, job.cpe_id
        );
        (
            "upgrade.results",
            format!("upgrade.{what}.-"),
            body.into_bytes(),
        )
    }

    /// Publishes all, then awaits every confirm.
    async fn publish(&self, messages: &[(&str, String, Vec<u8>)]) {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let mut confirms = Vec::with_capacity(messages.len());
        for (exchange, key, body) in messages {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let written = self.publisher.basic_publish(
                (*exchange).into(),
                key.as_str().into(),
                options,
                body,
                properties,
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

fn step(queue: &str, job: &Job) -> (&'static str, String, Vec<u8>) {
    (
        "",
        queue.to_owned(),
        serde_json::to_vec(job).expect("it is JSON"),
    )
}
