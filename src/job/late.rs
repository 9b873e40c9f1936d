//! The late watch: a job that timed out has said so, and a result that comes all the same corrects it.
//!
//! Meanwhile the device is free for other jobs, whose results come under the same rule id. So a result counts only where it names this
//! job (`nbi.tag_rules`), or where this job's file still stands in the rule. Otherwise the watch ends without a word: the outcome that was
//! told, with its impact `possible`, stays true.

use super::call::{NbiAnswer, NbiFailure, ResultRow};
use super::decision::Decision;
use super::event::JobEvent;
use super::machine::Step;
use super::outcome::{Ending, Impact, Outcome, Reason};
use super::stages::await_result;
use super::state::Exit;
use super::turn::{Owner, Turn, Verdict};

/// The results, some time after the deadline. A failed look costs nothing: the next one comes.
#[must_use]
pub fn on_results(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let rows = match answer {
        Ok(NbiAnswer::Results { rows, .. }) => rows,
        Ok(_) | Err(_) => Vec::new(),
    };
    match turn.newest_fresh(&rows) {
        Some((row, verdict)) if turn.is_tagged_as_ours(&row) => correct(turn, row, verdict),
        Some(_) => turn.step(Step::ReadRuleOfLateResult { rows }),
        None => go_on(turn),
    }
}

/// The rule under which a late result stands.
#[must_use]
pub fn on_rule(
    turn: Turn<'_>,
    rows: &[ResultRow],
    answer: Result<NbiAnswer, NbiFailure>,
) -> Decision {
    let owner = match answer {
        Ok(NbiAnswer::Rules { rows: rules, .. }) => turn.owner_of_all(&rules),
        Ok(NbiAnswer::RulesUnreadable) => None,
        Ok(_) | Err(_) => return go_on(turn),
    };
    match (owner, turn.newest_fresh(rows)) {
        (Some(Owner::Ours), Some((row, verdict))) => correct(turn, row, verdict),
        (Some(Owner::Ours), None) => go_on(turn),
        (Some(Owner::Other | Owner::Unknown) | None, _) => end(turn),
    }
}

fn correct(mut turn: Turn<'_>, row: ResultRow, verdict: Verdict) -> Decision {
    let corrected = match verdict {
        Verdict::Success => await_result::success_ending(&turn, row),
        Verdict::Faulted(fault) => await_result::fault_ending(&turn, fault, Some(row)),
    };
    turn.happened(JobEvent::Corrected {
        ending: Box::new(corrected.clone()),
    });
    turn.leave_silently(corrected)
}

/// Another look, until the watch is over.
fn go_on(turn: Turn<'_>) -> Decision {
    let is_over = turn
        .job
        .progress
        .watched_until
        .is_none_or(|until| turn.inputs.now >= until);
    if is_over {
        end(turn)
    } else {
        turn.look_later()
    }
}

/// Ends with the outcome that was told at the deadline.
fn end(turn: Turn<'_>) -> Decision {
    let ending: Ending = match turn.job.progress.exit.clone() {
        Some(Exit::End(ending)) => ending,
        // Only an ending leads here.
        Some(Exit::TryAgain(fault)) => await_result::fault_ending(&turn, fault, None),
        None => turn.ending(
            Outcome::Failed,
            Reason::TimedOut,
            Impact::Possible,
            "the deadline passed",
        ),
    };
    turn.leave_silently(ending)
}
