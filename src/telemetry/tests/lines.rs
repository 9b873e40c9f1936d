//! Log lines: what a person and a log store see, and that `docs/logs.md` says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;

use super::{events, job, tell_everything};
use crate::job::fault::FaultPolicy;
use crate::job::{JobEvent, Stage};
use crate::message::{FieldFault, Named, Rejection};
use crate::telemetry::json_line::JsonLine;
use crate::telemetry::{Telemetry, Trace, log};

pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A log that can be read.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// One subscriber of the whole process wants every line, so that what other tests do meanwhile cannot make one look unwanted to all:
/// whether a line is wanted is remembered for the process.
fn want_everything() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let everything = log::json("trace", io::sink).unwrap();
        tracing::subscriber::set_global_default(everything).unwrap();
    });
}

fn json_lines(level: &str, tell: impl FnOnce(&Telemetry)) -> Vec<serde_json::Value> {
    want_everything();
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = log::json(level, move || writer.clone()).unwrap();
    let telemetry = Telemetry::default();
    // Within a trace, as deliveries are.
    let told = Trace::of(Some(TRACEPARENT)).scope(async { tell(&telemetry) });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(told));
    buffer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A line without the time at its beginning.
fn without_time(line: &str) -> &str {
    const TIME: &str = "{\"timestamp\":\"2026-06-01T02:07:15.123456Z\",";
    assert!(
        line.starts_with(&TIME[..14]) && line.len() > TIME.len(),
        "{line}"
    );
    &line[TIME.len()..]
}

/// Something whose text is of others.
fn evil_fields() {
    let evil = "\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{1f} \"\\/\u{7f}\u{9b}é\u{2028}💡";
    tracing::info!(target: "nbi_upgrade", evil, shown = %evil, debugged = ?evil, none = None::<&str>, some = Some(evil), "evil {evil}");
    let error: &(dyn std::error::Error + 'static) = &io::Error::other(evil);
    tracing::warn!(target: "other", error, yes = true, no = false, "");
    tracing::debug!(target: "nbi_upgrade", most = u64::MAX, least = i64::MIN, ?evil, "numbers");
    for number in [
        0.0,
        -0.0,
        1.0,
        0.1,
        1.5e-9,
        1e15,
        123_456.789,
        f64::NAN,
        f64::INFINITY,
        f64::EPSILON,
    ] {
        tracing::trace!(target: "nbi_upgrade", number, "a number");
    }
}

#[test]
fn a_line_is_what_the_library_would_write() {
    want_everything();
    let (ours, theirs) = (Buffer::default(), Buffer::default());
    let (our_writer, their_writer) = (ours.clone(), theirs.clone());
    let library = tracing_subscriber::fmt::layer()
        .with_writer(move || their_writer.clone())
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false);
    let own = tracing_subscriber::fmt::layer().with_writer(move || our_writer.clone());
    let subscriber = tracing_subscriber::registry().with(own.event_format(JsonLine));
    let subscriber = subscriber.with(library);
    tracing::subscriber::with_default(subscriber, || {
        tell_everything(&Telemetry::default());
        evil_fields();
    });
    let (ours, theirs) = (ours.text(), theirs.text());
    assert!(ours.lines().count() > 60, "{ours}");
    assert_eq!(ours.lines().count(), theirs.lines().count());
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(without_time(ours), without_time(theirs));
    }
}

#[test]
fn a_line_about_a_job_has_its_ids_at_the_top_level() {
    let lines = json_lines("trace", |telemetry| telemetry.job(&job(), &events()));
    assert_eq!(lines.len(), events().len());
    for line in &lines {
        assert_eq!(line["job_id"], "job-1", "{line}");
        assert_eq!(
            (&line["cpe_id"], &line["campaign_id"]),
            (&"CPE1".into(), &"spring".into()),
            "{line}"
        );
        assert_eq!(
            line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736",
            "{line}"
        );
        assert_eq!(
            (&line["attempt"], &line["target"]),
            (&1.into(), &"nbi_upgrade".into()),
            "{line}"
        );
    }
    let levels: Vec<_> = lines
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect();
    assert_eq!(
        levels,
        [
            "INFO", "DEBUG", "DEBUG", "WARN", "WARN", "WARN", "DEBUG", "WARN", "INFO", "WARN"
        ]
    );
    assert_eq!(lines[2]["waiting_for"], "result");
    assert_eq!(
        (&lines[3]["stage"], &lines[3]["error"]),
        (&"await_result".into(), &"HTTP 503".into())
    );
    assert_eq!(
        (&lines[5]["code"], &lines[5]["transient"]),
        (&9010.into(), &true.into())
    );
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["reason"], &last["impact"], &last["duration_ms"]),
        (&"timed_out".into(), &"possible".into(), &90_000.into())
    );
    assert_eq!(
        (&last["message"], &last["rule"]),
        (&"job failed".into(), &"deactivated".into())
    );
}

#[test]
fn a_job_without_a_campaign_has_no_such_field() {
    let mut job = job();
    job.order_mut().campaign_id = None;
    let lines = json_lines("info", |telemetry| {
        telemetry.job(&job, &[JobEvent::Accepted])
    });
    assert!(lines[0].get("campaign_id").is_none(), "{}", lines[0]);
}

#[test]
fn no_line_shows_a_secret_and_texts_of_others_are_cut() {
    let lines = json_lines("trace", |telemetry| {
        tell_everything(telemetry);
        telemetry.step_dead_lettered(&Named::default(), &"ä".repeat(5_000));
    });
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("hunter2"))
    );
    assert_eq!(
        lines.last().unwrap()["error"]
            .as_str()
            .unwrap()
            .chars()
            .count(),
        1_000
    );
}

#[test]
fn the_level_decides_what_is_written() {
    assert_eq!(
        json_lines("warn", |telemetry| telemetry.job(&job(), &events())).len(),
        5
    );
    assert_eq!(
        json_lines("warn,nbi_upgrade=info", |telemetry| telemetry
            .job(&job(), &events()))
        .len(),
        7
    );
    assert!(json_lines("off", tell_everything).is_empty());
}

#[test]
fn text_lines_are_coloured_only_where_wanted() {
    for is_coloured in [false, true] {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = log::text("info", move || writer.clone(), is_coloured).unwrap();
        tracing::subscriber::with_default(subscriber, || Telemetry::default().stopping());
        assert_eq!(buffer.text().contains('\u{1b}'), is_coloured);
        assert!(buffer.text().contains("stopping"));
    }
}

#[test]
fn a_line_about_a_rejected_request_names_its_trace() {
    let lines = json_lines("info", |telemetry| {
        telemetry.request_rejected(&Rejection::default(), Some(TRACEPARENT));
        telemetry.request_rejected(&Rejection::default(), Some("00-nonsense"));
    });
    let [with, without] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(with["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(without.get("trace_id"), None, "{without}");
}

#[test]
fn texts_of_others_stay_within_their_line() {
    const EVIL: &str = "x\nERROR nbi_upgrade: forged\r\u{1b}[2J\u{9b}1m\u{0}";
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = log::text("trace", move || writer.clone(), false).unwrap();
    let telemetry = Telemetry::default();
    tracing::subscriber::with_default(subscriber, || {
        telemetry.request_rejected(
            &Rejection {
                job_id: Some(EVIL.to_owned()),
                cpe_id: Some(EVIL.to_owned()),
                campaign_id: None,
                faults: vec![FieldFault {
                    field: EVIL.to_owned(),
                    message: EVIL.to_owned(),
                }],
            },
            Some(EVIL),
        );
        let evil = Named {
            job_id: Some(EVIL.to_owned()),
            ..Named::default()
        };
        telemetry.step_dead_lettered(&evil, EVIL);
        telemetry.step_parked(EVIL);
        telemetry.reply_failed(EVIL, EVIL);
        telemetry.broker_lost(EVIL, EVIL, Duration::ZERO);
        telemetry.broker_blocked(Some(EVIL));
        telemetry.unrouted("results", EVIL);
        telemetry.circuit_opened(EVIL);
        let fault = FaultPolicy::default()
            .fault_in(&format!("FaultCode 9010 {EVIL}"))
            .unwrap();
        telemetry.job(
            &job(),
            &[
                JobEvent::DeviceFaulted {
                    fault,
                    tries_again: false,
                },
                JobEvent::StageFailed {
                    stage: Stage::AwaitResult,
                    error: EVIL.to_owned(),
                },
            ],
        );
    });
    let text = buffer.text();
    assert_eq!(text.lines().count(), 10, "{text}");
    let mut others = text.chars().filter(|c| c.is_control() && *c != '\n');
    assert_eq!(others.next(), None, "{text:?}");
}

/// What a line is made of: its level and its fields.
type Shape = (String, BTreeSet<String>);

/// Every line that is written, by its message.
fn written() -> BTreeMap<String, Shape> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    for line in json_lines("trace", tell_everything) {
        let line = line.as_object().unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let usual = ["timestamp", "level", "message", "target"];
        let fields = line.keys().filter(|key| !usual.contains(&key.as_str()));
        let shape = shapes.entry(text("message"));
        let shape = shape.or_insert_with(|| (text("level").to_lowercase(), BTreeSet::new()));
        // A field without a value is left out of a line.
        shape.1.extend(fields.cloned());
    }
    shapes
}

/// Every line as the page has it.
fn documented() -> BTreeMap<String, Shape> {
    let page = include_str!("../../../docs/logs.md");
    let (_, rest) = page.split_once("<!-- lines: begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- lines: end -->").unwrap();
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let fields = quoted(cells[3]).into_iter().collect();
        (quoted(cells[1]).remove(0), (cells[2].to_owned(), fields))
    })
    .collect()
}

/// The messages in a file of `observe/`: in `tracing::…!(…, "message")` and in `line!(…)` and `job_line!(level, job, "message", …)`.
fn messages_in(code: &str) -> Vec<String> {
    let literals = |text: &str| -> Vec<String> {
        let inside = text.split('"').skip(1).step_by(2);
        inside.map(str::to_owned).collect()
    };
    let mut found = Vec::new();
    for (start, is_job) in ["tracing::", "line!("]
        .into_iter()
        .flat_map(|begin| code.match_indices(begin))
        .map(|(at, begin)| (at, begin == "line!("))
    {
        let rest = &code[start..];
        let Some(open) = rest.find('(') else { continue };
        let is_macro = is_job || rest[..open].ends_with('!');
        let is_definition = rest[..open].contains('$') || rest[..open].contains(' ');
        if !is_macro || is_definition {
            continue;
        }
        let mut depth = 0;
        let end = rest[open..].char_indices().find(|(_, c)| {
            depth += i32::from(*c == '(') - i32::from(*c == ')');
            depth == 0
        });
        let inside = &rest[open..open + end.unwrap().0];
        let literals = literals(inside);
        let message = if is_job {
            literals.first()
        } else {
            literals.last()
        };
        found.extend(message.cloned());
    }
    found
}

#[test]
fn the_page_about_log_lines_is_what_is_written() {
    let (written, documented) = (written(), documented());
    let differing: Vec<_> = written
        .keys()
        .chain(documented.keys())
        .filter(|message| written.get(*message) != documented.get(*message))
        .map(|message| {
            format!(
                "{message:?}: written as {:?}, docs/logs.md says {:?}",
                written.get(message),
                documented.get(message)
            )
        })
        .collect();
    assert!(differing.is_empty(), "\n{}\n", differing.join("\n"));
}

#[test]
fn every_line_in_the_source_is_told_by_these_tests() {
    let told = written();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/observe");
    let mut messages = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        messages.extend(messages_in(
            &std::fs::read_to_string(entry.unwrap().path()).unwrap(),
        ));
    }
    assert!(messages.len() >= told.len(), "{messages:?}");
    let missing: Vec<_> = messages
        .iter()
        .filter(|message| !told.contains_key(*message))
        .collect();
    assert!(
        missing.is_empty(),
        "add to `tell_everything` and to docs/logs.md: {missing:?}"
    );
}

#[test]
fn the_scan_of_the_source_finds_both_forms() {
    let code = r#"
        tracing::$level!( "no" );
        tracing::warn!(target: TARGET, reason = cut(reason), "broker (x) lost");
        job_line!(info, job, "job finished", outcome = f("y"));
        use tracing::field::display as shown; f("no")
    "#;
    assert_eq!(messages_in(code), ["broker (x) lost", "job finished"]);
}

#[test]
fn lines_of_the_amqp_library_come_when_they_are_named_and_its_frames_never() {
    let lines = |level: &str| {
        json_lines(level, |_| {
            tracing::error!(target: "lapin::channels", "Connection error");
            tracing::debug!(target: "lapin::channels", "create channel");
            tracing::trace!(target: "lapin::io_loop", "will write to buffer");
            tracing::warn!(target: "lapin::returned_messages", "Server returned us a message");
            tracing::info!(target: "other", "of others");
        })
        .len()
    };
    assert_eq!(lines("trace"), 1);
    assert_eq!(lines("info,lapin=error"), 2);
    assert_eq!(lines("trace,lapin=trace"), 3);
}

#[test]
fn an_hour_without_a_broker_or_an_nbi_is_a_few_lines() {
    let lines = json_lines("info", |telemetry| {
        for _ in 0..500 {
            telemetry.broker_lost("broker:5672", "refused", Duration::from_secs(5));
            telemetry.circuit_opened("no route");
            telemetry.nbi_files_unusable("it is gone");
        }
        telemetry.broker_connected("broker:5672");
        telemetry.circuit_closed();
    });
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[3]["times"], 500);
}
