//! `nbi-upgrade`: carries firmware upgrades of TR-069 devices through a management system's north-bound HTTP interface.
//!
//! The modules in reading order:
//!
//! - [`job`]: what a job is and what happens to it next. Pure; everything else serves it.
//! - [`campaign`]: how many devices of a fleet may be started, and when. Pure as well.
//! - [`message`]: requests in, continuations between workers, events out.
//! - [`nbi`]: the management system's HTTP interface.
//! - [`driver`]: how deliveries come in and verdicts go out, through RabbitMQ or in one process.
//! - [`worker`]: the loop that brings them together.
//! - [`telemetry`]: what people and Prometheus see.
//! - [`orphan`]: rules that no job owns any more.
//! - [`config`]: what operators set.
//! - [`simulator`]: the other side, as a model.
//! - [`app`]: the composition root.
//! - [`cli`]: the command line.
//! - [`clock`]: where the time comes from.
//! - `secret_file`, `tls`: secrets in files, and what a failed TLS handshake means.

pub mod app;
pub mod campaign;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod job;
pub mod message;
pub mod nbi;
pub mod orphan;
mod secret_file;
pub mod simulator;
pub mod telemetry;
mod tls;
pub mod worker;
