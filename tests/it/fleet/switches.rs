//! The vendor's open questions over HTTP and a real broker, one at a time: every answer of which the simulator's command line has a switch.
//! Rows without a verdict are in `stories/switches.rs`.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::site::{PATIENCE, Plan, Site, request};

/// Every position that is not the default's, alone, and the defaults.
const POSITIONS: [&[&str]; 15] = [
    // What takes longest comes first.
    &["--failed-attempt", "keeps-execution"],
    &["--post-on-existing", "conflict"],
    &["--post-on-existing", "duplicate"],
    &["--put", "replace"],
    &["--filter", "id"],
    &["--filter", "campaign-id"],
    &["--filter", "ignored"],
    &["--http-status", "same-as-code"],
    &["--reading-rules", "forbidden403"],
    &["--reading-rules", "method-not-allowed405"],
    &["--reading-rules", "not-implemented501"],
    &["--reading-rules", "never-found404"],
    &["--taken-rule", "turns-off"],
    &["--results", "row-rewritten"],
    &[],
];
/// Sites at the same time: three processes each.
const TOGETHER: usize = 4;
const QUICK: usize = 40;
const FLAKY: usize = 10;
const BROKEN: usize = 6;
/// Devices that are upgraded a second time.
const AGAIN: usize = 15;

#[tokio::test]
async fn every_switch_in_every_position_ends_in_the_same_state() {
    let all = futures_util::stream::iter(POSITIONS).map(fleet);
    all.buffer_unordered(TOGETHER).collect::<()>().await;
}

/// Devices with a history, devices that fail at first and devices that fail for good.
async fn fleet(flags: &[&str]) {
    let mut simulator = flags.to_vec();
    simulator.extend(["--devices", "40"]);
    // A device that keeps its execution tries again by itself when it calls in before the rule is put away, which it does late here. The
    // second try of its job begins after that, as it does with the pause of ten minutes that is the default.
    let (environment, inform_interval): (&[_], _) = if flags.contains(&"keeps-execution") {
        (&[("NBI_UPGRADE_JOB__ATTEMPT_PAUSE", "12s")], 30)
    } else {
        (&[], 3)
    };
    let mut site = Site::begin(
        1,
        Plan {
            simulator: &simulator,
            environment,
        },
    )
    .await;
    let faulty = |number: usize| {
        let fault = |code: u16| json!({"fault": {"code": code, "text": "no"}});
        let attempts = if number <= FLAKY {
            json!([fault(9017), "success"])
        } else {
            json!([fault(9018)])
        };
        json!({"cpe_id": format!("CPE{:06}", QUICK + number), "attempts": attempts, "inform_interval_seconds": inform_interval,
            "session_delay_seconds": 0, "download_seconds": 1, "reboot_seconds": 1})
    };
    let faulty: Vec<Value> = (1..=FLAKY + BROKEN).map(faulty).collect();
    site.simulator.add(&faulty).await;
    let count = QUICK + FLAKY + BROKEN;
    let first: Vec<_> = (1..=count)
        .map(|number| request(&format!("first-{number}"), number, "fw-2.bin"))
        .collect();
    site.submit(&first).await;
    site.results.finals(count, PATIENCE).await;
    let second: Vec<_> = (1..=AGAIN)
        .map(|number| request(&format!("second-{number}"), number, "fw-3.bin"))
        .collect();
    site.submit(&second).await;
    site.results.finals(count + AGAIN, PATIENCE).await;
    let outcomes: Vec<_> = site.results.outcomes().into_iter().collect();
    let expected = [
        ("completed/upgraded".to_owned(), QUICK + FLAKY + AGAIN),
        ("failed/device_fault".to_owned(), BROKEN),
    ];
    assert_eq!(outcomes, expected, "{flags:?}");
    let summary = site.end_with(count + AGAIN, 0).await;
    let flashed = [
        &summary["flashes"],
        &summary["devices_flashed"],
        &summary["devices_flashed_twice"],
    ];
    assert_eq!(
        flashed,
        [QUICK + FLAKY + AGAIN, QUICK + FLAKY, AGAIN],
        "{flags:?} {summary}"
    );
    eprintln!(
        "{flags:?}: {} attempts of devices, calls {}",
        summary["attempts"], summary["calls"]
    );
}
