//! `run`: a fleet without a broker, killed at any moment and taken up again, and what its input may look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http;
use crate::support::processes::Simulator;

const BINARY: &str = env!("CARGO_BIN_EXE_nbi-upgrade");

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

struct Bench {
    directory: tempfile::TempDir,
    simulator: Simulator,
}

impl Bench {
    fn new(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut all = vec!["--time-scale", "0.005"];
        all.extend(flags);
        let simulator = Simulator::start(directory.path(), &all);
        Self {
            directory,
            simulator,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Starts `run`; what it prints goes to files.
    fn start(&self, arguments: &[&str], out: &str) -> Child {
        let url = format!("http://{}", self.simulator.address());
        let file = |name: &str| std::fs::File::create(self.path(name)).unwrap();
        Command::new(BINARY)
            .arg("run")
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .envs([
                ("NBI_UPGRADE_NBI__URL", url.as_str()),
                ("NBI_UPGRADE_NBI__USERNAME", "nbi"),
                ("NBI_UPGRADE_NBI__PASSWORD", "nbi"),
                ("NBI_UPGRADE_NBI__ALLOW_HTTP", "true"),
                ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "1s"),
                ("NBI_UPGRADE_AWAIT_RESULT__MAX", "1s"),
            ])
            .stdin(Stdio::null())
            .stdout(file(out))
            .stderr(file(&format!("{out}.err")))
            .spawn()
            .unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs to the end, which must have this status.
    fn run(&self, arguments: &[&str], status: i32) -> (String, String) {
        let mut child = self.start(arguments, "out");
        let ended = ended_within(&mut child, PATIENCE).expect("it ends");
        let (out, err) = (self.read("out"), self.read("out.err"));
        assert_eq!(ended.code(), Some(status), "{out}\n{err}");
        (out, err)
    }

    async fn summary(&self) -> Value {
        http::get_json(self.simulator.address(), "/sim/summary").await
    }
}

fn ended_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn requests(count: usize) -> String {
    let lines = (1..=count).map(|number| {
        json!({"job_id": format!("job-{number}"), "cpe_id": format!("CPE{number:06}"),
            "firmware_url": "https://files.example/fw-2.bin", "requested_at": "2026-01-01T00:00:00Z",
            "deadline": "2100-01-01T00:00:00Z"})
        .to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Outcomes by job; a repeat must say the same.
fn outcomes(out: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for line in out.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |name: &str| event["data"][name].as_str().unwrap_or("-").to_owned();
        let word = format!("{}/{}", text("outcome"), text("reason"));
        if let Some(before) = all.insert(text("job_id"), word.clone()) {
            assert_eq!(before, word);
        }
    }
    all
}

/// Killed again and again, at moments that differ, until it comes to its end by itself.
#[tokio::test]
async fn a_run_that_is_killed_again_and_again_loses_no_job_and_upgrades_no_device_twice() {
    let jobs = 24;
    let bench = Bench::new(&["--devices", "24"]);
    bench.write("fleet.jsonl", &requests(jobs));
    let mut kills = 0;
    let status = loop {
        let mut child = bench.start(&["fleet.jsonl", "--concurrency", "6"], "out");
        // Between soon after the start and well into the work; longer each time, so that it ends at all.
        let after = Duration::from_millis(150 + 137 * kills % 900 + 60 * kills);
        match ended_within(&mut child, after) {
            Some(status) => break status,
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
            }
        }
        assert!(kills < 100, "{}", bench.read("out.err"));
    };
    assert_eq!(status.code(), Some(0), "{}", bench.read("out.err"));
    assert!(kills >= 3, "it was killed {kills} times only");
    // The last run alone tells of every job, whichever run carried it out.
    let outcomes = outcomes(&bench.read("out"));
    assert_eq!(outcomes.len(), jobs);
    assert!(
        outcomes
            .values()
            .all(|word| word == "completed/upgraded" || word == "completed/already_done"),
        "{outcomes:?}"
    );
    let summary = bench.summary().await;
    assert_eq!(summary["devices_flashed_twice"], 0, "{summary}");
    assert_eq!(summary["armed_rules"], 0, "{summary}");
    // Once more: everything is known, and nothing is asked.
    let calls = summary["calls"].clone();
    bench.run(&["fleet.jsonl"], 0);
    assert_eq!(bench.summary().await["calls"], calls);
}

#[tokio::test]
async fn an_interrupted_run_ends_in_order_and_says_how_to_go_on() {
    let bench = Bench::new(&["--devices", "8"]);
    bench.write("fleet.jsonl", &requests(8));
    let mut child = bench.start(&["fleet.jsonl", "--concurrency", "2"], "out");
    let deadline = Instant::now() + PATIENCE;
    while bench.read("out").is_empty() {
        assert!(Instant::now() < deadline, "{}", bench.read("out.err"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = ended_within(&mut child, PATIENCE).expect("it ends");
    let said = bench.read("out.err");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("not lost") && said.contains("nbi-upgrade run fleet.jsonl"),
        "{said}"
    );
    let first = outcomes(&bench.read("out"));
    assert!(!first.is_empty() && first.len() < 8, "{first:?}");
    // By its journal alone.
    let (out, _) = bench.run(&["--journal", "fleet.jsonl.journal"], 0);
    assert_eq!(outcomes(&out).len(), 8);
    let summary = bench.summary().await;
    assert_eq!(summary["devices_flashed_twice"], 0, "{summary}");
    assert_eq!(summary["armed_rules"], 0, "{summary}");
}

#[tokio::test]
async fn so_many_devices_are_under_way_and_no_more() {
    let bench = Bench::new(&["--devices", "9"]);
    bench.write("fleet.jsonl", &requests(9));
    let mut child = bench.start(&["fleet.jsonl", "--concurrency", "3"], "out");
    let mut most = 0;
    while ended_within(&mut child, Duration::from_millis(20)).is_none() {
        let rules = http::get_json(bench.simulator.address(), "/sim/rules").await;
        let armed = rules
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["enabled"] == true);
        most = most.max(armed.count());
    }
    assert_eq!(
        outcomes(&bench.read("out")).len(),
        9,
        "{}",
        bench.read("out.err")
    );
    assert!((1..=3).contains(&most), "{most} rules were armed at a time");
}

#[test]
fn a_fleet_comes_from_a_spreadsheet() {
    let bench = Bench::new(&["--devices", "3"]);
    bench.write(
        "fleet.csv",
        "\u{feff}job_id;cpe_id;firmware_url;max_attempts;context\r\n\
         a;CPE000001;https://files.example/a.bin;2;\"{\"\"ticket\"\": \"\"7;8\"\"}\"\r\n\
         b;CPE000002;https://files.example/a.bin;;\r\n",
    );
    let (out, _) = bench.run(&["fleet.csv"], 0);
    assert_eq!(outcomes(&out).len(), 2);
    let with_context = out
        .lines()
        .find(|line| line.contains("\"job_id\":\"a\""))
        .unwrap();
    let event: Value = serde_json::from_str(with_context).unwrap();
    assert_eq!(event["data"]["context"], json!({"ticket": "7;8"}));
    bench.write(
        "wrong.csv",
        "job_id,cpe_id,firmware_url,max_attempts\nc,CPE*,https://files.example/a.bin,1\nd,CPE1,nowhere,many\ne,CPE1\n",
    );
    let (out, err) = bench.run(&["wrong.csv"], 2);
    assert_eq!(out, "");
    for said in [
        "line 2: cpe_id",
        "line 3: firmware_url",
        "max_attempts",
        "line 4: has 2 cells",
    ] {
        assert!(err.contains(said), "{said} is not in {err}");
    }
    assert!(!Path::new(&bench.path("wrong.csv.journal")).exists());
}

#[test]
fn jobs_that_are_there_twice_or_differ_from_the_journal_are_refused() {
    let bench = Bench::new(&["--devices", "3"]);
    let line = |device: usize| {
        format!(
            r#"{{"job_id":"a","cpe_id":"CPE{device:06}","firmware_url":"https://files.example/a.bin"}}"#
        )
    };
    bench.write("twice.jsonl", &format!("{}\n\n{}\n", line(1), line(2)));
    let (_, err) = bench.run(&["twice.jsonl"], 2);
    assert!(
        err.contains("line 3: job_id: \"a\" stands on line 1 too"),
        "{err}"
    );
    bench.write("one.jsonl", &line(1));
    bench.run(&["one.jsonl"], 0);
    bench.write("one.jsonl", &line(2));
    let (_, err) = bench.run(&["one.jsonl"], 2);
    assert!(err.contains("was begun with another request"), "{err}");
    // Written otherwise, it is the same.
    bench.write("one.jsonl", &line(1).replace(',', " , "));
    bench.run(&["one.jsonl"], 0);
}

#[test]
fn two_runs_on_one_journal_are_refused() {
    let bench = Bench::new(&["--devices", "3"]);
    bench.write("fleet.jsonl", &requests(3));
    let mut first = bench.start(&["fleet.jsonl"], "first");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::metadata(bench.path("fleet.jsonl.journal")).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, err) = bench.run(&["fleet.jsonl"], 1);
    assert!(err.contains("another process"), "{err}");
    assert!(
        ended_within(&mut first, PATIENCE)
            .expect("it ends")
            .success()
    );
}

#[test]
fn a_journal_is_a_file() {
    let bench = Bench::new(&["--devices", "3"]);
    bench.write("fleet.jsonl", &requests(1));
    let (out, err) = bench.run(&["fleet.jsonl", "--journal", "/dev/full"], 1);
    assert_eq!(out, "");
    assert!(
        err.contains("/dev/full") && err.contains("no regular file"),
        "{err}"
    );
}
