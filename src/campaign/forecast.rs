//! When a campaign will be done, as far as pace, places, windows and what devices took so far tell.

use jiff::{SignedDuration, Timestamp};

use super::decide::closed_until;
use super::plan::Plan;
use super::state::State;
use super::window::Opening;

/// Windows and steps of the ramp looked at: a year of nights, and more.
const STEPS_MAX: usize = 1_000;

/// When the last device will be done, if the campaign goes on from now without a pause; `None`: not within a year of nights.
#[must_use]
pub fn done_at(plan: &Plan, state: &State, waiting: u64, now: Timestamp) -> Option<Timestamp> {
    let device = state.mean_duration().unwrap_or_default();
    let mut successes = state.counts().completed;
    let mut left = waiting as f64;
    let mut time = now;
    for _ in 0..STEPS_MAX {
        if left <= 0.0 {
            let is_any = waiting > 0 || state.unfinished() > 0;
            return if is_any {
                time.checked_add(device).ok()
            } else {
                Some(time)
            };
        }
        if let Some(opens_at) = closed_until(plan, time) {
            time = opens_at?;
            continue;
        }
        let Some(per_second) = per_second(plan, successes, device) else {
            left = 0.0;
            continue;
        };
        let (step, next) = match &plan.pace.ramp {
            Some(ramp) if plan.pace.rate(successes) < plan.pace.rate(u64::MAX) => {
                let every = u64::from(ramp.after_successes.max(1));
                let next = (successes / every + 1) * every;
                (left.min((next - successes) as f64), next)
            }
            _ => (left, successes),
        };
        let needs = seconds(step / per_second);
        let closes = plan
            .window
            .as_ref()
            .and_then(|window| match window.at(time) {
                Opening::Open { until } => Some(until),
                Opening::Closed { .. } => None,
            });
        match closes {
            Some(closes) if closes.duration_since(time) < needs => {
                let started = closes.duration_since(time).as_secs_f64() * per_second;
                left -= started;
                successes += started as u64;
                time = closes;
            }
            _ => {
                left -= step;
                successes = next;
                time = time.checked_add(needs).ok()?;
            }
        }
    }
    None
}

/// Whether the deadline cannot be met any more.
#[must_use]
pub fn is_in_jeopardy(plan: &Plan, state: &State, waiting: u64, now: Timestamp) -> bool {
    plan.deadline.is_some_and(|deadline| {
        done_at(plan, state, waiting, now).is_none_or(|done_at| done_at > deadline)
    })
}

/// Starts a second, as the pace allows and as places become free; `None`: no bound.
fn per_second(plan: &Plan, successes: u64, device: SignedDuration) -> Option<f64> {
    let by_pace = plan.pace.rate(successes).map(|rate| rate / 60.0);
    let by_places = plan
        .pace
        .max_in_flight
        .filter(|_| !device.is_zero())
        .map(|places| f64::from(places) / device.as_secs_f64());
    match (by_pace, by_places) {
        (Some(pace), Some(places)) => Some(pace.min(places)),
        (one, other) => one.or(other),
    }
}

fn seconds(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}
