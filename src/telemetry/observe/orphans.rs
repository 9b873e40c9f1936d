//! What sweeps see.

use super::{TARGET, cut};
use crate::telemetry::Telemetry;
use crate::telemetry::orphans::{CERTAINTIES, SWEEP_RESULTS};

/// What a sweep has seen and done.
#[derive(Debug, Clone, Copy)]
pub struct Swept<'a> {
    /// Rules that nobody owns and that are armed still.
    pub orphans: usize,
    /// Armed rules of which nobody knows.
    pub unsure: usize,
    /// Rules that were disarmed.
    pub disarmed: usize,
    /// Whether every rule was seen.
    pub is_whole: bool,
    /// What could not be seen, for people.
    pub notes: &'a [String],
}

impl Telemetry {
    /// A sweep is done.
    pub fn swept(&self, swept: &Swept<'_>) {
        self.orphans_are([swept.orphans, swept.unsure]);
        let metrics = &self.metrics.orphans;
        metrics.disarmed.inc_by(swept.disarmed as u64);
        let result = SWEEP_RESULTS[usize::from(!swept.is_whole)];
        metrics.sweeps.with_label_values(&[result]).inc();
        let (orphans, unsure, disarmed) = (swept.orphans, swept.unsure, swept.disarmed);
        let notes = swept.notes.join("; ");
        let notes = (!notes.is_empty()).then(|| cut(&notes));
        if orphans + unsure + disarmed > 0 || !swept.is_whole {
            tracing::warn!(target: TARGET, orphans, unsure, disarmed, notes, "swept, and something was there");
        } else {
            tracing::info!(target: TARGET, notes, "swept, nothing was there");
        }
    }

    /// What became of one rule that was to be disarmed: `done` in a word, `why` where there is more to say.
    pub fn orphan_handled(&self, rule_id: &str, cpe_id: &str, done: &str, why: Option<&str>) {
        let why = why.map(cut);
        tracing::warn!(target: TARGET, rule_id, cpe_id, done, why, "orphan rule handled");
    }

    /// A sweep failed; what was seen before stands.
    pub fn sweep_failed(&self, error: &str) {
        let sweeps = &self.metrics.orphans.sweeps;
        sweeps.with_label_values(&[SWEEP_RESULTS[2]]).inc();
        tracing::warn!(target: TARGET, error = cut(error), "sweep failed");
    }

    /// Another worker sweeps.
    pub fn sweeps_elsewhere(&self) {
        self.orphans_are([0, 0]);
    }

    fn orphans_are(&self, counts: [usize; 2]) {
        for (certainty, count) in CERTAINTIES.into_iter().zip(counts) {
            let left = self.metrics.orphans.left.with_label_values(&[certainty]);
            left.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
