//! What devices do, and what becomes of their jobs.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::Policy;
use nbi_upgrade::simulator::{AttemptResult, Device};
use serde_json::json;

use crate::support::world::{Setup, World, request};

#[tokio::test(start_paused = true)]
async fn a_device_is_upgraded_and_its_rule_disarmed() {
    let mut world = World::begin(Setup::default());
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    assert_eq!(world.events()[0]["type"], "upgrade.accepted");
    assert_eq!(world.flashes("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn cleanup_deletes_or_keeps_the_rule_as_asked() {
    for (cleanup, outcome) in [
        ("delete", "completed/upgraded applied deleted"),
        ("keep", "completed/upgraded applied kept"),
    ] {
        let mut world = World::begin(Setup::default());
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["cleanup"] = json!(cleanup);
        world.submit(&asked);
        assert_eq!(world.outcome().await, outcome);
        let armed = world
            .simulator
            .with(|simulator, _| simulator.armed_rules().len());
        assert_eq!(armed, usize::from(cleanup == "keep"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_offline_at_first_is_upgraded_when_it_comes() {
    let mut device = Device::new("CPE1");
    device.offline_until = Some(crate::support::world::start() + SignedDuration::from_mins(40));
    let mut world = World::begin(Setup {
        devices: vec![device],
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_never_answers_times_out_and_may_have_been_touched() {
    let mut device = Device::new("CPE1");
    device.offline_until = Some(Timestamp::MAX);
    let mut world = World::begin(Setup {
        devices: vec![device],
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "failed/timed_out possible deactivated"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_permanent_fault_ends_the_job_with_its_code() {
    let text = "Download failure. File not found.";
    let device = Device::new("CPE1").with_attempts(&[AttemptResult::fault(9010, text)]);
    let mut world = World::begin(Setup {
        devices: vec![device],
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "failed/device_fault possible deactivated"
    );
    let fault = &world.events().last().unwrap()["data"]["fault"];
    assert_eq!(
        (fault["code"].as_u64(), fault["transient"].as_bool()),
        (Some(9010), Some(false))
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_transient_fault_is_tried_again_as_often_as_asked() {
    let flaky = || {
        Device::new("CPE1").with_attempts(&[
            AttemptResult::fault(9017, "broken off"),
            AttemptResult::Success,
        ])
    };
    for (max_attempts, outcome, attempts) in [
        (1, "failed/device_fault possible deactivated", 1),
        (2, "completed/upgraded applied deactivated", 2),
    ] {
        let mut world = World::begin(Setup {
            devices: vec![flaky()],
            ..Setup::default()
        });
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["max_attempts"] = json!(max_attempts);
        world.submit(&asked);
        assert_eq!(world.outcome().await, outcome);
        assert_eq!(world.attempts("CPE1"), attempts);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_not_before_and_nothing_after_a_passed_deadline() {
    let mut world = World::begin(Setup::default());
    let mut later = request("job-1", "CPE1", "fw-2.bin");
    later["not_before"] = json!("2026-11-23T20:00:00Z");
    world.submit(&later);
    world.pass(SignedDuration::from_hours(7)).await;
    assert_eq!(
        world
            .simulator
            .with(|simulator, _| simulator.summary(crate::support::world::start()).rules),
        0
    );
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    let started = world
        .simulator
        .with(|simulator, _| simulator.flashes("CPE1")[0].started_at);
    assert!(started >= "2026-11-23T20:00:00Z".parse().unwrap());

    let mut world = World::begin(Setup::default());
    let mut passed = request("job-1", "CPE1", "fw-2.bin");
    passed["deadline"] = json!("2026-11-23T11:59:00Z");
    world.submit(&passed);
    assert_eq!(world.outcome().await, "failed/timed_out none not_created");
    assert!(
        world
            .simulator
            .with(|simulator, now| simulator.summary(now).calls.is_empty()),
        "the NBI was asked"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_version_is_read_back_where_it_is_wanted() {
    let verifying = || {
        let mut setup = Setup {
            policy: Policy {
                verify: true,
                ..Policy::default()
            },
            ..Setup::default()
        };
        setup.requests.verify = true;
        setup
    };
    for (expected, outcome) in [
        ("fw-2", "completed/upgraded applied deactivated"),
        ("9.9", "failed/version_mismatch unknown deactivated"),
        ("1.0.0", "completed/already_current none not_created"),
    ] {
        let mut world = World::begin(verifying());
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["expected_version"] = json!(expected);
        world.submit(&asked);
        assert_eq!(world.outcome().await, outcome, "{expected}");
        world.end().await;
    }
}

/// Known device stacks store their report before they flash.
#[tokio::test(start_paused = true)]
async fn a_device_that_reports_before_it_flashes_is_asked_until_it_is_up_with_its_rule_disarmed() {
    for (cleanup, rule) in [("deactivate", "deactivated"), ("delete", "deleted")] {
        let mut device = Device::new("CPE1");
        device.reports_before_flashing = true;
        device.reboot = SignedDuration::from_mins(4);
        let mut setup = Setup {
            devices: vec![device],
            policy: Policy {
                verify: true,
                ..Policy::default()
            },
            ..Setup::default()
        };
        setup.requests.verify = true;
        let mut world = World::begin(setup);
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["expected_version"] = json!("fw-2");
        asked["cleanup"] = json!(cleanup);
        world.submit(&asked);
        world.pass(SignedDuration::from_mins(3)).await;
        assert_eq!(world.armed(), Vec::<String>::new(), "while it boots");
        let expected = format!("completed/upgraded applied {rule}");
        assert_eq!(world.outcome().await, expected);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_rejected_with_every_field_and_the_next_job_is_unharmed() {
    let mut world = World::begin(Setup::default());
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let large = format!("{{\"job_id\":\"{}\"}}", "x".repeat(1 << 20));
    let bad: [&[u8]; 6] = [
        b"not JSON",
        b"{\"job_id\":1,\"cpe_id\":\"DM*\",\"firmware_url\":[],\"extra\":0}",
        b"\xff\xfe",
        b"",
        deep.as_bytes(),
        large.as_bytes(),
    ];
    for body in bad {
        world.submit_bytes(body);
    }
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    let finals = world.outcomes(bad.len() + 1).await;
    assert_eq!(finals["job-1"].len(), 1);
    assert_eq!(finals["job-1"][0]["data"]["outcome"], "completed");
    assert_eq!(world.driver.dead().len(), bad.len());
    assert!(
        world
            .driver
            .dead()
            .iter()
            .any(|(body, dead)| body == b"not JSON" && dead.reason == "invalid_request")
    );
    let fields: Vec<&str> = world.events()[1]["data"]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["job_id", "cpe_id", "firmware_url", "extra"]);
    world.end().await;
}
