//! Continuations: what was ever written is read, and nothing is lost on the way.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::state::{Baseline, Exit, Stage, StageRecord};
use crate::job::{FirmwareUrl, ResultRow, fault};

fn step(body: &[u8]) -> Result<Work, StepError> {
    codec().decode_step(&Incoming {
        body,
        ..Incoming::default()
    })
}

#[test]
fn every_continuation_ever_written_is_still_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages/v1");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_step = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("step-");
        if !is_step {
            continue;
        }
        let body = std::fs::read(&path).unwrap();
        let work = step(&body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = step(&codec().encode_step(&work)).unwrap();
        assert_eq!(again.job, work.job, "{}", path.display());
        read += 1;
    }
    assert!(read >= 2, "the fixtures are gone");
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
    let unknown_stage = include_str!("../../../tests/fixtures/messages/v1/step-first.json")
        .replace("preflight", "teleport");
    assert!(
        step(unknown_stage.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("teleport")
    );
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
                work.job.order.is_dated_on_arrival = !flag;
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
    let order = &mut work.job.order;
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
