//! What happens to campaigns.
//!
//! A campaign's name stands in log lines and in the gauges of at most [`NAMED_MAX`] active campaigns; counters have none.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::{TARGET, cut};
use crate::campaign::{Gate, PauseReason};
use crate::message::campaign::{Happened, Summary};
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{CAMPAIGN_CONDITIONS, CAMPAIGN_STATES};

/// Campaigns with gauges of their own: the first by name. The others are summed.
const NAMED_MAX: usize = 20;

/// What stands in the gauges under one name.
#[derive(Default)]
struct Row {
    devices: [u64; CAMPAIGN_STATES.len()],
    conditions: [i64; CAMPAIGN_CONDITIONS.len()],
}

impl Row {
    fn add(&mut self, summary: &Summary) {
        let counts = summary.counts;
        let values = [
            summary.waiting,
            summary.in_flight.into(),
            counts.completed,
            counts.failed,
            counts.cancelled,
        ];
        for (sum, value) in self.devices.iter_mut().zip(values) {
            *sum += value;
        }
        let holds = [
            summary.paused == Some(PauseReason::Operator),
            summary
                .paused
                .is_some_and(|reason| reason != PauseReason::Operator),
            summary.is_cancelling,
            summary.gate == Some(Gate::Held),
            summary.gate == Some(Gate::Window),
            summary.gate == Some(Gate::Places),
            summary.is_in_jeopardy,
        ];
        for (sum, holds) in self.conditions.iter_mut().zip(holds) {
            *sum += i64::from(holds);
        }
    }
}

impl Telemetry {
    /// What the leader sees of all active campaigns, sorted by name. Somebody else leads: nothing.
    pub fn campaigns_led(&self, campaigns: &[(&str, Summary)], is_leader: bool) {
        let metrics = &self.metrics.campaigns;
        metrics.is_leader.set(is_leader.into());
        metrics.active.set(count(campaigns.len()));
        let paused = campaigns
            .iter()
            .filter(|(_, summary)| summary.paused.is_some());
        metrics.paused.set(count(paused.count()));
        let mut rows: BTreeMap<&str, Row> = BTreeMap::from([("other", Row::default())]);
        for (index, (id, summary)) in campaigns.iter().enumerate() {
            let name = if index < NAMED_MAX { id } else { "other" };
            rows.entry(name).or_default().add(summary);
        }
        for (name, row) in &rows {
            for (state, value) in CAMPAIGN_STATES.into_iter().zip(row.devices) {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                metrics.devices.with_label_values(&[name, state]).set(value);
            }
            for (condition, value) in CAMPAIGN_CONDITIONS.into_iter().zip(row.conditions) {
                let labels = [name, condition];
                metrics.conditions.with_label_values(&labels).set(value);
            }
        }
        // A campaign that is over leaves no series behind; whoever looks in between sees the others whole.
        let mut named = metrics.named.lock().unwrap_or_else(PoisonError::into_inner);
        for name in named
            .iter()
            .filter(|name| !rows.contains_key(name.as_str()))
        {
            for state in CAMPAIGN_STATES {
                drop(metrics.devices.remove_label_values(&[name, state]));
            }
            for condition in CAMPAIGN_CONDITIONS {
                drop(metrics.conditions.remove_label_values(&[name, condition]));
            }
        }
        *named = rows.into_keys().map(str::to_owned).collect();
    }

    /// A coordinator has read its campaign's log and takes over.
    pub fn campaign_coordinated(&self, campaign_id: &str, entries: u64, took: Duration) {
        let duration_ms = took.as_secs_f64() * 1_000.0;
        tracing::info!(target: TARGET, campaign_id, entries, duration_ms, "campaign coordinated from here");
    }

    /// Devices were started.
    pub fn campaign_released(&self, devices: usize) {
        self.metrics.campaigns.released.inc_by(devices as u64);
    }

    /// An event of a campaign was published.
    pub fn campaign_happened(&self, campaign_id: &str, happened: &Happened, summary: &Summary) {
        let counts = summary.counts;
        let (waiting, in_flight) = (summary.waiting, summary.in_flight);
        let (completed, failed, cancelled) = (counts.completed, counts.failed, counts.cancelled);
        macro_rules! line {
            ($level:ident, $message:literal $(, $field:ident = $value:expr)*) => {
                tracing::$level!(target: TARGET, campaign_id, waiting, in_flight, completed, failed, cancelled, $($field = $value,)* $message)
            };
        }
        match happened {
            Happened::Accepted { devices, .. } => {
                line!(info, "campaign accepted", devices = *devices)
            }
            Happened::Progress => line!(info, "campaign goes on"),
            Happened::Cancelling => line!(warn, "campaign is being cancelled"),
            Happened::Paused { reason, message } => {
                let pauses = &self.metrics.campaigns.pauses;
                pauses.with_label_values(&[reason.name()]).inc();
                line!(
                    warn,
                    "campaign paused",
                    reason = reason.name(),
                    detail = cut(message)
                );
            }
            Happened::Resumed { .. } => line!(info, "campaign resumed"),
            Happened::Jeopardy {
                is_in_jeopardy: true,
                ..
            } => line!(warn, "campaign will not meet its deadline"),
            Happened::Jeopardy { .. } => line!(info, "campaign will meet its deadline again"),
            Happened::Concluded(_) => line!(info, "campaign is over"),
        }
    }

    /// Something went wrong about campaigns, and is tried again.
    pub fn campaign_trouble(&self, campaign_id: &str, error: &str) {
        tracing::warn!(target: TARGET, campaign_id, error = cut(error), "campaign trouble");
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
