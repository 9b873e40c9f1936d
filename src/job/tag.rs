//! The tag of a rule: which job wrote it, and for which of its attempts. Results repeat it (`rule_description`), where the NBI keeps descriptions.

use super::call::{ResultRow, RuleRow};
use super::outcome::RuleState;
use super::state::Job;
use super::turn::Turn;

/// How every tag of this worker begins; the job's id follows, which has no blanks.
const TAG_PREFIX: &str = "nbi-upgrade job ";

/// What comes between the job's id and the number of the attempt, from the second on.
const TAG_ATTEMPT: &str = " attempt ";

/// The tag that names a job in a rule's `description`, and which of its attempts it is: a copy that is behind must not put away what another
/// one has armed since.
#[must_use]
pub fn tag(job: &Job) -> String {
    let id = &job.order.job_id;
    match job.progress.attempt {
        0 | 1 => format!("{TAG_PREFIX}{id}"),
        attempt => format!("{TAG_PREFIX}{id}{TAG_ATTEMPT}{attempt}"),
    }
}

/// The job's id and the attempt, from 1 on, that a tag names. `None` for what is no tag.
#[must_use]
pub fn read_tag(description: &str) -> Option<(&str, u32)> {
    let named = description.strip_prefix(TAG_PREFIX)?;
    let attempt = named.split_once(TAG_ATTEMPT);
    let further = attempt.and_then(|(id, text)| Some((id, text.parse().ok()?)));
    Some(further.unwrap_or((named, 1)))
}

impl Turn<'_> {
    /// Whether the row says that an earlier attempt of this job caused it, where copies may be at different ones: a job without has such
    /// a row in its baseline, and a worker of a version before may have tagged a further attempt like the first.
    pub(super) fn is_of_earlier(&self, row: &ResultRow) -> bool {
        self.job.progress.may_have_twin
            && self
                .own_attempt(row.rule_description.as_deref())
                .is_some_and(|attempt| attempt < self.job.progress.attempt)
    }

    /// The attempt of this job that a description names, from 1 on.
    #[must_use]
    pub fn own_attempt(&self, description: Option<&str>) -> Option<u32> {
        let (job_id, attempt) = self.read_tag(description)?;
        (job_id == self.job.order.job_id.as_str()).then_some(attempt)
    }

    /// The last attempt of this job that these rules name: a copy may be further than this one.
    #[must_use]
    pub fn last_attempt_of(&self, rules: &[RuleRow]) -> Option<u32> {
        let attempts = rules
            .iter()
            .filter_map(|rule| self.own_attempt(rule.description.as_deref()));
        attempts.max()
    }

    /// Whether a copy of this job has gone on to a further attempt, as these rules say. What an earlier life of the job has left is not armed.
    #[must_use]
    pub fn is_behind(&self, rules: &[RuleRow]) -> bool {
        let last = self.job.order.max_attempts;
        let is_ahead = |attempt: u32| attempt.min(last) > self.job.progress.attempt;
        self.last_attempt_of(rules).is_some_and(is_ahead)
            && (self.may_have_copies() || rules.iter().any(RuleRow::is_armed))
    }

    /// Whether what a tag says of a further attempt can be a copy's: a request that is sent again finds what an earlier life of its job has left.
    #[must_use]
    pub fn may_have_copies(&self) -> bool {
        self.job.progress.may_have_twin || self.job.progress.rule != RuleState::NotCreated
    }

    /// Goes on from the attempt that a copy of this job has come to.
    pub fn catch_up(&mut self, attempt: Option<u32>) {
        let known = self.job.progress.attempt;
        let last = self.job.order.max_attempts;
        if let Some(attempt) = attempt.map(|attempt| attempt.min(last))
            && attempt > known
        {
            self.job.progress.attempt = attempt;
            self.job.progress.may_have_twin = self.may_have_copies();
        }
    }

    /// Whether the row says that this job's rule caused it.
    #[must_use]
    pub fn is_tagged_as_ours(&self, row: &ResultRow) -> bool {
        self.own_attempt(row.rule_description.as_deref()).is_some()
    }

    /// Whether the rule says that this job wrote it, or a copy of it.
    #[must_use]
    pub fn has_own_tag(&self, rule: &RuleRow) -> bool {
        self.own_attempt(rule.description.as_deref()).is_some()
    }

    /// Whether the row says that another job's rule caused it.
    #[must_use]
    pub fn is_tagged_by_other(&self, row: &ResultRow) -> bool {
        self.names_other(row.rule_description.as_deref())
    }

    pub(super) fn names_other(&self, description: Option<&str>) -> bool {
        self.read_tag(description)
            .is_some_and(|(job_id, _)| job_id != self.job.order.job_id.as_str())
    }

    fn read_tag<'t>(&self, description: Option<&'t str>) -> Option<(&'t str, u32)> {
        description
            .filter(|_| self.policy.tag_rules)
            .and_then(read_tag)
    }
}
