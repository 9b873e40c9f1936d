//! Fleets and their cost.

use super::*;

#[test]
fn a_fleet_is_the_same_for_the_same_seed() {
    let (one, two) = (Fleet::mixed(5), Fleet::mixed(6));
    let devices = |fleet: &Fleet| {
        (1..100)
            .map(|number| fleet.device(&fleet.cpe_id(number), start()))
            .collect::<Vec<_>>()
    };
    assert_eq!(devices(&one), devices(&one));
    assert_ne!(devices(&one), devices(&two));
    assert_eq!(one.cpe_id(1), "CPE000001");
}

#[test]
fn every_character_can_be_made_and_named() {
    for character in Character::ALL {
        let device = Fleet::new(1)
            .mix(&[(*character, 1)])
            .prefix("X")
            .time_scale(0.01)
            .device("X1", start());
        assert_eq!(device.character, character.name());
        assert_eq!(Character::from_name(character.name()), Some(*character));
        assert!(device.session_delay <= SignedDuration::from_secs(30));
    }
}

#[test]
fn ten_thousand_devices_are_upgraded_once_each() {
    let mut bench = Bench::new(Semantics::default());
    let fleet = Fleet::mixed(9);
    let ids = fleet.add_to(&mut bench.simulator, 10_000, bench.now);
    for cpe_id in &ids {
        bench.create(cpe_id);
        bench.request_connection(cpe_id);
    }
    bench.pass(3 * 3600);
    let summary = bench.simulator.summary(bench.now);
    assert_eq!(
        (
            summary.devices,
            summary.attempts,
            summary.devices_flashed_twice
        ),
        (10_000, 10_000, 0)
    );
    assert_eq!(summary.armed_rules, 10_000);
    assert!(summary.devices_flashed > 8_500 && summary.devices_flashed < 10_000);
    assert_eq!(summary.calls["connection_request"], 10_000);
}
