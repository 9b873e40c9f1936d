//! What a job is: the order as it was given, and how far it has come.
//!
//! [`Order`] never changes after the request was accepted. [`Progress`] is all that a worker must know to go on where another
//! one stopped; it travels in the continuation message, so every field here is bounded in size.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::fault::Fault;
use super::outcome::{Ending, RuleState};
use super::retry::Retries;

/// Why a text is not an identifier of the wanted kind; completes "`field` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or longer than allowed.
    #[error("must have 1 to {max} characters, has {length}")]
    Length {
        /// Characters given.
        length: usize,
        /// Characters allowed.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("contains {found:?}; allowed are {allowed}")]
    Character {
        /// The first character at fault.
        found: char,
        /// What may stand there, for people.
        allowed: &'static str,
    },
    /// Not an absolute URL of an allowed scheme, or with parts that are not allowed.
    #[error("{0}")]
    Url(String),
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:literal, $is_allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest value, in characters.
            pub const MAX: usize = $max;

            /// Checks length and characters.
            ///
            /// # Errors
            ///
            /// [`IdError`] says what is wrong and what is allowed.
            pub fn parse(text: impl Into<Arc<str>>) -> Result<Self, IdError> {
                let text = text.into();
                let length = text.chars().count();
                if length == 0 || length > $max {
                    return Err(IdError::Length { length, max: $max });
                }
                let is_allowed: fn(char) -> bool = $is_allowed;
                match text.chars().find(|character| !is_allowed(*character)) {
                    Some(found) => Err(IdError::Character { found, allowed: $allowed }),
                    None => Ok(Self(text)),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// The idempotency key of a job: it is carried out once however often it is sent.
    JobId, 128, "letters, digits and . _ : -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-')
);
identifier!(
    /// The device, as the management system names it (its serial number: documented in the vendor's Swagger page).
    ///
    /// Printable ASCII without what the NBI could read as a pattern, a path or a query: the vendor's campaign conditions
    /// take wildcards (documented), so rule conditions very likely do too (inferred).
    CpeId, 128, "printable ASCII without space and without * ? % / \\ \" ' [ ] { } ( ) | ^ $ + ` < > ~ !",
    |c| c.is_ascii_graphic() && !matches!(c,
        '*' | '?' | '%' | '/' | '\\' | '"' | '\'' | '[' | ']' | '{' | '}' | '(' | ')' | '|' | '^' | '$' | '+' | '`' | '<'
        | '>' | '~' | '!')
);
identifier!(
    /// Groups jobs.
    CampaignId, 64, "letters, digits and _ -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
);
identifier!(
    /// Our id of a firmware rule: the vendor's `id` on `FirmwareStorage` and `campaignid` on `FirmwareResultStorage`.
    RuleId, 320, "the characters of cpe_id and job_id",
    |c| c.is_ascii_graphic() && !matches!(c, '*' | '?' | '%' | '/' | '\\' | '"' | '\'')
);

/// Where the device loads the firmware from. Parsed by `message::request`; the core only compares and passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FirmwareUrl(Arc<str>);

impl FirmwareUrl {
    /// Longest value, in bytes.
    pub const MAX: usize = 2048;

    /// Takes an absolute URL that the caller has checked (scheme, credentials, allowed prefixes).
    ///
    /// # Errors
    ///
    /// [`IdError::Length`] when empty or longer than [`FirmwareUrl::MAX`].
    pub fn checked(text: impl Into<Arc<str>>) -> Result<Self, IdError> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX {
            return Err(IdError::Length {
                length: text.len(),
                max: Self::MAX,
            });
        }
        Ok(Self(text))
    }

    /// The text, exactly as the request had it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FirmwareUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The stages, in the order in which a job runs through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The device's old results, before any side effect.
    Preflight,
    /// The rule stands, and is not armed twice.
    CreateRule,
    /// Wake the device.
    ConnectionRequest,
    /// A new result for this device and rule, or time.
    AwaitResult,
    /// The version read back.
    Verify,
    /// No armed rule is left behind.
    DeactivateRule,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 6] = [
        Self::Preflight,
        Self::CreateRule,
        Self::ConnectionRequest,
        Self::AwaitResult,
        Self::Verify,
        Self::DeactivateRule,
    ];

    /// The contract's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::CreateRule => "create_rule",
            Self::ConnectionRequest => "connection_request",
            Self::AwaitResult => "await_result",
            Self::Verify => "verify",
            Self::DeactivateRule => "deactivate_rule",
        }
    }

    /// The stage of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// What becomes of the rule when the job is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleanup {
    /// `enabled` and `automatic` off.
    #[default]
    Deactivate,
    /// The rule is deleted.
    Delete,
    /// The rule stays armed; the requester takes care of it.
    Keep,
}

impl Cleanup {
    /// The contract's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
            Self::Keep => "keep",
        }
    }

    /// The cleanup of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Deactivate, Self::Delete, Self::Keep]
            .into_iter()
            .find(|cleanup| cleanup.name() == name)
    }
}

/// What was asked for. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The idempotency key.
    pub job_id: JobId,
    /// The device.
    pub cpe_id: CpeId,
    /// The file.
    pub firmware_url: FirmwareUrl,
    /// The rule's id, worked out when the request was accepted: a later change of `nbi.rule_id` must not lose the rule.
    pub rule_id: RuleId,
    /// The group of the job.
    pub campaign_id: Option<CampaignId>,
    /// When it was asked for; results newer than this belong to this job or to one that did the same.
    pub requested_at: Timestamp,
    /// A success of the same file since then counts as this job's: a request that does not say when it was made may be a repeat. Equal to
    /// `requested_at` where that is known and the request says so itself, or wants the device upgraded again (`force`).
    pub repeats_since: Timestamp,
    /// Neither the request nor its message says when it was made: `requested_at` is when this delivery of it came, and one that comes
    /// again is dated anew. Handed over only where a copy may have come before, as the date stays from there on.
    pub is_dated_on_arrival: bool,
    /// No side effect before it.
    pub not_before: Option<Timestamp>,
    /// The job ends then, whatever the device does.
    pub deadline: Timestamp,
    /// What becomes of the rule.
    pub cleanup: Cleanup,
    /// The rule's field of the same name.
    pub priority: u32,
    /// The rule's field of the same name, at least 1.
    pub executions: u32,
    /// How often the device may try, at least 1.
    pub max_attempts: u32,
    /// The version that the device must run afterwards.
    pub expected_version: Option<String>,
    /// Upgrade even a device that already runs `expected_version`.
    pub force: bool,
}

/// A job: the order and how far it has come. Small, as it is handed from decision to decision by value.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What was asked for.
    pub order: Arc<Order>,
    /// How far it has come.
    pub progress: Box<Progress>,
}

impl Job {
    /// A job that has not begun.
    #[must_use]
    pub fn new(order: Order) -> Self {
        Self {
            order: Arc::new(order),
            progress: Box::default(),
        }
    }

    /// To change the order of this copy of the job alone. Only what is known of its dates ever changes.
    pub fn order_mut(&mut self) -> &mut Order {
        Arc::make_mut(&mut self.order)
    }

    /// Whether a device may have been told to upgrade by this job.
    #[must_use]
    pub fn may_be_armed(&self) -> bool {
        match self.progress.rule {
            RuleState::NotCreated => false,
            RuleState::Armed
            | RuleState::Deactivated
            | RuleState::Deleted
            | RuleState::Kept
            | RuleState::CleanupFailed
            | RuleState::Superseded => true,
        }
    }

    /// Whether what the device reported, where no rule is to be seen, is more likely the work of this job or of a copy of it than of
    /// another job. A copy that is done leaves the rule, unless it has to delete it; but reads may show none, or somebody removed it.
    #[must_use]
    pub fn may_have_run_unseen(&self) -> bool {
        let progress = &self.progress;
        let has_begun = progress.rule == RuleState::Armed || progress.attempt > 1;
        let may_be_of_others = progress.waited_for_other || progress.rests_until.is_some();
        self.order.cleanup == Cleanup::Delete
            || progress.may_have_twin
            || has_begun && !may_be_of_others
    }

    /// Whether a rule of this job may stand armed: it wrote one, and has not put it away for certain.
    #[must_use]
    pub fn may_have_left_a_rule(&self) -> bool {
        match self.progress.rule {
            RuleState::NotCreated | RuleState::Deactivated | RuleState::Deleted => false,
            RuleState::Armed
            | RuleState::Kept
            | RuleState::CleanupFailed
            | RuleState::Superseded => true,
        }
    }
}

/// How far a job has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Hand-overs so far. With the job id it names one continuation.
    pub seq: u64,
    /// The stage whose turn it is.
    pub stage: Stage,
    /// Failed tries of this stage so far and since when.
    pub retries: Retries,
    /// Polls of this stage so far; the polling interval grows with it.
    pub polls: u32,
    /// Which try of the device this is, from 1.
    pub attempt: u32,
    /// Whether `upgrade.accepted` was published.
    pub announced: bool,
    /// Results that were there before this job could have caused them.
    pub baseline: Baseline,
    /// Whether the device was found busy with another job's rule: what it reported then is not ours.
    pub waited_for_other: bool,
    /// Where rules cannot be read: whether the one write that arms the rule was announced durably and may have happened.
    pub arming: bool,
    /// Whether a delivery of this job came twice before the rule was armed: another copy of the job may be under way.
    pub may_have_twin: bool,
    /// Whether a disarmed rule that may be taken for this job's stood there before this job wrote its own.
    pub looked_alike: bool,
    /// What this job knows of its rule.
    pub rule: RuleState,
    /// A pause disarmed the rule, which is not armed again before this time; the device may be at it all the same.
    pub rests_until: Option<Timestamp>,
    /// When a pause disarmed the rule; where it was found disarmed, when the device was last woken for it.
    pub disarmed_at: Option<Timestamp>,
    /// The job is over and said so; a result that comes until then corrects it.
    pub watched_until: Option<Timestamp>,
    /// Whether it was said that the deadline can hardly be met.
    pub in_jeopardy: bool,
    /// When the last connection request was sent.
    pub connection_requested_at: Option<Timestamp>,
    /// Set when the outcome is known, or the device shall try again, and only the rule has to be put away.
    pub exit: Option<Exit>,
    /// When a worker first saw the job.
    pub started_at: Option<Timestamp>,
    /// What happened in each stage, at most one entry a stage.
    pub stages: Vec<StageRecord>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            seq: 0,
            stage: Stage::Preflight,
            retries: Retries::default(),
            polls: 0,
            attempt: 1,
            announced: false,
            baseline: Baseline::default(),
            waited_for_other: false,
            arming: false,
            may_have_twin: false,
            looked_alike: false,
            rule: RuleState::NotCreated,
            rests_until: None,
            disarmed_at: None,
            watched_until: None,
            in_jeopardy: false,
            connection_requested_at: None,
            exit: None,
            started_at: None,
            stages: Vec::new(),
        }
    }
}

/// Why the rule is being put away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The job is over.
    End(Ending),
    /// The device reported a transient fault and may try again.
    TryAgain(Fault),
}

/// One stage in the job's final event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRecord {
    /// The stage.
    pub stage: Stage,
    /// Tries: failed ones and the one that ended it; waits do not count.
    pub attempts: u32,
    /// When it was first begun.
    pub started_at: Timestamp,
    /// When it was left for good.
    pub finished_at: Option<Timestamp>,
    /// Whether it gave up.
    pub failed: bool,
    /// The last trouble, at most [`StageRecord::ERROR_MAX`] characters.
    pub last_error: Option<String>,
}

impl StageRecord {
    /// Longest `last_error`, in characters: it travels in every continuation.
    pub const ERROR_MAX: usize = 300;
}

/// Results that stood in the storage before this job could have caused one.
///
/// A row is known by its `id` *and* `ts`: whether the vendor writes one row per attempt or writes one row again is unknown,
/// and a row whose `ts` moved on is news either way. A row without a verdict is remembered only where this job cannot have caused it, as it may
/// get one without a new `ts`. At most [`Baseline::MAX`] rows are remembered by name, the newest; what is older
/// than all of them, or as old as one that was forgotten, counts as known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Baseline {
    known: Vec<(String, i64)>,
    older_than: Option<i64>,
}

impl Baseline {
    /// Rows remembered by name: with ids of 36 characters about 12 KiB of a continuation.
    pub const MAX: usize = 200;

    /// The baseline from its parts, as a continuation carries them.
    #[must_use]
    pub fn from_parts(known: Vec<(String, i64)>, older_than: Option<i64>) -> Self {
        let mut baseline = Self { known, older_than };
        baseline.bound();
        baseline
    }

    /// The rows remembered by name (`id`, `ts` in Unix seconds), and the `ts` below which every row is known.
    #[must_use]
    pub fn parts(&self) -> (&[(String, i64)], Option<i64>) {
        (&self.known, self.older_than)
    }

    /// Whether a row with this id and time was there before.
    #[must_use]
    pub fn contains(&self, id: &str, ts: i64) -> bool {
        self.older_than.is_some_and(|older_than| ts < older_than)
            || self
                .known
                .iter()
                .any(|(known_id, known_ts)| known_id == id && ts <= *known_ts)
    }

    /// Adds rows; a row that is known takes the newer time.
    pub fn extend<'a>(&mut self, rows: impl IntoIterator<Item = (&'a str, i64)>) {
        // By place, as one answer can hold tens of thousands of rows.
        let ids = self.known.iter().map(|(id, _)| id.clone());
        let mut places: BTreeMap<String, usize> = ids.zip(0..).collect();
        for (id, ts) in rows {
            match places.get(id).and_then(|at| self.known.get_mut(*at)) {
                Some((_, known_ts)) => *known_ts = (*known_ts).max(ts),
                None => {
                    places.insert(id.to_owned(), self.known.len());
                    self.known.push((id.to_owned(), ts));
                }
            }
        }
        self.bound();
    }

    fn bound(&mut self) {
        if self.known.len() > Self::MAX {
            self.known
                .sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            // A row that is forgotten must not look new: nor must one of the second of those that are kept.
            let forgotten = self.known[Self::MAX].1.saturating_add(1);
            self.known.truncate(Self::MAX);
            let oldest = self.known.last().map(|(_, ts)| (*ts).max(forgotten));
            self.older_than = self.older_than.max(oldest);
        }
    }
}

/// Time between two moments, never negative.
#[must_use]
pub fn elapsed(from: Timestamp, to: Timestamp) -> SignedDuration {
    to.duration_since(from).max(SignedDuration::ZERO)
}
