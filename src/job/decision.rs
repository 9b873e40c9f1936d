//! The closed vocabulary between core and driver: what is given to a decision, and the six verdicts that come out.

use jiff::{SignedDuration, Timestamp};

use super::event::JobEvent;
use super::machine::Step;
use super::outcome::Ending;
use super::state::Job;

/// When rules that a pause disarmed are armed again, as an operator says who resumes. Both in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArmAgain {
    /// How long after the resume a device without a result has certainly not begun; from 1 s to 1 d.
    pub after: SignedDuration,
    /// Over how long after that they are spread, so that not all devices come at once; to 1 d. Zero: not at all.
    pub over: SignedDuration,
}

/// What operators have ordered about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing: go on.
    #[default]
    Clear,
    /// Its campaign, or everything, is paused: no new rule, and what is armed is disarmed.
    Paused,
    /// It was paused until then: a copy of it may have been armed before, and its device be busy still.
    Resumed {
        /// When the pause was ended.
        at: Timestamp,
        /// When what the pause disarmed is armed again, as the operator says.
        arm_again: Option<ArmAgain>,
    },
    /// It shall end.
    Cancelled {
        /// When that was ordered: what the device reported before counts as ever.
        at: Timestamp,
    },
}

/// Everything a decision depends on besides the job and the answer.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// The wall clock.
    pub now: Timestamp,
    /// Spread for delays, in `0.0..1.0`, drawn by the shell.
    pub jitter: f64,
    /// What operators have ordered.
    pub standing: Standing,
    /// Whether this very delivery may have been worked on before (the broker's `redelivered`).
    pub redelivered: bool,
}

/// The six verdicts.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Ask the NBI again now, same delivery.
    Step(Step),
    /// The stage is done: hand the job over durably.
    Advance,
    /// The world is not ready: come back then. Costs no attempt.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// The call failed: come back then. Costs an attempt.
    Retry {
        /// When.
        until: Timestamp,
    },
    /// The worker's fault: the job goes back unchanged and costs nothing.
    Release {
        /// When it makes sense to take it up again.
        until: Timestamp,
    },
    /// The job has its outcome.
    Finish(Box<Ending>),
}

impl Next {
    /// The verdict's name in logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Step(_) => "step",
            Self::Advance => "advance",
            Self::Wait { .. } => "wait",
            Self::Retry { .. } => "retry",
            Self::Release { .. } => "release",
            Self::Finish(_) => "finish",
        }
    }
}

/// What was decided: the job as it is now, what to do with it, and what happened on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The job after the decision.
    pub job: Job,
    /// The verdict.
    pub next: Next,
    /// What happened, in order.
    pub events: Vec<JobEvent>,
}
