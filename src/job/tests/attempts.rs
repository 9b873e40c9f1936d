//! Copies of a job that are at different attempts: the tag of a rule, and of a result, says which attempt it is of.

use super::twins::{Nbi, cancelled, deliver, verdict};
use super::*;
use crate::job::tag::{read_tag, tag};

fn tagging() -> Policy {
    let mut policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    policy.faults.transient.insert(9010);
    policy
}

fn tagged(enabled: bool, tag: &str) -> RuleRow {
    RuleRow {
        description: Some(tag.to_owned()),
        ..our_rule(enabled)
    }
}

fn fault_of(seconds: i64, tag: &str) -> ResultRow {
    ResultRow {
        id: format!("row-{seconds}"),
        rule_description: Some(tag.to_owned()),
        ..faulted(seconds, 9010)
    }
}

fn tries(stage: Stage, attempt: u32) -> Job {
    let mut job = job(stage);
    let mut order = order();
    order.max_attempts = 3;
    *job.order_mut() = order;
    job.progress.attempt = attempt;
    job
}

const FIRST: &str = "nbi-upgrade job job-1";
const SECOND: &str = "nbi-upgrade job job-1 attempt 2";

#[test]
fn a_tag_names_the_job_and_from_the_second_on_the_attempt() {
    assert_eq!(tag(&tries(Stage::CreateRule, 1)), FIRST);
    assert_eq!(tag(&tries(Stage::CreateRule, 2)), SECOND);
    for (text, names) in [
        (FIRST, Some(("job-1", 1))),
        (SECOND, Some(("job-1", 2))),
        // Nobody's id has blanks.
        (
            "nbi-upgrade job job-1 attempt x",
            Some(("job-1 attempt x", 1)),
        ),
        ("another program's", None),
    ] {
        assert_eq!(read_tag(text), names, "{text}");
    }
}

#[test]
fn a_copy_that_is_behind_leaves_the_rule_of_the_next_attempt_armed() {
    let policy = tagging();
    let failed = [fault_of(60, FIRST)];
    let behind = tries(Stage::AwaitResult, 1);
    let own = Nbi::new(&failed, &[tagged(true, FIRST)]);
    let (_, calls) = deliver(behind.clone(), inputs(900), &policy, &own);
    assert!(calls.contains(&"disarm_rule"), "{calls:?}");
    // The device may have taken it, and may be at it.
    for is_armed in [true, false] {
        let overtaken = Nbi::new(&failed, &[tagged(is_armed, SECOND)]);
        let (waits, calls) = deliver(behind.clone(), inputs(900), &policy, &overtaken);
        assert!(!calls.contains(&"disarm_rule"), "{calls:?}");
        assert_eq!(waits.job.progress.attempt, 2);
        assert_eq!(waits.job.progress.stage, Stage::AwaitResult);
        assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
        // It ends as the other copy does.
        let mut done = failed.to_vec();
        done.push(ResultRow {
            rule_description: Some(SECOND.to_owned()),
            ..success(1_000)
        });
        let over = Nbi::new(&done, &[tagged(is_armed, SECOND)]);
        let (over, _) = deliver(waits.job, inputs(1_200), &policy, &over);
        assert_eq!(
            verdict(&over),
            "Finish completed/upgraded impact applied rule deactivated"
        );
    }
}

#[test]
fn a_request_that_is_sent_again_is_tried_again_over_what_its_last_attempt_has_left() {
    let policy = tagging();
    // Its second attempt timed out: the device never reported.
    let left = Nbi::new(&[fault_of(60, FIRST)], &[tagged(false, SECOND)]);
    let mut again = tries(Stage::Preflight, 1);
    again.progress.rule = RuleState::NotCreated;
    let (waits, _) = deliver(again.clone(), inputs(900), &policy, &left);
    assert_eq!(waits.job.progress.stage, Stage::Preflight);
    assert_eq!(waits.job.progress.attempt, 2);
    let (looked, _) = deliver(waits.job, inputs(1_600), &policy, &left);
    let (_, calls) = deliver(looked.job, inputs(1_600), &policy, &left);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
    // With fewer attempts it has none left.
    again.order_mut().max_attempts = 1;
    let (over, _) = deliver(again, inputs(900), &policy, &left);
    assert!(
        verdict(&over).starts_with("Finish failed/device_fault"),
        "{}",
        verdict(&over)
    );
}

#[test]
fn the_fault_of_a_further_attempt_that_is_tagged_like_the_first_is_news() {
    // As a worker of a version before tags it.
    let nbi = Nbi::new(&[fault_of(900, FIRST)], &[tagged(true, FIRST)]);
    let (again, _) = deliver(tries(Stage::AwaitResult, 2), inputs(960), &tagging(), &nbi);
    assert_eq!(again.job.progress.attempt, 3);
}

#[test]
fn an_order_ends_a_copy_that_is_behind_all_the_same() {
    let failed = [fault_of(60, FIRST)];
    let overtaken = Nbi::new(&failed, &[tagged(true, SECOND)]);
    let order = cancelled(900);
    let (over, calls) = deliver(tries(Stage::AwaitResult, 1), order, &tagging(), &overtaken);
    assert!(calls.contains(&"disarm_rule"), "{calls:?}");
    assert!(matches!(over.next, Next::Finish(_)), "{:?}", over.next);
}

#[test]
fn a_further_attempt_is_armed_over_the_rule_of_the_last_and_not_over_its_own() {
    let policy = tagging();
    let mut further = tries(Stage::CreateRule, 2);
    further.progress.rule = RuleState::Deactivated;
    let known = fault_of(60, FIRST);
    further
        .progress
        .baseline
        .extend([(known.id.as_str(), known.ts)]);
    let arms = |tag| {
        let nbi = Nbi::new(&[fault_of(60, FIRST)], &[tagged(false, tag)]);
        let (decision, calls) = deliver(further.clone(), inputs(900), &policy, &nbi);
        (
            calls.contains(&"update_rule"),
            decision.job.progress.attempt,
        )
    };
    assert_eq!(arms(FIRST), (true, 2));
    assert_eq!(arms(SECOND), (false, 2));
    assert_eq!(arms("nbi-upgrade job job-1 attempt 3"), (false, 3));
    // What a pause has put away may be armed once it has rested.
    further.progress.rests_until = Some(at(300));
    let nbi = Nbi::new(&[fault_of(60, FIRST)], &[tagged(false, SECOND)]);
    let (_, calls) = deliver(further, inputs(900), &policy, &nbi);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn the_fault_of_the_last_attempt_ends_also_a_copy_that_is_behind() {
    let policy = tagging();
    let last = "nbi-upgrade job job-1 attempt 3";
    let rows = [fault_of(60, FIRST), fault_of(900, last)];
    let nbi = Nbi::new(&rows, &[tagged(false, last)]);
    let (over, _) = deliver(tries(Stage::AwaitResult, 1), inputs(960), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish failed/device_fault impact possible rule deactivated"
    );
    // What an earlier attempt has reported is no news.
    let old = Nbi::new(&rows[..1], &[tagged(true, SECOND)]);
    let mut caught_up = tries(Stage::AwaitResult, 2);
    caught_up.progress.may_have_twin = true;
    let (waits, _) = deliver(caught_up, inputs(960), &policy, &old);
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    assert_eq!(waits.job.progress.stage, Stage::AwaitResult);
}

#[test]
fn a_job_whose_further_attempt_was_held_up_looks_for_a_result_at_its_deadline() {
    let mut done = success(1_000);
    done.rule_description = Some(SECOND.to_owned());
    let nbi = Nbi::new(&[fault_of(60, FIRST), done], &[tagged(false, SECOND)]);
    let held_up = tries(Stage::Preflight, 2);
    let (over, _) = deliver(held_up.clone(), inputs(3_601), &tagging(), &nbi);
    assert_eq!(
        verdict(&over),
        "Finish completed/already_done impact applied rule deactivated"
    );
    // A job that never began makes no call.
    let (_, calls) = deliver(job(Stage::Preflight), inputs(3_601), &tagging(), &nbi);
    assert_eq!(calls, Vec::<&str>::new());
}

#[test]
fn results_that_took_long_have_the_rule_read_once_more_before_the_write_and_no_more() {
    let policy = Policy::default();
    let look = |seen_at, again, now| {
        let step = Step::ReadResultsBeforeWriting {
            exists: true,
            seen_at: at(seen_at),
            again,
        };
        let next = decide(
            job(Stage::CreateRule),
            step,
            results(&[]),
            inputs(now),
            &policy,
        )
        .next;
        match next {
            Next::Step(Step::UpdateRule { .. }) => "writes",
            Next::Step(Step::ReadRuleBeforeArming { again: true, .. }) => "reads",
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(look(60, false, 61), "writes");
    assert_eq!(look(60, false, 62), "reads");
    assert_eq!(look(60, true, 90), "writes");
}

#[test]
fn a_job_whose_rule_another_has_looks_for_its_own_result_before_it_ends() {
    let mut done = success(600);
    done.rule_description = Some(FIRST.to_owned());
    let others = RuleRow {
        description: Some("nbi-upgrade job another".to_owned()),
        ..other_rule(true)
    };
    let mut late = job(Stage::CreateRule);
    late.progress.may_have_twin = true;
    let ends = |rows: &[ResultRow]| {
        let nbi = Nbi::new(rows, std::slice::from_ref(&others));
        verdict(&deliver(late.clone(), inputs(3_700), &tagging(), &nbi).0)
    };
    assert_eq!(
        ends(&[done]),
        "Finish completed/upgraded impact applied rule superseded"
    );
    assert_eq!(
        ends(&[]),
        "Finish failed/timed_out impact possible rule superseded"
    );
    // Its rule was armed: without a result it ends superseded.
    late = job(Stage::AwaitResult);
    let mut theirs = success(600);
    theirs.rule_description = others.description.clone();
    let nbi = Nbi::new(&[theirs], std::slice::from_ref(&others));
    let (over, calls) = deliver(late, inputs(3_700), &tagging(), &nbi);
    assert_eq!(
        verdict(&over),
        "Finish failed/superseded impact possible rule superseded"
    );
    assert_eq!(calls, ["read_rule", "read_results"]);
}

#[test]
fn a_fault_before_the_order_that_a_copy_would_have_tried_again_after_leaves_the_job_cancelled() {
    let policy = tagging();
    let failed = Nbi::new(&[fault_of(200, FIRST)], &[tagged(true, FIRST)]);
    // The order is of second 240. With its last attempt it has failed.
    for (last, verdict_is) in [
        (
            3,
            "Finish cancelled/cancelled impact possible rule deactivated",
        ),
        (
            1,
            "Finish failed/device_fault impact possible rule deactivated",
        ),
    ] {
        let mut awaits = tries(Stage::AwaitResult, 1);
        awaits.order_mut().max_attempts = last;
        let (over, _) = deliver(awaits, cancelled(260), &policy, &failed);
        assert_eq!(verdict(&over), verdict_is);
    }
    // The fault of the last attempt, of which a copy that is behind knows by its tag alone.
    let last = "nbi-upgrade job job-1 attempt 3";
    let rows = [fault_of(60, FIRST), fault_of(200, last)];
    let failed = Nbi::new(&rows, &[tagged(false, last)]);
    let (over, _) = deliver(
        tries(Stage::AwaitResult, 1),
        cancelled(260),
        &policy,
        &failed,
    );
    assert!(
        verdict(&over).starts_with("Finish failed/device_fault"),
        "{}",
        verdict(&over)
    );
}

#[test]
fn a_job_that_has_left_its_rule_to_another_does_not_come_back_to_what_stands_there() {
    let mut left = job(Stage::DeactivateRule);
    left.progress.rule = RuleState::Superseded;
    left.progress.exit = Some(Exit::End(Ending {
        outcome: Outcome::Failed,
        reason: Reason::Superseded,
        impact: Impact::Possible,
        message: "another job took the rule over".to_owned(),
        result: None,
        fault: None,
        decided_at: at(600),
    }));
    // Its results could not be read, and a copy has armed a further attempt since.
    let nbi = Nbi::new(&[], &[tagged(true, SECOND)]);
    let (over, calls) = deliver(left, inputs(700), &tagging(), &nbi);
    assert_eq!(calls, ["read_results"]);
    assert!(matches!(over.next, Next::Finish(_)), "{:?}", over.next);
}

#[test]
fn a_request_that_is_sent_twice_does_not_arm_what_the_nbi_has_turned_off_for_a_device_that_is_at_it()
 {
    let policy = tagging();
    let takes = policy.flash_time.as_secs();
    let turned_off = Nbi::new(&[], &[tagged(false, FIRST)]);
    let (looked, _) = deliver(Job::new(order()), inputs(60), &policy, &turned_off);
    assert_eq!(looked.job.progress.stage, Stage::CreateRule);
    let (waits, calls) = deliver(looked.job.clone(), inputs(61), &policy, &turned_off);
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    // The device is done.
    let done = ResultRow {
        rule_description: Some(FIRST.to_owned()),
        ..success(300)
    };
    let done = Nbi::new(&[done], &[tagged(false, FIRST)]);
    let mut seen = deliver(waits.job.clone(), inputs(320), &policy, &done).0;
    while !matches!(seen.next, Next::Finish(_)) {
        seen = deliver(seen.job, inputs(400), &policy, &done).0;
    }
    assert!(
        verdict(&seen).starts_with("Finish completed/upgraded"),
        "{}",
        verdict(&seen)
    );
    // Nothing comes of it: an earlier life of the job has left it.
    let late = inputs(60 + takes);
    let (_, calls) = deliver(waits.job, late, &policy, &turned_off);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
    // Another job's tag tells nothing of this one's device.
    let others = Nbi::new(&[], &[tagged(false, "nbi-upgrade job another")]);
    let (_, calls) = deliver(looked.job, inputs(61), &policy, &others);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
}
