//! The software version in the answer to a parameter read, and where to ask.
//!
//! That the method exists is documented, the shape of its answer is unknown; so the parameter is looked for anywhere, in every
//! shape that is likely (inferred). A wrong guess shows as an unintelligible answer of `verify`, which is off by default.

use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::http::STRICT;

/// The most characters of a version that is believed: it travels in events, and real ones have a few dozen.
const VERSION_MAX: usize = 256;

/// Where the NBI's method of this name is called.
pub(super) fn path(method: &str) -> String {
    format!("/v1/method/{}", utf8_percent_encode(method, STRICT))
}

/// The value of the first of these parameters that the answer holds.
pub(crate) fn version(answer: &Value, parameters: &[String]) -> Option<String> {
    let version = parameters
        .iter()
        .find_map(|parameter| parameter_value(answer, parameter));
    version.filter(|version| {
        version.chars().count() <= VERSION_MAX && !version.chars().any(char::is_control)
    })
}

/// Looks for a parameter's value: `{"<name>": "1.2"}`, `{"<name>": {"value": "1.2"}}` or `{"name": "<name>", "value": "1.2"}`, at
/// any depth (which `serde_json` limits to 128).
fn parameter_value(value: &Value, parameter: &str) -> Option<String> {
    match value {
        Value::Object(object) => {
            let field = |names: [&str; 2]| names.into_iter().find_map(|name| object.get(name));
            let direct = object
                .get(parameter)
                .and_then(|found| scalar(found).or_else(|| scalar(found.get("value")?)));
            let named = || {
                let name = field(["name", "Name"])?.as_str()?;
                (name == parameter).then(|| field(["value", "Value"]).and_then(scalar))?
            };
            direct.or_else(named).or_else(|| {
                object
                    .values()
                    .find_map(|inner| parameter_value(inner, parameter))
            })
        }
        Value::Array(items) => items
            .iter()
            .find_map(|item| parameter_value(item, parameter)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A text or number that is not empty.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_any_likely_shape() {
        let parameters = ["A.Version".to_owned(), "B.Version".to_owned()];
        for (body, expected) in [
            (
                r#"{"result":{"code":200,"details":{"A.Version":"1.2"}}}"#,
                Some("1.2"),
            ),
            (
                r#"{"code":200,"details":[{"name":"B.Version","value":"1.3"}]}"#,
                Some("1.3"),
            ),
            (
                r#"{"result":{"code":200,"B.Version":{"value":"1.4","type":"string"}}}"#,
                Some("1.4"),
            ),
            (r#"{"B.Version":"late","A.Version":"first"}"#, Some("first")),
            (r#"{"A.Version":"","B.Version":" 7 "}"#, Some("7")),
            (
                r#"{"result":{"code":200,"details":{"C.Version":"1"}}}"#,
                None,
            ),
            (r#"{"result":{"code":200,"message":"OK"}}"#, None),
        ] {
            let answer = serde_json::from_str(body).unwrap();
            assert_eq!(version(&answer, &parameters).as_deref(), expected, "{body}");
        }
        let long = format!(r#"{{"A.Version":"{}"}}"#, "1".repeat(257));
        assert_eq!(
            version(&serde_json::from_str(&long).unwrap(), &parameters),
            None
        );
    }
}
