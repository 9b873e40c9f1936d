//! When a campaign pauses by itself, and which outcomes count for that.

use jiff::Timestamp;

use super::counts::Counts;
use super::plan::Plan;
use super::record::PauseReason;
use super::state::State;
use crate::job::ArmAgain;

/// Devices that a pause may have disarmed: what becomes of them says nothing about the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disarmed {
    /// Those released until then: when the pause ended.
    released_until: Timestamp,
    /// Until then, when the last of them may be armed again; `None`: for good.
    until: Option<Timestamp>,
}

impl Disarmed {
    /// What a resume makes of it. One that ended no pause disarmed nothing more; it can only vouch for what was disarmed before.
    pub(super) fn resumed(
        before: Option<Self>,
        at: Timestamp,
        ends_pause: bool,
        arm_again: Option<ArmAgain>,
    ) -> Option<Self> {
        // Those whose share of `over` is the largest are disarmed until then.
        let until = arm_again.map(|ArmAgain { after, over }| {
            at.checked_add(after.saturating_add(over))
                .unwrap_or(Timestamp::MAX)
        });
        if ends_pause {
            return Some(Self {
                released_until: at,
                until,
            });
        }
        before.map(|before| Self {
            until: until.or(before.until),
            ..before
        })
    }

    /// Whether the outcome at `at` of a device that was released at `since` is of these.
    pub(super) fn holds(self, since: Timestamp, at: Timestamp) -> bool {
        since <= self.released_until && self.until.is_none_or(|until| at < until)
    }
}

impl State {
    /// What abort criteria look at: outcomes since the last resumption, of devices that were started and that no pause disarmed.
    #[must_use]
    pub fn unacknowledged(&self) -> Counts {
        self.counts.since(self.acknowledged)
    }
}

/// The first criterion that is met.
pub(super) fn trips(plan: &Plan, state: &State) -> Option<(PauseReason, String)> {
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
