//! Whose an armed rule is: a live job's, nobody's, or who knows.

use jiff::{SignedDuration, Timestamp};

use super::known::{JobKnown, Known, Reach};
use super::sweep::Settings;
use crate::job::tag::read_tag;
use crate::job::{CpeId, RuleId, RuleRow, RuleState};

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
    /// The last word about its device is younger than [`Settings::older_than`], or a job that may have left it armed still has time.
    Young {
        /// The job that left it armed, else the last one.
        job_id: String,
        /// How that job says to have left it: `cleanup_failed` or `armed`. `None`: no job says so.
        left: Option<String>,
        /// When the last was told of the device.
        since: Timestamp,
        /// It is young at least until then.
        until: Timestamp,
    },
    /// Its job was told to leave it armed (`cleanup` = `keep`).
    Kept {
        /// The job.
        job_id: String,
    },
    /// The jobs that may have left it armed are over, and no other is under way: nobody owns it.
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
///
/// A job owns a rule that it may have left armed, by its own word about how the rule ended. What a job says to have put away, and is armed,
/// somebody else has armed since: by hand, or from another installation on the same NBI.
pub(super) fn judge(
    rule_id: &RuleId,
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
    let young = || young(rule_id, known, cpe_id, (last_id, last), settings);
    if later(last.last_at, settings.older_than) > now {
        return young();
    }
    let mut owners = Vec::new();
    for row in armed {
        let tagged = row
            .description
            .as_deref()
            .and_then(read_tag)
            .map(|(job_id, _)| job_id);
        let wrote_it = |(job_id, job): &(&str, &JobKnown)| match tagged {
            Some(tag) => *job_id == tag,
            None => row.file.as_deref() == Some(job.file.as_str()),
        };
        let left_it_armed = |(_, job): &(&str, &JobKnown)| {
            let state = job
                .over
                .as_ref()
                .and_then(|over| over.rule_state.as_deref());
            may_have_left(job, rule_id)
                && state.is_none_or(|state| {
                    let state = RuleState::from_name(state);
                    matches!(
                        state,
                        None | Some(RuleState::Armed | RuleState::CleanupFailed | RuleState::Kept)
                    )
                })
        };
        let mut owners_of_row: Vec<_> = jobs().filter(wrote_it).collect();
        if let Some((job_id, _)) = owners_of_row.iter().max_by_key(|(_, job)| job.last_at)
            && !owners_of_row.iter().any(left_it_armed)
        {
            return unsure(format!(
                "job {job_id} put it away; somebody has armed it since"
            ));
        }
        owners_of_row.retain(left_it_armed);
        if owners_of_row.is_empty() {
            return unsure(match (tagged, &row.file) {
                (Some(tag), _) => format!("it names job {tag}, of which the history knows nothing"),
                (None, Some(file)) => format!("no job of the history gave this device {file}"),
                (None, None) => "it shows no file, so whose it is cannot be told".to_owned(),
            });
        }
        owners.extend(owners_of_row);
    }
    // A copy of it may be under way until then.
    if owners
        .iter()
        .any(|(_, job)| job.deadline.is_some() && !is_over_time(job))
    {
        return young();
    }
    let is_kept = |job: &JobKnown| {
        let over = job.over.as_ref();
        over.and_then(|over| over.rule_state.as_deref()) == Some(RuleState::Kept.name())
    };
    if let Some((job_id, _)) = owners.iter().find(|(_, job)| is_kept(job)) {
        let job_id = (*job_id).to_owned();
        return Verdict::Kept { job_id };
    }
    let reaches_back = reach
        .from
        .is_some_and(|from| later(from, settings.job_timeout * 2) <= now);
    // Trimmed or not: a stream that was deleted and declared anew looks like a new one.
    if !reaches_back {
        return unsure(
            "the history reaches back less than twice job.timeout: an older job may be under way"
                .to_owned(),
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

/// Whether the rule may be that of this job, by its own word.
fn may_have_left(job: &JobKnown, rule_id: &RuleId) -> bool {
    let named = job.over.as_ref().and_then(|over| over.rule_id.as_deref());
    named.is_none_or(|named| named == rule_id.as_str())
}

fn young(
    rule_id: &RuleId,
    known: &Known,
    cpe_id: &CpeId,
    (last_id, last): (&str, &JobKnown),
    settings: &Settings,
) -> Verdict {
    let left = |job: &JobKnown| {
        let state = job.over.as_ref()?.rule_state.as_deref()?;
        let is_left = matches!(
            RuleState::from_name(state),
            Some(RuleState::Armed | RuleState::CleanupFailed)
        );
        (is_left && may_have_left(job, rule_id)).then(|| state.to_owned())
    };
    let leaving = || {
        known
            .jobs_of(cpe_id.as_str())
            .filter(|(_, job)| left(job).is_some())
    };
    let deadlines = leaving().filter_map(|(_, job)| Some(later(job.deadline?, LATE)));
    let until = deadlines.fold(later(last.last_at, settings.older_than), Timestamp::max);
    let (job_id, job) = leaving()
        .max_by_key(|(_, job)| job.last_at)
        .unwrap_or((last_id, last));
    Verdict::Young {
        job_id: job_id.to_owned(),
        left: left(job),
        since: last.last_at,
        until,
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
