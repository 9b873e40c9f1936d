//! A pause: what is armed is disarmed, and armed again only when the device has certainly not begun.
//!
//! Nobody can see a device that has taken the file and has not reported: neither rule nor results show it, and some devices never report. So a
//! rule that a pause disarmed stays so, with the results looked at until the deadline: a result counts as ever. Where the operator says that a
//! device without a result after `flash_time_max`, or after the time that the resume names, has not begun, the rule is armed again then, or spread over a while from then on, after the resume, by way of `create_rule` and all
//! its checks. A copy of the job that has not armed anything finds the disarmed rule there, and rests as well.

use jiff::{SignedDuration, Timestamp};

use super::call::{NbiAnswer, NbiFailure, RuleRow};
use super::decision::{ArmAgain, Decision, Standing};
use super::event::WaitingFor;
use super::machine::Step;
use super::outcome::RuleState;
use super::retry::Retries;
use super::stages::unexpected;
use super::state::{JobId, Stage};
use super::traces::armed_at;
use super::turn::{Owner, Turn};

/// Whether the rule is to be looked at: this job takes it for armed and is paused, or was, and a worker that died may have disarmed it without
/// having said so. Or a pause before this one has disarmed it, and a copy may have armed it again.
#[must_use]
pub fn concerns(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    let is_armed = progress.rule == RuleState::Armed;
    matches!(
        progress.stage,
        Stage::ConnectionRequest | Stage::AwaitResult
    ) && match turn.inputs.standing {
        Standing::Paused => is_armed || turn.may_be_armed_again(),
        Standing::Resumed { .. } => is_armed && turn.inputs.redelivered,
        Standing::Clear | Standing::Cancelled { .. } => false,
    }
}

/// Whether a rule may be armed although the stage that arms is not over: the delivery that this one repeats may have died right after it, or
/// the answer to the write is lost.
#[must_use]
pub fn may_be_armed_already(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    progress.stage == Stage::CreateRule
        && (progress.may_have_twin || progress.rule == RuleState::Armed)
}

/// Nothing of this job is armed, as far as it can tell: it comes back to look whether it may go on.
#[must_use]
pub fn wait_for_resume(mut turn: Turn<'_>) -> Decision {
    let polls = turn.job.progress.polls;
    let delay = turn.policy.busy_interval.delay(polls, turn.inputs.jitter);
    turn.job.progress.polls = polls.saturating_add(1);
    turn.job.progress.retries = Retries::default();
    turn.wait(delay, WaitingFor::Resume)
}

/// What failed while the job was paused costs it nothing after the resume.
pub fn forget_failures(turn: &mut Turn<'_>) {
    let Standing::Resumed { at, .. } = turn.inputs.standing else {
        return;
    };
    let since = turn.job.progress.retries.since;
    if since.is_some_and(|since| since < at) {
        turn.job.progress.retries = Retries::default();
    }
}

/// The rule that stands when a pause is noticed before this job has armed one for certain: what is armed with its file is disarmed, and the
/// job rests like one that armed it. So it does where the rule is found disarmed: a look before this one may have done that, and died, or had
/// no answer. What stands there otherwise is looked at after the resume.
fn on_rule_before_arming(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let progress = &turn.job.progress;
    let is_paused = turn.inputs.standing == Standing::Paused;
    let is_written = progress.rule == RuleState::Armed || progress.arming;
    let attempt = progress.attempt;
    let may_stand = match answer {
        Ok(NbiAnswer::Rules { rows, .. }) => match turn.owner_of_all(&rows) {
            Some(Owner::Ours) if rows.iter().any(RuleRow::is_armed) => {
                turn.job.progress.rule = RuleState::Armed;
                true
            }
            // It shows no file, and may be this job's.
            Some(Owner::Unknown)
                if rows.iter().any(RuleRow::is_armed) && (is_written || progress.may_have_twin) =>
            {
                turn.job.progress.rule = RuleState::Armed;
                true
            }
            // It was put away after an attempt before, and its tag says that nobody has armed it since.
            Some(Owner::Ours)
                if !is_written && turn.last_attempt_of(&rows).is_some_and(|of| of < attempt) =>
            {
                false
            }
            // What looked alike before the write may be the rule of a job before.
            Some(Owner::Ours | Owner::Unknown)
                if is_paused
                    && !rows.iter().any(RuleRow::is_armed)
                    && (progress.may_have_twin || !progress.looked_alike) =>
            {
                return rest_before_arming(turn);
            }
            Some(Owner::Ours | Owner::Other | Owner::Unknown) => false,
            None => is_written,
        },
        Ok(NbiAnswer::RulesUnreadable) => is_written,
        Ok(other) if is_paused => return look_again(turn, &unexpected(&other), is_written),
        Err(failure) if is_paused => return look_again(turn, &failure, is_written),
        Ok(_) | Err(_) => false,
    };
    match (is_paused, may_stand) {
        (true, true) => turn.step(Step::DisarmToPause),
        (true, false) => wait_for_resume(turn),
        // It has just been resumed.
        (false, _) => turn.step(Step::ReadResultsBeforeArming),
    }
}

/// What this job has armed, as far as anybody can tell, is disarmed before it could say so. That write may still be on its way: a rule that is
/// armed at the end is this job's.
fn rest_before_arming(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.rule = RuleState::Deactivated;
    turn.job.progress.may_have_twin = true;
    let now = turn.inputs.now;
    rest(turn, now)
}

/// A rule that cannot be looked at before this job has armed one for certain. What it has written is disarmed unseen once nobody can read it.
fn look_again(mut turn: Turn<'_>, failure: &NbiFailure, is_written: bool) -> Decision {
    if turn.count_failure(failure) && is_written {
        return turn.step(Step::DisarmToPause);
    }
    retry_or_wait(turn, failure)
}

/// Tried again soon where that may help, else with the next look.
fn retry_or_wait(turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    match failure {
        NbiFailure::Rejected { .. } => wait_for_resume(turn),
        NbiFailure::Unintelligible { .. }
        | NbiFailure::Transient { .. }
        | NbiFailure::Refused { .. }
        | NbiFailure::NotSent { .. } => turn.retry(failure),
    }
}

/// The rule that stands when a pause is noticed.
#[must_use]
pub fn on_rule(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    if turn.job.progress.stage == Stage::CreateRule {
        return on_rule_before_arming(turn, answer);
    }
    let rules = match answer {
        Ok(NbiAnswer::Rules { rows, .. }) => rows,
        // A copy would not have armed it unseen a second time.
        Ok(NbiAnswer::RulesUnreadable) if turn.job.progress.rule == RuleState::Deactivated => {
            return turn.step(Step::ReadResults);
        }
        Ok(NbiAnswer::RulesUnreadable) => return disarm_or_go_on(turn),
        Ok(other) => return fail_to_look(turn, &unexpected(&other)),
        Err(failure) => return fail_to_look(turn, &failure),
    };
    match turn.owner_of_all(&rules) {
        // Nothing of this job is armed; what became of it is found out as ever.
        Some(Owner::Other) => turn.step(Step::ReadResults),
        Some(Owner::Ours | Owner::Unknown) if rules.iter().any(RuleRow::is_armed) => {
            disarm_or_go_on(turn)
        }
        // Gone, or reads do not show it. Whether a copy has armed it again nobody can tell.
        None if turn.job.progress.rule == RuleState::Deactivated
            && turn.inputs.standing == Standing::Paused =>
        {
            turn.step(Step::DisarmToPause)
        }
        None => disarm_or_go_on(turn),
        Some(Owner::Ours | Owner::Unknown) => {
            // When, nobody says, unless this job has done it: after it was armed, and the device last woken for it.
            let progress = &turn.job.progress;
            let known = (progress.rule == RuleState::Deactivated)
                .then_some(progress.disarmed_at)
                .flatten();
            let woken = progress.connection_requested_at.max(armed_at(&turn));
            let since = known
                .or(woken)
                .or(progress.started_at)
                .unwrap_or(turn.inputs.now);
            turn.job.progress.rule = RuleState::Deactivated;
            rest(turn, since)
        }
    }
}

/// It is armed, as far as anybody can tell.
fn disarm_or_go_on(mut turn: Turn<'_>) -> Decision {
    // Where the disarming fails, the next look is at it again.
    turn.job.progress.rule = RuleState::Armed;
    if turn.inputs.standing == Standing::Paused {
        return turn.step(Step::DisarmToPause);
    }
    if turn.job.progress.stage == Stage::ConnectionRequest {
        turn.step(Step::SendConnectionRequest)
    } else {
        turn.step(Step::ReadResults)
    }
}

/// The answer to the write that disarms.
#[must_use]
pub fn on_disarmed(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let now = turn.inputs.now;
    let is_before_arming = turn.job.progress.stage == Stage::CreateRule;
    match answer {
        Ok(NbiAnswer::Done) if is_before_arming => rest_before_arming(turn),
        Ok(NbiAnswer::Done) => {
            turn.job.progress.rule = RuleState::Deactivated;
            // The resume that was given meanwhile speaks of this rule as well.
            let disarmed_at = match turn.inputs.standing {
                Standing::Resumed { at, .. } => now.min(at),
                Standing::Clear | Standing::Paused | Standing::Cancelled { .. } => now,
            };
            rest(turn, disarmed_at)
        }
        Ok(NbiAnswer::NoSuchRule) if is_before_arming => wait_for_resume(turn),
        // There is none, or writes do not find it yet: at rest, and not disarmed for certain.
        Ok(NbiAnswer::NoSuchRule) => rest(turn, now),
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// At rest: a device that was at it in this moment still counts.
fn rest(mut turn: Turn<'_>, disarmed_at: Timestamp) -> Decision {
    let until = rested_at(&turn, turn.inputs.now);
    turn.job.progress.rests_until = Some(until);
    turn.job.progress.disarmed_at = Some(disarmed_at);
    turn.job.progress.waited_for_other = false;
    if turn.job.progress.stage != Stage::AwaitResult {
        turn.enter(Stage::AwaitResult);
    }
    turn.step(Step::ReadResults)
}

/// There is no result: paused still, or not long enough to be certain, or the turn of `create_rule`.
#[must_use]
pub fn rest_or_arm_again(mut turn: Turn<'_>) -> Decision {
    let is_paused = turn.inputs.standing == Standing::Paused;
    let own = own_rest(&turn).unwrap_or(turn.inputs.now);
    let rests_until = vouched(&turn).map_or(own, |(at, arm_again)| {
        let until = later(at, arm_again.after).min(own);
        if arm_again.over.is_zero() {
            until
        } else {
            later(until.max(at), share(&turn.job.order.job_id, arm_again.over))
        }
    });
    if is_paused || turn.inputs.now < rests_until {
        let polls = turn.job.progress.polls;
        let delay = turn.policy.busy_interval.delay(polls, turn.inputs.jitter);
        turn.job.progress.polls = polls.saturating_add(1);
        let mut until = turn.later(delay);
        if !is_paused {
            until = until.min(rests_until);
        }
        return turn.wait_until(until, WaitingFor::Resume);
    }
    // Where rules cannot be read, only one of two copies may announce a new write.
    turn.job.progress.may_have_twin |= turn.inputs.redelivered;
    turn.job.progress.arming = false;
    turn.enter(Stage::CreateRule);
    turn.step(Step::ReadResultsBeforeArming)
}

/// Until when this job rests of itself. A copy may have armed the rule since, and another pause have disarmed it, so it counts from the last
/// resume at the earliest.
fn own_rest(turn: &Turn<'_>) -> Option<Timestamp> {
    let own = turn.job.progress.rests_until?;
    Some(match turn.inputs.standing {
        Standing::Resumed { at, .. } => own.max(rested_at(turn, at)),
        Standing::Clear | Standing::Paused | Standing::Cancelled { .. } => own,
    })
}

/// Until when a rule of this job that is found disarmed must not be armed: a copy may have armed it before a pause that has ended since.
#[must_use]
pub fn rests_until(turn: &Turn<'_>, rules: &[RuleRow]) -> Option<Timestamp> {
    let Standing::Resumed { at, .. } = turn.inputs.standing else {
        return None;
    };
    let progress = &turn.job.progress;
    // It has put its rule away itself, before another attempt, and no copy has armed it for that one: so its tag says, or else there has been no
    // pause since.
    let last_attempt = turn.last_attempt_of(rules);
    let put_away = progress
        .stages
        .iter()
        .find(|record| record.stage == Stage::DeactivateRule)
        .and_then(|record| record.finished_at);
    let is_put_away = progress.rule == RuleState::Deactivated;
    let is_unarmed = match last_attempt {
        // A request that is sent again finds what an earlier life of its job has put away.
        Some(attempt) => {
            attempt < progress.attempt && (is_put_away || progress.rule == RuleState::NotCreated)
        }
        None => is_put_away && !progress.may_have_twin && put_away.is_some_and(|time| time > at),
    };
    let is_own = progress.attempt > 1 && progress.rests_until.is_none() && is_unarmed;
    if is_own {
        return None;
    }
    // A job that came after the resume, and once, has no copy from before; unless its tag tells of one.
    let is_first = progress.attempt == 1 && progress.rule == RuleState::NotCreated;
    let tells_of_a_copy = is_first && rules.iter().any(|rule| turn.has_own_tag(rule));
    let is_newer = !progress.may_have_twin
        && !tells_of_a_copy
        && progress.started_at.is_some_and(|begun| begun > at);
    let has_rested = own_rest(turn).is_some_and(|until| until <= turn.inputs.now);
    let until = vouched(turn).map_or_else(
        || rested_at(turn, at),
        |(at, arm_again)| {
            let share = share(&turn.job.order.job_id, arm_again.over);
            later(later(at, arm_again.after), share)
        },
    );
    (turn.inputs.now < until && !has_rested && !is_newer).then_some(until)
}

/// The resume that says when to arm again, and what it says: it speaks of what was disarmed before it, by this job, or by a copy where this job
/// was there already. It stands for long, and must not arm what was put away for another reason since.
fn vouched(turn: &Turn<'_>) -> Option<(Timestamp, ArmAgain)> {
    let Standing::Resumed {
        at,
        arm_again: Some(arm_again),
    } = turn.inputs.standing
    else {
        return None;
    };
    let progress = &turn.job.progress;
    let is_spoken_of = progress
        .disarmed_at
        .or(progress.started_at)
        .is_some_and(|time| time <= at);
    is_spoken_of.then_some((at, arm_again))
}

/// This job's part of the spread, from nothing to all of it: the same in every worker of every version. A hash (FNV-1a) of its id.
pub(super) fn share(job_id: &JobId, over: SignedDuration) -> SignedDuration {
    let hash = job_id
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let parts = u64::try_from(over.as_millis()).unwrap_or(0) + 1;
    SignedDuration::from_millis(i64::try_from(hash % parts).unwrap_or(0))
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// When a device that took the file at this time, or before, has certainly reported.
fn rested_at(turn: &Turn<'_>, disarmed_at: Timestamp) -> Timestamp {
    let rest = turn.policy.flash_time_max;
    if rest.is_zero() {
        return Timestamp::MAX;
    }
    later(disarmed_at, rest)
}

/// A rule that cannot be looked at: disarmed unseen once nobody can read it.
fn fail_to_look(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    if !turn.count_failure(failure) {
        return turn.retry(failure);
    }
    if turn.job.progress.rule == RuleState::Deactivated
        && matches!(failure, NbiFailure::Rejected { .. })
    {
        // It may be another job's that stands there.
        return turn.step(Step::ReadResults);
    }
    disarm_or_go_on(turn)
}

/// A rule that cannot be disarmed stays as it is, and the device may begin: tried again at the next look.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    let is_used_up = turn.count_failure(failure);
    if turn.job.progress.stage == Stage::CreateRule {
        return retry_or_wait(turn, failure);
    }
    match failure {
        NbiFailure::Rejected { .. } | NbiFailure::Unintelligible { .. } if is_used_up => {
            turn.step(Step::ReadResults)
        }
        NbiFailure::Rejected { .. }
        | NbiFailure::Unintelligible { .. }
        | NbiFailure::Transient { .. }
        | NbiFailure::Refused { .. }
        | NbiFailure::NotSent { .. } => turn.retry(failure),
    }
}
