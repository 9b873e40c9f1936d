//! The events of campaigns: each tells the whole state, so that the last one is enough to know it.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::event::{Envelope, EventKind, EventMessage, EventSettings, event_id};
use super::super::time::Rfc3339;
use super::super::{Codec, Work};
use super::Definition;
use crate::campaign::{Conclusion, Counts, Gate, PauseReason, State};
use crate::job::state::elapsed;
use crate::job::{ArmAgain, Ending, Impact, JobEvent, Outcome, Reason};

/// What happened to a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Devices were added.
    Accepted {
        /// How many this request named.
        devices: usize,
        /// Tells requests of a campaign apart.
        request: String,
    },
    /// The counts, from time to time, or as a cancellation begins.
    Progress,
    /// A cancellation begins.
    Cancelling,
    /// It was paused.
    Paused {
        /// Why.
        reason: PauseReason,
        /// For people.
        message: String,
    },
    /// It goes on.
    Resumed {
        /// When what the pause disarmed may be armed again, as seen from then; `None`: never.
        arm_again: Option<ArmAgain>,
    },
    /// The deadline can no longer be met, or can again.
    Jeopardy {
        /// Whether it is in jeopardy now.
        is_in_jeopardy: bool,
        /// When it would be done.
        done_at: Option<Timestamp>,
    },
    /// It is over.
    Concluded(Conclusion),
}

/// What a campaign has come to, for events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The counts.
    pub counts: Counts,
    /// Devices that wait.
    pub waiting: u64,
    /// Devices that take a place.
    pub in_flight: u32,
    /// Devices that were started and have no outcome.
    pub unfinished: u64,
    /// Why it is paused.
    pub paused: Option<PauseReason>,
    /// Whether it is being cancelled.
    pub is_cancelling: bool,
    /// Whether its deadline is in jeopardy.
    pub is_in_jeopardy: bool,
    /// What keeps devices from being started, as the coordinator found last.
    pub gate: Option<Gate>,
}

impl Summary {
    /// Of a state with so many devices waiting, which this gate keeps.
    #[must_use]
    pub fn of(state: &State, waiting: u64, gate: Option<Gate>) -> Self {
        Self {
            counts: state.counts(),
            waiting,
            in_flight: state.in_flight(),
            unfinished: state.unfinished(),
            paused: state.paused.as_ref().map(|paused| paused.reason),
            is_cancelling: state.cancelling.is_some(),
            is_in_jeopardy: state.is_in_jeopardy && state.cancelling.is_none(),
            gate,
        }
    }
}

/// An event of a campaign, before it is put into words.
#[derive(Debug, Clone, Copy)]
pub struct CampaignEvent<'a> {
    /// The campaign.
    pub definition: &'a Definition,
    /// What it has come to.
    pub state: &'a State,
    /// Devices that wait.
    pub waiting: u64,
    /// What happened.
    pub happened: &'a Happened,
    /// The operator's order that made it happen, and its correlation id.
    pub order: Option<(&'a str, Option<&'a str>)>,
    /// When.
    pub now: Timestamp,
}

/// How a campaign can stand.
pub(in crate::message) const STATES: [&str; 5] =
    ["running", "paused", "cancelling", "completed", "cancelled"];

/// What is known of a campaign: the whole of it, in each event. What is not known is absent, never null.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CampaignData")]
pub(in crate::message) struct Data<'a> {
    campaign_id: &'a str,
    #[schemars(extend("enum" = STATES))]
    state: &'static str,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = PauseReason::ALL.map(PauseReason::name)))]
    reason: Option<&'static str>,
    /// Why it is paused, in one sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// The operator's order that made it happen, by its place in the stream of orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'a str>,
    firmware_url: &'a str,
    /// When it was taken on; tells campaigns of the same name apart.
    #[schemars(with = "Rfc3339")]
    began_at: Timestamp,
    #[schemars(with = "Rfc3339")]
    requested_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Rfc3339>")]
    deadline: Option<Timestamp>,
    /// Of `upgrade.campaign.jeopardy`: when it would be done. Absent there: not within a year of nights.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Rfc3339>")]
    done_at: Option<Timestamp>,
    /// Of `upgrade.campaign.jeopardy`: whether the deadline cannot be met any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_jeopardy: Option<bool>,
    /// Of `upgrade.campaign.resumed`: so much later devices that the pause disarmed may be armed again, and count again, in whole seconds
    /// (`"1800s"`). Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    arm_again_after: Option<String>,
    /// Of `upgrade.campaign.resumed`, beside `arm_again_after`: they are armed again spread evenly over so long from then on, and all count
    /// again after it, in whole seconds (`"7200s"`). Absent: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    arm_again_over: Option<String>,
    /// Of `upgrade.campaign.accepted`: how many devices this request names.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<usize>,
    /// The rate as it has grown by now. Absent: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_per_minute: Option<f64>,
    counts: CountsData,
    /// The request's, untouched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    context: Option<&'a RawValue>,
}

/// Its devices, counted.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CampaignCounts")]
struct CountsData {
    /// Their turn has not come.
    waiting: u64,
    /// Started so far.
    released: u64,
    /// Under way, and take a place.
    in_flight: u32,
    /// Started, without an outcome.
    unfinished: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    /// Failed as the device reported a fault, configuration faults aside.
    device_fault: u64,
    /// Failed as their time was over.
    timed_out: u64,
    /// Failed with a fault that speaks of the file or its server.
    configuration: u64,
}

impl CampaignEvent<'_> {
    /// The message. A repeat of the same happening has the same id.
    #[must_use]
    pub fn message(&self, settings: &EventSettings) -> EventMessage {
        let Self {
            definition,
            state,
            happened,
            now,
            ..
        } = *self;
        let (kind, detail) = self.kind();
        let summary = Summary::of(state, self.waiting, None);
        let firmware_url = definition.firmware_url();
        let (reason, message) = match (happened, &state.paused) {
            (Happened::Paused { reason, message }, _) => {
                (Some(reason.name()), Some(message.as_str()))
            }
            (_, Some(paused)) if self.state_name() == "paused" => {
                (Some(paused.reason.name()), Some(paused.message.as_str()))
            }
            _ => (None, None),
        };
        let (in_jeopardy, done_at) = match happened {
            Happened::Jeopardy {
                is_in_jeopardy,
                done_at,
            } => (Some(*is_in_jeopardy), *done_at),
            _ => (None, None),
        };
        let arm_again = match happened {
            Happened::Resumed { arm_again } => *arm_again,
            _ => None,
        };
        let seconds = |time: SignedDuration| format!("{}s", time.as_secs());
        let arm_again_after = arm_again.map(|arm_again| seconds(arm_again.after));
        let arm_again_over = arm_again
            .filter(|arm_again| arm_again.over.is_positive())
            .map(|arm_again| seconds(arm_again.over));
        let devices = match happened {
            Happened::Accepted { devices, .. } => Some(*devices),
            _ => None,
        };
        let counts = summary.counts;
        let data = Data {
            campaign_id: definition.campaign_id.as_str(),
            state: self.state_name(),
            reason,
            message,
            order: self.order.map(|(order, _)| order),
            firmware_url: &firmware_url,
            began_at: definition.began_at,
            requested_at: definition.asked.at,
            deadline: definition.plan.deadline,
            done_at,
            in_jeopardy,
            arm_again_after,
            arm_again_over,
            devices,
            starts_per_minute: state.rate(&definition.plan),
            counts: CountsData {
                waiting: summary.waiting,
                released: counts.released,
                in_flight: summary.in_flight,
                unfinished: summary.unfinished,
                completed: counts.completed,
                failed: counts.failed,
                cancelled: counts.cancelled,
                device_fault: counts.device_fault,
                timed_out: counts.timed_out,
                configuration: counts.configuration,
            },
            context: definition.carried.context.as_deref(),
        };
        let name = format!("{}\0{}", definition.campaign_id, definition.began_at);
        let carried = &definition.carried;
        let envelope = Envelope {
            kind,
            id: event_id(&name, kind, detail.as_bytes()),
            subject: Some(definition.campaign_id.as_str()),
            campaign: definition.campaign_id.as_str(),
            time: now,
            traceparent: carried.traceparent.as_deref(),
            tracestate: carried.tracestate.as_deref(),
            correlation_id: match self.order {
                Some((_, correlation_id)) => correlation_id,
                None => carried.correlation_id.as_deref(),
            },
            reply_to: carried.reply_to.as_deref(),
        };
        envelope.seal(settings, data)
    }

    /// The kind of event, and what tells it from others of its kind.
    fn kind(&self) -> (EventKind, String) {
        let state = self.state;
        match self.happened {
            Happened::Accepted { request, .. } => (EventKind::CampaignAccepted, request.clone()),
            Happened::Progress => {
                let counts = state.counts();
                let detail = format!("{}:{}", counts.released, counts.finished());
                (EventKind::CampaignProgress, detail)
            }
            // A second order to cancel is answered as well.
            Happened::Cancelling => {
                let order = self.order.map_or("", |(order, _)| order);
                (EventKind::CampaignProgress, format!("cancelling:{order}"))
            }
            Happened::Paused { .. } => (EventKind::CampaignPaused, state.pauses.to_string()),
            Happened::Resumed { .. } => (EventKind::CampaignResumed, state.resumes.to_string()),
            Happened::Jeopardy { .. } => {
                (EventKind::CampaignJeopardy, state.jeopardies.to_string())
            }
            Happened::Concluded(conclusion) => {
                let kind = match conclusion {
                    Conclusion::Completed => EventKind::CampaignCompleted,
                    Conclusion::Cancelled => EventKind::CampaignCancelled,
                };
                // It is over once more where devices were added while another coordinator said so.
                let before = Some(state.conclusions).filter(|before| *before > 0);
                (
                    kind,
                    before.map(|before| before.to_string()).unwrap_or_default(),
                )
            }
        }
    }

    fn state_name(&self) -> &'static str {
        match self.happened {
            Happened::Concluded(Conclusion::Completed) => "completed",
            Happened::Concluded(Conclusion::Cancelled) => "cancelled",
            Happened::Cancelling => "cancelling",
            Happened::Paused { .. } => "paused",
            Happened::Resumed { .. } => "running",
            _ if self.state.cancelling.is_some() => "cancelling",
            _ if self.state.paused.is_some() => "paused",
            _ => "running",
        }
    }
}

/// The final event of a device that was never started: its campaign was cancelled, or its time is over.
#[must_use]
pub fn never_started(
    work: Work,
    conclusion: Conclusion,
    codec: &Codec,
    now: Timestamp,
) -> Vec<EventMessage> {
    let (outcome, reason, message) = match conclusion {
        Conclusion::Cancelled => (
            Outcome::Cancelled,
            Reason::Cancelled,
            "the campaign was cancelled before the device's turn came",
        ),
        Conclusion::Completed => (
            Outcome::Failed,
            Reason::TimedOut,
            "the campaign's deadline passed before the device's turn came",
        ),
    };
    let ending = Ending {
        outcome,
        reason,
        impact: Impact::None,
        message: message.to_owned(),
        result: None,
        fault: None,
        decided_at: now,
    };
    let took = elapsed(work.job.order.requested_at, now);
    let finished = JobEvent::Finished {
        ending: Box::new(ending),
        took,
    };
    codec.published_events(&work, &[finished], now)
}
