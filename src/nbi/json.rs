//! [`Json`]: a JSON text taken apart without copying it.
//!
//! Answers of the NBI are read in any shape, so they are a tree first. Texts and keys without escapes borrow from the body, and an object is a
//! list: most of an answer is looked at once and let go. Which field means what is `wire.rs`'s matter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// A JSON value. `serde_json` limits the depth to 128 and refuses text that is not UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Self>),
    /// As it stands in the text, repeated keys included.
    Object(Vec<(Cow<'a, str>, Self)>),
}

static MISSING: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// A body taken apart; `None` if it is no JSON. That it is UTF-8 is looked at once, not text by text.
    pub(crate) fn of(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        serde_json::from_str(text).ok()
    }

    /// The field of an object, of a repeated one the last; `None` where there is none, or no object.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let mut fields = fields.iter().rev();
        fields.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// As [`Json::get`]; null for `None`.
    pub(crate) fn field<'b>(&'b self, name: &str) -> &'b Self {
        self.get(name).unwrap_or(&MISSING)
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

/// A key; borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text).map(Key)
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Text.visit_borrowed_str(text).map(Json::String)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Text.visit_str(text).map(Json::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Json::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((Key(key), value)) = fields.next_entry()? {
            all.push((key, value));
        }
        Ok(Json::Object(all))
    }
}

/// An integer; digits in a string are taken, a fraction is cut off, anything else is missing.
pub(super) fn integer(value: &Json<'_>) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Json::String(text) => {
            let text = text.trim();
            text.parse()
                .ok()
                .or_else(|| text.parse().ok().and_then(whole))
        }
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Unix seconds from a count since 1970 of seconds, or of thousandths, millionths or billionths of one: as seconds they would be after the year 5000.
pub(super) fn seconds(mut ts: i64) -> i64 {
    const LATEST: u64 = 100_000_000_000;
    while ts.unsigned_abs() > LATEST {
        ts /= 1_000;
    }
    ts
}

/// The whole part, where an `f64` holds it exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fraction is cut off on purpose, the range is checked"
    )]
    (number.is_finite() && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// As `serde_json` sees it: of a repeated key the last one.
    fn plain(json: &Json<'_>) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(truth) => Value::Bool(*truth),
            Json::Number(number) => Value::Number(number.clone()),
            Json::String(text) => Value::String(text.to_string()),
            Json::Array(items) => items.iter().map(plain).collect(),
            Json::Object(fields) => {
                let keys = fields.iter().map(|(key, _)| key.to_string());
                keys.map(|key| {
                    let value = plain(json.field(&key));
                    (key, value)
                })
                .collect()
            }
        }
    }

    fn assert_as_serde_json(body: &[u8]) {
        let theirs = serde_json::from_slice::<Value>(body).ok();
        let ours = Json::of(body);
        assert_eq!(ours.as_ref().map(plain), theirs, "{}", body.escape_ascii());
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        for body in [
            r#"{"code":200,"details":[{"id":"a\u00e9\n","ts":-1.5e3,"n":null,"big":18446744073709551615}]}"#,
            r#"{"a":1,"a":{"b":2},"\u0061":[true,false]}"#,
            "\"text\"",
            "7 ",
            "[]",
            "{}",
            "1e999",
            "",
            "{\"a\":1} x",
            "{\"a\"}",
            "<html>",
        ] {
            assert_as_serde_json(body.as_bytes());
        }
        assert_as_serde_json(b"\"\xff\"");
        assert_as_serde_json("[".repeat(200).as_bytes());
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let json: Json<'_> = serde_json::from_str(r#"{"a":"b","c":"\n"}"#).unwrap();
        assert!(matches!(json.field("a"), Json::String(Cow::Borrowed("b"))));
        assert!(matches!(json.field("c"), Json::String(Cow::Owned(_))));
        assert_eq!(json.get("d"), None);
        assert_eq!(json.field("d").field("e"), &Json::Null);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_as_serde_json_reads_it(body in r#"[\{\}\[\],:"a1e.\\un\- ]{0,40}"#) {
            assert_as_serde_json(body.as_bytes());
        }
    }
}
