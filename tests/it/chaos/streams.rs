//! A stream that the broker does not find again: killed within a second of the declaration, RabbitMQ 3.10 leaves it inaccessible.

use std::time::{Duration, Instant};

use lapin::types::AMQPValue;
use nbi_upgrade::driver::Driver;

use super::bench::{Bench, aside};
use crate::support::rabbit::Node;
use crate::support::site::is_long;

/// Looks how long it lasts.
#[tokio::test]
async fn a_broker_killed_right_after_the_first_declaration_comes_back() {
    if !is_long() {
        return;
    }
    let node = aside(Node::start).await;
    let vhost = node.vhost();
    let bench = Bench::on(&vhost).await;
    let node = aside(move || {
        let mut node = node;
        node.kill9();
        node.restart();
        node
    })
    .await;
    let begun = Instant::now();
    let look = async |what: &str, within: u64| {
        let deadline = Instant::now() + Duration::from_secs(within);
        while bench.metric("broker_connected") != 1.0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!(
            "{what}: after {:.0?}: {}",
            begun.elapsed(),
            bench.telemetry.readiness()
        );
    };
    look("killed at once", 20).await;
    let stream = ("x-queue-type", AMQPValue::LongString("stream".into()));
    vhost.client().await.declare("another", &[stream]).await;
    look("another stream declared", 35).await;
    let vhost_name = vhost.name().to_owned();
    let node = aside(move || {
        println!(
            "{}",
            node.control(&[
                "list_queues",
                "--vhost",
                &vhost_name,
                "name",
                "type",
                "state",
                "messages"
            ])
        );
        println!(
            "{}",
            node.control(&["delete_queue", "--vhost", &vhost_name, "upgrade.events"])
        );
        node
    })
    .await;
    look("deleted", 60).await;
    bench.driver.stop().await;
    bench.driver.close().await;
    aside(move || drop(node)).await;
}
