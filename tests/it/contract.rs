//! The contract that others build against: the committed schemas are the program's, and what real runs publish fits them.
//!
//! The events go to `target/tmp/events*.jsonl`, where `tests/checks/schemas` reads them with tools of others.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use jsonschema::Validator;
use lapin::BasicProperties;
use nbi_upgrade::job::policy::{OnBusy, OnConnectionRequestFailure};
use nbi_upgrade::job::{Outcome, Policy, Reason};
use nbi_upgrade::message::control::AnswerReason;
use nbi_upgrade::message::{EventKind, schema};
use nbi_upgrade::nbi::NbiSettings;
use nbi_upgrade::simulator::{AttemptResult, Device, Trouble, TroublePlan};
use serde_json::{Value, json};

use crate::support::collector::Collector;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site};
use crate::support::world::{Setup, World, request, start};

/// The committed documents, and the arguments of `schema` that print them.
const DOCUMENTS: [(&str, &str); 5] = [
    ("docs/schema/request.schema.json", "request"),
    ("docs/schema/campaign.schema.json", "campaign"),
    ("docs/schema/control.schema.json", "control"),
    ("docs/schema/event.schema.json", "event"),
    ("docs/schema/asyncapi.json", "asyncapi"),
];

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

/// An operator cancels a job whose device is away; and one that failed is done after all.
async fn cancelled_and_corrected() -> Vec<Value> {
    let away = device(|device| {
        device.offline_until = Some(start() + SignedDuration::from_mins(30));
    });
    let mut world = World::begin(Setup {
        devices: away,
        progress: true,
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(3)).await;
    world.order(r#"{"command":"cancel","job_id":"job-1"}"#);
    world.outcomes(1).await;
    let mut events = world.events().to_vec();
    world.end().await;

    let slow = device(|device| device.download = SignedDuration::from_mins(90));
    let mut world = World::begin(Setup {
        devices: slow,
        progress: true,
        ..policy(|policy| policy.late_watch = SignedDuration::from_hours(6))
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.event("upgrade.corrected").await;
    events.extend(world.events().to_vec());
    world.end().await;
    events
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
    all.extend(cancelled_and_corrected().await);
    all
}

/// The types of these events, with the reason where there is one; each fits the schema. They are kept for tools of others.
fn judged(events: &[Value], file: &str) -> BTreeSet<(String, String)> {
    let validator = strict();
    let mut kinds = BTreeSet::new();
    for event in events {
        let errors: Vec<String> = validator
            .iter_errors(event)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{event:#}\n{}", errors.join("\n"));
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        kinds.insert((text(&event["type"]), text(&event["data"]["reason"])));
    }
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
    kinds
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_event_about_a_job_fits_the_schema() {
    let events = Box::pin(everything()).await;
    let kinds = judged(&events, "events-of-jobs.jsonl");
    let mut wanted: BTreeSet<_> = [
        (EventKind::Accepted, "-"),
        (EventKind::Progress, "-"),
        (EventKind::Jeopardy, "-"),
        (EventKind::Corrected, Reason::Upgraded.name()),
    ]
    .iter()
    .map(|(kind, reason)| (kind.event_type().to_owned(), (*reason).to_owned()))
    .collect();
    for reason in Reason::ALL {
        let kind = format!("upgrade.{}", reason.outcome().name());
        wanted.insert((kind, reason.name().to_owned()));
    }
    assert_eq!(kinds, wanted);
}

/// A campaign's request for the devices of these numbers: one start a minute.
fn slow_campaign(id: &str, numbers: RangeInclusive<usize>, more: &[(&str, Value)]) -> Value {
    let devices: Vec<_> = numbers.map(|number| format!("CPE{number:06}")).collect();
    let mut campaign = json!({"campaign_id": id, "devices": devices, "context": {"ticket": 7},
        "firmware_url": "https://files.example/fw-2.bin", "pace": {"starts_per_minute": 1}});
    for (name, value) in more {
        campaign[name] = value.clone();
    }
    campaign
}

#[tokio::test]
async fn every_kind_of_event_about_a_campaign_or_an_order_fits_the_schema() {
    let environment = [("NBI_UPGRADE_CAMPAIGN__PROGRESS_INTERVAL", "1s")];
    let plan = Plan {
        simulator: &["--devices", "6"],
        environment: &environment,
    };
    let mut site = Site::begin(1, plan).await;
    // One device is upgraded, the others would take minutes that are not there.
    let deadline = Timestamp::now() + SignedDuration::from_secs(20);
    let deadline = json!(deadline.to_string());
    let validator = |schema| jsonschema::validator_for(&schema).unwrap();
    let of_campaigns = validator(schema::campaign());
    for campaign in [
        slow_campaign("spring", 1..=3, &[("deadline", deadline)]),
        slow_campaign("autumn", 4..=6, &[]),
    ] {
        assert!(of_campaigns.is_valid(&campaign), "{campaign}");
        site.submit(&[campaign]).await;
    }
    let of_kind = |all: &Collector, kind: EventKind| {
        all.events()
            .any(|seen| seen.body["type"] == kind.event_type())
    };
    for kind in [EventKind::CampaignProgress, EventKind::CampaignJeopardy] {
        let seen = site
            .results
            .take_until(PATIENCE, |all| of_kind(all, kind))
            .await;
        assert!(seen, "{}", kind.event_type());
    }
    for (order, is_accepted) in [
        (&["pause", "--campaign", "spring"][..], true),
        (&["resume", "--campaign", "spring"], true),
        (&["cancel", "--campaign", "autumn"], true),
        (&["cancel", "nobody-knows-it"], true),
        (&["cancel", "spring:CPE000001"], false),
    ] {
        let (status, answer) = site.order(order).await;
        assert_eq!(status, Some(i32::from(!is_accepted)), "{order:?}: {answer}");
    }
    let bad = br#"{"command":"stop"}"#;
    site.client()
        .publish(
            &format!("{PREFIX}.control"),
            "",
            bad,
            BasicProperties::default(),
        )
        .await;
    let all_kinds = |all: &Collector| {
        let wanted = EventKind::ALL.into_iter().filter(|kind| {
            kind.is_of_campaign()
                || matches!(kind, EventKind::CommandAccepted | EventKind::CommandRefused)
        });
        wanted.clone().all(|kind| of_kind(all, kind))
            && all
                .events()
                .any(|seen| seen.data("reason") == AnswerReason::InvalidCommand.name())
    };
    let is_enough = site.results.take_until(PATIENCE, all_kinds).await;
    site.results.finals(6, PATIENCE).await;
    let events: Vec<Value> = site
        .results
        .events()
        .map(|seen| seen.body.clone())
        .collect();
    for event in &events {
        let data = &event["data"];
        if event["subject"] == "spring" && !data["state"].is_null() {
            let is_paused = data["state"] == "paused";
            assert_eq!(data["reason"].is_string(), is_paused, "{event:#}");
            let count = |name: &str| data["counts"][name].as_u64().unwrap_or_default();
            let is_counted = !is_paused || count("waiting") + count("released") == 3;
            assert!(is_counted, "{event:#}");
        }
    }
    let kinds = judged(&events, "events-of-campaigns.jsonl");
    assert!(is_enough, "{kinds:#?}");
    let has = |kind: EventKind, reason: &str| {
        kinds.contains(&(kind.event_type().to_owned(), reason.to_owned()))
    };
    for reason in AnswerReason::ALL {
        let kind = if reason.is_accepted() {
            EventKind::CommandAccepted
        } else {
            EventKind::CommandRefused
        };
        let is_told = has(kind, reason.name()) || *reason == AnswerReason::AlreadyCancelled;
        assert!(is_told, "{}: {kinds:#?}", reason.name());
    }
    assert!(has(EventKind::CampaignPaused, "operator"), "{kinds:#?}");
    assert!(has(EventKind::Cancelled, "cancelled"), "{kinds:#?}");
    site.end(6).await;
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
