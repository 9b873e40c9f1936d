//! Continuations: what was ever written is read, and nothing is lost on the way.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use crate::job::state::{Baseline, Exit, Stage, StageRecord};
use crate::job::{ResultRow, fault};

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
                let progress = &mut work.job.progress;
                (progress.stage, progress.rule, progress.polls, progress.seq) =
                    (stage, rule, polls, seq);
                (
                    progress.arming,
                    progress.may_have_twin,
                    progress.waited_for_other,
                    progress.announced,
                ) = (flag, !flag, flag, flag);
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
