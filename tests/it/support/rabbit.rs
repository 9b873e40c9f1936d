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
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::Value;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const START_WITHIN: Duration = Duration::from_secs(90);

static COUNTER: AtomicU32 = AtomicU32::new(0);
static SHARED: OnceLock<Node> = OnceLock::new();

/// Starts the port mapper and the broker, waits for the end of standard input, and kills both. `keep` as last word keeps the directory.
const GUARD: &str = r#"
epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" >/dev/null 2>&1 & mapper=$!
"$SERVER" >"$NODE_DIR/stdout" 2>&1 & broker=$!
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
struct Ports {
    amqp: u16,
    distribution: u16,
    management: u16,
    mapper: u16,
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
        assert!(
            Path::new(SERVER).exists(),
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
            mapper: free_port(),
        };
        write_configuration(&directory, ports);
        let (guard, stdin) = spawn(&directory, &name, ports);
        let mut node = Self {
            guard,
            stdin: Some(stdin),
            directory,
            ports,
        };
        node.wait_until_up();
        node
    }

    fn wait_until_up(&mut self) {
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
        let name = self
            .directory
            .file_name()
            .and_then(|name| name.to_str())
            .expect("it was made from text")
            .to_owned();
        let (guard, stdin) = spawn(&self.directory, &name, self.ports);
        (self.guard, self.stdin) = (guard, Some(stdin));
        self.wait_until_up();
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

    fn api(&self, method: &str, path: &str, body: Option<&str>) -> Value {
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

fn write_configuration(directory: &Path, ports: Ports) {
    let write = |name: &str, text: String| {
        std::fs::write(directory.join(name), text).expect("the directory is ours")
    };
    write("enabled_plugins", "[rabbitmq_management].\n".to_owned());
    write(
        "rabbitmq.conf",
        format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             collect_statistics_interval = 1000\nvm_memory_high_watermark.absolute = 4GB\ndisk_free_limit.absolute = 50MB\n",
            ports.amqp, ports.management
        ),
    );
    let advanced = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 15000}]}].\n";
    write("advanced.config", advanced.to_owned());
    write("env.conf", "NODE_IP_ADDRESS=127.0.0.1\n".to_owned());
}

fn spawn(directory: &Path, name: &str, ports: Ports) -> (Child, ChildStdin) {
    let at = |file: &str| directory.join(file);
    let mut guard = Command::new("bash")
        .args(["-c", GUARD])
        .env("SERVER", SERVER)
        .env("NODE_DIR", directory)
        .env("HOME", directory)
        .env("ERL_EPMD_PORT", ports.mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        // Makes the script become the Erlang process instead of its parent, so that killing it kills the broker.
        .env("RUNNING_UNDER_SYSTEMD", "true")
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
            "-setcookie test +S 2:2 +sbwt none",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash starts");
    let stdin = guard.stdin.take().expect("it is piped");
    (guard, stdin)
}

/// A vhost of a node.
#[derive(Clone)]
pub(crate) struct Vhost {
    name: String,
    ports: Ports,
}

impl Vhost {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the management API of its node listens.
    pub(crate) fn management(&self) -> String {
        format!("127.0.0.1:{}", self.ports.management)
    }

    /// Where its node listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.amqp)
    }

    /// The URL to come in by.
    pub(crate) fn url(&self) -> String {
        format!(
            "amqp://guest:guest@127.0.0.1:{}/{}",
            self.ports.amqp, self.name
        )
    }

    /// A client of its own, beside the code under test.
    pub(crate) async fn client(&self) -> Client {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default())
            .await
            .expect("the broker is up");
        Client { connection }
    }
}

/// Looks at the broker and puts things there.
pub(crate) struct Client {
    connection: Connection,
}

/// A message as it lies in a queue.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

impl Message {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => Some(format!("{other:?}")),
        }
    }
}

impl Client {
    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Declares a queue with integer and text arguments.
    pub(crate) async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel()
            .await
            .queue_declare(queue.into(), options, table)
            .await
            .expect("the queue can be declared");
    }

    /// Messages ready in a queue, at this moment.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await;
        channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .expect("the queue stands")
            .message_count()
    }

    /// Publishes and awaits the confirm.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let confirm = channel
            .basic_publish(exchange.into(), key.into(), options, body, properties)
            .await;
        let confirmation = confirm
            .expect("it is written")
            .await
            .expect("it is answered");
        assert_eq!(confirmation, Confirmation::Ack(None));
    }

    /// Takes a message off a queue.
    pub(crate) async fn take(&self, queue: &str) -> Option<Message> {
        let channel = self.channel().await;
        let got = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .expect("the queue stands")?;
        got.delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .expect("it is ours");
        let delivery = got.delivery;
        Some(Message {
            body: delivery.data,
            properties: delivery.properties,
        })
    }

    /// Waits for a message on a queue.
    pub(crate) async fn wait_for(&self, queue: &str) -> Message {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(message) = self.take(queue).await {
                return message;
            }
            assert!(Instant::now() < deadline, "nothing arrived on {queue}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes a queue.
    pub(crate) async fn delete(&self, queue: &str) {
        let deleted = self
            .channel()
            .await
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await;
        deleted.expect("the queue can be deleted");
    }
}
