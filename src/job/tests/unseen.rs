//! Rules that stand there and that reads or writes do not find.

use super::twins::{Nbi, cancelled, deliver, verdict};
use super::*;

#[test]
fn a_result_under_no_visible_rule_is_that_of_the_job_that_has_begun() {
    let policy = Policy::default();
    let unseen = Nbi::new(&[success(180)], &[]);
    // The answer to its POST was lost.
    let mut lost = Job::new(order());
    lost.progress.stage = Stage::CreateRule;
    lost.progress.rule = RuleState::Armed;
    let (on, calls) = deliver(lost, inputs(300), &policy, &unseen);
    assert_eq!(on.job.progress.stage, Stage::AwaitResult);
    assert!(!calls.contains(&"create_rule"), "{calls:?}");
    // A copy that comes late, and a second try.
    let redelivered = Inputs {
        redelivered: true,
        ..inputs(300)
    };
    let mut second = Job::new(order());
    second.progress.attempt = 2;
    for (job, inputs) in [(Job::new(order()), redelivered), (second, inputs(300))] {
        let (over, _) = deliver(job, inputs, &policy, &unseen);
        let verdict = verdict(&over);
        assert!(
            verdict.starts_with("Finish completed/already_done impact applied"),
            "{verdict}"
        );
    }
    // A job that comes once and has not begun: another job's, deleted since.
    let (on, _) = deliver(Job::new(order()), inputs(300), &policy, &unseen);
    assert_eq!(on.next, Next::Advance);
}

#[test]
fn the_id_that_a_lost_post_took_is_not_written_over() {
    let policy = Policy::default();
    let mut nbi = Nbi::new(&[], &[]);
    nbi.is_taken = true;
    let mut lost = Job::new(order());
    lost.progress.stage = Stage::CreateRule;
    lost.progress.rule = RuleState::Armed;
    let (on, calls) = deliver(lost, inputs(60), &policy, &nbi);
    assert_eq!(on.job.progress.stage, Stage::AwaitResult);
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn a_pause_that_finds_no_rule_does_not_take_it_for_disarmed() {
    let policy = Policy::default();
    let mut job = Job::new(order());
    job.progress.stage = Stage::AwaitResult;
    job.progress.rule = RuleState::Armed;
    let step = Step::DisarmToPause;
    let paused = Inputs {
        standing: Standing::Paused,
        ..inputs(60)
    };
    let rests = decide(job, step, Ok(NbiAnswer::NoSuchRule), paused, &policy);
    assert_eq!(rests.job.progress.rule, RuleState::Armed);
    assert!(rests.job.progress.rests_until.is_some());
    // It is to be seen at last, and is disarmed.
    let late = Nbi::new(&[], &[our_rule(true)]);
    let (_, calls) = deliver(rests.job, cancelled(300), &policy, &late);
    assert!(calls.contains(&"disarm_rule"), "{calls:?}");
}
