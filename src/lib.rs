//! `nbi-upgrade`: carries firmware upgrades of TR-069 devices through a management system's north-bound HTTP interface.

pub mod config;
pub mod driver;
pub mod job;
pub mod message;
pub mod nbi;
pub mod telemetry;
