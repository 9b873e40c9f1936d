//! Events: the form that others build against.

use jiff::SignedDuration;
use serde_json::Value;

use super::*;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::state::{Stage, StageRecord};
use crate::job::{JobEvent, ResultRow, WaitingFor, fault};

fn failed_work() -> (Work, Vec<JobEvent>) {
    let body = MINIMAL.replace('}', r#","campaign_id":"spring","context":{"ticket":7}}"#);
    let incoming = Incoming {
        body: body.as_bytes(),
        correlation_id: Some("corr-1"),
        reply_to: Some("my.replies"),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ..Incoming::default()
    };
    let mut work = codec().decode_request(&incoming, noon()).unwrap();
    let progress = &mut work.job.progress;
    progress.rule = RuleState::Deactivated;
    progress.started_at = Some(noon());
    progress.stages.push(StageRecord {
        stage: Stage::Preflight,
        attempts: 2,
        started_at: noon(),
        finished_at: Some(noon()),
        failed: false,
        last_error: Some("503".to_owned()),
    });
    let message = "Upgrade has failed with FaultCode 9010. File not found.".to_owned();
    let ending = Ending {
        outcome: Outcome::Failed,
        reason: Reason::DeviceFault,
        impact: Impact::Possible,
        message: "the device reported fault 9010: file transfer failure".to_owned(),
        result: Some(ResultRow {
            id: "row-1".to_owned(),
            ts: 1_743_412_508,
            code: Some(500),
            message: message.clone(),
            rule_description: None,
        }),
        fault: Some(fault::Fault {
            code: 9010,
            name: fault::name(9010),
            message,
            transient: false,
        }),
        decided_at: noon() + SignedDuration::from_secs(90),
    };
    let events = vec![
        JobEvent::Accepted,
        JobEvent::StageDone {
            stage: Stage::Preflight,
            attempt: 1,
            took: SignedDuration::ZERO,
        },
        JobEvent::Finished {
            ending: Box::new(ending),
            took: SignedDuration::from_secs(90),
        },
    ];
    (work, events)
}

fn json(event: &EventMessage) -> Value {
    serde_json::from_slice(&event.body).unwrap()
}

#[test]
fn a_final_event_as_the_contract_has_it() {
    let (work, events) = failed_work();
    let published = codec().published_events(&work, &events, noon());
    let last = published.last().unwrap();
    assert_eq!(last.routing_key, "upgrade.failed.spring");
    assert_eq!(last.reply_to.as_deref(), Some("my.replies"));
    assert_eq!(last.correlation_id.as_deref(), Some("corr-1"));
    let written = json(last);
    let fixture = include_str!("../../../tests/fixtures/messages/v1/event-failed.json");
    assert_eq!(
        written,
        serde_json::from_str::<Value>(fixture).unwrap(),
        "{}",
        serde_json::to_string_pretty(&written).unwrap()
    );
}

#[test]
fn only_final_events_are_replied() {
    let (work, events) = failed_work();
    let replies: Vec<bool> = codec()
        .published_events(&work, &events, noon())
        .iter()
        .map(|event| event.reply_to.is_some())
        .collect();
    assert_eq!(replies, [false, false, true]);
}

#[test]
fn a_repeat_has_the_same_id_and_another_event_another() {
    let (work, events) = failed_work();
    let ids = |codec: &Codec, at| -> Vec<String> {
        codec
            .published_events(&work, &events, at)
            .into_iter()
            .map(|event| event.id)
            .collect()
    };
    let first = ids(&codec(), noon());
    let later = ids(&codec(), noon() + SignedDuration::from_hours(1));
    assert_eq!(first, later);
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn copies_of_a_job_say_under_one_id_that_its_deadline_is_in_jeopardy() {
    let (work, _) = failed_work();
    let said = |waiting_for, after| {
        let at = noon() + SignedDuration::from_secs(after);
        let event = JobEvent::InJeopardy {
            stage: Stage::AwaitResult,
            next_look_at: at,
            waiting_for,
        };
        let mut events = codec().published_events(&work, &[event], at);
        events.pop().expect("it is published")
    };
    let (one, other) = (said(Some(WaitingFor::Result), 0), said(None, 90));
    assert_eq!(one.id, other.id);
    assert_eq!(one.routing_key, "upgrade.jeopardy.spring");
    assert!(!one.kind.is_final() && one.reply_to.is_none());
    assert_eq!(json(&one)["data"]["waiting_for"], "result");
    assert_eq!(json(&other)["data"]["waiting_for"], "nbi");
}

#[test]
fn a_final_event_is_repeated_byte_for_byte() {
    let (work, events) = failed_work();
    let body = |at| {
        codec()
            .published_events(&work, &events, at)
            .pop()
            .unwrap()
            .body
    };
    assert_eq!(body(noon()), body(noon() + SignedDuration::from_hours(1)));
}

#[test]
fn progress_is_published_only_where_it_is_wanted() {
    let (work, events) = failed_work();
    let mut quiet = codec();
    quiet.events.progress = false;
    let kinds: Vec<EventKind> = quiet
        .published_events(&work, &events, noon())
        .iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, [EventKind::Accepted, EventKind::Failed]);
}

#[test]
fn a_rejected_request_names_its_faults_and_two_bad_requests_are_two_events() {
    let event = |body: &str| {
        let incoming = Incoming {
            body: body.as_bytes(),
            correlation_id: Some("c"),
            ..Incoming::default()
        };
        let rejection = codec().decode_request(&incoming, noon()).unwrap_err();
        codec().rejected_event(&incoming, &rejection, noon())
    };
    let first = event(r#"{"job_id":"j","cpe_id":"DM*"}"#);
    assert_eq!(first.routing_key, "upgrade.rejected.-");
    let data = &json(&first)["data"];
    assert_eq!(
        (data["outcome"].as_str(), data["impact"].as_str()),
        (Some("rejected"), Some("none"))
    );
    assert_eq!(data["errors"].as_array().unwrap().len(), 2);
    assert_ne!(first.id, event(r#"{"job_id":"j"}"#).id);
    assert_eq!(first.id, event(r#"{"job_id":"j","cpe_id":"DM*"}"#).id);
}

#[test]
fn the_event_about_a_rejected_request_is_bounded_whatever_was_sent() {
    let endless = "x".repeat(100_000);
    let field = "\u{1}".repeat(500);
    let many: Vec<String> = (0..90)
        .map(|index| {
            format!(
                "{}:1",
                serde_json::to_string(&format!("{field}{index}")).unwrap()
            )
        })
        .collect();
    let mut body = many.join(",");
    body.truncate(request::BODY_MAX - 2);
    body = format!("{{{}}}", &body[..body.rfind(',').unwrap()]);
    let incoming = Incoming {
        body: body.as_bytes(),
        correlation_id: Some(&endless),
        reply_to: Some(&endless),
        traceparent: Some(&endless),
        tracestate: Some(&endless),
        ..Incoming::default()
    };
    let rejection = codec().decode_request(&incoming, noon()).unwrap_err();
    let event = codec().rejected_event(&incoming, &rejection, noon());
    assert!(event.body.len() < 64 * 1024, "{}", event.body.len());
    assert_eq!(
        [
            event.correlation_id,
            event.reply_to,
            event.traceparent,
            event.tracestate
        ],
        [None, None, None, None]
    );
}

#[test]
fn attributes_of_an_event_have_no_control_characters() {
    let incoming = Incoming {
        body: br#"{"job_id":"a\nb","cpe_id":"c\u0000d"}"#,
        traceparent: Some("00-\n"),
        tracestate: Some("a=\u{1b}b"),
        ..Incoming::default()
    };
    let rejection = codec().decode_request(&incoming, noon()).unwrap_err();
    let event = codec().rejected_event(&incoming, &rejection, noon());
    assert_eq!((event.traceparent, event.tracestate), (None, None));
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(
        (&body["subject"], &body["data"]["job_id"]),
        (&"c d".into(), &"a b".into())
    );
    assert_eq!(
        (body.get("traceparent"), body.get("tracestate")),
        (None, None)
    );
}

#[test]
fn the_namespace_of_event_ids_is_the_one_it_says() {
    let named = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"nbi-upgrade.event.v1");
    assert_eq!(event::EVENT_NAMESPACE, named);
}
