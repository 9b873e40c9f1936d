//! The site: one broker for the whole run, and for each measurement a virtual host, an NBI and one contender of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::load::LOAD;
use super::process::{Process, cpu, memory};
use super::support::client::Vhost;
use super::support::rabbit::{Node, free_port};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The broker, for the whole run.
pub(crate) struct Site {
    node: Node,
    broker: u32,
    directory: TempDir,
}

/// What a worker is configured with besides the addresses.
pub(crate) type Settings = [(&'static str, &'static str)];

impl Site {
    /// Starts the broker.
    pub(crate) fn begin() -> Self {
        let node = Node::start();
        let id = node.control(&["eval", "os:getpid()."]);
        let broker = id.trim().trim_matches('"').parse();
        Self {
            node,
            broker: broker.expect("a process id"),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// The broker's version.
    pub(crate) fn broker_version(&self) -> String {
        self.node.control(&["version"]).trim().to_owned()
    }

    /// Processor seconds of the broker so far.
    pub(crate) fn broker_cpu(&self) -> f64 {
        cpu(self.broker)
    }

    /// A virtual host with the topology, and an NBI.
    pub(crate) fn room(&self) -> Room<'_> {
        let vhost = self.node.vhost();
        let nbi = Process::role(self.directory.path(), &["nbi"]);
        let mut room = Room {
            site: self,
            vhost,
            nbi,
        };
        room.declare();
        room
    }
}

/// Where one contender works.
pub(crate) struct Room<'a> {
    pub(crate) site: &'a Site,
    pub(crate) vhost: Vhost,
    nbi: Process,
}

impl Room<'_> {
    fn declare(&mut self) {
        let environment = self.environment(&[]);
        Process::binary(self.directory(), &["topology", "declare"], &environment).finish();
    }

    pub(crate) fn directory(&self) -> &Path {
        self.site.directory.path()
    }

    fn nbi_address(&self) -> &str {
        self.nbi.first_line.trim()
    }

    fn environment(&self, settings: &Settings) -> Vec<(String, String)> {
        let nbi = format!("http://{}", self.nbi_address());
        let own = [
            ("NBI_UPGRADE_AMQP__URL", self.vhost.url()),
            ("NBI_UPGRADE_NBI__URL", nbi),
            ("NBI_UPGRADE_NBI__ALLOW_HTTP", "true".to_owned()),
            ("NBI_UPGRADE_NBI__USERNAME", "nbi".to_owned()),
            ("NBI_UPGRADE_NBI__PASSWORD", "nbi".to_owned()),
        ];
        let more = settings
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()));
        own.into_iter()
            .chain(more)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    /// Starts a worker, and says how long it took to be ready.
    pub(crate) fn worker(&self, settings: &Settings) -> (Contender, Duration) {
        let address = format!("127.0.0.1:{}", free_port());
        let mut environment = self.environment(settings);
        environment.push(("NBI_UPGRADE_HTTP__LISTEN".to_owned(), address.clone()));
        let begun = Instant::now();
        let process = Process::binary(self.directory(), &["worker"], &environment);
        while !get(&address, "/readyz").is_some_and(|answer| {
            answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200")
        }) {
            assert!(
                begun.elapsed() < READY_WITHIN,
                "the worker is not ready: {:?}",
                get(&address, "/readyz")
            );
            std::thread::sleep(LOOK_AGAIN);
        }
        let took = begun.elapsed();
        (
            Contender {
                process,
                metrics: Some(address),
            },
            took,
        )
    }

    /// Starts a floor.
    pub(crate) fn floor(&self, kind: &str) -> Contender {
        let words = ["floor", kind, &self.vhost.url(), self.nbi_address()];
        Contender {
            process: Process::role(self.directory(), &words),
            metrics: None,
        }
    }

    /// Bytes that the contender has sent to the broker and received from it, as the broker counts them.
    pub(crate) fn traffic(&self) -> [f64; 2] {
        let columns = ["vhost", "recv_oct", "send_oct", "client_properties"];
        let all = (self.site.node).control(&[&["list_connections"], &columns[..]].concat());
        let vhost = format!("{}\t", self.vhost.name());
        let own = (all.lines()).filter(|line| line.starts_with(&vhost) && !line.contains(LOAD));
        let mut traffic = [0.0; 2];
        for line in own {
            for (sum, octets) in traffic.iter_mut().zip(line.split('\t').skip(1)) {
                *sum += octets.parse::<f64>().expect("a number");
            }
        }
        traffic
    }

    /// Calls that the NBI has had so far.
    pub(crate) fn calls(&self) -> f64 {
        let answer = get(self.nbi_address(), "/calls").expect("the NBI answers");
        let body = answer.rsplit("\r\n\r\n").next().expect("a body");
        body.parse().expect("a number")
    }

    /// Processor seconds of the NBI so far.
    pub(crate) fn nbi_cpu(&self) -> f64 {
        cpu(self.nbi.id())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // Idle queues cost the broker as well.
        self.site.node.api(
            "DELETE",
            &format!("/api/vhosts/{}", self.vhost.name()),
            None,
        );
    }
}

/// The worker or a floor.
pub(crate) struct Contender {
    pub(crate) process: Process,
    metrics: Option<String>,
}

impl Contender {
    pub(crate) fn cpu(&self) -> f64 {
        cpu(self.process.id())
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        memory(self.process.id(), "VmRSS")
    }

    /// The most that it ever was, in MiB.
    pub(crate) fn peak(&self) -> f64 {
        memory(self.process.id(), "VmHWM")
    }

    /// The value of a metric; `name` with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let address = self.metrics.as_deref().expect("floors have no metrics");
        let answer = get(address, "/metrics").expect("the worker answers");
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no metric {name}"))
    }
}

/// One answer, with its head.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
