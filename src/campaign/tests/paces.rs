//! The pace over whole minutes, across changes of coordinators, and with places and keys.

use proptest::prelude::*;

use super::*;
use crate::campaign::pace::Pacer;

fn paced(starts_per_minute: u32) -> Plan {
    Plan {
        pace: Pace {
            starts_per_minute: Some(starts_per_minute),
            ..Pace::default()
        },
        ..Plan::default()
    }
}

/// The most starts in any span of a minute; milliseconds in order.
fn most_in_a_minute(starts: &[i64]) -> usize {
    let (mut from, mut most) = (0, 0);
    for (index, start) in starts.iter().enumerate() {
        while start - starts[from] >= 60_000 {
            from += 1;
        }
        most = most.max(index + 1 - from);
    }
    most
}

proptest! {
    /// Asked at any moments, by coordinators that change and whose clocks differ by up to two seconds, any minute holds at most the pace
    /// and half a second's worth, and as much again for each change of clocks.
    #[test]
    fn no_minute_holds_more_than_the_pace_and_half_a_second(
        rate in 1_u32..2_000,
        pauses in prop::collection::vec((1_i64..2_000, prop::bool::weighted(0.02), -2_000_i64..2_000), 50..300),
    ) {
        let mut pacer = Pacer::default();
        let (mut now, mut skew, mut changes, mut starts) = (0, 0, 0, Vec::new());
        for (pause, is_new, new_skew) in pauses {
            now += pause;
            if is_new {
                skew = new_skew;
                changes += 1;
            }
            let count = pacer.allowed(rate.into(), at_ms(now + skew)) as usize;
            pacer.took(count, rate.into(), at_ms(now + skew));
            starts.extend(std::iter::repeat_n(now, count));
        }
        let half_a_second = rate.div_ceil(120) as usize;
        let allowed = rate as usize + half_a_second * (1 + changes);
        prop_assert!(most_in_a_minute(&starts) <= allowed, "{} > {allowed}", most_in_a_minute(&starts));
    }
}

#[test]
fn who_asks_when_told_to_gets_the_pace_and_no_more() {
    for rate in [1_u32, 7, 10, 60, 119, 121, 600, 6_000] {
        let (mut pacer, mut now, mut starts) = (Pacer::default(), 0, Vec::new());
        while now < 20 * 60_000 {
            let count = pacer.allowed(rate.into(), at_ms(now)) as usize;
            pacer.took(count, rate.into(), at_ms(now));
            starts.extend(std::iter::repeat_n(now, count));
            let wait = pacer
                .next_at(rate.into(), at_ms(now))
                .duration_since(at_ms(now));
            // Timers fire at the next millisecond, and a coordinator has other things to do.
            now += i64::try_from(wait.as_millis()).unwrap() + 1 + now % 40;
        }
        let most = most_in_a_minute(&starts);
        assert!(
            most <= (rate + rate.div_ceil(120)) as usize,
            "{rate}: {most}"
        );
        let expected = 20 * rate as usize;
        assert!(
            (expected * 9 / 10..=expected + rate.div_ceil(60) as usize).contains(&starts.len()),
            "{rate}: {}",
            starts.len()
        );
    }
}

#[test]
fn a_successor_that_folds_the_same_releases_gets_the_same_answer() {
    let mut campaign = Campaign::new(paced(10));
    campaign.release(0..1, at(0));
    let Action::Wait {
        gate: Gate::Pace,
        until,
    } = campaign.decide(9, at(1))
    else {
        panic!("the pace holds");
    };
    assert_eq!(until, at(6));
    let mut successor = Campaign::new(paced(10));
    successor.apply(&Record::Released {
        coordinator: "a".to_owned(),
        at: at(0),
        devices: devices(0..1),
    });
    assert_eq!(successor.decide(9, at(1)), campaign.decide(9, at(1)));
}

#[test]
fn a_release_from_the_future_holds_the_pace_for_one_interval_only() {
    let mut campaign = Campaign::new(paced(60));
    campaign.release(0..1, at(1_000_000));
    let Action::Wait { until, .. } = campaign.decide(9, at(5)) else {
        panic!("the pace holds");
    };
    assert_eq!(until, at(6));
}

#[test]
fn the_rate_grows_with_successes_up_to_its_bound() {
    let pace = Pace {
        starts_per_minute: Some(10),
        ramp: Some(Ramp {
            factor: 2.0,
            after_successes: 50,
            max_starts_per_minute: 100,
        }),
        ..Pace::default()
    };
    let rates = [0, 49, 50, 100, 150, 200, u64::MAX].map(|successes| pace.rate(successes).unwrap());
    assert_eq!(rates, [10.0, 10.0, 20.0, 40.0, 80.0, 100.0, 100.0]);
}

#[test]
fn a_silent_device_frees_its_place_and_counts_when_it_comes() {
    let plan = Plan {
        pace: Pace {
            max_in_flight: Some(2),
            in_flight_timeout: Some(SignedDuration::from_mins(30)),
            ..Pace::default()
        },
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    assert_eq!(
        campaign.decide(10, at(0)),
        Action::Release {
            at_most: u32::MAX,
            places: 2
        }
    );
    campaign.release(0..2, at(0));
    assert!(matches!(
        campaign.decide(8, at(60)),
        Action::Wait {
            gate: Gate::Places,
            ..
        }
    ));
    campaign.complete(1..2, at(60));
    assert_eq!(
        campaign.decide(8, at(60)),
        Action::Release {
            at_most: u32::MAX,
            places: 1
        }
    );
    campaign.release(2..3, at(60));
    assert!(matches!(
        campaign.decide(7, at(1_799)),
        Action::Wait {
            gate: Gate::Places,
            ..
        }
    ));
    assert_eq!(
        campaign.decide(7, at(1_800)),
        Action::Release {
            at_most: u32::MAX,
            places: 1
        }
    );
    assert_eq!(
        (campaign.state.in_flight(), campaign.state.unfinished()),
        (1, 2)
    );
    campaign.complete(0..1, at(4_000));
    assert_eq!(
        (campaign.state.in_flight(), campaign.state.unfinished()),
        (1, 1)
    );
    assert_eq!(campaign.state.counts().completed, 2);
}

#[test]
fn devices_of_a_busy_key_wait_while_others_pass() {
    let plan = Plan {
        max_in_flight_per_key: Some(1),
        ..Plan::default()
    };
    let of_key = |number, key: &str| Device {
        concurrency_key: Some(key.to_owned()),
        ..device(number)
    };
    let mut campaign = Campaign::new(plan);
    let at_hand = [
        of_key(1, "olt-1"),
        of_key(2, "olt-1"),
        of_key(3, "olt-2"),
        device(4),
    ];
    use Admission::{Drop, Start, Wait};
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 9, 9),
        [Start, Wait, Start, Start]
    );
    campaign.apply(&Record::Released {
        coordinator: "a".to_owned(),
        at: at(0),
        devices: vec![at_hand[0].clone()],
    });
    campaign.state.settle("a");
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 9, 9),
        [Drop, Wait, Start, Start]
    );
    campaign.complete(1..2, at(9));
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 1, 1),
        [Drop, Start, Wait, Wait]
    );
}

#[test]
fn a_release_that_nobody_confirmed_is_done_again_and_others_are_not() {
    let mut campaign = Campaign::new(Plan::default());
    let released = |coordinator: &str, numbers| Record::Released {
        coordinator: coordinator.to_owned(),
        at: at(0),
        devices: devices(numbers),
    };
    campaign.apply(&released("a", 0..2));
    campaign.apply(&released("a", 2..4));
    // The second release says that the first is done; after it nothing is known.
    let at_hand = devices(0..6);
    use Admission::{Drop, Start};
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 9, 9),
        [Drop, Drop, Start, Start, Start, Start]
    );
    campaign.apply(&released("b", 2..3));
    campaign.apply(&released("b", 4..5));
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 9, 9),
        [Drop, Drop, Drop, Start, Start, Start]
    );
    campaign.state.settle("b");
    campaign.finish(3, Outcome::Completed, None, at(5));
    assert_eq!(
        campaign.state.admit(&campaign.plan, &at_hand, 9, 9),
        [Drop, Drop, Drop, Drop, Drop, Start]
    );
    assert_eq!(campaign.state.counts().released, 5);
}

#[test]
fn a_device_that_was_started_again_has_copies_and_no_more_starts() {
    let mut campaign = Campaign::new(Plan::default());
    let released = |coordinator: &str, at, numbers| Record::Released {
        coordinator: coordinator.to_owned(),
        at,
        devices: devices(numbers),
    };
    campaign.apply(&released("a", at(0), 0..2));
    campaign.apply(&released("b", at(9), 0..2));
    campaign.state.settle("b");
    use Admission::{Drop, Start, Wait};
    assert_eq!(
        campaign.state.admit(&campaign.plan, &devices(0..2), 9, 9),
        [Drop, Drop]
    );
    assert!(!campaign.state.has_unsettled());
    // A release that nobody confirmed needs no place; two messages of a device are one start; what waits is no copy, twice it is.
    campaign.apply(&released("c", at(10), 2..3));
    let at_hand = [device(3), device(2), device(2), device(3)];
    let admit = |starts, places| {
        campaign
            .state
            .admit(&campaign.plan, &at_hand, starts, places)
    };
    assert_eq!(admit(9, 0), [Wait, Start, Drop, Drop]);
    assert_eq!(admit(1, 1), [Start, Wait, Drop, Drop]);
    assert_eq!(admit(0, 0), [Wait, Wait, Drop, Drop]);
}

#[test]
fn a_device_that_was_started_again_is_silent_from_then_on() {
    let plan = Plan {
        pace: Pace {
            max_in_flight: Some(1),
            in_flight_timeout: Some(SignedDuration::from_mins(30)),
            ..Pace::default()
        },
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..1, at(0));
    campaign.release(0..1, at(600));
    for (now, in_flight) in [(1_800, 1), (2_399, 1), (2_400, 0)] {
        campaign.state.expire(&campaign.plan, at(now));
        assert_eq!(campaign.state.in_flight(), in_flight, "{now}");
    }
    assert_eq!(campaign.state.unfinished(), 1);
}
