//! The messages of a plain job as the contract has them, written by the plainest means: what a floor publishes in the worker's place.
//!
//! Member for member what the worker writes for the load's requests, so that the bytes are as many. Times are text, which is made once.
//! Nothing is validated.

use std::time::Duration;

use jiff::Timestamp;
use lapin::BasicProperties;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::floors::Outgoing;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const STAGES: [&str; 5] = [
    "preflight",
    "create_rule",
    "connection_request",
    "await_result",
    "deactivate_rule",
];
const MESSAGE: &str = "the device reported success";

#[derive(Deserialize)]
struct Request {
    job_id: String,
    cpe_id: String,
    firmware_url: String,
}

/// A continuation.
#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_due_before: Option<String>,
    pub(crate) order: Order,
    progress: Progress,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    job_id: String,
    pub(crate) cpe_id: String,
    pub(crate) firmware_url: String,
    rule_id: String,
    requested_at: String,
    repeats_since: String,
    deadline: String,
    cleanup: String,
    priority: u32,
    executions: u32,
    max_attempts: u32,
}

#[derive(Serialize, Deserialize)]
struct Progress {
    seq: u64,
    stage: String,
    attempt: u32,
    announced: bool,
    rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection_requested_at: Option<String>,
    started_at: String,
    stages: Vec<Stage>,
}

#[derive(Serialize, Deserialize)]
struct Stage {
    stage: String,
    attempts: u32,
    started_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
}

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'a str,
    dataschema: &'a str,
    data: D,
}

#[derive(Serialize)]
struct Accepted<'a> {
    job_id: &'a str,
    cpe_id: &'a str,
    firmware_url: &'a str,
    requested_at: &'a str,
    deadline: &'a str,
    started_at: &'a str,
}

#[derive(Serialize)]
struct Completed<'a> {
    job_id: &'a str,
    cpe_id: &'a str,
    firmware_url: &'a str,
    outcome: &'a str,
    reason: &'a str,
    impact: &'a str,
    message: &'a str,
    rule: Rule<'a>,
    result: Reported<'a>,
    stages: Vec<Done<'a>>,
    attempts: u32,
    requested_at: &'a str,
    started_at: &'a str,
    finished_at: &'a str,
    duration_ms: i64,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    state: &'a str,
}

#[derive(Serialize)]
struct Reported<'a> {
    id: &'a str,
    code: i64,
    message: &'a str,
    ts: i64,
}

#[derive(Serialize)]
struct Done<'a> {
    stage: &'a str,
    attempts: u32,
    started_at: &'a str,
    finished_at: &'a str,
    outcome: &'a str,
}

/// A line of the log.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    timestamp: String,
    level: &'a str,
    message: &'a str,
    job_id: &'a str,
    cpe_id: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    ending: Option<LineOfEnding<'a>>,
    target: &'a str,
}

#[derive(Serialize)]
struct LineOfEnding<'a> {
    outcome: &'a str,
    reason: &'a str,
    impact: &'a str,
    rule: &'a str,
    duration_ms: i64,
    explanation: &'a str,
}

fn now() -> String {
    Timestamp::now().to_string()
}

impl Step {
    /// A request becomes a job that begins.
    pub(crate) fn of_request(body: &[u8]) -> Self {
        let request: Request = serde_json::from_slice(body).expect("it is ours");
        let now = Timestamp::now();
        let started_at = now.to_string();
        Self {
            v: 1,
            not_due_before: None,
            order: Order {
                rule_id: format!("UPGRADE_{}", request.cpe_id),
                job_id: request.job_id,
                cpe_id: request.cpe_id,
                firmware_url: request.firmware_url,
                requested_at: started_at.clone(),
                repeats_since: (now - DAY).to_string(),
                deadline: (now + HOUR).to_string(),
                cleanup: "deactivate".to_owned(),
                priority: 1,
                executions: 1,
                max_attempts: 1,
            },
            progress: Progress {
                seq: 0,
                stage: STAGES[0].to_owned(),
                attempt: 1,
                announced: false,
                rule: "not_created".to_owned(),
                connection_requested_at: None,
                stages: vec![Stage::begun(0, started_at.clone())],
                started_at,
            },
        }
    }

    /// One of ours.
    pub(crate) fn of_step(body: &[u8]) -> Self {
        serde_json::from_slice(body).expect("it is ours")
    }

    /// Whether it has been in the delay queue.
    pub(crate) fn has_waited(&self) -> bool {
        self.not_due_before.is_some()
    }

    /// The stage is done, and the next one begins, if there is one.
    pub(crate) fn goes_on(&mut self) {
        let (now, progress) = (now(), &mut self.progress);
        let done = progress.stages.len();
        let stage = progress.stages.last_mut().expect("it has begun");
        stage.attempts = 1;
        stage.finished_at = Some(now.clone());
        match done {
            2 => "armed".clone_into(&mut progress.rule),
            3 => progress.connection_requested_at = Some(now.clone()),
            _ => {}
        }
        if let Some(next) = STAGES.get(done) {
            (*next).clone_into(&mut progress.stage);
            progress.stages.push(Stage::begun(done, now));
        }
    }

    /// It goes to the delay queue.
    pub(crate) fn waits(&mut self) {
        let due = Timestamp::now() + Duration::from_secs(1);
        self.not_due_before = Some(due.to_string());
    }

    /// As a message.
    pub(crate) fn to(&mut self, queue: &'static str) -> Outgoing {
        self.progress.seq += 1;
        self.progress.announced = true;
        let id = format!("{}:{}", self.order.job_id, self.progress.seq);
        Outgoing {
            exchange: "",
            key: queue,
            body: serde_json::to_vec(self).expect("it is JSON"),
            properties: properties("application/json", &id, "upgrade.step"),
        }
    }

    /// The event that it has begun.
    pub(crate) fn accepted(&self) -> Outgoing {
        let (order, progress) = (&self.order, &self.progress);
        let data = Accepted {
            job_id: &order.job_id,
            cpe_id: &order.cpe_id,
            firmware_url: &order.firmware_url,
            requested_at: &order.requested_at,
            deadline: &order.deadline,
            started_at: &progress.started_at,
        };
        let keys = ("upgrade.accepted", "upgrade.accepted.-");
        self.event(keys, &now(), data)
    }

    /// The event that it is over.
    pub(crate) fn completed(&self, answer: &Value) -> Outgoing {
        let (order, progress) = (&self.order, &self.progress);
        let (result, finished_at) = (&answer["details"][0], self.decided_at());
        let stages = progress.stages.iter().map(|stage| Done {
            stage: &stage.stage,
            attempts: stage.attempts,
            started_at: &stage.started_at,
            finished_at: stage.finished_at.as_deref().expect("it is over"),
            outcome: "ok",
        });
        let data = Completed {
            job_id: &order.job_id,
            cpe_id: &order.cpe_id,
            firmware_url: &order.firmware_url,
            outcome: "completed",
            reason: "upgraded",
            impact: "applied",
            message: MESSAGE,
            rule: Rule {
                id: &order.rule_id,
                state: "deactivated",
            },
            result: Reported {
                id: result["id"].as_str().expect("an id"),
                code: result["result"]["code"].as_i64().expect("a code"),
                message: result["result"]["message"].as_str().expect("a text"),
                ts: result["ts"].as_i64().expect("a time"),
            },
            stages: stages.collect(),
            attempts: 1,
            requested_at: &order.requested_at,
            started_at: &progress.started_at,
            finished_at,
            duration_ms: self.duration(),
        };
        let keys = ("upgrade.completed", "upgrade.completed.-");
        self.event(keys, finished_at, data)
    }

    fn event(
        &self,
        (event_type, key): (&'static str, &'static str),
        time: &str,
        data: impl Serialize,
    ) -> Outgoing {
        let name = [&self.order.job_id, "\0", event_type, "\0"].concat();
        let id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes()).to_string();
        let event = CloudEvent {
            specversion: "1.0",
            id: &id,
            source: "/nbi-upgrade/vm",
            event_type,
            subject: &self.order.cpe_id,
            time,
            datacontenttype: "application/json",
            dataschema: "urn:nbi-upgrade:event:v1",
            data,
        };
        Outgoing {
            exchange: "upgrade.results",
            key,
            body: serde_json::to_vec(&event).expect("it is JSON"),
            properties: properties("application/cloudevents+json", &id, event_type),
        }
    }

    /// The line when it has begun.
    pub(crate) fn line_of_accepted(&self) -> Line<'_> {
        Line {
            rule_id: Some(&self.order.rule_id),
            deadline: Some(&self.order.deadline),
            ..self.line("job accepted")
        }
    }

    /// The line when it is over.
    pub(crate) fn line_of_completed(&self) -> Line<'_> {
        let ending = LineOfEnding {
            outcome: "completed",
            reason: "upgraded",
            impact: "applied",
            rule: "deactivated",
            duration_ms: self.duration(),
            explanation: MESSAGE,
        };
        Line {
            ending: Some(ending),
            ..self.line("job finished")
        }
    }

    fn line<'a>(&'a self, message: &'a str) -> Line<'a> {
        Line {
            timestamp: format!("{:.6}", Timestamp::now()),
            level: "INFO",
            message,
            job_id: &self.order.job_id,
            cpe_id: &self.order.cpe_id,
            attempt: 1,
            rule_id: None,
            deadline: None,
            ending: None,
            target: "nbi_upgrade",
        }
    }

    /// When the result was seen.
    fn decided_at(&self) -> &str {
        let looked = self.progress.stages.get(3).expect("it has looked");
        looked.finished_at.as_deref().expect("it has seen it")
    }

    fn duration(&self) -> i64 {
        let time = |text: &str| text.parse::<Timestamp>().expect("it is ours");
        let requested_at = time(&self.order.requested_at);
        time(self.decided_at()).as_millisecond() - requested_at.as_millisecond()
    }
}

impl Stage {
    fn begun(index: usize, at: String) -> Self {
        Self {
            stage: STAGES[index].to_owned(),
            attempts: 0,
            started_at: at,
            finished_at: None,
        }
    }
}

fn properties(content_type: &'static str, id: &str, kind: &'static str) -> BasicProperties {
    let seconds = Timestamp::now().as_second();
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type(content_type.into())
        .with_message_id(id.into())
        .with_timestamp(u64::try_from(seconds).expect("after 1970"))
        .with_type(kind.into())
        .with_app_id("nbi-upgrade".into())
}
