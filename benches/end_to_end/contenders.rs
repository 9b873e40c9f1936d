//! Worker and floors in turn: jobs per second, what they cost, and latency at light load.

use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::load::{Load, quantile};
use super::process::memory;
use super::report::{Bound, Report, median};
use super::site::{Contender, Room, Settings, Site};

/// Jobs before it counts: connections are open, the filters' names learnt, pools grown.
const WARM_UP: usize = 500;
/// Requests at light load: fifty a second are a few percent of what a worker can do.
const LIGHT: (usize, Duration) = (400, Duration::from_millis(20));

/// Who competes. The worker looks for the result at once where the floor does, and after a second where that one waits a second.
const ALL: [(&str, &Settings); 10] = [
    ("worker", &[("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "0s")]),
    ("durable-contract-log", &[]),
    ("durable-contract", &[]),
    ("durable", &[]),
    ("worker-hop", &[("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "1s")]),
    ("durable-contract-log-hop", &[]),
    ("durable-contract-hop", &[]),
    ("durable-hop", &[]),
    ("bare", &[]),
    ("broker", &[]),
];

/// Who works beside whom, where nobody is named.
const PAIRS: [[&str; 2]; 2] = [["worker", "durable"], ["worker-hop", "durable-hop"]];

const COLUMNS: [&str; 12] = [
    "jobs/s",
    "cpu/1000",
    "broker",
    "nbi",
    "calls",
    "peak MiB",
    "B out",
    "B in",
    "cpu ratio",
    "rate ratio",
    "cpu/contract",
    "rate/contract",
];

/// Of these, what a round of a contender showed; the rest are ratios.
const MEASURED: usize = 8;
type Round = [f64; MEASURED];

fn chosen(arguments: &Arguments) -> Vec<&str> {
    if arguments.contenders.is_empty() {
        return ALL.into_iter().map(|(name, _)| name).collect();
    }
    arguments.contenders.iter().map(String::as_str).collect()
}

fn contender(room: &Room<'_>, name: &str) -> Contender {
    let known = ALL.into_iter().find(|(known, _)| *known == name);
    let (name, settings) = known.unwrap_or_else(|| panic!("{name:?} is no contender"));
    if name.starts_with("worker") {
        room.worker(settings).0
    } else {
        room.floor(name)
    }
}

/// Rounds in which everybody does the same jobs, one after the other.
pub(crate) async fn throughput(site: &Site, arguments: &Arguments, report: &mut Report) {
    let chosen = chosen(arguments);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); chosen.len()];
    for number in 0..arguments.rounds {
        for index in 0..chosen.len() {
            // Another order each time: who comes after the most expensive one shall not always be the same.
            let index = (index + number) % chosen.len();
            rounds[index].push(round(site, chosen[index], arguments.jobs).await);
        }
    }
    let column =
        |rounds: &[Round], at: usize| rounds.iter().map(|round| round[at]).collect::<Vec<_>>();
    // Ratios within each round, then their median: what disturbs one round disturbs both.
    let ratio = |index: usize, base: &str, at: usize| {
        let hop = if chosen[index].ends_with("-hop") {
            "-hop"
        } else {
            ""
        };
        let base = format!("{base}{hop}");
        let base = chosen.iter().position(|name| *name == base)?;
        let pairs = rounds[index].iter().zip(&rounds[base]);
        Some(median(
            pairs.map(|(own, other)| own[at] / other[at]).collect(),
        ))
    };
    let rows = chosen.iter().enumerate().map(|(index, name)| {
        let mut values: Vec<f64> = (0..MEASURED)
            .map(|at| median(column(&rounds[index], at)))
            .collect();
        for base in ["durable", "durable-contract"] {
            values.extend([1, 0].map(|at| ratio(index, base, at).unwrap_or(f64::NAN)));
        }
        ((*name).to_owned(), values)
    });
    let rows: Vec<_> = rows.collect();
    for (name, values) in rows.iter().filter(|(name, _)| name.starts_with("worker")) {
        report.target(
            format!("{name}: processor time per job / durable floor"),
            values[MEASURED],
            Bound::AtMost(1.25),
        );
        report.target(
            format!("{name}: jobs per second / durable floor"),
            values[MEASURED + 1],
            Bound::AtLeast(0.8),
        );
    }
    let title = format!(
        "throughput: {} jobs a round, medians of {} rounds; processor seconds per 1,000 jobs; bytes a job to and from the broker; ratios to the durable floor and to that with the contract's messages",
        arguments.jobs, arguments.rounds
    );
    report.table(title, &COLUMNS, rows);
}

async fn round(site: &Site, name: &str, jobs: usize) -> Round {
    let room = site.room();
    let mut load = Load::on(&room.vhost.url()).await;
    let contender = contender(&room, name);
    load.publish(WARM_UP).await;
    load.take(WARM_UP).await;
    // The work is laid ready, so that publishing it does not count.
    contender.process.hold();
    load.publish(jobs).await;
    let (cpu, broker, nbi, calls) = (
        contender.cpu(),
        site.broker_cpu(),
        room.nbi_cpu(),
        room.calls(),
    );
    let begun = Instant::now();
    contender.process.release();
    load.take(jobs).await;
    let took = begun.elapsed().as_secs_f64();
    let per_thousand = 1_000.0 / jobs as f64;
    let [cpu, broker, nbi] = [
        contender.cpu() - cpu,
        site.broker_cpu() - broker,
        room.nbi_cpu() - nbi,
    ];
    let calls = (room.calls() - calls) / jobs as f64;
    let [sent, received] = room.traffic();
    [
        jobs as f64 / took,
        cpu * per_thousand,
        broker * per_thousand,
        nbi * per_thousand,
        calls,
        memory(contender.process.id(), "VmHWM"),
        sent / (WARM_UP + jobs) as f64,
        received / (WARM_UP + jobs) as f64,
    ]
}

/// Two at the same time, each with an NBI and a virtual host of its own: what slows the machine down slows both, so that the ratio is
/// steadier than that of rounds in turn. It counts until one of them has done its jobs. Without names: worker and durable floor.
pub(crate) async fn beside(site: &Site, arguments: &Arguments, report: &mut Report) {
    let named: Vec<&str> = arguments.contenders.iter().map(String::as_str).collect();
    let (named, rest) = named.as_chunks::<2>();
    assert!(rest.is_empty(), "beside takes contenders by twos");
    let pairs = if named.is_empty() { &PAIRS } else { named };
    let mut rows = Vec::new();
    for pair in pairs {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            rounds.push(both(site, *pair, arguments.jobs).await);
        }
        let ratios = rounds.iter().map(|[own, other]| own / other);
        let ratio = median(ratios.clone().collect());
        let name = format!("{} / {}", pair[0], pair[1]);
        if PAIRS.contains(pair) {
            report.target(
                format!("{name}: processor time per job, at the same time"),
                ratio,
                Bound::AtMost(1.25),
            );
        }
        let values = vec![
            median(rounds.iter().map(|[own, _]| *own).collect()),
            median(rounds.iter().map(|[_, other]| *other).collect()),
            ratio,
            ratios.clone().fold(f64::INFINITY, f64::min),
            ratios.fold(0.0, f64::max),
        ];
        rows.push((name, values));
    }
    let title = format!(
        "beside: two at the same time, {} jobs a round, medians of {} rounds; processor seconds per 1,000 jobs",
        arguments.jobs, arguments.rounds
    );
    report.table(title, &["first", "second", "ratio", "least", "most"], rows);
}

/// What a thousand jobs of each cost.
async fn both(site: &Site, pair: [&str; 2], jobs: usize) -> [f64; 2] {
    let rooms = [site.room(), site.room()];
    let mut loads = [
        Load::on(&rooms[0].vhost.url()).await,
        Load::on(&rooms[1].vhost.url()).await,
    ];
    let contenders = [0, 1].map(|at| contender(&rooms[at], pair[at]));
    for load in &mut loads {
        load.publish(WARM_UP).await;
        load.take(WARM_UP).await;
    }
    for (load, contender) in loads.iter_mut().zip(&contenders) {
        contender.process.hold();
        load.publish(jobs).await;
    }
    let before = [0, 1].map(|at| contenders[at].cpu());
    for contender in &contenders {
        contender.process.release();
    }
    let mut done = [0; 2];
    let [first, second] = &mut loads;
    while done.iter().all(|done| *done < jobs) {
        tokio::select! {
            () = first.take(1) => done[0] += 1,
            () = second.take(1) => done[1] += 1,
        }
    }
    [0, 1].map(|at| (contenders[at].cpu() - before[at]) * 1_000.0 / done[at] as f64)
}

/// Publish to final event, with a request every 20 ms.
pub(crate) async fn latency(site: &Site, arguments: &Arguments, report: &mut Report) {
    let mut rows = Vec::new();
    for name in chosen(arguments) {
        let room = site.room();
        let mut load = Load::on(&room.vhost.url()).await;
        let contender = contender(&room, name);
        load.publish(WARM_UP).await;
        load.take(WARM_UP).await;
        let cpu = contender.cpu();
        let took = load.trickle(LIGHT.0, LIGHT.1).await;
        let cost = (contender.cpu() - cpu) * 1_000.0 / LIGHT.0 as f64;
        // The device of the bench is done at once; the second in the delay queue is the only time that is its own.
        let own = if name.ends_with("-hop") { 1_000.0 } else { 0.0 };
        let values: Vec<f64> = [0.5, 0.95, 0.99, 1.0]
            .map(|share| quantile(&took, share) - own)
            .to_vec();
        if name == "worker" {
            report.target(
                "latency p50 at light load, ms",
                values[0],
                Bound::AtMost(6.0),
            );
            report.target(
                "latency p99 at light load, ms",
                values[2],
                Bound::AtMost(15.0),
            );
        }
        rows.push((name.to_owned(), [values, vec![cost]].concat()));
    }
    let title = format!(
        "latency: publish to final event in ms, {} requests, one every {} ms; without the second that the hop waits",
        LIGHT.0,
        LIGHT.1.as_millis()
    );
    report.table(title, &["p50", "p95", "p99", "max", "cpu/1000"], rows);
}
