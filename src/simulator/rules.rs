//! The firmware rules: which of them a device runs, and how often it has.
//!
//! Only conditions on `cpeid` are modelled; a rule with another condition, or with none, matches no device. `executions` counts
//! per rule and device, and 0 means no bound (inferred). Of several rules the higher `priority` goes first, then the older.
//! Every write that leaves a rule enabled with file and condition arms it anew, counters at zero: the worst case for a caller.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::table::{Row, Table, text};

/// The rules.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The rows as callers wrote them.
    pub(crate) table: Table,
    by_cpe_id: HashMap<String, BTreeSet<u64>>,
    wildcards: BTreeSet<u64>,
    executed: HashMap<u64, HashMap<String, u64>>,
}

/// A rule that a device is about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runnable {
    /// The row's key.
    pub(crate) key: u64,
    /// The rule's id.
    pub(crate) rule_id: String,
    /// The file.
    pub(crate) file: String,
    /// The rule's description, empty for none.
    pub(crate) description: String,
}

impl Rules {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new("id"),
            by_cpe_id: HashMap::new(),
            wildcards: BTreeSet::new(),
            executed: HashMap::new(),
        }
    }

    /// Adds a rule.
    pub(crate) fn insert(&mut self, row: Row) {
        let key = self.table.insert(row);
        self.index(key);
    }

    /// Writes over a rule.
    pub(crate) fn put(&mut self, key: u64, row: Row) {
        self.forget_condition(key);
        self.table.put(key, row);
        self.index(key);
    }

    /// Drops a rule; what is in flight goes on.
    pub(crate) fn remove(&mut self, key: u64) {
        self.forget_condition(key);
        self.executed.remove(&key);
        self.table.remove(key);
    }

    /// The rule that this device runs at a session, if any.
    pub(crate) fn runnable(&self, cpe_id: &str) -> Option<Runnable> {
        let exact = self.by_cpe_id.get(cpe_id).into_iter().flatten();
        let wild = self.wildcards.iter().filter(|key| {
            self.table
                .get(**key)
                .and_then(condition)
                .is_some_and(|pattern| matches_wildcard(pattern, cpe_id))
        });
        exact
            .chain(wild)
            .filter_map(|key| Some((*key, self.table.get(*key)?)))
            .filter(|(key, row)| {
                is_on(row, "enabled")
                    && is_on(row, "automatic")
                    && self.has_executions_left(*key, row, cpe_id)
            })
            .max_by_key(|(key, row)| {
                (
                    row.get("priority").and_then(Value::as_i64).unwrap_or(0),
                    std::cmp::Reverse(*key),
                )
            })
            .and_then(|(key, row)| {
                Some(Runnable {
                    key,
                    rule_id: text(row, "id")?.to_owned(),
                    file: text(row, "file")?.to_owned(),
                    description: text(row, "description").unwrap_or_default().to_owned(),
                })
            })
    }

    /// Disables a rule.
    pub(crate) fn turn_off(&mut self, key: u64) {
        if let Some(mut row) = self.table.get(key).cloned() {
            row.insert("enabled".to_owned(), Value::Bool(false));
            self.put(key, row);
        }
    }

    /// Counts an execution.
    pub(crate) fn count_execution(&mut self, key: u64, cpe_id: &str) {
        *self
            .executed
            .entry(key)
            .or_default()
            .entry(cpe_id.to_owned())
            .or_default() += 1;
    }

    /// Takes an execution back.
    pub(crate) fn uncount_execution(&mut self, key: u64, cpe_id: &str) {
        if let Some(count) = self
            .executed
            .get_mut(&key)
            .and_then(|devices| devices.get_mut(cpe_id))
        {
            *count = count.saturating_sub(1);
        }
    }

    /// The ids of enabled rules, whether or not they have executions left.
    pub(crate) fn armed(&self) -> impl Iterator<Item = &str> {
        self.table
            .rows()
            .filter(|row| is_on(row, "enabled"))
            .filter_map(|row| text(row, "id"))
    }

    fn has_executions_left(&self, key: u64, row: &Row, cpe_id: &str) -> bool {
        let allowed = row.get("executions").and_then(Value::as_u64).unwrap_or(1);
        let done = self
            .executed
            .get(&key)
            .and_then(|devices| devices.get(cpe_id))
            .copied()
            .unwrap_or(0);
        allowed == 0 || done < allowed
    }

    /// Enters a row's condition, and arms the rule anew where the row is fit to run.
    fn index(&mut self, key: u64) {
        let Some(row) = self.table.get(key) else {
            return;
        };
        let Some(pattern) = condition(row) else {
            return;
        };
        if pattern.contains('*') {
            self.wildcards.insert(key);
        } else {
            self.by_cpe_id
                .entry(pattern.to_owned())
                .or_default()
                .insert(key);
        }
        if is_on(row, "enabled") && text(row, "file").is_some() {
            self.executed.remove(&key);
        }
    }

    fn forget_condition(&mut self, key: u64) {
        self.wildcards.remove(&key);
        let Some(pattern) = self.table.get(key).and_then(condition) else {
            return;
        };
        if let Some(keys) = self.by_cpe_id.get_mut(pattern) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_cpe_id.remove(pattern);
            }
        }
    }
}

fn is_on(row: &Row, column: &str) -> bool {
    row.get(column).and_then(Value::as_bool).unwrap_or(false)
}

/// The pattern of a condition that asks for `cpeid` and nothing else.
fn condition(row: &Row) -> Option<&str> {
    let condition = row.get("condition")?.as_object()?;
    if condition.len() == 1 {
        text(condition, "cpeid")
    } else {
        None
    }
}

/// Whether the pattern, in which `*` stands for any text, covers the whole of `subject`.
pub(crate) fn matches_wildcard(pattern: &str, subject: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = subject.strip_prefix(first) else {
        return false;
    };
    let middle: Vec<_> = parts.collect();
    let Some((last, middle)) = middle.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
