//! When a campaign will be done, as far as pace, places, windows and what devices took so far tell.

use jiff::{SignedDuration, Timestamp};

use super::decide::closed_until;
use super::plan::Plan;
use super::state::State;
use super::window::Opening;

/// Windows and steps of the ramp looked at: a year of nights, and more.
const STEPS_MAX: usize = 2_000;

/// The ramp is taken in steps that let the rate grow by this, or more: 700 from one start a minute to the most that can be asked for.
const GROWTH: f64 = 1.02;

/// When the last device will be done, if the campaign goes on from now without a pause; `None`: not within a year of nights.
#[must_use]
pub fn done_at(plan: &Plan, state: &State, waiting: u64, now: Timestamp) -> Option<Timestamp> {
    let device = state.mean_duration().unwrap_or_default();
    if waiting == 0 {
        // Those under way have been for some time.
        let begun = state.released_at.filter(|_| state.unfinished() > 0);
        return begun.map_or(Some(now), |begun| {
            Some(begun.checked_add(device).ok()?.max(now))
        });
    }
    let mut successes = state.counts().completed;
    let mut left = waiting as f64;
    let mut time = now;
    let mut has_begun = false;
    for _ in 0..STEPS_MAX {
        if left <= 0.0 {
            return time.checked_add(device).ok();
        }
        if let Some(opens_at) = closed_until(plan, time) {
            time = opens_at?;
            continue;
        }
        let by_pace = plan.pace.rate(successes).map(|rate| rate / 60.0);
        let by_places = by_places(plan, state);
        let per_second = match (by_pace, by_places) {
            (Some(pace), Some(places)) => pace.min(places),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => {
                left = 0.0;
                continue;
            }
        };
        if !has_begun {
            has_begun = true;
            // Where places are the bound, those that are free now need not become so.
            if by_places == Some(per_second) {
                let taken = if time == now { state.in_flight() } else { 0 };
                let places = plan.pace.max_in_flight.unwrap_or_default();
                left -= f64::from(places.saturating_sub(taken));
                continue;
            }
        }
        let (step, next) = match &plan.pace.ramp {
            Some(ramp) if plan.pace.rate(successes) < plan.pace.rate(u64::MAX) => {
                let every = u64::from(ramp.after_successes.max(1));
                let steps = (GROWTH.ln() / ramp.factor.ln()).ceil().max(1.0) as u64;
                let next = (successes / every)
                    .saturating_add(steps)
                    .saturating_mul(every);
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

/// Whether the deadline cannot be met any more; `None`: that is no question, or none any more, as there is no deadline, it has come, or the
/// campaign is being cancelled.
#[must_use]
pub fn is_in_jeopardy(plan: &Plan, state: &State, waiting: u64, now: Timestamp) -> Option<bool> {
    let deadline = plan.deadline.filter(|deadline| now < *deadline)?;
    if state.cancelling.is_some() {
        return None;
    }
    let done_at = done_at(plan, state, waiting, now);
    Some(done_at.is_none_or(|done_at| done_at > deadline))
}

/// Starts a second as places become free; `None`: no bound.
fn by_places(plan: &Plan, state: &State) -> Option<f64> {
    let places = plan.pace.max_in_flight?;
    let kept = state.mean_place_time().filter(|kept| !kept.is_zero())?;
    Some(f64::from(places) / kept.as_secs_f64())
}

fn seconds(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}
