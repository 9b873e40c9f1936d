//! What was asked of a campaign besides the upgrade itself: pace, window, limits and when to stop.

use jiff::{SignedDuration, Timestamp};

use super::window::Window;
use crate::job::{Outcome, Reason};

/// What a campaign keeps to. Checked where it is read; never changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Nothing starts before it.
    pub not_before: Option<Timestamp>,
    /// Nothing starts after it; devices that still wait then have timed out.
    pub deadline: Option<Timestamp>,
    /// How fast.
    pub pace: Pace,
    /// Nothing starts outside it.
    pub window: Option<Window>,
    /// When the campaign pauses by itself.
    pub abort: Vec<Abort>,
    /// Devices of one concurrency key in flight at a time, at least 1.
    pub max_in_flight_per_key: Option<u32>,
    /// So many configuration faults pause the campaign whatever their share; 0: never.
    pub configuration_faults: u32,
}

/// How fast devices are started, over all workers together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pace {
    /// Starts in a minute, at least 1; `None`: no bound.
    pub starts_per_minute: Option<u32>,
    /// Devices under way at a time, at least 1; `None`: no bound.
    pub max_in_flight: Option<u32>,
    /// A device that has been under way for so long frees its place, though its job goes on; `None`: only its end does.
    pub in_flight_timeout: Option<SignedDuration>,
    /// How the rate grows.
    pub ramp: Option<Ramp>,
}

impl Pace {
    /// Starts in a minute after so many successes; `None`: no bound.
    #[must_use]
    pub fn rate(&self, successes: u64) -> Option<f64> {
        let first = f64::from(self.starts_per_minute?);
        let Some(ramp) = &self.ramp else {
            return Some(first);
        };
        let steps = successes / u64::from(ramp.after_successes.max(1));
        let steps = i32::try_from(steps).unwrap_or(i32::MAX);
        let most = f64::from(ramp.max_starts_per_minute).max(first);
        Some((first * ramp.factor.powi(steps)).min(most))
    }
}

/// How the rate grows as devices succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    /// The rate is multiplied by it, at least 1…
    pub factor: f64,
    /// …after each so many successes, at least 1.
    pub after_successes: u32,
    /// It grows no further than this.
    pub max_starts_per_minute: u32,
}

/// Which failures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// Every failure.
    Any,
    /// The device reported a fault.
    DeviceFault,
    /// The deadline of the device's job passed.
    TimedOut,
    /// A fault that speaks of the file or its server (`faults.configuration`).
    Configuration,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Any,
        Self::DeviceFault,
        Self::TimedOut,
        Self::Configuration,
    ];

    /// The contract's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::DeviceFault => "device_fault",
            Self::TimedOut => "timed_out",
            Self::Configuration => "configuration",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What kind of failure an outcome is, the most special one; `None` for what is no failure.
    #[must_use]
    pub fn of(outcome: Outcome, reason: Reason, is_configuration: bool) -> Option<Self> {
        match (outcome, reason) {
            (Outcome::Completed | Outcome::Cancelled, _) => None,
            (_, Reason::DeviceFault) if is_configuration => Some(Self::Configuration),
            (_, Reason::DeviceFault) => Some(Self::DeviceFault),
            (_, Reason::TimedOut) => Some(Self::TimedOut),
            (Outcome::Failed | Outcome::Rejected, _) => Some(Self::Any),
        }
    }
}

/// When a campaign pauses by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Abort {
    /// Which failures count.
    pub failure: FailureKind,
    /// Their share among all that finished, in percent, above 0 and at most 100; reached is enough.
    pub percent: f64,
    /// So many must have finished before the share means anything.
    pub min_finished: u32,
}
