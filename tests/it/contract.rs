//! The contract that others build against: the committed schemas are the program's, and what real runs publish fits them.
//!
//! The events go to `target/tmp/events.jsonl`, where `tests/checks/schemas` reads them with tools of others.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use jsonschema::Validator;
use nbi_upgrade::job::policy::{OnBusy, OnConnectionRequestFailure};
use nbi_upgrade::job::{Outcome, Policy, Reason};
use nbi_upgrade::message::{EventKind, schema};
use nbi_upgrade::nbi::NbiSettings;
use nbi_upgrade::simulator::{AttemptResult, Device, Trouble, TroublePlan};
use serde_json::{Value, json};

use crate::support::world::{Setup, World, request};

/// The committed documents, and the arguments of `schema` that print them.
const DOCUMENTS: [(&str, &str); 3] = [
    ("docs/schema/request.schema.json", "request"),
    ("docs/schema/event.schema.json", "event"),
    ("docs/schema/asyncapi.json", "asyncapi"),
];

/// Reasons that no run can have in this version.
const NEVER: [Reason; 1] = [Reason::Cancelled];

#[test]
fn the_committed_schemas_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, name) in DOCUMENTS {
        let printed = Command::new(env!("CARGO_BIN_EXE_nbi-upgrade"))
            .args(["schema", name])
            .env_clear()
            .output()
            .unwrap();
        assert!(printed.status.success());
        let committed = std::fs::read(root.join(path)).unwrap_or_default();
        assert!(
            printed.stdout == committed,
            "{path} differs from the program's: `nbi-upgrade schema {name} >{path}`, and look at the difference"
        );
    }
}

/// The schema of events, which also refuses members that it does not name: so that none is forgotten in it.
fn strict() -> Validator {
    let mut schema = schema::event();
    for definition in schema["definitions"].as_object_mut().unwrap().values_mut() {
        if definition["type"] == "object" {
            definition["additionalProperties"] = json!(false);
        }
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// Runs a world with these requests, a pause after each, until all are over; gives back everything it published.
async fn events_of(setup: Setup, requests: &[Value], pause: SignedDuration) -> Vec<Value> {
    let mut world = World::begin(Setup {
        progress: true,
        ..setup
    });
    for request in requests {
        world.submit(request);
        world.pass(pause).await;
    }
    world.outcomes(requests.len()).await;
    let events = world.events().to_vec();
    world.end().await;
    events
}

fn with(field: &str, value: Value) -> Value {
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked[field] = value;
    asked
}

fn policy(change: impl FnOnce(&mut Policy)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.policy);
    setup
}

fn verifying() -> Setup {
    let mut setup = policy(|policy| policy.verify = true);
    setup.requests.verify = true;
    setup
}

fn troubled(plan: TroublePlan) -> Setup {
    Setup {
        troubles: plan,
        ..Setup::default()
    }
}

fn device(change: impl FnOnce(&mut Device)) -> Vec<Device> {
    let mut device = Device::new("CPE1");
    change(&mut device);
    vec![device]
}

/// Runs that have every ending between them.
async fn everything() -> Vec<Value> {
    let usual = request("job-1", "CPE1", "fw-2.bin");
    let mut rich = with("context", json!({"ticket": 7, "none": null}));
    rich["campaign_id"] = json!("spring-26");
    let mut dated = with("requested_at", json!("2026-11-23T13:00:00+01:00"));
    dated["deadline"] = json!("2026-11-24T12:00:00Z");
    let fault = Device::new("CPE1").with_attempts(&[AttemptResult::fault(9010, "File not found.")]);
    let silent = device(|device| device.offline_until = Some(Timestamp::MAX));
    let slow = || device(|device| device.session_delay = SignedDuration::from_mins(5));
    let two = [usual.clone(), request("job-2", "CPE1", "fw-3.bin")];
    let no_parameter = NbiSettings {
        version_parameters: vec!["Device.Unknown".to_owned()],
        ..NbiSettings::default()
    };
    let busy = |on_busy| Setup {
        devices: slow(),
        ..policy(|policy| policy.on_busy = on_busy)
    };
    let soon = SignedDuration::from_secs(20);
    let later = SignedDuration::from_hours(2);
    let mut all = events_of(Setup::default(), &[dated.clone(), dated], later).await;
    for (setup, requests) in [
        (Setup::default(), vec![rich]),
        (verifying(), vec![with("expected_version", json!("1.0.0"))]),
        (verifying(), vec![with("expected_version", json!("9.9"))]),
        (
            Setup {
                nbi: no_parameter,
                ..verifying()
            },
            vec![with("expected_version", json!("9.9"))],
        ),
        (
            Setup {
                devices: vec![fault],
                ..Setup::default()
            },
            vec![usual.clone()],
        ),
        (
            Setup {
                devices: silent.clone(),
                ..Setup::default()
            },
            vec![usual.clone()],
        ),
        (
            Setup::default(),
            vec![with("deadline", json!("2026-11-23T11:59:00Z"))],
        ),
        (
            Setup {
                devices: silent,
                ..policy(|policy| {
                    policy.connection_request_on_failure = OnConnectionRequestFailure::Fail
                })
            },
            vec![usual.clone()],
        ),
        (
            troubled(TroublePlan::new(1).with(Trouble::Unavailable, 1.0)),
            vec![with("deadline", json!("2026-11-24T12:00:00Z"))],
        ),
        (
            troubled(TroublePlan::new(1).with(Trouble::Garbage, 1.0)),
            vec![usual.clone()],
        ),
        (busy(OnBusy::Fail), two.to_vec()),
        (busy(OnBusy::Supersede), two.to_vec()),
        (
            Setup::default(),
            vec![json!({"job_id": 1, "cpe_id": "DM*", "extra": 0}), json!([])],
        ),
    ] {
        all.extend(events_of(setup, &requests, soon).await);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_event_that_runs_produce_fits_the_schema() {
    let validator = strict();
    let events = Box::pin(everything()).await;
    let mut kinds = BTreeSet::new();
    for event in &events {
        let errors: Vec<String> = validator
            .iter_errors(event)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{event:#}\n{}", errors.join("\n"));
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        kinds.insert((text(&event["type"]), text(&event["data"]["reason"])));
    }
    let without_reason = [EventKind::Accepted, EventKind::Progress];
    let mut wanted: BTreeSet<_> = without_reason
        .iter()
        .map(|kind| (kind.event_type().to_owned(), "-".to_owned()))
        .collect();
    for reason in Reason::ALL.iter().filter(|reason| !NEVER.contains(reason)) {
        let kind = format!("upgrade.{}", reason.outcome().name());
        wanted.insert((kind, reason.name().to_owned()));
    }
    assert_eq!(kinds, wanted);
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("events.jsonl");
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn the_schema_of_events_refuses_what_no_worker_would_say() {
    let validator = strict();
    let fixture = include_str!("../fixtures/messages/v1/event-failed.json");
    let event: Value = serde_json::from_str(fixture).unwrap();
    assert!(validator.is_valid(&event));
    for (pointer, value) in [
        ("/type", json!("upgrade.completed")),
        ("/type", json!("upgrade.started")),
        ("/specversion", json!("0.3")),
        ("/id", json!("7")),
        ("/time", json!("yesterday")),
        ("/subject", json!(null)),
        ("/data/outcome", json!(Outcome::Completed.name())),
        ("/data/reason", json!(Reason::Upgraded.name())),
        ("/data/impact", json!("some")),
        ("/data/rule/state", json!("armed")),
        ("/data/fault", json!(null)),
        ("/data/fault/code", json!("9010")),
        ("/data/stages/0/stage", json!("teleport")),
        ("/data/job_id", json!(1)),
    ] {
        let mut changed = event.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&changed), "{pointer}");
    }
    for (holder, member) in [
        ("", "id"),
        ("", "subject"),
        ("/data", "impact"),
        ("/data/rule", "state"),
    ] {
        let mut changed = event.clone();
        let holder = changed.pointer_mut(holder).unwrap();
        holder.as_object_mut().unwrap().remove(member).unwrap();
        assert!(!validator.is_valid(&changed), "{member}");
    }
}
