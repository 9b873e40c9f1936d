//! A pause: what is armed is disarmed, and armed again only when the device has certainly not begun.
//!
//! Nobody can see a device that has taken the file and has not reported: neither rule nor results show it. So a rule that a pause
//! disarmed rests for [`Policy::flash_time_max`](super::Policy) after it was disarmed, with the results looked at all the while: a result
//! counts as ever, and without one the rule is armed again after the resume, by way of `create_rule` and all its checks. A copy of the job that
//! has not armed anything finds the disarmed rule there, and rests as long after the resume.

use jiff::Timestamp;

use super::call::{NbiAnswer, NbiFailure, RuleRow};
use super::decision::{Decision, Standing};
use super::event::WaitingFor;
use super::machine::Step;
use super::outcome::RuleState;
use super::stages::unexpected;
use super::state::Stage;
use super::turn::{Owner, Turn};

/// Whether a device may begin because of this job's rule.
#[must_use]
pub fn is_armed(turn: &Turn<'_>) -> bool {
    let stage = turn.job.progress.stage;
    matches!(stage, Stage::ConnectionRequest | Stage::AwaitResult)
        && turn.job.progress.rule == RuleState::Armed
}

/// The rule that stands when a pause is noticed.
#[must_use]
pub fn on_rule(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let rules = match answer {
        Ok(NbiAnswer::Rules { rows, .. }) => rows,
        Ok(NbiAnswer::RulesUnreadable) => return turn.step(Step::DisarmToPause),
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    match turn.owner_of_all(&rules) {
        // Nothing of this job is armed; what became of it is found out as ever.
        Some(Owner::Other) => turn.step(Step::ReadResults),
        Some(Owner::Ours | Owner::Unknown) if rules.iter().any(RuleRow::is_armed) => {
            turn.step(Step::DisarmToPause)
        }
        Some(Owner::Ours | Owner::Unknown) | None => rest(turn),
    }
}

/// The answer to the write that disarms.
#[must_use]
pub fn on_disarmed(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    match answer {
        Ok(NbiAnswer::Done | NbiAnswer::NoSuchRule) => rest(turn),
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// Disarmed: a device that was at it in this moment still counts.
fn rest(mut turn: Turn<'_>) -> Decision {
    let until = turn
        .inputs
        .now
        .checked_add(turn.policy.flash_time_max)
        .unwrap_or(Timestamp::MAX);
    turn.job.progress.rule = RuleState::Deactivated;
    turn.job.progress.rests_until = Some(until);
    if turn.job.progress.stage != Stage::AwaitResult {
        turn.enter(Stage::AwaitResult);
    }
    turn.step(Step::ReadResults)
}

/// There is no result: paused still, or not long enough to be certain, or the turn of `create_rule`.
#[must_use]
pub fn rest_or_arm_again(mut turn: Turn<'_>) -> Decision {
    let is_paused = turn.inputs.standing == Standing::Paused;
    let rests_until = turn.job.progress.rests_until.unwrap_or(turn.inputs.now);
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

/// Until when a rule of this job that is found disarmed must not be armed: a copy may have armed it before a pause that has ended since.
#[must_use]
pub fn rests_until(turn: &Turn<'_>) -> Option<Timestamp> {
    let Standing::Resumed { at } = turn.inputs.standing else {
        return None;
    };
    let own = turn.job.progress.rests_until;
    let has_rested = own.is_some_and(|until| until <= turn.inputs.now);
    let until = at.checked_add(turn.policy.flash_time_max).ok()?;
    (turn.inputs.now < until && !has_rested).then_some(until)
}

/// A rule that cannot be disarmed stays as it is, and the device may begin: tried again at the next look.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    let is_used_up = turn.count_failure(failure);
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
