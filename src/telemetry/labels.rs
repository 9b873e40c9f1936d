//! The values that labels can take: closed sets, whatever is told.

use crate::job::outcome::RuleState;
use crate::job::{Outcome, Reason};

/// Queues that deliveries come from.
pub(super) const QUEUES: [&str; 2] = ["requests", "steps"];

/// Queues whose depth is asked for; `delay` is all delay queues together, `campaigns` what waits for a leader.
pub(super) const DEPTHS: [&str; 5] = ["requests", "steps", "delay", "dead", "campaigns"];

/// States of the circuit; the first is the one it begins in.
pub(super) const CIRCUIT_STATES: [&str; 3] = ["closed", "open", "probing"];

/// Classes of NBI calls, as their budgets name them.
pub(super) const CALL_CLASSES: [&str; 3] = ["writes", "connection_requests", "reads"];

/// What can have become of a finished job's rule; it may still be armed after `kept` and `cleanup_failed`.
pub(super) const RULE_STATES: [RuleState; 6] = [
    RuleState::NotCreated,
    RuleState::Deactivated,
    RuleState::Deleted,
    RuleState::Kept,
    RuleState::CleanupFailed,
    RuleState::Superseded,
];

/// Where messages are published.
pub(super) const EXCHANGES: [&str; 8] = [
    "results",
    "steps",
    "delay",
    "dead",
    "reply",
    "requests",
    "control",
    "campaigns",
];

/// Those of them to which queues must be bound.
pub(super) const BOUND: [&str; 3] = ["results", "requests", "dead"];

/// Fields of a request that can be at fault; `body` is the whole.
pub(super) const FIELDS: [&str; 19] = [
    "job_id",
    "cpe_id",
    "firmware_url",
    "campaign_id",
    "requested_at",
    "not_before",
    "deadline",
    "cleanup",
    "priority",
    "executions",
    "max_attempts",
    "expected_version",
    "force",
    "context",
    "devices",
    "reply_to",
    "data",
    "specversion",
    "body",
];

/// Where there was no HTTP status, or one of success that the body belies.
pub(super) const STATUS_WORDS: [&str; 5] =
    ["timeout", "connect", "no_answer", "too_large", "unusable"];

/// How a stage's attempt went.
pub(super) const STAGE_RESULTS: [&str; 4] = ["ok", "retry", "wait", "failed"];

/// Why messages go to the dead letters.
pub(super) const DEAD_REASONS: [&str; 2] = ["invalid_request", "malformed_step"];

/// Where the devices of a campaign stand.
pub(super) const CAMPAIGN_STATES: [&str; 5] =
    ["waiting", "in_flight", "completed", "failed", "cancelled"];

/// What can hold a campaign, or threaten it.
pub(super) const CAMPAIGN_CONDITIONS: [&str; 7] = [
    "paused_by_order",
    "paused_by_itself",
    "cancelling",
    "held",
    "closed",
    "places_taken",
    "in_jeopardy",
];

/// What a job waits for that waits for no device, no operator and no other job.
pub(super) const NBI: &str = "nbi";

/// The value itself if it is in the set, else `other`: no caller can open a label.
pub(super) fn closed(value: &str, set: &[&'static str]) -> &'static str {
    set.iter()
        .copied()
        .find(|known| *known == value)
        .unwrap_or("other")
}

/// The `code` label of a TR-069 fault.
pub(super) fn fault_code(code: u16) -> String {
    match code {
        9000..=9020 => code.to_string(),
        9800..=9899 => "vendor".to_owned(),
        _ => "other".to_owned(),
    }
}

/// The `status` label of an NBI call.
pub(super) fn status(status: &str) -> &str {
    let is_http = status.len() == 3
        && status
            .parse::<u16>()
            .is_ok_and(|number| (100..=599).contains(&number));
    if is_http {
        status
    } else {
        closed(status, &STATUS_WORDS)
    }
}

/// Every pair of outcome and reason that can occur.
pub(super) fn endings() -> impl Iterator<Item = (Outcome, Reason)> {
    Reason::ALL.iter().map(|reason| (reason.outcome(), *reason))
}
