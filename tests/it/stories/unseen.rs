//! Rules that stand there and that no read shows: what may be armed is disarmed all the same.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::simulator::{Device, Filter, ReadingRules, RuleRows, Semantics};
use serde_json::json;

use crate::support::world::{Setup, World, describe, request, start};

/// Every way in which an NBI may hide a rule from reads.
fn hidden() -> [Semantics; 3] {
    let plain = Semantics::default();
    [
        Semantics {
            reading_rules: ReadingRules::NeverFound404,
            ..plain.clone()
        },
        Semantics {
            rule_rows: RuleRows::WithoutEnabled,
            ..plain.clone()
        },
        Semantics {
            filter: Filter::Ignored,
            rule_page_max: Some(0),
            ..plain
        },
    ]
}

fn world(semantics: Semantics, offline_until: Option<Timestamp>) -> World {
    let mut device = Device::new("CPE1");
    device.offline_until = offline_until;
    World::begin(Setup {
        semantics,
        devices: vec![device],
        ..Setup::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_no_read_shows_is_disarmed_at_the_end_of_its_job() {
    for semantics in hidden() {
        for cleanup in ["deactivate", "delete"] {
            let mut world = world(semantics.clone(), Some(Timestamp::MAX));
            let mut asked = request("job-1", "CPE1", "fw-2.bin");
            asked["cleanup"] = json!(cleanup);
            world.submit(&asked);
            let outcome = world.outcome().await;
            assert!(
                outcome.starts_with("failed/") && outcome.ends_with(" possible deactivated"),
                "{outcome}, {cleanup}, {semantics:?}"
            );
            world.end().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_whose_rule_no_read_shows_is_disarmed_and_done() {
    for reading_rules in [ReadingRules::NeverFound404, ReadingRules::Forbidden403] {
        let semantics = Semantics {
            reading_rules,
            ..Semantics::default()
        };
        let mut world = world(semantics, None);
        world.submit(&request("job-1", "CPE1", "fw-2.bin"));
        let outcome = world.outcome().await;
        assert_eq!(outcome, "completed/upgraded applied deactivated");
        assert_eq!(world.flashes("CPE1"), 1);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_and_a_pause_disarm_a_rule_that_no_read_shows() {
    for semantics in hidden() {
        if semantics.rule_rows == RuleRows::WithoutEnabled {
            // Such a job ends before anybody can cancel it.
            continue;
        }
        for order in [
            r#"{"command":"cancel","job_id":"job-1"}"#,
            r#"{"command":"pause","all":true}"#,
        ] {
            let comes_at = start() + SignedDuration::from_mins(30);
            let mut world = world(semantics.clone(), Some(comes_at));
            world.submit(&request("job-1", "CPE1", "fw-2.bin"));
            world.pass(SignedDuration::from_mins(3)).await;
            assert_eq!(world.armed().len(), 1);
            world.order(order);
            world.pass(SignedDuration::from_mins(7)).await;
            assert_eq!(
                world.armed(),
                Vec::<String>::new(),
                "{order}, {semantics:?}"
            );
            world.outcome().await;
            assert_eq!(world.attempts("CPE1"), 0);
            world.end().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn devices_beyond_the_page_of_an_ignored_filter_are_upgraded_once_and_disarmed() {
    let ids: Vec<String> = (1..=20).map(|number| format!("CPE{number}")).collect();
    let mut world = World::begin(Setup {
        semantics: Semantics {
            filter: Filter::Ignored,
            rule_page_max: Some(10),
            ..Semantics::default()
        },
        devices: ids.iter().map(|id| Device::new(id)).collect(),
        ..Setup::default()
    });
    for cleanup in ["delete", "deactivate"] {
        for id in &ids {
            let mut asked = request(&format!("{cleanup}-{id}"), id, &format!("{cleanup}.bin"));
            asked["cleanup"] = json!(cleanup);
            world.submit(&asked);
        }
        let before = world.outcomes(0).await.len();
        let finals = world.outcomes(before + ids.len()).await;
        for id in &ids {
            let told = describe(&finals[&format!("{cleanup}-{id}")][0]);
            assert_eq!(told, "completed/upgraded applied deactivated", "{id}");
        }
        world.pass(SignedDuration::from_hours(1)).await;
    }
    for id in &ids {
        assert_eq!(world.flashes(id), 2, "{id}");
    }
    world.end().await;
}
