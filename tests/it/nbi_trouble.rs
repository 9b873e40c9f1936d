//! Everything that can go wrong between the client and an HTTP server, against raw TCP: what the core is told, that no text shows
//! the credentials, and that the client can be used afterwards.
//!
//! Each connection plays the acts of a script in order, one per request; when it is used up, the server is healthy.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::{
    CpeId, FirmwareUrl, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId, RuleSpec,
};
use nbi_upgrade::nbi::circuit::CircuitSettings;
use nbi_upgrade::nbi::http::HttpSettings;
use nbi_upgrade::nbi::{HttpTransport, Nbi, NbiClient, NbiSettings};
use nbi_upgrade::telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::certificates::Pair;
use crate::support::tls_server::TlsServer;

const USER: &str = "user-whom-nobody-may-see";
const PASSWORD: &str = "hunter2-whom-nobody-may-see";
/// Base64 of both, without its end, which padding may change.
const TOKEN: &str = "dXNlci13aG9tLW5vYm9keS1tYXktc2VlOmh1bnRlcjItd2hvbS1ub2JvZHktbWF5LXNl";
const LIMIT: usize = 1 << 20;
/// The time limit of a call where making the connection may hang: a resolver that is away answers late.
const SOON: Duration = Duration::from_secs(5);
/// What a call may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does with one request.
#[derive(Debug, Clone)]
enum Act {
    /// Writes this and keeps the connection.
    Say(String),
    /// Writes these bytes and closes.
    End(Vec<u8>),
    /// Writes this and resets the connection.
    Reset(&'static str),
    /// Writes this and then nothing, until the client gives up.
    Hang(&'static str),
    /// Writes this, then one byte a second.
    Drip(&'static str),
    /// Writes this, then chunks without end.
    Flood(&'static str),
}
use Act::{Drip, End, Flood, Hang, Reset, Say};

fn end(text: impl Into<Vec<u8>>) -> Act {
    End(text.into())
}

/// A whole answer with this body; `more` are further headers, each with its line end.
fn http(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ok(body: &str) -> Act {
    Say(http("200 OK", "Content-Type: application/json\r\n", body))
}

async fn request(socket: &mut TcpStream) -> Option<()> {
    let mut seen = Vec::new();
    loop {
        if socket.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Some(());
        }
    }
}

/// Plays one act; `None` when the connection is over.
async fn play(socket: &mut TcpStream, act: Act) -> Option<()> {
    match act {
        Say(text) => return socket.write_all(text.as_bytes()).await.ok(),
        End(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
        Reset(text) => {
            let _ = socket.write_all(text.as_bytes()).await;
            // Long enough that the client has read it: a reset throws away what was not read.
            tokio::time::sleep(Duration::from_millis(100)).await;
            socket.set_zero_linger().unwrap();
        }
        Hang(text) => {
            let _ = socket.write_all(text.as_bytes()).await;
            let _ = socket.read(&mut [0]).await;
        }
        Drip(text) => {
            let _ = socket.write_all(text.as_bytes()).await;
            while socket.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Flood(text) => {
            let _ = socket.write_all(text.as_bytes()).await;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            while socket.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    }
    None
}

/// A server with a script, and a client of it.
struct Stage {
    client: NbiClient<HttpTransport>,
    script: Arc<Mutex<VecDeque<Act>>>,
    telemetry: Arc<Telemetry>,
    _server: JoinSet<()>,
}

impl Stage {
    async fn new(timeout: Duration, quick_retries: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script: Arc<Mutex<VecDeque<Act>>> = Arc::default();
        let acts = script.clone();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let acts = acts.clone();
                connections.spawn(async move {
                    while request(&mut socket).await.is_some() {
                        let act = acts.lock().unwrap().pop_front();
                        let act = act.unwrap_or_else(|| ok(r#"{"code":200,"details":""}"#));
                        if play(&mut socket, act).await.is_none() {
                            break;
                        }
                    }
                });
            }
        });
        let telemetry = Arc::new(Telemetry::default());
        Self {
            client: client(&url, timeout, quick_retries, telemetry.clone()),
            script,
            telemetry,
            _server: server,
        }
    }

    /// Calls once with these acts before the server, then checks that the next call is fine.
    async fn call(&self, call: &NbiCall, acts: &[Act]) -> Result<NbiAnswer, NbiFailure> {
        self.script.lock().unwrap().extend(acts.iter().cloned());
        let answer = ask(&self.client, call).await;
        self.script.lock().unwrap().clear();
        let next = ask(&self.client, &read_rule()).await;
        assert!(
            matches!(&next, Ok(NbiAnswer::Rules { .. })),
            "after {acts:.200?}: {next:?}"
        );
        answer
    }

    fn counted(&self, status: &str) -> bool {
        let status = format!("status=\"{status}\"}} ");
        self.telemetry.metrics_text().unwrap().contains(&status)
    }
}

fn client(
    url: &str,
    timeout: Duration,
    retries: u32,
    telemetry: Arc<Telemetry>,
) -> NbiClient<HttpTransport> {
    let transport = HttpTransport::new(&HttpSettings {
        url: url.to_owned(),
        username: USER.to_owned(),
        password: PASSWORD.into(),
        password_file: None,
        timeout,
        connect_timeout: timeout / 2,
        ca_file: None,
        client_certificate: None,
        allow_http: true,
        max_response_bytes: LIMIT,
        max_concurrency: 4,
    });
    let settings = NbiSettings {
        quick_retries: retries,
        quick_retry_initial: Duration::from_millis(1),
        circuit: CircuitSettings {
            failures_to_open: 1_000,
            ..CircuitSettings::default()
        },
        ..NbiSettings::default()
    };
    NbiClient::new(transport.unwrap(), settings, telemetry)
}

/// Calls, and looks for credentials in whatever comes of it.
async fn ask(nbi: &impl Nbi, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
    let answer = tokio::time::timeout(PATIENCE, nbi.call(call)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{call:?} does not end"));
    let mut text = format!("{answer:?}");
    if let Err(failure) = &answer {
        text.push_str(&failure.to_string());
        assert!(failure.to_string().len() < 1_000, "{failure}");
    }
    for secret in [USER, PASSWORD, TOKEN, "authorization"] {
        assert!(!text.contains(secret), "{text}");
    }
    answer
}

/// The core's word, and what goes with it.
fn word(answer: &Result<NbiAnswer, NbiFailure>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(NbiFailure::Transient {
            no_effect: true, ..
        }) => "transient, no effect",
        Err(NbiFailure::Transient { .. }) => "transient",
        Err(NbiFailure::Refused { .. }) => "refused",
        Err(NbiFailure::NotSent { .. }) => "not sent",
        Err(NbiFailure::Rejected { .. }) => "rejected",
        Err(NbiFailure::Unintelligible { .. }) => "unintelligible",
    }
}

fn text(answer: &Result<NbiAnswer, NbiFailure>) -> String {
    answer
        .as_ref()
        .err()
        .map(NbiFailure::to_string)
        .unwrap_or_default()
}

fn rule_id() -> RuleId {
    RuleId::parse("UPGRADE_CPE1").unwrap()
}

fn cpe_id() -> CpeId {
    CpeId::parse("CPE1").unwrap()
}

fn read_rule() -> NbiCall {
    NbiCall::ReadRule {
        rule_id: rule_id(),
        purpose: Purpose::Look,
    }
}

fn read_results() -> NbiCall {
    NbiCall::ReadResults {
        rule_id: rule_id(),
        cpe_id: cpe_id(),
        purpose: Purpose::Look,
    }
}

fn disarm() -> NbiCall {
    NbiCall::DisarmRule { rule_id: rule_id() }
}

fn create() -> NbiCall {
    NbiCall::CreateRule(RuleSpec {
        rule_id: rule_id(),
        cpe_id: cpe_id(),
        firmware_url: FirmwareUrl::checked("https://files.example/fw.bin").unwrap(),
        executions: 1,
        priority: 1,
        description: None,
    })
}

/// Each act alone, for a read and for a write that arms.
async fn check(stage: &Stage, cases: Vec<(Act, &str, &str)>) {
    for (act, expected, part) in cases {
        for call in [read_rule(), create()] {
            let answer = stage.call(&call, std::slice::from_ref(&act)).await;
            assert_eq!(word(&answer), expected, "{call:?} {act:.200?}: {answer:?}");
            assert!(
                text(&answer).contains(part),
                "{part:?} is not in {answer:?}"
            );
        }
    }
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n";

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_told_apart_from_one_that_is_cut() {
    let stage = Stage::new(Duration::from_millis(700), 0).await;
    let begun = Instant::now();
    check(
        &stage,
        vec![
            (Hang(""), "transient", "no answer in time"),
            (Hang(HEAD), "transient", "no answer in time"),
            (Drip(HEAD), "transient", "no answer in time"),
        ],
    )
    .await;
    // Six calls, each ended by its time limit; the drip would take 40 s.
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert!(stage.counted("timeout") && !stage.counted("no_answer"));

    let stage = Stage::new(PATIENCE, 0).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"co";
    check(
        &stage,
        vec![
            (Reset(""), "transient", "no answer:"),
            (
                Reset("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"code\""),
                "transient",
                "no answer:",
            ),
            (end(""), "transient", "no answer:"),
            (end(format!("{HEAD}{{\"code\"")), "transient", "no answer:"),
            (end(chunked), "transient", "no answer:"),
        ],
    )
    .await;
    assert!(stage.counted("no_answer") && !stage.counted("timeout"));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read() {
    let stage = Stage::new(PATIENCE, 0).await;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        u64::MAX / 2
    );
    let limit = "larger than 1048576 bytes";
    check(
        &stage,
        vec![
            (end(head), "unintelligible", limit),
            (
                Flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "unintelligible",
                limit,
            ),
            (Flood("HTTP/1.1 200 OK\r\n\r\n"), "unintelligible", limit),
            // Of an answer that is no success the status says enough.
            (
                Flood("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "transient",
                "HTTP 500",
            ),
        ],
    )
    .await;
    assert!(stage.counted("too_large"));
}

#[tokio::test]
async fn what_is_not_the_nbis_is_not_believed() {
    let stage = Stage::new(PATIENCE, 0).await;
    let html = "<!DOCTYPE html><html><body>Please log in</body></html>";
    let deep = format!(
        "{{\"code\":200,\"details\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let mut invalid = http("200 OK", "", r#"{"code":200,"message":"??"}"#).into_bytes();
    for byte in &mut invalid {
        if *byte == b'?' {
            *byte = 0xff;
        }
    }
    let not_json = "not JSON";
    check(
        &stage,
        vec![
            (Say(http("200 OK", "Content-Type: text/html\r\n", html)), "unintelligible", not_json),
            (ok("\u{0}\u{1}garbage\u{7f}"), "unintelligible", not_json),
            (ok(&deep), "unintelligible", not_json),
            (ok(r#"{"code":NaN}"#), "unintelligible", not_json),
            (ok(r#"{"code":-Infinity}"#), "unintelligible", not_json),
            (ok(r#"{"code":1e999}"#), "unintelligible", not_json),
            (ok(r#"{"code":200}{"code":200}"#), "unintelligible", not_json),
            (End(invalid), "unintelligible", not_json),
            (ok(r#"{"code":99999999999999999999999999}"#), "unintelligible", "known shape"),
            (ok("[]"), "unintelligible", "known shape"),
            (end("SSH-2.0-OpenSSH_9.6\r\n"), "transient", "no answer:"),
            (end("HTTP/1.1 abc\r\n\r\n"), "transient", "no answer:"),
            (end(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(600_000))), "transient", "no answer:"),
            // The last of repeated keys counts, and the worse of status and code.
            (ok(r#"{"code":200,"code":500}"#), "transient", "code 500"),
            // An endpoint that is not HTTP/1.1, and one that wants to become something else.
            (Say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n".into()), "unintelligible", "HTTP 101"),
        ],
    )
    .await;
    // A time that no clock shows.
    let row = r#"{"code":200,"details":[{"id":"u","ts":1e30,"cpeid":"CPE1","campaignid":"UPGRADE_CPE1","result":{"code":200}}]}"#;
    let answer = stage.call(&read_results(), &[ok(row)]).await;
    assert_eq!(word(&answer), "unintelligible", "{answer:?}");
}

#[tokio::test]
async fn what_is_odd_and_harmless_is_taken() {
    let stage = Stage::new(PATIENCE, 0).await;
    let body = r#"{"code":200,"details":""}"#;
    let whole = http("200 OK", "", body);
    let junk = http("500 Oh", "", "");
    for act in [
        // The body says whose it is, not its label.
        Say(http(
            "200 OK",
            "Content-Type: text/html; charset=utf-16\r\n",
            body,
        )),
        Say(http("200 OK", "Content-Type: nonsense\r\n", body)),
        ok(r#"{"code":500,"code":200,"details":""}"#),
        Say(format!("HTTP/1.1 100 Continue\r\n\r\n{whole}")),
        Say(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{whole}"
        )),
        // What comes after the body is nobody's answer; the next call gets its own.
        Say(format!("{whole}{junk}")),
        Say(format!("{whole}garbage")),
        end(whole.replace("Content-Length: 25\r\n", "")),
        end(whole.replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        for call in [read_rule(), create()] {
            let answer = stage.call(&call, std::slice::from_ref(&act)).await;
            assert_eq!(word(&answer), "ok", "{act:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn redirects_are_refused_and_name_where_they_point() {
    let stage = Stage::new(PATIENCE, 0).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let location = format!(
            "Location: https://{USER}:{PASSWORD}@acs.example:8443/nbi?t={TOKEN}#{PASSWORD}\r\n"
        );
        let part = "redirect to https://acs.example:8443/nbi, which is not followed: set `nbi.url`";
        check(
            &stage,
            vec![
                (Say(http(status, &location, "")), "unintelligible", part),
                (
                    Say(http(status, "Location: /login?x\r\n", "")),
                    "unintelligible",
                    "redirect to /login, ",
                ),
                (
                    Say(http(status, "", "")),
                    "unintelligible",
                    "a redirect, which is not followed",
                ),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn retry_after_is_honoured_within_reason() {
    let stage = Stage::new(PATIENCE, 0).await;
    let date = |seconds: i64| {
        let time = Timestamp::now() + SignedDuration::from_secs(seconds);
        time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for (value, least, most) in [
        ("7".to_owned(), 7, 7),
        ("0".to_owned(), 0, 0),
        ("86400".to_owned(), 3_600, 3_600),
        ("99999999999999999999999999".to_owned(), 3_600, 3_600),
        (date(60), 50, 60),
        (date(-60), 0, 0),
        (date(86_400 * 365 * 100), 3_600, 3_600),
        ("-5".to_owned(), -1, -1),
        ("1e3".to_owned(), -1, -1),
        ("soon".to_owned(), -1, -1),
        (String::new(), -1, -1),
        ("Fri, 99 Foo 2026 99:99:99 GMT".to_owned(), -1, -1),
    ] {
        for (status, expected) in [
            ("429 Too Many", "transient, no effect"),
            ("503 Busy", "transient"),
        ] {
            let act = Say(http(status, &format!("Retry-After: {value}\r\n"), ""));
            let answer = stage.call(&create(), &[act]).await;
            assert_eq!(word(&answer), expected, "{value}: {answer:?}");
            let Err(NbiFailure::Transient { retry_after, .. }) = answer else {
                unreachable!()
            };
            // -1: none.
            let seconds = retry_after.map_or(-1, |asked| asked.as_secs());
            assert!((least..=most).contains(&seconds), "{value:?}: {seconds}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_between_requests_is_bridged_or_told() {
    let stage = Stage::new(PATIENCE, 2).await;
    let whole = http("200 OK", "", r#"{"code":200,"details":""}"#);
    for call in [read_rule(), disarm(), create()] {
        // Closed after an answer that did not say so, and noticed before the next request.
        for _ in 0..5 {
            let answer = stage.call(&call, &[end(whole.clone())]).await;
            assert_eq!(word(&answer), "ok", "{answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Closed, or reset, when the next request was already on its way.
        for act in [end(""), Reset("")] {
            let answer = stage.call(&call, &[act]).await;
            let expected = if call.is_repeatable() {
                "ok"
            } else {
                "transient"
            };
            assert_eq!(word(&answer), expected, "{call:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_reached_had_no_effect_and_a_server_that_comes_back_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for url in [
        "http://nowhere.invalid".to_owned(),
        format!("http://{address}"),
        format!("https://{address}"),
    ] {
        let client = client(&url, SOON, 0, Arc::default());
        for call in [read_rule(), create()] {
            let answer = ask(&client, &call).await;
            assert_eq!(word(&answer), "transient, no effect", "{url}: {answer:?}");
            assert!(text(&answer).contains("could not connect"), "{answer:?}");
        }
    }
    let client = client(&format!("http://{address}"), SOON, 0, Arc::default());
    assert!(ask(&client, &create()).await.is_err());
    let listener = TcpListener::bind(address).await.unwrap();
    let disarm = disarm();
    let (answer, ()) = tokio::join!(ask(&client, &disarm), async {
        let (mut socket, _) = listener.accept().await.unwrap();
        request(&mut socket).await.unwrap();
        play(&mut socket, ok(r#"{"code":200,"details":""}"#))
            .await
            .unwrap();
    });
    assert_eq!(word(&answer), "ok", "{answer:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_refused_before_anything_is_sent() {
    let shows = Pair::self_signed(&["127.0.0.1"]);
    // What gets through the handshake would find nobody there.
    let server = TlsServer::start("127.0.0.1:1", &shows, None).await;
    let url = format!("https://127.0.0.1:{}", server.port());
    let client = client(&url, PATIENCE, 0, Arc::default());
    for call in [create(), read_rule(), create()] {
        let answer = ask(&client, &call).await;
        assert_eq!(word(&answer), "transient, no effect", "{answer:?}");
        assert!(text(&answer).contains("certificate"), "{answer:?}");
    }
    assert_eq!(server.handshakes(), 0);
}
