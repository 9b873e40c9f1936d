//! What to do next: one action at a time, or when to ask again.

use jiff::{SignedDuration, Timestamp};

use super::criteria::trips;
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
    /// Why everything stands still, if it does.
    pub held: Option<Held>,
    /// When the campaign began.
    pub began_at: Timestamp,
}

/// Why everything stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// An operator's order, which disarmed the devices of all campaigns.
    Operator,
    /// This worker cannot ask the NBI. That disarms nothing.
    Nbi,
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
        /// At most so many, as the pace allows.
        at_most: u32,
        /// At most so many of them that take a place, as a device whose release nobody confirmed has one already.
        places: u32,
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
        held,
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
    let is_past_deadline = plan.deadline.is_some_and(|deadline| deadline <= now);
    let is_nothing_left = waiting == 0 && state.unfinished() == 0;
    if is_cancelling && waiting > 0 {
        return Action::Drain(Conclusion::Cancelled);
    }
    if is_past_deadline && waiting > 0 {
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
    let may_start = !is_cancelling && !is_past_deadline;
    // An operator's stop disarmed devices, whose ends say nothing; its end acknowledges them.
    if may_start
        && state.paused.is_none()
        && held != Some(Held::Operator)
        && let Some((reason, message)) = trips(plan, state)
    {
        return Action::Pause { reason, message };
    }
    if is_nothing_left {
        // What is added later must not start.
        if may_start && state.has_paused_itself() {
            return later(Gate::Paused, plan.deadline);
        }
        let over_at = accepted_at.checked_add(LINGER).unwrap_or(now);
        if over_at <= now {
            return Action::Conclude(Conclusion::Completed);
        }
        return later(Gate::NothingWaits, Some(over_at));
    }
    if waiting == 0 {
        return later(Gate::NothingWaits, None);
    }
    if state.paused.is_some() {
        return later(Gate::Paused, plan.deadline);
    }
    if held.is_some() {
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
    // Only the devices themselves can free places that were given and perhaps not used.
    if places == 0 && !state.has_unsettled() {
        return later(Gate::Places, state.expires_at(plan));
    }
    let Some(rate) = state.rate(plan) else {
        let at_most = u32::MAX;
        return Action::Release { at_most, places };
    };
    match state.pacer().allowed(rate, now) {
        0 => later(Gate::Pace, Some(state.pacer().next_at(rate, now))),
        at_most => Action::Release { at_most, places },
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
