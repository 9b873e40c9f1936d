//! What the broker refuses: it costs those who need it, and nobody else.

use serde_json::{Value, json};

use super::campaigns::campaign;
use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, requests};

/// Everything a worker needs but the right to make the queues of campaigns, which nobody could make beforehand.
#[tokio::test]
async fn a_campaign_whose_queues_are_refused_stops_nobody_else() {
    const JOBS: usize = 20;
    let mut site = Site::begin(0, Plan::default()).await;
    let permissions = json!({
        "configure": "^$",
        "write": format!("^({PREFIX}\\..*|amq\\.default)$"),
        "read": format!("^{PREFIX}\\..*"),
    });
    let vhost = site.vhost.clone();
    let url = tokio::task::spawn_blocking(move || {
        Node::shared().user(&vhost, "no-campaigns", &permissions.to_string())
    });
    let with_all_rights = site.vhost.url();
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL", &url.await.expect("a user"));
    site.set("NBI_UPGRADE_AMQP__TOPOLOGY", "check");
    for _ in 0..2 {
        site.start_worker().await;
    }
    for worker in &site.workers {
        worker.ready().await;
    }
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL", &with_all_rights);
    site.submit(&[campaign(50..=60, json!({}))]).await;
    let trouble = until("a line that names the campaign", PATIENCE, async || {
        let lines = site.workers.iter().flat_map(|worker| worker.process.log());
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.find(|line| line["campaign_id"] == "spring" && line["level"] == "WARN")
    })
    .await;
    let said = trouble.to_string();
    assert!(
        said.contains("declare queue") && said.contains("configure"),
        "{said}"
    );
    site.submit(&requests(JOBS)).await;
    site.results.finals(JOBS, PATIENCE).await;
    assert_eq!(site.results.outcomes()["completed/upgraded"], JOBS);
    for worker in &site.workers {
        assert_eq!(worker.metric("broker_reconnects_total").await, 0.0);
        assert_eq!(worker.metric("broker_connected").await, 1.0);
    }
    site.delete_vhost().await;
}
