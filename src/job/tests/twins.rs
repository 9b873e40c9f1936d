//! Copies of a job: what one of them can see of the other, and what it must not say before it has looked.

use super::stages::finished;
use super::*;
use crate::job::stages::preflight::Sign;

/// What the NBI says to each kind of call.
pub(super) struct Nbi {
    rows: Vec<ResultRow>,
    rules: Vec<RuleRow>,
    pub(super) is_down: bool,
    version: &'static str,
    /// POST finds the rule's id taken, whatever reads show.
    pub(super) is_taken: bool,
}

impl Nbi {
    pub(super) fn new(rows: &[ResultRow], rules: &[RuleRow]) -> Self {
        Self {
            rows: rows.to_vec(),
            rules: rules.to_vec(),
            is_down: false,
            version: "2.0",
            is_taken: false,
        }
    }

    fn answer(&self, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
        match call {
            _ if self.is_down => Err(transient()),
            NbiCall::ReadResults { .. } => results(&self.rows),
            NbiCall::ReadRule { .. } => rules(&self.rules),
            NbiCall::ReadVersion { .. } => Ok(NbiAnswer::Version(self.version.to_owned())),
            NbiCall::CreateRule(_) if self.is_taken => Ok(NbiAnswer::RuleExists),
            _ => Ok(NbiAnswer::Done),
        }
    }
}

/// One delivery: its verdict, and the names of its calls.
pub(super) fn deliver(
    job: Job,
    inputs: Inputs,
    policy: &Policy,
    nbi: &Nbi,
) -> (Decision, Vec<&'static str>) {
    let mut calls = Vec::new();
    let mut decision = begin(job, inputs, policy);
    while let Next::Step(step) = decision.next {
        let call = step.call(&decision.job, policy);
        calls.push(call.operation());
        decision = decide(decision.job, step, nbi.answer(&call), inputs, policy);
    }
    (decision, calls)
}

pub(super) fn verdict(decision: &Decision) -> String {
    describe(decision, noon())
}

pub(super) fn cancelled(seconds: i64) -> Inputs {
    Inputs {
        standing: Standing::Cancelled { at: at(240) },
        ..inputs(seconds)
    }
}

#[test]
fn a_row_without_a_verdict_becomes_this_jobs_result_though_its_time_stays() {
    let policy = Policy::default();
    let under_way = row("row-1", 60, 500, "in progress");
    let done = row("row-1", 60, 200, "OK");
    let armed = Nbi::new(&[under_way], &[our_rule(true)]);
    let (waits, _) = deliver(Job::new(order()), inputs(90), &policy, &armed);
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    // The copy that armed it has seen the result and put the rule away.
    let disarmed = Nbi::new(&[done], &[our_rule(false)]);
    let (over, calls) = deliver(waits.job, inputs(180), &policy, &disarmed);
    assert_eq!(
        verdict(&over),
        "Finish completed/already_done impact applied rule deactivated"
    );
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn a_row_that_never_gets_a_verdict_holds_no_job_up() {
    let policy = Policy::default();
    let stuck = Nbi::new(&[undecided(60)], &[our_rule(false)]);
    let (waits, _) = deliver(Job::new(order()), inputs(90), &policy, &stuck);
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    let longest = 3 * policy.flash_time.as_secs();
    let (on, _) = deliver(waits.job, inputs(60 + longest), &policy, &stuck);
    assert_eq!(on.next, Next::Advance);
    assert_eq!(on.job.progress.stage, Stage::CreateRule);
    // Should it get one, it still counts.
    let baseline = &on.job.progress.baseline;
    assert!(!baseline.contains("row-undecided", at(60).as_second()));
    // Where rules are not to be read, there is no more reason to suppose a copy afterwards.
    let fresh = Job::new(order());
    let step = Step::ReadRuleOfOldResult {
        rows: vec![undecided(60)],
        sign: Sign::UnderWay {
            until: at(600),
            may_be_repeat: false,
        },
    };
    let unreadable = Ok(NbiAnswer::RulesUnreadable);
    let waits = decide(fresh, step, unreadable, inputs(90), &policy);
    assert!(!waits.job.progress.may_have_twin);
    // A later row with a verdict is word enough.
    let mut again = Job::new(order());
    again.progress.attempt = 2;
    again
        .progress
        .baseline
        .extend([("row-1", at(80).as_second())]);
    let faulted = row("row-1", 80, 500, "FaultCode 9017");
    let passed = Nbi::new(&[undecided(60), faulted], &[our_rule(false)]);
    let (on, _) = deliver(again, inputs(90), &policy, &passed);
    assert_eq!(on.next, Next::Advance);
    assert_eq!(on.job.progress.stage, Stage::CreateRule);
}

#[test]
fn a_request_dated_anew_waits_for_the_device_that_is_at_it() {
    let policy = Policy::default();
    let anew = |force| {
        let mut job = Job::new(order());
        job.order_mut().requested_at = at(120);
        job.order_mut().is_dated_on_arrival = true;
        job.order_mut().repeats_since = at(-86_400);
        job.order_mut().force = force;
        job
    };
    let redelivered = Inputs {
        redelivered: true,
        ..inputs(130)
    };
    for rule in [our_rule(true), our_rule(false)] {
        let at_it = Nbi::new(&[undecided(60)], &[rule]);
        let (waits, _) = deliver(anew(true), redelivered, &policy, &at_it);
        assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
        let baseline = &waits.job.progress.baseline;
        assert!(!baseline.contains("row-undecided", at(60).as_second()));
    }
    // Another job's file: nothing of this job.
    let theirs = Nbi::new(&[undecided(60)], &[other_rule(false)]);
    let (on, _) = deliver(anew(false), redelivered, &policy, &theirs);
    assert_eq!(on.next, Next::Advance);
}

#[test]
fn a_verified_job_stays_so_though_another_has_the_rule_by_then() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    let mut job = Job::new(order());
    job.order_mut().expected_version = Some("2.0".to_owned());
    job.order_mut().cleanup = Cleanup::Delete;
    job.progress.stage = Stage::AwaitResult;
    job.progress.rule = RuleState::Armed;
    let mut nbi = Nbi::new(&[success(60)], &[our_rule(true)]);
    nbi.version = "1.0";
    let (waits, _) = deliver(job, inputs(60), &policy, &nbi);
    assert_eq!(waits.job.progress.rule, RuleState::Deactivated);
    let nbi = Nbi::new(&[success(60)], &[other_rule(true)]);
    let (over, _) = deliver(waits.job, inputs(120), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish completed/upgraded impact applied rule deactivated"
    );
}

#[test]
fn a_row_without_a_verdict_under_another_jobs_file_is_that_jobs() {
    let policy = Policy::default();
    let theirs = Nbi::new(&[undecided(60)], &[other_rule(false)]);
    let (on, _) = deliver(Job::new(order()), inputs(90), &policy, &theirs);
    assert_eq!(on.next, Next::Advance);
    let baseline = &on.job.progress.baseline;
    assert!(baseline.contains("row-undecided", at(60).as_second()));
    // So is one from before the request, whatever stands there.
    let old = Nbi::new(&[undecided(-60)], &[our_rule(true)]);
    let (on, _) = deliver(Job::new(order()), inputs(90), &policy, &old);
    assert_eq!(on.next, Next::Advance);
    let baseline = &on.job.progress.baseline;
    assert!(baseline.contains("row-undecided", at(-60).as_second()));
}

#[test]
fn a_device_that_tries_again_by_itself_while_its_fault_is_read_is_not_armed_again() {
    let policy = Policy::default();
    let mut job = job(Stage::AwaitResult);
    job.order_mut().max_attempts = 2;
    let fault = faulted(60, 9017);
    let by_itself = row("row-2", 90, 500, "in progress");
    let nbi = Nbi::new(&[fault.clone(), by_itself.clone()], &[our_rule(true)]);
    let (again, _) = deliver(job, inputs(120), &policy, &nbi);
    assert_eq!(again.job.progress.attempt, 2);
    let nbi = Nbi::new(&[fault.clone(), by_itself], &[our_rule(false)]);
    let (waits, _) = deliver(again.job, inputs(720), &policy, &nbi);
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    let nbi = Nbi::new(&[fault, row("row-2", 90, 200, "OK")], &[our_rule(false)]);
    let (over, calls) = deliver(waits.job, inputs(780), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish completed/already_done impact applied rule deactivated"
    );
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn a_cancelled_request_that_was_sent_twice_looks_before_it_says_anything() {
    let policy = Policy::default();
    let nbi = Nbi::new(&[success(180)], &[our_rule(true)]);
    let (waits, _) = deliver(Job::new(order()), cancelled(300), &policy, &nbi);
    assert!(matches!(waits.next, Next::Wait { .. }), "{:?}", waits.next);
    let nbi = Nbi::new(&[success(180)], &[our_rule(false)]);
    let (over, _) = deliver(waits.job, cancelled(400), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish completed/already_done impact applied rule deactivated"
    );
    // The other copy has armed it, and its device has not reported. It hears of the order itself; and it may be another job of this file.
    let nbi = Nbi::new(&[], &[our_rule(true)]);
    let (over, calls) = deliver(Job::new(order()), cancelled(300), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish cancelled/cancelled impact possible rule superseded"
    );
    assert!(!calls.contains(&"disarm_rule"), "{calls:?}");
    // What stands there disarmed may be an earlier job's of this file, or a copy's: it is left alone.
    let nbi = Nbi::new(&[], &[our_rule(false)]);
    let mut job = Job::new(order());
    job.order_mut().cleanup = Cleanup::Delete;
    let (over, calls) = deliver(job, cancelled(300), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish cancelled/cancelled impact possible rule deactivated"
    );
    assert!(!calls.contains(&"delete_rule"), "{calls:?}");
    // A copy that was about to arm when the other one did all of it: its result is older than the order, and counts.
    let mut late = Job::new(order());
    late.progress.stage = Stage::Preflight;
    let (late, _) = deliver(late, inputs(30), &policy, &Nbi::new(&[], &[]));
    assert_eq!(late.job.progress.stage, Stage::CreateRule);
    let nbi = Nbi::new(&[success(180)], &[our_rule(false)]);
    let (over, _) = deliver(late.job, cancelled(300), &policy, &nbi);
    let found = verdict(&over);
    assert!(found.starts_with("Finish completed/"), "{found}");
    let nbi = Nbi::new(&[], &[]);
    let (over, _) = deliver(Job::new(order()), cancelled(300), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish cancelled/cancelled impact none rule not_created"
    );
}

#[test]
fn a_cancelled_job_ends_cancelled_though_the_nbi_never_answers() {
    let policy = Policy::default();
    let mut nbi = Nbi::new(&[], &[]);
    nbi.is_down = true;
    let (waits, _) = deliver(Job::new(order()), cancelled(300), &policy, &nbi);
    assert!(matches!(waits.next, Next::Retry { .. }), "{:?}", waits.next);
    let (over, _) = deliver(waits.job, cancelled(2_200), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish cancelled/cancelled impact none rule not_created"
    );
}

#[test]
fn a_copy_does_not_take_the_version_for_one_from_before() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    let copy = || {
        let mut job = Job::new(order());
        job.order_mut().expected_version = Some("2.0".to_owned());
        job
    };
    let done = Nbi::new(&[success(180)], &[our_rule(false)]);
    let redelivered = Inputs {
        redelivered: true,
        ..inputs(300)
    };
    for inputs in [inputs(300), cancelled(300), redelivered] {
        let (over, calls) = deliver(copy(), inputs, &policy, &done);
        assert_eq!(
            verdict(&over),
            "Finish completed/already_done impact applied rule deactivated"
        );
        assert!(!calls.contains(&"read_version"), "{calls:?}");
    }
    // Nobody has reported, and the job shall end: what the device runs is no matter any more.
    let nothing = Nbi::new(&[], &[]);
    let (over, calls) = deliver(copy(), cancelled(300), &policy, &nothing);
    assert_eq!(
        verdict(&over),
        "Finish cancelled/cancelled impact none rule not_created"
    );
    assert!(!calls.contains(&"read_version"), "{calls:?}");
}

#[test]
fn a_copy_that_cannot_look_waits_for_the_nbi_and_never_says_that_nothing_happened() {
    let policy = Policy::default();
    let mut nbi = Nbi::new(&[], &[]);
    nbi.is_down = true;
    let mut twin = Job::new(order());
    twin.progress.may_have_twin = true;
    let (first, _) = deliver(twin, inputs(60), &policy, &nbi);
    let (later, _) = deliver(first.job, inputs(2_400), &policy, &nbi);
    assert!(matches!(later.next, Next::Retry { .. }), "{:?}", later.next);
    let (over, _) = deliver(later.job.clone(), inputs(3_700), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish failed/nbi_unavailable impact possible rule not_created"
    );
    // The NBI is back: what the other copy has done counts.
    nbi = Nbi::new(&[success(1_200)], &[our_rule(false)]);
    let (over, _) = deliver(later.job, inputs(3_700), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish completed/already_done impact applied rule deactivated"
    );
}

#[test]
fn a_copy_that_was_redelivered_once_takes_no_other_jobs_place_later() {
    let policy = Policy::default();
    let mut twin = job(Stage::CreateRule);
    twin.progress.may_have_twin = true;
    let nbi = Nbi::new(&[success(180)], &[other_rule(false)]);
    let (over, calls) = deliver(twin, inputs(300), &policy, &nbi);
    assert_eq!(
        verdict(&over),
        "Finish failed/superseded impact possible rule superseded"
    );
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
}

#[test]
fn a_request_that_is_sent_again_after_a_pause_knows_its_own_tag() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let resumed = Inputs {
        standing: Standing::Resumed {
            at: at(60),
            arm_again: None,
        },
        ..inputs(120)
    };
    let rule = |tag: &str| RuleRow {
        description: Some(tag.to_owned()),
        ..our_rule(false)
    };
    let arms = |job: &Job, tag| {
        let nbi = Nbi::new(&[], &[rule(tag)]);
        let (_, calls) = deliver(job.clone(), resumed, &policy, &nbi);
        calls.contains(&"update_rule")
    };
    let mut job = job(Stage::CreateRule);
    job.progress.started_at = Some(at(120));
    assert!(!arms(&job, "nbi-upgrade job job-1"));
    assert!(arms(&job, "what an operator wrote"));
    // It has put the rule away itself, before another try.
    job.progress.attempt = 2;
    assert!(arms(&job, "nbi-upgrade job job-1"));
}

#[test]
fn what_a_device_reports_after_the_order_leaves_the_job_cancelled() {
    let policy = Policy::default();
    let awaits = job(Stage::AwaitResult);
    let arrived = Job::new(order());
    // The order is of second 240.
    for (row, impact, before) in [
        (success as fn(i64) -> ResultRow, "applied", "completed"),
        (|seconds| faulted(seconds, 9010), "possible", "failed"),
    ] {
        let after = Nbi::new(&[row(300)], &[our_rule(false)]);
        let (over, _) = deliver(arrived.clone(), cancelled(400), &policy, &after);
        assert_eq!(finished(&over), ("cancelled", "cancelled", impact));
        // It came while the results were on their way.
        let answer = results(&[row(300)]);
        let over = decide(
            awaits.clone(),
            Step::ReadResults,
            answer,
            cancelled(400),
            &policy,
        );
        let exit = over.job.progress.exit.unwrap();
        assert!(
            matches!(&exit, Exit::End(ending) if ending.outcome == Outcome::Cancelled && ending.impact.name() == impact),
            "{exit:?}"
        );
        // What it had reported before is the outcome.
        let earlier = Nbi::new(&[row(200)], &[our_rule(false)]);
        let (over, _) = deliver(arrived.clone(), cancelled(400), &policy, &earlier);
        assert_eq!(finished(&over).0, before);
    }
}

#[test]
fn a_device_that_a_copy_may_have_upgraded_is_not_said_to_be_untouched() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    let current = Nbi::new(&[], &[]);
    for (redelivered, impact) in [(false, "none"), (true, "possible")] {
        let mut arrived = Job::new(order());
        arrived.order_mut().expected_version = Some("2.0".to_owned());
        let inputs = Inputs {
            redelivered,
            ..inputs(60)
        };
        let (over, _) = deliver(arrived, inputs, &policy, &current);
        assert_eq!(finished(&over), ("completed", "already_current", impact));
    }
}

#[test]
fn an_armed_rule_that_shows_no_file_is_not_written_over_by_the_job_that_may_have_armed_it() {
    let policy = Policy {
        tag_rules: true,
        ..Policy::default()
    };
    let without_file = |tag: Option<&str>| RuleRow {
        file: None,
        description: tag.map(str::to_owned),
        ..our_rule(true)
    };
    let writes = |rule: RuleRow, redelivered| {
        let nbi = Nbi::new(&[], &[rule]);
        let inputs = Inputs {
            redelivered,
            ..inputs(60)
        };
        let (_, calls) = deliver(job(Stage::CreateRule), inputs, &policy, &nbi);
        calls.contains(&"update_rule")
    };
    assert!(writes(without_file(None), false));
    assert!(!writes(without_file(None), true));
    assert!(!writes(without_file(Some("nbi-upgrade job job-1")), false));
    // What this job has put away itself, nobody of it has armed.
    let nbi = Nbi::new(&[], &[without_file(None)]);
    let mut further = job(Stage::CreateRule);
    further.progress.rule = RuleState::Deactivated;
    let (_, calls) = deliver(further.clone(), inputs(60), &policy, &nbi);
    assert!(calls.contains(&"update_rule"), "{calls:?}");
    // Unless it came to a further attempt: it may have been copied in the one before.
    further.progress.attempt = 2;
    let (_, calls) = deliver(further.clone(), inputs(60), &policy, &nbi);
    assert!(!calls.contains(&"update_rule"), "{calls:?}");
    // A pause disarms it where the answer to the write is lost.
    further.progress.rule = RuleState::Armed;
    let paused = Inputs {
        standing: Standing::Paused,
        ..inputs(60)
    };
    let (_, calls) = deliver(further, paused, &policy, &nbi);
    assert!(calls.contains(&"disarm_rule"), "{calls:?}");
}

#[test]
fn a_copy_that_looks_past_its_deadline_does_not_end_by_one_answer_that_nobody_understands() {
    let policy = Policy::default();
    let mut twin = Job::new(order());
    twin.progress.may_have_twin = true;
    let mut inputs = inputs(3_700);
    for count in 1..=policy.unintelligible_max {
        let looks = begin(twin, inputs, &policy);
        let Next::Step(step) = looks.next else {
            panic!("{:?}", looks.next)
        };
        let after = decide(looks.job, step, Err(unintelligible()), inputs, &policy);
        let is_over = !matches!(after.next, Next::Retry { .. });
        assert_eq!(is_over, count == policy.unintelligible_max, "{count}");
        twin = after.job;
        inputs.now += SignedDuration::from_secs(10);
    }
}

#[test]
fn waits_for_a_busy_device_go_on_growing() {
    let policy = Policy::default();
    let busy = Nbi::new(&[], &[other_rule(true)]);
    let mut job = Job::new(order());
    let mut waits = Vec::new();
    let mut now = 60;
    while waits.len() < 4 {
        let (decision, _) = deliver(job, inputs(now), &policy, &busy);
        if let Next::Wait { until } = decision.next {
            let wait = until.duration_since(at(now)).as_secs();
            waits.push(wait);
            now += wait;
        }
        job = decision.job;
    }
    assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
}
