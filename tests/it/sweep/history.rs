//! What happened in a run: an append-only log in virtual time, and the facts that the checks look at.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use nbi_upgrade::clock::Clock;
use nbi_upgrade::nbi::wire::Request;
use serde_json::Value;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    /// The worker, or 0 for the world.
    pub(crate) worker: usize,
    pub(crate) what: String,
}

/// An event that reached the broker.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) at: Timestamp,
    /// The delivery that brought it about.
    pub(crate) delivery: u64,
    pub(crate) id: String,
    pub(crate) is_final: bool,
    pub(crate) body: Value,
}

impl Published {
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
    /// The device that it is about.
    pub(crate) cpe_id: String,
    /// The file of a rule that is armed.
    pub(crate) file: Option<String>,
}

/// A call that had no proper answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) at: Timestamp,
    /// There was an answer, which nobody can understand.
    pub(crate) is_unintelligible: bool,
}

/// A rule as it stands in the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) file: String,
    pub(crate) is_armed: bool,
}

impl Rule {
    /// A row of the storage.
    pub(crate) fn from_row(row: &Value) -> Self {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("id"),
            file: text("file"),
            is_armed: row["enabled"] == true,
        }
    }

    /// Whether it is armed with this file for this device.
    pub(crate) fn arms(&self, cpe_id: &str, file: &str) -> bool {
        self.is_armed && self.id == rule_id(cpe_id) && self.file == file
    }
}

/// The id of the rule of a device.
pub(crate) fn rule_id(cpe_id: &str) -> String {
    format!("{RULE_PREFIX}{cpe_id}")
}

const RULE_PREFIX: &str = "UPGRADE_";

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    events: Vec<Published>,
    writes: Vec<NbiWrite>,
    failures: Vec<Failure>,
    rules: Vec<(Timestamp, Vec<Rule>)>,
    calls: usize,
}

/// Whether an operation changes anything, or wakes a device.
pub(crate) fn is_write(operation: &str) -> bool {
    !matches!(operation, "read_results" | "read_rule" | "read_version")
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

    /// Adds an event.
    pub(crate) fn add_event(&self, delivery: u64, id: String, is_final: bool, body: Value) {
        let at = self.now();
        self.state().events.push(Published {
            at,
            delivery,
            id,
            is_final,
            body,
        });
    }

    /// Counts a call to the NBI, and keeps it if it is a write.
    pub(crate) fn add_call(&self, request: &Request) {
        let at = self.now();
        let mut state = self.state();
        state.calls += 1;
        let operation = request.operation;
        if !is_write(operation) {
            return;
        }
        let body = request.body.as_deref().unwrap_or_default();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        // A deletion names its rule in the filter alone.
        let rule_id = text(&body["id"]).or_else(|| request.query.first().map(|(_, id)| id.clone()));
        let of_rule = rule_id.map(|id| id.trim_start_matches(RULE_PREFIX).to_owned());
        let cpe_id = text(&body["search_options"]["cpe_id"]).or(of_rule);
        let is_arming = matches!(operation, "create_rule" | "update_rule");
        state.writes.push(NbiWrite {
            at,
            operation,
            cpe_id: cpe_id.unwrap_or_default(),
            file: is_arming.then(|| text(&body["file"]).unwrap_or_default()),
        });
    }

    /// Adds what stands in the storage of rules, if that is new.
    pub(crate) fn add_rules(&self, rules: Vec<Rule>) {
        let at = self.now();
        let mut state = self.state();
        if state.rules.last().is_none_or(|(_, last)| *last != rules) {
            state.rules.push((at, rules));
        }
    }

    /// Adds a call that had no proper answer.
    pub(crate) fn add_failure(&self, is_unintelligible: bool) {
        let at = self.now();
        self.state().failures.push(Failure {
            at,
            is_unintelligible,
        });
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.state().lines.clone()
    }

    pub(crate) fn events(&self) -> Vec<Published> {
        self.state().events.clone()
    }

    pub(crate) fn writes(&self) -> Vec<NbiWrite> {
        self.state().writes.clone()
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.state().failures.clone()
    }

    /// What stood in the storage of rules, from when on.
    pub(crate) fn rules(&self) -> Vec<(Timestamp, Vec<Rule>)> {
        self.state().rules.clone()
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
