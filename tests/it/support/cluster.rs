//! Three RabbitMQ nodes of one machine as one broker, with a port mapper of their own; gone when this process is.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::rabbit::{Node, Vhost, free_port, inside};

/// The mapper must outlive each of the nodes.
const MAPPER: &str = r#"
$INSIDE epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" >/dev/null 2>&1 & mapper=$!
read -r word
kill -9 "$mapper"
"#;
/// Joining takes its time on a busy machine.
const JOINED_WITHIN: Duration = Duration::from_secs(120);
/// The others and the node itself notice that it is cut off.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
const SIZE: usize = 3;

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    mapper: Child,
}

impl Cluster {
    /// Starts the nodes and joins them. A minority pauses, as the documentation recommends for three nodes.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let mapper = Command::new("bash")
            .args(["-c", MAPPER])
            .env("INSIDE", inside().join(" "))
            .env("ERL_EPMD_PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let lines =
            "cluster_partition_handling = pause_minority\nqueue_leader_locator = balanced\n";
        let mut nodes: Vec<Node> = (0..SIZE).map(|_| Node::begin(port, lines)).collect();
        nodes.iter_mut().for_each(Node::wait_until_up);
        let first = nodes[0].name();
        for node in &nodes[1..] {
            node.control(&["stop_app"]);
            node.control(&["reset"]);
            node.control(&["join_cluster", &first]);
            node.control(&["start_app"]);
        }
        let mut cluster = Self { nodes, mapper };
        cluster.wait_until_whole();
        cluster
    }

    /// Waits until every node serves and sees all.
    pub(crate) fn wait_until_whole(&mut self) {
        let deadline = Instant::now() + JOINED_WITHIN;
        self.nodes.iter_mut().for_each(Node::wait_until_up);
        loop {
            let sees_all = |node: &Node| {
                let all = node.api("GET", "/api/nodes", None);
                let running = all.as_array().into_iter().flatten();
                running.filter(|one| one["running"] == true).count() == SIZE
            };
            if self.nodes.iter().all(sees_all) {
                return;
            }
            assert!(Instant::now() < deadline, "the nodes do not see each other");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The URLs of a vhost, one a node.
    pub(crate) fn urls(&self, vhost: &Vhost) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.sees(vhost).url())
            .collect()
    }

    /// Which node leads a queue, as this node knows.
    pub(crate) fn leader(&self, asked: usize, vhost: &Vhost, queue: &str) -> usize {
        let path = format!("/api/queues/{}/{queue}", vhost.name());
        let deadline = Instant::now() + JOINED_WITHIN;
        loop {
            let queue = self.nodes[asked].api("GET", &path, None);
            let leader = queue["leader"].as_str().or_else(|| queue["node"].as_str());
            let position = self
                .nodes
                .iter()
                .position(|node| Some(node.name().as_str()) == leader);
            if let Some(position) = position {
                return position;
            }
            assert!(Instant::now() < deadline, "no leader: {queue}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the others see a node that is cut off as gone, and it has paused itself: it is the minority.
    pub(crate) fn wait_until_apart(&self, cut_off: usize) {
        let deadline = Instant::now() + NOTICED_WITHIN;
        let (victim, name) = (&self.nodes[cut_off], self.nodes[cut_off].name());
        let sees_it_gone = |node: &Node| {
            let all = node.api("GET", "/api/nodes", None);
            let mut all = all.as_array().into_iter().flatten();
            all.any(|one| one["name"] == *name && one["running"] == false)
        };
        let others = || (0..SIZE).filter(|other| *other != cut_off);
        while !others().all(|other| sees_it_gone(&self.nodes[other])) {
            assert!(Instant::now() < deadline, "the others still see {name}");
            std::thread::sleep(Duration::from_millis(200));
        }
        while victim.control(&["eval", "rabbit:is_running()."]).trim() != "false" {
            assert!(Instant::now() < deadline, "{name} has not paused itself");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Cuts one node off from the others, or lets it come back.
    pub(crate) fn isolate(&self, cut_off: usize, is_apart: bool) {
        let others: Vec<_> = (0..SIZE)
            .filter(|other| *other != cut_off)
            .map(|other| format!("'{}'", self.nodes[other].name()))
            .collect();
        let cookie = if is_apart { "apart" } else { "test" };
        let disconnect = if is_apart {
            "erlang:disconnect_node(N)"
        } else {
            "ok"
        };
        let code = format!(
            "[begin erlang:set_cookie(N, {cookie}), {disconnect} end || N <- [{}]].",
            others.join(",")
        );
        self.nodes[cut_off].control(&["eval", &code]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.mapper.stdin.take());
        let _ = self.mapper.wait();
    }
}
