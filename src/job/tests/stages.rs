//! The finer points of each stage, one sentence a test.

use super::*;
use crate::job::machine::Sign;
use crate::job::policy::{OnBusy, OnConnectionRequestFailure};
use crate::job::state::{Baseline, StageRecord};

#[track_caller]
fn expect_step(decision: &Decision, name: &str) {
    assert_eq!(describe(decision, noon()), format!("Step {name}"));
}

pub(super) fn finished(decision: &Decision) -> (&'static str, &'static str, &'static str) {
    let Next::Finish(ending) = &decision.next else {
        panic!("not finished: {:?}", decision.next)
    };
    (
        ending.outcome.name(),
        ending.reason.name(),
        ending.impact.name(),
    )
}

#[test]
fn the_baseline_is_handed_over_before_anything_is_written() {
    let decision = decide(
        job(Stage::Preflight),
        Step::ReadOldResults,
        results(&[success(-60)]),
        inputs(0),
        &Policy::default(),
    );
    assert_eq!(decision.next, Next::Advance);
    assert_eq!(decision.job.progress.stage, Stage::CreateRule);
    assert!(
        decision
            .job
            .progress
            .baseline
            .contains("row-ok", at(-60).as_second())
    );
}

#[test]
fn a_pause_that_disarmed_and_could_not_say_so_is_found_out_after_the_resume() {
    let mut inputs = inputs(600);
    inputs.standing = Standing::Resumed {
        at: at(500),
        arm_again: None,
    };
    inputs.redelivered = true;
    let policy = Policy::default();
    let decision = begin(job(Stage::AwaitResult), inputs, &policy);
    expect_step(&decision, "ReadRuleToPause");
    for (rule, state, next) in [
        (our_rule(true), RuleState::Armed, "ReadResults"),
        (our_rule(false), RuleState::Deactivated, "ReadResults"),
    ] {
        let step = Step::ReadRuleToPause;
        let decision = decide(decision.job.clone(), step, rules(&[rule]), inputs, &policy);
        expect_step(&decision, next);
        assert_eq!(decision.job.progress.rule, state);
        assert_eq!(
            decision.job.progress.rests_until.is_some(),
            state == RuleState::Deactivated
        );
    }
}

#[test]
fn a_pause_disarms_what_a_delivery_that_died_has_armed() {
    let policy = Policy::default();
    let mut inputs = inputs(600);
    inputs.standing = Standing::Paused;
    let decision = begin(job(Stage::CreateRule), inputs, &policy);
    assert!(matches!(decision.next, Next::Wait { .. }), "{decision:?}");
    inputs.redelivered = true;
    let decision = begin(job(Stage::CreateRule), inputs, &policy);
    expect_step(&decision, "ReadRuleToPause");
    let looks = decision.job;
    let saw = |job: &Job, answer| {
        let step = Step::ReadRuleToPause;
        decide(job.clone(), step, answer, inputs, &policy)
    };
    let disarms = saw(&looks, rules(&[our_rule(true)]));
    expect_step(&disarms, "DisarmToPause");
    let disarmed = |job: &Job, answer| {
        let step = Step::DisarmToPause;
        decide(job.clone(), step, answer, inputs, &policy)
    };
    let rests = disarmed(&disarms.job, Ok(NbiAnswer::Done));
    expect_step(&rests, "ReadResults");
    let progress = &rests.job.progress;
    assert_eq!(progress.stage, Stage::AwaitResult);
    assert_eq!(progress.rule, RuleState::Deactivated);
    assert!(progress.rests_until.is_some() && progress.may_have_twin);
    // A look before this one may have disarmed it, and died before it said so, or had no answer.
    let unanswered = disarmed(&disarms.job, Err(transient()));
    assert!(matches!(unanswered.next, Next::Retry { .. }));
    assert_eq!(unanswered.job.progress.rule, RuleState::Armed);
    let mut alone = unanswered.job.clone();
    alone.progress.may_have_twin = false;
    for job in [&looks, &unanswered.job, &alone] {
        let rests = saw(job, rules(&[our_rule(false)]));
        expect_step(&rests, "ReadResults");
        let progress = &rests.job.progress;
        assert_eq!(progress.stage, Stage::AwaitResult);
        assert_eq!(progress.rule, RuleState::Deactivated);
        assert!(progress.rests_until.is_some());
    }
    let mut alike = alone;
    alike.progress.looked_alike = true;
    for waits in [
        saw(&alike, rules(&[our_rule(false)])),
        saw(&looks, rules(&[other_rule(true)])),
        saw(&looks, rules(&[])),
        saw(&looks, Ok(NbiAnswer::RulesUnreadable)),
        saw(&looks, Err(rejected())),
        disarmed(&disarms.job, Ok(NbiAnswer::NoSuchRule)),
        disarmed(&disarms.job, Err(rejected())),
    ] {
        assert!(matches!(waits.next, Next::Wait { .. }), "{waits:?}");
        assert_eq!(waits.job.progress.stage, Stage::CreateRule);
    }
    // A write that was announced, or had no answer, may have been done where no read shows it.
    let mut unseen = looks.clone();
    unseen.progress.arming = true;
    let mut unanswered = looks;
    unanswered.progress.rule = RuleState::Armed;
    for job in [unseen, unanswered] {
        expect_step(&saw(&job, rules(&[])), "DisarmToPause");
        expect_step(&saw(&job, Ok(NbiAnswer::RulesUnreadable)), "DisarmToPause");
    }
}

#[test]
fn a_rule_that_no_read_shows_is_disarmed_by_a_pause_and_not_taken_for_disarmed_after_it() {
    let policy = Policy::default();
    let resumed = Standing::Resumed {
        at: at(500),
        arm_again: None,
    };
    for (standing, next) in [
        (Standing::Paused, "DisarmToPause"),
        (resumed, "ReadResults"),
    ] {
        let mut inputs = inputs(600);
        (inputs.standing, inputs.redelivered) = (standing, true);
        let step = Step::ReadRuleToPause;
        let job = job(Stage::AwaitResult);
        let decision = decide(job, step, rules(&[]), inputs, &policy);
        expect_step(&decision, next);
        assert_eq!(decision.job.progress.rule, RuleState::Armed);
    }
}

#[test]
fn what_a_pause_disarmed_is_armed_again_spread_over_the_time_that_the_resume_says() {
    const AFTER: i64 = 1_800;
    const OVER: i64 = 7_200;
    // How long after the resume the rule of a job is armed again that may rest until its own time, with a rest after each pause.
    let armed_after = |job_id: &str, over: i64, rests_until: Timestamp, rest: i64| {
        let policy = Policy {
            flash_time_max: SignedDuration::from_secs(rest),
            ..Policy::default()
        };
        let mut rests = job(Stage::AwaitResult);
        rests.order_mut().job_id = JobId::parse(job_id).unwrap();
        rests.order_mut().deadline = at(100_000);
        rests.progress.rule = RuleState::Deactivated;
        rests.progress.rests_until = Some(rests_until);
        rests.progress.disarmed_at = Some(at(0));
        let is_armed = |after: i64| {
            let mut inputs = inputs(600 + after);
            inputs.standing = Standing::Resumed {
                at: at(600),
                arm_again: Some(ArmAgain {
                    after: SignedDuration::from_secs(AFTER),
                    over: SignedDuration::from_secs(over),
                }),
            };
            let step = Step::ReadResults;
            let decision = decide(rests.clone(), step, results(&[]), inputs, &policy);
            // Its way to the rule is not held up there.
            if let Next::Step(_) = decision.next {
                let step = Step::ReadRuleBeforeArming {
                    rows: vec![],
                    again: false,
                };
                let disarmed = rules(&[our_rule(false)]);
                let found = decide(decision.job, step, disarmed, inputs, &policy);
                expect_step(&found, "ReadResultsBeforeWriting");
                return true;
            }
            assert!(matches!(decision.next, Next::Wait { .. }));
            false
        };
        (0..=AFTER + OVER + 1)
            .find(|after| is_armed(*after))
            .expect("it is armed in the end")
    };
    let never = Timestamp::MAX;
    let (one, other) = ("spring:001122-ABC", "spring:001122-ABD");
    let spread = armed_after(one, OVER, never, 0);
    // The same in every version: half of the workers must not have another idea of it than the other half.
    assert_eq!(spread, 2540);
    assert_ne!(spread, armed_after(other, OVER, never, 0));
    assert_eq!(armed_after(one, 0, never, 0), AFTER);
    // One whose own rest is over at the resume does not come at once with all others of its kind either.
    assert_eq!(armed_after(one, OVER, at(100), 90), spread - AFTER + 90);
    let mut tenths = [0_u32; 10];
    for number in 0..1_000 {
        let job_id = JobId::parse(format!("spring:CPE{number:06}")).unwrap();
        let share = pause::share(&job_id, SignedDuration::from_secs(OVER));
        assert!((0..=OVER).contains(&share.as_secs()), "{share}");
        tenths[usize::try_from(share.as_secs() * 10 / (OVER + 1)).unwrap()] += 1;
    }
    assert!(
        tenths.iter().all(|count| (70..=130).contains(count)),
        "{tenths:?}"
    );
}

#[test]
fn a_resume_that_vouched_speaks_of_nothing_that_was_disarmed_since() {
    let policy = Policy::default();
    let standing = Standing::Resumed {
        at: at(-18_000),
        arm_again: Some(ArmAgain {
            after: SignedDuration::from_mins(30),
            over: SignedDuration::ZERO,
        }),
    };
    let inputs = Inputs {
        standing,
        redelivered: true,
        ..inputs(600)
    };
    // Somebody has disarmed the rule long after that resume, and the device may be at it.
    let found = decide(
        job(Stage::AwaitResult),
        Step::ReadRuleToPause,
        rules(&[our_rule(false)]),
        inputs,
        &policy,
    );
    expect_step(&found, "ReadResults");
    let rests = decide(found.job, Step::ReadResults, results(&[]), inputs, &policy);
    assert!(matches!(rests.next, Next::Wait { .. }), "{:?}", rests.next);
    // What was disarmed before it is armed again.
    let mut paused = rests.job;
    paused.progress.disarmed_at = Some(at(-18_100));
    let again = decide(paused, Step::ReadResults, results(&[]), inputs, &policy);
    expect_step(&again, "ReadResultsBeforeArming");
    // Nor may a copy that came since arm what it finds disarmed.
    let mut copy = job(Stage::CreateRule);
    copy.progress.may_have_twin = true;
    for (begun, next) in [
        (at(0), "Wait"),
        (at(-20_000), "Step ReadResultsBeforeWriting"),
    ] {
        copy.progress.started_at = Some(begun);
        let step = Step::ReadRuleBeforeArming {
            rows: vec![],
            again: false,
        };
        let found = decide(
            copy.clone(),
            step,
            rules(&[our_rule(false)]),
            inputs,
            &policy,
        );
        let seen = format!("{:?}", found.next);
        let seen = if seen.starts_with("Wait") {
            "Wait".to_owned()
        } else {
            describe(&found, noon())
        };
        assert_eq!(seen, next, "begun {begun}");
    }
}

#[test]
fn a_job_whose_rule_another_one_overwrote_ends_when_the_device_has_worked_for_that_one() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let mut theirs = success(60);
    theirs.rule_description = Some("nbi-upgrade job another".to_owned());
    let looked = |rows: &[ResultRow]| {
        let step = Step::ReadResults;
        decide(
            job(Stage::AwaitResult),
            step,
            results(rows),
            inputs(60),
            &policy,
        )
    };
    let decision = looked(&[theirs.clone()]);
    expect_step(&decision, "ReadRuleOfOther");
    let decide_on = |rule: RuleRow, step| {
        decide(
            decision.job.clone(),
            step,
            rules(&[rule]),
            inputs(60),
            &policy,
        )
    };
    let ended = decide_on(other_rule(true), Step::ReadRuleOfOther);
    expect_step(&ended, "ReadRuleBeforeDisarming");
    let ended = decide(
        ended.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[other_rule(true)]),
        inputs(60),
        &policy,
    );
    // Whether there is a result of its own after all.
    expect_step(&ended, "ReadResultsOnceMore");
    let ended = decide(
        ended.job,
        Step::ReadResultsOnceMore,
        results(&[theirs.clone()]),
        inputs(60),
        &policy,
    );
    assert_eq!(finished(&ended), ("failed", "superseded", "possible"));
    // Its own rule stands: that job was before it. The same row is not looked into twice.
    let on = decide_on(our_rule(true), Step::ReadRuleOfOther);
    assert!(matches!(on.next, Next::Wait { .. }), "{:?}", on.next);
    let again = decide(
        on.job,
        Step::ReadResults,
        results(&[theirs.clone()]),
        inputs(90),
        &policy,
    );
    assert!(matches!(again.next, Next::Wait { .. }), "{:?}", again.next);
    // An unfinished row of another job says nothing, and its own result counts as ever.
    let mut unfinished = undecided(60);
    unfinished
        .rule_description
        .clone_from(&theirs.rule_description);
    assert!(matches!(looked(&[unfinished]).next, Next::Wait { .. }));
    expect_step(&looked(&[theirs, success(30)]), "ReadRuleBeforeDisarming");
}

#[test]
fn a_job_that_is_looked_at_right_before_its_deadline_is_not_looked_at_over_and_over() {
    let mut inputs = inputs(3_599);
    inputs.now += SignedDuration::from_millis(990);
    inputs.standing = Standing::Paused;
    for stage in [Stage::Preflight, Stage::AwaitResult] {
        let mut job = job(stage);
        job.progress.rule = RuleState::Deactivated;
        let mut decision = begin(job, inputs, &Policy::default());
        if let Next::Step(step) = decision.next {
            decision = decide(decision.job, step, results(&[]), inputs, &Policy::default());
        }
        let Next::Wait { until } = decision.next else {
            panic!("{:?}", decision.next)
        };
        assert_eq!(
            until,
            inputs.now + SignedDuration::from_secs(1),
            "{}",
            stage.name()
        );
    }
}

#[test]
fn a_deadline_is_in_jeopardy_from_the_usual_time_before_it_and_that_is_said_once() {
    let policy = Policy::default();
    let says = |decision: &Decision| {
        let is_it = |event: &&JobEvent| matches!(event, JobEvent::InJeopardy { .. });
        decision.events.iter().filter(is_it).count()
    };
    // Not begun, busy: looked at again 45 s later, and a device takes ten minutes.
    let busy = |seconds| {
        let step = Step::ReadRuleBeforeArming {
            rows: vec![],
            again: false,
        };
        let answer = rules(&[other_rule(true)]);
        decide(
            job(Stage::CreateRule),
            step,
            answer,
            inputs(seconds),
            &policy,
        )
    };
    let Next::Wait { until } = busy(600).next else {
        panic!("it waits")
    };
    let wait = until.duration_since(at(600)).as_secs();
    assert_eq!(says(&busy(3_000 - wait)), 0, "the usual time is left");
    let said = busy(3_001 - wait);
    assert_eq!(says(&said), 1);
    assert!(said.job.progress.in_jeopardy);
    // With the device: only once it has had its usual time.
    let silent = |woken, seconds| {
        let mut job = job(Stage::AwaitResult);
        job.progress.stages.push(StageRecord {
            stage: Stage::AwaitResult,
            attempts: 0,
            started_at: at(woken),
            finished_at: None,
            failed: false,
            last_error: None,
        });
        job.progress.connection_requested_at = Some(at(seconds));
        decide(
            job,
            Step::ReadResults,
            results(&[]),
            inputs(seconds),
            &policy,
        )
    };
    assert_eq!(says(&silent(60, 2_000)), 0, "much is left");
    assert_eq!(
        says(&silent(2_900, 3_400)),
        0,
        "it was woken eight minutes ago"
    );
    let said = silent(2_700, 3_400);
    assert_eq!(says(&said), 1);
    let again = decide(
        said.job,
        Step::ReadResults,
        results(&[]),
        inputs(3_500),
        &policy,
    );
    assert_eq!(says(&again), 0, "it was said");
    // A rule that a pause disarmed wakes nobody.
    let mut rests = job(Stage::AwaitResult);
    rests.progress.rests_until = Some(Timestamp::MAX);
    let rests = decide(
        rests,
        Step::ReadResults,
        results(&[]),
        inputs(3_100),
        &policy,
    );
    assert_eq!(says(&rests), 1);
    // What is decided is in no jeopardy, nor is what is late.
    let decided = decide(
        job(Stage::DeactivateRule),
        Step::DisarmRule,
        Err(transient()),
        inputs(3_500),
        &policy,
    );
    assert_eq!(says(&decided), 0);
}

#[test]
fn a_result_newer_than_the_request_under_our_file_was_this_job() {
    let policy = Policy::default();
    let decision = decide(
        job(Stage::Preflight),
        Step::ReadOldResults,
        results(&[success(30)]),
        inputs(60),
        &policy,
    );
    expect_step(&decision, "ReadRuleOfOldResult");
    let Next::Step(step) = decision.next else {
        unreachable!()
    };
    let decision = decide(
        decision.job,
        step,
        rules(&[our_rule(false)]),
        inputs(60),
        &policy,
    );
    expect_step(&decision, "ReadRuleBeforeDisarming");
    let decision = decide(
        decision.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[our_rule(false)]),
        inputs(60),
        &policy,
    );
    assert_eq!(
        finished(&decision),
        ("completed", "already_done", "applied")
    );
}

#[test]
fn a_result_is_not_judged_while_a_copy_of_this_job_holds_the_rule() {
    let step = || Step::ReadRuleOfOldResult {
        rows: vec![success(30)],
        sign: Sign::Result,
    };
    let policy = Policy::default();
    // The copy armed the rule after another job had ended: that one's success is not this job's.
    let decision = decide(
        job(Stage::Preflight),
        step(),
        rules(&[our_rule(true)]),
        inputs(60),
        &policy,
    );
    assert_eq!(decision.next, Next::Wait { until: at(90) });
    assert_eq!(decision.job.progress.stage, Stage::Preflight);
    assert!(decision.job.progress.may_have_twin);
    // A rule that is kept stays armed for good.
    let mut kept = job(Stage::Preflight);
    kept.order_mut().cleanup = Cleanup::Keep;
    let decision = decide(kept, step(), rules(&[our_rule(true)]), inputs(60), &policy);
    expect_step(&decision, "ReadRuleBeforeDisarming");
}

#[test]
fn a_request_that_may_be_a_repeat_is_not_carried_out_again_within_the_window() {
    let policy = Policy::default();
    let undated = || {
        let mut job = job(Stage::Preflight);
        job.order_mut().repeats_since = at(-86_400);
        job
    };
    let look = |row: ResultRow| {
        decide(
            undated(),
            Step::ReadOldResults,
            results(&[row]),
            inputs(0),
            &policy,
        )
    };
    let recent = look(success(-3_600));
    expect_step(&recent, "ReadRuleOfOldResult");
    let Next::Step(step) = recent.next else {
        unreachable!()
    };
    let verdict = |seen| {
        describe(
            &decide(undated(), step.clone(), seen, inputs(0), &policy),
            at(0),
        )
    };
    assert_eq!(
        verdict(rules(&[our_rule(false)])),
        "Step ReadRuleBeforeDisarming"
    );
    for not_ours in [
        rules(&[other_rule(false)]),
        rules(&[]),
        Ok(NbiAnswer::RulesUnreadable),
    ] {
        assert_eq!(verdict(not_ours), "Advance to create_rule");
    }
    // A fault may be tried again, and what is older than the window is no repeat.
    assert_eq!(look(faulted(-3_600, 9013)).next, Next::Advance);
    assert_eq!(look(success(-90_000)).next, Next::Advance);
    // A delivery that comes again and was dated anew may have done all of it.
    for force in [false, true] {
        for (is_dated_on_arrival, redelivered, repeats) in [
            (true, true, true),
            (true, false, !force),
            (false, true, !force),
        ] {
            let mut job = undated();
            job.order_mut().force = force;
            job.order_mut().is_dated_on_arrival = is_dated_on_arrival;
            job.progress.may_have_twin = redelivered;
            let next = |row| {
                let step = Step::ReadOldResults;
                decide(job.clone(), step, results(&[row]), inputs(0), &policy).next
            };
            let looks = |next: Next| matches!(next, Next::Step(Step::ReadRuleOfOldResult { .. }));
            assert_eq!(
                looks(next(success(-3_600))),
                repeats,
                "{force} {redelivered}"
            );
            let faults_count = is_dated_on_arrival && redelivered;
            assert_eq!(looks(next(faulted(-3_600, 9013))), faults_count, "{force}");
        }
    }
}

#[test]
fn a_result_newer_than_the_request_under_another_file_is_not_ours() {
    let step = Step::ReadRuleOfOldResult {
        rows: vec![success(30)],
        sign: Sign::Result,
    };
    let decision = decide(
        job(Stage::Preflight),
        step,
        rules(&[other_rule(false)]),
        inputs(60),
        &Policy::default(),
    );
    assert_eq!(decision.next, Next::Advance);
    assert!(
        decision
            .job
            .progress
            .baseline
            .contains("row-ok", at(30).as_second())
    );
}

#[test]
fn the_nbis_clock_is_taken_into_account_where_it_shows_one() {
    // The NBI is ten minutes behind: its 11:55 is our 12:05, after the request of 12:00.
    let answer = |nbi_time| {
        Ok(NbiAnswer::Results {
            rows: vec![success(-300)],
            nbi_time,
        })
    };
    let policy = Policy::default();
    let decision = decide(
        job(Stage::Preflight),
        Step::ReadOldResults,
        answer(Some(at(0))),
        inputs(600),
        &policy,
    );
    expect_step(&decision, "ReadRuleOfOldResult");
    let decision = decide(
        job(Stage::Preflight),
        Step::ReadOldResults,
        answer(None),
        inputs(600),
        &policy,
    );
    assert_eq!(decision.next, Next::Advance);
}

#[test]
fn a_rule_that_lost_its_file_keeps_a_new_result_from_being_taken_for_anothers() {
    let bare = || {
        rules(&[RuleRow {
            file: None,
            ..our_rule(false)
        }])
    };
    let ran = Step::ReadRuleBeforeArming {
        rows: vec![success(30)],
        again: false,
    };
    let decision = decide(
        job(Stage::CreateRule),
        ran,
        bare(),
        inputs(60),
        &Policy::default(),
    );
    expect_step(&decision, "SendConnectionRequest");
    let fresh = Step::ReadRuleBeforeArming {
        rows: vec![],
        again: false,
    };
    let decision = decide(
        job(Stage::CreateRule),
        fresh,
        bare(),
        inputs(60),
        &Policy::default(),
    );
    expect_step(&decision, "ReadResultsBeforeWriting");
}

#[test]
fn a_copy_that_puts_the_rule_away_while_it_is_read_is_noticed_before_the_write() {
    let policy = Policy::default();
    let none_yet = Step::ReadRuleBeforeArming {
        rows: vec![],
        again: false,
    };
    let looks_old = decide(
        job(Stage::CreateRule),
        none_yet,
        rules(&[our_rule(false)]),
        inputs(60),
        &policy,
    );
    let again = Step::ReadResultsBeforeWriting {
        exists: true,
        seen_at: at(60),
        again: false,
    };
    expect_step(&looks_old, "ReadResultsBeforeWriting");
    let done = decide(
        looks_old.job.clone(),
        again.clone(),
        results(&[success(30)]),
        inputs(61),
        &policy,
    );
    expect_step(&done, "ReadRuleBeforeArming");
    let old_indeed = decide(looks_old.job, again, results(&[]), inputs(61), &policy);
    expect_step(&old_indeed, "UpdateRule");
}

#[test]
fn a_new_result_keeps_the_rule_from_being_armed_again() {
    let step = Step::ReadRuleBeforeArming {
        rows: vec![success(30)],
        again: false,
    };
    let policy = Policy::default();
    for rules_seen in [
        rules(&[our_rule(false)]),
        rules(&[our_rule(true)]),
        Ok(NbiAnswer::RulesUnreadable),
    ] {
        let job = job(Stage::CreateRule);
        let decision = decide(job, step.clone(), rules_seen, inputs(60), &policy);
        expect_step(&decision, "SendConnectionRequest");
    }
    // Where no rule stands: if a copy of this job may have deleted it, or have come from before.
    let mut deletes = job(Stage::CreateRule);
    deletes.order_mut().cleanup = Cleanup::Delete;
    let mut twin = job(Stage::CreateRule);
    twin.progress.may_have_twin = true;
    for job in [deletes, twin] {
        let decision = decide(job, step.clone(), rules(&[]), inputs(60), &policy);
        expect_step(&decision, "SendConnectionRequest");
    }
    // A copy that is done would have left it: the result is another job's.
    let plain = job(Stage::CreateRule);
    let decision = decide(plain.clone(), step.clone(), rules(&[]), inputs(60), &policy);
    assert_eq!(
        (&decision.next, decision.job.progress.stage),
        (&Next::Advance, Stage::Preflight)
    );
    let baseline = &decision.job.progress.baseline;
    assert!(baseline.contains("row-ok", at(30).as_second()));
    let mut rested = plain;
    rested.progress.rests_until = Some(at(50));
    let decision = decide(rested, step, rules(&[]), inputs(60), &policy);
    let Some(Exit::End(ending)) = decision.job.progress.exit else {
        panic!("no end")
    };
    assert_eq!(ending.reason, Reason::Superseded);
}

#[test]
fn a_rule_that_was_written_and_is_off_is_not_written_again() {
    let policy = Policy::default();
    let off = || rules(&[our_rule(false)]);
    let accepted = decide(
        job(Stage::CreateRule),
        Step::ReadRuleAfterArming,
        off(),
        inputs(60),
        &policy,
    );
    expect_step(&accepted, "SendConnectionRequest");
    // The answer to the write was lost: that the file stands there now tells that it was done, unless it stood there before.
    let look = |job: Job| {
        let step = Step::ReadRuleBeforeArming {
            rows: vec![],
            again: false,
        };
        decide(job, step, off(), inputs(90), &policy)
    };
    let lost = |job: Job, step: Step| decide(job, step, Err(transient()), inputs(60), &policy).job;
    let created = lost(job(Stage::CreateRule), Step::CreateRule { readable: true });
    expect_step(&look(created), "SendConnectionRequest");
    let update = || Step::UpdateRule { readable: true };
    let over_anothers = lost(job(Stage::CreateRule), update());
    expect_step(&look(over_anothers), "SendConnectionRequest");
    let stood_there = look(job(Stage::CreateRule));
    expect_step(&stood_there, "ReadResultsBeforeWriting");
    let over_its_like = lost(stood_there.job, update());
    expect_step(&look(over_its_like), "ReadResultsBeforeWriting");
}

#[test]
fn rows_of_others_and_none_of_ours_are_not_taken_for_no_rule() {
    let policy = Policy::default();
    let others = || {
        Ok(NbiAnswer::Rules {
            rows: Vec::new(),
            filter_ignored: true,
        })
    };
    let look = |job: Job| {
        let step = Step::ReadRuleBeforeArming {
            rows: vec![],
            again: false,
        };
        decide(job, step, others(), inputs(60), &policy)
    };
    let announced = look(job(Stage::CreateRule));
    assert_eq!(announced.next, Next::Advance);
    assert!(announced.job.progress.arming);
    let armed = look(announced.job);
    expect_step(&armed, "CreateRule");
    // Whatever is armed is disarmed, and not deleted: a DELETE could hit every rule.
    let mut deleting = job(Stage::DeactivateRule);
    deleting.order_mut().cleanup = Cleanup::Delete;
    let step = Step::ReadRuleBeforeDisarming;
    let decision = decide(deleting, step, others(), inputs(60), &policy);
    expect_step(&decision, "DisarmRule");
}

#[test]
fn an_id_that_is_taken_and_never_shown_is_written_unseen() {
    let policy = Policy::default();
    let exists = || Ok(NbiAnswer::RuleExists);
    let create = |readable| Step::CreateRule { readable };
    let taken = decide(
        job(Stage::CreateRule),
        create(true),
        exists(),
        inputs(60),
        &policy,
    );
    expect_step(&taken, "ReadRuleThatExists");
    let look = |job: Job, seen| {
        let step = Step::ReadRuleThatExists;
        decide(job, step, seen, inputs(60), &policy)
    };
    let shown = look(taken.job.clone(), rules(&[other_rule(true)]));
    expect_step(&shown, "ReadResultsBeforeArming");
    let announced = look(taken.job, rules(&[]));
    assert_eq!(announced.next, Next::Advance);
    let again = look(announced.job, rules(&[]));
    expect_step(&again, "CreateRule");
    let over = decide(again.job, create(false), exists(), inputs(60), &policy);
    expect_step(&over, "UpdateRule");
}

#[test]
fn a_rule_that_no_read_shows_is_disarmed_if_this_job_or_a_copy_may_have_armed_it() {
    let policy = Policy::default();
    let none_seen = |job: Job| {
        let step = Step::ReadRuleBeforeDisarming;
        decide(job, step, rules(&[]), inputs(60), &policy)
    };
    expect_step(&none_seen(job(Stage::DeactivateRule)), "DisarmRule");
    let mut unreadable = job(Stage::DeactivateRule);
    for tries in 1..=5 {
        let step = Step::ReadRuleBeforeDisarming;
        let failure = Err(unintelligible());
        let decision = decide(unreadable, step, failure, inputs(60), &policy);
        if tries == 5 {
            expect_step(&decision, "DisarmRule");
        }
        unreadable = decision.job;
    }
    let failed = decide(
        unreadable,
        Step::DisarmRule,
        Err(unintelligible()),
        inputs(60),
        &policy,
    );
    assert_eq!(failed.job.progress.rule, RuleState::CleanupFailed);
    assert_eq!(finished(&failed), ("completed", "upgraded", "applied"));
    // Nothing was written: nothing is touched.
    let mut cancelled = job(Stage::DeactivateRule);
    cancelled.progress.rule = RuleState::NotCreated;
    if let Some(Exit::End(ending)) = &mut cancelled.progress.exit {
        (ending.outcome, ending.reason) = (Outcome::Cancelled, Reason::Cancelled);
        (ending.impact, ending.result) = (Impact::Possible, None);
    }
    let untouched = none_seen(cancelled.clone());
    assert_eq!(finished(&untouched), ("cancelled", "cancelled", "none"));
    // A copy may have written it. If it is not there, nothing has happened.
    cancelled.progress.may_have_twin = true;
    let twin = none_seen(cancelled);
    expect_step(&twin, "DisarmRule");
    let answer = |said| {
        decide(
            twin.job.clone(),
            Step::DisarmRule,
            Ok(said),
            inputs(61),
            &policy,
        )
    };
    let gone = answer(NbiAnswer::NoSuchRule);
    expect_step(&gone, "ReadResultsOnceMore");
    let step = Step::ReadResultsOnceMore;
    let over = decide(gone.job, step, results(&[]), inputs(62), &policy);
    assert_eq!(finished(&over), ("cancelled", "cancelled", "none"));
    let found = answer(NbiAnswer::Done);
    expect_step(&found, "ReadResultsOnceMore");
    assert_eq!(found.job.progress.rule, RuleState::Deactivated);
}

#[test]
fn a_cancelled_job_that_armed_nothing_takes_no_result_of_the_job_whose_rule_is_there() {
    let mut cancelled = job(Stage::DeactivateRule);
    cancelled.progress.rule = RuleState::NotCreated;
    if let Some(Exit::End(ending)) = &mut cancelled.progress.exit {
        (ending.outcome, ending.reason) = (Outcome::Cancelled, Reason::Cancelled);
        (ending.impact, ending.result) = (Impact::Possible, None);
    }
    let look = |job: &Job, policy: &Policy| {
        let step = Step::ReadRuleBeforeDisarming;
        let answer = rules(&[other_rule(false)]);
        decide(job.clone(), step, answer, inputs(700), policy)
    };
    let plain = Policy::default();
    let told = look(&cancelled, &plain);
    assert_eq!(finished(&told), ("cancelled", "cancelled", "none"));
    // A copy may have been at it before the other job was.
    let mut twin = cancelled.clone();
    twin.progress.may_have_twin = true;
    let told = look(&twin, &plain);
    assert_eq!(finished(&told), ("cancelled", "cancelled", "possible"));
    // With tags a result can say whose it is.
    let tagging = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let looks = look(&twin, &tagging);
    expect_step(&looks, "ReadResultsOnceMore");
    let mut row = success(30);
    for (tag, outcome) in [(None, "cancelled"), (Some("job-1"), "completed")] {
        row.rule_description = tag.map(|tag| format!("nbi-upgrade job {tag}"));
        let mut inputs = inputs(701);
        inputs.standing = Standing::Cancelled { at: at(650) };
        let step = Step::ReadResultsOnceMore;
        let answer = results(&[row.clone()]);
        let told = decide(looks.job.clone(), step, answer, inputs, &tagging);
        assert_eq!(finished(&told).0, outcome);
    }
}

#[test]
fn a_job_that_has_written_is_not_ended_in_preflight_without_a_look_at_its_rule() {
    let policy = Policy::default();
    let mut wrote = job(Stage::Preflight);
    for rule in [RuleState::Armed, RuleState::Superseded] {
        wrote.progress.rule = rule;
        wrote.progress.waited_for_other = true;
        let over = begin(wrote.clone(), inputs(3_600), &policy);
        expect_step(&over, "ReadRuleBeforeDisarming");
        let used_up = decide(
            wrote.clone(),
            Step::ReadOldResults,
            Err(rejected()),
            inputs(60),
            &policy,
        );
        expect_step(&used_up, "ReadRuleBeforeDisarming");
        let mut cancelled = inputs(60);
        cancelled.standing = Standing::Cancelled { at: at(50) };
        let cancelled = begin(wrote.clone(), cancelled, &policy);
        expect_step(&cancelled, "ReadRuleBeforeDisarming");
        // Its own rule is disarmed, and the device may have used it.
        let found = decide(
            over.job.clone(),
            Step::ReadRuleBeforeDisarming,
            rules(&[our_rule(true)]),
            inputs(3_600),
            &policy,
        );
        expect_step(&found, "DisarmRule");
        let looks = decide(
            found.job,
            Step::DisarmRule,
            Ok(NbiAnswer::Done),
            inputs(3_600),
            &policy,
        );
        expect_step(&looks, "ReadResultsOnceMore");
        // The other job's is left alone, and still holds the device.
        let busy = decide(
            over.job,
            Step::ReadRuleBeforeDisarming,
            rules(&[other_rule(true)]),
            inputs(3_600),
            &policy,
        );
        assert_eq!(finished(&busy), ("failed", "device_busy", "possible"));
    }
    for rule in [
        RuleState::NotCreated,
        RuleState::Deactivated,
        RuleState::Deleted,
    ] {
        wrote.progress.rule = rule;
        let over = begin(wrote.clone(), inputs(3_600), &policy);
        assert_eq!(finished(&over).1, "device_busy");
    }
}

#[test]
fn a_result_of_another_job_that_just_ended_goes_to_the_baseline_first() {
    let step = Step::ReadRuleBeforeArming {
        rows: vec![success(30)],
        again: false,
    };
    let decision = decide(
        job(Stage::CreateRule),
        step,
        rules(&[other_rule(false)]),
        inputs(60),
        &Policy::default(),
    );
    assert_eq!(
        (&decision.next, decision.job.progress.stage),
        (&Next::Advance, Stage::Preflight)
    );
    assert!(
        decision
            .job
            .progress
            .baseline
            .contains("row-ok", at(30).as_second())
    );
}

#[test]
fn a_copy_that_comes_late_does_not_arm_a_device_that_may_have_been_upgraded_for_it() {
    let step = || Step::ReadRuleBeforeArming {
        rows: vec![success(30)],
        again: false,
    };
    let policy = Policy::default();
    let again = Inputs {
        redelivered: true,
        ..inputs(200)
    };
    for is_armed in [true, false] {
        let rule = || rules(&[other_rule(is_armed)]);
        let decision = decide(job(Stage::CreateRule), step(), rule(), again, &policy);
        expect_step(&decision, "ReadRuleBeforeDisarming");
        let last = Step::ReadRuleBeforeDisarming;
        let decision = decide(decision.job, last, rule(), again, &policy);
        assert_eq!(finished(&decision), ("failed", "superseded", "possible"));
        // A job that has waited for the other one knows whose result it is.
        let mut waited = job(Stage::CreateRule);
        waited.progress.waited_for_other = true;
        let decision = decide(waited, step(), rule(), again, &policy);
        assert_eq!(decision.job.progress.stage, Stage::Preflight);
    }
}

#[test]
fn a_busy_device_is_waited_for_with_a_new_baseline_superseded_or_refused() {
    let step = || Step::ReadRuleBeforeArming {
        rows: vec![],
        again: false,
    };
    let with = |on_busy| Policy {
        on_busy,
        ..Policy::default()
    };
    let waits = decide(
        job(Stage::CreateRule),
        step(),
        rules(&[other_rule(true)]),
        inputs(60),
        &with(OnBusy::Wait),
    );
    assert!(matches!(waits.next, Next::Wait { .. }));
    assert_eq!(waits.job.progress.stage, Stage::Preflight);
    assert!(waits.job.progress.waited_for_other);
    let late = begin(waits.job, inputs(3_600), &with(OnBusy::Wait));
    assert_eq!(finished(&late), ("failed", "device_busy", "none"));

    let takes_over = decide(
        job(Stage::CreateRule),
        step(),
        rules(&[other_rule(true)]),
        inputs(60),
        &with(OnBusy::Supersede),
    );
    expect_step(&takes_over, "ReadResultsBeforeWriting");
    let Next::Step(look) = takes_over.next else {
        unreachable!()
    };
    let supersede = with(OnBusy::Supersede);
    let looked = |rows: &[ResultRow]| {
        let job = takes_over.job.clone();
        decide(job, look.clone(), results(rows), inputs(61), &supersede)
    };
    expect_step(&looked(&[]), "UpdateRule");
    // The other job's device has reported since: that is no result of this job, and is known before anything is written.
    let news = looked(&[success(60)]);
    let Next::Step(reads_again) = news.next else {
        panic!("{:?}", news.next)
    };
    let known = decide(
        news.job,
        reads_again,
        rules(&[other_rule(true)]),
        inputs(62),
        &supersede,
    );
    assert_eq!(known.next, Next::Advance);
    let baseline = &known.job.progress.baseline;
    assert!(baseline.contains("row-ok", at(60).as_second()));

    let fails = decide(
        job(Stage::CreateRule),
        step(),
        rules(&[other_rule(true)]),
        inputs(60),
        &with(OnBusy::Fail),
    );
    let fails = decide(
        fails.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[other_rule(true)]),
        inputs(60),
        &Policy::default(),
    );
    assert_eq!(finished(&fails), ("failed", "device_busy", "none"));
}

#[test]
fn a_tag_tells_two_jobs_with_the_same_file_apart() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let tagged = |tag: &str| {
        rules(&[RuleRow {
            description: Some(tag.to_owned()),
            ..our_rule(true)
        }])
    };
    let step = || Step::ReadRuleBeforeArming {
        rows: vec![],
        again: false,
    };
    let ours = decide(
        job(Stage::CreateRule),
        step(),
        tagged("nbi-upgrade job job-1"),
        inputs(60),
        &policy,
    );
    expect_step(&ours, "SendConnectionRequest");
    let other = decide(
        job(Stage::CreateRule),
        step(),
        tagged("nbi-upgrade job job-2"),
        inputs(60),
        &policy,
    );
    assert!(matches!(other.next, Next::Wait { .. }));
}

#[test]
fn an_unseen_rule_is_armed_once_and_only_after_it_was_announced() {
    let policy = Policy::default();
    let step = || Step::ReadRuleBeforeArming {
        rows: vec![],
        again: false,
    };
    let unreadable = || Ok(NbiAnswer::RulesUnreadable);
    let announced = decide(
        job(Stage::CreateRule),
        step(),
        unreadable(),
        inputs(60),
        &policy,
    );
    assert_eq!(announced.next, Next::Advance);
    let armed = decide(
        announced.job.clone(),
        step(),
        unreadable(),
        inputs(61),
        &policy,
    );
    expect_step(&armed, "CreateRule");
    let again = Inputs {
        redelivered: true,
        ..inputs(62)
    };
    let not_again = decide(announced.job, step(), unreadable(), again, &policy);
    expect_step(&not_again, "SendConnectionRequest");
    // A delivery that came twice before the announcement may have a twin that arms.
    let begun = begin(job(Stage::CreateRule), again, &policy);
    let twin = decide(begun.job, step(), unreadable(), inputs(62), &policy);
    expect_step(&twin, "SendConnectionRequest");
}

#[test]
fn an_unseen_rule_whose_write_got_no_answer_counts_as_armed() {
    let create = || Step::CreateRule { readable: false };
    let lost = decide(
        job(Stage::CreateRule),
        create(),
        Err(transient()),
        inputs(60),
        &Policy::default(),
    );
    expect_step(&lost, "SendConnectionRequest");
    let refused_at_the_door = decide(
        job(Stage::CreateRule),
        create(),
        Err(no_effect()),
        inputs(60),
        &Policy::default(),
    );
    assert!(matches!(refused_at_the_door.next, Next::Retry { .. }));
}

#[test]
fn a_lost_answer_to_a_write_is_looked_up_not_repeated() {
    let decision = decide(
        job(Stage::CreateRule),
        Step::CreateRule { readable: true },
        Err(transient()),
        inputs(60),
        &Policy::default(),
    );
    assert!(matches!(decision.next, Next::Retry { .. }));
    let again = begin(decision.job, inputs(90), &Policy::default());
    expect_step(&again, "ReadResultsBeforeArming");
}

#[test]
fn a_device_that_cannot_be_woken_is_waited_for_unless_configured_otherwise() {
    let mut job_3 = job(Stage::ConnectionRequest);
    job_3.progress.retries.failures = 2;
    let goes_on = decide(
        job_3.clone(),
        Step::SendConnectionRequest,
        Err(transient()),
        inputs(60),
        &Policy::default(),
    );
    assert!(matches!(goes_on.next, Next::Wait { .. }));
    assert_eq!(goes_on.job.progress.stage, Stage::AwaitResult);
    let strict = Policy {
        connection_request_on_failure: OnConnectionRequestFailure::Fail,
        ..Policy::default()
    };
    let fails = decide(
        job_3,
        Step::SendConnectionRequest,
        Err(transient()),
        inputs(60),
        &strict,
    );
    expect_step(&fails, "ReadRuleBeforeDisarming");
    let fails = decide(
        fails.job,
        Step::DisarmRule,
        Ok(NbiAnswer::Done),
        inputs(60),
        &strict,
    );
    assert_eq!(
        finished(&fails),
        ("failed", "connection_request_failed", "possible")
    );
}

#[test]
fn rows_of_the_baseline_are_not_results_and_the_newest_wins() {
    let mut awaiting = job(Stage::AwaitResult);
    awaiting.progress.baseline =
        Baseline::from_parts(vec![("row-ok".to_owned(), at(-60).as_second())], None);
    let old = decide(
        awaiting.clone(),
        Step::ReadResults,
        results(&[success(-60)]),
        inputs(60),
        &Policy::default(),
    );
    assert!(matches!(old.next, Next::Wait { .. }));
    let both = decide(
        awaiting.clone(),
        Step::ReadResults,
        results(&[faulted(30, 9013), row("b", 40, 204, "")]),
        inputs(60),
        &Policy::default(),
    );
    let Some(Exit::End(ending)) = both.job.progress.exit else {
        panic!("no end")
    };
    assert_eq!(ending.reason, Reason::Upgraded);
    // The same row written again with a later time is news.
    let rewritten = decide(
        awaiting,
        Step::ReadResults,
        results(&[success(30)]),
        inputs(60),
        &Policy::default(),
    );
    expect_step(&rewritten, "ReadRuleBeforeDisarming");
}

#[test]
fn a_success_code_with_a_fault_in_its_text_is_a_fault() {
    let contradiction = row("x", 30, 200, "Upgrade has failed with FaultCode 9013.");
    let decision = decide(
        job(Stage::AwaitResult),
        Step::ReadResults,
        results(&[contradiction]),
        inputs(60),
        &Policy::default(),
    );
    let Some(Exit::End(ending)) = decision.job.progress.exit else {
        panic!("no end")
    };
    assert_eq!(ending.reason, Reason::DeviceFault);
}

#[test]
fn a_transient_fault_is_disarmed_then_tried_again_with_a_new_baseline() {
    let policy = Policy::default();
    let mut awaiting = job(Stage::AwaitResult);
    awaiting.order_mut().max_attempts = 2;
    let faulted_once = decide(
        awaiting,
        Step::ReadResults,
        results(&[faulted(30, 9017)]),
        inputs(60),
        &policy,
    );
    expect_step(&faulted_once, "ReadRuleBeforeDisarming");
    let disarmed = decide(
        faulted_once.job,
        Step::DisarmRule,
        Ok(NbiAnswer::Done),
        inputs(61),
        &policy,
    );
    assert!(matches!(disarmed.next, Next::Wait { .. }));
    assert_eq!(
        (disarmed.job.progress.stage, disarmed.job.progress.attempt),
        (Stage::Preflight, 2)
    );
    // The fault of the first try is no result of the second.
    let preflight = decide(
        disarmed.job,
        Step::ReadOldResults,
        results(&[faulted(30, 9017)]),
        inputs(700),
        &policy,
    );
    assert_eq!(preflight.next, Next::Advance);
    let mut last = preflight.job;
    last.progress.stage = Stage::AwaitResult;
    let second = row("row-fault-2", 800, 500, "FaultCode 9017");
    let faulted_twice = decide(
        last,
        Step::ReadResults,
        results(&[second]),
        inputs(900),
        &policy,
    );
    let Some(Exit::End(ending)) = faulted_twice.job.progress.exit else {
        panic!("no end")
    };
    assert_eq!(
        (ending.reason, ending.impact),
        (Reason::DeviceFault, Impact::Possible)
    );
}

#[test]
fn a_device_that_finishes_at_the_deadline_still_counts() {
    let policy = Policy::default();
    let over = begin(job(Stage::AwaitResult), inputs(3_600), &policy);
    expect_step(&over, "ReadRuleBeforeDisarming");
    let disarm = decide(
        over.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[our_rule(true)]),
        inputs(3_600),
        &policy,
    );
    expect_step(&disarm, "DisarmRule");
    let looks = decide(
        disarm.job,
        Step::DisarmRule,
        Ok(NbiAnswer::Done),
        inputs(3_601),
        &policy,
    );
    expect_step(&looks, "ReadResultsOnceMore");
    let counts = decide(
        looks.job.clone(),
        Step::ReadResultsOnceMore,
        results(&[success(3_599)]),
        inputs(3_601),
        &policy,
    );
    assert_eq!(finished(&counts), ("completed", "upgraded", "applied"));
    let silent = decide(
        looks.job,
        Step::ReadResultsOnceMore,
        results(&[]),
        inputs(3_601),
        &policy,
    );
    assert_eq!(finished(&silent), ("failed", "timed_out", "possible"));
}

#[test]
fn a_job_past_its_deadline_sends_nothing() {
    let decision = begin(Job::new(order()), inputs(3_600), &Policy::default());
    assert_eq!(finished(&decision), ("failed", "timed_out", "none"));
    assert!(matches!(decision.events.first(), Some(JobEvent::Accepted)));
}

#[test]
fn a_rule_that_a_copy_left_armed_is_disarmed_at_the_deadline() {
    let policy = Policy::default();
    let step = Step::ReadRuleOfOldResult {
        rows: vec![success(30)],
        sign: Sign::Result,
    };
    let waits = decide(
        job(Stage::Preflight),
        step,
        rules(&[our_rule(true)]),
        inputs(60),
        &policy,
    );
    let looks = begin(waits.job, inputs(3_600), &policy);
    expect_step(&looks, "ReadOldResults");
    let over = decide(
        looks.job,
        Step::ReadOldResults,
        results(&[]),
        inputs(3_600),
        &policy,
    );
    expect_step(&over, "ReadRuleBeforeDisarming");
    let disarm = decide(
        over.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[our_rule(true)]),
        inputs(3_600),
        &policy,
    );
    expect_step(&disarm, "DisarmRule");
}

#[test]
fn nothing_happens_before_not_before() {
    let mut early = Job::new(order());
    early.order_mut().not_before = Some(at(600));
    let decision = begin(early, inputs(0), &Policy::default());
    assert_eq!(decision.next, Next::Wait { until: at(600) });
}

/// A hand-over that is nearly due comes back at once: to wait for the rest of it would be to do so over and over.
#[test]
fn a_job_that_comes_right_before_not_before_is_not_brought_again_at_once() {
    let mut early = Job::new(order());
    early.order_mut().not_before = Some(at(600));
    let mut inputs = inputs(599);
    inputs.now += SignedDuration::from_millis(600);
    let decision = begin(early, inputs, &Policy::default());
    let until = inputs.now + SignedDuration::from_secs(1);
    assert_eq!(decision.next, Next::Wait { until });
}

/// It never armed anything, but a copy of it may have, before the pause that disarmed the rule: that the device is untouched nobody can say.
#[test]
fn a_job_that_rests_for_what_a_copy_may_have_armed_does_not_end_as_if_nothing_had_happened() {
    let policy = Policy::default();
    let mut resumed = inputs(600);
    resumed.standing = Standing::Resumed {
        at: at(500),
        arm_again: None,
    };
    let mut resting = job(Stage::CreateRule);
    resting.progress.started_at = Some(at(0));
    let through = |mut decision: Decision, inputs: Inputs| {
        while let Next::Step(step) = decision.next {
            let is_of_results = matches!(
                step,
                Step::ReadResultsBeforeArming
                    | Step::ReadResults
                    | Step::ReadResultsOnceMore
                    | Step::ReadLateResults
            );
            let answer = if is_of_results {
                results(&[])
            } else {
                rules(&[our_rule(false)])
            };
            decision = decide(decision.job, step, answer, inputs, &policy);
        }
        decision
    };
    let rests = through(begin(resting, resumed, &policy), resumed);
    assert!(matches!(rests.next, Next::Wait { .. }), "{:?}", rests.next);
    let mut late = resumed;
    late.now = at(3_600);
    let mut decision = through(begin(rests.job, late, &policy), late);
    while decision.next == Next::Advance {
        decision = through(begin(decision.job, late, &policy), late);
    }
    assert_eq!(finished(&decision), ("failed", "timed_out", "possible"));
}

#[test]
fn another_jobs_rule_is_never_touched() {
    let mut timed_out = job(Stage::DeactivateRule);
    timed_out.progress.stage = Stage::AwaitResult;
    timed_out.progress.exit = None;
    let over = begin(timed_out, inputs(3_600), &Policy::default());
    let spared = decide(
        over.job,
        Step::ReadRuleBeforeDisarming,
        rules(&[other_rule(true)]),
        inputs(3_600),
        &Policy::default(),
    );
    assert_eq!(finished(&spared), ("failed", "superseded", "possible"));
}

#[test]
fn a_result_with_this_jobs_tag_is_this_jobs_whoever_has_the_device_now() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let tagged = ResultRow {
        rule_description: Some("nbi-upgrade job job-1".to_owned()),
        ..success(600)
    };
    let mut ended = job(Stage::DeactivateRule);
    if let Some(Exit::End(ending)) = &mut ended.progress.exit {
        ending.result = Some(tagged.clone());
    }
    let decision = decide(
        ended,
        Step::ReadRuleBeforeDisarming,
        rules(&[other_rule(true)]),
        inputs(700),
        &policy,
    );
    assert_eq!(finished(&decision), ("completed", "upgraded", "applied"));
    assert_eq!(decision.job.progress.rule, RuleState::Superseded);
    let decision = decide(
        job(Stage::CreateRule),
        Step::ReadRuleBeforeArming {
            rows: vec![tagged],
            again: false,
        },
        rules(&[other_rule(true)]),
        inputs(700),
        &policy,
    );
    expect_step(&decision, "SendConnectionRequest");
}

#[test]
fn a_delete_that_finds_no_rule_is_followed_by_a_disarm() {
    let policy = Policy::default();
    let mut deleting = job(Stage::DeactivateRule);
    deleting.order_mut().cleanup = Cleanup::Delete;
    let gone = || Ok(NbiAnswer::NoSuchRule);
    let decision = decide(deleting, Step::DeleteRule, gone(), inputs(700), &policy);
    expect_step(&decision, "DisarmRule");
    let decision = decide(decision.job, Step::DisarmRule, gone(), inputs(700), &policy);
    assert_eq!(finished(&decision), ("completed", "upgraded", "applied"));
    assert_eq!(decision.job.progress.rule, RuleState::Deleted);
}

#[test]
fn a_delete_whose_filter_is_ignored_becomes_a_disarm() {
    let mut deleting = job(Stage::DeactivateRule);
    deleting.order_mut().cleanup = Cleanup::Delete;
    let safe = decide(
        deleting.clone(),
        Step::ReadRuleBeforeDisarming,
        rules(&[our_rule(true)]),
        inputs(60),
        &Policy::default(),
    );
    expect_step(&safe, "DeleteRule");
    let ignored = Ok(NbiAnswer::Rules {
        rows: vec![our_rule(true)],
        filter_ignored: true,
    });
    let unsafe_here = decide(
        deleting,
        Step::ReadRuleBeforeDisarming,
        ignored,
        inputs(60),
        &Policy::default(),
    );
    expect_step(&unsafe_here, "DisarmRule");
}

#[test]
fn a_rule_that_cannot_be_disarmed_is_reported() {
    let decision = decide(
        job(Stage::DeactivateRule),
        Step::DisarmRule,
        Err(rejected()),
        inputs(60),
        &Policy::default(),
    );
    assert_eq!(finished(&decision), ("completed", "upgraded", "applied"));
    assert_eq!(decision.job.progress.rule, RuleState::CleanupFailed);
}

#[test]
fn the_workers_own_trouble_costs_the_job_nothing() {
    let before = job(Stage::AwaitResult);
    let decision = decide(
        before.clone(),
        Step::ReadResults,
        Err(refused()),
        inputs(60),
        &Policy::default(),
    );
    assert!(matches!(decision.next, Next::Release { .. }));
    // The name of the continuation, and that a worker has looked at it at all.
    let mut expected = before;
    expected.progress.seq += 1;
    expected.progress.started_at = Some(at(60));
    expected.progress.stages = vec![StageRecord {
        stage: Stage::AwaitResult,
        attempts: 0,
        started_at: at(60),
        finished_at: None,
        failed: false,
        last_error: None,
    }];
    assert_eq!(decision.job, expected);
}

#[test]
fn the_time_under_a_wrong_password_does_not_count_as_time_of_failing() {
    let policy = Policy::default();
    let mut job = job(Stage::CreateRule);
    job.progress.retries.failures = 1;
    job.progress.retries.since = Some(noon());
    let mut now = 10;
    let fails = |job, failure, now| {
        let step = Step::ReadResultsBeforeArming;
        decide(job, step, Err(failure), inputs(now), &policy)
    };
    for _ in 0..100 {
        let rests = fails(job, refused(), now);
        let Next::Release { until } = rests.next else {
            panic!("{:?}", rests.next)
        };
        now = until.duration_since(noon()).as_secs() + 1;
        job = rests.job;
    }
    assert!(now > policy.retry_max_elapsed.as_secs());
    let failed = fails(job, transient(), now);
    assert!(
        matches!(failed.next, Next::Retry { .. }),
        "{:?}",
        failed.next
    );

    // An open circuit does count.
    let rests = fails(failed.job.clone(), not_sent(), now);
    let since = |decision: &Decision| decision.job.progress.retries.since;
    assert_eq!(since(&rests), since(&failed));
}

#[test]
fn a_retry_after_is_honoured() {
    let asks = NbiFailure::Transient {
        message: "503".to_owned(),
        retry_after: Some(SignedDuration::from_secs(120)),
        no_effect: false,
    };
    let decision = decide(
        job(Stage::Preflight),
        Step::ReadOldResults,
        Err(asks),
        inputs(0),
        &Policy::default(),
    );
    assert_eq!(decision.next, Next::Retry { until: at(120) });
}

#[test]
fn a_baseline_is_bounded_and_what_is_older_counts_as_known() {
    let mut baseline = Baseline::default();
    let ids: Vec<String> = (0..1_000).map(|n| format!("row-{n}")).collect();
    baseline.extend(
        ids.iter()
            .enumerate()
            .map(|(n, id)| (id.as_str(), i64::try_from(n).unwrap())),
    );
    assert_eq!(baseline.parts().0.len(), Baseline::MAX);
    assert!(
        ids.iter()
            .enumerate()
            .all(|(n, id)| baseline.contains(id, i64::try_from(n).unwrap()))
    );
    assert!(!baseline.contains("new", 1_000) && !baseline.contains("row-999", 1_001));
}

#[test]
fn a_version_that_is_current_ends_the_job_untouched() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    let mut wanted = Job::new(order());
    wanted.order_mut().expected_version = Some("2.0".to_owned());
    let looks = begin(wanted, inputs(0), &policy);
    expect_step(&looks, "ReadOldResults");
    let old = [success(-60)];
    let asks = decide(
        looks.job,
        Step::ReadOldResults,
        results(&old),
        inputs(0),
        &policy,
    );
    expect_step(&asks, "ReadVersionFirst");
    let answered = |answer| {
        let step = Step::ReadVersionFirst {
            known: old.to_vec(),
        };
        decide(asks.job.clone(), step, answer, inputs(0), &policy)
    };
    for version in ["2.0", " 2.0 "] {
        let current = answered(Ok(NbiAnswer::Version(version.to_owned())));
        assert_eq!(finished(&current), ("completed", "already_current", "none"));
    }
    let silent = answered(Err(transient()));
    assert_eq!(silent.next, Next::Advance);
    let baseline = &silent.job.progress.baseline;
    assert!(baseline.contains("row-ok", at(-60).as_second()));
}

#[test]
fn a_row_that_the_baseline_forgot_is_no_news() {
    let count = i64::try_from(Baseline::MAX).unwrap() + 50;
    let id = |index: i64| format!("row-{index}");
    // Rows of one second, or of a storage that does not fill `ts`.
    let mut baseline = Baseline::default();
    let ids: Vec<String> = (0..count).map(id).collect();
    baseline.extend(ids.iter().map(|id| (id.as_str(), 7)));
    assert_eq!(baseline.parts().0.len(), Baseline::MAX);
    assert!(ids.iter().all(|id| baseline.contains(id, 7)));
    assert!(!baseline.contains("row-0", 8));

    let mut baseline = Baseline::default();
    baseline.extend(ids.iter().map(String::as_str).zip(0..));
    assert!(
        ids.iter()
            .zip(0..)
            .all(|(id, ts)| baseline.contains(id, ts))
    );
    let (known, older_than) = (baseline.parts().0.to_vec(), baseline.parts().1);
    assert_eq!(older_than, Some(50));
    assert_eq!(Baseline::from_parts(known, older_than), baseline);
}

#[test]
fn a_baseline_takes_a_whole_answer_in_no_time() {
    let ids: Vec<String> = (0..50_000).map(|index| format!("row-{index}")).collect();
    let mut baseline = Baseline::default();
    // Quadratic, this would take minutes.
    baseline.extend(ids.iter().map(String::as_str).zip(0..));
    assert_eq!(baseline.parts().0.len(), Baseline::MAX);
}

#[test]
fn nothing_that_has_a_device_begin_goes_out_once_the_deadline_has_passed() {
    let policy = Policy::default();
    let looked = |stage, step, answer, seconds| {
        let decision = decide(job(stage), step, answer, inputs(seconds), &policy);
        describe(&decision, at(seconds))
    };
    let before_writing = || Step::ReadResultsBeforeWriting {
        exists: false,
        seen_at: at(3_599),
        again: false,
    };
    for (seconds, writes, wakes) in [
        (3_599, "Step CreateRule", "Step SendConnectionRequest"),
        (
            3_600,
            "Step ReadRuleBeforeDisarming",
            "Step ReadRuleBeforeDisarming",
        ),
    ] {
        let step = before_writing();
        let next = looked(Stage::CreateRule, step, results(&[]), seconds);
        assert_eq!(next, writes);
        let stands = rules(&[our_rule(true)]);
        let step = Step::ReadRuleAfterArming;
        let next = looked(Stage::CreateRule, step, stands, seconds);
        assert_eq!(next, wakes);
    }
}
