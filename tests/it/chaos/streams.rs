//! Streams that the broker does not find again: killed within a second of the first declaration, RabbitMQ 3.10 loses sight of them.

use std::time::{Duration, Instant};

use nbi_upgrade::driver::Driver;

use super::bench::{Bench, aside};
use crate::support::rabbit::Node;
use crate::support::site::is_long;

/// Longer than a broker in order needs.
const BY_ITSELF: Duration = Duration::from_secs(40);

/// Whether it comes back by itself depends on the moment of the kill; after what `docs/reliability.md` recommends it must.
#[tokio::test]
async fn a_broker_killed_right_after_the_first_declaration_can_be_brought_back() {
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
    while bench.metric("broker_connected") != 1.0 && begun.elapsed() < BY_ITSELF {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "by itself: {:.0?}: {}",
        begun.elapsed(),
        bench.telemetry.readiness()
    );
    let is_lost = bench.metric("broker_connected") != 1.0;
    let node = aside(move || {
        for stream in ["upgrade.events", "upgrade.control"] {
            let delete = format!(
                "rabbit_amqqueue:internal_delete(rabbit_misc:r(<<\"{}\">>, queue, <<\"{stream}\">>), <<\"operator\">>).",
                vhost.name()
            );
            if is_lost {
                node.control(&["eval", &delete]);
            }
        }
        node
    })
    .await;
    bench.metric_becomes("broker_connected", 1.0).await;
    println!("in the end: {:.0?}", begun.elapsed());
    bench.driver.stop().await;
    bench.driver.close().await;
    aside(move || drop(node)).await;
}
