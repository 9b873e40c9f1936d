//! The NBI's own description of itself: which of the calls and fields that the worker uses are in it.
//!
//! Every instance serves an `OpenAPI` file (documented); what stands in it is unknown, so both Swagger 2 and `OpenAPI` 3 are read, paths may
//! be templates, and a description that leaves fields out is told apart from one that names others. Nothing here is a verdict about the
//! NBI: a call that is not described may work all the same.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::wire::{RESULTS, RULES, Request, SEND_CNR, Verb};
use super::{Transport, TransportError, version};

/// Where it is (documented).
pub const PATH: &str = "/v1/doc/swagger.json";

/// How deep schemas are followed: they may refer to themselves.
const DEPTH_MAX: usize = 12;

/// One call that the worker makes, as the description has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What it is for: `create a rule`.
    pub purpose: &'static str,
    /// Verb and path: `POST /v1/dyn/FirmwareStorage/.*`.
    pub call: String,
    /// Whether it is there at all.
    pub is_there: bool,
    /// Fields and query parameters that the worker uses and that are not there, of a call that has any described.
    pub missing: Vec<&'static str>,
    /// Whether neither fields nor parameters of it are described.
    pub is_bare: bool,
}

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum OpenApiError {
    /// No answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Another status than 200.
    #[error("HTTP {0}")]
    Status(u16),
    /// Not a description.
    #[error("{0}")]
    Malformed(String),
}

/// A call that the worker makes.
struct Used<'a> {
    purpose: &'static str,
    verb: Verb,
    path: &'a str,
    /// One of these must select rows.
    query: &'static [&'static str],
    sends: &'static [&'static str],
    reads: &'static [&'static str],
}

const FILTERS: &[&str] = &["id", "campaignid"];
const RULE: &[&str] = &[
    "id",
    "enabled",
    "automatic",
    "file",
    "condition",
    "executions",
    "priority",
    "author",
];

/// As `wire.rs` sends and reads them.
const USED: [Used<'_>; 6] = [
    Used {
        purpose: "read results",
        verb: Verb::Get,
        path: RESULTS,
        query: FILTERS,
        sends: &[],
        reads: &[
            "id",
            "ts",
            "cpeid",
            "campaignid",
            "result",
            "code",
            "message",
        ],
    },
    Used {
        purpose: "read a rule",
        verb: Verb::Get,
        path: RULES,
        query: FILTERS,
        sends: &[],
        reads: &["id", "enabled", "automatic", "file"],
    },
    Used {
        purpose: "create a rule",
        verb: Verb::Post,
        path: RULES,
        query: &[],
        sends: RULE,
        reads: &[],
    },
    Used {
        purpose: "change or disarm a rule",
        verb: Verb::Put,
        path: RULES,
        query: FILTERS,
        sends: RULE,
        reads: &[],
    },
    Used {
        purpose: "delete a rule",
        verb: Verb::Delete,
        path: RULES,
        query: FILTERS,
        sends: &[],
        reads: &[],
    },
    Used {
        purpose: "connection request",
        verb: Verb::Post,
        path: SEND_CNR,
        query: &[],
        sends: &["search_options", "cpe_id"],
        reads: &[],
    },
];

/// Asks for the description.
///
/// # Errors
///
/// [`OpenApiError`] when there is none.
pub async fn fetch(transport: &impl Transport) -> Result<Value, OpenApiError> {
    let request = Request {
        verb: Verb::Get,
        path: PATH,
        query: Vec::new(),
        body: None,
        operation: "openapi",
        timeout: None,
    };
    let answer = transport.send(&request).await?;
    if answer.status != 200 {
        return Err(OpenApiError::Status(answer.status));
    }
    let description: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| OpenApiError::Malformed(format!("it is not JSON: {error}")))?;
    if description["paths"].is_object() {
        Ok(description)
    } else {
        Err(OpenApiError::Malformed("it has no `paths`".to_owned()))
    }
}

/// The version that it says of itself, e.g. `Swagger 2.0`.
#[must_use]
pub fn version(description: &Value) -> String {
    let text = |name: &str| description[name].as_str().map(str::to_owned);
    match (text("openapi"), text("swagger")) {
        (Some(version), _) => format!("OpenAPI {version}"),
        (None, Some(version)) => format!("Swagger {version}"),
        (None, None) => "a description without a version".to_owned(),
    }
}

/// Every call that the worker makes, held against the description: with the method that reads versions back, where that is done.
#[must_use]
pub fn compare(description: &Value, version_method: Option<&str>) -> Vec<Described> {
    let path = version_method.map(version::path);
    let reads_version = path.as_deref().map(|path| Used {
        purpose: "read a version",
        verb: Verb::Post,
        path,
        query: &[],
        sends: &["search_options", "cpe_id", "parameters"],
        // Found in whatever shape it comes; see `version.rs`.
        reads: &[],
    });
    USED.iter()
        .chain(&reads_version)
        .map(|used| compare_one(description, used))
        .collect()
}

fn compare_one(description: &Value, used: &Used<'_>) -> Described {
    let verb = match used.verb {
        Verb::Get => "get",
        Verb::Post => "post",
        Verb::Put => "put",
        Verb::Delete => "delete",
    };
    let call = format!("{} {}", verb.to_uppercase(), used.path);
    let Some((item, operation)) = operation(description, used.path, verb) else {
        return Described {
            purpose: used.purpose,
            call,
            is_there: false,
            missing: Vec::new(),
            is_bare: false,
        };
    };
    let sent = sent(description, item, operation);
    let read = read(description, operation);
    let queried = queried(description, item, operation);
    let mut missing = BTreeSet::new();
    if !sent.is_empty() {
        missing.extend(used.sends.iter().filter(|name| !sent.contains(**name)));
    }
    if !read.is_empty() {
        missing.extend(used.reads.iter().filter(|name| !read.contains(**name)));
    }
    let has_filter = used.query.iter().any(|name| queried.contains(*name));
    if !used.query.is_empty() && !queried.is_empty() && !has_filter {
        missing.insert(&"a query parameter id or campaignid");
    }
    let uses = [
        used.sends.is_empty(),
        used.reads.is_empty(),
        used.query.is_empty(),
    ];
    let says = [sent.is_empty(), read.is_empty(), queried.is_empty()];
    Described {
        purpose: used.purpose,
        call,
        is_there: true,
        missing: missing.into_iter().copied().collect(),
        is_bare: uses
            .iter()
            .zip(says)
            .all(|(is_unused, is_unsaid)| *is_unused || is_unsaid),
    }
}

/// The path's item and the operation in it.
fn operation<'a>(
    description: &'a Value,
    wanted: &str,
    verb: &str,
) -> Option<(&'a Value, &'a Value)> {
    let paths = description["paths"].as_object()?;
    let bases = bases(description);
    let fits = |path: &str| {
        bases
            .iter()
            .any(|base| is_same(&format!("{base}{path}"), wanted))
    };
    paths
        .iter()
        .filter(|(path, _)| fits(path))
        .map(|(_, item)| (item, &item[verb]))
        .find(|(_, operation)| operation.is_object())
}

/// What stands before every path: Swagger's `basePath`, or the paths of `OpenAPI`'s servers; nothing where there is none.
fn bases(description: &Value) -> Vec<String> {
    let mut bases = vec![String::new()];
    if let Some(base) = description["basePath"].as_str() {
        bases.push(base.trim_end_matches('/').to_owned());
    }
    for server in description["servers"].as_array().into_iter().flatten() {
        let url = server["url"].as_str().unwrap_or_default();
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => url,
        };
        bases.push(
            format!("/{}", path.trim_matches('/'))
                .trim_end_matches('/')
                .to_owned(),
        );
    }
    bases
}

/// Whether a path of the description is this one of ours: templates stand for any segment, and our last segment `.*` for itself, for a
/// template, or for nothing, as it looks like a route's expression that leaked (inferred).
fn is_same(path: &str, wanted: &str) -> bool {
    let segments = |path: &str| -> Vec<String> {
        path.trim_matches('/')
            .split('/')
            .map(str::to_owned)
            .collect()
    };
    let (path, wanted) = (segments(path), segments(wanted));
    let equal = |wanted: &[String]| {
        path.len() == wanted.len()
            && path
                .iter()
                .zip(wanted)
                .all(|(path, wanted)| path == wanted || path.starts_with('{'))
    };
    equal(&wanted)
        || wanted
            .split_last()
            .is_some_and(|(last, before)| last == ".*" && equal(before))
}

fn parameters<'a>(
    description: &'a Value,
    item: &'a Value,
    operation: &'a Value,
) -> impl Iterator<Item = &'a Value> {
    [item, operation]
        .into_iter()
        .filter_map(|place| place["parameters"].as_array())
        .flatten()
        .map(|parameter| resolved(description, parameter))
}

fn queried(description: &Value, item: &Value, operation: &Value) -> BTreeSet<String> {
    parameters(description, item, operation)
        .filter(|parameter| parameter["in"] == "query")
        .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
        .collect()
}

/// The fields of the body that is sent: Swagger's body parameter, or `OpenAPI`'s request body.
fn sent(description: &Value, item: &Value, operation: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for parameter in parameters(description, item, operation) {
        if parameter["in"] == "body" {
            collect(description, &parameter["schema"], &mut names, 0);
        }
    }
    let body = resolved(description, &operation["requestBody"]);
    contents(description, body, &mut names);
    names
}

/// The fields of the answers that are successes.
fn read(description: &Value, operation: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let answers: Option<&Map<String, Value>> = operation["responses"].as_object();
    for (status, answer) in answers.into_iter().flatten() {
        if status.starts_with('2') || status == "default" {
            let answer = resolved(description, answer);
            collect(description, &answer["schema"], &mut names, 0);
            contents(description, answer, &mut names);
        }
    }
    names
}

fn contents(description: &Value, place: &Value, names: &mut BTreeSet<String>) {
    for (_, content) in place["content"].as_object().into_iter().flatten() {
        collect(description, &content["schema"], names, 0);
    }
}

/// The names of all properties below a schema.
fn collect(description: &Value, schema: &Value, names: &mut BTreeSet<String>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolved(description, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        names.insert(name.clone());
        collect(description, property, names, depth + 1);
    }
    if schema["items"].is_object() {
        collect(description, &schema["items"], names, depth + 1);
    }
    for list in ["allOf", "oneOf", "anyOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            collect(description, part, names, depth + 1);
        }
    }
}

/// What a `$ref` within the file points to.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    let mut value = value;
    for _ in 0..DEPTH_MAX {
        let Some(pointer) = value["$ref"]
            .as_str()
            .and_then(|text| text.strip_prefix('#'))
        else {
            break;
        };
        value = description.pointer(pointer).unwrap_or(&Value::Null);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of<'a>(all: &'a [Described], purpose: &str) -> &'a Described {
        all.iter().find(|one| one.purpose == purpose).unwrap()
    }

    #[test]
    fn paths_are_found_however_they_are_written() {
        for (path, wanted, expected) in [
            ("/v1/dyn/FirmwareStorage/.*", RULES, true),
            ("/v1/dyn/FirmwareStorage", RULES, true),
            ("/v1/dyn/FirmwareStorage/{path}", RULES, true),
            ("/v1/dyn/{storage}/.*", RULES, true),
            ("/v1/dyn/FirmwareResultStorage/.*", RULES, false),
            ("/v1/dyn", RULES, false),
            ("/v1/method/{name}", SEND_CNR, true),
            ("/v1/method", SEND_CNR, false),
        ] {
            assert_eq!(is_same(path, wanted), expected, "{path} against {wanted}");
        }
    }

    #[test]
    fn bases_of_both_versions_count() {
        let item = json!({"post": {}});
        for head in [
            json!({"basePath": "/v1/", "paths": {"/method/SendCNR": item}}),
            json!({"servers": [{"url": "https://acs.example/v1"}], "paths": {"/method/SendCNR": item}}),
            json!({"servers": [{"url": "/v1/"}], "paths": {"/method/SendCNR": item}}),
            json!({"paths": {"/v1/method/SendCNR": item}}),
        ] {
            let all = compare(&head, None);
            let call = of(&all, "connection request");
            assert!(call.is_there && call.is_bare, "{head}");
            assert!(!of(&all, "create a rule").is_there);
        }
    }

    #[test]
    fn fields_are_found_through_references_and_missing_ones_are_named() {
        let description = json!({
            "paths": {"/v1/dyn/FirmwareStorage/.*": {
                "parameters": [{"$ref": "#/components/parameters/filter"}],
                "put": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Rule"}}}}},
                "get": {"responses": {"200": {"content": {"application/json": {"schema": {"allOf": [
                    {"properties": {"code": {}, "details": {"type": "array", "items": {"$ref": "#/components/schemas/Rule"}}}}]}}}},
                    "404": {"content": {"application/json": {"schema": {"properties": {"automatic": {}}}}}}}},
            }},
            "components": {
                "parameters": {"filter": {"in": "query", "name": "campaignid"}},
                "schemas": {"Rule": {"properties": {"id": {}, "enabled": {}, "file": {}, "condition": {"properties": {"cpeid": {}}},
                    "executions": {}, "priority": {}, "author": {}, "next": {"$ref": "#/components/schemas/Rule"}}}},
            },
        });
        let all = compare(&description, None);
        assert_eq!(of(&all, "change or disarm a rule").missing, ["automatic"]);
        assert_eq!(of(&all, "read a rule").missing, ["automatic"]);
        assert!(!of(&all, "read a rule").is_bare);
        let other = json!({"paths": {"/v1/dyn/FirmwareStorage/.*": {"delete": {"parameters": [{"in": "query", "name": "name"}]}}}});
        let all = compare(&other, None);
        assert_eq!(
            of(&all, "delete a rule").missing,
            ["a query parameter id or campaignid"]
        );
    }

    #[test]
    fn the_method_that_reads_versions_counts_where_it_is_used() {
        let properties = json!({"search_options": {"properties": {"cpe_id": {}}}, "names": {}});
        let body = json!([{"in": "body", "schema": {"properties": properties}}]);
        let description = json!({"paths": {"/v1/method/ReadIt": {"post": {"parameters": body}}}});
        assert_eq!(compare(&description, None).len(), USED.len());
        let all = compare(&description, Some("ReadIt"));
        let call = of(&all, "read a version");
        assert_eq!(call.call, "POST /v1/method/ReadIt");
        assert_eq!((call.is_there, &*call.missing), (true, &["parameters"][..]));
        let all = compare(&description, Some("GetParameterValues"));
        assert!(!of(&all, "read a version").is_there);
    }

    #[test]
    fn nonsense_is_no_panic() {
        for text in [
            r##"{"paths":{"/v1/method/SendCNR":{"post":{"requestBody":{"$ref":"#/a"}}}},"a":{"$ref":"#/a"}}"##,
            r#"{"paths":{"/v1/method/SendCNR":7,"":[]},"servers":7,"basePath":[]}"#,
            r#"{"paths":{"/v1/method/SendCNR":{"post":{"parameters":[7,{"in":"body","schema":[]}],"responses":[]}}}}"#,
        ] {
            assert_eq!(
                compare(&serde_json::from_str(text).unwrap(), None).len(),
                USED.len()
            );
        }
    }
}
