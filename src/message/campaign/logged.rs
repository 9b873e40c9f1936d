//! Events in the log of a campaign: its own, and the final ones of its jobs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use super::job_id;
use crate::campaign::{Counts, FailureKind, PauseReason, Record};
use crate::job::{ArmAgain, CampaignId, CpeId, Outcome, Reason};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    job_id: Option<String>,
    #[serde(default)]
    cpe_id: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    fault: Option<Fault>,
    #[serde(default)]
    order: Option<String>,
    #[serde(default)]
    requested_at: Option<Timestamp>,
    #[serde(default)]
    began_at: Option<Timestamp>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    in_jeopardy: Option<bool>,
    #[serde(default)]
    arm_again_after: Option<String>,
    #[serde(default)]
    arm_again_over: Option<String>,
    #[serde(default)]
    counts: CountsIn,
}

/// The counts in an event of the campaign.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CountsIn {
    released: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    device_fault: u64,
    timed_out: u64,
    configuration: u64,
}

impl From<CountsIn> for Counts {
    fn from(counts: CountsIn) -> Self {
        Self {
            released: counts.released,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            device_fault: counts.device_fault,
            timed_out: counts.timed_out,
            configuration: counts.configuration,
        }
    }
}

#[derive(Deserialize)]
struct Fault {
    code: u16,
}

/// What an event says about the campaign, if anything, and when that was asked for which it is about; `None`: it is no event.
pub(super) fn read(
    body: &[u8],
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Option<(Option<Record>, Option<Timestamp>)> {
    let event: Event = serde_json::from_slice(body).ok()?;
    let asked_at = event.data.requested_at;
    Some((of_event(event, campaign_id, configuration_codes), asked_at))
}

fn of_event(
    event: Event,
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Option<Record> {
    let Event {
        kind,
        time: at,
        data,
    } = event;
    let order = data.order.clone();
    let duration = |text: Option<String>| text.and_then(|text| text.parse().ok());
    match kind.as_str() {
        "upgrade.campaign.accepted" => Some(Record::Accepted {
            at,
            began_at: data.began_at?,
        }),
        "upgrade.campaign.paused" => Some(Record::Paused {
            at,
            reason: PauseReason::from_name(data.reason.as_deref()?)?,
            message: data.message.unwrap_or_default(),
            order,
        }),
        "upgrade.campaign.resumed" => Some(Record::Resumed {
            at,
            arm_again: duration(data.arm_again_after).map(|after| ArmAgain {
                after,
                over: duration(data.arm_again_over).unwrap_or_default(),
            }),
            order,
        }),
        "upgrade.campaign.progress"
            if data.state.as_deref() == Some("cancelling") && order.is_some() =>
        {
            Some(Record::Cancelling { at, order })
        }
        "upgrade.campaign.progress" => Some(Record::Progressed {
            at,
            counts: data.counts.into(),
        }),
        "upgrade.campaign.jeopardy" => Some(Record::Jeopardy {
            is_in_jeopardy: data.in_jeopardy?,
        }),
        "upgrade.campaign.completed" | "upgrade.campaign.cancelled" => Some(Record::Concluded {
            began_at: data.began_at?,
        }),
        _ => finished(&kind, at, data, campaign_id, configuration_codes),
    }
}

/// The device and its outcome in a final event of one of the campaign's own jobs.
fn finished(
    kind: &str,
    at: Timestamp,
    data: Data,
    campaign_id: &CampaignId,
    configuration_codes: &BTreeSet<u16>,
) -> Option<Record> {
    let outcome = Outcome::from_name(kind.strip_prefix("upgrade.")?)?;
    let cpe_id = CpeId::parse(data.cpe_id?).ok()?;
    // Other jobs may carry the campaign's id too.
    if data.job_id? != job_id(campaign_id, &cpe_id).as_str() {
        return None;
    }
    let reason = Reason::from_name(&data.reason?)?;
    let is_configuration = data
        .fault
        .is_some_and(|fault| configuration_codes.contains(&fault.code));
    Some(Record::Finished {
        at,
        cpe_id,
        outcome,
        failure: FailureKind::of(outcome, reason, is_configuration),
    })
}
