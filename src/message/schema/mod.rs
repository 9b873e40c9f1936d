//! JSON Schemas of what travels through the broker, for those who write and read it.
//!
//! Made from the types that write the messages, and from the checks that read them: patterns come out of the checks themselves. A schema says
//! what any worker may take or send; what an operator narrows (allowed prefixes, `verify.enabled`) and what no schema can say (a deadline
//! after `not_before`, sizes in bytes) stands in the descriptions.
//!
//! Draft 7: AsyncAPI's own, and the one that most validators know.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

mod campaign;
mod control;
mod event;
mod pattern;
mod request;

pub use campaign::campaign;
pub use control::control;
pub use event::event;
pub use request::request;

/// Where schemas of parts stand in a document.
const DEFINITIONS: &str = "definitions";

/// The schema of a type that we read.
fn of_input<T: JsonSchema>() -> Value {
    finished(SchemaSettings::draft07(), |settings| {
        settings.into_generator().into_root_schema_for::<T>()
    })
}

/// The schema of a type that we write.
fn of_output<T: JsonSchema>() -> Value {
    let mut schema = finished(SchemaSettings::draft07().for_serialize(), |settings| {
        settings.into_generator().into_root_schema_for::<T>()
    });
    without_null(&mut schema);
    schema
}

fn finished(settings: SchemaSettings, make: impl FnOnce(SchemaSettings) -> Schema) -> Value {
    let mut schema = make(settings).to_value();
    tidy(&mut schema);
    schema
}

/// Removes formats that are Rust's, such as `uint32` or `double`, and line ends inside descriptions.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            let is_rust = |format: &Value| {
                format.as_str().is_some_and(|name| {
                    name.starts_with("int") || name.starts_with("uint") || name == "double"
                })
            };
            if entries.get("format").is_some_and(is_rust) {
                entries.remove("format");
            }
            if let Some(Value::String(text)) = entries.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            entries.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// What is not known is left out of what we write, so nothing there is null.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            if let Some(kinds) = entries.get_mut("type").and_then(Value::as_array_mut) {
                kinds.retain(|kind| kind != "null");
                if let [kind] = kinds.as_slice() {
                    let kind = kind.clone();
                    entries.insert("type".to_owned(), kind);
                }
            }
            if let Some(choices) = entries.get_mut("anyOf").and_then(Value::as_array_mut) {
                choices.retain(|choice| choice["type"] != "null");
            }
            entries.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The document with its id in front of everything else.
fn document(id: &str, mut schema: Value) -> Value {
    if let Value::Object(entries) = &mut schema {
        entries.insert("$id".to_owned(), json!(id));
    }
    schema
}

/// The definitions of a document, moved out.
fn take_definitions(schema: &mut Value) -> Map<String, Value> {
    match schema
        .as_object_mut()
        .and_then(|entries| entries.remove(DEFINITIONS))
    {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    }
}
