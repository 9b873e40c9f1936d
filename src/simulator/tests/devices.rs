//! How devices live.

use super::*;

const FAULT: &str =
    "Upgrade has failed with FaultCode 9017. FaultString: Unable to complete download";

fn failing_once() -> Device {
    Device::new("A").with_attempts(&[
        AttemptResult::fault(9017, "Unable to complete download"),
        AttemptResult::Success,
    ])
}

fn version(bench: &mut Bench, name: &str) -> Value {
    let body = json!({"search_options": {"cpe_id": "A"}, "parameters": [name]});
    bench.call(Verb::Post, VALUES, &[], body)["result"].clone()
}

#[test]
fn an_upgrade_runs_from_connection_request_to_result() {
    let mut bench = Bench::new(Semantics::default());
    bench.add(Device::new("A"));
    let mut tagged = rule("A");
    tagged["description"] = json!("job 7");
    bench.code(Verb::Post, RULES, &[], tagged);
    assert_eq!(bench.request_connection("A"), 200);
    assert_eq!(bench.request_connection("A"), 200);
    let mut states = Vec::new();
    for seconds in [4, 1, 60, 59] {
        bench.pass(seconds);
        states.push(bench.simulator.device("A", bench.now).unwrap().state.name());
    }
    assert_eq!(states, ["idle", "downloading", "rebooting", "rebooting"]);
    assert!(bench.results("A").is_empty());
    assert_eq!(bench.request_connection("A"), 503);
    bench.pass(1);
    let rows = bench.results("A");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["result"], json!({"code": 200, "message": "OK"}));
    assert_eq!(
        (&rows[0]["cpeid"], &rows[0]["campaignid"]),
        (&json!("A"), &json!("UPGRADE_A"))
    );
    assert_eq!(
        (&rows[0]["status"], &rows[0]["rule_description"]),
        (&json!(true), &json!("job 7"))
    );
    assert_eq!(rows[0]["ts"], json!(bench.now.as_second()));
    let flashes = bench.simulator.flashes("A");
    assert_eq!(flashes.len(), 1);
    assert_eq!(flashes[0].ended_at, Some(bench.now));
    let name = "Device.DeviceInfo.SoftwareVersion";
    assert_eq!(
        version(&mut bench, name),
        json!({"code": 200, "message": "OK", "values": {name: "ALPHA-2.4"}})
    );
    assert_eq!(
        version(&mut bench, "Device.DeviceInfo.")["values"],
        json!({name: "ALPHA-2.4"})
    );
    assert_eq!(version(&mut bench, "Device.X")["code"], 400);
    bench.pass(100_000);
    assert_eq!(bench.simulator.flashes("A").len(), 1);
}

#[test]
fn a_rule_armed_again_shows_as_a_second_flash() {
    for armed_by in [Verb::Post, Verb::Put] {
        let mut bench = Bench::new(Semantics::default());
        bench.add(Device::new("A"));
        bench.create("A");
        bench.request_connection("A");
        bench.pass(30);
        assert_eq!(
            bench.code(armed_by, RULES, &[("campaignid", "UPGRADE_A")], rule("A")),
            204
        );
        bench.pass(1000);
        assert_eq!(bench.simulator.flashes("A").len(), 2, "{armed_by:?}");
        assert_eq!(bench.results("A").len(), 2);
        assert_eq!(bench.simulator.summary(bench.now).devices_flashed_twice, 1);
    }
}

#[test]
fn a_rule_that_is_disarmed_or_not_automatic_is_not_run() {
    for field in ["enabled", "automatic"] {
        let mut bench = Bench::new(Semantics::default());
        bench.add(Device::new("A"));
        let mut off = rule("A");
        off[field] = json!(false);
        bench.code(Verb::Post, RULES, &[], off);
        bench.request_connection("A");
        bench.pass(10_000);
        assert!(bench.simulator.flashes("A").is_empty(), "{field}");
    }
}

#[test]
fn a_wildcard_condition_hits_every_device_that_fits() {
    let mut bench = Bench::new(Semantics::default());
    for cpe_id in ["DM1", "DM2", "X1"] {
        bench.add(Device::new(cpe_id));
    }
    bench.create("DM*");
    bench.pass(10_000);
    assert_eq!(
        ["DM1", "DM2", "X1"].map(|cpe_id| bench.simulator.flashes(cpe_id).len()),
        [1, 1, 0]
    );
}

#[test]
fn the_rule_of_higher_priority_goes_first() {
    let mut bench = Bench::new(Semantics::default());
    bench.add(Device::new("A"));
    bench.create("A");
    let mut urgent = rule("A");
    urgent["id"] = json!("URGENT");
    urgent["priority"] = json!(9);
    bench.code(Verb::Post, RULES, &[], urgent);
    bench.request_connection("A");
    bench.pass(1000);
    let ids: Vec<_> = bench
        .simulator
        .flashes("A")
        .iter()
        .map(|flash| flash.rule_id.as_str())
        .collect();
    assert_eq!(ids, ["URGENT", "UPGRADE_A"]);
}

#[test]
fn a_device_that_hears_no_connection_request_comes_at_its_periodic_inform() {
    let mut bench = Bench::new(Semantics::default());
    bench.add(Device {
        accepts_connection_requests: false,
        ..Device::new("A")
    });
    bench.create("A");
    assert_eq!(bench.request_connection("A"), 503);
    bench.pass(3599);
    assert!(bench.simulator.flashes("A").is_empty());
    bench.pass(1);
    assert_eq!(bench.simulator.flashes("A").len(), 1);
}

#[test]
fn an_offline_device_misses_its_informs_and_comes_once_it_is_back() {
    let mut bench = Bench::new(Semantics::default());
    let back = bench.now + SignedDuration::from_hours(5);
    bench.add(Device {
        offline_until: Some(back),
        ..Device::new("A")
    });
    bench.create("A");
    bench.pass(4 * 3600);
    assert_eq!(bench.request_connection("A"), 503);
    assert_eq!(
        bench.simulator.device("A", bench.now).unwrap().state,
        DeviceState::Offline
    );
    assert!(bench.simulator.flashes("A").is_empty());
    bench.pass(3600);
    assert_eq!(bench.simulator.flashes("A").len(), 1);
}

#[test]
fn an_unknown_device_is_said_to_be_unknown_or_made_on_the_spot() {
    let mut bench = Bench::new(Semantics::default());
    assert_eq!(bench.request_connection("A"), 404);
    let auto_create = Some(Fleet::new(3));
    let mut bench = Bench::with(SimulatorSettings {
        auto_create,
        ..SimulatorSettings::default()
    });
    bench.create("A");
    assert_eq!(bench.request_connection("A"), 200);
    bench.pass(600);
    assert_eq!(bench.simulator.flashes("A").len(), 1);
}

#[test]
fn a_failed_attempt_uses_the_execution_up_or_keeps_it() {
    for (switch, attempts) in [
        (FailedAttempt::UsesUpExecution, 1),
        (FailedAttempt::KeepsExecution, 2),
    ] {
        let mut bench = Bench::new(Semantics {
            failed_attempt: switch,
            ..Semantics::default()
        });
        bench.add(failing_once());
        bench.create("A");
        bench.request_connection("A");
        bench.pass(100);
        assert_eq!(
            bench.results("A")[0]["result"],
            json!({"code": 500, "message": FAULT})
        );
        assert_eq!(
            bench.simulator.flashes("A").len(),
            1,
            "it does not try again in the same session"
        );
        bench.request_connection("A");
        bench.pass(10_000);
        assert_eq!(bench.simulator.flashes("A").len(), attempts, "{switch:?}");
        assert_eq!(bench.results("A").len(), attempts, "{switch:?}");
        assert_eq!(bench.simulator.summary(bench.now).devices_flashed_twice, 0);
    }
}

#[test]
fn results_grow_or_are_rewritten() {
    for (switch, rows) in [(Results::RowPerAttempt, 2), (Results::RowRewritten, 1)] {
        let mut bench = Bench::new(Semantics {
            results: switch,
            ..Semantics::default()
        });
        bench.add(failing_once());
        bench.create("A");
        bench.request_connection("A");
        bench.pass(100);
        let first = bench.results("A")[0]["id"].clone();
        bench.create("A");
        bench.request_connection("A");
        bench.pass(1000);
        let last = bench.results("A").pop().unwrap();
        assert_eq!(bench.results("A").len(), rows, "{switch:?}");
        assert_eq!(last["result"]["code"], 200);
        assert_eq!(last["id"] == first, switch == Results::RowRewritten);
    }
}

#[test]
fn an_upgrade_under_way_may_show_as_a_row_without_a_fault_code() {
    let mut bench = Bench::new(Semantics {
        incomplete: Incomplete::UndecidedRow,
        ..Semantics::default()
    });
    bench.add(Device::new("A"));
    bench.create("A");
    bench.request_connection("A");
    bench.pass(5);
    let undecided = bench.results("A");
    assert_eq!(undecided[0]["result"]["code"], 500);
    bench.pass(1000);
    let decided = bench.results("A");
    assert_eq!(
        (decided.len(), &decided[0]["result"]["code"]),
        (1, &json!(200))
    );
    assert_eq!(decided[0]["id"], undecided[0]["id"]);
}

#[test]
fn a_result_may_lag_and_the_nbis_clock_be_off() {
    let mut bench = Bench::new(Semantics {
        result_delay: SignedDuration::from_secs(300),
        clock_offset: SignedDuration::from_secs(-7200),
        ..Semantics::default()
    });
    bench.add(Device::new("A"));
    bench.create("A");
    bench.request_connection("A");
    bench.pass(125);
    let done = bench.now;
    bench.pass(299);
    assert!(bench.results("A").is_empty());
    bench.pass(1);
    assert_eq!(bench.results("A")[0]["ts"], json!(done.as_second() - 7200));
    assert_eq!(
        bench
            .raw(Verb::Get, RULES, &[], &Value::Null)
            .date
            .as_deref(),
        Some("Mon, 05 Jan 2026 06:07:05 GMT")
    );
}

#[test]
fn silent_unchanged_and_lost_devices_are_what_they_are_called() {
    for (result, rows, version, state) in [
        (AttemptResult::Silent, 0, "ALPHA-2.4", "idle"),
        (AttemptResult::SameVersion, 1, "1.0.0", "idle"),
        (AttemptResult::Lost, 0, "1.0.0", "gone"),
    ] {
        let mut bench = Bench::new(Semantics::default());
        bench.add(Device::new("A").with_attempts(&[result]));
        bench.create("A");
        bench.request_connection("A");
        bench.pass(1000);
        let view = bench.simulator.device("A", bench.now).unwrap();
        assert_eq!(
            (view.version.as_str(), view.state.name(), view.flashes.len()),
            (version, state, 1)
        );
        assert_eq!(bench.results("A").len(), rows);
    }
}

#[test]
fn a_rule_without_bound_and_a_device_without_duration_do_not_stop_time() {
    let mut bench = Bench::new(Semantics::default());
    let zero = SignedDuration::ZERO;
    bench.add(Device {
        download: zero,
        reboot: zero,
        inform_interval: Some(zero),
        ..Device::new("A")
    });
    let mut unbounded = rule("A");
    unbounded["executions"] = json!(0);
    bench.code(Verb::Post, RULES, &[], unbounded);
    bench.request_connection("A");
    bench.pass(10);
    assert!(bench.simulator.flashes("A").len() > 1);
}

#[test]
fn a_version_is_the_files_name() {
    for (url, version) in [
        ("https://files/fw/ALPHA-2.4.bin?x=a/b.c#y", "ALPHA-2.4"),
        ("https://files/2.4.1", "2.4.1"),
        ("https://files/fw/", "fw"),
        ("https://files/.bin", ".bin"),
    ] {
        assert_eq!(version_of(url), version);
    }
}

#[test]
fn a_rule_that_is_taken_may_turn_itself_off() {
    for (taken_rule, armed) in [(TakenRule::Stays, 1), (TakenRule::TurnsOff, 0)] {
        let mut bench = Bench::new(Semantics {
            taken_rule,
            ..Semantics::default()
        });
        bench.add(Device::new("A"));
        assert_eq!(bench.create("A"), 204);
        assert_eq!(bench.request_connection("A"), 200);
        bench.pass(6);
        assert_eq!(bench.simulator.flashes("A").len(), 1);
        assert_eq!(bench.simulator.armed_rules().len(), armed);
    }
}
