//! `verify`: the version read back. A success without fault does not prove that the new version runs: known device stacks store
//! the report before flashing and never compare (documented in their source).
//!
//! So the device may still be flashing or booting: what it says is believed at once only where it is the expected version. Anything else is
//! looked at again for about as long as a device takes, with the rule disarmed, as an armed one could be run a second time meanwhile.

use jiff::Timestamp;

use super::super::call::{NbiAnswer, NbiFailure, RuleRow};
use super::super::decision::Decision;
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use super::super::state::{Cleanup, Exit, Stage};
use super::super::turn::{Owner, Turn};
use super::unexpected;

/// The version that the device reports after the upgrade; compared as a string, as the data models only recommend numbers.
#[must_use]
pub fn on_version(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let Some(Exit::End(success)) = turn.job.progress.exit.clone() else {
        // Only a success leads here; without one there is nothing to verify.
        return turn.step(Step::ReadResults);
    };
    let failure = match answer {
        Ok(NbiAnswer::Version(version)) if is_expected(&turn, &version) => {
            return put_away(turn, success);
        }
        Ok(NbiAnswer::Version(version)) => {
            if turn.inputs.now < waits_until(&turn) {
                return not_yet(turn, None);
            }
            let ending = mismatch(&turn, success, &version);
            return put_away(turn, ending);
        }
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    };
    let is_used_up = turn.count_failure(&failure);
    let is_over = match &failure {
        // An NBI that cannot reach the device may say so in a way that looks final.
        NbiFailure::Rejected { .. } | NbiFailure::Unintelligible { .. } => {
            turn.inputs.now >= waits_until(&turn)
        }
        NbiFailure::Transient { .. } | NbiFailure::Refused { .. } | NbiFailure::NotSent { .. } => {
            is_used_up || turn.is_past_deadline()
        }
    };
    if !is_over {
        return not_yet(turn, Some(&failure));
    }
    let message =
        format!("the device reported success, but its version could not be read: {failure}");
    let ending = Ending {
        message,
        outcome: Outcome::Failed,
        impact: Impact::Applied,
        result: success.result,
        ..turn.nbi_ending(&failure)
    };
    put_away(turn, ending)
}

fn mismatch(turn: &Turn<'_>, success: Ending, version: &str) -> Ending {
    let expected = turn.job.order.expected_version.as_deref();
    let message = format!(
        "the device reported success and runs {version:?}, expected was {:?}",
        expected.unwrap_or_default()
    );
    Ending {
        result: success.result,
        ..turn.ending(
            Outcome::Failed,
            Reason::VersionMismatch,
            Impact::Unknown,
            message,
        )
    }
}

/// Whether it is the version that the request expects; blanks around either say nothing.
#[must_use]
pub fn is_expected(turn: &Turn<'_>, version: &str) -> bool {
    let expected = turn.job.order.expected_version.as_deref();
    expected.is_some_and(|expected| expected.trim() == version.trim())
}

/// Until when another answer than the expected version is no answer: about as long as a device takes, and not past the deadline.
fn waits_until(turn: &Turn<'_>) -> Timestamp {
    let deadline = turn.job.order.deadline;
    let records = &turn.job.progress.stages;
    let begun_at = records.iter().find(|record| record.stage == Stage::Verify);
    let begun_at = begun_at.map_or(turn.inputs.now, |record| record.started_at);
    let usual = turn.policy.flash_time;
    if usual.is_zero() {
        return deadline;
    }
    begun_at
        .checked_add(usual)
        .unwrap_or(deadline)
        .min(deadline)
}

/// The rule is not left armed while the version is waited for.
fn not_yet(turn: Turn<'_>, failure: Option<&NbiFailure>) -> Decision {
    let may_be_armed = turn.job.progress.rule == RuleState::Armed || turn.may_be_armed_again();
    let may_be_armed = may_be_armed && turn.job.order.cleanup != Cleanup::Keep;
    match failure {
        _ if may_be_armed => turn.step(Step::ReadRuleToVerify),
        Some(failure @ NbiFailure::Transient { .. }) => turn.retry(failure),
        Some(_) | None => look_again(turn),
    }
}

/// The rule that stands while the version is waited for.
#[must_use]
pub fn on_rule(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let rules = match answer {
        Ok(NbiAnswer::Rules { rows, .. }) => rows,
        Ok(NbiAnswer::RulesUnreadable) => return turn.step(Step::DisarmToVerify),
        // It is put away at the end in any case.
        Ok(_) | Err(_) => return look_again(turn),
    };
    match turn.owner_of_all(&rules) {
        Some(Owner::Ours | Owner::Unknown) if rules.iter().any(RuleRow::is_armed) => {
            return turn.step(Step::DisarmToVerify);
        }
        // Gone, or reads do not show it.
        None => return turn.step(Step::DisarmToVerify),
        Some(Owner::Ours | Owner::Unknown) => turn.job.progress.rule = RuleState::Deactivated,
        Some(Owner::Other) => {}
    }
    look_again(turn)
}

/// The answer to the write that disarms it.
#[must_use]
pub fn on_disarmed(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    match answer {
        Ok(NbiAnswer::Done) => turn.job.progress.rule = RuleState::Deactivated,
        Ok(NbiAnswer::NoSuchRule) => turn.job.progress.rule = RuleState::Deleted,
        Ok(_) | Err(_) => {}
    }
    look_again(turn)
}

fn look_again(mut turn: Turn<'_>) -> Decision {
    let polls = turn.job.progress.polls;
    let delay = turn.policy.await_result.delay(polls, turn.inputs.jitter);
    turn.job.progress.polls = polls.saturating_add(1);
    let limit = waits_until(&turn);
    let mut until = turn.later(delay);
    if limit > turn.inputs.now {
        until = until.min(limit);
    }
    turn.wait_until(until, WaitingFor::Version)
}

fn put_away(mut turn: Turn<'_>, ending: Ending) -> Decision {
    let is_put_away = match turn.job.progress.rule {
        // It was disarmed for the time of waiting, or by a pause.
        RuleState::Deactivated => {
            turn.job.order.cleanup != Cleanup::Delete && !turn.may_be_armed_again()
        }
        RuleState::Deleted | RuleState::Kept | RuleState::CleanupFailed | RuleState::Superseded => {
            true
        }
        RuleState::NotCreated | RuleState::Armed => false,
    };
    turn.job.progress.exit = Some(Exit::End(ending.clone()));
    turn.enter(Stage::DeactivateRule);
    if is_put_away {
        turn.finish(ending)
    } else {
        turn.step(Step::ReadRuleBeforeDisarming)
    }
}
