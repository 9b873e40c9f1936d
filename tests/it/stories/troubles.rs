//! The NBI's bad days.

use jiff::SignedDuration;
use nbi_upgrade::simulator::{Device, Fleet, Trouble, TroublePlan};
use serde_json::json;

use crate::support::world::{Setup, World, describe, request, start};

#[tokio::test(start_paused = true)]
async fn an_outage_delays_jobs_and_costs_none() {
    let outage = TroublePlan::new(1).spell(
        Trouble::Refused,
        start(),
        start() + SignedDuration::from_mins(20),
    );
    let mut world = World::begin(Setup {
        troubles: outage,
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
async fn wrong_credentials_cost_no_job_anything() {
    let spell = TroublePlan::new(1).spell(
        Trouble::Unauthorized,
        start(),
        start() + SignedDuration::from_mins(40),
    );
    let mut world = World::begin(Setup {
        troubles: spell,
        ..Setup::default()
    });
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["deadline"] = json!("2026-11-23T18:00:00Z");
    world.submit(&asked);
    assert_eq!(
        world.outcome().await,
        "completed/upgraded applied deactivated"
    );
    let stages = world.events().last().unwrap()["data"]["stages"].clone();
    assert!(
        stages
            .as_array()
            .unwrap()
            .iter()
            .all(|stage| stage["attempts"].as_u64() == Some(1)),
        "{stages}"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_nbi_that_never_answers_is_reported() {
    let outage = TroublePlan::new(1).with(Trouble::Unavailable, 1.0);
    let mut world = World::begin(Setup {
        troubles: outage,
        ..Setup::default()
    });
    let mut asked = request("job-1", "CPE1", "fw-2.bin");
    asked["deadline"] = json!("2026-11-24T12:00:00Z");
    world.submit(&asked);
    assert_eq!(
        world.outcome().await,
        "failed/nbi_unavailable none not_created"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_nbi_that_talks_nonsense_is_reported() {
    let nonsense = TroublePlan::new(1).with(Trouble::Garbage, 1.0);
    let mut world = World::begin(Setup {
        troubles: nonsense,
        ..Setup::default()
    });
    world.submit(&request("job-1", "CPE1", "fw-2.bin"));
    assert_eq!(
        world.outcome().await,
        "failed/nbi_protocol_error none not_created"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_through_a_storm_of_every_trouble() {
    for seed in 0..20 {
        let quiet_from = start() + SignedDuration::from_hours(4);
        let mut setup = Setup {
            troubles: TroublePlan::storm(seed, 0.2).quiet_from(quiet_from),
            devices: Vec::new(),
            ..Setup::default()
        };
        setup.requests.timeout = SignedDuration::from_hours(8);
        setup.requests.max_attempts = 3;
        let fleet = Fleet::mixed(seed);
        let ids: Vec<String> = (1..=50).map(|number| fleet.cpe_id(number)).collect();
        let devices: Vec<Device> = ids.iter().map(|id| fleet.device(id, start())).collect();
        setup.devices = devices;
        let mut world = World::begin(setup);
        for id in &ids {
            world.submit(&request(id, id, "fw-2.bin"));
        }
        let finals = world.outcomes(ids.len()).await;
        for id in &ids {
            assert_eq!(finals[id].len(), 1, "seed {seed}, {id}");
            assert!(
                world.flashes(id) <= 1,
                "seed {seed}: {id} was flashed {} times: {}",
                world.flashes(id),
                describe(&finals[id][0])
            );
        }
        world.end().await;
    }
}
