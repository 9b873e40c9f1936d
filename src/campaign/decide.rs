//! What to do next: one action at a time, or when to ask again.

use jiff::{SignedDuration, Timestamp};

use super::plan::Plan;
use super::record::PauseReason;
use super::state::State;
use super::window::Opening;

/// Requests of one campaign may come one after another; a campaign whose devices are all done waits so long for more.
const LINGER: SignedDuration = SignedDuration::from_secs(5);

/// A campaign whose request does not come, or whose log was lost when all its devices were done, is given up so long after it began.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Nothing is looked at less often than this.
const LOOK_AT_LEAST: SignedDuration = SignedDuration::from_secs(30);

/// What the coordinator sees besides the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Now.
    pub now: Timestamp,
    /// Devices in the queue and at hand.
    pub waiting: u64,
    /// Whether everything stands still, by an operator's order or as this worker cannot ask the NBI.
    pub is_held: bool,
    /// When the campaign began.
    pub began_at: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing is to be done now.
    Wait {
        /// Why.
        gate: Gate,
        /// Ask again then, or when something happened.
        until: Timestamp,
    },
    /// Start devices.
    Release {
        /// At most so many.
        at_most: u32,
    },
    /// Pause the campaign.
    Pause {
        /// Why.
        reason: PauseReason,
        /// For people.
        message: String,
    },
    /// Tell the devices that wait their outcome: they will not be started.
    Drain(Conclusion),
    /// It is over.
    Conclude(Conclusion),
    /// It is over, and nothing is known that could be told: no request was accepted as far as the log says, and no device waits.
    Abandon,
}

/// How a campaign ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// Every device has its outcome.
    Completed,
    /// An operator ended it.
    Cancelled,
}

/// What keeps devices from being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The requests of the campaign have not arrived.
    NotAccepted,
    /// It is paused.
    Paused,
    /// Everything stands still.
    Held,
    /// `not_before`, or the window.
    Window,
    /// The pace.
    Pace,
    /// Places in flight.
    Places,
    /// No device waits.
    NothingWaits,
}

/// What to do now. The caller has [expired](State::expire) silent devices.
#[must_use]
pub fn decide(plan: &Plan, state: &State, situation: Situation) -> Action {
    let Situation {
        now,
        waiting,
        is_held,
        began_at,
    } = situation;
    let later = |gate, at: Option<Timestamp>| {
        let latest = now.checked_add(LOOK_AT_LEAST).unwrap_or(now);
        Action::Wait {
            gate,
            until: at.unwrap_or(latest).min(latest),
        }
    };
    let is_cancelling = state.cancelling.is_some();
    let is_nothing_left = waiting == 0 && state.unfinished() == 0;
    if is_cancelling && waiting > 0 {
        return Action::Drain(Conclusion::Cancelled);
    }
    if plan.deadline.is_some_and(|deadline| deadline <= now) && waiting > 0 {
        return Action::Drain(Conclusion::Completed);
    }
    if is_cancelling && is_nothing_left {
        return Action::Conclude(Conclusion::Cancelled);
    }
    let Some(accepted_at) = state.accepted_at else {
        let given_up_at = began_at.checked_add(GIVEN_UP_AFTER).unwrap_or(now);
        if is_nothing_left && given_up_at <= now {
            return Action::Abandon;
        }
        return later(Gate::NotAccepted, None);
    };
    if is_nothing_left {
        let over_at = accepted_at.checked_add(LINGER).unwrap_or(now);
        if over_at <= now {
            return Action::Conclude(Conclusion::Completed);
        }
        return later(Gate::NothingWaits, Some(over_at));
    }
    if state.paused.is_none()
        && !is_cancelling
        && let Some((reason, message)) = trips(plan, state)
    {
        return Action::Pause { reason, message };
    }
    if waiting == 0 {
        return later(Gate::NothingWaits, None);
    }
    if state.paused.is_some() {
        return later(Gate::Paused, plan.deadline);
    }
    if is_held {
        return later(Gate::Held, plan.deadline);
    }
    match closed_until(plan, now) {
        Some(opens_at) => later(Gate::Window, opens_at),
        None => release(plan, state, now, later),
    }
}

/// How many, as pace and places allow.
fn release(
    plan: &Plan,
    state: &State,
    now: Timestamp,
    later: impl Fn(Gate, Option<Timestamp>) -> Action,
) -> Action {
    let places = plan
        .pace
        .max_in_flight
        .map_or(u32::MAX, |most| most.saturating_sub(state.in_flight()));
    if places == 0 {
        return later(Gate::Places, state.expires_at(plan));
    }
    let Some(rate) = state.rate(plan) else {
        return Action::Release { at_most: places };
    };
    match state.pacer().allowed(rate, now).min(places) {
        0 => later(Gate::Pace, Some(state.pacer().next_at(rate, now))),
        at_most => Action::Release { at_most },
    }
}

/// Whether the calendar keeps devices from being started, and until when.
pub(super) fn closed_until(plan: &Plan, now: Timestamp) -> Option<Option<Timestamp>> {
    if let Some(not_before) = plan.not_before.filter(|not_before| *not_before > now) {
        return Some(Some(not_before));
    }
    match plan.window.as_ref()?.at(now) {
        Opening::Open { .. } => None,
        Opening::Closed { opens_at } => Some(opens_at),
    }
}

/// The first criterion that is met by what has finished since the last resumption.
fn trips(plan: &Plan, state: &State) -> Option<(PauseReason, String)> {
    let counts = state.unacknowledged();
    let faults = counts.configuration;
    if plan.configuration_faults > 0 && faults >= u64::from(plan.configuration_faults) {
        let message = format!(
            "{faults} devices reported faults that speak of the file or its server; look at firmware_url, then resume"
        );
        return Some((PauseReason::ConfigurationFaults, message));
    }
    plan.abort.iter().find_map(|abort| {
        let (failed, finished) = (counts.failures(abort.failure), counts.finished());
        let is_met = finished >= u64::from(abort.min_finished)
            && failed > 0
            && failed as f64 * 100.0 >= abort.percent * finished as f64;
        is_met.then(|| {
            let message = format!(
                "{failed} of {finished} finished devices failed ({}): {} %; the limit is {} %",
                abort.failure.name(),
                rounded(failed as f64 * 100.0 / finished as f64),
                abort.percent
            );
            (PauseReason::Abort, message)
        })
    })
}

/// To a tenth, which is enough to be told.
fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}
