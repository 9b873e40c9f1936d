//! The program's processes: started, watched, signalled, and killed when dropped or when the tests end in any other way.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http;
use super::rabbit::free_port;

const BINARY: &str = env!("CARGO_BIN_EXE_nbi-upgrade");
const START_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lines of its log that a process shows when a test fails.
const LINES_SHOWN: usize = 25;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Repeats until there is something, or panics.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} for: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A process of the program; its log is a file.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts the program. To be called from the test's own thread: the process is killed when that thread ends.
    pub(crate) fn start(
        directory: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        stdout: Stdio,
    ) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}-{number}",
            arguments.first().copied().unwrap_or_default()
        );
        let log = directory.join(format!("{name}.log"));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", BINARY])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(&log).expect("the directory is ours"))
            .spawn()
            .expect("setpriv (util-linux) starts the program");
        Self { child, name, log }
    }

    /// Sends a signal, named as `kill` does: `TERM`, `KILL`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(
            sent.expect("kill is there").success(),
            "{} is gone",
            self.name
        );
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until(&what, within, async || {
            self.child.try_wait().expect("it is ours")
        })
        .await
    }

    /// Its log so far, by line.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .and_then(|text| text.parse::<u64>().ok())
            .expect("Linux says it")
            * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(LINES_SHOWN);
            eprintln!(
                "--- {} ({ended:?}), {} lines, the last:\n{}",
                self.name,
                log.len(),
                log[from..].join("\n")
            );
        }
    }
}

/// The simulated NBI.
pub(crate) struct Simulator {
    _process: Process,
    address: String,
}

impl Simulator {
    /// Starts it on a free port, with these flags.
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Self {
        let mut arguments = vec!["simulator", "--listen", "127.0.0.1:0", "--output", "json"];
        arguments.extend(flags);
        let mut process = Process::start(directory, &arguments, &[], Stdio::piped());
        let stdout = process.child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it prints a line");
        let line: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line:?}: {:?}", process.log()));
        let address = line["listening"]
            .as_str()
            .expect("it says where")
            .to_owned();
        Self {
            _process: process,
            address,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its numbers.
    pub(crate) async fn summary(&self) -> Value {
        http::get_json(&self.address, "/sim/summary").await
    }

    /// Adds devices.
    pub(crate) async fn add(&self, devices: &[Value]) {
        let body = serde_json::to_string(devices).expect("it is JSON");
        let answer = http::send(&self.address, "POST", "/sim/devices", &body).await;
        assert!(matches!(answer, Ok((200, _))), "{answer:?}");
    }
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) process: Process,
    address: String,
}

impl Worker {
    /// Starts it, and waits until it listens.
    pub(crate) async fn start(directory: &Path, environment: &[(String, String)]) -> Self {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let address = format!("127.0.0.1:{}", free_port());
            let mut environment = environment.to_vec();
            environment.push(("NBI_UPGRADE_HTTP__LISTEN".to_owned(), address.clone()));
            let process = Process::start(directory, &["worker"], &environment, Stdio::null());
            let mut worker = Self { process, address };
            // Another test may have taken the port in between: then with the next.
            while worker
                .process
                .child
                .try_wait()
                .is_ok_and(|ended| ended.is_none())
            {
                if worker
                    .get("/livez")
                    .await
                    .is_some_and(|(status, _)| status == 200)
                {
                    return worker;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let log = worker.process.log();
            let is_taken = log.iter().any(|line| line.contains("failed to listen"));
            assert!(
                is_taken && Instant::now() < deadline,
                "the worker ended: {log:?}"
            );
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A page of its endpoint; `None` while it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<http::Answer> {
        http::send(&self.address, "GET", path, "").await.ok()
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        until("the worker to be ready", START_WITHIN, async || {
            self.get("/readyz")
                .await
                .filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Waits until it says that it is not ready because of `what`; the reason.
    pub(crate) async fn not_ready(&self, what: &str) -> String {
        let name = format!("\"what\":\"{what}\"");
        let (_, body) = until(&name, START_WITHIN, async || {
            let answer = self.get("/readyz").await?;
            (answer.0 == 503 && answer.1.contains(&name)).then_some(answer)
        })
        .await;
        body
    }

    /// Its metrics, as text.
    pub(crate) async fn metrics(&self) -> String {
        http::get(&self.address, "/metrics").await
    }

    /// The sum of a metric over its labels; `name` may end within them.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("nbi_upgrade_{name}")));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// SIGTERM; it must end by itself, with success.
    pub(crate) async fn stop(mut self, within: Duration) -> Duration {
        let begun = Instant::now();
        self.process.signal("TERM");
        let status = self.process.ended(within).await;
        assert!(status.success(), "{status}: {:?}", self.process.log());
        begun.elapsed()
    }

    /// SIGKILL.
    pub(crate) async fn kill9(mut self) {
        self.process.signal("KILL");
        self.process.ended(Duration::from_secs(10)).await;
    }
}
