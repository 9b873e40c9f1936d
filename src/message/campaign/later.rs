//! What a later request of a campaign may say: it adds devices, and the plan stays as it was begun.

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::super::FieldFault;
use super::super::fields::shown;
use super::{CampaignRequest, Definition};

/// Fields of a definition in which requests of one campaign may differ.
const MAY_DIFFER: [&str; 8] = [
    "began_at",
    "requested_at",
    "dated_by_request",
    "configuration_faults",
    "correlation_id",
    "reply_to",
    "traceparent",
    "tracestate",
];

impl Definition {
    /// The fields in which a later request of the same campaign differs from what it was begun with; none: its devices can be added.
    #[must_use]
    pub fn objections(&self, request: &CampaignRequest) -> Vec<FieldFault> {
        let (ours, theirs) = (said(self), said(&request.definition));
        // The limit of a key says nothing about devices that have none.
        let is_without_keys = request
            .devices
            .iter()
            .all(|device| device.concurrency_key.is_none());
        let mut names: Vec<_> = ours.keys().chain(theirs.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .filter_map(|name| {
                let (ours, theirs) = (ours.get(name), theirs.get(name));
                let needs_no_limit = name == "max_in_flight_per_key" && is_without_keys;
                if is_same(ours, theirs) || (theirs.is_none() && needs_no_limit) {
                    return None;
                }
                let theirs = match theirs {
                    Some(value) => format!("is {}", text(value)),
                    None => "is not there".to_owned(),
                };
                let (ours, remedy) = match ours {
                    Some(value) => (format!("with {}", text(value)), "send that"),
                    None => ("without it".to_owned(), "leave it out"),
                };
                let campaign_id = self.campaign_id.as_str();
                Some(FieldFault {
                    field: name.clone(),
                    message: format!(
                        "{theirs}, and campaign {campaign_id:?} was begun {ours}; {remedy} to add devices, or choose another campaign_id"
                    ),
                })
            })
            .collect()
    }
}

/// What a request says, by the names of its fields, without what makes no difference.
fn said(definition: &Definition) -> Map<String, Value> {
    let Ok(Value::Object(wire)) = serde_json::to_value(definition.wire()) else {
        return Map::new();
    };
    let mut said = Map::new();
    for (name, value) in wire {
        match (name.as_str(), value) {
            (name, _) if MAY_DIFFER.contains(&name) => {}
            (_, Value::Null) => {}
            ("abort", Value::Array(criteria)) if criteria.is_empty() => {}
            ("template", Value::Object(fields)) => {
                let differs = |name: &str, value: &Value| match name {
                    "force" => *value != Value::Bool(false),
                    "priority" | "executions" => value.as_f64() != Some(1.0),
                    _ => true,
                };
                said.extend(
                    fields
                        .into_iter()
                        .filter(|(name, value)| differs(name, value)),
                );
            }
            ("starts_per_minute" | "max_in_flight" | "ramp", value) => {
                said.insert(format!("pace.{name}"), value);
            }
            ("in_flight_timeout_ms", value) => {
                let timeout = SignedDuration::from_millis(value.as_i64().unwrap_or_default());
                said.insert(
                    "pace.in_flight_timeout".to_owned(),
                    format!("{timeout:#}").into(),
                );
            }
            (_, value) => {
                said.insert(name, value);
            }
        }
    }
    said
}

/// `2` and `2.0` are the same.
fn is_same(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => one.as_f64() == other.as_f64(),
        (one, other) => one == other,
    }
}

fn text(value: &Value) -> String {
    shown(&value.to_string())
}
