//! What happened in a run: an append-only log in virtual time, and the facts that the checks look at.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use nbi_upgrade::clock::Clock;
use serde_json::Value;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    /// The worker, or 0 for the world.
    pub(crate) worker: usize,
    pub(crate) what: String,
}

/// A final event that reached the broker.
#[derive(Debug, Clone)]
pub(crate) struct Final {
    pub(crate) at: Timestamp,
    pub(crate) id: String,
    pub(crate) body: Value,
}

impl Final {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.body["data"][field].as_str().unwrap_or_default()
    }

    /// `outcome/reason`.
    pub(crate) fn verdict(&self) -> String {
        format!("{}/{}", self.text("outcome"), self.text("reason"))
    }
}

/// A write that reached the NBI.
#[derive(Debug, Clone)]
pub(crate) struct NbiWrite {
    pub(crate) at: Timestamp,
    pub(crate) operation: &'static str,
    /// The file of a rule that is armed.
    pub(crate) file: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    finals: Vec<Final>,
    writes: Vec<NbiWrite>,
    calls: usize,
}

/// The log of one run; clones share it.
#[derive(Clone)]
pub(crate) struct History {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl History {
    /// An empty log that lives by this clock.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Adds a line.
    pub(crate) fn note(&self, worker: usize, what: impl Into<String>) {
        let at = self.now();
        self.state().lines.push(Line {
            at,
            worker,
            what: what.into(),
        });
    }

    /// Adds a final event.
    pub(crate) fn add_final(&self, id: String, body: Value) {
        let at = self.now();
        self.state().finals.push(Final { at, id, body });
    }

    /// Counts a call to the NBI, and keeps it if it is a write.
    pub(crate) fn add_call(&self, operation: &'static str, body: Option<&[u8]>) {
        let at = self.now();
        let mut state = self.state();
        state.calls += 1;
        if matches!(operation, "read_results" | "read_rule" | "read_version") {
            return;
        }
        let file = matches!(operation, "create_rule" | "update_rule").then(|| {
            let body: Value = serde_json::from_slice(body.unwrap_or_default()).unwrap_or_default();
            body["file"].as_str().unwrap_or_default().to_owned()
        });
        state.writes.push(NbiWrite {
            at,
            operation,
            file,
        });
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.state().lines.clone()
    }

    pub(crate) fn finals(&self) -> Vec<Final> {
        self.state().finals.clone()
    }

    pub(crate) fn writes(&self) -> Vec<NbiWrite> {
        self.state().writes.clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }
}

/// The log as a table.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from("  time                     worker  what\n");
    for line in lines {
        let worker = if line.worker == 0 {
            "world".to_owned()
        } else {
            line.worker.to_string()
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:<24} {worker:<7} {}",
            line.at.to_string(),
            line.what
        );
    }
    text
}
