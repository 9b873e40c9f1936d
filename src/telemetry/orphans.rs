//! The metrics of sweeps: rules of ours that are armed and that no job owns.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};

use super::names;
use super::register::Register;

/// How sure it is that nobody owns a rule.
pub(super) const CERTAINTIES: [&str; 2] = ["sure", "unsure"];

/// How a sweep ended.
pub(super) const SWEEP_RESULTS: [&str; 3] = ["whole", "partial", "failed"];

/// What the one worker that sweeps has seen. Only its worker shows more than zeros.
#[derive(Debug)]
pub(super) struct OrphanMetrics {
    pub(super) left: IntGaugeVec,
    pub(super) disarmed: IntCounter,
    pub(super) sweeps: IntCounterVec,
}

impl OrphanMetrics {
    /// All of them, every closed combination at zero.
    pub(super) fn new(new: &Register<'_>) -> Self {
        let metrics = Self {
            left: new.gauges(
                names::ORPHAN_RULES,
                "Rules that are armed and that no job owns, as last looked at (sweep.interval); unsure: the history does not say.",
                &["certainty"],
            ),
            disarmed: new.counter(
                names::ORPHAN_RULES_DISARMED,
                "Rules without an owner that sweeps have disarmed (sweep.disarm).",
            ),
            sweeps: new.counters(
                names::SWEEPS,
                "Looks for rules that no job owns; partial: not every rule could be seen.",
                &["result"],
            ),
        };
        for certainty in CERTAINTIES {
            metrics.left.with_label_values(&[certainty]);
        }
        for result in SWEEP_RESULTS {
            metrics.sweeps.with_label_values(&[result]);
        }
        metrics
    }
}
