//! The queues that a dead letter may have come from, and goes back to.

use super::outgoing::Target;

/// A queue that a dead letter may go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The requests.
    Requests,
    /// The continuations.
    Steps,
    /// Requests with devices, on their way to the leader of campaigns.
    CampaignRequests,
    /// Orders that wait for their answer.
    Commands,
}

impl Origin {
    const ALL: [Self; 4] = [
        Self::Requests,
        Self::Steps,
        Self::CampaignRequests,
        Self::Commands,
    ];

    /// The queue's short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Steps => "steps",
            Self::CampaignRequests => "campaigns.requests",
            Self::Commands => "commands",
        }
    }
    /// The one whose queue has this name.
    pub(super) fn of(queue: &str, prefix: &str) -> Option<Self> {
        let name = queue.strip_prefix(prefix)?.strip_prefix('.')?;
        Self::ALL.into_iter().find(|origin| origin.name() == name)
    }

    /// Where a letter goes to be there again.
    pub(super) fn target(self, prefix: &str) -> Target {
        match self {
            Self::Requests => Target::RequestsQueue,
            Self::Steps => Target::Steps,
            Self::CampaignRequests => Target::CampaignRequests,
            Self::Commands => Target::Queue(format!("{prefix}.{}", self.name())),
        }
    }
}
