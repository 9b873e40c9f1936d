//! x
pub mod job;
