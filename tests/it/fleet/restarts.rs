//! Workers killed in the middle, workers rolled, and signals to workers that are busy: the same end as if nothing had happened.

use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::support::processes::{Worker, until};
use crate::support::rabbit::Node;
use crate::support::site::{GRACE, PATIENCE, Plan, Site, is_long, requests};

/// Without waiting for the other end of a pipe (`open(2)`, Linux).
const O_NONBLOCK: i32 = 0o4000;

fn count() -> usize {
    if is_long() { 3_000 } else { 300 }
}

async fn two_workers(count: usize) -> Site {
    let devices = count.to_string();
    let site = Site::begin(
        2,
        Plan {
            simulator: &["--devices", &devices],
            ..Plan::default()
        },
    )
    .await;
    site.submit(&requests(count)).await;
    site
}

#[tokio::test]
async fn workers_killed_in_the_middle_lose_no_job_and_upgrade_no_device_twice() {
    let count = count();
    let mut site = two_workers(count).await;
    let mut kills = 0;
    while site.results.count_of_finals() < count {
        // The first while everything begins, the others along the way.
        let wanted = (kills * count / 6).min(count);
        site.results.finals(wanted, PATIENCE).await;
        if kills < 6 {
            site.workers.remove(0).kill9().await;
            site.start_worker().await;
            kills += 1;
        }
    }
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    let summary = site.end(count).await;
    eprintln!(
        "{kills} kills: {outcomes:?}, {repeats} repeated events, calls {}",
        summary["calls"]
    );
    assert_eq!(summary["flashes"], count, "{summary}");
    let completed: usize = outcomes
        .iter()
        .filter(|(name, _)| name.starts_with("completed/"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(completed, count, "{outcomes:?}");
}

#[tokio::test]
async fn rolled_workers_end_well_within_their_grace_and_repeat_nothing() {
    let count = count();
    let mut site = two_workers(count).await;
    let mut slowest = Duration::ZERO;
    for wave in 0..4 {
        site.results.finals(wave * count / 5, PATIENCE).await;
        site.start_worker().await;
        slowest = slowest.max(site.workers.remove(0).stop(GRACE).await);
    }
    site.results.finals(count, PATIENCE).await;
    let (outcomes, repeats) = (site.results.outcomes(), site.results.repeats);
    let summary = site.end(count).await;
    eprintln!("4 workers rolled, the slowest ended in {slowest:.1?}; {repeats} repeated events");
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), count)]
    );
    assert_eq!(
        (&summary["flashes"], repeats),
        (&count.into(), 0),
        "{summary}"
    );
}

/// A worker whose only job waits for the answer of an NBI that says nothing; with the way of that answer.
async fn busy_for_long(site: &mut Site, grace: &str) -> (Worker, TcpStream) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let real = format!("http://{}", site.simulator.address());
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let slow = [
        ("NBI_UPGRADE_NBI__URL", silent_url.as_str()),
        ("NBI_UPGRADE_NBI__TIMEOUT", "300s"),
        ("NBI_UPGRADE_SHUTDOWN__GRACE", grace),
    ];
    for (key, value) in slow {
        site.set(key, value);
    }
    site.start_worker().await;
    let worker = site.workers.pop().unwrap();
    for (key, value) in [
        ("NBI_UPGRADE_NBI__URL", real.as_str()),
        ("NBI_UPGRADE_NBI__TIMEOUT", "2s"),
        ("NBI_UPGRADE_SHUTDOWN__GRACE", "10s"),
    ] {
        site.set(key, value);
    }
    worker.ready().await;
    site.submit(&requests(1)).await;
    let called = tokio::time::timeout(PATIENCE, silent.accept()).await;
    let (call, _) = called.expect("it asks the NBI").unwrap();
    assert_eq!(worker.metric("deliveries_in_hand").await, 1.0);
    (worker, call)
}

async fn says(worker: &Worker, words: &[&str]) {
    until(&format!("{words:?} in the log"), PATIENCE, async || {
        let log = worker.process.log();
        let said = |line: &String| words.iter().all(|word| line.contains(word));
        log.iter().any(said).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once_and_its_job_goes_on() {
    let mut site = Site::begin(0, Plan::default()).await;
    let (mut worker, _call) = busy_for_long(&mut site, "60s").await;
    worker.process.signal("INT");
    says(&worker, &["signal received", "SIGINT"]).await;
    // It waits for its job.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(worker.metric("deliveries_in_hand").await, 1.0);
    worker.process.signal("TERM");
    let status = worker.process.ended(Duration::from_secs(3)).await;
    assert_eq!(status.code(), Some(130), "{status}");
    site.start_worker().await;
    site.results.finals(1, PATIENCE).await;
    let outcomes = site.results.outcomes();
    let summary = site.end(1).await;
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [("completed/upgraded".to_owned(), 1)]
    );
    assert_eq!(summary["flashes"], 1, "{summary}");
}

#[tokio::test]
async fn an_interrupted_worker_ends_within_its_grace_and_its_job_goes_on() {
    let mut site = Site::begin(0, Plan::default()).await;
    let (mut worker, _call) = busy_for_long(&mut site, "6s").await;
    worker.process.signal("INT");
    let begun = Instant::now();
    let status = worker.process.ended(Duration::from_secs(20)).await;
    eprintln!("interrupted: ended after {:.1?} of 6 s", begun.elapsed());
    assert!(status.success(), "{status}");
    // It was parked for a while, as it was this worker's own trouble; that while may be over.
    let depths = site.depths().await;
    let [
        ("requests", 0),
        ("steps", steps),
        ("dead", 0),
        ("delay", delay),
    ] = depths
    else {
        panic!("{depths:?}");
    };
    assert_eq!(steps + delay, 1);
    if is_long() {
        site.start_worker().await;
        site.results.finals(1, PATIENCE).await;
        let summary = site.end(1).await;
        assert_eq!(summary["flashes"], 1, "{summary}");
    } else {
        site.delete_vhost().await;
    }
}

/// A file on a server that is away, as far as a process can tell.
#[tokio::test]
async fn a_file_that_is_never_read_to_its_end_does_not_hold_the_end_of_the_process() {
    let mut site = Site::begin(0, Plan::default()).await;
    let file = site.directory().join("url");
    std::fs::write(&file, site.vhost.url()).unwrap();
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL_FILE", file.to_str().unwrap());
    site.start_worker().await;
    let worker = site.workers.pop().unwrap();
    worker.ready().await;
    let pipe = site.directory().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, &file).unwrap();
    let (node, vhost) = (Node::shared(), &site.vhost);
    until("the connections to be closed", PATIENCE, async || {
        (node.close_connections(vhost) > 0).then_some(())
    })
    .await;
    // There is another end as soon as the worker has begun to read, and nothing comes out of it.
    let _held = until("the worker to read the file", PATIENCE, async || {
        let mut options = std::fs::OpenOptions::new();
        node.close_connections(vhost);
        let other_end = options.write(true).custom_flags(O_NONBLOCK).open(&file);
        other_end.ok()
    })
    .await;
    let took = worker.stop(GRACE).await;
    eprintln!("a file that hangs: ended after {took:.1?}");
    site.delete_vhost().await;
}
