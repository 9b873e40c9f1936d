//! What the core can ask of the NBI, and what it can be told: the vocabulary of the seam to `nbi/`.
//!
//! A state of the world is an answer, not an error: no rule, no result, rules that may not be read. [`NbiFailure`] is for "I could
//! not learn it", in the four kinds of the contract's section 5.

use jiff::{SignedDuration, Timestamp};

use super::state::{CpeId, FirmwareUrl, RuleId};

/// One question or order to the NBI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbiCall {
    /// The result rows of this rule and device.
    ReadResults {
        /// The rule.
        rule_id: RuleId,
        /// The device.
        cpe_id: CpeId,
        /// What it is read for.
        purpose: Purpose,
    },
    /// The rule of this id.
    ReadRule {
        /// The rule.
        rule_id: RuleId,
        /// What it is read for.
        purpose: Purpose,
    },
    /// A page of all rules, whoever's they are. No job asks this: who looks for rules that no job owns does.
    ListRules {
        /// Rows to leave out.
        offset: usize,
        /// Rows to return at most, 1 or more.
        limit: usize,
    },
    /// POST: a new rule, armed.
    CreateRule(RuleSpec),
    /// Full PUT: the rule as it shall be, armed.
    UpdateRule(RuleSpec),
    /// The seed's PUT: `enabled` and `automatic` off.
    DisarmRule {
        /// The rule.
        rule_id: RuleId,
    },
    /// DELETE.
    DeleteRule {
        /// The rule.
        rule_id: RuleId,
    },
    /// `SendCNR`.
    SendConnectionRequest {
        /// The device.
        cpe_id: CpeId,
    },
    /// The software version that the device reports.
    ReadVersion {
        /// The device.
        cpe_id: CpeId,
    },
}

impl NbiCall {
    /// Every name that [`NbiCall::operation`] can return.
    pub const OPERATIONS: [&'static str; 9] = [
        "read_results",
        "read_rule",
        "list_rules",
        "create_rule",
        "update_rule",
        "disarm_rule",
        "delete_rule",
        "connection_request",
        "read_version",
    ];

    /// The name of the operation in logs and metrics.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::ReadResults { .. } => "read_results",
            Self::ReadRule { .. } => "read_rule",
            Self::ListRules { .. } => "list_rules",
            Self::CreateRule(_) => "create_rule",
            Self::UpdateRule(_) => "update_rule",
            Self::DisarmRule { .. } => "disarm_rule",
            Self::DeleteRule { .. } => "delete_rule",
            Self::SendConnectionRequest { .. } => "connection_request",
            Self::ReadVersion { .. } => "read_version",
        }
    }

    /// Whether asking twice has the effect of asking once, so that the client may repeat it by itself.
    ///
    /// The two writes that arm a rule are not: whether a second one lets the device run again is unknown.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::CreateRule(_) | Self::UpdateRule(_) => false,
            Self::ReadResults { .. }
            | Self::ReadRule { .. }
            | Self::ListRules { .. }
            | Self::DisarmRule { .. }
            | Self::DeleteRule { .. }
            | Self::SendConnectionRequest { .. }
            | Self::ReadVersion { .. } => true,
        }
    }
}

/// What a read is for: how urgent it is, and how long its turn may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To see how things are.
    Look,
    /// The last look before a rule is armed: it must not be old when that is written.
    Arm,
    /// The look before a rule is put away, which waits for it.
    PutAway,
}

/// A rule as it shall stand, armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// Its id.
    pub rule_id: RuleId,
    /// The one device that it applies to.
    pub cpe_id: CpeId,
    /// The file.
    pub firmware_url: FirmwareUrl,
    /// Times it may run.
    pub executions: u32,
    /// Its rank among rules.
    pub priority: u32,
    /// The tag that names the job, where `nbi.tag_rules` is on.
    pub description: Option<String>,
}

/// What the NBI said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbiAnswer {
    /// The rows whose device and rule match, in no particular order; rows of others are already dropped.
    Results {
        /// The rows.
        rows: Vec<ResultRow>,
        /// The NBI's clock (its `Date` header), where it shows one.
        nbi_time: Option<Timestamp>,
    },
    /// The rules of the asked id (more than one where POST duplicates), in no particular order.
    Rules {
        /// The rows; empty means that there is none.
        rows: Vec<RuleRow>,
        /// Whether the NBI was seen to return rows of other ids: then a DELETE could hit them all.
        filter_ignored: bool,
    },
    /// A page of rules, in the NBI's order; empty means that there are no more.
    RuleList(Vec<ListedRule>),
    /// Rules may not be read here (403, 405, 501 on the read).
    RulesUnreadable,
    /// The write is done, the request sent.
    Done,
    /// A write found no row to act on (404 with the NBI's envelope).
    NoSuchRule,
    /// POST found the id taken (409).
    RuleExists,
    /// The software version, as the device reports it.
    Version(String),
}

/// One row of the result storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// The row's own id, at most [`ResultRow::ID_MAX`] characters.
    pub id: String,
    /// Unix seconds by the NBI's clock (inferred).
    pub ts: i64,
    /// `result.code`.
    pub code: Option<i64>,
    /// `result.message`, cut at [`ResultRow::MESSAGE_MAX`] characters.
    pub message: String,
    /// `rule_description`: carries the job's tag where rules are tagged. Cut at [`ResultRow::DESCRIPTION_MAX`] characters.
    pub rule_description: Option<String>,
}

impl ResultRow {
    /// Longest id taken, in characters: up to [`super::state::Baseline::MAX`] of them travel in a continuation. The vendor's are UUIDs.
    pub const ID_MAX: usize = 128;
    /// Longest message kept, in characters; TR-069 fault strings have at most 256 (documented in the CWMP schema).
    pub const MESSAGE_MAX: usize = 512;
    /// Longest description kept, in characters: longer than any tag of ours, so that a cut one is equal to none.
    pub const DESCRIPTION_MAX: usize = 256;
}

/// One rule of a list, whoever's it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    /// Its id, as it stands there; empty where the row has none.
    pub id: String,
    /// The device of a condition that names one device and nothing else.
    pub cpe_id: Option<String>,
    /// What else it says.
    pub row: RuleRow,
}

/// One rule as the NBI holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRow {
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether it fires by itself.
    pub automatic: bool,
    /// Its file, if it has one.
    pub file: Option<String>,
    /// Its description.
    pub description: Option<String>,
}

impl RuleRow {
    /// Whether a device that calls in would run it.
    ///
    /// `enabled` alone counts: what `automatic` means is inferred, and an enabled rule can be fired by any operator's campaign.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.enabled
    }
}

/// Why the NBI's answer could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NbiFailure {
    /// Refused, reset, timed out, 408, 425, 429, 5xx: the NBI has a bad day. Ask again later.
    #[error("{message}")]
    Transient {
        /// What happened.
        message: String,
        /// How long the NBI asked to be left alone.
        retry_after: Option<SignedDuration>,
        /// Whether the request certainly had no effect (never sent, or turned away at the door).
        no_effect: bool,
    },
    /// 401, 403: the worker's fault. The job pays nothing, the circuit opens.
    #[error("{message}")]
    Refused {
        /// What happened.
        message: String,
    },
    /// The circuit is open, its turn did not come in time, or the worker stops: nothing was sent. The job pays nothing.
    #[error("{message}")]
    NotSent {
        /// Why.
        message: String,
        /// When asking makes sense again.
        retry_after: SignedDuration,
    },
    /// Another 4xx: the NBI will not do this, now or later.
    #[error("{message}")]
    Rejected {
        /// What happened.
        message: String,
    },
    /// Not JSON, wrong shape, too large.
    #[error("{message}")]
    Unintelligible {
        /// What happened.
        message: String,
    },
}

impl NbiFailure {
    /// How long the NBI, or the gate before it, asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> SignedDuration {
        match self {
            Self::Transient { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::NotSent { retry_after, .. } => *retry_after,
            Self::Refused { .. } | Self::Rejected { .. } | Self::Unintelligible { .. } => {
                SignedDuration::ZERO
            }
        }
    }
}
