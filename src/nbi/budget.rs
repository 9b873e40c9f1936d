//! The three budgets of calls and what each may take of the whole; the classes within each, and which of them go first.
//!
//! Rule writes, connection requests and reads differ in what they cost the NBI and in what waits for them: a read is cheap and
//! frequent, a connection request may take as long as a sleeping device, and a write that disarms a rule is what keeps a fleet
//! safe. Each may be held to a share of its own; `nbi.max_concurrency` and `nbi.requests_per_second` bound all of them
//! together, whatever the budgets say. `limit.rs` enforces it, and lets writes that put a rule away go before those that arm one, and the
//! reads right before either go before all others.

use std::time::Duration;

use crate::job::{NbiCall, Purpose};

/// What kind of work a call is for the NBI. The first two are the writes, the last three the reads: they have one budget and one name each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallClass {
    /// Disarms or deletes a rule. Shares the budget of writes with [`CallClass::Arm`], and goes first.
    PutAway,
    /// Creates or updates a rule, armed.
    Arm,
    /// Wakes a device.
    ConnectionRequest,
    /// Reads a rule that is to be put away. Shares the budget of reads, and goes first.
    ReadToPutAway,
    /// Reads what must not be old when a rule is armed. Shares the budget of reads, and goes before [`CallClass::Read`].
    ReadToArm,
    /// Reads rules, results or the version of a device.
    Read,
}

impl CallClass {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// The class of a call.
    #[must_use]
    pub fn of(call: &NbiCall) -> Self {
        match call {
            NbiCall::DisarmRule { .. } | NbiCall::DeleteRule { .. } => Self::PutAway,
            NbiCall::CreateRule(_) | NbiCall::UpdateRule(_) => Self::Arm,
            NbiCall::SendConnectionRequest { .. } => Self::ConnectionRequest,
            NbiCall::ReadResults { purpose, .. } | NbiCall::ReadRule { purpose, .. } => {
                match purpose {
                    Purpose::PutAway => Self::ReadToPutAway,
                    Purpose::Arm => Self::ReadToArm,
                    Purpose::Look => Self::Read,
                }
            }
            NbiCall::ListRules { .. } | NbiCall::ReadVersion { .. } => Self::Read,
        }
    }

    /// The name in metrics, as the configuration's keys begin with it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PutAway | Self::Arm => "writes",
            Self::ConnectionRequest => "connection_requests",
            Self::ReadToPutAway | Self::ReadToArm | Self::Read => "reads",
        }
    }

    /// Its number, below [`CallClass::COUNT`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::PutAway => 0,
            Self::Arm => 1,
            Self::ConnectionRequest => 2,
            Self::ReadToPutAway => 3,
            Self::ReadToArm => 4,
            Self::Read => 5,
        }
    }

    /// Whether a device may begin because of it, or because of what follows from it at once.
    pub(crate) fn may_begin(self) -> bool {
        match self {
            Self::Arm | Self::ConnectionRequest | Self::ReadToArm => true,
            Self::PutAway | Self::ReadToPutAway | Self::Read => false,
        }
    }
}

/// Whether the NBI asks the device before it answers: such a call takes as long as the device, and its failure may be the device's.
pub(crate) fn asks_device(call: &NbiCall) -> bool {
    matches!(
        call,
        NbiCall::SendConnectionRequest { .. } | NbiCall::ReadVersion { .. }
    )
}

/// What one class of calls may take; `None` leaves it to the overall bound.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    /// Calls under way at once.
    pub max_concurrency: Option<usize>,
    /// Calls a second.
    pub per_second: Option<f64>,
    /// The whole request, from connecting to the last byte of the body.
    pub timeout: Option<Duration>,
}

/// The budget of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budgets {
    /// `nbi.writes_…`.
    pub writes: Budget,
    /// `nbi.connection_requests_…`.
    pub connection_requests: Budget,
    /// `nbi.reads_…`.
    pub reads: Budget,
}

impl Budgets {
    /// The budget of a class.
    #[must_use]
    pub fn of(&self, class: CallClass) -> &Budget {
        match class {
            CallClass::PutAway | CallClass::Arm => &self.writes,
            CallClass::ConnectionRequest => &self.connection_requests,
            CallClass::ReadToPutAway | CallClass::ReadToArm | CallClass::Read => &self.reads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{CpeId, RuleId};

    #[test]
    fn a_read_is_of_the_class_of_what_it_is_for_and_of_one_budget_with_the_others() {
        for (purpose, expected) in [
            (Purpose::PutAway, CallClass::ReadToPutAway),
            (Purpose::Arm, CallClass::ReadToArm),
            (Purpose::Look, CallClass::Read),
        ] {
            let rule_id = RuleId::parse("R").unwrap();
            let cpe_id = CpeId::parse("x").unwrap();
            let results = NbiCall::ReadResults {
                rule_id: rule_id.clone(),
                cpe_id,
                purpose,
            };
            for read in [results, NbiCall::ReadRule { rule_id, purpose }] {
                let class = CallClass::of(&read);
                assert_eq!((class, class.name()), (expected, "reads"));
            }
        }
    }
}
