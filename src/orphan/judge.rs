//! Whose an armed rule is: a live job's, nobody's, or who knows.

use jiff::{SignedDuration, Timestamp};

use super::known::{JobKnown, Known, Reach};
use super::sweep::Settings;
use crate::job::{CpeId, RuleRow};
use crate::message::past::KEPT;

/// What names a job in a rule's description, where rules are tagged.
const TAG: &str = "nbi-upgrade job ";

/// A job ends at its deadline, or a little later where workers are late or the NBI is away.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// Whose a rule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A job of its device is under way.
    Live {
        /// The job, or the campaign whose log says so.
        owner: String,
    },
    /// The last word about its device is younger than [`Settings::older_than`].
    Young {
        /// The job it is about.
        job_id: String,
    },
    /// Its job was told to leave it armed (`cleanup` = `keep`).
    Kept {
        /// The job.
        job_id: String,
    },
    /// The jobs that its file is from are over, and no other is under way: nobody owns it.
    Orphan {
        /// The last of them.
        job_id: String,
        /// When the last was told of it.
        since: Timestamp,
    },
    /// The history does not say.
    Unsure {
        /// What is missing, for people.
        why: String,
    },
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Live { .. } => "live",
            Self::Young { .. } => "young",
            Self::Kept { .. } => "kept",
            Self::Orphan { .. } => "orphan",
            Self::Unsure { .. } => "unsure",
        }
    }
}

/// Judges the armed rows of one rule. What cannot be excluded counts against disarming.
pub(super) fn judge(
    cpe_id: &CpeId,
    armed: &[RuleRow],
    known: &Known,
    reach: Reach,
    settings: &Settings,
    now: Timestamp,
) -> Verdict {
    let unsure = |why: String| Verdict::Unsure { why };
    if let Some(campaign) = known.campaign_of(cpe_id.as_str()) {
        let owner = format!("campaign {campaign}");
        return Verdict::Live { owner };
    }
    let jobs = || known.jobs_of(cpe_id.as_str());
    let is_over_time = |job: &JobKnown| {
        let ends_by = job.deadline.map(|deadline| later(deadline, LATE));
        ends_by.is_some_and(|ends_by| now >= ends_by)
    };
    let unfinished = || jobs().filter(|(_, job)| job.over.is_none());
    if let Some((job_id, _)) = unfinished().find(|(_, job)| !is_over_time(job)) {
        let owner = job_id.to_owned();
        return Verdict::Live { owner };
    }
    if let Some((job_id, _)) = unfinished().next() {
        return unsure(format!(
            "job {job_id} has no outcome long after its deadline; `nbi-upgrade dead list --job-id {job_id}` shows whether it died"
        ));
    }
    let Some((last_id, last)) = jobs().max_by_key(|(_, job)| job.last_at) else {
        return unsure("the history has no job of this device".to_owned());
    };
    if later(last.last_at, settings.older_than) > now {
        let job_id = last_id.to_owned();
        return Verdict::Young { job_id };
    }
    let mut owners = Vec::new();
    for row in armed {
        let tagged = row
            .description
            .as_deref()
            .and_then(|text| text.strip_prefix(TAG));
        let wrote_it = |(job_id, job): &(&str, &JobKnown)| match tagged {
            Some(tag) => *job_id == tag,
            None => row.file.as_deref() == Some(job.file.as_str()),
        };
        let Some(owner) = jobs().filter(wrote_it).max_by_key(|(_, job)| job.last_at) else {
            return unsure(match (tagged, &row.file) {
                (Some(tag), _) => format!("it names job {tag}, of which the history knows nothing"),
                (None, Some(file)) => format!("no job of the history gave this device {file}"),
                (None, None) => "it shows no file, so whose it is cannot be told".to_owned(),
            });
        };
        owners.push(owner);
    }
    let is_kept = |job: &JobKnown| {
        let over = job.over.as_ref();
        over.and_then(|over| over.rule_state.as_deref()) == Some(KEPT)
    };
    if let Some((job_id, _)) = owners.iter().find(|(_, job)| is_kept(job)) {
        let job_id = (*job_id).to_owned();
        return Verdict::Kept { job_id };
    }
    let reaches_back = reach
        .from
        .is_some_and(|from| later(from, settings.job_timeout * 2) <= now);
    if reach.is_trimmed && !reaches_back {
        return unsure(
            "the history was trimmed and reaches back less than twice job.timeout: an older job may be under way".to_owned(),
        );
    }
    match owners.iter().max_by_key(|(_, job)| job.last_at) {
        Some((job_id, job)) => Verdict::Orphan {
            job_id: (*job_id).to_owned(),
            since: job.last_at,
        },
        None => unsure("it is not armed".to_owned()),
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
