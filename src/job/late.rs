//! The late watch: a job that timed out has said so, and a result that comes all the same corrects it.

use super::call::{NbiAnswer, NbiFailure};
use super::decision::Decision;
use super::event::JobEvent;
use super::outcome::Ending;
use super::stages::await_result;
use super::state::Exit;
use super::turn::{Turn, Verdict};

/// The results, some time after the deadline. A failed look costs nothing: the next one comes.
#[must_use]
pub fn on_results(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let ending = match turn.job.progress.exit.clone() {
        Some(Exit::End(ending)) => ending,
        // Only an ending leads here.
        Some(Exit::TryAgain(fault)) => await_result::fault_ending(&turn, fault, None),
        None => turn.ending(
            super::Outcome::Failed,
            super::Reason::TimedOut,
            super::Impact::Possible,
            "the deadline passed",
        ),
    };
    let rows = match answer {
        Ok(NbiAnswer::Results { rows, .. }) => rows,
        Ok(_) | Err(_) => Vec::new(),
    };
    let corrected: Option<Ending> = turn
        .newest_fresh(&rows)
        .map(|(row, verdict)| match verdict {
            Verdict::Success => await_result::success_ending(&turn, row),
            Verdict::Faulted(fault) => await_result::fault_ending(&turn, fault, Some(row)),
        });
    if let Some(corrected) = corrected {
        turn.happened(JobEvent::Corrected {
            ending: Box::new(corrected.clone()),
        });
        return turn.leave_silently(corrected);
    }
    let is_over = turn
        .job
        .progress
        .watched_until
        .is_none_or(|until| turn.inputs.now >= until);
    if is_over {
        turn.leave_silently(ending)
    } else {
        turn.look_later()
    }
}
