//! The fields of a JSON object, taken one by one, with every fault collected on the way.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::headers::{one_line, truncate};
use super::json::Text;
use super::request::FieldFault;

/// Longest value shown in a fault, in characters.
const SHOWN_MAX: usize = 100;

/// Most fields of an object: each one can be at fault, and faults travel in an event.
const FIELDS_MAX: usize = 100;

/// Most faults told of one request.
const FAULTS_MAX: usize = 50;

/// A JSON object's fields in order, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// What is wrong so far.
    pub(super) faults: Vec<FieldFault>,
}

impl<'a> Fields<'a> {
    /// The fields of the object in `text`; repeated names are faults.
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        let Entries(entries) = serde_json::from_str(text)?;
        let mut fields = Self {
            entries,
            faults: Vec::new(),
        };
        for index in 1..fields.entries.len() {
            let (before, rest) = fields.entries.split_at(index);
            if before.iter().any(|(earlier, _)| *earlier == rest[0].0) {
                let name = rest[0].0.clone();
                fields.fault(&name, "is given twice; leave one");
            }
        }
        Ok(fields)
    }

    /// Notes a fault, as one line of text; what comes after [`FAULTS_MAX`] is only said to exist.
    pub(super) fn fault(&mut self, field: &str, message: impl Into<String>) {
        let fault = match self.faults.len() {
            0..FAULTS_MAX => FieldFault {
                field: one_line(truncate(field, SHOWN_MAX)),
                message: one_line(message.into()),
            },
            FAULTS_MAX => FieldFault {
                field: "body".to_owned(),
                message: "has more faults, which are not listed".to_owned(),
            },
            _ => return,
        };
        self.faults.push(fault);
    }

    /// Notes the fault of a check.
    pub(super) fn check<T>(&mut self, field: &str, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|message| self.fault(field, message)).ok()
    }

    /// The field as it stands in the message.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.entries
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.get())
    }

    /// The field as it stands in the message, to be kept.
    pub(super) fn kept(&self, name: &str) -> Option<Box<RawValue>> {
        let (_, value) = self.entries.iter().find(|(key, _)| key == name)?;
        Some((*value).to_owned())
    }

    /// The field if it is a string, as one line cut at `max` characters; no fault otherwise.
    pub(super) fn peek_string(&self, name: &str, max: usize) -> Option<String> {
        let text: String = serde_json::from_str(self.raw(name)?).ok()?;
        Some(one_line(text.chars().take(max).collect()))
    }

    /// A string that must be there and pass the check.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.raw(name).is_none() {
            self.fault(name, "is missing");
            return None;
        }
        self.string(name, check)
    }

    /// A string that must pass the check if it is there; `null` counts as absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.raw(name) {
            None | Some("null") => None,
            Some(_) => self.string(name, check),
        }
    }

    fn string<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let raw = self.raw(name)?;
        let Ok(Text(text)) = serde_json::from_str(raw) else {
            let message = format!("must be a string, is {}", shown(raw));
            self.fault(name, message);
            return None;
        };
        let checked = check(&text).map_err(|message| format!("{:?} {message}", shown(&text)));
        self.check(name, checked)
    }

    /// A whole number in a range, if it is there; `null` counts as absent.
    pub(super) fn integer(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        // As JSON Schema has it, 2.0 is a whole number: some languages write their numbers so.
        let checked = serde_json::from_str::<f64>(raw)
            .ok()
            .filter(|number| {
                number.fract() == 0.0 && (f64::from(min)..=f64::from(max)).contains(number)
            })
            .map(|number| number as u32)
            .ok_or_else(|| {
                format!(
                    "must be a whole number from {min} to {max}, is {}",
                    shown(raw)
                )
            });
        self.check(name, checked)
    }

    /// A number in a range, if it is there; `null` counts as absent.
    pub(super) fn number(&mut self, name: &str, above: f64, max: f64) -> Option<f64> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        let checked = serde_json::from_str::<f64>(raw)
            .ok()
            .filter(|number| *number > above && *number <= max)
            .ok_or_else(|| {
                format!(
                    "must be a number above {above} and at most {max}, is {}",
                    shown(raw)
                )
            });
        self.check(name, checked)
    }

    /// An object with fields of its own, if it is there; `null` counts as absent. Its faults are named `name.field`.
    pub(super) fn object<T>(
        &mut self,
        name: &str,
        known: &[&str],
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        let parsed =
            Self::parse(raw).map_err(|_| format!("must be a JSON object, is {}", shown(raw)));
        let mut inner = self.check(name, parsed)?;
        let value = read(&mut inner);
        inner.refuse_unknown(known);
        for fault in inner.faults {
            self.fault(&format!("{name}.{}", fault.field), fault.message);
        }
        Some(value)
    }

    /// The items of an array, as they stand in the message, if it is there; `null` counts as absent.
    pub(super) fn items(&mut self, name: &str) -> Option<Vec<Box<RawValue>>> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        let parsed =
            serde_json::from_str(raw).map_err(|_| format!("must be an array, is {}", shown(raw)));
        self.check(name, parsed)
    }

    /// A boolean, if it is there; `null` counts as absent.
    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let raw = self.raw(name).filter(|raw| *raw != "null")?;
        let checked = serde_json::from_str::<bool>(raw)
            .map_err(|_| format!("must be true or false, is {}", shown(raw)));
        self.check(name, checked)
    }

    /// Notes every field whose name is none of `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        self.refuse_others(
            known,
            "is no field of a request; check its spelling or move it into `context`",
        );
    }

    /// As [`Fields::refuse_unknown`], in other words.
    pub(super) fn refuse_others(&mut self, known: &[&str], message: &str) {
        let unknown: Vec<_> = self
            .entries
            .iter()
            .filter(|(name, _)| !known.contains(&name.as_ref()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in unknown {
            self.fault(&name, message);
        }
    }
}

/// A value as a fault shows it: its beginning, and of a URL no password, as faults are logged and published.
pub(super) fn shown(value: &str) -> String {
    let credentials = value.find(':').zip(value.rfind('@'));
    match credentials.filter(|(colon, at)| colon < at) {
        Some((colon, at)) => {
            let without = format!("{}:…{}", &value[..colon], &value[at..]);
            truncate(&without, SHOWN_MAX)
        }
        None => truncate(value, SHOWN_MAX),
    }
}

/// The entries of an object in order, repeated names and all.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    if entries.len() == FIELDS_MAX {
                        return Err(A::Error::custom(format_args!(
                            "it has more than {FIELDS_MAX} fields"
                        )));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}
