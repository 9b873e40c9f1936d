//! `create_rule`: the rule stands, and is not armed twice.
//!
//! Before any write, results and rule are read, and where a rule stands already the results once more: what has run for this job is not armed again, what another job holds is not taken
//! (unless the operator wants it), and what stands already is left alone. After the write the rule is read again, as another worker may
//! have written in the same moment and the last write wins.
//!
//! Where rules cannot be read, the one write that arms is announced durably first and then done at most once: a delivery that comes
//! a second time finds the announcement and goes on as if it had been done. Rather a job that times out than a device upgraded twice.

use jiff::{SignedDuration, Timestamp};

use super::super::call::{NbiAnswer, NbiFailure, ResultRow, RuleRow};
use super::super::decision::Decision;
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Impact, Outcome, Reason, RuleState};
use super::super::pause;
use super::super::policy::OnBusy;
use super::super::state::{Cleanup, Stage, elapsed};
use super::super::traces::{
    has_stood, is_a_copys, may_be_under_way_until, may_have_armed, may_have_been_taken_over,
};
use super::super::turn::{Owner, Turn};
use super::unexpected;

/// The results: whether it has run for this job already.
#[must_use]
pub fn on_results(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    match answer {
        Ok(NbiAnswer::Results { rows, .. }) => {
            turn.step(Step::ReadRuleBeforeArming { rows, again: false })
        }
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// The rule that stands before anything is written.
#[must_use]
pub fn on_rule(
    mut turn: Turn<'_>,
    rows: &[ResultRow],
    again: bool,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    let newest = turn.newest_fresh(rows);
    if newest
        .as_ref()
        .is_some_and(|(row, _)| turn.is_tagged_as_ours(row))
    {
        // It has run for this job, whatever stands there now.
        return stands(turn);
    }
    let has_run = newest.is_some();
    let rules = match answer {
        Ok(NbiAnswer::Rules { rows: rules, .. }) => rules,
        Ok(NbiAnswer::RulesUnreadable) if has_run => return stands(turn),
        Ok(NbiAnswer::RulesUnreadable) => return arm_unseen(turn),
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    let owner = turn.owner_of_all(&rules);
    let is_armed = rules.iter().any(RuleRow::is_armed);
    if owner == Some(Owner::Ours) && is_armed {
        turn.catch_up(turn.last_attempt_of(&rules));
    }
    match (owner, is_armed, has_run) {
        (Some(Owner::Ours), true, _)
        | (Some(Owner::Ours | Owner::Unknown), false, true)
        | (Some(Owner::Unknown), true, true) => stands(turn),
        // Cannot be: no rule is no armed rule.
        (None, true, _) => stands(turn),
        (None, false, true) if turn.job.may_have_run_unseen() => stands(turn),
        (Some(Owner::Other), _, true) | (None, false, true) if may_have_been_taken_over(&turn) => {
            taken_over(turn)
        }
        (Some(Owner::Other), true, _) => busy(turn, rows, again),
        // The result is another job's, which ended in this moment: it is taken into the baseline before arming.
        (Some(Owner::Other) | None, false, true) => begin_anew(turn, rows),
        // A rule that shows no file, which a copy, or a write before, may have armed: rather a job that waits than a device upgraded twice.
        (Some(Owner::Unknown), true, false) if may_have_armed(&turn) => stands(turn),
        // What was written and accepted has been turned off: by an NBI that does so when a device takes it, or by a copy.
        (Some(Owner::Ours | Owner::Unknown), false, false) if has_stood(&turn) => stands(turn),
        (Some(Owner::Ours | Owner::Unknown), false, false)
            if let Some(until) = pause::rests_until(&turn, &rules) =>
        {
            turn.job.progress.looked_alike = true;
            look_later(turn, until, WaitingFor::Resume)
        }
        (Some(Owner::Ours | Owner::Unknown), false, false) if is_a_copys(&turn, &rules) => {
            turn.catch_up(turn.last_attempt_of(&rules));
            stands(turn)
        }
        (Some(Owner::Ours), false, false)
            if let Some(until) = may_be_under_way_until(&turn, &rules) =>
        {
            look_later(turn, until, WaitingFor::Result)
        }
        (Some(owner), false, false) | (Some(owner @ Owner::Unknown), true, false) => {
            turn.job.progress.looked_alike |= owner != Owner::Other;
            look_before_writing(turn, true, again)
        }
        (None, false, false) if turn.job.order.cleanup == Cleanup::Delete => {
            look_before_writing(turn, false, again)
        }
        // A copy that was done would have left the rule here.
        (None, false, false) => turn.step(Step::CreateRule { readable: true }),
    }
}

/// Rests until then, with a look now and then: results, cancellations and resumes may come meanwhile.
fn look_later(mut turn: Turn<'_>, until: Timestamp, waiting_for: WaitingFor) -> Decision {
    let polls = turn.job.progress.polls;
    let delay = turn.policy.busy_interval.delay(polls, turn.inputs.jitter);
    turn.job.progress.polls = polls.saturating_add(1);
    let until = turn.later(delay).min(until);
    turn.wait_until(until, waiting_for)
}

fn look_before_writing(turn: Turn<'_>, exists: bool, again: bool) -> Decision {
    let seen_at = turn.inputs.now;
    turn.step(Step::ReadResultsBeforeWriting {
        exists,
        seen_at,
        again,
    })
}

/// How long what a read of the rule has shown may be acted on, where it can be read again.
const RULE_HOLDS: SignedDuration = SignedDuration::from_secs(2);

/// The results once more, right before the write: while the rule was read, a copy of this job may have seen the device's result and
/// put the rule away, and what looks like an old rule is this job's, done. Where that took long, a copy may have armed the rule and the device
/// have begun: it is read again, once, as an NBI may always be slow.
#[must_use]
pub fn on_results_again(
    turn: Turn<'_>,
    exists: bool,
    seen_at: Timestamp,
    again: bool,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    match answer {
        Ok(NbiAnswer::Results { rows, .. }) if turn.newest_fresh(&rows).is_some() => {
            turn.step(Step::ReadRuleBeforeArming { rows, again })
        }
        Ok(NbiAnswer::Results { rows, .. })
            if !again && elapsed(seen_at, turn.inputs.now) >= RULE_HOLDS =>
        {
            turn.step(Step::ReadRuleBeforeArming { rows, again: true })
        }
        Ok(NbiAnswer::Results { .. }) if exists => turn.step(Step::UpdateRule { readable: true }),
        Ok(NbiAnswer::Results { .. }) => turn.step(Step::CreateRule { readable: true }),
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// The answer to POST.
#[must_use]
pub fn on_created(
    turn: Turn<'_>,
    readable: bool,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    match answer {
        Ok(NbiAnswer::Done) => written(turn, readable),
        // Taken since it was read, or never readable: look again, or write it in full.
        Ok(NbiAnswer::RuleExists) if readable => turn.step(Step::ReadRuleThatExists),
        Ok(NbiAnswer::RuleExists) => turn.step(Step::UpdateRule { readable }),
        Ok(other) => not_written(turn, readable, &unexpected(&other)),
        Err(failure) => not_written(turn, readable, &failure),
    }
}

/// The rule whose id POST found taken. Where even now no read shows it, none will; where an earlier POST of this job got no answer, it is
/// that one's, and writing it in full would arm it twice.
#[must_use]
pub fn on_rule_that_exists(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    match answer {
        Ok(NbiAnswer::Rules { rows, .. }) if !rows.is_empty() => {
            turn.step(Step::ReadResultsBeforeArming)
        }
        Ok(NbiAnswer::Rules { .. } | NbiAnswer::RulesUnreadable)
            if turn.job.progress.rule == RuleState::Armed =>
        {
            stands(turn)
        }
        Ok(NbiAnswer::Rules { .. } | NbiAnswer::RulesUnreadable) => arm_unseen(turn),
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// The answer to the full PUT.
#[must_use]
pub fn on_updated(
    turn: Turn<'_>,
    readable: bool,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    match answer {
        Ok(NbiAnswer::Done) => written(turn, readable),
        // Deleted since it was read.
        Ok(NbiAnswer::NoSuchRule) if readable => turn.step(Step::CreateRule { readable }),
        Ok(other) => not_written(turn, readable, &unexpected(&other)),
        Err(failure) => not_written(turn, readable, &failure),
    }
}

/// The rule that stands after it was written.
#[must_use]
pub fn on_rule_after_arming(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let rules = match answer {
        Ok(NbiAnswer::Rules { rows, .. }) => rows,
        Ok(NbiAnswer::RulesUnreadable) => return stands(turn),
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    match turn.owner_of_all(&rules) {
        // The write was accepted, and the rule is not to be seen (a storage that lags, or a filter of another name), or is off (a device
        // has taken it, or a copy put it away): the answer to the write counts, as a second write could arm it twice.
        Some(Owner::Ours | Owner::Unknown) | None => stands(turn),
        Some(Owner::Other) => overwritten(turn),
    }
}

/// Another job wrote in the same moment; the last write wins.
fn overwritten(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.rule = RuleState::Superseded;
    match turn.policy.on_busy {
        OnBusy::Wait => busy(turn, &[], false),
        OnBusy::Supersede | OnBusy::Fail => {
            let message = "another job wrote the rule in the same moment";
            let ending = turn.ending(
                Outcome::Failed,
                Reason::Superseded,
                Impact::Possible,
                message,
            );
            turn.end(ending)
        }
    }
}

/// What the device has reported is another job's: it is known, durably, before anything is written.
fn begin_anew(mut turn: Turn<'_>, rows: &[ResultRow]) -> Decision {
    turn.remember(rows);
    turn.enter(Stage::Preflight);
    turn.advance()
}

/// What the device reported may be the work of a copy of this job: rather a job that fails than a device upgraded twice.
fn taken_over(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.rule = RuleState::Superseded;
    let message = "another job has the device, and a copy of this job may have upgraded it before";
    let ending = turn.ending(
        Outcome::Failed,
        Reason::Superseded,
        Impact::Possible,
        message,
    );
    turn.end(ending)
}

/// Another job holds the device.
fn busy(mut turn: Turn<'_>, rows: &[ResultRow], again: bool) -> Decision {
    match turn.policy.on_busy {
        OnBusy::Supersede if turn.newest_fresh(rows).is_some() => begin_anew(turn, rows),
        OnBusy::Supersede => look_before_writing(turn, true, again),
        OnBusy::Fail => {
            let message = "another job holds the device and `job.on_busy` is `fail`";
            let ending = turn.ending(
                Outcome::Failed,
                Reason::DeviceBusy,
                Impact::Possible,
                message,
            );
            turn.end(ending)
        }
        OnBusy::Wait => {
            // What the device has reported by now is not this job's; the baseline is taken anew when the device is free.
            turn.remember(rows);
            turn.job.progress.waited_for_other = true;
            let polls = turn.job.progress.polls;
            let delay = turn.policy.busy_interval.delay(polls, turn.inputs.jitter);
            turn.enter(Stage::Preflight);
            turn.job.progress.polls = polls.saturating_add(1);
            turn.wait(delay, WaitingFor::OtherJob)
        }
    }
}

/// Rules cannot be read: announce the write, then do it once.
fn arm_unseen(mut turn: Turn<'_>) -> Decision {
    let is_announced = turn.job.progress.arming;
    let may_have_been_done =
        is_announced && turn.inputs.redelivered || turn.job.progress.may_have_twin;
    turn.job.progress.arming = true;
    if may_have_been_done {
        return stands(turn);
    }
    if is_announced {
        turn.step(Step::CreateRule { readable: false })
    } else {
        turn.advance()
    }
}

/// The write was accepted.
fn written(mut turn: Turn<'_>, readable: bool) -> Decision {
    turn.job.progress.rule = RuleState::Armed;
    if readable {
        turn.step(Step::ReadRuleAfterArming)
    } else {
        stands(turn)
    }
}

/// The write was not accepted, or its answer is lost.
fn not_written(mut turn: Turn<'_>, readable: bool, failure: &NbiFailure) -> Decision {
    let may_have_had_effect = match failure {
        NbiFailure::Transient { no_effect, .. } => !no_effect,
        NbiFailure::Unintelligible { .. } => true,
        NbiFailure::Rejected { .. } | NbiFailure::Refused { .. } | NbiFailure::NotSent { .. } => {
            false
        }
    };
    if may_have_had_effect {
        turn.job.progress.rule = RuleState::Armed;
        if !readable {
            return stands(turn);
        }
    }
    fail(turn, failure)
}

/// The rule stands, or may: go on.
fn stands(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.rule = RuleState::Armed;
    turn.job.progress.waited_for_other = false;
    turn.job.progress.rests_until = None;
    turn.job.progress.disarmed_at = None;
    turn.enter(Stage::ConnectionRequest);
    turn.step(Step::SendConnectionRequest)
}

fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    if turn.count_failure(failure) {
        let ending = turn.nbi_ending(failure);
        return turn.give_up(ending);
    }
    turn.retry(failure)
}
