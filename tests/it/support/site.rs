//! A site: one simulated NBI, workers, and a vhost of a real RabbitMQ, with a consumer of the results.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::collector::Collector;
use super::http;
use super::processes::{Process, Simulator, Worker, until};
use super::rabbit::{Client, Node, Vhost};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// `shutdown.grace` of the workers here, and a little for the process itself.
pub(crate) const GRACE: Duration = Duration::from_secs(12);
/// What names of broker objects begin with: not the default, so that a fixed name would be seen.
pub(crate) const PREFIX: &str = "fleet";
/// Every delay queue.
const RUNGS: u32 = 15;

/// Every pause as short as the configuration allows: devices take a second or two here.
const HASTE: [(&str, &str); 16] = [
    ("NBI_UPGRADE_NBI__USERNAME", "nbi"),
    ("NBI_UPGRADE_NBI__PASSWORD", "nbi"),
    ("NBI_UPGRADE_NBI__ALLOW_HTTP", "true"),
    ("NBI_UPGRADE_NBI__TIMEOUT", "2s"),
    ("NBI_UPGRADE_NBI__CONNECT_TIMEOUT", "2s"),
    ("NBI_UPGRADE_NBI__QUICK_RETRY_INITIAL", "20ms"),
    ("NBI_UPGRADE_NBI__CIRCUIT_OPEN_INITIAL", "1s"),
    ("NBI_UPGRADE_NBI__CIRCUIT_OPEN_MAX", "2s"),
    ("NBI_UPGRADE_AWAIT_RESULT__INITIAL", "1s"),
    ("NBI_UPGRADE_AWAIT_RESULT__MAX", "2s"),
    ("NBI_UPGRADE_RETRY__INITIAL", "1s"),
    ("NBI_UPGRADE_RETRY__MAX", "2s"),
    ("NBI_UPGRADE_JOB__ATTEMPT_PAUSE", "1s"),
    ("NBI_UPGRADE_JOB__BUSY_INITIAL", "1s"),
    ("NBI_UPGRADE_JOB__BUSY_MAX", "2s"),
    ("NBI_UPGRADE_CONNECTION_REQUEST__RESEND_INTERVAL", "3s"),
];

/// What a site is made of.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    /// Flags of the simulator, besides its devices' pace.
    pub(crate) simulator: &'a [&'a str],
    /// Configuration of the workers, stronger than [`HASTE`].
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    /// Asserts the exit status; shows all that was printed otherwise.
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    /// Standard output as one JSON document a line.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parsed = self.out.lines().map(serde_json::from_str);
        parsed.collect::<Result<_, _>>().expect(&self.out)
    }
}

/// The site.
pub(crate) struct Site {
    pub(crate) vhost: Vhost,
    pub(crate) simulator: Simulator,
    pub(crate) workers: Vec<Worker>,
    pub(crate) results: Collector,
    environment: Vec<(String, String)>,
    directory: TempDir,
    client: Client,
}

impl Site {
    /// On a vhost of the shared node.
    pub(crate) async fn begin(workers: usize, plan: Plan<'_>) -> Self {
        let node = tokio::task::spawn_blocking(Node::shared).await;
        let vhost = node.expect("the node starts").vhost();
        Self::begin_on(vhost, workers, plan).await
    }

    /// On this vhost.
    pub(crate) async fn begin_on(vhost: Vhost, workers: usize, plan: Plan<'_>) -> Self {
        let mut directory = tempfile::tempdir().expect("a directory");
        // For a closer look at logs afterwards.
        directory.disable_cleanup(std::env::var_os("NBI_UPGRADE_KEEP").is_some());
        let mut flags = plan.simulator.to_vec();
        if !flags.contains(&"--time-scale") {
            flags.extend(["--time-scale", "0.01"]);
        }
        let simulator = Simulator::start(directory.path(), &flags);
        let mut environment = vec![
            ("NBI_UPGRADE_AMQP__URL".to_owned(), vhost.url()),
            ("NBI_UPGRADE_AMQP__PREFIX".to_owned(), PREFIX.to_owned()),
            (
                "NBI_UPGRADE_NBI__URL".to_owned(),
                format!("http://{}", simulator.address()),
            ),
            ("NBI_UPGRADE_SHUTDOWN__GRACE".to_owned(), "10s".to_owned()),
        ];
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        environment.extend(HASTE.iter().chain(plan.environment).map(own));
        let declared = Process::start(
            directory.path(),
            &["topology", "declare"],
            &environment,
            Stdio::null(),
        );
        succeeds(declared).await;
        let results = Collector::begin(&vhost.url(), &format!("{PREFIX}.results")).await;
        let client = vhost.client().await;
        let mut site = Self {
            vhost,
            simulator,
            workers: Vec::new(),
            results,
            environment,
            directory,
            client,
        };
        for _ in 0..workers {
            site.start_worker().await;
        }
        for worker in &site.workers {
            worker.ready().await;
        }
        site
    }

    /// Sets a key of the configuration for processes that start from now on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Takes a key of the configuration away from processes that start from now on.
    pub(crate) fn unset(&mut self, key: &str) {
        self.environment.retain(|(name, _)| name != key);
    }

    /// What processes are started with now.
    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Gives processes that start from now on a list of brokers.
    pub(crate) fn set_urls(&mut self, urls: &str) {
        self.unset("NBI_UPGRADE_AMQP__URL");
        self.set("NBI_UPGRADE_AMQP__URLS", urls);
    }

    /// One more worker; it may not be ready yet.
    pub(crate) async fn start_worker(&mut self) {
        let worker = Worker::start(self.directory.path(), &self.environment).await;
        self.workers.push(worker);
    }

    /// A client of the broker beside the program.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Connects that client again, after the broker was away.
    pub(crate) async fn reconnect(&mut self) {
        self.client = self.vhost.client().await;
    }

    /// A command of the program, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_nbi-upgrade"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command(arguments);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.expect("it ends in time").expect("it starts");
        Finished {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).expect("it prints text"),
            err: String::from_utf8(output.stderr).expect("it prints text"),
        }
    }

    /// Runs a command line in a shell to its end; its standard output.
    pub(crate) async fn shell(&self, line: &str) -> String {
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_nbi-upgrade"));
        let place = binary.parent().expect("it lies in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env("PATH", format!("{}:{path}", place.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.expect("it ends in time").expect("it starts");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// The directory in which commands run.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Starts `nbi-upgrade submit` with these requests and flags.
    pub(crate) fn submitting(&self, requests: &[Value], flags: &[&str]) -> Process {
        let file = self.directory.path().join("jobs.jsonl");
        let lines: Vec<_> = requests.iter().map(Value::to_string).collect();
        std::fs::write(&file, lines.join("\n")).expect("the directory is ours");
        let mut arguments = vec!["submit", file.to_str().expect("a plain path")];
        arguments.extend(flags);
        Process::start(
            self.directory.path(),
            &arguments,
            &self.environment,
            Stdio::null(),
        )
    }

    /// Publishes these requests; all are with the broker afterwards.
    pub(crate) async fn submit(&self, requests: &[Value]) {
        succeeds(self.submitting(requests, &[])).await;
    }

    /// Gives an order by the command line; its exit status, and what it printed.
    pub(crate) async fn order(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let path = self.directory.path().join("order.json");
        let file = std::fs::File::create(&path).expect("the directory is ours");
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let mut process =
            Process::start(self.directory.path(), &all, &self.environment, file.into());
        let status = process.ended(PATIENCE).await;
        let text = std::fs::read_to_string(&path).expect("the directory is ours");
        (
            status.code(),
            serde_json::from_str(&text).unwrap_or_default(),
        )
    }

    /// Messages ready in all delay queues.
    pub(crate) async fn delayed(&self) -> u32 {
        let mut sum = 0;
        for power in 0..RUNGS {
            let queue = format!("{PREFIX}.delay.{}s", 1_u32 << power);
            sum += self.client.depth(&queue).await;
        }
        sum
    }

    /// Messages ready in every queue of the workers, by its short name; delay queues together.
    pub(crate) async fn depths(&self) -> [(&'static str, u32); 4] {
        let depth = async |name: &str| self.client.depth(&format!("{PREFIX}.{name}")).await;
        [
            ("requests", depth("requests").await),
            ("steps", depth("steps").await),
            ("dead", depth("dead").await),
            ("delay", self.delayed().await),
        ]
    }

    /// Waits until no copy of a job is left, stops the workers, and looks at everything: nothing armed, nothing flashed twice, nothing in
    /// any queue, one final event a job. Returns the simulator's summary.
    pub(crate) async fn end(mut self, jobs: usize) -> Value {
        let summary = self.end_with(jobs, 0).await;
        assert_eq!(summary["devices_flashed_twice"], 0, "{summary}");
        summary
    }

    /// As [`Site::end`], with `dead` messages among the dead, and devices that may have been flashed by several jobs.
    pub(crate) async fn end_with(&mut self, jobs: usize, dead: u32) -> Value {
        let empty = [("requests", 0), ("steps", 0), ("dead", dead), ("delay", 0)];
        let begun = Instant::now();
        let mut last = self.depths().await;
        while last != empty || self.in_hand().await > 0.0 {
            assert!(
                begun.elapsed() < PATIENCE,
                "left after all outcomes: {last:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            last = self.depths().await;
        }
        for worker in self.workers.drain(..) {
            worker.stop(GRACE).await;
        }
        // What was unacknowledged would be ready now.
        assert_eq!(self.depths().await, empty);
        let is_more = self
            .results
            .take_until(Duration::from_millis(500), |all| {
                all.count_of_finals() > jobs
            })
            .await;
        assert!(!is_more, "more outcomes than jobs");
        assert_eq!(self.results.count_of_finals(), jobs);
        assert_eq!(self.results.contradictory(), Vec::<&String>::new());
        let summary = self.simulator.summary().await;
        assert_eq!(summary["armed_rules"], 0, "{summary}");
        self.delete_vhost().await;
        summary
    }

    async fn in_hand(&self) -> f64 {
        let mut sum = 0.0;
        for worker in &self.workers {
            sum += worker.metric("deliveries_in_hand").await;
        }
        sum
    }

    /// Everything of the vhost goes: idle queues cost the node as well.
    pub(crate) async fn delete_vhost(&self) {
        let path = format!("/api/vhosts/{}", self.vhost.name());
        let answer = http::send(&self.vhost.management(), "DELETE", &path, "").await;
        assert!(matches!(answer, Ok((204, _))), "{answer:?}");
    }

    /// The statistics of the queues as the management API shows them, some seconds old.
    pub(crate) async fn statistics(&self) -> Vec<Value> {
        let path = format!(
            "/api/queues/{}?columns=name,messages,messages_unacknowledged",
            self.vhost.name()
        );
        let all = http::get_json(&self.vhost.management(), &path).await;
        all.as_array().cloned().unwrap_or_default()
    }

    /// Waits until the statistics show nothing waiting and nothing unacknowledged in the workers' queues.
    pub(crate) async fn quiet_in_statistics(&self) {
        until("quiet statistics", PATIENCE, async || {
            let is_quiet = |queue: &Value| {
                let name = queue["name"].as_str().unwrap_or_default();
                // The leader of campaigns holds its seat, a message, for as long as it leads.
                let is_kept = [".events", ".control", ".campaigns"]
                    .iter()
                    .any(|end| name.ends_with(end));
                is_kept
                    || !name.starts_with(PREFIX)
                    || (queue["messages"] == 0 && queue["messages_unacknowledged"] == 0)
            };
            self.statistics().await.iter().all(is_quiet).then_some(())
        })
        .await;
    }
}

/// The process must end well.
pub(crate) async fn succeeds(mut process: Process) {
    let status = process.ended(PATIENCE).await;
    assert!(status.success(), "{status}: {:?}", process.log());
}

/// Requests for the first devices of the fleet, one each.
pub(crate) fn requests(count: usize) -> Vec<Value> {
    (1..=count)
        .map(|number| request(&format!("job-{number}"), number, "fw-2.bin"))
        .collect()
}

/// One request.
pub(crate) fn request(job_id: &str, device: usize, file: &str) -> Value {
    json!({
        "job_id": job_id,
        "cpe_id": format!("CPE{device:06}"),
        "firmware_url": format!("https://files.example/{file}"),
        "max_attempts": 2,
    })
}

/// Whether the long versions run too.
pub(crate) fn is_long() -> bool {
    std::env::var_os("NBI_UPGRADE_LONG").is_some()
}
