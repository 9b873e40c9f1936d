//! How a job can end: the outcome, its reason, what it means for the device, and what became of the rule.

use jiff::Timestamp;

use super::call::ResultRow;
use super::fault::Fault;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The contract's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}

names! {
    /// The last word about a job.
    Outcome {
        /// The device runs the firmware, as far as the NBI says.
        Completed = "completed",
        /// It does not, or nobody knows.
        Failed = "failed",
        /// An operator ended it.
        Cancelled = "cancelled",
        /// The request was not valid.
        Rejected = "rejected",
    }
}

names! {
    /// Why.
    Reason {
        /// This job upgraded the device.
        Upgraded = "upgraded",
        /// An earlier copy of this job did.
        AlreadyDone = "already_done",
        /// The device ran the expected version before.
        AlreadyCurrent = "already_current",
        /// The device reported a fault.
        DeviceFault = "device_fault",
        /// The deadline passed.
        TimedOut = "timed_out",
        /// The NBI answered that it will not do this.
        NbiRejected = "nbi_rejected",
        /// The NBI did not answer often enough.
        NbiUnavailable = "nbi_unavailable",
        /// The NBI's answers could not be understood.
        NbiProtocolError = "nbi_protocol_error",
        /// The device could not be woken and `connection_request.on_failure` is `fail`.
        ConnectionRequestFailed = "connection_request_failed",
        /// The device reports another version than expected.
        VersionMismatch = "version_mismatch",
        /// Another job took the rule over.
        Superseded = "superseded",
        /// Another job held the device until the deadline, or `job.on_busy` is `fail`.
        DeviceBusy = "device_busy",
        /// An operator cancelled the job.
        Cancelled = "cancelled",
        /// The request was not valid.
        InvalidRequest = "invalid_request",
    }
}

impl Reason {
    /// The outcome that a job with this reason has.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Upgraded | Self::AlreadyDone | Self::AlreadyCurrent => Outcome::Completed,
            Self::DeviceFault
            | Self::TimedOut
            | Self::NbiRejected
            | Self::NbiUnavailable
            | Self::NbiProtocolError
            | Self::ConnectionRequestFailed
            | Self::VersionMismatch
            | Self::Superseded
            | Self::DeviceBusy => Outcome::Failed,
            Self::Cancelled => Outcome::Cancelled,
            Self::InvalidRequest => Outcome::Rejected,
        }
    }
}

names! {
    /// What a NOC needs to know first: may the device have been changed?
    Impact {
        /// The device was certainly not touched by this job.
        None = "none",
        /// It may have been told to upgrade, and may still do so.
        Possible = "possible",
        /// It was upgraded.
        Applied = "applied",
        /// It reported something that fits neither.
        Unknown = "unknown",
    }
}

names! {
    /// What this job knows of its rule.
    RuleState {
        /// No write that could arm it was tried.
        NotCreated = "not_created",
        /// It is armed, or may be.
        Armed = "armed",
        /// It is disarmed.
        Deactivated = "deactivated",
        /// It is gone.
        Deleted = "deleted",
        /// It was left armed because the request said so.
        Kept = "kept",
        /// It could not be disarmed: somebody must look.
        CleanupFailed = "cleanup_failed",
        /// It belongs to another job now.
        Superseded = "superseded",
    }
}

/// The outcome, fixed while the rule is still being put away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The last word.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What it means for the device.
    pub impact: Impact,
    /// For people.
    pub message: String,
    /// The result that decided it.
    pub result: Option<ResultRow>,
    /// The device's fault.
    pub fault: Option<Fault>,
    /// When it was decided.
    pub decided_at: Timestamp,
}
