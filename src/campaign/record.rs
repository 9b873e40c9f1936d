//! What stands in a campaign's log, in the core's words.

use jiff::Timestamp;

use super::counts::Counts;
use super::plan::FailureKind;
use crate::job::{ArmAgain, CpeId, Outcome};

/// A device of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// Which.
    pub cpe_id: CpeId,
    /// What it shares with others that must not all be away at once, e.g. an access node.
    pub concurrency_key: Option<String>,
}

/// Why a campaign is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PauseReason {
    /// An operator said so.
    Operator,
    /// One of the campaign's `abort` criteria was met.
    Abort,
    /// Too many faults that speak of the file or its server.
    ConfigurationFaults,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Abort, Self::ConfigurationFaults];

    /// The word in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Abort => "abort",
            Self::ConfigurationFaults => "configuration_faults",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// One entry of a campaign's log.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Devices were added: once for each request.
    Accepted {
        /// When.
        at: Timestamp,
        /// When the campaign had begun, which tells it from others of the same name.
        began_at: Timestamp,
    },
    /// These devices are being started. Written before their requests are published.
    Released {
        /// The coordinator that does it; its next release says that this one is done.
        coordinator: String,
        /// When.
        at: Timestamp,
        /// Which.
        devices: Vec<Device>,
    },
    /// A device has its outcome.
    Finished {
        /// When.
        at: Timestamp,
        /// Which.
        cpe_id: CpeId,
        /// How.
        outcome: Outcome,
        /// What kind of failure it is, the most special one.
        failure: Option<FailureKind>,
    },
    /// Nothing is started any more.
    Paused {
        /// When.
        at: Timestamp,
        /// Why.
        reason: PauseReason,
        /// For people.
        message: String,
        /// The operator's order, if it was one.
        order: Option<String>,
    },
    /// It goes on; the failures so far are acknowledged, and the ends of what the pause disarmed.
    Resumed {
        /// When.
        at: Timestamp,
        /// When they may be armed again, and count again, as seen from then; `None`: never.
        arm_again: Option<ArmAgain>,
        /// The operator's order.
        order: Option<String>,
    },
    /// An operator resumed everything: the same for this campaign, which stays paused if it is.
    EverythingResumed {
        /// When.
        at: Timestamp,
        /// Whether everything was paused before.
        ends_pause: bool,
        /// As in a resumption of the campaign.
        arm_again: Option<ArmAgain>,
        /// The operator's order.
        order: String,
    },
    /// An operator has cancelled it: nothing is started any more, and what waits is being told.
    Cancelling {
        /// When.
        at: Timestamp,
        /// The operator's order.
        order: Option<String>,
    },
    /// The counts were published.
    Progressed {
        /// When.
        at: Timestamp,
        /// Which.
        counts: Counts,
    },
    /// The deadline can no longer be met (`true`), or can again.
    Jeopardy {
        /// Whether it is in jeopardy.
        is_in_jeopardy: bool,
    },
    /// It is over.
    Concluded {
        /// When it had begun: a log may hold the end of an earlier campaign of the same name.
        began_at: Timestamp,
    },
}
