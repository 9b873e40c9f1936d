//! `verify`: the version read back. A success without fault does not prove that the new version runs: known device stacks store
//! the report before flashing and never compare (documented in their source).

use super::super::call::{NbiAnswer, NbiFailure};
use super::super::decision::Decision;
use super::super::machine::Step;
use super::super::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use super::super::state::{Exit, Stage};
use super::super::turn::Turn;
use super::unexpected;

/// The version that the device reports after the upgrade; compared as a string, as the data models only recommend numbers.
#[must_use]
pub fn on_version(turn: Turn<'_>, answer: Result<NbiAnswer, NbiFailure>) -> Decision {
    let Some(Exit::End(success)) = turn.job.progress.exit.clone() else {
        // Only a success leads here; without one there is nothing to verify.
        return turn.step(Step::ReadResults);
    };
    let failure = match answer {
        Ok(NbiAnswer::Version(version)) => {
            if turn.job.order.expected_version.as_ref() == Some(&version) {
                return put_away(turn, success);
            }
            let expected = turn.job.order.expected_version.clone().unwrap_or_default();
            let message = format!(
                "the device reported success and runs {version:?}, expected was {expected:?}"
            );
            let ending = Ending {
                result: success.result,
                ..turn.ending(
                    Outcome::Failed,
                    Reason::VersionMismatch,
                    Impact::Unknown,
                    message,
                )
            };
            return put_away(turn, ending);
        }
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    };
    fail(turn, success, &failure)
}

/// A device that reboots does not answer: try until the retries or the time are used up.
fn fail(mut turn: Turn<'_>, success: Ending, failure: &NbiFailure) -> Decision {
    if !turn.count_failure(failure) && !turn.is_past_deadline() {
        return turn.retry(failure);
    }
    let message =
        format!("the device reported success, but its version could not be read: {failure}");
    let ending = Ending {
        message,
        outcome: Outcome::Failed,
        impact: Impact::Applied,
        result: success.result,
        ..turn.nbi_ending(failure)
    };
    put_away(turn, ending)
}

fn put_away(mut turn: Turn<'_>, ending: Ending) -> Decision {
    let is_put_away = match turn.job.progress.rule {
        RuleState::Deactivated
        | RuleState::Deleted
        | RuleState::Kept
        | RuleState::CleanupFailed
        | RuleState::Superseded => true,
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
