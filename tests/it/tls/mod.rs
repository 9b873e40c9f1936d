//! TLS to the broker and to the NBI, against real TLS servers, and secrets that change while the worker runs.
//!
//! Certificates are made by each test. What is wrong must be said with the key, the file and the remedy, so the texts are looked at.

mod broker; // amqps
mod nbi; // https
mod secrets; // password, URL and certificates that are replaced

use std::process::{Command, Stdio};

use serde_json::Value;

/// What `nbi-upgrade check` says with these keys, and nothing else of the environment, about the first thing whose name begins so and that
/// is not well; about the first at all if everything is. Begins with `ok` or `FAIL`.
fn check(keys: &[(&str, &str)], what: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nbi-upgrade"));
    command
        .env_clear()
        .args(["check", "--output", "json"])
        .stdin(Stdio::null());
    for (key, value) in keys {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let findings: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|finding: &Value| finding["check"].as_str().unwrap().starts_with(what))
        .collect();
    let failed = findings.iter().find(|finding| finding["ok"] == false);
    let finding = failed
        .or_else(|| findings.first())
        .unwrap_or_else(|| panic!("nothing about {what}: {said}"));
    let state = if finding["ok"] == true { "ok" } else { "FAIL" };
    let line = format!(
        "{state} {}: {} {}",
        finding["check"].as_str().unwrap(),
        finding["text"].as_str().unwrap(),
        finding["remedy"].as_str().unwrap_or_default()
    );
    println!("{line}");
    line
}
