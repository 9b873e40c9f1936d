//! The other side as a model: a management system with its rules and results, and the devices that it manages.
//!
//! [`Simulator`] is a plain deterministic struct: no clock, no threads, no I/O. Every call brings the time; devices live up to it
//! through a queue of events, so that a whole fleet costs only what happens in it. [`InProcessTransport`] puts it under the
//! worker's NBI client without a network, [`serve`] behind HTTP.
//!
//! Modelled: the storages of rules and results with the vendor's open questions as switches ([`Semantics`]), `SendCNR`,
//! `GetParameterValues`, devices with sessions, downloads, faults, reboots and silence, and failures of the way between
//! ([`TroublePlan`]).
//!
//! Not modelled: other storages, campaigns, `count` and `delete_objects`, conditions other than `cpeid`, access groups, the file
//! server (every URL exists unless the device's character says otherwise), CWMP itself.
//!
//! It shares no code with what it tests, but for the request and answer types of [`crate::nbi::Transport`].

mod admin;
pub mod device;
pub mod fleet;
pub mod http;
pub mod in_process;
mod life;
mod methods;
pub mod model;
mod openapi;
pub mod reply;
mod results;
mod rules;
pub mod semantics;
pub mod shared;
mod storage;
mod table;
pub mod trouble;
pub mod view;

#[cfg(test)]
mod tests;

pub use device::{AttemptResult, Device, DeviceState, Flash, version_of};
pub use fleet::{Character, Fleet};
pub use http::{Credentials, HttpSettings, serve};
pub use in_process::{InProcessSettings, InProcessTransport};
pub use model::{Simulator, SimulatorSettings};
pub use reply::{Call, Operation, Reply};
pub use semantics::{
    FailedAttempt, Filter, HttpStatus, Incomplete, OpenApi, PostOnExisting, Put, ReadingRules,
    ResultTime, Results, RowOrder, RuleRows, Semantics, TakenRule,
};
pub use shared::{Clock, SharedSimulator, tokio_clock};
pub use trouble::{Trouble, TroublePlan};
pub use view::{DeviceView, Summary};
