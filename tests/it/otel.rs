//! Spans as a collector gets them: a stand-in that takes OTLP in JSON over HTTP. Only with the cargo feature `otel`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::processes::until;
use crate::support::site::{GRACE, PATIENCE, PREFIX, Plan, Site, requests};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const REQUESTER: &str = "00f067aa0ba902b7";

/// The collector's stand-in.
struct Taker {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _serving: JoinSet<()>,
}

/// A span.
#[derive(Debug, Clone)]
struct Span(Value);

impl Span {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// An attribute as text.
    fn attribute(&self, key: &str) -> String {
        let all = self.0["attributes"].as_array().unwrap();
        let found = all.iter().find(|one| one["key"] == key);
        let value = found.map_or(&Value::Null, |one| &one["value"]);
        let inner = value.as_object().and_then(|value| value.values().next());
        match inner {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    fn milliseconds(&self) -> u64 {
        let time = |key: &str| self.text(key).parse::<u64>().unwrap();
        (time("endTimeUnixNano") - time("startTimeUnixNano")) / 1_000_000
    }
}

impl Taker {
    /// Takes spans.
    async fn start() -> Self {
        Self::begin(true).await
    }

    /// Takes connections and never answers.
    async fn silent() -> Self {
        Self::begin(false).await
    }

    async fn begin(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&spans);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                if answers {
                    connections.spawn(take(socket, Arc::clone(&into)));
                } else {
                    connections.spawn(hold(socket));
                }
            }
        });
        Self {
            endpoint,
            spans,
            _serving: serving,
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Spans of a trace.
    fn of(&self, trace: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.text("traceId") == trace);
        spans
    }
}

async fn hold(mut socket: TcpStream) {
    let mut nowhere = [0; 4_096];
    while socket.read(&mut nowhere).await.is_ok_and(|read| read > 0) {}
}

/// Serves one connection: requests to `/v1/traces`, one after the other.
async fn take(mut socket: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    let mut seen = Vec::new();
    while let Ok(read) = socket.read_buf(&mut seen).await {
        if read == 0 {
            return;
        }
        let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        if seen.len() < end + 4 + length {
            continue;
        }
        assert!(head.starts_with("post /v1/traces "), "{head}");
        let body: Value = serde_json::from_slice(&seen[end + 4..end + 4 + length]).unwrap();
        seen.drain(..end + 4 + length);
        for resource in body["resourceSpans"].as_array().unwrap() {
            let text = resource["resource"].to_string();
            assert!(
                text.contains("service.name") && text.contains("nbi-upgrade"),
                "{text}"
            );
            for scope in resource["scopeSpans"].as_array().unwrap() {
                let new = scope["spans"].as_array().unwrap().iter().cloned().map(Span);
                spans.lock().unwrap().extend(new);
            }
        }
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn publish(site: &Site, request: &Value, traceparent: Option<&str>) {
    let mut headers = FieldTable::default();
    if let Some(text) = traceparent {
        headers.insert("traceparent".into(), AMQPValue::LongString(text.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers);
    let exchange = format!("{PREFIX}.requests");
    let body = request.to_string();
    site.client()
        .publish(&exchange, "request", body.as_bytes(), properties)
        .await;
}

async fn traced_site(taker: &Taker) -> Site {
    let environment = [("NBI_UPGRADE_OTEL__ENDPOINT", taker.endpoint.as_str())];
    let plan = Plan {
        environment: &environment,
        ..Plan::default()
    };
    Site::begin(2, plan).await
}

#[tokio::test]
async fn a_job_is_one_trace_over_all_its_deliveries() {
    let taker = Taker::start().await;
    let mut site = traced_site(&taker).await;
    let all = requests(3);
    let sampled = format!("00-{TRACE}-{REQUESTER}-01");
    let unsampled = format!("00-{}-{REQUESTER}-00", TRACE.replace("4bf9", "0000"));
    publish(&site, &all[0], Some(&sampled)).await;
    publish(&site, &all[1], Some(&unsampled)).await;
    publish(&site, &all[2], None).await;
    site.results.finals(3, PATIENCE).await;
    let jobs_done = || {
        taker
            .spans()
            .iter()
            .filter(|span| span.text("name") == "job")
            .count()
    };
    until("the spans of two jobs", PATIENCE, async || {
        (jobs_done() == 2).then_some(())
    })
    .await;

    let spans = taker.of(TRACE);
    let named = |name: &str| -> Vec<Span> {
        let mut spans = spans.clone();
        spans.retain(|span| span.text("name") == name);
        spans
    };
    let job = named("job").remove(0);
    assert_eq!(job.text("parentSpanId"), REQUESTER);
    assert_eq!(job.attribute("nbi_upgrade.job_id"), "job-1");
    assert_eq!(job.attribute("nbi_upgrade.outcome"), "completed");
    let first = named(&format!("process {PREFIX}.requests"));
    let later = named(&format!("process {PREFIX}.steps"));
    assert_eq!(first.len(), 1, "{spans:?}");
    assert!(!later.is_empty(), "{spans:?}");
    let mut deliveries = BTreeSet::new();
    for delivery in first.iter().chain(&later) {
        assert_eq!(delivery.text("parentSpanId"), REQUESTER);
        assert_eq!(delivery.0["kind"], 5, "a consumer's: {delivery:?}");
        assert_eq!(delivery.attribute("messaging.system"), "rabbitmq");
        assert_eq!(delivery.attribute("messaging.operation.type"), "process");
        let queue = delivery.attribute("messaging.destination.name");
        assert_eq!(delivery.text("name"), format!("process {queue}"));
        deliveries.insert(delivery.text("spanId").to_owned());
        assert!(
            delivery.milliseconds() <= job.milliseconds(),
            "{delivery:?}"
        );
    }
    for stage in [
        "preflight",
        "create_rule",
        "connection_request",
        "await_result",
        "deactivate_rule",
    ] {
        let stages = named(&format!("stage {stage}"));
        assert_eq!(stages.len(), 1, "{stage}");
        assert_eq!(stages[0].text("parentSpanId"), REQUESTER);
    }
    // Devices take a second or two here; no span of a single delivery does.
    assert!(named("stage await_result")[0].milliseconds() >= 500);
    let calls: Vec<_> = spans.iter().filter(|span| span.0["kind"] == 3).collect();
    assert!(calls.len() >= 5, "{calls:?}");
    for call in calls {
        assert!(deliveries.contains(call.text("parentSpanId")), "{call:?}");
        assert_eq!(
            call.attribute("http.response.status_code").len(),
            3,
            "{call:?}"
        );
        let method = call.attribute("http.request.method");
        assert!(
            call.text("name").starts_with(&format!("{method} /v1/")),
            "{call:?}"
        );
        assert_eq!(call.attribute("server.address"), "127.0.0.1");
    }
    let sent: Vec<_> = spans.iter().filter(|span| span.0["kind"] == 4).collect();
    assert_eq!(sent.len(), deliveries.len(), "{sent:?}");

    // What others hear of the job names the delivery that said it.
    let parents = |job: &str| -> Vec<String> {
        let of_job = site
            .results
            .events()
            .filter(|event| event.data("job_id") == job);
        of_job
            .map(|event| event.body["traceparent"].as_str().unwrap().to_owned())
            .collect()
    };
    for parent in parents("job-1") {
        let parts: Vec<_> = parent.split('-').collect();
        assert_eq!((parts[1], parts[3]), (TRACE, "01"));
        assert!(deliveries.contains(parts[2]), "{parent}");
    }
    // Not sampled by the requester: no span, and the events say the same.
    assert!(taker.of(&TRACE.replace("4bf9", "0000")).is_empty());
    for parent in parents("job-2") {
        assert!(
            parent.starts_with(&unsampled[..35]) && parent.ends_with("-00"),
            "{parent}"
        );
    }
    // Without a context: a trace of its own, the same in every delivery.
    let own = taker.spans();
    let own = own
        .iter()
        .find(|span| span.attribute("nbi_upgrade.job_id") == "job-3");
    let own = taker.of(own.unwrap().text("traceId"));
    let roots: Vec<_> = own
        .iter()
        .filter(|span| span.text("parentSpanId").is_empty())
        .collect();
    assert_eq!(roots.len(), 1, "{own:?}");
    assert_eq!(roots[0].text("name"), format!("process {PREFIX}.requests"));
    assert!(own.iter().any(|span| span.text("name") == "job"));
    site.end(3).await;
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_away_holds_nothing_up() {
    let silent = Taker::silent().await;
    let away = "http://127.0.0.1:9".to_owned();
    for endpoint in [silent.endpoint.clone(), away] {
        let environment = [("NBI_UPGRADE_OTEL__ENDPOINT", endpoint.as_str())];
        let plan = Plan {
            simulator: &["--devices", "200"],
            environment: &environment,
        };
        let mut site = Site::begin(1, plan).await;
        site.submit(&requests(200)).await;
        site.results.finals(200, PATIENCE).await;
        let worker = site.workers.remove(0);
        until("a line about lost spans", PATIENCE, async || {
            let log = worker.process.log();
            log.iter()
                .any(|line| line.contains("spans lost"))
                .then_some(())
        })
        .await;
        let lines = worker.process.log();
        let lost = lines
            .iter()
            .filter(|line| line.contains("spans lost"))
            .count();
        assert_eq!(lost, 1, "{lines:?}");
        worker.stop(GRACE).await;
        site.delete_vhost().await;
    }
}
