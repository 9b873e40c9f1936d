//! Every answer to the vendor's open questions, alone and in every combination: one flash, one outcome, nothing armed.

use jiff::SignedDuration;
use nbi_upgrade::simulator::{
    AttemptResult, Device, FailedAttempt, Filter, HttpStatus, Incomplete, PostOnExisting, Put,
    ReadingRules, ResultTime, Results, Semantics, TakenRule,
};
use serde_json::json;

use crate::support::world::{Setup, World, describe, request};

fn every_combination() -> Vec<Semantics> {
    let mut all = vec![Semantics::default()];
    macro_rules! vary {
        ($field:ident, $switch:ident) => {
            all = all
                .into_iter()
                .flat_map(|semantics| {
                    $switch::ALL.iter().map(move |value| Semantics {
                        $field: *value,
                        ..semantics.clone()
                    })
                })
                .collect();
        };
    }
    vary!(post_on_existing, PostOnExisting);
    vary!(put, Put);
    vary!(filter, Filter);
    vary!(http_status, HttpStatus);
    vary!(reading_rules, ReadingRules);
    vary!(taken_rule, TakenRule);
    vary!(failed_attempt, FailedAttempt);
    vary!(results, Results);
    // Where rules can be read, a rule that turns itself off can be seen; the HTTP status has no part in it.
    all.retain(|semantics| {
        semantics.taken_rule == TakenRule::Stays
            || semantics.reading_rules == ReadingRules::Allowed
                && semantics.http_status == HttpStatus::Always200
    });
    all
}

/// A device with a history, one that is new, one that fails at first and one that fails for good.
fn devices() -> Vec<Device> {
    vec![
        Device::new("OLD"),
        Device::new("NEW"),
        Device::new("FLAKY").with_attempts(&[
            AttemptResult::fault(9017, "broken off"),
            AttemptResult::Success,
        ]),
        Device::new("BROKEN").with_attempts(&[AttemptResult::fault(9018, "corrupted")]),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_switch_in_every_position() {
    let all = every_combination();
    assert_eq!(all.len(), 3 * 2 * 4 * 2 * 2 * (2 * 5 + 1));
    each_ends_well(all).await;
}

/// What shows of an upgrade under way is seen in the rows alone: the switches of calls are left where they are.
#[tokio::test(start_paused = true)]
async fn rows_without_a_verdict_whatever_moment_their_time_is() {
    let of_calls = Semantics::default();
    let all = every_combination().into_iter().filter(|semantics| {
        (
            semantics.post_on_existing,
            semantics.filter,
            semantics.http_status,
        ) == (
            of_calls.post_on_existing,
            of_calls.filter,
            of_calls.http_status,
        )
    });
    let all: Vec<Semantics> = all
        .flat_map(|semantics| {
            ResultTime::ALL.iter().map(move |value| Semantics {
                incomplete: Incomplete::UndecidedRow,
                result_time: *value,
                ..semantics.clone()
            })
        })
        .collect();
    assert_eq!(all.len(), 2 * 2 * 2 * (5 + 1) * 2);
    each_ends_well(all).await;
}

async fn each_ends_well(all: Vec<Semantics>) {
    for semantics in all {
        let mut world = World::begin(Setup {
            semantics: semantics.clone(),
            devices: devices(),
            ..Setup::default()
        });
        world.submit(&request("history", "OLD", "fw-1.bin"));
        world.outcomes(1).await;
        world.pass(SignedDuration::from_hours(1)).await;
        for cpe_id in ["OLD", "NEW", "FLAKY", "BROKEN"] {
            let mut asked = request(cpe_id, cpe_id, "fw-2.bin");
            asked["max_attempts"] = json!(2);
            world.submit(&asked);
        }
        let finals = world.outcomes(5).await;
        for (cpe_id, outcome) in [
            ("OLD", "completed/upgraded applied deactivated"),
            ("NEW", "completed/upgraded applied deactivated"),
            ("FLAKY", "completed/upgraded applied deactivated"),
            ("BROKEN", "failed/device_fault possible deactivated"),
        ] {
            assert_eq!(finals[cpe_id].len(), 1, "{cpe_id} under {semantics:?}");
            assert_eq!(
                describe(&finals[cpe_id][0]),
                outcome,
                "{cpe_id} under {semantics:?}: {:#}",
                finals[cpe_id][0]
            );
        }
        assert_eq!(
            (
                world.flashes("OLD"),
                world.flashes("NEW"),
                world.flashes("FLAKY")
            ),
            (2, 1, 1),
            "{semantics:?}"
        );
        world.end().await;
    }
}
