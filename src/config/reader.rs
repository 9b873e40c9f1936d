//! The layered values, which of them were taken, and what was wrong with them.
//!
//! A fault is noted, never returned: reading goes on, so that all of them are found at once. The typed takes are in `takes.rs`.

use std::collections::{BTreeMap, BTreeSet};

use config::ValueKind;

use super::fault::{ConfigError, Fault, suggestion};
use super::load::{ENVIRONMENT_PREFIX, environment_variable};

/// Longest value shown in a fault, in characters.
const SHOWN_MAX: usize = 120;

/// One value and where it came from.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) kind: ValueKind,
    pub(super) origin: String,
}

/// The layered values, which of them were taken, and what was wrong.
pub(super) struct Reader {
    pub(super) values: BTreeMap<String, Leaf>,
    strangers: Vec<(String, String)>,
    pub(super) taken: BTreeSet<&'static str>,
    pub(super) secret: BTreeSet<&'static str>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(
        values: BTreeMap<String, Leaf>,
        faults: Vec<Fault>,
        strangers: Vec<(String, String)>,
    ) -> Self {
        Self {
            values,
            strangers,
            taken: BTreeSet::new(),
            secret: BTreeSet::new(),
            faults,
        }
    }

    /// The keys taken so far.
    #[cfg(test)]
    pub(super) fn taken(&self) -> &BTreeSet<&'static str> {
        &self.taken
    }

    /// All faults, among them the keys that nobody took.
    pub(super) fn finish(mut self) -> Result<(), ConfigError> {
        let unknown: Vec<(String, String)> = self
            .values
            .iter()
            .filter(|(key, _)| !self.taken.contains(key.as_str()))
            .map(|(key, leaf)| (key.clone(), leaf.origin.clone()))
            .collect();
        for (name, origin) in unknown
            .into_iter()
            .chain(std::mem::take(&mut self.strangers))
        {
            self.faults.push(self.unknown(name, origin));
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError {
                faults: self.faults,
            })
        }
    }

    /// Its value is not shown: a misspelt `password` holds a password.
    fn unknown(&self, name: String, origin: String) -> Fault {
        let from_environment = origin.starts_with("environment");
        let meant = suggestion(
            name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(&name),
            self.taken.iter().copied(),
        );
        let remedy = match meant {
            Some(key) if from_environment => format!("did you mean {}?", environment_variable(key)),
            Some(key) => format!("did you mean {key}?"),
            None => "deploy/nbi-upgrade.default.toml lists every key".to_owned(),
        };
        Fault {
            key: name,
            value: None,
            origin,
            problem: "is not a known key".to_owned(),
            remedy,
        }
    }

    /// Notes a fault of a key, with the value and origin that it has.
    pub(super) fn fault(
        &mut self,
        key: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let leaf = self.values.get(key);
        let value = leaf
            .filter(|_| !self.secret.contains(key))
            .map(|leaf| shown(&leaf.kind));
        let origin = leaf.map(|leaf| leaf.origin.clone()).unwrap_or_default();
        self.faults.push(Fault {
            key: key.to_owned(),
            // A URL with a password in it is a likely mistake where a plain URL is wanted.
            value: value.filter(|value| !value.contains('@')),
            origin,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// Whether none of the keys has a fault so far, so that they can be compared with each other.
    pub(super) fn are_sound(&self, keys: &[&str]) -> bool {
        !self
            .faults
            .iter()
            .any(|fault| keys.contains(&fault.key.as_str()))
    }

    /// Notes a fault where `smaller` is greater than `greater`.
    pub(super) fn check_order<T: PartialOrd>(
        &mut self,
        smaller: (&'static str, T),
        greater: (&'static str, T),
    ) {
        if self.are_sound(&[smaller.0, greater.0]) && smaller.1 > greater.1 {
            let other = self
                .values
                .get(greater.0)
                .map(|leaf| shown(&leaf.kind))
                .unwrap_or_default();
            self.fault(
                smaller.0,
                format!("is greater than {} = {other:?}", greater.0),
                format!("lower it, or raise {}", greater.0),
            );
        }
    }

    /// The value's text; empty counts as not set, so that a variable can switch off what the file sets.
    pub(super) fn text_of(&mut self, key: &'static str) -> Option<String> {
        self.taken.insert(key);
        let text = match &self.values.get(key)?.kind {
            ValueKind::Nil => None,
            ValueKind::Array(_) | ValueKind::Table(_) => {
                self.fault(key, "is a list", "give one value");
                None
            }
            kind => Some(kind.to_string()),
        };
        text.filter(|text| !text.is_empty())
    }

    /// Notes that a key that must have a value has none.
    pub(super) fn missing(&mut self, key: &'static str) {
        if self.are_sound(&[key]) {
            self.fault(
                key,
                "has no value",
                "give one, or leave the key out to have the default",
            );
        }
    }

    /// Marks a key whose value is never shown.
    pub(super) fn hide(&mut self, key: &'static str) {
        self.secret.insert(key);
    }

    /// Notes that two keys are given of which only one may be.
    pub(super) fn both_given(&mut self, key: &'static str, other: &'static str) {
        let origin = self
            .values
            .get(other)
            .map(|leaf| leaf.origin.clone())
            .unwrap_or_default();
        self.fault(
            key,
            format!("is given, and so is {other} ({origin})"),
            "give only one; an empty value takes one back",
        );
    }

    /// Whether a key has a value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|leaf| match &leaf.kind {
            ValueKind::Nil => false,
            ValueKind::String(text) => !text.is_empty(),
            ValueKind::Array(items) => !items.is_empty(),
            _ => true,
        })
    }
}

fn shown(kind: &ValueKind) -> String {
    let text = match kind {
        ValueKind::Array(items) => items
            .iter()
            .map(|item| item.kind.to_string())
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
