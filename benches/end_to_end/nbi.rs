//! The NBI of the bench: the vendor's shapes, a device that is done at once, and as little cost as a server can have.
//!
//! The simulator of the product is a model of devices that take their time, and costs several times what the callers cost; here the NBI
//! must not be what is measured. It answers the eight calls of a plain job and nothing else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

const RULES: &str = "/v1/dyn/FirmwareStorage/.*";
const RESULTS: &str = "/v1/dyn/FirmwareResultStorage/.*";
const SEND_CNR: &str = "/v1/method/SendCNR";

/// A rule and what its device did.
struct Rule {
    file: String,
    cpe_id: String,
    enabled: bool,
    done_at: Option<i64>,
}

#[derive(Default)]
struct Storage {
    rules: HashMap<String, Rule>,
    calls: u64,
}

#[derive(Deserialize)]
struct RuleBody<'a> {
    id: &'a str,
    enabled: bool,
    #[serde(default)]
    file: &'a str,
    condition: Option<Condition<'a>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    cpeid: &'a str,
}

#[derive(Deserialize)]
struct CnrBody<'a> {
    #[serde(borrow)]
    search_options: SearchOptions<'a>,
}

#[derive(Deserialize)]
struct SearchOptions<'a> {
    cpe_id: &'a str,
}

/// Serves for ever; prints its address first.
pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound"));
    let storage = Rc::new(RefCell::new(Storage::default()));
    let local = LocalSet::new();
    local
        .run_until(async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                drop(stream.set_nodelay(true));
                tokio::task::spawn_local(connection(stream, Rc::clone(&storage)));
            }
        })
        .await;
}

async fn connection(mut stream: TcpStream, storage: Rc<RefCell<Storage>>) {
    let mut buffer = Vec::with_capacity(4_096);
    let mut answer = String::with_capacity(1_024);
    loop {
        let (head, length) = loop {
            if let Some(found) = request(&buffer) {
                break found;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        answer.clear();
        let body = &buffer[head..head + length];
        let text = std::str::from_utf8(&buffer[..head]).unwrap_or_default();
        storage.borrow_mut().answer(text, body, &mut answer);
        let is_last = text.contains("connection: close");
        buffer.drain(..head + length);
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        if stream.write_all(whole.as_bytes()).await.is_err() || is_last {
            return;
        }
    }
}

/// The length of head and body, once both are there.
fn request(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.unwrap_or(0);
    (buffer.len() >= end + length).then_some((end, length))
}

impl Storage {
    fn answer(&mut self, head: &str, body: &[u8], answer: &mut String) {
        let mut words = head.split(' ');
        let (verb, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let rule_id = query.split_once('=').map_or("", |(_, value)| value);
        if path == "/calls" {
            answer.push_str(&self.calls.to_string());
            return;
        }
        self.calls += 1;
        let written = match (verb, path) {
            ("GET", RESULTS) => return self.results(rule_id, answer),
            ("GET", RULES) => return self.rule(rule_id, answer),
            ("POST", RULES) => self.write(body, None),
            ("PUT", RULES) => self.write(body, Some(rule_id)),
            ("POST", SEND_CNR) => {
                self.wake(body);
                answer.push_str(r#"{"result":{"code":200,"message":"OK"}}"#);
                return;
            }
            _ => None,
        };
        let code = if written.is_some() { 204 } else { 404 };
        let _ = write!(
            answer,
            r#"{{"code":{code},"message":"response from FirmwareStorage","details":""}}"#
        );
    }

    fn results(&self, rule_id: &str, answer: &mut String) {
        let done = self
            .rules
            .get(rule_id)
            .and_then(|rule| Some((rule, rule.done_at?)));
        let _ = match done {
            None => write!(
                answer,
                r#"{{"code":404,"message":"response from FirmwareResultStorage","details":""}}"#
            ),
            Some((rule, done_at)) => write!(
                answer,
                r#"{{"code":200,"message":"response from FirmwareResultStorage","details":[{{"id":"cd3627cd-1908-4ff8-8fe3-{cpe:0>12}","status":true,"ts":{done_at},"cpeid":"{cpe}","rule_description":"","campaignid":"{rule_id}","result":{{"code":200,"message":"Upgrade has succeeded"}}}}]}}"#,
                cpe = rule.cpe_id
            ),
        };
    }

    fn rule(&self, rule_id: &str, answer: &mut String) {
        let _ = match self.rules.get(rule_id) {
            None => write!(
                answer,
                r#"{{"code":404,"message":"response from FirmwareStorage","details":""}}"#
            ),
            Some(rule) => write!(
                answer,
                r#"{{"code":200,"message":"response from FirmwareStorage","details":[{{"id":"{rule_id}","enabled":{enabled},"automatic":{enabled},"file":"{file}","condition":{{"cpeid":"{cpe}"}},"executions":1,"priority":1,"author":"api"}}]}}"#,
                enabled = rule.enabled,
                file = rule.file,
                cpe = rule.cpe_id
            ),
        };
    }

    /// POST, or PUT of a rule that is there.
    fn write(&mut self, body: &[u8], updates: Option<&str>) -> Option<()> {
        let body: RuleBody<'_> = serde_json::from_slice(body).ok()?;
        match updates {
            Some(rule_id) => self.rules.get_mut(rule_id)?.enabled = body.enabled,
            None => {
                let rule = Rule {
                    file: body.file.to_owned(),
                    cpe_id: body.condition?.cpeid.to_owned(),
                    enabled: body.enabled,
                    done_at: None,
                };
                self.rules.insert(body.id.to_owned(), rule);
            }
        }
        Some(())
    }

    /// The device calls in, finds its rule and is done.
    fn wake(&mut self, body: &[u8]) {
        let Ok(body) = serde_json::from_slice::<CnrBody<'_>>(body) else {
            return;
        };
        let rule_id = format!("UPGRADE_{}", body.search_options.cpe_id);
        if let Some(rule) = self.rules.get_mut(&rule_id).filter(|rule| rule.enabled) {
            rule.done_at
                .get_or_insert_with(|| jiff::Timestamp::now().as_second());
        }
    }
}
