//! `nbi-upgrade`: carries firmware upgrades of TR-069 devices through a management system's north-bound HTTP interface.

pub mod clock;
pub mod driver;
pub mod job;
pub mod message;
pub mod nbi;
pub mod simulator;
pub mod telemetry;
pub mod worker;
