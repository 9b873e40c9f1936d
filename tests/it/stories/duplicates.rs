//! Jobs that meet themselves, or each other.

use jiff::SignedDuration;
use nbi_upgrade::job::Policy;
use nbi_upgrade::job::policy::OnBusy;
use nbi_upgrade::simulator::Device;
use serde_json::json;

use crate::support::world::{Setup, World, describe, request};

#[tokio::test(start_paused = true)]
async fn a_request_sent_twice_at_once_upgrades_once_and_repeats_its_event() {
    let mut world = World::begin(Setup::default());
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    let finals = world.outcomes(2).await;
    let [first, second] = &finals["job-1"][..] else {
        panic!("not two")
    };
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["data"]["outcome"], second["data"]["outcome"]);
    assert_eq!(world.flashes("CPE1"), 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_sent_again_later_is_already_done() {
    for minutes_behind in [0, 10, -10] {
        let mut setup = Setup::default();
        setup.semantics.clock_offset = SignedDuration::from_mins(minutes_behind);
        let mut world = World::begin(setup);
        let mut asked = request("job-1", "CPE1", "fw-2.bin");
        asked["requested_at"] = json!("2026-11-23T12:00:00Z");
        asked["deadline"] = json!("2026-11-24T12:00:00Z");
        world.submit(&asked);
        assert_eq!(
            world.outcome().await,
            "completed/upgraded applied deactivated"
        );
        world.pass(SignedDuration::from_hours(2)).await;
        world.submit(&asked);
        let finals = world.outcomes(2).await;
        assert_eq!(
            describe(&finals["job-1"][1]),
            "completed/already_done applied deactivated",
            "clock off by {minutes_behind} min"
        );
        assert_eq!(world.flashes("CPE1"), 1);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_say_when_it_was_made_is_carried_out_once_in_a_day() {
    let mut world = World::begin(Setup::default());
    let asked = request("job-1", "CPE1", "fw-2.bin");
    world.submit(&asked);
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    world.pass(SignedDuration::from_hours(5)).await;
    world.submit(&asked);
    let finals = world.outcomes(2).await;
    assert_eq!(
        describe(&finals["job-1"][1]),
        "completed/already_done applied deactivated"
    );
    assert_eq!(world.flashes("CPE1"), 1);
    let mut forced = request("job-2", "CPE1", "fw-2.bin");
    forced["force"] = json!(true);
    world.submit(&forced);
    let finals = world.outcomes(3).await;
    assert_eq!(
        describe(&finals["job-2"][0]),
        "completed/upgraded applied deactivated"
    );
    assert_eq!(world.flashes("CPE1"), 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_upgrade_of_a_device_does_not_take_the_first_ones_result() {
    let mut world = World::begin(Setup::default());
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    world.outcomes(1).await;
    world.pass(SignedDuration::from_hours(1)).await;
    world.submit(&request("job-2", "CPE1", "fw-3.bin"));
    let finals = world.outcomes(2).await;
    assert_eq!(
        describe(&finals["job-2"][0]),
        "completed/upgraded applied deactivated"
    );
    assert_ne!(
        finals["job-1"][0]["data"]["result"]["id"],
        finals["job-2"][0]["data"]["result"]["id"]
    );
    assert_eq!(world.flashes("CPE1"), 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_job_waits_for_the_first_one_of_the_device() {
    for cleanup in ["deactivate", "delete"] {
        let mut world = World::begin(Setup::default());
        for (job_id, file) in [("job-1", "fw-2.bin"), ("job-2", "fw-3.bin")] {
            let mut asked = request(job_id, "CPE1", file);
            asked["cleanup"] = json!(cleanup);
            world.submit(&asked);
            world.pass(SignedDuration::from_secs(20)).await;
        }
        let finals = world.outcomes(2).await;
        for job_id in ["job-1", "job-2"] {
            assert_eq!(
                finals[job_id][0]["data"]["reason"], "upgraded",
                "{job_id}, {cleanup}"
            );
        }
        assert_eq!(world.flashes("CPE1"), 2);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_job_fails_or_takes_over_where_the_operator_wants_it() {
    let slow = || {
        let mut device = Device::new("CPE1");
        device.session_delay = SignedDuration::from_mins(5);
        device
    };
    for (on_busy, first, second) in [
        (OnBusy::Fail, "completed/upgraded", "failed/device_busy"),
        (OnBusy::Supersede, "failed/superseded", "completed/upgraded"),
    ] {
        let policy = Policy {
            on_busy,
            ..Policy::default()
        };
        let mut world = World::begin(Setup {
            devices: vec![slow()],
            policy,
            ..Setup::default()
        });
        world.submit(&request("job-1", "CPE1", "fw-2.bin"));
        world.pass(SignedDuration::from_secs(20)).await;
        world.submit(&request("job-2", "CPE1", "fw-3.bin"));
        let finals = world.outcomes(2).await;
        assert!(
            describe(&finals["job-1"][0]).starts_with(first),
            "{on_busy:?}: {}",
            describe(&finals["job-1"][0])
        );
        assert!(
            describe(&finals["job-2"][0]).starts_with(second),
            "{on_busy:?}: {}",
            describe(&finals["job-2"][0])
        );
        assert_eq!(world.flashes("CPE1"), 1);
        world.end().await;
    }
}
