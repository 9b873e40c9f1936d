//! Two jobs of one device without tags: no result is taken for another job's, and no rule.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::policy::OnBusy;
use nbi_upgrade::simulator::{AttemptResult, Device};
use serde_json::{Value, json};

use crate::support::world::{Setup, World, describe, request, start};

const PAUSE: &str = r#"{"command":"pause","campaign_id":"c"}"#;

fn after(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

fn comes_after(minutes: i64) -> Setup {
    let mut device = Device::new("CPE1");
    device.offline_until = Some(after(minutes));
    Setup {
        devices: vec![device],
        ..Setup::default()
    }
}

/// A request of a campaign that can be paused.
fn pausable(deadline: &str) -> Value {
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["campaign_id"] = json!("c");
    asked["deadline"] = json!(deadline);
    asked
}

#[tokio::test(start_paused = true)]
async fn a_paused_job_does_not_take_the_result_of_the_job_that_came_between() {
    for (cleanup, result) in [
        ("deactivate", AttemptResult::Success),
        ("delete", AttemptResult::Success),
        ("deactivate", AttemptResult::fault(9018, "corrupted")),
    ] {
        let mut setup = comes_after(30);
        setup.devices[0] = setup.devices[0].clone().with_attempts(&[result]);
        let mut world = World::begin(setup);
        world.submit(&pausable("2026-11-23T20:00:00Z"));
        world.pass(SignedDuration::from_mins(3)).await;
        world.order(PAUSE);
        world.pass(SignedDuration::from_mins(7)).await;
        assert_eq!(world.armed(), Vec::<String>::new());
        let mut other = request("job-2", "CPE1", "fw-3.bin");
        other["cleanup"] = json!(cleanup);
        world.submit(&other);
        let finals = world.outcomes(2).await;
        assert_eq!(world.attempts("CPE1"), 1);
        assert!(!describe(&finals["job-2"][0]).starts_with("failed/superseded"));
        let paused = describe(&finals["job-1"][0]);
        assert_eq!(paused, "failed/superseded possible superseded", "{cleanup}");
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_job_leaves_the_rule_of_a_job_with_the_same_file_alone() {
    let mut world = World::begin(comes_after(80));
    world.submit(&pausable("2026-11-23T13:00:00Z"));
    world.pass(SignedDuration::from_mins(3)).await;
    world.order(PAUSE);
    world.pass(SignedDuration::from_mins(7)).await;
    let mut other = request("job-2", "CPE1", "fw-2.bin");
    other["deadline"] = json!("2026-11-23T20:00:00Z");
    world.submit(&other);
    let finals = world.outcomes(2).await;
    assert_eq!(
        describe(&finals["job-1"][0]),
        "failed/timed_out possible superseded"
    );
    assert_eq!(
        describe(&finals["job-2"][0]),
        "completed/upgraded applied deactivated"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_job_that_took_over_and_deleted_its_rule_is_not_taken() {
    let mut setup = comes_after(30);
    setup.policy.on_busy = OnBusy::Supersede;
    let mut world = World::begin(setup);
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.pass(SignedDuration::from_mins(3)).await;
    let mut other = request("job-2", "CPE1", "fw-3.bin");
    other["cleanup"] = json!("delete");
    world.submit(&other);
    let finals = world.outcomes(2).await;
    assert_eq!(
        describe(&finals["job-2"][0]),
        "completed/upgraded applied deleted"
    );
    assert_eq!(
        describe(&finals["job-1"][0]),
        "failed/superseded possible superseded"
    );
    world.end().await;
}

/// A backlog, `not_before`, or a campaign, which gives all its devices the time of its request.
#[tokio::test(start_paused = true)]
async fn what_another_job_did_between_request_and_begin_is_not_this_jobs() {
    let backlog = json!({});
    let later = json!({"not_before": "2026-11-23T14:00:00Z"});
    let later_delete = json!({"not_before": "2026-11-23T14:00:00Z", "cleanup": "delete"});
    let campaign = json!({"campaign_id": "spring", "job_id": "spring:CPE1"});
    for change in [backlog, later, later_delete, campaign] {
        for result in [
            AttemptResult::Success,
            AttemptResult::fault(9018, "corrupted"),
        ] {
            let attempts = [result, AttemptResult::Success];
            let mut world = World::begin(Setup {
                devices: vec![Device::new("CPE1").with_attempts(&attempts)],
                ..Setup::default()
            });
            let mut first = request("job-1", "CPE1", "fw-2.bin");
            first["cleanup"] = json!("delete");
            world.submit(&first);
            world.outcomes(1).await;
            world.pass(SignedDuration::from_mins(30)).await;
            let mut second = request("job-2", "CPE1", "fw-3.bin");
            second["requested_at"] = json!("2026-11-23T12:00:00Z");
            second["deadline"] = json!("2026-11-23T20:00:00Z");
            for (name, value) in change.as_object().unwrap() {
                second[name] = value.clone();
            }
            world.submit(&second);
            let finals = world.outcomes(2).await;
            let told = &finals[second["job_id"].as_str().unwrap()][0];
            assert_eq!(told["data"]["reason"], "upgraded", "{second}: {told:#}");
            assert_eq!(world.attempts("CPE1"), 2);
            world.end().await;
        }
    }
}
