//! Continuations: what was ever written is read, and nothing is lost on the way.

use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::retry::Retries;
use crate::job::state::{Baseline, Cleanup, Exit, Order, Progress, Stage, StageRecord};
use crate::job::{CampaignId, CpeId, FirmwareUrl, ResultRow, RuleId, fault};

fn step(body: &[u8]) -> Result<Work, StepError> {
    codec().decode_step(&Incoming {
        body,
        ..Incoming::default()
    })
}

/// What any release wrote, by its file. Files are added here and never edited.
const EVER_WRITTEN: [(&str, &str); 4] = [
    (
        "step-first.json",
        include_str!("../../../tests/fixtures/messages/v1/step-first.json"),
    ),
    (
        "step-full.json",
        include_str!("../../../tests/fixtures/messages/v1/step-full.json"),
    ),
    (
        "step-in-jeopardy.json",
        include_str!("../../../tests/fixtures/messages/v1/step-in-jeopardy.json"),
    ),
    (
        "step-resting.json",
        include_str!("../../../tests/fixtures/messages/v1/step-resting.json"),
    ),
];

#[test]
fn every_continuation_ever_written_is_still_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages/v1");
    let mut there: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    there.sort();
    assert_eq!(there, EVER_WRITTEN.map(|(name, _)| name));
    for (name, body) in EVER_WRITTEN {
        let work = step(body.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        // All of it, as it was understood ever since.
        insta::assert_debug_snapshot!(name, work);
        let again = codec().encode_step(&work);
        let [was, is] = [body.as_bytes(), &again]
            .map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap());
        assert_eq!(is, was, "{name} is not handed on as it came");
        let again = step(&again).unwrap();
        assert_eq!(format!("{again:?}"), format!("{work:?}"), "{name}");
    }
}

/// Work in which nothing is left out; without `..`, so that a new field shows here.
fn whole() -> Work {
    let device_fault = fault::Fault {
        code: 9010,
        name: fault::name(9010),
        message: "FaultCode 9010".to_owned(),
        transient: true,
    };
    let text = || Some("x".to_owned());
    Work {
        job: Job {
            order: Arc::new(Order {
                job_id: JobId::parse("job-1".to_owned()).unwrap(),
                cpe_id: CpeId::parse("CPE1".to_owned()).unwrap(),
                firmware_url: FirmwareUrl::checked("https://files.example/fw.bin".to_owned())
                    .unwrap(),
                rule_id: RuleId::parse("UPGRADE_CPE1".to_owned()).unwrap(),
                campaign_id: Some(CampaignId::parse("spring".to_owned()).unwrap()),
                requested_at: noon(),
                repeats_since: noon() - SignedDuration::from_secs(1),
                is_dated_on_arrival: true,
                not_before: Some(noon()),
                deadline: noon(),
                cleanup: Cleanup::Delete,
                priority: 2,
                executions: 2,
                max_attempts: 2,
                expected_version: text(),
                force: true,
            }),
            progress: Box::new(Progress {
                seq: 7,
                stage: Stage::AwaitResult,
                retries: Retries {
                    failures: 1,
                    unintelligible: 1,
                    since: Some(noon()),
                },
                polls: 1,
                attempt: 2,
                announced: true,
                baseline: Baseline::from_parts(vec![("row".to_owned(), 1)], Some(1)),
                waited_for_other: true,
                arming: true,
                may_have_twin: true,
                looked_alike: true,
                rule: RuleState::Armed,
                rests_until: Some(noon()),
                disarmed_at: Some(noon()),
                watched_until: Some(noon()),
                in_jeopardy: true,
                connection_requested_at: Some(noon()),
                exit: Some(Exit::End(Ending {
                    outcome: Outcome::Failed,
                    reason: Reason::DeviceFault,
                    impact: Impact::Possible,
                    message: "x".to_owned(),
                    result: Some(ResultRow {
                        id: "row".to_owned(),
                        ts: 1,
                        code: Some(500),
                        message: "x".to_owned(),
                        rule_description: text(),
                    }),
                    fault: Some(device_fault),
                    decided_at: noon(),
                })),
                started_at: Some(noon()),
                stages: vec![StageRecord {
                    stage: Stage::Preflight,
                    attempts: 1,
                    started_at: noon(),
                    finished_at: Some(noon()),
                    failed: true,
                    last_error: text(),
                }],
            }),
        },
        carried: Carried {
            context: Some(RawValue::from_string("7".to_owned()).unwrap()),
            correlation_id: text(),
            reply_to: text(),
            traceparent: text(),
            tracestate: text(),
        },
        not_due_before: Some(noon()),
    }
}

/// The paths of all members of objects.
fn members(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                members(value, &path, found);
                found.push(path);
            }
        }
        serde_json::Value::Array(all) => {
            for value in all {
                members(value, path, found);
            }
        }
        _ => {}
    }
}

/// A member that is not on this list is lost whenever a worker of an older release of the same version has the job in hand. If that does no
/// harm, write it here with what its loss does. If it does, it belongs into a new version (see `step.rs`).
#[test]
fn the_members_of_a_version_are_these() {
    let mut trying_again = whole();
    let Some(Exit::End(ending)) = trying_again.job.progress.exit.take() else {
        panic!("it has an end");
    };
    trying_again.job.progress.exit = ending.fault.map(Exit::TryAgain);
    let mut found = Vec::new();
    for work in [whole(), trying_again] {
        let body = codec().encode_step(&work);
        members(&serde_json::from_slice(&body).unwrap(), "", &mut found);
    }
    found.sort();
    found.dedup();
    let first_release = "\
        .context .correlation_id .not_due_before .order .order.campaign_id .order.cleanup .order.cpe_id \
        .order.dated_on_arrival .order.deadline .order.executions .order.expected_version .order.firmware_url .order.force \
        .order.job_id .order.max_attempts .order.not_before .order.priority .order.repeats_since .order.requested_at \
        .order.rule_id .progress .progress.announced .progress.arming .progress.attempt .progress.baseline \
        .progress.baseline_older_than .progress.connection_requested_at .progress.disarmed_at .progress.ending \
        .progress.ending.decided_at .progress.ending.fault .progress.ending.fault.code .progress.ending.fault.message \
        .progress.ending.fault.transient .progress.ending.impact .progress.ending.message .progress.ending.outcome \
        .progress.ending.reason .progress.ending.result .progress.ending.result.code .progress.ending.result.id \
        .progress.ending.result.message .progress.ending.result.rule_description .progress.ending.result.ts .progress.failing_since \
        .progress.failures .progress.in_jeopardy .progress.looked_alike .progress.may_have_twin .progress.polls \
        .progress.rests_until .progress.rule .progress.seq .progress.stage .progress.stages .progress.stages.attempts \
        .progress.stages.failed .progress.stages.finished_at .progress.stages.last_error .progress.stages.stage \
        .progress.stages.started_at .progress.started_at .progress.tries_again_after .progress.tries_again_after.code \
        .progress.tries_again_after.message .progress.tries_again_after.transient .progress.unintelligible \
        .progress.waited_for_other .progress.watched_until .reply_to .traceparent .tracestate .v";
    let known: Vec<&str> = first_release.split_whitespace().collect();
    assert_eq!(found, known);
}

/// What an older worker does with an addition: the job goes on, and the addition is gone.
#[test]
fn a_member_that_is_not_known_is_lost_and_a_name_that_is_not_known_is_not() {
    let first = EVER_WRITTEN[0].1;
    let with = first.replace("\"seq\": 0,", "\"seq\": 0, \"heard_of_later\": true,");
    assert_ne!(with, first);
    let work = step(with.as_bytes()).unwrap();
    let again = String::from_utf8(codec().encode_step(&work)).unwrap();
    assert!(!again.contains("heard_of_later"), "{again}");

    let full = EVER_WRITTEN[1].1;
    for (field, known) in [
        ("stage", "\"stage\": \"deactivate_rule\", \"failures\""),
        ("stage", "{\"stage\": \"preflight\""),
        ("rule", "\"rule\": \"armed\""),
        ("cleanup", "\"cleanup\": \"delete\""),
        ("outcome", "\"outcome\": \"failed\""),
        ("reason", "\"reason\": \"device_fault\""),
        ("impact", "\"impact\": \"possible\""),
    ] {
        let old = known.split('"').nth(3).unwrap();
        let body = full.replace(known, &known.replace(old, "second_thoughts"));
        let error = step(body.as_bytes()).unwrap_err();
        let name = "second_thoughts".to_owned();
        assert_eq!(error, StepError::NewerName { field, name }, "{known}");
        assert!(error.is_of_newer_release());
        // No release writes such names.
        for odd in ["", "Failed", "a b", "\u{e9}", &"x".repeat(65)] {
            let body = full.replace(known, &known.replace(old, odd));
            let error = step(body.as_bytes()).unwrap_err();
            assert!(matches!(error, StepError::Malformed(_)), "{field} {odd:?}");
            assert!(!error.is_of_newer_release());
        }
    }
}

#[test]
fn the_first_continuation_is_written_as_it_always_was() {
    let mut work = decode(MINIMAL).unwrap();
    work.job.progress.started_at = Some(noon());
    let written: serde_json::Value = serde_json::from_slice(&codec().encode_step(&work)).unwrap();
    let fixture = include_str!("../../../tests/fixtures/messages/v1/step-first.json");
    assert_eq!(
        written,
        serde_json::from_str::<serde_json::Value>(fixture).unwrap()
    );
}

#[test]
fn copies_of_a_job_that_stand_at_different_stages_have_different_keys() {
    let mut waiting = decode(MINIMAL).unwrap();
    waiting.job.progress.seq = 1;
    let mut arming = waiting.clone();
    arming.job.progress.stage = Stage::CreateRule;
    assert_ne!(waiting.key(), arming.key());
    // The same message, read twice, is one continuation.
    let body = codec().encode_step(&waiting);
    assert_eq!(step(&body).unwrap().key(), step(&body).unwrap().key());
}

#[test]
fn a_newer_version_is_told_from_garbage() {
    assert_eq!(
        step(br#"{"v":2,"whatever":true}"#).unwrap_err(),
        StepError::NewerVersion { found: 2, known: 1 }
    );
    for garbage in [
        &b""[..],
        b"{",
        b"{}",
        br#"{"v":0}"#,
        br#"{"v":1}"#,
        br#"{"v":"1"}"#,
        b"\xff",
    ] {
        assert!(
            matches!(step(garbage), Err(StepError::Malformed(_))),
            "{garbage:?}"
        );
    }
}

fn any_work() -> impl Strategy<Value = Work> {
    (
        prop::sample::select(Stage::ALL.to_vec()),
        prop::sample::select(RuleState::ALL.to_vec()),
        prop::sample::select(Reason::ALL.to_vec()),
        prop::collection::vec(("[a-z0-9-]{1,36}", any::<i64>()), 0..20),
        (any::<u32>(), any::<u64>(), any::<bool>(), any::<bool>()),
        ".{0,40}",
    )
        .prop_map(
            |(stage, rule, reason, known, (polls, seq, flag, ends), text)| {
                let mut work = decode(MINIMAL).unwrap();
                // Written only where a copy may have come before.
                work.job.order_mut().is_dated_on_arrival = !flag;
                let progress = &mut work.job.progress;
                (progress.stage, progress.rule, progress.polls, progress.seq) =
                    (stage, rule, polls, seq);
                (
                    progress.arming,
                    progress.may_have_twin,
                    progress.looked_alike,
                    progress.waited_for_other,
                    progress.announced,
                ) = (flag, !flag, flag, !flag, flag);
                (progress.rests_until, progress.watched_until) =
                    (flag.then(noon), (!flag).then(noon));
                progress.baseline = Baseline::from_parts(known, flag.then_some(-5));
                let device_fault = fault::Fault {
                    code: 9010,
                    name: fault::name(9010),
                    message: text.clone(),
                    transient: flag,
                };
                let result = ResultRow {
                    id: text.clone(),
                    ts: 1,
                    code: None,
                    message: text.clone(),
                    rule_description: None,
                };
                progress.exit = Some(if ends {
                    Exit::End(Ending {
                        outcome: Outcome::Failed,
                        reason,
                        impact: Impact::Possible,
                        message: text.clone(),
                        result: Some(result),
                        fault: Some(device_fault),
                        decided_at: noon(),
                    })
                } else {
                    Exit::TryAgain(device_fault)
                });
                progress.stages.push(StageRecord {
                    stage,
                    attempts: polls,
                    started_at: noon(),
                    finished_at: flag.then(noon),
                    failed: flag,
                    last_error: Some(text),
                });
                work.not_due_before = flag.then(noon);
                work
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(work in any_work()) {
        let again = step(&codec().encode_step(&work)).unwrap();
        prop_assert_eq!(again.job, work.job);
        prop_assert_eq!(again.not_due_before, work.not_due_before);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = step(&bytes);
        let _ = codec().decode_request(&Incoming { body: &bytes, ..Incoming::default() }, noon());
    }
}

#[test]
fn a_continuation_with_everything_at_its_longest_is_read() {
    let mut work = decode(MINIMAL).unwrap();
    let wide = |count: usize| "\u{10ffff}".repeat(count);
    let quotes = |count: usize| "\"".repeat(count);
    work.carried.context = Some(
        RawValue::from_string(format!("\"{}\"", "x".repeat(request::CONTEXT_MAX - 2))).unwrap(),
    );
    for field in [
        &mut work.carried.correlation_id,
        &mut work.carried.reply_to,
        &mut work.carried.traceparent,
        &mut work.carried.tracestate,
    ] {
        // The worst that JSON makes of a byte.
        *field = Some("\u{1}".repeat(512));
    }
    let order = work.job.order_mut();
    order.job_id = JobId::parse("j".repeat(128)).unwrap();
    order.firmware_url = FirmwareUrl::checked("h".repeat(2_048)).unwrap();
    order.expected_version = Some(wide(256));
    let rows: Vec<(String, i64)> = (0..300)
        .map(|index| {
            (
                format!("{index:03}{}", wide(ResultRow::ID_MAX - 3)),
                i64::MIN,
            )
        })
        .collect();
    let progress = &mut work.job.progress;
    progress.may_have_twin = true;
    progress
        .baseline
        .extend(rows.iter().map(|(id, ts)| (id.as_str(), *ts)));
    progress.stages = Stage::ALL
        .map(|stage| StageRecord {
            stage,
            attempts: u32::MAX,
            started_at: noon(),
            finished_at: Some(noon()),
            failed: true,
            last_error: Some(wide(StageRecord::ERROR_MAX)),
        })
        .to_vec();
    progress.exit = Some(Exit::End(Ending {
        outcome: Outcome::Failed,
        reason: Reason::VersionMismatch,
        impact: Impact::Unknown,
        message: format!("runs {:?}, expected was {:?}", wide(256), wide(256)),
        result: Some(ResultRow {
            id: wide(ResultRow::ID_MAX),
            ts: i64::MIN,
            code: Some(i64::MIN),
            message: quotes(ResultRow::MESSAGE_MAX),
            rule_description: Some(wide(ResultRow::DESCRIPTION_MAX)),
        }),
        fault: Some(fault::Fault {
            code: 9010,
            name: fault::name(9010),
            message: quotes(ResultRow::MESSAGE_MAX),
            transient: false,
        }),
        decided_at: noon(),
    }));
    let body = codec().encode_step(&work);
    assert!(body.len() <= step::BODY_MAX, "{}", body.len());
    let incoming = Incoming {
        body: &body,
        ..Incoming::default()
    };
    assert_eq!(codec().decode_step(&incoming).unwrap().job, work.job);
}
