//! `preflight`: the device's old results, read and made durable before any side effect.
//!
//! With the vendor's fixed rule id a second upgrade of a device reads the first one's result; so what is there now is the baseline,
//! and only what comes later counts. A final result newer than the request means that the job was carried out already, by an
//! earlier copy of it, if the rule that stands there holds this job's file: a result belongs to the file that was armed last.
//! A request that does not say when it was made may be a repeat: there a recent success with the same file counts too. A row without a verdict
//! that is newer than the request is waited for where this job's file stands in the rule: it may become this job's result.

use jiff::{SignedDuration, Timestamp};

use super::super::call::{NbiAnswer, NbiFailure, ResultRow, RuleRow};
use super::super::decision::{Decision, Standing};
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason};
use super::super::state::{Cleanup, Stage};
use super::super::turn::{Owner, Turn, Verdict};
use super::{await_result, unexpected, verify};

/// How long a device may at least be at it after its row's time, however short operators say that devices take.
const UNDER_WAY_MIN: SignedDuration = SignedDuration::from_mins(30);

/// Why the rule is looked at before anything was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A result is newer than the request.
    Result,
    /// A row has no verdict yet: the device may be at it.
    UnderWay {
        /// Far longer than a device takes after the row's time: until then at the longest.
        until: Timestamp,
        /// Whether the row is older than the request, which may be a repeat: then only the rule tells whose it is.
        may_be_repeat: bool,
    },
    /// A result is older than the request, which may be a repeat.
    Repeat,
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
            let sign = Sign::Result;
            return turn.step(Step::ReadRuleOfOldResult { rows, sign });
        }
        None => {}
    }
    // None of them is final.
    if let Some(until) = under_way_until(&turn, &since_request, &rows, nbi_time) {
        let sign = Sign::UnderWay {
            until,
            may_be_repeat: false,
        };
        return turn.step(Step::ReadRuleOfOldResult { rows, sign });
    }
    // A delivery that comes again is dated anew where nobody says when it was asked for: then whatever came of it before counts.
    let is_dated_anew = turn.job.order.is_dated_on_arrival && turn.job.progress.may_have_twin;
    let since_repeat = newer_than(&turn, turn.job.order.repeats_since, &rows, nbi_time);
    let may_be_repeat = is_dated_anew || !turn.job.order.force;
    if let Some(until) = under_way_until(&turn, &since_repeat, &rows, nbi_time)
        && may_be_repeat
        && turn.inputs.now < until
    {
        let sign = Sign::UnderWay {
            until,
            may_be_repeat,
        };
        return turn.step(Step::ReadRuleOfOldResult { rows, sign });
    }
    let counts = match turn.newest_fresh(&since_repeat) {
        Some((_, Verdict::Success)) => may_be_repeat,
        Some((_, Verdict::Faulted(_))) => is_dated_anew,
        None => false,
    };
    if counts {
        let sign = Sign::Repeat;
        return turn.step(Step::ReadRuleOfOldResult { rows, sign });
    }
    nothing_ran(turn, rows)
}

/// The rule that stands while a result is there that this job may have caused: it tells whose the result is.
///
/// A result before a request that may be a repeat counts only under a rule that holds this job's file: anything less would keep a
/// device from an upgrade that nobody has carried out.
#[must_use]
pub fn on_rule(
    turn: Turn<'_>,
    rows: Vec<ResultRow>,
    sign: Sign,
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    let is_older = match sign {
        Sign::Result => false,
        Sign::UnderWay { may_be_repeat, .. } => may_be_repeat,
        Sign::Repeat => true,
    };
    let is_likely_ours = !is_older && !turn.job.progress.waited_for_other;
    // Where rules are not to be read, or the row is older than the request, a copy is not likelier than any other job.
    let may_be_copy = !is_older && matches!(answer, Ok(NbiAnswer::Rules { .. }));
    let is_ours = match answer {
        Ok(NbiAnswer::Rules { rows: rules, .. }) => match turn.owner_of_all(&rules) {
            Some(Owner::Ours) if is_held_by_a_copy(&turn, &rules) => {
                return wait_for_copy(turn, true);
            }
            Some(Owner::Ours) => true,
            Some(Owner::Other) => false,
            None => {
                let is_under_way = matches!(sign, Sign::UnderWay { .. });
                is_likely_ours && (is_under_way || turn.job.may_have_run_unseen())
            }
            // Without a file nobody can tell; but after waiting for another job it is more likely that one's.
            Some(Owner::Unknown) => is_likely_ours,
        },
        Ok(NbiAnswer::RulesUnreadable) => is_likely_ours,
        Ok(other) => return fail(turn, &unexpected(&other)),
        Err(failure) => return fail(turn, &failure),
    };
    if !is_ours {
        return nothing_ran(turn, rows);
    }
    if let Sign::UnderWay { until, .. } = sign {
        if is_over(&turn) {
            // What the row becomes still counts, at the last look.
            let known = decided(&turn, rows);
            return nothing_ran(turn, known);
        }
        if turn.inputs.now < until {
            return wait_for_copy(turn, may_be_copy);
        }
        // No device takes so long: the row is one that never gets a verdict. Should it get one, it counts.
        let known = decided(&turn, rows);
        return nothing_ran(turn, known);
    }
    match turn.newest_fresh(&rows) {
        Some((row, verdict)) => already_ran(turn, row, verdict, &rows),
        None => nothing_ran(turn, rows),
    }
}

/// Whether another copy of this job is at it: the rule of this job is armed, and this copy has not armed it.
///
/// What is armed was armed after a durable hand-over from here, so the copy that did it still lives and will put the rule away. A rule
/// that is kept stays armed for good and tells nothing; nor does one at the deadline, when nobody may leave it armed.
fn is_held_by_a_copy(turn: &Turn<'_>, rules: &[RuleRow]) -> bool {
    turn.job.order.cleanup != Cleanup::Keep
        && !turn.is_past_deadline()
        && rules.iter().any(RuleRow::is_armed)
}

/// While the rule is armed nobody can tell whether the result is this job's or that of the job which held the device before; the copy
/// that armed it knows its baseline. Once it has put the rule away, the newest result is the one of the rule that stands there.
fn wait_for_copy(mut turn: Turn<'_>, is_copy: bool) -> Decision {
    if is_copy && !turn.job.progress.may_have_twin {
        turn.job.progress.may_have_twin = true;
        // This delivery has the date of the first one, if it is the first one: it is kept from here on.
        turn.job.order_mut().is_dated_on_arrival = false;
    }
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
    let first = moment
        .as_second()
        .saturating_add(behind_secs(turn, nbi_time));
    rows.iter()
        .filter(|row| row.ts >= first || turn.is_tagged_as_ours(row))
        .cloned()
        .collect()
}

fn decided(turn: &Turn<'_>, rows: Vec<ResultRow>) -> Vec<ResultRow> {
    let is_decided = |row: &ResultRow| turn.verdict_of(row).is_some();
    rows.into_iter().filter(is_decided).collect()
}

/// Until when a device may be at it, by a row of these that has no verdict: far longer than a device takes, as a second upgrade is worse
/// than a late one. A row before one with a verdict tells nothing any more; some never get one.
fn under_way_until(
    turn: &Turn<'_>,
    since: &[ResultRow],
    all: &[ResultRow],
    nbi_time: Option<Timestamp>,
) -> Option<Timestamp> {
    let decided = all.iter().filter(|row| turn.verdict_of(row).is_some());
    let last_decided = decided.map(|row| row.ts).max().unwrap_or(i64::MIN);
    let open = since
        .iter()
        .filter(|row| turn.is_fresh(row) && turn.verdict_of(row).is_none());
    let newest = open.map(|row| row.ts).max()?;
    let longest = turn
        .policy
        .flash_time
        .saturating_mul(3)
        .max(turn.policy.flash_time_max)
        .max(UNDER_WAY_MIN);
    let until = Timestamp::from_second(newest.saturating_sub(behind_secs(turn, nbi_time)))
        .and_then(|seen_at| seen_at.checked_add(longest))
        .unwrap_or(turn.job.order.deadline);
    (newest >= last_decided).then_some(until)
}

/// How far the NBI's clock is behind the worker's, in seconds, zero or less.
fn behind_secs(turn: &Turn<'_>, nbi_time: Option<Timestamp>) -> i64 {
    let ahead = nbi_time.map_or(SignedDuration::ZERO, |nbi_time| {
        nbi_time.duration_since(turn.inputs.now)
    });
    // `Date` has whole seconds and the answer took a moment: a small difference is none. An NBI that is ahead is not taken into account:
    // the worker's own clock may be the one that is wrong, and a result taken for too old would let the device run again.
    if ahead > -SignedDuration::from_secs(5) {
        0
    } else {
        ahead.as_secs()
    }
}

/// A copy of this job did it.
fn already_ran(
    mut turn: Turn<'_>,
    row: ResultRow,
    verdict: Verdict,
    rows: &[ResultRow],
) -> Decision {
    if turn.is_cancelled_before(&row) {
        let ending = turn.cancelled(Some((row, verdict)));
        return turn.give_up(ending);
    }
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
            // Not verified: since then another job may have upgraded the device, or somebody have taken it back.
            turn.end(ending)
        }
        Verdict::Faulted(fault) => await_result::faulted(turn, fault, row),
    }
}

/// Nothing that this job can have caused is there: the rows that are become its baseline.
fn nothing_ran(turn: Turn<'_>, known: Vec<ResultRow>) -> Decision {
    let order = &turn.job.order;
    let may_be_current = turn.policy.verify
        && order.expected_version.is_some()
        && !order.force
        && turn.job.progress.attempt == 1
        && !is_over(&turn);
    if may_be_current {
        turn.step(Step::ReadVersionFirst { known })
    } else {
        done(turn, &known)
    }
}

/// The version that the device runs before anything was done. A device that does not answer is upgraded like any other.
#[must_use]
pub fn on_version(
    turn: Turn<'_>,
    known: &[ResultRow],
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    match answer {
        Ok(NbiAnswer::Version(version)) if verify::is_expected(&turn, &version) => {
            let message = format!("the device runs {version} already");
            let ending = turn.ending(
                Outcome::Completed,
                Reason::AlreadyCurrent,
                // None, unless a copy may have upgraded it.
                Impact::Possible,
                message,
            );
            turn.finish(ending)
        }
        Ok(_) | Err(_) => done(turn, known),
    }
}

/// Whether the job shall end, whatever the device does.
fn is_over(turn: &Turn<'_>) -> bool {
    matches!(turn.inputs.standing, Standing::Cancelled { .. }) || turn.is_past_deadline()
}

/// The baseline stands; it is handed over before anything is written to the NBI.
fn done(mut turn: Turn<'_>, known: &[ResultRow]) -> Decision {
    turn.remember_whole(known);
    if matches!(turn.inputs.standing, Standing::Cancelled { .. }) {
        let ending = turn.cancelled(None);
        return turn.give_up(ending);
    }
    if turn.is_past_deadline() {
        let message = "the deadline passed before anything was sent to the device";
        let reason = if turn.job.progress.waited_for_other {
            Reason::DeviceBusy
        } else {
            Reason::TimedOut
        };
        let ending = turn.ending(Outcome::Failed, reason, Impact::Possible, message);
        // Only where a copy may be under way does this look past the deadline: what that one armed must not stay so.
        return turn.give_up(ending);
    }
    let polls = turn.job.progress.polls;
    turn.enter(Stage::CreateRule);
    if turn.job.progress.waited_for_other {
        // Should the device be busy still, the waits go on growing.
        turn.job.progress.polls = polls;
    }
    turn.advance()
}

/// Nothing is armed by this try: the rule needs no putting away. Where a copy may be under way, what comes of that one is not known before
/// the NBI answers again: so this one gives up only after the deadline.
fn fail(mut turn: Turn<'_>, failure: &NbiFailure) -> Decision {
    let is_used_up = turn.count_failure(failure);
    let is_late = turn.is_past_deadline();
    let gives_up = match failure {
        NbiFailure::Transient { .. } if turn.job.progress.may_have_twin => is_used_up && is_late,
        NbiFailure::Unintelligible { .. } if turn.job.progress.may_have_twin => is_used_up,
        NbiFailure::Transient { .. }
        | NbiFailure::Refused { .. }
        | NbiFailure::NotSent { .. }
        | NbiFailure::Rejected { .. }
        | NbiFailure::Unintelligible { .. } => is_used_up || is_late,
    };
    if !gives_up {
        return turn.retry(failure);
    }
    let ending = if matches!(turn.inputs.standing, Standing::Cancelled { .. }) {
        turn.cancelled(None)
    } else {
        turn.nbi_ending(failure)
    };
    end(turn, ending)
}

/// Ends a job that has armed nothing in this try. An earlier write whose answer was lost may stand all the same.
fn end(turn: Turn<'_>, ending: Ending) -> Decision {
    if turn.job.may_have_left_a_rule() {
        turn.give_up(ending)
    } else {
        turn.finish(ending)
    }
}
