//! Devices of a campaign, counted by what became of them.

use super::plan::FailureKind;
use crate::job::Outcome;

/// Devices by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Started, each counted once.
    pub released: u64,
    /// The device runs the firmware.
    pub completed: u64,
    /// It does not, or nobody knows; rejected requests are among them.
    pub failed: u64,
    /// Ended by an operator.
    pub cancelled: u64,
    /// Failed with a fault that the device reported.
    pub device_fault: u64,
    /// Failed as time ran out.
    pub timed_out: u64,
    /// Failed with a fault that speaks of the file or its server; not among `device_fault`.
    pub configuration: u64,
}

impl Counts {
    /// Counts an outcome.
    pub(super) fn finish(&mut self, outcome: Outcome, failure: Option<FailureKind>) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Failed | Outcome::Rejected => self.failed += 1,
        }
        match failure {
            Some(FailureKind::DeviceFault) => self.device_fault += 1,
            Some(FailureKind::TimedOut) => self.timed_out += 1,
            Some(FailureKind::Configuration) => self.configuration += 1,
            Some(FailureKind::Any) | None => {}
        }
    }

    /// Devices that have their outcome.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }

    /// Failures of a kind. A configuration fault is a device's fault too.
    #[must_use]
    pub fn failures(&self, kind: FailureKind) -> u64 {
        match kind {
            FailureKind::Any => self.failed,
            FailureKind::DeviceFault => self.device_fault + self.configuration,
            FailureKind::TimedOut => self.timed_out,
            FailureKind::Configuration => self.configuration,
        }
    }

    /// What was added since then.
    #[must_use]
    pub fn since(&self, earlier: Self) -> Self {
        Self {
            released: self.released - earlier.released,
            completed: self.completed - earlier.completed,
            failed: self.failed - earlier.failed,
            cancelled: self.cancelled - earlier.cancelled,
            device_fault: self.device_fault - earlier.device_fault,
            timed_out: self.timed_out - earlier.timed_out,
            configuration: self.configuration - earlier.configuration,
        }
    }
}
