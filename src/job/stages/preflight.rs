//! `preflight`: the device's old results, read and made durable before any side effect.
//!
//! With the vendor's fixed rule id a second upgrade of a device reads the first one's result; so what is there now is the baseline,
//! and only what comes later counts. A final result newer than the request means that the job was carried out already, by an
//! earlier copy of it, if the rule that stands there holds this job's file: a result belongs to the file that was armed last.
//! A request that does not say when it was made may be a repeat: there a recent success with the same file counts too.

use jiff::{SignedDuration, Timestamp};

use super::super::call::{NbiAnswer, NbiFailure, ResultRow, RuleRow};
use super::super::decision::{Decision, Standing};
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason};
use super::super::state::{Cleanup, Stage};
use super::super::turn::{Owner, Turn, Verdict};
use super::{await_result, unexpected};

/// The stage's first question.
#[must_use]
pub fn begin(turn: Turn<'_>) -> Decision {
    let order = &turn.job.order;
    let may_be_current = turn.policy.verify
        && order.expected_version.is_some()
        && !order.force
        && turn.job.progress.attempt == 1;
    if may_be_current {
        turn.step(Step::ReadVersionFirst)
    } else {
        turn.step(Step::ReadOldResults)
    }
}

/// The version that the device runs before anything was done. A device that does not answer is upgraded like any other.
#[must_use]
pub fn on_version(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    if let Ok(NbiAnswer::Version(version)) = &answer
        && turn.job.order.expected_version.as_ref() == Some(version)
    {
        let message = format!("the device runs {version} already");
        let ending = turn.ending(
            Outcome::Completed,
            Reason::AlreadyCurrent,
            Impact::None,
            message,
        );
        return turn.finish(ending);
    }
    turn.step(Step::ReadOldResults)
}

/// The results that are there before this job does anything.
#[must_use]
pub fn on_results(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let (rows, nbi_time) = match answer {
        Ok(NbiAnswer::Results { rows, nbi_time }) => (rows, nbi_time),
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    // Nothing of this job can have run before both.
    let order = &turn.job.order;
    let may_begin_at = order
        .not_before
        .map_or(order.requested_at, |time| time.max(order.requested_at));
    let since_request = newer_than(&turn, may_begin_at, &rows, nbi_time);
    match turn.newest_fresh(&since_request) {
        Some((row, verdict)) if turn.is_tagged_as_ours(&row) => {
            return already_ran(turn, row, verdict, &rows);
        }
        Some(_) => {
            return turn.step(Step::ReadRuleOfOldResult {
                rows,
                may_be_repeat: false,
            });
        }
        None => {}
    }
    let since_repeat = newer_than(&turn, turn.job.order.repeats_since, &rows, nbi_time);
    match turn.newest_fresh(&since_repeat) {
        Some((_, Verdict::Success)) => turn.step(Step::ReadRuleOfOldResult {
            rows,
            may_be_repeat: true,
        }),
        Some((_, Verdict::Faulted(_))) | None => done(turn, &rows),
    }
}

/// The rule that stands while a result is there that this job may have caused: it tells whose the result is.
///
/// A success before a request that may be a repeat counts only under a rule that holds this job's file: anything less would keep a
/// device from an upgrade that nobody has carried out.
#[must_use]
pub fn on_rule(
    turn: Turn<'_>,
    rows: &[ResultRow],
    may_be_repeat: bool,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    let is_likely_ours = !may_be_repeat && !turn.job.progress.waited_for_other;
    let is_ours = match answer {
        Ok(NbiAnswer::Rules { rows: rules, .. }) => match turn.owner_of_all(&rules) {
            Some(Owner::Ours) if is_held_by_a_copy(&turn, &rules) => return wait_for_copy(turn),
            Some(Owner::Ours) => true,
            Some(Owner::Other) => false,
            // A copy of this job that was done would have left it, unless it had to delete it.
            None => is_likely_ours && turn.job.order.cleanup == Cleanup::Delete,
            // Without a file nobody can tell; but after waiting for another job it is more likely that one's.
            Some(Owner::Unknown) => is_likely_ours,
        },
        Ok(NbiAnswer::RulesUnreadable) => is_likely_ours,
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    match turn.newest_fresh(rows) {
        Some((row, verdict)) if is_ours => already_ran(turn, row, verdict, rows),
        Some(_) | None => done(turn, rows),
    }
}

/// Whether another copy of this job is at it: the rule of this job is armed, and this copy has not armed it.
///
/// What is armed was armed after a durable hand-over from here, so the copy that did it still lives and will put the rule away. A rule
/// that is kept stays armed for good and tells nothing.
fn is_held_by_a_copy(turn: &Turn<'_>, rules: &[RuleRow]) -> bool {
    turn.job.order.cleanup != Cleanup::Keep && rules.iter().any(RuleRow::is_armed)
}

/// While the rule is armed nobody can tell whether the result is this job's or that of the job which held the device before; the copy
/// that armed it knows its baseline. Once it has put the rule away, the newest result is the one of the rule that stands there.
fn wait_for_copy(mut turn: Turn<'_>) -> Decision {
    turn.job.progress.may_have_twin = true;
    let polls = turn.job.progress.polls;
    let delay = turn.policy.busy_interval.delay(polls, turn.inputs.jitter);
    turn.job.progress.polls = polls.saturating_add(1);
    turn.wait(delay, WaitingFor::Result)
}

/// Rows at or after a moment, by the NBI's clock as far as that is known, and rows that carry this job's tag whatever their time.
///
/// `ts` has whole seconds, so the moment's second counts as after it.
fn newer_than(
    turn: &Turn<'_>,
    moment: Timestamp,
    rows: &[ResultRow],
    nbi_time: Option<Timestamp>,
) -> Vec<ResultRow> {
    let ahead = nbi_time.map_or(SignedDuration::ZERO, |nbi_time| {
        nbi_time.duration_since(turn.inputs.now)
    });
    // `Date` has whole seconds and the answer took a moment: a small difference is none. An NBI that is ahead is not taken into account:
    // the worker's own clock may be the one that is wrong, and a result taken for too old would let the device run again.
    let behind_secs = if ahead > -SignedDuration::from_secs(5) {
        0
    } else {
        ahead.as_secs()
    };
    let first = moment.as_second().saturating_add(behind_secs);
    rows.iter()
        .filter(|row| row.ts >= first || turn.is_tagged_as_ours(row))
        .cloned()
        .collect()
}

/// A copy of this job did it.
fn already_ran(
    mut turn: Turn<'_>,
    row: ResultRow,
    verdict: Verdict,
    rows: &[ResultRow],
) -> Decision {
    turn.remember(rows);
    match verdict {
        Verdict::Success => {
            let message = "an earlier copy of this job upgraded the device";
            let mut ending = turn.ending(
                Outcome::Completed,
                Reason::AlreadyDone,
                Impact::Applied,
                message,
            );
            ending.result = Some(row);
            turn.end(ending)
        }
        Verdict::Faulted(fault) => await_result::faulted(turn, fault, row),
    }
}

/// The baseline stands; it is handed over before anything is written to the NBI.
fn done(mut turn: Turn<'_>, rows: &[ResultRow]) -> Decision {
    turn.remember(rows);
    if matches!(turn.inputs.standing, Standing::Cancelled { .. }) {
        let message = "cancelled by an operator";
        let ending = turn.ending(
            Outcome::Cancelled,
            Reason::Cancelled,
            Impact::Possible,
            message,
        );
        return turn.give_up(ending);
    }
    if turn.is_past_deadline() {
        let message = "the deadline passed before anything was sent to the device";
        let ending = turn.ending(Outcome::Failed, Reason::TimedOut, Impact::Possible, message);
        return end(turn, ending);
    }
    turn.enter(Stage::CreateRule);
    turn.advance()
}

fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    let is_used_up = turn.count_failure(failure);
    if is_used_up || turn.is_past_deadline() {
        let ending = turn.nbi_ending(failure);
        return end(turn, ending);
    }
    turn.retry(failure)
}

/// Ends a job that has armed nothing in this try. An earlier write whose answer was lost may stand all the same.
fn end(turn: Turn<'_>, ending: Ending) -> Decision {
    if turn.job.may_have_left_a_rule() {
        turn.give_up(ending)
    } else {
        turn.finish(ending)
    }
}
