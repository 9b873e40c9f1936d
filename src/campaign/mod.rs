//! The core of campaigns: how many devices of a fleet may be started now, and what the campaign has come to.
//!
//! Pure, as [`crate::job`] is: no I/O, no clock, no randomness, no logging, no serialisation. A campaign is a [`Plan`] and a
//! [`State`]; the state is folded from [`Record`]s in the order of the campaign's log and from nothing else, so that whoever reads the
//! log knows what its predecessor knew. [`decide()`] says what to do next; the coordinator in `driver/amqp/campaign/` does it, writes it
//! into the log, and believes it when it reads it back.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm
)]

pub mod plan;
pub mod window;

pub mod counts;
pub mod pace;
pub mod record;
pub mod state;

mod admission;
mod criteria;
pub mod decide;
pub mod forecast;

#[cfg(test)]
mod tests;

pub use admission::Admission;
pub use counts::Counts;
pub use decide::{Action, Conclusion, Gate, Held, Situation, decide};
pub use plan::{Abort, FailureKind, Pace, Plan, Ramp};
pub use record::{Device, PauseReason, Record};
pub use state::{Paused, State};
pub use window::{Opening, Window};
