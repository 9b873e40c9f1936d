//! What happened to a job, in the past tense: the source of log lines, metrics and published events.

use jiff::{SignedDuration, Timestamp};

use super::fault::Fault;
use super::outcome::Ending;
use super::state::Stage;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The request is valid and about to be durable. Published.
    Accepted,
    /// A stage was left for good. Published where `events.progress` is `milestones`.
    StageDone {
        /// The stage.
        stage: Stage,
        /// The try of the device, from 1.
        attempt: u32,
        /// Time since the stage was first begun.
        took: SignedDuration,
    },
    /// The world is not ready yet.
    StageWaits {
        /// The stage.
        stage: Stage,
        /// Until when.
        until: Timestamp,
        /// For what, from a closed set.
        waiting_for: WaitingFor,
    },
    /// A call failed; the stage is tried again.
    StageRetried {
        /// The stage.
        stage: Stage,
        /// When.
        until: Timestamp,
        /// What failed.
        error: String,
    },
    /// A stage gave up.
    StageFailed {
        /// The stage.
        stage: Stage,
        /// What failed last.
        error: String,
    },
    /// The device reported a fault.
    DeviceFaulted {
        /// The fault.
        fault: Fault,
        /// Whether the device may try again.
        tries_again: bool,
    },
    /// The deadline can no longer be met, or hardly. Published, once a job.
    InJeopardy {
        /// The stage.
        stage: Stage,
        /// When the job is looked at next.
        next_look_at: Timestamp,
        /// For what it waits until then; `None`: for the NBI.
        waiting_for: Option<WaitingFor>,
    },
    /// The worker could not ask and gave the job back.
    Released {
        /// The stage.
        stage: Stage,
        /// Why.
        error: String,
    },
    /// A result came after the job had timed out. Published.
    Corrected {
        /// How it ended after all.
        ending: Box<Ending>,
    },
    /// The job is over. Published.
    Finished {
        /// How.
        ending: Box<Ending>,
        /// Time since it was requested.
        took: SignedDuration,
    },
}

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitingFor {
    /// The time before which nothing may happen.
    NotBefore,
    /// An operator's resume.
    Resume,
    /// Another job of the same device.
    OtherJob,
    /// The device's result.
    Result,
    /// The device's next try.
    NextAttempt,
    /// The device to come back with its version.
    Version,
}

impl WaitingFor {
    /// Everything that a job can wait for.
    pub const ALL: [Self; 6] = [
        Self::NotBefore,
        Self::Resume,
        Self::OtherJob,
        Self::Result,
        Self::NextAttempt,
        Self::Version,
    ];

    /// The name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotBefore => "not_before",
            Self::Resume => "resume",
            Self::OtherJob => "other_job",
            Self::Result => "result",
            Self::NextAttempt => "next_attempt",
            Self::Version => "version",
        }
    }
}
