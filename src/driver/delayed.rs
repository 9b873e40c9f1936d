//! What waits for its time, ordered by it.

use std::cmp::Ordering;

use jiff::Timestamp;

/// Something that waits; the same times go by arrival.
#[derive(Debug)]
pub(super) struct Delayed<M> {
    /// When it is due.
    pub(super) due: Timestamp,
    /// Tells those apart that are due at the same time.
    pub(super) arrival: u64,
    /// What waits.
    pub(super) message: M,
}

impl<M> PartialEq for Delayed<M> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.arrival) == (other.due, other.arrival)
    }
}

impl<M> Eq for Delayed<M> {}

impl<M> PartialOrd for Delayed<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> Ord for Delayed<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.arrival).cmp(&(other.due, other.arrival))
    }
}
