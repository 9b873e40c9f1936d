//! One sweep: look, judge, and disarm what is nobody's.
//!
//! The order is what makes it safe. Rules are read first and the history after them: a rule that was armed then belongs to a job whose
//! acceptance was written before. Before a rule is disarmed, the history is read on, for a job that took the device up since, and then the rule
//! once more, for a rule that was written since. Between that and the write lies one call; whether a job was accepted in that moment is
//! looked up afterwards, and said.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use jiff::SignedDuration;

use super::Past;
use super::judge::{Verdict, judge};
use super::known::{Known, Reach};
use super::list::{Listing, list};
use super::naming::Naming;
use crate::clock::Clock;
use crate::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId, RuleRow};
use crate::nbi::Nbi;

/// Rules asked for at a time, where they are asked for one by one; the client's own limits hold as well.
const AT_ONCE: usize = 8;

/// How a sweep looks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which rules are ours.
    pub naming: Naming,
    /// `job.timeout`: how far back a trimmed history must reach, twice, to be believed.
    pub job_timeout: SignedDuration,
    /// The last word about a device must be at least this old.
    pub older_than: SignedDuration,
    /// Asks for the rules that the history names, one by one, instead of for a list.
    pub is_one_by_one: bool,
}

/// Why a sweep came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SweepError {
    /// The NBI could not be asked.
    #[error("the rules could not be read: {0}")]
    Nbi(#[from] NbiFailure),
    /// Rules may not be read, so nobody can see what is armed.
    #[error(
        "rules cannot be read with these credentials; grant reading FirmwareStorage to look for orphans"
    )]
    Unreadable,
    /// The history could not be read.
    #[error("{0}")]
    History(String),
}

/// A rule of ours that is armed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The rule.
    pub rule_id: RuleId,
    /// Its device.
    pub cpe_id: CpeId,
    /// Its armed rows, sorted: more than one where POST duplicates.
    pub armed: Vec<RuleRow>,
    /// Whose it is.
    pub verdict: Verdict,
    /// What was done about it; `None`: nothing was to be done.
    pub done: Option<Done>,
}

impl Found {
    fn is_disarmed(&self) -> bool {
        let done = self.done.as_ref();
        done.is_some_and(|done| matches!(done, Done::Disarmed | Done::DisarmedUnder { .. }))
    }
}

/// What became of a rule that was to be disarmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is disarmed: the NBI says so when it is asked again.
    Disarmed,
    /// It is disarmed, and a job took the device up in the same moment: it may wait for nothing until its deadline.
    DisarmedUnder {
        /// The job.
        owner: String,
    },
    /// It was left alone: it changed, or a job took the device up since it was looked at.
    LeftAlone(String),
    /// It could not be disarmed, or not for certain.
    Failed(String),
}

impl Done {
    /// The word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disarmed => "disarmed",
            Self::DisarmedUnder { .. } => "disarmed_under_a_job",
            Self::LeftAlone(_) => "left_alone",
            Self::Failed(_) => "failed",
        }
    }

    /// What more there is to say: the reason, or the job that took the device up.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Disarmed => None,
            Self::DisarmedUnder { owner } => Some(owner),
            Self::LeftAlone(why) | Self::Failed(why) => Some(why),
        }
    }
}

/// What a sweep has seen.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Rules that were read, whoever's and armed or not.
    pub seen: usize,
    /// Armed rules whose name or condition is none of ours: they are nobody's business here.
    pub others: usize,
    /// Armed rules of ours.
    pub found: Vec<Found>,
    /// How far back the history reaches.
    pub reach: Reach,
    /// Events that were read.
    pub events: u64,
    /// Whether every rule was seen, as far as anybody can tell.
    pub is_whole: bool,
    /// What people should know, most of it what could not be seen.
    pub notes: Vec<String>,
}

impl Report {
    /// Rules with this verdict that are armed still.
    #[must_use]
    pub fn left(&self, verdict: &str) -> usize {
        let is_it = |found: &&Found| found.verdict.name() == verdict && !found.is_disarmed();
        self.found.iter().filter(is_it).count()
    }

    /// Rules that were disarmed.
    #[must_use]
    pub fn disarmed(&self) -> usize {
        self.found
            .iter()
            .filter(|found| found.is_disarmed())
            .count()
    }
}

/// Looks for orphans.
pub struct Sweep<'a, N, P> {
    nbi: &'a N,
    past: P,
    settings: Settings,
    clock: Clock,
    known: Known,
    reach: Reach,
}

impl<'a, N: Nbi, P: Past> Sweep<'a, N, P> {
    /// `past` stands at the beginning of the history.
    pub fn new(nbi: &'a N, past: P, settings: Settings, clock: Clock) -> Self {
        Self {
            nbi,
            past,
            settings,
            clock,
            known: Known::default(),
            reach: Reach::default(),
        }
    }

    /// Looks at everything and changes nothing.
    ///
    /// # Errors
    ///
    /// [`SweepError`]: then nothing is known.
    pub async fn look(&mut self) -> Result<Report, SweepError> {
        let mut report = Report {
            is_whole: true,
            ..Report::default()
        };
        let listing = if self.settings.is_one_by_one {
            Listing::Refused("it was not asked for".to_owned())
        } else {
            list(self.nbi).await?
        };
        let armed = match listing {
            Listing::Rules {
                armed,
                seen,
                is_whole,
                notes,
            } => {
                report.seen = seen;
                report.is_whole = is_whole;
                report.notes = notes;
                let mut ours: BTreeMap<(RuleId, CpeId), Vec<RuleRow>> = BTreeMap::new();
                for rule in armed {
                    let cpe_id = self
                        .settings
                        .naming
                        .device(&rule.id, rule.cpe_id.as_deref());
                    match (RuleId::parse(rule.id), cpe_id) {
                        (Ok(rule_id), Some(cpe_id)) => {
                            ours.entry((rule_id, cpe_id)).or_default().push(rule.row);
                        }
                        _ => report.others += 1,
                    }
                }
                let devices = ours.keys().map(|(_, cpe_id)| cpe_id.to_string());
                self.known = Known::of(Some(devices.collect()));
                ours
            }
            Listing::Refused(why) => self.look_one_by_one(&why, &mut report).await?,
        };
        // After the rules, in this order.
        self.read_on().await?;
        for campaign_id in self.known.campaigns() {
            let devices = self.past.under_way(&campaign_id).await;
            let devices = devices.map_err(SweepError::History)?;
            self.known.take_under_way(&campaign_id, devices);
        }
        report.reach = self.reach;
        report.events = self.known.events();
        report.notes.extend(self.limits_of_the_history());
        report.found = armed
            .into_iter()
            .map(|((rule_id, cpe_id), mut armed)| {
                armed.sort();
                Found {
                    verdict: self.judge(&rule_id, &cpe_id, &armed),
                    rule_id,
                    cpe_id,
                    armed,
                    done: None,
                }
            })
            .collect();
        Ok(report)
    }

    /// Disarms what was found to be an orphan; with `unsure` also what nobody knows. Each is looked at once more before.
    ///
    /// # Errors
    ///
    /// [`SweepError::History`] when the history can be read no more: what was not looked at by then is left alone.
    pub async fn disarm(&mut self, report: &mut Report, unsure: bool) -> Result<(), SweepError> {
        let is_wanted = |verdict: &Verdict| match verdict {
            Verdict::Orphan { .. } => true,
            Verdict::Unsure { .. } => unsure,
            Verdict::Live { .. } | Verdict::Young { .. } | Verdict::Kept { .. } => false,
        };
        for found in report
            .found
            .iter_mut()
            .filter(|found| is_wanted(&found.verdict))
        {
            self.read_on().await?;
            let verdict = self.judge(&found.rule_id, &found.cpe_id, &found.armed);
            found.done = Some(if is_wanted(&verdict) {
                self.disarm_one(found).await
            } else {
                Done::LeftAlone(format!("it is {} by now", verdict.name()))
            });
        }
        self.read_on().await?;
        for found in &mut report.found {
            if found.done == Some(Done::Disarmed)
                && let Verdict::Live { owner } =
                    self.judge(&found.rule_id, &found.cpe_id, &found.armed)
            {
                found.done = Some(Done::DisarmedUnder { owner });
            }
        }
        Ok(())
    }

    async fn disarm_one(&self, found: &Found) -> Done {
        match self.armed_rows(&found.rule_id).await {
            Err(why) => return Done::Failed(why),
            Ok(armed) if armed != found.armed => {
                return Done::LeftAlone("it was changed since it was looked at".to_owned());
            }
            Ok(_) => {}
        }
        let rule_id = found.rule_id.clone();
        match self.nbi.call(&NbiCall::DisarmRule { rule_id }).await {
            Ok(_) => {}
            Err(failure) => return Done::Failed(failure.to_string()),
        }
        match self.armed_rows(&found.rule_id).await {
            Ok(armed) if armed.is_empty() => Done::Disarmed,
            Ok(_) => Done::Failed("the NBI took the write, and the rule is armed still".to_owned()),
            Err(why) => Done::Failed(format!("whether it is disarmed is not known: {why}")),
        }
    }

    /// The armed rows of a rule, sorted.
    async fn armed_rows(&self, rule_id: &RuleId) -> Result<Vec<RuleRow>, String> {
        let (rule_id, purpose) = (rule_id.clone(), Purpose::PutAway);
        match self.nbi.call(&NbiCall::ReadRule { rule_id, purpose }).await {
            // A write under such a filter could hit the rules of others.
            Ok(NbiAnswer::Rules {
                filter_ignored: true,
                ..
            }) => Err(
                "the NBI ignores the filter; set nbi.rule_query to the name that it honours"
                    .to_owned(),
            ),
            Ok(NbiAnswer::Rules { rows, .. }) => {
                let mut armed: Vec<_> = rows.into_iter().filter(RuleRow::is_armed).collect();
                armed.sort();
                Ok(armed)
            }
            Ok(_) => Err("the rule cannot be read".to_owned()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Asks for each rule that a job of the history has named.
    async fn look_one_by_one(
        &mut self,
        why: &str,
        report: &mut Report,
    ) -> Result<BTreeMap<(RuleId, CpeId), Vec<RuleRow>>, SweepError> {
        self.read_on().await?;
        let rules: Vec<(RuleId, CpeId)> = self
            .known
            .rules()
            .into_iter()
            .filter_map(|(rule_id, cpe_id)| {
                Some((RuleId::parse(rule_id).ok()?, CpeId::parse(cpe_id).ok()?))
            })
            .collect();
        report.is_whole = false;
        report.notes.push(format!(
            "the NBI gave no list of rules ({why}): only the {} rules were looked at that jobs of the history have ended with",
            rules.len()
        ));
        report.seen = rules.len();
        let nbi = self.nbi;
        let mut answers = futures_util::stream::iter(rules)
            .map(|(id, cpe_id)| async move {
                let (rule_id, purpose) = (id.clone(), Purpose::Look);
                let call = NbiCall::ReadRule { rule_id, purpose };
                (id, cpe_id, nbi.call(&call).await)
            })
            .buffer_unordered(AT_ONCE);
        let mut armed = BTreeMap::new();
        while let Some((rule_id, cpe_id, answer)) = answers.next().await {
            let NbiAnswer::Rules { rows, .. } = answer? else {
                return Err(SweepError::Unreadable);
            };
            let rows: Vec<_> = rows.into_iter().filter(RuleRow::is_armed).collect();
            if !rows.is_empty() {
                armed.insert((rule_id, cpe_id), rows);
            }
        }
        Ok(armed)
    }

    async fn read_on(&mut self) -> Result<(), SweepError> {
        let known = &mut self.known;
        let reach = self.past.read_on(|told| known.take(told)).await;
        self.reach = reach.map_err(SweepError::History)?;
        Ok(())
    }

    fn judge(&self, rule_id: &RuleId, cpe_id: &CpeId, armed: &[RuleRow]) -> Verdict {
        let now = (self.clock)();
        judge(
            rule_id,
            cpe_id,
            armed,
            &self.known,
            self.reach,
            &self.settings,
            now,
        )
    }

    fn limits_of_the_history(&self) -> Option<String> {
        match self.reach {
            Reach { from: None, .. } => Some(
                "the history holds no event: whose a rule is cannot be told (check amqp.prefix and the vhost)".to_owned(),
            ),
            Reach {
                from: Some(from),
                is_trimmed: true,
            } => Some(format!(
                "the history was trimmed (events.retention) and begins at {from:.0}: jobs that were accepted before are not known"
            )),
            Reach { .. } => None,
        }
    }
}
