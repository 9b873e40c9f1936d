//! Deadlines that can hardly be met, and what is said of them before they pass.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::Policy;
use nbi_upgrade::simulator::{Device, Trouble, TroublePlan};
use serde_json::{Value, json};

use crate::support::world::{Setup, World, request, start};

/// Every event of this type that was seen.
fn of_type<'a>(world: &'a World, kind: &str) -> Vec<&'a Value> {
    let all = world.events().iter();
    all.filter(|event| event["type"] == kind).collect()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("a text").parse().expect("a time")
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_puts_its_deadline_in_jeopardy_once_and_in_time() {
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
    let told = of_type(&world, "upgrade.jeopardy");
    assert_eq!(told.len(), 1, "{told:#?}");
    let data = &told[0]["data"];
    let deadline = start() + SignedDuration::from_hours(1);
    assert_eq!(time(&data["deadline"]), deadline);
    assert_eq!(
        (&data["stage"], &data["waiting_for"], &data["outcome"]),
        (&json!("await_result"), &json!("result"), &Value::Null)
    );
    // From the usual time before the deadline, and earlier by one look at most: five minutes and their jitter.
    let left = deadline.duration_since(time(&told[0]["time"]));
    assert!(
        left > SignedDuration::from_mins(9) && left < SignedDuration::from_mins(18),
        "{left:?} before the deadline"
    );
    assert!(time(&data["next_look_at"]) > time(&told[0]["time"]));
    let position = |kind: &str| {
        world
            .events()
            .iter()
            .position(|event| event["type"] == kind)
    };
    assert!(position("upgrade.jeopardy") < position("upgrade.failed"));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_job_puts_nothing_in_jeopardy_however_short_its_time() {
    for deadline in ["2026-11-23T12:05:00Z", "2026-11-24T12:00:00Z"] {
        let mut world = World::begin(Setup::default());
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["deadline"] = json!(deadline);
        world.submit(&asked);
        assert_eq!(
            world.outcome().await,
            "completed/upgraded applied deactivated"
        );
        assert!(of_type(&world, "upgrade.jeopardy").is_empty(), "{deadline}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_job_waits_for_is_said_with_its_jeopardy() {
    // Another job holds the device until the deadline.
    let mut device = Device::new("CPE1");
    device.offline_until = Some(Timestamp::MAX);
    let mut world = World::begin(Setup {
        devices: vec![device],
        ..Setup::default()
    });
    let mut long = request("job-1", "CPE1", "fw-2.bin");
    long["deadline"] = json!("2026-11-23T16:00:00Z");
    world.submit(&long);
    world.pass(SignedDuration::from_mins(1)).await;
    world.submit(&request("job-2", "CPE1", "fw-3.bin"));
    let told = world.event("upgrade.jeopardy").await;
    assert_eq!(
        (&told["data"]["job_id"], &told["data"]["waiting_for"]),
        (&json!("job-2"), &json!("other_job"))
    );
    assert_eq!(told["data"]["stage"], "preflight");
    world.outcomes(2).await;

    // The NBI is away.
    let mut world = World::begin(Setup {
        troubles: TroublePlan::new(1).with(Trouble::Unavailable, 1.0),
        ..Setup::default()
    });
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["deadline"] = json!("2026-11-23T12:20:00Z");
    world.submit(&asked);
    let told = world.event("upgrade.jeopardy").await;
    assert_eq!(told["data"]["waiting_for"], "nbi");
    world.outcomes(1).await;
    assert_eq!(of_type(&world, "upgrade.jeopardy").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_knows_no_usual_time_hears_of_no_jeopardy() {
    let mut device = Device::new("CPE1");
    device.offline_until = Some(Timestamp::MAX);
    let mut world = World::begin(Setup {
        devices: vec![device],
        policy: Policy {
            flash_time: SignedDuration::ZERO,
            ..Policy::default()
        },
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.outcome().await;
    assert!(of_type(&world, "upgrade.jeopardy").is_empty());
    world.end().await;
}
