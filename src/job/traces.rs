//! What the rule that stands, and a job's own records, tell of what this job or a copy of it has done. Questions alone: who asks decides.

use jiff::Timestamp;

use super::call::RuleRow;
use super::decision::Standing;
use super::outcome::RuleState;
use super::state::Stage;
use super::turn::Turn;

/// Whether a copy of this job may have armed the rule, and another job have taken the device since.
///
/// The baseline was read right before the hand-over to this stage, so only a delivery that comes again, or a job whose rule a pause had
/// disarmed, finds a new result here without having waited for another job. Whose it is nobody can tell.
#[must_use]
pub fn may_have_been_taken_over(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    (turn.inputs.redelivered || progress.may_have_twin || progress.rests_until.is_some())
        && !progress.waited_for_other
}

/// Whether this job's file, found disarmed, tells that an earlier write of it was done: nothing like it stood there before.
#[must_use]
pub fn has_stood(turn: &Turn<'_>) -> bool {
    turn.job.progress.rule == RuleState::Armed && !turn.job.progress.looked_alike
}

/// Whether the rule's tag says that a copy of this job has written it. No pause has disarmed it, and a copy that is done would have left a result:
/// the NBI has turned it off, as a device took it, or somebody has. A request that is sent again later is another matter: it is tried anew, so at
/// the first attempt it takes a delivery that came again, where this job has written none.
#[must_use]
pub fn is_a_copys(turn: &Turn<'_>, rules: &[RuleRow]) -> bool {
    let progress = &turn.job.progress;
    let put_away = progress
        .stages
        .iter()
        .find(|record| record.stage == Stage::DeactivateRule)
        .and_then(|record| record.finished_at);
    let begun = put_away.max(progress.started_at);
    let is_unpaused = match turn.inputs.standing {
        Standing::Clear => true,
        Standing::Resumed { at, .. } => begun.is_some_and(|begun| begun > at),
        Standing::Paused | Standing::Cancelled { .. } => false,
    };
    let is_further =
        progress.attempt > 1 && progress.rests_until.is_none() && turn.may_have_copies();
    let may_be = is_further
        || progress.attempt == 1
            && progress.may_have_twin
            && progress.rule == RuleState::NotCreated;
    is_unpaused
        && may_be
        && turn
            .last_attempt_of(rules)
            .is_some_and(|attempt| attempt >= progress.attempt)
}

/// Whether this job, or a copy of it, may have armed a rule of which nothing tells whose it is. What came to a further attempt, or rests after a
/// pause, may have been copied before.
#[must_use]
pub fn may_have_armed(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    progress.may_have_twin
        || progress.rule == RuleState::Armed
        || progress.attempt > 1
        || progress.rests_until.is_some()
}

/// When this job armed its rule, as its records say.
#[must_use]
pub fn armed_at(turn: &Turn<'_>) -> Option<Timestamp> {
    let records = &turn.job.progress.stages;
    let armed = records
        .iter()
        .find(|record| record.stage == Stage::CreateRule);
    armed?.finished_at
}

/// Until when a device may be at it for the same request, sent twice at about the same time, where the NBI turns a rule off as a device takes it:
/// the rule has this job's tag, and this job has not written it. Else it is what an earlier life of the job has left, and is armed then.
#[must_use]
pub fn may_be_under_way_until(turn: &Turn<'_>, rules: &[RuleRow]) -> Option<Timestamp> {
    let progress = &turn.job.progress;
    let records = &progress.stages;
    let looked = records
        .iter()
        .find(|record| record.stage == Stage::Preflight);
    let until = looked?
        .finished_at?
        .checked_add(turn.policy.flash_time)
        .ok()?;
    let may_be = progress.attempt == 1
        && progress.rule == RuleState::NotCreated
        && !progress.may_have_twin
        && turn.inputs.standing == Standing::Clear
        && rules.iter().any(|rule| turn.has_own_tag(rule))
        && turn.inputs.now < until;
    may_be.then_some(until)
}

/// Whether this job has disarmed its rule itself, after the device's success, to wait for the version.
#[must_use]
pub fn is_verified(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    let records = &progress.stages;
    progress.rule == RuleState::Deactivated
        && progress.rests_until.is_none()
        && records.iter().any(|record| record.stage == Stage::Verify)
}

/// Whether this job has written none of these rules, and nothing says that a copy of it has: it has only just read the results.
#[must_use]
pub fn never_began(turn: &Turn<'_>, rules: &[RuleRow]) -> bool {
    let progress = &turn.job.progress;
    let records = &progress.stages;
    progress.rule == RuleState::NotCreated
        && progress.attempt == 1
        && !progress.may_have_twin
        && !records
            .iter()
            .any(|record| record.stage == Stage::CreateRule)
        && !rules.iter().any(|rule| turn.has_own_tag(rule))
}

/// Whether a pause has put the rule away, and neither this job nor a copy of it can have armed it since.
#[must_use]
pub fn rests(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    progress.rule == RuleState::Deactivated
        && progress.rests_until.is_some()
        && !progress.may_have_twin
}
