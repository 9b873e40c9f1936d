//! The metrics of campaigns.
//!
//! A campaign's name is the label of gauges only, which the leader alone shows, for a bounded number of campaigns that are active.

use std::collections::BTreeSet;
use std::sync::Mutex;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::labels::{CAMPAIGN_CONDITIONS, CAMPAIGN_STATES};
use super::names;
use super::register::Register;
use crate::campaign::PauseReason;

/// What the leader of all campaigns knows of them. Only its worker shows more than zeros.
#[derive(Debug)]
pub(super) struct CampaignMetrics {
    pub(super) is_leader: IntGauge,
    pub(super) active: IntGauge,
    pub(super) paused: IntGauge,
    pub(super) devices: IntGaugeVec,
    pub(super) conditions: IntGaugeVec,
    /// Campaigns with series of their own.
    pub(super) named: Mutex<BTreeSet<String>>,
    pub(super) released: IntCounter,
    pub(super) pauses: IntCounterVec,
}

impl CampaignMetrics {
    /// All of them, every closed combination at zero.
    pub(super) fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            is_leader: new.gauge(
                names::CAMPAIGN_LEADER,
                "1 on the worker that leads all campaigns.",
            ),
            active: new.gauge(names::CAMPAIGNS_ACTIVE, "Campaigns that are not over."),
            paused: new.gauge(names::CAMPAIGNS_PAUSED, "Campaigns that are paused."),
            devices: new.gauges(
                names::CAMPAIGN_DEVICES,
                "Devices of active campaigns by state: the first 20 campaigns by name, the others together as \"other\".",
                &["campaign", "state"],
            ),
            conditions: new.gauges(
                names::CAMPAIGN_CONDITION,
                "1 for what holds an active campaign: paused_by_order, paused_by_itself, cancelling, held (everything is, or this worker may not ask the NBI), closed (not_before or window), places_taken; in_jeopardy: its deadline cannot be met. \"other\": how many.",
                &["campaign", "condition"],
            ),
            named: Mutex::default(),
            released: new.counter(
                names::CAMPAIGN_DEVICES_RELEASED,
                "Devices that campaigns have started.",
            ),
            pauses: new.counters(
                names::CAMPAIGN_PAUSES,
                "Campaigns paused, by reason.",
                &["reason"],
            ),
        };
        for state in CAMPAIGN_STATES {
            metrics.devices.with_label_values(&["other", state]);
        }
        for condition in CAMPAIGN_CONDITIONS {
            metrics.conditions.with_label_values(&["other", condition]);
        }
        for reason in PauseReason::ALL {
            metrics.pauses.with_label_values(&[reason.name()]);
        }
        metrics
    }
}
