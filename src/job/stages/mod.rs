//! The stages, in the order in which a job runs through them.

pub mod preflight; // the device's old results, before any side effect

pub mod create_rule; // the rule stands, and is not armed twice

pub mod connection_request; // wake the device; failure is not the job's failure

pub mod await_result; // a new result for this device and rule, or time

pub mod verify; // the version read back

pub mod deactivate_rule; // leave no armed rule behind; spare another job's

use super::call::{NbiAnswer, NbiFailure};

/// An answer of a kind that the question does not have: the client is at fault; handled like an answer that cannot be understood.
pub(super) fn unexpected(answer: &NbiAnswer) -> NbiFailure {
    let kind = match answer {
        NbiAnswer::Results { .. } => "results",
        NbiAnswer::Rules { .. } => "rules",
        NbiAnswer::RuleList(_) => "a list of rules",
        NbiAnswer::RulesUnreadable => "rules unreadable",
        NbiAnswer::Done => "done",
        NbiAnswer::NoSuchRule => "no such rule",
        NbiAnswer::RuleExists => "rule exists",
        NbiAnswer::Version(_) => "version",
    };
    NbiFailure::Unintelligible {
        message: format!("the answer {kind:?} does not fit the question"),
    }
}
