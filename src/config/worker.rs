//! `[worker]`: the process.

use super::reader::Reader;

/// The process.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Threads that carry out jobs.
    pub threads: usize,
}

impl Worker {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            threads: reader.number("worker.threads", 1..=256),
        }
    }
}
