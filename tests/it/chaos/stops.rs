//! What is under way when a worker stops.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use nbi_upgrade::driver::Driver;

use super::bench::{Bench, aside, settles_at, shared_vhost};
use super::others::bind_to;
use crate::support::rabbit::{Node, Vhost};

/// The queue `theirs` confirms nothing for so long, by the broker's clock.
async fn suspend_for(vhost: &Vhost, time: Duration) {
    let queue = format!(
        "rabbit_misc:r(<<\"{}\">>, queue, <<\"theirs\">>)",
        vhost.name()
    );
    let call = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), P = amqqueue:get_pid(Q), sys:suspend(P), \
         spawn(fun() -> timer:sleep({}), sys:resume(P) end).",
        time.as_millis()
    );
    aside(move || Node::shared().control(&["eval", &call])).await;
}

#[tokio::test]
async fn what_is_confirmed_some_time_after_a_stop_is_there_once() {
    let vhost = shared_vhost().await;
    let bench = Bench::on(&vhost).await;
    bench.client.declare("theirs", &[]).await;
    bind_to(&vhost, "upgrade.dead", "theirs", "").await;
    bench.metric_becomes("broker_connected", 1.0).await;
    suspend_for(&vhost, Duration::from_secs(6)).await;
    let suspended = Instant::now();
    let properties = BasicProperties::default();
    bench
        .client
        .publish("", "upgrade.steps", b"nobody can read it", properties)
        .await;
    bench.settles_at("upgrade.dead", 1).await;
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(suspended.elapsed())).await;
    let Bench { driver, client, .. } = bench;
    driver.stop().await;
    driver.close().await;
    settles_at(&client, "upgrade.steps", 0).await;
    settles_at(&client, "upgrade.dead", 1).await;
}
