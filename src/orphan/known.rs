//! What the history says of devices and their jobs, folded event by event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use crate::message::past::{Told, ToldJob, What};

/// How far back the history reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// When its oldest event was published; `None`: it holds none.
    pub from: Option<Timestamp>,
    /// Whether older events were dropped (`events.retention`).
    pub is_trimmed: bool,
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobKnown {
    pub(super) file: String,
    pub(super) deadline: Option<Timestamp>,
    /// The last that was told.
    pub(super) last_at: Timestamp,
    /// How it ended, unless it was accepted again since.
    pub(super) over: Option<Over>,
}

/// What became of the rule of a job that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) rule_id: Option<String>,
    pub(super) rule_state: Option<String>,
}

/// What the history says.
///
/// Bounded by the jobs of the devices that are asked about; without such a choice by all jobs of the history.
#[derive(Debug, Default)]
pub struct Known {
    wanted: Option<HashSet<String>>,
    devices: HashMap<String, BTreeMap<String, JobKnown>>,
    /// Campaigns that were told of, and whether they are over.
    campaigns: BTreeMap<String, bool>,
    /// Devices that a campaign's own log has under way, and the campaign.
    under_way: HashMap<String, String>,
    events: u64,
}

impl Known {
    /// Of these devices only; `None`: of all.
    #[must_use]
    pub fn of(wanted: Option<HashSet<String>>) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Takes an event in.
    pub fn take(&mut self, told: Told) {
        self.events += 1;
        match told {
            Told::Campaign {
                campaign_id,
                is_over,
            } => {
                self.campaigns.insert(campaign_id, is_over);
            }
            Told::Job(job) => {
                if let Some(campaign_id) = &job.campaign_id {
                    // Its own events may be older than what is kept.
                    self.campaigns.entry(campaign_id.clone()).or_default();
                }
                if self.is_wanted(&job.cpe_id) {
                    self.take_job(job);
                }
            }
        }
    }

    fn take_job(&mut self, told: ToldJob) {
        let jobs = self.devices.entry(told.cpe_id).or_default();
        let job = jobs.entry(told.job_id).or_insert_with(|| JobKnown {
            file: told.firmware_url.clone(),
            deadline: None,
            last_at: told.at,
            over: None,
        });
        job.last_at = job.last_at.max(told.at);
        match told.what {
            // Sent again after its end: whoever took it says a second time how it ended.
            What::Accepted { deadline } => {
                job.file = told.firmware_url;
                job.deadline = deadline.or(job.deadline);
                job.over = None;
            }
            What::Over {
                rule_id,
                rule_state,
            } => {
                job.over = Some(Over {
                    rule_id,
                    rule_state,
                });
            }
            What::Other => {}
        }
    }

    /// Takes in what a campaign's log says: these devices are under way.
    pub fn take_under_way(&mut self, campaign_id: &str, devices: Vec<String>) {
        for device in devices {
            if self.is_wanted(&device) {
                self.under_way.insert(device, campaign_id.to_owned());
            }
        }
    }

    /// Campaigns that are not over as far as was told.
    #[must_use]
    pub fn campaigns(&self) -> Vec<String> {
        let open = self.campaigns.iter().filter(|(_, is_over)| !**is_over);
        open.map(|(id, _)| id.clone()).collect()
    }

    /// Events that were taken in.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The rules that jobs which are over have named, each with its device: what can be asked for where rules cannot be listed.
    #[must_use]
    pub fn rules(&self) -> BTreeSet<(String, String)> {
        let jobs = self
            .devices
            .iter()
            .flat_map(|(cpe_id, jobs)| jobs.values().map(move |job| (cpe_id, job)));
        jobs.filter_map(|(cpe_id, job)| {
            let rule_id = job.over.as_ref()?.rule_id.clone()?;
            Some((rule_id, cpe_id.clone()))
        })
        .collect()
    }

    pub(super) fn jobs_of(&self, cpe_id: &str) -> impl Iterator<Item = (&str, &JobKnown)> {
        let jobs = self.devices.get(cpe_id).into_iter().flatten();
        jobs.map(|(job_id, job)| (job_id.as_str(), job))
    }

    pub(super) fn campaign_of(&self, cpe_id: &str) -> Option<&str> {
        self.under_way.get(cpe_id).map(String::as_str)
    }

    fn is_wanted(&self, cpe_id: &str) -> bool {
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(cpe_id))
    }
}
