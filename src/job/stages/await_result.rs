//! `await_result`: a new result for this device and rule, or time.
//!
//! New is what is not in the baseline. A row with neither a success code nor a fault code decides nothing: the vendor heads its one
//! example "upgrade incomplete or failed", so an unfinished upgrade may look like that (unknown).

use super::super::call::{NbiAnswer, NbiFailure, ResultRow, RuleRow};
use super::super::decision::{Decision, Standing};
use super::super::event::{JobEvent, WaitingFor};
use super::super::fault::Fault;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use super::super::pause;
use super::super::retry::Retries;
use super::super::state::{Exit, Stage, elapsed};
use super::super::turn::{Owner, Turn, Verdict};
use super::unexpected;

/// The rows of one poll.
#[must_use]
pub fn on_results(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let rows = match answer {
        Ok(NbiAnswer::Results { rows, .. }) => rows,
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    turn.job.progress.retries = Retries::default();
    match turn.newest_fresh(&rows) {
        Some((row, verdict)) if turn.is_cancelled_before(&row) => {
            let ending = turn.cancelled(Some((row, verdict)));
            turn.give_up(ending)
        }
        Some((row, Verdict::Success)) => succeeded(turn, row),
        Some((row, Verdict::Faulted(fault))) => {
            turn.remember(&rows);
            faulted(turn, fault, row)
        }
        None if turn.job.progress.rests_until.is_some() => pause::rest_or_arm_again(turn),
        None if tells_of_others(&turn, &rows) => {
            let others: Vec<_> = rows
                .into_iter()
                .filter(|row| turn.is_tagged_by_other(row))
                .collect();
            turn.remember(&others);
            turn.step(Step::ReadRuleOfOther)
        }
        None if is_resend_due(&turn) => turn.step(Step::ResendConnectionRequest),
        None => poll_again(turn),
    }
}

/// The rule, when the device has reported for another job while this job's rule should have stood.
///
/// Two jobs that find no armed rule in the same moment may both write theirs, and both read it back before the other writes: the last write
/// wins, and the first job would wait for nothing. Whether the device had begun for it nobody can tell, so it is not armed again.
#[must_use]
pub fn on_rule_of_other(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let Ok(NbiAnswer::Rules { rows, .. }) = answer else {
        return poll_again(turn);
    };
    if turn.owner_of_all(&rows) != Some(Owner::Other) {
        return poll_again(turn);
    }
    turn.job.progress.rule = RuleState::Superseded;
    let message = "another job wrote the rule in the same moment, and the device has worked for it";
    let ending = turn.ending(
        Outcome::Failed,
        Reason::Superseded,
        Impact::Possible,
        message,
    );
    turn.end(ending)
}

/// A connection request to a silent device went well, or not: the job waits on either way. One that the worker could not send is due
/// still.
#[must_use]
pub fn on_resent(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    if !matches!(answer, Err(NbiFailure::NotSent { .. })) {
        turn.job.progress.connection_requested_at = Some(turn.inputs.now);
    }
    poll_again(turn)
}

/// The NBI says that the device was upgraded.
fn succeeded(turn: Turn<'_>, row: ResultRow) -> Decision {
    let ending = success_ending(&turn, row);
    if needs_verification(&turn) {
        verify_first(turn, ending)
    } else {
        turn.end(ending)
    }
}

/// The NBI says that the device was upgraded, and the rule is put away already.
#[must_use]
pub fn succeeded_after_disarming(turn: Turn<'_>, row: ResultRow) -> Decision {
    let ending = success_ending(&turn, row);
    if needs_verification(&turn) {
        verify_first(turn, ending)
    } else {
        turn.finish(ending)
    }
}

/// The ending for a device that reported success.
#[must_use]
pub fn success_ending(turn: &Turn<'_>, row: ResultRow) -> Ending {
    let mut ending = turn.ending(
        Outcome::Completed,
        Reason::Upgraded,
        Impact::Applied,
        "the device reported success",
    );
    ending.result = Some(row);
    ending
}

fn needs_verification(turn: &Turn<'_>) -> bool {
    turn.policy.verify && turn.job.order.expected_version.is_some()
}

fn verify_first(mut turn: Turn<'_>, ending: Ending) -> Decision {
    turn.enter(Stage::Verify);
    turn.job.progress.exit = Some(Exit::End(ending));
    turn.step(Step::ReadVersion)
}

/// The device reported a fault: it may try again, or the job is over. Either way the rule is disarmed first.
#[must_use]
pub fn faulted(mut turn: Turn<'_>, fault: Fault, row: ResultRow) -> Decision {
    turn.catch_up(turn.own_attempt(row.rule_description.as_deref()));
    let tries_again = tries_again(&turn, &fault);
    turn.happened(JobEvent::DeviceFaulted {
        fault: fault.clone(),
        tries_again,
    });
    if tries_again {
        turn.set_exit(Exit::TryAgain(fault));
        return turn.step(Step::ReadRuleBeforeDisarming);
    }
    let ending = fault_ending(&turn, fault, Some(row));
    turn.end(ending)
}

/// Whether a fault is one that the device may try again after, with an attempt and time left.
#[must_use]
pub fn tries_again(turn: &Turn<'_>, fault: &Fault) -> bool {
    let attempt = turn.job.progress.attempt;
    let pause = turn
        .policy
        .attempt_pause
        .delay(attempt.saturating_sub(1), turn.inputs.jitter);
    let then = turn.inputs.now.checked_add(pause);
    let has_time = then.is_ok_and(|then| then < turn.job.order.deadline);
    fault.transient && has_time && attempt < turn.job.order.max_attempts
}

/// A copy of this job has armed the rule for a further attempt already, and the device may have begun: this one waits for the same result.
#[must_use]
pub fn go_on_with_copy(mut turn: Turn<'_>, rules: &[RuleRow]) -> Decision {
    turn.catch_up(turn.last_attempt_of(rules));
    turn.job.progress.exit = None;
    turn.job.progress.rule = RuleState::Armed;
    turn.job.progress.rests_until = None;
    turn.job.progress.disarmed_at = None;
    turn.enter(Stage::AwaitResult);
    turn.step(Step::ReadResults)
}

/// The ending for a device that reported a fault.
#[must_use]
pub fn fault_ending(turn: &Turn<'_>, fault: Fault, row: Option<ResultRow>) -> Ending {
    let message = format!("the device reported fault {}: {}", fault.code, fault.name);
    let mut ending = turn.ending(
        Outcome::Failed,
        Reason::DeviceFault,
        Impact::Possible,
        message,
    );
    ending.fault = Some(fault);
    ending.result = row;
    ending
}

/// Whether the device has reported for another job since this job looked first.
fn tells_of_others(turn: &Turn<'_>, rows: &[ResultRow]) -> bool {
    rows.iter().any(|row| {
        turn.is_tagged_by_other(row)
            && !turn.job.progress.baseline.contains(&row.id, row.ts)
            && turn.verdict_of(row).is_some()
    })
}

/// Whether the device is to be woken: where none was sent yet, whatever the interval.
fn is_resend_due(turn: &Turn<'_>) -> bool {
    let interval = turn.policy.connection_request_resend_interval;
    let last = turn.job.progress.connection_requested_at;
    turn.inputs.standing != Standing::Paused
        && last.is_none_or(|last| !interval.is_zero() && elapsed(last, turn.inputs.now) >= interval)
}

fn poll_again(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.polls = turn.job.progress.polls.saturating_add(1);
    let delay = turn
        .policy
        .await_result
        .delay(turn.job.progress.polls, turn.inputs.jitter);
    turn.wait(delay, WaitingFor::Result)
}

/// A bad day of the NBI does not end a job whose rule is armed: the deadline does.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    let is_used_up = turn.count_failure(failure);
    match failure {
        NbiFailure::Rejected { .. } | NbiFailure::Unintelligible { .. } if is_used_up => {
            let ending = turn.nbi_ending(failure);
            turn.give_up(ending)
        }
        NbiFailure::Rejected { .. }
        | NbiFailure::Unintelligible { .. }
        | NbiFailure::Transient { .. }
        | NbiFailure::Refused { .. }
        | NbiFailure::NotSent { .. } => turn.retry(failure),
    }
}
