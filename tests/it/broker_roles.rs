//! The users of `deploy/rabbitmq/definitions.json` on a real broker: each can do its work and is refused the rest.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::support::processes::{Process, Simulator, Worker, until};
use crate::support::rabbit::{Node, shipped};
use crate::support::site::{GRACE, PATIENCE, succeeds};

/// The vhost of the definitions.
const VHOST: &str = "upgrade";
const PASSWORD: &str = "s3cret";
const ADMIN: &str = "upgrade-admin";
const WORKER: &str = "upgrade-worker";
const PUBLISHER: &str = "upgrade-publisher";
const CONSUMER: &str = "upgrade-consumer";
const OPERATOR: &str = "upgrade-operator";
const ROLES: [&str; 5] = [ADMIN, WORKER, PUBLISHER, CONSUMER, OPERATOR];

/// Something that a client can do to the broker.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Publishes to an exchange; "" is the one that leads to every queue.
    Publish(&'static str, &'static str),
    /// Takes a message off a queue.
    Get(&'static str),
    /// Reads a stream.
    Read(&'static str),
    /// Declares a quorum queue of this name and deletes it again.
    Own(&'static str),
    /// Declares such a queue, binds it to an exchange, and deletes it again.
    Bind(&'static str, &'static str),
    /// Leads an exchange to a queue that stands.
    Lead(&'static str, &'static str),
    /// Deletes a queue, here one that is not there.
    Delete(&'static str),
}

/// Who may do what; whoever is not named is refused.
const RIGHTS: &[(Act, &[&str])] = &[
    (
        Act::Publish("upgrade.requests", "request"),
        &[ADMIN, WORKER, PUBLISHER, OPERATOR],
    ),
    (
        Act::Publish("upgrade.control", ""),
        &[ADMIN, WORKER, OPERATOR],
    ),
    // Events can be believed.
    (
        Act::Publish("upgrade.results", "upgrade.completed.-"),
        &[ADMIN, WORKER],
    ),
    (Act::Publish("upgrade.dead", ""), &[ADMIN, WORKER]),
    // Jobs in flight cannot be forged. An operator puts back what was dead.
    (
        Act::Publish("", "upgrade.steps"),
        &[ADMIN, WORKER, OPERATOR],
    ),
    (Act::Get("upgrade.requests"), &[ADMIN, WORKER]),
    (Act::Get("upgrade.steps"), &[ADMIN, WORKER]),
    (Act::Get("upgrade.commands"), &[ADMIN, WORKER]),
    // Jobs that wait are nobody's; not even a worker takes them out.
    (Act::Get("upgrade.delay.4s"), &[ADMIN]),
    (Act::Get("upgrade.dead"), &[ADMIN, OPERATOR]),
    (
        Act::Read("upgrade.events"),
        &[ADMIN, WORKER, CONSUMER, OPERATOR],
    ),
    (Act::Read("upgrade.control"), &[ADMIN, WORKER, OPERATOR]),
    (Act::Own("upgrade-consumer.billing"), &[CONSUMER]),
    (
        Act::Bind("upgrade-consumer.billing", "upgrade.results"),
        &[CONSUMER],
    ),
    // Requests show devices and firmware before anybody decided about them.
    (
        Act::Bind("upgrade-consumer.billing", "upgrade.requests"),
        &[],
    ),
    // What `submit --wait` listens with.
    (
        Act::Bind("upgrade.listener.1", "upgrade.results"),
        &[ADMIN, OPERATOR],
    ),
    (Act::Own("upgrade.campaign.spring"), &[ADMIN, WORKER]),
    (
        Act::Bind("upgrade.campaign.spring.log", "upgrade.results"),
        &[ADMIN, WORKER],
    ),
    (Act::Own("upgrade.another"), &[ADMIN]),
    (Act::Own("another"), &[]),
    (Act::Lead("upgrade.results", "upgrade.steps"), &[ADMIN]),
    (Act::Delete("upgrade.delay.3s"), &[ADMIN]),
];

/// The shared node with the shipped definitions; users are the same for all, passwords are ours.
async fn node() -> &'static Node {
    static READY: OnceLock<&'static Node> = OnceLock::new();
    let ready = tokio::task::spawn_blocking(|| {
        *READY.get_or_init(|| {
            let node = Node::shared();
            for role in ROLES {
                let body = format!(r#"{{"password":"{PASSWORD}","tags":""}}"#);
                node.api("PUT", &format!("/api/users/{role}"), Some(&body));
            }
            node.api(
                "POST",
                "/api/definitions",
                Some(&shipped("definitions.json")),
            );
            node
        })
    });
    ready.await.expect("the broker takes the definitions")
}

async fn connect(node: &Node, role: &str) -> Connection {
    Connection::connect(
        &node.url(role, PASSWORD, VHOST),
        ConnectionProperties::default(),
    )
    .await
    .unwrap_or_else(|error| panic!("{role} is not let in: {error}"))
}

fn environment(node: &Node, role: &str) -> Vec<(String, String)> {
    let pair = |key: &str, value: &str| (format!("NBI_UPGRADE_{key}"), value.to_owned());
    vec![
        pair("AMQP__URL", &node.url(role, PASSWORD, VHOST)),
        pair("AMQP__TOPOLOGY", "check"),
    ]
}

/// What stands, declared by the role that is there for it.
async fn declared(node: &Node, directory: &Path) {
    let arguments = ["topology", "declare"];
    succeeds(Process::start(
        directory,
        &arguments,
        &environment(node, ADMIN),
        Stdio::null(),
    ))
    .await;
}

async fn own(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), options, arguments)
        .await?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            "#".into(),
            options,
            FieldTable::default(),
        )
        .await
}

async fn delete(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeleteOptions::default();
    channel.queue_delete(queue.into(), options).await.map(drop)
}

async fn act(channel: &Channel, act: Act) -> lapin::Result<()> {
    match act {
        Act::Publish(exchange, key) => {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let confirm = channel
                .basic_publish(exchange.into(), key.into(), options, b"{}", properties)
                .await?;
            confirm.await.map(drop)
        }
        Act::Get(queue) => {
            let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
            got.await.map(drop)
        }
        Act::Read(stream) => {
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let consumer = channel
                .basic_consume(stream.into(), "".into(), options, FieldTable::default())
                .await?;
            channel
                .basic_cancel(consumer.tag(), BasicCancelOptions::default())
                .await
        }
        Act::Own(queue) => {
            own(channel, queue).await?;
            delete(channel, queue).await
        }
        Act::Bind(queue, exchange) => {
            own(channel, queue).await?;
            bind(channel, queue, exchange).await?;
            delete(channel, queue).await
        }
        Act::Lead(exchange, queue) => bind(channel, queue, exchange).await,
        Act::Delete(queue) => delete(channel, queue).await,
    }
}

#[tokio::test]
async fn every_role_of_the_broker_can_do_its_work_and_is_refused_the_rest() {
    let node = node().await;
    let directory = tempfile::tempdir().unwrap();
    declared(node, directory.path()).await;
    let mut wrong = Vec::new();
    for role in ROLES {
        let connection = connect(node, role).await;
        for (attempt, allowed) in RIGHTS {
            // A refusal closes the channel.
            let channel = connection.create_channel().await.unwrap();
            let outcome = match act(&channel, *attempt).await {
                Ok(()) => true,
                Err(error) if error.to_string().contains("ACCESS_REFUSED") => false,
                Err(error) => panic!("{role}, {attempt:?}: {error}"),
            };
            if outcome != allowed.contains(&role) {
                let verb = if outcome { "may" } else { "may not" };
                wrong.push(format!("{role} {verb} {attempt:?}"));
            }
        }
    }
    // The queue of the consumer that was refused its binding is left.
    let connection = connect(node, CONSUMER).await;
    let channel = connection.create_channel().await.unwrap();
    delete(&channel, "upgrade-consumer.billing").await.unwrap();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_job_passes_from_publisher_to_worker_to_consumer_with_the_rights_of_each_alone() {
    let node = node().await;
    let directory = tempfile::tempdir().unwrap();
    declared(node, directory.path()).await;
    let connection = connect(node, CONSUMER).await;
    let channel = connection.create_channel().await.unwrap();
    let queue = "upgrade-consumer.story";
    own(&channel, queue).await.unwrap();
    bind(&channel, queue, "upgrade.results").await.unwrap();

    let simulator = Simulator::start(directory.path(), &["--time-scale", "0.01"]);
    let mut working = environment(node, WORKER);
    for (key, value) in [
        ("NBI__URL", &*format!("http://{}", simulator.address())),
        ("NBI__ALLOW_HTTP", "true"),
        ("NBI__USERNAME", "nbi"),
        ("NBI__PASSWORD", "nbi"),
        ("AWAIT_RESULT__INITIAL", "1s"),
        ("AWAIT_RESULT__MAX", "2s"),
    ] {
        working.push((format!("NBI_UPGRADE_{key}"), value.to_owned()));
    }
    // `check` asks for what a worker needs, and finds that it has it.
    succeeds(Process::start(
        directory.path(),
        &["check"],
        &working,
        Stdio::null(),
    ))
    .await;
    let worker = Worker::start(directory.path(), &working).await;
    worker.ready().await;

    let submit = |cpe_id: &'static str, role: &str, more: &[&str]| {
        let url = "https://files.example/fw-2.bin";
        let mut arguments = vec!["submit", "--cpe-id", cpe_id, "--firmware-url", url];
        arguments.extend(more);
        let environment = environment(node, role);
        Process::start(directory.path(), &arguments, &environment, Stdio::null())
    };
    succeeds(submit("CPE000001", PUBLISHER, &[])).await;
    // Who also listens needs a queue for it: an operator may have one, a publisher may not.
    succeeds(submit(
        "CPE000002",
        OPERATOR,
        &["--wait", "--wait-timeout", "2m"],
    ))
    .await;
    let mut listening = submit("CPE000003", PUBLISHER, &["--wait"]);
    let status = listening.ended(PATIENCE).await;
    let log = listening.log().join("\n");
    assert!(
        !status.success() && log.contains("ACCESS_REFUSED"),
        "{status}: {log}"
    );
    // In an emergency the credentials at hand are often a worker's.
    let pause = ["pause", "--all"];
    let mut pausing = Process::start(
        directory.path(),
        &pause,
        &environment(node, WORKER),
        Stdio::null(),
    );
    let status = pausing.ended(PATIENCE).await;
    let log = pausing.log().join("\n");
    assert!(
        status.code() == Some(1)
            && log.contains("use the role upgrade-operator (deploy/rabbitmq); nothing was sent"),
        "{status}: {log}"
    );

    // Dead letters are an operator's; nobody else sees them.
    let listing = |role| {
        let arguments = ["dead", "list"];
        let environment = environment(node, role);
        Process::start(directory.path(), &arguments, &environment, Stdio::null())
    };
    succeeds(listing(OPERATOR)).await;
    // Whether there are any, everybody may know; what they hold, nobody else.
    let mut refused = listing(CONSUMER);
    let status = refused.ended(PATIENCE).await;
    let log = refused.log().join("\n");
    let sees_nothing = log.contains("ACCESS_REFUSED") || log.contains("0 dead letters");
    assert!(sees_nothing, "{status}: {log}");

    let mut completed = Vec::new();
    until("both outcomes at the consumer", PATIENCE, async || {
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = channel.basic_get(queue.into(), options).await.unwrap() {
            let event: Value = serde_json::from_slice(&got.delivery.data).unwrap();
            if event["type"] == "upgrade.completed" {
                completed.push(event["subject"].as_str().unwrap_or_default().to_owned());
            }
        }
        (completed.len() >= 2).then_some(())
    })
    .await;
    completed.sort();
    assert_eq!(completed, ["CPE000001", "CPE000002"]);
    worker.stop(GRACE).await;
    delete(&channel, queue).await.unwrap();
}

#[tokio::test]
async fn a_topic_permission_keeps_a_consumer_to_its_campaign() {
    let node = node().await;
    let directory = tempfile::tempdir().unwrap();
    declared(node, directory.path()).await;
    // A user of its own, as the other tests run beside this one; the pattern is that of deploy/rabbitmq/README.md.
    let user = "upgrade-consumer-spring";
    let readme = shipped("README.md");
    let pattern = readme
        .split('\'')
        .find(|text| text.starts_with('^') && text.contains("spring-2026"))
        .expect("the README shows the pattern");
    for (path, body) in [
        (
            format!("/api/users/{user}"),
            json!({"password": PASSWORD, "tags": ""}),
        ),
        (
            format!("/api/permissions/{VHOST}/{user}"),
            json!({"configure": "^upgrade-consumer\\.", "write": "^upgrade-consumer\\.",
                   "read": "^(upgrade\\.results|upgrade-consumer\\..*)$"}),
        ),
        (
            format!("/api/topic-permissions/{VHOST}/{user}"),
            json!({"exchange": "upgrade.results", "write": "^$", "read": pattern}),
        ),
    ] {
        node.api("PUT", &path, Some(&body.to_string()));
    }
    let connection = connect(node, user).await;
    let queue = "upgrade-consumer.spring";
    own(&connection.create_channel().await.unwrap(), queue)
        .await
        .unwrap();
    for (key, is_allowed) in [
        ("upgrade.*.spring-2026", true),
        ("upgrade.completed.spring-2026", true),
        // With the events of the campaign itself, which have one word more.
        ("upgrade.#.spring-2026", true),
        ("upgrade.campaign.*.spring-2026", true),
        ("#", false),
        ("upgrade.*.#", false),
        ("upgrade.#.autumn-2026", false),
        ("upgrade.#", false),
        ("upgrade.*.autumn-2026", false),
        ("upgrade.*.spring-20262", false),
    ] {
        let channel = connection.create_channel().await.unwrap();
        let bound = channel.queue_bind(
            queue.into(),
            "upgrade.results".into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        match bound.await {
            Ok(()) => assert!(is_allowed, "{key} was bound"),
            Err(error) => assert!(
                !is_allowed && error.to_string().contains("ACCESS_REFUSED"),
                "{key}: {error}"
            ),
        }
    }
    let channel = connection.create_channel().await.unwrap();
    delete(&channel, queue).await.unwrap();
}

#[tokio::test]
async fn policies_reach_the_queues_that_they_are_for() {
    let node = node().await;
    let directory = tempfile::tempdir().unwrap();
    declared(node, directory.path()).await;
    let connection = connect(node, CONSUMER).await;
    let channel = connection.create_channel().await.unwrap();
    let queue = "upgrade-consumer.policies";
    own(&channel, queue).await.unwrap();
    // Queue, its policy, and what the operator's policy bounds.
    let wanted = [
        ("upgrade.steps", "upgrade-leaders", &[][..]),
        (
            "upgrade.requests",
            "upgrade-leaders",
            &[("max-length", 2_000_000_u64)],
        ),
        ("upgrade.delay.16s", "upgrade-leaders", &[]),
        (
            queue,
            "",
            &[
                ("max-length-bytes", 1_073_741_824),
                ("expires", 1_209_600_000),
            ],
        ),
    ];
    for (name, policy, bounds) in wanted {
        until(name, Duration::from_secs(60), async || {
            let path = format!("/api/queues/{VHOST}/{name}");
            let seen = tokio::task::spawn_blocking(move || node.api("GET", &path, None)).await;
            let seen = seen.unwrap();
            let in_force = &seen["effective_policy_definition"];
            let is_bounded = bounds.iter().all(|(key, value)| in_force[key] == *value);
            let is_unbounded = bounds.is_empty() && in_force["max-length"].is_null();
            let is_led = seen["policy"].as_str().unwrap_or_default() == policy;
            (is_led && is_bounded && (!bounds.is_empty() || is_unbounded)).then_some(())
        })
        .await;
    }
    delete(&channel, queue).await.unwrap();
}
