//! Typed takes over the layered values: durations, numbers, names, lists, secrets, files.
//!
//! After a fault a take returns some value of its type that nobody will see, as [`Reader::finish`] fails then.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use config::ValueKind;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use secrecy::SecretString;

use super::reader::Reader;
use crate::secret_file;

impl Reader {
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
        let is_nested =
            |item: &config::Value| matches!(item.kind, ValueKind::Array(_) | ValueKind::Table(_));
        if matches!(self.values.get(key).map(|leaf| &leaf.kind), Some(ValueKind::Array(items)) if items.iter().any(is_nested))
        {
            self.fault(
                key,
                "has an item that is a list or a table",
                "give a list of single values",
            );
            return Vec::new();
        }
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
        let from_file = self.secret_path(file_key).and_then(|path| {
            secret_file::read(&path)
                .map_err(|error| {
                    let remedy =
                        "give the path of a file that this user may read, with the secret in it";
                    self.fault(file_key, format!("cannot be read: {error}"), remedy);
                })
                .ok()
        });
        if value.is_some() && self.is_set(file_key) {
            self.both_given(key, file_key);
        }
        value.or(from_file)
    }

    /// The path of a file with a secret, if the key is set: for who reads it again later.
    pub(super) fn secret_path(&mut self, file_key: &'static str) -> Option<PathBuf> {
        self.text_of(file_key).map(PathBuf::from)
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
fn duration(text: &str) -> Result<SignedDuration, (String, String)> {
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
