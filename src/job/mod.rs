//! The core: what a job is and what happens to it next.
//!
//! Pure: no I/O, no clock, no randomness, no logging, no serialisation. Time, jitter and what operators have ordered
//! come in as [`Inputs`]; what the NBI answered comes in as [`NbiAnswer`] or [`NbiFailure`]; what should happen goes out as
//! a [`Decision`]. The worker asks, this folder decides, the driver carries out.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm
)]

pub mod state;

pub mod machine;
pub mod stages;
pub mod tag;
pub mod traces;
pub mod turn;

pub mod late;
pub mod pause;

pub mod call;
pub mod decision;
pub mod event;
pub mod fault;
pub mod outcome;
pub mod policy;
pub mod retry;

#[cfg(test)]
mod tests;

pub use call::{ListedRule, NbiAnswer, NbiCall, NbiFailure, Purpose, ResultRow, RuleRow, RuleSpec};
pub use decision::{ArmAgain, Decision, Inputs, Next, Standing};
pub use event::{JobEvent, WaitingFor};
pub use machine::{Step, begin, decide};
pub use outcome::{Ending, Impact, Outcome, Reason, RuleState};
pub use policy::Policy;
pub use state::{CampaignId, CpeId, FirmwareUrl, Job, JobId, RuleId, Stage};
