//! The AMQP driver alone, in a process of its own: continuations per second, and how late delayed ones come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock;
use nbi_upgrade::driver::amqp::{AmqpDriver, AmqpSettings, Token};
use nbi_upgrade::driver::{Delivery, Destination, Driver as _, HandOver};
use nbi_upgrade::message::{Codec, EventSettings, RequestSettings};
use nbi_upgrade::telemetry::Telemetry;
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::arguments::Arguments;
use super::load::{Load, quantile};
use super::process::{Process, cpu};
use super::report::{Bound, Report, median};
use super::site::Site;

/// Hops of each job: so many that publishing the jobs does not count.
const HOPS: u64 = 100;
const CONCURRENCY: usize = 128;
/// Jobs that fall due at the same moment.
const BURST: usize = 10_000;
const IDLE: usize = 300;

/// Publishes jobs, has the driver work on them, and reads the one line that it prints.
async fn figures(site: &Site, kind: &str, jobs: usize) -> BTreeMap<String, f64> {
    let room = site.room();
    let mut load = Load::on(&room.vhost.url()).await;
    load.publish(jobs).await;
    let words = [
        "driver",
        kind,
        &room.vhost.url(),
        &jobs.to_string(),
        &CONCURRENCY.to_string(),
    ];
    let broker = site.broker_cpu();
    let mut driver = Process::role(room.directory(), &words);
    driver.finish();
    let mut figures: BTreeMap<String, f64> =
        serde_json::from_str(&driver.first_line).expect("it printed JSON");
    figures.insert("broker".to_owned(), site.broker_cpu() - broker);
    figures
}

/// Continuations through the driver: consume, publish, confirm, acknowledge.
pub(crate) async fn hops(site: &Site, arguments: &Arguments, report: &mut Report) {
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        let figures = figures(site, "hops", 1_000).await;
        let hops = figures["hops"];
        rounds.push([
            hops / figures["seconds"],
            figures["cpu"] * 1e6 / hops,
            figures["broker"] * 1e6 / hops,
        ]);
    }
    let values: Vec<f64> = (0..3)
        .map(|at| median(rounds.iter().map(|round| round[at]).collect()))
        .collect();
    report.target(
        "hops per second at concurrency 128",
        values[0],
        Bound::AtLeast(10_000.0),
    );
    let title = format!(
        "hops: {} continuations at concurrency {CONCURRENCY}; microseconds of processor per hop",
        1_000 * HOPS
    );
    report.table(
        title,
        &["hops/s", "driver µs", "broker µs"],
        vec![("driver".to_owned(), values)],
    );
}

/// How late delayed continuations come: a few at a time, and ten thousand due in one moment.
pub(crate) async fn delays(site: &Site, _arguments: &Arguments, report: &mut Report) {
    let mut rows = Vec::new();
    for (kind, jobs, limit) in [("idle", IDLE, 50.0), ("burst", BURST, 1_000.0)] {
        let figures = figures(site, kind, jobs).await;
        let columns = ["p50", "p95", "p99", "max"];
        let values: Vec<f64> = columns.iter().map(|name| figures[*name]).collect();
        report.target(
            format!("lateness p99, {kind}, ms"),
            values[2],
            Bound::AtMost(limit),
        );
        let per_job = [figures["cpu"], figures["broker"]].map(|cpu| cpu * 1e6 / jobs as f64);
        rows.push((
            format!("{kind} {jobs}"),
            [values, per_job.to_vec()].concat(),
        ));
    }
    let title = "delays: lateness of delayed continuations in ms; microseconds of processor per job, its way into the delay queue included";
    report.table(
        title,
        &["p50", "p95", "p99", "max", "driver µs", "broker µs"],
        rows,
    );
}

/// The role: works until all jobs are through, and prints what it saw.
pub(crate) async fn run(kind: &str, url: &str, count: usize, concurrency: usize) {
    let settings = AmqpSettings {
        urls: vec![SecretString::from(url.to_owned())],
        prefetch: u16::try_from(concurrency).expect("a prefetch"),
        ..AmqpSettings::default()
    };
    let codec = Codec {
        requests: RequestSettings::default(),
        events: EventSettings {
            source: "/nbi-upgrade/bench".to_owned(),
            progress: false,
        },
    };
    let driver = AmqpDriver::start(
        settings,
        codec,
        Arc::new(Telemetry::default()),
        clock::system(),
    );
    let driver = Arc::new(driver);
    let figures = match kind {
        "hops" => hop(&driver, count).await,
        // Whole seconds, as the worker chooses them: any other time is kept to half a second only (`driver/amqp/delay.rs`).
        "idle" => {
            sleep(&driver, count, |number| {
                SignedDuration::from_secs(1 + number % 8)
            })
            .await
        }
        // Two hops of the ladder; all have passed the first one long before the last second begins.
        "burst" => sleep(&driver, count, |_| SignedDuration::ZERO).await,
        other => panic!("{other:?} is nothing that a driver does"),
    };
    println!("{}", serde_json::to_string(&figures).expect("numbers"));
    driver.stop().await;
    driver.close().await;
}

/// Hands every job over until it has made its hops.
async fn hop(driver: &Arc<AmqpDriver>, count: usize) -> BTreeMap<&'static str, f64> {
    let mut tasks = JoinSet::new();
    let mut left = count;
    let (mut begun, mut used) = (None, 0.0);
    let mut hops = 0_u64;
    while left > 0 {
        let delivery = driver.receive().await.expect("the driver has not ended");
        begun.get_or_insert_with(|| {
            used = cpu(std::process::id());
            Instant::now()
        });
        hops += 1;
        let is_last = delivery.work.job.progress.seq >= HOPS;
        left -= usize::from(is_last);
        let to = if is_last {
            Destination::Nowhere
        } else {
            Destination::Now
        };
        tasks.spawn(carry_out(Arc::clone(driver), delivery, to));
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    let seconds = begun.expect("there was a job").elapsed().as_secs_f64();
    BTreeMap::from([
        ("hops", hops as f64),
        ("seconds", seconds),
        ("cpu", cpu(std::process::id()) - used),
    ])
}

/// Parks every job until its time, and looks how late it comes back.
async fn sleep(
    driver: &Arc<AmqpDriver>,
    count: usize,
    after: impl Fn(i64) -> SignedDuration,
) -> BTreeMap<&'static str, f64> {
    let used = cpu(std::process::id());
    let begun = Timestamp::now();
    // By then all are parked, also on a busy machine.
    let common = begun + SignedDuration::from_secs(12);
    let mut tasks = JoinSet::new();
    let mut late = Vec::with_capacity(count);
    let mut parked = 0;
    while late.len() < count {
        let delivery = driver.receive().await.expect("the driver has not ended");
        let to = match delivery.work.not_due_before {
            Some(due) => {
                late.push(Timestamp::now().duration_since(due).as_secs_f64() * 1_000.0);
                Destination::Nowhere
            }
            None => {
                let own = after(parked);
                parked += 1;
                Destination::At(if own.is_zero() {
                    common
                } else {
                    Timestamp::now() + own
                })
            }
        };
        tasks.spawn(carry_out(Arc::clone(driver), delivery, to));
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    // What is nearly due is taken early, which is not late.
    late.iter_mut().for_each(|late| *late = late.max(0.0));
    late.sort_by(f64::total_cmp);
    let used = cpu(std::process::id()) - used;
    let shares = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)];
    let mut figures: BTreeMap<_, _> = shares
        .map(|(name, share)| (name, quantile(&late, share)))
        .into();
    figures.insert("cpu", used);
    figures
}

async fn carry_out(driver: Arc<AmqpDriver>, delivery: Delivery<Token>, to: Destination) {
    let Delivery {
        mut work, token, ..
    } = delivery;
    work.job.progress.seq += 1;
    // A time that somebody asked for is kept to the second instead of being rounded to two hops.
    if let Destination::At(due) = to {
        work.job.order_mut().not_before = Some(due);
    }
    let hand_over = HandOver {
        work,
        to,
        events: Vec::new(),
    };
    driver
        .carry_out(token, hand_over)
        .await
        .expect("the broker is there");
}
