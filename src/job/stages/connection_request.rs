//! `connection_request`: wake the device. Failure is not the job's failure: an armed rule is picked up at the device's next periodic
//! Inform (inferred from the vendor's page; another management server does so, documented), so the job goes on without. It does so, too,
//! where the worker could not send it at all (its limits, an open circuit).

use super::super::call::{NbiAnswer, NbiFailure};
use super::super::decision::Decision;
use super::super::event::WaitingFor;
use super::super::machine::Step;
use super::super::outcome::{Impact, Outcome, Reason};
use super::super::policy::OnConnectionRequestFailure;
use super::super::state::Stage;
use super::super::turn::Turn;
use super::unexpected;

/// The answer to `SendCNR`. Success means "sent", nothing more.
#[must_use]
pub fn on_sent(mut turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let failure = match answer {
        Ok(NbiAnswer::Done) => {
            turn.job.progress.connection_requested_at = Some(turn.inputs.now);
            turn.enter(Stage::AwaitResult);
            return await_first_result(turn);
        }
        Ok(other) => unexpected(&other),
        Err(failure @ NbiFailure::NotSent { .. }) => {
            // The worker's own trouble: no attempt, and no failure of the device's. `await_result` sends it as soon as it can.
            turn.job.progress.connection_requested_at = None;
            turn.give_up_and_enter(Stage::AwaitResult, &failure.to_string());
            return await_first_result(turn);
        }
        Err(failure) => failure,
    };
    let is_used_up = turn.count_failure(&failure)
        || turn.job.progress.retries.failures >= turn.policy.connection_request_attempts;
    if !is_used_up {
        return turn.retry(&failure);
    }
    match turn.policy.connection_request_on_failure {
        OnConnectionRequestFailure::Continue => {
            // Counts as sent, so that the next one follows at the resend interval.
            turn.job.progress.connection_requested_at = Some(turn.inputs.now);
            turn.give_up_and_enter(Stage::AwaitResult, &failure.to_string());
            await_first_result(turn)
        }
        OnConnectionRequestFailure::Fail => {
            let message = format!("the device could not be woken: {failure}");
            let ending = turn.ending(
                Outcome::Failed,
                Reason::ConnectionRequestFailed,
                Impact::Possible,
                message,
            );
            turn.give_up(ending)
        }
    }
}

/// A device needs a moment; with an initial interval of zero it is looked for at once.
fn await_first_result(turn: Turn<'_>) -> Decision {
    let delay = turn.policy.await_result.delay(0, turn.inputs.jitter);
    if delay.is_zero() {
        turn.step(Step::ReadResults)
    } else {
        turn.wait(delay, WaitingFor::Result)
    }
}
