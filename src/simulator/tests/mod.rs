//! The model's own behaviour: it is the yardstick, so it is measured first.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::nbi::wire::Verb;

mod devices;
mod fleets;
mod http;
mod storages;
mod troubles;

const RULES: &str = "/v1/dyn/FirmwareStorage/.*";
const RESULTS: &str = "/v1/dyn/FirmwareResultStorage/.*";
const CNR: &str = "/v1/method/SendCNR";
const VALUES: &str = "/v1/method/GetParameterValues";

/// A simulator with its clock, and the calls written short.
struct Bench {
    simulator: Simulator,
    now: Timestamp,
}

impl Bench {
    fn new(semantics: Semantics) -> Self {
        Self::with(SimulatorSettings {
            semantics,
            ..SimulatorSettings::default()
        })
    }

    fn with(settings: SimulatorSettings) -> Self {
        Self {
            simulator: Simulator::new(settings),
            now: start(),
        }
    }

    fn add(&mut self, device: Device) {
        self.simulator.add_device(device, self.now);
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.simulator.advance(self.now);
    }

    fn raw(&mut self, verb: Verb, path: &str, query: &[(&str, &str)], body: &Value) -> Reply {
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.simulator.handle(
            Call {
                verb,
                path,
                query: &query,
                body: &body,
            },
            self.now,
        )
    }

    fn call(&mut self, verb: Verb, path: &str, query: &[(&str, &str)], body: Value) -> Value {
        serde_json::from_slice(&self.raw(verb, path, query, &body).body).unwrap()
    }

    fn code(&mut self, verb: Verb, path: &str, query: &[(&str, &str)], body: Value) -> i64 {
        let answer = self.call(verb, path, query, body);
        answer.get("result").unwrap_or(&answer)["code"]
            .as_i64()
            .unwrap()
    }

    fn create(&mut self, cpe_id: &str) -> i64 {
        self.code(Verb::Post, RULES, &[], rule(cpe_id))
    }

    fn request_connection(&mut self, cpe_id: &str) -> i64 {
        self.code(
            Verb::Post,
            CNR,
            &[],
            json!({"search_options": {"cpe_id": cpe_id}}),
        )
    }

    fn results(&mut self, cpe_id: &str) -> Vec<Value> {
        let answer = self.call(
            Verb::Get,
            RESULTS,
            &[("id", &format!("UPGRADE_{cpe_id}"))],
            Value::Null,
        );
        answer["details"].as_array().cloned().unwrap_or_default()
    }
}

fn start() -> Timestamp {
    "2026-01-05T08:00:00Z".parse().unwrap()
}

fn rule(cpe_id: &str) -> Value {
    json!({
        "id": format!("UPGRADE_{cpe_id}"),
        "enabled": true,
        "automatic": true,
        "file": "https://files.example/fw/ALPHA-2.4.bin",
        "condition": {"cpeid": cpe_id},
        "executions": 1,
        "priority": 1,
        "author": "api",
    })
}
