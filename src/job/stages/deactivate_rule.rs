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
use super::super::policy::OnBusy;
use super::super::state::{Cleanup, Exit, Stage};
use super::super::traces::{is_verified, never_began, rests};
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
        Ok(NbiAnswer::RulesUnreadable) => return on_unseen(turn),
        Ok(other) => return fail_to_read(turn, &unexpected(&other)),
        Err(failure) => return fail_to_read(turn, &failure),
    };
    let is_armed = rules.iter().any(RuleRow::is_armed);
    match turn.owner_of_all(&rules) {
        None => on_unseen(turn),
        Some(Owner::Other) => not_ours(turn),
        Some(Owner::Ours) if is_armed && rests(&turn) => {
            // A pause disarmed this job's rule: who armed it since, with the same file, is another job.
            turn.job.progress.rule = RuleState::Superseded;
            leave_to_other(turn)
        }
        Some(Owner::Ours | Owner::Unknown) if is_cancelled(&turn) && never_began(&turn, &rules) => {
            // Of another job with this file, or of a copy, which hears of the order itself: not touched, and not said to be nothing.
            if is_armed {
                turn.job.progress.rule = RuleState::Superseded;
                return leave_to_other(turn);
            }
            turn.job.progress.rule = RuleState::Deactivated;
            put_away(turn)
        }
        Some(Owner::Ours) if ends_an_attempt(&turn) && turn.is_behind(&rules) => {
            await_result::go_on_with_copy(turn, &rules)
        }
        Some(Owner::Ours | Owner::Unknown) => {
            // This job's file stands there: a copy may have armed it, and `impact` must not say that nothing can have happened.
            if turn.job.progress.rule == RuleState::NotCreated {
                if is_armed || is_cancelled(&turn) {
                    turn.job.progress.rule = RuleState::Armed;
                } else if turn.job.progress.may_have_twin {
                    turn.job.progress.looked_alike = true;
                }
            }
            write(turn, is_armed, filter_ignored)
        }
    }
}

/// Whether it is the fault of an attempt that has the rule put away.
fn ends_an_attempt(turn: &Turn<'_>) -> bool {
    match &turn.job.progress.exit {
        Some(Exit::TryAgain(_)) => true,
        Some(Exit::End(ending)) => ending.reason == Reason::DeviceFault && !turn.is_past_deadline(),
        None => false,
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
        Ok(NbiAnswer::NoSuchRule) => gone(turn),
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
        Ok(NbiAnswer::Results { mut rows, .. }) => {
            // Where another job has, or had, the rule, a result without a tag may be that one's.
            let rule = turn.job.progress.rule;
            if rule == RuleState::Superseded
                || rule == RuleState::NotCreated && turn.policy.tag_rules
            {
                rows.retain(|row| turn.is_tagged_as_ours(row));
            }
            let newest = turn.newest_fresh(&rows);
            if let Some((row, Verdict::Faulted(_))) = &newest {
                turn.catch_up(turn.own_attempt(row.rule_description.as_deref()));
            }
            return match newest {
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
                // A copy that saw it before the order has put the rule away for another try, and ends cancelled.
                Some((row, Verdict::Faulted(fault)))
                    if ending.outcome == Outcome::Cancelled
                        && await_result::tries_again(&turn, &fault) =>
                {
                    ending.result = Some(row);
                    turn.finish(ending)
                }
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

/// Another job's rule stands there: it is not touched, and what the device reported without a tag may be that one's.
fn not_ours(mut turn: Turn<'_>) -> Decision {
    let was_armed = turn.job.progress.rule == RuleState::Armed;
    let is_untouched =
        turn.job.progress.rule == RuleState::NotCreated && !turn.job.progress.may_have_twin;
    // What was disarmed to wait for the version was disarmed after the result.
    let is_known_own = is_verified(&turn);
    if !is_untouched && !is_known_own {
        turn.job.progress.rule = RuleState::Superseded;
    }
    let stays = match &turn.job.progress.exit {
        Some(Exit::End(ending)) => match (ending.reason, &ending.result) {
            _ if is_untouched || is_known_own => true,
            // The copy that did it found this job's rule there.
            (Reason::Cancelled | Reason::AlreadyDone | Reason::DeviceBusy, _) => true,
            // The result itself says that this job's rule caused it.
            (_, Some(row)) => turn.is_tagged_as_ours(row),
            (_, None) => !was_armed,
        },
        Some(Exit::TryAgain(_)) => is_untouched,
        None => false,
    };
    if !stays {
        superseded(&mut turn);
    }
    leave_to_other(turn)
}

/// The outcome of a job whose rule another job has, or had: what the device reported may be that one's.
fn superseded(turn: &mut Turn<'_>) {
    let result = match turn.job.progress.exit.take() {
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
}

/// The rule is another job's affair. Only what names this job can be worth another look.
fn leave_to_other(turn: Turn<'_>) -> Decision {
    match turn.job.progress.exit.clone() {
        Some(Exit::End(ending)) if !turn.policy.tag_rules => turn.finish(ending),
        Some(Exit::End(_) | Exit::TryAgain(_)) | None => put_away(turn),
    }
}

/// No rule is to be seen: it is gone, or it stands there and reads do not show it. What may be armed is disarmed all the same.
///
/// A DELETE is not tried: under a filter of which nothing is known it could hit every rule of the storage.
fn on_unseen(mut turn: Turn<'_>) -> Decision {
    if turn.job.progress.rests_until.is_some() && may_be_anothers_result(&turn) {
        superseded(&mut turn);
        if turn.job.order.cleanup == Cleanup::Keep {
            turn.job.progress.rule = RuleState::Superseded;
            return put_away(turn);
        }
    }
    if may_be_armed(&turn) {
        return write(turn, true, true);
    }
    gone(turn)
}

/// Whether this job, or a copy of it, may have armed a rule that is armed still.
fn may_be_armed(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    match progress.rule {
        RuleState::Armed => true,
        RuleState::NotCreated => {
            let is_left = turn.job.order.cleanup == Cleanup::Keep && !is_cancelled(turn);
            progress.arming || progress.may_have_twin && !is_left && !is_done_by_a_copy(turn)
        }
        // By a pause; a copy may have armed it since.
        RuleState::Deactivated => turn.may_be_armed_again(),
        RuleState::Deleted | RuleState::Kept | RuleState::CleanupFailed | RuleState::Superseded => {
            false
        }
    }
}

/// Whether the result that the job ends by may be another job's: that one may have written over this one's rule, and deleted its own, where a
/// pause had put this one's away, or jobs may take over. Else it is rather the NBI that does away with rules that have run.
fn may_be_anothers_result(turn: &Turn<'_>) -> bool {
    let progress = &turn.job.progress;
    let may_be_anothers = (progress.rests_until.is_some()
        || turn.policy.on_busy == OnBusy::Supersede)
        && turn.job.order.cleanup != Cleanup::Delete
        && progress.rule != RuleState::NotCreated;
    let is_claimed = matches!(&progress.exit, Some(Exit::End(ending))
        if ending.reason != Reason::AlreadyDone
            && ending.result.as_ref().is_some_and(|row| !turn.is_tagged_as_ours(row)));
    may_be_anothers && is_claimed
}

/// There is no rule.
fn gone(mut turn: Turn<'_>) -> Decision {
    match turn.job.progress.rule {
        _ if may_be_anothers_result(&turn) => {
            turn.job.progress.rule = RuleState::Superseded;
            superseded(&mut turn);
        }
        RuleState::Armed => turn.job.progress.rule = RuleState::Deleted,
        RuleState::NotCreated
        | RuleState::Deactivated
        | RuleState::Deleted
        | RuleState::Kept
        | RuleState::CleanupFailed
        | RuleState::Superseded => {}
    }
    put_away(turn)
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
        Cleanup::Keep if is_armed && !tries_again && !is_cancelled(&turn) => {
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
            let touched = turn.may_have_touched_the_device()
                || turn.job.progress.may_have_twin
                || turn.rests_for_a_copy();
            // A copy of a cancelled job may have armed a rule that it has deleted since, or have a result that says so.
            let may_be_a_copys = turn.job.order.cleanup == Cleanup::Delete || turn.policy.tag_rules;
            let is_open = matches!(ending.reason, Reason::TimedOut | Reason::DeviceBusy) && touched
                || ending.reason == Reason::Cancelled && (touched || may_be_a_copys)
                || ending.reason == Reason::Superseded && turn.policy.tag_rules;
            let looks_once_more = ending.result.is_none() && is_open;
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
            // The device has reported: there is nothing to rest for.
            turn.job.progress.rests_until = None;
            turn.job.progress.disarmed_at = None;
            turn.job.progress.attempt = attempt.saturating_add(1);
            turn.wait(pause, WaitingFor::NextAttempt)
        }
        // Only an exit leads here.
        None => turn.step(Step::ReadResults),
    }
}

/// What stands there could not be read: after the retries are used up, what may be armed is disarmed unseen, once.
fn fail_to_read(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    if !turn.count_failure(failure) {
        return turn.retry(failure);
    }
    if may_be_armed(&turn) {
        return write(turn, true, true);
    }
    leave_it(turn)
}

/// The rule could not be put away: after the retries are used up the job ends all the same, and says so.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    if !turn.count_failure(failure) {
        return turn.retry(failure);
    }
    leave_it(turn)
}

/// Whether something is armed nobody can say.
fn leave_it(mut turn: Turn<'_>) -> Decision {
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
