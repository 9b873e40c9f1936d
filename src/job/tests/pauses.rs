//! A pause, and something else that went wrong: a worker that died, an answer that is lost, a second pause, the deadline.

use super::twins::{Nbi, cancelled, deliver, verdict};
use super::*;
use crate::job::state::StageRecord;

fn paused(seconds: i64) -> Inputs {
    Inputs {
        standing: Standing::Paused,
        ..inputs(seconds)
    }
}

/// A resume at that time, which does not say when to arm again.
fn resumed(seconds: i64, resumed_at: i64) -> Inputs {
    Inputs {
        standing: Standing::Resumed {
            at: at(resumed_at),
            arm_again: None,
        },
        ..inputs(seconds)
    }
}

/// A pause has put its rule away.
fn resting(stage: Stage) -> Job {
    let mut job = job(stage);
    job.progress.rule = RuleState::Deactivated;
    job.progress.rests_until = Some(at(660));
    job.progress.disarmed_at = Some(at(50));
    job.progress.started_at = Some(at(0));
    job
}

fn step(decision: &Decision) -> String {
    describe(decision, noon())
}

#[test]
fn what_was_armed_again_before_a_second_pause_is_disarmed_by_it() {
    let policy = Policy::default();
    let job = resting(Stage::AwaitResult);
    assert_eq!(
        step(&begin(job.clone(), paused(600), &policy)),
        "Step ReadResults"
    );
    // The delivery before this one may have armed it, and died.
    let mut inputs = paused(600);
    inputs.redelivered = true;
    let looks = begin(job, inputs, &policy);
    assert_eq!(step(&looks), "Step ReadRuleToPause");
    let saw = |answer| {
        decide(
            looks.job.clone(),
            Step::ReadRuleToPause,
            answer,
            inputs,
            &policy,
        )
    };
    // The next delivery looks although it comes for the first time, whatever kept this one from it.
    for unsure in [
        saw(rules(&[our_rule(true)])),
        saw(Err(transient())),
        saw(Err(refused())),
        saw(rules(&[our_rule(false)])),
    ] {
        let next = begin(unsure.job, paused(700), &policy);
        assert_eq!(step(&next), "Step ReadRuleToPause");
    }
    let armed = saw(rules(&[our_rule(true)]));
    assert_eq!(step(&armed), "Step DisarmToPause");
    assert_eq!(armed.job.progress.rule, RuleState::Armed);
    // A look that fails says nothing: a resume may still have it armed again.
    let failed = saw(Err(transient()));
    assert_eq!(failed.job.progress.rule, RuleState::Deactivated);
    // Where nobody can look, another job's rule may stand there.
    for unseen in [
        saw(Ok(NbiAnswer::RulesUnreadable)),
        saw(Err(rejected())),
        saw(rules(&[other_rule(true)])),
    ] {
        assert_eq!(step(&unseen), "Step ReadResults");
    }
    let off = saw(rules(&[our_rule(false)]));
    assert_eq!(step(&off), "Step ReadResults");
    assert_eq!(off.job.progress.disarmed_at, Some(at(50)));
}

#[test]
fn a_device_is_given_its_time_after_the_last_resume() {
    let policy = Policy {
        flash_time_max: SignedDuration::from_mins(10),
        ..Policy::default()
    };
    // Its rest after the first pause is over. A copy may have armed the rule since, and the second pause have disarmed it.
    let nbi = Nbi::new(&[], &[our_rule(false)]);
    for stage in [Stage::AwaitResult, Stage::CreateRule] {
        for (now, arms) in [(720, false), (1_301, true)] {
            let (_, calls) = deliver(resting(stage), resumed(now, 700), &policy, &nbi);
            assert_eq!(calls.contains(&"update_rule"), arms, "{stage:?} at {now}");
        }
    }
}

#[test]
fn a_job_that_rests_before_it_has_armed_anything_still_hears_and_sees() {
    let policy = Policy::default();
    let mut fresh = job(Stage::CreateRule);
    fresh.progress.started_at = Some(at(0));
    let nbi = Nbi::new(&[], &[our_rule(false)]);
    let (rests, _) = deliver(fresh, resumed(600, 500), &policy, &nbi);
    let Next::Wait { until } = rests.next else {
        panic!("{:?}", rests.next)
    };
    assert!(until <= at(640), "{until}");
    let (over, _) = deliver(rests.job.clone(), cancelled(640), &policy, &nbi);
    assert!(
        verdict(&over).starts_with("Finish cancelled"),
        "{}",
        verdict(&over)
    );
    // A copy has done it.
    let nbi = Nbi::new(&[success(610)], &[our_rule(false)]);
    let mut seen = deliver(rests.job, resumed(640, 500), &policy, &nbi).0;
    while !matches!(seen.next, Next::Finish(_)) {
        seen = deliver(seen.job, resumed(700, 500), &policy, &nbi).0;
    }
    assert_eq!(
        verdict(&seen),
        "Finish completed/upgraded impact applied rule deactivated"
    );
}

#[test]
fn what_a_pause_put_away_unsaid_is_not_taken_for_untouched_at_the_deadline() {
    let policy = Policy::default();
    // Two deliveries of it have died: one after it had armed the rule, one after it had disarmed it for the pause.
    let mut unsaid = job(Stage::CreateRule);
    unsaid.progress.may_have_twin = true;
    let ends = |rows: &[ResultRow]| {
        let nbi = Nbi::new(rows, &[our_rule(false)]);
        verdict(&deliver(unsaid.clone(), paused(3_700), &policy, &nbi).0)
    };
    assert_eq!(
        ends(&[success(600)]),
        "Finish completed/upgraded impact applied rule not_created"
    );
    assert_eq!(
        ends(&[]),
        "Finish failed/timed_out impact possible rule not_created"
    );
    // Nobody has begun anything where the job came once.
    let nbi = Nbi::new(&[], &[our_rule(false)]);
    let alone = deliver(job(Stage::CreateRule), paused(3_700), &policy, &nbi).0;
    assert_eq!(
        verdict(&alone),
        "Finish failed/timed_out impact none rule not_created"
    );
}

#[test]
fn what_a_copy_has_done_counts_at_the_deadline_though_its_rule_is_gone() {
    let policy = Policy::default();
    let mut unsaid = job(Stage::CreateRule);
    unsaid.order_mut().cleanup = Cleanup::Delete;
    unsaid.progress.may_have_twin = true;
    let nbi = Nbi::new(&[success(600)], &[]);
    let over = deliver(unsaid, paused(3_700), &policy, &nbi).0;
    assert!(
        verdict(&over).starts_with("Finish completed/upgraded"),
        "{}",
        verdict(&over)
    );
}

#[test]
fn what_a_copy_may_have_armed_again_is_disarmed_at_the_end_although_no_read_shows_it() {
    let policy = Policy::default();
    let nbi = Nbi::new(&[], &[]);
    for has_twin in [false, true] {
        let mut rests = resting(Stage::AwaitResult);
        rests.progress.may_have_twin = has_twin;
        let (_, calls) = deliver(rests, cancelled(600), &policy, &nbi);
        assert_eq!(calls.contains(&"disarm_rule"), has_twin, "{calls:?}");
    }
}

#[test]
fn a_further_try_is_made_although_there_was_a_pause_before() {
    let policy = Policy::default();
    let mut again = job(Stage::CreateRule);
    again.progress.started_at = Some(at(0));
    again.progress.attempt = 2;
    again.progress.rule = RuleState::Deactivated;
    let nbi = Nbi::new(&[], &[our_rule(false)]);
    let arms = |job: &Job| {
        let (_, calls) = deliver(job.clone(), resumed(600, 500), &policy, &nbi);
        calls.contains(&"update_rule")
    };
    let mut put_away = |finished_at| {
        again.progress.stages = vec![StageRecord {
            stage: Stage::DeactivateRule,
            attempts: 1,
            started_at: at(0),
            finished_at: Some(at(finished_at)),
            failed: false,
            last_error: None,
        }];
        again.clone()
    };
    // Before the pause that has ended, a copy may have armed its own try meanwhile.
    assert!(!arms(&put_away(400)));
    let mut since = put_away(550);
    assert!(arms(&since));
    since.progress.may_have_twin = true;
    assert!(!arms(&since));
}

#[test]
fn a_further_attempt_is_made_after_a_pause_that_fell_between_where_the_tag_says_that_no_copy_has_made_it()
 {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let mut again = job(Stage::CreateRule);
    again.progress.started_at = Some(at(0));
    again.progress.attempt = 2;
    again.progress.rule = RuleState::Deactivated;
    again.progress.may_have_twin = true;
    let arms = |tag: &str| {
        let rule = RuleRow {
            description: Some(tag.to_owned()),
            ..our_rule(false)
        };
        let nbi = Nbi::new(&[], &[rule]);
        let (_, calls) = deliver(again.clone(), resumed(600, 500), &policy, &nbi);
        calls.contains(&"update_rule")
    };
    assert!(arms("nbi-upgrade job job-1"));
    assert!(!arms("nbi-upgrade job job-1 attempt 2"));
}

#[test]
fn a_device_that_reports_a_fault_after_a_pause_has_nothing_to_rest_for() {
    let mut policy = Policy::default();
    policy.faults.transient.insert(9010);
    let mut rests = resting(Stage::AwaitResult);
    rests.order_mut().max_attempts = 2;
    let nbi = Nbi::new(&[faulted(500, 9010)], &[our_rule(false)]);
    let (again, _) = deliver(rests, resumed(600, 400), &policy, &nbi);
    assert_eq!(again.job.progress.attempt, 2);
    let later = resumed(2_000, 400);
    let (looked, _) = deliver(again.job, later, &policy, &nbi);
    let (_, calls) = deliver(looked.job, later, &policy, &nbi);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn what_is_disarmed_in_the_moment_of_the_resume_is_armed_as_the_resume_says() {
    let policy = Policy::default();
    let mut vouched = resumed(301, 300);
    if let Standing::Resumed { arm_again, .. } = &mut vouched.standing {
        *arm_again = Some(ArmAgain {
            after: SignedDuration::from_secs(600),
            over: SignedDuration::ZERO,
        });
    }
    let disarmed = decide(
        job(Stage::AwaitResult),
        Step::DisarmToPause,
        Ok(NbiAnswer::Done),
        vouched,
        &policy,
    );
    assert_eq!(disarmed.job.progress.disarmed_at, Some(at(300)));
}

#[test]
fn a_verified_success_does_not_leave_armed_what_a_copy_has_armed_after_a_pause() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    for (has_twin, disarms) in [(true, true), (false, false)] {
        let mut rests = resting(Stage::AwaitResult);
        rests.order_mut().expected_version = Some("2.0".to_owned());
        rests.progress.may_have_twin = has_twin;
        let nbi = Nbi::new(&[success(600)], &[our_rule(true)]);
        let (over, calls) = deliver(rests, resumed(900, 400), &policy, &nbi);
        assert_eq!(calls.contains(&"disarm_rule"), disarms, "{calls:?}");
        assert!(
            verdict(&over).starts_with("Finish completed/upgraded"),
            "{}",
            verdict(&over)
        );
    }
}

#[test]
fn a_rule_that_is_kept_is_said_to_be_kept_only_where_it_is_armed() {
    for (is_armed, state) in [(true, "kept"), (false, "deactivated")] {
        let mut done = job(Stage::DeactivateRule);
        done.order_mut().cleanup = Cleanup::Keep;
        let nbi = Nbi::new(&[success(600)], &[our_rule(is_armed)]);
        let (over, _) = deliver(done, inputs(900), &Policy::default(), &nbi);
        assert!(verdict(&over).ends_with(state), "{}", verdict(&over));
    }
}

#[test]
fn a_device_is_not_woken_after_an_order_that_came_while_its_rule_was_armed() {
    let policy = Policy::default();
    let decided = |inputs| {
        let mut armed = job(Stage::CreateRule);
        armed.progress.rule = RuleState::Armed;
        let read = Step::ReadRuleAfterArming;
        step(&decide(
            armed,
            read,
            rules(&[our_rule(true)]),
            inputs,
            &policy,
        ))
    };
    assert_eq!(decided(inputs(60)), "Step SendConnectionRequest");
    assert_eq!(decided(paused(60)), "Step ReadRuleToPause");
    assert_eq!(decided(cancelled(60)), "Step ReadRuleBeforeDisarming");
    let again = decide(
        job(Stage::AwaitResult),
        Step::ReadResults,
        results(&[]),
        cancelled(3_000),
        &policy,
    );
    assert_eq!(step(&again), "Step ReadRuleBeforeDisarming");
}

#[test]
fn a_rule_that_nobody_can_read_is_disarmed_unseen_where_this_job_has_written_it() {
    let policy = Policy::default();
    let look = |job: Job, failure: NbiFailure| {
        decide(
            job,
            Step::ReadRuleToPause,
            Err(failure),
            paused(600),
            &policy,
        )
    };
    let mut written = job(Stage::CreateRule);
    written.progress.rule = RuleState::Armed;
    let mut redelivered = job(Stage::CreateRule);
    redelivered.progress.may_have_twin = true;
    for (mut job, is_written) in [
        (written, true),
        (job(Stage::AwaitResult), true),
        (redelivered, false),
    ] {
        // A trouble that passes is waited for, soon.
        let soon = look(job.clone(), transient());
        let Next::Retry { until } = soon.next else {
            panic!("{:?}", soon.next)
        };
        assert!(until <= at(610), "{until}");
        for _ in 1..policy.unintelligible_max {
            let again = look(job, unintelligible());
            assert!(matches!(again.next, Next::Retry { .. }), "{:?}", again.next);
            job = again.job;
        }
        let at_last = look(job, unintelligible());
        if is_written {
            assert_eq!(step(&at_last), "Step DisarmToPause");
        } else {
            // It may be another job's.
            assert!(
                matches!(at_last.next, Next::Retry { .. }),
                "{:?}",
                at_last.next
            );
        }
    }
}

#[test]
fn what_failed_in_a_pause_costs_a_job_nothing_after_the_resume() {
    let policy = Policy::default();
    let mut troubled = job(Stage::CreateRule);
    troubled.progress.retries = troubled.progress.retries.failed(at(0));
    let long = policy.retry_max_elapsed.as_secs() + 100;
    let mut nbi = Nbi::new(&[], &[]);
    nbi.is_down = true;
    let (fails, _) = deliver(troubled.clone(), resumed(long, long - 1), &policy, &nbi);
    assert!(matches!(fails.next, Next::Retry { .. }), "{:?}", fails.next);
    assert!(fails.job.progress.exit.is_none());
    // Without the pause it has been tried for long enough.
    let (ends, _) = deliver(troubled, inputs(long), &policy, &nbi);
    assert!(ends.job.progress.exit.is_some(), "{:?}", ends.next);
}

#[test]
fn an_arming_that_lands_after_the_pause_has_disarmed_is_this_jobs_at_the_end() {
    let policy = Policy::default();
    let mut unanswered = job(Stage::CreateRule);
    unanswered.progress.rule = RuleState::Armed;
    let rests = decide(
        unanswered,
        Step::DisarmToPause,
        Ok(NbiAnswer::Done),
        paused(60),
        &policy,
    );
    assert_eq!(step(&rests), "Step ReadResults");
    let late = Nbi::new(&[], &[our_rule(true)]);
    let (over, calls) = deliver(rests.job, cancelled(600), &policy, &late);
    assert!(calls.contains(&"disarm_rule"), "{calls:?}");
    assert!(
        verdict(&over).starts_with("Finish cancelled"),
        "{}",
        verdict(&over)
    );
}

#[test]
fn a_rule_with_this_jobs_tag_that_is_off_was_taken_by_a_device() {
    let policy = Policy {
        tag_rules: true,
        flash_time_max: SignedDuration::from_mins(10),
        ..Policy::default()
    };
    let tagged = |text: &str| RuleRow {
        description: Some(text.to_owned()),
        ..our_rule(false)
    };
    const OWN: &str = "nbi-upgrade job job-1";
    let arms = |job: &Job, text: &str, inputs: Inputs| {
        let nbi = Nbi::new(&[], &[tagged(text)]);
        let (_, calls) = deliver(job.clone(), inputs, &policy, &nbi);
        calls.contains(&"update_rule")
    };
    let mut copy = job(Stage::CreateRule);
    copy.progress.started_at = Some(at(0));
    // Sent again after it has failed, e.g. by its campaign.
    assert!(arms(&copy, OWN, inputs(60)));
    copy.progress.may_have_twin = true;
    assert!(!arms(&copy, OWN, inputs(60)));
    assert!(!arms(&copy, OWN, resumed(60, -86_400)));
    assert!(arms(&copy, "what an operator wrote", inputs(60)));
    // It has put the rule away itself, before another try.
    copy.progress.attempt = 2;
    assert!(arms(&copy, OWN, inputs(60)));
}

#[test]
fn a_pause_before_a_further_attempt_costs_it_nothing_where_tags_say_that_nobody_has_armed_it() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let tagged = |attempt: &str| RuleRow {
        description: Some(format!("nbi-upgrade job job-1{attempt}")),
        ..our_rule(false)
    };
    let (first, second) = (tagged(""), tagged(" attempt 2"));
    let mut further = job(Stage::CreateRule);
    further.progress.attempt = 2;
    further.progress.rule = RuleState::Deactivated;
    further.progress.may_have_twin = true;
    let rests = |rule: &RuleRow| {
        let nbi = Nbi::new(&[], std::slice::from_ref(rule));
        let (held, _) = deliver(further.clone(), paused(600), &policy, &nbi);
        held.job.progress.rests_until.is_some()
    };
    assert!(!rests(&first));
    assert!(rests(&second));
    // A request that is sent again finds what an earlier life of its job has put away, and is held up by a pause before its second attempt.
    further.progress.may_have_twin = false;
    further.progress.rule = RuleState::NotCreated;
    further.progress.started_at = Some(at(0));
    let arms = |rule: &RuleRow| {
        let nbi = Nbi::new(&[], std::slice::from_ref(rule));
        let (_, calls) = deliver(further.clone(), resumed(600, 500), &policy, &nbi);
        calls.contains(&"update_rule")
    };
    assert!(arms(&first));
    assert!(!arms(&second));
}

#[test]
fn a_resume_does_not_speak_of_a_rule_that_was_armed_after_it_although_its_device_could_not_be_woken()
 {
    let policy = Policy::default();
    let off = Nbi::new(&[], &[our_rule(false)]);
    let mut awaits = job(Stage::AwaitResult);
    awaits.progress.started_at = Some(at(0));
    awaits.progress.connection_requested_at = None;
    let updates = |armed_at, job: &Job| {
        let mut job = job.clone();
        job.progress.stages.push(StageRecord {
            stage: Stage::CreateRule,
            attempts: 1,
            started_at: at(armed_at - 1),
            finished_at: Some(at(armed_at)),
            failed: false,
            last_error: None,
        });
        // The resume of second 500 has the rules armed again a minute later.
        let inputs = Inputs {
            standing: Standing::Resumed {
                at: at(500),
                arm_again: Some(ArmAgain {
                    after: SignedDuration::from_mins(1),
                    over: SignedDuration::ZERO,
                }),
            },
            redelivered: true,
            ..inputs(900)
        };
        let (_, calls) = deliver(job, inputs, &policy, &off);
        calls.contains(&"update_rule")
    };
    assert!(updates(400, &awaits));
    assert!(!updates(600, &awaits));
}
