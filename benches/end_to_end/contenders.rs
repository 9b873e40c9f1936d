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
const ALL: [(&str, Option<&str>, &Settings); 6] = [
    (
        "worker",
        None,
        &[("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "0s")],
    ),
    ("durable", Some("durable"), &[]),
    (
        "worker-hop",
        None,
        &[("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "1s")],
    ),
    ("durable-hop", Some("durable-hop"), &[]),
    ("bare", Some("bare"), &[]),
    ("broker", Some("broker"), &[]),
];

const COLUMNS: [&str; 8] = [
    "jobs/s",
    "cpu/1000",
    "broker",
    "nbi",
    "calls",
    "peak MiB",
    "cpu ratio",
    "rate ratio",
];

/// What one round of one contender showed: the first six columns.
type Round = [f64; 6];

fn chosen(arguments: &Arguments) -> Vec<(&'static str, Option<&'static str>, &'static Settings)> {
    let wanted = &arguments.contenders;
    ALL.into_iter()
        .filter(|(name, _, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name))
        .collect()
}

fn contender(room: &Room<'_>, floor: Option<&str>, settings: &Settings) -> Contender {
    match floor {
        Some(kind) => room.floor(kind),
        None => room.worker(settings).0,
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
            let (_, floor, settings) = chosen[index];
            rounds[index].push(round(site, floor, settings, arguments.jobs).await);
        }
    }
    let column =
        |rounds: &[Round], at: usize| rounds.iter().map(|round| round[at]).collect::<Vec<_>>();
    // Ratios within each round, then their median: what disturbs one round disturbs both.
    let ratio = |index: usize, at: usize| {
        let base = if chosen[index].0.ends_with("-hop") {
            "durable-hop"
        } else {
            "durable"
        };
        let base = chosen.iter().position(|(name, _, _)| *name == base)?;
        let pairs = rounds[index].iter().zip(&rounds[base]);
        Some(median(
            pairs.map(|(own, other)| own[at] / other[at]).collect(),
        ))
    };
    let rows = chosen.iter().enumerate().map(|(index, (name, _, _))| {
        let mut values: Vec<f64> = (0..6)
            .map(|at| median(column(&rounds[index], at)))
            .collect();
        values.extend([ratio(index, 1), ratio(index, 0)].map(|ratio| ratio.unwrap_or(f64::NAN)));
        ((*name).to_owned(), values)
    });
    let rows: Vec<_> = rows.collect();
    for (name, values) in rows.iter().filter(|(name, _)| name.starts_with("worker")) {
        report.target(
            format!("{name}: processor time per job / durable floor"),
            values[6],
            Bound::AtMost(1.25),
        );
        report.target(
            format!("{name}: jobs per second / durable floor"),
            values[7],
            Bound::AtLeast(0.8),
        );
    }
    let title = format!(
        "throughput: {} jobs a round, medians of {} rounds; processor seconds per 1,000 jobs; ratios to the durable floor",
        arguments.jobs, arguments.rounds
    );
    report.table(title, &COLUMNS, rows);
}

async fn round(site: &Site, floor: Option<&str>, settings: &Settings, jobs: usize) -> Round {
    let room = site.room();
    let mut load = Load::on(&room.vhost.url()).await;
    let contender = contender(&room, floor, settings);
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
    [
        jobs as f64 / took,
        (contender.cpu() - cpu) * per_thousand,
        (site.broker_cpu() - broker) * per_thousand,
        (room.nbi_cpu() - nbi) * per_thousand,
        (room.calls() - calls) / jobs as f64,
        memory(contender.process.id(), "VmHWM"),
    ]
}

/// Worker and floor at the same time, each with an NBI and a virtual host of its own: what slows the machine down slows both, so that the
/// ratio is steadier than that of rounds in turn. It counts until one of them has done its jobs.
pub(crate) async fn beside(site: &Site, arguments: &Arguments, report: &mut Report) {
    let mut rows = Vec::new();
    for pair in ALL[..4].chunks(2) {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            rounds.push(both(site, [pair[0], pair[1]], arguments.jobs).await);
        }
        let ratios = rounds.iter().map(|[own, other]| own / other);
        let ratio = median(ratios.clone().collect());
        let name = pair[0].0;
        report.target(
            format!("{name}: processor time per job / durable floor beside it"),
            ratio,
            Bound::AtMost(1.25),
        );
        let values = vec![
            median(rounds.iter().map(|[own, _]| *own).collect()),
            median(rounds.iter().map(|[_, other]| *other).collect()),
            ratio,
            ratios.clone().fold(f64::INFINITY, f64::min),
            ratios.fold(0.0, f64::max),
        ];
        rows.push((name.to_owned(), values));
    }
    let title = format!(
        "beside: worker and durable floor at the same time, {} jobs a round, medians of {} rounds; processor seconds per 1,000 jobs",
        arguments.jobs, arguments.rounds
    );
    report.table(title, &["worker", "floor", "ratio", "least", "most"], rows);
}

/// What a thousand jobs of each cost.
async fn both(site: &Site, pair: [(&str, Option<&str>, &Settings); 2], jobs: usize) -> [f64; 2] {
    let rooms = [site.room(), site.room()];
    let mut loads = [
        Load::on(&rooms[0].vhost.url()).await,
        Load::on(&rooms[1].vhost.url()).await,
    ];
    let contenders = [0, 1].map(|at| contender(&rooms[at], pair[at].1, pair[at].2));
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
    for (name, floor, settings) in chosen(arguments) {
        let room = site.room();
        let mut load = Load::on(&room.vhost.url()).await;
        let contender = contender(&room, floor, settings);
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
