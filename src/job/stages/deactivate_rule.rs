//! `deactivate_rule`: no armed rule is left behind, and another job's is spared.
//!
//! An enabled rule left behind can be fired later by any operator's campaign (documented in the vendor's scenario guide), so this is
//! safety, not tidiness. At the deadline the rule is disarmed first and the results are read once more: a device that finished in that
//! moment counts. TR-069 gives no guarantee that disarming stops a transfer under way.

use super::super::call::{NbiAnswer, NbiFailure, ResultRow, RuleRow};
use super::super::decision::{Decision, Standing};
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use super::super::state::{Cleanup, Exit, Stage};
use super::super::turn::{Owner, Turn, Verdict};
use super::{await_result, unexpected};

/// The rule that stands before it is put away.
#[must_use]
pub fn on_rule(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let (rules, filter_ignored) = match answer {
        Ok(NbiAnswer::Rules {
            rows,
            filter_ignored,
        }) => (rows, filter_ignored),
        Ok(NbiAnswer::RulesUnreadable) => return on_unreadable(turn),
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    match turn.owner_of_all(&rules) {
        None => {
            if turn.job.progress.rule == RuleState::Armed {
                turn.job.progress.rule = RuleState::Deleted;
            }
            put_away(turn)
        }
        Some(Owner::Other) => not_ours(turn),
        Some(Owner::Ours | Owner::Unknown) => {
            let is_armed = rules.iter().any(RuleRow::is_armed);
            if is_cancelled(&turn) && turn.job.progress.rule == RuleState::NotCreated {
                // This job's file stands there: a copy may have armed it, and `impact` must not say that nothing can have happened.
                turn.job.progress.rule = RuleState::Armed;
            }
            write(turn, is_armed, filter_ignored)
        }
    }
}

/// The answer to the write that puts the rule away.
#[must_use]
pub fn on_disarmed(
    mut turn: Turn<'_>,
    state: RuleState,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    match answer {
        Ok(NbiAnswer::Done) => {
            turn.job.progress.rule = state;
            put_away(turn)
        }
        // Under which name the NBI filters may not be known, and a DELETE is never tried under a guessed one: a disarm is.
        Ok(NbiAnswer::NoSuchRule) if state == RuleState::Deleted => turn.step(Step::DisarmRule),
        Ok(NbiAnswer::NoSuchRule) => {
            turn.job.progress.rule = RuleState::Deleted;
            put_away(turn)
        }
        Ok(other) => fail(turn, &unexpected(&other)),
        Err(failure) => fail(turn, &failure),
    }
}

/// The last look after the deadline.
#[must_use]
pub fn on_results_once_more(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let Some(Exit::End(mut ending)) = turn.job.progress.exit.clone() else {
        return turn.step(Step::ReadRuleBeforeDisarming);
    };
    let failure = match answer {
        Ok(NbiAnswer::Results { rows, .. }) => {
            return match turn.newest_fresh(&rows) {
                Some((row, verdict)) if is_cancelled_before(&turn, &ending, &row) => {
                    ending.impact = if verdict == Verdict::Success {
                        Impact::Applied
                    } else {
                        Impact::Possible
                    };
                    ending.result = Some(row);
                    turn.finish(ending)
                }
                Some((row, Verdict::Success)) => await_result::succeeded_after_disarming(turn, row),
                Some((row, Verdict::Faulted(fault))) => {
                    let ending = await_result::fault_ending(&turn, fault, Some(row));
                    turn.finish(ending)
                }
                None => turn.finish(ending),
            };
        }
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    };
    if turn.count_failure(&failure) {
        turn.finish(ending)
    } else {
        turn.retry(&failure)
    }
}

/// Whether the device reported only after the job was cancelled: then that is part of what the cancelled job has done. What it had
/// reported before is the outcome, so that copies of the job that looked before and after the order say the same.
fn is_cancelled_before(turn: &Turn<'_>, ending: &Ending, row: &ResultRow) -> bool {
    let ordered_at = match turn.inputs.standing {
        Standing::Cancelled { at } => at,
        Standing::Clear | Standing::Paused | Standing::Resumed { .. } => ending.decided_at,
    };
    ending.outcome == Outcome::Cancelled && row.ts > ordered_at.as_second()
}

/// Another job's rule stands there: it is not touched, and what the device reported may be that one's.
fn not_ours(mut turn: Turn<'_>) -> Decision {
    if turn.job.progress.rule != RuleState::Armed {
        return put_away(turn);
    }
    turn.job.progress.rule = RuleState::Superseded;
    let exit = turn.job.progress.exit.clone();
    let result = match exit {
        Some(Exit::End(Ending {
            outcome: Outcome::Cancelled,
            ..
        })) => return put_away(turn),
        // The result itself says that this job's rule caused it.
        Some(Exit::End(Ending {
            result: Some(row), ..
        })) if turn.is_tagged_as_ours(&row) => return put_away(turn),
        Some(Exit::End(ending)) => ending.result,
        Some(Exit::TryAgain(_)) | None => None,
    };
    let message = "another job took the rule over";
    let ending = Ending {
        result,
        ..turn.ending(
            Outcome::Failed,
            Reason::Superseded,
            Impact::Possible,
            message,
        )
    };
    turn.job.progress.exit = Some(Exit::End(ending));
    put_away(turn)
}

/// Rules cannot be read: disarm whatever this job may have armed.
fn on_unreadable(turn: Turn<'_>) -> Decision {
    let may_be_armed = turn.job.progress.rule == RuleState::Armed || turn.job.progress.arming;
    write(turn, may_be_armed, false)
}

/// Disarms, deletes or keeps. A rule that this job never armed and that is not armed is none of its business.
fn write(mut turn: Turn<'_>, is_armed: bool, filter_ignored: bool) -> Decision {
    let is_concerned =
        is_armed || turn.job.progress.rule != RuleState::NotCreated || is_done_by_a_copy(&turn);
    if !is_concerned {
        return put_away(turn);
    }
    let tries_again = matches!(turn.job.progress.exit, Some(Exit::TryAgain(_)));
    match turn.job.order.cleanup {
        Cleanup::Keep if !tries_again => {
            turn.job.progress.rule = RuleState::Kept;
            put_away(turn)
        }
        // A DELETE whose filter is ignored could hit every rule of the storage: disarm instead.
        Cleanup::Delete if !tries_again && !filter_ignored => turn.step(Step::DeleteRule),
        Cleanup::Deactivate | Cleanup::Delete | Cleanup::Keep if is_armed => {
            turn.step(Step::DisarmRule)
        }
        Cleanup::Deactivate | Cleanup::Delete | Cleanup::Keep => {
            turn.job.progress.rule = RuleState::Deactivated;
            put_away(turn)
        }
    }
}

fn is_cancelled(turn: &Turn<'_>) -> bool {
    matches!(&turn.job.progress.exit, Some(Exit::End(ending)) if ending.outcome == Outcome::Cancelled)
}

fn is_done_by_a_copy(turn: &Turn<'_>) -> bool {
    matches!(&turn.job.progress.exit, Some(Exit::End(ending)) if ending.reason == Reason::AlreadyDone)
}

/// The rule is out of the way: finish, look once more, or let the device try again.
fn put_away(mut turn: Turn<'_>) -> Decision {
    match turn.job.progress.exit.clone() {
        Some(Exit::End(ending)) => {
            // Of a cancelled job another copy may have armed the rule, whatever this one knows.
            let looks_once_more = ending.result.is_none()
                && (ending.reason == Reason::Cancelled
                    || ending.reason == Reason::TimedOut && turn.may_have_touched_the_device());
            if looks_once_more {
                turn.step(Step::ReadResultsOnceMore)
            } else {
                turn.finish(ending)
            }
        }
        Some(Exit::TryAgain(_)) => {
            let attempt = turn.job.progress.attempt;
            let pause = turn
                .policy
                .attempt_pause
                .delay(attempt - 1, turn.inputs.jitter);
            turn.enter(Stage::Preflight);
            turn.job.progress.exit = None;
            turn.job.progress.arming = false;
            turn.job.progress.attempt = attempt.saturating_add(1);
            turn.wait(pause, WaitingFor::NextAttempt)
        }
        // Only an exit leads here.
        None => turn.step(Step::ReadResults),
    }
}

/// The rule could not be put away: after the retries are used up the job ends all the same, and says so.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    if !turn.count_failure(failure) {
        return turn.retry(failure);
    }
    if turn.may_have_touched_the_device() {
        turn.job.progress.rule = RuleState::CleanupFailed;
    }
    // A device whose rule cannot be disarmed must not be given another try.
    if let Some(Exit::TryAgain(fault)) = turn.job.progress.exit.clone() {
        let ending = await_result::fault_ending(&turn, fault, None);
        turn.job.progress.exit = Some(Exit::End(ending));
    }
    put_away(turn)
}
