//! Private RabbitMQ nodes: own ports, own directory, own Erlang port mapper; gone when this process is, however it ends.
//!
//! One node is shared by all tests of the process, which live in a vhost each; tests that break the broker start one of their own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub(crate) use super::client::{Client, Vhost};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// A chroot that holds another RabbitMQ; it must have /proc, /dev and our /tmp (`tests/broker-4x` makes one).
const ROOT: &str = "NBI_UPGRADE_TEST_RABBITMQ_ROOT";
const COOKIE: &str = "test";
const START_WITHIN: Duration = Duration::from_secs(90);

static COUNTER: AtomicU32 = AtomicU32::new(0);
static SHARED: OnceLock<Node> = OnceLock::new();

/// Starts the port mapper (in a cluster it may run already) and the broker, waits for the end of standard input, and kills both. `keep` as last word keeps the directory.
const GUARD: &str = r#"
$INSIDE epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" >/dev/null 2>&1 & mapper=$!
$INSIDE "$SERVER" >"$NODE_DIR/stdout" 2>&1 & broker=$!
echo "$broker" >"$NODE_DIR/broker.pid"
read -r word
kill -9 "$broker" "$mapper" 2>/dev/null
wait
[ "$word" = keep ] || rm -rf "$NODE_DIR"
"#;

/// A RabbitMQ node of this process.
pub(crate) struct Node {
    guard: Child,
    stdin: Option<ChildStdin>,
    directory: PathBuf,
    ports: Ports,
}

#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    distribution: u16,
    pub(super) management: u16,
    mapper: u16,
}

/// The words that bring a command into the chroot, if there is one.
pub(super) fn inside() -> Vec<String> {
    std::env::var(ROOT).map_or_else(|_| Vec::new(), |root| vec!["chroot".to_owned(), root])
}

/// Where RabbitMQ comes from: empty or the chroot.
fn root() -> String {
    std::env::var(ROOT).unwrap_or_default()
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

impl Node {
    /// The node that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start)
    }

    /// A node of its own, for tests that break it.
    pub(crate) fn start() -> Self {
        let mut node = Self::begin(free_port(), "");
        node.wait_until_up();
        node
    }

    /// A node of its own with more lines of configuration, in which `{directory}` stands for its directory, with files there, and with
    /// one more plugin.
    pub(crate) fn start_with(configuration: &str, files: &[(&str, &str)], plugin: &str) -> Self {
        let mut node = Self::begin_with(free_port(), configuration, files, plugin);
        node.wait_until_up();
        node
    }

    /// Begins to start a node with a port mapper on this port and more lines of configuration.
    pub(super) fn begin(mapper: u16, configuration: &str) -> Self {
        Self::begin_with(mapper, configuration, &[], "rabbitmq_management")
    }

    fn begin_with(mapper: u16, configuration: &str, files: &[(&str, &str)], plugin: &str) -> Self {
        assert!(
            Path::new(&(root() + SERVER)).exists(),
            "RabbitMQ is not installed ({SERVER}); run the tests through `tests/run`"
        );
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nbi-upgrade-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&directory).expect("a directory for the node");
        let ports = Ports {
            amqp: free_port(),
            distribution: free_port(),
            management: free_port(),
            mapper,
        };
        let place = directory.to_str().expect("it was made from text");
        write_configuration(
            &directory,
            ports,
            &configuration.replace("{directory}", place),
            plugin,
        );
        for (name, text) in files {
            std::fs::write(directory.join(name), text).expect("the directory is ours");
        }
        let (guard, stdin) = spawn(&directory, &name, ports);
        Self {
            guard,
            stdin: Some(stdin),
            directory,
            ports,
        }
    }

    /// Its Erlang name.
    pub(super) fn name(&self) -> String {
        let directory = self.directory.file_name().and_then(|name| name.to_str());
        format!("{}@localhost", directory.expect("it was made from text"))
    }

    /// Runs `rabbitmqctl` on the node.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let mut words = inside();
        words.push(CONTROL.to_owned());
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["--node", &self.name(), "--erlang-cookie", COOKIE, "--quiet"])
            .args(arguments)
            .env("HOME", &self.directory)
            .env("ERL_EPMD_PORT", self.ports.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", self.directory.join("env.conf"))
            .env("ERL_CRASH_DUMP", self.directory.join("erl_crash.dump"))
            .stdin(Stdio::null())
            .output()
            .expect("rabbitmqctl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{errors}"
        );
        text
    }

    pub(super) fn wait_until_up(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        while !matches!(self.http("GET", "/api/overview", None), Ok((200, _)))
            || !self.accepts_amqp()
        {
            if Instant::now() > deadline {
                let log =
                    std::fs::read_to_string(self.directory.join("stdout")).unwrap_or_default();
                panic!("RabbitMQ did not start within {START_WITHIN:?}:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn accepts_amqp(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.ports.amqp)).is_ok()
    }

    /// Kills the broker as a power cut would; the directory stays.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(b"keep\n").expect("the guard reads");
        }
        self.guard.wait().expect("the guard ends");
    }

    /// Starts the broker again on the same directory and ports.
    pub(crate) fn restart(&mut self) {
        self.begin_again();
        self.wait_until_up();
    }

    /// As [`Node::restart`], without waiting.
    pub(crate) fn begin_again(&mut self) {
        let name = self
            .directory
            .file_name()
            .and_then(|name| name.to_str())
            .expect("it was made from text")
            .to_owned();
        let (guard, stdin) = spawn(&self.directory, &name, self.ports);
        (self.guard, self.stdin) = (guard, Some(stdin));
    }

    /// A new vhost.
    pub(crate) fn vhost(&self) -> Vhost {
        let name = format!("v{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        self.api("PUT", &format!("/api/vhosts/{name}"), None);
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        self.api("PUT", &format!("/api/permissions/{name}/guest"), Some(all));
        Vhost {
            name,
            ports: self.ports,
        }
    }

    /// A user who may do only this in the vhost; the URL to come in by.
    pub(crate) fn user(&self, vhost: &Vhost, user: &str, permissions: &str) -> String {
        self.api(
            "PUT",
            &format!("/api/users/{user}"),
            Some(r#"{"password":"s3cret","tags":""}"#),
        );
        self.api(
            "PUT",
            &format!("/api/permissions/{}/{user}", vhost.name),
            Some(permissions),
        );
        format!(
            "amqp://{user}:s3cret@127.0.0.1:{}/{}",
            self.ports.amqp, vhost.name
        )
    }

    /// The URL by which a user with this password comes into the vhost.
    pub(crate) fn url(&self, user: &str, password: &str, vhost: &str) -> String {
        format!(
            "amqp://{user}:{password}@127.0.0.1:{}/{vhost}",
            self.ports.amqp
        )
    }

    /// Ends every connection of a vhost from the broker's side; how many there were.
    pub(crate) fn close_connections(&self, vhost: &Vhost) -> usize {
        let all = self.api(
            "GET",
            &format!("/api/vhosts/{}/connections", vhost.name),
            None,
        );
        let names: Vec<_> = all
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        for name in &names {
            let path = name.replace(' ', "%20").replace('>', "%3E");
            let _ = self.http("DELETE", &format!("/api/connections/{path}"), None);
        }
        names.len()
    }

    /// The same vhost by way of this node, where the node is one of a cluster.
    pub(crate) fn sees(&self, vhost: &Vhost) -> Vhost {
        Vhost {
            name: vhost.name.clone(),
            ports: self.ports,
        }
    }

    pub(crate) fn api(&self, method: &str, path: &str, body: Option<&str>) -> Value {
        let (status, body) = self
            .http(method, path, body)
            .expect("the management API answers");
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {body}"
        );
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// One request to the management API.
    fn http(&self, method: &str, path: &str, body: Option<&str>) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.management))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let body = body.unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nauthorization: Basic {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            STANDARD.encode("guest:guest"),
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default();
        Ok((status, body))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A file of `deploy/rabbitmq`.
pub(crate) fn shipped(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/rabbitmq");
    std::fs::read_to_string(folder.join(name)).expect("it is shipped")
}

fn write_configuration(directory: &Path, ports: Ports, more: &str, plugin: &str) {
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).expect("the directory is ours")
    };
    write(
        "enabled_plugins",
        format!("[rabbitmq_management,{plugin}].\n"),
    );
    write(
        "rabbitmq.conf",
        format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             collect_statistics_interval = 1000\nvm_memory_high_watermark.absolute = 4GB\ndisk_free_limit.absolute = 50MB\n{more}",
            ports.amqp, ports.management
        ),
    );
    // The one that operators get.
    write("advanced.config", shipped("advanced.config"));
    write("env.conf", "NODE_IP_ADDRESS=127.0.0.1\n".to_owned());
}

fn spawn(directory: &Path, name: &str, ports: Ports) -> (Child, ChildStdin) {
    let at = |file: &str| directory.join(file);
    let mut guard = Command::new("bash")
        .args(["-c", GUARD])
        .env("SERVER", SERVER)
        .env("INSIDE", inside().join(" "))
        .env("NODE_DIR", directory)
        .env("HOME", directory)
        .env("ERL_EPMD_PORT", ports.mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        // Makes the script become the Erlang process instead of its parent, so that killing it kills the broker.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        // A node that cannot start would leave its dump where the tests run.
        .env("ERL_CRASH_DUMP", at("erl_crash.dump"))
        .env("RABBITMQ_NODENAME", format!("{name}@localhost"))
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", at("data"))
        .env("RABBITMQ_LOG_BASE", at("log"))
        .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
        .env("RABBITMQ_PID_FILE", at("rabbitmq.pid"))
        .env("RABBITMQ_CONF_ENV_FILE", at("env.conf"))
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            format!("-setcookie {COOKIE} +S 2:2 +sbwt none"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash starts");
    let stdin = guard.stdin.take().expect("it is piped");
    (guard, stdin)
}
