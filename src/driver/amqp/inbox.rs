//! Deliveries that wait for the worker: steps before requests, so that work in flight does not starve behind new work.
//!
//! Bounded by the two prefetches, as each entry is an unacknowledged delivery. Entries keep their original message, so that they can be
//! given back unchanged; those of an ended generation are thrown away, as the broker delivers them again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::message::Delivery as Original;
use tokio::sync::Notify;

use super::consume::Source;
use super::shared::Token;
use crate::driver::Delivery;

/// A delivery, and the message it came as.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) delivery: Delivery<Token>,
    pub(super) original: Original,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Deliveries are handed out.
    Open,
    /// They wait.
    Shut,
    /// Nothing more will come.
    Finished,
}

#[derive(Debug)]
struct Entries {
    steps: VecDeque<Item>,
    requests: VecDeque<Item>,
    gate: Gate,
}

impl Entries {
    fn of(&mut self, source: Source) -> &mut VecDeque<Item> {
        match source {
            Source::Steps => &mut self.steps,
            Source::Requests => &mut self.requests,
        }
    }

    fn next(&mut self) -> Option<Item> {
        loop {
            let item = self
                .steps
                .pop_front()
                .or_else(|| self.requests.pop_front())?;
            if item.delivery.token.settler.is_usable() {
                return Some(item);
            }
        }
    }
}

/// The waiting deliveries of one process.
#[derive(Debug)]
pub(super) struct Inbox {
    entries: Mutex<Entries>,
    changed: Notify,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let entries = Entries {
            steps: VecDeque::new(),
            requests: VecDeque::new(),
            gate: Gate::Open,
        };
        Self {
            entries: Mutex::new(entries),
            changed: Notify::new(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a delivery.
    pub(super) fn push(&self, source: Source, item: Item) {
        self.entries().of(source).push_back(item);
        self.changed.notify_one();
    }

    /// Opens, shuts or finishes; finished stays finished.
    pub(super) fn set_gate(&self, gate: Gate) {
        let mut entries = self.entries();
        if entries.gate != Gate::Finished {
            entries.gate = gate;
        }
        drop(entries);
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The next delivery; `None` once finished.
    ///
    /// # Cancel safety
    ///
    /// Safe: an entry is taken and returned without an await between.
    pub(super) async fn next(&self) -> Option<Delivery<Token>> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // It may have come in between.
            if let Some(next) = self.take() {
                return next;
            }
            changed.await;
        }
    }

    /// What there is without waiting; `Some(None)` once finished.
    fn take(&self) -> Option<Option<Delivery<Token>>> {
        let mut entries = self.entries();
        match entries.gate {
            Gate::Finished => Some(None),
            Gate::Shut => None,
            Gate::Open => {
                let item = entries.next()?;
                let is_last = entries.steps.is_empty() && entries.requests.is_empty();
                drop(entries);
                if !is_last {
                    // One signal may have stood for several entries.
                    self.changed.notify_one();
                }
                Some(Some(item.delivery))
            }
        }
    }

    /// Takes everything of a queue out, to be given back.
    pub(super) fn drain(&self, source: Source) -> Vec<Item> {
        self.entries().of(source).drain(..).collect()
    }

    /// Throws away what an ended generation brought.
    pub(super) fn purge(&self, generation: usize) {
        let mut gone = Vec::new();
        let mut entries = self.entries();
        for source in Source::ALL {
            let queue = entries.of(source);
            let (stale, fresh) = queue
                .drain(..)
                .partition(|item: &Item| item.delivery.token.settler.link.number <= generation);
            *queue = fresh;
            let stale: VecDeque<Item> = stale;
            gone.extend(stale);
        }
        drop(entries);
        // Their claims end here, outside the lock.
        drop(gone);
    }
}
