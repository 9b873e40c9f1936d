//! A real Prometheus that scrapes workers with the shipped rules; killed when dropped or when the tests end in any other way.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use super::http;
use super::processes::until;
use super::rabbit::free_port;

const START_WITHIN: Duration = Duration::from_secs(60);
/// The `job` label of what it scrapes.
pub(crate) const JOB: &str = "nbi-upgrade";

/// The process.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    targets: PathBuf,
    directory: TempDir,
}

impl Prometheus {
    /// Starts it with these rules, without a target.
    pub(crate) async fn start(rules: &str, scrape_interval: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let targets = path("targets.json");
        let configuration = format!(
            "global: {{ scrape_interval: {0}ms, scrape_timeout: {0}ms, evaluation_interval: {0}ms }}\n\
             rule_files: [ rules.yml ]\n\
             scrape_configs:\n- job_name: {JOB}\n  file_sd_configs: [ {{ files: [ targets.json ], refresh_interval: 1s }} ]\n",
            scrape_interval.as_millis()
        );
        for (name, text) in [
            ("prometheus.yml", configuration.as_str()),
            ("rules.yml", rules),
            ("targets.json", "[]"),
        ] {
            std::fs::write(path(name), text).expect("the directory is ours");
        }
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "prometheus"])
            .arg(format!(
                "--config.file={}",
                path("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).expect("the directory is ours"))
            .spawn()
            .expect("setpriv (util-linux) starts Prometheus; run the tests through `tests/run`");
        let mut started = Self {
            child,
            address,
            targets,
            directory,
        };
        until("Prometheus", START_WITHIN, async || {
            let ended = started.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "{ended:?}: {}", started.log());
            let answer = http::send(&started.address, "GET", "/-/ready", "").await;
            answer.ok().filter(|(status, _)| *status == 200)
        })
        .await;
        started
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// From now on it scrapes these addresses; as labels they are called `worker-1` and so on, as ports mean nothing to a reader.
    pub(crate) fn scrape(&self, addresses: &[&str]) {
        let mut list = String::new();
        for (address, number) in addresses.iter().zip(1..) {
            let comma = if number == 1 { "" } else { "," };
            write!(
                list,
                r#"{comma}{{"targets":["{address}"],"labels":{{"instance":"worker-{number}"}}}}"#
            )
            .expect("text can be written to");
        }
        let new = self.targets.with_extension("new");
        std::fs::write(&new, format!("[{list}]")).expect("the directory is ours");
        std::fs::rename(&new, &self.targets).expect("the directory is ours");
    }

    /// What its API answers below `/api/v1/`; an error is a fault of the question.
    pub(crate) async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let pairs = parameters.iter().map(|(name, value)| {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            format!("{name}={value}")
        });
        let query = pairs.collect::<Vec<_>>().join("&");
        let whole = format!("/api/v1/{path}?{query}");
        let (status, body) = http::send(&self.address, "GET", &whole, "")
            .await
            .expect("Prometheus answers");
        assert_eq!(status, 200, "{path} {parameters:?}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("it is JSON");
        answer["data"].clone()
    }

    /// The result of a query now.
    pub(crate) async fn query(&self, query: &str) -> Vec<Value> {
        let data = self.api("query", &[("query", query)]).await;
        data["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- prometheus:\n{}", self.log());
        }
    }
}

/// Hands a worker's exposition to `promtool check metrics`; what it says, empty if all is well.
pub(crate) fn lint(exposition: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool comes with Prometheus");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin
        .write_all(exposition.as_bytes())
        .expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

/// The shipped rules, so that they can be watched within a minute: evaluated each second, and firing after seconds.
pub(crate) fn hasty_rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yml");
    let rules = std::fs::read_to_string(path).expect("the rules are there");
    let lines = rules.lines().map(|line| {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        match text.split_once(": ") {
            Some(("for", _)) => format!("{indent}for: 3s\n"),
            Some(("interval", _)) => format!("{indent}interval: 1s\n"),
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}
