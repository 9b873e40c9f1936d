//! What operators order: cancel, pause, resume, the emergency stop; and a result that comes after the end.

use jiff::SignedDuration;
use nbi_upgrade::nbi::NbiSettings;
use nbi_upgrade::nbi::budget::{Budget, Budgets};
use nbi_upgrade::simulator::{AttemptResult, Device};
use serde_json::json;

use crate::support::world::{Setup, World, describe, request, start};

const STOP: &str = r#"{"command":"pause","all":true}"#;
const VOUCHED: &str = r#"{"command":"resume","all":true,"arm_again_after":"25m"}"#;
const GO: &str = r#"{"command":"resume","all":true}"#;
const CANCEL: &str = r#"{"command":"cancel","job_id":"job-1"}"#;

fn of_one(change: impl FnOnce(&mut Device)) -> Setup {
    let mut device = Device::new("CPE1");
    change(&mut device);
    Setup {
        devices: vec![device],
        ..Setup::default()
    }
}

fn comes_after(minutes: i64) -> Setup {
    of_one(|device| device.offline_until = Some(start() + SignedDuration::from_mins(minutes)))
}

fn downloads_for(minutes: i64) -> Setup {
    of_one(|device| device.download = SignedDuration::from_mins(minutes))
}

#[tokio::test(start_paused = true)]
async fn a_job_cancelled_before_it_comes_does_nothing() {
    let mut world = World::begin(Setup::default());
    world.order(CANCEL);
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "cancelled/cancelled none not_created"
    );
    assert_eq!(world.attempts("CPE1"), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_whose_device_has_not_come_is_disarmed() {
    let mut world = World::begin(comes_after(30));
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(3)).await;
    world.order(CANCEL);
    assert_eq!(
        world.outcome().await,
        "cancelled/cancelled possible deactivated"
    );
    world.pass(SignedDuration::from_hours(2)).await;
    assert_eq!(world.attempts("CPE1"), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_disarmed_though_its_rule_was_to_be_kept() {
    let mut world = World::begin(comes_after(30));
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["cleanup"] = json!("keep");
    world.submit(&asked);
    world.pass(SignedDuration::from_mins(3)).await;
    world.order(CANCEL);
    assert_eq!(
        world.outcome().await,
        "cancelled/cancelled possible deactivated"
    );
    world.pass(SignedDuration::from_hours(2)).await;
    assert_eq!(world.attempts("CPE1"), 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_whose_device_is_at_it_does_not_claim_that_nothing_happened() {
    let mut world = World::begin(downloads_for(20));
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(3)).await;
    assert_eq!(world.attempts("CPE1"), 1);
    world.order(CANCEL);
    assert_eq!(
        world.outcome().await,
        "cancelled/cancelled possible deactivated"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_emergency_stop_disarms_what_has_not_begun_and_its_end_arms_it_again() {
    let mut setup = comes_after(20);
    setup.policy.flash_time_max = SignedDuration::from_mins(30);
    let mut world = World::begin(setup);
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["deadline"] = json!("2026-11-23T20:00:00Z");
    world.submit(&asked);
    world.pass(SignedDuration::from_mins(3)).await;
    assert_eq!(world.armed().len(), 1);
    world.order(STOP);
    world.pass(SignedDuration::from_mins(7)).await;
    assert_eq!(world.armed(), Vec::<String>::new());
    // The device comes while everything is paused, and finds nothing.
    world.pass(SignedDuration::from_mins(60)).await;
    assert_eq!(world.attempts("CPE1"), 0);
    world.order(GO);
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    assert_eq!(world.flashes("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_pause_disarmed_is_not_armed_again_unless_the_operator_says_so() {
    let device = AttemptResult::Silent;
    let mut world = World::begin(of_one(|plain| plain.attempts = vec![device]));
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(2)).await;
    assert_eq!(world.attempts("CPE1"), 1);
    world.order(STOP);
    world.pass(SignedDuration::from_mins(6)).await;
    world.order(GO);
    assert_eq!(
        world.outcome().await,
        "failed/timed_out possible deactivated"
    );
    world.pass(SignedDuration::from_hours(2)).await;
    assert_eq!(world.attempts("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_says_when_arms_again_what_the_pause_disarmed_and_no_sooner() {
    let mut world = World::begin(comes_after(20));
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["deadline"] = json!("2026-11-23T20:00:00Z");
    world.submit(&asked);
    world.pass(SignedDuration::from_mins(3)).await;
    assert_eq!(world.armed().len(), 1);
    world.order(STOP);
    world.pass(SignedDuration::from_mins(30)).await;
    assert_eq!(world.armed(), Vec::<String>::new());
    world.order(VOUCHED);
    world.pass(SignedDuration::from_mins(24)).await;
    assert_eq!(world.armed(), Vec::<String>::new());
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    assert_eq!(world.flashes("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_at_it_when_the_pause_comes_ends_and_is_not_upgraded_twice() {
    let mut world = World::begin(downloads_for(12));
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(2)).await;
    assert_eq!(world.attempts("CPE1"), 1);
    world.order(STOP);
    world.pass(SignedDuration::from_mins(6)).await;
    world.order(GO);
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    world.pass(SignedDuration::from_hours(2)).await;
    assert_eq!(world.flashes("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_comes_while_its_campaign_is_paused_waits() {
    let mut world = World::begin(Setup::default());
    world.order(r#"{"command":"pause","campaign_id":"c"}"#);
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["campaign_id"] = json!("c");
    world.submit(&asked);
    world.pass(SignedDuration::from_mins(20)).await;
    assert_eq!(world.attempts("CPE1"), 0);
    world.order(r#"{"command":"resume","campaign_id":"c"}"#);
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_deadline_corrects_the_outcome() {
    for (result, expected) in [
        (
            AttemptResult::Success,
            "completed/upgraded applied deactivated",
        ),
        (
            AttemptResult::fault(9010, "no such file"),
            "failed/device_fault possible deactivated",
        ),
    ] {
        let mut device = Device::new("CPE1").with_attempts(&[result]);
        device.download = SignedDuration::from_mins(90);
        let mut setup = Setup {
            devices: vec![device],
            ..Setup::default()
        };
        setup.policy.late_watch = SignedDuration::from_hours(6);
        let mut world = World::begin(setup);
        world.submit(&request("job-1", "CPE1", "fw-2.bin"));
        assert_eq!(
            world.outcome().await,
            "failed/timed_out possible deactivated"
        );
        let corrected = world.event("upgrade.corrected").await;
        assert_eq!(describe(&corrected), expected);
        assert_eq!(corrected["data"]["job_id"], "job-1");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_newer_job_corrects_no_older_one() {
    let attempts = [AttemptResult::Silent, AttemptResult::Success];
    let mut setup = Setup {
        devices: vec![Device::new("CPE1").with_attempts(&attempts)],
        ..Setup::default()
    };
    setup.policy.late_watch = SignedDuration::from_hours(6);
    let mut world = World::begin(setup);
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "failed/timed_out possible deactivated"
    );
    let mut newer = request("job-2", "CPE1", "fw-3.bin");
    newer["requested_at"] = json!((start() + SignedDuration::from_mins(61)).to_string());
    world.submit(&newer);
    let outcomes = world.outcomes(2).await;
    assert_eq!(
        describe(&outcomes["job-2"][0]),
        "completed/upgraded applied deactivated"
    );
    world.pass(SignedDuration::from_hours(7)).await;
    let corrections: Vec<_> = world
        .events()
        .iter()
        .filter(|event| event["type"] == "upgrade.corrected")
        .collect();
    assert!(corrections.is_empty(), "{corrections:#?}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_late_watch_ends() {
    let mut setup = Setup {
        devices: vec![Device::new("CPE1").with_attempts(&[AttemptResult::Silent])],
        ..Setup::default()
    };
    setup.policy.late_watch = SignedDuration::from_hours(6);
    let mut world = World::begin(setup);
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.outcome().await;
    assert_eq!(world.driver.depth(), 1);
    world.pass(SignedDuration::from_hours(7)).await;
    let told: Vec<_> = world.events().iter().map(|event| &event["type"]).collect();
    assert_eq!(
        told,
        ["upgrade.accepted", "upgrade.jeopardy", "upgrade.failed"]
    );
    world.end().await;
}

/// Writes come slowly: fifty jobs have been read for and wait to arm their rules when the order comes.
async fn none_is_armed_long_after(order: &str) {
    let devices = (0..50).map(|number| {
        let mut device = Device::new(&format!("CPE{number}"));
        device.offline_until = Some(start() + SignedDuration::from_mins(30));
        device
    });
    let mut world = World::begin(Setup {
        devices: devices.collect(),
        nbi: NbiSettings {
            budgets: Budgets {
                writes: Budget {
                    per_second: Some(0.5),
                    ..Budget::default()
                },
                ..Budgets::default()
            },
            ..NbiSettings::default()
        },
        ..Setup::default()
    });
    for number in 0..50 {
        let mut asked = request(
            &format!("job-{number}"),
            &format!("CPE{number}"),
            "fw-2.bin",
        );
        asked["campaign_id"] = json!("autumn");
        world.submit(&asked);
    }
    world.pass(SignedDuration::from_secs(5)).await;
    let before = world.armed().len();
    assert!((1..5).contains(&before), "{before} are armed");
    world.order(order);
    // What waited for its turn for almost as long as it may, and its moment.
    world.pass(SignedDuration::from_secs(12)).await;
    let mut last = world.armed();
    for second in 12..600 {
        world.pass(SignedDuration::from_secs(1)).await;
        let armed = world.armed();
        let new: Vec<_> = armed.iter().filter(|rule| !last.contains(rule)).collect();
        assert!(new.is_empty(), "{second} s after the order: {new:?}");
        last = armed;
    }
    assert!(last.is_empty(), "{last:?} are armed still");
    if order == STOP {
        world.order(GO);
        world.outcomes(50).await;
        let upgraded = (0..50).filter(|number| world.flashes(&format!("CPE{number}")) == 1);
        let upgraded = upgraded.count();
        assert!(
            upgraded >= 50 - 12,
            "{upgraded} of those that had not begun"
        );
    } else {
        world.outcomes(50).await;
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_everything_is_obeyed_by_jobs_that_wait_for_their_turn_to_arm() {
    none_is_armed_long_after(STOP).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_is_obeyed_by_jobs_that_wait_for_their_turn_to_arm() {
    none_is_armed_long_after(r#"{"command":"cancel","campaign_id":"autumn"}"#).await;
}
