//! The software version in the answer to a parameter read, and where to ask.
//!
//! That the method exists is documented, the shape of its answer is unknown; so the parameter is looked for anywhere, in every
//! shape that is likely (inferred). A wrong guess shows as an unintelligible answer of `verify`, which is off by default.

use percent_encoding::utf8_percent_encode;

use super::http::STRICT;
use super::json::Json;

/// The most characters of a version that is believed: it travels in events, and real ones have a few dozen.
const VERSION_MAX: usize = 256;

/// Where the NBI's method of this name is called.
pub(super) fn path(method: &str) -> String {
    format!("/v1/method/{}", utf8_percent_encode(method, STRICT))
}

/// The value of the first of these parameters that the answer holds.
pub(crate) fn version(answer: &Json<'_>, parameters: &[String]) -> Option<String> {
    let version = parameters
        .iter()
        .find_map(|parameter| parameter_value(answer, parameter));
    version.filter(|version| {
        version.chars().count() <= VERSION_MAX && !version.chars().any(char::is_control)
    })
}

/// Looks for a parameter's value: `{"<name>": "1.2"}`, `{"<name>": {"value": "1.2"}}` or `{"name": "<name>", "value": "1.2"}`, at
/// any depth (which `serde_json` limits to 128).
fn parameter_value(value: &Json<'_>, parameter: &str) -> Option<String> {
    match value {
        Json::Object(fields) => {
            let field = |names: [&str; 2]| names.into_iter().find_map(|name| value.get(name));
            let direct = value
                .get(parameter)
                .and_then(|found| scalar(found).or_else(|| scalar(found.get("value")?)));
            let named = || {
                let name = field(["name", "Name"])?;
                let is_it = matches!(name, Json::String(name) if name == parameter);
                is_it.then(|| field(["value", "Value"]).and_then(scalar))?
            };
            direct.or_else(named).or_else(|| {
                // From the end, as the last of a repeated key counts.
                let mut inner = fields.iter().rev();
                inner.find_map(|(_, inner)| parameter_value(inner, parameter))
            })
        }
        Json::Array(items) => items
            .iter()
            .find_map(|item| parameter_value(item, parameter)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// A text or number that is not empty.
fn scalar(value: &Json<'_>) -> Option<String> {
    match value {
        Json::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
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
