//! The version read back: what a device says while it flashes and boots is no verdict.

use super::*;

fn policy() -> Policy {
    Policy {
        verify: true,
        ..Policy::default()
    }
}

fn verified() -> Job {
    let mut job = job(Stage::Verify);
    job.order_mut().expected_version = Some("2.0".to_owned());
    job
}

fn version(text: &str) -> Result<NbiAnswer, NbiFailure> {
    Ok(NbiAnswer::Version(text.to_owned()))
}

/// One delivery whose version is read with this answer, and what else was called.
fn deliver(
    job: Job,
    inputs: Inputs,
    policy: &Policy,
    answer: &Result<NbiAnswer, NbiFailure>,
    rule: &Result<NbiAnswer, NbiFailure>,
) -> (Decision, Vec<&'static str>) {
    let mut calls = Vec::new();
    let mut decision = begin(job, inputs, policy);
    while let Next::Step(step) = decision.next {
        let call = step.call(&decision.job, policy);
        calls.push(call.operation());
        let answer = match call {
            NbiCall::ReadVersion { .. } => answer.clone(),
            NbiCall::ReadRule { .. } => rule.clone(),
            _ => Ok(NbiAnswer::Done),
        };
        decision = decide(decision.job, step, answer, inputs, policy);
    }
    (decision, calls)
}

fn waits_for_the_version(decision: &Decision) -> bool {
    let last = decision.events.last();
    matches!(decision.next, Next::Wait { .. })
        && matches!(last, Some(JobEvent::StageWaits { waiting_for, .. }) if *waiting_for == WaitingFor::Version)
}

#[test]
fn what_a_device_says_while_it_boots_is_no_verdict_and_its_rule_is_disarmed_meanwhile() {
    let armed = rules(&[our_rule(true)]);
    let (old, calls) = deliver(verified(), inputs(620), &policy(), &version("1.0"), &armed);
    assert!(waits_for_the_version(&old), "{:?}", old.next);
    assert_eq!(calls, ["read_version", "read_rule", "disarm_rule"]);
    assert_eq!(old.job.progress.rule, RuleState::Deactivated);
    let mut job = old.job;
    for (seconds, answer) in [
        (650, Err(rejected())),
        (700, Err(unintelligible())),
        (800, version("1.0")),
    ] {
        let (next, calls) = deliver(job, inputs(seconds), &policy(), &answer, &armed);
        assert!(waits_for_the_version(&next), "{answer:?}: {:?}", next.next);
        assert_eq!(calls, ["read_version"]);
        job = next.job;
    }
    let (up, calls) = deliver(job.clone(), inputs(900), &policy(), &version("2.0"), &armed);
    assert_eq!(calls, ["read_version"]);
    assert_eq!(
        describe(&up, at(900)),
        "Finish completed/upgraded impact applied rule deactivated"
    );
    // About as long as a device takes, and no longer.
    for (answer, verdict) in [
        (version("1.0"), "failed/version_mismatch impact unknown"),
        (Err(rejected()), "failed/nbi_rejected impact applied"),
        (
            Err(unintelligible()),
            "failed/nbi_protocol_error impact applied",
        ),
    ] {
        let (over, _) = deliver(job.clone(), inputs(620 + 600), &policy(), &answer, &armed);
        let expected = format!("Finish {verdict} rule deactivated");
        assert_eq!(describe(&over, at(1_220)), expected);
    }
}

#[test]
fn the_version_is_not_waited_for_past_the_deadline_and_to_it_where_nobody_says_how_long_a_device_takes()
 {
    let armed = rules(&[our_rule(true)]);
    let mut brief = verified();
    brief.order_mut().deadline = at(700);
    let (waits, _) = deliver(brief, inputs(690), &policy(), &version("1.0"), &armed);
    assert_eq!(waits.next, Next::Wait { until: at(700) });
    let (over, _) = deliver(waits.job, inputs(700), &policy(), &version("1.0"), &armed);
    assert!(matches!(over.next, Next::Finish(_)), "{:?}", over.next);
    let unsaid = Policy {
        flash_time: SignedDuration::ZERO,
        ..policy()
    };
    let (waits, _) = deliver(verified(), inputs(620), &unsaid, &version("1.0"), &armed);
    let (waits, _) = deliver(waits.job, inputs(3_500), &unsaid, &version("1.0"), &armed);
    assert!(waits_for_the_version(&waits), "{:?}", waits.next);
}

#[test]
fn a_rule_that_is_not_ours_or_is_kept_is_left_alone_while_the_version_is_waited_for() {
    let theirs = rules(&[other_rule(true)]);
    let (waits, calls) = deliver(verified(), inputs(620), &policy(), &version("1.0"), &theirs);
    assert!(waits_for_the_version(&waits), "{:?}", waits.next);
    assert_eq!(calls, ["read_version", "read_rule"]);
    let mut kept = verified();
    kept.order_mut().cleanup = Cleanup::Keep;
    let armed = rules(&[our_rule(true)]);
    let (waits, calls) = deliver(kept, inputs(620), &policy(), &version("1.0"), &armed);
    assert!(waits_for_the_version(&waits), "{:?}", waits.next);
    assert_eq!(calls, ["read_version"]);
    // Nobody can read it: disarmed all the same.
    let unreadable = Ok(NbiAnswer::RulesUnreadable);
    let (_, calls) = deliver(
        verified(),
        inputs(620),
        &policy(),
        &version("1.0"),
        &unreadable,
    );
    assert_eq!(calls, ["read_version", "read_rule", "disarm_rule"]);
}

#[test]
fn a_rule_that_shall_be_deleted_is_deleted_once_the_version_is_seen() {
    let mut job = verified();
    job.order_mut().cleanup = Cleanup::Delete;
    let armed = rules(&[our_rule(true)]);
    let (waits, _) = deliver(job, inputs(620), &policy(), &version("1.0"), &armed);
    let disarmed = rules(&[our_rule(false)]);
    let (over, calls) = deliver(
        waits.job,
        inputs(700),
        &policy(),
        &version("2.0"),
        &disarmed,
    );
    assert_eq!(calls, ["read_version", "read_rule", "delete_rule"]);
    assert_eq!(
        describe(&over, at(700)),
        "Finish completed/upgraded impact applied rule deleted"
    );
}
