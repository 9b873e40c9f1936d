//! What grows with the work and what does not: start, memory beside waiting jobs, speed beside waiting jobs, bursts of growing size.

use std::process::Command;
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::load::Load;
use super::process::BINARY;
use super::report::{Bound, Report, median};
use super::site::{Settings, Site};

/// Hours until the first look: whoever has begun only waits.
const PATIENT: &Settings = &[
    ("NBI_UPGRADE_JOB__TIMEOUT", "12h"),
    ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "2h"),
    ("NBI_UPGRADE_AWAIT_RESULT__MAX", "2h"),
];
const AT_ONCE: &Settings = &[("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "0s")];
/// 7,200 s, give or take the jitter, wait in one of these.
const LONG_QUEUES: [&str; 2] = ["upgrade.delay.4096s", "upgrade.delay.8192s"];
/// The worker of the first jobs: connections, pools and tables are grown.
const WARM_UP: usize = 2_000;

/// Start to ready where the topology stands, and the size of what is shipped.
pub(crate) async fn start(site: &Site, report: &mut Report) {
    let room = site.room();
    let seconds: Vec<f64> = (0..5)
        .map(|_| room.worker(AT_ONCE).1.as_secs_f64())
        .collect();
    let stripped = room.directory().join("stripped");
    let status = Command::new("strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(&stripped)
        .arg(BINARY)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "strip (binutils) is there"
    );
    let bytes = std::fs::metadata(&stripped).expect("it was written").len();
    let values = vec![median(seconds), bytes as f64 / f64::from(1 << 20)];
    report.target(
        "start to ready with an existing topology, s",
        values[0],
        Bound::AtMost(1.0),
    );
    report.target("size of the binary, MiB", values[1], Bound::AtMost(15.0));
    report.table(
        "start",
        &["ready s", "size MiB"],
        vec![("worker".to_owned(), values)],
    );
}

/// Memory of a worker that has brought so and so many jobs to waiting.
pub(crate) async fn waiting(site: &Site, report: &mut Report) {
    let room = site.room();
    let mut load = Load::on(&room.vhost.url()).await;
    let (worker, _) = room.worker(PATIENT);
    let mut rows = Vec::new();
    let mut all = 0;
    for count in [WARM_UP, 100_000, 200_000] {
        let begun = Instant::now();
        load.publish(count - all).await;
        until_waiting(&load, count).await;
        let rate = (count - all) as f64 / begun.elapsed().as_secs_f64();
        all = count;
        rows.push((
            count.to_string(),
            vec![worker.resident(), worker.peak(), rate],
        ));
    }
    let resident = |at: usize| rows[at].1[0];
    report.target(
        "MiB that 100,000 waiting jobs add",
        resident(1) - resident(0),
        Bound::AtMost(20.0),
    );
    report.target(
        "MiB that 100,000 more add",
        resident(2) - resident(1),
        Bound::AtMost(2.0),
    );
    report.table(
        "waiting: jobs in delay queues; the worker's memory in MiB",
        &["resident", "peak", "jobs/s"],
        rows,
    );
}

async fn until_waiting(load: &Load, count: usize) {
    let begun = Instant::now();
    loop {
        let mut waiting = 0;
        for queue in LONG_QUEUES {
            waiting += load.depth(queue).await;
        }
        if waiting == count {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(900),
            "{waiting} of {count} wait"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Speed and memory beside waiting jobs, and the time that bursts take.
pub(crate) async fn growth(site: &Site, arguments: &Arguments, report: &mut Report) {
    let mut rows = Vec::new();
    let room = site.room();
    let mut load = Load::on(&room.vhost.url()).await;
    let mut waiting = 0;
    for count in [1_000, 10_000, 100_000, 500_000] {
        if count > arguments.growth_max {
            break;
        }
        if waiting == 0 {
            let (_patient, _) = room.worker(PATIENT);
            load.publish(1).await;
            until_waiting(&load, 1).await;
            waiting = 1;
        }
        // What waits is messages in the broker, and who brought them there is gone. So most are copies of one, made in a minute instead of ten.
        let [queue, other] = LONG_QUEUES;
        let queue = if load.depth(queue).await > 0 {
            queue
        } else {
            other
        };
        load.multiply(queue, count - waiting).await;
        until_waiting(&load, count).await;
        waiting = count;
        let (worker, _) = room.worker(AT_ONCE);
        load.publish(500).await;
        load.take(500).await;
        let mut values = Vec::new();
        for burst in [5_000, 20_000] {
            worker.process.hold();
            load.publish(burst).await;
            let cpu = worker.cpu();
            let begun = Instant::now();
            worker.process.release();
            load.take(burst).await;
            values.push(burst as f64 / begun.elapsed().as_secs_f64());
            values.push((worker.cpu() - cpu) * 1_000.0 / burst as f64);
        }
        values.push(worker.peak());
        rows.push((count.to_string(), values));
        // The last event is out before its delivery is answered.
        let begun = Instant::now();
        while worker.metric("nbi_upgrade_deliveries_in_hand") > 0.0 {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "a delivery stays in hand"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        report.table(
            format!("growth: beside {count} waiting jobs; bursts of 5,000 and 20,000"),
            &[
                "5k jobs/s",
                "cpu/1000",
                "20k jobs/s",
                "cpu/1000 ",
                "peak MiB",
            ],
            vec![rows.last().expect("just added").clone()],
        );
        report.print_new();
    }
    let rates = |at: usize| {
        rows.iter()
            .map(|(_, values)| values[at])
            .collect::<Vec<_>>()
    };
    let flat = |rates: Vec<f64>| rates.iter().copied().fold(f64::MAX, f64::min) / rates[0];
    report.target(
        "jobs per second beside many waiting jobs / beside 1,000",
        flat(rates(2)),
        Bound::AtLeast(0.8),
    );
    let linear = rows
        .iter()
        .map(|(_, values)| values[2] / values[0])
        .fold(f64::MAX, f64::min);
    report.target(
        "rate of a burst of 20,000 / of 5,000",
        linear,
        Bound::AtLeast(0.8),
    );
}
