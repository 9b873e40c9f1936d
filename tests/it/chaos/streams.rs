//! A stream that the broker does not find again: killed within a second of the declaration, RabbitMQ 3.10 leaves it inaccessible.

use std::time::{Duration, Instant};

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
    let back = async { bench.metric_becomes("broker_connected", 1.0).await };
    let within = tokio::time::timeout(Duration::from_secs(300), back).await;
    println!(
        "killed at once: connected again: {within:?} after {:.0?}; {}",
        begun.elapsed(),
        bench.telemetry.readiness()
    );
    bench.driver.stop().await;
    bench.driver.close().await;
    aside(move || drop(node)).await;
}
