//! Typed takes over the layered values. A fault is noted, never returned: reading goes on, so that all of them are found at once.
//!
//! After a fault a take returns some value of its type that nobody will see, as [`Reader::finish`] fails then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use config::ValueKind;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use secrecy::SecretString;

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
    values: BTreeMap<String, Leaf>,
    strangers: Vec<(String, String)>,
    taken: BTreeSet<&'static str>,
    secret: BTreeSet<&'static str>,
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
    fn text_of(&mut self, key: &'static str) -> Option<String> {
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

    fn missing(&mut self, key: &'static str) {
        if self.are_sound(&[key]) {
            self.fault(
                key,
                "has no value",
                "give one, or leave the key out to have the default",
            );
        }
    }

    /// A value that `parse` understands, if the key is set.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let text = self.text_of(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err((problem, remedy)) => {
                self.fault(key, problem, remedy);
                None
            }
        }
    }

    /// A value that `parse` understands.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        if value.is_none() {
            self.missing(key);
        }
        value
    }

    /// A name of ours: 1 to `max` letters, digits and the `extra` characters.
    pub(super) fn name(&mut self, key: &'static str, max: usize, extra: &'static str) -> String {
        let name = self.optional_name(key, max, extra);
        if name.is_none() {
            self.missing(key);
        }
        name.unwrap_or_default()
    }

    /// The same, if the key is set.
    pub(super) fn optional_name(
        &mut self,
        key: &'static str,
        max: usize,
        extra: &'static str,
    ) -> Option<String> {
        self.optional(key, |text| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
            let remedy = || format!("use 1 to {max} letters, digits and {extra}");
            match text.chars().find(|c| !is_allowed(*c)) {
                Some(found) => Err((format!("contains {found:?}"), remedy())),
                None if text.len() > max => {
                    Err((format!("has {} characters", text.len()), remedy()))
                }
                None => Ok(text.to_owned()),
            }
        })
    }

    /// A human duration within the range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<SignedDuration>,
    ) -> SignedDuration {
        self.required(key, |text| {
            let duration = duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            Err((
                "is out of range".to_owned(),
                format!("give {:#} to {:#}", range.start(), range.end()),
            ))
        })
        .unwrap_or_default()
    }

    /// A number within the range.
    pub(super) fn number<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Default,
    {
        self.required(key, |text| match text.trim().parse::<T>() {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) => Err((
                "is out of range".to_owned(),
                format!("give {} to {}", range.start(), range.end()),
            )),
            Err(_) => Err((
                "is not such a number".to_owned(),
                format!("give {} to {}", range.start(), range.end()),
            )),
        })
        .unwrap_or_default()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        self.one_of(key, &[("true", true), ("false", false)])
    }

    /// One of the named values.
    pub(super) fn one_of<T: Copy + Default>(
        &mut self,
        key: &'static str,
        values: &[(&str, T)],
    ) -> T {
        self.required(key, |text| {
            values
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| {
                    let names: Vec<String> =
                        values.iter().map(|(name, _)| format!("{name:?}")).collect();
                    (
                        "is none of the allowed values".to_owned(),
                        format!("give {}", names.join(" or ")),
                    )
                })
        })
        .unwrap_or_default()
    }

    /// A list, each item read by `parse`; from environment and flags separated by commas.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Vec<T> {
        self.taken.insert(key);
        let items: Vec<String> = match self.values.get(key).map(|leaf| &leaf.kind) {
            None | Some(ValueKind::Nil) => Vec::new(),
            Some(ValueKind::Array(items)) => {
                items.iter().map(|item| item.kind.to_string()).collect()
            }
            Some(one) => one
                .to_string()
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect(),
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match parse(&item) {
                Ok(value) => values.push(value),
                Err((problem, remedy)) if self.secret.contains(key) || item.contains('@') => {
                    self.fault(key, format!("has an item that {problem}"), remedy);
                }
                Err((problem, remedy)) => self.fault(
                    key,
                    format!("has the item {item:?}, which {problem}"),
                    remedy,
                ),
            }
        }
        values
    }

    /// Marks a key whose value is never shown.
    pub(super) fn hide(&mut self, key: &'static str) {
        self.secret.insert(key);
    }

    /// A secret, given as a value or in a file; not both.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<SecretString> {
        self.hide(key);
        let value = self.text_of(key).map(SecretString::from);
        if value.is_some()
            && !matches!(
                self.values.get(key).map(|leaf| &leaf.kind),
                Some(ValueKind::String(_))
            )
        {
            // As a number it might be written back differently from how it was meant.
            self.fault(key, "is not a text", "write it in quotes");
        }
        let path = self.text_of(file_key);
        let from_file = path.and_then(|path| match std::fs::read_to_string(&path) {
            Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
                self.fault(file_key, "names an empty file", "write the secret into it");
                None
            }
            Ok(text) => Some(SecretString::from(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                self.fault(
                    file_key,
                    format!("cannot be read: {error}"),
                    "give the path of a file that this user may read",
                );
                None
            }
        });
        if value.is_some() && self.is_set(file_key) {
            self.both_given(key, file_key);
        }
        value.or(from_file)
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

    /// The path of a file that exists and can be read, if the key is set.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional(key, |text| {
            let remedy = || "give the path of a file that this user may read".to_owned();
            match std::fs::File::open(text).and_then(|file| file.metadata()) {
                Ok(metadata) if metadata.is_file() => Ok(Path::new(text).to_path_buf()),
                Ok(_) => Err(("is not a file".to_owned(), remedy())),
                Err(error) => Err((format!("cannot be read: {error}"), remedy())),
            }
        })
    }
}

/// A human duration (`30s`, `1h 30m`, `7d`); a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<SignedDuration, (String, String)> {
    let remedy =
        || "write it with a unit, e.g. \"500ms\", \"30s\", \"5m\", \"1h\", \"7d\"".to_owned();
    if text.trim().parse::<f64>().is_ok() {
        return Err(("has no unit".to_owned(), remedy()));
    }
    text.trim()
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| ("is not a duration".to_owned(), remedy()))
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
